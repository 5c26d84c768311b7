"""Grey levels of images: their plausible limits, and the statistics from which the criterion of a run is chosen."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints, Triple, is_two_d
from mpidvc.core import deformation
from mpidvc.core.boxes import data_voxels
from mpidvc.core.grey import GreyLevels, base_of, plausible_limits
from mpidvc.core.texture import sample_of
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.images.source import refuse_labels_only

__all__ = ["Places", "Windows", "grey_levels", "region_windows", "with_limits"]

#: Windows that are compared: at most, and at least however large they are.
MOST_WINDOWS, FEWEST_WINDOWS = 64, 12
#: Windows that are looked at for them, and for the fewest where most windows are skipped.
LOOKED_AT, MOST_LOOKED_AT = 192, 1000
#: Voxels of all windows of an image, unless `FEWEST_WINDOWS` have more, or they stand for a region.
MOST_VOXELS = 300_000
#: Voxels of a window that enter the statistics, spread evenly.
WINDOW_VOXELS = 4096
#: Windows along each axis that stand for a region, in 3D and in 2D, and the voxels that each of them compares at most.
PER_AXIS, PER_AXIS_2D, REGION_VOXELS = 4, 8, 8000
#: Displacements beyond any image, which would overflow the integers of a window.
FARTHEST = 2.0**40


class Places(Protocol):
    """Positions of n points that are made when they are wanted."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Ints, /) -> Array: ...


@dataclass(frozen=True)
class Windows:
    """The windows that a run compares, of which a fixed sample is looked at.

    Attributes
    ----------
    positions : (n, 3) float64 array, or `Places`
        Their centres in image 1, voxels; fractions are dropped.
    guess : callable
        Phi (k, 4, 4) that k of them start from, given their indices: image 2 is looked at where its displacement leads.
    hws : 3 ints
        Half-window size; ``2 * hws - 1`` voxels per axis are compared, 1 along z in 2D.
    min_coverage : float
        Least fraction of the ``2 * hws + 1`` voxels per axis that are data and not masked.
    grey_low, grey_high : float
        The mean of these voxels, masked ones too, must lie strictly between.
    alone : bool
        Whether each is registered by itself.
    """

    positions: Array | Places
    guess: Callable[[Ints], Array]
    hws: Triple
    min_coverage: float = 0.0
    grey_low: float = -math.inf
    grey_high: float = math.inf
    alone: bool = True


def with_limits(image: Image) -> Image:
    """The image with the limits of its plausible grey levels and the base that is taken off them.

    Both follow from the voxels of fixed blocks (`plausible_limits`, `base_of`): they are the same on all ranks, and
    when a run is resumed. Integers have no limits, and those of 8 and 16 bits no base: single precision holds them.

    Raises
    ------
    UserError
        If its values can be labels only.
    """
    refuse_labels_only(image.dtype, image.path)
    if image.dtype.kind != "f" and image.dtype.itemsize <= 2:
        return image
    blocks = region_windows(image.shape, (0, 0, 0), np.eye(4))
    sample = []
    for node in blocks.positions[np.arange(len(blocks.positions))].astype(np.int64):
        grey, data = _cut(image, node, blocks.hws)
        values = grey[data]
        sample.append(values[:: max(1, values.size // WINDOW_VOXELS)])
    limited = copy.copy(image)
    values = np.concatenate(sample)
    if image.dtype.kind == "f":
        limited.limits = plausible_limits(values)
    limited.base = base_of(values[data_voxels(values, limited.limits)])
    return limited


def region_windows(shape: Triple, margin: Triple, phi: Array) -> Windows:
    """Windows that stand for an image less a margin: they cover it where it is small, and are spread evenly else.

    Parameters
    ----------
    shape : 3 ints
        Of the image.
    margin : 3 ints
        Voxels at every face that do not belong to the region.
    phi : (4, 4) float64
        First guess about the image's centre.
    """
    two_d = is_two_d(shape)
    extent = np.maximum(np.array(shape) - 2 * np.array(margin), 1)
    counts = np.minimum(PER_AXIS_2D if two_d else PER_AXIS, extent)
    size = -(-extent // counts)
    scale = min(1.0, (REGION_VOXELS / float(np.prod(size))) ** (1 / (2 if two_d else 3)))
    half = (np.maximum(size * scale, 1).astype(np.int64) + 1) // 2
    hws = (0 if two_d else int(half[0]), int(half[1]), int(half[2]))
    axes = [m + (2.0 * np.arange(c) + 1) * n // (2 * c) for m, n, c in zip(margin, extent, counts, strict=True)]
    positions = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=-1)

    def guess(rows: Ints) -> Array:
        found = np.tile(np.asarray(phi, np.float64), (len(rows), 1, 1))
        found[:, :3, 3] = deformation.apply(phi, (np.array(shape) - 1) / 2, positions[rows])
        return found

    return Windows(positions, guess, hws, alone=False)


def grey_levels(images: ImagePair, windows: Windows) -> GreyLevels:
    """Grey levels of both images over what a run compares.

    Windows are chosen as the run chooses them, by mask, coverage and the mean of image 1, and no voxel by its own grey
    level: the statistics are over all voxels of the windows that are data in both images, in image 2 at the place that
    the guess leads to, rounded to voxels. At most `MOST_WINDOWS` windows are read, spread evenly: the cost does not
    grow with the images.
    """
    return GreyLevels.of(list(_samples(images, windows)), windows.alone)


def _samples(images: ImagePair, windows: Windows) -> Iterator[tuple[Array, Array]]:
    """Grey levels of images 1 and 2 at the same voxels of the windows of the sample."""
    hws = np.array(windows.hws)
    inner = tuple(slice(1, 2 * h) if h else slice(0, 1) for h in windows.hws)
    size = int(np.prod(2 * hws + 1))
    most = min(MOST_WINDOWS, max(FEWEST_WINDOWS, MOST_VOXELS // size)) if windows.alone else len(windows.positions)
    rows = sample_of(len(windows.positions), MOST_LOOKED_AT)
    nodes = windows.positions[rows].astype(np.int64)
    phi = windows.guess(rows)
    moved = np.rint(phi[:, :3, 3])
    known = np.isfinite(phi).all(axis=(1, 2)) & (np.abs(moved) < FARTHEST).all(axis=1)
    tested = windows.grey_low > -math.inf or windows.grey_high < math.inf
    found = 0
    for looked, (node, to) in enumerate(zip(nodes[known], moved[known].astype(np.int64), strict=True)):
        if found == most or (looked >= LOOKED_AT and found >= FEWEST_WINDOWS):
            return
        grey1, data1 = _cut(images.image1, node, windows.hws)
        if tested:
            mean = grey1[data1].mean(dtype=np.float64) if data1.any() else 0.0
            if not windows.grey_low < mean < windows.grey_high:
                continue
        if images.mask1 is not None:
            data1 &= _cut(images.mask1, node, windows.hws)[0] != 0
        covered = np.count_nonzero(data1)
        if covered == 0 or covered < windows.min_coverage * size:
            continue
        grey2, data2 = _cut(images.image2, node + to, windows.hws)
        both = data1[inner] & data2[inner]
        compared = np.flatnonzero(both)
        if compared.size:
            compared = compared[:: -(-compared.size // WINDOW_VOXELS)]
            found += 1
            yield grey1[inner].ravel()[compared].astype(np.float64), grey2[inner].ravel()[compared].astype(np.float64)


def _cut(image: Image, node: Ints, hws: Triple) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """A window of ``2 * hws + 1`` voxels per axis, and which of them are data; 0 where there is no image."""
    size = np.array(hws)
    low, high = node - size, node + size + 1
    part, inside = image.read_box([int(v) for v in low], [int(v) for v in high])
    shape = tuple(int(n) for n in high - low)
    if part.shape == shape:
        return part, data_voxels(part, image.limits)
    grey, data = np.zeros(shape, part.dtype), np.zeros(shape, bool)
    grey[inside] = part
    data[inside] = data_voxels(part, image.limits)
    return grey, data
