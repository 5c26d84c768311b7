"""Agreement of all ranks: the instruction set, sums over the ranks, results of rank 0, and work that it shares."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array
from mpidvc.errors import AgreedError, UserError
from mpidvc.kernels import correlation
from mpidvc.runtime.executor import Executor

__all__ = [
    "ISA_VARIABLE",
    "Team",
    "agree_on_instruction_set",
    "check_instruction_set",
    "led",
    "on_first_host",
    "on_leader",
    "sum_over_ranks",
]

T = TypeVar("T")

#: Environment variable that forces an instruction set.
ISA_VARIABLE = "MPIDVC_ISA"


class _EveryRank:
    """A sum with one share from every rank: chunk k of a reduction is rank k's."""

    def __init__(self, executor: Executor, share: Array) -> None:
        self.n_chunks = executor.size
        self._share = share

    def run_sum(self, chunk: int, argument: Any) -> Array:
        return self._share


def sum_over_ranks(executor: Executor, share: npt.ArrayLike) -> Array:
    """Sum of the vectors that the ranks give, on every rank."""
    return executor.reduce(_EveryRank(executor, np.array(share, np.float64)), None)


def on_first_host(executor: Executor) -> set[int]:
    """The ranks on the host of rank 0, which alone knows them."""
    hosts = [host for host, _ in executor.processes]
    return {rank for rank, host in enumerate(hosts) if host == hosts[0]}


def check_instruction_set() -> None:
    """Refuse an instruction set that is asked for but not available to this process.

    Raises
    ------
    UserError
        If it is not available.
    """
    name = os.environ.get(ISA_VARIABLE)
    if name and name not in correlation.instruction_sets():
        raise UserError(
            f"{ISA_VARIABLE}={name}: not available here; choose from {', '.join(correlation.instruction_sets())}"
        )


def agree_on_instruction_set(executor: Executor, wanted: str | None = None) -> str:
    """Make every rank use the same instruction set: the highest that all have, or the one of `ISA_VARIABLE`.

    Parameters
    ----------
    executor : Executor
    wanted : str, optional
        Instruction set with which a run was begun, on rank 0; it takes precedence.

    Raises
    ------
    AgreedError
        If the one asked for does not exist or a rank does not have it.
    """
    have = correlation.instruction_sets()
    counts = sum_over_ranks(executor, [name in have for name in correlation.INSTRUCTION_SETS])
    common = [name for name, n in zip(correlation.INSTRUCTION_SETS, counts, strict=True) if int(n) == executor.size]
    name = executor.broadcast(wanted or os.environ.get(ISA_VARIABLE) or common[-1])
    if name not in common:
        if executor.broadcast(wanted is not None):
            raise AgreedError(
                f"--resume: the run was begun with {name} instructions, which not all processors have here "
                f"({', '.join(common)}); go on where they do, or add --overwrite"
            )
        raise AgreedError(f"{ISA_VARIABLE}={name}: not available on all processes; choose from {', '.join(common)}")
    correlation.use_instruction_set(name)
    return name


def on_leader(executor: Executor, function: Callable[[], T]) -> T:
    """Call a function on rank 0 only, and return its result on every rank.

    Raises
    ------
    AgreedError
        On every rank, if the function raises a `UserError`.
    """
    return led(executor, lambda team: function())


@dataclass(frozen=True)
class _Call:
    """A call of a function by every rank."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Team:
    """All ranks, for a function that rank 0 alone is in: it can share some of its work with them.

    Parameters
    ----------
    executor : Executor
        Of all ranks; the others wait in `led`.
    threads : int
        CPUs that this process may use where it is alone: those of the ranks that will be started.
    """

    def __init__(self, executor: Executor, threads: int = 1) -> None:
        self._executor, self.threads = executor, threads

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function(executor, *arguments)`` on every rank, and return the result of rank 0.

        Function and arguments are pickled.
        """
        if self._executor.size > 1:
            self._executor.broadcast(_Call(function, arguments))
        return function(self._executor, *arguments)


def led(executor: Executor, function: Callable[[Team], T]) -> T:
    """Call a function on rank 0, which may share work with the others, and return its result on every rank.

    Raises
    ------
    AgreedError
        On every rank, if the function raises a `UserError`.
    """
    outcome: tuple[T | None, AgreedError | None] | None = None
    if executor.rank == 0:
        try:
            outcome = function(Team(executor)), None
        except UserError as error:
            outcome = None, AgreedError(str(error), error.passing)
    received: Any = executor.broadcast(outcome)
    while isinstance(received, _Call):
        # on rank 0 it is the function that meets the error
        with contextlib.suppress(AgreedError):
            received.function(executor, *received.arguments)
        received = executor.broadcast(None)
    value, refusal = received
    if refusal is not None:
        raise refusal
    return value  # type: ignore[no-any-return]
