"""``mpidvc demo``: a pair of images with a known motion, registered, correlated and compared with the truth."""

from __future__ import annotations

import argparse

from mpidvc.cli import options
from mpidvc.cli.parser import Parser

HELP = "make two images, correlate them, and compare the result with the known motion"
EXAMPLES = """\
examples:
  mpidvc demo
      makes the folder mpidvc-demo with two images of 120 × 120 × 120 voxels and all that reg and ldic make of them
  mpidvc demo /tmp/demo -np 2
      the same elsewhere, on two processes
  mpidvc demo --grains
      two images of 220 grains that move and turn one by one, and all that reg and ddic make of them

The exit status is 0 if the motion found is as near to the known one as it should be.
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "directory",
        nargs="?",
        default="mpidvc-demo",
        help="where to write; made if missing, files of an earlier demo are replaced (default: %(default)s)",
    )
    parser.add_own_argument(
        "--grains",
        action="store_true",
        help="follow the grains of a packing by reg and ddic, instead of a field by reg and ldic",
    )
    run = parser.add_argument_group("running")
    options.add_run(parser, run, spam_has_processes=False)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    return []
