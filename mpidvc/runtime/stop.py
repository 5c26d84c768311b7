"""Signals that ask a run to stop: seen by every rank, heeded between two pieces of work where that loses nothing."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from mpidvc.runtime.job import find_job

__all__ = ["STOPPED", "Ended", "StopRequest", "Stopped", "describe", "graceful", "handling_signals", "keep"]

#: Exit status of a run that was asked to stop and can be continued; job scripts requeue on it.
STOPPED = 85

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Work was left undone because a signal asked for it; raised on every rank or on none."""


class Ended(KeyboardInterrupt):
    """A signal that ends the process: cleaned up after like a Ctrl-C.

    Parameters
    ----------
    number : int
        The signal; for a rank that our own launcher started the one that the launcher got.
    """

    def __init__(self, number: int) -> None:
        self.number = number


_kept: str | None = None


def keep(how_to_go_on: str | None) -> None:
    """Say that from now on a run that is ended can be continued, and how; None: it cannot."""
    global _kept
    _kept = how_to_go_on


def describe(number: int) -> tuple[str, int]:
    """Return the line and the exit status for a process that a signal ended."""
    if _kept is not None:
        return f"mpidvc: stopped by {signal.Signals(number).name}: {_kept}", STOPPED
    if number == signal.SIGINT:
        return "mpidvc: interrupted", 130
    if number == signal.SIGUSR1:
        return "mpidvc: stopped by SIGUSR1; start it again to go on", STOPPED
    return f"mpidvc: ended by {signal.Signals(number).name}", 128 + number


@dataclass
class StopRequest:
    """Whether this process has been asked to stop.

    Attributes
    ----------
    signal : int or None
        The signal that asked for it.
    """

    signal: int | None = None

    @property
    def requested(self) -> bool:
        return self.signal is not None


_current: StopRequest | None = None
#: Whether a signal has ended what was being done.
_ending = False


@contextlib.contextmanager
def graceful() -> Iterator[StopRequest]:
    """Let the first signal only set the request, which whoever works inside has to look at.

    A second SIGINT or SIGTERM ends the process as it would outside. Blocks may be nested; they share one request.
    """
    global _current
    before = _current
    if _current is None:
        _current = StopRequest()
    try:
        yield _current
    finally:
        _current = before


def _handle(number: int, frame: FrameType | None) -> None:
    # Our own launcher sends SIGUSR1, which all MPIs pass on, for whatever it got.
    told = find_job() if number == signal.SIGUSR1 else None
    meant = (told and told.signal) or number
    if _current is not None and _current.requested and number not in (signal.SIGINT, signal.SIGTERM):
        return
    _heed(meant)


def _heed(meant: int) -> None:
    """Request the stop, or raise `Ended` where that is not looked at, or was the first time already."""
    if _current is not None and not _current.requested:
        _current.signal = meant
        return
    global _ending
    _ending = True
    raise Ended(meant)


#: Seconds after which an `Ended` that was raised where Python drops exceptions is raised again.
_AGAIN = 0.001


@contextlib.contextmanager
def _undropped() -> Iterator[None]:
    """Raise an `Ended` again that came in a finalizer or in a callback of a weak reference: Python goes on there."""
    before = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        ended = dropped.exc_value
        if isinstance(ended, ResourceWarning) and _ending:
            return  # the signal came in the middle of an open(): nobody is to blame for the file
        if not isinstance(ended, Ended):
            before(dropped)
            return
        number = ended.number

        def again(_number: int, frame: FrameType | None) -> None:
            _heed(number)

        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = before


@contextlib.contextmanager
def handling_signals() -> Iterator[None]:
    """Handle SIGINT, SIGTERM, SIGHUP and SIGUSR1, unless they are ignored or handled already; in the main thread only.

    Outside of `graceful` blocks they raise `Ended`, so that no half-written file is left.
    """
    keep(None)
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _HANDLED:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, _handle)
    try:
        # The launcher's signal may have come before this process could see one.
        job = find_job()
        if before and job is not None and job.signal is not None:
            raise Ended(job.signal)
        with _undropped() if before else contextlib.nullcontext():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
