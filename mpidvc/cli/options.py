"""The options that several commands share, and the checks of them that need no file."""

from __future__ import annotations

import argparse
import math
from typing import Any

from mpidvc.cli.parser import Group, Parser, add_triple
from mpidvc.errors import UserError
from mpidvc.runtime.memory import parse_size

__all__ = [
    "Once",
    "add_adaptive",
    "add_correlation",
    "add_criterion",
    "add_field_run",
    "add_grey_thresholds",
    "add_grid",
    "add_guess",
    "add_images",
    "add_iterations",
    "add_label_dilate",
    "add_margin",
    "add_mask",
    "add_neighbours",
    "add_output",
    "add_phi_file",
    "add_run",
    "add_search_range",
    "add_searched_labels",
    "add_series",
    "add_sigma",
    "add_stored_f",
    "add_verbose",
    "add_voxel_size",
    "add_zero_mean",
    "as_given",
    "check_adaptive",
    "check_common",
    "check_grid",
    "check_outputs",
    "check_series",
    "check_sigma",
    "image_mode",
    "neighbour_notes",
    "power_of_two",
    "require",
]


#: Half-window size of the smallest windows that are chosen, where none is given.
SMALLEST_WINDOW = 5


def _truncated(text: str) -> int:
    try:
        return int(float(text))
    except OverflowError:
        raise ValueError from None


_truncated.__name__ = "number"


class Once(argparse.Action):
    """Store a file that is an argument or an option, from the one place where it is given."""

    #: What it is, in messages.
    what = "field"

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values is None:
            return
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"the {self.what} is given twice: {getattr(namespace, self.dest)} and {values}")
        setattr(namespace, self.dest, values)


def add_mask(group: Group, image: int = 1) -> None:
    """Add ``-mf1``: `mask1`; for image 2 ``-mf2``: `mask2`."""
    group.add_argument(
        *(f"-mf{image}", f"--maskFile{image}"),
        dest=f"mask{image}",
        metavar="FILE",
        help=f"mask of image {image}, of its shape: voxels where it is 0 do not take part",
    )


def add_guess(parser: Parser, group: Group, fields: bool = True) -> None:
    """Add ``-pf`` and ``-pfb``: `phi_file`, `phi_file_bin_ratio`; `fields`: whether a field may be the guess."""
    kinds = "the registration that a previous reg wrote (.tsv)"
    if fields:
        kinds = (
            "a file written by a previous command (.h5 or .tsv). From reg: one Phi for all nodes of -ns. From a search "
            "or ldic: the nodes of that file with their displacements (and F, which a search does not find) take the "
            "place of the grid, and -ns may be left out. From a text made by hand: positions and displacements"
        )
    add_phi_file(
        parser,
        group,
        f"first guess: {kinds}",
        "binning of the images of -pf divided by that of these images; positions and displacements of the guess are "
        "multiplied by it",
    )


def add_phi_file(parser: Parser, group: Group, meaning: str, ratio: str | None = None, **more: Any) -> None:
    """Add ``-pf`` and ``-pfb``: `phi_file`, `phi_file_bin_ratio`; their help, and more about ``-pf`` for argparse.

    Without the help of ``-pfb`` it is not added.
    """
    action = group.add_argument(*("-pf", "-phiFile"), dest="phi_file", metavar="FILE", help=meaning, **more)
    parser.add_own_spelling(action, "--phiFile")
    if ratio is None:
        return
    group.add_argument(
        *("-pfb", "--phiFile-bin-ratio"),
        dest="phi_file_bin_ratio",
        metavar="RATIO",
        type=float,
        default=1.0,
        help=f"{ratio} (default: %(default)s)",
    )


def add_neighbours(group: Group, radius: str, number: str) -> None:
    """Add ``-nr`` and ``-nn``: `neighbourhood_radius`, `number_of_neighbours`, each or None; their help."""
    group.add_argument(
        *("-nr", "--neighbourhood-radius-px"), dest="neighbourhood_radius", metavar="VOXELS", type=float, help=radius
    )
    group.add_argument(
        *("-nn", "--number-of-neighbours"), dest="number_of_neighbours", metavar="N", type=int, help=number
    )


def add_grid(group: Group, spacing: str = "", window: str = "") -> None:
    """Add ``-ns``, ``-ns3``, ``-hws``, ``-hws3``: `node_spacing`, `half_window_size`, each None or (z, y, x).

    Parameters
    ----------
    group : argument group
    spacing, window : str
        What None stands for, for the help; "" where they have to be given.
    """
    add_triple(
        group,
        "node_spacing",
        ("-ns", "--node-spacing"),
        ("-ns3", "--node-spacing-3"),
        "distance of the nodes, in voxels; small distances cost time, and windows that overlap share their voxels"
        + (spacing and f" (default: {spacing})"),
    )
    add_triple(
        group,
        "half_window_size",
        ("-hws", "--half-window-size"),
        ("-hws3", "--half-window-size-3"),
        "distance from the node to the sides of its window, in voxels: ldic compares 2 N - 1 voxels along each axis, a "
        "search 2 N + 1" + (window and f" (default: {window})"),
    )


def add_margin(group: Group, long: str, default: int | None, meaning: str) -> None:
    """Add ``-m`` and ``-m3``: `margin`, None or (z, y, x).

    Parameters
    ----------
    group : argument group
    long : str
        The long spelling, which spam writes with one dash or two.
    default : int, optional
        For all axes.
    meaning : str
        For the help.
    """
    spread = None if default is None else (default,) * 3
    add_triple(group, "margin", ("-m", "-mar", long), ("-m3", "-mar3", f"{long}3"), meaning, _truncated, spread)


def add_grey_thresholds(group: Group) -> None:
    """Add ``-glt``, ``-ght``, ``-mc``: `grey_low_threshold`, `grey_high_threshold`, `mask_coverage`."""
    group.add_argument(
        *("-glt", "--grey-low-threshold"),
        dest="grey_low_threshold",
        metavar="GREY",
        type=float,
        default=-math.inf,
        help="skip windows whose mean grey level in image 1 is not above this (default: %(default)s)",
    )
    group.add_argument(
        *("-ght", "--grey-high-threshold"),
        dest="grey_high_threshold",
        metavar="GREY",
        type=float,
        default=math.inf,
        help="skip windows whose mean grey level in image 1 is not below this (default: %(default)s)",
    )
    group.add_argument(
        *("-mc", "--mask-coverage"),
        dest="mask_coverage",
        metavar="FRACTION",
        type=float,
        default=0.5,
        help="skip windows of which less than this fraction is inside image 1 and not masked (default: %(default)s)",
    )


def add_correlation(group: Group, min_delta_phi: float) -> None:
    """Add ``-rig``, ``-it``, ``-dp``, ``-o``, ``-ug``, ``-shift``.

    Their names: `rigid`, `max_iterations`, `min_delta_phi`, `interpolation_order`, `update_gradient`, `shift`.
    """
    group.add_argument(*("-rig", "--rigid"), dest="rigid", action="store_true", help="translation and rotation only")
    add_iterations(group, min_delta_phi)
    group.add_argument(
        *("-shift", "--shift"),
        dest="shift",
        action="store_true",
        help="sample both images at points moved by a quarter of a voxel, alternately to and fro, before comparing",
    )


def add_iterations(group: Group, min_delta_phi: float) -> tuple[argparse.Action, argparse.Action]:
    """Add ``-it``, ``-dp``, ``-o``, ``-ug``; return the first two, which may have other spellings.

    Their names: `max_iterations`, `min_delta_phi`, `interpolation_order`, `update_gradient`.
    """
    most = group.add_argument(
        *("-it", "--max-iterations"),
        dest="max_iterations",
        metavar="N",
        type=int,
        default=50,
        help="greatest number of iterations (default: %(default)s)",
    )
    least = group.add_argument(
        *("-dp", "--min-delta-phi"),
        dest="min_delta_phi",
        metavar="NORM",
        type=float,
        default=min_delta_phi,
        help="converged when the norm of the change of Phi is not above this (default: %(default)s)",
    )
    group.add_argument(
        *("-o", "--interpolation-order"),
        dest="interpolation_order",
        type=int,
        choices=(1, 3),
        default=1,
        help="interpolation of image 2: 1 linear, 3 cubic spline (default: %(default)s)",
    )
    group.add_argument(
        *("-ug", "--update-gradient"),
        dest="update_gradient",
        action="store_true",
        help="take the gradient of the deformed image 2 in every iteration, instead of that of image 1 once",
    )
    return most, least


def add_stored_f(group: Group, points: str, default: str) -> None:
    """Add the ``-F`` of a correlation: `apply_F`.

    Parameters
    ----------
    group : argument group
    points : str
        What the points are called.
    default : {"all", "rigid", "no"}
    """
    group.add_argument(
        *("-F", "--apply-F"),
        dest="apply_F",
        choices=("all", "rigid", "no"),
        default=default,
        help=f"what the {points} start with of the F of a registration given by -pf: all, its rotation, or the "
        "identity; displacements are always those of the whole Phi; fields are taken as they are (default: "
        "%(default)s)",
    )


def add_series(parser: Parser, update: bool) -> None:
    """Add our ``--warm-start``: `warm_start`; if `update` also ``--update-reference``: `update_reference`."""
    group = parser.add_argument_group("series")
    parser.add_own_argument(
        "--warm-start",
        group=group,
        dest="warm_start",
        action="store_true",
        help="start every state from the result of the state before; -pf is the first guess of the first one",
    )
    if update:
        parser.add_own_argument(
            "--update-reference",
            group=group,
            dest="update_reference",
            action="store_true",
            help="measure a state again from the last good state, which becomes the reference, where the median ZNCC "
            "falls below 0.8 or fewer than 90%% of the windows converge; the nodes move with the material, and the "
            "total displacements since the first image are written besides (*-total); includes --warm-start",
        )


def add_label_dilate(group: Group, more: str = "") -> None:
    """Add ``-ld``: `label_dilate`; `more` goes into its help."""
    group.add_argument(
        *("-ld", "--label-dilate"),
        dest="label_dilate",
        metavar="N",
        type=int,
        default=1,
        help="dilate labels by a ball of this radius in voxels, or erode them if it is negative, to choose the voxels "
        f"that are compared{more} (default: %(default)s)",
    )


def add_searched_labels(group: Group, meaning: str) -> None:
    """Add ``-lab1`` and ``-ld`` of a pixel search: `labels1`, `label_dilate`; `meaning` goes into the help."""
    group.add_argument(
        *("-lab1", "--labelledFile1"),
        dest="labels1",
        metavar="FILE",
        help=f"labels of image 1, of its shape: 0 is the background, each grain has a number. {meaning}; masks, grey "
        "levels, -ns and -hws have no meaning then",
    )
    add_label_dilate(group, "; -sr is wider by twice a dilation at each end")


def add_criterion(parser: Parser, group: Group) -> None:
    """Add our ``--criterion``: `criterion`."""
    parser.add_own_argument(
        "--criterion",
        group=group,
        choices=("auto", "ssd", "znssd"),
        default="auto",
        help="what is minimised: ssd compares grey levels, znssd allows for another brightness and contrast, auto "
        "takes ssd if mean and standard deviation of both images agree (default: %(default)s)",
    )


def add_sigma(parser: Parser) -> None:
    """Add our ``--sigma``, ``--noise-from``, ``--noise-mask``: `sigma`, `noise_from`, `noise_mask`."""
    group = parser.add_argument_group("random errors")
    parser.add_own_argument(
        "--sigma",
        group=group,
        action="store_true",
        help="the random error (one standard deviation) of the displacement and of F of every point that converges, "
        "from the noise of the images: columns sigmaZdisp ... sigmaFxx (voxels) and noise (grey levels) in the results "
        "file",
    )
    parser.add_own_argument(
        "--noise-from",
        group=group,
        metavar="FILE",
        help="take the noise from this results file (.h5), of mpidvc ldic --sigma for two scans of the same state. It "
        "is better than the residual of the run itself, which also holds what the windows cannot follow",
    )
    parser.add_own_argument(
        "--noise-mask",
        group=group,
        metavar="FILE",
        help="take the noise from image 1 where this mask, of its shape, is not 0: a uniform region, such as air",
    )


def add_adaptive(parser: Parser) -> None:
    """Add our ``--adaptive``, ``--adaptive-from``: `adaptive`, `adaptive_from`."""
    group = parser.add_argument_group("windows per point")
    parser.add_own_argument(
        "--adaptive",
        group=group,
        metavar="SIGMA",
        type=float,
        help="every node gets the smallest window, from --adaptive-from to -hws, whose predicted random error of the "
        "displacement is at most SIGMA voxels; where -pf is a field, no window smooths more than SIGMA away of it, and "
        "this comes first. It turns --sigma on. Columns halfWindowSize, and windowLimit: 0 the error is met, 1 not "
        "even with the largest window, 2 not because of the curvature of the field",
    )
    parser.add_own_argument(
        "--adaptive-from",
        group=group,
        metavar="N",
        type=int,
        help=f"half-window size of the smallest window of --adaptive (default: {SMALLEST_WINDOW})",
    )


def check_adaptive(args: argparse.Namespace) -> None:
    """Check the options of `add_adaptive`, and settle their defaults; ``--adaptive`` turns ``--sigma`` on.

    Raises
    ------
    UserError
        If they contradict others.
    """
    target, least = args.adaptive, args.adaptive_from
    if target is None:
        require(least is None, "--adaptive-from", least, "is of --adaptive; add it, or drop this")
        return
    require(0 < target < math.inf, "--adaptive", target, "has to be above 0 and finite, in voxels")
    # whether it is that of a cube, the images tell: z does not count in 2D
    largest = args.half_window_size[-1]
    args.adaptive_from = least = min(SMALLEST_WINDOW, largest) if least is None else least
    told = f"has to be from 2 to -hws, which is {largest}: the largest window of --adaptive"
    require(2 <= least <= largest, "--adaptive-from", least, told)
    if args.start_from == "neighbours":
        raise UserError("--adaptive --start-from neighbours: windows of neighbours differ in size; drop one of them")
    if args.shift:
        raise UserError("-shift --adaptive: samples between the voxels have another noise; drop one of them")
    args.sigma = True


def add_known_noise(group: Group) -> None:
    """Add ``--noise-mask`` and ``--noise``, by which the noise of an image is known: `noise_mask`, `noise`."""
    group.add_argument(
        "--noise-mask",
        metavar="FILE",
        help="mask of image 1, of its shape: the noise is that of the voxels where it is not 0, of a uniform material "
        "or of air",
    )
    group.add_argument(
        "--noise",
        metavar="GREY",
        type=float,
        help="standard deviation of the noise of an image in grey levels, if it is independent from voxel to voxel: "
        "that of tomograms is not",
    )


def check_known_noise(args: argparse.Namespace) -> bool:
    """Check that the noise is known from one source at most: ``--repeat``, or those of `add_known_noise`.

    Returns
    -------
    bool
        Whether it is known from one.

    Raises
    ------
    UserError
        If it is known from several, or is none.
    """
    require(args.noise is None or 0 < args.noise < math.inf, "--noise", args.noise, "has to be above 0 and finite")
    given = [name for name in ("repeat", "noise_mask", "noise") if getattr(args, name) is not None]
    if len(given) > 1:
        first, second = (f"--{name.replace('_', '-')}" for name in given[:2])
        raise UserError(f"{first} and {second}: the noise is known from one of them; drop the other")
    return bool(given)


def check_sigma(args: argparse.Namespace) -> None:
    """Check that a source of the noise is used, and that there is one.

    Raises
    ------
    UserError
        If not.
    """
    for option, value in (("--noise-from", args.noise_from), ("--noise-mask", args.noise_mask)):
        require(value is None or args.sigma, option, value, "tells the noise for --sigma; add --sigma, or drop it")
    if args.noise_from is not None and args.noise_mask is not None:
        raise UserError("--noise-from --noise-mask: the noise comes from one of them; drop the other")
    if args.sigma and vars(args).get("shift"):
        raise UserError("-shift --sigma: samples between the voxels have another noise; drop one of them")


def add_output(
    group: Group,
    fields: bool,
    no_tsv: str = "--noTSV",
    folder: str = "the first image",
    named: str = "the names of the images",
) -> None:
    """Add ``-od``, ``-pre``: `out_dir`, `prefix`; fields also ``-vtk``, ``-notsv``, ``-tif``: `vtk`, `tsv`, `tif`.

    Parameters
    ----------
    group : argument group
    fields : bool
        Whether the command writes fields.
    no_tsv : str
        The long spelling of ``-notsv``, which differs among spam's commands.
    folder : str
        The file in whose folder they are by default.
    named : str
        What their names begin with by default.
    """
    group.add_argument(
        *("-od", "--out-dir"),
        dest="out_dir",
        metavar="DIR",
        help=f"where to write; made if missing (default: the folder of {folder})",
    )
    group.add_argument(
        *("-pre", "--prefix"),
        dest="prefix",
        metavar="PREFIX",
        help=f"how the names of the files written begin (default: {named})",
    )
    if fields:
        group.add_argument(*("-vtk", "--VTKout"), dest="vtk", action="store_true", help="write a VTK file")
        group.add_argument(*("-notsv", no_tsv), dest="tsv", action="store_false", help="do not write a TSV file")
        group.add_argument(
            *("-tif", "-tiff", "--TIFFout", "--TIFout"),
            dest="tif",
            action="store_true",
            help="write TIFF files, one for each component",
        )


def add_plot(parser: Parser, group: Group, drawn: str, needs: str = "matplotlib") -> None:
    """Add our ``--plot``: `plot`; `drawn` says what the picture shows."""
    parser.add_own_argument(
        "--plot",
        group=group,
        metavar="FILE",
        help=f"draw the middle slices of {drawn} into this file (PNG); needs {needs}",
    )


def add_results(parser: Parser, group: Group) -> None:
    """Add our ``--resume``, ``--overwrite``, ``-noh5``, ``--hdf5-driver``, and those of `add_voxel_size`.

    Their names: `resume`, `overwrite`, `h5`, `hdf5_driver`.
    """
    parser.add_own_argument(
        "--resume",
        group=group,
        action="store_true",
        help="go on with an interrupted run, on any number of processes; begin where there is none",
    )
    parser.add_own_argument(
        "--overwrite", group=group, action="store_true", help="begin again though there is an interrupted run"
    )
    parser.add_own_argument(
        "-noh5",
        group=group,
        dest="h5",
        action="store_false",
        help="remove the results file (.h5) and what tells of the run (.run.json) when everything else is written",
    )
    parser.add_own_argument(
        "--hdf5-driver",
        group=group,
        choices=("auto", "mpio", "posix", "gather"),
        default="auto",
        help="who writes the results file: every process its part, through parallel HDF5 (mpio) or without it (posix), "
        "or one process (gather); the bytes are the same. auto: posix, but gather on network file systems "
        "that several hosts do not see alike, such as NFS (default: %(default)s)",
    )
    add_voxel_size(parser, group)


def add_voxel_size(parser: Parser, group: Group) -> None:
    """Add our ``--voxel-size`` and ``--unit``: `voxel_size`, `unit`."""
    parser.add_own_argument(
        "--voxel-size",
        group=group,
        dest="voxel_size",
        metavar="SIZE",
        type=float,
        default=1.0,
        help="edge of a voxel: lengths that ParaView shows of the results file (.h5) are multiples of it; "
        "all other numbers stay in voxels (default: 1)",
    )
    parser.add_own_argument(
        "--unit",
        group=group,
        metavar="NAME",
        default="voxel",
        help="unit of --voxel-size, noted in the results file, for example mm (default: %(default)s)",
    )


def add_search_range(group: Group) -> None:
    """Add ``-sr``: `search_range`, (z-, z+, y-, y+, x-, x+)."""
    group.add_argument(
        *("-sr", "--search-range"),
        dest="search_range",
        metavar=("Z-", "Z+", "Y-", "Y+", "X-", "X+"),
        nargs=6,
        type=int,
        default=[-3, 3, -3, 3, -3, 3],
        help="where to search about the rounded first guess, in voxels, both ends included; 2D images need all six "
        "numbers too, but Z- Z+ do not count (default: -3 3 -3 3 -3 3)",
    )


def add_zero_mean(parser: Parser, group: Group) -> None:
    """Add our ``--zero-mean``: `zero_mean`."""
    parser.add_own_argument(
        "--zero-mean",
        group=group,
        dest="zero_mean",
        action="store_true",
        help="take the means off before windows are compared, which tells windows of low contrast on a high grey level "
        "apart (default: not, as in spam)",
    )


def add_images(parser: Parser, group: Group) -> None:
    """Add ``-lazy`` and our ``--image-mode``, ``--memory``: `lazy`, `image_mode`, `memory`."""
    group.add_argument(
        *("-lazy", "--lazy-load"),
        dest="lazy",
        action="store_true",
        help="the same as --image-mode mapped",
    )
    parser.add_own_argument(
        "--image-mode",
        group=group,
        dest="image_mode",
        choices=("auto", "shared", "mapped", "boxes"),
        help="how images are read: shared copies them to memory once for all processes of a node, mapped maps their "
        "files, boxes reads part by part what is larger than memory; auto decides by their size and storage; the "
        "results are the same (default: auto)",
    )
    parser.add_own_argument(
        "--memory",
        group=group,
        metavar="SIZE",
        help="memory that all processes of a node may use together, for instance 500M or 16G (default: 80%% of the "
        "least of what is available, the control group's limit and the scheduler's)",
    )


def image_mode(args: argparse.Namespace) -> str:
    """How images shall be read: ``auto``, ``shared``, ``mapped`` or ``boxes``."""
    return args.image_mode or ("mapped" if args.lazy else "auto")


def add_run(parser: Parser, group: Group, spam_has_processes: bool = True) -> None:
    """Add ``-np`` and our ``--log``: `processes`, `log`.

    Parameters
    ----------
    parser : Parser
    group : argument group
    spam_has_processes : bool
        Whether ``-np`` is an option of spam's command, and so may be abbreviated.
    """
    settings: dict[str, Any] = {
        "dest": "processes",
        "metavar": "N",
        "type": int,
        "help": "number of processes on this host; ignored under mpiexec and srun (default: all CPUs this process may "
        "use, one for a job of seconds)",
    }
    names = ("-np", "--number-of-processes")
    if spam_has_processes:
        group.add_argument(*names, **settings)
    else:
        parser.add_own_argument(*names, group=group, **settings)
    parser.add_own_argument(
        "--log", group=group, metavar="FILE", help="add everything that is printed to this file, with the time"
    )


def add_verbose(parser: Parser, group: Group) -> None:
    """Add our ``--verbose``: `all_settings`."""
    parser.add_own_argument(
        "--verbose",
        group=group,
        dest="all_settings",
        action="store_true",
        help="print all settings, instead of those that differ from the defaults; the file of --log has them always",
    )


def add_field_run(
    parser: Parser, no_tsv: str = "--noTSV", spam_has_processes: bool = True, source: str | None = None
) -> Group:
    """Add the groups of a command that writes fields: ``output``, which is returned, ``results file``, ``running``.

    Parameters
    ----------
    parser : Parser
    no_tsv : str
        As in `add_output`.
    spam_has_processes : bool
        As in `add_run`.
    source : str, optional
        The field that the command reads instead of images.
    """
    output = parser.add_argument_group("output")
    if source is None:
        add_output(output, fields=True, no_tsv=no_tsv)
    else:
        add_output(output, fields=True, no_tsv=no_tsv, folder=source, named=f"the name of {source}")
    add_results(parser, parser.add_argument_group("results file"))
    run = parser.add_argument_group("running")
    if source is None:
        add_images(parser, run)
    add_run(parser, run, spam_has_processes)
    add_verbose(parser, run)
    return output


def as_given(option: str, value: object) -> str:
    """An option with its value; a size (z, y, x) as one number for all axes, or one for each."""
    if isinstance(value, tuple):
        option, value = (option, value[:1]) if len({*value}) == 1 else (f"{option}3", value)
    shown = " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return f"{option} {shown}".strip()


def power_of_two(args: argparse.Namespace, name: str, option: str) -> list[str]:
    """Round a binning to a power of two; return a note for the user if that changes it.

    Raises
    ------
    UserError
        If it is below 1.
    """
    binning = getattr(args, name)
    require(binning >= 1, option, binning, "has to be at least 1")
    power = 2 ** round(math.log2(binning))
    setattr(args, name, power)
    return [f"{option} {binning} is not a power of two, using {power}"] if power != binning else []


def require(condition: bool, option: str, value: object, rule: str) -> None:
    """Raise the `UserError` ``option value: rule`` unless the condition holds."""
    if not condition:
        raise UserError(f"{as_given(option, value)}: {rule}")


def check_common(args: argparse.Namespace) -> None:
    """Check what needs no file of the shared options that `args` holds.

    The first axis of sizes and spacings may be 0 here, as it does not count in 2D.

    Raises
    ------
    UserError
        Names the option, its value and the rule.
    """
    given = vars(args)

    def check(name: str, option: str, good: Any, rule: str) -> None:
        if given.get(name) is not None:
            require(good(given[name]), option, given[name], rule)

    def at_least_one(size: tuple[int, int, int]) -> bool:
        return size[0] >= 0 and min(size[1:]) >= 1

    def not_negative(margin: int | tuple[int, int, int]) -> bool:
        return (margin if isinstance(margin, int) else min(margin)) >= 0

    check("node_spacing", "-ns", at_least_one, "has to be at least 1")
    check("half_window_size", "-hws", at_least_one, "has to be at least 1")
    check(
        "margin", "-m", lambda margin: (margin if isinstance(margin, int) else min(margin)) >= 0, "may not be negative"
    )
    check(
        "search_range",
        "-sr",
        lambda r: all(low <= high for low, high in zip(r[::2], r[1::2], strict=True)),
        "the lower end of a range is above its upper end; give Z- Z+ Y- Y+ X- X+",
    )
    check("max_iterations", "-it", lambda n: n >= 0, "may not be negative")
    check("min_delta_phi", "-dp", lambda norm: not math.isnan(norm), "is not a number")
    check("mask_coverage", "-mc", lambda fraction: 0 <= fraction <= 1, "has to be between 0 and 1")
    check("phi_file_bin_ratio", "-pfb", lambda ratio: 0 < ratio < math.inf, "has to be above 0 and finite")
    check("unit", '--unit ""', lambda unit: unit != "", "is no name")
    check("voxel_size", "--voxel-size", lambda size: 0 < size < math.inf, "has to be above 0 and finite")
    check("neighbourhood_radius", "-nr", lambda radius: 0 < radius < math.inf, "has to be above 0 and finite")
    check("number_of_neighbours", "-nn", lambda number: number >= 1, "has to be at least 1")
    check("processes", "-np", lambda n: n >= 1, "at least one process is needed")
    check("out_dir", '-od ""', lambda folder: folder != "", "is no folder")
    check("grey_low_threshold", "-glt", lambda grey: not math.isnan(grey), "is not a number")
    check("grey_high_threshold", "-ght", lambda grey: not math.isnan(grey), "is not a number")
    if given.get("memory") is not None:
        parse_size(args.memory)
    if given.get("lazy") and args.image_mode not in (None, "mapped"):
        raise UserError(f"-lazy: is --image-mode mapped, but --image-mode {args.image_mode} is given; drop one of them")
    if "grey_low_threshold" in given:
        require(
            args.grey_low_threshold < args.grey_high_threshold,
            "-glt",
            args.grey_low_threshold,
            f"has to be below -ght ({args.grey_high_threshold}), or no window is left",
        )


def neighbour_notes(args: argparse.Namespace) -> list[str]:
    """A note for the user where both options of `add_neighbours` are given."""
    radius, number = args.neighbourhood_radius, args.number_of_neighbours
    if radius is None or number is None:
        return []
    return [f"-nr {radius:g} and -nn {number} are given: the radius counts"]


def check_grid(args: argparse.Namespace) -> None:
    """Check that there are windows, and nodes or a field.

    Raises
    ------
    UserError
        If not.
    """
    if args.half_window_size is None:
        raise UserError("the size of the windows is missing: give -hws or -hws3")
    field = ", or a field by -pf" if "phi_file" in args else ""
    if args.node_spacing is None and not (field and args.phi_file is not None):
        raise UserError(f"the distance of the nodes is missing: give -ns or -ns3{field}")


def check_series(args: argparse.Namespace, n_states: int) -> list[str]:
    """Check the options of `add_series` for a series of so many states; return notes for the user.

    Raises
    ------
    UserError
        If they contradict others.
    """
    update = bool(vars(args).get("update_reference"))
    named = "--update-reference" if update else "--warm-start"
    if update and args.series_incremental:
        raise UserError("-sei --update-reference: with -sei every state is the reference of the next; drop one of them")
    args.warm_start |= update
    if args.warm_start and args.skip:
        raise UserError(f"-skp {named}: -skp keeps the points of one field, a series measures all; drop one of them")
    return [f"{named} has no meaning for two images"] if args.warm_start and n_states == 2 else []


def check_outputs(args: argparse.Namespace, grid: bool = True) -> None:
    """Check that something will be written; TIFF files need a grid.

    Raises
    ------
    UserError
        If not.
    """
    if not (args.tsv or args.vtk or args.h5 or (args.tif and grid)):
        raise UserError("-notsv -noh5: without -tif or -vtk nothing would be written; drop one or add one of these")
