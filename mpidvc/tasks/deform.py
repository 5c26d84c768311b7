"""Images deformed by a field, slab by slab: by the nearest points of each voxel, or by a mesh of tetrahedra."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints, Triple
from mpidvc.core.boxes import data_voxels
from mpidvc.images.image import Image
from mpidvc.kernels import deform, neighbours
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.boxes import read_sampled_box
from mpidvc.tasks.source import share_arrays
from mpidvc.tasks.warp import TILE, planes_of_slab, sample_block, to_dtype

M = TypeVar("M", bound="_ArraysMotion")

__all__ = [
    "SUMS",
    "DeformTask",
    "Mesh",
    "MeshMotion",
    "Motion",
    "NearestMotion",
    "Residual",
    "Slab",
    "WholeMotion",
    "grey_map",
    "statistics",
]

#: Approximate number of voxels of a slab; rows and columns, and planes, of the tiles in which places are found.
SLAB_VOXELS, PLACES_TILE, PLACES_PLANES = 8_000_000, 128, 32
#: Of tetrahedra, as `deform.mesh_places` takes them.
MESH_ARRAYS = ("deformed", "reference", "inverse", "edges", "begin", "end", "factor")
#: Points whose motions are inverted together.
BLOCK = 2**16
#: Largest box of an image that is read for a tile, in its own voxels and besides.
WIDEST, AROUND = 4, 2_000_000
#: Determinant of the edges of a tetrahedron over the cube of the longest one, below which it has no volume.
FLAT = 1e-9
#: Numbers of the sums: voxels, then for warped and for undeformed grey levels f of image 1, with g of image 2:
#: sums of f, g, f², g², f g.
SUMS = 11


class Motion(Protocol):
    """Gives the grey levels of a deformed image, tile by tile."""

    @property
    def tile(self) -> int:
        """Rows and columns of a tile."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""

    def for_workers(self) -> Motion:
        """The same without its arrays, for ranks that get them by `shared`."""

    def shared(self, executor: Executor) -> Motion:
        """The same on every rank, its arrays once per node; collective."""

    def values(self, image: Image, low: Sequence[int], n: Sequence[int], wanted: npt.NDArray[np.uint8] | None) -> Array:
        """Grey levels of the voxels ``[low, low + n)``, nan where there is nothing."""


@dataclass(frozen=True)
class WholeMotion:
    """One Phi for the whole image: voxel x gets ``image(Phi⁻¹ x)``.

    Attributes
    ----------
    phi : (4, 4) float64
    centre : (3,) float64
        Of Phi, voxels.
    order : {1, 3}
    """

    phi: Array
    centre: Array
    order: int

    tile: int = TILE
    nbytes: int = 0

    def for_workers(self) -> WholeMotion:
        return self

    def shared(self, executor: Executor) -> WholeMotion:
        return self

    def values(self, image: Image, low: Sequence[int], n: Sequence[int], wanted: npt.NDArray[np.uint8] | None) -> Array:
        inverse = np.linalg.inv(self.phi).astype(np.float64)
        return sample_block(image, inverse, self.centre, low, n, self.order, np.nan).astype(np.float64)


class _ArraysMotion:
    """A motion of large arrays."""

    def __init__(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._arrays: dict[str, npt.NDArray[Any]] | None = arrays

    def __getstate__(self) -> dict[str, Any]:
        # the search is made of the arrays
        return {name: value for name, value in self.__dict__.items() if name != "_points"}

    def for_workers(self: M) -> M:
        """The same without its arrays, which the other ranks get by `shared`."""
        motion = copy(self)
        motion._arrays = None
        return motion

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """By name."""
        assert self._arrays is not None
        return self._arrays

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def shared(self: M, executor: Executor) -> M:
        """The same on every rank, its arrays once per node; collective."""
        motion = copy(self)
        motion._arrays = share_arrays(executor, self._arrays)
        return motion


class NearestMotion(_ArraysMotion):
    """Motions of the nearest deformed points, weighted by the inverse distance.

    Voxel v takes the grey level at ``v + Σ w [(F⁻¹ - I) (v - Y) - t] / Σ w`` with ``w = 1 / (|v - Y| + 1e-6)`` over its
    nearest points, Y = X + t being their deformed positions; spam's formula.

    Parameters
    ----------
    positions : (n, 3) float64
        X, voxels.
    phi : (n, 4, 4) float64
        About these; with invertible F.
    nearest : int
        Points that are averaged, at most n.
    displacements_only : bool
        Average ``-t`` instead.
    order : {1, 3}
    two_d : bool
    """

    tile = PLACES_TILE

    def __init__(
        self, positions: Array, phi: Array, nearest: int, displacements_only: bool, order: int, two_d: bool
    ) -> None:
        deformed = positions + phi[:, :3, 3]
        tree = neighbours.Points(deformed).tree
        super().__init__({"deformed": deformed, "inverse": _inverses(phi), "order": tree[0], "nodes": tree[1]})
        self.nearest, self.displacements_only, self.order, self.two_d = nearest, displacements_only, order, two_d
        # large blocks share a search, small ones leave few points to choose from
        self.edge: Triple = (1 if two_d else 8, 8, 8)

    @cached_property
    def _points(self) -> deform.NearestPoints:
        arrays = self.arrays
        tree = arrays["order"], arrays["nodes"]
        return deform.NearestPoints(arrays["deformed"], arrays["inverse"], tree, self.displacements_only)

    def places(self, low: Sequence[int], n: Sequence[int], wanted: npt.NDArray[np.uint8] | None) -> Array:
        """Places (3, z, y, x) in the undeformed image."""
        return self._points.places(self.nearest, low, n, self.edge, wanted)

    def values(self, image: Image, low: Sequence[int], n: Sequence[int], wanted: npt.NDArray[np.uint8] | None) -> Array:
        if wanted is not None and not wanted.any():
            return np.full(tuple(n), np.nan)
        return sample_places(image, self.places(low, n, wanted), self.order)


def _inverses(phi: Array) -> Array:
    """Motions (n, 4, 4) back, about the deformed points."""
    out = np.zeros(phi.shape)
    for start in range(0, len(phi), BLOCK):
        rows = slice(start, start + BLOCK)
        out[rows, :3, :3] = np.linalg.inv(phi[rows, :3, :3])
    out[:, :3, 3] = -phi[:, :3, 3]
    out[:, 3, 3] = 1
    return out


class Mesh(NamedTuple):
    """Tetrahedra of the deformed points.

    Attributes
    ----------
    vertices : (m, 4) int64
        Indices of points.
    alpha : float or None
        Greatest squared radius of a circumscribed sphere that was kept; None: all.
    """

    vertices: Ints
    alpha: float | None

    @classmethod
    def of(cls, deformed: Array, alpha: float) -> Mesh:
        """Delaunay triangulation (Qhull, by scipy) less the tetrahedra whose circumscribed sphere is too large.

        Parameters
        ----------
        deformed : (n, 3) float64
        alpha : float
            Greatest squared radius, voxels²: of an alpha shape (Edelsbrunner & Mücke 1994, doi 10.1145/174462.156635).
            0: all are kept. Negative: the least with which all points are in one component.

        Raises
        ------
        ValueError
            If the points lie in a plane, or there are fewer than four.
        """
        from scipy.spatial import Delaunay, QhullError

        if len(deformed) < 4:
            raise ValueError("fewer than four points")
        try:
            # about their middle: Qhull's tolerances grow with the coordinates
            found = Delaunay(deformed - deformed.mean(axis=0))
        except QhullError:
            raise ValueError("the points lie in a plane, or on a line") from None
        vertices = found.simplices
        square, solid = circumspheres(deformed, vertices)
        if alpha == 0:
            return cls(vertices[solid].astype(np.int64), None)
        if alpha < 0:
            # one without volume joins the first of its neighbours
            beside = np.where(found.neighbors >= 0, square[found.neighbors], np.inf)
            value = np.where(solid, square, np.where(np.isfinite(beside), beside, np.inf).min(axis=1))
            used = np.unique(vertices[solid])
            rank = np.zeros(len(deformed), np.int32)
            rank[used] = np.arange(len(used))
            alpha = deform.least_value(
                np.ascontiguousarray(value),
                np.ascontiguousarray(found.neighbors, np.int32),
                np.ascontiguousarray(rank[vertices], np.int32),
                len(used),
            )
        return cls(vertices[solid & (square <= alpha)].astype(np.int64), float(alpha))


def circumspheres(points: Array, vertices: npt.NDArray[np.integer[Any]]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Squared radii of the circumscribed spheres of tetrahedra (infinite without volume), and which have a volume."""
    edges = points[vertices[:, 1:]] - points[vertices[:, :1]]
    longest = np.sqrt((edges**2).sum(axis=2).max(axis=1))
    solid = np.abs(np.linalg.det(edges)) > FLAT * longest**3
    square = np.full(len(vertices), np.inf)
    half = 0.5 * (edges[solid] ** 2).sum(axis=2)
    square[solid] = (np.linalg.solve(edges[solid], half[..., None])[..., 0] ** 2).sum(axis=1)
    return square, solid


class MeshMotion(_ArraysMotion):
    """Displacements interpolated linearly in tetrahedra of the deformed points; linear interpolation of grey levels.

    Parameters
    ----------
    positions : (n, 3) float64
        In the reference, voxels.
    displacements : (n, 3) float64
    vertices : (m, 4) int64
    conserve : bool
        Divide grey levels by the ratio of a tetrahedron's volumes, deformed to reference: mass is conserved.
    """

    tile = PLACES_TILE

    def __init__(self, positions: Array, displacements: Array, vertices: Ints, conserve: bool) -> None:
        deformed = positions + displacements
        corners = deformed[vertices]
        # by their first plane, so that a slab finds its own at once
        order = np.argsort(corners[:, :, 0].min(axis=1), kind="stable")
        vertices, corners = vertices[order], corners[order]
        reference = positions[vertices]
        now, then = (np.swapaxes(c[:, 1:] - c[:, :1], 1, 2) for c in (corners, reference))
        ratio = np.abs(np.linalg.det(now) / np.where(np.linalg.det(then) == 0, np.nan, np.linalg.det(then)))
        arrays = (
            corners[:, 0],
            reference[:, 0],
            np.linalg.inv(now),
            then,
            np.floor(corners.min(axis=1)).astype(np.int64),
            np.ceil(corners.max(axis=1)).astype(np.int64) + 1,
            1 / ratio if conserve else np.ones(len(vertices)),
        )
        super().__init__({name: np.ascontiguousarray(a) for name, a in zip(MESH_ARRAYS, arrays, strict=True)})

    def values(self, image: Image, low: Sequence[int], n: Sequence[int], wanted: npt.NDArray[np.uint8] | None) -> Array:
        first, past = np.array(low), np.array(low) + np.array(n)
        begin, end = self.arrays["begin"], self.arrays["end"]
        until = int(np.searchsorted(begin[:, 0], past[0]))
        rows = np.nonzero(((begin[:until] < past) & (end[:until] > first)).all(axis=1))[0]
        if len(rows) == 0 or (wanted is not None and not wanted.any()):
            return np.full(tuple(n), np.nan)
        d, r, i, e, b, f, factors = (self.arrays[name][rows] for name in MESH_ARRAYS)
        places, factor = deform.mesh_places(d, r, i, e, b, f, factors, low, n)
        found: Array = sample_places(image, places, 1) * factor
        return found


def sample_places(image: Image, places: Array, order: int) -> Array:
    """Grey levels of an image at places, nan outside of it; a part of the image is read that holds them.

    Parameters
    ----------
    image : Image
    places : (3, z, y, x) float64
        Voxels; nan for none.
    order : {1, 3}

    Returns
    -------
    (z, y, x) float64
    """
    voxels = places.shape[1:]
    points = places.reshape(3, -1)
    inside, low, high = deform.extent_inside(image.shape, points)
    if inside == 0:
        return np.full(voxels, np.nan)
    first = np.floor(low).astype(np.int64)
    final = np.minimum(np.ceil(high).astype(np.int64), np.array(image.shape) - 1)
    if math.prod((final - first + 1).tolist()) > WIDEST * points.shape[1] + AROUND and points.shape[1] > 1:
        # the voxels come from places that lie far apart
        axis = int(np.argmax(voxels))
        middle = voxels[axis] // 2
        parts = [np.take(places, range(*ends), axis + 1) for ends in ((0, middle), (middle, voxels[axis]))]
        return np.concatenate([sample_places(image, part, order) for part in parts], axis)
    box, _, start = read_sampled_box(image, first, final, order)
    values = deform.sample(box, start, image.shape, points, order).reshape(voxels)
    return values + image.base if image.base else values


@dataclass(frozen=True)
class Residual:
    """Image 2, to be taken off the deformed image 1.

    Attributes
    ----------
    image2 : Image
    gain, bias : float
        ``gain * g + bias`` maps its grey levels to those of image 1.
    """

    image2: Image
    gain: float
    bias: float


class Slab(NamedTuple):
    """Planes of a deformed image.

    Attributes
    ----------
    planes : (k, ny, nx)
        In the dtype of the image; 0 where there is nothing.
    residual : (k, ny, nx) float32 or None
        Image 1 deformed less image 2; nan where there is nothing.
    sums : (SUMS,) float64 or None
    filled : int
        Voxels that have a grey level.
    """

    planes: npt.NDArray[np.generic]
    residual: npt.NDArray[np.float32] | None
    sums: Array | None
    filled: int


class DeformTask:
    """Planes of an image deformed by a motion; chunks are slabs.

    Parameters
    ----------
    image : Image
    motion : Motion
    mask : Image or None
        In the deformed configuration: voxels where it is 0 are not filled.
    residual : Residual or None
    """

    def __init__(
        self,
        image: Image,
        motion: Motion,
        mask: Image | None = None,
        residual: Residual | None = None,
    ) -> None:
        self.image, self.motion, self.mask, self.residual = image, motion, mask, residual
        self.planes = planes_of_slab(image.shape, SLAB_VOXELS)
        self.n_chunks = -(-image.shape[0] // self.planes)

    def run(self, chunk: int) -> Slab:
        """Planes ``[chunk * planes, …)``."""
        nz, ny, nx = self.image.shape
        first = chunk * self.planes
        n = (min(self.planes, nz - first), ny, nx)
        out = np.zeros(n, self.image.dtype)
        residual = None if self.residual is None else np.full(n, np.nan, np.float32)
        sums = None if self.residual is None else np.zeros(SUMS)
        filled = 0
        tile = self.motion.tile
        for z, y, x in itertools.product(
            range(first, first + n[0], PLACES_PLANES), range(0, ny, tile), range(0, nx, tile)
        ):
            low, size = (z, y, x), (min(PLACES_PLANES, first + n[0] - z), min(tile, ny - y), min(tile, nx - x))
            high = (z + size[0], y + size[1], x + size[2])
            wanted = None
            if self.mask is not None:
                wanted = np.ascontiguousarray(self.mask.read_box(low, high)[0] != 0).view(np.uint8)
            values = self.motion.values(self.image, low, size, wanted)
            if wanted is not None:
                values[wanted == 0] = np.nan
            part = (slice(z - first, high[0] - first), slice(y, high[1]), slice(x, high[2]))
            out[part], count = _settled(values, out.dtype)
            filled += count
            if self.residual is not None and residual is not None and sums is not None:
                residual[part] = self._compare(self.residual, values, low, high, sums)
        return Slab(out, residual, sums, filled)

    def run_sum(self, chunk: int, argument: object) -> Array:
        """The sums of a slab."""
        sums = self.run(chunk).sums
        assert sums is not None
        return sums

    def _compare(self, given: Residual, values: Array, low: Triple, high: Triple, sums: Array) -> Array:
        """The residual of a box; its sums are added."""
        part2, part1 = given.image2.read_box(low, high)[0], self.image.read_box(low, high)[0]
        g, before = part2.astype(np.float64), part1.astype(np.float64)
        both = np.isfinite(values) & data_voxels(part2, given.image2.limits) & data_voxels(part1, self.image.limits)
        sums[0] += np.count_nonzero(both)
        for place, f in ((1, values[both]), (6, before[both])):
            other = g[both]
            # one moment after the other, about nothing: the numbers are of the size of grey levels
            moments = (f.sum(), other.sum(), (f * f).sum(), (other * other).sum(), (f * other).sum())
            sums[place : place + 5] += moments
        return np.where(both, values - (given.gain * g + given.bias), np.nan)


def _settled(values: Array, dtype: np.dtype[Any]) -> tuple[npt.NDArray[np.generic], int]:
    """Grey levels in an image's dtype, 0 where they are not finite, and how many are."""
    if dtype.isnative and (dtype.kind in "iu" or dtype == np.float32) and dtype.itemsize <= 4:
        settled = np.empty(values.shape, dtype)
        return settled, deform.settle(values.reshape(-1), settled.reshape(-1))
    there = np.isfinite(values)
    return to_dtype(np.where(there, values, 0.0), dtype), int(np.count_nonzero(there))


def grey_map(sums: Array) -> tuple[float, float]:
    """Gain and bias that give image 2 mean and deviation of the deformed image 1, over the voxels compared: znssd's.

    Parameters
    ----------
    sums : (SUMS,) float64
    """
    if sums[0] == 0:
        return 1.0, 0.0
    f, g, ff, gg, _ = sums[1:6] / sums[0]
    variance1, variance2 = float(ff - f * f), float(gg - g * g)
    gain = math.sqrt(variance1 / variance2) if variance1 > 0 and variance2 > 0 else 1.0
    return gain, float(f - gain * g)


def statistics(sums: Array, gain: float, bias: float) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the residual, raw and mapped, before and after the deformation.

    Parameters
    ----------
    sums : (SUMS,) float64
    gain, bias : float
        As in `Residual`.

    Returns
    -------
    dict
        By ``before``, ``after``, ``before mapped``, ``after mapped``.
    """
    n = float(sums[0])
    found = {}
    for name, place in (("before", 6), ("after", 1)):
        f, g, ff, gg, fg = sums[place : place + 5] / n
        for more, a, b in (("", 1.0, 0.0), (" mapped", gain, bias)):
            mean = f - a * g - b
            variance = (ff - f * f) + a * a * (gg - g * g) - 2 * a * (fg - f * g)
            found[name + more] = (float(mean), math.sqrt(max(float(variance), 0.0)))
    return found
