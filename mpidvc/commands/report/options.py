"""``mpidvc report``: a result judged, in a page and in numbers."""

from __future__ import annotations

import argparse

from mpidvc.cli.options import require
from mpidvc.cli.parser import Parser

HELP = "judge a result in one page (HTML, which needs no network) with pictures, and write all its numbers as JSON"
EXAMPLES = """\
examples:
  mpidvc report im1-im2-ldic.h5
      writes im1-im2-ldic-report.html and im1-im2-ldic-report.json
  mpidvc report results
      of a folder with the files of several commands, or of a series: results/report.html and results/report.json; the
      field measured last is shown, its strain if it was computed, and the table of the series
  mpidvc report mpidvc-run
      of the folder of mpidvc run
  mpidvc report im1-im2-ldic.tsv --images im1.tif im2.tif
      where the result does not tell where its images are

The page begins with the verdict. It needs the extra plots (matplotlib).
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "result",
        metavar="RESULT",
        help="a file written by a previous command (.h5 or .tsv), or a folder with such files",
    )
    parser.add_argument(
        "--images",
        nargs=2,
        metavar=("IM1", "IM2"),
        help="the images (default: those that the result was measured on, if they are still there and the same)",
    )
    page = parser.add_argument_group("page")
    page.add_argument(
        *("-o", "--output"),
        dest="output",
        metavar="FILE",
        help="name of the page; that of the numbers ends in .json instead (default: report.html in a folder, otherwise "
        "the name of the result with -report.html)",
    )
    parser.set_defaults(processes=None, log=None)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    if args.output is not None:
        require(args.output.lower().endswith((".html", ".htm")), "--output", args.output, "has to end in .html")
    return []
