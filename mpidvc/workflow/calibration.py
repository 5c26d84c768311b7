"""Calibration: a few blocks of a run are measured for their time, and their results are dropped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from mpidvc.arrays import Ints, Records
from mpidvc.core.texture import sample_of
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import InlineExecutor, Task
from mpidvc.runtime.journal import Journal
from mpidvc.runtime.stop import StopRequest
from mpidvc.tasks.texture import WindowSettings, texture_of
from mpidvc.workflow.measurement import Measurement, SharedTask
from mpidvc.workflow.road import RoadPart, RoadPlan
from mpidvc.workflow.stages import Stages
from mpidvc.workflow.work import Work

__all__ = ["Rate", "SampledPoints", "calibrate"]

#: CPU seconds after which no further block is measured, and fewest blocks that are.
BUDGET, FEWEST = 3.0, 3


@dataclass(frozen=True)
class Rate:
    """Measured cost of the points of a run.

    Attributes
    ----------
    seconds : float
        CPU seconds of a point.
    once : float
        CPU seconds for all points before the blocks begin.
    points, blocks : int
        Number of points and of blocks that were measured.
    statuses : dict of str to int
        Number of points measured by return status.
    """

    seconds: float
    once: float = 0.0
    points: int = 0
    blocks: int = 0
    statuses: dict[str, int] = field(default_factory=dict)


class SampledPoints:
    """The points of a run as its journal would hold them, made when they are asked for.

    Parameters
    ----------
    work : Work
    most : int
        Points that a block has at most.
    """

    def __init__(self, work: Work, most: int) -> None:
        self._work, self._most = work, most
        self.starts: Ints = work.starts
        self.n_blocks = len(work.starts) - 1

    def __len__(self) -> int:
        return len(self._work.order)

    def rows(self, block: int) -> Ints:
        """Rows of the field in a block."""
        start, stop = int(self.starts[block]), int(self.starts[block + 1])
        return self._work.order[start : min(stop, start + self._most)]

    def inputs(self, block: int) -> Records:
        """`INPUT` of the points of a block."""
        return self._work.inputs(self.rows(block))


class _Sampling(Measurement):
    """A measurement of some blocks, without files."""

    def __init__(self, work: Work, budget: float, most: int) -> None:
        self.executor = InlineExecutor()
        self.console = Console(silent=True)
        self.stages = Stages(self.executor)
        self.work, self.points = work, SampledPoints(work, most)
        self.journal = cast("Journal", self.points)
        self.total, self.done = len(work.order), 0
        self._budget = budget
        self._begun = time.process_time()
        self.rate = Rate(0.0)

    def start(self, line: str, images: ImagePair, windows: WindowSettings | None = None, points: str = "nodes") -> None:
        self._begun = time.process_time()

    @contextlib.contextmanager
    def measuring(self, what: str) -> Iterator[StopRequest]:
        raise NotImplementedError
        yield

    def run(
        self,
        task: Task,
        what: str,
        describe: Callable[[dict[str, float]], str],
        shared: tuple[SharedTask, Sequence[int]] | None = None,
    ) -> None:
        once = time.process_time() - self._begun
        n = self.points.n_blocks - len(self.work.kept) if self.work is not None else 0
        order = sample_of(n, 10000)
        seconds, points, blocks = 0.0, 0, 0
        statuses: dict[str, int] = {}
        column = list(self.work.columns).index("returnStatus") if self.work is not None else 0
        for k, block in enumerate(order.tolist()):
            if k == 0:
                # memory is taken, and libraries are loaded, only once
                task.run(block)
            begun = time.process_time()
            records = task.run(block)
            seconds += time.process_time() - begun
            points += len(records)
            blocks += 1
            values, counts = np.unique(records["result"][:, column], return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                statuses[f"{value:g}"] = statuses.get(f"{value:g}", 0) + count
            if seconds > self._budget and blocks >= FEWEST:
                break
        self.rate = Rate(seconds / max(points, 1), once, points, blocks, statuses)


def calibrate(plan: RoadPlan[Any], part: RoadPart, work: Work, budget: float = BUDGET) -> Rate:
    """Measure the cost of the points of a part, on some of its blocks.

    Parameters
    ----------
    plan : RoadPlan
    part : RoadPart
    work : Work
        The points of the part.
    budget : float
        CPU seconds after which no further block is measured.
    """
    each = plan.estimated_seconds / max(len(plan.parts) * len(work.measured), 1)
    # a part of a block will do where a block would take longer than the whole calibration should
    most = max(8, int(budget / FEWEST / each)) if each > 0 and plan.nodes.layout.layout != "labels" else 2**62
    sampling = _Sampling(work, budget, most)
    with plan.at_hand(part, sampling.executor, sampling.console, sampling.stages) as ready:
        plan.measure(ready, sampling)
    return sampling.rate


def texture_warning(part: Any, work: Work, windows: WindowSettings) -> str | None:
    """Warning if many of the windows of a part have too little texture."""
    images = part.images
    return texture_of(images.image1, images.mask1, work.positions[np.sort(work.measured)], windows).warning()
