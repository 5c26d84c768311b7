"""A box of an image as an image of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Ints
from mpidvc.images.image import Image
from mpidvc.images.source import crop

__all__ = ["ImagePart"]


class ImagePart:
    """The box ``[low, high)`` of an image, which may stick out of it, as an `Image`.

    Where there is nothing it holds nan, which is no grey level: integers become floating-point numbers.

    Parameters
    ----------
    image : Image
    low, high : 3 ints
        First voxel (z, y, x) of the box and the one after its last.
    data : (low, high), optional
        Voxels of the image that are data; all by default.
    """

    def __init__(self, image: Image, low: Ints, high: Ints, data: tuple[Ints, Ints] | None = None) -> None:
        nz, ny, nx = (int(n) for n in high - low)
        self.path, self.shape = image.path, (nz, ny, nx)
        exact = image.dtype.kind == "f" or image.dtype.itemsize <= 2
        self.dtype = np.dtype(np.float32 if exact and image.dtype.itemsize <= 4 else np.float64)
        self.limits, self.base = image.limits, image.base
        self.two_d = image.two_d
        self._image, self._low = image, np.array(low)
        first, last = (np.zeros(3, np.int64), np.array(image.shape)) if data is None else data
        self._first, self._last = np.maximum(first, 0), np.minimum(last, image.shape)

    def read_box(self, low: Sequence[int], high: Sequence[int]) -> tuple[NDArray[Any], tuple[slice, slice, slice]]:
        """See `Image.read_box`."""
        source, inside = crop(self.shape, low, high)
        part = np.full([s.stop - s.start for s in source], np.nan, self.dtype)
        start = np.array([s.start for s in source]) + self._low
        first = np.maximum(start, self._first)
        last = np.minimum(start + part.shape, self._last)
        if (first < last).all():
            values, _ = self._image.read_box([int(n) for n in first], [int(n) for n in last])
            place = [slice(int(a), int(b)) for a, b in zip(first - start, last - start, strict=True)]
            part[tuple(place)] = values
        return part, inside
