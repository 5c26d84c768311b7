"""Volumes stored as a directory of 2D TIFF files."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
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
    """Open all ``*.tif`` and ``*.tiff`` files of a directory, sorted by name, as the planes of a volume.

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
        If there is no such file, or the files are no 2D images of one shape and dtype.
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
