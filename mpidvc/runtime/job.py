"""Messages between our own launcher and the ranks that it started, through files in a folder of the job."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pickle
import shutil
import stat
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mpidvc.errors import ResourceError
from mpidvc.runtime.memory import size_text

__all__ = ["JOB", "Job", "find_job", "new_job", "speak_last"]

#: Environment variable of the ranks: the folder of their job.
JOB = "MPIDVC_JOB"
#: Space in bytes for the temporary files of a launcher; Open MPI's take 0.06 MB for every rank.
_LEAST_SPACE = 8_000_000
#: Longest wait of a rank for its launcher to kill it, in seconds.
_LONGEST_KILL = 10.0
#: Longest wait for a launcher to read what a rank has written, and the time that it then has to pass it on, in seconds.
_LONGEST_READ, _PASSED_ON = 5.0, 0.2


class Job:
    """The folder of a job; the launcher removes it, however the ranks end.

    Messages are symbolic links to nowhere: a link appears at once, with its content, and is never replaced.

    Parameters
    ----------
    folder : str or Path
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        #: The pickled plan, made before the ranks were started.
        self.plan = self.folder / "plan"
        self._words = self.folder / "words"
        self._value = self.folder / "value"
        self._signal = self.folder / "signal"
        self._claim = self.folder / "claim"
        self._status = self.folder / "status"
        self._started = self.folder / "started"

    def tell_words(self, words: Sequence[str]) -> None:
        """Leave the command line for the ranks; before they are started."""
        self._words.write_text(json.dumps(list(words)), encoding="ascii")

    @property
    def words(self) -> list[str]:
        """The command line after ``mpidvc``."""
        found: list[str] = json.loads(self._words.read_text(encoding="ascii"))
        return found

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
        """Tell the launcher, from rank 0, that all ranks have met."""
        with contextlib.suppress(OSError):
            self._started.symlink_to("yes")

    @property
    def started(self) -> bool:
        """Whether all ranks have met."""
        return self._started.is_symlink()

    def tell_signal(self, number: int) -> None:
        """Tell the ranks which signal the launcher got; to be called before they are sent SIGUSR1 for it."""
        with contextlib.suppress(OSError):
            self._signal.symlink_to(str(number))

    @property
    def signal(self) -> int | None:
        """The first signal that the launcher got, None if it got none."""
        return _number(self._signal)

    def end(self, status: int, say: Callable[[], None] | None = None) -> None:
        """Let the launcher kill all ranks, this one included; only the first rank that asks for it may print a message.

        Parameters
        ----------
        status : int
            Exit status of the job.
        say : callable, optional
            Prints the message.
        """
        first = True
        try:
            os.close(os.open(self._claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            first = False
        except OSError:
            pass  # no room: a message printed twice is better than none
        if first:
            speak_last(say)
            self.report(status, kill=True)
        time.sleep(_LONGEST_KILL)

    def report(self, status: int, kill: bool = False) -> None:
        """Tell the launcher that the job has ended, and its exit status.

        Parameters
        ----------
        status : int
        kill : bool
            Whether the launcher shall kill all ranks now rather than let them end by themselves.
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


def speak_last(say: Callable[[], None] | None) -> None:
    """Print a message before the job is ended: launchers drop what is still in the pipes of the ranks then."""
    if say is not None:
        say()
    sys.stdout.flush()
    sys.stderr.flush()
    until = time.monotonic() + _LONGEST_READ
    while any(map(_is_unread, (1, 2))) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(_PASSED_ON)


def _is_unread(descriptor: int) -> bool:
    """Whether there is something in a pipe that its reader, who may be busy, has not read yet."""
    try:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return False
        return any(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    except OSError:
        return False


def find_job() -> Job | None:
    """Return the job of this rank; None if this process was not started by our own launcher."""
    folder = os.environ.get(JOB)
    return Job(folder) if folder else None


@contextlib.contextmanager
def new_job(plan: bytes) -> Iterator[Job]:
    """Make a job with a pickled plan, in the folder for temporary files; it is removed in the end.

    Raises
    ------
    ResourceError
        If that folder cannot be written, for instance because it is full.
    """
    with contextlib.ExitStack() as stack:
        try:
            # The id of this process is in the name: `mpidvc doctor` finds what a killed launcher leaves.
            made = tempfile.TemporaryDirectory(prefix=f"mpidvc-{os.getpid()}-", ignore_cleanup_errors=True)
            job = Job(stack.enter_context(made))
            # Held as long as this process lives: a container that shares the folder does not see the process.
            descriptor = os.open(job.folder, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if shutil.disk_usage(job.folder).free < _LEAST_SPACE + len(plan):
                # Launchers crash where there is not enough.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            job.plan.write_bytes(plan)
            del plan
        except OSError as error:
            folder = tempfile.tempdir or os.environ.get("TMPDIR", "/tmp")
            raise ResourceError(
                f"{folder}: no temporary files can be written ({error.strerror or error}); make room there "
                f"({size_text(_LEAST_SPACE)}), or set TMPDIR to another folder"
            ) from error
        yield job
