"""Fields passed to other points, against sums over all points in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.arrays import Array
from mpidvc.core import deformation, neighbourhood
from mpidvc.fields.phifield import PhiField
from mpidvc.tasks.passing import RECORD, RESULT, AppliedTask, PassingSettings, PassingTask, interpolate
from mpidvc.tasks.source import Source
from tests.tasks.given import Given, phi_of, run_all

RANDOM = np.random.default_rng(6)
POSITIONS = RANDOM.uniform(0, 40, (200, 3))
PHI = np.tile(np.eye(4), (200, 1, 1))
PHI[:, :3] += 0.1 * RANDOM.standard_normal((200, 3, 4))
TARGETS = RANDOM.uniform(-8, 48, (150, 3))
SOURCE = Source(PhiField(POSITIONS, PHI))


def brute(target: Array, settings: PassingSettings) -> Array:
    distance = np.linalg.norm(POSITIONS - target, axis=1)
    near = np.argsort(distance)[: settings.number]
    if settings.radius is not None:
        near = np.nonzero(distance <= settings.radius)[0]
    mean = np.full((4, 4), np.nan)
    mean[3] = 0, 0, 0, 1
    box = POSITIONS[near]
    if len(near) and (not settings.surrounded or ((box.min(0) <= target) & (target <= box.max(0))).all()):
        mean = np.average(PHI[near], axis=0, weights=1 / (distance[near] + 1e-6))
    return mean


@pytest.mark.parametrize(("radius", "number"), [(7.0, None), (None, 1), (None, 6), (12.0, 3)])
@pytest.mark.parametrize("surrounded", [False, True])
def test_means_of_neighbours(radius: float | None, number: int | None, surrounded: bool) -> None:
    settings = PassingSettings(radius, number, "all", surrounded)
    expected = np.array([brute(target, settings) for target in TARGETS])
    found = interpolate(SOURCE.points, POSITIONS, PHI, TARGETS, settings)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    holes = np.isnan(expected[:, 0, 3])
    assert holes.any() == (surrounded or radius is not None)
    assert (~holes).any() == (number != 1 or not surrounded)


@pytest.mark.parametrize(("radius", "number"), [(9.0, None), (None, 6)])
def test_points_that_are_not_taken(radius: float | None, number: int | None) -> None:
    """The result is that of a field without them, whose Phi may be nan."""
    taken = np.arange(len(POSITIONS)) % 3 > 0
    settings = PassingSettings(radius, number, "all", True)
    alone = Source(PhiField(POSITIONS[taken], PHI[taken]))
    expected = interpolate(alone.points, POSITIONS[taken], PHI[taken], TARGETS, settings)
    holes = np.where(taken[:, None, None], PHI, np.nan)
    found = interpolate(SOURCE.points, POSITIONS, holes, TARGETS, settings, taken)
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(found[:, 0, 3]).any()


@pytest.mark.parametrize("pairs", [1, 40, 10**6])
def test_parts_of_any_size_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    settings = PassingSettings(9.0, None, "all", True)
    whole = interpolate(SOURCE.points, POSITIONS, PHI, TARGETS, settings)
    monkeypatch.setattr(neighbourhood, "PAIRS", pairs)
    np.testing.assert_array_equal(interpolate(SOURCE.points, POSITIONS, PHI, TARGETS, settings), whole)


def test_part_of_f() -> None:
    """F of the mean, its rotation, or none; points without neighbours have none of them."""
    turned = deformation.rotation_matrix((10.0, -20.0, 5.0))
    phi = phi_of(POSITIONS / 10)
    phi[:, :3, :3] = turned @ np.diag([1.1, 0.9, 1.2])
    for name, F in (("all", phi[0, :3, :3]), ("rigid", turned), ("no", np.eye(3))):
        found = interpolate(SOURCE.points, POSITIONS, phi, TARGETS, PassingSettings(7.0, None, name, False))
        none = ~(np.linalg.norm(TARGETS[:, None] - POSITIONS, axis=2) <= 7).any(axis=1)
        assert 0 < none.sum() < len(none)
        np.testing.assert_allclose(found[~none, :3, :3], np.broadcast_to(F, ((~none).sum(), 3, 3)), rtol=0, atol=1e-12)
        assert np.isnan(found[none, :3]).all()
        np.testing.assert_array_equal(found[:, 3], np.tile([0, 0, 0, 1], (len(found), 1)))


class Task:
    """With what `run_all` needs."""

    def __init__(self, task: PassingTask | AppliedTask, points: Given) -> None:
        self.run, self.points, self.dtype, self.n_chunks = task.run, points, RECORD, task.n_chunks


def test_records() -> None:
    """Of chunks in any order: -7 where there is no neighbour, 1 elsewhere, and the numbers of spam."""
    points = Given(TARGETS, phi_of(TARGETS), [np.arange(150)[k::4] for k in range(4)])
    settings = PassingSettings(7.0, None, "all", False)
    task = Task(PassingTask(SOURCE, points, settings), points)
    assert task.n_chunks == 4
    records = run_all(task)
    expected = np.array([brute(target, settings) for target in TARGETS])
    np.testing.assert_allclose(records["phi"], expected[:, :3], rtol=0, atol=1e-12)
    columns = dict(zip(RESULT, records["result"].T, strict=True))
    np.testing.assert_array_equal(columns["returnStatus"], np.where(np.isnan(expected[:, 0, 3]), -7, 1))
    for name, value in (("pixelSearchCC", 0), ("error", 0), ("deltaPhiNorm", 1), ("iterations", 1)):
        np.testing.assert_array_equal(columns[name], value)


def test_records_of_a_registration() -> None:
    """The first guess that the points have is their result."""
    points = Given(TARGETS, phi_of(TARGETS / 7), [np.arange(100), np.arange(100, 150)])
    task = Task(AppliedTask(points), points)
    assert task.n_chunks == 2
    records = run_all(task)
    np.testing.assert_array_equal(records["phi"], points.phi[:, :3])
    np.testing.assert_array_equal(records["result"], np.tile([0, 1, 0, 1, 1], (150, 1)))
