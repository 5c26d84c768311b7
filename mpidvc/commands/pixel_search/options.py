"""``mpidvc pixelSearch``: integer displacements on the nodes of a regular grid."""

from __future__ import annotations

import argparse

from mpidvc.cli import options
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "pixel search: integer displacements at every node of a grid, as a first guess for ldic"
EXAMPLES = """\
examples:
  mpidvc pixelSearch im1.tif im2.tif -ns 20 -hws 10 -sr -4 4 -4 4 -4 4
      every 20 voxels, windows of 21 voxels, displacements up to 4 voxels
  mpidvc pixelSearch im1.tif im2.tif -ns 20 -hws 10 -pf im1-im2-registration.tsv -tif
      about the displacements of a registration, whose F deforms the windows of image 1
  mpidvc pixelSearch im1.tif im2.tif -hws 10 -pf field.tsv -mf1 mask.tif -mc 0.3
      on the nodes of a field, leaving out what is masked
  mpiexec -n 64 mpidvc pixelSearch im1.tif im2.tif -ns 10 -hws 10
      on the hosts that the launcher chooses
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument("im1", help="image 1: a TIFF file or a folder of slices")
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
    labels = parser.add_argument_group("labels (not yet)")
    labels.add_argument(*("-lab1", "--labelledFile1"), dest="labels1", metavar="FILE", help="labelled image 1")
    labels.add_argument(
        *("-ld", "--label-dilate"), dest="label_dilate", metavar="N", type=int, default=1, help="dilation of labels"
    )
    labels.add_argument(
        *("-lvt", "--label-volume-threshold"),
        dest="label_volume_threshold",
        metavar="N",
        type=int,
        default=100,
        help="least volume of labels",
    )
    output = parser.add_argument_group("output")
    options.add_output(output, fields=True, no_tsv="--noTSVout")
    options.add_results(parser, parser.add_argument_group("results file"))
    run = parser.add_argument_group("running")
    options.add_images(parser, run)
    options.add_run(parser, run)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    if args.labels1 is not None:
        raise UserError(f"-lab1 {args.labels1}: labels cannot be searched yet; search the nodes of a grid (-ns, -hws)")
    if args.half_window_size is None:
        raise UserError("the size of the windows is missing: give -hws or -hws3")
    if args.node_spacing is None and args.phi_file is None:
        raise UserError("the distance of the nodes is missing: give -ns or -ns3, or a field by -pf")
    options.check_outputs(args)
    return []
