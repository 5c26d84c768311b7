"""Options of commands in TOML files: manifests of series, and recipes.

A key is a spelling of an option without its dashes, as ``half-window-size = 10``; ``true`` stands for an option
without a value, a list for several values.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mpidvc.cli.parser import Parser, UsageError
from mpidvc.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["longest_spelling", "option_of", "option_value", "read_toml", "spellings", "table"]


def read_toml(path: str, what: str) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path : str
    what : str
        What the file should be, for the user.

    Raises
    ------
    UserError
        If it cannot be read, or is no TOML file.
    """
    try:
        told: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give {what}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no TOML file ({error}); mend it") from None
    return told


def option_of(parser: Parser, key: str) -> tuple[str, argparse.Action | None]:
    """The option with a key as one of its spellings, and its action; "" and None if there is none."""
    option = next((f"{dashes}{key}" for dashes in ("--", "-") if parser.has(f"{dashes}{key}")), "")
    return option, parser._option_string_actions.get(option)


def longest_spelling(action: argparse.Action) -> str:
    """The key of an option."""
    return max((spelling.lstrip("-") for spelling in action.option_strings), key=len)


def spellings(parser: Parser, dests: Collection[str]) -> list[str]:
    """The keys of options, which are given by the names that the parser stores them under."""
    longest: dict[str, str] = {}
    for action in parser._actions:
        if action.dest in dests and action.option_strings:
            longest[action.dest] = max(longest.get(action.dest, ""), longest_spelling(action), key=len)
    return sorted(longest.values())


def option_value(where: str, parser: Parser, option: str, action: argparse.Action, value: Any) -> Any:
    """The value of an option, as the command line would give it.

    Raises
    ------
    UserError
        If it is none; the message begins with `where`.
    """
    if isinstance(value, bool):
        if action.nargs != 0 or not value:
            raise UserError(f"{where}: " + ("is no value of it" if action.nargs != 0 else "leave it out instead"))
        words = [option]
    elif action.nargs == 0:
        raise UserError(f"{where}: write true")
    else:
        texts = [str(one) for one in (value if isinstance(value, list) else [value])]
        words = [f"{option}={texts[0]}"] if len(texts) == 1 else [option, *texts]
    arguments = [action.dest for action in parser._actions if not action.option_strings]
    try:
        return getattr(parser.parse_args([*arguments, *words]), action.dest)
    except UsageError as error:
        told = str(error).partition(" (see ")[0]
        raise UserError(f"{where}: {told}") from None


def table(parser: Parser, values: Mapping[str, Any]) -> list[str]:
    """Lines of a TOML table with options, which are given by the names that the parser stores them under."""
    lines = []
    for name, value in values.items():
        actions = [action for action in parser._actions if action.dest == name and action.option_strings]
        if value is None or not actions:
            continue
        shape = list(value) if isinstance(value, tuple) else value
        if isinstance(shape, list) and len({*map(str, shape)}) > 1 and len(actions) > 1:
            # an option with one number, and that with three
            actions = [action for action in actions if action.nargs not in (None, 1)] or actions
        elif isinstance(shape, list) and len(actions) > 1:
            shape = shape[0]
        if isinstance(shape, bool):
            # an option that is set or not
            lines += [f"{longest_spelling(actions[0])} = true"] if shape == actions[0].const else []
        else:
            lines.append(f"{longest_spelling(actions[0])} = {json.dumps(shape)}")
    return lines
