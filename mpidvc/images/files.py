"""Files that are read at given positions; a missing, short or unreadable one is a `UserError` that names it."""

from __future__ import annotations

import mmap
import os
import stat
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mpidvc.errors import UserError

__all__ = ["PositionedFile", "check_regular", "identity_of", "one_line"]

#: Bytes of one read: systems return at most about 2 GB.
LONGEST_READ = 2**30


def identity_of(fd: int) -> tuple[int, int]:
    """Device and inode of an open file: the same for every process of the host that opens this file."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def check_regular(path: str, name: str) -> None:
    """Check that there is such a file; reading from a pipe or a device may never end.

    Parameters
    ----------
    path : str
    name : str
        Beginning of the message.

    Raises
    ------
    UserError
        If it is missing, or no regular file.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise UserError(f"{name}: does not exist; check the path") from error
    except OSError as error:
        raise UserError(f"{name}: cannot be opened ({error.strerror}); check the path and permissions") from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "a device")
        raise UserError(f"{name}: is {kind}; give a file")


def one_line(error: Exception) -> str:
    """Message of an exception for a message of one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class PositionedFile:
    """A file opened for reading at given positions, into memory that the caller owns.

    Parameters
    ----------
    path : str
    identity : tuple of 2 ints, optional
        `identity_of` the file that `path` must lead to.

    Raises
    ------
    UserError
        If the file cannot be opened, or is another one.
    """

    def __init__(self, path: str, identity: tuple[int, int] | None = None) -> None:
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(f"image {path}: cannot be opened any more ({error.strerror}); was it moved?") from error
        if identity is not None and identity != identity_of(self._fd):
            raise UserError(f"image {path}: is another file by now; keep the image open until all processes have ended")

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def fill(self, array: NDArray[Any], offset: int) -> None:
        """Fill a contiguous array with the bytes of the file from position `offset` on.

        Raises
        ------
        UserError
            If the file ends before the array is full, or cannot be read.
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

    def map(self) -> NDArray[np.uint8]:
        """The bytes of the file as a read-only array, which stays when this object goes.

        Raises
        ------
        UserError
            If the file cannot be mapped into memory.
        """
        try:
            return np.frombuffer(mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ), np.uint8)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"image {self.path}: cannot be mapped ({reason}); copy or export it again") from error
