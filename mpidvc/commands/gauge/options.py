"""``mpidvc gauge``: virtual extensometers, and means over regions, of a field or of a series of them."""

from __future__ import annotations

import argparse
import math
from typing import Any

from mpidvc.cli import options
from mpidvc.cli.options import require
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "read virtual extensometers, and means over regions with their standard errors, from a field or a series of them"
EXAMPLES = """\
examples:
  mpidvc gauge im1-im2-ldic.h5
      mean displacement and mean strain of all points
  mpidvc gauge day*-ldic.h5 --extensometer 20 100 50  180 100 50 --tsv gauge.tsv --plot gauge.png
      the strain between two points z y x, in every state of a series: a table and a curve
  mpidvc gauge im1-im2-ldic.h5 --box 10 10 10 60 90 90 --labels phases.tif
      means over a box, and over the points in every label of an image
  mpidvc gauge im1-im2-ldic-strain-Q8.h5 --columns vol dev --mask band.tif
      means of strain components over a mask

Places are those of image 1, in voxels z y x (2D: z is 0), and follow the material. Standard errors take account of the
voxels that windows share; a deformation that is not linear within a region makes them larger.
"""


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "fields",
        metavar="field",
        nargs="+",
        help="files written by previous commands (.h5 or .tsv): states of a series, in their order",
    )
    gauges = parser.add_argument_group("gauges (all points where none is given)")
    numbers: dict[str, Any] = {"nargs": "+", "type": float, "action": "extend", "metavar": "N"}
    gauges.add_argument(
        "--extensometer",
        **numbers,
        help="six numbers z y x z y x: the ends of an extensometer; several by 12, 18 …, or by several options",
    )
    gauges.add_argument(
        "--box",
        **numbers,
        help="six numbers z y x z y x: lowest and highest corner of a box, whose faces belong to it; several likewise",
    )
    gauges.add_argument("--mask", dest="mask1", metavar="FILE", help="the points where this image of image 1 is not 0")
    gauges.add_argument(
        "--labels", dest="labels1", metavar="FILE", help="the points in each label of this image of image 1"
    )
    gauges.add_argument(
        "--label", nargs="+", type=int, action="extend", metavar="N", help="these labels only (default: all)"
    )
    how = parser.add_argument_group("how they are read")
    how.add_argument(
        "--columns", nargs="+", action="extend", metavar="NAME", help="means of these columns of the files, too"
    )
    how.add_argument(
        *("-rst", "--return-status-threshold"),
        dest="return_status_threshold",
        metavar="N",
        type=int,
        help="least return status of the points that count (default: 2, or 1 if no point has 2)",
    )
    how.add_argument(
        "--radius",
        metavar="VOXELS",
        type=float,
        help="points that are nowhere farther than this along an axis are around an end of an extensometer "
        "(default: 1.5 times the largest node spacing)",
    )
    how.add_argument(
        "--window",
        nargs="+",
        type=int,
        metavar="N",
        help="voxels that a point stands for, one number or z y x, where the file does not say (default: what it says)",
    )
    files = parser.add_argument_group("files")
    files.add_argument("--tsv", metavar="FILE", help="write a table with a row for each state, gauge and quantity")
    files.add_argument("--plot", metavar="FILE", help="draw curves over the states (PNG); needs matplotlib")
    run = parser.add_argument_group("running")
    options.add_run(parser, run, spam_has_processes=False)
    options.add_verbose(parser, run)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    for name in ("extensometer", "box"):
        numbers = getattr(args, name) or []
        text = f"--{name} {' '.join(f'{n:g}' for n in numbers)}"
        if len(numbers) % 6:
            raise UserError(f"{text}: are {len(numbers)} numbers; give six for each, z y x z y x")
        if not all(map(math.isfinite, numbers)):
            raise UserError(f"{text}: has a number that is not finite")
        for first, second in ends_of(numbers):
            if name == "extensometer" and first == second:
                raise UserError(f"{text}: both ends are the same point; give two")
            if name == "box" and any(low > high for low, high in zip(first, second, strict=True)):
                raise UserError(f"{text}: the lowest corner is above the highest one; give the lowest one first")
    if args.label and args.labels1 is None:
        raise UserError(f"--label {args.label[0]}: needs the image of the labels; give it by --labels")
    if args.radius is not None:
        require(0 < args.radius < math.inf, "--radius", args.radius, "has to be above 0 and finite")
        if not args.extensometer:
            raise UserError(f"--radius {args.radius:g}: has no meaning without --extensometer; add it")
    if args.window is not None:
        require(len(args.window) in (1, 3), "--window", args.window, "give one number, or three, z y x")
        require(min(args.window) >= 1, "--window", args.window, "has to be at least 1")
    return []


def ends_of(numbers: list[float]) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Pairs of points of an option."""
    return [(tuple(numbers[k : k + 3]), tuple(numbers[k + 3 : k + 6])) for k in range(0, len(numbers), 6)]
