"""What the runs of several commands share: the start on all ranks, first guesses, memory, and the times of stages."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mpidvc.arrays import Array, Ints, Triple
from mpidvc.core import deformation
from mpidvc.core.grey import Choice
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.placement import Needs, Placement, decide
from mpidvc.tasks.ranks import agree_on_instruction_set, check_instruction_set, sum_over_ranks
from mpidvc.tasks.texture import texture_of

__all__ = [
    "TIMINGS",
    "Stages",
    "WithInstructionSet",
    "WithPlacement",
    "describe_criterion",
    "displacements_of",
    "first_guess",
    "gradient_of",
    "settings_of",
    "warn_of_texture",
]

P = TypeVar("P", bound="WithPlacement")

#: File that gets the times of a run's stages (JSON), for benchmarks.
TIMINGS = "MPIDVC_TIMINGS"


class WithInstructionSet:
    """A plan whose ranks agree on an instruction set before they begin."""

    def __post_init__(self) -> None:
        # said by the process that prepares, before any rank is started
        check_instruction_set()

    def configure(self, executor: Executor) -> None:
        """Called by every rank before the plan is executed."""
        agree_on_instruction_set(executor)

    def for_workers(self) -> Any:
        """What of it the other ranks get."""
        return self


@dataclass(frozen=True, kw_only=True)
class WithPlacement:
    """A plan that knows how its images shall be read."""

    image_mode: str = "auto"
    memory: str | None = None
    placement: Placement | None = None

    def needs(self) -> Needs:
        """What the run needs of memory."""
        raise NotImplementedError

    def fit(self: P, ranks: int, console: Console, may_take_fewer: bool = False) -> P:
        """The plan for so many ranks on this node, or fewer, with the placement of its images; says what it expects."""
        placement = decide(self.needs(), ranks, self.image_mode, self.memory, console, may_take_fewer)
        return replace(self, placement=placement)


def gradient_of(guess: PhiField | None) -> Array:
    """F - I of a registration that is the guess, else 0 (3, 3)."""
    if guess is None or guess.layout != "registration":
        return np.zeros((3, 3))
    return np.asarray(guess.F[0] - np.eye(3), np.float64)


def displacements_of(guess: PhiField | None) -> Array | None:
    """Displacements (n, 3) of a field that is the guess; None if that is a registration, or missing."""
    return None if guess is None or guess.layout == "registration" else guess.displacements


def describe_criterion(choice: Choice) -> str:
    """The line that says what is minimised and why."""
    return f"Criterion: {choice.criterion} ({choice.reason})"


def first_guess(guess: PhiField | None, stored_f: str, positions: Array) -> Callable[[Ints], Array]:
    """What gives the Phi (k, 4, 4) that k nodes start from; not all at once, as there may be many.

    Parameters
    ----------
    guess : PhiField, optional
        A field is taken as it is.
    stored_f : {"all", "rigid", "no"}
        What the nodes get of the F of a registration; displacements always follow its whole Phi.
    positions : (n, 3) float64
    """
    F = np.eye(3)
    if guess is not None and guess.layout == "registration" and stored_f != "no":
        F = guess.F[0] if stored_f == "all" else deformation.polar(guess.F[0])[0]

    def at(rows: Ints) -> Array:
        if guess is not None and guess.layout != "registration":
            return guess.phi[rows]
        phi = np.tile(np.eye(4), (len(rows), 1, 1))
        phi[:, :3, :3] = F
        if guess is not None:
            phi[:, :3, 3] = deformation.apply(guess.phi[0], guess.positions[0], positions[rows])
        return phi

    return at


def settings_of(args: argparse.Namespace) -> dict[str, object]:
    """The options as they are printed."""
    return {name: value for name, value in vars(args).items() if name not in ("processes", "command_line")}


def warn_of_texture(
    console: Console,
    image: Image,
    mask: Image | None,
    positions: Array,
    hws: Triple,
    min_coverage: float,
    grey_low: float,
    grey_high: float,
) -> None:
    """Say so where a large share of the windows cannot be followed; on rank 0."""
    text = texture_of(image, mask, positions, hws, min_coverage, grey_low, grey_high).warning()
    if text is not None:
        console.warn(text)


class Stages:
    """Wall times of the stages of a run; of all ranks the CPU time in the one that counts, and the journal's calls.

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
        self._cpu = self._journal = 0.0

    @contextmanager
    def stage(self, name: str, count_cpu: bool = False) -> Iterator[None]:
        """Time the block that follows; stages of the same name add up."""
        start, cpu = time.perf_counter(), time.process_time()
        yield
        self._stages[name] = self._stages.get(name, 0.0) + time.perf_counter() - start
        if count_cpu and self._wanted:
            self._cpu += float(sum_over_ranks(self._executor, [time.process_time() - cpu])[0])

    def journal(self, seconds: float) -> None:
        """Add the seconds that this rank spent in the journal's calls; by every rank."""
        if self._wanted:
            self._journal += float(sum_over_ranks(self._executor, [seconds])[0])

    def report(self, points: int) -> None:
        """Write the times, if the environment asks for them."""
        if self._wanted and self._executor.rank == 0:
            told = {"stages": self._stages, "points_cpu": self._cpu, "journal": self._journal, "points": points}
            Path(str(self._file)).write_text(json.dumps(told) + "\n", encoding="utf-8")


def _age_of_process() -> float:
    """Seconds since this process began (0 where the system does not tell)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        begun = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - begun)
    except (OSError, ValueError, AttributeError):
        return 0.0
