"""The times of a run's stages, for benchmarks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mpidvc.runtime.executor import Executor
from mpidvc.tasks.ranks import sum_over_ranks

__all__ = ["TIMINGS", "Stages"]

#: Environment variable: the file that gets the times of a run's stages (JSON).
TIMINGS = "MPIDVC_TIMINGS"


class Stages:
    """Wall times of the stages of a run on rank 0, their CPU times on every rank, and, summed over the ranks, the time
    of the journal's calls.

    Parameters
    ----------
    executor : Executor
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        # rank 0 decides whether times are taken: every rank has to do the same
        self._file = executor.broadcast(os.environ.get(TIMINGS))
        self._wanted = self._file is not None
        self._stages = {"startup": _age_of_process()}
        self._spent = {"startup": time.process_time()}
        self._main: set[str] = set()
        #: Wall and CPU seconds of the stages within each open one.
        self._within: list[list[float]] = []
        self._journal = 0.0

    @contextmanager
    def stage(self, name: str, count_cpu: bool = False) -> Iterator[None]:
        """Time the block that follows, without the stages within it; stages of the same name add up.

        `count_cpu`: it belongs to the main work.
        """
        start, cpu = time.perf_counter(), time.process_time()
        self._within.append([0.0, 0.0])
        try:
            yield
        finally:
            wall, spent = time.perf_counter() - start, time.process_time() - cpu
            others, others_spent = self._within.pop()
            if self._within:
                self._within[-1][0] += wall
                self._within[-1][1] += spent
        self._stages[name] = self._stages.get(name, 0.0) + wall - others
        self._spent[name] = self._spent.get(name, 0.0) + spent - others_spent
        if count_cpu:
            self._main.add(name)

    def journal(self, seconds: float) -> None:
        """Add the seconds that this rank spent in the journal's calls; by every rank."""
        if self._wanted:
            self._journal += float(sum_over_ranks(self._executor, [seconds])[0])

    def report(self, points: int) -> None:
        """Write the times, if the environment asks for them; on every rank."""
        if not self._wanted:
            return
        cpu = {}
        for name in self._executor.broadcast(list(self._spent)):
            mine = np.zeros(self._executor.size)
            mine[self._executor.rank] = self._spent.get(name, 0.0)
            cpu[name] = sum_over_ranks(self._executor, mine)
        if self._executor.rank == 0:
            main = sum((cpu[name] for name in self._main), np.zeros(self._executor.size)).tolist()
            told = {"stages": self._stages, "points_cpu": sum(main), "ranks_cpu": main, "journal": self._journal}
            told |= {"cpu": {name: spent.tolist() for name, spent in cpu.items()}, "points": points}
            Path(str(self._file)).write_text(json.dumps(told) + "\n", encoding="utf-8")


def _age_of_process() -> float:
    """Seconds since this process began (0 where the system does not tell)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        begun = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - begun)
    except (OSError, ValueError, AttributeError):
        return 0.0
