"""Neighbours and predictions of points that start from each other, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core.starts import best_neighbours, kept_table, neighbour_table, predicted


def grid(dims: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    return np.indices(dims).reshape(3, -1).T * np.array(spacing) + 7


def lists(table: np.ndarray) -> list[list[int]]:
    return [[int(k) for k in row if k >= 0] for row in table]


def test_neighbours_of_a_grid_are_those_along_its_axes():
    """Voxels that are no cubes count in spacings; every node but the first one has a neighbour before it."""
    dims, spacing = (4, 5, 3), (6.0, 10.0, 20.0)
    positions = grid(dims, spacing)
    index = np.indices(dims).reshape(3, -1).T
    apart = np.abs(index[:, None] - index[None]).sum(axis=2)
    table = neighbour_table(positions, spacing)
    assert lists(table) == [np.flatnonzero(row == 1).tolist() for row in apart]
    assert all(near[0] < j for j, near in enumerate(lists(table)) if j)


def test_kept_tables():
    """Wherever the points are, and whatever was asked for before."""
    spacing = (6.0, 10.0, 20.0)
    for dims in ((4, 5, 3), (4, 5, 2), (4, 5, 3)):
        nodes = grid(dims, spacing).astype(np.int64)
        table = kept_table(nodes + 100, spacing)
        np.testing.assert_array_equal(table, neighbour_table(nodes.astype(float), spacing))
    # the same points, other distances
    assert lists(kept_table(nodes, (6.0, 10.0, 7.0))) != lists(table)


def test_scattered_points_have_neighbours():
    """Those within 1.2 spacings, or within twice, four times ... as much where these are fewer than two."""
    positions = np.random.default_rng(2).uniform(0, 100, (60, 3))
    positions[0] = 400
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2) / 20
    expected = []
    for row in distance:
        reach = 1.2
        while np.count_nonzero(row <= reach) < 3:
            reach *= 2
        expected.append([int(k) for k in np.flatnonzero(row <= reach) if k != len(expected)])
    assert lists(neighbour_table(positions, (20.0,) * 3)) == expected
    assert min(map(len, expected)) >= 2


@pytest.mark.parametrize("n", [1, 2])
def test_few_points(n):
    table = neighbour_table(np.arange(3.0 * n).reshape(n, 3), (1.0, 1.0, 1.0))
    assert lists(table) == [[k for k in range(n) if k != j] for j in range(n)]
    assert list(best_neighbours(table, np.ones(n), np.ones(n, bool))) == ([-1] if n == 1 else [1, 0])


def test_best_neighbour():
    table = np.array([[1, 2, 3], [0, -1, -1], [0, 3, -1], [0, 2, -1]])
    zncc = np.array([0.5, 0.7, np.nan, 0.9])
    usable = np.array([True, True, True, True])
    assert list(best_neighbours(table, zncc, usable)) == [3, 0, 3, 0]
    usable[3] = False
    assert list(best_neighbours(table, zncc, usable)) == [1, 0, 0, 0]
    usable[0] = False
    assert list(best_neighbours(table, zncc, usable)) == [1, -1, -1, -1]


def test_prediction_is_exact_for_an_affine_field():
    random = np.random.default_rng(4)
    F, t = np.eye(3) + random.normal(0, 0.1, (3, 3)), random.normal(0, 5, 3)
    x, y = random.uniform(0, 100, (2, 9, 3))

    def phi(points: np.ndarray) -> np.ndarray:
        return np.dstack([np.tile(F, (9, 1, 1)), (t + points @ (F - np.eye(3)).T)[:, :, None]])

    np.testing.assert_allclose(predicted(phi(x), y - x), phi(y), rtol=0, atol=1e-12)
