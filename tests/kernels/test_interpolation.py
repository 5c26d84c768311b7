"""Means by inverse distance, against sums written out in numpy over neighbours of scipy's tree."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from mpidvc.kernels import interpolation


@pytest.fixture
def case():
    random = np.random.default_rng(8)
    positions = random.uniform(0, 40, (300, 3))
    phi = np.tile(np.eye(4), (300, 1, 1))
    phi[:, :3] += random.normal(0, 0.1, (300, 3, 4))
    targets = np.concatenate([random.uniform(-10, 50, (80, 3)), positions[:5]])
    lists = [sorted(found) for found in cKDTree(positions).query_ball_point(targets, 9.0)]
    start = np.concatenate([[0], np.cumsum([len(found) for found in lists])])
    return start, np.concatenate(lists).astype(int), positions, phi, targets, lists


def test_means_are_those_of_brute_force(case):
    start, found, positions, phi, targets, lists = case
    means = interpolation.inverse_distance(start, found, positions, phi, targets)
    sizes = [len(near) for near in lists]
    assert min(sizes) == 0
    assert max(sizes) > 5
    for mean, target, near in zip(means, targets, lists, strict=True):
        assert mean[3].tolist() == [0, 0, 0, 1]
        if not near:
            assert np.isnan(mean[:3]).all()
            continue
        weights = 1 / (np.linalg.norm(positions[near] - target, axis=1) + 1e-6)
        np.testing.assert_allclose(mean, np.average(phi[near], axis=0, weights=weights), rtol=1e-12, atol=1e-13)


def test_one_neighbour_is_copied():
    phi = np.eye(4)[None] * 1.25
    phi[0, 3] = 0, 0, 0, 1
    mean = interpolation.inverse_distance([0, 1], [0], [[1.0, 2, 3]], phi, [[4.0, 4, 4]])
    np.testing.assert_allclose(mean, phi, rtol=1e-15)


def test_points_in_the_box_of_their_neighbours_are_surrounded(case):
    start, found, positions, _, targets, lists = case
    flags = interpolation.surrounded(start, found, positions, targets)
    expected = [
        bool(near) and bool(((positions[near].min(0) <= t) & (t <= positions[near].max(0))).all())
        for t, near in zip(targets, lists, strict=True)
    ]
    assert flags.tolist() == expected
    assert 0 < sum(expected) < len(expected)


@pytest.mark.parametrize(
    ("start", "found", "error"),
    [([0, 1], [1], IndexError), ([0, 1], [-1], IndexError), ([0, 2], [0], ValueError), ([0], [], ValueError)],
)
def test_wrong_lists_are_refused(start, found, error):
    with pytest.raises(error):
        interpolation.inverse_distance(start, found, np.zeros((1, 3)), np.eye(4)[None], np.zeros((1, 3)))
