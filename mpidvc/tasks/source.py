"""The field that a command works on, with a search of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from mpidvc.arrays import Array, Ints
from mpidvc.fields.phifield import PhiField
from mpidvc.kernels.neighbours import Points

__all__ = ["Neighbours", "Source"]


class Neighbours:
    """Points (n, 3) with a k-d tree; equally near points are ordered by index.

    Parameters
    ----------
    positions : (n, 3) float64
        Finite; n is at least 1.
    """

    def __init__(self, positions: Array) -> None:
        self._positions, self._tree, self._points = positions, cKDTree(positions), Points(positions)

    def within(self, centres: Array, radius: float | Array) -> tuple[Ints, Ints]:
        """Points at most this far from each centre (m, 3).

        Returns
        -------
        start : (m + 1,) int64
        found : (start[m],) int64
            The points of centre j are ``found[start[j]:start[j + 1]]``, ascending.
        """
        return self._points.within(centres, radius)

    def nearest(self, centres: Array, number: int) -> Ints:
        """The nearest points of each centre (m, 3): (m, min(number, n)), by distance, then by index."""
        number = min(number, len(self._positions))
        farthest = self._tree.query(centres, [number])[0][:, 0]
        # all that are as far as the last one: the lowest indices count
        start, found = self.within(centres, farthest * (1 + 1e-12))
        owner = np.repeat(np.arange(len(centres)), np.diff(start))
        distance = np.linalg.norm(self._positions[found] - centres[owner], axis=1)
        order = np.lexsort((found, distance, owner))
        return np.asarray(found[order][start[:-1, None] + np.arange(number)], np.int64)


@dataclass(frozen=True)
class Source:
    """A field and its neighbours.

    Attributes
    ----------
    field : PhiField
    points : Neighbours
    """

    field: PhiField
    points: Neighbours
