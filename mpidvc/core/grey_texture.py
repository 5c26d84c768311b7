"""Measures of a texture: how far grey levels are correlated, its period, saturation, and two classes of grey levels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array

__all__ = ["Classes", "correlation_length", "line_sums", "otsu", "period_of", "saturated_share", "uneven"]

#: Height of a peak of the autocorrelation above the lowest value before it, from which on a texture has a period.
PERIODIC = 0.3
#: Share of the variance that lies between two classes from which on there are two: it is 2/π of a Gaussian and 3/4 of a
#: uniform distribution, which are one.
BIMODAL = 0.85
#: Two classes of different widths: how much likelier than one, values in the valley over those at the lower peak, bins
#: of the histogram, least share of a class, and fewest values.
LIKELIER, VALLEY, BINS, LEAST_CLASS, FEWEST = 0.1, 0.2, 40, 0.01, 200
#: How many times as many voxels as its neighbours have make the first or last grey level one of saturated voxels, and
#: the share of voxels that they have at least.
PILED, LEAST_SATURATED = 5.0, 1e-4


def line_sums(values: npt.ArrayLike, reach: int, usable: npt.NDArray[np.bool_] | None = None) -> tuple[Array, Array]:
    """Sums of the products of voxels that lie 0, 1, … `reach` apart along z, y and x, and the numbers of their pairs.

    Their quotient is the autocovariance along the axes; sums of several windows are added before.

    Parameters
    ----------
    values : (z, y, x)
        The mean of the usable voxels is taken off.
    reach : int
        Largest lag, voxels.
    usable : (z, y, x) bool, optional
        Voxels that count; all if not given.

    Returns
    -------
    products, pairs : (3, reach + 1) float64
        0 at lags that the window does not have.
    """
    grey = np.asarray(values, np.float64)
    use = np.ones(grey.shape, bool) if usable is None else np.asarray(usable, bool)
    products, pairs = np.zeros((3, reach + 1)), np.zeros((3, reach + 1))
    if not use.any():
        return products, pairs
    grey = np.where(use, grey - grey[use].mean(), 0.0)
    for axis in range(3):
        n = grey.shape[axis]
        size = 2 ** math.ceil(math.log2(n + min(reach, n - 1)))
        found = min(reach, n - 1) + 1
        for source, sums in ((grey, products), (use.astype(np.float64), pairs)):
            if sums is pairs and usable is None:
                sums[axis, :found] = (n - np.arange(found)) * (grey.size // n)
                continue
            power = np.abs(np.fft.rfft(source, size, axis)) ** 2
            lines = power.sum(axis=tuple(a for a in range(3) if a != axis))
            sums[axis, :found] = np.fft.irfft(lines, size)[:found]
    return products, np.rint(pairs)


def correlation_length(rho: npt.ArrayLike) -> float:
    """Lag (voxels) at which an autocorrelation falls to 1/e; of a Gaussian one exactly.

    Parameters
    ----------
    rho : (n,) float64
        At the lags 0, 1, …; 1 at lag 0.

    Returns
    -------
    float
        0 where nothing varies; infinite if it does not fall so far.
    """
    r = np.asarray(rho, np.float64)
    if not r[0] > 0:
        return 0.0
    below = np.flatnonzero(r < 1 / math.e)
    if len(below) == 0:
        return math.inf
    k = int(below[0])
    # the logarithm of a Gaussian goes with the square of the lag
    high, low = math.log(r[k - 1]), math.log(max(float(r[k]), 1e-3))
    return math.sqrt((k - 1) ** 2 + (high + 1) / (high - low) * (k**2 - (k - 1) ** 2))


def period_of(rho: npt.ArrayLike) -> float:
    """Lag (voxels) of the first peak of an autocorrelation beside lag 0; nan if there is none.

    A peak counts if it is higher than the lowest value before it by `PERIODIC`: noise and grains packed at random have
    lower ones.

    Parameters
    ----------
    rho : (n,) float64
        At the lags 0, 1, …; 1 at lag 0.
    """
    r = np.asarray(rho, np.float64)
    least = 1.0
    for k in range(1, len(r) - 1):
        least = min(least, float(r[k]))
        if r[k] >= r[k - 1] and r[k] > r[k + 1] and r[k] - least > PERIODIC:
            return float(k + 0.5 * (r[k - 1] - r[k + 1]) / (r[k - 1] - 2 * r[k] + r[k + 1]))
    return math.nan


def saturated_share(values: npt.ArrayLike) -> float:
    """Share of voxels that have the first or the last grey level, where these are piled up: what is beyond was cut off.

    Parameters
    ----------
    values : (n,)
        A sample of whole grey levels, or of floating-point numbers, of which exactly equal ones are counted.
    """
    levels, counts = np.unique(np.asarray(values).ravel(), return_counts=True)
    if len(levels) < 8:
        return 0.0
    share = 0.0
    for end, beside in ((counts[0], counts[1:4]), (counts[-1], counts[-4:-1])):
        if end > PILED * max(float(beside.mean()), 1.0) and end > LEAST_SATURATED * counts.sum():
            share += float(end / counts.sum())
    return share


class Classes(NamedTuple):
    """Two classes of grey levels.

    Attributes
    ----------
    threshold : float
        Between them.
    share : float
        Of the values below.
    separation : float
        Share of the variance that lies between the classes, 0 to 1.
    """

    threshold: float
    share: float
    separation: float

    @property
    def two(self) -> bool:
        """Whether there are two classes, and not a single one cut in half."""
        return self.separation > BIMODAL


def otsu(values: npt.ArrayLike) -> Classes:
    """The threshold that leaves most of the variance between the two classes.

    Otsu 1979, IEEE Trans. Syst. Man Cybern. 9, 62, doi 10.1109/TSMC.1979.4310076.
    Every value is its own bin; between the two values that it lies between, the threshold is in the middle.

    Parameters
    ----------
    values : (n,)
        At least one; nan does not count.
    """
    ordered = np.sort(np.asarray(values, np.float64).ravel())
    ordered = ordered[np.isfinite(ordered)]
    if len(ordered) == 0 or ordered[0] == ordered[-1]:
        return Classes(float(ordered[0]) if len(ordered) else 0.0, 0.0, 0.0)
    centred = ordered - ordered.mean()
    below = np.arange(1, len(ordered)) / len(ordered)
    between = (np.cumsum(centred)[:-1] / len(ordered)) ** 2 / (below * (1 - below))
    # equal values cannot be parted
    between[ordered[1:] == ordered[:-1]] = -1
    k = int(np.argmax(between))
    threshold = 0.5 * (ordered[k] + ordered[k + 1])
    return Classes(float(threshold), float(below[k]), float(between[k] / (centred**2).mean()))


def uneven(values: npt.ArrayLike) -> Classes | None:
    """Two classes of which one is far wider than the other, as dark margins beside a speckled surface; None if not.

    The classes are those of minimum error: Kittler and Illingworth 1986, Pattern Recognition 19, 41, doi
    10.1016/0031-3203(86)90030-0. There are two if two normal distributions fit better than one by `LIKELIER` (log of
    the likelihood of a value), and if hardly a value lies in the valley between their peaks. The threshold is the
    middle of this valley.

    Parameters
    ----------
    values : (n,)
        nan does not count.
    """
    ordered = np.sort(np.asarray(values, np.float64).ravel())
    ordered = ordered[np.isfinite(ordered)]
    n = len(ordered)
    if n < FEWEST or ordered[0] == ordered[-1]:
        return None
    centred = ordered - ordered.mean()
    number = np.arange(1, n)
    share = number / n
    sums, squares = np.cumsum(centred), np.cumsum(centred**2)
    # a class of equal values has a width, too
    least = (1e-3 * ordered.std()) ** 2
    lower = np.maximum(squares[:-1] / number - (sums[:-1] / number) ** 2, least)
    upper = np.maximum((squares[-1] - squares[:-1]) / (n - number) - (sums[:-1] / (n - number)) ** 2, least)
    error = share * np.log(lower / share**2) + (1 - share) * np.log(upper / (1 - share) ** 2)
    error[(ordered[1:] == ordered[:-1]) | (share < LEAST_CLASS) | (share > 1 - LEAST_CLASS)] = np.inf
    k = int(np.argmin(error))
    if 0.5 * (np.log(squares[-1] / n) - error[k]) < LIKELIER:
        return None
    counts, edges = np.histogram(ordered, BINS)
    beyond = int(np.searchsorted(edges, 0.5 * (ordered[k] + ordered[k + 1])))
    if not 0 < beyond < BINS:
        return None
    first, second = int(np.argmax(counts[:beyond])), beyond + int(np.argmax(counts[beyond:]))
    valley = counts[first : second + 1].min()
    if valley > VALLEY * min(counts[first], counts[second]):
        return None
    places = first + np.flatnonzero(counts[first : second + 1] == valley)
    threshold = 0.5 * (edges[places[0]] + edges[places[-1] + 1])
    below = ordered < threshold
    between = below.mean() * centred[below].mean() ** 2 + (1 - below.mean()) * centred[~below].mean() ** 2
    return Classes(float(threshold), float(below.mean()), float(between * n / squares[-1]))
