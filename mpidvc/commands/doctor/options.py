"""``mpidvc doctor``: what a run needs here, what is missing, and how to mend it."""

from __future__ import annotations

import argparse

from mpidvc.cli.parser import Parser

HELP = "check what a run needs here (MPI, HDF5, memory, leftovers of killed jobs), and say how to mend it"
EXAMPLES = """\
examples:
  mpidvc doctor
      looks at this host and starts two processes to try it
  srun mpidvc doctor
      in a job: whether the processes that the launcher starts find each other, and what its hosts have in common
  mpidvc doctor --clean
      also removes the shared memory that killed jobs of yours left here and nobody uses any more; started by
      srun or mpiexec, on all its hosts

The exit status is 0 if there is no problem, 1 if there is one.
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument("--quick", action="store_true", help="only look; do not start processes to try it")
    parser.add_argument(
        "--clean", action="store_true", help="remove your files of killed MPI jobs that no process maps or has open"
    )
    parser.set_defaults(processes=None, log=None)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    return []
