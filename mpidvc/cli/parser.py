"""The option parser of all commands.

Names, types and defaults of the options are spam's. Its options may be abbreviated; ours may not, so that its unique
abbreviations stay unique.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from mpidvc.errors import UserError

__all__ = ["Group", "Parser", "Triple", "UnknownOptionError", "UsageError", "add_triple"]

Group = argparse._ArgumentGroup


class UsageError(UserError):
    """A command line that cannot be understood."""


class UnknownOptionError(UsageError):
    """An option that the command does not have.

    Parameters
    ----------
    option : str
        As given, without its value.
    hint : str
        What to do.

    Attributes
    ----------
    option : str
    """

    def __init__(self, option: str, hint: str) -> None:
        self.option = option
        super().__init__(f"unknown option {option} ({hint})")


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
        self._unknown: list[str] = []
        # argparse knows neither exponents nor infinity and would take them for options.
        self._negative_number_matcher = re.compile(r"^-(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$|^-inf$")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in `argparse`; the result has the `command_line` as well."""
        given = sys.argv[1:] if args is None else list(args)
        self._unknown = []
        rest = next((action for action in self._actions if action.nargs == argparse.REMAINDER), None)
        if rest is None or "--" not in given:
            parsed = super().parse_args(given, namespace)
        else:
            # argparse would let it begin with the first option
            cut = given.index("--")
            rest.nargs = 0
            try:
                parsed = super().parse_args(given[:cut], namespace)
            finally:
                rest.nargs = argparse.REMAINDER
            setattr(parsed, rest.dest, given[cut + 1 :])
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

    def has(self, option: str) -> bool:
        """Whether there is an option of exactly this spelling."""
        return option in self._option_string_actions

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        found = [
            found
            for found in super()._get_option_tuples(option_string)
            if found[1] not in self._exact_only and not self._splits_a_word(option_string, found[1])
        ]
        if not (found or self._negative_number_matcher.match(option_string) or " " in option_string):
            self._unknown.append(option_string.partition("=")[0])
        # Several spellings of one option are no ambiguity.
        same = found and all(other[0] is found[0][0] and other[2:] == found[0][2:] for other in found)
        return found[:1] if same else found

    def _splits_a_word(self, word: str, option: str) -> bool:
        """Whether `word` would be understood as the one-letter `option` with a value that cannot be one."""
        if word.startswith(("--", f"{option}=")) or len(option) != 2 or len(word) == 2 or not word.startswith(option):
            return False
        action, rest = self._option_string_actions[option], word[2:]
        if action.nargs == 0:
            following = f"-{rest[0]}"
            return not self.has(following) or (len(rest) > 1 and self._splits_a_word(f"-{rest}", following))
        try:
            value = self._get_value(action, rest)
            if action.type is None:
                self._check_value(action, value)
        except argparse.ArgumentError:
            return True
        return False

    def error(self, message: str) -> NoReturn:
        if self._unknown:
            # told before what else is wrong, which may follow from it
            option = self._unknown[0]
            raise UnknownOptionError(option, self._meant(option) or f"see {self.prog} --help")
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _meant(self, option: str) -> str | None:
        """The question whether another option was meant, None if none is near."""
        glued = re.fullmatch(r"(-[A-Za-z]\w*?)([\d.].*)", option)
        if glued and self.has(glued[1]):
            return f"did you mean {glued[1]} {glued[2]}?"
        names: dict[str, argparse.Action] = {}
        for spelling, action in self._option_string_actions.items():
            names.setdefault(_bare(spelling), action)
        word = _bare(option)
        begun = sorted((name for name in names if len(word) > 1 and name.startswith(word)), key=len)
        near = begun or difflib.get_close_matches(word, names, n=1, cutoff=0.7)
        return f"did you mean {', '.join(names[near[0]].option_strings)}?" if near else None


def _bare(spelling: str) -> str:
    return spelling.replace("-", "").replace("_", "").lower()


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
        help=f"the same for each axis, in the order z y x: three numbers, in 2D too, where Z does not count; the last "
        f"of {scalar[0]} and {vector[0]} counts",
    )
