"""Real jobs to be watched and disturbed: each process of a job can be found, stopped and killed by its role."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from mpidvc.main import main
from mpidvc.runtime.launch import Mpiexec
from tests.outputs import outputs
from tests.waiting import LONGEST, state_of, until

__all__ = [
    "LONG",
    "Job",
    "Started",
    "drivers",
    "interrupted",
    "marks",
    "same",
    "seeds",
    "state",
    "suspended",
    "wait",
]

#: Whether the long forms of the tests run.
LONG = os.environ.get("MPIDVC_LONG") == "1"
#: Environment variable of every process of a job, with a value of the job's own.
_TAG = "MPIDVC_SURVIVAL_TEST"
_RANK = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
JOURNAL = "mpidvc/journal"
#: Stages of a run, in their order.
STAGES = ("start", "layout", "points", "finish", "write", "end")


def seeds(quick: int, long: int) -> list[int]:
    """Seeds of the repetitions of a test; pytest shows them."""
    return list(range(long if LONG else quick))


def drivers() -> list[str]:
    """The values of ``--hdf5-driver`` that this h5py can do."""
    return ["posix", "gather", *(["mpio"] if h5py.get_config().mpi else [])]


def marks(results: Path) -> tuple[int, int] | None:
    """Numbers of marked blocks and of all blocks of a journal; None if there is no journal."""
    with contextlib.suppress(OSError, KeyError), h5py.File(results, "r", locking=False) as file:
        found = file[f"{JOURNAL}/marks"][()]
        return int(np.count_nonzero(found)), len(found)
    return None


def state(results: Path) -> str:
    """Stage of a run by its files: one of `STAGES`."""
    if not results.exists():
        return "layout" if any(results.parent.glob(".mpidvc-*")) else "start"
    found = marks(results)
    if found is None:
        return "end" if results.with_suffix(".tsv").exists() else "write"
    return "finish" if found[0] == found[1] else "points"


def same(folder: Path, oracle: Path) -> None:
    """The files of two folders have equal bytes, and there are no others."""
    ours, expected = outputs(folder), outputs(oracle)
    assert sorted(ours) == sorted(expected)
    assert len(expected) > 1
    assert [name for name, content in expected.items() if ours[name] != content] == []


#: Lets the blocks of a run take longer, from a share of them on.
LASTS = """
import os, time
from mpidvc.runtime.journal import JournalTask
from mpidvc.workflow.journal_feed import JournalFeed

# rank 0 writes for others, and has to hear of them
leads = "0" in (os.environ.get("OMPI_COMM_WORLD_RANK"), os.environ.get("PMI_RANK"))

def last():
    end = time.monotonic() + (min({seconds}, 0.5) if leads else {seconds})
    while time.monotonic() < end and not os.path.exists({gate!r}):
        time.sleep(0.01)

def run(self, chunk, run=JournalTask.run):
    if self._todo[chunk] >= {share} * self._journal.n_blocks:
        last()
    return run(self, chunk)

def finished(self, batch, records, finished=JournalFeed.finished):
    if self._measurement.done >= {share} * self._measurement.total:
        self.flush()
        last()
    finished(self, batch, records)

JournalTask.run, JournalFeed.finished = run, finished
"""


class Started:
    """A running job; ends with the block.

    Parameters
    ----------
    command : list of str
    environment : dict
    gate : Path
        Work that `LASTS` lets last goes on at full speed when this file is there.
    """

    def __init__(self, command: list[str], environment: dict[str, str], gate: Path) -> None:
        self._gate = gate
        self._gate.unlink(missing_ok=True)
        self._seen: set[int] = set()
        self._mark = f"{_TAG}={uuid.uuid4().hex}".encode()
        # a file rather than a pipe, so that a test can read what has been said so far
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            env=environment | dict([self._mark.decode().split("=")]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,
        )
        self.out = self.err = ""

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()
        self.process.communicate()
        self._said.close()

    def said(self) -> str:
        """What it has written to stderr so far."""
        return os.pread(self._said.fileno(), os.fstat(self._said.fileno()).st_size, 0).decode()

    def interrupt_twice(self) -> None:
        """Send SIGINT, and again when the first one is answered: a process that is busy may see two as one."""
        self.process.send_signal(signal.SIGINT)
        until(lambda: "SIGINT: stopping" in self.said(), "an answer to SIGINT")
        self.process.send_signal(signal.SIGINT)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def hurry(self) -> None:
        """Let the rest of the work take no longer than it has to."""
        self._gate.touch()

    def _processes(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Ids and environments of the living processes of the job."""
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                lines = path.read_bytes().split(b"\0")
                if self._mark in lines:
                    pid = int(path.parent.name)
                    self._seen.add(pid)
                    yield pid, dict(line.decode(errors="replace").split("=", 1) for line in lines if line)

    def _ended(self) -> bool:
        """Whether no process is left, nor one that has lost its environment and still closes its files."""
        return not self.everybody() and all(state_of(pid) in ("", "Z", "X") for pid in self._seen)

    def everybody(self) -> list[int]:
        """Ids of all processes."""
        return [pid for pid, _ in self._processes()]

    def ranks(self) -> dict[int, int]:
        """Process ids by rank."""
        found = {}
        for pid, environ in self._processes():
            rank = next((environ[name] for name in _RANK if name in environ), None)
            # children of ranks and the launcher's proxies have the variables too
            if rank is not None and _program(pid).startswith("python"):
                found[int(rank)] = pid
        return found

    def launchers(self) -> list[int]:
        """Ids of the MPI's own processes: mpiexec, and its children that are no ranks."""
        ours = {self.process.pid, *self.ranks().values()}
        return [pid for pid in self.everybody() if pid not in ours or not _program(pid).startswith("python")]

    def send(self, number: int, pids: list[int]) -> None:
        """Send a signal to some of the processes."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_all(self) -> None:
        """Kill all processes at once, as in a power cut: none sees another one die."""
        while pids := self.everybody():
            self.send(signal.SIGSTOP, pids)
            self.send(signal.SIGKILL, pids)
        self.process.wait(LONGEST)
        until(self._ended, "processes of the job are left")

    def end(self) -> int:
        """Wait for the end of all processes, and return the exit status."""
        self.out, _ = self.process.communicate(timeout=LONGEST)
        until(self._ended, "processes of the job are left")
        self.err = self.said()
        return self.process.returncode


def _program(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "comm").read_text()
    except OSError:
        return ""


class Job:
    """A command line that can be started again and again.

    Parameters
    ----------
    line : str
        Command and options; ``@`` is the folder of the images.
    images, out : Path
    stem : str
        Of the files that it writes in `out`.
    environment : dict
    launcher : Mpiexec, optional
        Without it there are runs of one process only.
    """

    def __init__(
        self, line: str, images: Path, out: Path, stem: str, environment: dict[str, str], launcher: Mpiexec | None
    ) -> None:
        self._words = [*line.replace("@", f"{images}/").split(), "-od", str(out)]
        self._environment, self._launcher = environment, launcher
        self.out = out
        self.results = out / f"{stem}.h5"
        self.tsv, self.log = self.results.with_suffix(".tsv"), self.results.with_suffix(".run.json")
        self._gate = out.absolute().with_name(f"{out.name}-hurry")

    def start(
        self,
        n: int,
        *options: str,
        foreign: bool = False,
        tolerant: bool = True,
        code: str = "",
        lasts: float | None = None,
        seconds: float = LONGEST,
        **variables: str,
    ) -> Started:
        """Start it on `n` ranks.

        Parameters
        ----------
        n : int
        options : str
            Further words of the command line.
        foreign : bool
            Whether the launcher is the user's rather than our own.
        tolerant : bool
            Whether such a launcher asks for fault tolerance if it has it.
        code : str
            Python code to be run by every process at its start.
        lasts : float, optional
            The share of its blocks from which on each takes longer, so that the run does not end before it is
            disturbed; until `Started.hurry`.
        seconds : float
            How much longer each of these blocks takes, or each batch of a propagation; half a second at most on the
            first of several ranks.
        variables : str
            Environment variables.
        """
        if lasts is not None:
            code += LASTS.format(share=lasts, seconds=seconds, gate=str(self._gate))
        if code:
            variables["MPIDVC_TEST_CODE"] = code
        environment = self._environment | variables
        words = ["-m", "mpidvc", *self._words, *options]
        if not foreign:
            return Started([sys.executable, *words, "-np", str(n)], environment, self._gate)
        assert self._launcher is not None
        environment = self._launcher.environment(environment, n)
        # only ranks that mpidvc itself started have this
        del environment["MPIDVC_STARTED_RANKS"]
        command = [word for word in self._launcher.command(n) if tolerant or word not in ("--with-ft", "ulfm")]
        return Started([*command, sys.executable, *words], environment, self._gate)

    def run(self, n: int, *options: str, foreign: bool = False, code: str = "", **variables: str) -> Started:
        """Start it and wait for its end."""
        with self.start(n, *options, foreign=foreign, code=code, **variables) as started:
            started.end()
        return started

    def refuse(self, *options: str) -> str:
        """The line with which the command, in this process, refuses to run."""
        err = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            status = main([*self._words, *options, "-np", "1"])
        assert status == 2, err.getvalue()
        (line,) = err.getvalue().splitlines()
        return line

    def resume(self, oracle: Path, *options: str, n: int = 1) -> Started:
        """Resume and check that the files are those of an undisturbed run."""
        ended = self.run(n, "--resume", *options)
        assert ended.process.returncode == 0, ended.err
        assert "Traceback" not in ended.err
        same(self.out, oracle)
        return ended


def is_at(job: Job, where: str | float) -> bool:
    """Whether a run has come to a stage of `state`, or has this share of its blocks marked."""
    if isinstance(where, str):
        return STAGES.index(state(job.results)) >= STAGES.index(where)
    found = marks(job.results)
    return state(job.results) in ("write", "end") or (found is not None and found[0] >= where * found[1])


def wait(job: Job, started: Started, where: str | float) -> None:
    """Wait until `is_at`, or the job has ended."""
    until(lambda: is_at(job, where) or not started.running, f"{where} of {job.results.name}")


#: Where a run of one process is suspended at the beginning of a stage: what has to be imported, and a function.
BEGINS = {
    "layout": ("from mpidvc.runtime.journal import Journal", "Journal.fill"),
    "finish": ("from mpidvc.workflow.finishing import Finishing", "Finishing.all_done"),
    # when the results have their name, and the text has not
    "write": ("from mpidvc import rowfile", "rowfile.sync_folder"),
}
SUSPEND = """
import os, signal
{given}
def suspended(*given, function={name}):
    os.kill(os.getpid(), signal.SIGSTOP)
    return function(*given)
{name} = suspended
"""


@contextlib.contextmanager
def suspended(job: Job, stage: str) -> Iterator[Started]:
    """A job of one process that is suspended in a stage: where it happens to be, or at its beginning if it is short."""
    given, name = BEGINS[stage]
    for seconds in (random.uniform(0, 0.01), 0.0):
        shutil.rmtree(job.out, ignore_errors=True)
        with job.start(1, code=SUSPEND.format(given=given, name=name)) as started:
            pid = started.process.pid
            until(lambda pid=pid: state_of(pid) == "T", f"{stage} of {job.results.name}")
            if seconds:
                os.kill(pid, signal.SIGCONT)
                time.sleep(seconds)
                os.kill(pid, signal.SIGSTOP)
                until(lambda pid=pid: state_of(pid) in "TZ", f"{job.results.name} is suspended again")
            if state_of(pid) == "T" and state(job.results) == stage:
                yield started
                return
    raise AssertionError(f"{stage} was not met")


def interrupted(job: Job, share: float = 0.3, *options: str, **variables: str) -> None:
    """Leave the unfinished results file of a run that was killed when this share of its blocks was done."""
    with job.start(1, *options, lasts=share, **variables) as started:
        wait(job, started, share)
        started.kill_all()
    assert state(job.results) == "points"
