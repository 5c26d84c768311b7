"""Other files that an HDF5 dataset takes its values from: HDF5 itself fills in values where one of them is missing."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from mpidvc.errors import UserError
from mpidvc.images.files import check_regular

__all__ = ["check_links", "check_sources", "encoded"]

#: Environment variables with folders in which HDF5 looks first: for linked, virtual and external files.
PREFIXES = ("HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX")


def encoded(name: str) -> str | bytes:
    """Name of a dataset as h5py takes it: a name that is no UTF-8 as bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def check_links(file: Any, dataset: str, name: str) -> None:
    """Check the files that external links on the way to a dataset lead to.

    Parameters
    ----------
    file : h5py.File
    dataset : str
        Name of the dataset.
    name : str
        Name of the image in messages.

    Raises
    ------
    UserError
        If such a file is missing, or is no file.
    """
    import h5py

    parts = [part for part in dataset.split("/") if part]
    for end in range(1, len(parts) + 1):
        try:
            link = file.get(encoded("/".join(parts[:end])), getlink=True)
        except Exception:  # of any kind, for damaged files; opening the dataset says it
            return
        if isinstance(link, h5py.ExternalLink):
            _find(link.filename, file.filename, f"{name}: leads to", True)


def check_sources(dataset: Any, name: str) -> None:
    """Check the files of external and virtual datasets.

    Parameters
    ----------
    dataset : h5py.Dataset
    name : str
        Name of the image in messages.

    Raises
    ------
    UserError
        If a file or dataset is missing or too small, or a virtual dataset is a source of itself.
    """
    _check_external(dataset, name)
    _check_virtual(dataset, name, ())


def _find(file_name: str, holder: str, told: str, beside: bool) -> Path:
    """The file of this name in the places where HDF5 looks: beside its holder, too, if `beside`."""
    folder, file = Path(holder).parent, Path(file_name)
    prefixes = [prefix for name in PREFIXES for prefix in os.environ.get(name, "").split(":") if prefix]
    folders = [Path(prefix.replace("${ORIGIN}", str(folder))) for prefix in prefixes]
    folders += [folder, Path(os.path.realpath(holder)).parent] if beside else []
    places = [file, *(place / file for place in folders)]
    if file.is_absolute():
        places += [place / file.name for place in folders]
    there = [place for place in places if place.exists()]
    if not there:
        raise UserError(f"{told} {file_name}, which does not exist; restore it, or export the volume again")
    for place in there:
        check_regular(str(place), f"{told} {place}")
    return there[0]


def _check_external(dataset: Any, name: str) -> None:
    """HDF5 takes zeros for values behind the end of a file."""
    left = math.prod(dataset.shape) * dataset.dtype.itemsize
    for file_name, offset, size in dataset.external or ():
        place = _find(file_name, dataset.file.filename, f"{name}: takes its values from", False)
        needed = min(left, size)
        if offset + needed > place.stat().st_size:
            raise UserError(f"{name}: takes its values from {place}, which is truncated; copy or export it again")
        left -= needed


def _check_virtual(dataset: Any, name: str, above: tuple[tuple[str, str], ...]) -> None:
    """HDF5 takes the fill value for what is missing, and recurses until it crashes where a source takes from itself.

    Parameters
    ----------
    dataset : h5py.Dataset
    name : str
    above : tuple of pairs of str
        File and name of the virtual datasets that this one is a source of.
    """
    import h5py

    if not dataset.is_virtual:
        return
    here = dataset.file.filename
    above = (*above, (os.path.realpath(here), dataset.name))
    checked = set()
    for source in dataset.virtual_sources():
        # "%b" stands for the numbers of blocks; HDF5 ends the dataset before the first one that is missing
        if "%b" in source.file_name + source.dset_name:
            continue
        file_name, source_name = source.file_name.replace("%%", "%"), source.dset_name.replace("%%", "%")
        reach = _reach(source)
        if (file_name, source_name, reach) in checked:
            continue
        checked.add((file_name, source_name, reach))
        place = here if file_name == "." else str(_find(file_name, here, f"{name}: takes voxels from", True))
        told = f"{name}: takes voxels from {place}::{source_name}, which"
        with h5py.File(place, "r") as file:
            check_links(file, source_name, name)
            part = file.get(encoded(source_name))
            if not isinstance(part, h5py.Dataset):
                raise UserError(f"{told} is no dataset; restore it, or export the volume again")
            if (os.path.realpath(part.file.filename), part.name) in above:
                raise UserError(f"{told} takes them from the same dataset; export the volume again")
            if not _reaches(part.shape, reach):
                raise UserError(f"{told} has another shape, {part.shape}; restore it, or export the volume again")
            _check_external(part, name)
            _check_virtual(part, name, above)


def _reach(source: Any) -> int | tuple[int, ...] | None:
    """Last voxel that is taken from a source, or number of voxels where all are; None if as many as there are."""
    import h5py

    try:
        if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
            return int(source.vspace.get_select_npoints())
        return tuple(map(int, source.src_space.get_select_bounds()[1]))
    except (ValueError, RuntimeError):  # a selection without an end
        return None


def _reaches(shape: tuple[int, ...], reach: int | tuple[int, ...] | None) -> bool:
    """Whether a source of this shape has all voxels that are taken from it."""
    if reach is None:
        return True
    if isinstance(reach, int):
        return math.prod(shape) == reach
    return len(shape) == len(reach) and all(last < n for last, n in zip(reach, shape, strict=True))
