"""``mpidvc plan``: what it says against closed forms, brute force, and the files that the run then writes."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import mpidvc
from mpidvc.main import main
from mpidvc.runtime.terminal import TERMINAL
from mpidvc.tasks.ldic import LdicTask
from mpidvc.workflow import calibration

SHAPE = (40, 44, 48)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images with texture, and a cache of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    grey = ndimage.gaussian_filter(np.random.default_rng(1).random(SHAPE), 1.3)
    grey = ((grey - grey.min()) / np.ptp(grey) * 60000).astype(np.uint16)
    tifffile.imwrite("im1.tif", grey, photometric="minisblack")
    tifffile.imwrite("im2.tif", np.roll(grey, 1, 2), photometric="minisblack")
    labels = np.zeros(SHAPE, np.uint16)
    labels[6:18, 8:22, 8:20], labels[20:34, 22:36, 24:40] = 1, 2
    tifffile.imwrite("labels.tif", labels, photometric="minisblack")
    return tmp_path


def plan(capsys: pytest.CaptureFixture[str], line: str, options: str = "") -> dict[str, Any]:
    capsys.readouterr()
    assert main(["plan", "--json", *options.split(), "--", *line.split()]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_points_and_windows_at_the_border(capsys: pytest.CaptureFixture[str]) -> None:
    told = plan(capsys, "ldic im1.tif im2.tif -ns 6 -hws 7", "--no-calibration")
    axes = [range(6, n, 6) for n in SHAPE]
    nodes = [node for node in product(*axes) if all(p < n - 1 for p, n in zip(node, SHAPE, strict=True))]
    out = [node for node in nodes if any(p < 7 or p + 7 > n - 1 for p, n in zip(node, SHAPE, strict=True))]
    assert (told["points"], told["border"]) == (len(nodes), len(out))
    assert 0 < told["border"] < told["points"]


LINES = [
    "ldic im1.tif im2.tif -ns 8 -hws 4 -vtk -tif",
    "ldic im1.tif im2.tif -ns 8 -hws 4 --start-from neighbours",
    "pixelSearch im1.tif im2.tif -ns 8 -hws 4 -sr -2 2 -2 2 -2 2 -vtk -tif",
    "pixelSearchPropagate im1.tif im2.tif -sp 20 20 20 0 0 1 -ns 8 -hws 4 -sr -2 2 -2 2 -2 2",
    "ddic im1.tif labels.tif im2.tif",
    "reg im1.tif im2.tif -def",
    "regularStrain f-ldic.h5 -comp vol r U -vtk -tif",
    "filterPhiField -pf f-ldic.h5 -slqc -cint",
    "deformImage im1.tif -pf f-ldic.h5 --residual im2.tif",
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[0])
def test_nothing_is_written_until_the_run_is(capsys: pytest.CaptureFixture[str], folder: Path, line: str) -> None:
    if "f-ldic" in line:
        assert main(["ldic", "im1.tif", "im2.tif", "-ns", "8", "-hws", "4", "-pre", "f", "-np", "1"]) == 0
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "cache" not in path.parts}
    told = plan(capsys, f"{line} -od deep/out")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "cache" not in path.parts} == before
    assert not Path("deep").exists()
    assert told["work_seconds"] > 0
    assert main([*line.split(), "-od", "deep/out", "-np", "1"]) == 0
    sizes = {f"deep/out/{path.name}": path.stat().st_size for path in Path("deep/out").iterdir()}
    planned = {one["file"]: one["bytes"] for one in told["outputs"]}
    assert {name for name in sizes if not name.endswith(".run.json")} == set(planned)
    for name, size in planned.items():
        # what is in a file beside its rows
        more = 2**17 if name.endswith(".h5") else 1500
        assert sizes[name] - more <= 1.4 * size, name
        assert size <= 1.4 * sizes[name] + more, name


def test_memory_of_a_node_holds_the_images_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = plan(capsys, "ldic im1.tif im2.tif -ns 8 -hws 4", "--no-calibration --ranks-per-node 10")
    memory = {(one["mode"], one["ranks_per_node"]): one for one in told["memory"]}
    images = 2 * 2 * int(np.prod(SHAPE))
    assert {mode for mode, _ in memory} == {"shared", "mapped", "boxes"}
    assert [one["mode"] for one in told["memory"] if one["chosen"]] == ["mapped"] * 2
    # a single process needs as much without them, when it judges the result
    assert 0 < memory["mapped", 1]["node"] - memory["boxes", 1]["node"] <= images
    assert memory["mapped", 10]["node"] - memory["boxes", 10]["node"] == images
    assert memory["boxes", 10]["node"] > 5 * memory["boxes", 1]["node"]


class Clock:
    """A clock of CPU time that only work moves, so many seconds for a point."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now = 0.0
        self.blocks = 0
        run = LdicTask.run

        def slow(task: LdicTask, chunk: int) -> Any:
            records = run(task, chunk)
            self.now += seconds * len(records)
            self.blocks += 1
            return records

        monkeypatch.setattr(LdicTask, "run", slow)
        monkeypatch.setattr(calibration.time, "process_time", lambda: self.now)


LDIC = "ldic im1.tif im2.tif -ns 4 -hws 3"


@pytest.mark.parametrize("seconds", [0.001, 0.1, 5.0])
def test_time_is_that_of_all_points(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    Clock(monkeypatch, seconds)
    told = plan(capsys, LDIC, "--ranks 1 4")
    assert told["work_seconds"] == pytest.approx(seconds * told["points"])
    if seconds > 0.01:
        assert told["measured_points"] < told["points"]
    one, four = told["runs"]
    assert one["seconds"] == pytest.approx(told["work_seconds"] + told["fixed_seconds"], rel=1e-3)
    assert told["work_seconds"] / 4 < four["seconds"] < 1.5 * told["work_seconds"] / 4 + told["fixed_seconds"] + 2


def test_a_plan_is_remembered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    clock = Clock(monkeypatch, 0.01)
    first, blocks = plan(capsys, LDIC), clock.blocks
    again = plan(capsys, LDIC)
    assert clock.blocks == blocks > 0
    assert again["work_seconds"] == first["work_seconds"]
    plan(capsys, LDIC, "--no-cache")
    assert clock.blocks == 2 * blocks
    # another image of the same name, and a file that is damaged
    tifffile.imwrite("im2.tif", np.roll(tifffile.imread("im1.tif"), 2, 1), photometric="minisblack")
    plan(capsys, LDIC)
    assert clock.blocks == 3 * blocks
    for path in (folder / "cache").rglob("*.json"):
        path.write_text("{")
    plan(capsys, LDIC)
    assert clock.blocks == 4 * blocks
    plan(capsys, LDIC, "--no-calibration")
    assert clock.blocks == 4 * blocks


def test_table_fits_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TERMINAL, "50")
    assert main(["plan", "--", *LDIC.split(), "-m", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 50
    for word in ("Points:", "Work:", "Ranks", "Efficiency", "mapped", "im1-im2-ldic.h5"):
        assert any(word in line for line in lines), word


def test_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    def warned(line: str, word: str, options: str = "") -> bool:
        return any(word in text for text in plan(capsys, line, options)["warnings"])

    assert plan(capsys, "ldic im1.tif im2.tif -ns 8 -hws 7")["warnings"] == []
    assert warned("ldic im1.tif im2.tif -ns 8 -hws 7 -m 9", "-m 9 9 9: is larger than the half-window")
    assert warned("ldic im1.tif im2.tif -ns 8 -hws 15", "stick out of the image")
    assert warned("ldic im1.tif im2.tif -ns 8 -hws 4", "windows of 9 voxels are small")
    assert warned("ldic im1.tif im2.tif -ns 8 -hws 7", "pieces of work; more ranks", "--ranks 5000")
    assert warned("ldic im1.tif im2.tif -ns 4 -hws 7", "make sense", "--ranks 8")
    tifffile.imwrite("flat.tif", np.full(SHAPE, 7, np.uint16), photometric="minisblack")
    assert warned("ldic flat.tif im2.tif -ns 8 -hws 7", "too little grey-level variation")
    # nothing of the first image is in the second
    other = np.random.default_rng(2).integers(0, 60000, SHAPE).astype(np.uint16)
    tifffile.imwrite("other.tif", other, photometric="minisblack")
    assert warned("ldic im1.tif other.tif -ns 8 -hws 7", "are found: see the first guess")
    assert warned("ldic im1.tif im2.tif -ns 8 -hws 7 -glt 65000", "are skipped")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "the command line of the run is missing"),
        ("--ranks 0 -- ldic", "--ranks 0: has to be 1 or more"),
        ("--ranks-per-node -2 -- ldic", "--ranks-per-node -2: has to be 1 or more"),
        ("-- lidc im1.tif", "lidc: is no command of mpidvc"),
        ("-- status im1.tif", "status: is not estimated"),
        ("-- plan -- ldic", "plan: is not estimated"),
        ("-- ldic im1.tif nothing.tif -ns 8 -hws 4", "nothing.tif"),
        ("-- ldic im1.tif im2.tif -ns 8 -hws 4 -od im1.tif", "-od im1.tif"),
        ("-- ldic im1.tif im2.tif -ns 8 -hws 4 -od im1.tif/new", "-od im1.tif/new"),
        ("-- ldic im1.tif im2.tif -ns 8 -hws 4 -pre no/name", "-pre no/name: there is no folder no"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], words: str, told: str) -> None:
    assert main(["plan", *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mpidvc plan: error: ")
    assert told in line


def test_from_python() -> None:
    found = mpidvc.plan(["ldic", "im1.tif", "im2.tif", "-ns", "8", "-hws", "7"])
    assert found.command == "ldic"
    assert found.seconds(1) > found.fixed_seconds > 0
    assert found.memory(4)[0] == "mapped"
