"""Neighbours of points, against all distances."""

import numpy as np
import pytest

from mpidvc.tasks.source import Neighbours


@pytest.mark.parametrize("regular", [True, False])
def test_neighbours_are_those_of_all_distances(regular: bool) -> None:
    random = np.random.default_rng(5)
    axis = np.arange(0, 30, 6.0)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    positions = grid if regular else random.uniform(0, 24, (150, 3))
    # between nodes, where many are equally near
    centres = np.concatenate([grid[:40] + 3.0, grid[:20], random.uniform(-5, 30, (30, 3))])
    tree = Neighbours(positions)
    distance = np.linalg.norm(centres[:, None] - positions, axis=2)
    start, found = tree.within(centres, 6.0)
    for j, row in enumerate(distance):
        np.testing.assert_array_equal(found[start[j] : start[j + 1]], np.flatnonzero(row <= 6))
    for number in (1, 5, 400):
        order = np.argsort(distance, axis=1, kind="stable")[:, :number]
        np.testing.assert_array_equal(tree.nearest(centres, number), order)
