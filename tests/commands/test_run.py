"""``mpidvc run``: from scans to strain; every step by its own command line; interrupted and gone on with."""

from __future__ import annotations

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

from mpidvc import api
from mpidvc.commands.run.recipe import read_recipe
from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.read import read_field
from mpidvc.main import main
from mpidvc.runtime.exit_status import STOPPED
from mpidvc.runtime.journal import Journal
from tests.conftest import Job
from tests.outputs import outputs

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


def save(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, image[0] if image.shape[0] == 1 else image, photometric="minisblack")


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    return PAIR.image1(), PAIR.image2()


def fill(folder: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    save(folder / "a.tif", images[0])
    save(folder / "b.tif", images[1])
    (folder / "small.toml").write_text(RECIPE)


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


def test_every_line_makes_the_same_files_by_hand(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    before = results(scans / "out")
    lines = lines_of(capsys.readouterr().out)
    (scans / "out").rename("run")
    for line in lines:
        assert main([*shlex.split(line), *([] if line.startswith("report") else ["-np", "1"])]) == 0
    by_hand = results(scans / "out")
    assert set(by_hand) == set(before) - {"recipe.toml"}
    assert [name for name, content in by_hand.items() if before[name] != content] == []


def test_finished_steps_are_not_repeated(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 0
    first = {path: path.stat().st_mtime_ns for path in (scans / "out").rglob("*.*") if path.parent.name in STEPS}
    capsys.readouterr()
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


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(len(STEPS)))
def test_interrupted_in_any_step(
    scans: Path,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
    after: bool,
) -> None:
    """Before the step has begun, and when it has written its files but the run does not know it yet."""
    calls, call = [], api.call

    def interrupted(*given: Any) -> api.Result:
        calls.append(given[0])
        found = call(*given) if after or len(calls) <= step else None
        if len(calls) > step:
            raise KeyboardInterrupt
        assert found is not None
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
    done = mpiexec(3, "-m", "mpidvc", *words, "-od", "three", timeout=120)
    assert done.returncode == 0, done.stderr
    done = command(*words, "-od", "two", "-np", "2", timeout=120)
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
    # the same line again, which does nothing
    assert run("a.tif", "b.tif", "--recipe", "small.toml") == 1
    assert capsys.readouterr().out.count("finished before: its result is not one to trust") == 2
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
