"""``mpidvc run``: all steps from scans to strain, residual and report."""

from __future__ import annotations

import argparse

from mpidvc.cli import options
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "from two scans to strain, residual and report: all steps of a measurement, one after the other"
EXAMPLES = """\
examples:
  mpidvc run im1.tif im2.tif -od run
      registration, correlation, filter, strain, residual; windows and spacing follow from the texture
  mpidvc run im1.tif im2.tif -od run
      the same line again goes on where the run was interrupted; finished steps are not repeated
  mpidvc run day1.tif day2.tif day3.tif -od days --recipe run/recipe.toml
      a series, with the parameters that an earlier run has chosen, or with your own
  mpidvc run im1.tif im2.tif -lab1 grains1.tif -od grains
      labels: a deformation function for every grain
  mpiexec -n 64 mpidvc run im1.tif im2.tif -od run
      on the hosts that the launcher chooses

Every step is a command of its own, with a folder of its own in that of -od. Its command line is printed, and makes the
same files by hand. FOLDER/recipe.toml has the parameters of all steps: change it and give it with --recipe.
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "images",
        metavar="image",
        nargs="+",
        help="two or more images: TIFF files, folders of TIFF slices, or HDF5 datasets (file.h5::/path); each "
        "of them is compared with the first",
    )
    what = parser.add_argument_group("what is compared")
    options.add_mask(what)
    what.add_argument(
        "-lab1",
        dest="labels1",
        metavar="FILE",
        help="labels of image 1: they are followed one by one (ddic), instead of the nodes of a grid (ldic)",
    )
    steps = parser.add_argument_group("steps")
    parser.add_own_argument(
        "--recipe",
        group=steps,
        metavar="FILE",
        help="parameters of the steps, as FOLDER/recipe.toml of another run has them; what it leaves out is chosen",
    )
    parser.add_own_argument(
        "--keep-going",
        group=steps,
        dest="keep_going",
        action="store_true",
        help="go on after a step whose result is not one to trust; the exit status is 1 all the same",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        *("-od", "--out-dir"),
        dest="out_dir",
        metavar="FOLDER",
        default="mpidvc-run",
        help="folder of the steps' folders; made if missing (default: %(default)s)",
    )
    run = parser.add_argument_group("running")
    options.add_images(parser, run)
    options.add_run(parser, run, spam_has_processes=False)
    options.add_verbose(parser, run)
    # its line needs no --resume
    parser.set_defaults(resumes_itself=True)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    if len(args.images) < 2:
        raise UserError(f"{args.images[0]} alone: at least two images are needed")
    return []
