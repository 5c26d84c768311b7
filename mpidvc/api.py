"""The commands from Python: ``field = mpidvc.ldic([im1, im2], node_spacing=20, half_window_size=10)``.

Every command is a function, whose parameters are the command's options by the names of `Command.parse`'s result. See
``docs/python.md``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpidvc.cli.command import Command, Outcome
from mpidvc.commands import COMMANDS
from mpidvc.errors import UserError

if TYPE_CHECKING:
    import argparse

    from mpidvc.cli.command import Plan
    from mpidvc.runtime.console import Console
    from mpidvc.runtime.executor import Executor

__all__ = ["call", "functions"]

#: Options that take an image, and the one that takes a field.
IMAGES, FIELD = ("images", "im1", "im2", "mask1", "mask2"), "phi_file"


@functools.cache
def functions() -> dict[str, Callable[..., Any]]:
    """The functions by their names in Python: those of the commands' packages.

    The parameters of a function, and their defaults, are the options of the command's parser, and ``verbose``.
    """
    return {command.package.rpartition(".")[2]: _function(command) for command in COMMANDS.values()}


def _function(command: Command) -> Callable[..., Any]:
    import inspect

    parser = command.parser()
    own = parser.signature()
    name = command.package.rpartition(".")[2]
    verbose = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False)
    signature = own.replace(parameters=[*own.parameters.values(), verbose])

    def run(*args: Any, **options: Any) -> Any:
        bound = signature.bind(*args, **options)
        return call(command.name, bound.arguments, verbose=bound.arguments.pop("verbose", False))

    run.__name__ = run.__qualname__ = name
    run.__module__ = "mpidvc"
    run.__doc__ = _documentation(command, parser)
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run


def _documentation(command: Command, parser: argparse.ArgumentParser) -> str:
    summary = f"{command.summary[:1].upper()}{command.summary[1:]}: ``mpidvc {command.name}``."
    lines = [summary, "", "Parameters", "----------"]
    formatter = parser._get_formatter()
    for action in parser._actions:
        if action.dest != "help" and action.help:
            spelling = f" : {action.option_strings[0]}" if action.option_strings else ""
            lines += [f"{action.dest}{spelling}", f"    {formatter._expand_help(action)}"]
    lines += ["verbose", "    print what the command prints", ""]
    return "\n".join(lines)


def call(
    name: str,
    options: Mapping[str, Any],
    verbose: bool = False,
    executor: Executor | None = None,
    console: Console | None = None,
) -> Any:
    """Run a command and return its result.

    Parameters
    ----------
    name : str
        As typed.
    options : mapping
        By the names of the parser's result. Images and masks are paths, arrays or images; ``phi_file`` is a path or a
        `PhiField`. Without ``out_dir`` nothing is written.
    verbose : bool
        Whether the command prints what it prints on the command line.
    executor : Executor, optional
        The ranks of a job, each of which calls this; found out if not given.
    console : Console, optional
        Speaks on rank 0 instead of one of its own, without the settings.

    Returns
    -------
    PhiField, list of PhiField, or other
        A field; one for each pair of a series of several; what else the command returns.

    Raises
    ------
    UserError
        If an option or a file makes no sense, or there is not enough memory; on every rank.
    TypeError
        If there is no option of that name.
    KeyboardInterrupt
        If a signal has stopped the run.
    """
    command = COMMANDS[name]
    given, objects = _texts(options)
    words = command.parser().words(given)
    args = command.parse(words)
    ranks = _ranks() if executor is None else executor
    with contextlib.ExitStack() as stack:
        for option, index, value in objects:
            _set(args, option, index, _opened(option, index, value, args, ranks, stack))
        if console is None:
            from mpidvc.runtime.console import Console, terminal_columns

            leads = ranks is None or ranks.rank == 0
            console = Console(terminal_columns(ranks is not None), args.log, silent=not leads, quiet=not verbose)
        results = _Results(args, stack)
        if ranks is not None:
            outcome = _execute_on(ranks, command, args, results, console if executor is None else None, console)
        else:
            from mpidvc.cli.execution import execute_here
            from mpidvc.runtime.console import QUIET, TERMINAL

            results.settle()
            variables = {TERMINAL: str(console.columns), QUIET: str(int(console.quiet))}
            outcome = execute_here(command, args, console, [command.name, *words], variables)
        for text in console.warnings if executor is None else ():
            warnings.warn(text, stacklevel=3)
        if isinstance(outcome.value, UserError):
            raise outcome.value
        if outcome.status not in (0, 1):
            raise RuntimeError(f"mpidvc {name} ended with exit status {outcome.status}")
        value = results.read(outcome.value) if ranks is None or ranks.rank == 0 else None
        return value if ranks is None else ranks.broadcast(value)


def _execute_on(
    ranks: Executor,
    command: Command,
    args: argparse.Namespace,
    results: _Results,
    told: Console | None,
    console: Console,
) -> Outcome:
    """Execute on the ranks of a job; `told` gets the settings."""
    from mpidvc.cli.execution import execute_on, prepare_for
    from mpidvc.runtime.console import Console

    def prepare() -> tuple[Plan, Console]:
        results.settle({host for host, _ in ranks.processes})
        return prepare_for(command, args, told or Console(silent=True), ranks.size), console

    return execute_on(ranks, prepare)


class _Results:
    """The files of a call: in the folder that is asked for, or in one that is removed after the call.

    Parameters
    ----------
    args : Namespace
        The options, which are changed.
    stack : ExitStack
        Ends with the call.
    """

    def __init__(self, args: argparse.Namespace, stack: contextlib.ExitStack) -> None:
        self._args, self._stack = args, stack
        #: Whether the results file is to be removed after it has been read.
        self._drop = False

    def settle(self, hosts: set[str] | frozenset[str] = frozenset()) -> None:
        """Choose the folder, on rank 0 of a job on these hosts.

        Raises
        ------
        UserError
            If there is none that all hosts see.
        """
        args = self._args
        if "out_dir" not in args:
            return
        if args.out_dir is None:
            if len(hosts) > 1:
                raise UserError("out_dir: is needed on several hosts; give a folder that all of them see")
            if getattr(args, "resume", False):
                raise UserError("resume: there is nothing to resume without out_dir")
            args.out_dir = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mpidvc-"))
            if "tsv" in args:
                # read from the results file, which is exact, and removed
                args.tsv = args.tif = args.vtk = False
        args.out_dir = str(args.out_dir)
        if "h5" in args:
            self._drop, args.h5 = not args.h5, True

    def read(self, value: Any) -> Any:
        """The value of a call: fields for the paths of results files."""
        if not (isinstance(value, list) and value and all(isinstance(one, Path) for one in value)):
            return value
        from mpidvc.fields.hdf5 import read_hdf5
        from mpidvc.runtime.runlog import path_of

        fields = [read_hdf5(path) for path in value]
        for path in value if self._drop else ():
            path.unlink(missing_ok=True)
            path_of(path).unlink(missing_ok=True)
        return fields[0] if len(fields) == 1 else fields


def _texts(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, int | None, Any]]]:
    """Options as texts and numbers, with names for the images and fields in memory; and these, by option and index."""
    texts: dict[str, Any] = {}
    objects: list[tuple[str, int | None, Any]] = []

    def text(option: str, index: int | None, value: Any) -> Any:
        if value is None or isinstance(value, str | Path) or option not in (*IMAGES, FIELD):
            return value
        objects.append((option, index, value))
        return _label(option, index)

    for option, value in options.items():
        several = option == "images" and not isinstance(value, str | Path) and not hasattr(value, "read_box")
        texts[option] = [text(option, k, one) for k, one in enumerate(value)] if several else text(option, None, value)
    return texts, objects


def _label(option: str, index: int | None) -> str:
    """Name of an image or field in memory: that of a file, in the names of the files written."""
    return option if index is None else f"im{index + 1}"


def _set(args: argparse.Namespace, option: str, index: int | None, value: Any) -> None:
    if index is None:
        setattr(args, option, value)
    else:
        getattr(args, option)[index] = value


def _opened(
    option: str,
    index: int | None,
    value: Any,
    args: argparse.Namespace,
    ranks: Executor | None,
    stack: contextlib.ExitStack,
) -> Any:
    """An image in memory as the run reads it: without a copy in this process, or from memory that ranks share."""
    if option == FIELD:
        return value
    from mpidvc.images.image import ArrayImage, image_at_hand, image_of, shared_image
    from mpidvc.runtime.launch import available_cpus, find_mpiexec

    image = image_of(value, _label(option, index))
    if not isinstance(image, ArrayImage):
        return image
    if ranks is not None:
        # every rank has its own
        return stack.enter_context(image_at_hand(image))
    if args.processes != 1 and (args.processes or available_cpus()) > 1 and find_mpiexec() is not None:
        return stack.enter_context(shared_image(image))
    return image


_joined: Executor | None = None


def _ranks() -> Executor | None:
    """The ranks of the job that a launcher started this process in; None if it runs on its own."""
    global _joined
    if _joined is None:
        from mpidvc.runtime.comm import connect, find_launcher, install_abort_hook
        from mpidvc.runtime.executor import make_executor

        communicator = connect(find_launcher())
        if communicator.size == 1:
            return None
        install_abort_hook(communicator)
        _joined = make_executor(communicator, lambda text: warnings.warn(text, stacklevel=2))
        atexit.register(_joined.finish, 0)
    return _joined
