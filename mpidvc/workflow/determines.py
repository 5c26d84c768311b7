"""What determines a result: settings by the names of their options, and checksums of the inputs."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc import __version__
from mpidvc.errors import UserError
from mpidvc.images.fingerprint import fingerprint
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import correlation

__all__ = ["checksum", "fingerprints", "plain", "refuse_changes", "version"]


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


def refuse_changes(path: Path, then: dict[str, Any], now: dict[str, Any], but: tuple[str, ...] = ()) -> None:
    """Refuse to resume a run if something that determines its result has changed.

    Parameters
    ----------
    path : Path
        The results file.
    then, now : dict
        What determined its beginning, and what determines the present run.
    but : tuple of str
        Names that do not count.

    Raises
    ------
    UserError
        Names the first difference.
    """
    for name in [name for name in {**then, **now} if name not in but]:
        if then.get(name) == now.get(name):
            continue
        what = f"was begun with another {name}"
        shown = [value for value in (then.get(name), now.get(name)) if not isinstance(value, dict)]
        if len(shown) == 2 and max(len(str(value)) for value in shown) < 60:
            old, new = (" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in shown)
            what = f"was begun with {name} {old}, now it is {new}"
        raise UserError(
            f"--resume: {path} {what}; give what it was begun with, add --overwrite to begin again, or choose "
            "another name by -pre"
        )
