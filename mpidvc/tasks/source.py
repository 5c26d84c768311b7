"""The field that a command computes from: its points, and the search of neighbours among them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from mpidvc.arrays import Array, Ints
from mpidvc.fields.phifield import PhiField

__all__ = ["Source"]


class Source:
    """A field with a search of neighbours.

    Parameters
    ----------
    field : PhiField
        With finite positions.
    """

    def __init__(self, field: PhiField) -> None:
        self.field = field

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self.field.positions)

    def within(self, centres: Array, radius: float) -> tuple[Ints, Ints]:
        """Points within a radius.

        Parameters
        ----------
        centres : (m, 3) float64
        radius : float
            Voxels.

        Returns
        -------
        start : (m + 1,) int64
        found : (start[m],) int64
            Indices of the points around centre j: ``found[start[j]:start[j + 1]]``, ascending.
        """
        from scipy.spatial import cKDTree

        pairs = cKDTree(centres).sparse_distance_matrix(self._tree, radius, output_type="ndarray")
        found = pairs["j"][np.lexsort((pairs["j"], pairs["i"]))]
        start = np.cumsum([0, *np.bincount(pairs["i"], minlength=len(centres))])
        return start.astype(np.int64), found.astype(np.int64)
