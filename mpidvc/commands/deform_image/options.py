"""``mpidvc deformImage``: an image deformed by a registration or a field."""

from __future__ import annotations

import argparse
import math

from mpidvc.cli import options
from mpidvc.cli.options import require
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "deform an image by a registration or a field; compare it with another one"
EXAMPLES = """\
examples:
  mpidvc deformImage im1.tif -pf im1-im2-registration.tsv
      by one Phi, writes im1-reg-def.tif
  mpidvc deformImage im1.tif -pf im1-im2-ldic.h5 --residual im2.tif
      by a field, writes im1-def.tif and im1-def-residual.tif, image 1 deformed less image 2
  mpidvc deformImage im1.tif -pf im1-im2-ddic.h5 -tet -a -1 -mf2 grains2.tif
      by a mesh of tetrahedra between the points, only where the mask is not 0
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "im1", help="image to deform: a TIFF file, a folder of TIFF slices, or an HDF5 dataset (file.h5::/path)"
    )
    field = parser.add_argument_group("the deformation")
    options.add_phi_file(
        parser,
        field,
        "a registration, or a field of any kind (.h5 or .tsv); required",
        "binning of the images of -pf divided by that of this image; positions and displacements are multiplied by it",
    )
    field.add_argument(
        *("-rst", "--return-status-threshold"),
        dest="return_status_threshold",
        metavar="STATUS",
        type=int,
        help="use points with at least this return status (default: 2; 1 where no point has 2)",
    )
    radius = field.add_argument(
        *("-rad", "--radius-limit"),
        dest="radius_limit",
        metavar="RADIUS",
        type=float,
        help="use points up to this distance, in voxels, from the axis along z through the middle of the image",
    )
    parser.add_own_spelling(radius, "-r")
    field.add_argument(
        *("-rr", "--registration-rigid"),
        dest="rigid",
        action="store_true",
        help="use translation and rotation of a registration, without its stretch",
    )
    how = parser.add_argument_group("interpolation")
    how.add_argument(
        *("-nn", "--number-of-neighbours"),
        dest="neighbours",
        metavar="N",
        type=int,
        default=8,
        help="deformed points that are averaged for a voxel, weighted by the inverse distance (default: %(default)s)",
    )
    how.add_argument(
        *("-disp", "-interpolateDisplacements"),
        dest="displacements_only",
        action="store_true",
        help="average their displacements only, instead of their whole Phi",
    )
    how.add_argument(
        *("-o", "--interpolation-order"),
        dest="interpolation_order",
        type=int,
        choices=(1, 3),
        default=1,
        help="interpolation of grey levels by a field: 1 linear, 3 cubic spline; a registration takes 1 in 3D and 3 in "
        "2D, -tet takes 1 (default: %(default)s)",
    )
    how.add_argument(
        *("-tet", "-triangulation", "-mesh-transformation"),
        dest="mesh",
        action="store_true",
        help="interpolate displacements linearly in tetrahedra between the deformed points; 3D only",
    )
    how.add_argument(
        *("-a", "-triangulation-alpha-value"),
        dest="alpha",
        metavar="ALPHA",
        type=float,
        default=0.0,
        help="leave out tetrahedra whose circumscribed sphere has a squared radius above this, in voxels²; 0: none; "
        "negative: the least with which all points are connected (default: %(default)s)",
    )
    how.add_argument(
        "-cgs",
        dest="conserve",
        action="store_true",
        help="divide grey levels by the change of volume of the tetrahedron (-tet)",
    )
    output = parser.add_argument_group("output")
    options.add_mask(output, 2)
    parser.add_own_argument(
        "--residual",
        group=output,
        dest="im2",
        metavar="IM2",
        help="also write the deformed image less this one, as 32-bit floats, and print mean and standard deviation "
        "before and after; grey levels of IM2 are mapped to the image's where --criterion says so",
    )
    options.add_criterion(parser, output)
    parser.add_own_argument(
        "--h5", group=output, dest="as_hdf5", action="store_true", help="write HDF5 instead of TIFF"
    )
    options.add_plot(parser, output, "the deformed image, and of the residual,")
    options.add_output(output, fields=False, folder="the image", named="the name of the image")
    run = parser.add_argument_group("running")
    options.add_images(parser, run)
    options.add_run(parser, run)
    options.add_verbose(parser, run)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    if args.phi_file is None:
        raise UserError("the deformation is missing: give a registration or a field by -pf")
    require(args.neighbours >= 1, "-nn", args.neighbours, "at least one neighbour is needed")
    require(not math.isnan(args.alpha), "-a", args.alpha, "is not a number")
    if args.radius_limit is not None:
        require(args.radius_limit > 0, "-rad", args.radius_limit, "has to be above 0")
    if args.conserve and not args.mesh:
        raise UserError("-cgs: needs the tetrahedra of -tet; add -tet, or drop it")
    if args.mesh and args.displacements_only:
        raise UserError("-tet -disp: tetrahedra interpolate displacements already; give one of them")
    return []
