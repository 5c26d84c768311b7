"""Boxes read from images in the form that the kernels take, for ldic, reg, warps and searches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Float32Array, Ints, Triple
from mpidvc.core.boxes import HALO, TAPS, Scratch, Slices, float_box, gradient_voxels, spline_box
from mpidvc.core.registration import RegistrationSettings
from mpidvc.images.image import Image
from mpidvc.kernels import correlation

__all__ = ["Ints", "Map", "around_samples", "read_float_box", "read_reference_box", "read_sampled_box"]

#: Map of voxels of a box; None stands for all of them.
Map = npt.NDArray[np.uint8] | None


def around_samples(order: int) -> int:
    """Voxels that an interpolation of this order needs around its samples."""
    return TAPS + (HALO if order == 3 else 0)


def read_float_box(
    image: Image, start: Ints, stop: Ints, scratch: Scratch | None = None
) -> tuple[Float32Array, Slices, Map]:
    """Read a box as float32, less the image's base, the place of the image in it, and the map of existing voxels."""
    part, inside = image.read_box(_ints(start), _ints(stop))
    box, real = float_box(part, inside, _ints(stop - start), scratch, image.limits, image.base)
    return box, inside, real


def read_sampled_box(
    image: Image, low: Ints, high: Ints, order: int, scratch: Scratch | None = None
) -> tuple[Float32Array, Map, Ints]:
    """Read an image from `low` to `high` (inclusive, inside it), with the frame that interpolation needs.

    Returns
    -------
    box : (z, y, x) float32
        Spline coefficients for order 3.
    valid : (z, y, x) uint8 or None
        0 at holes of the image. Outside of the image samples are refused by their bounds, without a map.
    origin : (3,) int64
        First voxel of the box.
    """
    around = around_samples(order)
    start = np.maximum(low - around, -TAPS)
    stop = np.minimum(high + 1 + around, np.array(image.shape) + TAPS)
    if image.two_d:
        start[0], stop[0] = 0, 1
    box, inside, real = read_float_box(image, start, stop, scratch)
    first, end = _ints(low - TAPS - start), _ints(high + 1 + TAPS - start)
    spline_box(box, inside, order, (slice(first[0], end[0]), slice(first[1], end[1]), slice(first[2], end[2])))
    valid: Map = None
    if real is not None and not real[inside].all():
        valid = np.ones(real.shape, np.uint8)
        valid[inside] = real[inside]
    return box, valid, start


def read_reference_box(
    image: Image,
    mask: Image | None,
    start: Ints,
    stop: Ints,
    settings: RegistrationSettings,
    reach: int,
    scratch: Scratch | None = None,
) -> tuple[Float32Array, tuple[Map, Map, Map], Float32Array | None]:
    """Read image 1 from `start` to `stop` (exclusive).

    Returns
    -------
    box : (z, y, x) float32
    usable, covered, real : maps
        Voxels that may be compared, because gradients of this `reach` touch data only; voxels that exist and are not
        masked; voxels that exist.
    sampled : (z, y, x) float32 or None
        The box as it is interpolated, for Shift-DVC.
    """
    box, inside, real = read_float_box(image, start, stop, scratch)
    # Shift-DVC takes gradients beside the voxels, between eight of them
    cube = settings.sigma is not None or settings.shift
    usable = gradient_voxels(real, reach + settings.shift, cube, image.two_d)
    covered = real
    if mask is not None:
        open_ = np.zeros(box.shape, np.uint8)
        part, where = mask.read_box(_ints(start), _ints(stop))
        open_[where] = part != 0
        covered = open_ if real is None else open_ & real
        usable = open_ if usable is None else usable & open_
    sampled = None
    if settings.shift:
        sampled = correlation.empty_box(box.shape)
        sampled[...] = box
        spline_box(sampled, inside, settings.order)
    return box, (usable, covered, real), sampled


def _ints(values: Ints) -> Triple:
    z, y, x = values.tolist()
    return z, y, x
