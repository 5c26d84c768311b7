"""Neighbours of places that may be used: within a radius, or a number of the nearest ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints
from mpidvc.kernels.neighbours import Points

__all__ = ["nearest_usable", "usable_within"]

#: Candidates that are looked at together, about; and those within a first radius.
CANDIDATES, WITHIN = 2**22, 2**10


def usable_within(
    near: Points, usable: npt.NDArray[np.bool_], centres: Array, radius: float, more_than: int = -1
) -> tuple[Ints, Ints]:
    """The usable points within a radius, which is doubled as long as there are not more than some.

    Parameters
    ----------
    near : Points
        n points.
    usable : (n,) bool
    centres : (m, 3) float64
        z, y, x in voxels; finite.
    radius : float
        Voxels, above 0.
    more_than : int
        The radius of a centre is doubled until it has more neighbours than this, or all usable points.

    Returns
    -------
    start : (m + 1,) int64
    found : (start[m],) int64
        Neighbours of centre j, ascending: ``found[start[j]:start[j + 1]]``.
    """
    enough = min(more_than + 1, int(np.count_nonzero(usable)))

    def search(places: Array, attempt: int) -> tuple[Ints, Ints]:
        start, found = near.within(places, radius * 2.0**attempt)
        counts = np.diff(start)
        owners = np.repeat(np.arange(len(places)), counts)
        kept = usable[found]
        return owners[kept], found[kept]

    return _search(centres, enough, WITHIN, 8, search)


def nearest_usable(near: Points, usable: npt.NDArray[np.bool_], centres: Array, number: int) -> tuple[Ints, Ints]:
    """The usable points that are nearest to each centre: so many, or all where there are fewer.

    Parameters
    ----------
    near : Points
        n points.
    usable : (n,) bool
    centres : (m, 3) float64
        z, y, x in voxels; finite.
    number : int

    Returns
    -------
    start, found : int64 arrays
        As `usable_within`; by distance, then by index.
    """
    enough = min(number, int(np.count_nonzero(usable)))

    def search(places: Array, attempt: int) -> tuple[Ints, Ints]:
        candidates = near.nearest(places, min(enough * 2**attempt, len(usable)))
        kept = usable[candidates]
        kept &= np.cumsum(kept, axis=1) <= enough
        return np.nonzero(kept)[0], candidates[kept]

    if enough == 0:
        return np.zeros(len(centres) + 1, np.int64), np.zeros(0, np.int64)
    return _search(centres, enough, enough, 2, search)


def _search(
    centres: Array, enough: int, first: int, growth: int, search: Callable[[Array, int], tuple[Ints, Ints]]
) -> tuple[Ints, Ints]:
    """Lists of neighbours by a search that widens with every attempt, until each centre has enough.

    The first one looks at so many candidates, each next one at `growth` times as many.
    """
    left = np.arange(len(centres))
    owners, found = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    attempt = 0
    while len(left):
        unfinished = []
        together = max(CANDIDATES // (first * growth**attempt), 1)
        for begin in range(0, len(left), together):
            part = left[begin : begin + together]
            owner, points = search(centres[part], attempt)
            done = np.bincount(owner, minlength=len(part)) >= enough
            taken = done[owner]
            owners.append(part[owner[taken]])
            found.append(points[taken])
            unfinished.append(part[~done])
        left = np.concatenate(unfinished)
        attempt += 1
    all_owners = np.concatenate(owners)
    counts = np.bincount(all_owners, minlength=len(centres))
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return start, np.concatenate(found)[np.argsort(all_owners, kind="stable")]
