"""Trials of windows as a whole: the noise that they show, and the random errors of all windows at all nodes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpidvc.arrays import Array, Triple, is_two_d
from mpidvc.core.boxes import data_voxels
from mpidvc.core.nested_windows import image_noise, nested_errors, nested_kappas
from mpidvc.core.uncertainty import LAGS, lag_sums, residual_of, residual_variance, trimmed
from mpidvc.errors import UserError
from mpidvc.images.image import Image
from mpidvc.tasks.trial import FRAMED, SMALLEST, Look, largest_window
from mpidvc.workflow.inputs import by

__all__ = [
    "FEWEST",
    "Errors",
    "Noise",
    "ladder",
    "largest_fitting",
    "mask_noise",
    "noise_of_pair",
    "predicted",
    "white_noise",
]

#: Half-window sizes that are correlated, in 3D and in 2D.
LADDER, LADDER_2D = (5, 6, 8, 10, 13, 16, 20, 25), (5, 7, 9, 12, 16, 21, 28, 40)
#: Nodes that have to converge with another image, for it to tell the noise.
FEWEST = 8
#: Edge (voxels) of the boxes in which a mask is looked at, and their number along an axis, in 3D and in 2D.
PROBE, PROBES, PROBE_2D, PROBES_2D = 24, 9, 64, 12
#: Voxels of a uniform region that tell its noise.
LEAST_REGION = 4000
#: A residual that varies more than this times the median is no noise alone.
LARGEST_VARIANCE = 2.0


@dataclass(frozen=True)
class Noise:
    """Noise of two images.

    Attributes
    ----------
    source : str
        Where it comes from, in words.
    image : (2 l + 1, …) float64
        Autocovariance of the noise of each image, grey levels squared; 1 along z in 2D.
    residual : (2 l + 1, …) float64
        Of the residual of two images.
    variances : (n,) float64 or None
        Of the residual at every node; None: the same everywhere.
    """

    source: str
    image: Array
    residual: Array
    variances: Array | None = None

    @property
    def deviation(self) -> float:
        """Standard deviation of an image's noise, grey levels."""
        return math.sqrt(max(float(self.image.max()), 0.0))

    @property
    def correlation(self) -> float:
        """Correlation of neighbouring voxels, mean of the axes."""
        middle = tuple(n // 2 for n in self.image.shape)
        beside = [self.image[tuple(m + (k == axis) for k, m in enumerate(middle))] for axis in range(3) if middle[axis]]
        return float(np.mean(beside) / self.image[middle]) if self.image[middle] > 0 else 0.0


def largest_fitting(image: Image) -> int:
    """The largest half-window size that is tried in an image.

    Raises
    ------
    UserError
        If not even the smallest one fits.
    """
    largest = largest_window(image.shape)
    if largest < SMALLEST:
        raise UserError(
            f"{image.path}: {by(image.shape)} voxels are too few to try windows in; at least {FRAMED} along each axis "
            "are needed"
        )
    return largest


def ladder(largest: int, two_d: bool) -> list[int]:
    """Half-window sizes that are correlated, up to the largest one."""
    sizes = [size for size in (LADDER_2D if two_d else LADDER) if size <= largest]
    return sizes if largest in sizes or largest - sizes[-1] < 2 else [*sizes, largest]


def _lag_shape(two_d: bool) -> Triple:
    lags = 2 * LAGS + 1
    return (1 if two_d else lags, lags, lags)


def white_noise(deviation: float, two_d: bool, order: int = 3) -> Noise:
    """Noise of this standard deviation (grey levels), independent from voxel to voxel; order: of the interpolation."""
    R = np.zeros(_lag_shape(two_d))
    R[tuple(n // 2 for n in R.shape)] = deviation**2
    return Noise(f"--noise {deviation:g}, from voxel to voxel independent", R, residual_of(R, order))


def mask_noise(image: Image, mask: Image, order: int = 3) -> Noise:
    """Noise of a uniform region of an image, from boxes that are spread over it.

    Parameters
    ----------
    image, mask : Image
    order : {1, 3}
        Of the interpolation that the residual will have.

    Raises
    ------
    UserError
        If the mask leaves too few voxels.
    """
    two_d = is_two_d(image.shape)
    edge, most = (PROBE_2D, PROBES_2D) if two_d else (PROBE, PROBES)
    axes = []
    for axis, n in enumerate(image.shape):
        count = 1 if two_d and axis == 0 else max(1, min(most, n // edge))
        axes.append(sorted({(2 * k + 1) * n // (2 * count) - edge // 2 for k in range(count)}))
    products, pairs = np.zeros(_lag_shape(two_d)), np.zeros(_lag_shape(two_d))
    used = 0
    for corner in itertools.product(*axes):
        low = [0 if two_d and axis == 0 else max(c, 0) for axis, c in enumerate(corner)]
        high = [min(a + edge, n) for a, n in zip(low, image.shape, strict=True)]
        open_ = mask.read_box(low, high)[0] != 0
        if np.count_nonzero(open_) < open_.size / 4:
            continue
        part, _ = image.read_box(low, high)
        open_ &= data_voxels(part, image.limits)
        if not open_.any():
            continue
        grey = part.astype(np.float64)
        sums = lag_sums(grey - grey[open_].mean(), open_)
        products += sums[0]
        pairs += sums[1]
        used += int(np.count_nonzero(open_))
    if used < LEAST_REGION:
        raise UserError(
            f"--noise-mask {mask.path}: shows {used} voxels of a uniform region where it was looked at, {LEAST_REGION} "
            "are needed; give a larger region (air, or a uniform material)"
        )
    R = products / np.maximum(pairs, 1)
    variance = float(R.max())
    image_R = variance * trimmed(R / variance) if variance > 0 else R
    return Noise(f"--noise-mask, {used} voxels", image_R, residual_of(image_R, order))


def _gamma(looks: Sequence[Look]) -> Array:
    """Autocorrelations of the gradients of image 1, pooled."""
    products = sum(look.gradients for look in looks)
    covariance = np.asarray(products / np.maximum(sum(look.gradient_pairs for look in looks), 1))
    middle = tuple(n // 2 for n in covariance.shape[1:])
    variance = np.array([one[middle] for one in covariance])
    found: Array = covariance / np.where(variance > 0, variance, 1.0)[:, None, None, None]
    return found


def noise_of_pair(
    looks: Sequence[Look], which: int, pilot: int, source: str, used: Array, order: int = 3
) -> Noise | None:
    """Noise of the residuals with another image; None if too few windows have converged.

    Parameters
    ----------
    looks : sequence of Look
    which : int
        Number of the other image.
    pilot : int
        Half-window size in which residuals were looked at.
    source : str
    used : (n,) bool
        Nodes that count.
    order : {1, 3}
        Of the interpolation.
    """
    found = [look.registered[which] for look in looks]
    squares, voxels = (np.concatenate([getattr(one, name) for one in found]) for name in ("squares", "voxels"))
    if np.count_nonzero(np.isfinite(squares) & used) < FEWEST:
        return None
    R = sum(one.products for one in found) / np.maximum(sum(one.pairs for one in found), 1)
    rho = trimmed(R / max(float(R.max()), 1e-300))
    kappa = nested_kappas(rho, _gamma(looks), pilot - 1)
    two_d = R.shape[0] == 1
    variances = np.array([residual_variance(s, n, kappa, two_d) for s, n in zip(squares, voxels, strict=True)])
    middle = float(np.nanmedian(np.where(used, variances, np.nan)))
    # what is larger is the model that does not fit, and where nothing converged the others tell
    variances = np.minimum(np.where(np.isfinite(variances), variances, middle), LARGEST_VARIANCE * middle)
    residual = np.asarray(middle * rho)
    return Noise(source, image_noise(residual, order), residual, variances)


@dataclass(frozen=True)
class Errors:
    """Random errors that are predicted at every node, by half-window size from 0 on.

    Attributes
    ----------
    displacement : (n, largest + 1, 3) float64
        Standard deviation, voxels; nan for windows that are too small.
    F : (n, largest + 1, 3, 3) float64
    """

    displacement: Array
    F: Array

    def quantile(self, share: float, hws: int, used: Array) -> tuple[float, float]:
        """Standard deviations of displacement and F that so many of the nodes have at most: the largest component."""
        with np.errstate(invalid="ignore"):
            u, F = self.displacement[used, hws], self.F[used, hws].reshape(-1, 9)
            if not len(u) or np.isnan(u).any(axis=1).mean() > 1 - share:
                return math.nan, math.nan
            # a window without texture has an endless error
            values = (np.where(np.isnan(a), np.inf, a) for a in (u, F))
            first, second = (np.quantile(a, share, axis=0, method="lower").max() for a in values)
        return float(first), float(second)

    def mean_square(self, hws: int, used: Array) -> Array:
        """Root mean square over the nodes of the standard deviation of each component of the displacement."""
        return np.asarray(np.sqrt(np.nanmean(self.displacement[used, hws] ** 2, axis=0)))


def predicted(looks: Sequence[Look], noise: Noise, order: int = 3) -> Errors:
    """Random errors of all windows at all nodes; order: of the interpolation."""
    gamma = _gamma(looks)
    rho = trimmed(noise.residual / max(float(noise.residual.max()), 1e-300))
    sums = np.concatenate([look.sums for look in looks])
    n, largest = sums.shape[:2]
    displacement, F = np.full((n, largest + 1, 3), np.nan), np.full((n, largest + 1, 3, 3), np.nan)
    for k in range(n):
        if not np.isfinite(sums[k]).all():
            continue
        variance = float(noise.residual.max()) if noise.variances is None else float(noise.variances[k])
        # of H voxels to either side, 2 H - 1 are compared
        displacement[k, 1:], F[k, 1:] = nested_errors(sums[k], noise.image, order, rho, gamma, variance)
    return Errors(displacement, F)
