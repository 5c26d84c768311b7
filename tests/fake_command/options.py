"""The options of the fake command."""

from __future__ import annotations

import argparse

from mpidvc.cli.options import add_run
from mpidvc.cli.parser import Parser

HELP = "for tests"
EXAMPLES = ""


def add_options(parser: Parser) -> None:
    parser.add_argument("what")
    parser.add_argument("--at", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    add_run(parser, parser.add_argument_group("running"))


def check(args: argparse.Namespace) -> list[str]:
    return []
