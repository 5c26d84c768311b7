"""The long form: minutes of work under a time limit of one minute."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pytest

from mpidvc.main import main
from tests.outputs import outputs
from tests.slurm.cluster import Slurm, missing
from tests.slurm.jobs import Job

_WHY = missing()
pytestmark = pytest.mark.skipif(_WHY is not None, reason=_WHY or "")


@pytest.mark.skipif(os.environ.get("MPIDVC_LONG") != "1", reason="long: set MPIDVC_LONG=1")
@pytest.mark.skipif("MPIDVC_DATA" not in os.environ, reason="needs MPIDVC_DATA")
def test_sandstone_survives_its_time_limits(slurm: Slurm, tmp_path: Path) -> None:
    """A scan of a sandstone with a limit of one minute: the script as it is printed, started again until it is done."""
    data = Path(os.environ["MPIDVC_DATA"]) / "3d" / "v4_sandstone"
    images, here, there = (tmp_path / name for name in ("images", "here", "there"))
    for folder in (images, here, there):
        folder.mkdir()
    for name, state in (("a", "Intact"), ("b", "Deformed")):
        (images / f"{name}.tif").symlink_to(data / f"V4_bin2_{state}.tif")
    line = ["ldic", "a.tif", "b.tif", "-ns", "3", "-hws", "17", "-o", "3"]
    job = Job(slurm, there, images, "--time", "1", "--stop-before", "15", line=line)
    state = slurm.end(job.id, job.log, longest=7200)
    assert state["JobState"] == "COMPLETED", job.output
    assert int(state["Restarts"]) >= 1
    words = [str(images / word) if word.endswith(".tif") else word for word in line]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*words, "-np", "2", "-od", str(here)]) == 0
    expected, ours = outputs(here), outputs(there / "out")
    assert sorted(ours) == sorted(expected)
    assert [name for name, content in expected.items() if ours[name] != content] == []
    print(f"restarts: {state['Restarts']}")
