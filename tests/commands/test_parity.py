"""The answers of spam 0.9.1 (tests/reference) from the same arguments.

Equality is asked for at nodes whose windows, with margin and one voxel more, lie wholly inside the images: beyond the
border spam compares zeros, which are no data here (docs: voxels outside an image count as masked).

Tolerances: 1e-4 voxel and 1e-4 in F for linear interpolation (both programs end at the same minimum by the same steps;
what is left are float32 grey levels and the seven digits of the files), 2e-3 voxel and 1e-3 in F for cubic splines,
whose prefilter begins otherwise at the border of the windows (10 voxels of frame here, none in spam), and 1e-3 of the
error, with linear interpolation. Binning differs on purpose where spam loses data: means of integer images are not cut
to integers, and 2D images are averaged, so that the last level of reg begins a hair elsewhere and may need one
iteration more or less. With ``-shift`` spam's ldic takes gradients between voxels from its window alone, whose
outermost ones are one-sided differences; ours come from the image around: a way to the same minimum that differs by
some 1e-3 voxel.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from mpidvc.fields.tsv import COLUMNS
from mpidvc.main import main
from tests.outputs import other_outputs
from tests.reference.make_ddic_reference import CASES as DDIC
from tests.reference.make_ddic_reference import FOLDER as GRAINS

REFERENCE = Path(__file__).parents[1] / "reference"
CASES = {case["name"]: case for case in json.loads((REFERENCE / "cases.json").read_text())["cases"]}
LDIC = [name for name, case in CASES.items() if case["command"] == "ldic"]
REG = [name for name, case in CASES.items() if case["command"] == "reg" and case["agreement"] != "ignored"]

F = [name for name in COLUMNS["LDIC"] if name.startswith("F")]
DISPLACEMENTS = ["Zdisp", "Ydisp", "Xdisp"]
POSITIONS = ["Zpos", "Ypos", "Xpos"]
#: Cases with other gradients than spam's (above): the tolerances of cubic splines.
LOOSE = {"ldic-shift"}

Table = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REFERENCE)


def read(path: Path | str) -> tuple[str, Table]:
    """Header and columns of a file."""
    with Path(path).open() as file:
        header = file.readline()
        table = np.loadtxt(file, delimiter="\t", ndmin=2)
    return header, dict(zip(header.rstrip("\n").split("\t"), table.T, strict=True))


def columns(table: Table, names: list[str]) -> np.ndarray:
    return np.stack([table[name] for name in names], axis=-1)


def run(name: str, out: Path) -> None:
    case = CASES[name]
    assert main([case["command"], *case["args"], "--criterion", "ssd", "-np", "1", "-od", str(out)]) == 0
    # spam has no table of the states of a series
    assert {path for path in other_outputs(out) if not path.endswith("-series.tsv")} == set(case["outputs"])


def option(name: str, *spellings: str, default: str) -> list[str]:
    """What follows an option of a case: one word, or three after ``-…3``."""
    args = CASES[name]["args"]
    for spelling in spellings:
        if spelling in args:
            at = args.index(spelling) + 1
            return args[at : at + (3 if spelling.endswith("3") else 1)]
    return [default]


def sizes(name: str, *spellings: str, default: str) -> np.ndarray:
    size = np.array([int(word) for word in option(name, *spellings, default=default)]) * np.ones(3, int)
    if "2d" in name:
        size[0] = 0
    return size


def guess_at(name: str, positions: np.ndarray) -> np.ndarray:
    """Displacements that the windows of image 2 are moved by before they are cut."""
    (path,) = option(name, "-pf", default="")
    if not path:
        return np.zeros_like(positions)
    ratio = float(option(name, "-pfb", default="1")[0])
    _, guess = read(path)
    t = columns(guess, DISPLACEMENTS) * ratio
    if len(t) > 1:
        return t
    centre = columns(guess, POSITIONS)[0] * ratio
    return t + (positions - centre) @ (columns(guess, F)[0].reshape(3, 3) - np.eye(3)).T


def inside(name: str, positions: np.ndarray) -> np.ndarray:
    """Nodes whose windows 1 and 2, with margin and one voxel, are in the images."""
    with tifffile.TiffFile(REFERENCE / CASES[name]["args"][0]) as tif:
        shape = tif.series[0].shape
    last = np.array([1, *shape][-3:]) - 1
    reach = sizes(name, "-hws", "-hws3", default="0") + sizes(name, "-m", "-m3", default="3") + 1
    if "2d" in name:
        reach[0] = 0
    moved = positions + np.round(guess_at(name, positions))
    with np.errstate(invalid="ignore"):
        return np.all(
            (positions >= reach) & (positions + reach <= last) & (moved >= reach) & (moved + reach <= last), axis=1
        )


@pytest.mark.parametrize("name", REG)
def test_reg(name: str, tmp_path: Path) -> None:
    run(name, tmp_path)
    (output,) = CASES[name]["outputs"]
    header, ours = read(tmp_path / output)
    theirs_header, theirs = read(f"results/{name}/{output}")
    assert header == theirs_header
    assert len(ours["Zpos"]) == 1
    assert ours["returnStatus"] == theirs["returnStatus"]
    # One iteration: binned images (above); with a spline and -ug also spam's border of the prefilter.
    slack = 1 if CASES[name]["agreement"] != "tight" else 0
    assert abs(ours["iterations"] - theirs["iterations"]) <= slack
    cubic = CASES[name]["agreement"] == "spline"
    np.testing.assert_array_equal(columns(ours, POSITIONS), columns(theirs, POSITIONS))
    np.testing.assert_allclose(
        columns(ours, DISPLACEMENTS), columns(theirs, DISPLACEMENTS), rtol=0, atol=2e-3 if cubic else 1e-4
    )
    np.testing.assert_allclose(columns(ours, F), columns(theirs, F), rtol=0, atol=1e-3 if cubic else 1e-4)
    np.testing.assert_allclose(ours["error"], theirs["error"], rtol=1e-2 if cubic else 1e-3)


def test_gaussian_gradient_does_what_it_says(tmp_path: Path) -> None:
    """spam ignores ``-gm``; both gradients have to lead to about the same minimum, by other steps."""
    base = ["reg", "images/im1.tif", "images/im2.tif", "-bb", "1", "--criterion", "ssd", "-np", "1"]
    assert main([*base, "-gm", "gaussian", "-gs", "1", "-od", str(tmp_path)]) == 0
    _, ours = read(tmp_path / "im1-im2-registration.tsv")
    _, theirs = read("results/reg/im1-im2-registration.tsv")
    assert ours["returnStatus"] == 2
    # The Gaussian's reach (4 voxels at each side) leaves other voxels out: the minima are not the same.
    np.testing.assert_allclose(columns(ours, DISPLACEMENTS), columns(theirs, DISPLACEMENTS), rtol=0, atol=0.03)
    np.testing.assert_allclose(columns(ours, F), columns(theirs, F), rtol=0, atol=3e-3)
    assert np.abs(columns(ours, F) - columns(theirs, F)).max() > 1e-6


@pytest.mark.parametrize("name", LDIC)
def test_ldic(name: str, tmp_path: Path) -> None:
    run(name, tmp_path)
    cubic = CASES[name]["agreement"] == "spline" or name in LOOSE
    for output in (output for output in CASES[name]["outputs"] if output.endswith(".tsv")):
        header, ours = read(tmp_path / output)
        theirs_header, theirs = read(f"results/{name}/{output}")
        assert header == theirs_header
        assert len(ours["Zpos"]) == len(theirs["Zpos"])
        np.testing.assert_array_equal(ours["NodeNumber"], theirs["NodeNumber"])
        np.testing.assert_array_equal(columns(ours, POSITIONS), columns(theirs, POSITIONS))

        within = inside(name, columns(theirs, POSITIONS))
        n = int(within.sum())
        assert n >= 8
        status = ours["returnStatus"] == theirs["returnStatus"]
        if CASES[name]["agreement"] == "status":
            assert np.sum(within & ~status) <= allowed(n, 0.005)
            same = within & status & (theirs["returnStatus"] == 2)
            close(ours, theirs, same, cubic)
            continue
        same = status & (ours["iterations"] == theirs["iterations"])
        assert np.sum(within & ~same) <= allowed(n, 0.03 if name in LOOSE else 0.005)
        close(ours, theirs, within & same & (theirs["returnStatus"] >= 1), cubic)
        # The residual of a spline, some 1e-5 of the grey levels' variance, is mostly that of the border of the window.
        rtol = 0.1 if cubic else 1e-3
        np.testing.assert_allclose(ours["error"][within & same], theirs["error"][within & same], rtol=rtol, atol=1e-6)
        # rows that were not correlated, here and at the border
        for skipped in (-5, -7):
            rows = within & (theirs["returnStatus"] == skipped)
            for column in ("iterations", "error", "deltaPhiNorm", *DISPLACEMENTS, *F):
                np.testing.assert_array_equal(ours[column][rows], theirs[column][rows])


def allowed(n: int, share: float) -> int:
    """How many nodes of n may differ: a share of them, of few nodes one."""
    return max(1, math.floor(share * n))


def close(ours: Table, theirs: Table, rows: np.ndarray, cubic: bool) -> None:
    assert rows.sum() >= 8
    a, b = columns(ours, DISPLACEMENTS)[rows], columns(theirs, DISPLACEMENTS)[rows]
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-3 if cubic else 1e-4)
    a, b = columns(ours, F)[rows], columns(theirs, F)[rows]
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 if cubic else 1e-4)


@pytest.mark.parametrize("name", DDIC)
def test_ddic(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps to the same Phi, to 1e-4 voxel and 1e-5 in F, with spam's displacement moved.

    spam gives that of the middle of the bounding box, beside the position of the centre of mass.
    """
    monkeypatch.chdir(GRAINS)
    words = ["im1.tif", "labels.tif", "im2.tif", *DDIC[name].split(), "--criterion", "ssd", "-np", "1"]
    assert main(["ddic", *words, "-od", str(tmp_path), "-pre", "p"]) == 0
    assert other_outputs(tmp_path) == {"p-ddic.tsv", "p-ddic.vtk"}
    header, ours = read(tmp_path / "p-ddic.tsv")
    spams, theirs = read(f"{name}.tsv")
    assert header == spams
    np.testing.assert_array_equal(ours["Label"], np.arange(31))
    # a label that is too small has a status of its own
    status = np.where(ours["returnStatus"] == -5, -7, ours["returnStatus"])
    np.testing.assert_array_equal(status, theirs["returnStatus"])
    assert (ours["returnStatus"][[0, 7]] == (0, -7)).all()
    for column in ("Label", "iterations", "LabelDilate"):
        np.testing.assert_array_equal(ours[column][1:], theirs[column][1:])
    np.testing.assert_allclose(columns(ours, POSITIONS), columns(theirs, POSITIONS), rtol=0, atol=1e-5)

    boxes = ndimage.find_objects(tifffile.imread("labels.tif"))
    middle = np.array([[0.0] * 3, *([(s.start + s.stop - 1) / 2 for s in box or (slice(0, 1),) * 3] for box in boxes)])
    found = theirs["returnStatus"] >= 1
    assert found.sum() >= 28
    stretch = columns(theirs, F).reshape(-1, 3, 3) - np.eye(3)
    expected = columns(theirs, DISPLACEMENTS) + np.einsum("nij,nj->ni", stretch, columns(ours, POSITIONS) - middle)
    at_centres = columns(ours, DISPLACEMENTS)
    np.testing.assert_allclose(at_centres[found], expected[found], rtol=0, atol=1e-4)
    np.testing.assert_allclose(columns(ours, F), columns(theirs, F), rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours["error"][found], theirs["error"][found], rtol=1e-3)
    # the two points matter
    assert np.abs(at_centres - columns(theirs, DISPLACEMENTS))[found].max() > 0.01


def test_skip_keeps_the_other_rows(tmp_path: Path) -> None:
    """Rows that -skp does not correlate are the file's, at the border of the image too."""
    run("ldic-skip", tmp_path)
    _, ours = read(tmp_path / "im1-im2-ldic.tsv")
    _, given = read("guess-skip.tsv")
    kept = ~np.isin(given["returnStatus"], (1, -1, -2, -3))
    assert 100 < kept.sum() < len(kept)
    for column in COLUMNS["LDIC"]:
        # The files have seven digits behind the point, or eight digits in all.
        np.testing.assert_allclose(ours[column][kept], given[column][kept], rtol=1e-7, atol=1e-7)


def read_vtk(path: Path) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    """Header numbers and fields of a legacy ASCII file of cells."""
    words = path.read_text().split("\n")
    assert words[0] == "# vtk DataFile Version 2.0"
    assert words[2] == "ASCII"
    numbers: dict[str, list[float]] = {}
    fields: dict[str, list[str]] = {}
    name = ""
    for line in words[3:]:
        first, *rest = line.split() or [""]
        if first in ("DIMENSIONS", "ASPECT_RATIO", "ORIGIN", "CELL_DATA"):
            numbers[first] = [float(word) for word in rest]
        elif first in ("SCALARS", "VECTORS"):
            name = f"{first} {rest[0]}"
            fields[name] = []
        elif first not in ("", "DATASET", "LOOKUP_TABLE"):
            fields[name].append(line)
        elif first == "DATASET":
            assert rest == ["STRUCTURED_POINTS"]
    return numbers, {name: np.array([line.split() for line in lines], float) for name, lines in fields.items()}


@pytest.mark.parametrize("name", ["ldic-files", "ldic-2d-files"])
def test_vtk_and_tiff(name: str, tmp_path: Path) -> None:
    run(name, tmp_path)
    stem = "flat1-flat2-ldic" if "2d" in name else "im1-im2-ldic"
    theirs = REFERENCE / "results" / name
    _, table = read(theirs / f"{stem}.tsv")
    _, own = read(tmp_path / f"{stem}.tsv")
    same = inside(name, columns(table, POSITIONS))
    same &= (own["returnStatus"] == table["returnStatus"]) & (own["iterations"] == table["iterations"])
    assert same.sum() >= 8

    numbers, fields = read_vtk(tmp_path / f"{stem}.vtk")
    their_numbers, their_fields = read_vtk(theirs / f"{stem}.vtk")
    assert numbers == their_numbers
    assert list(fields) == list(their_fields)
    for field, values in fields.items():
        assert values.shape == their_fields[field].shape
        rtol = 1e-3 if field != "SCALARS deltaPhiNorm" else 0.05
        np.testing.assert_allclose(values[same], their_fields[field][same], rtol=rtol, atol=1e-4)

    for path in sorted(theirs.glob("*.tif")):
        image, their_image = tifffile.imread(tmp_path / path.name), tifffile.imread(path)
        assert image.dtype == their_image.dtype == np.float32
        dims = [1, *image.shape][-3:]
        assert dims == [1, *their_image.shape][-3:] == [int(d) - 1 for d in reversed(numbers["DIMENSIONS"])]
        column = path.stem.rpartition("-")[2]
        # the text has seven digits behind the point, or eight in all
        np.testing.assert_allclose(image.ravel(), own[column], rtol=1e-6, atol=1e-7)
        rtol = 1e-3 if column != "deltaPhiNorm" else 0.05
        np.testing.assert_allclose(image.ravel()[same], their_image.ravel()[same], rtol=rtol, atol=1e-4)
