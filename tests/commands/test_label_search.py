"""mpidvc pixelSearch -lab1: the true displacements of grains, spam's answers, rows, options and bad input.

spam's answers are in tests/reference/label-search: its CC is up to 0.2 % too low, and it deforms labels in another way
(it cuts their outermost layer off), so that there CC and error differ.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc.core.grains import AnalyticGrains
from mpidvc.fields.hdf5 import read_hdf5
from mpidvc.fields.tsv import column_names
from mpidvc.main import main
from mpidvc.tasks.label_search import LabelSearch
from tests.commands.test_pixel_search import DISPLACEMENTS, POSITIONS, F, columns, read
from tests.outputs import other_outputs, outputs
from tests.reference.make_label_search_reference import CASES, FOLDER, labels_of

#: Numbers of the packing that are no labels.
MISSING = 7


def search(folder: Path, line: str, status: int = 0) -> Path:
    """Folder of the files of a run with one process; `@` is the folder of the images."""
    assert main(["pixelSearch", *line.split(), "-np", "1", "-od", str(folder)]) == status
    return folder


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AnalyticGrains]:
    """Grains that move by whole voxels each on its own, and do not turn."""
    folder = tmp_path_factory.mktemp("packing")
    shift = {"displacement": 0.0, "translation": (2.0, -3.0, 1.0)}
    grains = AnalyticGrains((48, 52, 56), 12, seed=3, radii=(4.5, 6.5), rotation=0.0, touching=0.3, margin=6.0, **shift)
    for name, image in (("a", grains.image1()), ("b", grains.image2()), ("l", grains.labels1())):
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    return folder, grains


def test_the_true_displacements(packing: tuple[Path, AnalyticGrains], tmp_path: Path) -> None:
    folder, grains = packing
    images = f"{folder}/a.tif {folder}/b.tif -lab1 {folder}/l.tif"
    header, table = read(search(tmp_path, f"{images} -sr -3 3 -3 3 -3 3") / "a-b-pixelSearch.tsv")
    assert header.split() == list(column_names("SEARCH", labels=True))
    np.testing.assert_array_equal(table["Label"], np.arange(13))
    np.testing.assert_array_equal(columns(table, DISPLACEMENTS)[1:], np.tile([2, -3, 1], (12, 1)))
    np.testing.assert_allclose(columns(table, POSITIONS)[1:], grains.centres[1:], atol=1e-6)
    # the closed form at moved points: the same numbers, but for the rounding of grey levels
    assert table["pixelSearchCC"][1:].min() > 0.999999
    np.testing.assert_array_equal(table["returnStatus"], [0] + [1] * 12)
    # the range is wider by twice the dilation, and by nothing else
    _, near = read(search(tmp_path / "2", f"{images} -sr 0 0 -1 1 0 0 -ld 1") / "a-b-pixelSearch.tsv")
    np.testing.assert_array_equal(columns(near, DISPLACEMENTS)[1:], np.tile([2, -3, 1], (12, 1)))
    _, far = read(search(tmp_path / "3", f"{images} -sr 0 0 -1 1 0 0 -ld 0") / "a-b-pixelSearch.tsv")
    assert (np.abs(columns(far, DISPLACEMENTS)[1:]) <= [0, 1, 0]).all()


@pytest.mark.parametrize("name", CASES)
def test_parity(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    search(tmp_path, f"im1.tif im2.tif -lab1 {labels_of(CASES[name])} -pre p {CASES[name]}")
    header, ours = read(tmp_path / "p-pixelSearch.tsv")
    spams, theirs = read(FOLDER / f"{name}.tsv")
    assert header == spams
    assert len(ours["Label"]) == len(theirs["Label"]) == 17
    for column in ("Label", "returnStatus", "deltaPhiNorm", "iterations"):
        np.testing.assert_array_equal(ours[column], theirs[column])
    np.testing.assert_allclose(columns(ours, POSITIONS), columns(theirs, POSITIONS), atol=2e-5)
    np.testing.assert_allclose(columns(ours, F), columns(theirs, F), atol=2e-6)
    same = (columns(ours, DISPLACEMENTS) == columns(theirs, DISPLACEMENTS)).all(axis=1)
    same |= np.isnan(theirs["Zdisp"]) & np.isnan(ours["Zdisp"])
    if "all" in CASES[name] or "rigid" in CASES[name]:
        assert (~same).sum() <= 1
        assert np.abs(ours["pixelSearchCC"] - theirs["pixelSearchCC"]).max() < 0.04
        return
    assert same.all()
    np.testing.assert_allclose(ours["pixelSearchCC"], theirs["pixelSearchCC"], atol=0.00176)
    assert (ours["pixelSearchCC"] >= theirs["pixelSearchCC"] - 1e-6).all()
    np.testing.assert_allclose(ours["error"], theirs["error"], rtol=1e-6)


def test_vtk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    line = "im1.tif im2.tif -lab1 labels.tif -pre p -vtk -tif"
    assert other_outputs(search(tmp_path, line)) == {"p-pixelSearch.tsv", "p-pixelSearch.vtk"}
    ours, theirs = (tmp_path / "p-pixelSearch.vtk").read_text(), (FOLDER / "vtk.vtk").read_text()
    fields = [text for text in ours.splitlines() if text[:1].isalpha()]
    # spam's files do not hide points without a result
    expected = [text for text in theirs.splitlines() if text[:1].isalpha()]
    assert fields[1:-2] == expected[1:]
    assert fields[-2] == "SCALARS vtkGhostType unsigned_char"
    assert "POINTS 17 float" in ours


def test_missing_labels_and_a_field_as_the_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own result is a guess, with rows that have no numbers: of missing labels, and of those that were skipped."""
    monkeypatch.chdir(FOLDER)
    line = "im1.tif im2.tif -lab1 labels.tif -F no"
    search(tmp_path, f"{line} -lvt 700 -pre p")
    _, first = read(tmp_path / "p-pixelSearch.tsv")
    assert first["returnStatus"][0] == 0
    assert first["returnStatus"][MISSING] == -7
    assert np.isnan(first["Zpos"][MISSING])
    skipped = np.flatnonzero(first["returnStatus"] == -5)
    found = np.flatnonzero(first["returnStatus"] == 1)
    assert len(skipped) > 2
    assert len(found) > 2
    search(tmp_path, f"{line} -pf {tmp_path}/p-pixelSearch.h5 -ld 0 -sr 0 0 0 0 0 0 -lvt 20 -pre q")
    _, second = read(tmp_path / "q-pixelSearch.tsv")
    np.testing.assert_array_equal(second["returnStatus"][found], 1)
    np.testing.assert_array_equal(columns(second, DISPLACEMENTS)[found], columns(first, DISPLACEMENTS)[found])
    np.testing.assert_array_equal(second["returnStatus"][skipped], -7)
    assert second["returnStatus"][MISSING] == -7
    assert np.isnan(columns(second, DISPLACEMENTS)[[*skipped, MISSING]]).all()
    np.testing.assert_array_equal(second["pixelSearchCC"][skipped], 0)
    np.testing.assert_array_equal(second["error"][skipped], np.inf)


def test_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(FOLDER)
    search(tmp_path, "im1.tif im2.tif -lab1 labels.tif -ns 10 -hws 5 -mf1 labels.tif -mc 0.9 -pre p -tif")
    told = " ".join(capsys.readouterr().out.split())
    assert "-ns -hws -mf1 -mc have no meaning with -lab1" in told
    assert "labels are no grid: no TIFF is written" in told
    assert "1 numbers up to the largest label are no labels" in told
    # and they do nothing
    search(tmp_path, "im1.tif im2.tif -lab1 labels.tif -pre q")
    assert (tmp_path / "p-pixelSearch.tsv").read_bytes() == (tmp_path / "q-pixelSearch.tsv").read_bytes()


def test_interrupted_and_resumed(
    packing: tuple[Path, AnalyticGrains], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = packing
    line = f"{folder}/a.tif {folder}/b.tif -lab1 {folder}/l.tif -vtk"
    search(tmp_path / "whole", line)
    original, searched = LabelSearch.search, []

    def counted(self: LabelSearch, label: int, *more: np.ndarray) -> np.ndarray:
        searched.append(label)
        if len(searched) == 5:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, label, *more)

    monkeypatch.setattr(LabelSearch, "search", counted)
    search(tmp_path / "part", line, status=85)
    assert 5 <= len(searched) < 12
    assert main(["status", str(tmp_path / "part" / "a-b-pixelSearch.h5")]) == 75
    search(tmp_path / "part", f"{line} --resume")
    assert sorted(searched) == list(range(1, 13))
    assert outputs(tmp_path / "part") == outputs(tmp_path / "whole")


def test_in_python(packing: tuple[Path, AnalyticGrains], tmp_path: Path) -> None:
    folder, grains = packing
    field = mpidvc.pixel_search(grains.image1(), grains.image2(), labels1=grains.labels1())
    search(tmp_path, f"{folder}/a.tif {folder}/b.tif -lab1 {folder}/l.tif")
    filed = read_hdf5(tmp_path / "a-b-pixelSearch.h5")
    assert field.layout == "labels"
    np.testing.assert_array_equal(field.phi, filed.phi)
    np.testing.assert_array_equal(field.displacements[1:], np.tile([2, -3, 1], (12, 1)))


BAD = [
    ("im1.tif im2.tif -lab1 none.tif", "none.tif"),
    ("im1.tif im2.tif -lab1 small.tif", "small.tif: the labels have"),
    ("im1.tif im2.tif -lab1 im1.tif", "im1.tif: has the value"),
    ("im1.tif im2.tif -lab1 empty.tif", "empty.tif: has no label"),
    ("im1.tif im2.tif -lab1 labels.tif -ld 1000", "-ld 1000"),
    ("im1.tif im2.tif -lab1 labels.tif -lvt -1", "-lvt -1"),
    ("im1.tif im2.tif -lab1 labels.tif -sr -900 900 -900 900 -900 900", "labels.tif: label"),
    ("im1.tif im2.tif -lab1 labels.tif -sr 1 0 0 0 0 0", "-sr 1 0 0 0 0 0"),
    ("im1.tif im2.tif -lab1 labels.tif -pf grid.tsv", "-pf grid.tsv: is a field of 4 points"),
    ("im1.tif im2.tif -lab1 labels.tif -pf other.tsv", "-pf other.tsv: label 2 is at"),
    ("im1.tif im2.tif -lab1 labels.tif -pf fewer.tsv", "-pf fewer.tsv: has 16 rows"),
    ("im1.tif im2.tif -lab1 labels.tif -notsv -noh5 -tif", "-notsv -noh5"),
    ("im1.tif im2.tif -lab1 labels.tif -F half", "-F"),
]


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    for name in ("im1.tif", "im2.tif", "labels.tif"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    labels = tifffile.imread(folder / "labels.tif")
    tifffile.imwrite(folder / "small.tif", labels[:-1], photometric="minisblack")
    tifffile.imwrite(folder / "empty.tif", 0 * labels, photometric="minisblack")
    rows = (FOLDER / "plain.tsv").read_text().splitlines()
    (folder / "fewer.tsv").write_text("\n".join(rows[:-1]) + "\n")
    words = rows[3].split("\t")
    words[2] = str(float(words[2]) + 1.5)
    (folder / "other.tsv").write_text("\n".join([*rows[:3], "\t".join(words), *rows[4:]]) + "\n")
    (folder / "grid.tsv").write_text("\n".join([rows[0].replace("Label", "NodeNumber"), *rows[2:6]]) + "\n")
    return folder


@pytest.mark.parametrize(("line", "word"), BAD, ids=[line for line, _ in BAD])
def test_bad_input(
    line: str, word: str, bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(bad)
    try:
        status = main(["pixelSearch", *line.split(), "-np", "1", "-od", str(tmp_path)])
    except SystemExit as error:
        status = int(error.code or 0)
    told = capsys.readouterr().err
    assert status == 2
    assert word in told
    assert len(told.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
