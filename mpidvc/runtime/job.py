"""What our own launcher and the ranks that it started tell each other, through files in a folder of the job's own."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["JOB", "Job", "find_job"]

#: The folder, in the environment of the ranks.
JOB = "MPIDVC_JOB"
#: Seconds after which a rank no longer believes that its launcher will kill it.
_LONGEST_KILL = 10.0


class Job:
    """The folder of a job: removed by the launcher, whatever becomes of the ranks.

    What is told stands in symbolic links to nowhere: one appears at once, with its content, and is never replaced.

    Parameters
    ----------
    folder : str or Path
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        #: The pickled plan, made before the ranks were started.
        self.plan = self.folder / "plan"
        self._value = self.folder / "value"
        self._signal = self.folder / "signal"
        self._claim = self.folder / "claim"
        self._status = self.folder / "status"
        self._started = self.folder / "started"

    def tell_value(self, value: object) -> None:
        """Hand over, on rank 0, what the command returns; before its status is reported."""
        with contextlib.suppress(OSError):
            self._value.write_bytes(pickle.dumps(value, protocol=5))

    @property
    def value(self) -> Any:
        """What the command has returned, None if it has not got so far."""
        try:
            return pickle.loads(self._value.read_bytes())
        except OSError:
            return None

    def tell_started(self) -> None:
        """Say, on rank 0, that all ranks have met."""
        with contextlib.suppress(OSError):
            self._started.symlink_to("yes")

    @property
    def started(self) -> bool:
        """Whether all ranks have met."""
        return self._started.is_symlink()

    def tell_signal(self, number: int) -> None:
        """Say, before the ranks are sent SIGUSR1 for it, which signal the launcher got."""
        with contextlib.suppress(OSError):
            self._signal.symlink_to(str(number))

    @property
    def signal(self) -> int | None:
        """The first signal that the launcher got, None if there was none."""
        return _number(self._signal)

    def end(self, status: int, say: Callable[[], None] | None = None) -> None:
        """Let the launcher kill all ranks, this one too; the first rank that asks for it has the word.

        Parameters
        ----------
        status : int
            Exit status of the whole.
        say : callable, optional
            Says why.
        """
        first = True
        try:
            os.close(os.open(self._claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            first = False
        except OSError:
            pass  # no room: better said twice than never
        if first:
            if say is not None:
                say()
            sys.stdout.flush()
            sys.stderr.flush()
            # What the ranks say goes through launchers' pipes.
            time.sleep(0.2)
            self.report(status, kill=True)
        time.sleep(_LONGEST_KILL)

    def report(self, status: int, kill: bool = False) -> None:
        """Say that the job has ended, with this exit status.

        Parameters
        ----------
        status : int
        kill : bool
            Whether the launcher shall end all ranks now, rather than let them end by themselves.
        """
        with contextlib.suppress(OSError):
            self._status.symlink_to(f"{status} {'kill' if kill else 'wait'}")

    @property
    def reported(self) -> tuple[int, bool] | None:
        """Exit status and whether to kill the ranks, None while nothing has been reported."""
        try:
            status, manner = str(self._status.readlink()).split()
        except OSError:
            return None
        return int(status), manner == "kill"


def _number(path: Path) -> int | None:
    try:
        return int(str(path.readlink()))
    except OSError:
        return None


def find_job() -> Job | None:
    """Return the job that this process is a rank of; None if our own launcher did not start it."""
    folder = os.environ.get(JOB)
    return Job(folder) if folder else None
