"""``mpidvc ldic``: deformation functions on the nodes of a regular grid."""

from __future__ import annotations

import argparse

from mpidvc.cli import options
from mpidvc.cli.manifest import is_manifest, read_manifest
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "local correlation: a deformation function at every node of a grid"
EXAMPLES = """\
examples:
  mpidvc ldic im1.tif im2.tif -ns 20 -hws 10 -pf im1-im2-registration.tsv -tif -vtk
      every 20 voxels, windows that compare 19 voxels per axis, from a registration; writes TSV, TIFF and VTK files
  mpidvc ldic im1.tif im2.tif -hws3 5 10 10 -pf field.tsv -glt 2000
      on the nodes of a field, flat windows, skipping dark ones
  mpidvc ldic day1.tif day2.tif day3.tif -sei -ns 20 -hws 10
      a series: 1 to 2 and 2 to 3 (without -sei: 1 to 2 and 1 to 3)
  mpidvc ldic day*.tif -ns 20 -hws 10 --update-reference --resume
      a long series: every state starts from the result of the one before, and the reference changes where it has to
  mpidvc ldic series.toml -ns 20 -hws 10 --warm-start
      the states that series.toml lists, with options of their own: [[state]] image = "day2.tif" margin = 10
  mpidvc ldic im1.tif im2.tif -ns 10 -hws 10 --start-from neighbours
      without a first guess, or with a poor one: nodes start from neighbours that have converged
  mpidvc ldic im1.tif im2.tif -ns 20 -hws 10 -o 3 --sigma --noise-from im1-im1again-ldic.h5
      with the random error of every displacement; the noise is that of two scans of the same state
  mpidvc ldic im1.tif im2.tif -ns 10 -hws 25 -o 3 --adaptive 0.01 -pf im1-im2-ldic.h5
      a window of its own for every node, of half-window sizes from 5 to 25, with a random error of 0.01 voxel
  mpiexec -n 64 mpidvc ldic im1.tif im2.tif -ns 10 -hws 10
      on the hosts that the launcher chooses
"""

#: Options that a state of a manifest may have of its own.
MAY_DIFFER = (
    *("margin", "grey_low_threshold", "grey_high_threshold", "rigid", "shift", "criterion"),
    *("max_iterations", "min_delta_phi", "interpolation_order", "update_gradient"),
)


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "images",
        metavar="image",
        nargs="+",
        help="two or more images: TIFF files, folders of TIFF slices, or HDF5 datasets (file.h5::/path); or the "
        "manifest of a series (.toml)",
    )
    start = parser.add_argument_group("what is compared, and from where")
    options.add_mask(start)
    options.add_guess(parser, start)
    options.add_stored_f(start, "nodes", "all")
    parser.add_own_argument(
        "--start-from",
        group=start,
        dest="start_from",
        choices=("guess", "neighbours"),
        default="guess",
        help="guess: every node starts from the first guess, as in spam. neighbours: from the neighbour that has "
        "converged with the best ZNCC, its displacement predicted with that neighbour's F, where this correlates "
        "better; nodes that fail are tried again. It saves iterations, and fields with jumps or a poor guess converge "
        "(default: %(default)s)",
    )
    start.add_argument(
        *("-skp", "--skip"),
        dest="skip",
        action="store_true",
        help="correlate only nodes of -pf whose return status is 1, -1, -2 or -3, and keep the others as they are",
    )
    start.add_argument(
        *("-sei", "--series-incremental"),
        dest="series_incremental",
        action="store_true",
        help="compare every image with the one before it, instead of the first",
    )
    options.add_series(parser, update=True)
    grid = parser.add_argument_group("grid and windows")
    options.add_grid(grid)
    options.add_margin(
        grid, "-margin", 3, "voxels by which windows of image 2 reach beyond those of image 1 (default: 3)"
    )
    options.add_grey_thresholds(grid)
    how = parser.add_argument_group("correlation")
    options.add_correlation(how, min_delta_phi=1e-3)
    options.add_criterion(parser, how)
    options.add_sigma(parser)
    options.add_adaptive(parser)
    options.add_field_run(parser)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    args.states = None
    if len(args.images) == 1 and is_manifest(args.images[0]):
        args.states = read_manifest(args.images[0], args, add_options, MAY_DIFFER, labels=False)
        args.images = [state.image for state in args.states]
    if len(args.images) < 2:
        raise UserError(f"{args.images[0]} alone: at least two images are needed")
    options.check_grid(args)
    if args.skip and args.phi_file is None:
        raise UserError("-skp needs the field that it continues (-pf)")
    options.check_adaptive(args)
    options.check_sigma(args)
    options.check_outputs(args)
    notes = options.check_series(args, len(args.images))
    if args.adaptive is not None and args.interpolation_order == 1 and not (args.noise_from or args.noise_mask):
        notes.append(
            "--adaptive -o 1: errors of the interpolation are in the residual and count as noise, so that windows are "
            "larger than they need be; take -o 3, --noise-from or --noise-mask"
        )
    if args.series_incremental and args.mask1 is not None:
        notes.append("with -sei the same mask (-mf1) is laid on the first image of every pair")
    return notes
