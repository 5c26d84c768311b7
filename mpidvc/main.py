"""The command line: finds the command, decides how many processes run it, and turns errors into one line."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import io
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from mpidvc.errors import AgreedError, UserError
from mpidvc.runtime import exit_status
from mpidvc.runtime.comm import Launcher, connect, find_launcher, install_abort_hook, install_fault_hook
from mpidvc.runtime.job import find_job, new_job
from mpidvc.runtime.stop import Ended, Stopped, describe, handling_signals

if TYPE_CHECKING:
    from mpidvc.commands.options import Parser
    from mpidvc.runtime.comm import Communicator
    from mpidvc.runtime.console import Console
    from mpidvc.runtime.executor import Executor

__all__ = ["COMMANDS", "CommandEntry", "CommandModule", "Plan", "main"]


class Plan(Protocol):
    """What `prepare` makes on rank 0 and `execute` gets on every rank; it can be pickled.

    If it has a method ``configure(executor)``, every rank calls it before `execute`. If it has a method ``fit(ranks on
    this node, console, may_take_fewer)``, rank 0 calls it before other ranks are started or take part; it returns the
    plan with its `placement`, whose ``ranks`` may be fewer if they may.
    """

    def for_workers(self) -> Any:
        """What of it the other ranks get."""

    @property
    def estimated_seconds(self) -> float:
        """CPU seconds that the whole job will take."""


class CommandModule(Protocol):
    """What a module in `mpidvc.commands` offers.

    If it has ``refused(args, error) -> status``, that speaks where the launcher's processes do not find each other.
    """

    HELP: str
    EXAMPLES: str

    def add_options(self, parser: Parser) -> None: ...

    def prepare(self, args: argparse.Namespace, console: Console) -> Plan:
        """Check the arguments, open the files and return the plan; on rank 0 only."""

    def execute(self, plan: Any, executor: Executor, console: Console) -> int:
        """Do the work and return the exit status; on every rank, rank 0's status counts.

        A `Stopped` that comes out of it, on every rank, is exit status 85; the command has said how to go on.
        """


@dataclass(frozen=True)
class CommandEntry:
    """A line of the table of commands."""

    module: str
    summary: str
    group: str


COMMANDS = {
    "reg": CommandEntry(
        "mpidvc.commands.reg", "register two images: one deformation function for the whole image", "Correlation"
    ),
    "ldic": CommandEntry(
        "mpidvc.commands.ldic", "local correlation: a deformation function at every node of a grid", "Correlation"
    ),
    "pixelSearch": CommandEntry(
        "mpidvc.commands.pixelSearch", "integer displacements at every node of a grid: a first guess", "Correlation"
    ),
    "pixelSearchPropagate": CommandEntry(
        "mpidvc.commands.pixelSearchPropagate",
        "the same from a starting point on: the guess travels over the whole image",
        "Correlation",
    ),
    "status": CommandEntry("mpidvc.commands.status", "say how far the run of a results file (.h5) is", "Runs"),
    "doctor": CommandEntry(
        "mpidvc.commands.doctor", "check what a run needs here: MPI, HDF5, memory; and say how to mend it", "Runs"
    ),
    "demo": CommandEntry(
        "mpidvc.commands.demo", "try it: make two images, correlate them, compare with the known truth", "First steps"
    ),
}

_EXAMPLES = """\
Examples:
  mpidvc reg im1.tif im2.tif
  mpidvc ldic im1.tif im2.tif -ns 20 -hws 10 -pf im1-im2-registration.tsv
  mpiexec -n 64 mpidvc ldic im1.tif im2.tif -ns 20 -hws 10

mpidvc COMMAND --help explains a command. Without mpiexec or srun a command uses the CPUs of this host (-np N).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        What follows ``mpidvc``; the process's own by default.
    """
    # Ranks are the parallelism, and libraries read this when they are loaded.
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    if argv is None:
        # only where this process is the command's own
        install_fault_hook()
    arguments = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    launcher = find_launcher()
    return _guarded(arguments, launcher)


def _prepare_streams() -> None:
    """Make stdout and stderr take any text, whatever the locale, and exist."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _why(interrupt: KeyboardInterrupt) -> tuple[str, int]:
    """The line and the exit status for an interruption."""
    return describe(interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT)


def _guarded(arguments: list[str], launcher: Launcher | None) -> int:
    job = find_job() if launcher is not None and launcher.ours else None
    try:
        with handling_signals():
            status = _main(arguments, launcher)
    except KeyboardInterrupt as interrupt:
        line, status = _why(interrupt)
        if job is not None:
            # Other ranks may wait in MPI_Init for this one.
            job.end(status, lambda: print(line, file=sys.stderr))
        elif launcher is None or launcher.rank == 0:
            print(line, file=sys.stderr)
    except BrokenPipeError:
        # As after a SIGPIPE; the interpreter would complain again when it flushes stdout at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = exit_status.of_signal(signal.SIGPIPE)
    if job is None:
        return status
    # Told to the launcher rather than returned: the MPI's own one has nothing to complain of then.
    if launcher is not None and launcher.rank == 0:
        sys.stdout.flush()
        sys.stderr.flush()
        job.report(status)
    return 0


def _main(arguments: list[str], launcher: Launcher | None) -> int:
    leads = launcher is None or launcher.rank == 0
    with contextlib.nullcontext() if leads else _silence():
        try:
            parsed = _parse(arguments)
        except UserError as error:
            known = bool(arguments) and arguments[0] in COMMANDS
            print(_line(arguments[0] if known else "", error), file=sys.stderr)
            return _status_of(exit_status.of_error(error), leads)
    if isinstance(parsed, int):
        return parsed
    name, module, args = parsed
    try:
        communicator = connect(launcher)
    except UserError as error:
        refused = getattr(module, "refused", None)
        if refused is not None:
            return int(refused(args, error)) if leads else 0
        if leads:
            print(_line(name, error), file=sys.stderr)
        return _status_of(exit_status.of_error(error), leads)
    if launcher is None:
        return _start(name, module, args, arguments)
    return _join(name, module, args, communicator, launcher)


def _status_of(status: int, leads: bool) -> int:
    """Exit status of a rank where all end alike: a launcher kills rank 0 at the first failure, before it has spoken."""
    return status if leads else 0


@contextlib.contextmanager
def _silence() -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _line(name: str, error: UserError) -> str:
    return f"{f'mpidvc {name}'.strip()}: error: {error}"


def _parse(arguments: list[str]) -> int | tuple[str, CommandModule, argparse.Namespace]:
    """Return the command and its options, or the exit status if that was all."""
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "help"):
        print(_help(), end="")
        sys.stdout.flush()
        return 0
    if name in ("--version", "-V"):
        from mpidvc import __version__

        print(f"mpidvc {__version__}")
        sys.stdout.flush()
        return 0
    if name not in COMMANDS:
        what = "option" if name.startswith("-") else "command"
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see mpidvc --help"
        raise UserError(f"unknown {what} {name!r} ({hint})")

    from mpidvc.commands.options import Parser

    module = cast("CommandModule", importlib.import_module(COMMANDS[name].module))
    parser = Parser(f"mpidvc {name}", f"{module.HELP[:1].upper()}{module.HELP[1:]}.", module.EXAMPLES)
    module.add_options(parser)
    try:
        args = parser.parse_args(arguments[1:])
    except SystemExit as end:
        sys.stdout.flush()
        return int(end.code or 0)
    return name, module, args


def _help() -> str:
    lines = [
        "usage: mpidvc COMMAND [options]",
        "",
        "Digital image and volume correlation on all CPUs of a host or cluster.",
    ]
    width = max(map(len, COMMANDS)) + 2
    for group in dict.fromkeys(entry.group for entry in COMMANDS.values()):
        lines += ["", f"{group}:"]
        lines += [f"  {name:{width}}{entry.summary}" for name, entry in COMMANDS.items() if entry.group == group]
    return "\n".join([*lines, "", _EXAMPLES])


def _start(name: str, module: CommandModule, args: argparse.Namespace, arguments: list[str]) -> int:
    """Run a command that the user started: here, or in ranks that this process starts."""
    from mpidvc.runtime.console import TERMINAL, Console, terminal_columns
    from mpidvc.runtime.launch import RanksLostError, choose_ranks, run_ranks

    columns = terminal_columns(launched=False)
    console = Console(silent=True)
    try:
        console = Console(columns, args.log)
        plan = module.prepare(args, console)
        n_ranks = choose_ranks(args.processes, plan.estimated_seconds, console.note)
        plan, n_ranks = _fit(plan, n_ranks, console, args.processes is None)
        if n_ranks > 1:
            console.close()
            # The plan is made once: preparing again in rank 0 would read and print everything again.
            with new_job(pickle.dumps(plan, protocol=5)) as job:
                try:
                    return run_ranks(n_ranks, arguments, job, {TERMINAL: str(columns)})
                except OSError as error:
                    raise UserError(f"mpiexec cannot be started: {error}") from None
                except RanksLostError as lost:
                    kept = "run it again"
                    if lost.started and "resume" in args:
                        kept = "what was measured is kept: --resume continues"
                    with Console(0, args.log) as console:
                        console.error(f"mpidvc {name}: {lost}; {kept}")
                    return lost.status

        from mpidvc.runtime.executor import InlineExecutor

        return _execute(module, plan, InlineExecutor(), console)
    except UserError as error:
        console.error(_line(name, error))
        return exit_status.of_error(error)
    except KeyboardInterrupt as interrupt:
        line, status = _why(interrupt)
        console.error(line)
        return status
    finally:
        console.close()


def _join(
    name: str, module: CommandModule, args: argparse.Namespace, communicator: Communicator, launcher: Launcher
) -> int:
    """Run a command as one of the ranks that a launcher started."""
    from mpidvc.runtime.console import Console, terminal_columns
    from mpidvc.runtime.executor import make_executor

    install_abort_hook(communicator)
    leads = communicator.rank == 0
    console = Console(silent=True)
    try:
        executor = make_executor(communicator, lambda text: console.warn(text))
        if leads and (job := find_job()) is not None:
            job.tell_started()
        plan: Plan | None = None
        verdict: UserError | None = None
        if leads:
            try:
                console = Console(terminal_columns(launched=True), args.log)
                plan = _prepare(module, args, console, launcher)
            except UserError as error:
                verdict = error
        if verdict is not None:
            console.error(_line(name, verdict))
        # Before any other collective: all ranks go on or none does.
        status = exit_status.of_error(verdict) if verdict is not None else exit_status.REFUSED
        if not executor.broadcast(verdict is not None):
            try:
                shared = executor.broadcast(None if plan is None else plan.for_workers())
                status = _execute(module, shared if plan is None else plan, executor, console)
            except AgreedError as error:
                status = exit_status.of_error(error)
                if leads:
                    console.error(_line(name, error))
        console.close()
        executor.finish(status)
        return _status_of(status, leads)
    except UserError as error:
        told = _line(name, error)
        communicator.abort(exit_status.of_error(error), lambda: console.error(told))
    except KeyboardInterrupt as interrupt:
        line, status = _why(interrupt)
        if communicator.size == 1:
            console.error(line)
            return status
        # Every rank may have got it; our own launcher lets one of them speak.
        speaks = leads or launcher.ours
        communicator.abort(status, (lambda: console.error(line)) if speaks else None)
    except SystemExit as end:
        communicator.abort(end.code if isinstance(end.code, int) else exit_status.FAULT)
    finally:
        console.close()


def _prepare(module: CommandModule, args: argparse.Namespace, console: Console, launcher: Launcher) -> Plan:
    job = find_job()
    if job is not None and launcher.ours:
        plan = cast("Plan", pickle.loads(job.plan.read_bytes()))
        job.plan.unlink()
        return plan
    if args.processes is not None:
        console.note(f"-np {args.processes} is ignored: the launcher decides the number of processes")
    from mpidvc.runtime.nodes import ranks_on_node

    return _fit(module.prepare(args, console), ranks_on_node(launcher.size), console)[0]


def _fit(plan: Plan, n_ranks: int, console: Console, may_take_fewer: bool = False) -> tuple[Plan, int]:
    """Let the plan decide how it uses this node's memory; return it and the number of ranks that have room."""
    fit = getattr(plan, "fit", None)
    if fit is None:
        return plan, n_ranks
    plan = fit(n_ranks, console, may_take_fewer)
    return plan, plan.placement.ranks  # type: ignore[attr-defined]


def _execute(module: CommandModule, plan: Plan, executor: Executor, console: Console) -> int:
    configure = getattr(plan, "configure", None)
    if configure is not None:
        configure(executor)
    try:
        return module.execute(plan, executor, console)
    except Stopped:
        return exit_status.STOPPED
