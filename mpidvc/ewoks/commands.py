"""The commands as ewoks tasks: `Reg`, `Ldic`, `RegularStrain`, …

Inputs are the parameters of the functions in Python, which are made from the parsers of the command line. Outputs:
``result``, as the function returns it; ``files``, the files with it, of which ``file`` is the one for the next task.
"""

from __future__ import annotations

import inspect
import types
import warnings
from typing import Any, ClassVar

from ewokscore.task import Task

from mpidvc.api import perform
from mpidvc.cli import keywords
from mpidvc.cli.command import Command
from mpidvc.commands import COMMANDS
from mpidvc.errors import UserError

__all__ = ["GROUPS", "CommandTask"]

#: Groups of commands that are tasks: those whose result other commands read.
GROUPS = ("Correlation", "Fields")


class CommandTask(Task, register=False):  # type: ignore[call-arg]
    """A command as a task; each subclass is one.

    Attributes
    ----------
    command : Command
    """

    command: ClassVar[Command]

    def run(self) -> None:
        parser = self.command.parser()
        given = {name: value for name, value in self.get_input_values().items() if value is not self.MISSING_DATA}
        try:
            result = perform(self.command, given)
        except UserError as error:
            error.args = (keywords.spoken(parser, str(error)),)
            raise
        for text in result.warnings:
            warnings.warn(keywords.spoken(parser, text), stacklevel=1)
        self.outputs.result = result.value
        self.outputs.files = [str(path) for path in result.files]
        self.outputs.file = str(result.files[0]) if result.files else None


def _task(command: Command) -> type[CommandTask]:
    """The task of a command."""
    parameters = keywords.signature(command.parser()).parameters.values()
    required = [one.name for one in parameters if one.default is inspect.Parameter.empty]
    names = {
        "input_names": required,
        "optional_input_names": [*(one.name for one in parameters if one.name not in required), "verbose"],
        "output_names": ["result", "files", "file"],
    }
    name = "".join(part.capitalize() for part in command.function.split("_"))
    text = f"``mpidvc {command.name}``: {command.summary}.\n\nInputs are the parameters of `mpidvc.{command.function}`."

    def fill(body: dict[str, Any]) -> None:
        # ewoks names tasks, in its registry too, by these
        body.update(__module__=__name__, __qualname__=name, __doc__=text, command=command)

    return types.new_class(name, (CommandTask,), names, fill)


for _command in COMMANDS.values():
    if _command.group in GROUPS:
        _made = _task(_command)
        globals()[_made.__name__] = _made
        __all__ += [_made.__name__]
