import numpy as np
from numpy.typing import ArrayLike, NDArray

def inverse_distance(
    start: ArrayLike, found: ArrayLike, positions: ArrayLike, phi: ArrayLike, targets: ArrayLike
) -> NDArray[np.float64]: ...
def surrounded(start: ArrayLike, found: ArrayLike, positions: ArrayLike, targets: ArrayLike) -> NDArray[np.bool_]: ...
