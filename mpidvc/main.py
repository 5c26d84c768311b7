"""The command line: finds the command, has it executed, and turns errors into one line."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mpidvc.cli.command import Command, Outcome
from mpidvc.cli.parser import UnknownOptionError
from mpidvc.commands import COMMANDS
from mpidvc.errors import AgreedError, UserError
from mpidvc.runtime import exit_status
from mpidvc.runtime.comm import Launcher, connect, find_launcher, install_abort_hook, install_fault_hook
from mpidvc.runtime.job import find_job
from mpidvc.runtime.stop import Ended, Stopped, describe, handling_signals

if TYPE_CHECKING:
    from mpidvc.cli.command import Plan
    from mpidvc.runtime.comm import Communicator
    from mpidvc.runtime.console import Console
    from mpidvc.tasks.ranks import Team

__all__ = ["main"]

#: Programs of spam that have no command here.
_NOT_YET = ("discreteStrain",)

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
    command, args = parsed
    try:
        communicator = connect(launcher)
    except UserError as error:
        if not leads:
            return 0
        status = command.plan.refused(args, error)
        if status is None:
            status = exit_status.of_error(error)
            print(_line(command.name, error), file=sys.stderr)
        return status
    if launcher is None:
        return _start(command, args, arguments)
    return _join(command, args, communicator, launcher)


def _status_of(status: int, leads: bool) -> int:
    """Exit status of a rank where all end alike: a launcher kills rank 0 at the first failure, before it has spoken."""
    return status if leads else 0


@contextlib.contextmanager
def _silence() -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _line(name: str, error: UserError) -> str:
    return f"{f'mpidvc {name}'.strip()}: error: {error}"


def _parse(arguments: list[str]) -> int | tuple[Command, argparse.Namespace]:
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
        raise UserError(f"unknown {what} {name!r} ({_meant(name)})")
    command = COMMANDS[name]
    try:
        return command, command.parse(arguments[1:])
    except SystemExit as end:
        sys.stdout.flush()
        return int(end.code or 0)
    except UnknownOptionError as error:
        others = [one.name for one in COMMANDS.values() if one is not command and one.parser().has(error.option)]
        if not others:
            raise
        listed = " and ".join([*([", ".join(others[:-1])] if others[1:] else []), others[-1]])
        raise UnknownOptionError(error.option, f"an option of {listed}, but not of {name}") from None


def _meant(name: str) -> str:
    """What the user may have meant by the name of a command that does not exist."""
    known = {known.lower(): known for known in (*COMMANDS, *_NOT_YET)}
    word = name.lower().removeprefix("spam-").removesuffix(".py")
    near = [word] if word in known else difflib.get_close_matches(word, known, n=1)
    near = near or [other for other in known if len(word) > 3 and word in other]
    if not near:
        return "see mpidvc --help"
    meant = known[near[0]]
    return f"did you mean {meant}?" if meant in COMMANDS else f"spam's spam-{meant} is not included yet"


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


def _start(command: Command, args: argparse.Namespace, arguments: list[str]) -> int:
    """Run a command that the user started: here, or in ranks that this process starts."""
    from mpidvc.cli.execution import execute_here
    from mpidvc.runtime.console import Console
    from mpidvc.runtime.launch import RanksLostError
    from mpidvc.runtime.terminal import TERMINAL, find_terminal

    terminal = find_terminal(launched=False)
    console = Console(silent=True)
    try:
        console = Console(terminal, args.log)
        return execute_here(command, args, console, arguments, {TERMINAL: str(terminal)}).status
    except UserError as error:
        console.error(_line(command.name, error))
        return exit_status.of_error(error)
    except Stopped:
        return exit_status.STOPPED
    except RanksLostError as lost:
        kept = "run it again"
        if lost.started and _goes_on(args):
            kept = f"what was measured is kept: {_goes_on(args)}"
        with Console(log=args.log) as console:
            console.error(f"mpidvc {command.name}: {lost}; {kept}")
        return lost.status
    except KeyboardInterrupt as interrupt:
        line, status = _why(interrupt)
        if isinstance(interrupt, Ended) and interrupt.of_ranks and _goes_on(args):
            line += f"; what is measured is kept: {_goes_on(args)}"
        with Console(log=args.log) as console:
            console.error(line)
        return status
    finally:
        console.close()


def _goes_on(args: argparse.Namespace) -> str:
    """In words, what goes on with a run whose processes are gone; "" if nothing does."""
    if "resume" in args:
        return "the same command with --resume goes on"
    return "the same line goes on" if "resumes_itself" in args else ""


def _join(command: Command, args: argparse.Namespace, communicator: Communicator, launcher: Launcher) -> int:
    """Run a command as one of the ranks that a launcher started."""
    from mpidvc.cli.execution import execute_on
    from mpidvc.runtime.console import QUIET, Console
    from mpidvc.runtime.executor import make_executor
    from mpidvc.runtime.terminal import find_terminal

    install_abort_hook(communicator)
    leads = communicator.rank == 0
    console = Console(silent=True)
    job = find_job()

    def prepare(team: Team) -> tuple[Plan, Console]:
        nonlocal console
        console = Console(find_terminal(launched=True), args.log, quiet=os.environ.get(QUIET) == "1")
        return _prepare(command, args, console, team, launcher), console

    try:
        executor = make_executor(communicator, lambda text: console.warn(text))
        if leads and job is not None:
            job.tell_started()
        try:
            outcome = execute_on(executor, prepare)
        except AgreedError as error:
            outcome = Outcome(exit_status.of_error(error), error)
            if leads and os.environ.get(QUIET) != "1":
                console.error(_line(command.name, error))
        except Stopped:
            outcome = Outcome(exit_status.STOPPED)
        if leads and job is not None:
            job.tell_value((outcome.value, outcome.files, console.warnings))
        console.close()
        executor.finish(outcome.status)
        return _status_of(outcome.status, leads)
    except UserError as error:
        told = _line(command.name, error)
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


def _prepare(command: Command, args: argparse.Namespace, console: Console, team: Team, launcher: Launcher) -> Plan:
    """The plan, on rank 0: from the process that started the ranks, or made here."""
    from mpidvc.cli.execution import prepare_for

    job = find_job()
    if job is not None and launcher.ours:
        plan = cast("Plan", pickle.loads(job.plan.read_bytes()))
        job.plan.unlink()
        return plan
    if args.processes is not None:
        console.note(f"-np {args.processes} is ignored: the launcher decides the number of processes")
    return prepare_for(command, args, console, team, launcher.size)
