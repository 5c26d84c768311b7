from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]

def coherency(
    positions: _Floats, phi: _Floats, points: _Indices, start: _Indices, found: _Indices
) -> NDArray[np.float64]: ...
def fit(
    positions: _Floats, phi: _Floats, at: _Floats, start: _Indices, found: _Indices
) -> tuple[NDArray[np.float64], NDArray[np.int8]]: ...
def residuals(
    positions: _Floats,
    phi: _Floats,
    points: _Indices,
    start: _Indices,
    found: _Indices,
    usable: NDArray[np.uint8],
    epsilon: float,
    fewest: int,
) -> NDArray[np.float64]: ...
def around(
    dims: Sequence[int], reach: Sequence[int], points: _Indices
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
def medians(
    positions: _Floats,
    phi: _Floats,
    dims: Sequence[int],
    usable: NDArray[np.uint8],
    radius: int,
    points: _Indices,
    displacements_only: bool = False,
) -> NDArray[np.float64]: ...
