"""The option parser of all commands.

Names, types and defaults of the options are spam's. Its options may be abbreviated; ours may not, so that its unique
abbreviations stay unique.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from mpidvc.errors import UserError

__all__ = ["Group", "Parser", "Triple", "UsageError", "add_triple"]

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

    def explain(self, action: argparse.Action) -> str:
        """The help of an option, in a line."""
        return self._get_formatter()._expand_help(action) if action.help else ""

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


class Triple(argparse.Action):
    """Store one number for all axes, or one for each, as a tuple (z, y, x)."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, tuple(values) if isinstance(values, list) else (values,) * 3)


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
    group.add_argument(*scalar, dest=name, action=Triple, type=kind, default=default, metavar="N", help=meaning)
    group.add_argument(
        *vector,
        dest=name,
        action=Triple,
        type=int,
        nargs=3,
        default=default,
        metavar=("Z", "Y", "X"),
        help=f"the same for each axis; the last of {scalar[0]} and {vector[0]} counts",
    )
