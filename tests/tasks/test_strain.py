"""Strain of blocks of points, against closed forms and numpy's least squares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpidvc.arrays import Array, Records
from mpidvc.fields.phifield import PhiField
from mpidvc.tasks import strain
from mpidvc.tasks.source import Source
from mpidvc.tasks.strain import StrainSettings, StrainTask
from tests.tasks.given import Given, phi_of

GRADIENT = np.array([[0.03, 0.12, -0.05], [-0.10, -0.06, 0.04], [0.02, -0.07, 0.09]])
COMPONENTS = ("vol", "e")
DIMS = (4, 5, 6)


def nodes(dims: tuple[int, int, int]) -> Array:
    index = np.stack(np.unravel_index(np.arange(np.prod(dims)), dims), axis=1)
    return (10.0 + 5 * index) * [dims[0] > 1, 1, 1]


def run(task: StrainTask, points: Given) -> Records:
    records = np.zeros(len(points.positions), task.dtype)
    assert task.n_chunks == points.n_blocks
    for k, chunk in enumerate(points.chunks):
        records[chunk] = task.run(k)
    return records


def check(records: Records, exists: Any, F: Array, displacements: Array) -> None:
    """Gradient, displacement, components and status."""
    n = int(np.count_nonzero(exists))
    assert 0 < n < len(records)
    good, bad = records[exists], records[~exists]
    np.testing.assert_allclose(good["phi"][:, :, :3], np.broadcast_to(F, (n, 3, 3)), rtol=0, atol=1e-13)
    np.testing.assert_allclose(good["phi"][:, :, 3], displacements[exists], rtol=0, atol=1e-12)
    e = ((F + F.T) / 2 - np.eye(3))[np.triu_indices(3)]
    expected = np.concatenate([[np.linalg.det(F) - 1], e, [2]])
    np.testing.assert_allclose(good["result"], np.broadcast_to(expected, (n, 8)), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(bad["result"][:, -1], -5)
    assert np.isnan(bad["result"][:, :-1]).all()


def test_random_errors_of_the_points_themselves() -> None:
    """Of det F and of (F + Fᵀ) / 2 at F = 1, in closed form: each component of F has an error of its own."""
    positions = nodes(DIMS)
    n = len(positions)
    errors = np.random.default_rng(4).uniform(1e-3, 2e-3, (n, 3, 3))
    columns = {f"sigmaF{'zyx'[i]}{'zyx'[j]}": errors[:, i, j] for i in range(3) for j in range(3)}
    phi = phi_of(np.zeros((n, 3)))
    points = Given(positions, phi, [np.arange(n)])
    settings = StrainSettings("raw", COMPONENTS, False, errors=True)
    assert settings.columns[7:] == (*(f"sigma{c}" for c in settings.columns[:7]), "returnStatus")
    field = PhiField(positions, phi, columns)
    records = run(StrainTask(Source(field), points, settings), points)["result"]
    square = errors**2
    diagonal = square[:, range(3), range(3)]
    shear = [(square[:, i, j] + square[:, j, i]) / 4 for i, j in ((0, 1), (0, 2), (1, 2))]
    e = np.stack([diagonal[:, 0], shear[0], shear[1], diagonal[:, 1], shear[2], diagonal[:, 2]], axis=1)
    np.testing.assert_allclose(records[:, 7], np.sqrt(diagonal.sum(axis=1)), rtol=1e-5)
    np.testing.assert_allclose(records[:, 8:14], np.sqrt(e), rtol=1e-5)
    np.testing.assert_array_equal(records[:, 14], 2)


@pytest.mark.parametrize("mode", ["Q8", "Geers"])
def test_random_errors_take_the_window_of_each_node(mode: str) -> None:
    """Two layers with windows that do not touch those of others, two with wide ones: as with one window for all."""
    positions = nodes(DIMS)
    n = len(positions)
    errors = np.random.default_rng(6).uniform(0.01, 0.02, (n, 3))
    columns = {f"sigma{axis}disp": errors[:, k] for k, axis in enumerate("ZYX")}
    phi = phi_of(np.zeros((n, 3)))
    cells = n if mode == "Geers" else 3 * 4 * 5
    points = Given(positions[:cells], phi[:cells], [np.arange(cells)])

    def found(window: int, **more: Array) -> Array:
        settings = StrainSettings(mode, COMPONENTS, False, DIMS, 6.0, True, (window,) * 3)
        return run(StrainTask(Source(PhiField(positions, phi, columns | more)), points, settings), points)["result"]

    layer = np.unravel_index(np.arange(cells), DIMS if mode == "Geers" else (3, 4, 5))[0]
    own = found(11, halfWindowSize=np.where(positions[:, 0] < 18, 2.0, 6.0))
    first, last = layer == 0, layer == layer.max()
    if mode == "Q8":
        np.testing.assert_array_equal(own[first], found(3)[first])
    np.testing.assert_array_equal(own[last], found(11)[last])
    assert (own[~last, 7:-1] != found(11)[~last, 7:-1]).any()


def test_columns() -> None:
    settings = StrainSettings("raw", ("r", "vol"), False)
    assert settings.columns == ("rz", "ry", "rx", "vol", "returnStatus")
    assert StrainTask.record(settings)["result"].shape == (5,)


@pytest.mark.parametrize("dims", [DIMS, (1, 6, 7)], ids=["Q8", "Q4"])
def test_cells_of_blocks(dims: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """An affine field has one gradient in every cell whose nodes all count."""
    monkeypatch.setattr(strain, "BLOCK", 7)
    flat = dims[0] == 1
    gradient = GRADIENT * (np.outer([0, 1, 1], [0, 1, 1]) if flat else 1)
    positions = nodes(dims)
    phi = phi_of(positions @ gradient.T + np.array([0.0 if flat else 3, -2, 1]))
    counts = np.arange(len(positions)) % 13 != 4
    phi[~counts, :3, 3] = np.nan
    field = PhiField(positions, phi, {}, "grid", dims, (5.0, 5.0, 5.0))
    cells = tuple(max(n - 1, 1) for n in dims)
    index = np.stack(np.unravel_index(np.arange(np.prod(cells)), cells), axis=1)
    centres = (10 + 5 * (index + 0.5)) * [not flat, 1, 1]
    # a cell counts if all of its nodes do
    whole = np.ones(len(centres), bool)
    for corner in np.ndindex(1 if flat else 2, 2, 2):
        whole &= counts[np.ravel_multi_index(tuple((index + corner).T), dims)]
    chunks = [np.arange(k, min(k + 7, len(centres))) for k in range(0, len(centres), 7)]
    points = Given(centres, phi_of(0 * centres), chunks)
    task = StrainTask(Source(field), points, StrainSettings("Q4" if flat else "Q8", COMPONENTS, flat, dims))
    expected = centres @ gradient.T + np.array([0.0 if flat else 3, -2, 1])
    check(run(task, points), whole, np.eye(3) + gradient, expected)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("all_points", [False, True])
def test_fits_of_blocks(flat: bool, all_points: bool) -> None:
    """Of the points within the radius, among those that count: one that does not gets nothing and gives nothing."""
    random = np.random.default_rng(5)
    positions = random.uniform(0, 30, (160, 3)) * [not flat, 1, 1]
    displacements = random.normal(scale=0.3, size=(160, 3)) * [not flat, 1, 1]
    counts = random.random(160) > 0.2
    phi = phi_of(np.where(counts[:, None], displacements, np.nan))
    kept = positions[counts]
    source = Source(PhiField(positions, phi) if all_points else PhiField(kept, phi[counts]))
    chunks = [np.nonzero(~counts)[0][:3], np.arange(160)[::2], np.arange(160)[1::2]]
    points = Given(positions, phi, chunks)
    radius = 4.0 if flat else 8.0
    records = run(StrainTask(source, points, StrainSettings("Geers", COMPONENTS, flat, radius=radius)), points)
    first, fitted = int(flat), 0
    for point in range(160):
        near = np.nonzero(np.linalg.norm(kept - positions[point], axis=1) <= radius)[0]
        table = np.column_stack([np.ones(len(near)), (kept[near] - positions[point])[:, first:]])
        if not counts[point] or np.linalg.matrix_rank(table) < table.shape[1]:
            assert records["result"][point, -1] == -5
            assert np.isnan(records["phi"][point]).all()
            continue
        solution = np.linalg.lstsq(table, displacements[counts][near], rcond=None)[0]
        F = np.eye(3)
        F[:, first:] += solution[1:].T
        np.testing.assert_allclose(records["phi"][point], np.column_stack([F, solution[0]]), rtol=1e-9, atol=1e-9)
        if np.linalg.det(F) > 0:
            assert records["result"][point, 0] == pytest.approx(np.linalg.det(F) - 1, abs=1e-9)
            assert records["result"][point, -1] == 2
            fitted += 1
    assert 20 < fitted < 160


def test_gradients_of_the_points_themselves() -> None:
    positions = nodes(DIMS)
    phi = phi_of(positions @ GRADIENT.T)
    phi[:, :3, :3] = np.eye(3) + GRADIENT
    counts = np.arange(len(positions)) % 5 != 2
    phi[~counts, :3] = np.nan
    points = Given(positions, phi, [np.arange(100), np.arange(100, 120)])
    records = run(StrainTask(None, points, StrainSettings("raw", COMPONENTS, False)), points)
    check(records, counts, np.eye(3) + GRADIENT, positions @ GRADIENT.T)
