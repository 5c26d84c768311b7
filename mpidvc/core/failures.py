"""Where the points lie that failed: everywhere, at the border, in one region, or where there is little texture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Triple

__all__ = ["Mask", "describe_place", "sample"]

Mask = npt.NDArray[np.bool_]

#: Share of all points from which on failures are everywhere, and share of the failures that makes a place theirs.
EVERYWHERE, MOSTLY = 0.8, 0.6
#: A region is at most this part of the extent of all points.
REGION = 0.5
#: Failed windows have little texture if their median standard deviation is at most this part of the good ones'.
WEAK = 0.5
#: Windows that are looked at for it.
MOST_SAMPLES = 100


def describe_place(positions: Array, failed: Mask, shape: Triple, hws: Triple) -> str:
    """Words for the place of the points that failed.

    Parameters
    ----------
    positions : (n, 3) float64
        Points that were compared, voxels.
    failed : (n,) bool
        Which of them; none if they are so few that none of many is among these.
    shape : 3 ints
        Of the image.
    hws : 3 ints
        Half-window size, voxels.

    Returns
    -------
    str
        ``"everywhere"``, ``"mostly at the border of the image"``, ``"mostly at z from 3 to 40"``, or ``"scattered"``.
    """
    if not failed.any():
        return "scattered"
    if failed.mean() >= EVERYWHERE:
        return "everywhere"
    reach = np.array(hws)
    border = ((positions - reach < 0) | (positions + reach > np.array(shape) - 1)).any(axis=1)
    if border[failed].mean() >= MOSTLY and border[failed].mean() >= 1.5 * border.mean():
        return "mostly at the border of the image"
    best: tuple[float, int, float, float] | None = None
    for axis in range(3):
        low, high = np.quantile(positions[failed, axis], [(1 - MOSTLY) / 2, (1 + MOSTLY) / 2])
        extent = np.ptp(positions[:, axis])
        if extent > 0 and (high - low) <= REGION * MOSTLY * extent:
            ratio = (high - low) / extent
            if best is None or ratio < best[0]:
                best = (ratio, axis, low, high)
    if best is not None:
        _, axis, low, high = best
        return f"mostly at {'zyx'[axis]} from {low:.0f} to {high:.0f}"
    return "scattered"


def sample(chosen: Mask) -> npt.NDArray[np.int64]:
    """At most `MOST_SAMPLES` of the points that are chosen, evenly spread over their order."""
    found = np.flatnonzero(chosen)
    return found[np.linspace(0, len(found) - 1, min(len(found), MOST_SAMPLES)).astype(np.int64)]
