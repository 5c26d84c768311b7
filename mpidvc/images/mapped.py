"""Uncompressed values anywhere in a file, read through one memory map and without parsing a header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.images.source import Box, Source

__all__ = ["MappedImage"]


class MappedImage(Source):
    """Volume in one contiguous piece of a file, or in one piece per plane.

    Parameters
    ----------
    path : str
        What messages call it.
    shape : tuple of 3 ints
        (z, y, x).
    stored : dtype
        Of the values in the file, with its byte order.
    offsets : sequence of ints
        Position in bytes of the volume, or of each of its planes.
    file : str, optional
        The file to map, if it is not `path`.
    """

    def __init__(
        self,
        path: str,
        shape: tuple[int, int, int],
        stored: np.dtype[Any],
        offsets: Sequence[int] | NDArray[np.int64],
        file: str | None = None,
    ) -> None:
        super().__init__(path, shape, stored)
        self.file = path if file is None else file
        self.offsets = np.array(offsets, dtype=np.int64)

    def _piece(self, shape: tuple[int, ...], offset: int) -> NDArray[Any]:
        if self._opened is None:
            self._opened = np.memmap(self.file, dtype=np.uint8, mode="r")
        piece: NDArray[Any] = np.ndarray(shape, self.stored, buffer=self._opened, offset=int(offset))
        return piece

    def _read(self, box: Box) -> NDArray[Any]:
        if len(self.offsets) == 1:
            return self._piece(self.shape, self.offsets[0])[box]
        planes = self.offsets[box[0]]
        if len(planes) == 1:
            return self._piece((1, *self.shape[1:]), planes[0])[:, box[1], box[2]]
        part = np.empty([s.stop - s.start for s in box], self.dtype)
        for plane, offset in zip(part, planes, strict=True):
            plane[:] = self._piece(self.shape[1:], offset)[box[1:]]
        return part
