from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_Map = NDArray[np.uint8] | None
_Voxel = Sequence[int] | NDArray[np.integer[Any]]

METHODS: Final[tuple[str, ...]]

def fft_length(n: int) -> int: ...
def choose_method(hws: _Voxel, low: _Voxel, high: _Voxel) -> str: ...
def memory_of(hws: _Voxel, low: _Voxel, high: _Voxel) -> int: ...
def search_points(
    box1: _Floats,
    usable1: _Map,
    box2: _Floats,
    usable2: _Map,
    hws: _Voxel,
    low: _Voxel,
    high: _Voxel,
    zero_mean: bool,
    centre1: NDArray[np.int64],
    centre2: NDArray[np.int64],
    offset: NDArray[np.int64],
    cc: NDArray[np.float64],
    error: NDArray[np.float64],
    min_overlap: float = 0.0,
    method: str = "auto",
    bases: tuple[float, float] = ...,
) -> tuple[int, int]: ...
def search_window(
    window1: _Floats,
    usable1: _Map,
    box2: _Floats,
    usable2: _Map,
    low: _Voxel,
    high: _Voxel,
    zero_mean: bool,
    centre2: _Voxel,
    min_overlap: float = 0.0,
    method: str = "auto",
    bases: tuple[float, float] = ...,
) -> tuple[NDArray[np.int64], float, float]: ...
