"""Points that converged to a wrong place, told by their error or by their neighbours."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints
from mpidvc.kernels import field

__all__ = ["FEWEST_NEIGHBOURS", "NEAREST", "PASSES", "block_reach", "default_test", "error_outliers", "residuals"]

#: Quantiles of log(error) that stand for the right points, and their distance in standard deviations (normal law).
LOWEST, LOW, DISTANCE = 0.05, 0.25, 0.9704
#: An outlier lies so many deviations above the upper one of them and is at least so many times as large: of the error,
#: and of 1 - ZNCC.
ERROR, MISMATCH = (3.0, 10.0), (2.0, 3.0)
#: Fewer points than this have no outliers.
FEWEST = 20
#: The normalised median test: neighbours of a point that is no node of a grid, those that a test needs, passes.
NEAREST, FEWEST_NEIGHBOURS, PASSES = 26, 6, 2


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


def default_test(F: Array, errors: npt.ArrayLike | None = None) -> tuple[float, float]:
    """Epsilon (voxels) and threshold of the normalised median test for a field with these F (n, 3, 3).

    Where every F is the identity, as after a pixel search, neighbours tell nothing of gradients, and displacements are
    integers. Where the random errors of the displacements (n, 3) are known, epsilon is three times their median, and at
    least 0.01 voxel; errors are nan where they are not known.
    """
    known = np.zeros(0) if errors is None else np.max(np.asarray(errors, np.float64), axis=1)
    known = known[np.isfinite(known)]
    if len(known):
        return max(3 * float(np.median(known)), 0.01), 6.0
    return (0.5, 2.0) if np.array_equal(F, np.broadcast_to(np.eye(3), F.shape)) else (0.03, 4.0)


def block_reach(dims: tuple[int, int, int]) -> tuple[int, int, int]:
    """Nodes from a node of a grid to the sides of the block of its neighbours: 26 of them, or 24 in 2D."""
    return (0, 2, 2) if dims[0] == 1 else (1, 1, 1)


def residuals(
    positions: Array,
    phi: Array,
    points: Ints,
    start: Ints,
    found: Ints,
    usable: npt.NDArray[np.bool_],
    epsilon: float,
) -> Array:
    """Normalised residual of displacements against those that the neighbours predict: the normalised median test.

    The test of Westerweel & Scarano (2005, doi 10.1007/s00348-005-0016-6) compares displacements; in a field with
    gradients neighbours differ, and it finds next to no error below one voxel. Here neighbour j predicts the
    displacement of point i: ``p_j = u_j + (G_j - I) (x_i - x_j)``, where G_j is the mean of F_j and of the median F of
    all neighbours, which stands for that of the point (the trapezoidal rule: with F_j alone, a prediction is wrong by
    half the second derivative). With m the median of p_j, the residual is the largest ratio of
    ``|u - m| / (median |p_j - m| + epsilon)`` over the components.

    Parameters
    ----------
    positions : (n, 3) float64
    phi : (n, 3 or 4, 4) float64
    points : (m,) int64
        The points to be tested.
    start, found : (m + 1,) and (start[m],) int64
        Their neighbours; a point that is its own neighbour does not count.
    usable : (n,) bool
        Neighbours that count.
    epsilon : float
        Deviation that is always allowed for, in voxels.

    Returns
    -------
    (m,) float64
        nan where fewer than six neighbours count.
    """
    counts = np.ascontiguousarray(usable).view(np.uint8)
    return field.residuals(positions, phi, points, start, found, counts, epsilon, FEWEST_NEIGHBOURS)


def _fence(values: Array, deviations: float, factor: float) -> float:
    """The largest of these positive values that is none too large."""
    logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    lowest, low = np.quantile(logs, (LOWEST, LOW)).tolist()
    reach = max(deviations * (low - lowest) / DISTANCE, math.log(factor))
    return math.exp(min(low + reach, math.log(np.finfo(np.float64).max)))
