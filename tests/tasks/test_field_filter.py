"""Fields filtered chunk by chunk, against closed forms and numpy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mpidvc.core.deformation import compute_phi
from mpidvc.fields.phifield import PhiField
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks.field_filter import RESULT, FilterSettings, FilterTask, select
from tests.core.brute import BruteForce
from tests.core.test_local_fit import weighted_value

DIMS, SPACING = (6, 7, 8), 10.0
N = int(np.prod(DIMS))
NODES = SPACING * (1 + np.stack(np.unravel_index(np.arange(N), DIMS), axis=1).astype(float))


def quadratic(points):
    z, y, x = points.T / 100
    return np.stack([1 + z - y * x, 2 + x * x - z * y, y * y + 0.5 * x], axis=1)


def field_of(status, cc=None, layout="grid", points=NODES):
    phi = np.tile(np.eye(4), (len(points), 1, 1))
    phi[:, :3, 3] = quadratic(points)
    phi[:, 0, 1] = 0.25
    columns = {"returnStatus": np.asarray(status, float), "error": np.arange(len(points)) + 0.5}
    columns |= {"iterations": np.full(len(points), 4.0), "deltaPhiNorm": np.full(len(points), 1e-4)}
    if cc is not None:
        columns["pixelSearchCC"] = cc
    grid = {"dims": DIMS, "spacing": (SPACING,) * 3} if layout == "grid" else {}
    return PhiField(points, phi, columns, layout, **grid)


def source_of(field):
    return SimpleNamespace(field=field, points=BruteForce(field.positions))


def filtered(field, **settings):
    made, source = FilterSettings(**settings), source_of(field)
    flags = select(InlineExecutor(), source, made)
    starts = np.array([0, 50, len(field)])
    task = FilterTask(source, made, flags, starts)
    records = np.concatenate([task.run(chunk) for chunk in range(task.n_chunks)])
    return records["phi"], dict(zip(RESULT, records["result"].T, strict=True)), flags


def statuses(share=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(N) < share, rng.choice([1, 0, -1, -3], N), 2)


def spoiled(field, rows):
    field.phi[rows, :3, 3] += 7
    return field


def test_a_quadratic_field_comes_back_by_the_fit():
    status = statuses()
    bad = status < 2
    field = spoiled(field_of(status), bad)
    phi, columns, _ = filtered(field, select="status", correct="fit", radius=40.0)
    np.testing.assert_allclose(phi[:, :, 3], quadratic(NODES), rtol=0, atol=1e-11)
    np.testing.assert_array_equal(phi[bad, :, :3], np.broadcast_to(np.eye(3), (bad.sum(), 3, 3)))
    np.testing.assert_array_equal(phi[~bad], field.phi[~bad, :3])
    assert set(columns["correction"][bad]) == {2}
    for name, value in {"returnStatus": 1, "error": 100, "deltaPhiNorm": 100, "iterations": 0}.items():
        assert set(columns[name][bad]) == {value}
        np.testing.assert_array_equal(columns[name][~bad], field.columns[name][~bad])
    assert np.isnan(columns["outlier"]).all()


@pytest.mark.parametrize("components", ["all", "rigid", "no"])
@pytest.mark.parametrize("where", [{"radius": 25.0}, {"number": 9}])
def test_means_by_inverse_distance(components, where):
    rng = np.random.default_rng(8)
    status = statuses()
    bad = status < 2
    field = field_of(status)
    field.phi[:, :3] += rng.normal(0, 0.05, (N, 3, 4))
    phi, columns, _ = filtered(field, select="status", correct="distance", components=components, **where)
    good = np.nonzero(~bad)[0]
    for row in np.nonzero(bad)[0]:
        distance = np.linalg.norm(NODES[good] - NODES[row], axis=1)
        taken = np.argsort(distance, kind="stable")[:9] if "number" in where else np.nonzero(distance <= 25)[0]
        weights = 1 / (distance[taken] + 1e-6)
        mean = np.einsum("k,kab->ab", weights / weights.sum(), field.phi[good[taken], :3])
        if components == "rigid":
            U, _, V = np.linalg.svd(mean[:, :3])
            mean[:, :3] = U @ V
        elif components == "no":
            mean[:, :3] = np.eye(3)
        np.testing.assert_allclose(phi[row], mean, rtol=0, atol=1e-12)
    assert set(columns["correction"][bad]) == {1}


def test_a_point_without_neighbours_is_left():
    status = np.full(N, 1)
    status[0] = 2
    field = field_of(status)
    phi, columns, flags = filtered(field, select="status", correct="distance", radius=15.0)
    apart = np.linalg.norm(NODES - NODES[0], axis=1)
    left = flags.selected & (apart > 15)
    assert left.sum() > 300
    np.testing.assert_array_equal(phi[left], field.phi[left, :3])
    np.testing.assert_array_equal(columns["returnStatus"][left], 1)
    np.testing.assert_array_equal(columns["error"][left], field.columns["error"][left])
    assert np.isnan(columns["correction"][left]).all()


@pytest.mark.parametrize("no_mask", [False, True])
def test_skipped_points_take_no_part(no_mask):
    status = np.where(np.arange(N) % 5 == 0, -5, 2)
    status[7] = 1
    field = field_of(status)
    field.phi[status == -5, :3, 3] = np.nan
    phi, columns, _ = filtered(field, select="status", correct="fit", radius=40.0, no_mask=no_mask)
    skipped = status == -5
    if no_mask:
        np.testing.assert_allclose(phi[skipped, :, 3], quadratic(NODES[skipped]), atol=1e-11)
    else:
        np.testing.assert_array_equal(phi[skipped], field.phi[skipped, :3])
        assert set(columns["returnStatus"][skipped]) == {-5}
    np.testing.assert_allclose(phi[7, :, 3], quadratic(NODES[7:8])[0], atol=1e-11)


def test_low_correlation_is_selected():
    cc = np.linspace(0.9, 1, N)
    field = field_of(np.ones(N), cc)
    _, columns, flags = filtered(field, select="cc", limit=0.95, correct="fit", radius=40.0)
    np.testing.assert_array_equal(flags.selected, cc <= 0.95)
    np.testing.assert_array_equal(columns["pixelSearchCC"][cc > 0.95], cc[cc > 0.95])


def test_incoherent_points_are_selected_and_corrected():
    wrong = np.zeros(N, bool)
    wrong[[30, 100, 201]] = True
    field = spoiled(field_of(np.full(N, 2)), wrong)
    phi, _, flags = filtered(field, select="lqc", correct="fit", radius=20.0)
    assert flags.selected[wrong].all()
    np.testing.assert_allclose(phi[wrong, :, 3], quadratic(NODES[wrong]), atol=1e-11)


def test_incoherent_from_a_tenth_on():
    """One point off by more and more: its coherency is that of numpy, and it is selected where that is 0.1 or more."""
    wrong = int(np.ravel_multi_index((3, 3, 4), DIMS))
    near = np.nonzero(np.linalg.norm(NODES - NODES[wrong], axis=1) <= 20)[0]
    values, selected = [], []
    for off in np.linspace(0.2, 6, 30):
        field = field_of(np.full(N, 2))
        field.phi[wrong, :3, 3] += off
        u = field.phi[near, :3, 3]
        apart = weighted_value(NODES[near], u, NODES[wrong]) - field.phi[wrong, :3, 3]
        values.append((apart @ apart) / 3 / (np.median(np.linalg.norm(u, axis=1)) + 0.1) ** 2)
        flags = select(InlineExecutor(), source_of(field), FilterSettings(select="lqc", radius=20.0))
        selected.append(flags.selected[wrong])
    assert any(0.05 < value < 0.1 for value in values)
    assert any(0.1 < value < 0.2 for value in values)
    np.testing.assert_array_equal(selected, np.array(values) >= 0.1)


def test_outliers_are_found_flagged_and_corrected():
    wrong = np.arange(N) % 11 == 0
    field = field_of(np.full(N, 2))
    field.phi[:, 0, 1] = 0
    field.phi[wrong, :3, 3] += 0.5
    # the true gradient, by differences
    for axis in range(3):
        step = np.eye(3)[axis] * 1e-3
        field.phi[:, :3, axis] += (quadratic(NODES + step) - quadratic(NODES - step)) / 2e-3
    phi, columns, _ = filtered(field, outliers=True, correct="fit", radius=20.0)
    np.testing.assert_array_equal(columns["outlier"], wrong)
    np.testing.assert_allclose(phi[:, :, 3], quadratic(NODES), atol=1e-9)
    # without a correction they are only flagged
    phi, columns, _ = filtered(field, outliers=True, number=27)
    np.testing.assert_array_equal(columns["outlier"], wrong)
    np.testing.assert_array_equal(phi, field.phi[:, :3])
    # scattered points: the 26 nearest ones
    scattered = PhiField(field.positions, field.phi, field.columns)
    _, columns, _ = filtered(scattered, outliers=True, number=27)
    assert columns["outlier"][wrong].all()
    assert columns["outlier"][~wrong].mean() < 0.02


@pytest.mark.parametrize("select_by", [None, "status"])
def test_median(select_by):
    from scipy.ndimage import generic_filter

    status = np.where(np.arange(N) % 9 == 0, -5, np.where(np.arange(N) % 7 == 0, 1, 2))
    field = field_of(status)
    field.phi[:, :3] += np.random.default_rng(1).normal(0, 0.1, (N, 3, 4))
    phi, columns, _ = filtered(field, median=1, select=select_by)
    present = status > -5
    for row, column in np.ndindex(3, 4):
        values = np.where(present, field.phi[:, row, column], np.nan).reshape(DIMS)
        expected = generic_filter(values, np.nanmedian, size=3, mode="reflect").ravel()
        np.testing.assert_array_equal(phi[present, row, column], expected[present])
    np.testing.assert_array_equal(phi[~present], field.phi[~present, :3])
    remade = present if select_by is None else status == 1
    np.testing.assert_array_equal(columns["returnStatus"], np.where(remade, 1, status))
    assert set(columns["correction"][present]) == {1}


def test_a_median_of_displacements_alone_has_no_f():
    phi, _, _ = filtered(field_of(np.full(N, 2)), median=1, components="no")
    np.testing.assert_array_equal(phi[:, :, :3], np.broadcast_to(np.eye(3), (N, 3, 3)))


def test_2d():
    dims = (1, 12, 11)
    points = 10.0 * np.stack(np.unravel_index(np.arange(132), dims), axis=1).astype(float)
    status = np.where(np.arange(132) % 13 == 5, 1, 2)
    field = spoiled(field_of(status, layout="points", points=points), status < 2)
    field.phi[:, 0, 3] = 0
    field = PhiField(points, field.phi, field.columns, "grid", dims, (1.0, 10.0, 10.0))
    phi, columns, _ = filtered(field, select="status", correct="fit", radius=40.0)
    assert set(columns["correction"][status < 2]) == {2}
    np.testing.assert_allclose(phi[:, 1:, 3], quadratic(points)[:, 1:], atol=1e-11)
    np.testing.assert_array_equal(phi[:, 0, 3], 0)
    _, columns, _ = filtered(field, outliers=True, number=27, epsilon=0.5, threshold=3.0)
    assert columns["outlier"][status < 2].all()
    # corners, too, have neighbours enough
    assert np.isfinite(columns["outlier"]).all()


def test_rotations_survive_a_rigid_mean():
    field = field_of(statuses())
    field.phi[:] = compute_phi([1.0, 2, 3], [0.0, 10, 5])
    phi, _, flags = filtered(field, select="status", correct="distance", components="rigid", number=1)
    np.testing.assert_allclose(phi[flags.selected], field.phi[flags.selected, :3], atol=1e-12)
