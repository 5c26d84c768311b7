"""Packings of textured grains whose rigid motions are known exactly: for tests, benchmarks and the demonstration.

A grain is a body with a texture of blobs ``a (1 - r²/R²)⁴`` and a smooth edge, in front of a plain background::

    grey(x) = background + sum over grains of  w(depth(x)) (1 + sum over blobs …)

The body is a ball, a spheroid, or a clump of balls of different size. Its depth below the surface, and the blobs,
depend on distances to points that move with the grain: both states evaluate the same closed form at the moved points,
and nothing is ever interpolated. Grains touch, but do not overlap in either state.

The image of labels has the voxels at a depth of at least 0 in state 1. The true Phi of a grain is given about the
centre of mass of these voxels. It is exact: the motion is that of the body, and the centre is only the point at which
its translation is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpidvc.arrays import Array, Float32Array, Ints, Triple, is_two_d
from mpidvc.core import deformation
from mpidvc.core.labels import LARGEST_LABEL, Labels, LabelSums
from mpidvc.kernels import labels as kernels

__all__ = ["AnalyticGrains"]

#: Positions that are tried for a grain beside another one, and times that some are drawn anywhere, until it is refused.
TRIES_BESIDE, TRIES = 500, 3000
#: Positions that are drawn at once, and the edge (voxels) of the cells that are known to be taken.
DRAWN, CELL = 64, 2.0
#: Balls that stand for a spheroid when grains are packed.
SPHEROID_BALLS = 9
#: Balls of a clump: extents of their radii, and of the distances of their centres from the middle, in radii of a grain;
#: and the largest cosine of the angle between its two small balls, which are about perpendicular.
CLUMP = (((0.8, 0.8), (0.0, 0.0)), ((0.45, 0.55), (0.9, 1.0)), ((0.3, 0.4), (0.75, 0.85)))
ACROSS = 0.4
#: Grey levels as fractions of full scale: of the background, of a grain without blobs, of the blobs' heights.
BACKGROUND, GRAIN, HEIGHTS = 0.08, 0.15, (0.033, 0.167)


@dataclass
class AnalyticGrains:
    """Two images of a packing of grains, and its labels in the first. Vectors are (z, y, x).

    The packing of the benchmarks of spam is that of spheres with a solid fraction of 0.16::

        AnalyticGrains((200,) * 3, 300, kind="balls", radii=(9.0, 11.5), gap=2.0, touching=0.0, margin=8.0)

    Parameters
    ----------
    shape : (3,) ints
        Voxels of the images; (1, ny, nx) is a 2D image, with discs and their motions in the plane.
    n : int
        Grains; their labels are 1 … n.
    seed : int
        Chooses places, bodies, textures, motions and noise.
    kind : {"clumps", "ellipsoids", "balls"}
        Clumps of three balls are asymmetric: their centre of mass is not the middle of their box. Ellipsoids are
        spheroids, up to 1.6 times as long as thick.
    radii : (2,) floats
        Smallest and largest radius of a grain, voxels: of a spheroid the shorter one; clumps reach up to 1.55 radii.
    displacement : float
        Longest displacement of a grain's middle besides `translation`, voxels; its length is uniform, in any direction.
    rotation : float
        Largest rotation, degrees; uniform, about any axis.
    translation : (3,) floats
        Displacement that all grains share, voxels.
    gap : float
        Least distance of the surfaces of two grains in both states, voxels.
    touching : float
        Share of the grains that are placed at this distance from another one in state 1; others lie anywhere.
    margin : float
        Least distance of the surfaces from the faces of the image in state 1, voxels.
    edge : float
        Half the width of the edge, voxels: from nothing to all of the grey level.
    spacing : float
        Mean distance between blobs, voxels.
    blobs : (2,) floats
        Smallest and largest extent R of a blob, voxels.
    dtype : uint8, uint16 or float32
        Of the images. Full scale is the largest value of an integer type, and 1 for float32.
    noise : float
        Standard deviation of the white noise in both images, as a fraction of full scale.

    Raises
    ------
    ValueError
        If there is no room for so many grains.
    """

    shape: Triple
    n: int
    seed: int = 0
    kind: Literal["clumps", "ellipsoids", "balls"] = "clumps"
    radii: tuple[float, float] = (6.0, 8.0)
    displacement: float = 3.0
    rotation: float = 5.0
    translation: ArrayLike = (0.0, 0.0, 0.0)
    gap: float = 0.0
    touching: float = 0.5
    margin: float = 4.0
    edge: float = 1.5
    spacing: float = 4.5
    blobs: tuple[float, float] = (3.7, 6.2)
    dtype: DTypeLike = np.uint16
    noise: float = 0.0

    def __post_init__(self) -> None:
        self._flat = is_two_d(self.shape)
        self._plane = np.array([not self._flat, True, True])
        rng = np.random.default_rng([self.seed, 0])
        #: Middle of each grain in state 1 and 2, and its rotation.
        self._middle: tuple[Array, Array] = (np.empty((self.n, 3)), np.empty((self.n, 3)))
        self._R: Array = np.empty((self.n, 3, 3))
        self._bodies = [self._body(rng) for _ in range(self.n)]
        self._reach = np.array([body.reach for body in self._bodies])
        self._pack(rng)

    # ---- bodies and packing

    def _direction(self, rng: np.random.Generator) -> Array:
        vector = rng.normal(size=3) * self._plane
        return np.asarray(vector / np.linalg.norm(vector))

    def _body(self, rng: np.random.Generator) -> _Body:
        R = rng.uniform(*self.radii)
        if self.kind == "ellipsoids":
            long = R * rng.uniform(1.1, 1.6)
            axis = self._direction(rng)
            # balls that touch the spheroid from inside, at its ends those of its curvature, grown until they cover it
            along = np.linspace(-1, 1, SPHEROID_BALLS) * (long - R * R / long)
            radii = R * np.sqrt(1 - along**2 / (long**2 - R**2))
            angle = np.linspace(0, np.pi, 200)
            distances = np.hypot(long * np.cos(angle)[:, None] - along, R * np.sin(angle)[:, None])
            cover = 1.001 * (distances / radii).min(axis=1).max()
            return _Body(along[:, None] * axis, cover * radii, axis * long, R)
        if self.kind == "balls":
            return _Body(np.zeros((1, 3)), np.array([R]))
        directions = [self._direction(rng) for _ in CLUMP]
        while abs(directions[1] @ directions[2]) > ACROSS:
            directions[2] = self._direction(rng)
        sizes = [(rng.uniform(*size) * R, rng.uniform(*away) * R) for size, away in CLUMP]
        balls = np.array([away * direction for (_, away), direction in zip(sizes, directions, strict=True)])
        return _Body(balls, np.array([size for size, _ in sizes]))

    def _pack(self, rng: np.random.Generator) -> None:
        """Find a place and a motion for every grain, the largest first."""
        size = np.array(self.shape) - 1.0
        least = min((body.core for body in self._bodies), default=0.0)
        # cells in which no grain can have its middle
        taken = np.zeros((np.array(self.shape) / CELL).astype(int) + 1, bool)
        order = np.argsort(-self._reach, kind="stable")
        for k, i in enumerate(order.tolist()):
            if 2 * (self._reach[i] + self.margin) > size[self._plane].min():
                raise ValueError(f"a grain of radius {self._reach[i]:.1f} does not fit into {self.shape}")
            body, placed = self._bodies[i], order[:k]
            for c in self._positions(body, placed, taken, rng):
                if self._fits(i, placed, c, size, rng):
                    break
            else:
                raise ValueError(f"no room for {self.n} grains in {self.shape}: {k} were placed; take fewer or smaller")
            around = (least + body.core + self.gap - np.sqrt(3) / 2 * CELL) / CELL
            if around > 0:
                at = (c / CELL) - 0.5
                box, (z, y, x) = _around(at, around, taken.shape)
                taken[box] |= (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 < around**2

    def _positions(
        self, body: _Body, placed: Ints, taken: NDArray[np.bool_], rng: np.random.Generator
    ) -> Iterator[Array]:
        """Positions to try for the middle of a grain: beside one that is placed, then anywhere."""
        if len(placed) and rng.random() < self.touching:
            for _ in range(TRIES_BESIDE):
                j = int(placed[rng.integers(len(placed))])
                direction = self._direction(rng)
                yield self._middle[0][j] + direction * body.contact(self._bodies[j], direction, self.gap)
        inner = (body.reach + self.margin) * self._plane
        extent = np.array(self.shape) - 1 - 2 * inner
        for _ in range(TRIES):
            drawn = inner + rng.random((DRAWN, 3)) * extent
            yield from drawn[~taken[tuple((drawn / CELL).astype(int).T)]]

    def _fits(self, i: int, placed: Ints, c: Array, size: Array, rng: np.random.Generator) -> bool:
        """Draw a motion, and keep it and the place if the grain is clear of all others and of the faces."""
        body, (middle1, middle2) = self._bodies[i], self._middle
        if (np.minimum(c, size - c)[self._plane] < body.reach + self.margin).any():
            return False
        # neighbours in state 2 are near in state 1
        far = self._reach[placed] + (body.reach + self.gap + 2 * self.displacement)
        near = placed[np.square(middle1[placed] - c).sum(axis=1) < far * far].tolist()
        if not all(body.clear_of(self._bodies[j], c, middle1[j], _STILL, _STILL, self.gap) for j in near):
            return False
        u = self._direction(rng) * rng.uniform(0, self.displacement) + np.asarray(self.translation) * self._plane
        axis = np.array([1.0, 0, 0]) if self._flat else self._direction(rng)
        R = deformation.rotation_matrix(axis * rng.uniform(-self.rotation, self.rotation))
        if (np.minimum(c + u, size - c - u)[self._plane] < body.reach + self.edge).any():
            return False
        if not all(body.clear_of(self._bodies[j], c + u, middle2[j], R, self._R[j], self.gap) for j in near):
            return False
        middle1[i], middle2[i], self._R[i] = c, c + u, R
        return True

    # ---- motion

    def moved(self, points: ArrayLike, label: int) -> Array:
        """Positions in state 2 of the material points of a grain that are at `points` (…, 3) in state 1."""
        offset = np.asarray(points, float) - self._middle[0][label - 1]
        there: Array = offset @ self._R[label - 1].T + self._middle[1][label - 1]
        return there

    @cached_property
    def _measured(self) -> Labels:
        sums = LabelSums(self.shape)
        sums.add(kernels.Tally().of(self.labels1(), LARGEST_LABEL)[0], (0, 0, 0))
        return sums.labels()

    @property
    def centres(self) -> Array:
        """Centres of mass (n + 1, 3) of the voxels of each label in state 1; 0 in row 0."""
        return self._measured.centre

    def phi(self) -> Array:
        """True Phi (n + 1, 4, 4) of each label about its centre of mass (`centres`); the identity in row 0."""
        phi = np.tile(np.eye(4), (self.n + 1, 1, 1))
        phi[1:, :3, :3] = self._R
        for label in range(1, self.n + 1):
            phi[label, :3, 3] = self.moved(self.centres[label], label) - self.centres[label]
        return phi

    # ---- images

    def image1(self) -> NDArray[Any]:
        """Image of state 1, of `shape` and `dtype`."""
        return self._to_grey(self._render(0), stream=2)

    def image2(self) -> NDArray[Any]:
        """Image of state 2, of `shape` and `dtype`."""
        return self._to_grey(self._render(1), stream=3)

    def labels1(self) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Labels of the grains in state 1, of `shape`: uint16, or uint32 if there are more than 65 535 grains."""
        labels = np.zeros(self.shape, np.uint16 if self.n <= 0xFFFF else np.uint32)
        for i in range(self.n):
            box, axes = _around(self._middle[0][i], self._reach[i], self.shape)
            depth = self._bodies[i].depth(axes, self._middle[0][i], _STILL)
            labels[box][depth >= 0] = i + 1
        return labels

    def grey(self, points: ArrayLike, state: Literal[1, 2]) -> Array:
        """Grey level of a state, neither rounded nor noisy, at any points (…, 3), as a fraction of full scale. Slow."""
        points = np.asarray(points, float)
        grey = np.full(points.shape[:-1], BACKGROUND)
        for i, (middle, R) in enumerate(self._poses(state - 1)):
            axes = points[..., 0], points[..., 1], points[..., 2]
            depth = self._bodies[i].depth(axes, middle, R)
            texture = np.full(grey.shape, GRAIN)
            for centre, radius, height in zip(*self._blobs(i, middle, R), strict=True):
                q = 1 - np.square(points - centre).sum(axis=-1) / radius**2
                texture += height * np.maximum(q, 0) ** 4
            grey += _smooth(depth / self.edge) * texture
        return grey

    def _poses(self, state: int) -> Iterator[tuple[Array, Array]]:
        """Middle and rotation of every grain in state 0 or 1."""
        return zip(self._middle[state], self._R if state else np.tile(_STILL, (self.n, 1, 1)), strict=True)

    def _blobs(self, i: int, middle: Array, R: Array) -> tuple[Array, Array, Array]:
        """Blobs of a grain: centres (k, 3), extents (k,) and heights (k,)."""
        rng = np.random.default_rng([self.seed, 1, i])
        reach, dim = self._reach[i], 2 if self._flat else 3
        k = round((np.pi if self._flat else 4 / 3 * np.pi) * (reach / self.spacing) ** dim)
        local = rng.normal(size=(k, 3)) * self._plane
        local *= (reach * rng.random(k) ** (1 / dim) / np.linalg.norm(local, axis=1))[:, None]
        radii, heights = rng.uniform(*self.blobs, k), rng.uniform(*HEIGHTS, k)
        seen = self._bodies[i].depth((local[:, 0], local[:, 1], local[:, 2]), _NOWHERE, _STILL) > -self.edge - radii
        return local[seen] @ R.T + middle, radii[seen], heights[seen]

    def _render(self, state: int) -> Float32Array:
        out = np.full(self.shape, BACKGROUND, np.float32)
        for i, (middle, R) in enumerate(self._poses(state)):
            box, axes = _around(middle, self._reach[i] + self.edge, self.shape)
            depth = self._bodies[i].depth(axes, middle, R)
            inside = np.nonzero(depth > -self.edge)
            # from here on in single precision: differences of positions only
            points = np.stack([axis.ravel()[k] - c for axis, k, c in zip(axes, inside, middle, strict=True)])
            texture = np.full(points.shape[1], GRAIN, np.float32)
            centres, radii, heights = self._blobs(i, middle, R)
            if len(radii):
                # 1 - r²/R² of all points and blobs is a product of matrices
                centres = (centres - middle).T
                squares = np.square(centres).sum(axis=0)
                left = np.stack([np.ones(points.shape[1]), *points, np.square(points).sum(axis=0)], axis=1)
                right = np.stack([radii**2 - squares, *(2 * centres), np.full(len(radii), -1.0)]) / radii**2
                q = left.astype(np.float32) @ right.astype(np.float32)
                np.maximum(q, 0, out=q)
                q *= q
                q *= q
                texture += q @ heights.astype(np.float32)
            texture *= _smooth(depth[inside] / self.edge)
            out[box][inside] += texture
        return out

    @property
    def _full_scale(self) -> float:
        dtype = np.dtype(self.dtype)
        return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0

    def _to_grey(self, levels: Float32Array, stream: int) -> NDArray[Any]:
        dtype = np.dtype(self.dtype)
        grey = np.empty(self.shape, dtype)
        rng = np.random.default_rng([self.seed, stream])
        for z in range(self.shape[0]):
            plane = self._full_scale * levels[z].astype(float)
            if self.noise:
                plane += rng.normal(0, self.noise * self._full_scale, plane.shape)
            grey[z] = np.clip(np.rint(plane), 0, self._full_scale) if dtype.kind in "iu" else plane
        return grey


_STILL = np.eye(3)
_NOWHERE = np.zeros(3)


def _around(
    centre: Array, reach: float, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[Array, Array, Array]]:
    """The box of voxels within reach of a point, and their positions along each axis."""
    low = np.maximum(np.ceil(centre - reach), 0).astype(int)
    high = np.maximum(np.minimum(np.floor(centre + reach) + 1, shape).astype(int), low)
    z, y, x = (np.arange(a, b, dtype=float) for a, b in zip(low, high, strict=True))
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return box, (z[:, None, None], y[None, :, None], x[None, None, :])


class _Body:
    """Shape of a grain about its middle.

    Parameters
    ----------
    balls : (k, 3)
        Centres of balls: the body itself, or balls that cover it.
    radii : (k,)
    axis : (3,), optional
        Half of the longer axis of a spheroid.
    thin : float
        Half of its shorter axes.
    """

    def __init__(self, balls: Array, radii: Array, axis: Array | None = None, thin: float = 0.0) -> None:
        self.balls, self.radii, self.axis, self.thin = balls, radii, axis, thin
        #: Radii about the middle of a ball around the body, and of one in it.
        self.reach = float((np.linalg.norm(balls, axis=1) + radii).max())
        self.core = float((radii - np.linalg.norm(balls, axis=1)).max())

    def contact(self, other: _Body, direction: Array, gap: float) -> float:
        """Distance, along a direction from the middle of another body, from which on the bodies are clear."""
        offset = self.balls[:, None] - other.balls[None]
        sums = self.radii[:, None] + other.radii[None] + gap
        along = offset @ direction
        inside = along**2 - np.square(offset).sum(axis=-1) + sums**2
        roots = np.where(inside >= 0, np.sqrt(np.maximum(inside, 0)) - along, 0.0)
        return float(roots.max())

    def clear_of(self, other: _Body, at: Array, other_at: Array, R: Array, other_R: Array, gap: float) -> bool:
        """Whether the bodies are apart by a gap, with these middles and rotations."""
        offset = (at + self.balls @ R.T)[:, None] - (other_at + other.balls @ other_R.T)[None]
        sums = self.radii[:, None] + other.radii[None] + gap
        return bool((np.square(offset).sum(axis=-1) >= (sums - 1e-9) ** 2).all())

    def depth(self, axes: tuple[Array, Array, Array], middle: Array, R: Array) -> Array:
        """Depth below the surface (negative outside) at points of these coordinates; near the surface the distance."""
        z, y, x = axes
        if self.axis is None:
            found: Array | None = None
            for (cz, cy, cx), radius in zip(middle + self.balls @ R.T, self.radii, strict=True):
                one = radius - np.sqrt((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2)
                found = one if found is None else np.maximum(found, one)
            assert found is not None
            return found
        long = float(np.linalg.norm(self.axis))
        a, b, c = R @ self.axis / long
        z, y, x = z - middle[0], y - middle[1], x - middle[2]
        along = (a * z + b * y + c * x) ** 2
        across = np.maximum(z * z + y * y + x * x - along, 0)
        level = np.sqrt(along / long**2 + across / self.thin**2)
        slope = np.sqrt(along / long**4 + across / self.thin**4)
        # 1 - level over its slope; in the middle, where both vanish, the depth is that of the thinner axes
        return np.asarray(np.where(level > 0.1, level * (1 - level) / np.maximum(slope, 1e-30), self.thin))


def _smooth(t: Array) -> Array:
    """0 below -1, 1 above 1; between them a polynomial of degree 5, whose first two derivatives vanish at both ends."""
    s = np.clip(0.5 * (t + 1), 0, 1)
    return np.asarray(s * s * s * (10 + s * (6 * s - 15)))
