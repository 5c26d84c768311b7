"""``mpidvc pixelSearchPropagate``: a pixel search whose guess travels from point to point."""

from __future__ import annotations

import argparse
import math

from mpidvc.cli import options
from mpidvc.cli.options import require
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "pixel search whose guess travels from a starting point over the whole image"
EXAMPLES = """\
examples:
  mpidvc pixelSearchPropagate im1.tif im2.tif -sp 100 200 200 12 -3 0 -hws 10 -ns 20 -tif -vtk
      from the point 100 200 200, which has moved by about 12 -3 0, over a grid; writes TSV, TIFF and VTK files
  mpidvc pixelSearchPropagate im1.tif im2.tif -gp points.txt -sr -5 5 -5 5 -5 5
      over the points of a text file (Z Y X in each line), from the first one
  mpidvc pixelSearchPropagate im1.tif im2.tif -lab1 labels1.tif -sp 100 200 200 12 -3 0 -vtk
      from label to label, beginning with the one at the point 100 200 200
  mpidvc ldic im1.tif im2.tif -hws 10 -pf im1-im2-pixelSearchPropagate.tsv
      the deformation functions of the grid, from what was found
  mpiexec -n 64 mpidvc pixelSearchPropagate im1.tif im2.tif -sp 100 200 200 12 -3 0
      on the hosts that the launcher chooses
"""

#: Half-window size where none is given, voxels.
HALF_WINDOW = 5


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "im1", help="image 1: a TIFF file, a folder of TIFF slices, or an HDF5 dataset (file.h5::/path)"
    )
    parser.add_argument("im2", help="image 2, searched")
    points = parser.add_argument_group("where to begin, and what is searched")
    points.add_argument(
        *("-sp", "--starting-point-and-displacement"),
        dest="start",
        metavar=("Z", "Y", "X", "DZ", "DY", "DX"),
        type=int,
        nargs=6,
        help="point of image 1 to begin at, and its displacement (its place in image 2 less its place in image 1), in "
        "whole voxels: choose a point with texture that you recognise in both images, and read both places off, to "
        "within the search range; in 2D Z and DZ are 0; needed unless -gp is given",
    )
    points.add_argument(
        *("-gp", "--guiding-points-file"),
        dest="guiding_points",
        metavar="FILE",
        help="text file with the points to search, Z Y X in each line, instead of a grid; without -sp the first one is "
        "the starting point, with displacement 0",
    )
    options.add_searched_labels(
        points,
        "The guess travels over their centres of mass, from the label at the point of -sp, or the nearest one",
    )
    options.add_mask(points)
    options.add_mask(points, 2)
    windows = parser.add_argument_group("grid, windows and search")
    options.add_grid(windows, spacing="twice -hws", window=str(HALF_WINDOW))
    options.add_search_range(windows)
    options.add_grey_thresholds(windows)
    options.add_zero_mean(parser, windows)
    travel = parser.add_argument_group("how the guess travels")
    travel.add_argument(
        *("-nr", "--neighbourhood-radius"),
        dest="radius",
        metavar="VOXELS",
        type=float,
        help="a point's guess comes from the good points within this distance that are before it in the order; doubled "
        "until there is one (default: mean of -hws and of the upper limits of -sr, added; with -lab1 the "
        "median size of the labels instead of -hws)",
    )
    action = travel.add_argument(
        *("-gwd", "--gaussian-weighting-distance"),
        dest="weighting_distance",
        metavar="VOXELS",
        type=float,
        help="their displacements count by exp(-d²/VOXELS²), d the distance (default: sum of -hws and of the upper "
        "limits of -sr)",
    )
    parser.add_own_spelling(action, "-gdw")
    travel.add_argument(
        *("-cct", "--CC-threshold"),
        dest="threshold",
        metavar="CC",
        type=float,
        default=0.9,
        help="points whose correlation coefficient is below this guide no others (default: %(default)s)",
    )
    parser.add_own_argument(
        "--ranking",
        group=travel,
        choices=("distance", "walk"),
        default="distance",
        help="order of the points: by distance to the starting point; or walk, as spam does: around every point in "
        "turn those within -nr follow, or the nearest one; where -nr is below -ns one point follows the other, and "
        "only one process has work (default: %(default)s)",
    )
    options.add_field_run(parser, no_tsv="--noTSVout", spam_has_processes=False)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    if args.labels1 is not None and args.guiding_points is not None:
        raise UserError(f"-lab1 {args.labels1} -gp {args.guiding_points}: labels or points; drop one of them")
    options.check_common(args)
    if args.start is None and args.guiding_points is None:
        raise UserError("the starting point is missing: give -sp Z Y X DZ DY DX, or points by -gp")
    for value, option in ((args.radius, "-nr"), (args.weighting_distance, "-gwd")):
        if value is not None:
            require(0 < value < math.inf, option, value, "has to be above 0 and finite")
    require(-1 <= args.threshold <= 1, "-cct", args.threshold, "has to be between -1 and 1")
    options.check_outputs(args, grid=args.guiding_points is None and args.labels1 is None)
    if args.guiding_points is None:
        return []
    notes = []
    if args.node_spacing is not None:
        notes.append("-ns has no meaning with -gp: the points of the file are searched")
    if args.tif:
        notes.append("the points of -gp are no grid: no TIFF is written")
    return notes
