"""The commands from Python: ``field = mpidvc.ldic([im1, im2], node_spacing=20, half_window_size=10)``.

Every command is a function, whose parameters are the command's options by the names of `Command.parse`'s result. See
``docs/python.md``.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import inspect
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mpidvc.cli import keywords
from mpidvc.cli.command import Command, Outcome
from mpidvc.commands import COMMANDS
from mpidvc.errors import UserError

if TYPE_CHECKING:
    from mpidvc.cli.command import Plan
    from mpidvc.runtime.console import Console
    from mpidvc.runtime.executor import Executor
    from mpidvc.tasks.ranks import Team

__all__ = ["Result", "call", "function", "names", "perform"]

#: What every function has in common, below its parameters.
_EPILOGUE = """\
verbose : bool, default False
    print what the command prints

Returns
-------
{returns}

Raises
------
UserError
    If an option or a file makes no sense, or there is not enough memory.
TypeError
    If there is no parameter of that name.
KeyboardInterrupt
    If the run was interrupted. With ``out_dir`` it can be resumed, where there is a parameter ``resume``.

Warns
-----
UserWarning
    With each warning of the command, for instance if the result should not be trusted.
"""


def names() -> list[str]:
    """Names of the functions: those of the commands' packages."""
    return [command.function for command in COMMANDS.values()]


def function(name: str) -> Callable[..., Any] | None:
    """The function of this name, None if there is none.

    Its parameters, and their defaults, are the options of the command's parser, and ``verbose``.
    """
    command = next((command for command in COMMANDS.values() if command.function == name), None)
    if command is None:
        return None
    parser = command.parser()
    own = keywords.signature(parser)
    verbose = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False)
    signature = own.replace(parameters=[*own.parameters.values(), verbose])

    def run(*args: Any, **options: Any) -> Any:
        try:
            given = signature.bind(*args, **options).arguments
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        try:
            result = perform(command, given)
        except UserError as error:
            error.args = (keywords.spoken(parser, str(error)),)
            raise
        for text in result.warnings:
            warnings.warn(keywords.spoken(parser, text), stacklevel=2)
        return result.value

    run.__name__ = run.__qualname__ = name
    run.__module__ = "mpidvc"
    run.__signature__ = signature  # type: ignore[attr-defined]
    summary = f"{command.summary[:1].upper()}{command.summary[1:]}."
    same = f"The same as ``mpidvc {command.name}``, whose options stand in brackets."
    head = f"{summary}\n\n{same}\n\nParameters\n----------\n{keywords.describe(parser)}\n"
    run.__doc__ = head + _EPILOGUE.format(returns=command.returns)
    return run


def call(name: str, options: Mapping[str, Any], executor: Executor, console: Console) -> Result:
    """Run a command as a part of another one; every rank calls it.

    Parameters
    ----------
    name : str
        As typed.
    options : mapping
        By the names of the parameters.
    executor : Executor
    console : Console
        Speaks on rank 0, without the settings.

    Returns
    -------
    Result
        On every rank; without the warnings.

    Raises
    ------
    AgreedError
        If an option or a file makes no sense, or there is not enough memory; on every rank.
    """
    from mpidvc.runtime.console import Console

    with contextlib.ExitStack() as stack:
        return _Call(COMMANDS[name], options, executor, stack).on(executor, lambda: (Console(silent=True), console))


class Result(NamedTuple):
    """The result of a command.

    Attributes
    ----------
    value : object
        As the function of the command returns it.
    files : tuple of Path
        Files with the result, which other commands read; the most precise one first. None without ``out_dir``.
    status : int
        Exit status: 0, or 1 if the result is not one to trust.
    warnings : list of str
        In the words of the command line; in a job on rank 0 only.
    """

    value: Any
    files: tuple[Path, ...]
    status: int
    warnings: list[str]


def perform(command: Command, options: Mapping[str, Any]) -> Result:
    """Run a command: by all ranks of the job that this process is a rank of, or as the command line would.

    Parameters
    ----------
    command : Command
    options : mapping
        By the names of the parameters, ``verbose`` included.

    Raises
    ------
    UserError
        In the words of the command line.
    """
    from mpidvc.runtime.console import Console
    from mpidvc.runtime.terminal import find_terminal

    ranks = _ranks()
    warned: list[str] = []
    given = {**options}
    verbose = bool(given.pop("verbose", False))
    with contextlib.ExitStack() as stack:
        prepared = _Call(command, given, ranks, stack)

        def console() -> Console:
            terminal = find_terminal(launched=ranks is not None) if verbose else None
            opened = stack.enter_context(Console(terminal, prepared.args.log, quiet=not verbose))
            opened.warnings = warned
            return opened

        found = prepared.here(console()) if ranks is None else prepared.on(ranks, lambda: (one := console(), one))
        return found._replace(warnings=warned)


class _Call:
    """A command, and its options as they were given in Python.

    Parameters
    ----------
    command : Command
    options : mapping
        By the names of the parameters. Without ``out_dir`` the files of the command are removed after the call.
    ranks : Executor or None
        The ranks of the job that this process is a rank of.
    stack : ExitStack
        Ends with the call.

    Raises
    ------
    UserError
        If they make no sense; in a job on every rank.
    """

    def __init__(
        self, command: Command, options: Mapping[str, Any], ranks: Executor | None, stack: contextlib.ExitStack
    ) -> None:
        self._command, self._stack = command, stack
        parser = command.parser()
        texts, objects = _texts(options)
        self._writes = "out_dir" in keywords.signature(parser).parameters and texts.get("out_dir") is not None
        if not self._writes:
            texts = _for_no_folder(parser, texts)
        self._words = keywords.words(parser, texts)
        self.args: argparse.Namespace = command.parse(self._words)
        for option, index, value in objects:
            self._set(option, index, _opened(option, index, value, ranks, stack))
        #: Whether the results file is removed after it has been read.
        self._drop = False

    def on(self, ranks: Executor, consoles: Callable[[], tuple[Console, Console]]) -> Result:
        """Run on the ranks of a job; return the result on each of them.

        Parameters
        ----------
        ranks : Executor
        consoles : callable
            Gives, on rank 0, the consoles for the preparation and for the rest.
        """
        from mpidvc.cli.execution import execute_on, prepare_for
        from mpidvc.tasks.ranks import on_leader

        def prepare(team: Team) -> tuple[Plan, Console]:
            first, then = consoles()
            self._settle(len({host for host, _ in ranks.processes}))
            return prepare_for(self._command, self.args, first, team, ranks.size), then

        outcome = execute_on(ranks, prepare)
        return on_leader(ranks, lambda: self._value(outcome))

    def here(self, console: Console) -> Result:
        """Run in this process, or in ranks that are started where they pay; return the result."""
        from mpidvc.cli.execution import execute_here
        from mpidvc.runtime.console import QUIET
        from mpidvc.runtime.terminal import TERMINAL

        self._settle(1)
        variables = {TERMINAL: str(console.terminal), QUIET: str(int(console.quiet))}
        return self._value(
            execute_here(self._command, self.args, console, [self._command.name, *self._words], variables)
        )

    def _set(self, option: str, index: int | None, value: Any) -> None:
        if index is None:
            setattr(self.args, option, value)
        else:
            getattr(self.args, option)[index] = value

    def _settle(self, hosts: int) -> None:
        """Choose the files and their folder, on rank 0.

        Raises
        ------
        UserError
            If there is no folder that all hosts see.
        """
        args = self.args
        if "h5" in args:
            # the result is read from there
            self._drop, args.h5 = not args.h5, True
        if "out_dir" not in args or self._writes:
            return
        if hosts > 1:
            raise UserError("out_dir: is needed on several hosts; give a folder that all of them see")
        args.out_dir = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mpidvc-"))
        if "tsv" in args:
            args.tsv = False

    def _value(self, outcome: Outcome) -> Result:
        """The result, with fields for the paths of results files, and the files that are left."""
        from mpidvc.runtime.exit_status import STOPPED

        value = outcome.value
        if isinstance(value, UserError):
            raise value
        if outcome.status == STOPPED or outcome.status > 128:
            # ranks that were ended by a signal, which came to this process
            raise KeyboardInterrupt
        # that of a run that is looked at may be another one
        if outcome.status not in (0, 1) and value is None:
            raise RuntimeError(f"mpidvc {self._command.name} ended with exit status {outcome.status}")
        files = outcome.files if self._writes else ()
        if not (isinstance(value, list) and value and all(isinstance(one, Path) for one in value)):
            return Result(value, files, outcome.status, [])
        from mpidvc.fields.hdf5 import read_hdf5
        from mpidvc.runtime.runlog import path_of

        fields = [read_hdf5(path) for path in value]
        for path in value if self._drop else ():
            path.unlink(missing_ok=True)
            path_of(path).unlink(missing_ok=True)
        left = tuple(path for path in files if path.exists())
        return Result(fields[0] if len(fields) == 1 else fields, left, outcome.status, [])


def _for_no_folder(parser: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Options without a folder for files: files need not be turned off, and cannot be asked for."""
    kept = dict(options)
    for name in ("tsv", "h5"):
        if name in kept and not kept[name]:
            del kept[name]
    asked = [name for name in (*sorted(keywords.output_names(parser)), "resume") if kept.get(name)]
    if asked and asked != ["tsv"]:
        raise UserError(f"{asked[0]}: needs out_dir, a folder for the files; without it nothing is written")
    return kept


def _texts(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, int | None, Any]]]:
    """Options as texts and numbers, with names for the images and fields in memory; and these, by option and index."""
    texts: dict[str, Any] = {}
    objects: list[tuple[str, int | None, Any]] = []

    def text(option: str, index: int | None, value: Any) -> Any:
        if value is None or isinstance(value, str | Path) or option not in (*keywords.IMAGES, *keywords.FIELDS):
            return value
        objects.append((option, index, value))
        return _label(option, index)

    for option, value in options.items():
        if option == keywords.STACKS and isinstance(value, Mapping):
            objects += [(option, k, pair) for k, pair in enumerate(value.items())]
            # names and URIs of any characters are no words of a command line
            texts[option] = [f"stack{k}" for k in range(len(value))]
        elif option == keywords.STACKS:
            texts[option] = [_uri(one) for one in ([value] if isinstance(value, str | Path) else value)]
        elif option in keywords.SEVERAL and not isinstance(value, str | Path) and _is_sequence(value):
            texts[option] = [text(option, k, one) for k, one in enumerate(value)]
        elif option == "fields":
            texts[option] = [text(option, 0, value)]
        else:
            texts[option] = text(option, None, value)
    return texts, objects


def _is_sequence(value: Any) -> bool:
    # a field alone counts as a sequence of one by its class, but cannot be looped over
    return getattr(value, "__iter__", None) is not None


def _uri(value: Any) -> str:
    """URI of a stack without a name."""
    from mpidvc.images.stack import stack_of

    uri = stack_of(value, "")
    if not isinstance(uri, str):
        raise UserError(f"{keywords.STACKS}: a stack in memory has no name; give a dict of names and stacks")
    return uri


def _label(option: str, index: int | None) -> str:
    """Name of an image or field in memory: that of a file, in the names of the files written."""
    if index is None:
        return option
    if option in keywords.FIELDS:
        return f"field{index + 1}"
    # "more" follows image 2
    return f"im{index + (3 if option == 'more' else 1)}"


def _opened(option: str, index: int | None, value: Any, ranks: Executor | None, stack: contextlib.ExitStack) -> Any:
    """A field, or an image in memory; in a job every rank has its own."""
    if option in keywords.FIELDS:
        from mpidvc.fields.phifield import PhiField

        if not isinstance(value, PhiField):
            raise UserError(f"{option}: is a {type(value).__name__}; give a path or a PhiField")
        return value
    from mpidvc.images.image import ArrayImage, Image, image_at_hand, image_of

    image: Image | tuple[str, Any]
    if option == keywords.STACKS:
        from mpidvc.images.stack import stack_of

        name, given = value
        array = stack_of(given, name)
        image = name, array
    else:
        image = array = image_of(value, _label(option, index))
    if ranks is not None and isinstance(array, ArrayImage):
        stack.enter_context(image_at_hand(array))
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
