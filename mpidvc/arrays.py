"""Types of arrays and of triples, by the names that all modules use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Float32Array", "Ints", "Records", "Triple", "is_two_d"]

#: Double precision: positions, Phi, sums.
Array: TypeAlias = NDArray[np.float64]
#: Single precision: grey levels as the kernels take them.
Float32Array: TypeAlias = NDArray[np.float32]
#: Indices and voxels.
Ints: TypeAlias = NDArray[np.int64]
#: Rows of a compound dtype.
Records: TypeAlias = NDArray[np.void]
#: Something along z, y and x.
Triple: TypeAlias = tuple[int, int, int]


def is_two_d(shape: Sequence[int]) -> bool:
    """Whether an image of this shape (z, y, x) is a 2D image: a single plane."""
    return shape[0] == 1
