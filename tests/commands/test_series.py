"""Series of ``ldic`` and ``ddic`` as the command line gives them: manifests, labels over many states, bad manifests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.read import read_field
from mpidvc.main import main
from tests.outputs import outputs

#: Voxels along x from state to state: more than a window of image 2 has room for in two states.
STEP = 5.0
WORDS = {"ldic": ["-ns", "20", "-hws", "10"], "ddic": ["-m", "3"]}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """States 0 to 3 of a texture that moves along x (``s0.tif`` …), and labels of states 0 and 2."""
    folder = tmp_path_factory.mktemp("images")
    for k in range(4):
        pair = AnalyticPair((1, 110, 150), 1, (0, 0, 0), (0, 0, 0), (0, 0, STEP * k), amplitude=0)
        tifffile.imwrite(folder / f"s{k}.tif", pair.image2()[0], photometric="minisblack")
    for k in (0, 2):
        labels = np.zeros((110, 150), np.uint16)
        # of other numbers in the other state
        for n, y in enumerate((30, 70) if k == 0 else (70, 30)):
            x = 40 + round(STEP * k)
            labels[y : y + 24, x : x + 28] = 2 * n + 1
        tifffile.imwrite(folder / f"lab{k}.tif", labels, photometric="minisblack")
    return folder


def manifest(folder: Path, *states: str) -> str:
    """A manifest of these states, each the lines of its table parted by ``;``."""
    path = folder / "series.toml"
    path.write_text("".join("[[state]]\n" + state.replace("; ", "\n") + "\n" for state in states))
    return str(path)


def names(folder: Path, *numbers: int) -> list[str]:
    return [str(folder / f"s{k}.tif") for k in numbers]


def motion(path: Path, rows: list[int]) -> np.ndarray:
    field = read_field(path)
    assert np.all(field["returnStatus"][rows] == 2)
    return field.displacements[rows]


def test_labels_are_followed_from_state_to_state(images: Path, tmp_path: Path) -> None:
    one, *others = names(images, 0, 1, 2, 3)
    words = ["ddic", one, str(images / "lab0.tif"), *others, *WORDS["ddic"], "-np", "1"]
    assert main([*words, "--warm-start", "-od", str(tmp_path / "warm")]) == 0
    for k in (1, 2, 3):
        found = motion(tmp_path / "warm" / f"s0-s{k}-ddic.tsv", [1, 3])
        np.testing.assert_allclose(found, [[0, 0, STEP * k]] * 2, rtol=0, atol=0.02)
    # without a guess, labels that have moved by 15 voxels are not found
    main([*words, "-od", str(tmp_path / "cold")])
    cold = read_field(tmp_path / "cold" / "s0-s3-ddic.tsv")
    assert not np.any((cold["returnStatus"] == 2) & (np.abs(cold.displacements[:, 2] - 3 * STEP) < 1))
    table = (tmp_path / "warm" / "s0-ddic-series.tsv").read_text().splitlines()
    row = dict(zip(table[0].split("\t"), table[3].split("\t"), strict=True))
    assert (row["image"], row["reference"], float(row["compared"]), float(row["converged"])) == ("s3", "s0", 2, 1)
    assert float(row["Xdisp"]) == pytest.approx(3 * STEP, abs=0.02)


def test_series_of_labels_resumes(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpidvc.workflow import series

    one, *others = names(images, 0, 1, 2, 3)
    words = ["ddic", one, str(images / "lab0.tif"), *others, *WORDS["ddic"], "-np", "1", "--warm-start"]
    assert main([*words, "-od", str(tmp_path / "whole")]) == 0
    took = series._took

    def fail(*given: object) -> bool:
        if given[2] == 2:
            raise KeyboardInterrupt
        return took(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(series, "_took", fail)
        assert main([*words, "-od", str(tmp_path / "again")]) not in (0, 1)
    assert not (tmp_path / "again" / "s0-s3-ddic.h5").exists()
    assert main([*words, "-od", str(tmp_path / "again"), "--resume"]) == 0
    assert outputs(tmp_path / "again") == outputs(tmp_path / "whole")


def test_labels_of_a_state_make_it_the_reference(images: Path, tmp_path: Path) -> None:
    lab0, lab2 = (f'labels = "{images}/lab{k}.tif"' for k in (0, 2))
    s = [f'image = "{images}/s{k}.tif"' for k in range(4)]
    path = manifest(tmp_path, f"{s[0]}; {lab0}", f"{s[1]}", f"{s[2]}; {lab2}; margin = 9", s[3])
    assert main(["ddic", path, *WORDS["ddic"], "--warm-start", "-np", "1", "-od", str(tmp_path / "out")]) == 0
    for first, second in ((0, 1), (0, 2), (2, 3)):
        found = motion(tmp_path / "out" / f"s{first}-s{second}-ddic.tsv", [1, 3])
        np.testing.assert_allclose(found, [[0, 0, STEP * (second - first)]] * 2, rtol=0, atol=0.02)
    # the centres are those of the labels of each reference
    assert read_field(tmp_path / "out" / "s2-s3-ddic.tsv").positions[1, 1] == 81.5


def test_options_of_a_state(images: Path, tmp_path: Path) -> None:
    """A manifest gives the bytes of single runs; the path of an image is relative to it."""
    path = manifest(images, 'image = "s0.tif"', 'image = "s1.tif"', 'image = "s2.tif"; m = 12; criterion = "znssd"')
    words = ["-np", "1", *WORDS["ldic"], "-od"]
    main(["ldic", path, *words, str(tmp_path / "series")])
    main(["ldic", *names(images, 0, 1), *words, str(tmp_path / "one")])
    main(["ldic", *names(images, 0, 2), "-m", "12", "--criterion", "znssd", *words, str(tmp_path / "one")])
    series, single = outputs(tmp_path / "series"), outputs(tmp_path / "one")
    assert series.pop("s0-ldic-series.tsv")
    assert series == single
    # without it the state is another one
    main(["ldic", *names(images, 0, 2), *words, str(tmp_path / "other")])
    assert outputs(tmp_path / "other")["s0-s2-ldic.tsv"] != single["s0-s2-ldic.tsv"]


@pytest.mark.parametrize("command", ["ldic", "ddic"])
def test_plan_of_a_series(command: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = [f'image = "{images}/s{k}.tif"' for k in range(4)]
    if command == "ddic":
        states = [f'{state}; labels = "{images}/lab{k // 2 * 2}.tif"' for k, state in enumerate(states)]
    words = ["plan", "--json", "--", command, manifest(tmp_path, *states), *WORDS[command]]
    words.append("--update-reference" if command == "ldic" else "--warm-start")
    assert main([*words, "-od", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert json.loads(told)
    # the names of the steps are not known before
    assert ("s0-s1-ldic-total.h5" if command == "ldic" else "s2-s3-ddic.h5") in told
    assert "s0-s1-ldic.h5" not in told
    assert not (tmp_path / "out").exists()


GOOD = 'image = "s0.tif"'


@pytest.mark.parametrize(
    ("command", "states", "told"),
    [
        ("ldic", [GOOD], "has not two states"),
        ("ldic", [GOOD, "image = 3"], "state 2: image = 3 is no path"),
        ("ldic", [GOOD, "margin = 3"], "state 2: has no image"),
        ("ldic", [f"{GOOD}; margin = 3", GOOD], "state 1: margin: the first state is not measured"),
        ("ldic", [GOOD, f"{GOOD}; hws = 3"], "state 2: hws is none of what a state may have: image, criterion, "),
        ("ldic", [GOOD, f'{GOOD}; labels = "lab0.tif"'], "state 2: labels is none of what"),
        ("ldic", [GOOD, f'{GOOD}; it = "many"'], "state 2: it = 'many': argument -it/--max-iterations: invalid int"),
        ("ldic", [GOOD, f"{GOOD}; it = -4"], "state 2: -it -4: may not be negative"),
        ("ldic", [GOOD, f"{GOOD}; rigid = 1"], "state 2: rigid = 1: write true"),
        ("ldic", [GOOD, f"{GOOD}; rigid = false"], "state 2: rigid = False: leave it out"),
        ("ldic", [GOOD, "image = "], "is no TOML file"),
        ("ldic", [GOOD, 'image = "none.tif"'], "none.tif"),
        ("ddic", [GOOD, GOOD], "state 1: has no labels"),
    ],
)
def test_bad_manifests(
    command: str, states: list[str], told: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = manifest(images, *states)
    assert main([command, path, *WORDS[command], "-od", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert str(images) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
