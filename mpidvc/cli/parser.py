"""The option parser of all commands.

Names, types and defaults of the options are spam's. Its options may be abbreviated; ours may not, so that its unique
abbreviations stay unique.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from mpidvc.errors import UserError

__all__ = ["Group", "Parser", "UsageError", "add_triple"]

Group = argparse._ArgumentGroup


class UsageError(UserError):
    """A command line that cannot be understood."""


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` that takes every number as a value, raises `UsageError`, and knows exact-only options.

    Parameters
    ----------
    prog, description, epilog : str
        As in `argparse`.
    """

    def __init__(self, prog: str, description: str = "", epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=_Formatter,
        )
        self._exact_only: set[str] = set()
        # argparse knows neither exponents nor infinity and would take them for options.
        self._negative_number_matcher = re.compile(r"^-(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$|^-inf$")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in `argparse`; the result has the `command_line` as well."""
        given = sys.argv[1:] if args is None else list(args)
        parsed = super().parse_args(given, namespace)
        parsed.command_line = shlex.join([*self.prog.split(), *given])
        return parsed

    def signature(self) -> inspect.Signature:
        """The options as parameters of a Python function: positional arguments first, the others by keyword only."""
        parameters = {}
        for action in self._actions:
            name = action.dest
            if name in parameters or action.default == argparse.SUPPRESS:
                continue
            if action.option_strings:
                parameters[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=action.default)
            else:
                default = inspect.Parameter.empty if action.required else action.default
                parameters[name] = inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        return inspect.Signature(list(parameters.values()))

    def words(self, values: Mapping[str, Any]) -> list[str]:
        """Words of the command line that gives these options.

        Parameters
        ----------
        values : mapping
            By the names in the result of `parse_args`. Texts and numbers; sequences of them where the option takes
            several; a number or three for what is given along z, y, x; None, like the default, is left out.

        Raises
        ------
        TypeError
            If there is no option of that name.
        """
        arguments: list[str] = []
        options: list[str] = []
        for name, value in values.items():
            actions = [action for action in self._actions if action.dest == name]
            if not actions:
                near = difflib.get_close_matches(name, [action.dest for action in self._actions], n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise TypeError(f"{self.prog}: there is no option {name!r}{hint}")
            action = actions[0]
            if value is None or (type(value) is type(action.default) and value == action.default):
                continue
            if isinstance(action, argparse._StoreConstAction):
                options += [action.option_strings[0]] if bool(value) == bool(action.const) else []
                continue
            given = [value] if isinstance(value, str | os.PathLike) or not isinstance(value, Iterable) else [*value]
            if isinstance(action, _Triple) and len(given) > 1:
                # the option with one number where one says it all
                action, given = (action, given[:1]) if len({*given}) == 1 and len(given) == 3 else (actions[1], given)
            texts = [_text(one) for one in given]
            if action.option_strings:
                options += [action.option_strings[0], *texts]
            else:
                arguments += texts
        return [*arguments, *options]

    def add_own_argument(self, *names: str, group: Group | None = None, **settings: Any) -> argparse.Action:
        """Add an option that is matched exactly only and takes no part in abbreviation.

        Parameters
        ----------
        *names : str
            Its spellings.
        group : argument group, optional
            Where to show it; this parser by default.
        **settings
            As for `add_argument`.
        """
        self._exact_only.update(names)
        return (group or self).add_argument(*names, **settings)

    def add_own_spelling(self, action: argparse.Action, name: str) -> None:
        """Accept another spelling of an option of spam's, matched exactly only and not shown in the help."""
        self._exact_only.add(name)
        self._option_string_actions[name] = action

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        found = [found for found in super()._get_option_tuples(option_string) if found[1] not in self._exact_only]
        # Several spellings of one option are no ambiguity.
        same = found and all(other[0] is found[0][0] and other[2:] == found[0][2:] for other in found)
        return found[:1] if same else found

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """All spellings once, then the value: ``-od, --out-dir DIR`` instead of ``-od DIR, --out-dir DIR``."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, max_help_position=30, **settings)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class _Triple(argparse.Action):
    """Store one number for all axes, or one for each, as a tuple (z, y, x)."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, tuple(values) if isinstance(values, list) else (values,) * 3)


def _text(value: object) -> str:
    """A value as a word of a command line."""
    text = str(value)
    # a file of such a name is not an option
    return f"./{text}" if isinstance(value, str | os.PathLike) and text.startswith("-") else text


def add_triple(
    group: Group,
    name: str,
    scalar: Sequence[str],
    vector: Sequence[str],
    meaning: str,
    kind: Any = int,
    default: tuple[int, ...] | None = None,
) -> None:
    """Add an option for all axes and one for each: `name`, (z, y, x) or the default.

    Parameters
    ----------
    group : argument group
    name : str
    scalar, vector : sequence of str
        Spellings of the option with one number, and of that with three.
    meaning : str
        For the help.
    kind : callable
        Makes the number of the first option from text.
    default : tuple, optional
    """
    group.add_argument(*scalar, dest=name, action=_Triple, type=kind, default=default, metavar="N", help=meaning)
    group.add_argument(
        *vector,
        dest=name,
        action=_Triple,
        type=int,
        nargs=3,
        default=default,
        metavar=("Z", "Y", "X"),
        help=f"the same for each axis; the last of {scalar[0]} and {vector[0]} counts",
    )
