"""Correlation of two images at every whole translation, with one of them turned by each of many rotations.

In 3D the rotations are the quaternions of Alexa 2022 (doi 10.1109/CVPR52688.2022.00811). Amplitudes of both images are
divided by the root of their radial average first: neither the outline of a specimen nor the noise decides alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mpidvc.arrays import Array, Float32Array, Triple, is_two_d
from mpidvc.core import deformation
from mpidvc.core.binning import binned_shape
from mpidvc.core.coarse_pair import Level, framed
from mpidvc.errors import UserError
from mpidvc.kernels import correlation

__all__ = ["Scan", "binning_of_scan", "gradients"]

#: The scanned images are binned so that their FFTs have no more points than this, in 2D and in 3D.
POINTS_2D, POINTS = 20_000, 70_000
#: Fewest voxels of the binned image along an axis.
THINNEST = 3
#: Rotations of the scan: the step of angles in 2D (degrees), and the number of all rotations in 3D.
STEP_2D, ROTATIONS = 2.0, 6000
#: Largest distance of a rotation from the grid in 3D, degrees.
REACH = 13.0
#: Uniform stretches of the scan. In 3D the scan is too coarse to tell them apart.
STRETCHES_2D, STRETCHES = (0.93, 1.0, 1.07), (1.0,)
#: Motions that a chunk of the scan tries.
CHUNK = 100


def binning_of_scan(shape: Triple) -> Triple:
    """Further binning of the images that are scanned.

    Raises
    ------
    UserError
        If they are too thin.
    """
    flat = is_two_d(shape)
    for factor in range(1, max(min(shape[flat:]) // THINNEST, 1) + 1):
        bins = (1 if flat else factor, factor, factor)
        if math.prod(_grid(binned_shape(shape, bins))) <= (POINTS_2D if flat else POINTS):
            return bins
    raise UserError("the coarse search cannot turn images that are so thin; give a first guess (-pf)")


def _grid(shape: Triple) -> Triple:
    """Shape of the FFTs for images of a shape: there is room for what a rotation lays across, and for translations."""
    nz, ny, nx = (_fft_size(max(1.5 * n, 0.5 * n + max(shape))) for n in shape)
    return 1 if is_two_d(shape) else nz, ny, nx


def gradients(two_d: bool, max_angle: float) -> Array:
    """Deformation gradients (n, 3, 3) of the scan: rotations up to the largest angle times stretches."""
    if two_d:
        count = math.ceil(min(max_angle, 180.0) / STEP_2D)
        angles = np.arange(-count, count + 1) * STEP_2D
        if count * STEP_2D >= 180:
            angles = angles[1:]
        rotations = deformation.rotation_matrix(np.stack([angles, 0 * angles, 0 * angles], -1))
        planes = [np.diag([1.0, s, s]) for s in STRETCHES_2D]
    else:
        rotations = np.concatenate([np.eye(3)[None], _all_rotations(ROTATIONS)])
        angles = np.linalg.norm(deformation.rotation_vector(rotations), axis=-1)
        rotations = rotations[angles <= max_angle + REACH]
        planes = [s * np.eye(3) for s in STRETCHES]
    return np.concatenate([rotations @ plane for plane in planes])


def _all_rotations(n: int) -> Array:
    """Rotation matrices (n, 3, 3) spread evenly over all rotations: super-Fibonacci spirals (Alexa 2022)."""
    k = np.arange(n) + 0.5
    share, turn = k / n, 2 * np.pi * k
    alpha, beta = turn / math.sqrt(2), turn / 1.533751168755204288118041
    inner, outer = np.sqrt(share), np.sqrt(1 - share)
    w, a, b, c = inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)
    R = np.empty((n, 3, 3))
    R[:, 0, 0], R[:, 0, 1], R[:, 0, 2] = 1 - 2 * (b * b + c * c), 2 * (a * b - w * c), 2 * (a * c + w * b)
    R[:, 1, 0], R[:, 1, 1], R[:, 1, 2] = 2 * (a * b + w * c), 1 - 2 * (a * a + c * c), 2 * (b * c - w * a)
    R[:, 2, 0], R[:, 2, 1], R[:, 2, 2] = 2 * (a * c - w * b), 2 * (b * c + w * a), 1 - 2 * (a * a + b * b)
    return R


def _flattened(image: Float32Array, data: Any) -> Float32Array:
    """The image with the root of its mean amplitude at every wave number taken off its spectrum; 0 where no data is."""
    mean = image.mean(dtype=np.float64) if data is None else image[data != 0].mean(dtype=np.float64)
    spectrum = np.fft.rfftn(image.astype(np.float64) - mean)
    axes = [np.fft.fftfreq(n) for n in image.shape[:-1]] + [np.fft.rfftfreq(image.shape[-1])]
    number = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True)))
    shell = np.rint(number * max(image.shape)).astype(np.int64).ravel()
    power = spectrum.real**2 + spectrum.imag**2
    mean_power = np.bincount(shell, power.ravel()) / np.maximum(np.bincount(shell), 1)
    floor = 1e-9 * float(mean_power.max()) + 1e-30
    # square roots are the same on all processors, other powers are not
    factor = 1 / np.sqrt(np.sqrt(mean_power + floor))
    # beyond the largest wave number of an axis a rotated image has nothing
    scaled = spectrum * factor[shell].reshape(spectrum.shape) * (number <= 0.5)
    flat = np.fft.irfftn(scaled, s=image.shape, axes=(0, 1, 2)).astype(np.float32)
    if data is not None:
        flat *= data
    return flat


class Scan:
    """Correlation of image 1 with image 2, turned by each of many F, at every whole translation.

    Parameters
    ----------
    level : Level
    F : (n, 3, 3) float64
    """

    def __init__(self, level: Level, F: Array) -> None:
        self._one = _flattened(level.im1, level.data1)
        self._two = _flattened(level.im2, level.data2)
        self._F = F
        self.n_chunks = -(-len(F) // CHUNK)

    def run(self, chunk: int) -> Array:
        """Rows of score, and translation of image 1 before it is turned (3, voxels), of every F of the chunk."""
        shape = np.array(self._one.shape)
        flat = is_two_d(self._one.shape)
        grid = _grid(self._one.shape)
        padded = np.zeros(grid, np.float32)
        low = (np.array(grid) - shape) // 2
        padded[tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True))] = self._one
        first = np.conj(np.fft.rfftn(padded))
        norm = _norm(padded)
        box, begin, end, centre = framed(self._two)
        # middle of the grid, seen from the centre of image 1
        arm = (np.array(grid) - 1) / 2 - (low + (shape - 1) / 2)
        turned = np.empty(grid, np.float32)
        F = self._F[chunk * CHUNK : (chunk + 1) * CHUNK]
        rows = np.zeros((len(F), 4))
        for row, one in zip(rows, F, strict=True):
            at = centre + (one * arm).sum(axis=1)
            correlation.warp(box, 1, flat, one, at, begin, end, turned, 0.0)
            product = np.fft.irfftn(np.fft.rfftn(turned) * first, s=grid, axes=(0, 1, 2))
            place = int(product.argmax())
            shift = np.array(np.unravel_index(place, grid))
            row[1:] = np.where(shift > np.array(grid) // 2, shift - grid, shift)
            energy = norm * _norm(turned)
            row[0] = float(product.flat[place]) / energy if energy > 0 else 0.0
        return rows


def _norm(values: Float32Array) -> float:
    return math.sqrt(float((values.astype(np.float64) ** 2).sum()))


def _fft_size(least: float) -> int:
    """The next even length that FFTs are quick at."""
    size = 2 * math.ceil(least / 2)
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2
