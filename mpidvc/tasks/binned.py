"""A binned image, computed tile by tile where it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Triple, is_two_d
from mpidvc.core.binning import bin_any, bin_mean, binned_shape, first_voxel
from mpidvc.core.boxes import Slices, data_voxels
from mpidvc.core.grey import ANY_VALUE
from mpidvc.images.image import Image
from mpidvc.images.source import CACHE, Decoded, crop

__all__ = ["BinnedImage"]

#: Voxels of a tile.
TILE = (32, 64, 128)
#: Voxels of the image that are read at once, unless a plane of bins has more.
MOST_VOXELS = 4_000_000


class BinnedImage:
    """An `Image` of the block means of another; of a mask, 1 where any voxel of the block is not 0.

    Tiles are kept once they are made, up to `cache_bytes` of them: a rank holds those that its own blocks need.

    Parameters
    ----------
    image : Image
    bins : int
        Voxels per bin along every axis; 1 along z in 2D.
    mask : bool
    cache_bytes : int
    """

    def __init__(self, image: Image, bins: int, mask: bool = False, cache_bytes: int = CACHE) -> None:
        self.path = image.path
        self.factor: Triple = (1 if image.two_d else bins, bins, bins)
        self.shape = binned_shape(image.shape, self.factor)
        # with a base the means keep the digits that it is there for
        self.dtype = np.dtype(np.uint8 if mask else np.float64 if image.base else np.float32)
        self.limits, self.base = ANY_VALUE, image.base
        self.first = first_voxel(image.shape, self.factor)
        self._image = image
        self._mask = mask
        self._tiles = Decoded(cache_bytes)

    @property
    def two_d(self) -> bool:
        """Whether the image is a plane."""
        return is_two_d(self.shape)

    def read_box(self, low: Sequence[int], high: Sequence[int]) -> tuple[npt.NDArray[np.generic], Slices]:
        """See `Image.read_box`."""
        source, inside = crop(self.shape, low, high)
        part = np.empty([s.stop - s.start for s in source], self.dtype)
        if part.size == 0:
            return part, inside
        tiles = [range(s.start // t, (s.stop - 1) // t + 1) for s, t in zip(source, TILE, strict=True)]
        for z in tiles[0]:
            for y in tiles[1]:
                for x in tiles[2]:
                    corner = [i * t for i, t in zip((z, y, x), TILE, strict=True)]
                    tile = self._tiles.get((z, y, x), self._make)
                    begin = [max(c, s.start) for c, s in zip(corner, source, strict=True)]
                    end = [min(c + n, s.stop) for c, n, s in zip(corner, tile.shape, source, strict=True)]
                    to = tuple(slice(b - s.start, e - s.start) for b, e, s in zip(begin, end, source, strict=True))
                    of = tuple(slice(b - c, e - c) for b, e, c in zip(begin, end, corner, strict=True))
                    part[to] = tile[of]
        return part, inside

    def _make(self, index: Triple) -> npt.NDArray[np.generic]:
        low = [i * t for i, t in zip(index, TILE, strict=True)]
        high = [min(a + t, n) for a, t, n in zip(low, TILE, self.shape, strict=True)]
        start = [a * b + f for a, b, f in zip(low, self.factor, self.first, strict=True)]
        stop = [a * b + f for a, b, f in zip(high, self.factor, self.first, strict=True)]
        tile = np.empty([b - a for a, b in zip(low, high, strict=True)], self.dtype)
        # coarse bins are many voxels: no more than a few planes of them at once
        depth = max(1, MOST_VOXELS // math.prod((self.factor[0], stop[1] - start[1], stop[2] - start[2])))
        for k in range(0, len(tile), depth):
            end = min(k + depth, len(tile))
            first, last = (start[0] + i * self.factor[0] for i in (k, end))
            part, _ = self._image.read_box((first, *start[1:]), (last, *stop[1:]))
            tile[k:end] = bin_any(part, self.factor) if self._mask else self._mean(part)
        return tile

    def _mean(self, part: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        if part.dtype.kind == "f":
            data = data_voxels(part, self._image.limits)
            part = part if data.all() else np.where(data, part, np.nan)
        return bin_mean(part, self.factor, self.dtype)
