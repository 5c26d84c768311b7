"""Pairs of images whose displacement field is known exactly: for tests, benchmarks and the demonstration.

The texture is a sum of randomly placed blobs ``a (1 - r²/R²)⁴``, close to Gaussians but of finite extent, so that no
tail is cut off. Both states evaluate this closed form; nothing is ever interpolated::

    grey1(X) = texture(X)        phi(X) = F0 (X - C) + C + t + s(X)        grey2(x) = gain2 * grey1(phi⁻¹(x)) + offset2

with C the centre of the image and s a small sinusoid. The blobs depend on shape, seed, spacing and radii only: pairs
that differ in their motion share image 1 and are a series. A seed gives the same image on every machine, except for
differences of one grey level where the last digit of a sum decides the rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpidvc.arrays import Array, Float32Array, Triple, is_two_d

__all__ = ["AnalyticPair"]


@dataclass
class AnalyticPair:
    """Two images of one texture in an undeformed and a deformed state. Vectors are (z, y, x).

    Parameters
    ----------
    shape : (3,) ints
        Voxels of both images; (1, ny, nx) is a 2D image, whose motion stays in the plane.
    seed : int
        Chooses texture, phases of the sinusoid and noise.
    rotation : (3,) floats
        Rotation vector, degrees. In 2D only its z component is used.
    strain : (3,) floats
        Stretches minus one along z, y, x, applied before the rotation: F0 = R (I + diag(strain)). No z component in 2D.
    translation : (3,) floats
        Displacement of the image's centre without the sinusoid, voxels. No z component in 2D.
    amplitude, wavelength : float
        Amplitude and wavelength of the sinusoidal part of each displacement component, voxels. The gradient of
        this part has to stay well below 1.
    spacing : float
        Mean distance between blobs, voxels: one per spacing³ (spacing² in 2D).
    radii : (2,) floats
        Smallest and largest extent R of a blob, voxels.
    dtype : uint8, uint16 or float32
        Type of the images. Full scale is the largest value of an integer type, and 1 for float32.
    mean, contrast : float
        Mean and standard deviation of the texture in image 1, as fractions of full scale.
    gain2, offset2 : float
        Change of the grey levels in image 2: factor, and summand as a fraction of full scale.
    noise : float
        Standard deviation of the white noise in both images, as a fraction of full scale.
    around : float
        Width of the material around the image that has texture too, as a fraction of the longest side. A large rotation
        needs 0.5 and more. Another width is another texture.
    """

    shape: Triple
    seed: int = 0
    rotation: ArrayLike = (1.6, 0.8, 0.8)
    strain: ArrayLike = (-0.010, 0.003, 0.003)
    translation: ArrayLike = (1.3, -0.7, 2.4)
    amplitude: float = 0.3
    wavelength: float = 200.0
    spacing: float = 4.2
    radii: tuple[float, float] = (3.4, 6.0)
    dtype: DTypeLike = np.uint16
    mean: float = 0.3
    contrast: float = 0.08
    gain2: float = 1.0
    offset2: float = 0.0
    noise: float = 0.0
    around: float = 0.2

    def __post_init__(self) -> None:
        self._flat = is_two_d(self.shape)
        in_plane = np.array([not self._flat, True, True])
        about = np.array([True, not self._flat, not self._flat])
        rotation = about * np.radians(np.asarray(self.rotation, float))
        self._centre: Array = (np.array(self.shape) - 1) / 2.0
        self._F0: Array = _rotation_matrix(rotation) @ np.diag(1 + in_plane * np.asarray(self.strain, float))
        self._t: Array = in_plane * np.asarray(self.translation, float)
        self._wave_number = 2 * np.pi / self.wavelength
        self._amplitude: Array = in_plane * self.amplitude
        # Displacement component i varies along axis _along[i] (never along itself, nor along z in 2D).
        self._along = np.array([1, 2, 1 if self._flat else 0])
        self._phase: Array = np.random.default_rng([self.seed, 0]).uniform(0, 2 * np.pi, 3)
        if self.amplitude * self._wave_number > 0.3:
            raise ValueError(
                f"sinusoid too steep: 2 pi amplitude / wavelength = {self.amplitude * self._wave_number:.2f}"
            )

    # ---- motion

    def phi(self, points: ArrayLike) -> Array:
        """Positions in state 2 of the material points that are at `points` (…, 3) in state 1."""
        points = np.asarray(points, float)
        moved: Array = (points - self._centre) @ self._F0.T + (self._centre + self._t) + self._sinusoid(points)
        return moved

    def inverse_phi(self, points: ArrayLike) -> Array:
        """Positions in state 1 of the material points that are at `points` (…, 3) in state 2, to 1e-9 voxels."""
        inverse = np.linalg.inv(self._F0).T
        target = np.asarray(points, float) - (self._centre + self._t)
        start = target @ inverse + self._centre
        current: Array = start
        for _ in range(60):
            following = start - self._sinusoid(current) @ inverse
            change = np.abs(following - current).max(initial=0.0)
            current = following
            if change < 1e-9:
                break
        return current

    def displacement(self, points: ArrayLike) -> Array:
        """Displacement (…, 3) at `points` (…, 3) of state 1, voxels."""
        shift: Array = self.phi(points) - np.asarray(points, float)
        return shift

    def gradient(self, points: ArrayLike) -> Array:
        """Deformation gradient F (…, 3, 3) = d phi_i / d X_j at `points` (…, 3) of state 1."""
        points = np.asarray(points, float)
        F: Array = np.broadcast_to(self._F0, (*points.shape[:-1], 3, 3)).copy()
        slope = self._amplitude * self._wave_number * np.cos(self._angle(points))
        for i, j in enumerate(self._along):
            F[..., i, j] += slope[..., i]
        return F

    def _angle(self, points: Array) -> Array:
        angle: Array = self._wave_number * points[..., self._along] + self._phase
        return angle

    def _sinusoid(self, points: Array) -> Array:
        sinusoid: Array = self._amplitude * np.sin(self._angle(points))
        return sinusoid

    # ---- texture

    @cached_property
    def _blobs(self) -> tuple[Array, Array, Array]:
        """Centres (n, 3), extents R (n,) and heights (n,), sorted by z; also around the image (material moves in)."""
        rng = np.random.default_rng([self.seed, 1])
        margin = self._margin * np.array([not self._flat, True, True])
        size = np.array(self.shape) - 1 + 2 * margin
        n = round(float(np.prod(size[1:] if self._flat else size) / self._cell))
        centres = rng.random((n, 3)) * size - margin
        radii = rng.uniform(*self.radii, n)
        heights = rng.uniform(0.5, 1.0, n)
        order = np.argsort(centres[:, 0], kind="stable")
        return centres[order], radii[order], heights[order]

    @property
    def _margin(self) -> float:
        return self.around * max(self.shape) + 2 * self.radii[1]

    @property
    def _cell(self) -> float:
        """Area (2D) or volume per blob."""
        return float(self.spacing ** (2 if self._flat else 3))

    @cached_property
    def _scale(self) -> tuple[float, float]:
        """Factor and summand from the sum of blobs to grey levels, from the expected mean and variance of the sum."""
        rho = np.linspace(0, 1, 2001)
        dim = 2 if self._flat else 3
        shell = 2 * np.pi * rho if self._flat else 4 * np.pi * rho**2
        volume = _mean_power(*self.radii, dim)
        mean = 0.75 * volume * np.trapezoid(shell * (1 - rho**2) ** 4, rho) / self._cell
        variance = 7 / 12 * volume * np.trapezoid(shell * (1 - rho**2) ** 8, rho) / self._cell
        factor = self.contrast * self._full_scale / np.sqrt(variance)
        return float(factor), float(self.mean * self._full_scale - factor * mean)

    @property
    def _full_scale(self) -> float:
        dtype = np.dtype(self.dtype)
        return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0

    def texture(self, points: ArrayLike) -> Array:
        """Grey level of image 1, neither rounded nor noisy, at any points (…, 3) of state 1. Slow: for checks."""
        points = np.asarray(points, float)
        centres, radii, heights = self._blobs
        sums = np.empty(points.shape[:-1])
        for index in np.ndindex(sums.shape):
            point = points[index]
            near = slice(*np.searchsorted(centres[:, 0], point[0] + np.array([-1, 1]) * self.radii[1]))
            q = 1 - ((centres[near] - point) ** 2).sum(axis=1) / radii[near] ** 2
            sums[index] = heights[near] @ np.maximum(q, 0) ** 4
        factor, summand = self._scale
        return factor * sums + summand

    # ---- images

    def image1(self) -> NDArray[Any]:
        """Image of state 1, of `shape` and `dtype`."""
        factor, summand = self._scale
        return self._to_grey(self._render(None), factor, summand, stream=2)

    def image2(self) -> NDArray[Any]:
        """Image of state 2, of `shape` and `dtype`."""
        back = np.empty((3, *self.shape), np.float32)
        plane = np.stack(
            np.meshgrid(*[np.arange(n, dtype=float) for n in (1, *self.shape[1:])], indexing="ij"), axis=-1
        )
        for z in range(self.shape[0]):
            plane[..., 0] = z
            X = self.inverse_phi(plane)
            if np.any(np.abs(X - self._centre) > self._centre + self._margin - self.radii[1]):
                raise ValueError("motion too large for the image: it brings in material that has no texture")
            back[:, z] = np.moveaxis(X - plane, -1, 0)[:, 0]
        factor, summand = self._scale
        summand = self.gain2 * summand + self.offset2 * self._full_scale
        return self._to_grey(self._render(back), self.gain2 * factor, summand, stream=3)

    def _render(self, back: Float32Array | None) -> Float32Array:
        """Sum of blobs at every voxel x: at x itself, or at x + `back` (3, nz, ny, nx).

        Only `back` is in single precision, never a position: the error is some 1e-6 voxels whatever the image's size.
        """
        centres, radii, heights = self._blobs
        stretch = 1.0 if back is None else np.linalg.norm(self._F0, 2) + self.amplitude * self._wave_number
        middle = centres if back is None else self.phi(centres)
        reach = (radii * stretch)[:, None]
        low = np.maximum(np.ceil(middle - reach), 0).astype(int)
        high = np.minimum(np.floor(middle + reach) + 1, self.shape).astype(int)
        seen = np.flatnonzero((low < high).all(axis=1))
        axes = [np.arange(n, dtype=float).reshape(side) for n, side in zip(self.shape, _SIDES, strict=True)]
        out = np.zeros(self.shape, np.float32)
        for i in seen:
            (z0, y0, x0), (z1, y1, x1) = low[i], high[i]
            box = (slice(z0, z1), slice(y0, y1), slice(x0, x1))
            z = (axes[0][z0:z1] - centres[i, 0]).astype(np.float32)
            y = (axes[1][:, y0:y1] - centres[i, 1]).astype(np.float32)
            x = (axes[2][:, :, x0:x1] - centres[i, 2]).astype(np.float32)
            if back is None:
                q = z * z + y * y + x * x
            else:
                z, y, x = z + back[0][box], y + back[1][box], x + back[2][box]
                z *= z
                y *= y
                x *= x
                q = z
                q += y
                q += x
            q *= np.float32(-1 / radii[i] ** 2)
            q += np.float32(1)
            np.maximum(q, 0, out=q)
            q *= q
            q *= q
            q *= np.float32(heights[i])
            out[box] += q
        return out

    def _to_grey(self, sums: Float32Array, factor: float, summand: float, stream: int) -> NDArray[Any]:
        dtype = np.dtype(self.dtype)
        grey = np.empty(self.shape, dtype)
        rng = np.random.default_rng([self.seed, stream])
        for z in range(self.shape[0]):
            plane = factor * sums[z].astype(float) + summand
            if self.noise:
                plane += rng.normal(0, self.noise * self._full_scale, plane.shape)
            grey[z] = np.clip(np.rint(plane), 0, self._full_scale) if dtype.kind in "iu" else plane
        return grey


_SIDES = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))


def _rotation_matrix(vector: Array) -> Array:
    """Rotation by a vector (z, y, x) in radians, acting on (z, y, x): Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    if angle == 0:
        return np.eye(3)
    a, b, c = vector / angle
    K = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K)


def _mean_power(low: float, high: float, exponent: int) -> float:
    """Mean of R**exponent for R uniform in [low, high]."""
    if low == high:
        return low**exponent
    return (high ** (exponent + 1) - low ** (exponent + 1)) / ((exponent + 1) * (high - low))
