import numpy as np
from numpy.typing import ArrayLike, NDArray

class Points:
    def __init__(
        self,
        positions: ArrayLike,
        tree: tuple[NDArray[np.int64], NDArray[np.uint8]] | None = None,
        dims: tuple[int, int, int] | None = None,
    ) -> None: ...
    @property
    def tree(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]: ...
    def earlier(
        self, points: NDArray[np.int64], radii: NDArray[np.float64], most: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
    def within(
        self,
        centres: ArrayLike,
        radius: ArrayLike,
        usable: NDArray[np.bool_] | None = None,
        fewest: int = 0,
        most: int = -1,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
    def nearest(
        self, centres: ArrayLike, number: int, usable: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]: ...

def walk(positions: ArrayLike, radius: float) -> NDArray[np.int64]: ...
