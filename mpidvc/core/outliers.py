"""Points that converged to a wrong place, told by their error."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array

__all__ = ["error_outliers"]

#: Quantiles of log(error) that stand for the right points, and their distance in standard deviations (normal law).
LOWEST, LOW, DISTANCE = 0.05, 0.25, 0.9704
#: An outlier lies so many deviations above the upper one of them and is at least so many times as large: of the error,
#: and of 1 - ZNCC.
ERROR, MISMATCH = (3.0, 10.0), (2.0, 3.0)
#: Fewer points than this have no outliers.
FEWEST = 20


def error_outliers(error: npt.ArrayLike, zncc: npt.ArrayLike | None = None) -> npt.NDArray[np.bool_]:
    """Which of the converged points have an error that the others do not explain.

    A point that is matched with a wrong place may converge; its error is then 20 to 200 times that of its fellows.
    Right points have the lowest errors, about log-normal, so that the quantiles of 5 % and 25 % of log(error) tell
    their middle and deviation, also where 60 % of the points are wrong. Rules that look at both sides alike break down
    at 50 % (median and MAD, Rousseeuw & Croux 1993, doi 10.1080/01621459.1993.10476408) or 25 % (boxplots, as in Hubert
    & Vandervieren 2008, doi 10.1016/j.csda.2007.11.008), and neighbours (Westerweel & Scarano 2005,
    doi 10.1007/s00348-005-0016-6) tell nothing where a whole region is wrong. An outlier's error is three deviations
    above, and ten times, the quantile of 25 %.

    With `zncc`, 1 - ZNCC has to stand out in the same way, by two deviations and three times: a window of high contrast
    has a large error, but matches.

    Parameters
    ----------
    error : (n,) float
        Of points with return status 2, as in the results; negative ones (grey levels whose sum is below 0) are taken by
        their magnitude.
    zncc : (n,) float, optional
        Their zero-mean normalised cross-correlation; nan decides nothing.

    Returns
    -------
    (n,) bool
        False for errors that are not finite, and for all where fewer than twenty are.
    """
    values = np.abs(np.asarray(error, np.float64))
    finite = np.isfinite(values)
    found = np.zeros(values.shape, bool)
    if finite.sum() < FEWEST:
        return found
    found[finite] = values[finite] > _fence(values[finite], *ERROR)
    if zncc is not None:
        mismatch = 1 - np.asarray(zncc, np.float64)
        known = finite & np.isfinite(mismatch)
        if known.sum() >= FEWEST:
            found[known] &= mismatch[known] > _fence(mismatch[known], *MISMATCH)
    return found


def _fence(values: Array, deviations: float, factor: float) -> float:
    """The largest of these positive values that is none too large."""
    logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    lowest, low = np.quantile(logs, (LOWEST, LOW)).tolist()
    reach = max(deviations * (low - lowest) / DISTANCE, math.log(factor))
    return math.exp(min(low + reach, math.log(np.finfo(np.float64).max)))
