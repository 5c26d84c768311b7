"""Files read at positions; what is missing, too short or unreadable is a `UserError` that names the file."""

from __future__ import annotations

import os
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mpidvc.errors import UserError

__all__ = ["PositionedFile"]

#: Systems read at most about 2 GB at once.
LONGEST_READ = 2**30


class PositionedFile:
    """A file opened for reading at given positions, into memory that the caller owns.

    Parameters
    ----------
    path : str

    Raises
    ------
    UserError
        If it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(f"image {path}: cannot be opened any more ({error.strerror}); was it moved?") from error

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def fill(self, array: NDArray[Any], offset: int) -> None:
        """Read a contiguous array from this position on.

        Raises
        ------
        UserError
            If the file ends before, or cannot be read.
        """
        view = memoryview(cast("Any", array.reshape(-1).view(np.uint8)))
        offset = int(offset)
        while len(view):
            try:
                count = os.preadv(self._fd, [view[:LONGEST_READ]], offset)
            except OSError as error:
                raise UserError(f"image {self.path}: cannot be read ({error.strerror}); check the disk") from error
            if count == 0:
                raise UserError(
                    f"image {self.path}: ends at byte {offset}, it has become shorter since the run began; copy or "
                    "export it again"
                )
            view, offset = view[count:], offset + count
