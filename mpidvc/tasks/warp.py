"""Blocks of images deformed by one Phi."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Float32Array, Triple
from mpidvc.images.image import Image
from mpidvc.kernels import correlation
from mpidvc.tasks.boxes import read_sampled_box

__all__ = ["TILE", "planes_of_slab", "sample_block", "to_dtype"]

#: Rows and columns of a block that are sampled together.
TILE = 256


def sample_block(
    image: Image,
    phi: Array,
    centre: npt.ArrayLike,
    low: Sequence[int],
    n: Sequence[int],
    order: int,
    outside: float = 0.0,
) -> Array | Float32Array:
    """``image(Phi x)`` for the voxels x of the block ``[low, low + n)``; `outside` where that lies outside the image.

    In double precision where the image has a base, which is taken off while samples are in single precision.

    Parameters
    ----------
    image : Image
    phi : (4, 4) float64
    centre : (3,)
        Centre of Phi, voxels.
    low, n : 3 ints
        First voxel and size of the block.
    order : {1, 3}
        Linear or cubic B-spline interpolation.
    outside : float
    """
    F, t = phi[:3, :3], phi[:3, 3]
    c = np.asarray(centre, dtype=np.float64)
    size = np.array(n)
    block_centre = np.array(low) + (size - 1) / 2
    target = c + F @ (block_centre - c) + t
    reach = np.abs(F) @ ((size - 1) / 2)
    shape = np.array(image.shape)
    out = np.full(tuple(size), outside, np.float32)
    first = np.maximum(np.floor(target - reach), 0)
    last = np.minimum(np.ceil(target + reach), shape - 1)
    if (first > last).any():
        return out
    box, _, start = read_sampled_box(image, first.astype(np.int64), last.astype(np.int64), order)
    absent = np.nan if image.base else outside
    correlation.warp(box, order, image.two_d, F, target - start, first - start, last - start, out, absent)
    return np.where(np.isnan(out), outside, out.astype(np.float64) + image.base) if image.base else out


def planes_of_slab(shape: Triple, voxels: int) -> int:
    """Number of planes in a slab of about so many voxels of an image of this shape."""
    nz, ny, nx = shape
    return max(1, min(nz, voxels // (ny * nx)))


def to_dtype(values: Array | Float32Array, dtype: np.dtype[Any]) -> npt.NDArray[np.generic]:
    """Grey levels in an image's dtype: for integer types, rounded and clipped to their range."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)
    return values.astype(dtype)
