"""The manifest of a series: a TOML file that lists its states, with options of their own.

::

    [[state]]
    image = "day1.tif"

    [[state]]
    image = "day2.tif"
    margin = 10
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpidvc.cli.options import check_common
from mpidvc.cli.parser import Parser
from mpidvc.cli.toml import option_of, option_value, read_toml, spellings
from mpidvc.errors import UserError

__all__ = ["State", "is_manifest", "read_manifest", "with_own"]


@dataclass(frozen=True)
class State:
    """A state of a series.

    Attributes
    ----------
    image : str
    labels : str or None
        The image of its labels.
    own : dict
        Values of its own options, by the names that the parser stores them under.
    """

    image: str
    labels: str | None = None
    own: dict[str, Any] = field(default_factory=dict)


def is_manifest(name: object) -> bool:
    """Whether an image that was given is a manifest, by its name."""
    return isinstance(name, str) and name.lower().endswith(".toml")


def with_own(args: argparse.Namespace, own: dict[str, Any]) -> argparse.Namespace:
    """The options of a run with those of a state in their places."""
    return argparse.Namespace(**{**vars(args), **own})


def read_manifest(
    path: str,
    args: argparse.Namespace,
    add_options: Callable[[Parser], None],
    may_differ: Collection[str],
    labels: bool,
) -> list[State]:
    """Read the states of a series; paths are relative to the manifest.

    Parameters
    ----------
    path : str
    args : Namespace
        The options of the run.
    add_options : callable
        Adds the options of the command to a parser.
    may_differ : collection of str
        Options that a state may have of its own, by the names that the parser stores them under.
    labels : bool
        Whether a state may have labels.

    Raises
    ------
    UserError
        If the file cannot be read, or is no manifest.
    """
    told = read_toml(path, "the manifest of a series")
    strange = next((name for name in told if name != "state"), None)
    if strange is not None:
        raise UserError(f"{path}: has {strange}; only [[state]] may stand there, options go to the command line")
    states = told.get("state")
    if not (isinstance(states, list) and len(states) > 1 and all(isinstance(state, dict) for state in states)):
        raise UserError(f'{path}: has not two states; write [[state]] and image = "…" for each')
    parser = Parser("mpidvc")
    add_options(parser)
    return [_state(path, k, state, args, parser, may_differ, labels) for k, state in enumerate(states, 1)]


def _state(
    path: str,
    number: int,
    told: dict[str, Any],
    args: argparse.Namespace,
    parser: Parser,
    may_differ: Collection[str],
    labels: bool,
) -> State:
    where, files, own = f"{path}: state {number}", {}, {}
    for key, value in told.items():
        if key == "image" or (key == "labels" and labels):
            if not (isinstance(value, str) and value):
                raise UserError(f'{where}: {key} = {value!r} is no path; write {key} = "…"')
            files[key] = str(Path(path).parent / value)
            continue
        option, action = option_of(parser, key)
        if action is None or action.dest not in may_differ:
            there = ", ".join(["image", *(["labels"] if labels else []), *spellings(parser, may_differ)])
            raise UserError(f"{where}: {key} is none of what a state may have: {there}")
        if number == 1:
            raise UserError(f"{where}: {key}: the first state is not measured; give it to another one")
        own[action.dest] = option_value(f"{where}: {key} = {value!r}", parser, option, action, value)
    if "image" not in files:
        raise UserError(f'{where}: has no image; write image = "…"')
    try:
        check_common(with_own(args, own))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return State(files["image"], files.get("labels"), own)
