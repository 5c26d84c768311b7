"""mpidvc plot: what is drawn of a result, its options and its mistakes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc.commands.plot import run as plot_run
from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.main import main
from mpidvc.workflow.plot import Row

RANDOM = np.random.default_rng(6)


def field(dims: tuple[int, int, int] = (4, 5, 6), **columns: Any) -> PhiField:
    """A grid with a displacement along y that grows with y; the first node has diverged."""
    positions = np.moveaxis(np.indices(dims), 0, -1).reshape(-1, 3) * 10.0 + (0 if dims[0] == 1 else 10)
    positions[:, 1:] += 10 if dims[0] == 1 else 0
    n = len(positions)
    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[:, 1, 3] = 0.01 * positions[:, 1] - 0.3
    status = np.full(n, 2.0)
    status[0] = -1
    told = {"returnStatus": status, "error": np.ones(n), "iterations": np.full(n, 4.0), "zncc": RANDOM.random(n)}
    return PhiField.from_positions(positions, phi, {**told, **columns})


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The rows that are drawn."""
    rows: list[Row] = []
    really = plot_run.draw

    def draw(given: list[Row], notes: str = "") -> Any:
        rows[:] = given
        return really(given, notes)

    monkeypatch.setattr(plot_run, "draw", draw)
    return rows


@pytest.fixture
def result(tmp_path: Path) -> str:
    path = tmp_path / "r.h5"
    write_hdf5(path, field(sigmaZ=np.full(120, 0.01)), attributes={"command": "ldic"})
    return str(path)


def plot(*words: str) -> int:
    return main(["plot", *words])


def test_the_usual_picture(result: str, drawn: list[Row], tmp_path: Path) -> None:
    assert plot(result) == 0
    assert [row.title for row in drawn] == [
        *(f"{axis} displacement" for axis in "zyx"),
        *(f"{axis} displacement less rigid motion" for axis in "zyx"),
        "volumetric strain",
        "deviatoric strain",
        "random error of Z",
        "return status",
        "ZNCC",
    ]
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    given = field()
    expected = np.where(given.good, given["Ydisp"], np.nan).reshape(4, 5, 6)
    for part, axis in zip(drawn[1].slices, range(3), strict=True):
        np.testing.assert_array_equal(part.values, np.take(expected, (4, 5, 6)[axis] // 2, axis))
        assert part.place == 10 + 10 * ((4, 5, 6)[axis] // 2)
    # det F - 1 of a stretch of 1 % along y
    np.testing.assert_allclose(drawn[6].slices[0].values, 0.01, atol=1e-12)


def test_components_slices_limits_and_bad_points(result: str, drawn: list[Row], tmp_path: Path) -> None:
    line = "--component Ydisp returnStatus --slice z=11 x=1000 --limits -1 1 --all -o"
    assert plot(result, *line.split(), str(tmp_path / "p.svg")) == 0
    moved, status = drawn
    assert [(part.axis, part.place) for part in moved.slices] == [(0, 10.0), (2, 60.0)]
    assert moved.limits == (-1, 1)
    # the node that has diverged
    assert moved.slices[0].values[0, 0] == field()["Ydisp"][0]
    assert status.slices[0].values[0, 0] == -1
    assert status.colours == "status"
    assert status.statuses[-1].name == "diverged"


def test_text_files(result: str, drawn: list[Row], tmp_path: Path) -> None:
    from mpidvc.fields.tsv import write_tsv

    write_tsv(tmp_path / "t.tsv", field(), "LDIC")
    assert plot(str(tmp_path / "t.tsv"), "--component", "Ydisp", "-o", str(tmp_path / "t.pdf")) == 0
    np.testing.assert_allclose(drawn[0].slices[1].values, field().grid("Ydisp")[:, 2], atol=1e-6)


def test_two_results_are_compared(result: str, drawn: list[Row], tmp_path: Path) -> None:
    """At the nodes of both: the other one has more of them, and one is bad."""
    other = field((4, 5, 9))
    other.phi[:, 1, 3] += 0.25
    other.columns["returnStatus"][other.positions[:, 2] == 20] = -5
    write_hdf5(tmp_path / "b.h5", other)
    line = ["--compare", str(tmp_path / "b.h5"), "--component", "Ydisp", "-o", str(tmp_path / "c.png")]
    assert plot(result, *line) == 0
    first, second, difference = drawn
    assert (first.title, second.title) == ("A: y displacement", "B: y displacement")
    assert first.limits == second.limits
    values = difference.slices[0].values
    np.testing.assert_allclose(values[:, [0, 2, 3, 4, 5]], 0.25, atol=1e-12)
    assert np.isnan(values[:, 1]).all()
    assert difference.title.startswith("B − A: mean 0.25, sd ")
    assert difference.limits[0] == -difference.limits[1]


def test_results_without_a_common_point(result: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = field()
    other.positions += 1
    write_hdf5(tmp_path / "b.h5", other)
    assert plot(result, "--compare", str(tmp_path / "b.h5")) == 2
    assert "has no point in common" in capsys.readouterr().err


@pytest.fixture
def photographs(tmp_path: Path) -> str:
    """A 2D result with its images."""
    pair = AnalyticPair((1, 90, 80), 3, (0, 0, 0), (0, 0.01, 0), (0, 0.5, -0.3))
    tifffile.imwrite(tmp_path / "p1.tif", pair.image1()[0])
    tifffile.imwrite(tmp_path / "p2.tif", pair.image2()[0])
    line = f"ldic {tmp_path}/p1.tif {tmp_path}/p2.tif -ns 12 -hws 9 -np 1"
    assert main(line.split()) == 0
    return str(tmp_path / "p1-p2-ldic.h5")


def test_2d_fields_lie_over_the_photograph(photographs: str, drawn: list[Row], tmp_path: Path) -> None:
    image = tifffile.imread(tmp_path / "p1.tif")
    assert plot(photographs) == 0
    for row in drawn:
        (part,) = row.slices
        if row.colours == "status":
            assert part.under is None
        else:
            np.testing.assert_array_equal(part.under, image)
            assert part.edges == (-0.5, 79.5, 89.5, -0.5)
    assert plot(photographs, "--image", "none") == 0
    assert all(row.slices[0].under is None for row in drawn)


def test_another_image_of_that_name_is_not_drawn(photographs: str, drawn: list[Row], tmp_path: Path) -> None:
    image = tifffile.imread(tmp_path / "p1.tif")
    image[5, 5] += 1
    tifffile.imwrite(tmp_path / "p1.tif", image)
    assert plot(photographs) == 0
    assert all(row.slices[0].under is None for row in drawn)


def test_images_that_moved_with_the_result_are_found(photographs: str, drawn: list[Row], tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for path in [*tmp_path.glob("p1*"), tmp_path / "p2.tif"]:
        path.rename(there / path.name)
    assert plot(str(there / Path(photographs).name)) == 0
    assert drawn[0].slices[0].under is not None


def test_arrows_over_the_image(photographs: str, drawn: list[Row], tmp_path: Path) -> None:
    assert plot(photographs, "--quiver", "-o", str(tmp_path / "q.png")) == 0
    (row,) = drawn
    (part,) = row.slices
    assert part.arrows is not None
    np.testing.assert_array_equal(part.under, tifffile.imread(tmp_path / "p1.tif"))
    found = mpidvc.read_field(photographs)
    times = float(row.title.split("arrows ")[1].split()[0]) if "arrows" in row.title else 1.0
    np.testing.assert_allclose(part.arrows.v, times * found["Ydisp"][found.good])
    np.testing.assert_allclose(part.arrows.x, found.positions[found.good, 2])
    # without a rigid motion about nothing is left but the stretch
    assert plot(photographs, "--quiver", "nonrigid", "--component", "zncc", "-o", str(tmp_path / "q.png")) == 0
    assert len(drawn) == 2


@pytest.mark.parametrize("layout", ["labels", "points"])
def test_scattered_points(layout: Any, drawn: list[Row], tmp_path: Path) -> None:
    given = field()
    given.positions[3] = np.nan
    write_hdf5(tmp_path / "s.h5", PhiField(given.positions, given.phi, given.columns, layout))
    assert plot(str(tmp_path / "s.h5")) == 0
    assert not any("strain" in row.title for row in drawn)
    assert all(part.scatter is not None and len(part.values) == part.scatter.shape[1] for part in drawn[0].slices)
    assert plot(str(tmp_path / "s.h5"), "--quiver", "--image", "none") == 0


def test_no_good_point(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "n.h5", field(returnStatus=np.full(120, -1.0)))
    assert plot(str(tmp_path / "n.h5")) == 0
    assert plot(str(tmp_path / "n.h5"), "--quiver", "--image", "none") == 0


@pytest.mark.parametrize("dims", [(1, 5, 6), (3, 1, 6), (3, 5, 1), (1, 1, 7), (7, 1, 1)])
def test_single_layers_and_lines(dims: tuple[int, int, int], tmp_path: Path) -> None:
    write_hdf5(tmp_path / "n.h5", field(dims))
    assert plot(str(tmp_path / "n.h5")) == 0


def test_the_same_result_gives_the_same_bytes(result: str, tmp_path: Path) -> None:
    """In another process, too."""
    words = [result, "--component", "Ydisp", "returnStatus", "-o"]
    for end in ("png", "svg", "pdf"):
        assert plot(*words, str(tmp_path / f"a.{end}")) == 0
    for end in ("png", "svg", "pdf"):
        line = [sys.executable, "-m", "mpidvc", "plot", *words, str(tmp_path / f"b.{end}")]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("@no.h5", "does not exist"),
        ("@cut.h5", "is cut off or damaged"),
        ("@reg.tsv", "is a single Phi"),
        ("@r.h5 --component foo", "--component foo: there is no such quantity; there are Zdisp Ydisp"),
        ("@r.h5 --slice 12", "--slice 12: is no plane; give an axis and a place in voxels, such as z=60"),
        ("@r.h5 --slice z=nan", "--slice z=nan: is no plane"),
        ("@r.h5 --slice z=1 z=2", "has an axis twice"),
        ("@r.h5 --limits 2 1", "--limits 2.0 1.0: are no limits"),
        ("@r.h5 -o @a.jpg", "has to end in .png, .svg or .pdf"),
        ("@r.h5 -o @no/a.png", "there is no folder"),
        ("@r.h5 --compare @no.h5", "does not exist"),
        ("@r.h5 --compare @r.h5 --quiver", "drop one of them"),
        ("@r.h5 --quiver up", "invalid choice"),
        ("@r.h5 --image @no.tif", "does not exist"),
    ],
)
def test_mistakes(words: str, told: str, result: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.h5").write_bytes(Path(result).read_bytes()[:2000])
    header = "Zpos\tYpos\tXpos\tZdisp\tYdisp\tXdisp"
    (tmp_path / "reg.tsv").write_text(f"{header}\n1\t2\t3\t0\t0\t1\n")
    before = sorted(tmp_path.iterdir())
    assert plot(*words.replace("@", f"{tmp_path}/").split()) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert len(printed.err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_matplotlib_is_missing(
    result: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert plot(result) == 2
    line = 'mpidvc plot: error: matplotlib is not installed; pip install "mpidvc[plots]", or matplotlib alone\n'
    assert capsys.readouterr().err == line


def test_from_python(result: str, tmp_path: Path) -> None:
    assert mpidvc.plot(result, component=["Ydisp"]) == Path(result).with_suffix(".png")
    assert mpidvc.plot(field(), output=str(tmp_path / "f.png")) == tmp_path / "f.png"
    with pytest.raises(mpidvc.UserError, match="is missing; a field in memory has no name"):
        mpidvc.plot(field())


def test_settings_that_are_no_json(tmp_path: Path) -> None:
    for k, text in enumerate(("not json", "[1]", json.dumps({"image 1": 3, "image 2": []}))):
        write_hdf5(tmp_path / f"{k}.h5", field((1, 5, 6)), attributes={"command": "ldic", "determines": text})
        assert plot(str(tmp_path / f"{k}.h5"), "--component", "Ydisp") == 0
