"""Binning: images of fewer, larger voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Triple
from mpidvc.core.boxes import COMPILED
from mpidvc.kernels import correlation

__all__ = ["LEAST_DATA", "bin_any", "bin_data", "bin_mean", "binned_shape", "first_voxel"]

#: Least share of the voxels of a bin that have to be data, where the others are left out of its mean.
LEAST_DATA = 0.5


def binned_shape(shape: Triple, factor: Triple) -> Triple:
    """Shape of the binned image: whole bins only."""
    return (shape[0] // factor[0], shape[1] // factor[1], shape[2] // factor[2])


def first_voxel(shape: Triple, factor: Triple) -> Triple:
    """First voxel of the first bin: voxels that fill no bin are cut off, half of them (rounded down) at this side."""
    first = [(n % b) // 2 for n, b in zip(shape, factor, strict=True)]
    return (first[0], first[1], first[2])


def bin_mean(
    box: npt.NDArray[np.generic], factor: Triple, dtype: npt.DTypeLike = np.float32
) -> npt.NDArray[np.floating[Any]]:
    """Block means, whatever the dtype; a bin that holds a nan is nan.

    Parameters
    ----------
    box : (z, y, x)
        Its shape is a multiple of `factor`.
    factor : 3 ints
    dtype : {float32, float64}

    Returns
    -------
    (z / fz, y / fy, x / fx) of `dtype`
    """
    if box.dtype in COMPILED and box.strides[-1] == box.itemsize and dtype == np.float32:
        means = np.empty([n // b for n, b in zip(box.shape, factor, strict=True)], np.float32)
        correlation.bin_mean(box, factor, means)
        return means
    total: npt.NDArray[Any] = box
    for axis, b in enumerate(factor):
        # strided sums add whole planes, rows or columns: many times faster than a mean over a reshaped axis
        along = np.moveaxis(total, axis, 0)
        parts = [along[k::b] for k in range(b)]
        summed = parts[0].astype(np.float64 if total.dtype.itemsize > 4 else dtype)
        for part in parts[1:]:
            summed += part
        total = np.moveaxis(summed, 0, axis)
    return np.ascontiguousarray(total / np.float32(np.prod(factor)), dtype=dtype)


def bin_data(
    box: npt.NDArray[np.generic], data: npt.NDArray[np.bool_], factor: Triple
) -> npt.NDArray[np.floating[Any]]:
    """Means of those voxels of each block that are data; nan where they are too few (`LEAST_DATA`).

    Parameters
    ----------
    box, data : (z, y, x)
        Their shape is a multiple of `factor`.
    factor : 3 ints

    Returns
    -------
    (z / fz, y / fy, x / fx) float32
    """
    if data.all():
        return bin_mean(box, factor)
    share = bin_mean(data.astype(np.float32), factor)
    total = bin_mean(np.where(data, box, 0), factor)
    means: npt.NDArray[np.floating[Any]] = total / np.maximum(share, np.float32(LEAST_DATA))
    means[share < LEAST_DATA] = np.nan
    return means


def bin_any(box: npt.NDArray[np.generic], factor: Triple) -> npt.NDArray[np.uint8]:
    """1 where any voxel of the bin is not 0."""
    result = box != 0
    for axis, b in enumerate(factor):
        along = np.moveaxis(result, axis, 0)
        result = np.moveaxis(np.logical_or.reduce([along[k::b] for k in range(b)]), 0, axis)
    return np.ascontiguousarray(result, dtype=np.uint8)
