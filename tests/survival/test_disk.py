"""Full disks: noticed before the work if possible; otherwise nothing measured is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.outputs import outputs
from tests.survival.conftest import LINES, Make
from tests.survival.jobs import LONG, wait
from tests.waiting import LONGEST

Oracle = Callable[[str], Path]
LINE = LINES["pixelSearch"]
#: Makes a file system of the given size in bytes, or resizes it.
Mount = Callable[[int], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    folder = tmp_path / "small"
    folder.mkdir()

    def sized(size: int) -> Path:
        how = "remount," if folder.is_mount() else ""
        words = ["mount", "-t", "tmpfs", "-o", f"{how}size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False, timeout=LONGEST).returncode:
            pytest.skip("file systems cannot be mounted here")
        return folder

    yield sized
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=LONGEST)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.2, 1.6] if LONG else [0.1, 1.2])
def test_no_room_for_the_results(share: float, make: Make, oracle: Oracle, mount: Mount) -> None:
    """A run does not begin without the space for journal and finished file."""
    size = (oracle(LINE) / "a-b-pixelSearch.h5").stat().st_size
    folder = mount(int(share * size) or 4096)
    job = make(LINE, out="small/out")
    job.out.mkdir()
    ended = job.run(1)
    assert ended.process.returncode == 75
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert "No space left" in ended.err
    assert "Starting" not in ended.out
    assert list(job.out.iterdir()) == []
    mount(20 * size)
    job.resume(oracle(LINE))
    assert folder.is_mount()


def test_no_room_for_other_results(make: Make, oracle: Oracle, mount: Mount) -> None:
    """A run that cannot begin leaves the files of a finished one alone."""
    size = (oracle(LINE) / "a-b-pixelSearch.h5").stat().st_size
    mount(20 * size)
    job = make(LINE, out="small/out")
    job.resume(oracle(LINE))
    before = outputs(job.out)
    used = sum(map(len, before.values()))
    mount(used + size)
    ended = job.run(1, "-ns", "3")
    assert ended.process.returncode == 75
    assert "No space left" in ended.err
    assert outputs(job.out) == before


def test_no_room_for_the_text(make: Make, oracle: Oracle, mount: Mount) -> None:
    """There is room for the results, but not for their text, which would be missed in the end."""
    without = make(LINE, out="without")
    with without.start(1, "-notsv", lasts=0.1) as started:
        wait(without, started, 0.1)
        used = sum(path.stat().st_blocks * 512 for path in without.out.iterdir())
        started.kill_all()
    text = (oracle(LINE) / "a-b-pixelSearch.tsv").stat().st_size
    mount(int(used + 0.1 * text))
    job = make(LINE, out="small/out")
    job.out.mkdir()
    ended = job.run(1)
    assert ended.process.returncode == 75
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert f"{job.tsv}: the " in ended.err
    assert "No space left" in ended.err
    assert "-notsv" in ended.err
    assert list(job.out.iterdir()) == []
    assert job.run(1, "-notsv").process.returncode == 0


#: Reserves nothing for the text, and fills the file system when some of it is to be written.
FILL = """
from mpidvc.workflow import text
text.NUMBER = 0
write = text.TextRows.write
def full(*given):
    try:
        with open({path!r}, "wb", buffering=0) as other:
            while True:
                other.write(bytes(4096))
    except OSError:
        write(*given)
text.TextRows.write = full
"""


def test_text_longer_than_was_reserved(make: Make, oracle: Oracle, mount: Mount) -> None:
    """The disk is filled while the run goes on: what is measured is kept."""
    size = (oracle(LINE) / "a-b-pixelSearch.h5").stat().st_size
    folder = mount(10 * size)
    job = make(LINE, out="small/out")
    with job.start(1, code=FILL.format(path=str(folder / "other"))) as started:
        status = started.end()
    assert status == 75
    assert len(started.err.strip().splitlines()) == 1, started.err
    assert str(job.tsv) in started.err
    assert "No space left" in started.err
    assert not job.tsv.exists()
    mount(20 * size)
    assert "points are done" in job.resume(oracle(LINE)).out


#: A disk that is full, for a rank that writes some of the finished file or of the text.
FULL = """
import errno, os
from mpidvc import rowfile
from mpidvc.workflow import finishing, text
from mpidvc.workflow.finishing import OrderedRows
from mpidvc.workflow.text import TextRows
finishing.ROWS = text.ROWS = 500
if os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")) == "{rank}":
    def full(*given):
        raise OSError(errno.{error}, os.strerror(errno.{error}))
    def failing(*given, run={name}):
        rowfile.os = type("os", (), {{**vars(os), "{call}": staticmethod(full)}})
        return run(*given)
    {name} = failing
"""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["OrderedRows.run", "TextRows.write"])
@pytest.mark.parametrize(("call", "error"), [("pwrite", "ENOSPC"), ("fdatasync", "EIO")])
@pytest.mark.usefixtures("launcher")
def test_rank_that_cannot_write(rank: int, name: str, call: str, error: str, make: Make, oracle: Oracle) -> None:
    """One rank of several ends the job, while the others measure; what is measured is kept."""
    job = make(LINE)
    code = FULL.format(rank=rank, name=name, call=call, error=error)
    with job.start(2, code=code) as started:
        status = started.end()
    assert status == 75
    (told,) = started.err.strip().splitlines()
    assert "cannot be written" in told
    assert str(job.tsv if name == "TextRows.write" else job.results) in told
    assert ".part" not in told
    assert not job.tsv.exists()
    assert "points are done" in job.resume(oracle(LINE), n=2).out


@pytest.mark.usefixtures("launcher")
def test_no_room_for_temporary_files(make: Make, mount: Mount) -> None:
    folder = mount(2 * 4096)
    job = make(LINE)
    ended = job.run(2, TMPDIR=str(folder))
    assert ended.process.returncode == 75
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert f"{folder}: no temporary files can be written (No space left on device)" in ended.err
    assert list(folder.iterdir()) == []
    assert not job.results.exists()


def holds_deleted(pid: int) -> bool:
    """Whether a process keeps the space of files that have no name any more."""
    return any("(deleted)" in str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir())
