"""What the runs of several commands share: the start on all ranks, writing fields, and the times of the stages."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpidvc.core.grey import Choice
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import format_rows, write_tsv
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.ranks import agree_on_instruction_set, cpu_seconds

__all__ = ["TIMINGS", "Stages", "WithInstructionSet", "describe_criterion", "write_field"]

#: File that gets the times of a run's stages (JSON), for benchmarks.
TIMINGS = "MPIDVC_TIMINGS"


class WithInstructionSet:
    """A plan whose ranks agree on an instruction set before they begin."""

    def configure(self, executor: Executor) -> None:
        """Called by every rank before the plan is executed."""
        agree_on_instruction_set(executor)


def describe_criterion(choice: Choice) -> str:
    """The line that says what is minimised and why."""
    return f"Criterion: {choice.criterion} ({choice.reason})"


def write_field(executor: Executor, path: Path, field: PhiField | None, family: str) -> None:
    """Write rank 0's field as TSV; every rank calls it and takes a share of the formatting."""
    if executor.rank != 0:
        for _ in executor.stream(format_rows, None):
            pass
        return
    assert field is not None

    def stream(function: Any, items: Iterable[Any]) -> Iterator[bytes]:
        return executor.stream(function, items)

    write_tsv(path, field, family, stream)


class Stages:
    """Wall times of the stages of a run, and the CPU time of all ranks in the one that counts.

    Parameters
    ----------
    executor : Executor
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        # every rank has to do the same: whether times are wanted is rank 0's to say
        self._file = executor.broadcast(os.environ.get(TIMINGS))
        self._wanted = self._file is not None
        self._stages = {"startup": _age_of_process()}
        self._cpu = 0.0

    @contextmanager
    def stage(self, name: str, count_cpu: bool = False) -> Iterator[None]:
        """Time the block that follows; stages of the same name add up."""
        start, cpu = time.perf_counter(), time.process_time()
        yield
        self._stages[name] = self._stages.get(name, 0.0) + time.perf_counter() - start
        if count_cpu and self._wanted:
            self._cpu += cpu_seconds(self._executor, cpu)

    def report(self, points: int) -> None:
        """Write the times, if the environment asks for them."""
        if self._wanted and self._executor.rank == 0:
            told = {"stages": self._stages, "points_cpu": self._cpu, "points": points}
            Path(str(self._file)).write_text(json.dumps(told) + "\n", encoding="utf-8")


def _age_of_process() -> float:
    """Seconds since this process began (0 where the system does not tell)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        begun = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - begun)
    except (OSError, ValueError, AttributeError):
        return 0.0
