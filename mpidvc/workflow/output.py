"""The files that a run writes: their names, what is asked for, and whether they may be written."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image
from mpidvc.runtime import journal as journals

__all__ = [
    "Output",
    "base_name",
    "check_files",
    "check_results",
    "field_stem",
    "folder_of",
    "look",
    "make_folder",
    "output_folder",
    "pair_name",
    "pair_stem",
    "results_path",
    "series_stems",
]


@dataclass(frozen=True)
class Output:
    """What a point-wise run writes, and how results are kept.

    Attributes
    ----------
    tsv, tif, vtk : bool
        Files to write from the finished results file.
    keep : bool
        Whether the results file stays when everything else is written.
    resume, overwrite : bool
        What to do with an unfinished results file.
    driver : {"auto", "mpio", "posix", "gather"}
    voxel_size, unit : float, str
        Lengths that ParaView is shown.
    command_line : str
    """

    tsv: bool = True
    tif: bool = False
    vtk: bool = False
    keep: bool = True
    resume: bool = False
    overwrite: bool = False
    driver: str = "auto"
    voxel_size: float = 1.0
    unit: str = "voxel"
    command_line: str = ""

    @classmethod
    def of(cls, args: argparse.Namespace) -> Output:
        """From the options that `add_output` and `add_results` add.

        Raises
        ------
        UserError
            If they contradict each other, or this h5py cannot do what ``--hdf5-driver`` asks for.
        """
        if args.hdf5_driver == "mpio":
            import h5py

            if not h5py.get_config().mpi:
                raise UserError(
                    "--hdf5-driver mpio: this h5py is built without MPI; rebuild it (HDF5_MPI=ON pip install "
                    "--no-binary=h5py h5py), or drop the option: the files are the same"
                )
        if args.resume and args.overwrite:
            raise UserError("--resume --overwrite: one goes on with a run, the other begins again; give one of them")
        return cls(
            tsv=args.tsv,
            tif=args.tif,
            vtk=args.vtk,
            keep=args.h5,
            resume=args.resume,
            overwrite=args.overwrite,
            driver=args.hdf5_driver,
            voxel_size=args.voxel_size,
            unit=args.unit,
            command_line=args.command_line,
        )


def base_name(given: str | Image) -> str:
    """Name of an input without folder and last extension; ``scan-entry-data`` for ``scan.h5::/entry/data``."""
    file, _, dataset = _path(given).partition("::")
    name = Path(file.rstrip("/") or "/").resolve() if file.rstrip("/") in ("", ".", "..") else Path(file)
    return "-".join([name.stem, *(part for part in dataset.split("/") if part)])


def folder_of(given: str | Image, real: bool) -> str:
    """Folder of an input, as the user wrote it; where symbolic links lead if `real`, and they lead elsewhere."""
    file = _path(given).partition("::")[0].rstrip("/") or "/"
    folder = os.path.dirname(file) or "."  # noqa: PTH120
    leads_to = os.path.dirname(os.path.realpath(file))  # noqa: PTH120
    return leads_to if real and os.path.realpath(folder) != leads_to else folder


def _path(given: str | Image) -> str:
    return given if isinstance(given, str) else given.path


def pair_name(args: argparse.Namespace, command: str) -> str:
    """Name of the files of a command with two images, `im1` and `im2`, without what follows the stem."""
    if args.prefix is not None:
        return f"{args.prefix}-{command}"
    return f"{base_name(args.im1)}-{base_name(args.im2)}-{command}"


def pair_stem(args: argparse.Namespace, command: str, beside: str | Image | None = None) -> Path:
    """Stem of the files of a command with two images, `im1` and `im2`, in the folder asked for.

    By default this is the folder of `beside`, or of image 1.

    Raises
    ------
    UserError
        If it cannot be made or written to.
    """
    folder = folder_of(args.im1 if beside is None else beside, real=True)
    return output_folder(args, folder) / pair_name(args, command)


def field_stem(args: argparse.Namespace, name: str, ending: str) -> Path:
    """Stem of the files made from a field of this name, in the folder asked for.

    Raises
    ------
    UserError
        If it cannot be made or written to.
    """
    folder = output_folder(args, folder_of(name, real=False))
    return folder / f"{args.prefix or base_name(name)}-{ending}"


def output_folder(args: argparse.Namespace, default: str) -> Path:
    """Folder for the output: ``-od``, or the default. It is checked, and made by `make_folder` when the run begins.

    Raises
    ------
    UserError
        If it cannot be made or written to, or ``-pre`` leads to another one that is missing.
    """
    folder = Path(default if args.out_dir is None else args.out_dir)
    named = f"-od {folder}" if args.out_dir is not None else f"{folder}"
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        reason = os.strerror(errno.EEXIST if there == folder else errno.ENOTDIR)
        raise UserError(f"{named}: the folder cannot be made ({reason}); choose another by -od")
    if not os.access(there, os.W_OK | os.X_OK):
        if there == folder:
            raise UserError(f"{named}: the folder cannot be written to; choose another by -od")
        raise UserError(f"{named}: the folder cannot be made ({os.strerror(errno.EACCES)}); choose another by -od")
    if args.prefix == "":
        raise UserError('-pre "": is no name; drop it or give one')
    if args.prefix is not None:
        within = Path(os.path.normpath(folder / args.prefix)).parent
        if within != Path(os.path.normpath(folder)) and not within.is_dir():
            raise UserError(f"-pre {args.prefix}: there is no folder {within}; make it, or use -od")
    return folder


def check_files(args: argparse.Namespace, names: Sequence[str], read: Mapping[str, str]) -> None:
    """Check that files asked for by name can be written, and are others than those that are read, and than each other.

    Parameters
    ----------
    args : Namespace
    names : sequence of str
        Of the options, without dashes.
    read : mapping of str to str
        Files that are read, and what is said of one that is among them.

    Raises
    ------
    UserError
        If not.
    """
    taken = {os.path.realpath(path): told for path, told in read.items()}
    for name in names:
        path = getattr(args, name)
        if path is None:
            continue
        told, real = f"--{name} {path}", os.path.realpath(path)
        if Path(real).is_dir():
            raise UserError(f"{told}: is a folder; give the name of a file")
        if not Path(real).parent.is_dir():
            raise UserError(f"{told}: there is no folder {Path(real).parent}; make it")
        if real in taken:
            raise UserError(f"{told}: {taken[real]}; give another file")
        taken[real] = f"is the file of --{name}"


def make_folder(folder: Path) -> None:
    """Make the folder for the output, when the run begins.

    Raises
    ------
    UserError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be made ({error.strerror}); choose another by -od") from None


def series_stems(
    args: argparse.Namespace,
    command: str,
    firsts: Sequence[str | Image],
    seconds: Sequence[str | Image],
    beside: str | Image | None = None,
) -> list[Path]:
    """Stems of the files of each pair of a series, in the folder asked for.

    By default this is the folder of `beside`, or of image 1.

    Raises
    ------
    UserError
        If two pairs would be written to the same files, or the folder cannot be made.
    """
    default = folder_of(firsts[0], real=False) if beside is None else folder_of(beside, real=True)
    folder = output_folder(args, default)
    stems = []
    for first, second in zip(firsts, seconds, strict=True):
        name = f"{base_name(first)}-{base_name(second)}-{command}"
        if args.prefix is not None:
            name = f"{args.prefix}-{command}" if len(seconds) == 1 else f"{args.prefix}-{base_name(second)}-{command}"
        stems.append(folder / name)
    double = next((stem for stem in stems if stems.count(stem) > 1), None)
    if double is not None:
        raise UserError(f"{double}.tsv: two pairs of the series would be written there; give the images distinct names")
    return stems


def results_path(stem: Path) -> Path:
    """The results file of a stem."""
    return stem.with_name(f"{stem.name}.h5")


class Found(NamedTuple):
    """What is there before a run begins.

    Attributes
    ----------
    kind : str
        Of the results file: a value of `mpidvc.runtime.journal.kind_of_file`.
    place : Path
        Place of the journal: that of the results file, or beside it while a finished file is there, which stays.
    begun : str
        Kind of the file there.
    """

    kind: str
    place: Path
    begun: str


def look(path: Path) -> Found:
    """What is at the place of a results file, and at that of the journal; each file is opened once."""
    kind = journals.kind_of_file(path)
    if kind != "finished":
        return Found(kind, path, kind)
    place = path.with_name(f"{path.name}.new")
    return Found(kind, place, journals.kind_of_file(place))


def check_results(stem: Path, output: Output, guess: str | PhiField | None = None) -> None:
    """Check, before anything is done, that a run may write its results file.

    Parameters
    ----------
    stem : Path
        Of the files that will be written.
    output : Output
    guess : str, optional
        The value of ``-pf``.

    Raises
    ------
    UserError
        If another run is writing it, there is an unfinished one and nothing says what to do with it, something else is
        there, or it is `guess`.
    """
    path = results_path(stem)
    state, place, begun = look(path)
    if begun in ("unfinished", "damaged"):
        journals.refuse_in_use(place)
    if begun == "unfinished" and not (output.resume or output.overwrite):
        raise UserError(
            f"{place}: holds the results of an unfinished run; add --resume to go on, or --overwrite to begin again"
        )
    if begun == "damaged" and not (output.resume or output.overwrite):
        raise UserError(f"{place}: is damaged; add --resume to save what can be saved, or --overwrite to begin again")
    if state == "foreign" and not output.overwrite:
        raise UserError(
            f"{path}: is no results file of mpidvc; move it away, choose another name by -pre, or add --overwrite"
        )
    if state == "finished" and isinstance(guess, str) and Path(guess).exists() and path.samefile(guess):
        raise UserError(f"-pf {guess}: is where the results go; choose another name for them by -pre, or rename it")
