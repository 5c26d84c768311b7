"""Volumes stored as a directory of 2D TIFF files, in the order of the numbers in their names."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Triple
from mpidvc.errors import UserError
from mpidvc.images.source import CACHE, Box, Source
from mpidvc.images.tiff import open_tiff

__all__ = ["SliceImage", "open_slices"]

#: Slices that stay open; systems allow about a thousand open files.
MOST_OPEN = 64


class SliceImage(Source):
    """Stack of 2D images of the same shape and dtype, one per plane.

    Parameters
    ----------
    path : str
        The directory.
    planes : sequence of Source
        2D images, in the order of z.
    """

    def __init__(self, path: str, planes: Sequence[Source]) -> None:
        first = planes[0]
        super().__init__(path, (len(planes), *first.shape[1:]), first.dtype)
        self.planes = list(planes)
        self.plain = all(plane.plain for plane in planes)
        self._open: deque[Source] = deque()
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_open": deque()}

    def describe(self) -> str:
        """One line: shape, dtype, and first slice, last slice and number of slices."""
        first, last = Path(self.planes[0].path).name, Path(self.planes[-1].path).name
        slices = f"{len(self.planes)} slices, {first} … {last}" if len(self.planes) > 1 else f"1 slice, {first}"
        return f"{super().describe()}: {slices}"

    @property
    def files(self) -> list[str]:
        return [self.path]

    @property
    def grain(self) -> Triple:
        return self.planes[0].grain

    def _share(self) -> None:
        """Give the planes this image's way of reading; open planes share its cache."""
        self.planes = [plane.mapped() if self.maps else plane.boxed(self.cache_bytes) for plane in self.planes]
        plane_bytes = self.planes[0].nbytes
        self._most_open = MOST_OPEN if self.plain else max(1, min(MOST_OPEN, self.cache_bytes // plane_bytes))

    def mapped(self) -> Source:
        other = super().mapped()
        assert isinstance(other, SliceImage)
        other._share()
        return other

    def boxed(self, cache_bytes: int = CACHE) -> Source:
        other = super().boxed(cache_bytes)
        assert isinstance(other, SliceImage)
        other._share()
        return other

    def close(self) -> None:
        while self._open:
            self._open.popleft().close()

    def _read(self, box: Box) -> NDArray[Any]:
        part = np.empty([s.stop - s.start for s in box], self.dtype)
        (_, y, x) = box
        for target, plane in zip(part, self.planes[box[0]], strict=True):
            if plane._opened is None:
                self._open.append(plane)
            target[:] = plane.read_box((0, y.start, x.start), (1, y.stop, x.stop))[0][0]
            if len(self._open) > self._most_open:
                self._open.popleft().close()
        return part


def open_slices(path: str, what: str = "image") -> SliceImage:
    """Open all ``*.tif`` and ``*.tiff`` files of a directory as the planes of a volume.

    Names are alike but for numbers, one of which grows by a constant step (``s_0``, ``s_1``, ``s_10`` is none); names
    without numbers are in alphabetical order.

    Parameters
    ----------
    path : str
        The directory.
    what : str
        Name of the image in messages.

    Returns
    -------
    SliceImage

    Raises
    ------
    UserError
        If there is no such file, names leave the order open, or files are no 2D images of one shape and dtype.
    """
    try:
        entries = list(Path(path).iterdir())
    except OSError as error:
        raise UserError(f"{what} {path}: cannot be listed ({error.strerror}); check its permissions") from error
    files = [file for file in entries if file.suffix.lower() in {".tif", ".tiff"} and not file.name.startswith(".")]
    if not files:
        raise UserError(f"{what} {path}: this directory holds no *.tif or *.tiff file; give one with a file per slice")
    files = _in_order(files, f"{what} {path}")
    planes: list[Source] = []
    for file in files:
        plane = open_tiff(str(file), f"slice of {what}")
        if not plane.two_d:
            raise UserError(
                f"slice of {what} {file}: holds {plane.shape[0]} planes; keep one per file, or give the file itself"
            )
        if planes and (plane.shape, plane.dtype) != (planes[0].shape, planes[0].dtype):
            raise UserError(
                f"slice of {what} {file}: is {plane.shape[1:]} {plane.dtype} but {files[0].name} is "
                f"{planes[0].shape[1:]} {planes[0].dtype}; all slices of a directory must be alike"
            )
        planes.append(plane)
    return SliceImage(path, planes)


def _in_order(files: Sequence[Path], name: str) -> list[Path]:
    """Files in the order of the numbers in their names; of the alphabet where no number differs.

    Where several numbers differ, the first ones count most, and any one of them has to grow by a constant step.
    """
    parts = {file: re.split("([0-9]+)", file.stem) for file in files}
    texts = {file: parts[file][::2] for file in files}
    numbers = {file: [int(part) for part in parts[file][1::2]] for file in files}
    found = sorted(files, key=lambda file: (numbers[file], texts[file], file.name))
    for one, other in pairwise(found):
        if (numbers[one], texts[one]) == (numbers[other], texts[other]):
            raise UserError(
                f"{name}: its slices {one.name} and {other.name} have the same number; remove or rename one"
            )
    if numbers[found[0]] == numbers[found[-1]]:
        return found
    for other in found:
        if texts[other] != texts[found[0]]:
            raise UserError(
                f"{name}: its slices {found[0].name} and {other.name} differ by more than numbers, which leaves their "
                "order open; remove or rename what differs"
            )
    changes = [[b - a for a, b in pairwise(column)] for column in zip(*(numbers[file] for file in found), strict=True)]
    if not any(min(steps) == max(steps) > 0 for steps in changes):
        usual = Counter((column, step) for column, steps in enumerate(changes) for step in steps if step > 0)
        (column, step), _ = usual.most_common(1)[0]
        one, other = next(pair for pair, change in zip(pairwise(found), changes[column], strict=True) if change != step)
        raise UserError(
            f"{name}: its slices are numbered in steps of {step}, but {other.name} follows {one.name}; restore what is "
            "missing, or remove what is of another volume"
        )
    return found
