"""Calibration: a few chunks of a run are measured for their time, and their results are dropped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from mpidvc.arrays import Ints, Records
from mpidvc.core.texture import sample_of
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import InlineExecutor, Task
from mpidvc.runtime.journal import Journal
from mpidvc.tasks.texture import WindowSettings
from mpidvc.workflow.measurement import Measurement, SharedTask
from mpidvc.workflow.stages import Stages
from mpidvc.workflow.work import Work

__all__ = ["BUDGET", "FEWEST", "Cost", "SampledPoints", "Sampling", "time_chunks"]

#: CPU seconds after which no further chunk is measured, and fewest chunks that are.
BUDGET, FEWEST = 3.0, 3
#: Most chunks that are measured.
MOST = 5000


@dataclass(frozen=True)
class Cost:
    """CPU time of the work of a run, all of its chunks on one rank.

    Attributes
    ----------
    seconds : float
    chunks : int
    sample : tuple of float
        Seconds of the chunks that were measured; empty where the time is a rough guess.
    points : int
        Points that were measured.
    statuses : dict of str to int
        Their number by return status.
    rounds : int
        How often all ranks wait for each other: once for every pair of a series and every iteration of a registration.
    remark : str
        Something that the figures do not know; "" if there is nothing.
    """

    seconds: float
    chunks: int
    sample: tuple[float, ...] = ()
    points: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    rounds: int = 1
    remark: str = ""


def time_chunks(run: Callable[[int], Any], n: int, budget: float) -> Iterator[tuple[int, float, Any]]:
    """Run chunks, spread evenly, until the budget is spent.

    Parameters
    ----------
    run : callable
        Runs the chunk of a number below `n`.
    n : int
    budget : float
        CPU seconds.

    Yields
    ------
    chunk : int
    seconds : float
        CPU seconds of the chunk.
    result
        The result of `run`.
    """
    spent = 0.0
    for k, chunk in enumerate(sample_of(n, MOST).tolist()):
        if k == 0:
            # memory is taken, and libraries are loaded, only once
            run(chunk)
        begun = time.process_time()
        result = run(chunk)
        seconds = time.process_time() - begun
        spent += seconds
        yield chunk, seconds, result
        if spent > budget and k + 1 >= FEWEST:
            break


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

    def inputs(self, block: int) -> Records:
        """`INPUT` of the points of a block."""
        start, stop = int(self.starts[block]), int(self.starts[block + 1])
        return self._work.inputs(self._work.order[start : min(stop, start + self._most)])


class Sampling(Measurement):
    """A measurement of some blocks of a run, without files.

    Parameters
    ----------
    work : Work
    budget : float
        CPU seconds after which no further block is measured.
    most : int
        Points that are measured of a block at most.

    Attributes
    ----------
    cost : Cost
        Of all blocks, after the measurement.
    """

    def __init__(self, work: Work, budget: float, most: int) -> None:
        self.executor = InlineExecutor()
        self.console = Console(silent=True)
        self.stages = Stages(self.executor)
        self.work = work
        # the tasks ask for nothing else
        self.journal = cast("Journal", SampledPoints(work, most))
        self.total, self.done = len(work.order), 0
        self.budget = budget
        self.cost = Cost(0.0, 0)
        self._begun = time.process_time()

    def start(self, line: str, images: ImagePair, windows: WindowSettings | None = None, points: str = "nodes") -> None:
        """Nothing is said; the time before counts for all points."""

    def run(
        self,
        task: Task,
        what: str,
        describe: Callable[[dict[str, float]], str],
        shared: tuple[SharedTask, Sequence[int]] | None = None,
    ) -> None:
        """Measure some of the blocks."""
        once = time.process_time() - self._begun
        assert self.work is not None
        sizes = np.diff(self.work.starts)
        self.sample(task.run, len(sizes) - len(self.work.kept), lambda block: int(sizes[block]))
        self.cost = replace(self.cost, seconds=self.cost.seconds + once)

    def sample(self, run: Callable[[int], Records], chunks: int, size: Callable[[int], int]) -> None:
        """Measure some chunks.

        Parameters
        ----------
        run : callable
            Gives the records of some points of the chunk of a number.
        chunks : int
            Number of chunks.
        size : callable
            Points of a chunk.
        """
        assert self.work is not None
        column = list(self.work.columns).index("returnStatus")
        spent, points = 0.0, 0
        sample, statuses = [], []
        for chunk, seconds, records in time_chunks(run, chunks, self.budget):
            sample.append(seconds * size(chunk) / max(len(records), 1))
            spent += seconds
            points += len(records)
            statuses.append(records["result"][:, column])
        total = spent / max(points, 1) * self.work.n_measured
        values, counts = np.unique(np.concatenate([np.zeros(0), *statuses]), return_counts=True)
        found = {f"{value:g}": int(count) for value, count in zip(values, counts, strict=True)}
        self.cost = Cost(total, chunks, tuple(sample), points, found)
