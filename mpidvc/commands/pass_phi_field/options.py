"""``mpidvc passPhiField``: a registration or a field, expressed at other points."""

from __future__ import annotations

import argparse

from mpidvc.cli import options
from mpidvc.cli.options import require
from mpidvc.cli.parser import Parser, add_triple
from mpidvc.errors import UserError

HELP = "pass a registration or a field to the nodes of another grid, or to labels"
EXAMPLES = """\
examples:
  mpidvc passPhiField -pf im1-im2-registration.tsv -im1 im1.tif -ns 20
      a registration to the nodes of a grid
  mpidvc passPhiField -pf im1-im2-ldic.tsv -im1 im1.tif -ns 10 -nn 8
      a field to a finer grid, from the 8 nearest nodes
  mpidvc passPhiField -pf bin2-ldic.tsv -pfb 2 -im1 im1.tif -ns 20 -rst 2
      a field of images that were binned by 2, from its converged nodes only
  mpidvc passPhiField -pf im1-im2-ldic.tsv -lab1 labels1.tif -F rigid
      a field to labels, as a first guess for ddic
  mpidvc passPhiField -pf im1-im2-ldic.tsv -regs im1-im2-registration.tsv -regsF all
      the displacements of a field less those of a registration
  mpidvc passPhiField -pf im1-im2-ldic.tsv -pf2 im1-im2-ddic.tsv -lab1 labels1.tif
      the labels of a discrete correlation take the place of nodes that did not converge
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    what = parser.add_argument_group("what is passed")
    options.add_phi_file(
        parser,
        what,
        "file written by a previous command (.h5 or .tsv): a registration, or a field of nodes, labels or scattered "
        "points",
        "binning of the images of -pf divided by that of the new points: voxel p becomes p RATIO + (RATIO - 1) / 2, "
        "displacements are multiplied by it",
    )
    part = what.add_argument(
        *("-F", "--apply-F"),
        dest="apply_F",
        choices=("all", "rigid", "no"),
        default="all",
        help="F that the new points get: all of it, its rotation, or the identity; the displacements of a registration "
        "are always those of its whole Phi (default: %(default)s)",
    )
    parser.add_own_spelling(part, "-m")
    what.add_argument(
        *("-rst", "--return-status-threshold"),
        dest="return_status_threshold",
        metavar="STATUS",
        type=int,
        default=-4,
        help="take points of the field with at least this return status; 2 takes those that converged (default: "
        "%(default)s)",
    )
    where = parser.add_argument_group("where to")
    add_triple(
        where, "node_spacing", ("-ns", "--node-spacing"), ("-ns3", "--node-spacing-3"), "distance of nodes, voxels"
    )
    where.add_argument(
        *("-im1", "--image1"),
        dest="image1",
        metavar="FILE",
        help="image that the grid of -ns belongs to: only its size counts",
    )
    where.add_argument(
        *("-im1shape", "--image1-shape"),
        dest="image1_shape",
        metavar=("Z", "Y", "X"),
        nargs=3,
        type=int,
        help="the size instead of the image, voxels; Z is 1 in 2D",
    )
    where.add_argument(
        *("-lab1", "--labelledFile1"),
        dest="labels1",
        metavar="FILE",
        nargs="+",
        help="image of labels: the new points are their centres of mass, a row for each number; -ns and the size of an "
        "image have no meaning then. Several files are for -pf2",
    )
    near = parser.add_argument_group("neighbours in the field")
    options.add_neighbours(
        near,
        "mean of the points within this distance, weighted by 1 / distance (default: twice the mean of -ns; for "
        "labels 5 times their mean radius)",
        "mean of the nearest points, as many as this; if -nr is given, too, -nr counts",
    )
    near.add_argument(
        *("-cps", "--check-point-surrounded"),
        dest="check_point_surrounded",
        action="store_true",
        help="no value for points outside the box around their neighbours",
    )
    less = parser.add_argument_group("less a registration")
    less.add_argument(
        *("-regs", "--registrationSubtract"),
        dest="registration_subtract",
        metavar="FILE",
        help="write the field of -pf at its own points, its displacements less those of this registration",
    )
    less.add_argument(
        *("-regsF", "--registrationSubtract-apply-F"),
        dest="registration_subtract_F",
        choices=("all", "rigid", "no"),
        default="rigid",
        help="displacements that are subtracted: those of the whole registration, of its translation and rotation, or "
        "of its translation (default: %(default)s)",
    )
    less.add_argument(
        *("-regsb", "--registrationSubtract-bin-ratio"),
        dest="registration_subtract_bin_ratio",
        metavar="RATIO",
        type=float,
        default=1.0,
        help="-pfb of this registration (default: %(default)s)",
    )
    merge = parser.add_argument_group("merged with labels")
    merge.add_argument(
        *("-pf2", "--phiFile2"),
        dest="phi_file2",
        metavar="FILE",
        nargs="+",
        help="fields of labels, one for each image of -lab1: a node of -pf that lies in a label and did not converge "
        "gets the Phi of the label",
    )
    merge.add_argument(
        *("-pf2b", "--phiFile2-bin-ratio"),
        dest="phi_file2_bin_ratio",
        metavar="RATIO",
        type=float,
        default=1.0,
        help="-pfb of these fields (default: %(default)s)",
    )
    merge.add_argument(
        *("-mpl", "--merge-prefer-label"),
        dest="merge_prefer_label",
        action="store_true",
        help="nodes that converged get the Phi of their label, too",
    )
    output = options.add_field_run(parser, source="-pf")
    options.add_plot(parser, output, "displacements and return status", "matplotlib, and a grid")


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    if args.phi_file is None:
        raise UserError("the field is missing: give a registration or a field by -pf")
    for name, option in (("registration_subtract_bin_ratio", "-regsb"), ("phi_file2_bin_ratio", "-pf2b")):
        ratio = getattr(args, name)
        require(0 < ratio < float("inf"), option, ratio, "has to be above 0 and finite")
    size = args.image1_shape
    require(size is None or min(size) >= 1, "-im1shape", size, "has to be at least 1 along each axis")
    labels = args.labels1
    if args.phi_file2 is not None and args.registration_subtract is not None:
        raise UserError("-pf2 -regs: one merges, the other subtracts; give one of them, then the other")
    if args.phi_file2 is not None:
        if labels is None or len(labels) != len(args.phi_file2):
            raise UserError(
                f"-pf2: has {len(args.phi_file2)} fields for {len(labels or [])} images of labels; give -lab1 with one "
                "image for each field"
            )
    elif args.registration_subtract is not None:
        if labels is not None or args.node_spacing is not None:
            raise UserError(
                "-regs: keeps the points of -pf; drop -ns and -lab1, or pass the field first and subtract then"
            )
    elif labels is not None:
        if len(labels) > 1:
            raise UserError(f"-lab1: {len(labels)} images are for -pf2; give one")
    else:
        if args.node_spacing is None:
            raise UserError("the new points are missing: give -ns and -im1 (or -im1shape), or -lab1")
        if args.image1 is None and size is None:
            raise UserError("-ns: the size of the image is missing; give -im1 or -im1shape")
    options.check_outputs(args, grid=args.registration_subtract is not None or args.phi_file2 is not None or not labels)
    notes = options.neighbour_notes(args)
    if labels is not None and args.node_spacing is not None:
        notes.append("-lab1: the new points are its labels, -ns does not count")
    if args.image1 is not None and size is not None:
        notes.append("-im1 and -im1shape are given: the image counts")
    return notes
