"""``mpidvc demo``: a pair of images with a known displacement, registered, correlated and compared with the truth."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mpidvc.commands import options
from mpidvc.commands.options import Parser

if TYPE_CHECKING:
    from mpidvc.commands.run_demo import DemoPlan
    from mpidvc.runtime.console import Console
    from mpidvc.runtime.executor import Executor

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


def prepare(args: argparse.Namespace, console: Console) -> DemoPlan:
    """Check the arguments and return what is to be done."""
    from mpidvc.commands import run_demo

    options.check_common(args)
    return run_demo.prepare(args)


def execute(plan: DemoPlan, executor: Executor, console: Console) -> int:
    """Make the images, correlate them, and return the exit status."""
    from mpidvc.commands import run_demo

    return run_demo.execute(plan, executor, console)
