import numpy as np
from numpy.typing import ArrayLike, NDArray

class Points:
    def __init__(self, positions: ArrayLike) -> None: ...
    def earlier(
        self, points: NDArray[np.int64], radii: NDArray[np.float64], most: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...

def walk(positions: ArrayLike, radius: float) -> NDArray[np.int64]: ...
