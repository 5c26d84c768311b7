"""Neighbours by comparison with every point, as an oracle."""

from __future__ import annotations

import numpy as np


class BruteForce:
    """Points in space with the searches of `mpidvc.kernels.neighbours.Points`."""

    def __init__(self, positions):
        self._positions = np.asarray(positions, np.float64)

    def _distances(self, centres, usable):
        distances = np.linalg.norm(np.asarray(centres)[:, None] - self._positions[None], axis=2)
        return distances if usable is None else np.where(usable, distances, np.inf)

    def nearest(self, centres, number, usable=None):
        distances = self._distances(centres, usable)
        count = len(self._positions) if usable is None else int(np.sum(usable))
        return np.argsort(distances, axis=1, kind="stable")[:, : min(number, count)]

    def within(self, centres, radius, usable=None, fewest=0, most=-1):
        distances = self._distances(centres, usable)
        enough = min(fewest, len(self._positions) if usable is None else int(np.sum(usable)))
        start, found = [0], []
        for row, near in zip(distances, np.broadcast_to(radius, len(distances)), strict=True):
            while np.sum(row <= near) < enough:
                near = 2 * near
            found += np.nonzero(row <= near)[0].tolist()
            start.append(len(found))
            if 0 <= most < len(found):
                break
        return np.array(start), np.array(found, np.int64)
