"""Input that is read once, from its beginning: a file or a pipe."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time
from collections.abc import Iterator
from types import TracebackType

from mpidvc.errors import UserError

__all__ = ["Stream"]

#: Bytes of the head, and of what is read at a time.
HEAD, CHUNK = 64, 2**20
#: Most bytes that are taken from a pipe, which may never end.
MOST_PIPED = 2**30
#: Seconds that a pipe into which no program writes is waited for.
PATIENCE = 5.0


class Stream:
    """A file or a pipe, open for reading; a context manager.

    Pipes are named ones (FIFO) and those that a shell makes: ``<(command)``, ``/dev/stdin``.

    Parameters
    ----------
    path : path-like
    named : str
        Name of the input in messages.

    Attributes
    ----------
    plain : bool
        Whether it is a file, which can be read again.
    head : bytes
        The first bytes: `HEAD` of them at least, unless there are fewer.

    Raises
    ------
    UserError
        If it is missing, cannot be read, is neither a file nor a pipe, or a pipe into which no program writes.
    """

    def __init__(self, path: str | os.PathLike[str], named: str) -> None:
        self._named = named
        try:
            # without O_NONBLOCK the opening of a pipe waits for a program that writes into it
            self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UserError(f"{named}: does not exist; check the path") from None
        except OSError as error:
            raise UserError(f"{named}: cannot be read ({error.strerror}); check the path") from None
        except ValueError:
            raise UserError(f"{named}: is no file name; check the path") from None
        try:
            mode = os.fstat(self._handle).st_mode
            if stat.S_ISDIR(mode):
                raise UserError(f"{named}: cannot be read (it is a folder); give a file")
            if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
                raise UserError(f"{named}: cannot be read (it is neither a file nor a pipe); give a file")
            self.plain = stat.S_ISREG(mode)
            self.head = b"" if self.plain else self._await()
            os.set_blocking(self._handle, True)
            while len(self.head) < HEAD and (more := self._read()):
                self.head += more
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        handle, self._handle = self._handle, -1  # only once: the number may be another file's by then
        with contextlib.suppress(OSError):
            os.close(handle)

    def chunks(self) -> Iterator[bytes]:
        """All bytes, piece by piece.

        Raises
        ------
        UserError
            If they cannot be read, or a pipe has too many.
        """
        yield self.head
        taken = len(self.head)
        while more := self._read():
            taken += len(more)
            if not self.plain and taken > MOST_PIPED:
                raise UserError(f"{self._named}: the pipe does not end after {MOST_PIPED} bytes; give a file")
            yield more

    def _read(self) -> bytes:
        try:
            return os.read(self._handle, CHUNK)
        except OSError as error:
            raise UserError(f"{self._named}: cannot be read ({error.strerror}); check the path") from None

    def _await(self) -> bytes:
        """First bytes of a pipe; while a program has it open for writing they are waited for without limit."""
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        until = time.monotonic() + PATIENCE
        writer = False
        while True:
            try:
                first = os.read(self._handle, CHUNK)
            except BlockingIOError:
                writer = True
                poll.poll()
                continue
            # nothing is read where no program has it open for writing: none any more, or none yet
            if first or writer:
                return first
            if time.monotonic() >= until:
                raise UserError(f"{self._named}: no program writes into this pipe; give a file, or start the program")
            # the pipe tells that a program has come, and that it has gone
            writer = bool(poll.poll(100))
