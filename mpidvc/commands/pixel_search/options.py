"""``mpidvc pixelSearch``: integer displacements on the nodes of a regular grid, or of labels."""

from __future__ import annotations

import argparse

from mpidvc.cli import options
from mpidvc.cli.options import require
from mpidvc.cli.parser import Parser

HELP = "pixel search: integer displacements at every node of a grid, or of every label, as a first guess"
EXAMPLES = """\
examples:
  mpidvc pixelSearch im1.tif im2.tif -ns 20 -hws 10 -sr -4 4 -4 4 -4 4
      every 20 voxels, windows of 21 voxels, displacements up to 4 voxels
  mpidvc pixelSearch im1.tif im2.tif -ns 20 -hws 10 -pf im1-im2-registration.tsv -tif
      about the displacements of a registration, whose F deforms the windows of image 1
  mpidvc pixelSearch im1.tif im2.tif -hws 10 -pf field.tsv -mf1 mask.tif -mc 0.3
      on the nodes of a field, leaving out what is masked
  mpidvc pixelSearch im1.tif im2.tif -lab1 labels1.tif -sr -8 8 -8 8 -8 8 -vtk
      every label of image 1 by its own voxels, as a first guess for ddic
  mpiexec -n 64 mpidvc pixelSearch im1.tif im2.tif -ns 10 -hws 10
      on the hosts that the launcher chooses
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "im1", help="image 1: a TIFF file, a folder of TIFF slices, or an HDF5 dataset (file.h5::/path)"
    )
    parser.add_argument("im2", help="image 2, searched")
    start = parser.add_argument_group("what is searched, and from where")
    options.add_mask(start)
    options.add_mask(start, 2)
    options.add_guess(parser, start)
    start.add_argument(
        *("-F", "--apply-F"),
        dest="apply_F",
        choices=("all", "rigid", "no"),
        default="all",
        help="what of the F of -pf deforms the windows of image 1 before they are searched: all, its rotation, or "
        "nothing; displacements are always those of the whole Phi (default: %(default)s)",
    )
    options.add_search_range(start)
    grid = parser.add_argument_group("grid and windows")
    options.add_grid(grid)
    options.add_grey_thresholds(grid)
    how = parser.add_argument_group("correlation")
    options.add_zero_mean(parser, how)
    labels = parser.add_argument_group("labels")
    options.add_searched_labels(labels, "Each label is searched by its own voxels, instead of the windows of a grid")
    labels.add_argument(
        *("-lvt", "--label-volume-threshold"),
        dest="label_volume_threshold",
        metavar="VOXELS",
        type=int,
        default=100,
        help="skip labels that have no more voxels than this, once dilated (default: %(default)s)",
    )
    options.add_field_run(parser, no_tsv="--noTSVout")


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    if args.labels1 is None:
        options.check_grid(args)
        options.check_outputs(args)
        return []
    require(args.label_volume_threshold >= 0, "-lvt", args.label_volume_threshold, "may not be negative")
    options.check_outputs(args, grid=False)
    return []
