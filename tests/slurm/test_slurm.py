"""Jobs of ``mpidvc job`` in a real Slurm of two emulated nodes: whatever ends them, their bytes are a local run's."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.main import main
from mpidvc.runtime.runlog import path_of, read_log
from tests.outputs import outputs
from tests.slurm.cluster import Slurm, missing
from tests.slurm.jobs import LINE, Job
from tests.survival.jobs import marks
from tests.waiting import LONGEST

_WHY = missing()
pytestmark = pytest.mark.skipif(_WHY is not None, reason=_WHY or "")


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


@pytest.mark.parametrize("launcher", ["mpiexec", "srun"])
def test_job_finishes(slurm: Slurm, images: Path, expected: dict[str, bytes], launcher: str, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, images, "--launcher", launcher)
    state = job.ends(expected)
    assert state["NumNodes"] == "2"
    assert "(with 4 processes)" in job.log.read_text()
    assert not (tmp_path / ".mpidvc-ldic.job").exists()


def slowed(slurm: Slurm, seconds: float) -> Slurm:
    """With jobs whose first part takes so many seconds more for every chunk but a few."""
    code = "import os\nif not os.environ.get('SLURM_RESTART_COUNT'):\n"
    code += "    import time, mpidvc.tasks.ldic as ldic\n    run = ldic.LdicTask.run\n"
    code += f"    ldic.LdicTask.run = lambda self, chunk: (time.sleep({seconds} * (chunk > 7)), run(self, chunk))[1]\n"
    return Slurm(slurm.environment | {"MPIDVC_TEST_CODE": code})


def test_time_limit(slurm: Slurm, images: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    # Slurm's limits are minutes, and it sends the signal up to half a minute early
    job = Job(slowed(slurm, 5), tmp_path, images, "--time", "1", "--stop-before", "15")
    slurm.until(lambda: "status 85: the job is started again" in job.output, "the stop", job.log)
    before = marks(job.results)
    assert before is not None
    assert 0 < before[0] < before[1]
    state = job.ends(expected)
    assert int(state["Restarts"]) == 1
    assert read_log(path_of(job.results)).resumes == 1


def test_preempted(slurm: Slurm, images: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    job = Job(slowed(slurm, 1), tmp_path, images)
    job.measuring()
    slurm.ask("srun", "-p", "high", "-N", "2", "--ntasks-per-node=2", "-t", "1", "true")
    state = job.ends(expected)
    assert int(state["Restarts"]) == 1


def test_cancelled(slurm: Slurm, images: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    job = Job(slowed(slurm, 1), tmp_path, images)
    job.measuring()
    slurm.ask("scancel", job.id)
    assert slurm.end(job.id, job.log)["JobState"] == "CANCELLED"
    slurm.until(lambda: not job.ranks(), "the end of the processes")
    found = marks(job.results)
    assert found is not None
    assert 0 < found[0] < found[1]
    # submitted again, it goes on
    job.id = slurm.ask("sbatch", "--parsable", "mpidvc-ldic.sh", folder=tmp_path)
    job.log = tmp_path / f"mpidvc-ldic.{job.id}.out"
    job.ends(expected)


def test_killed_process(slurm: Slurm, images: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    job = Job(slowed(slurm, 0.5), tmp_path, images)
    job.measuring()
    os.kill(job.ranks()[-1], signal.SIGKILL)
    job.ends(expected)


#: All steps of a run, on few windows.
RUN = ["run", "a.tif", "b.tif", "--recipe", "small.toml"]
RECIPE = """
pixelSearch = false
[ldic]
node-spacing = 6
half-window-size = 6
"""
#: Files of a run with times and places.
OWN = ("steps.json", "report.html", "report.json")


@pytest.fixture(scope="module")
def scans(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images, and a recipe."""
    folder = tmp_path_factory.mktemp("scans")
    for image in images.iterdir():
        (folder / image.name).symlink_to(image)
    (folder / "small.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def run_here(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a run of all steps in this process."""
    folder = tmp_path_factory.mktemp("here")
    words = [str(scans / word) if "." in word else word for word in RUN]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*words, "-np", "1", "-od", str(folder)]) == 0
    return {name: content for name, content in outputs(folder).items() if name not in OWN}


@pytest.mark.parametrize("launcher", ["mpiexec", "srun"])
def test_a_run_of_all_steps_is_started_again(
    slurm: Slurm, scans: Path, run_here: dict[str, bytes], launcher: str, tmp_path: Path
) -> None:
    """In the middle of ldic a job of higher priority takes the nodes; steps that were finished are not repeated."""
    options = ("--launcher", launcher, "--ranks-per-node", "1", "--time", "10")
    job = Job(slowed(slurm, 1), tmp_path, scans, *options, line=RUN, results="ldic/a-b-ldic.h5", longest=2 * LONGEST)
    job.measuring()
    slurm.ask("srun", "-p", "high", "-N", "2", "--ntasks-per-node=2", "-t", "1", "true")
    state = job.ends(run_here, OWN)
    assert int(state["Restarts"]) == 1
    told = job.output
    assert "Starting Local DIC for" in told
    assert "(with 2 processes)" in told
    # reg, which was finished before the nodes were taken
    assert told.count("finished before") == 1
    assert main(["status", "-q", str(tmp_path / "out")]) == 0
    assert not (tmp_path / ".mpidvc-run.job").exists()
