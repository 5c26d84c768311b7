"""Random errors of a registration: their covariance from the noise of the grey levels.

A registration ends where ``Σ J r = 0``, with the residual ``r = im1(x) - im2(Phi x)``, ``J = G X``, the gradient G of
image 1 and X = (z, y, x, 1). A noise e in r changes the twelve parameters by ``A⁻¹ Σ J e``, with the mixed matrix
``A = Σ J Kᵀ`` of the gradients of *both* images, ``K = (Fᵀ ∇im2(Phi x)) X``. So (White 1980, doi 10.2307/1912934; Newey
and West 1987, doi 10.2307/1913610)

    Cov = s² A⁻¹ B A⁻ᵀ,    B = Σ_x Σ_l rho(l) J(x) J(x + l)ᵀ

with the variance s² and the autocorrelation rho of the residual. The noises of the images are independent, so that A,
unlike ``M = Σ J Jᵀ``, has none of it in the mean; and A has the slope that the interpolation really has. In windows
without holes ``B ≈ D M D``: D has the roots of ``kappa = Σ_l rho(l) gamma(l) omega(l)``, the mean quotient of the
diagonals of B and M: gamma is the autocorrelation of the gradient along an axis, omega that of X in the window, where
pairs of voxels are the fewer the farther they are apart. N / kappa is the number of voxels that count as independent.

The twelve parameters are the rows (F_i0, F_i1, F_i2, t_i) of Phi, i = z, y, x. Grey levels are in their own unit, lags
and displacements in voxels. Images of two dimensions are one plane; their parameters along z are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array

__all__ = [
    "AXES",
    "FRAME",
    "LAGS",
    "Noise",
    "Pooled",
    "Prediction",
    "Sample",
    "axis_correlation",
    "both_gradients",
    "composed",
    "correlated_sums",
    "covariance",
    "interpolated",
    "interpolation_bias",
    "kappas",
    "lag_sums",
    "line_spectra",
    "noise_of_residual",
    "own_share",
    "passed",
    "pool",
    "predict",
    "residual_of",
    "residual_of_noise",
    "residual_variance",
    "rigid_part",
    "shared_noise",
    "trimmed",
]

#: Largest lag (voxels) along each axis at which noise is correlated.
LAGS = 6
#: Correlations beyond the first shell of lags that has only smaller ones are taken for 0.
FADED = 0.02
#: Axis of the gradient that a parameter belongs to.
AXES = np.repeat(np.arange(3), 4)
#: Voxels that `predict` needs around the compared ones.
FRAME = 4


@dataclass(frozen=True)
class Noise:
    """Noise of the residual between two images.

    Attributes
    ----------
    rho : (2 l + 1, 2 l + 1, 2 l + 1) float64
        Autocorrelation at lags of -l … l voxels; (1, …) in 2D.
    kappa : (12,) float64
        Voxels that count as one, for each parameter.
    variance : float
        Of the residual, grey levels squared; nan: each window's own.
    """

    rho: Array
    kappa: Array
    variance: float = float("nan")

    @classmethod
    def of(
        cls,
        covariance: npt.ArrayLike,
        gamma: npt.ArrayLike,
        own: npt.ArrayLike | None = None,
        known: bool = False,
        window: Sequence[int] | None = None,
    ) -> Noise:
        """Noise with this autocovariance of the residual, and these autocorrelations of the gradients (3, …).

        Parameters
        ----------
        covariance, gamma : (2 l + 1, …), (3, 2 l + 1, …)
        own : (3,), optional
            `own_share` of image 1, which kappa lacks.
        known : bool
            Whether the variance holds for all windows, and is not that of their residuals.
        window : 3 ints, optional
            Compared voxels along z, y, x, as that of `kappas`.
        """
        R = np.asarray(covariance, np.float64)
        variance = float(R[_middle(R.shape)])
        rho = trimmed(R / variance) if variance > 0 else trimmed(_delta(R.shape))
        return cls(rho, kappas(rho, gamma, window, own), variance if known else float("nan"))


def _middle(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n // 2 for n in shape)


def _delta(shape: tuple[int, ...]) -> Array:
    one = np.zeros(shape)
    one[_middle(shape)] = 1
    return one


def _reach(shape: tuple[int, ...], lags: int) -> tuple[int, ...]:
    return tuple(0 if n == 1 else lags for n in shape)


def lag_sums(window: npt.ArrayLike, weights: npt.ArrayLike | None = None, lags: int = LAGS) -> tuple[Array, Array]:
    """Sums of products of values at all lags, and the numbers of pairs: their quotient is the autocovariance.

    Parameters
    ----------
    window : (z, y, x)
    weights : (z, y, x), optional
        0 for voxels that do not count, else 1.
    lags : int
        Largest lag, voxels.

    Returns
    -------
    products, pairs : (2 lags + 1, …) float64
        1 along z in 2D.
    """
    values = np.asarray(window, np.float64)
    w = np.ones(values.shape) if weights is None else np.asarray(weights, np.float64)
    reach = _reach(values.shape, lags)
    padded = tuple(n + k for n, k in zip(values.shape, reach, strict=True))
    cut = np.ix_(*(np.arange(-k, k + 1) for k in reach))
    axes = (0, 1, 2)
    sums = [np.fft.irfftn(np.abs(np.fft.rfftn(part, padded, axes)) ** 2, padded, axes)[cut] for part in (values * w, w)]
    return sums[0], np.rint(sums[1])


def trimmed(rho: npt.ArrayLike) -> Array:
    """Autocorrelations up to the first shell of lags (the same largest component) where all are below `FADED`."""
    R = np.array(rho, np.float64)
    shell = np.abs(np.indices(R.shape) - np.array(_middle(R.shape))[:, None, None, None]).max(axis=0)
    for k in range(1, int(shell.max()) + 1):
        if np.abs(R[shell == k]).max() < FADED:
            R[shell >= k] = 0
            break
    return R


def _pairs(voxels: int, lags: int) -> tuple[Array, Array]:
    """Σ 1 and Σ x (x + l) over the pairs at lags l of -lags … lags of a line, over those at 0; 1 for a single voxel."""
    x = np.arange(voxels) - (voxels - 1) / 2
    kept = [slice(max(voxels - abs(lag), 0)) for lag in range(-lags, lags + 1)]
    ones = np.array([len(x[k]) for k in kept]) / voxels
    square = float(x @ x)
    return ones, np.array([x[k] @ -x[k][::-1] for k in kept]) / square if square > 0 else np.ones(len(kept))


def kappas(
    rho: npt.ArrayLike,
    gamma: npt.ArrayLike,
    window: Sequence[int] | None = None,
    own: npt.ArrayLike | None = None,
) -> Array:
    """Voxels that count as one for each parameter (12,), at least 0.1.

    Parameters
    ----------
    rho : (2 l + 1, …)
        Autocorrelation of the noise; 1 along z in 2D.
    gamma : (3, 2 l + 1, …)
        Autocorrelations of the gradients along z, y, x, at the same lags.
    window : 3 ints, optional
        Compared voxels along z, y, x: near the sides of a small window neighbours are missing, and the products of
        their places in it are smaller than the squares. None: it is wide.
    own : (3,), optional
        `own_share` of image 1, which is taken off, at least half of kappa being left.
    """
    R = np.asarray(rho, np.float64)
    weights = np.ones((4, *R.shape))
    for axis in range(0 if window is None else 3):
        ones, places = _pairs(window[axis], R.shape[axis] // 2)  # type: ignore[index]
        shape = [-1 if a == axis else 1 for a in range(3)]
        for j in range(4):
            weights[j] *= (places if j == axis else ones).reshape(shape)
    sums: Array = np.einsum("zyx,izyx,jzyx->ij", R, np.asarray(gamma, np.float64), weights).ravel()
    # noise whose correlations nearly cancel (the ramp of a reconstruction) must not make a variance vanish
    kappa = np.maximum(sums, 0.1)
    if own is not None:
        # where the residual holds more than noise, the share is too large
        kappa = np.maximum(kappa - np.asarray(own)[AXES], kappa / 2)
    return np.asarray(kappa)


def own_share(noise: npt.ArrayLike, variance: float, power: npt.ArrayLike) -> Array:
    """Part (3,) of kappa that image 1's noise has with its own gradient, and that is no error.

    Image 1's noise e is in the residual and, as central differences, in the gradient; but the sum over a window of
    ``e(x) (e(x + 1) - e(x - 1))`` is nothing but its ends. It matters where texture is coarse and noise strong.

    Parameters
    ----------
    noise : (2 l + 1, …)
        Autocovariance of image 1's noise.
    variance : float
        Of the residual.
    power : (3,)
        Mean square of the gradients along z, y, x, noise included.
    """
    R = np.asarray(noise, np.float64)
    found = np.zeros(3)
    for a in range(3):
        if R.shape[a] == 1 or not (variance > 0 and np.asarray(power)[a] > 0):
            continue
        padded = np.pad(R, [(2, 2) if b == a else (0, 0) for b in range(3)])
        ahead, behind = (
            padded[tuple(slice(k, k + n) if b == a else slice(None) for b, n in enumerate(R.shape))] for k in (4, 0)
        )
        slopes = R / 2 - (ahead + behind) / 4
        found[a] = (R * slopes).sum() / (variance * np.asarray(power)[a])
    return found


def residual_variance(squares: float, voxels: float, kappa: npt.ArrayLike, two_d: bool = False) -> float:
    """Variance of the noise in a residual from its sum of squares: the fit has taken a part of it off.

    nan where the parameters (of which `kappa` is, (12,)) are as many as the voxels that count.
    """
    k = np.asarray(kappa, np.float64).reshape(3, 4)
    left = voxels - (k[1:, 1:].sum() if two_d else k.sum())
    return float(squares / left) if left > 0 else float("nan")


def covariance(
    A: npt.ArrayLike, M: npt.ArrayLike, noise: Noise, variance: float, B: npt.ArrayLike | None = None
) -> Array:
    """Covariance (12, 12) of the parameters' increment, in the frame of image 1.

    Parameters
    ----------
    A : (12, 12)
        Mixed matrix ``Σ J Kᵀ``; parameters whose diagonal in M is 0 do not exist.
    M : (12, 12)
        ``Σ J Jᵀ``.
    noise : Noise
    variance : float
        Of the residual.
    B : (12, 12), optional
        `correlated_sums`, in place of ``D M D``.
    """
    M = np.asarray(M, np.float64)
    some = np.flatnonzero(np.diag(M) > 0)
    which = np.ix_(some, some)
    root = np.sqrt(noise.kappa)
    middle = root[:, None] * M * root if B is None else np.asarray(B, np.float64)
    inverse = np.linalg.inv(np.asarray(A, np.float64)[which])
    found = np.zeros((12, 12))
    found[which] = variance * inverse @ middle[which] @ inverse.T
    return found


def correlated_sums(gradients: npt.ArrayLike, noise: Noise, X: npt.ArrayLike) -> Array:
    """B (12, 12) itself: for windows with holes, where the neighbours of many voxels are missing.

    X is the mean of those of the two voxels: some per cent too much for F in windows of 11 voxels.

    Parameters
    ----------
    gradients : (3, z, y, x)
        Of image 1, 0 where voxels are not compared.
    noise : Noise
    X : (4, z, y, x)
        z, y, x about the centre, and 1.
    """
    G = np.asarray(gradients, np.float64)
    rho = noise.rho
    around = [(n // 2, n // 2) for n in rho.shape]
    smooth = np.zeros(G.shape)
    padded = np.pad(G, [(0, 0), *around])
    for lag in zip(*np.nonzero(rho), strict=True):
        here = tuple(slice(a, a + n) for a, n in zip(lag, G.shape[1:], strict=True))
        smooth += rho[lag] * padded[(slice(None), here[0], here[1], here[2])]
    basis = np.asarray(X, np.float64)
    J, Jh = ((g[:, None] * basis[None]).reshape(12, -1) for g in (G, smooth))
    B = J @ Jh.T
    return np.asarray((B + B.T) / 2)


def rigid_part(covariance: npt.ArrayLike) -> Array:
    """Covariance of a rigid increment: only the skew part of its F is kept, as the update does."""
    P = np.eye(12)
    for i in range(3):
        for j in range(3):
            P[4 * i + j, 4 * i + j] -= 0.5
            P[4 * i + j, 4 * j + i] -= 0.5
    C: Array = P @ np.asarray(covariance) @ P.T
    return C


def composed(covariance: npt.ArrayLike, F: npt.ArrayLike) -> Array:
    """Covariance of Phi from that of its last increment: ``Phi (I + δ)`` changes by F δ.

    Parameters
    ----------
    covariance : (12, 12)
    F : (3, 3)
        Of Phi.
    """
    T = np.kron(np.asarray(F, np.float64), np.eye(4))
    C: Array = T @ np.asarray(covariance) @ T.T
    return C


# ------------------------------------------------------------------------------------- from the noise of an image alone


def _bspline(order: int, k: npt.NDArray[np.floating]) -> Array:
    """Spectrum of the samples of a B-spline of odd order at whole voxels."""
    taps = {3: (4, 1, 0, 0), 7: (2416, 1191, 120, 1)}[order]
    found: Array = sum((taps[j] * np.cos(j * k) * (1 if j == 0 else 2) for j in range(4)), np.zeros(len(k)))
    return np.asarray(found / {3: 6, 7: 5040}[order], np.float64)


def axis_correlation(order: int, lags: int = LAGS) -> Array:
    """Autocovariance (2 lags + 1,) along an axis of white noise that an interpolation has passed, mean of all sub-voxel
    places.

    It is that of two kernels of interpolation, sampled at whole voxels: of linear ones a cubic B-spline.
    """
    k = 2 * np.pi * np.fft.fftfreq(64)
    spectrum = _bspline(3, k) if order == 1 else _bspline(7, k) / _bspline(3, k) ** 2
    values: Array = np.fft.ifft(spectrum).real[np.arange(-lags, lags + 1)]
    return values


def interpolated(covariance: npt.ArrayLike, order: int) -> Array:
    """Autocovariance of a noise that an interpolation has passed, mean of all sub-voxel places.

    Parameters
    ----------
    covariance : (2 l + 1, …)
        1 along z in 2D.
    order : {1, 3}
    """
    R = np.asarray(covariance, np.float64)
    for axis, n in enumerate(R.shape):
        if n == 1:
            continue
        kernel = axis_correlation(order, n)
        lines = np.moveaxis(R, axis, -1)
        out = np.stack([lines @ kernel[n + np.arange(n) - i] for i in range(n)], axis=-1)
        R = np.moveaxis(out, -1, axis)
    return R


def residual_of(covariance: npt.ArrayLike, order: int) -> Array:
    """Autocovariance of the residual of two images with independent noises of this autocovariance each."""
    R = np.asarray(covariance, np.float64)
    return R + interpolated(R, order)


#: Period of the spectra of autocovariances, voxels: more than twice their largest lag.
_PERIOD = 32


def _interpolation(order: int, t: float) -> tuple[dict[int, float], dict[int, float]]:
    """Weights of the values around, and their derivatives, at a distance t from the voxel before (spline: 6 times)."""
    if order == 1:
        return {0: 1 - t, 1: t}, {0: -1.0, 1: 1.0}
    u = 1 - t
    values = {-1: u**3, 0: t * t * (3 * t - 6) + 4, 1: u * u * (3 * u - 6) + 4, 2: t**3}
    return values, {-1: -3 * u * u, 0: t * (9 * t - 12), 1: -u * (9 * u - 12), 2: 3 * t * t}


#: Length of the transforms of lines of a window.
_LINE = 64


def line_spectra(window: npt.ArrayLike) -> Array:
    """Power spectra (3, 33) of the lines of a window along z, y, x, with a Hann window; nan along z in 2D."""
    f = np.asarray(window, np.float64)
    f = f - f.mean()
    found = np.full((3, _LINE // 2 + 1), np.nan)
    for a, n in enumerate(f.shape):
        if n > 1:
            taper = np.hanning(n + 2)[1:-1]
            lines = np.moveaxis(f, a, -1).reshape(-1, n) * (taper / np.sqrt((taper**2).sum()))
            found[a] = (np.abs(np.fft.rfft(lines, max(_LINE, n), axis=1)) ** 2).mean(axis=0)[: _LINE // 2 + 1]
    return found


def interpolation_bias(spectra: npt.ArrayLike, noise: npt.ArrayLike, order: int) -> Array:
    """Largest error (3,) of a displacement along z, y, x that an interpolation makes in wide windows, voxels.

    It is a wave in the sub-voxel displacement t, ``Σ G (f - I_t f) / Σ G K`` with the interpolation I_t of the texture
    moved by t, its derivative K and central differences G (Schreier, Braasch and Sutton 2000, doi 10.1117/1.1314593):
    here in the frequencies of image 1 less its noise.

    Parameters
    ----------
    spectra : (3, 33)
        `line_spectra` of image 1, mean of windows.
    noise : (2 l + 1, …)
        Autocovariance of its noise.
    order : {1, 3}
    """
    R, middle = np.asarray(noise, np.float64), _middle(np.asarray(noise).shape)
    k = 2 * np.pi * np.fft.rfftfreq(_LINE)
    found = np.full(3, np.nan)
    for a in range(3):
        power = np.asarray(spectra, np.float64)[a]
        if not np.isfinite(power).all():
            continue
        first, second = (m for b, m in enumerate(middle) if b != a)
        line = np.moveaxis(R, a, 0)[:, first, second]
        lags = np.arange(len(line)) - middle[a]
        S = np.maximum(power - (line[:, None] * np.cos(lags[:, None] * k)).sum(axis=0), 0)
        gradient = -1j * np.sin(k)
        biases = []
        for t in np.arange(1, 10) / 20:
            values, slopes = (
                sum((w * np.exp(1j * k * at) for at, w in taps.items()), 0j) for taps in _interpolation(order, t)
            )
            moved = np.exp(-1j * k * t) / (1 if order == 1 else 6 * _bspline(3, k))
            error, slope = gradient * (1 - values * moved), gradient * slopes * moved
            below = float((S * slope.real).sum())
            biases.append(abs(float((S * error.real).sum())) / below if below > 0 else np.nan)
        found[a] = np.max(biases)
    return found


def passed(order: int, places: npt.ArrayLike, two_d: bool) -> Array:
    """Spectrum by which an interpolation multiplies that of white noise, mean of some places.

    Parameters
    ----------
    order : {1, 3}
    places : (n, 3)
        Sub-voxel displacements (fractions count); nan: all of them alike.
    two_d : bool

    Returns
    -------
    (32, 32, 32) float64
        (1, 32, 32) in 2D.
    """
    k = 2 * np.pi * np.fft.fftfreq(_PERIOD)
    everywhere = _bspline(3, k) if order == 1 else _bspline(7, k) / _bspline(3, k) ** 2
    t = np.mod(np.atleast_2d(np.asarray(places, np.float64)), 1.0)
    total = np.zeros((1 if two_d else _PERIOD, _PERIOD, _PERIOD))
    for place in t:
        lines = []
        for a in range(3):
            if two_d and a == 0:
                lines.append(np.ones(1))
                continue
            u = float(place[a])
            if np.isnan(u):
                lines.append(everywhere)
                continue
            taps, _ = _interpolation(order, u)
            response = sum((w * np.exp(1j * k * at) for at, w in taps.items()), np.zeros(len(k), complex))
            lines.append(np.abs(response) ** 2 / (1 if order == 1 else (6 * _bspline(3, k)) ** 2))
        total += reduce(np.multiply.outer, lines)
    return total / len(t)


def _filter(covariance: npt.ArrayLike, factor: Array) -> Array:
    """An autocovariance whose spectrum is multiplied by a factor."""
    R = np.asarray(covariance, np.float64)
    at = np.ix_(*(np.arange(n) - n // 2 for n in R.shape))
    whole = np.zeros(factor.shape)
    whole[at] = R
    return np.asarray(np.fft.ifftn(np.fft.fftn(whole) * factor).real[at])


def residual_of_noise(covariance: npt.ArrayLike, spectrum: Array) -> Array:
    """Autocovariance of the residual of two images with this noise each, of which one has `passed` an interpolation."""
    return _filter(covariance, 1 + spectrum)


def noise_of_residual(covariance: npt.ArrayLike, spectrum: Array) -> Array:
    """Autocovariance of the noise of one image; the inverse of `residual_of_noise`."""
    return _filter(covariance, 1 / (1 + spectrum))


@dataclass(frozen=True)
class Sample:
    """Residual and gradients of a window that has converged.

    Attributes
    ----------
    covariance : (2 l + 1, …) float64
        Autocovariance of the residual.
    gamma : (3, 2 l + 1, …) float64
        Autocorrelations of the gradients along z, y, x.
    power : (3,) float64
        Their mean squares.
    place : (3,) float64
        Displacement; nan where places differ much over the window.
    spectra : (3, 33) float64
        `line_spectra` of image 1; nan where the window is not whole.
    """

    covariance: Array
    gamma: Array
    power: Array
    place: Array
    spectra: Array


class Pooled(NamedTuple):
    """Windows that stand for all: means of `Sample`, and the places of each."""

    covariance: Array
    gamma: Array
    power: Array
    places: Array
    spectra: Array


def pool(samples: list[Sample]) -> Pooled:
    """The means of windows.

    Windows whose residual has more than twice the median variance are left out: the model does not fit there. All
    others count alike, whatever their variance.
    """
    middle = _middle(samples[0].covariance.shape)
    variances = np.array([float(one.covariance[middle]) for one in samples])
    kept = [one for one, v in zip(samples, variances, strict=True) if 0 < v <= 2 * np.median(variances)] or samples
    rho = np.mean([one.covariance / max(float(one.covariance[middle]), 1e-300) for one in kept], axis=0)
    variance = np.mean([float(one.covariance[middle]) for one in kept])
    gamma = np.mean([one.gamma for one in kept], axis=0)
    # harmonic: shares are means of quotients by it
    power = 1 / np.mean([1 / np.maximum(one.power, 1e-300) for one in kept], axis=0)
    whole = [one.spectra for one in kept if np.isfinite(one.spectra[2]).all()]
    spectra = np.mean(whole, axis=0) if whole else np.full_like(kept[0].spectra, np.nan)
    places = np.stack([one.place for one in kept])
    return Pooled(np.asarray(variance * rho), np.asarray(gamma), np.asarray(power), places, np.asarray(spectra))


@dataclass(frozen=True)
class Prediction:
    """Random errors that a window will have.

    Attributes
    ----------
    displacement : (3,) float64
        1 standard deviation along z, y, x, voxels; 0 along z in 2D, nan where there is no texture.
    F : (3, 3) float64
    """

    displacement: Array
    F: Array


#: Differences over one voxel at either side, and a derivative that holds for fine texture, too.
_CENTRAL = np.array([-0.5, 0.0, 0.5])
_DERIVATIVE = np.array([-1 / 60, 3 / 20, -3 / 4, 0.0, 3 / 4, -3 / 20, 1 / 60])
#: A linear interpolation smooths: of all sub-voxel places the mean is 1 - k²/12 for the wave number k.
_SMOOTH = {1: np.array([1 / 12, 5 / 6, 1 / 12]), 3: np.array([1.0])}


def _taps(axis: int, order: int | None, two_d: bool) -> Array:
    """Taps of a gradient along an axis: image 1's central differences, or those of an interpolation of this order."""
    size = 2 * FRAME + 1
    parts = []
    for a in range(3):
        if two_d and a == 0:
            parts.append(np.ones(1))
            continue
        smooth = np.ones(1) if order is None else _SMOOTH[order]
        line = smooth if a != axis else np.convolve(_CENTRAL if order is None else _DERIVATIVE, smooth)
        parts.append(np.pad(line, (size - len(line)) // 2))
    taps: Array = reduce(np.multiply.outer, parts)
    return taps


def _filtered(window: Array, taps: Array) -> Array:
    """The correlation of a window with some taps, without the frame."""
    shape = tuple(n - t + 1 for n, t in zip(window.shape, taps.shape, strict=True))
    out = np.zeros(shape)
    for at in zip(*np.nonzero(taps), strict=True):
        out += taps[at] * window[tuple(slice(a, a + n) for a, n in zip(at, shape, strict=True))]
    return out


def both_gradients(window: npt.ArrayLike, order: int) -> tuple[Array, Array]:
    """Gradients (3, z, y, x) of image 1 and, were it image 2, of its interpolation; 0 along z in 2D.

    `window` has `FRAME` voxels more at each side, as that of `predict`.
    """
    f = np.asarray(window, np.float64)
    two_d = f.shape[0] == 1
    f = f - f.mean()
    inner = tuple(n if n == 1 else n - 2 * FRAME for n in f.shape)
    G, K = np.zeros((3, *inner)), np.zeros((3, *inner))
    for a in (1, 2) if two_d else (0, 1, 2):
        G[a], K[a] = _filtered(f, _taps(a, None, two_d)), _filtered(f, _taps(a, order, two_d))
    return G, K


def shared_noise(noise: npt.ArrayLike, order: int | None) -> Array:
    """Mean products (3, 3) of what the filters of `both_gradients` make of the noise of one image.

    `noise` is its autocovariance, as that of `predict`; without an order both are image 1's gradients.
    """
    R = np.asarray(noise, np.float64)
    two_d = R.shape[0] == 1
    axes = (1, 2) if two_d else (0, 1, 2)
    shared = np.zeros((3, 3))
    for a in axes:
        for c in axes:
            shared[a, c] = _common(_taps(a, None, two_d), _taps(c, order, two_d), R)
    return shared


def predict(
    window: npt.ArrayLike, noise: npt.ArrayLike, order: int, rigid: bool = False, kappa: npt.ArrayLike | None = None
) -> Prediction:
    """Random errors of a registration of this window, from image 1 and the noise of the images.

    It holds for both criteria: gain and bias of the grey levels take two of some thousand voxels away.

    Parameters
    ----------
    window : (z, y, x)
        Grey levels of image 1, noise included: the compared voxels, and `FRAME` more at each side; (1, y, x) in 2D.
    noise : (2 l + 1, …)
        Autocovariance of the noise of one image (grey levels squared), the same in both; 1 along z in 2D. White noise:
        only the middle is not 0.
    order : {1, 3}
        Of the interpolation of image 2.
    rigid : bool
    kappa : (12,), optional
        Of many windows; else that of this one.
    """
    f, R = np.asarray(window, np.float64), np.asarray(noise, np.float64)
    two_d = f.shape[0] == 1
    axes = (1, 2) if two_d else (0, 1, 2)
    G, K = both_gradients(f, order)
    inner = G.shape[1:]
    X = np.ones((4, *inner))
    X[:3] = np.indices(inner) - (np.array(inner)[:, None, None, None] - 1) / 2
    J, Jk = ((g[:, None] * X[None]).reshape(12, -1) for g in (G, K))
    M, A = J @ J.T, J @ Jk.T
    # the gradients of the real pair have independent noises: what both filters make of image 1's is taken off A
    A -= np.kron(shared_noise(R, order), X.reshape(4, -1) @ X.reshape(4, -1).T)
    total = residual_of(R, order)
    variance = float(total[_middle(total.shape)])
    if kappa is None:
        gamma = np.zeros((3, *R.shape))
        for a in axes:
            products, pairs = lag_sums(G[a], lags=max(R.shape) // 2)
            gamma[a] = products / np.maximum(pairs, 1) / max(float((G[a] ** 2).mean()), 1e-300)
        found = Noise.of(total, gamma, own_share(R, variance, (G**2).mean(axis=(1, 2, 3))), window=inner)
    else:
        found = Noise(trimmed(total / variance), np.asarray(kappa, np.float64))
    if not all(M[4 * a + 3, 4 * a + 3] > 0 for a in axes):
        return Prediction(np.full(3, np.nan), np.full((3, 3), np.nan))
    try:
        C = covariance(A, M, found, variance)
    except np.linalg.LinAlgError:
        return Prediction(np.full(3, np.nan), np.full((3, 3), np.nan))
    sigma = np.sqrt(np.diag(rigid_part(C) if rigid else C)).reshape(3, 4)
    return Prediction(sigma[:, 3].copy(), sigma[:, :3].copy())


def _common(one: Array, other: Array, R: Array) -> float:
    """Mean product of what two filters make of a noise of this autocovariance."""
    total = 0.0
    middle = _middle(R.shape)
    for u in zip(*np.nonzero(one), strict=True):
        for v in zip(*np.nonzero(other), strict=True):
            lag = tuple(m + b - a for m, a, b in zip(middle, u, v, strict=True))
            if all(0 <= i < n for i, n in zip(lag, R.shape, strict=True)):
                total += float(one[u] * other[v] * R[lag])
    return total
