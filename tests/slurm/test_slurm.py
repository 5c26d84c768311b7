"""Jobs of ``mpidvc job`` in a real Slurm of two emulated nodes: whatever ends them, their bytes are a local run's."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.main import main
from mpidvc.runtime.runlog import path_of, read_log
from tests.outputs import outputs
from tests.slurm.cluster import Slurm, missing, running
from tests.survival.jobs import marks

_WHY = missing()
pytestmark = pytest.mark.skipif(_WHY is not None, reason=_WHY or "")

#: Some ten CPU seconds.
LINE = ["ldic", "a.tif", "b.tif", "-ns", "4", "-hws", "6", "-o", "3", "-dp", "1e-5"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Slurm]:
    with running(tmp_path_factory.mktemp("slurm"), environment) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    pair = AnalyticPair((40, 60, 80), seed=5, amplitude=0.1, wavelength=60.0, translation=(0.6, -0.4, 0.7))
    for name, image in (("a", pair.image1()), ("b", pair.image2())):
        tifffile.imwrite(folder / f"{name}.tif", np.asarray(image), photometric="minisblack")
    return folder


@pytest.fixture(scope="module")
def expected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of an undisturbed run here."""
    folder = tmp_path_factory.mktemp("expected")
    words = [str(images / word) if word.endswith(".tif") else word for word in LINE]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*words, "-np", "2", "-od", str(folder)]) == 0
    return outputs(folder)


class Job:
    """A submitted job in a folder of its own."""

    def __init__(self, slurm: Slurm, folder: Path, images: Path, *options: str) -> None:
        self.slurm, self.folder = slurm, folder
        for image in images.iterdir():
            (folder / image.name).symlink_to(image)
        out = io.StringIO()
        before = dict(os.environ)
        with _chdir(folder):
            os.environ.update(slurm.environment)
            try:
                with contextlib.redirect_stdout(out):
                    status = main(["job", "slurm", "--submit", "--nodes", "2", *options, "--", *LINE, "-od", "out"])
            finally:
                os.environ.clear()
                os.environ.update(before)
        assert status == 0
        self.id = out.getvalue().split("Submitted batch job ")[1].split()[0]
        self.log = folder / f"mpidvc-ldic.{self.id}.out"
        self.results = folder / "out" / "a-b-ldic.h5"

    @property
    def output(self) -> str:
        """What the job has printed."""
        return self.log.read_text() if self.log.exists() else ""

    def measuring(self) -> None:
        """Wait until some of the points are measured."""

        def begun() -> bool:
            found = marks(self.results)
            return found is not None and 0 < found[0] < found[1]

        self.slurm.until(begun, "measured points", self.log)

    def ends(self, expected: dict[str, bytes]) -> dict[str, str]:
        """Wait for the end, and compare the files."""
        state = self.slurm.end(self.id, self.log)
        assert state["JobState"] == "COMPLETED", self.log.read_text()
        ours = outputs(self.folder / "out")
        assert sorted(ours) == sorted(expected)
        assert [name for name, content in expected.items() if ours[name] != content] == []
        return state

    def ranks(self) -> list[int]:
        """Ids of the processes that correlate, on both nodes."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                lines = path.read_bytes().split(b"\0")
                ranked = any(line.startswith((b"OMPI_COMM_WORLD_RANK=", b"PMI_RANK=")) for line in lines)
                program = (path.parent / "comm").read_text()
                if f"SLURM_JOB_ID={self.id}".encode() in lines and ranked and program.startswith("python"):
                    found.append(int(path.parent.name))
        return sorted(found)


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def test_job_finishes(slurm: Slurm, images: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, images)
    state = job.ends(expected)
    assert state["NumNodes"] == "2"
    assert "(with 4 processes)" in job.log.read_text()
    assert not (tmp_path / ".mpidvc-ldic.job").exists()


def test_time_limit(slurm: Slurm, images: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    # Slurm's limits are minutes, and it sends the signal up to half a minute early; the first part is slow
    code = "import os\nif not os.environ.get('SLURM_RESTART_COUNT'):\n"
    code += "    import time, mpidvc.tasks.ldic as ldic\n    run = ldic.LdicTask.run\n"
    code += "    ldic.LdicTask.run = lambda self, chunk: (time.sleep(3), run(self, chunk))[1]\n"
    slow = Slurm(slurm.environment | {"MPIDVC_TEST_CODE": code})
    job = Job(slow, tmp_path, images, "--time", "1", "--stop-before", "15")
    slurm.until(lambda: "status 85: the job is started again" in job.output, "the stop", job.log)
    before = marks(job.results)
    assert before is not None
    assert 0 < before[0] < before[1]
    state = job.ends(expected)
    assert int(state["Restarts"]) == 1
    assert read_log(path_of(job.results)).resumes == 1


def test_preempted(slurm: Slurm, images: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, images)
    job.measuring()
    slurm.ask("srun", "-p", "high", "-N", "2", "--ntasks-per-node=2", "-t", "1", "true")
    state = job.ends(expected)
    assert int(state["Restarts"]) == 1


def test_cancelled(slurm: Slurm, images: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, images)
    job.measuring()
    slurm.ask("scancel", job.id)
    assert slurm.end(job.id, job.log)["JobState"] == "CANCELLED"
    slurm.until(lambda: not job.ranks(), "the end of the processes")
    found = marks(job.results)
    assert found is not None
    assert 0 < found[0] < found[1]
    # submitted again, it goes on
    slurm.ask("sbatch", "mpidvc-ldic.sh", folder=tmp_path)
    job.id = slurm.ask("squeue", "-h", "-o", "%i")
    job.log = tmp_path / f"mpidvc-ldic.{job.id}.out"
    job.ends(expected)


def test_killed_process(slurm: Slurm, images: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, images)
    job.measuring()
    os.kill(job.ranks()[-1], signal.SIGKILL)
    job.ends(expected)
