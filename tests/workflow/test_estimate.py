"""An estimate of a series, and the cache of what was measured."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.commands import COMMANDS
from mpidvc.tasks.ldic import LdicTask
from mpidvc.workflow import calibration
from mpidvc.workflow import estimate as module
from mpidvc.workflow.estimate import Estimate, cache_folder, estimate
from mpidvc.workflow.series import HELD

LINE = ["ldic", "im1.tif", "im2.tif", "im3.tif", "im4.tif", "im5.tif", "-ns", "5", "-hws", "4"]


@pytest.fixture
def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five images, and a clock by which every point takes a tenth of a second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    grey = np.random.default_rng(1).integers(0, 60000, (24, 24, 24)).astype(np.uint16)
    for k in range(1, 6):
        tifffile.imwrite(f"im{k}.tif", grey, photometric="minisblack")
    now = 0.0
    run = LdicTask.run

    def slow(task: LdicTask, chunk: int) -> object:
        nonlocal now
        records = run(task, chunk)
        now += 0.1 * len(records)
        return records

    monkeypatch.setattr(LdicTask, "run", slow)
    monkeypatch.setattr(calibration.time, "process_time", lambda: now)
    return tmp_path


def test_a_series(series: Path) -> None:
    found = estimate(LINE, COMMANDS)
    one = estimate(LINE[:3] + LINE[6:], COMMANDS)
    assert found.cost.rounds == 4
    assert found.points == 4 * one.points == 4 * 4**3
    assert found.work_seconds == pytest.approx(4 * one.work_seconds)
    assert found.work_seconds == pytest.approx(0.1 * found.points)
    assert len(found.outputs) == 8
    # pairs come one after the other: the pieces of one are all that ranks can share
    pieces = one.cost.chunks
    assert found.seconds(10 * pieces) >= 4 * one.work_seconds / pieces
    # the table of states is made from the field of each, which rank 0 holds
    assert found.memory(3)[0] == one.memory(3)[0]
    assert found.memory(3)[1] >= one.memory(3)[1] + HELD[0] * one.points


def test_time_besides_the_work_is_that_of_these_images(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints are taken while the run is planned: those of large images would take 0.4 s."""
    monkeypatch.setattr(module, "_start", lambda command: 0.0)
    found = estimate(LINE, COMMANDS)
    assert 0 < found.fixed_seconds < 0.1
    # a second rank has to be started, and rank 0 does nothing twice
    pieces = found.cost.chunks
    assert found.seconds(2) < found.fixed_seconds + module.LAUNCH + 0.1 + found.work_seconds * (1 / 2 + 2 / pieces)


def test_ranks_that_make_sense(series: Path) -> None:
    found = estimate(LINE, COMMANDS)
    assert found.efficiency(1) == 1
    assert found.efficiency(found.sensible_ranks) >= 0.5
    assert found.efficiency(4 * found.sensible_ranks) < 0.5
    assert found.seconds(found.sensible_ranks) < found.seconds(1)


def test_a_cache_that_cannot_be_written_does_not_matter(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(series / "im1.tif"))
    assert estimate(LINE, COMMANDS).work_seconds > 0


def test_place_of_the_cache(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimate(LINE, COMMANDS)
    (kept,) = (series / "cache").rglob("*.json")
    assert re.fullmatch(r"[0-9a-f]{32}", kept.stem)
    assert kept.parent == cache_folder() / "costs"
    # what a run does with an earlier result is not its time
    assert isinstance(estimate([*LINE, "--overwrite"], COMMANDS), Estimate)
    assert len(list((series / "cache").rglob("*.json"))) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(series))
    assert cache_folder() == series / ".cache" / "mpidvc"
