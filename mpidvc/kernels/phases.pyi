from typing import Any

from numpy.typing import NDArray

from mpidvc.arrays import Ints

def cross_phases(spectrum: NDArray[Any], reference: NDArray[Any], least: float) -> Ints: ...
