"""``mpidvc ddic``: deformation functions of labels, such as the grains of a granular material."""

from __future__ import annotations

import argparse

from mpidvc.cli import options
from mpidvc.cli.manifest import is_manifest, read_manifest
from mpidvc.cli.options import power_of_two, require
from mpidvc.cli.parser import Parser, UsageError
from mpidvc.errors import UserError

HELP = "discrete correlation: a deformation function for every label, from its own voxels"
EXAMPLES = """\
examples:
  mpidvc ddic im1.tif labels1.tif im2.tif
      every label of image 1, rigid; writes im1-im2-ddic.tsv and .vtk
  mpidvc ddic im1.tif labels1.tif im2.tif -pf im1-im2-registration.tsv -o 3
      from a registration, with cubic splines
  mpidvc ddic im1.tif labels1.tif im2.tif -pf im1-im2-ddic.tsv -skp -m 15 -pre again
      once more the labels that did not converge, with more room to move
  mpidvc ddic im1.tif labels1.tif im2.tif im3.tif im4.tif --warm-start --resume
      a series: every image is compared with im1.tif, from the result of the one before
  mpidvc ddic series.toml
      the states that series.toml lists: [[state]] image = "im1.tif" labels = "labels1.tif"; a state with labels is
      the reference of those that follow it
  mpiexec -n 64 mpidvc ddic im1.tif labels1.tif im2.tif
      on the hosts that the launcher chooses
"""

#: Options that a state of a manifest may have of its own.
MAY_DIFFER = (
    *("margin", "volume_threshold", "non_rigid", "criterion"),
    *("max_iterations", "min_delta_phi", "interpolation_order", "update_gradient"),
)


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "im1",
        help="image 1: a TIFF file, a folder of TIFF slices, or an HDF5 dataset (file.h5::/path); or alone the "
        "manifest of a series (.toml)",
    )
    parser.add_argument(
        "lab1", nargs="?", help="labels of image 1, of its shape: 0 is the background, each grain has a number"
    )
    parser.add_argument("im2", nargs="?", help="image 2")
    parser.add_argument("more", metavar="im3", nargs="*", default=[], help="further states, each compared with image 1")
    labels = parser.add_argument_group("labels")
    options.add_label_dilate(labels)
    labels.add_argument(
        *("-vt", "--volume-threshold"),
        dest="volume_threshold",
        metavar="VOXELS",
        type=int,
        default=100,
        help="skip labels that have no more voxels than this, once dilated (default: %(default)s)",
    )
    labels.add_argument(
        *("-dmo", "--dont-mask-others"),
        dest="dont_mask_others",
        action="store_true",
        help="keep the voxels of other labels that a dilated label takes in",
    )
    start = parser.add_argument_group("first guess")
    options.add_guess(parser, start)
    options.add_stored_f(start, "labels", "rigid")
    start.add_argument(
        *("-skp", "--skip"),
        dest="skip",
        action="store_true",
        help="correlate only labels of -pf whose return status is not 2, and keep the others as they are",
    )
    for short, long, which in (("-regbb", "begin", "first"), ("-regbe", "end", "last")):
        parser.add_own_argument(
            short,
            group=start,
            dest=f"registration_bin_{long}",
            metavar="BIN",
            type=int,
            help=f"register the images as a whole first, as reg does: binning of the {which} level, a power of two "
            f"(default: no registration; {'4' if long == 'begin' else '1'} if the other one is given)",
        )
    options.add_series(parser, update=False)
    start.add_argument(
        *("-m", "-mar", "-margin"),
        dest="margin",
        metavar="N",
        type=int,
        default=5,
        help="voxels by which the window of image 1 reaches beyond the label, and that of image 2 once more "
        "(default: %(default)s)",
    )
    how = parser.add_argument_group("correlation")
    how.add_argument(
        *("-nr", "--non-rigid"),
        dest="non_rigid",
        action="store_true",
        help="measure a whole F, with stretch and shear, instead of a rotation",
    )
    iterations, norm = options.add_iterations(how, min_delta_phi=1e-3)
    parser.add_own_spelling(iterations, "-lci")
    parser.add_own_spelling(norm, "-lcp")
    how.add_argument(
        *("-msb", "--multiscale-binning"),
        dest="multiscale_binning",
        metavar="BIN",
        type=int,
        default=1,
        help="binning of the first level at which a label is correlated, a power of two (default: %(default)s)",
    )
    options.add_criterion(parser, how)
    options.add_sigma(parser)
    output = parser.add_argument_group("output")
    options.add_output(output, fields=False, folder="the labels")
    options.add_results(parser, parser.add_argument_group("results file"))
    run = parser.add_argument_group("running")
    options.add_images(parser, run)
    options.add_run(parser, run)
    options.add_verbose(parser, run)
    run.add_argument(
        *("-d", "--debug"), dest="debug", action="store_true", help="one process, and every label's result is printed"
    )


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    options.check_common(args)
    options.check_sigma(args)
    args.states = None
    if is_manifest(args.im1):
        if args.lab1 is not None:
            raise UserError(f"{args.im1} {args.lab1}: a manifest lists all images; give it alone")
        args.states = read_manifest(args.im1, args, add_options, MAY_DIFFER, labels=True)
        if args.states[0].labels is None:
            raise UserError(f'{args.im1}: state 1: has no labels; write labels = "…"')
    elif args.im2 is None:
        missing = ", ".join(name for name in ("lab1", "im2") if vars(args)[name] is None)
        raise UsageError(f"the following arguments are required: {missing} (see mpidvc ddic --help)")
    n_states = 2 + len(args.more) if args.states is None else len(args.states)
    require(args.volume_threshold >= 0, "-vt", args.volume_threshold, "may not be negative")
    if args.skip and args.phi_file is None:
        raise UserError("-skp needs the field that it continues (-pf)")
    notes = [*options.check_series(args, n_states), *power_of_two(args, "multiscale_binning", "-msb")]
    given = (args.registration_bin_begin, args.registration_bin_end)
    if given != (None, None):
        args.registration_bin_end = 1 if given[1] is None else given[1]
        args.registration_bin_begin = max(4, args.registration_bin_end) if given[0] is None else given[0]
        notes += power_of_two(args, "registration_bin_begin", "-regbb")
        notes += power_of_two(args, "registration_bin_end", "-regbe")
        require(
            args.registration_bin_begin >= args.registration_bin_end,
            "-regbb",
            args.registration_bin_begin,
            f"may not be below -regbe ({args.registration_bin_end})",
        )
        if args.phi_file is not None:
            raise UserError(f"-regbb -regbe and -pf {args.phi_file}: are two first guesses; drop one of them")
        if n_states > 2 and not args.warm_start:
            raise UserError("-regbb: registers the first two images only; add --warm-start, or leave it out")
    if args.debug:
        if args.processes not in (None, 1):
            raise UserError(f"-np {args.processes} -d: -d takes one process; drop one of them")
        args.processes = 1
    # always written, as in spam: no settings of the user
    written = {"tsv": True, "vtk": True, "tif": False}
    vars(args).update(written)
    args.defaults.update(written)
    return notes
