"""Options in TOML files: what is written is read again."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from mpidvc.cli.parser import Parser
from mpidvc.cli.toml import option_of, option_value, table
from mpidvc.commands import COMMANDS
from mpidvc.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Words of command lines with options of every shape.
LINES = [
    "ldic -ns 5 -hws3 4 5 6 -o 3 -ug -glt -12.5 --criterion znssd -dp 1e-05",
    "ldic -ns3 1 7 7 -hws 9 -m 0",
    "pixelSearch -ns 8 -hws 6 -sr -8 8 -9 9 -9 10 --zero-mean -noh5",
    "filterPhiField -srs -srst 0 --outliers --outlier-epsilon 0.25 -cint -F rigid -notsv",
    "regularStrain -comp vol dev e -g -r 2.5",
    "deformImage -tet -a 30",
    "reg --coarse --max-angle 15 -bb 8",
]


def parsed(parser: Parser, words: list[str]) -> dict[str, Any]:
    arguments = [action.dest for action in parser._actions if not action.option_strings]
    return vars(parser.parse_args([*arguments, *words]))


@pytest.mark.parametrize("line", LINES)
def test_what_is_written_is_read_again(line: str) -> None:
    name, *words = line.split()
    parser = COMMANDS[name].parser()
    given, usual = parsed(parser, words), parsed(parser, [])
    chosen = {key: value for key, value in given.items() if value != usual[key] and key != "command_line"}
    assert chosen
    told = tomllib.loads("\n".join(table(parser, chosen)))
    assert len(told) == len(chosen)
    found = {}
    for key, value in told.items():
        option, action = option_of(parser, key)
        assert action is not None
        found[action.dest] = option_value(key, parser, option, action, value)
    assert found == chosen


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("node-spacing", "x", "invalid"),
        ("node-spacing", True, "is no value of it"),
        ("update-gradient", False, "leave it out instead"),
        ("update-gradient", 1, "write true"),
        ("node-spacing-3", [1, 2], "expected 3 arguments"),
    ],
)
def test_a_value_that_makes_no_sense(key: str, value: Any, message: str) -> None:
    parser = COMMANDS["ldic"].parser()
    option, action = option_of(parser, key)
    assert action is not None
    with pytest.raises(UserError, match=f"^here: .*{message}"):
        option_value("here", parser, option, action, value)
