"""Settings, files, costs and summaries of pixel searches."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mpidvc.arrays import Ints, Triple
from mpidvc.core.pixel_search import LabelSearchSettings, SearchSettings
from mpidvc.core.statuses import Status
from mpidvc.errors import UserError
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.kernels.pixel_search import choose_method, memory_of
from mpidvc.runtime.console import Console
from mpidvc.workflow.determines import fingerprints
from mpidvc.workflow.inputs import by, open_search_pair
from mpidvc.workflow.labels import open_labels
from mpidvc.workflow.write import FieldFiles

__all__ = [
    "FILES",
    "LABEL_FILES",
    "LABEL_LESS",
    "LESS",
    "UNUSED_WITH_LABELS",
    "label_search_options",
    "label_search_settings",
    "open_label_pair",
    "refuse_huge_labels",
    "search_options",
    "search_settings",
    "seconds_of_labels",
    "seconds_of_point",
    "show_search",
]

#: Files of a search.
FILES = FieldFiles("SEARCH", {"CC": "pixelSearchCC", "returnStatus": "returnStatus"}, ("pixelSearchCC",))

#: The same of labels.
LABEL_FILES = replace(FILES, tif={}, magnitude=True)
#: Options without a meaning for labels, by the names of their values, as in spam.
UNUSED_WITH_LABELS = {
    "node_spacing": "-ns",
    "half_window_size": "-hws",
    "mask1": "-mf1",
    "mask2": "-mf2",
    "mask_coverage": "-mc",
    "grey_low_threshold": "-glt",
    "grey_high_threshold": "-ght",
}

#: Things that a user can make smaller where there is not enough memory.
LESS = "smaller windows or ranges (-hws, -sr)"
LABEL_LESS = "a smaller range (-sr)"
#: Bytes for one search above which a range is refused.
MOST_MEMORY = 8e9
#: Rough CPU seconds per compared pair of voxels by direct sums and by those over blocks, and per point and voxel
#: searched by FFT.
COST_DIRECT, COST_SCREENED, COST_FFT = 3e-11, 5e-12, 4e-8


def _range(ends: list[int], two_d: bool, wider: int = 0) -> tuple[Triple, Triple]:
    """First and last offset of a search, from ``-sr``, made wider by so many voxels; 0 along z in 2D."""
    low = (ends[0] - wider, ends[2] - wider, ends[4] - wider)
    high = (ends[1] + wider, ends[3] + wider, ends[5] + wider)
    return ((0, *low[1:]), (0, *high[1:])) if two_d else (low, high)


def search_settings(args: argparse.Namespace, hws: Triple, two_d: bool, apply_f: str) -> SearchSettings:
    """The settings of a search.

    Raises
    ------
    UserError
        If its range is too large for any memory.
    """
    ends = args.search_range
    low, high = _range(ends, two_d)
    if memory_of(hws, low, high) > MOST_MEMORY:
        raise UserError(
            f"-sr {' '.join(map(str, ends))}: one search would take {memory_of(hws, low, high) / 1e9:.0f} GB; take a "
            "smaller range, or images of a coarser binning first"
        )
    return SearchSettings(
        hws=hws,
        low=low,
        high=high,
        apply_f=apply_f,
        zero_mean=args.zero_mean,
        min_coverage=args.mask_coverage,
        grey_low=args.grey_low_threshold,
        grey_high=args.grey_high_threshold,
    )


def seconds_of_point(settings: SearchSettings) -> float:
    """Rough CPU seconds of a point."""
    widths = np.array(settings.hws) * 2.0 + 1
    offsets = np.array(settings.high) - np.array(settings.low) + 1.0
    method = choose_method(settings.hws, settings.low, settings.high)
    if method == "fft":
        return float(np.prod(widths + offsets - 1)) * COST_FFT
    return float(np.prod(widths * offsets)) * (COST_SCREENED if method == "screened" else COST_DIRECT) + 5e-5


def search_options(command: str, images: ImagePair, settings: SearchSettings) -> dict[str, Any]:
    """What determines the result of a search, by the names of options where there are such."""
    return {
        "command": command,
        **fingerprints(images, second_mask=True),
        "-hws": settings.hws,
        "-sr": [end for ends in zip(settings.low, settings.high, strict=True) for end in ends],
        "-F": settings.apply_f,
        "--zero-mean": settings.zero_mean,
        "-mc": settings.min_coverage,
        "-glt": settings.grey_low,
        "-ght": settings.grey_high,
    }


def label_search_settings(
    args: argparse.Namespace, two_d: bool, apply_f: str, volume_threshold: int
) -> LabelSearchSettings:
    """The settings of a search of labels, whose range is wider than ``-sr`` by twice the dilation, as in spam."""
    low, high = _range(args.search_range, two_d, 2 * max(args.label_dilate, 0))
    return LabelSearchSettings(
        low=low,
        high=high,
        apply_f=apply_f,
        zero_mean=args.zero_mean,
        dilate=args.label_dilate,
        volume_threshold=volume_threshold,
    )


def open_label_pair(args: argparse.Namespace) -> tuple[ImagePair, Image]:
    """Open the images of a search of labels, and the image of these, which takes the place of mask 1.

    Options that have no meaning with ``-lab1`` are noted.

    Raises
    ------
    UserError
        As in `open_search_pair` and `open_labels`.
    """
    args.notes += _notes_on_labels(args)
    args.mask1 = args.mask2 = None
    images = open_search_pair(args)
    numbers = open_labels(args.labels1, images.image1)
    return images._replace(mask1=numbers), numbers


def _notes_on_labels(args: argparse.Namespace) -> list[str]:
    """Notes on options that were given and have no meaning with ``-lab1``."""
    given = [option for name, option in UNUSED_WITH_LABELS.items() if getattr(args, name) != args.defaults[name]]
    notes = []
    if given:
        has = "have" if len(given) > 1 else "has"
        notes.append(f"{' '.join(given)} {has} no meaning with -lab1: the voxels of the labels are searched")
    if args.tif:
        notes.append("labels are no grid: no TIFF is written")
    return notes


def refuse_huge_labels(path: str, numbers: Ints, size: Ints, settings: LabelSearchSettings) -> None:
    """Refuse labels whose search would take more memory than any search may.

    Parameters
    ----------
    path : str
        Image of the labels.
    numbers : (n,) int64
    size : (n, 3) int64
        Of their windows, voxels.
    settings : LabelSearchSettings

    Raises
    ------
    UserError
        Names the largest one.
    """
    if len(numbers) == 0:
        return
    k = int(np.argmax(np.prod(size + np.array(settings.high) - np.array(settings.low), axis=1)))
    z, y, x = (int(n) for n in size[k])
    needed = memory_of((z // 2, y // 2, x // 2), settings.low, settings.high)
    if needed > MOST_MEMORY:
        ends = " ".join(f"{a} {b}" for a, b in zip(settings.low, settings.high, strict=True))
        raise UserError(
            f"{path}: label {numbers[k]} has a window of {by((z, y, x))} voxels, and its search from {ends} would take "
            f"{needed / 1e9:.0f} GB; set it to 0 if it is no grain, take a smaller -sr, or images of a coarser binning"
        )


def seconds_of_labels(size: Ints, settings: LabelSearchSettings) -> float:
    """Rough CPU seconds of labels with windows of this size (n, 3)."""
    searched = np.prod(size + np.array(settings.high) - np.array(settings.low), axis=1)
    # masks take three correlations
    return float(searched.sum()) * 3 * COST_FFT


def label_search_options(command: str, images: ImagePair, settings: LabelSearchSettings) -> dict[str, Any]:
    """What determines the result of a search of labels, by the names of options where there are such."""
    determines = {
        "command": command,
        **fingerprints(images, second_mask=False),
        "-sr": [end for ends in zip(settings.low, settings.high, strict=True) for end in ends],
        "-F": settings.apply_f,
        "--zero-mean": settings.zero_mean,
        "-ld": settings.dilate,
        "-lvt": settings.volume_threshold,
    }
    determines["labels (-lab1)"] = determines.pop("mask (-mf1)")
    return determines


def show_search(
    console: Console,
    counts: Mapping[str, int],
    limit: int,
    settings: SearchSettings | LabelSearchSettings,
    statuses: Mapping[int, Status],
    points: str,
) -> None:
    """Print how many points came to which end of a search.

    Parameters
    ----------
    console : Console
    counts : mapping of str to int
        Number of points by return status, as `count_statuses` gives it.
    limit : int
        Number of points at the limit of the search range.
    settings : SearchSettings or LabelSearchSettings
    statuses : mapping of int to Status
        Meanings of return statuses.
    points : str
        Title of the column that counts.
    """
    rows, n = [], sum(counts.values())
    for value, known in statuses.items():
        count = counts.get(f"{value}", 0)
        if count or value not in (0, -7):
            rows.append([f"RS={value:+d}", count, f"{100 * count / n:.1f}%", known.meaning])
    found = counts.get("1", 0)
    share = f"{100 * limit / found:.1f}% of found" if found else "-"
    rows.insert(1, ["at the limit", limit, share, "found at an end of the search range"])
    console.table("Pixel search summary", ["Status", points, "Percent", "Meaning"], rows)
    if limit:
        ends = " ".join(f"{a} {b}" for a, b in zip(settings.low, settings.high, strict=True))
        option = "-sr" if isinstance(settings, SearchSettings) else "-sr and twice -ld:"
        console.note(f"{limit} displacements are at an end of the search range ({option} {ends}): enlarge it there")
