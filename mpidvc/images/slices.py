"""Volumes stored as a directory of 2D TIFF files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.errors import UserError
from mpidvc.images.source import Box, Source
from mpidvc.images.tiff import open_tiff

__all__ = ["SliceImage", "open_slices"]


class SliceImage(Source):
    """Stack of 2D images of the same shape and dtype, one per plane."""

    def __init__(self, path: str, planes: Sequence[Source]) -> None:
        first = planes[0]
        super().__init__(path, (len(planes), *first.shape[1:]), first.dtype)
        self.planes = list(planes)

    def _read(self, box: Box) -> NDArray[Any]:
        part = np.empty([s.stop - s.start for s in box], self.dtype)
        (_, y, x) = box
        for target, plane in zip(part, self.planes[box[0]], strict=True):
            target[:] = plane.read_box((0, y.start, x.start), (1, y.stop, x.stop))[0][0]
        return part


def open_slices(path: str, what: str = "image") -> SliceImage:
    """Open all ``*.tif`` and ``*.tiff`` files of a directory, sorted by name, as the planes of a volume.

    Raises
    ------
    UserError
        If there are none, or if they are not 2D images of the same shape and dtype.
    """
    try:
        entries = list(Path(path).iterdir())
    except OSError as error:
        raise UserError(f"{what} {path}: cannot be listed ({error.strerror}); check its permissions") from error
    files = sorted(file for file in entries if file.suffix in {".tif", ".tiff"} and not file.name.startswith("."))
    if not files:
        raise UserError(f"{what} {path}: this directory holds no *.tif or *.tiff file; give one with a file per slice")
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
