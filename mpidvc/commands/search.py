"""What the runs of pixelSearch and pixelSearchPropagate share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from mpidvc.arrays import Triple
from mpidvc.commands import files
from mpidvc.commands.results import Results
from mpidvc.core.pixel_search import SearchSettings
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import read_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tiff import write_field_tiffs
from mpidvc.fields.vtk import write_grid_vtk, write_points_vtk
from mpidvc.images.fingerprint import fingerprint
from mpidvc.images.image import Image, open_image
from mpidvc.kernels.pixel_search import choose_method, memory_of
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.grey import with_limits
from mpidvc.tasks.placement import Placement, placed

__all__ = [
    "Outputs",
    "determining",
    "open_images",
    "placed_images",
    "search_settings",
    "seconds_of_point",
    "stem_name",
    "write",
]


#: Bytes for one search above which a range is refused.
MOST_MEMORY = 8e9
#: Rough CPU seconds per compared pair of voxels by direct sums, and per point and voxel searched by FFT.
COST_DIRECT, COST_FFT = 3e-11, 4e-8


class Outputs(Protocol):
    """Which files a plan asks for."""

    @property
    def tsv(self) -> bool: ...

    @property
    def tif(self) -> bool: ...

    @property
    def vtk(self) -> bool: ...


class Searched(Protocol):
    """A plan of a search; a frozen dataclass."""

    @property
    def image1(self) -> Image: ...

    @property
    def image2(self) -> Image: ...

    @property
    def mask1(self) -> Image | None: ...

    @property
    def mask2(self) -> Image | None: ...

    @property
    def placement(self) -> Placement | None: ...


P = TypeVar("P", bound=Searched)


@contextmanager
def placed_images(plan: P, executor: Executor, console: Console) -> Iterator[P]:
    """The plan with its images as they are read during the search; collective."""
    images = (plan.image1, plan.image2, plan.mask1, plan.mask2)
    with placed(executor, plan.placement, images, console.note) as ways:
        yield replace(plan, **dict(zip(("image1", "image2", "mask1", "mask2"), ways, strict=True)))  # type: ignore[type-var]


def open_images(args: argparse.Namespace) -> tuple[Image, Image, Image | None, Image | None]:
    """Open both images, which may differ in size, and their masks.

    Raises
    ------
    UserError
        If one cannot be opened, a mask has not its image's shape, or only one image is 2D.
    """
    image1, image2 = with_limits(open_image(args.im1)), with_limits(open_image(args.im2))
    two_d = image1.two_d
    if two_d != (image2.two_d):
        flat, deep = (args.im1, args.im2) if two_d else (args.im2, args.im1)
        raise UserError(f"{flat}: has 2 dimensions but {deep} has 3; both images need the same number")
    return image1, image2, files.open_mask(args.mask1, image1), files.open_mask(args.mask2, image2, 2)


def search_settings(args: argparse.Namespace, hws: Triple, two_d: bool, apply_f: str) -> SearchSettings:
    """The settings of a search.

    Raises
    ------
    UserError
        If its range is too large for any memory.
    """
    ends = args.search_range
    low, high = (ends[0], ends[2], ends[4]), (ends[1], ends[3], ends[5])
    if two_d:
        low, high = (0, *low[1:]), (0, *high[1:])
    if memory_of(hws, low, high) > MOST_MEMORY:
        raise UserError(
            f"-sr {' '.join(map(str, ends))}: one search would take {memory_of(hws, low, high) / 1e9:.0f} GB; take a "
            "smaller range, or images of a coarser binning first"
        )
    return SearchSettings(
        hws,
        low,
        high,
        apply_f,
        args.zero_mean,
        args.mask_coverage,
        args.grey_low_threshold,
        args.grey_high_threshold,
    )


def seconds_of_point(settings: SearchSettings) -> float:
    """Rough CPU seconds of a point."""
    widths = np.array(settings.hws) * 2.0 + 1
    offsets = np.array(settings.high) - np.array(settings.low) + 1.0
    if choose_method(settings.hws, settings.low, settings.high) == "direct":
        return float(np.prod(widths * offsets)) * COST_DIRECT + 5e-5
    return float(np.prod(widths + offsets - 1)) * COST_FFT


def stem_name(args: argparse.Namespace, what: str) -> str:
    """Name of the files that are written, without what follows the stem."""
    name = f"{files.base_name(args.im1)}-{files.base_name(args.im2)}" if args.prefix is None else args.prefix
    return f"{name}-{what}"


def determining(
    command: str,
    image1: Image,
    image2: Image,
    mask1: Image | None,
    mask2: Image | None,
    settings: SearchSettings,
) -> dict[str, Any]:
    """What determines the result of a search, by the names of options where there are such."""
    return {
        "command": command,
        "image 1": fingerprint(image1),
        "image 2": fingerprint(image2),
        "mask (-mf1)": None if mask1 is None else fingerprint(mask1),
        "mask (-mf2)": None if mask2 is None else fingerprint(mask2),
        "-hws": settings.hws,
        "-sr": [end for pair in zip(settings.low, settings.high, strict=True) for end in pair],
        "-F": settings.apply_f,
        "--zero-mean": settings.zero_mean,
        "-mc": settings.min_coverage,
        "-glt": settings.grey_low,
        "-ght": settings.grey_high,
    }


def write(outputs: Outputs, results: Results, hws: Triple, executor: Executor, console: Console) -> None:
    """Write the files of a search from its results file; every rank calls it."""
    if outputs.tsv:
        results.write_tsv("SEARCH")
    if executor.rank == 0 and (outputs.tif or outputs.vtk):
        _write_images(outputs, results.stem, read_hdf5(results.path), hws, console)
    results.close()


def _write_images(outputs: Outputs, stem: Path, field: PhiField, hws: Triple, console: Console) -> None:
    cc = field.columns["pixelSearchCC"]
    if outputs.tif and field.dims is not None:
        axes = [(a, axis) for a, axis in enumerate("ZYX") if hws[a] > 0]
        parts = {f"{axis}disp": field.displacements[:, a] for a, axis in axes}
        write_field_tiffs(stem, field.dims, {**parts, "CC": cc, "returnStatus": field.columns["returnStatus"]})
        console.print(f"Written: {stem}-*.tif")
    if outputs.vtk:
        path = stem.with_name(stem.name + ".vtk")
        shown = {"displacements": field.displacements, "pixelSearchCC": cc}
        if field.dims is not None and field.spacing is not None:
            write_grid_vtk(path, field.dims, field.spacing, field.positions[0] - np.array(hws), shown)
        else:
            write_points_vtk(path, field.positions, shown)
        console.print(f"Written: {path}")
