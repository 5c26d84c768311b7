"""mpidvc pixelSearchPropagate -lab1: grains whose displacements grow from one to the next are followed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from mpidvc.core.labels import Labels
from mpidvc.fields.tsv import column_names
from mpidvc.images.image import ArrayImage
from mpidvc.main import main
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks.label_search import LabelSearch
from mpidvc.tasks.labels import measure_labels
from tests.commands.test_pixel_search import DISPLACEMENTS, F, columns, read
from tests.conftest import Job
from tests.outputs import other_outputs, outputs

#: Numbers of the labels along the row, which are not their order in space; 3 is missing, 9 too small to be searched.
ORDER = (5, 8, 2, 7, 1, 6, 4, 9)
#: Voxels that each label moves further than the one before.
STEP = np.array([1, -1, 2])
OPTIONS = "-sr -1 1 -1 1 -2 2 -ld 0"


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A row of blocks along y, the k-th of which moves by k times `STEP`."""
    folder = tmp_path_factory.mktemp("row")
    random = np.random.default_rng(1)
    labels = np.zeros((30, 140, 44), np.uint8)
    one, two = random.normal(20, 2, labels.shape), random.normal(20, 2, labels.shape)
    for k, label in enumerate(ORDER):
        size = (2, 3, 2) if label == 9 else (9, 8 + k % 3, 10)
        low = np.array([6, 14 + 15 * k, 8])
        texture = 120 + 40 * ndimage.gaussian_filter(random.normal(size=size), 1.0) / 0.15
        for image, start in ((labels, low), (one, low), (two, low + k * STEP)):
            image[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = (
                label if image is labels else texture
            )
    for name, image in (("a", one), ("b", two)):
        tifffile.imwrite(folder / f"{name}.tif", image.astype(np.float32), photometric="minisblack")
    tifffile.imwrite(folder / "l.tif", labels, photometric="minisblack")
    return folder


def words(row: Path, out: Path, line: str) -> list[str]:
    files = ["a.tif", "b.tif", "-lab1", "l.tif"]
    given = [str(row / word) if word.endswith(".tif") else word for word in files]
    return ["pixelSearchPropagate", *given, *line.split(), "-od", str(out)]


def travel(row: Path, out: Path, line: str, status: int = 0) -> dict[str, np.ndarray]:
    assert main([*words(row, out, line), "-np", "1"]) == status
    if status:
        return {}
    header, table = read(out / "a-b-pixelSearchPropagate.tsv")
    assert header.split() == list(column_names("SEARCH", labels=True))
    return table


def labels_of(row: Path) -> Labels:
    return measure_labels(InlineExecutor(), ArrayImage(tifffile.imread(row / "l.tif")))


@pytest.mark.parametrize("ranking", ["distance", "walk"])
@pytest.mark.parametrize("begin", [0, 3, 6])
def test_every_label_keeps_its_row_and_guides_the_next(row: Path, tmp_path: Path, begin: int, ranking: str) -> None:
    """Displacements of up to 14 voxels are found by a range of 2: from anywhere in the row (B14, B16, B17)."""
    y = 18 + 15 * begin
    displacement = " ".join(map(str, begin * STEP))
    # a weight so narrow that the nearest label alone guides; the next one is 15 voxels away
    line = f"{OPTIONS} -sp 10 {y} 12 {displacement} -nr 20 -gwd 4 --ranking {ranking} -vtk -tif"
    table = travel(row, tmp_path, line)
    np.testing.assert_array_equal(table["Label"], np.arange(10))
    for k, label in enumerate(ORDER):
        if label == 9:
            continue
        np.testing.assert_array_equal(columns(table, DISPLACEMENTS)[label], k * STEP)
        assert table["pixelSearchCC"][label] > 0.9999
    np.testing.assert_array_equal(table["returnStatus"], [0, 1, 1, -7, 1, 1, 1, 1, 1, -5])
    # row 0 is nothing but zeros, as in spam; the others have no F and no iterations
    assert all(values[0] == 0 for values in table.values())
    np.testing.assert_array_equal(columns(table, F)[1:], np.tile(np.eye(3).ravel(), (9, 1)))
    np.testing.assert_array_equal(table["iterations"], 0)
    for failed in (3, 9):
        assert np.isnan(columns(table, DISPLACEMENTS)[failed]).all()
        assert table["pixelSearchCC"][failed] == 0
        assert table["error"][failed] == np.inf
    assert other_outputs(tmp_path) == {"a-b-pixelSearchPropagate.tsv", "a-b-pixelSearchPropagate.vtk"}


def test_guesses_are_the_weighted_means_of_earlier_labels(
    row: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every guess is computed again from the results of the labels before it."""
    seen: list[tuple[int, np.ndarray]] = []
    original = LabelSearch.search

    def noted(self: LabelSearch, label: int, centre: np.ndarray, guess: np.ndarray) -> np.ndarray:
        seen.append((label, guess[:3, 3].copy()))
        return original(self, label, centre, guess)

    monkeypatch.setattr(LabelSearch, "search", noted)
    radius, distance = 33.0, 12.0
    table = travel(row, tmp_path, f"{OPTIONS} -sp 10 63 12 3 -3 6 -nr {radius} -gwd {distance} -sr -3 3 -3 3 -6 6")
    centre = labels_of(row).centre
    # the start is searched once before the run
    assert [label for label, _ in seen[:2]] == [7, 7]
    good: list[int] = []
    for label, guess in seen[1:]:
        if good:
            apart = np.linalg.norm(centre[good] - centre[label], axis=1)
            within = radius
            while not (apart <= within).any():
                within *= 2
            weight = np.exp(-((apart / distance) ** 2)) * (apart <= within)
            known = columns(table, DISPLACEMENTS)[good]
            np.testing.assert_array_equal(guess, np.rint(weight @ known / weight.sum()))
        if table["returnStatus"][label] == 1 and table["pixelSearchCC"][label] >= 0.9:
            good.append(label)
    apart = np.linalg.norm(centre[[label for label, _ in seen[1:]]] - centre[7], axis=1)
    assert (np.diff(apart) >= 0).all()
    assert len(good) == 7


def test_start_beside_a_label(row: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The label of the voxel, or the one whose centre of mass is nearest."""
    travel(row, tmp_path / "1", f"{OPTIONS} -sp 10 18 12 0 0 0")
    assert "Starting at label 5" in capsys.readouterr().out
    travel(row, tmp_path / "2", f"{OPTIONS} -sp 0 26 12 1 -1 2")
    assert "Starting at label 8" in capsys.readouterr().out


def test_interrupted_and_resumed(row: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"{OPTIONS} -sp 10 18 12 0 0 0 -nr 20 -gwd 4"
    travel(row, tmp_path / "whole", line)
    original, searched = LabelSearch.search, []

    def counted(self: LabelSearch, label: int, *more: np.ndarray) -> np.ndarray:
        searched.append(label)
        if len(searched) == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, label, *more)

    monkeypatch.setattr(LabelSearch, "search", counted)
    travel(row, tmp_path / "part", line, status=85)
    before = len(searched)
    assert 4 <= before < 9
    travel(row, tmp_path / "part", f"{line} --resume")
    # the start once more for each run
    assert sorted(searched) == sorted([1, 2, 4, 5, 6, 7, 8, 9, 5, 5])
    assert outputs(tmp_path / "part") == outputs(tmp_path / "whole")


def test_any_number_of_ranks_gives_the_same_bytes(row: Path, tmp_path: Path, mpiexec: Job) -> None:
    line = f"{OPTIONS} -sp 10 63 12 3 -3 6 -nr 20 -gwd 4"
    travel(row, tmp_path / "1", line)
    for n in (2, 3):
        done = mpiexec(n, "-m", "mpidvc", *words(row, tmp_path / str(n), line))
        assert done.returncode == 0, done.stderr
        assert outputs(tmp_path / str(n)) == outputs(tmp_path / "1")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("", "the starting point is missing"),
        ("-sp 10 18 12 0 0 0 -gp points.txt", "-lab1"),
        ("-sp 10 18 12 0 0 0 -ld 900", "-ld 900"),
        ("-sp 6 119 8 7 -7 14 -ld 0", "label 9, where it begins, is refused"),
        ("-sp 10 18 12 9 9 9", "label 5, where it begins, is not found"),
        ("-sp 10 18 12 500 0 0", "label 5, where it begins, is refused"),
    ],
)
def test_bad_input(row: Path, tmp_path: Path, line: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words(row, tmp_path, line), "-np", "1"]) == 2
    told = capsys.readouterr().err
    assert word in told
    assert len(told.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
