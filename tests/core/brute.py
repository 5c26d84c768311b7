"""Neighbours by comparison with every point, as an oracle."""

from __future__ import annotations

import numpy as np


class BruteForce:
    """Points in space with the searches of `mpidvc.kernels.neighbours.Points`."""

    def __init__(self, positions):
        self._positions = np.asarray(positions, np.float64)

    def _distances(self, centres):
        return np.linalg.norm(centres[:, None] - self._positions[None], axis=2)

    def nearest(self, centres, k):
        return np.argsort(self._distances(centres), axis=1, kind="stable")[:, :k]

    def within(self, centres, radius):
        inside = self._distances(centres) <= radius
        start = np.concatenate([[0], np.cumsum(inside.sum(axis=1))])
        return start, np.nonzero(inside)[1]
