from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_Map = NDArray[np.uint8] | None
_Triple = Sequence[float] | NDArray[np.floating[Any]] | NDArray[np.integer[Any]]
_Voxel = Sequence[int] | NDArray[np.integer[Any]]
_Matrix = Sequence[Sequence[float]] | NDArray[np.floating[Any]]

INSTRUCTION_SETS: Final[tuple[str, ...]]
RESULT: Final[tuple[str, ...]]
ERRORS: Final[tuple[str, ...]]
SUMS: Final[int]
FRAME: Final[int]
PADDING: Final[int]
NOT_YET: Final[float]
GROWTH: Final[float]
LEAST_PIVOT: Final[float]
LARGEST_VOLUME: Final[float]
SMALLEST_VOLUME: Final[float]

def instruction_sets() -> tuple[str, ...]: ...
def instruction_set() -> str: ...
def use_instruction_set(name: str) -> None: ...
def empty_box(shape: _Voxel) -> _Floats: ...

class Settings:
    def __init__(
        self,
        order: int = 1,
        two_d: bool = False,
        znssd: bool = False,
        rigid: bool = False,
        update_gradient: bool = False,
        shift: bool = False,
        max_iterations: int = 50,
        min_delta_phi: float = 1e-3,
        sigma: float | None = None,
        gain: float = 1.0,
        bias: float = 0.0,
        base1: float = 0.0,
    ) -> None: ...
    @property
    def gradient_reach(self) -> int: ...

class Noise:
    def __init__(
        self, rho: NDArray[np.float64], kappa: Sequence[float] | NDArray[np.float64], variance: float = ...
    ) -> None: ...

def to_float(part: NDArray[np.generic], out: _Floats, low: float = ..., high: float = ...) -> bool: ...
def bin_mean(part: NDArray[np.generic], factor: _Voxel, out: _Floats) -> None: ...
def prefilter(box: _Floats, low: _Voxel, high: _Voxel, needed: tuple[_Voxel, _Voxel] | None = None) -> None: ...
def correlate_points(
    settings: Settings,
    box1: _Floats,
    usable: _Map,
    covered: _Map,
    real: _Map,
    sampled1: _Floats | None,
    box2: _Floats,
    valid2: _Map,
    hws: _Voxel,
    offset: _Triple,
    centre1: NDArray[np.int64],
    low2: NDArray[np.float64],
    high2: NDArray[np.float64],
    phi: NDArray[np.float64],
    result: NDArray[np.float64],
    min_coverage: float = 0.0,
    grey_low: float = ...,
    grey_high: float = ...,
    compared: _Voxel | None = None,
    left: NDArray[np.uint8] | None = None,
    near: NDArray[np.int64] | None = None,
    margin: _Voxel = ...,
    image2: tuple[_Triple, _Triple] | None = None,
    at_hand: tuple[_Triple, _Triple] | None = None,
    least: NDArray[np.float64] | None = None,
    began: NDArray[np.int64] | None = None,
    noise: Noise | None = None,
    errors: NDArray[np.float64] | None = None,
    place: NDArray[np.float64] | None = None,
) -> None: ...
def block_sums(
    settings: Settings,
    box1: _Floats,
    usable: _Map,
    sampled1: _Floats | None,
    box2: _Floats,
    valid2: _Map,
    low1: _Voxel,
    n: _Voxel,
    F: _Matrix,
    centre2: _Triple,
    low2: _Triple,
    high2: _Triple,
    level: float,
    gain: float,
    bias: float,
    index: _Voxel = (0, 0, 0),
    whole: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]: ...
def warp(
    box: _Floats,
    order: int,
    two_d: bool,
    F: _Matrix,
    centre: _Triple,
    low: _Triple,
    high: _Triple,
    out: _Floats,
    outside: float = 0.0,
) -> None: ...
