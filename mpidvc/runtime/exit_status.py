"""Exit statuses of the command line, on which job scripts rely."""

from __future__ import annotations

from mpidvc.errors import UserError, is_passing

__all__ = ["FAULT", "MEANINGS", "REFUSED", "RETRY", "STOPPED", "TRUSTED", "UNTRUSTED", "of_error", "of_signal"]

TRUSTED = 0
UNTRUSTED = 1
REFUSED = 2
#: EX_SOFTWARE and EX_TEMPFAIL of BSD's sysexits.h.
FAULT = 70
RETRY = 75
STOPPED = 85
_SIGNAL = 128

#: The table of the documentation (docs/long-runs.md).
MEANINGS = {
    str(TRUSTED): "finished, there is a result to trust",
    str(UNTRUSTED): "finished, but the result is not to be trusted",
    str(REFUSED): "the command line or an input is wrong, and will be next time",
    str(FAULT): "an error in mpidvc itself; please report its traceback",
    str(RETRY): "memory or disk space was missing, or processes were lost: try again, `--resume` goes on",
    str(STOPPED): "stopped on request: `--resume` goes on",
    f"{_SIGNAL} + n": "ended by signal n, as by a second Ctrl-C (130) or a crash (139): `--resume` goes on",
}


def of_signal(number: int) -> int:
    """Exit status of a process that was ended by a signal, as of a shell."""
    return _SIGNAL + number


def of_error(error: BaseException | None) -> int:
    """Exit status for an exception that ends the command."""
    if error is not None and is_passing(error):
        return RETRY
    return REFUSED if isinstance(error, UserError) else FAULT
