"""``mpidvc filterPhiField``: bad points of a field corrected from their neighbours, or the field smoothed."""

from __future__ import annotations

import argparse
import math

from mpidvc.cli import options
from mpidvc.cli.options import require
from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "find the bad points of a field, correct them from their neighbours, or smooth the field"
EXAMPLES = """\
examples:
  mpidvc filterPhiField -pf im1-im2-ldic.tsv -srs -clqf
      points that did not converge get the displacement of a local quadratic fit to good neighbours
  mpidvc filterPhiField -pf im1-im2-ldic.h5 -srs --outliers -cint -nn 12
      these, and points that disagree with their neighbours, get the mean of the 12 nearest good points
  mpidvc filterPhiField -pf im1-im2-pixelSearch.tsv -scc -scct 0.9 -cint -F no
      points of low pixel search CC get a mean of displacements
  mpidvc filterPhiField -pf im1-im2-ldic.h5 --outliers
      outliers are only marked, in the column outlier of the results file
  mpidvc filterPhiField -pf im1-im2-ldic.tsv -fm -fmr 2
      every node gets the median of the 5 x 5 x 5 nodes around it
  mpidvc filterPhiField -pf im1-im2-ldic.h5 --remove-motion similarity
      the motion that most points share, with a drift of the magnification, is taken off
"""

#: Ways of telling and of correcting bad points, by their options: of several given the first counts.
SELECTIONS = {"-srs": "select_status", "-scc": "select_cc", "-slqc": "select_lqc"}
CORRECTIONS = {"-cint": "correct_interpolation", "-clqf": "correct_fit"}


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    source = parser.add_argument_group("the field")
    options.add_phi_file(
        parser,
        source,
        "field written by a previous command (.h5 or .tsv): nodes, labels or scattered points",
        "positions and displacements of the field are multiplied by it",
    )
    source.add_argument(
        *("-nomask", "--nomask"),
        dest="no_mask",
        action="store_true",
        help="points with a return status below -4 take part; else they are the background, and stay as they are",
    )
    bad = parser.add_argument_group("which points are bad")
    bad.add_argument(
        *("-srs", "--select-return-status"),
        dest="select_status",
        action="store_true",
        help="those with a return status of -srst or less",
    )
    bad.add_argument(
        *("-srst", "--select-return-status-threshold"),
        dest="select_status_threshold",
        metavar="STATUS",
        type=int,
        default=1,
        help="for -srs (default: %(default)s)",
    )
    bad.add_argument(
        *("-scc", "--select-cc"),
        dest="select_cc",
        action="store_true",
        help="those with a pixel search CC of -scct or less",
    )
    bad.add_argument(
        *("-scct", "--select-cc-threshold"),
        dest="select_cc_threshold",
        metavar="CC",
        type=float,
        default=0.99,
        help="for -scc (default: %(default)s)",
    )
    bad.add_argument(
        *("-slqc", "--select-local-quadratic-coherency"),
        dest="select_lqc",
        action="store_true",
        help="those with a local quadratic coherency of 0.1 or more",
    )
    parser.add_own_argument(
        "--outliers",
        group=bad,
        dest="outliers",
        action="store_true",
        help="those that disagree with what their neighbours predict by displacement and F (normalised median test); "
        "in addition to the others. Without a correction they are only marked",
    )
    parser.add_own_argument(
        "--outlier-epsilon",
        group=bad,
        dest="outlier_epsilon",
        metavar="VOXELS",
        type=float,
        help="for --outliers: deviation that is always allowed for (default: 0.03, or 0.5 if every F is the identity; "
        "of a field from ldic --sigma three times the median sigma, and at least 0.01)",
    )
    parser.add_own_argument(
        "--outlier-threshold",
        group=bad,
        dest="outlier_threshold",
        metavar="RATIO",
        type=float,
        help="for --outliers: a point deviates by more than this many times the median deviation of its neighbours "
        "and epsilon (default: 4, or 2 if every F is the identity; 6 of a field from ldic --sigma)",
    )
    how = parser.add_argument_group("what is done to them")
    how.add_argument(
        *("-cint", "--correct-by-interpolation"),
        dest="correct_interpolation",
        action="store_true",
        help="mean of good neighbours, weighted by 1 / distance",
    )
    how.add_argument(
        *("-clqf", "--correct-by-local-quadratic-fit"),
        dest="correct_fit",
        action="store_true",
        help="local quadratic fit to the displacements of good neighbours; F becomes the identity",
    )
    how.add_argument(
        *("-F", "-filterF"),
        dest="filter_F",
        choices=("all", "rigid", "no"),
        default="all",
        help="F that -cint and -fm give: all of it, its rotation (-cint only), or the identity (default: %(default)s)",
    )
    options.add_neighbours(
        how,
        "neighbours are the points within this distance; -slqc and -clqf double it until there are more than 27 "
        "(default: 4 times the mean node spacing)",
        "neighbours are the nearest points, as many as this; if -nr is given, too, -nr counts (default for labels and "
        "scattered points: 27)",
    )
    smooth = parser.add_argument_group("smoothing")
    smooth.add_argument(
        *("-fm", "--filter-median"),
        dest="filter_median",
        action="store_true",
        help="every node gets the median of the nodes around it",
    )
    smooth.add_argument(
        *("-fmr", "--filter-median-radius"),
        dest="filter_median_radius",
        metavar="NODES",
        type=int,
        default=1,
        help="for -fm: the nodes around are a cube of 2 NODES + 1 nodes (default: %(default)s)",
    )
    parser.add_own_argument(
        "--remove-motion",
        group=parser.add_argument_group("motion of the whole"),
        dest="remove_motion",
        choices=("rigid", "similarity", "affine"),
        help="fit one motion to the good points (translation and rotation; with a uniform stretch; or any F), which "
        "outliers do not mislead, and take it off every point, after everything else: Phi becomes Phi0^-1 Phi. Phi0 is "
        "printed, and kept in the results file (.h5)",
    )
    output = options.add_field_run(parser, no_tsv="-noTSV", source="-pf")
    options.add_plot(parser, output, "displacements and corrections", "matplotlib, and a grid")


def given_of(args: argparse.Namespace, group: dict[str, str]) -> list[str]:
    """The options of a group that are given, in their order."""
    return [option for option, name in group.items() if getattr(args, name)]


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    if args.phi_file is None:
        raise UserError("the field is missing: give one by -pf")
    require(not math.isnan(args.select_cc_threshold), "-scct", args.select_cc_threshold, "is not a number")
    require(args.filter_median_radius >= 1, "-fmr", args.filter_median_radius, "has to be at least 1")
    for option, value in (
        ("--outlier-epsilon", args.outlier_epsilon),
        ("--outlier-threshold", args.outlier_threshold),
    ):
        require(value is None or 0 < value < math.inf, option, value, "has to be above 0 and finite")
        if value is not None and not args.outliers:
            raise UserError(f"{option} {value:g}: has no meaning without --outliers; add it")
    selections, corrections = given_of(args, SELECTIONS), given_of(args, CORRECTIONS)
    chosen = [*selections, *corrections]
    notes = []
    if args.filter_median:
        if len(chosen) > 1 or args.outliers:
            what = " ".join([*chosen, *(["--outliers"] if args.outliers else [])])
            raise UserError(f"-fm {what}: smoothing and correcting are two runs; correct first, then smooth the result")
        if args.filter_F == "rigid":
            raise UserError("-F rigid: there is no median of rotations; -fm takes -F all or -F no")
        if corrections:
            notes.append(f"{corrections[0]}: nothing is selected, the field is only smoothed")
    elif not chosen and not args.outliers and args.remove_motion is None:
        raise UserError(
            "nothing to do: say which points are bad (-srs, -scc, -slqc, --outliers), smooth by -fm, or --remove-motion"
        )
    elif selections and not corrections:
        raise UserError(f"{selections[0]}: points are selected, but not corrected; add -cint or -clqf")
    elif corrections and not selections and not args.outliers:
        raise UserError(f"{corrections[0]}: no points are selected; add -srs, -scc, -slqc or --outliers")
    for group in (selections, corrections):
        notes += [f"{option}: {group[0]} is given and counts" for option in group[1:]]
    options.check_outputs(args)
    return notes + options.neighbour_notes(args)
