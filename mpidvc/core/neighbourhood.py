"""Neighbours of places: within a radius, or a number of the nearest ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints
from mpidvc.kernels.neighbours import Points

__all__ = ["neighbour_lists"]

#: Pairs of a place and its neighbour that are held at a time, about.
PAIRS = 2**20


def neighbour_lists(
    near: Points,
    centres: Array,
    radius: float | None,
    number: int | None,
    usable: npt.NDArray[np.bool_] | None = None,
    fewest: int = 0,
) -> Iterator[tuple[slice, Ints, Ints]]:
    """Lists of the neighbours of some centres, then of the next ones: as many as fit in memory.

    Parameters
    ----------
    near : Points
        n points.
    centres : (m, 3) float64
        z, y, x in voxels; finite.
    radius : float, optional
        Neighbours are the points within so many voxels.
    number : int, optional
        Or, where there is no radius, the so many nearest ones.
    usable : (n,) bool, optional
        Points that may be neighbours; all by default.
    fewest : int
        The radius of a centre is doubled until it has so many neighbours, or all usable points.

    Yields
    ------
    which : slice
        Of k centres.
    start : (k + 1,) int64
    found : (start[k],) int64
        Neighbours of the j-th of them: ``found[start[j]:start[j + 1]]``, by index where there is a radius, otherwise by
        distance, then by index.
    """
    first = 0
    while first < len(centres):
        if radius is not None:
            start, found = near.within(centres[first:], radius, usable, fewest, PAIRS)
        else:
            assert number is not None
            nearest = near.nearest(centres[first : first + max(PAIRS // max(number, 1), 1)], number, usable)
            start, found = np.arange(len(nearest) + 1) * nearest.shape[1], nearest.ravel()
        last = first + len(start) - 1
        yield slice(first, last), start, found
        first = last
