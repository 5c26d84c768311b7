"""The choice of a window: random errors fall with its size, and the field that it smooths sets the other limit.

Half-window sizes are those of ``ldic -hws``: of H, 2 H - 1 voxels are compared along each axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array

__all__ = ["Bias", "best", "damped_wavelength", "power_law", "smallest"]

#: Half of a window, in wave lengths over 2π, whose mean of a wave has nine tenths of its amplitude: sin q / q = 0.9.
NINE_TENTHS = 0.7867
#: Wavelengths (voxels) that a field is taken to have.
WAVELENGTHS = np.geomspace(12, 6000, 90)


def damped_wavelength(hws: float) -> float:
    """Wavelength (voxels) of a displacement of which a window shows nine tenths: 8.0 (H - 1/2).

    A window with Phi of first order gives the mean displacement of its voxels at its centre.
    """
    return 2 * math.pi * (hws - 0.5) / NINE_TENTHS


@dataclass(frozen=True)
class Bias:
    """What windows smooth away of the displacements, as a root mean square of a component over the points.

    The field is taken for one of waves of a single length: a window of the half-width q takes ``1 - exp(-(k q)² / 6)``
    of them off, which is (k q)²/6 of the amplitude for a small one, as of the mean over the window, and all of it for
    a large one.

    Attributes
    ----------
    amplitude : float
        Root mean square of the waves, voxels.
    wavelength : float
        Voxels.
    """

    amplitude: float
    wavelength: float

    def at(self, hws: npt.ArrayLike) -> Array:
        """Bias (voxels) of windows of these half-window sizes."""
        return self.amplitude * _smoothed(np.asarray(hws, np.float64), self.wavelength)

    @classmethod
    def of(cls, hws: Sequence[int], displacements: Array, sigma: npt.ArrayLike, mistake: float) -> Bias:
        """Bias from displacements that windows of several sizes found at the same points.

        Of two windows about a point the larger one knows what the smaller one knows, and more: the variance of the
        difference is that of the smaller less that of the larger one, and what the differences have besides is bias.

        Parameters
        ----------
        hws : sequence of int
            Two sizes or more.
        displacements : (n, len(hws), 3) float64
            nan where there is none, and along z in 2D.
        sigma : (len(hws), 3) float64
            Root mean square over the points of the predicted standard deviations, voxels.
        mistake : float
            Displacements (voxels) of two windows that differ by more are of different features of the texture: one of
            the windows is mistaken, and the difference is no bias. Those that differ by less count however rare they
            are: a band of localised strain is a small part of a specimen.
        """
        sizes, noise = np.asarray(hws, np.float64), np.asarray(sigma, np.float64) ** 2
        rows = []
        for i in range(len(sizes)):
            for j in range(i + 1, len(sizes)):
                square = (displacements[:, i] - displacements[:, j]) ** 2
                excesses, mistakes = [], []
                for axis in range(3):
                    values = square[:, axis][np.isfinite(square[:, axis])]
                    values = values[values <= mistake**2]
                    if len(values) < 8:
                        continue
                    excesses.append(values.mean() - abs(noise[i, axis] - noise[j, axis]))
                    mistakes.append(values.mean() * math.sqrt(2 / len(values)))
                if excesses:
                    # of all components together: one that does not vary is known better, and says nothing of the others
                    rows.append((i, j, float(np.mean(excesses)), math.hypot(*mistakes) / len(mistakes)))
        if not rows:
            return cls(0.0, float(WAVELENGTHS[-1]))
        first, second = (np.array([row[k] for row in rows]) for k in (0, 1))
        excess, error = (np.array([row[k] for row in rows]) for k in (2, 3))
        weight = 1 / np.maximum(error, 1e-12) ** 2
        found = []
        for wavelength in WAVELENGTHS:
            smoothed = _smoothed(sizes, wavelength)
            shape = (smoothed[first] - smoothed[second]) ** 2
            fitted = float((weight * shape * excess).sum() / (weight * shape * shape).sum())
            amplitude = max(fitted, 0.0)
            found.append((float((weight * (excess - amplitude * shape) ** 2).sum()), float(wavelength), amplitude))
        _, wavelength, amplitude = min(found)
        return cls(math.sqrt(amplitude), wavelength)


def _smoothed(hws: Array, wavelength: float) -> Array:
    """Share of the amplitude of waves that windows take off."""
    q = 2 * math.pi * (hws - 0.5) / wavelength
    return np.asarray(-np.expm1(-(q**2) / 6))


def smallest(hws: Sequence[int], errors: npt.ArrayLike, target: float) -> int | None:
    """The first of some sizes from which on no error is above the target; None if there is none.

    Parameters
    ----------
    hws : sequence of int
        In rising order.
    errors : (len(hws),) float64
    target : float
    """
    good = np.asarray(errors) <= target
    if not good[-1]:
        return None
    bad = np.flatnonzero(~good)
    return hws[int(bad[-1]) + 1] if len(bad) else hws[0]


def best(hws: Sequence[int], errors: npt.ArrayLike) -> int:
    """The size with the least error."""
    return hws[int(np.nanargmin(np.asarray(errors, np.float64)))]


def power_law(hws: npt.ArrayLike, values: npt.ArrayLike) -> tuple[float, float]:
    """Factor and exponent of ``values = factor * (2 H - 1)^exponent``, fitted to the logarithms.

    Parameters
    ----------
    hws, values : (n,)
        Values that are not above 0 do not count; nan, nan if there are fewer than two.
    """
    size, found = 2 * np.asarray(hws, np.float64) - 1, np.asarray(values, np.float64)
    good = (found > 0) & np.isfinite(found) & (size > 0)
    if np.count_nonzero(good) < 2:
        return math.nan, math.nan
    exponent, logarithm = np.polyfit(np.log(size[good]), np.log(found[good]), 1)
    return math.exp(logarithm), float(exponent)
