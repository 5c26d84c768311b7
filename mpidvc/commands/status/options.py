"""``mpidvc status``: how far the run of a results file is."""

from __future__ import annotations

import argparse

from mpidvc.cli.parser import Parser

HELP = "say whether a results file, or the folder of mpidvc run, is finished, how far its run is, and what became of it"
EXAMPLES = """\
examples:
  mpidvc status im1-im2-ldic.h5
      also while the run goes on; nothing is written, and no lock is taken
  mpidvc status run
      of the folder of mpidvc run: all its steps
  mpidvc status -q im1-im2-ldic.h5; if [ $? = 75 ]; then sbatch next-part.sh; fi
      in a script: only this exit status decides; that of a launcher may be 0 although a node was lost

The exit status is that of the run: 0 if its result is one to trust, 1 if it is not; 75 if the run is not finished, and
2 if the file is missing or no results file. Of several files it is the largest one, but 2 before all.
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument("files", metavar="file.h5", nargs="+", help="results files, or folders of mpidvc run")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list with one object for each file")
    form.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(processes=None, log=None)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    return []
