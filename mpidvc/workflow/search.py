"""What pixelSearch and pixelSearchPropagate share."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from mpidvc.arrays import Triple
from mpidvc.core.pixel_search import SearchSettings
from mpidvc.errors import UserError
from mpidvc.images.pair import ImagePair
from mpidvc.kernels.pixel_search import choose_method, memory_of
from mpidvc.workflow.determines import fingerprints
from mpidvc.workflow.write import FieldFiles

__all__ = ["FILES", "search_options", "search_settings", "seconds_of_point"]

#: Files of a search.
FILES = FieldFiles("SEARCH", {"CC": "pixelSearchCC", "returnStatus": "returnStatus"}, ("pixelSearchCC",))

#: Bytes for one search above which a range is refused.
MOST_MEMORY = 8e9
#: Rough CPU seconds per compared pair of voxels by direct sums, and per point and voxel searched by FFT.
COST_DIRECT, COST_FFT = 3e-11, 4e-8


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
    if choose_method(settings.hws, settings.low, settings.high) == "direct":
        return float(np.prod(widths * offsets)) * COST_DIRECT + 5e-5
    return float(np.prod(widths + offsets - 1)) * COST_FFT


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
