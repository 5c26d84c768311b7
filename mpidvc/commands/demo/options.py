"""``mpidvc demo``: a pair of images with a known displacement, registered, correlated and compared with the truth."""

from __future__ import annotations

import argparse

from mpidvc.cli import options
from mpidvc.cli.parser import Parser

HELP = "make two images, correlate them, and compare the result with the known displacement"
EXAMPLES = """\
examples:
  mpidvc demo
      makes the folder mpidvc-demo with two images of 120 × 120 × 120 voxels and all that reg and ldic make of them
  mpidvc demo /tmp/demo -np 2
      the same elsewhere, on two processes

The exit status is 0 if the displacement found is as near to the known one as it should be.
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "directory",
        nargs="?",
        default="mpidvc-demo",
        help="where to write; made if missing, files of an earlier demo are replaced (default: %(default)s)",
    )
    run = parser.add_argument_group("running")
    options.add_run(parser, run, spam_has_processes=False)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    return []
