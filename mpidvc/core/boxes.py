"""Boxes of voxels in the form that the kernels take: float32, with maps of what is data."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from mpidvc.kernels import correlation

__all__ = ["HALO", "TAPS", "SplineSide", "float_box", "gradient_voxels", "spline_box"]

Slices = tuple[slice, slice, slice]
SplineSide = Literal[1, 3]

#: Voxels beyond the last sample that its taps can touch.
TAPS = 2
#: Further voxels read around a box before the spline prefilter: its memory fades by 0.27 a voxel.
HALO = 10


def float_box(
    part: npt.NDArray[np.generic], inside: Slices, shape: tuple[int, int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8] | None]:
    """A float32 box and the map of its voxels that exist.

    Parameters
    ----------
    part : (z, y, x)
        The real part of the box, any dtype.
    inside : 3 slices
        Where in the box it sits.
    shape : 3 ints
        Shape of the box.

    Returns
    -------
    box : (z, y, x) float32
        0 outside the image; voxels that are not finite get the mean of the others.
    real : (z, y, x) uint8 or None
        1 where there is a finite grey level; None if everywhere.
    """
    box = correlation.empty_box(shape)
    box[inside] = part
    whole = part.shape == tuple(shape)
    real = None
    if part.dtype.kind == "f" and part.size:
        view = box[inside]
        finite = np.isfinite(view)
        if not finite.all():
            real = np.zeros(shape, np.uint8)
            real[inside] = finite
            view[~finite] = view[finite].mean() if finite.any() else 0.0
    if real is None and not whole:
        real = np.zeros(shape, np.uint8)
        real[inside] = 1
    return box, real


def spline_box(box: npt.NDArray[np.float32], inside: Slices, order: int) -> None:
    """Turn a box into what an interpolation of the given order reads: B-spline coefficients for order 3."""
    if order == 3:
        correlation.prefilter(box, [s.start for s in inside], [s.stop for s in inside])


def gradient_voxels(
    real: npt.NDArray[np.uint8] | None, reach: int, gaussian: bool, two_d: bool
) -> npt.NDArray[np.uint8] | None:
    """Voxels that exist and whose gradient touches only voxels that exist (None: all).

    Central differences touch the neighbours along each axis, Gaussian derivatives the cube of ``reach`` around.
    """
    if real is None:
        return None
    usable = real.copy()
    for axis in range(1 if two_d else 0, 3):
        source = usable.copy() if gaussian else real
        target = np.moveaxis(usable, axis, 0)
        along = np.moveaxis(source, axis, 0)
        for k in range(1, reach + 1):
            target[k:] &= along[:-k]
            target[:k] = 0
            target[:-k] &= along[k:]
            target[-k:] = 0
    return usable
