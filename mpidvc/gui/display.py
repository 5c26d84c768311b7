"""Copies of two images that are small enough to be warped while the user watches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Float32Array, Ints, Triple
from mpidvc.core import deformation
from mpidvc.core.binning import bin_mean, binned_shape, first_voxel
from mpidvc.core.boxes import TAPS, data_voxels
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import correlation
from mpidvc.tasks.binned import BinnedImage

__all__ = ["DisplayPair", "Numbers", "Reduced", "reduction"]

#: Most voxels of a copy of a volume, and of a 2D image: a slice is warped in some milliseconds.
MOST_VOXELS, MOST_PIXELS = 40_000_000, 1_200_000
#: Voxels that are read at once.
SLAB_VOXELS = 8_000_000
#: Points that the numbers are taken over.
LATTICE = 100_000


class Numbers(NamedTuple):
    """How well two images agree, over a lattice of points where both have grey levels; nan if there are none.

    Attributes
    ----------
    residual : float
        Root mean square of image 2 less image 1 deformed, grey levels.
    zncc : float
        Zero-mean normalised cross-correlation, -1 to 1.
    error : float
        As reg defines it: sum of the squared differences over the sum of the grey levels of image 1.
    overlap : float
        Share of the points of image 2 where image 1 deformed has a grey level.
    """

    residual: float
    zncc: float
    error: float
    overlap: float


class Reduced(NamedTuple):
    """A pair of arrays with larger voxels, and what is needed to express Phi for them.

    Attributes
    ----------
    image1, image2 : (nz, ny, nx) float32
        nan where there is no grey level.
    factor : int
        Edge of a voxel, in voxels of the images.
    centre : (3,) float64
        Centre of the arrays, in voxels of the images.
    """

    image1: Float32Array
    image2: Float32Array
    factor: int
    centre: Array

    def phi_to(self, phi: Array, centre: Array) -> Array:
        """Phi about `centre` in voxels of the images, as Phi of the arrays about their centre."""
        return deformation.scale_translation(deformation.move_centre(phi, centre, self.centre), 1 / self.factor)

    def phi_from(self, phi: Array, centre: Array) -> Array:
        """The inverse of `phi_to`."""
        return deformation.move_centre(deformation.scale_translation(phi, self.factor), self.centre, centre)


def reduction(shape: Triple, most: int) -> int:
    """The least binning with which an image of this shape has no more than `most` voxels."""
    two_d = shape[0] == 1
    factor = 1
    while math.prod(binned_shape(shape, (1 if two_d else factor, factor, factor))) > most:
        factor += 1
    return factor


@dataclass(frozen=True)
class DisplayPair:
    """Two images in reduced copies.

    Voxel k of a copy is the mean of `factor` voxels along each axis (one along z in 2D); its middle is at `position(k)`
    in voxels of the images. All Phi here are about the centre of the images, in their voxels.

    Attributes
    ----------
    shape : 3 ints
        Of the images.
    factor : int
    box1, box2 : (z, y, x) float32
        The copies with a frame of `TAPS` voxels, as the kernels take them: grey levels less `base1` and `base2`, nan
        where there is none.
    base1, base2 : float
    """

    shape: Triple
    factor: int
    box1: Float32Array
    box2: Float32Array
    base1: float
    base2: float

    @classmethod
    def of(
        cls, images: ImagePair, watch: Callable[[float], None] = lambda share: None, most: int | None = None
    ) -> DisplayPair:
        """Read two images of equal shape.

        Parameters
        ----------
        images : ImagePair
        watch : callable
            Called with the share that is read, 0 to 1; may raise to end the reading.
        most : int, optional
            Most voxels of a copy.
        """
        shape = images.image1.shape
        factor = reduction(shape, most or (MOST_PIXELS if images.two_d else MOST_VOXELS))
        box1 = _read(images.image1, factor, lambda share: watch(share / 2))
        box2 = _read(images.image2, factor, lambda share: watch((1 + share) / 2))
        return cls(shape, factor, box1, box2, images.image1.base, images.image2.base)

    @property
    def two_d(self) -> bool:
        """Whether the images are 2D."""
        return self.shape[0] == 1

    @property
    def centre(self) -> Array:
        """Centre (3,) of the images, voxels."""
        return (np.array(self.shape) - 1) / 2

    @property
    def factors(self) -> Ints:
        """Binning (3,) along each axis."""
        return np.array([1 if self.two_d else self.factor, self.factor, self.factor])

    @property
    def image1(self) -> Float32Array:
        """The copy of image 1."""
        return _inner(self.box1, self.two_d)

    @property
    def image2(self) -> Float32Array:
        """The copy of image 2."""
        return _inner(self.box2, self.two_d)

    @property
    def small(self) -> Triple:
        """Shape of the copies."""
        z, y, x = self.image1.shape
        return z, y, x

    @property
    def _origin(self) -> Array:
        """Middle (3,) of the first voxel of a copy, in voxels of the images."""
        factors = self.factors
        z, y, x = factors.tolist()
        return np.array(first_voxel(self.shape, (z, y, x))) + (factors - 1) / 2

    def position(self, index: npt.ArrayLike) -> Array:
        """Middle of a voxel of the copies, in voxels of the images."""
        return np.asarray(self._origin + self.factors * np.asarray(index, np.float64))

    def index(self, position: npt.ArrayLike) -> Array:
        """The inverse of `position`: it need not be whole."""
        return np.asarray((np.asarray(position, np.float64) - self._origin) / self.factors)

    def slice1(self, phi: Array, axis: int, k: int) -> Float32Array:
        """Slice k along an axis of image 1 deformed by Phi: (rows, columns), nan outside."""
        start, n = [0, 0, 0], list(self.small)
        start[axis], n[axis] = k, 1
        return np.squeeze(self._deformed(phi, np.array(start), np.ones(3, np.int64), np.array(n)), axis)

    def slice2(self, axis: int, k: int) -> Float32Array:
        """Slice k along an axis of image 2: (rows, columns)."""
        at: list[slice | int] = [slice(None)] * 3
        at[axis] = k
        return self.image2[tuple(at)]

    def grey1(self, phi: Array, k: Ints) -> float:
        """Grey level of image 1 deformed by Phi at the voxel k (3,) of the copies; nan outside."""
        one = np.ones(3, np.int64)
        return float(self._deformed(phi, k, one, one).item()) + self.base1

    def deformed(self, phi: Array) -> Float32Array:
        """The copy of image 1, deformed by Phi: all of it, nan outside."""
        return self._deformed(phi, np.zeros(3, np.int64), np.ones(3, np.int64), np.array(self.small))

    def _deformed(self, phi: Array, start: Ints, step: Ints, n: Ints) -> Float32Array:
        """Image 1 deformed by Phi, at the voxels ``start + step * j`` of the copy, j < n."""
        inverse = np.linalg.inv(phi[:3, :3])
        factors = self.factors
        middle = self.position(start + step * (n - 1) / 2)
        place = self.index(self.centre + inverse @ (middle - self.centre - phi[:3, 3]))
        F = inverse * factors / factors[:, None] * step
        frame = np.array([0 if self.two_d else TAPS, TAPS, TAPS])
        out = np.full(tuple(n.tolist()), np.nan, np.float32)
        last = frame + np.array(self.small) - 1.0
        correlation.warp(self.box1, 1, self.two_d, F, place + frame, frame.astype(float), last, out, np.nan)
        return out

    def numbers(self, phi: Array, gain: float = 1.0, bias: float = 0.0) -> Numbers:
        """How well the images agree, over points all over image 2; its grey levels are mapped by ``gain g + bias``."""
        small = np.array(self.small)
        step = np.ones(3, np.int64)
        while np.prod(-(-small // step)) > LATTICE:
            step[np.argmax(small / step)] += 1
        start = (small - 1) % step // 2
        n = (small - 1 - start) // step + 1
        one = self._deformed(phi, start, step, n)
        two = self.image2[tuple(slice(a, None, b) for a, b in zip(start, step, strict=True))]
        both = np.isfinite(one) & np.isfinite(two)
        count = int(np.count_nonzero(both))
        overlap = count / max(int(np.count_nonzero(np.isfinite(two))), 1)
        if count < 2:
            return Numbers(math.nan, math.nan, math.nan, overlap)
        f = one[both].astype(np.float64) + self.base1
        g = gain * (two[both].astype(np.float64) + self.base2) + bias
        squares = float(np.sum((f - g) ** 2))
        total = float(np.sum(f))
        f -= f.mean()
        g -= g.mean()
        norm = math.sqrt(float(f @ f) * float(g @ g))
        return Numbers(
            math.sqrt(squares / count),
            float(f @ g) / norm if norm > 0 else math.nan,
            squares / total if total != 0 else math.nan,
            overlap,
        )

    def reduced(self, most: int, phi: Array | None = None) -> Reduced:
        """The pair with no more than `most` voxels; image 1 deformed by Phi if there is one."""
        one = self.image1 if phi is None else self.deformed(phi)
        extra = reduction(self.small, most)
        bins = (1 if self.two_d else extra, extra, extra)
        first = first_voxel(self.small, bins)
        shape = binned_shape(self.small, bins)
        cut = tuple(slice(a, a + n * b) for a, n, b in zip(first, shape, bins, strict=True))
        arrays = [bin_mean(array[cut], bins).astype(np.float32, copy=False) for array in (one, self.image2)]
        middle = np.array(first) + (np.array(shape) * bins - 1) / 2
        return Reduced(arrays[0], arrays[1], self.factor * extra, self.position(middle))


def _inner(box: Float32Array, two_d: bool) -> Float32Array:
    return box[:, TAPS:-TAPS, TAPS:-TAPS] if two_d else box[TAPS:-TAPS, TAPS:-TAPS, TAPS:-TAPS]


def _read(image: Image, factor: int, watch: Callable[[float], None]) -> Float32Array:
    """An image in bins, with a frame, less its base."""
    source: Image = image if factor == 1 else BinnedImage(image, factor, cache_bytes=0)
    nz, ny, nx = source.shape
    frame = 0 if image.two_d else TAPS
    box = correlation.empty_box((nz + 2 * frame, ny + 2 * TAPS, nx + 2 * TAPS))
    inner = _inner(box, image.two_d)
    # tiles of a binned image are 32 planes
    planes = max(1, SLAB_VOXELS // (ny * nx) // 32 * 32)
    for z in range(0, nz, planes):
        watch(z / nz)
        part, _ = source.read_box((z, 0, 0), (min(z + planes, nz), ny, nx))
        with np.errstate(over="ignore"):  # what single precision does not hold is no grey level
            values = part.astype(np.float64) - image.base if image.base else part.astype(np.float32)
        inner[z : z + planes] = np.where(data_voxels(part, source.limits), values, np.nan)
    watch(1.0)
    return box
