"""What a command is: its entry in the table of commands, and the plan that it makes and executes."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

if TYPE_CHECKING:
    from mpidvc.runtime.console import Console
    from mpidvc.runtime.executor import Executor
    from mpidvc.tasks.ranks import Team

__all__ = ["Command", "Outcome", "Plan"]

P = TypeVar("P", bound="Plan")


@dataclass(frozen=True)
class Outcome:
    """The end of a command.

    Attributes
    ----------
    status : int
        Exit status; that of rank 0 counts.
    value : object
        The result as the Python API returns it, on rank 0: small, since it is pickled. Paths stand for fields in files.
    files : tuple of Path
        Files with the result, which other commands read, on rank 0; the most precise one first.
    """

    status: int
    value: Any = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A command's work, prepared: made on rank 0, executed by every rank. It can be pickled.

    Attributes
    ----------
    estimated_seconds : float
        CPU seconds of the whole job.
    begun : float
        When its preparation began (`time.monotonic`).
    """

    #: Whether the command ends with its elapsed time.
    timed: ClassVar[bool] = True

    estimated_seconds: float = 0.0
    begun: float = 0.0

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        """Open the files, check everything, and return the plan; on rank 0 only.

        Parameters
        ----------
        args : Namespace
        console : Console
        team : Team
            The ranks, where it shares work with them.

        Raises
        ------
        UserError
            If the run cannot be done; nothing has been written then.
        """
        raise NotImplementedError

    @classmethod
    def refused(cls, args: argparse.Namespace, error: UserError) -> int | None:
        """Exit status of a command that has something to say where the launcher's processes do not find each other."""
        return None

    def fit(self: P, ranks: int, console: Console, may_take_fewer: bool = False) -> tuple[P, int]:
        """Fit the plan to the memory of this node, before other ranks take part.

        Parameters
        ----------
        ranks : int
            Ranks on this node.
        console : Console
        may_take_fewer : bool
            Whether fewer ranks may be used where so many have no room.

        Returns
        -------
        plan : Plan
        ranks : int
            Ranks that have room.

        Raises
        ------
        UserError
            If there is not enough memory.
        """
        return self, ranks

    def for_workers(self: P) -> P:
        """The plan as broadcast to the other ranks, without the parts that only rank 0 needs."""
        return self

    def configure(self, executor: Executor) -> None:
        """Set up this rank, before `execute`; on every rank."""

    def execute(self, executor: Executor, console: Console) -> Outcome:
        """Do the work; on every rank.

        Raises
        ------
        Stopped
            On every rank, if the run was asked to stop and can be resumed; the command has said how.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Command:
    """A line in the table of commands.

    Attributes
    ----------
    name : str
        As typed.
    package : str
        Holds two modules. ``options`` is light, for ``--help`` and for mistakes: `HELP`, `EXAMPLES`,
        ``add_options(parser)``, and ``check(args)``, which returns notes for the user. ``run`` has the class `Plan`.
    summary : str
        For the list of commands.
    group : str
        Its heading there.
    returns : str
        Type of the result in Python.
    """

    name: str
    package: str
    summary: str
    group: str
    returns: str = "PhiField"

    @property
    def function(self) -> str:
        """Name of the command in Python."""
        return self.package.rpartition(".")[2]

    @property
    def plan(self) -> type[Plan]:
        """The plan's class."""
        return cast("type[Plan]", importlib.import_module(f"{self.package}.run").Plan)

    def parser(self) -> Parser:
        """The parser of the command's options."""
        options = importlib.import_module(f"{self.package}.options")
        parser = Parser(f"mpidvc {self.name}", f"{options.HELP[:1].upper()}{options.HELP[1:]}.", options.EXAMPLES)
        options.add_options(parser)
        return parser

    def parse(self, words: list[str]) -> argparse.Namespace:
        """Parse and check the options, as far as that needs no file.

        Returns
        -------
        Namespace
            The options, their `defaults`, `command_line`, and `notes`: lines for the user.

        Raises
        ------
        UserError
            If an option, or a combination of them, makes no sense.
        """
        parser = self.parser()
        args: argparse.Namespace = parser.parse_args(words)
        args.defaults = {action.dest: action.default for action in parser._actions if action.option_strings}
        args.notes = importlib.import_module(f"{self.package}.options").check(args)
        return args
