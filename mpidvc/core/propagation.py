"""Propagation of a first guess from point to point: the order of the points, and the start of each.

The points have an order, the starting point being the first. Every other point looks at the earlier ones within a
radius R, which is doubled until it finds one that is good, and starts from the mean of the good ones' displacements,
weighted by ``exp(-d²/D²)`` with the distance d and a given D.

The start of a point is therefore settled when all earlier points within its final radius are done, and no sooner: a
radius may be doubled only when every earlier point within it is done and none is good. Under this rule the result is
that of one point after the other, in whatever order and on whatever ranks the points are searched.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints, Records
from mpidvc.kernels import neighbours

__all__ = ["GUESS", "RANKINGS", "Propagation", "rank_points"]


#: Orders of points that `rank_points` knows.
RANKINGS = ("distance", "walk")
#: A point that is ready: its place in the order, its position, and the displacement from which it starts.
GUESS = np.dtype([("point", np.int64), ("position", np.float64, (3,)), ("guess", np.int64, (3,))])
#: Most neighbours that are looked up at once, which limits the memory.
AT_ONCE = 2_000_000
#: Largest displacement (voxels), beyond any image: larger ones would overflow integers.
FARTHEST = 2.0**40


def rank_points(positions: Array, ranking: str, radius: float) -> Ints:
    """Order of points, the first of which is the starting point.

    Parameters
    ----------
    positions : (n, 3) float64
    ranking : {"distance", "walk"}
        ``distance``: by the distance to the starting point. ``walk``: around every point of the order, in turn, the
        points not yet in it within `radius` follow by ascending index, or if there are none the nearest one. Equal
        distances: the lowest index first.
    radius : float
        Radius of the walk, voxels.

    Returns
    -------
    (n,) int64
        Indices of the points in their order.
    """
    if ranking == "walk":
        return neighbours.walk(positions, radius)
    if len(positions) == 0:
        return np.zeros(0, np.int64)
    apart = np.square(positions - positions[0]).sum(axis=1)
    return np.argsort(apart, kind="stable").astype(np.int64)


class Propagation:
    """Points that may be searched now, and the displacement from which each starts; knows neither images nor ranks.

    Parameters
    ----------
    positions : (n, 3) float64
        The points in their order, the starting point first.
    displacement : 3 ints
        Displacement from which the starting point starts, as does a point without a good earlier one.
    radius : float
        Radius within which good points are looked for at first (> 0), voxels.
    distance : float
        Distance D of the weights (> 0), voxels.
    threshold : float
        Points with at least this CC are good.
    """

    def __init__(
        self, positions: Array, displacement: npt.ArrayLike, radius: float, distance: float, threshold: float
    ) -> None:
        n = len(positions)
        self._positions = np.ascontiguousarray(positions, np.float64)
        self._points = neighbours.Points(self._positions)
        self._start = np.asarray(displacement, np.int64)
        self._distance = distance
        self._threshold = threshold
        self._radius = np.full(n, float(radius))
        # beyond this every point has seen all others (a little more than the diagonal, for its rounding)
        self._diameter = 1.001 * float(np.linalg.norm(np.ptp(self._positions, axis=0))) if n else 0.0
        self._done = np.zeros(n, bool)
        self._good = np.zeros(n, bool)
        self._found = np.zeros((n, 3))
        self._guess = np.zeros((n, 3), np.int64)
        # place of a point in the longest chain of points that wait for one another
        self._depth = np.zeros(n, np.int64)
        # A point with unfinished predecessors waits for the last of them only, and looks again when that is done:
        # mostly the others are done by then, and no list of neighbours has to be kept.
        self._waiting: defaultdict[int, list[int]] = defaultdict(list)
        self._ready: list[int] = []
        self._taken = 0
        self._consider(np.arange(n))

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def ready(self) -> int:
        """Number of points that may be searched now."""
        return len(self._ready)

    @property
    def exhausted(self) -> bool:
        """Whether every point has been taken."""
        return self._taken == len(self._positions)

    @property
    def mean_width(self) -> float:
        """Mean number of points that may be searched at the same time: their number by the longest chain."""
        return len(self._positions) / max(int(self._depth.max(initial=0)), 1)

    def take(self, most: int) -> Records:
        """Take at most `most` of the points that are ready, the first ones of the order."""
        points = [heapq.heappop(self._ready) for _ in range(min(most, len(self._ready)))]
        self._taken += len(points)
        batch = np.zeros(len(points), GUESS)
        batch["point"] = points
        batch["position"] = self._positions[points]
        batch["guess"] = self._guess[points]
        return batch

    def finished(self, batch: Records, displacement: Array, cc: Array) -> None:
        """Take the results of a batch: displacements (m, 3), which count where points are good, and CC (m,)."""
        points = batch["point"]
        self._done[points] = True
        good = cc >= self._threshold
        self._good[points] = good
        self._found[points[good]] = displacement[good]
        woken = [waiting for point in points.tolist() for waiting in self._waiting.pop(point, ())]
        self._consider(np.array(woken, np.int64))

    def _consider(self, points: Ints) -> None:
        """Make points ready, or let them wait for a predecessor."""
        while len(points):
            start, earlier = self._points.earlier(points, self._radius[points], AT_ONCE)
            asked, points = points[: len(start) - 1], points[len(start) - 1 :]
            again = self._look(asked, start, earlier)
            self._radius[again] *= 2
            points = np.concatenate([again, points])

    def _look(self, points: Ints, start: Ints, earlier: Ints) -> Ints:
        """Consider points with these earlier ones near them; return those that need a larger radius."""
        owner = np.repeat(np.arange(len(points)), np.diff(start))
        last = np.full(len(points), -1)
        unfinished = ~self._done[earlier]
        # ascending for each point: of several assignments the last one stays
        last[owner[unfinished]] = earlier[unfinished]
        waits = last >= 0
        for point, predecessor in zip(points[waits].tolist(), last[waits].tolist(), strict=True):
            self._waiting[predecessor].append(point)
        good = self._good[earlier]
        near = np.zeros(len(points), bool)
        near[owner[good]] = True
        # all earlier ones are done and none is good: nothing better than the start will ever be known
        hopeless = ~waits & ~near & (self._radius[points] > self._diameter)
        settled = ~waits & (near | hopeless)
        if settled.any():
            mine = settled[owner]
            np.maximum.at(self._depth, points[owner[mine]], self._depth[earlier[mine]])
            self._depth[points[settled]] += 1
            mine &= good
            guess = self._mean(points, owner[mine], earlier[mine])
            guess[hopeless] = self._start
            self._guess[points[settled]] = guess[settled]
            for point in points[settled].tolist():
                heapq.heappush(self._ready, point)
        return points[~waits & ~settled]

    def _mean(self, points: Ints, owner: Ints, good: Ints) -> Ints:
        """Rounded weighted mean displacement of the good neighbours of each point."""
        square = np.square(self._positions[points[owner]] - self._positions[good]).sum(axis=1)
        nearest = np.full(len(points), np.inf)
        np.minimum.at(nearest, owner, square)
        # Relative to the nearest one: the same mean, but weights never vanish together.
        weight = np.exp((nearest[owner] - square) / self._distance**2)
        # bincount adds one after the other: the sum does not depend on what else is looked up at the same time
        total = np.bincount(owner, weight, len(points))
        total[total == 0] = 1.0
        mean = [np.bincount(owner, weight * self._found[good, a], len(points)) / total for a in range(3)]
        rounded: Ints = np.rint(np.clip(np.stack(mean, axis=-1), -FARTHEST, FARTHEST)).astype(np.int64)
        return rounded
