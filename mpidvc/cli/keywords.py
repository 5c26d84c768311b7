"""The options of a command as parameters of a Python function."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from mpidvc.cli.parser import Parser, Triple
from mpidvc.errors import UserError

__all__ = ["FIELDS", "IMAGES", "SEVERAL", "STACKS", "describe", "output_names", "signature", "spoken", "words"]

#: Parameters that are images, and those that are fields.
IMAGES = ("images", "im1", "lab1", "im2", "more", "mask1", "mask2", "labels1", "repeat", "noise_mask")
FIELDS = ("phi_file", "fields")
#: Those of them that are several.
SEVERAL = ("images", "more", "fields")
#: The parameter that is several stacks of images.
STACKS = "stacks"
#: Descriptions that differ from the help of the command line.
_IN_PYTHON = {
    "stacks": "stacks of equally many images, by their names, or as a list of URIs",
    "fields": "fields, or files written by previous commands (.h5 or .tsv), in the order of time",
    "images": "two or more images, in the order of time",
    "phi_file": "first guess: a field, or a file written by a previous command (.h5 or .tsv)",
    "out_dir": "folder for the files of the command, made if missing (default: nothing is written)",
}
_WIDTH = 96


def signature(parser: Parser) -> inspect.Signature:
    """The options as parameters: positional arguments first, the others by keyword only; defaults of the parser."""
    parameters = {}
    for name, (action, *_) in _actions(parser).items():
        if action.option_strings:
            parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=action.default)
        else:
            default = inspect.Parameter.empty if action.required else action.default
            parameter = inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        parameters[name] = parameter
    return inspect.Signature(list(parameters.values()))


def describe(parser: Parser) -> str:
    """The parameters in the form of numpydoc, each with its option on the command line."""
    lines = []
    for name, (action, *_) in _actions(parser).items():
        kind = _kind(action)
        if action.default is None:
            kind += ", optional" if action.option_strings else ""
        elif not action.required:
            default = action.default[0] if isinstance(action, Triple) else action.default
            kind += f", default {default!r}"
        option = f"  [{action.option_strings[0]}]" if action.option_strings else ""
        # a field that is an argument is no first guess
        text = parser.explain(action)
        if action.option_strings or name not in FIELDS:
            text = _IN_PYTHON.get(name, text)
        if action.default is not None:
            text = re.sub(r" \(default: [^()]*\)$", "", text)
        if isinstance(action, argparse._StoreFalseAction):
            text = f"False: {text}"
        indent = " " * 4
        text = textwrap.fill(spoken(parser, text), _WIDTH, initial_indent=indent, subsequent_indent=indent)
        lines += [f"{name} : {kind}{option}", text]
    return "\n".join(lines)


def words(parser: Parser, values: Mapping[str, Any]) -> list[str]:
    """Words of the command line that gives these options.

    Parameters
    ----------
    parser : Parser
    values : mapping
        By the names of the parameters. Texts and numbers; sequences of them where the option takes several; a number or
        three for a length along z, y, x. None, like the default, is left out.

    Raises
    ------
    UserError
        If an option that is set or not gets a value other than True and False.
    """
    arguments: list[str] = []
    options: list[str] = []
    rest: list[str] = []
    known = _actions(parser)
    for name, given in values.items():
        action, *others = known[name]
        value = given.tolist() if hasattr(given, "tolist") else given
        if value is None or (type(value) is type(action.default) and value == action.default):
            continue
        if isinstance(action, argparse._StoreConstAction):
            if value not in (True, False):
                raise UserError(f"{name}: {value!r} is neither True nor False")
            options += [action.option_strings[0]] if bool(value) == action.const else []
            continue
        several = isinstance(value, Iterable) and not isinstance(value, str | os.PathLike)
        texts = [str(one) for one in (_flat(value) if several else [value])]
        if isinstance(action, Triple) and several:
            # the option with one number where one says it all
            action, texts = (action, texts[:1]) if len({*texts}) == 1 and len(texts) == 3 else (others[0], texts)
        if action.nargs == argparse.REMAINDER:
            rest = ["--", *texts]
        elif not action.option_strings:
            # a file of such a name is not an option
            arguments += [f"./{text}" if text.startswith("-") else text for text in texts]
        elif isinstance(value, str | os.PathLike):
            options.append(f"{action.option_strings[0]}={texts[0]}")
        else:
            options += [action.option_strings[0], *texts]
    return [*arguments, *options, *rest]


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    """The members of sequences of sequences, as of two points, one after the other."""
    for one in values:
        yield from _flat(one) if isinstance(one, list | tuple) else [one]


def spoken(parser: Parser, text: str) -> str:
    """A message to the user of the command line in the words of Python: options by the names of their parameters."""
    names = {}
    for name, actions in _actions(parser).items():
        for action in actions:
            state = f"={action.const}" if isinstance(action, argparse._StoreConstAction) else ""
            names.update(dict.fromkeys(action.option_strings, f"{name}{state}"))
    # argparse gives all spellings
    text = re.sub(r"^argument (-[^\s/:]+)(/-[^\s/:]+)*: ", r"\1: ", text)
    text = re.sub(r"(?<![\w./-])--?[A-Za-z][\w-]*(?![\w/-]|\.\w)", lambda found: names.get(found[0], found[0]), text)
    # an option with one number and that with three are one parameter
    text = re.sub(r"\b(\w+) or \1\b", r"\1", text)
    return text.replace(f" (see {parser.prog} --help)", "")


def output_names(parser: Parser) -> set[str]:
    """Parameters of the group ``output``: they say what is written, and how it is called."""
    return {
        action.dest for group in parser._action_groups if group.title == "output" for action in group._group_actions
    }


def _actions(parser: Parser) -> dict[str, list[argparse.Action]]:
    """The options by the names of their parameters."""
    found: dict[str, list[argparse.Action]] = {}
    for action in parser._actions:
        if action.default != argparse.SUPPRESS:
            found.setdefault(action.dest, []).append(action)
    return found


def _kind(action: argparse.Action) -> str:
    """The type of a parameter, in words."""
    if action.dest in IMAGES:
        return "sequence of paths or (z, y, x) arrays" if action.nargs in ("+", "*") else "path or (z, y, x) array"
    if action.dest in FIELDS:
        return "sequence of paths or PhiFields" if action.nargs == "+" else "path or PhiField"
    if action.dest == STACKS:
        return "dict of URIs or (n, y, x) arrays, or sequence of URIs"
    if isinstance(action, argparse._StoreConstAction):
        return "bool"
    if action.choices is not None:
        return "{" + ", ".join(map(repr, action.choices)) + "}"
    one = {int: "int", float: "float", None: "str"}.get(action.type, "int")  # type: ignore[arg-type]
    if isinstance(action, Triple):
        return f"{one} or 3 {one}s"
    if isinstance(action.nargs, int) and action.nargs > 1:
        return f"{action.nargs} {one}s"
    if action.metavar in ("FILE", "DIR") or not action.option_strings:
        one = "path"
    return f"{one} or sequence of {one}s" if action.nargs in ("+", "*") else one
