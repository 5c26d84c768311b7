"""Values that a file holds unencoded: boxes are read by position, or are views of a memory map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Ints, Triple
from mpidvc.errors import UserError
from mpidvc.images.files import PositionedFile
from mpidvc.images.source import Box, Source

__all__ = ["PlainImage"]

#: Rows of up to this many bytes are read whole: the system reads such pieces anyway, and calls cost more than bytes.
SHORT_ROW = 8192
#: A box wider than a row divided by this is read in one piece per plane, with the voxels between its rows.
WIDE = 4


class PlainImage(Source):
    """Volume in one contiguous piece of a file, or in one piece per plane; opening it parses no header.

    Parameters
    ----------
    path : str
        Name of the image in messages.
    shape : tuple of 3 ints
        (z, y, x).
    stored : dtype
        Dtype of the values in the file, with its byte order.
    offsets : sequence of ints
        Position in bytes of the volume, or of each of its planes.
    file : str, optional
        The file to read, if it is not `path`.
    identity : tuple of 2 ints, optional
        Device and inode of the file, checked when it is opened; for names that may come to mean another file.
    """

    plain = True

    def __init__(
        self,
        path: str,
        shape: Triple,
        stored: np.dtype[Any],
        offsets: Sequence[int] | Ints,
        file: str | None = None,
        identity: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(path, shape, stored)
        self.file = path if file is None else file
        self.identity = identity
        self.offsets = np.array(offsets, dtype=np.int64)

    @property
    def files(self) -> list[str]:
        return [self.file]

    def _read(self, box: Box) -> NDArray[Any]:
        return self._view(box) if self.maps else self._copy(box)

    # By position

    def _copy(self, box: Box) -> NDArray[Any]:
        if self._opened is None:
            self._opened = PositionedFile(self.file, self.identity)
        file: PositionedFile = self._opened
        _, ny, nx = self.shape
        z, y, x = box
        part = np.empty([s.stop - s.start for s in box], self.stored)
        item = self.stored.itemsize
        row, width = nx * item, part.shape[2] * item
        corner = y.start * row + x.start * item
        if len(self.offsets) == 1:
            planes = self.offsets[0] + np.arange(z.start, z.stop, dtype=np.int64) * (ny * row)
            if part.shape[1:] == (ny, nx):
                file.fill(part, planes[0])
                return part
        else:
            planes = self.offsets[z]
        if width == row:
            for target, offset in zip(part, planes, strict=True):
                file.fill(target, offset + corner)
        elif row <= max(SHORT_ROW, WIDE * width):
            rows = np.empty((part.shape[1], nx), self.stored)
            # from the first voxel of the box to its last, which may be the last of the file
            piece = rows.reshape(-1)[: (part.shape[1] - 1) * nx + part.shape[2]]
            for target, offset in zip(part, planes, strict=True):
                file.fill(piece, offset + corner)
                target[:] = rows[:, : part.shape[2]]
        else:
            for target, offset in zip(part, planes, strict=True):
                for k, line in enumerate(target):
                    file.fill(line, offset + corner + k * row)
        return part

    # By a memory map

    def _piece(self, shape: tuple[int, ...], offset: int) -> NDArray[Any]:
        if self._opened is None:
            self._opened = PositionedFile(self.file, self.identity).map()
        try:
            piece: NDArray[Any] = np.ndarray(shape, self.stored, buffer=self._opened, offset=int(offset))
        except TypeError as error:
            raise UserError(f"image {self.file}: has become shorter; copy or export it again") from error
        return piece

    def _view(self, box: Box) -> NDArray[Any]:
        if len(self.offsets) == 1:
            return self._piece(self.shape, self.offsets[0])[box]
        planes = self.offsets[box[0]]
        if len(planes) == 1:
            return self._piece((1, *self.shape[1:]), planes[0])[:, box[1], box[2]]
        part = np.empty([s.stop - s.start for s in box], self.dtype)
        for plane, offset in zip(part, planes, strict=True):
            plane[:] = self._piece(self.shape[1:], offset)[box[1:]]
        return part
