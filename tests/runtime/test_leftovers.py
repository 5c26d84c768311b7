"""Leftovers of killed jobs are found, and nothing else."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from mpidvc.runtime import leftovers as module
from mpidvc.runtime.job import new_job
from mpidvc.runtime.launch import Mpiexec
from mpidvc.runtime.leftovers import Leftover, leftovers, remove
from tests.waiting import LONGEST

NAMES = ("mpich_shm_2a753ec9_0", "sm_segment.host.0.2d770000.0", "osc_sm.host.1.0.3", "ucx_shm_posix_3a77fb7")


def dead_process() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait(timeout=LONGEST)
    return process.pid


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Shared memory and temporary files of a host, with leftovers and files that only look alike."""
    shared, temporary = tmp_path / "shm", tmp_path / "tmp"
    shared.mkdir()
    temporary.mkdir()
    for name in (*NAMES, "my_sm_segment.1", "sem.mpich_shm_1", "volume.raw"):
        (shared / name).write_bytes(b"x" * 5000)
    (shared / "mpich_shm_link_0").symlink_to(shared / "volume.raw")
    for pid in (dead_process(), os.getpid()):
        (temporary / f"ompi.{pid}" / "1").mkdir(parents=True)
        (temporary / f"ompi.{pid}" / "1" / "pmix").write_bytes(b"x" * 5000)
    (temporary / f"ompi.{dead_process()}.notes").mkdir()
    return shared, temporary


def names(found: list[Leftover]) -> set[str]:
    return {leftover.path.name for leftover in found}


def test_only_known_names_and_dead_launchers(folders: tuple[Path, Path]) -> None:
    found = leftovers(*folders, young=0)
    sessions = [leftover for leftover in found if leftover.path.parent == folders[1]]
    assert names(found) == {*NAMES, *names(sessions)}
    assert len(sessions) == 1
    assert sessions[0].path.name != f"ompi.{os.getpid()}"
    assert all(8192 >= leftover.size >= 5000 for leftover in found)


def test_remove(folders: tuple[Path, Path]) -> None:
    before = {path for folder in folders for path in folder.iterdir()}
    found = leftovers(*folders, young=0)
    assert remove(found) == []
    after = {path for folder in folders for path in folder.iterdir()}
    assert before - after == {leftover.path for leftover in found}
    assert leftovers(*folders, young=0) == []
    assert (folders[0] / "volume.raw").exists()


def test_what_is_used_is_none(folders: tuple[Path, Path]) -> None:
    shared, temporary = folders
    session = next(path for path in temporary.glob("ompi.*") if path.name in names(leftovers(*folders, young=0)))
    with (shared / NAMES[0]).open("r+b") as file, (session / "1" / "pmix").open():
        mapped = mmap.mmap(file.fileno(), 0)
        with (shared / NAMES[1]).open():
            assert names(leftovers(*folders, young=0)) == set(NAMES[2:])
        mapped.close()
    assert names(leftovers(*folders, young=0)) == {*NAMES, session.name}


def test_mapped_by_a_process_that_closed_it(folders: tuple[Path, Path]) -> None:
    program = (
        "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close(); print(flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{program}; sys.stdin.read()", folders[0] / NAMES[0]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            assert NAMES[0] not in names(leftovers(*folders, young=0))
        finally:
            process.communicate(timeout=LONGEST)
    assert NAMES[0] in names(leftovers(*folders, young=0))


@pytest.mark.parametrize("way", ["open", "mapped"])
def test_used_by_a_process_that_is_not_seen(
    folders: tuple[Path, Path], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by one of another container that shares the folder; the kernel tells that it has the file open."""
    monkeypatch.setattr(module, "_used", lambda: (set(), set()))
    with (folders[0] / NAMES[0]).open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
        if way == "mapped":
            file.close()
        assert names(leftovers(*folders, young=0)) & set(NAMES) == set(NAMES[1:])
        mapped.close()
    assert names(leftovers(*folders, young=0)) >= set(NAMES)


def test_job_of_a_launcher_that_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is locked as long as it lives."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(module, "_used", lambda: (set(), set()))
    monkeypatch.setattr(os, "getpid", dead_process)
    with new_job(b"plan") as job:
        assert leftovers(tmp_path / "none", tmp_path / "tmp", young=0) == []
        shutil.copytree(job.folder, tmp_path / "kept")
    left = job.folder
    (tmp_path / "kept").rename(left)
    assert [found.path for found in leftovers(tmp_path / "none", tmp_path / "tmp", young=0)] == [left]


SEEN = """
import sys
from pathlib import Path
from mpidvc.runtime.leftovers import leftovers
print(*(found.path.name for found in leftovers(*map(Path, sys.argv[1:]), young=0)))
"""


def test_from_another_container(folders: tuple[Path, Path], environment: dict[str, str]) -> None:
    """Where no process of this one is seen, nothing that this one uses is found."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", SEEN, *map(str, folders)]

    def found() -> set[str]:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False)
        if done.returncode != 0:
            pytest.skip("containers cannot be made here")
        return set(done.stdout.split())

    with (folders[0] / NAMES[0]).open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
        assert found() & set(NAMES) == set(NAMES[1:])
        mapped.close()
    assert found() >= set(NAMES)


def test_what_is_new_is_none(folders: tuple[Path, Path]) -> None:
    assert leftovers(*folders) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_files_of_others_are_none(folders: tuple[Path, Path]) -> None:
    os.chown(folders[0] / NAMES[0], 12345, 12345)
    assert NAMES[0] not in names(leftovers(*folders, young=0))


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    assert leftovers(tmp_path / "none", tmp_path / "neither") == []


JOB = """
import json, os, sys
from mpi4py import MPI
world = MPI.COMM_WORLD
maps = open("/proc/self/maps").read().split("\\n")
files = {line.split(None, 5)[5] for line in maps if "/dev/shm/" in line and "(deleted)" not in line}
told = world.gather((os.getpid(), os.getppid(), files))
if world.rank == 0:
    processes = sorted({p for pid, parent, _ in told for p in (pid, parent)})
    print(json.dumps([processes, sorted(set().union(*(f for *_, f in told)))]), flush=True)
import time
time.sleep(60)
"""


def test_real_job(launcher: Mpiexec, environment: dict[str, str]) -> None:
    """Nothing is found while the job lives; its segments are, after all its processes were killed at once."""
    command = [*launcher.command(2), sys.executable, "-c", JOB]
    with subprocess.Popen(
        command, env=launcher.environment(environment, 2), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as job:
        try:
            assert job.stdout is not None
            processes, files = json.loads(job.stdout.readline())
            alive = {str(leftover.path) for leftover in leftovers(young=0)}
        finally:
            job.kill()
    assert files
    assert not alive & set(files)
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    found: list[Leftover] = []
    while not set(files) <= {str(leftover.path) for leftover in found}:
        assert time.monotonic() < deadline
        files = [file for file in files if Path(file).exists()]
        found = leftovers(young=0)
    session = Path("/tmp", f"ompi.{job.pid}")
    mine = [leftover for leftover in found if str(leftover.path) in files or leftover.path == session]
    assert remove(mine) == []
    assert not any(Path(file).exists() for file in files)
