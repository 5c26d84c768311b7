"""Boxes of voxels in the form that the kernels take: float32, with maps of the voxels that are data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Float32Array, Triple
from mpidvc.core.grey import ANY_VALUE, Limits
from mpidvc.kernels import correlation

__all__ = ["COMPILED", "HALO", "TAPS", "Scratch", "Slices", "data_voxels", "float_box", "gradient_voxels", "spline_box"]

Slices = tuple[slice, slice, slice]

#: Voxels beyond the last sample that the taps of an interpolation can touch.
TAPS = correlation.FRAME
#: Further voxels read around a box before the spline prefilter, whose memory fades by a factor of 0.27 per voxel.
HALO = 10
#: Dtypes whose conversion to float32, and whose means, are compiled.
COMPILED = (np.uint8, np.uint16, np.float32)


class Scratch:
    """Memory for one box at a time, used again and again: fresh pages cost as much as the conversion."""

    def __init__(self) -> None:
        self._memory = np.zeros(0, np.float32)

    def box(self, shape: Triple) -> Float32Array:
        """Return an array of this shape with arbitrary values; it takes the memory of the one before."""
        size = math.prod(shape)
        if self._memory.size < size + correlation.PADDING:
            self._memory = np.zeros(size + size // 8 + correlation.PADDING, np.float32)
        return self._memory[:size].reshape(shape)


def data_voxels(part: npt.NDArray[Any], limits: Limits) -> npt.NDArray[np.bool_]:
    """Where an array has grey levels: finite numbers within the limits (`mpidvc.core.grey.plausible_limits`)."""
    if part.dtype.kind != "f":
        return np.ones(part.shape, bool)
    return np.asarray((part >= limits[0]) & (part <= limits[1]))


def float_box(
    part: npt.NDArray[Any],
    inside: Slices,
    shape: Triple,
    scratch: Scratch | None = None,
    limits: Limits = ANY_VALUE,
    base: float = 0.0,
) -> tuple[Float32Array, npt.NDArray[np.uint8] | None]:
    """A float32 box and the map of its voxels that exist.

    Parameters
    ----------
    part : (z, y, x)
        The real part of the box, any dtype.
    inside : 3 slices
        Place of `part` in the box.
    shape : 3 ints
        Shape of the box.
    scratch : Scratch, optional
        Where to make the box; new memory if not given.
    limits : 2 floats
        Least and greatest grey level, of images of floating-point numbers.
    base : float
        Constant that is taken off in double precision.

    Returns
    -------
    box : (z, y, x) float32
        Grey levels less the base, 0 outside the image; voxels that are not data get the mean of the others.
    real : (z, y, x) uint8 or None
        1 where there is a grey level (`data_voxels`); None if everywhere.
    """
    whole = part.shape == tuple(shape)
    if scratch is None:
        box = correlation.empty_box(shape)
    else:
        box = scratch.box(shape)
        if not whole:
            box.fill(0)
    view, all_data = box[inside], False
    if part.dtype in COMPILED and part.strides[-1] == part.itemsize and not base:
        all_data = correlation.to_float(part, view, *limits)
    else:
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and so no data
            if base:
                np.subtract(part, base, out=view, dtype=np.float64, casting="same_kind")
            else:
                view[...] = part
    real = None
    if part.dtype.kind == "f" and part.size and not all_data:
        data = data_voxels(part, limits)
        if not data.all():
            real = np.zeros(shape, np.uint8)
            real[inside] = data
            view[~data] = view[data].mean() if data.any() else 0.0
    if real is None and not whole:
        real = np.zeros(shape, np.uint8)
        real[inside] = 1
    return box, real


def spline_box(box: Float32Array, inside: Slices, order: int, needed: Slices | None = None) -> None:
    """Prepare a box for interpolation of the given order: order 3 takes B-spline coefficients.

    Parameters
    ----------
    box : (z, y, x) float32, in and out
    inside : 3 slices
        Place of the image in the box.
    order : {1, 3}
    needed : 3 slices, optional
        Voxels that interpolations touch: other coefficients are left unfinished. Default: all.
    """
    if order != 3:
        return
    low, high = [s.start for s in inside], [s.stop for s in inside]
    limits = None
    if needed is not None:
        first = [min(max(s.start, a), b) for s, a, b in zip(needed, low, high, strict=True)]
        limits = first, [max(min(s.stop, b), a) for s, a, b in zip(needed, first, high, strict=True)]
    correlation.prefilter(box, low, high, limits)


def gradient_voxels(
    real: npt.NDArray[np.uint8] | None, reach: int, gaussian: bool, two_d: bool
) -> npt.NDArray[np.uint8] | None:
    """Map of the voxels that exist and whose gradient touches only voxels that exist (None: all).

    Central differences touch the neighbours along each axis, Gaussian derivatives the cube of ``reach`` around.
    """
    if real is None:
        return None
    usable: npt.NDArray[np.uint8] = real.copy()
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
