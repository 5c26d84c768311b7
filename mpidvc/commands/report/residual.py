"""What is left between two images in some planes: as they are, and with image 2 pulled back by a field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mpidvc.arrays import Array
from mpidvc.core import deformation
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image
from mpidvc.tasks.deform import sample_places
from mpidvc.workflow.plot import Slice, planes_of

__all__ = ["Compared", "compare", "label_planes"]

#: Pixels of a plane along its longer edge: in between, voxels are left out. Voxels of an image from which on only the
#: plane across z is read, as others are scattered over the whole file.
PIXELS, LARGE = 700, 400_000_000


class Compared(NamedTuple):
    """Planes of both images, and their difference.

    Attributes
    ----------
    one, two, before, after : list of Slice
        Image 1, image 2, image 1 less image 2, and image 1 less image 2 pulled back; the grey levels of image 2 mapped
        to those of image 1 in the differences.
    gain, bias : float
        Of this map.
    voxels : int
        That all of them have.
    numbers : dict
        Mean and standard deviation of the differences over these, and of the grey levels of image 1.
    """

    one: list[Slice]
    two: list[Slice]
    before: list[Slice]
    after: list[Slice]
    gain: float
    bias: float
    voxels: int
    numbers: dict[str, dict[str, float]]


def compare(
    images: tuple[Image, Image],
    field: PhiField,
    good: Array,
    order: int,
    labels: Image | None = None,
    removed: Sequence[Mapping[str, Any]] = (),
) -> Compared:
    """Compare two images in the planes of the middle nodes of a field, or of the middle of the images.

    Parameters
    ----------
    images : 2 Images
        Of one shape, if that is not the case image 2 ends where it ends.
    field : PhiField
    good : (n,) bool
        Points whose displacements count. Those of a grid, a registration, or labels tell those of voxels.
    order : {1, 3}
        Interpolation of image 2.
    labels : Image, optional
        Of the labels that the points are, of the shape of image 1.
    removed : sequence of mappings
        Motions that were removed from the field, the first one first: ``phi`` and ``centre``; image 2 has them.
    """
    image1, image2 = images
    found: list[list[Array]] = []
    extents = []
    for axis, place in _planes(image1, field):
        low, high, step = _box(image1, axis, place)
        lines = [np.arange(a, b, step) for a, b in zip(low, high, strict=True)]
        voxels = np.stack(np.meshgrid(*lines, indexing="ij")).astype(np.float64)
        f = image1.read_box(low, high)[0][tuple(slice(None, None, step) for _ in range(3))].astype(np.float64)
        g = _at(image2, voxels, 1)
        own = None
        if labels is not None and labels.shape == image1.shape:
            own = labels.read_box(low, high)[0][tuple(slice(None, None, step) for _ in range(3))]
        moved = voxels + _displacements(field, good, voxels, own)
        for motion in reversed(removed):
            there = np.moveaxis(moved, 0, -1)
            moved = moved + np.moveaxis(deformation.apply(motion["phi"], motion["centre"], there), -1, 0)
        found.append([np.take(values, 0, axis) for values in (f, g, _at(image2, moved, order))])
        extents.append((axis, place, _extent(image1, axis)))
    f, g, pulled = (np.concatenate([part[k].ravel() for part in found]) for k in range(3))
    known = np.isfinite(f) & np.isfinite(g) & np.isfinite(pulled)
    gain, bias = _map(f[known], pulled[known])
    slices: list[list[Slice]] = [[], [], [], []]
    for (axis, place, extent), (one, two, back) in zip(extents, found, strict=True):
        values = one, two, one - gain * two - bias, one - gain * back - bias
        for row, part in zip(slices, values, strict=True):
            row.append(Slice(axis, float(place), part, extent))
    differences = {"before": f - gain * g - bias, "after": f - gain * pulled - bias, "image 1": f}
    numbers = {
        name: {"mean": float(values[known].mean()), "sd": float(values[known].std())}
        for name, values in differences.items()
        if known.any()
    }
    ones, twos, before, after = slices
    return Compared(ones, twos, before, after, gain, bias, int(known.sum()), numbers)


def label_planes(labels: Image, field: PhiField) -> list[Slice]:
    """The labels themselves in the planes of `compare`."""
    found = []
    for axis, place in _planes(labels, field):
        low, high, step = _box(labels, axis, place)
        values = np.take(labels.read_box(low, high)[0], 0, axis)[::step, ::step].astype(np.float64)
        found.append(Slice(axis, float(place), values, _extent(labels, axis)))
    return found


def _box(image: Image, axis: int, place: int) -> tuple[list[int], list[int], int]:
    """Corners of a plane, and every how many voxels of it are taken."""
    low, high = [0, 0, 0], list(image.shape)
    low[axis], high[axis] = place, place + 1
    return low, high, 1 + (max(high[k] for k in range(3) if k != axis) - 1) // PIXELS


def _extent(image: Image, axis: int) -> tuple[float, float, float, float]:
    down, right = (k for k in range(3) if k != axis)
    return -0.5, image.shape[right] - 0.5, image.shape[down] - 0.5, -0.5


def _planes(image: Image, field: PhiField) -> list[tuple[int, int]]:
    """Axes and places of the planes."""
    if field.dims is not None:
        found = [(plane.axis, round(plane.place)) for plane in planes_of(field)]
    else:
        found = [(axis, n // 2) for axis, n in enumerate(image.shape) if axis == 0 or not image.two_d]
    found = [(axis, min(max(place, 0), image.shape[axis] - 1)) for axis, place in found]
    return found[:1] if math.prod(image.shape) > LARGE else found


def _at(image: Image, places: Array, order: int) -> Array:
    values: Array = sample_places(image, np.ascontiguousarray(places), order)
    return values


def _displacements(field: PhiField, good: Array, voxels: Array, labels: Array | None) -> Array:
    """Displacements (3, ...) of voxels (3, ...), which have these labels; nan where they are not known."""
    points = voxels.reshape(3, -1).T
    if len(field) == 1:
        moved = deformation.apply(field.phi[0], field.positions[0], points)
    elif labels is not None:
        numbers = labels.ravel().astype(np.int64)
        known = (numbers > 0) & (numbers < len(field))
        label = np.where(known, numbers, 0)
        known = known & (good[label] > 0)
        apart = points - field.positions[label]
        moved = field.displacements[label] + np.einsum("nij,nj->ni", field.F[label] - np.eye(3), apart)
        moved[~known] = np.nan
    elif field.dims is None:
        moved = np.full(points.shape, np.nan)
    else:
        moved = _interpolated(field, good, points)
    return np.asarray(moved.T.reshape(voxels.shape), np.float64)


def _interpolated(field: PhiField, good: Array, points: Array) -> Array:
    from scipy.interpolate import RegularGridInterpolator

    assert field.dims is not None
    known = np.where(good[:, None], field.displacements, np.nan).reshape(*field.dims, 3)
    positions = field.grid(field.positions)
    axes = [axis for axis in range(3) if field.dims[axis] > 1]
    lines = [np.moveaxis(positions, axis, 0)[:, 0, 0, axis] for axis in axes]
    if not axes:
        return np.full(points.shape, np.nan)
    inside = RegularGridInterpolator(lines, known.squeeze(tuple({0, 1, 2} - {*axes})), bounds_error=False)
    return np.asarray(inside(points[:, axes]), np.float64)


def _map(f: Array, g: Array) -> tuple[float, float]:
    """Gain and bias that map grey levels g to f in the least squares."""
    if len(f) < 2 or g.std() == 0 or f.std() == 0:
        return 1.0, 0.0
    gain = float(np.mean((f - f.mean()) * (g - g.mean())) / g.var())
    return gain, float(f.mean() - gain * g.mean())
