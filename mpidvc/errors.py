"""The one exception that a user is meant to read."""

__all__ = ["UserError"]


class UserError(Exception):
    """Input that cannot be used: one line that names the file or option, its value and the remedy.

    The command line prints the message without a traceback and ends with exit status 2.
    """
