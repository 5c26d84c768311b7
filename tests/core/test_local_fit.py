"""Local quadratic fits, against closed forms and least squares in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core.local_fit import coherency, fewest_points, fitted
from mpidvc.kernels import field
from tests.core.brute import BruteForce

rng = np.random.default_rng(5)


def scattered(n, two_d=False, scale=100.0):
    points = rng.uniform(0, scale, (n, 3))
    if two_d:
        points[:, 0] = 7
    return points


def basis(points):
    z, y, x = points.T
    return np.stack([np.ones(len(points)), z, y, x, z * y, z * x, y * x, z * z, y * y, x * x], axis=1)


def phi_of(displacements):
    phi = np.tile(np.eye(4), (len(displacements), 1, 1))
    phi[:, :3, 3] = displacements
    return phi


def quadratic(points, factor=1e-4):
    coefficients = np.random.default_rng(3).normal(size=(10, 3)) * np.array([5, *[0.03] * 3, *[factor] * 6])[:, None]
    return basis(points) @ coefficients


def everybody(m, n):
    return np.arange(m + 1) * n, np.tile(np.arange(n), m)


@pytest.mark.parametrize("two_d", [False, True])
@pytest.mark.parametrize("n", [12, 40])
def test_a_quadratic_field_is_restored_exactly(two_d, n):
    points, places = scattered(n, two_d), scattered(8, two_d)
    # well inside, so that nothing is extrapolated
    places = points.mean(axis=0) + 0.3 * (places - points.mean(axis=0))
    found, order = fitted(points, phi_of(quadratic(points)), places, *everybody(8, n))
    assert set(order) == {2}
    np.testing.assert_allclose(found, quadratic(places), rtol=0, atol=1e-9)


@pytest.mark.parametrize("two_d", [False, True])
def test_fewest_points(two_d):
    """As many as a quadratic polynomial has independent terms; with one less the fit is linear."""
    points = scattered(40, two_d)
    n = fewest_points(two_d)
    assert n == np.linalg.matrix_rank(basis(points - points.mean(axis=0)))
    for k, order in ((n, 2), (n - 1, 1)):
        assert fitted(points[:k], phi_of(quadratic(points[:k])), points[:1], *everybody(1, k))[1].tolist() == [order]


def test_far_from_the_origin():
    points = scattered(30) + 1e5
    centre = points.mean(axis=0, keepdims=True)
    displacements = quadratic(points - 1e5)
    found, _ = fitted(points, phi_of(displacements), centre, *everybody(1, 30))
    np.testing.assert_allclose(found, quadratic(centre - 1e5), rtol=0, atol=1e-9)


def weights_of(u):
    s = np.linalg.norm(u - np.median(u, axis=0), axis=1)
    return np.exp(-0.5 * s**2 * (s.mean() + 0.1) ** -0.5)


def weighted_value(points, u, place):
    root = np.sqrt(weights_of(u))[:, None]
    return np.linalg.lstsq(root * basis(points - place), root * u, rcond=None)[0][0]


def test_weighted_least_squares_of_a_noisy_field():
    points, places = scattered(40, scale=20), scattered(5, scale=20)
    u = quadratic(points) + rng.normal(0, 0.3, (40, 3))
    found, _ = fitted(points, phi_of(u), places, *everybody(5, 40))
    expected = [weighted_value(points, u, place) for place in places]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


def test_many_equal_displacements_and_numbers_of_neighbours_in_turn():
    counts = [60, 41, 40, 39, 28, 59, 12]
    start = np.concatenate([[0], np.cumsum(counts)])
    found = np.concatenate([rng.permutation(60)[:n] for n in counts])
    points = scattered(60, scale=20)
    u = rng.integers(-1, 2, (60, 3)).astype(float)
    places = scattered(len(counts), scale=20)
    got, _ = fitted(points, phi_of(u), places, start, found)
    for k, place in enumerate(places):
        near = found[start[k] : start[k + 1]]
        np.testing.assert_allclose(got[k], weighted_value(points[near], u[near], place), rtol=1e-7, atol=1e-8)


def test_neighbours_that_are_not_finite_give_nan():
    u = quadratic(points := scattered(30))
    u[3] = np.nan
    got, _ = fitted(points, phi_of(u), points[:1], *everybody(1, 30))
    assert np.isnan(got).all()


@pytest.mark.parametrize("two_d", [False, True])
def test_coherency_is_the_published_formula(two_d):
    points = scattered(35, two_d, scale=20)
    u = quadratic(points) + rng.normal(0, 0.3, (35, 3))
    u[4] += 2
    found = coherency(points, phi_of(u), np.arange(35), *everybody(35, 35))
    length = np.median(np.linalg.norm(u, axis=1)) + 0.1
    apart = np.array([weighted_value(points, u, point) for point in points]) - u
    np.testing.assert_allclose(found, (apart**2).sum(axis=1) / 3 / length**2, rtol=1e-7, atol=1e-12)


def test_too_few_neighbours():
    points = scattered(9)
    u = 3 + 0.02 * points
    centre = points.mean(axis=0, keepdims=True)
    found, order = fitted(points, phi_of(u), centre, *everybody(1, 9))
    assert order.tolist() == [1]
    np.testing.assert_allclose(found, 3 + 0.02 * centre, atol=1e-12)
    assert np.isnan(coherency(points, phi_of(u), np.arange(9), *everybody(9, 9))).all()
    found, order = fitted(points, phi_of(u), centre, *everybody(1, 3))
    assert order.tolist() == [0]
    assert np.isnan(found).all()
    found, order = fitted(points, phi_of(u), centre, np.zeros(2, np.int64), np.zeros(0, np.int64))
    assert order.tolist() == [0]
    assert np.isnan(found).all()


def test_no_value_beside_the_plane_of_all_neighbours():
    points = scattered(40, two_d=True)
    places = np.array([[7.0, 50, 50], [30.0, 50, 50]])
    found, order = fitted(points, phi_of(quadratic(points)), places, *everybody(2, 40))
    assert order.tolist() == [2, 0]
    np.testing.assert_allclose(found[0], quadratic(places[:1])[0], atol=1e-9)


def test_two_planes_on_both_sides_give_a_linear_fit():
    points = scattered(40)
    points[:, 0] = np.repeat([10.0, 30.0], 20)
    u = 1 + 0.01 * points
    found, order = fitted(points, phi_of(u), np.array([[20.0, 50, 50]]), *everybody(1, 40))
    assert order.tolist() == [1]
    np.testing.assert_allclose(found[0], [1.2, 1.5, 1.5], atol=1e-12)


def test_steep_fields_whose_weights_leave_nothing():
    # the displacements differ by 1000 voxels: each weight but one or two is 0
    points, places = scattered(40), np.array([[50.0, 50, 50]])
    found, order = fitted(points, phi_of(quadratic(points, 0.1)), places, *everybody(1, 40))
    assert order.tolist() == [2]
    np.testing.assert_allclose(found, quadratic(places, 0.1), rtol=1e-9)


def test_lists_that_are_none_are_refused():
    points = scattered(5)
    phi = phi_of(points)
    with pytest.raises(IndexError):
        fitted(points, phi, points[:1], np.array([0, 1]), np.array([5]))
    with pytest.raises(ValueError, match="lists of neighbours"):
        fitted(points, phi, points[:1], np.array([0, 2]), np.array([1]))
    with pytest.raises(IndexError):
        coherency(points, phi, np.array([-1]), np.array([0, 1]), np.array([1]))


@pytest.mark.parametrize(("dims", "radius"), [((5, 6, 7), 1), ((3, 4, 4), 2), ((1, 6, 5), 1)])
def test_medians_are_those_of_scipy(dims, radius):
    from scipy.ndimage import generic_filter

    n = int(np.prod(dims))
    phi = rng.normal(size=(n, 4, 4))
    phi[rng.random((n, 4, 4)) < 0.2] = np.nan
    usable = (rng.random(n) < 0.8).astype(np.uint8)
    found = field.medians(np.zeros((n, 3)), phi, dims, usable, radius, np.arange(n))
    only = field.medians(np.zeros((n, 3)), phi, dims, usable, radius, np.arange(n), True)
    values = np.where(usable[:, None, None], phi[:, :3], np.nan)

    def median(cube):
        known = cube[~np.isnan(cube)]
        return np.median(known) if len(known) else np.nan

    for row, column in np.ndindex(3, 4):
        component = values[:, row, column].reshape(dims)
        expected = generic_filter(component, median, size=2 * radius + 1, mode="reflect").ravel()
        np.testing.assert_array_equal(found[:, row, column], expected)
    np.testing.assert_array_equal(only, found[:, :, 3])


@pytest.mark.parametrize("dims", [(4, 5, 6), (1, 5, 6)])
def test_nodes_around_a_node(dims):
    n = int(np.prod(dims))
    index = np.stack(np.unravel_index(np.arange(n), dims), axis=1)
    reach = np.array([1, 2, 1])
    start, found = field.around(dims, reach, np.arange(n))
    for node in range(n):
        near = (np.abs(index - index[node]) <= reach).all(axis=1)
        near[node] = False
        assert found[start[node] : start[node + 1]].tolist() == np.nonzero(near)[0].tolist()


def test_the_oracle_of_neighbours():
    points = np.array([[0.0, 0, 0], [0, 0, 3], [0, 4, 0]])
    brute = BruteForce(points)
    assert brute.nearest(points[:1], 2).tolist() == [[0, 1]]
    start, found = brute.within(points[1:2], 3.0)
    assert (start.tolist(), found.tolist()) == ([0, 2], [0, 1])
