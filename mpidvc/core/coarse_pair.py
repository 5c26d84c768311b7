"""A pair of images of one binning, as the coarse search compares them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from mpidvc.arrays import Array, Float32Array, Triple, is_two_d
from mpidvc.core import deformation
from mpidvc.core.binning import bin_data, binned_shape, first_voxel
from mpidvc.core.boxes import TAPS
from mpidvc.kernels import correlation

__all__ = ["Level", "Stage", "binned", "framed"]

#: Least deviation that counts as texture, as a part of the largest.
LEAST_TEXTURE = 0.01


class Level(NamedTuple):
    """Two images of one binning, (z, y, x) float32 without nan, and where they are data (uint8; None: everywhere)."""

    im1: Float32Array
    data1: Any
    im2: Float32Array
    data2: Any

    @classmethod
    def of(cls, im1: Float32Array, im2: Float32Array) -> Level:
        """From images that are nan where they are not data."""
        return cls(*_filled(im1), *_filled(im2))

    def levelled(self, sigma: float) -> Level:
        """The images less their local mean, in units of the local deviation (of this width, voxels)."""
        one, two = _levelled(self.im1, self.data1, sigma), _levelled(self.im2, self.data2, sigma)
        return Level(one, self.data1, two, self.data2)


def _filled(image: Float32Array) -> tuple[Float32Array, Any]:
    data = np.isfinite(image)
    if data.all():
        return np.ascontiguousarray(image), None
    mean = image[data].mean(dtype=np.float64) if data.any() else 0.0
    return np.where(data, image, np.float32(mean)), data.astype(np.uint8)


def _levelled(image: Float32Array, data: Any, sigma: float) -> Float32Array:
    """Texture everywhere as strong as an outline, where there is any; 0 where no data is."""
    weight = np.ones(image.shape) if data is None else data.astype(np.float64)
    share = np.maximum(_smooth(weight, sigma), 1e-6)
    values = (image - image.mean(dtype=np.float64)) * weight
    rest = (values - _smooth(values, sigma) / share) * weight
    deviation = np.sqrt(_smooth(rest * rest, sigma) / share)
    least = max(float(np.median(deviation)), LEAST_TEXTURE * float(deviation.max()), 1e-30)
    levelled: Float32Array = (rest / (deviation + least)).astype(np.float32)
    return levelled


def _smooth(values: Array, sigma: float) -> Array:
    """Sum with the weights of a Gaussian; 0 outside."""
    reach = math.ceil(3 * sigma)
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(reach + 1)]
    whole = weights[0] + 2 * sum(weights[1:])
    for axis, n in enumerate(values.shape):
        if n == 1:
            continue
        along = np.moveaxis(values, axis, 0)
        total = along * (weights[0] / whole)
        for k in range(1, min(reach, n - 1) + 1):
            total[k:] += along[:-k] * (weights[k] / whole)
            total[:-k] += along[k:] * (weights[k] / whole)
        values = np.moveaxis(total, 0, axis)
    return np.ascontiguousarray(values)


class Stage:
    """A pair binned further, and how Phi in its voxels follows from Phi in those of the pair.

    Parameters
    ----------
    im1, im2 : (z, y, x) float32
        nan where they are not data.
    factor : 3 ints
    """

    def __init__(self, im1: Float32Array, im2: Float32Array, factor: Triple) -> None:
        self.factor = factor
        self.level = Level.of(binned(im1, factor), binned(im2, factor))
        self._centre = (np.array(im1.shape) - 1) / 2
        self._own = np.array(first_voxel(im1.shape, factor)) + (np.array(self.level.im1.shape) * factor - 1) / 2

    def to_fine(self, phi: Array) -> Array:
        """Phi about the centre of the pair, in its voxels."""
        return deformation.move_centre(deformation.scale_translation(phi, self.factor[1]), self._own, self._centre)

    def from_fine(self, phi: Array) -> Array:
        """Phi about the centre of the binned pair, in its voxels."""
        return deformation.scale_translation(deformation.move_centre(phi, self._centre, self._own), 1 / self.factor[1])


def binned(image: Float32Array, factor: Triple) -> Float32Array:
    """An image binned over its data; nan where there is none."""
    first, shape = first_voxel(image.shape, factor), binned_shape(image.shape, factor)
    cut = tuple(slice(f, f + n * b) for f, n, b in zip(first, shape, factor, strict=True))
    return bin_data(image[cut], np.isfinite(image[cut]), factor).astype(np.float32)


def framed(image: Float32Array) -> tuple[Float32Array, Array, Array, Array]:
    """A box of the image with a frame for interpolation; the first voxel of the image in it, its last, its centre."""
    shape = np.array(image.shape)
    frame = np.array([0 if is_two_d(image.shape) else TAPS, TAPS, TAPS])
    z, y, x = (shape + 2 * frame).tolist()
    box = correlation.empty_box((z, y, x))
    box.fill(0)
    box[tuple(slice(f, f + n) for f, n in zip(frame, shape, strict=True))] = image
    return box, frame.astype(np.float64), frame + shape - 1.0, frame + (shape - 1) / 2
