"""Memory that pieces of work need, from the geometry of chunks: upper bounds, measured against real runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints
from mpidvc.core.binning import binned_shape
from mpidvc.core.boxes import TAPS
from mpidvc.core.labels import Labels
from mpidvc.core.pixel_search import LabelSearchSettings, SearchSettings, pad_of
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.uncertainty import FRAME, LAGS
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.images.source import Source
from mpidvc.kernels.pixel_search import memory_of
from mpidvc.tasks import adaptive, ddic, deform, ldic, pixel_search
from mpidvc.tasks.boxes import around_samples
from mpidvc.tasks.ddic import DdicSettings
from mpidvc.tasks.deform import Motion
from mpidvc.tasks.label_search import AROUND
from mpidvc.tasks.ldic import NEAR, LdicSettings
from mpidvc.tasks.registration import KEPT, block_of
from mpidvc.tasks.warp import planes_of_slab

__all__ = [
    "COMPARED",
    "HDF5_ALONE",
    "JUDGED",
    "JUDGING",
    "LIBRARIES",
    "NOISE_RANK0",
    "PLOT",
    "PLOTTED",
    "POINT_RANK0",
    "READING",
    "SLICED",
    "WRITERS",
    "WRITTEN",
    "PointSet",
    "ddic_bytes",
    "deform_bytes",
    "field_bytes",
    "label_search_bytes",
    "ldic_bytes",
    "looking_bytes",
    "middle_slices",
    "registration_bytes",
    "search_bytes",
    "spread_of",
    "tile_bytes",
]


#: Bytes of a point's row while it goes to the finished file, and rows that go there at once.
ROW, ROWS = 600, 65536
#: Bytes of the libraries that rank 0 loads to read headers and text, with HDF5 besides, and of HDF5 alone.
LIBRARIES, HDF5, HDF5_ALONE = 12_000_000, 30_000_000, 18_000_000
#: Bytes of a point of a field on rank 0 besides its columns: position, Phi, and place.
POINT_RANK0 = 200
#: Bytes of a point while rank 0 reads a field, and while it judges a result.
READING, JUDGED = 60, 130
#: Bytes that rank 0 needs besides to judge and to write a result.
JUDGING = 15_000_000
#: Bytes of the libraries by which rank 0 writes images and VTK files, and of a point in them.
WRITERS, WRITTEN = 20_000_000, 20
#: Bytes of matplotlib with a picture, of a point of a field that is drawn, of a voxel of the slices of an image, and of
#: one of those of a registration, with both images and their difference.
PLOT, PLOTTED, SLICED, COMPARED = 60_000_000, 400, 25, 120
#: Bytes of a label in the table of them, and in the chunks.
LABEL = 100
#: Bytes of the sums of a registration's block that are kept.
SUMS = 1100
#: Bytes of scratch memory per voxel: float32, and an eighth more.
FLOAT = 4.5
#: Bytes of the maps per voxel while they are made: exists, usable, covered, mask, and a copy of two of them.
MAPS = 6.0
#: Bytes of these maps that are left when the points are registered.
KEPT_MAPS = 3.0
#: Bytes per voxel of a box whose displacement as a whole is searched: two copies, and their transforms.
SEARCH = 40
#: Bytes that rank 0 needs for the windows that tell the noise.
NOISE_RANK0 = 25_000_000
#: Bytes that rank 0 needs to look at grey levels, and at the texture for every voxel of a window; it looks before it
#: measures.
GREY, TEXTURE = 15_000_000, 60


def field_bytes(n_points: int, libraries: int = HDF5, point: int = POINT_RANK0) -> tuple[int, int]:
    """Bytes that a rank needs to finish the results file, and bytes that rank 0 holds all the time.

    Parameters
    ----------
    n_points : int
    libraries, point : int
        Bytes of the libraries that rank 0 loads besides those of other ranks, and of a point on rank 0.
    """
    return ROW * min(n_points, ROWS), libraries + point * n_points


def middle_slices(shape: Sequence[int]) -> int:
    """Voxels of the slices of an image that are drawn: the middle ones along z, y and x, in 2D the image."""
    z, y, x = shape
    return y * x if z == 1 else y * x + z * x + z * y


def looking_bytes(hws: Sequence[int] | None, grey: bool = True) -> int:
    """Bytes that rank 0 needs, before it measures, to look at the texture of windows of this half size, and at grey
    levels; decoded parts of images come in addition.
    """
    texture = 0 if hws is None else TEXTURE * math.prod(2 * h + 1 for h in hws)
    return max(GREY if grey else 0, texture)


def spread_of(displacements: Array | None, gradient: Array, extent: Array) -> Array:
    """Largest difference (3,) between the guesses of points that share boxes, voxels.

    Parameters
    ----------
    displacements : (n, 3) or None
        Displacements of a field given as a guess.
    gradient : (3, 3)
        F - I of a registration given as a guess, else 0.
    extent : (3,)
        Extent of the points of a chunk, voxels.
    """
    spread = np.abs(gradient) @ extent + 1
    if displacements is not None and len(displacements):
        spread = np.nan_to_num(np.nanmax(displacements, axis=0) - np.nanmin(displacements, axis=0), nan=2.0 * NEAR)
    return np.minimum(spread, 2.0 * NEAR)


def _extent(edge: Array, spacing: npt.ArrayLike, shape: Sequence[int], regular: bool) -> Array:
    """Distance of the outermost points of a chunk."""
    across = edge - np.maximum(np.asarray(spacing, np.float64), 1.0) if regular else edge
    result: Array = np.clip(across, 0, np.array(shape) - 1.0)
    return result


def _read(image: Image) -> float:
    """Bytes of a voxel while it is read: in the image's dtype, twice where the byte order changes."""
    swapped = isinstance(image, Source) and not image.stored.isnative
    # and the map of finite values
    return image.dtype.itemsize * (2.0 if swapped else 1.0) + (1.0 if image.dtype.kind == "f" else 0.0)


def _work(
    images: ImagePair,
    box1: Array,
    box2: Array,
    more: float = 0.0,
    kernel: float = 0.0,
) -> int:
    """Bytes for boxes of these shapes of both images; `more`: further ones per voxel of box 1, `kernel`: its own."""
    n1, n2 = (float(np.prod(np.maximum(box, 1))) for box in (box1, box2))
    maps1, maps2 = (MAPS + (mask.dtype.itemsize if mask is not None else 0) for mask in (images.mask1, images.mask2))
    making2 = (_read(images.image2) + (1.0 if images.mask2 is None else maps2)) * n2 + MAPS * n1
    making1 = (_read(images.image1) + maps1) * n1 + n2
    return int((FLOAT + more) * n1 + FLOAT * n2 + max(making1, making2, KEPT_MAPS * n1 + n2 + kernel))


def _kernel(n: Array, settings: RegistrationSettings, reach: int, boxed: bool = False, errors: bool = False) -> float:
    """Bytes of the kernel's scratch for a window, or a block, of this shape: see ``gauss_newton/window.hpp``.

    `boxed`: for a block whose grey levels and gradients stay in its box, unless the settings forbid it. `errors`: with
    random errors, whose noise reaches as far as `LAGS`.
    """
    own = settings.sigma is not None or settings.shift or settings.update_gradient
    arrays = 10 if settings.sigma is not None else 3 if boxed and not own else 7
    framed = n + 2 * (reach + settings.shift)
    floats = arrays * _floats(n) + 2 * (framed[2] + 72)
    floats += 2 * _floats(framed) if settings.update_gradient else 0.0
    floats += 3 * _floats(n + 2) if settings.shift else 0.0
    # a plane at a time
    floats += (2 * framed[1] + 3) * framed[2] if settings.sigma is not None else 0.0
    floats += 3 * _floats(n) + _floats(n + 2 * LAGS) if errors else 0.0
    return float(4 * floats + 40 * n[0] * n[1])


def _floats(n: Array) -> float:
    """Floats of an array of the kernel's: rows are whole groups of eight."""
    return float(n[0] * n[1] * (n[2] + 7) + 64)


@dataclass(frozen=True)
class PointSet:
    """Points to be measured, as far as they determine the boxes of chunks.

    Attributes
    ----------
    n : int
    spacing : 3 floats
        Typical distance of neighbouring points along each axis, voxels.
    regular : bool
        Whether they fill a grid.
    displacements : (n, 3) float64 or None
        Of a field that is the guess, voxels.
    gradient : (3, 3) float64
        F - I of a registration that is the guess, else 0.
    """

    n: int
    spacing: npt.ArrayLike
    regular: bool
    displacements: Array | None
    gradient: Array


def ldic_bytes(images: ImagePair, points: PointSet, settings: LdicSettings, errors: bool = False) -> int:
    """Bytes of the largest chunk of an ldic, with random errors or without."""
    two_d = images.two_d
    spacing, regular = points.spacing, points.regular
    registration = settings.registration
    extent = _extent(ldic.brick(points.n, spacing, settings, two_d, regular), spacing, images.image1.shape, regular)
    hws, around = np.array(settings.hws), around_samples(registration.order)
    reach = np.maximum(hws, hws - 1 + registration.for_kernels(two_d).gradient_reach)
    if registration.shift:
        reach = reach + around
    if settings.adaptive is not None:
        reach = np.maximum(reach, hws - 1 + FRAME)
    box1 = extent + 2 * reach + 1
    spread = spread_of(points.displacements, points.gradient, extent)
    if settings.spacing is not None:
        # points may leave their guess
        spread = np.full(3, 2.0 * NEAR)
    box2 = extent + spread + 2 * (hws + np.array(settings.margin) + around) + 1
    box2 = np.minimum(box2, np.array(images.image2.shape) + 2 * TAPS)
    if two_d:
        box1[0] = box2[0] = 1
    searched = 0.0 if settings.spacing is None else min(float(np.prod(extent + 2 * hws + 1)), ldic.SEARCHED_BOX)
    reach = registration.for_kernels(two_d).gradient_reach
    kernel = _kernel(2 * hws + 1.0, registration, reach, errors=errors)
    more = FLOAT if registration.shift else 0.0
    if settings.adaptive is not None:
        # a map, and where the interpolation smooths, the smooth image and three of the same size that make it
        more += 1 + (4 * FLOAT if registration.order == 1 else 0.0)
        kernel += adaptive.SUMS + (0 if points.displacements is None else adaptive.FITS)
    return _work(images, box1, box2, more, kernel) + int(SEARCH * searched)


def ddic_bytes(
    images: ImagePair, labels: Labels, numbers: Ints, settings: DdicSettings, gradient: Array, errors: bool = False
) -> int:
    """Bytes of the largest label of a ddic, and of the table of all labels.

    Parameters
    ----------
    images : ImagePair
        Mask 1 is the image of the labels.
    labels : Labels
    numbers : (n,) int64
        Labels to be measured.
    settings : DdicSettings
    gradient : (3, 3)
        F - I of a registration that is the guess, else 0.
    errors : bool
        Whether there are random errors.
    """
    table = LABEL * len(labels)
    if len(numbers) == 0:
        return table
    registration = settings.registration
    low, high = labels.mask_boxes(numbers, settings.dilate)
    size = np.asarray(high - low, np.float64)
    small = np.prod(size, axis=1) <= ddic.TOGETHER
    most = 0
    if not small.all() or settings.binning > 1:
        most = registration_bytes(images, registration, gradient)
    if small.any():
        around, kernel = around_samples(registration.order), registration.for_kernels(images.two_d)
        box1 = size[small] + 2 * (1 + kernel.gradient_reach + (around if registration.shift else 0))
        box2 = np.minimum(size[small] + 2 * (settings.reach + around), np.array(images.image2.shape) + 2 * TAPS)
        if images.two_d:
            box1[:, 0] = box2[:, 0] = 1
        # a margin beyond the image gives small labels as large a window 2 as large ones
        first, second, compared = (int(np.argmax(np.prod(box, axis=1))) for box in (box1, box2, size[small]))
        window = _kernel(size[small][compared] + 1, registration, kernel.gradient_reach, errors=errors)
        # the mask of the label, in its window and in the box
        most = max(most, _work(images, box1[first], box2[second], 3.0, window))
    return table + most


def search_bytes(images: ImagePair, points: PointSet, settings: SearchSettings) -> int:
    """Bytes of the largest chunk of a pixel search; of one point for a single one."""
    two_d = images.two_d
    spacing, regular = points.spacing, points.regular
    extent = np.zeros(3)
    if points.n > 1:
        extent = _extent(
            pixel_search.brick(points.n, spacing, settings, two_d, regular), spacing, images.image1.shape, regular
        )
    hws = np.array(settings.hws)
    deformed = settings.apply_f != "no" and (points.displacements is not None or bool(np.any(points.gradient)))
    box1 = extent + 2 * (hws + (pad_of(settings.hws) + TAPS if deformed else 0)) + 1
    searched = np.array(settings.high) - np.array(settings.low)
    box2 = extent + spread_of(points.displacements, points.gradient, extent) + 2 * hws + 1 + searched
    if two_d:
        box1[0] = box2[0] = 1
    # maps of box 1 as float32, where windows are deformed
    kernel = float(memory_of(settings.hws, settings.low, settings.high))
    return _work(images, box1, box2, 8.0 if deformed else 0.0, kernel)


def label_search_bytes(
    images: ImagePair, labels: Labels, size: Ints, settings: LabelSearchSettings, deformed: bool
) -> int:
    """Bytes of the largest label of a pixel search, and of the table of all labels.

    Parameters
    ----------
    images : ImagePair
        Mask 1 is the image of the labels.
    labels : Labels
    size : (n, 3) int64
        Of the windows, voxels.
    settings : LabelSearchSettings
    deformed : bool
        Whether windows may be deformed.
    """
    table = LABEL * len(labels)
    if len(size) == 0:
        return table
    searched = np.array(settings.high) - np.array(settings.low)
    largest = size[np.argmax(np.prod(size + searched, axis=1))]
    odd = largest // 2 * 2 + 1
    box1 = (odd + (2 * AROUND if deformed else 0)).astype(np.float64)
    if images.two_d:
        box1[0] = 1
    kernel = float(memory_of(odd // 2, settings.low, settings.high))
    # the deformed window, its mask, and the mask as float32
    return table + _work(images, box1, (odd + searched).astype(np.float64), 3 * FLOAT if deformed else 1.0, kernel)


def registration_bytes(images: ImagePair, settings: RegistrationSettings, gradient: Array, end: int = 1) -> int:
    """Bytes of a block of a registration, and of what is kept of all of them.

    F may differ from the guess's by up to 0.15 (a rotation by 9 degrees).
    `end` is the binning of its last level.
    """
    two_d = images.two_d
    factor = (1 if two_d else end, end, end)
    shape1, shape2 = (np.array(binned_shape(image.shape, factor)) for image in (images.image1, images.image2))
    block = np.minimum(block_of(settings, two_d), shape1).astype(np.float64)
    kept = min(int(np.prod(np.ceil(shape1 / block))) * SUMS, int(1.5 * KEPT))
    kernel, around = settings.for_kernels(two_d), around_samples(settings.order)
    box1 = block + 2 * (kernel.gradient_reach + (around if settings.shift else 0))
    box2 = (np.abs(gradient + np.eye(3)) + 0.15) @ (block + 2 * kernel.gradient_reach + 2) + 2 * around + 1
    box2 = np.minimum(box2, shape2 + 2 * TAPS)
    if two_d:
        box1[0] = box2[0] = 1
    scratch = _kernel(block, settings, kernel.gradient_reach, boxed=True)
    return kept + _work(images, box1, box2, FLOAT if settings.shift else 0.0, scratch)


def tile_bytes(image: Image, first: int, mask: bool) -> int:
    """Bytes of the largest binned image of a registration that begins at this binning; 0 if it does not bin."""
    if first < 2:
        return 0
    factor = (1 if image.two_d else 2, 2, 2)
    return math.prod(binned_shape(image.shape, factor)) * (1 if mask else 8 if image.base else 4)


def deform_bytes(image: Image, motion: Motion, residual: bool) -> tuple[int, int]:
    """Bytes of a slab of an image deformed by a motion, and of its result."""
    _, ny, nx = image.shape
    planes = planes_of_slab(image.shape, deform.SLAB_VOXELS)
    edges = min(planes, deform.PLACES_PLANES), min(motion.tile, ny), min(motion.tile, nx)
    tile = float(math.prod(edges))
    result = planes * ny * nx * (image.dtype.itemsize + (4 if residual else 0))
    # grey levels and copies of them, what is compared, and the part of the image
    values = 24 + (64 if residual else 0)
    if isinstance(motion, deform.WholeMotion):
        # about a tile that is turned by a tenth, at most the image
        turned = 0.1 * 2 * motion.tile
        reached = [min(n + turned, whole) for n, whole in zip(edges, image.shape, strict=True)]
        box = math.prod(n + 2 * around_samples(motion.order) for n in reached[image.two_d :])
    else:
        # places of its own for every voxel
        values += 32
        box = deform.WIDEST * tile + deform.AROUND
    return int(2 * result + values * tile + (FLOAT + _read(image) + 1) * box), result
