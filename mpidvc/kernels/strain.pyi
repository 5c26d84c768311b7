from typing import Any

from numpy.typing import NDArray

from mpidvc.arrays import Array, Ints

def polar(gradients: Array) -> tuple[Array, Array, Array, Array]: ...
def fit_gradients(
    centres: Array, positions: Array, displacements: Array, good: NDArray[Any], start: Ints, found: Ints, flat: bool
) -> tuple[Array, Array, Ints]: ...
