"""``mpidvc study``: the errors of windows of several sizes, on a repeat scan or on virtual states."""

from __future__ import annotations

import argparse

from mpidvc.cli import options
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "measure the errors of windows of several sizes, on a repeat scan or virtual states, beside the predicted ones"
EXAMPLES = """\
examples:
  mpidvc study im1.tif --repeat im1-again.tif
      noise floor against window: two scans of one state, less the motion of the stage
  mpidvc study im1.tif --repeat im1-again.tif --virtual --strain 0.01 -hws 6 8 10 14 20
      displacements by parts of a voxel and a strain of 1 %, known exactly, with the noise that the repeat scan shows
  mpidvc study im1.tif --noise-mask air.tif -o 1 --csv study.csv --plot study.png
      how much bias linear interpolation has

A part of the images is read.
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument("im1", help="image 1")
    what = parser.add_argument_group("what is correlated")
    what.add_argument("--repeat", metavar="FILE", help="a second scan of the state of image 1, of its shape")
    what.add_argument(
        "--virtual",
        action="store_true",
        help="virtual states of image 1, which is moved by eighths of a voxel; without --repeat they are taken anyway",
    )
    what.add_argument(
        "--strain",
        metavar="STRAIN",
        type=float,
        default=0.0,
        help="a virtual state with this strain besides, for instance 0.01 (default: none)",
    )
    noise = parser.add_argument_group("noise of virtual states (default: that of the repeat scan)")
    options.add_known_noise(noise)
    windows = parser.add_argument_group("windows")
    windows.add_argument(
        *("-hws", "--half-window-sizes"),
        dest="sizes",
        metavar="N",
        nargs="+",
        type=int,
        help="half-window sizes as of ldic, which compares 2 N - 1 voxels along each axis (default: 5 6 8 10 13 16 20 "
        "25 in 3D, up to 40 in 2D, as far as they fit)",
    )
    windows.add_argument(
        *("-o", "--interpolation-order"),
        dest="interpolation_order",
        type=int,
        choices=(1, 3),
        default=3,
        help="interpolation of image 2: 1 linear, 3 cubic spline (default: %(default)s)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print a JSON object")
    output.add_argument("--csv", metavar="FILE", help="write the table, a row for each size")
    output.add_argument("--plot", metavar="FILE", help="draw the errors against the window (PNG); needs matplotlib")
    run = parser.add_argument_group("running")
    options.add_run(parser, run, spam_has_processes=False)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    options.require(abs(args.strain) <= 0.2, "--strain", args.strain, "has to be between -0.2 and 0.2")
    if not options.check_known_noise(args):
        raise UserError(
            "where the noise is known from is missing: give a second scan of the state (--repeat), a uniform region "
            "(--noise-mask), or --noise"
        )
    if args.repeat is None:
        args.virtual = True
    if args.strain and not args.virtual:
        raise UserError(f"--strain {args.strain:g}: is that of a virtual state; add --virtual")
    if args.sizes is not None:
        for size in args.sizes:
            options.require(size >= 3, "-hws", size, "has to be at least 3: smaller windows have too few voxels")
        args.sizes = sorted(set(args.sizes))
    return []
