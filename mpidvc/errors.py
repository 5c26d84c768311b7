"""The exceptions that a user is meant to read."""

__all__ = ["AgreedError", "UserError"]


class UserError(Exception):
    """Input that cannot be used: one line that names the file or option, its value and the remedy.

    The command line prints the message without a traceback and ends with exit status 2.
    """


class AgreedError(UserError):
    """A `UserError` that every rank raises at the same point: rank 0 says it, and all end without an abort."""
