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
    """Wall times of the stages of a run, the CPU time of its main stage on every rank, and, summed over the ranks, the
    time of the journal's calls.

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
        self._cpu = np.zeros(executor.size)
        self._journal = 0.0

    @contextmanager
    def stage(self, name: str, count_cpu: bool = False) -> Iterator[None]:
        """Time the block that follows; stages of the same name add up."""
        start, cpu = time.perf_counter(), time.process_time()
        yield
        self._stages[name] = self._stages.get(name, 0.0) + time.perf_counter() - start
        if count_cpu and self._wanted:
            mine = np.zeros(self._executor.size)
            mine[self._executor.rank] = time.process_time() - cpu
            self._cpu += sum_over_ranks(self._executor, mine)

    def journal(self, seconds: float) -> None:
        """Add the seconds that this rank spent in the journal's calls; by every rank."""
        if self._wanted:
            self._journal += float(sum_over_ranks(self._executor, [seconds])[0])

    def report(self, points: int) -> None:
        """Write the times, if the environment asks for them."""
        if self._wanted and self._executor.rank == 0:
            cpu = self._cpu.tolist()
            told = {"stages": self._stages, "points_cpu": sum(cpu), "ranks_cpu": cpu, "journal": self._journal}
            told["points"] = points
            Path(str(self._file)).write_text(json.dumps(told) + "\n", encoding="utf-8")


def _age_of_process() -> float:
    """Seconds since this process began (0 where the system does not tell)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        begun = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - begun)
    except (OSError, ValueError, AttributeError):
        return 0.0
