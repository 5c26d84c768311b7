"""``mpidvc ereg``: registration by eye, in a window."""

from __future__ import annotations

import argparse

from mpidvc.cli import options
from mpidvc.cli.options import require
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "bring two images together by eye, in a window: one deformation function, a first guess for the other commands"
EXAMPLES = """\
examples:
  mpidvc ereg
      asks for two images
  mpidvc ereg im1.tif im2.tif
      writes im1-im2-PhiEye-bin1.tsv where it was started, when the user says so; then
      mpidvc reg im1.tif im2.tif -pf im1-im2-PhiEye-bin1.tsv
  mpidvc ereg im1.tif im2.tif im1-im2-registration.tsv
      from a Phi that is there
  mpidvc ereg im1.tif im2.tif -bin 4
      on images binned by 4: Phi is in their voxels, and reg takes it by -pf im1-im2-PhiEye-bin4.tsv -pfb 4

Large images are shown in reduced copies; Phi is in voxels of the images all the same.
F1 shows what keys and mouse do. It needs a display, and PySide6: pip install "mpidvc[gui]".
The exit status is 0 if Phi was saved, and 1 if it was not.
"""


class _OncePhi(options.Once):
    """Store the first Phi, from the one place where it is given."""

    what = "first Phi"


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "im1",
        nargs="?",
        help="image 1: a TIFF file, a folder of TIFF slices, or an HDF5 dataset (file.h5::/path); the window asks for "
        "images that are not given",
    )
    parser.add_argument("im2", nargs="?", help="image 2, of the same shape")
    parser.add_argument(
        "phi_file",
        metavar="phi",
        nargs="?",
        action=_OncePhi,
        help="Phi to begin with: the registration that reg or ereg wrote (.tsv); all of it is kept, shear included",
    )
    start = parser.add_argument_group("where it begins")
    options.add_phi_file(
        parser,
        start,
        "Phi to begin with, as an option",
        "binning of the images of -pf divided by that of these images, -bin included; its position and displacement "
        "are multiplied by it",
        action=_OncePhi,
        default=argparse.SUPPRESS,
    )
    start.add_argument(
        *("-bin", "--binning"),
        dest="binning",
        metavar="BIN",
        type=int,
        default=1,
        help="bin both images first; Phi and what is written are of the binned images (default: %(default)s)",
    )
    start.add_argument(
        *("-df", "--defaultFolder"),
        dest="default_folder",
        metavar="DIR",
        help="where dialogs begin (default: the current folder)",
    )
    parser.set_defaults(processes=None, log=None)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    require(args.binning >= 1, "-bin", args.binning, "has to be at least 1")
    if args.im1 is not None and args.im2 is None:
        raise UserError("image 2 is missing: give both images, or none and choose them in the window")
    return []
