"""Exceptions whose messages are for the user."""

__all__ = ["AgreedError", "UserError"]


class UserError(Exception):
    """Unusable input: one line that names the file or option, its value and the remedy.

    The command line prints the message without a traceback and ends with exit status 2.
    """


class AgreedError(UserError):
    """A `UserError` raised by every rank at the same point: rank 0 prints it, and all end without an abort."""
