"""``mpidvc regularStrain``: strain from a field of displacements."""

from __future__ import annotations

import argparse
import difflib
import math

from mpidvc.cli import options
from mpidvc.cli.options import require
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "strain from the displacements of a field: at the centres of cells of a grid, or at its points"
EXAMPLES = """\
components (-comp), and their columns:
  vol    volume change det F - 1                      vol
  dev    deviatoric strain |U det(F)^(-1/3) - I|      dev
  volss  small volumetric strain, the trace of e      volss
  devss  small deviatoric strain |e - I volss/3|      devss
  r      rotation vector of R, degrees                rz ry rx
  z      diagonal of the stretch U                    zz zy zx
  Up     principal stretches less 1, ascending        Upz Upy Upx
  U      stretch U of F = R U                         Uzz Uzy Uzx Uyy Uyx Uxx
  e      small strain (F + F^T)/2 - I                 ezz ezy ezx eyy eyx exx
  GL     Green-Lagrange strain (F^T F - I)/2          GLzz GLzy GLzx GLyy GLyx GLxx
  H      Hencky strain ln U                           Hzz Hzy Hzx Hyy Hyx Hxx

examples:
  mpidvc regularStrain im1-im2-ldic.h5
      volume change and deviatoric strain of the cells between the nodes (Q8)
  mpidvc regularStrain im1-im2-ldic.h5 -comp vol dev GL -g -r 2.5 -tif -vtk
      at the nodes, by a linear fit of the displacements within 2.5 node spacings (Geers)
  mpidvc regularStrain im1-im2-ldic.h5 -comp e r -raw
      from the F that the correlation found
  mpidvc regularStrain im1-im2-ldic-filtered.tsv -rst 1
      with the points that a filter has corrected
  mpidvc regularStrain lab1-im2-ddic.h5 -g -r 60
      at the centres of grains, by their neighbours within 60 voxels
"""

#: Names of the components, in the order of the help.
COMPONENTS = ("vol", "dev", "volss", "devss", "r", "z", "Up", "U", "e", "GL", "H")
#: Radius of the neighbours in node spacings, of grids.
RADIUS = 1.5


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "phi_file",
        metavar="field",
        nargs="?",
        action=options.Once,
        help="the field: a file written by a previous command (.h5 or .tsv), for instance by ldic",
    )
    start = parser.add_argument_group("the field, and which of its points count")
    options.add_phi_file(parser, start, "the field, as an option", action=options.Once, default=argparse.SUPPRESS)
    start.add_argument(
        "-rst",
        "--return-status-threshold",
        dest="return_status_threshold",
        metavar="N",
        type=int,
        help="least return status of the points that count (default: 2, or 1 if no point has 2, as after a pixel "
        "search, passPhiField or a filter)",
    )
    start.add_argument(
        *("-nomaskBad", "--nomaskBad", "-nomask", "--nomask"),
        dest="no_mask",
        action="store_true",
        help="all points count that have a displacement, whatever their return status",
    )
    mode = parser.add_argument_group("computation of F")
    mode.add_argument(
        *("-g", "--geers"),
        dest="geers",
        action="store_true",
        help="Geers: at every point, by the linear function that fits its displacement and its neighbours' best",
    )
    mode.add_argument(
        *("-r", "--neighbourhood-radius-for-strain-calculation"),
        dest="radius",
        metavar="RADIUS",
        type=float,
        help="how far neighbours may be away (-g), in units of the largest node spacing; in voxels for a field whose "
        f"points are no grid, where it has to be given (default: {RADIUS})",
    )
    mode.add_argument(
        *("-raw", "--no-shape-function"),
        dest="raw",
        action="store_true",
        help="F as the correlation found it, at every point",
    )
    parser.add_own_argument(
        *("-cub", "--cub"),
        group=mode,
        dest="cells",
        action="store_true",
        help="Q8, which is the default: at the centre of every cell between eight nodes (Q4 between four in 2D), by "
        "differences along its edges",
    )
    mode.add_argument(
        *("-comp", "--strain-components"),
        dest="strain_components",
        metavar="NAME",
        nargs="*",
        default=["vol", "dev"],
        help=f"components, in the order of the columns: {' '.join(COMPONENTS)}; see below (default: vol dev)",
    )
    output = options.add_field_run(parser, no_tsv="-noTSV", source="the field")
    output.add_argument(
        *("-vtkln", "--VTKleaveNANs"),
        dest="vtk_nan",
        action="store_true",
        help="write nan to the VTK file where there is no strain; otherwise it becomes 0",
    )
    options.add_plot(parser, output, "the components", "matplotlib, and a grid")


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    _check_components(args)
    if args.phi_file is None:
        raise UserError("the field is missing: give a file written by a previous command, such as ldic")
    options.check_common(args)
    options.check_outputs(args)
    given = [option for option, is_given in (("-g", args.geers), ("-raw", args.raw), ("-cub", args.cells)) if is_given]
    if len(given) > 1:
        raise UserError(f"{' '.join(given)}: are different computations of F; give one of them")
    if args.radius is not None:
        require(0 < args.radius < math.inf, "-r", args.radius, "has to be above 0 and finite")
        if not args.geers:
            return ["-r has a meaning with -g only"]
    return []


def _check_components(args: argparse.Namespace) -> None:
    names = args.strain_components
    for name in names:
        if name in COMPONENTS:
            continue
        if args.phi_file is None and name == names[-1]:
            raise UserError(f"-comp {name}: is no component of strain; give the field before -comp, or by -pf")
        near = {known.lower(): known for known in COMPONENTS}
        meant = difflib.get_close_matches(name.lower(), near, n=1)
        hint = f"did you mean {near[meant[0]]}? There are" if meant else "there are"
        raise UserError(f"-comp {name}: is no component of strain; {hint} {' '.join(COMPONENTS)}")
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"-comp {double}: is there twice; drop one")
