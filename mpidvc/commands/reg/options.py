"""``mpidvc reg``: one deformation function for a whole image."""

from __future__ import annotations

import argparse
import math

from mpidvc.cli import options
from mpidvc.cli.options import require
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "register two images: one deformation function for the whole image"
EXAMPLES = """\
examples:
  mpidvc reg im1.tif im2.tif
      from images binned by 4 down to the full ones, writes im1-im2-registration.tsv
  mpidvc reg im1.tif im2.tif -rig -bb 2 -m 10 -def
      rigid, from binning 2, 10 voxels kept free at every side, also writes image 1 deformed
  mpidvc reg im1.tif im2.tif -pf eye.tsv -mf1 mask.tif -o 3
      from a first guess, with a mask and cubic interpolation
  mpidvc reg im1.tif im2.tif --coarse
      for scans that are turned or shifted by any amount: a search without a guess comes first
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "im1", help="image 1: a TIFF file, a folder of TIFF slices, or an HDF5 dataset (file.h5::/path)"
    )
    parser.add_argument("im2", help="image 2")
    start = parser.add_argument_group("what is compared, and from where")
    options.add_mask(start)
    start.add_argument(
        *("-rmc", "--returnPhiMaskCentre"),
        dest="return_phi_mask_centre",
        action="store_true",
        help="give Phi at the centre of mass of the mask, instead of the centre of the image",
    )
    options.add_guess(parser, start, fields=False)
    parser.add_own_argument(
        "--coarse",
        group=start,
        dest="coarse",
        action="store_true",
        help="find the first guess: all translations and rotations, and a uniform stretch of some per cent, are tried "
        "on a binned pair",
    )
    parser.add_own_argument(
        "--max-angle",
        group=start,
        dest="max_angle",
        metavar="DEGREES",
        type=float,
        default=180.0,
        help="largest rotation that --coarse tries (default: %(default)s, all of them)",
    )
    for short, long, default, which in (("-bb", "begin", 4, "first"), ("-be", "end", 1, "last")):
        start.add_argument(
            *(short, f"--binning-{long}"),
            dest=f"bin_{long}",
            metavar="BIN",
            type=int,
            default=default,
            help=f"binning of the {which} level, a power of two (default: %(default)s)",
        )
    options.add_margin(
        start,
        "--margin",
        None,
        "voxels of image 1 kept free at every side (default: a tenth of the shortest side plus 1, at every level)",
    )
    how = parser.add_argument_group("correlation")
    options.add_correlation(how, min_delta_phi=1e-4)
    how.add_argument(
        *("-gm", "--gradient-method"),
        dest="gradient_method",
        choices=("finite_differences", "gaussian"),
        default="finite_differences",
        help="gradient from central differences or from derivatives of a Gaussian (default: %(default)s)",
    )
    how.add_argument(
        *("-gs", "--gaussian-sigma"),
        dest="gaussian_sigma",
        metavar="SIGMA",
        type=float,
        default=1.0,
        help="its width in voxels, for -gm gaussian (default: %(default)s)",
    )
    options.add_criterion(parser, how)
    output = parser.add_argument_group("output")
    options.add_output(output, fields=False)
    output.add_argument(
        *("-def", "--save-deformed-image1"),
        dest="save_deformed_image1",
        action="store_true",
        help="write image 1 deformed by the Phi found",
    )
    output.add_argument(
        *("-j", "--journal"),
        dest="journal",
        action="store_true",
        help="write the history of the iterations (-iterations.npy)",
    )
    output.add_argument(
        *("-g", "--graph"),
        dest="graph",
        action="store_true",
        help="plot slices of both images and their difference",
    )
    run = parser.add_argument_group("running")
    options.add_images(parser, run)
    options.add_run(parser, run, spam_has_processes=False)
    options.add_verbose(parser, run)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files, round the binnings to powers of two; return notes for the user."""
    options.check_common(args)
    require(0 < args.gaussian_sigma < math.inf, "-gs", args.gaussian_sigma, "has to be above 0 and finite")
    require(0 < args.max_angle <= 180, "--max-angle", args.max_angle, "has to be above 0 and at most 180 degrees")
    if args.max_angle < 180 and not args.coarse:
        raise UserError(f"{options.as_given('--max-angle', args.max_angle)}: is an option of --coarse; add it")
    if args.coarse and args.phi_file is not None:
        raise UserError("--coarse looks for the first guess that -pf gives; leave one of them out")
    notes = []
    for name, option in (("bin_begin", "-bb"), ("bin_end", "-be")):
        notes += options.power_of_two(args, name, option)
    require(args.bin_begin >= args.bin_end, "-bb", args.bin_begin, f"may not be below -be ({args.bin_end})")
    if args.return_phi_mask_centre and args.mask1 is None:
        raise UserError("-rmc needs a mask (-mf1)")
    return notes
