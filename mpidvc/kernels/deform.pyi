from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

class NearestPoints:
    def __init__(
        self,
        deformed: NDArray[np.float64],
        phi: NDArray[np.float64],
        tree: tuple[NDArray[np.int64], NDArray[np.uint8]],
        displacements_only: bool,
    ) -> None: ...
    def places(
        self,
        nearest: int,
        low: Sequence[int],
        size: Sequence[int],
        edge: Sequence[int],
        wanted: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.float64]: ...

def mesh_places(
    deformed: NDArray[np.float64],
    reference: NDArray[np.float64],
    inverse: NDArray[np.float64],
    edges: NDArray[np.float64],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    factor: NDArray[np.float64],
    low: Sequence[int],
    size: Sequence[int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def least_value(
    value: NDArray[np.float64], neighbours: NDArray[np.int32], vertices: NDArray[np.int32], points: int
) -> float: ...
def extent_inside(
    shape: Sequence[int], places: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]: ...
def sample(
    box: NDArray[np.float32], origin: ArrayLike, shape: Sequence[int], places: NDArray[np.float64], order: int
) -> NDArray[np.float64]: ...
def settle(values: NDArray[np.float64], out: NDArray[np.generic]) -> int: ...
