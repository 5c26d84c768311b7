"""``mpidvc plot``: slices of a result."""

from __future__ import annotations

import argparse
import math

from mpidvc.cli.options import require
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "draw slices of a result: displacement with and without the rigid motion, strain, return statuses, ZNCC"
EXAMPLES = """\
quantities (--component):
  Zdisp Ydisp Xdisp disp                displacement, and its length
  Znonrigid Ynonrigid Xnonrigid nonrigid
                                        the same, less the rotation and translation of all points
  vol dev ezz GLzz Upx rz ...           strain, by the names of mpidvc regularStrain: of a strain's own numbers,
                                        otherwise by a linear fit of the displacements within 1.5 node spacings
  returnStatus zncc error iterations sigma... coverage ...
                                        the columns of the result

examples:
  mpidvc plot im1-im2-ldic.h5
      writes im1-im2-ldic.png; 2D fields lie over the photograph where it is still found
  mpidvc plot im1-im2-ldic.h5 --component dev Znonrigid --slice z=60 x=112 -o bands.pdf
  mpidvc plot im1-im2-ldic.h5 --quiver nonrigid
      arrows over image 1
  mpidvc plot a-ldic.h5 --compare b-ldic.h5 -o difference.svg
"""
#: Ends of the names of pictures.
FORMATS = (".png", ".svg", ".pdf")


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "phi_file", metavar="RESULT", help="a file written by a previous command (.h5 or .tsv), for instance by ldic"
    )
    shown = parser.add_argument_group("what is drawn")
    shown.add_argument(
        "--component", nargs="+", metavar="NAME", help="quantities, see above (default: those to be looked at first)"
    )
    shown.add_argument(
        "--slice",
        nargs="+",
        metavar="AXIS=PLACE",
        help="planes, by the axis across them and their place in voxels, for instance z=60 x=112: the nearest layer of "
        "nodes is drawn (default: the middle ones across z, y and x)",
    )
    shown.add_argument(
        "--quiver",
        nargs="?",
        const="displacement",
        choices=("displacement", "nonrigid"),
        help="draw arrows of the displacement, or of what is left of it without the rigid motion, over image 1",
    )
    shown.add_argument(
        "--compare", metavar="RESULT", help="draw this result, too, and its difference from the first one"
    )
    shown.add_argument(
        "--all",
        action="store_true",
        dest="all_points",
        help="draw displacements and strains of points that did not converge, too",
    )
    shown.add_argument(
        "--image",
        metavar="FILE",
        help="image 1, to be drawn beneath (default: that of the result, for --quiver and in 2D; none: no image)",
    )
    shown.add_argument(
        "--limits",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="of the colours, for all quantities but the return status (default: quantiles of 1 and 99 %%)",
    )
    picture = parser.add_argument_group("picture")
    picture.add_argument(
        *("-o", "--output"),
        dest="output",
        metavar="FILE",
        help="PNG, SVG or PDF, by the end of its name (default: the name of the result, with .png)",
    )
    parser.set_defaults(processes=None, log=None)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    if args.output is not None:
        good = args.output.lower().endswith(FORMATS)
        require(good, "--output", args.output, "has to end in .png, .svg or .pdf")
    for text in args.slice or []:
        place_of(text)
    axes = [place_of(text)[0] for text in args.slice or []]
    require(len(set(axes)) == len(axes), "--slice", args.slice, "has an axis twice; give each once")
    if args.limits is not None:
        low, high = args.limits
        require(math.isfinite(low) and math.isfinite(high) and low < high, "--limits", args.limits, "are no limits")
    if args.compare is not None and args.quiver is not None:
        raise UserError("--compare --quiver: differences are drawn in colours; drop one of them")
    return []


def place_of(text: str) -> tuple[int, float]:
    """Axis and place of a plane, from ``z=60``.

    Raises
    ------
    UserError
        If it is none.
    """
    axis, _, place = text.partition("=")
    try:
        value = float(place)
    except ValueError:
        value = math.nan
    if axis not in ("z", "y", "x") or not math.isfinite(value):
        raise UserError(f"--slice {text}: is no plane; give an axis and a place in voxels, such as z=60")
    return "zyx".index(axis), value
