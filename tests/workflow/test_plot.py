"""Pictures of fields and images: what is drawn, with which colours, and the bytes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import write_tsv
from mpidvc.images.image import ArrayImage
from mpidvc.main import main
from mpidvc.workflow import plot
from mpidvc.workflow.quantities import Quantities, Quantity, statuses_of


@pytest.fixture
def field(tmp_path: Path) -> str:
    """A grid with one node that has not converged."""
    path = tmp_path / "f.tsv"
    write_tsv(path, grid(), "LDIC")
    return str(path)


def grid() -> PhiField:
    positions = 10.0 * np.stack(np.unravel_index(np.arange(120), (4, 5, 6)), axis=1)
    phi = np.tile(np.eye(4), (120, 1, 1))
    phi[:, 0, 3] = np.sin(positions[:, 1] / 20)
    columns = {"error": np.zeros(120), "iterations": np.zeros(120), "returnStatus": np.full(120, 2)}
    columns["returnStatus"][47] = 1
    return PhiField.from_positions(positions, phi, columns | {"deltaPhiNorm": np.zeros(120)})


CORRECTION = "correction (1: mean or linear fit, 2: quadratic fit)"


@pytest.mark.parametrize(
    ("line", "titles"),
    [
        ("passPhiField -ns 10 -im1shape 40 50 60 -nn 1", ["length of the displacement", "return status"]),
        ("filterPhiField -srs -cint", ["length of the displacement", CORRECTION]),
        ("filterPhiField -srs -cint --outliers", ["length of the displacement", "outlier (1: yes)", CORRECTION]),
    ],
)
def test_a_row_for_each_quantity(
    line: str, titles: list[str], field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[plot.Row] = []
    really = plot.draw
    monkeypatch.setattr(plot, "draw", lambda rows, notes="": drawn.extend(rows) or really(rows, notes))
    picture = tmp_path / "p.png"
    assert main([*line.split(), "-pf", field, "--plot", str(picture), "-np", "1", "-noh5"]) == 0
    assert [row.title for row in drawn] == titles
    assert all(len(row.slices) == 3 for row in drawn)
    assert imread(picture).ndim == 3


def test_slices_are_those_of_the_arrays() -> None:
    given = grid()
    planes = plot.planes_of(given, {1: 21.0, 2: 1e9})
    assert [(plane.axis, plane.place) for plane in planes] == [(1, 20.0), (2, 50.0)]
    values = np.concatenate([given["Zdisp"][plane.points].ravel() for plane in planes])
    row = plot.row_of(Quantity("Zdisp", "z", "voxels", "signed"), planes, values)
    np.testing.assert_array_equal(row.slices[0].values, given.grid("Zdisp")[:, 2, :])
    np.testing.assert_array_equal(row.slices[1].values, given.grid("Zdisp")[:, :, 5])
    # nodes are the middles of their cells: x to the right, z down
    assert row.slices[0].extent == (-5, 55, 35, -5)
    assert row.slices[1].extent == (-5, 45, 35, -5)


def test_scattered_points_near_a_plane() -> None:
    random = np.random.default_rng(0)
    positions = random.uniform(0, 100, (1000, 3))
    positions[7] = np.nan
    given = PhiField(positions, np.tile(np.eye(4), (1000, 1, 1)), {}, "labels")
    (plane,) = plot.planes_of(given, {0: 40.0})
    # the mean distance of a thousand points in a cube of 100 voxels is 10; row 0 is the background
    expected = np.flatnonzero((np.abs(positions[:, 0] - 40) < 9.9) & (np.arange(1000) > 0))
    assert set(expected) <= set(plane.points)
    assert np.abs(positions[plane.points, 0] - 40).max() < 10.1
    np.testing.assert_array_equal(plane.across, positions[plane.points, 2])


def test_colours_show_rare_statuses_and_no_outliers() -> None:
    rare = np.zeros(1000)
    rare[3] = 1
    assert plot.limits_of(rare, "amount") == ((0, 1), plot.AMOUNT, (False, False))
    assert plot.limits_of(rare[5:], "amount")[0] == (-0.5, 0.5)
    assert plot.limits_of(np.full(5, np.nan), "signed")[0] == (0, 1)
    wide = np.linspace(-1, 3, 1000)
    wide[0] = -1e6
    limits, colours, beyond = plot.limits_of(wide, "signed")
    assert colours == plot.SIGNED
    assert beyond == (True, True)
    np.testing.assert_allclose(limits, (-2.96, 2.96), atol=0.01)
    # amounts are amounts, whatever noise makes of them; a difference has 0 in the middle
    assert plot.limits_of(wide, "amount")[1] == plot.AMOUNT
    assert plot.limits_of(wide + 10, "signed")[1] == plot.AMOUNT
    (low, high), colours, _ = plot.limits_of(np.linspace(1, 3, 1000), "difference")
    assert (low, colours) == (-high, plot.SIGNED)


def test_numbers_that_are_names_are_drawn_as_names() -> None:
    given = grid()
    given.columns["correction"] = np.where(np.arange(120) == 47, 2.0, 0.0)
    (plane,) = plot.planes_of(given, {0: 10.0})
    rows = {}
    for name in ("correction", "returnStatus"):
        quantities = Quantities(given, all_points=True)
        values = quantities.compute([name], plane.points.ravel())[name]
        row = plot.row_of(quantities.about(name), [plane], values, statuses_of(given))
        _, ticks = plot._colours(row)
        assert ticks is not None
        rows[name] = ticks[1]
    # node 47 lies in the layer at z = 10
    assert rows["correction"] == ["not corrected", "quadratic fit"]
    assert rows["returnStatus"] == ["+1 not converged", "+2 converged"]


def test_grey_levels_of_a_large_plane_are_thinned() -> None:
    image = ArrayImage(np.arange(3000 * 20, dtype=np.float32).reshape(1, 20, 3000))
    values, edges = plot.image_plane(image, 0, 0)
    np.testing.assert_array_equal(values, image.array[0, ::3, ::3])
    assert edges == (-0.5, 2999.5, 19.5, -0.5)


@pytest.mark.parametrize(("values", "whole"), [([0.0, 1, 2], True), ([0.0, 0.5, 2], False)])
def test_whole_numbers_have_whole_ticks(values: list[float], whole: bool) -> None:
    """As those of iterations and of what a filter did."""
    given = grid()
    planes = plot.planes_of(given)
    n = sum(plane.points.size for plane in planes)
    figure = plot.draw([plot.row_of(Quantity("c", "c", "", "amount"), planes, np.resize(values, n))])
    ticks = figure.axes[-1].get_yticks()
    assert len(ticks) >= 2
    assert bool((np.mod(ticks, 1) == 0).all()) is whole


@pytest.mark.parametrize("factor", [0.013, 1.0, 700.0])
def test_arrows_are_as_long_as_their_title_says(factor: float) -> None:
    given = grid()
    planes = plot.planes_of(given)
    points = np.concatenate([plane.points.ravel() for plane in planes])
    vectors = factor * np.column_stack([given.positions[points, 1] / 50, np.ones(len(points)), np.zeros(len(points))])
    row = plot.arrows_row("motion", planes, vectors)
    times = float(row.title.split("arrows ")[1].split()[0]) if "arrows" in row.title else 1.0
    assert f"{times:e}"[0] in "125"
    across_x = row.slices[2]
    assert across_x.arrows is not None
    # to the right is y, down is z
    np.testing.assert_allclose(across_x.arrows.u, times * factor)
    np.testing.assert_allclose(across_x.arrows.v, times * factor * across_x.arrows.x / 50)
    np.testing.assert_allclose(across_x.values * times, np.hypot(across_x.arrows.u, across_x.arrows.v))


@pytest.mark.parametrize(("form", "first"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_picture_is_the_same_bytes(form: str, first: bytes, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{form}"
        plot.save(path, plot.draw(plot.image_rows({"noise": ArrayImage(np.random.default_rng(1).random((5, 6, 7)))})))
        found.append(path.read_bytes())
    assert found[0].startswith(first)
    assert found[0] == found[1]
    assert b"202" not in found[0][:200]


def test_labels_have_no_slices(field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(field).write_text("\n".join(Path(field).read_text().splitlines()[:-7]) + "\n")
    assert main(["filterPhiField", "-srs", "-cint", "-pf", field, "--plot", str(tmp_path / "p.png")]) == 2
    assert "slices need the nodes of a grid" in capsys.readouterr().err
    assert not list(tmp_path.glob("f-*"))


def test_matplotlib_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'^--plot: matplotlib is not installed; pip install "mpidvc\[plots\]"'):
        plot.check_plot("a.png")
