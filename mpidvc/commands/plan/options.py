"""``mpidvc plan``: what a run will take, before it begins."""

from __future__ import annotations

import argparse

from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "say how long a run will take on how many ranks, its memory and its files, and warn of what will go wrong"
EXAMPLES = """\
examples:
  mpidvc plan -- ldic im1.tif im2.tif -ns 20 -hws 10
      measures some of the windows for a few seconds; nothing is written beside the images
  mpidvc plan --ranks 1 128 512 --ranks-per-node 64 -- ldic im1.tif im2.tif -ns 5 -hws 10 -o 3
      for nodes of 64 cores
  mpidvc plan --json -- pixelSearch im1.tif im2.tif -ns 20 -hws 10 > plan.json

The command line of the run follows "--", as it will be typed. The exit status is 0, or 2 if the run would be refused.
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.usage = "%(prog)s [options] -- COMMAND ..."
    parser.add_argument(
        "run", metavar="COMMAND ...", nargs=argparse.REMAINDER, help="command line of the run, without mpidvc"
    )
    ranks = parser.add_argument_group("ranks")
    ranks.add_argument(
        "--ranks", type=int, nargs="+", metavar="N", help="numbers of ranks (default: 1 4 16 64 256 1024, up to "
        "the number of pieces of work)",
    )  # fmt: skip
    ranks.add_argument(
        "--ranks-per-node", type=int, metavar="N", help="ranks on a node (default: the CPUs of this host)"
    )
    time = parser.add_argument_group("time")
    time.add_argument(
        "--no-calibration",
        action="store_false",
        dest="calibration",
        help="do not measure: the time is a rough guess, by a factor of three or so",
    )
    time.add_argument(
        "--no-cache",
        action="store_false",
        dest="remember",
        help="measure even if the same run was planned on this machine before, and do not remember it (in "
        "$XDG_CACHE_HOME/mpidvc, or ~/.cache/mpidvc)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(processes=None, log=None)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    if args.run[:1] == ["--"]:
        args.run = args.run[1:]
    if not args.run:
        raise UserError("the command line of the run is missing: mpidvc plan -- ldic im1.tif im2.tif -ns 20 -hws 10")
    for option, values in (("--ranks", args.ranks), ("--ranks-per-node", [args.ranks_per_node])):
        for value in values or []:
            if value is not None and value < 1:
                raise UserError(f"{option} {value}: has to be 1 or more")
    return []
