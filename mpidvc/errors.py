"""Exceptions whose messages are for the user."""

from __future__ import annotations

import errno

__all__ = ["AgreedError", "ResourceError", "UserError", "is_passing"]

#: Errors of the system that may be gone when the same is tried again: lack of space, memory or descriptors, and trouble
#: with disks and file servers.
_PASSING = {
    *(errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN),
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
}


class UserError(Exception):
    """Unusable input: one line that names the file or option, its value and the remedy.

    The command line prints the message without a traceback. It ends with exit status 2, or 75 if `passing`.
    """

    @property
    def passing(self) -> bool:
        """Whether the same command may succeed later: the error comes from a lack of resources, not from the input."""
        return self.__context__ is not None and is_passing(self.__context__)


class ResourceError(UserError):
    """Missing resources or lost processes: the same command may succeed later."""

    passing = True


class AgreedError(UserError):
    """A `UserError` raised by every rank at the same point: rank 0 prints it, and all end without an abort.

    Parameters
    ----------
    message : str
    passing : bool
        As of the error of the rank that failed.
    """

    passing = False

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


def is_passing(error: BaseException) -> bool:
    """Whether an error comes from a lack of resources, so that the same may succeed later."""
    if isinstance(error, UserError):
        return error.passing
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _PASSING)
