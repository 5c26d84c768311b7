"""``mpidvc run``: from scans to strain; every step by its own command line; interrupted and gone on with."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc import api
from mpidvc.commands.run.recipe import read_recipe
from mpidvc.commands.run.words import in_own_words
from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.read import read_field
from mpidvc.kernels import correlation
from mpidvc.main import main
from mpidvc.runtime.exit_status import RETRY, STOPPED
from mpidvc.runtime.journal import Journal, locked
from tests.conftest import Job
from tests.outputs import outputs
from tests.survival.jobs import LONG

#: One strain everywhere; the texture has features of some 4 voxels.
PAIR = AnalyticPair((48, 52, 56), seed=5, amplitude=0, strain=(0.01, -0.02, 0.015), translation=(0.4, 0.3, -0.6))
#: Small windows for small images.
RECIPE = """
pixelSearch = false
[ldic]
node-spacing = 8
half-window-size = 7
interpolation-order = 3
"""
OWN = ("steps", "report")
STEPS = ["reg", "ldic", "filterPhiField", "regularStrain", "deformImage"]
#: A photograph whose lower half slides by 9 pixels: every step there is, and one that chooses.
SLIDING = AnalyticPair((1, 130, 140), seed=5, amplitude=0, strain=(0, 0.004, -0.003), translation=(0, 0.4, -0.6))
SLIDE = 9
RECIPE_2D = """
[ldic]
node-spacing-3 = [1, 8, 8]
half-window-size-3 = [0, 8, 8]
interpolation-order = 3
"""
ALL_STEPS = [
    *("reg", "suggest", "pixelSearch", "filterSearch", "passPhiField", "ldic", "filterPhiField", "ldicAgain"),
    *("regularStrain", "deformImage", "report"),
]


def save(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, image[0] if image.shape[0] == 1 else image, photometric="minisblack")


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    return PAIR.image1(), PAIR.image2()


def fill(folder: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    save(folder / "a.tif", images[0])
    save(folder / "b.tif", images[1])
    (folder / "small.toml").write_text(RECIPE)


def slide(folder: Path) -> None:
    """The images of the sliding halves, and their recipe."""
    second = SLIDING.image2()
    second[:, 65:] = np.roll(second, SLIDE, axis=2)[:, 65:]
    save(folder / "a.tif", SLIDING.image1())
    save(folder / "b.tif", second)
    (folder / "small.toml").write_text(RECIPE_2D)


@pytest.fixture
def scans(tmp_path: Path, images: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a.tif, b.tif and the recipe."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, images)
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, images: tuple[np.ndarray, np.ndarray]) -> Path:
    """Folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    fill(folder, images)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    finally:
        os.chdir(before)
    return folder / "out"


def run(*words: str, out: str = "out") -> int:
    return main(["run", *words, "-od", out, "-np", "1"])


def results(folder: Path) -> dict[str, bytes]:
    """Files of a run, but for the record of its steps and the report, which have times and places."""
    return {name: content for name, content in outputs(folder).items() if name.partition(".")[0] not in OWN}


def numbers(folder: Path) -> dict[str, Any]:
    """The numbers of the report, without times, hosts and places."""
    text = (folder / "report.json").read_text().replace(str(folder.parent), "")
    found: dict[str, Any] = json.loads(text.replace(f"{folder.name}/", "/").replace(f'"{folder.name}"', '""'))
    for step in found["steps"]:
        del step["run"]
        # with --resume, if it was interrupted
        step["command_line"] = step["command_line"].removesuffix(" --overwrite").removesuffix(" --resume")
    return found


def lines_of(text: str) -> list[str]:
    return re.findall(r"^\$ mpidvc (.*)$", text, re.MULTILINE)


def test_from_scans_to_strain(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    said = capsys.readouterr()
    assert [line.split()[-1].removeprefix("-od=out/") for line in lines_of(said.out)] == [*STEPS, "out"]
    assert "The result is one to trust: 100.0% of the" in said.out
    assert json.loads((scans / "out" / "report.json").read_text())["band"] is None
    (strain,) = (scans / "out" / "regularStrain").glob("*.h5")
    field = read_field(scans / "out" / "filterPhiField" / "a-b-ldic-filtered.h5")
    inner = field.good & (field.positions > 8).all(axis=1) & (field.positions < np.array(PAIR.shape) - 9).all(axis=1)
    # cubic interpolation of 16-bit grey levels: see tests/commands/test_ldic.py
    assert np.abs(field.displacements - PAIR.displacement(field.positions))[inner].max() < 0.003
    assert inner.sum() > 30
    dilation = read_field(strain)["vol"]
    # of the true F, between nodes that are off by at most 0.003 at a distance of 8
    assert np.nanmedian(dilation) == pytest.approx(np.linalg.det(PAIR.gradient(np.zeros((1, 3)))[0]) - 1, abs=0.001)
    # the recipe that was written is complete: with it nothing is left to be chosen
    recipe = read_recipe("out/recipe.toml")
    assert recipe.options("ldic")["node_spacing"] == (8, 8, 8)
    assert recipe.left_out("pixelSearch")
    assert run("a.tif", "b.tif", "--recipe", "out/recipe.toml", out="other") == 0
    ours, again = results(scans / "out"), results(scans / "other")
    assert ours == again


def _incremental(folder: Path) -> list[str]:
    """The last image is damaged: points are measured again."""
    (folder / "small.toml").write_text(RECIPE + "series-incremental = true\nsigma = true\n")
    words = _series(folder)
    damage(folder / "c.tif")
    return words


def damage(path: Path) -> None:
    """Noise in a corner of an image."""
    image = tifffile.imread(path)
    image[:24, :24, :24] = np.random.default_rng(2).integers(0, 60000, (24, 24, 24))
    save(path, image)


def _series(folder: Path) -> list[str]:
    again = AnalyticPair(PAIR.shape, 5, amplitude=0, strain=(0.02, -0.03, 0.02), translation=(0.7, 0.6, -1.1))
    save(folder / "c.tif", again.image2())
    return ["a.tif", "b.tif", "c.tif", "--recipe", "small.toml"]


def _labels(folder: Path) -> list[str]:
    labels = np.zeros(PAIR.shape, np.uint16)
    for k, corner in enumerate(np.ndindex(2, 2, 2)):
        labels[tuple(slice(6 + 20 * n, 22 + 20 * n) for n in corner)] = k + 1
    save(folder / "labels.tif", labels)
    return ["a.tif", "b.tif", "-lab1", "labels.tif"]


def _bad_label(folder: Path) -> list[str]:
    """The first of eight labels is not found; it is corrected by the others, and measured again."""
    words = _labels(folder)
    damage(folder / "b.tif")
    return words


def _adaptive(folder: Path) -> list[str]:
    (folder / "small.toml").write_text(RECIPE + "adaptive = 0.02\nadaptive-from = 4\n")
    return ["a.tif", "b.tif", "--recipe", "small.toml"]


def _sliding(folder: Path) -> list[str]:
    slide(folder)
    return ["a.tif", "b.tif", "--recipe", "small.toml"]


#: What a run may be of: its words, and the steps that it takes.
ROADS: dict[str, tuple[Callable[[Path], list[str]], list[str]]] = {
    "volume": (lambda _: ["a.tif", "b.tif", "--recipe", "small.toml"], [*STEPS, "report"]),
    "sliding halves": (_sliding, ALL_STEPS),
    "series": (_series, ["reg", "ldic", "filterPhiField", "regularStrain", "deformImage", "report"]),
    "incremental": (
        _incremental,
        ["reg", "ldic", "filterPhiField", "ldicAgain", "regularStrain", "deformImage", "report"],
    ),
    "labels": (_labels, ["reg", "ddic", "deformImage", "report"]),
    "a bad label": (_bad_label, ["reg", "ddic", "filterPhiField", "ddicAgain", "deformImage", "report"]),
    "adaptive": (_adaptive, [*STEPS, "report"]),
}


@pytest.mark.parametrize("road", ROADS)
def test_every_line_makes_the_same_files_by_hand(scans: Path, road: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, steps = ROADS[road]
    assert run(*words(scans)) == 0
    before = results(scans / "out")
    lines = lines_of(capsys.readouterr().out)
    taken = json.loads((scans / "out" / "steps.json").read_text())["steps"]
    assert list(dict.fromkeys(title.split()[0] for title in taken)) == steps
    assert any(" --warm-start" in line for line in lines) is (road in ("series", "incremental"))
    # images that a line compares are those of its state
    for line in lines:
        if " -skp" in line:
            again = re.search(r"/([abc])-([abc])-([ld]dic)-filtered\.h5", line)
            assert again is not None
            labels = "labels.tif " if again[3] == "ddic" else ""
            assert line.startswith(f"{again[3]} {again[1]}.tif {labels}{again[2]}.tif ")
            # noise is that of the whole field, and what concerns a series is not for a pair
            assert f" --noise-from=out/{again[3]}/{again[1]}-{again[2]}-{again[3]}.h5" in line
            assert not {"--warm-start", "--series-incremental"} & {*line.split()}
        if " --residual=" in line:
            pair = re.search(r"-([abc])-([abc])-", line.replace("/", "-"))
            assert pair is not None
            assert line.startswith(f"deformImage {pair[1]}.tif ")
            assert f"--residual={pair[2]}.tif" in line
    (scans / "out").rename("run")
    for line in lines:
        status = main([*shlex.split(line), *([] if line.startswith("report") else ["-np", "1"])])
        # few points are measured again, and those may be poor ones
        assert status == 0 or (status == 1 and " -skp" in line)
    by_hand = results(scans / "out")
    assert set(by_hand) == set(before) - {"recipe.toml"}
    assert [name for name, content in by_hand.items() if before[name] != content] == []


def test_finished_steps_are_not_repeated(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    first = {path: path.stat().st_mtime_ns for path in (scans / "out").rglob("*.*") if path.parent.name in STEPS}
    capsys.readouterr()
    # on a processor that does not have the instructions of before
    record = scans / "out" / "steps.json"
    record.write_text(record.read_text().replace(correlation.instruction_set(), "none of ours"))
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    assert capsys.readouterr().out.count("finished before") == len(STEPS) + 1
    assert {path: path.stat().st_mtime_ns for path in first} == first
    # what determines ldic, and all after it
    (scans / "small.toml").write_text(RECIPE.replace("node-spacing = 8", "node-spacing = 10"))
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    assert capsys.readouterr().out.count("finished before") == 1
    assert read_field("out/ldic/a-b-ldic.h5").spacing == (10, 10, 10)
    # a file that was changed is made again
    (scans / "out" / "regularStrain" / "a-b-ldic-filtered-strain-Q8.tsv").write_text("lost")
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    assert capsys.readouterr().out.count("finished before") == len(STEPS) - 1
    assert "Zpos" in (scans / "out" / "regularStrain" / "a-b-ldic-filtered-strain-Q8.tsv").read_text()


def test_in_the_working_folder(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders of steps are called like their commands: what lies in them makes no line another one."""
    assert run("a.tif", "b.tif", "--recipe", "small.toml", out=".") == 0
    capsys.readouterr()
    assert run("a.tif", "b.tif", "--recipe", "small.toml", out=".") == 0
    assert capsys.readouterr().out.count("finished before") == len(STEPS) + 1


def test_what_earlier_runs_left_is_not_reported(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps that are left out now, and states that are no more: their files stay, and are no result of this run."""
    save(scans / "c.tif", PAIR.image2())
    assert run("a.tif", "b.tif", "c.tif", "--recipe", "small.toml") == 0
    assert json.loads((scans / "out" / "report.json").read_text())["series"] is not None
    (scans / "small.toml").write_text("regularStrain = false\nfilterPhiField = false\n" + RECIPE)
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    facts = json.loads((scans / "out" / "report.json").read_text())
    assert facts["result"]["file"] == "a-b-ldic.h5"
    assert [one["file"] for one in facts["files"]] == ["a-b-ldic.h5"]
    assert facts["strain_from"].startswith("linear fits")
    assert facts["series"] is None
    capsys.readouterr()
    assert main(["status", "out"]) == 0
    said = capsys.readouterr().out
    assert "regularStrain" not in said
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["reg", "ldic", "deformImage", "report"]
    # and the first line again finds what it had made: what its own ldic did not replace
    assert list((scans / "out" / "regularStrain").glob("*.h5"))


def test_a_report_of_earlier_results_is_made_again(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted when all steps were done anew, and only the page of the run before was there."""
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    (scans / "small.toml").write_text(RECIPE.replace("node-spacing = 8", "node-spacing = 10"))
    call = api.call

    def interrupted(*given: Any) -> api.Result:
        if given[0] == "report":
            raise KeyboardInterrupt
        return call(*given)

    with monkeypatch.context() as patch:
        patch.setattr(api, "call", interrupted)
        assert run("a.tif", "b.tif", "--recipe", "small.toml") == STOPPED
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    assert json.loads((scans / "out" / "report.json").read_text())["result"]["spacing"] == [10, 10, 10]


#: Kills the process at its n-th write of a file, or of records, in a step.
KILL = """
import os, signal
from mpidvc import api
call, steps, writes = api.call, [], []
def counting(*given):
    steps.append(given[0])
    return call(*given)
api.call = counting
def strike(name):
    write = getattr(os, name)
    def struck(*given, **options):
        if len(steps) == {step}:
            writes.append(name)
            if len(writes) == {n}:
                os.kill(os.getpid(), signal.SIGKILL)
        return write(*given, **options)
    setattr(os, name, struck)
strike("replace")
strike("pwrite")
"""


@pytest.fixture(scope="module")
def slid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of all steps that nothing interrupted."""
    folder = tmp_path_factory.mktemp("slid")
    slide(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    finally:
        os.chdir(before)
    return folder / "out"


def test_the_name_of_the_folder_changes_no_byte(tmp_path: Path, slid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all steps: the second ldic takes its noise from a file of the first one."""
    monkeypatch.chdir(tmp_path)
    slide(tmp_path)
    assert run("a.tif", "b.tif", "--recipe", "small.toml", out="elsewhere") == 0
    assert results(tmp_path / "elsewhere") == results(slid)


@pytest.mark.parametrize("first", [1, 2] if LONG else [1])
def test_killed_in_each_step(
    tmp_path: Path,
    slid: Path,
    command: Job,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    first: int,
) -> None:
    """One run, killed in each of its steps, at the first write and at the second in turn; the same line goes on."""
    monkeypatch.chdir(tmp_path)
    slide(tmp_path)
    words = ["run", "a.tif", "b.tif", "--recipe", "small.toml", "-od", "out", "-np", "1"]
    ended: dict[str, Any] = {}
    begun: dict[str, Any] = {}
    times: dict[Path, int] = {}
    for k, step in enumerate(ALL_STEPS):
        # a step that had not ended is gone on with before
        kill = KILL.format(step=1 + len(begun) - len(ended), n=1 + (k + first + 1) % 2)
        done = command(*words, MPIDVC_TEST_CODE=kill)
        assert done.returncode == -signal.SIGKILL, done.stderr
        told = json.loads(Path("out/steps.json").read_text())
        begun = told["steps"]
        assert told["run"]["status"] is None
        assert list(begun)[-1].split()[0] == step
        assert main(["status", "out"]) == RETRY
        assert "out: stopped (run)" in capsys.readouterr().out
        # what had ended is not done again
        assert {title: begun[title] for title in ended} == ended
        assert {path: path.stat().st_mtime_ns for path in times} == times
        ended = {title: one for title, one in begun.items() if one["status"] is not None}
        times = {Path(file): Path(file).stat().st_mtime_ns for one in ended.values() for file in one["files"]}
    assert len(ended) >= len(ALL_STEPS) - 1
    assert run("a.tif", "b.tif", "--recipe", "small.toml", out="out") == 0
    assert capsys.readouterr().out.count("finished before") == len(ended)
    assert results(tmp_path / "out") == results(slid)
    assert numbers(tmp_path / "out") == numbers(slid)
    assert main(["status", "-q", "out"]) == 0


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_interrupted_where_a_step_is_done_but_not_known(
    scans: Path,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    """When it has written its files."""
    calls, call = [], api.call

    def interrupted(*given: Any) -> api.Result:
        calls.append(given[0])
        found = call(*given)
        if len(calls) > step:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(api, "call", interrupted)
        assert run("a.tif", "b.tif", "--recipe", "small.toml", out="broken") == STOPPED
    assert len(calls) == step + 1
    capsys.readouterr()
    assert run("a.tif", "b.tif", "--recipe", "small.toml", out="broken") == 0
    assert capsys.readouterr().out.count("finished before") == step
    assert results(scans / "broken") == results(undisturbed)
    assert numbers(scans / "broken") == numbers(undisturbed)


@pytest.mark.usefixtures("launcher")
def test_ranks_make_the_same_files(scans: Path, mpiexec: Job, command: Job) -> None:
    words = ["run", "a.tif", "b.tif", "--recipe", "small.toml"]
    assert main([*words, "-od", "one", "-np", "1"]) == 0
    done = mpiexec(3, "-m", "mpidvc", *words, "-od", "three")
    assert done.returncode == 0, done.stderr
    done = command(*words, "-od", "two", "-np", "2")
    assert done.returncode == 0, done.stderr
    assert results(scans / "two") == results(scans / "three") == results(scans / "one")


def test_two_motions(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The upper half stays, the lower one moves by 9 voxels: a registration is not enough for a first guess."""
    first = PAIR.image1()
    second = first.copy()
    second[24:] = np.roll(first, 9, axis=2)[24:]
    save(scans / "b.tif", second)
    search = "[pixelSearch]\nnode-spacing = 8\nhalf-window-size = 5\nsearch-range = [-10, 10, -10, 10, -10, 10]\n"
    (scans / "small.toml").write_text(RECIPE.replace("pixelSearch = false\n", "") + search)
    run("a.tif", "b.tif", "--recipe", "small.toml", "--keep-going")
    said = capsys.readouterr().out
    assert "mpidvc passPhiField -pf=out/filterSearch/" in said
    assert "-pf=out/passPhiField/" in next(line for line in lines_of(said) if line.startswith("ldic"))
    field = read_field("out/ldic/a-b-ldic.h5")
    z, _, x = field.positions.T
    for part, moved in (((z < 17) & field.good, 0.0), ((z > 31) & (x < 36) & field.good, 9.0)):
        assert part.sum() > 20
        assert np.median(field.displacements[part][:, 2]) == pytest.approx(moved, abs=0.003)


def test_a_bad_result_stops_the_run(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(scans / "b.tif", np.random.default_rng(1).integers(0, 60000, PAIR.shape).astype(np.uint16))
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 1
    said = capsys.readouterr()
    assert "blind registration fails: all rotations and translations are tried" in said.out
    assert "stopped after reg: its result is not one to trust" in said.err
    assert not (scans / "out" / "ldic").exists()
    why = [line for line in said.err.splitlines() if line.startswith("warning: ") and "stopped after" not in line]
    # the same line again, which does nothing but say why
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 1
    said = capsys.readouterr()
    assert said.out.count("finished before: its result is not one to trust") == 2
    assert why[-1] in (said.out + said.err).splitlines()
    # and where it is kept going, with what it has
    with (scans / "small.toml").open("a") as recipe:
        recipe.write("[reg]\nmax-iterations = 1\n")
    assert run("a.tif", "b.tif", "--recipe", "small.toml", "--keep-going") == 1
    assert (scans / "out" / "ldic").exists()
    assert "stopped after" not in capsys.readouterr().err


def test_turned_far(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blind registration fails, the coarse search does not; the recipe keeps it, and neither is done again."""
    pair = AnalyticPair((1, 150, 160), seed=5, amplitude=0, rotation=(70, 0, 0))
    save(scans / "a.tif", pair.image1())
    save(scans / "b.tif", pair.image2())
    (scans / "small.toml").write_text("regularStrain = false\ndeformImage = false\n" + RECIPE.replace("= 7", "= 14"))
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    lines = lines_of(capsys.readouterr().out)
    assert lines[1].startswith("reg a.tif b.tif --coarse")
    assert "coarse = true" in (scans / "out" / "recipe.toml").read_text()
    field = read_field("out/ldic/a-b-ldic.h5")
    inner = field.good & (np.abs(field.positions - (0, 74.5, 79.5))[:, 1:] < 25).all(axis=1)
    assert inner.sum() >= 4
    assert np.abs(field.displacements - pair.displacement(field.positions))[inner].max() < 0.01
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    said = capsys.readouterr().out
    assert lines_of(said) == lines
    assert said.count("finished before") == len(lines)


def test_a_stopped_run_tells_its_own_line(
    scans: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not that of the step in which it was stopped."""
    record = Journal.record

    def stopping(journal: Journal, block: int, records: np.ndarray) -> None:
        record(journal, block, records)
        os.kill(os.getpid(), signal.SIGUSR1)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", stopping)
        assert run("a.tif", "b.tif", "--recipe", "small.toml") == STOPPED
    said = capsys.readouterr()
    assert "--resume" not in said.out + said.err
    stopped = re.search(r"^Stopped by SIGUSR1: .*; the same line goes on: mpidvc (.*)$", said.out, re.MULTILINE)
    assert stopped is not None
    assert main(shlex.split(stopped[1])) == 0
    assert "Going on with out/ldic/a-b-ldic.h5: " in capsys.readouterr().out
    assert results(scans / "out") == results(undisturbed)


def test_series_and_labels(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(scans / "c.tif", PAIR.image2())
    assert run("a.tif", "b.tif", "c.tif", "--recipe", "small.toml") == 0
    names = {path.name for path in (scans / "out" / "filterPhiField").glob("*.h5")}
    assert names == {"a-b-ldic-filtered.h5", "a-c-ldic-filtered.h5"}
    assert len(list((scans / "out" / "deformImage").glob("*residual*"))) == 2
    labels = np.zeros(PAIR.shape, np.uint16)
    for k, z in enumerate((8, 28)):
        labels[z : z + 14, 10:40, 10:40] = k + 1
    # 64 bits are for labels alone
    labels = labels.astype(np.int64)
    save(scans / "labels.tif", labels)
    assert run("a.tif", "b.tif", "-lab1", "labels.tif", out="grains") == 0
    field = read_field("grains/ddic/a-b-ddic.h5")
    moved = PAIR.displacement(field.positions[1:])
    # rigid motion of a strained body: the mean of its displacement stays
    assert np.abs(field.displacements[1:] - moved).max() < 0.05


def test_steps_that_are_left_out(
    scans: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first guess is none, what is corrected is not measured again, and there is no page without matplotlib."""
    damage(scans / "b.tif")
    (scans / "small.toml").write_text("reg = false\nldicAgain = false\nregularStrain = false\n" + RECIPE)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    said = capsys.readouterr().out
    lines = lines_of(said)
    assert [line.split()[0] for line in lines] == ["ldic", "filterPhiField", "deformImage"]
    assert "-pf" not in lines[0]
    assert "-pf=out/filterPhiField/a-b-ldic-filtered.h5" in lines[2]
    assert (read_field("out/filterPhiField/a-b-ldic-filtered.h5")["returnStatus"] == 1).any()
    assert "no report: matplotlib is not installed" in said
    assert not (scans / "out" / "report.html").exists()


def test_how_images_are_read_is_passed_on(
    scans: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To every step that reads images; it is no part of a line, as it changes no result."""
    call, told = api.call, {}

    def noted(name: str, given: dict[str, Any], *others: Any) -> api.Result:
        told[name] = given.get("image_mode"), given.get("memory")
        return call(name, given, *others)

    monkeypatch.setattr(api, "call", noted)
    assert run("a.tif", "b.tif", "--recipe", "small.toml", "--image-mode", "boxes", "--memory", "3G") == 0
    assert told["reg"] == told["ldic"] == told["deformImage"] == ("boxes", "3G")
    assert told["report"] == (None, None)
    assert "boxes" not in "".join(lines_of(capsys.readouterr().out))
    assert results(scans / "out") == results(undisturbed)


#: Line or recipe, and what is said about it.
BAD: dict[str, Callable[[Path], tuple[list[str], str]]] = {
    "one image": lambda _: (["a.tif"], "a.tif alone: at least two images are needed"),
    "no image": lambda _: (["a.tif", "none.tif"], "none.tif"),
    "other shape": lambda _: (["a.tif", "flat.tif"], "both need the same"),
    "no recipe": lambda _: (["a.tif", "b.tif", "--recipe", "none.toml"], "give the recipe of a run"),
    "file for a folder": lambda _: (["a.tif", "b.tif", "-od", "a.tif"], "-od a.tif: the folder cannot be made"),
}
RECIPES = {
    "strain = false": "strain is no step; there are reg, ",
    "ldic = false": "ldic = False: write its options below [ldic]",
    "reg = 3": "or reg = false to leave it out",
    "[ldic]\nspacing = 3": "[ldic] spacing: is none of the options here: ",
    "[ldic]\nphiFile = 'x'": "[ldic] phiFile: is none of the options here: ",
    "[ldic]\nnode-spacing = 'a'": "[ldic] node-spacing = 'a': argument -ns/--node-spacing: invalid",
    "[[ldic]]": "ldic = [{}]: ",
    "ldic": "is no TOML file",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(scans: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    save(scans / "flat.tif", np.zeros((1, 9, 9), np.uint8))
    words, message = BAD[case](scans)
    assert main(["run", *words, *([] if "-od" in words else ["-od", "out"])]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mpidvc run: error: ")
    assert message in said
    assert said.count("\n") == 1
    assert not (scans / "out").exists()


@pytest.mark.parametrize("recipe", RECIPES)
def test_bad_recipe(scans: Path, capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    (scans / "bad.toml").write_text(recipe)
    assert run("a.tif", "b.tif", "--recipe", "bad.toml") == 2
    said = capsys.readouterr().err
    assert RECIPES[recipe] in said
    assert said.count("\n") == 1
    assert not (scans / "out").exists()


def texts_with(option: str) -> list[str]:
    """The texts of the sources, above the commands, that name an option; what is filled in is called X."""
    found = []
    for path in sorted(Path(mpidvc.__file__).parent.rglob("*.py")):
        if path.parts[-3] == "commands" or path.name in ("options.py", "stop.py", "exit_status.py", "main.py"):
            continue
        tree = ast.parse(path.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            text = ""
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(p.value) if isinstance(p, ast.Constant) else "X" for p in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs | inner:
                text = node.value
            if option in text and len(text.split()) > 2:
                found.append(text)
    return found


def test_errors_of_steps_are_told_in_words_of_the_run() -> None:
    """A run has neither --resume nor --overwrite nor -pre: no error of a step leads there."""
    texts = {text for option in ("--resume", "--overwrite", "by -pre") for text in texts_with(option)}
    assert len(texts) >= 12
    for text in texts:
        # both at once, or a field that is its own guess, are mistakes that a run does not make
        if not text.startswith(("-pf", "--resume --overwrite")):
            told = in_own_words(text, Path("out/ldic"))
            assert not re.search(r"--resume|--overwrite|-pre\b", told), told
            # what is left is a sentence
            assert not re.search(r"([;:,]|\bor|\badd)\s*$|[;,] *[;,]|: *;", told), told


def test_a_step_that_cannot_go_on_says_so(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Something else has the name of its results."""
    (scans / "out" / "ldic").mkdir(parents=True)
    (scans / "out" / "ldic" / "a-b-ldic.h5").write_text("notes")
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "mpidvc run: error: ldic: out/ldic/a-b-ldic.h5: is no results file of mpidvc; move it away, "
        "remove out/ldic to begin it again"
    )
    assert (scans / "out" / "ldic" / "a-b-ldic.h5").read_text() == "notes"


def test_one_run_in_a_folder(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scans / "out").mkdir()
    with locked(scans / "out"):
        assert run("a.tif", "b.tif", "--recipe", "small.toml") == RETRY
    assert "out: another run is writing it" in capsys.readouterr().err
    assert list((scans / "out").iterdir()) == []


def test_the_instruction_set_is_kept(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is gone on with on a newer processor gives the bytes of the older one."""
    sets = correlation.instruction_sets()
    if len(sets) < 2:
        pytest.skip("this processor has one instruction set")
    before = os.environ.get("MPIDVC_ISA")
    with monkeypatch.context() as patch:
        patch.setenv("MPIDVC_ISA", sets[0])
        assert run("a.tif", "b.tif", "--recipe", "small.toml", out="old") == 0
        (scans / "old").rename(scans / "whole")
        call = api.call

        def interrupted(*given: Any) -> api.Result:
            if given[0] == "filterPhiField":
                raise KeyboardInterrupt
            return call(*given)

        patch.setattr(api, "call", interrupted)
        assert run("a.tif", "b.tif", "--recipe", "small.toml", out="old") == STOPPED
    assert os.environ.get("MPIDVC_ISA") == before
    assert run("a.tif", "b.tif", "--recipe", "small.toml", out="old") == 0
    assert os.environ.get("MPIDVC_ISA") == before
    assert json.loads((scans / "old" / "steps.json").read_text())["run"]["instruction set"] == sets[0]
    assert results(scans / "old") == results(scans / "whole")


def test_points_that_fail_again_do_not_count(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Part of image 2 is noise: all that is measured again fails again, but that is a part of the specimen."""
    second = PAIR.image2()
    second[:, :, 42:] = np.random.default_rng(1).integers(0, 60000, second[:, :, 42:].shape)
    save(scans / "b.tif", second)
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    said = capsys.readouterr()
    assert "compared windows converged: the result is not one to trust" in said.err
    assert "note: these are points that had failed before" in said.out
    assert main(["status", "out"]) == 0
    assert "not to be trusted" not in capsys.readouterr().out
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    assert "not one to trust" not in capsys.readouterr().out.replace("The result is one", "")


@pytest.mark.parametrize("going", [False, True])
def test_a_bad_step_in_the_middle(scans: Path, going: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """No node has a neighbour that is near enough for a strain."""
    strain = "[regularStrain]\ngeers = true\nneighbourhood-radius-for-strain-calculation = 0.5\n"
    (scans / "small.toml").write_text(RECIPE + strain)
    assert run("a.tif", "b.tif", "--recipe", "small.toml", *(["--keep-going"] if going else [])) == 1
    said = capsys.readouterr()
    assert "there is no strain anywhere" in said.err + said.out
    assert ("stopped after regularStrain: its result is not one to trust" in said.err) is not going
    assert (scans / "out" / "deformImage").exists() is going
    assert (scans / "out" / "report.html").exists() is going
    told = json.loads((scans / "out" / "steps.json").read_text())
    assert told["run"]["status"] == told["steps"]["regularStrain a-b-ldic-filtered"]["status"] == 1


def test_nothing_converges(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --keep-going as far as there is something to go on with, and a line that says where there is not."""
    save(scans / "b.tif", np.random.default_rng(1).integers(0, 60000, PAIR.shape).astype(np.uint16))
    (scans / "small.toml").write_text(RECIPE + "max-iterations = 50\n[reg]\nmax-iterations = 1\n")
    assert run("a.tif", "b.tif", "--recipe", "small.toml", "--keep-going") == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert json.loads((scans / "out" / "steps.json").read_text())["run"]["status"] == 1


def test_a_single_layer_of_nodes(scans: Path) -> None:
    """A slab as thick as a window: strain is that in its plane."""
    pair = AnalyticPair((16, 60, 64), seed=5, amplitude=0, strain=(0, -0.01, 0.015), translation=(0.2, 0.3, -0.6))
    save(scans / "a.tif", pair.image1())
    save(scans / "b.tif", pair.image2())
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    facts = json.loads((scans / "out" / "report.json").read_text())
    assert facts["result"]["dims"][0] == 1
    assert facts["motion"]["green_lagrange"]["xx"] == pytest.approx((1.015**2 - 1) / 2, abs=0.001)


def test_a_mask_counts_in_every_step_that_compares(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide(scans)
    mask = np.ones((1, 130, 140), np.uint8)
    mask[:, :, 100:] = 0
    save(scans / "mask.tif", mask)
    (scans / "small.toml").write_text("regularStrain = false\ndeformImage = false\n" + RECIPE_2D)
    assert run("a.tif", "b.tif", "-mf1", "mask.tif", "--recipe", "small.toml") == 0
    lines = lines_of(capsys.readouterr().out)
    compared = [line for line in lines if line.split()[0] in ("reg", "suggest", "pixelSearch", "ldic")]
    assert len(compared) >= 4
    assert all(" -mf1=mask.tif" in line for line in compared)
    field = read_field("out/ldic/a-b-ldic.h5")
    assert (field["returnStatus"][field.positions[:, 2] > 110] == -5).all()


@pytest.mark.filterwarnings("ignore:.*saturated")
def test_a_series_is_chosen_for_by_its_last_state(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first one has hardly moved: it would let windows be of any width."""
    made = [AnalyticPair((1, 200, 200), 5, amplitude=a, wavelength=80.0) for a in (0.01, 2.0)]
    noise = np.random.default_rng(3)
    for name, image in (("a", made[0].image1()), ("b", made[0].image2()), ("c", made[1].image2())):
        noisy = image + noise.normal(0, 1500, image.shape)
        save(scans / f"{name}.tif", np.clip(noisy, 0, 65535).astype(np.uint16))
    (scans / "small.toml").write_text("regularStrain = false\ndeformImage = false\nfilterPhiField = false\n")
    assert run("a.tif", "b.tif", "c.tif", "--recipe", "small.toml") == 0
    lines = [line for line in lines_of(capsys.readouterr().out) if line.startswith("suggest")]
    assert [line.split()[2] for line in lines] == ["b.tif", "c.tif"]
    chosen = read_recipe("out/recipe.toml").options("ldic")["half_window_size"][1]
    alone = mpidvc.suggest("a.tif", "b.tif").hws
    assert chosen == mpidvc.suggest("a.tif", "c.tif", phi_file="out/reg/a-c-registration.tsv").hws
    assert chosen < alone
