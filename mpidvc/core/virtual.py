"""Virtual second states of an image: values between voxels that are better than a correlation's, and noise.

A band-limited volume is known between its voxels. Its values at half voxels are found by FFT, mirrored at its ends; in
this finer volume a cubic spline errs by some 1e-4 of what it does in the volume itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array

__all__ = ["doubled", "noise_like"]


def doubled(values: npt.ArrayLike) -> Array:
    """Grey levels at voxels and half voxels: those at 0, 1/2, 1, … along each axis that has more than one voxel.

    Near the ends of the volume, within some voxels, they are less exact.

    Parameters
    ----------
    values : (z, y, x)

    Returns
    -------
    (2 z - 1, 2 y - 1, 2 x - 1) float64
    """
    found = np.asarray(values, np.float64)
    for axis, n in enumerate(found.shape):
        if n == 1:
            continue
        lines = np.moveaxis(found, axis, -1)
        spectrum = np.fft.rfft(np.concatenate([lines, lines[..., ::-1]], axis=-1), axis=-1)
        # the frequency of alternating signs is one of two conjugate ones in the finer volume
        spectrum[..., n] *= 0.5
        fine = np.fft.irfft(spectrum, 4 * n, axis=-1)[..., : 2 * n - 1] * 2
        found = np.moveaxis(fine, -1, axis)
    return found


def noise_like(covariance: npt.ArrayLike, shape: Sequence[int], seed: Sequence[int]) -> Array:
    """A realisation of a noise with this autocovariance; it is periodic.

    Parameters
    ----------
    covariance : (2 l + 1, …)
        At the lags -l … l along each axis; 1 along z in 2D.
    shape : 3 ints
        Not smaller than the covariance's.
    seed : sequence of int
        Chooses the realisation.

    Returns
    -------
    shape, float64
    """
    R = np.asarray(covariance, np.float64)
    periodic = np.zeros(tuple(shape))
    periodic[tuple(slice(0, n) for n in R.shape)] = R
    periodic = np.roll(periodic, [-(n // 2) for n in R.shape], (0, 1, 2))
    # what was cut off at the longest lags may leave some frequencies slightly below 0
    power = np.maximum(np.fft.rfftn(periodic, axes=(0, 1, 2)).real, 0)
    white = np.random.default_rng(list(seed)).normal(size=tuple(shape))
    return np.asarray(np.fft.irfftn(np.fft.rfftn(white, axes=(0, 1, 2)) * np.sqrt(power), tuple(shape), axes=(0, 1, 2)))
