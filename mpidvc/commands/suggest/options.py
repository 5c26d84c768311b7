"""``mpidvc suggest``: which window and node spacing to take, before a run."""

from __future__ import annotations

import argparse
import math

from mpidvc.cli import options
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "say which window and node spacing to take: look at the texture, the noise and the field, and predict the errors"
EXAMPLES = """\
examples:
  mpidvc suggest im1.tif im2.tif
      the window with the least error, random error and smoothing together
  mpidvc suggest im1.tif --repeat im1-again.tif --target-sigma 0.01
      the smallest window whose random error is 0.01 voxel or less at 95 % of the nodes, by a second scan of one state
  mpidvc suggest im1.tif im2.tif --noise-mask air.tif --target-strain 1e-3
      by the noise of a uniform region, for a random error of 1e-3 of each component of F
  mpidvc suggest im1.tif im2.tif --json > suggestion.json

A part of the images is read, and nothing is written. The guide docs/good-practice.md explains the table.
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument("im1", help="image 1")
    parser.add_argument("im2", nargs="?", help="image 2, of the shape of image 1")
    options.add_mask(parser.add_argument_group("what counts"))
    options.add_guess(parser, parser.add_argument_group("where image 2 is searched"), fields=False)
    target = parser.add_argument_group("what is aimed at (default: the least error with image 2, else 0.01 voxel)")
    target.add_argument(
        "--target-sigma",
        metavar="VOXELS",
        type=float,
        help="random error (1 standard deviation) of each component of the displacement, at 95 %% of the nodes",
    )
    target.add_argument(
        "--target-strain", metavar="STRAIN", type=float, help="the same of each component of F, for instance 1e-3"
    )
    noise = parser.add_argument_group("where the noise is known from (default: the residual of image 2)")
    noise.add_argument("--repeat", metavar="FILE", help="a second scan of the state of image 1, of its shape: the best")
    options.add_known_noise(noise)
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print a JSON object")
    run = parser.add_argument_group("running")
    options.add_run(parser, run, spam_has_processes=False)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    for option, value in (("--target-sigma", args.target_sigma), ("--target-strain", args.target_strain)):
        options.require(value is None or 0 < value < math.inf, option, value, "has to be above 0 and finite")
    if args.target_sigma is not None and args.target_strain is not None:
        raise UserError("--target-sigma and --target-strain: a window is chosen by one of them; drop the other")
    known = options.check_known_noise(args)
    if args.im2 is None and not known:
        for option, value in (("--target-sigma", args.target_sigma), ("--target-strain", args.target_strain)):
            options.require(
                value is None,
                option,
                value,
                "needs to know the noise: give image 2, a repeat scan (--repeat), a uniform region (--noise-mask) or "
                "--noise",
            )
    if args.im2 is None and args.phi_file is not None:
        raise UserError(f"-pf {args.phi_file}: is a guess of where image 2 is, but there is no image 2; give it")
    return []
