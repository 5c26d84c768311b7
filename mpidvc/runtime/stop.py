"""Signals that ask a run to stop: noticed by every rank, heeded between two pieces of work, where nothing is lost.

Everything here is kept per thread, and signals reach the main thread only: in another thread a run can be started, is
never asked to stop, and changes nothing for the main thread.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from mpidvc.runtime.exit_status import STOPPED, of_signal
from mpidvc.runtime.job import find_job

__all__ = ["Ended", "StopRequest", "Stopped", "describe", "goes_on", "graceful", "handling_signals", "keep", "within"]

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A signal asked to stop and work was left undone; raised on every rank or on none."""


class Ended(KeyboardInterrupt):
    """A signal ended the process; handled like a Ctrl-C.

    Parameters
    ----------
    number : int
        The signal; on ranks of our own launcher, the signal that the launcher got.

    Attributes
    ----------
    of_ranks : bool
        Whether it ended the ranks that this process had started.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.of_ranks = False


class _State(threading.local):
    """What this thread is doing; only the main thread's is ever looked at by a signal.

    Attributes
    ----------
    request : StopRequest or None
        That of the `graceful` blocks around the work.
    kept : str or None
        How a run that is ended now can be resumed; None if it cannot.
    line : str or None
        The command line that the work is a part of, and that goes on with it; None if it is a command of its own.
    ending : bool
        Whether a signal has ended the work.
    """

    request: StopRequest | None = None
    kept: str | None = None
    line: str | None = None
    ending: bool = False


_state = _State()


def keep(what: str | None) -> None:
    """Note what is kept of a run that is ended from now on, which can be resumed then; None: it cannot."""
    _state.kept = None if what is None else f"{what}; {goes_on()}"


@contextlib.contextmanager
def within(line: str) -> Iterator[None]:
    """Work that is a part of a longer command line, which goes on with it when it is given again."""
    before, _state.line = _state.line, line
    try:
        yield
    finally:
        _state.line = before


def goes_on(brief: bool = False) -> str:
    """In words, what goes on with an interrupted run: its command with ``--resume``, or the line it is a part of."""
    if _state.line is not None:
        return "the same line goes on" if brief else f"the same line goes on: {_state.line}"
    return "--resume goes on" if brief else "the same command with --resume goes on"


def describe(number: int) -> tuple[str, int]:
    """Return the line and the exit status for a process that was ended by a signal."""
    if _state.kept is not None:
        return f"mpidvc: stopped by {signal.Signals(number).name}: {_state.kept}", STOPPED
    if number == signal.SIGINT:
        return "mpidvc: interrupted", of_signal(number)
    if number == signal.SIGUSR1:
        return "mpidvc: stopped by SIGUSR1; start it again to go on", STOPPED
    return f"mpidvc: ended by {signal.Signals(number).name}", of_signal(number)


@dataclass
class StopRequest:
    """Whether this process has been asked to stop.

    Attributes
    ----------
    signal : int or None
        The signal that asked.
    tell : callable or None
        Called by the signal's handler with this signal.
    """

    signal: int | None = None
    tell: Callable[[int], None] | None = None

    @property
    def requested(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def graceful(tell: Callable[[int], None] | None = None) -> Iterator[StopRequest]:
    """Let the first signal set the request only, which the work inside has to look at.

    A second SIGINT or SIGTERM ends the process as it would outside. Blocks may be nested; they share one request.

    Parameters
    ----------
    tell : callable, optional
        Tells the user, in the handler of the first signal, that the work goes on to the next piece.
    """
    before = _state.request
    request = _state.request = before or StopRequest(tell=tell)
    try:
        yield request
    finally:
        _state.request = before


def _handle(number: int, frame: FrameType | None) -> None:
    # Our own launcher sends SIGUSR1, which all MPIs pass on, for every signal that it gets.
    told = find_job() if number == signal.SIGUSR1 else None
    meant = (told and told.signal) or number
    request = _state.request
    if request is not None and request.requested and number not in (signal.SIGINT, signal.SIGTERM):
        return
    _heed(meant)


def _heed(meant: int) -> None:
    """Set the request, or raise `Ended` where there is none or it is set already."""
    request = _state.request
    if request is not None and not request.requested:
        request.signal = meant
        if request.tell is not None:
            request.tell(meant)
        return
    _state.ending = True
    raise Ended(meant)


#: Seconds after which an `Ended` that Python has dropped is raised again.
_AGAIN = 0.001


@contextlib.contextmanager
def _undropped() -> Iterator[None]:
    """Raise an `Ended` again if it came in a finalizer or a callback of a weak reference, where Python drops it."""
    before = sys.unraisablehook
    on_alarm: list[Any] = []

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        ended = dropped.exc_value
        if isinstance(ended, ResourceWarning) and _state.ending:
            return  # the signal came in the middle of an open(), so that nobody could close the file
        if not isinstance(ended, Ended):
            before(dropped)
            return
        number = ended.number

        def again(_number: int, frame: FrameType | None) -> None:
            _heed(number)

        on_alarm.append(signal.signal(signal.SIGALRM, again))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        if on_alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, on_alarm[0])


@contextlib.contextmanager
def handling_signals() -> Iterator[None]:
    """Handle SIGINT, SIGTERM, SIGHUP and SIGUSR1, unless they are ignored or handled already.

    Outside of `graceful` blocks they raise `Ended`, so that no half-written file is left. Does nothing in other threads
    than the main one.
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
