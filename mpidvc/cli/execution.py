"""How a command is executed: in this process, in ranks that are started for it, or by the ranks of a job."""

from __future__ import annotations

import argparse
import contextlib
import io
import pickle
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mpidvc.cli.command import Command, Outcome, Plan
from mpidvc.errors import UserError
from mpidvc.images.image import ArrayImage, shared_image
from mpidvc.images.plain import PlainImage
from mpidvc.runtime.console import Console, duration
from mpidvc.runtime.executor import Executor, InlineExecutor
from mpidvc.runtime.job import new_job
from mpidvc.runtime.launch import available_cpus, choose_ranks, run_ranks
from mpidvc.runtime.nodes import ranks_on_node
from mpidvc.runtime.stop import Ended
from mpidvc.tasks.ranks import Team, led

__all__ = ["execute_here", "execute_on", "prepare_for"]

#: Processes for each CPU from which on there are too many. Twice as many may pay: one computes while another one reads.
MANY = 2


def prepare_for(command: Command, args: argparse.Namespace, console: Console, team: Team, ranks: int) -> Plan:
    """The plan of a command for a job of so many ranks; on rank 0."""
    return _prepared(command, args, console, team).fit(ranks_on_node(ranks), console)[0]


def _prepared(command: Command, args: argparse.Namespace, console: Console, team: Team) -> Plan:
    begun = time.monotonic()
    return replace(command.plan.prepare(args, console, team), begun=begun)


def execute_on(executor: Executor, prepare: Callable[[Team], tuple[Plan, Console]]) -> Outcome:
    """Execute a plan on the ranks of a job; every rank calls it.

    Parameters
    ----------
    executor : Executor
    prepare : callable
        Makes the plan, on rank 0, which may share work with the others, and the console that its execution speaks to.

    Raises
    ------
    AgreedError
        On every rank, if the plan cannot be made.
    Stopped
        On every rank, if the run was asked to stop.
    """
    mine: tuple[Plan, Console] | None = None

    def for_workers(team: Team) -> Plan:
        nonlocal mine
        mine = prepare(team)
        return mine[0].for_workers()

    received = led(executor, for_workers)
    plan, console = mine or (received, Console(silent=True))
    plan.configure(executor)
    outcome = plan.execute(executor, console)
    if plan.timed:
        # the clock is one for all processes of a host
        console.print(f"Elapsed time: {duration(time.monotonic() - plan.begun)}")
    return outcome


def execute_here(
    command: Command,
    args: argparse.Namespace,
    console: Console,
    words: Sequence[str],
    variables: Mapping[str, str],
) -> Outcome:
    """Execute a command that the user started: in this process, or in ranks that are started where they pay.

    Parameters
    ----------
    command : Command
    args : Namespace
        Its options.
    console : Console
        Closed before ranks are started: their rank 0 goes on with the log file.
    words : sequence of str
        The command line of the ranks, which is parsed again there; the plan is not made again.
    variables : mapping
        Environment of the ranks besides.

    Raises
    ------
    UserError
        If the plan cannot be made, or ranks cannot be started.
    RanksLostError
        If a rank was killed.
    Stopped
        If the run was asked to stop.
    """
    plan = _prepared(command, args, console, Team(InlineExecutor()))
    _note_few_cpus(args.processes, console)
    n_ranks = choose_ranks(args.processes, plan.estimated_seconds, console.note)
    plan, n_ranks = plan.fit(n_ranks, console, args.processes is None)
    if n_ranks == 1:
        alone = plan, console
        return execute_on(InlineExecutor(), lambda team: alone)
    console.close()
    with contextlib.ExitStack() as stack:
        # the plan is made once: preparing again in rank 0 would read and print everything again
        job = stack.enter_context(new_job(_pickled(plan, stack)))
        # a field may be large: rank 0 has it now
        del plan
        try:
            status = run_ranks(n_ranks, words, job, variables)
        except Ended as ended:
            ended.of_ranks = True
            raise
        except OSError as error:
            raise UserError(f"mpiexec cannot be started: {error}") from None
        value, files, warned = job.value or (None, (), [])
        console.warnings += warned
        return Outcome(status, value, files)


def _note_few_cpus(processes: int | None, console: Console) -> None:
    """Tell on stderr of many more processes than CPUs: stdout is the same on any number of either."""
    cpus = available_cpus()
    if processes is not None and processes > MANY * max(cpus, 2):
        console.note(f"-np {processes}: CPUs available here: {cpus}; more processes make a run slower", sys.stderr)


def _same(image: PlainImage) -> PlainImage:
    return image


def _pickled(plan: Plan, stack: contextlib.ExitStack) -> bytes:
    """A plan for ranks; they share the images that it has in memory, until the stack ends."""

    class Pickler(pickle.Pickler):
        def reducer_override(self, value: object) -> Any:
            if isinstance(value, ArrayImage):
                return _same, (stack.enter_context(shared_image(value)),)
            return NotImplemented

    file = io.BytesIO()
    Pickler(file, protocol=5).dump(plan)
    return file.getvalue()
