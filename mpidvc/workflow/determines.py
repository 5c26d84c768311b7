"""What determines a result: settings by the names of their options, and checksums of the inputs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc import __version__
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import ResultsFile, is_hdf5
from mpidvc.images.fingerprint import fingerprint
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import correlation

__all__ = [
    "checksum",
    "fingerprints",
    "made_with",
    "plain",
    "refuse_changes",
    "refuse_replacing",
    "texts_of",
    "version",
]


def checksum(*arrays: npt.NDArray[Any]) -> str:
    """A checksum of numbers, taken as float64."""
    found = hashlib.sha256()
    for values in arrays:
        found.update(np.ascontiguousarray(values, np.float64).data)
    return found.hexdigest()


def fingerprints(images: ImagePair, second_mask: bool) -> dict[str, Any]:
    """Fingerprints of images and masks, by the names that a user knows them by.

    Parameters
    ----------
    images : ImagePair
    second_mask : bool
        Whether the command has a mask of image 2.
    """
    found = {
        "image 1": fingerprint(images.image1),
        "image 2": fingerprint(images.image2),
        "mask (-mf1)": None if images.mask1 is None else fingerprint(images.mask1),
    }
    if second_mask:
        found["mask (-mf2)"] = None if images.mask2 is None else fingerprint(images.mask2)
    return found


def texts_of(path: str) -> Mapping[str, str]:
    """The texts in a results file (HDF5), by name; none for other files."""
    if not is_hdf5(path):
        return {}
    with ResultsFile(path) as file:
        return file.layout.attributes


def made_with(texts: Mapping[str, str]) -> dict[str, Any]:
    """The settings that a results file was made with (`Work.determines`), from its texts; none if they are damaged."""
    try:
        found = json.loads(texts.get("determines", "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def version() -> dict[str, str]:
    """Version and instruction set of this process."""
    return {"version": __version__, "instruction set": correlation.instruction_set()}


def plain(value: Any) -> Any:
    """A value as strict JSON gives it back: no tuples, and infinite numbers as texts."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def first_difference(then: dict[str, Any], now: dict[str, Any], but: tuple[str, ...] = ()) -> str | None:
    """The first difference between what determines two results, in words; None if they are the same.

    Parameters
    ----------
    then, now : dict
    but : tuple of str
        Names that do not count.
    """
    for name in [name for name in {**then, **now} if name not in but]:
        if then.get(name) == now.get(name):
            continue
        shown = [value for value in (then.get(name), now.get(name)) if not isinstance(value, dict)]
        if len(shown) == 2 and max(len(str(value)) for value in shown) < 60:
            old, new = (" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in shown)
            return f"{name} {old}, now it is {new}"
        return f"another {name}"
    return None


def refuse_changes(path: Path, then: dict[str, Any], now: dict[str, Any], but: tuple[str, ...] = ()) -> None:
    """Refuse to resume a run if something that determines its result has changed; parameters as of `first_difference`.

    Raises
    ------
    UserError
        Names the first difference.
    """
    difference = first_difference(then, now, but)
    if difference is not None:
        raise UserError(
            f"--resume: {path} was begun with {difference}; give what it was begun with, add --overwrite to begin "
            "again, or choose another name by -pre"
        )


def refuse_replacing(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to replace results made with other settings; parameters as of `first_difference`.

    Raises
    ------
    UserError
        Names the first difference.
    """
    # what another version or processor makes of the same settings is the same but for rounding
    difference = first_difference(then, now, ("version", "instruction set"))
    if difference is not None:
        raise UserError(
            f"{path}: holds results made with {difference}; add --overwrite to replace them, or choose another name "
            "by -pre"
        )
