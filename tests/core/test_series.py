"""Composed fields against motions in closed form; gaps; quality."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core import deformation
from mpidvc.core.series import Errors, compose_along, fill, left_of, quality_of


def affine(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A motion x -> A x + b."""
    random = np.random.default_rng(seed)
    return np.eye(3) + random.normal(0, 0.2, (3, 3)), random.normal(0, 5, 3)


def phi_of(A: np.ndarray, b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Phi of the motion x -> A x + b about these points."""
    phi = np.tile(np.eye(4), (len(points), 1, 1))
    phi[:, :3, :3] = A
    phi[:, :3, 3] = points @ A.T + b - points
    return phi


def test_composition_of_affine_motions() -> None:
    """Two affine motions, the second measured at whole voxels near the moved points."""
    (A, a), (B, b) = affine(1), affine(2)
    positions = np.random.default_rng(3).uniform(0, 100, (50, 3))
    nodes = np.rint(positions @ A.T + a)
    found = compose_along(phi_of(A, a, positions), phi_of(B, b, nodes), nodes, positions)
    expected = phi_of(B @ A, B @ a + b, positions)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


def test_a_turn_in_steps_is_the_whole_turn() -> None:
    positions = np.random.default_rng(4).uniform(0, 100, (20, 3))
    centre, turn = np.full(3, 50.0), deformation.rotation_matrix((6, 0, 0))
    total = phi_of(np.eye(3), np.zeros(3), positions)
    for _ in range(10):
        nodes = np.rint(positions + total[:, :3, 3])
        total = compose_along(total, phi_of(turn, centre - turn @ centre, nodes), nodes, positions)
    whole = deformation.rotation_matrix((60, 0, 0))
    np.testing.assert_allclose(total, phi_of(whole, centre - whole @ centre, positions), rtol=0, atol=1e-10)


def test_composition_keeps_nan_to_its_point() -> None:
    positions = np.zeros((2, 3))
    total = phi_of(*affine(5), positions)
    step = phi_of(*affine(6), positions)
    step[1, :3, 3] = np.nan
    found = compose_along(total, step, positions, positions)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1, :3, 3]).all()


def test_gaps_in_an_affine_field_are_filled_exactly() -> None:
    positions = np.random.default_rng(7).uniform(0, 100, (200, 3))
    true = phi_of(*affine(8), positions)
    good = np.random.default_rng(9).random(200) < 0.6
    holed = true.copy()
    holed[~good, :3] = np.nan
    np.testing.assert_allclose(fill(positions, holed, good), true, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(fill(positions, true, np.ones(200, bool)), true)


def test_gap_between_two_points_is_weighted_by_distance() -> None:
    positions = np.array([[0.0, 0, 0], [0, 0, 1], [0, 0, 4]])
    phi = np.tile(np.eye(4), (3, 1, 1))
    phi[0, 2, 3], phi[2, 2, 3] = 1.0, 5.0
    # weights 1 and 1/3
    assert fill(positions, phi, np.array([True, False, True]))[1, 2, 3] == pytest.approx((1 + 5 / 3) / (4 / 3))


def test_quality() -> None:
    status = np.array([2, 2, 2, 1, -5, -7.0])
    found = quality_of(status, np.array([0.9, 0.7, 0.85, 0.1, np.nan, np.nan]))
    assert found == (4, 0.75, 0.85)
    assert found.poor
    assert found.guides
    ten = np.array([2.0] * 9 + [-1])
    assert not quality_of(ten, np.full(10, 0.8)).poor
    assert quality_of(ten, np.full(10, 0.79)).poor
    none = quality_of(np.array([-5.0]), np.array([np.nan]))
    assert none.poor
    assert not none.guides


def estimates(window: tuple[int, int, int], centre: np.ndarray) -> dict[tuple[float, ...], np.ndarray]:
    """Weights of the voxels of a window in the estimates of a displacement, and of F along z, y, x."""
    places = np.indices(window).reshape(3, -1).T - (np.array(window) - 1) / 2
    squares = np.append(len(places), (places**2).sum(axis=0))
    return {tuple(place + centre): np.array([1, *place]) / squares for place in places}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("after", [(15, 17, 19), (11, 13, 15), (21, 23, 25)])
@pytest.mark.parametrize("distance", [0, 1, 4])
def test_noise_that_two_windows_do_not_share(axis: int, after: tuple[int, int, int], distance: int) -> None:
    """White noise of three states, voxel by voxel: the variance of both steps together, less that of the second."""
    before, offset = (15, 17, 19), np.zeros(3)
    offset[axis] = distance
    one, two = estimates(before, 0 * offset), estimates(after, offset)
    none = np.zeros(4)
    # the state between them is in both steps, with opposite signs; the first and the last are in one
    between = sum((one.get(place, none) - two.get(place, none)) ** 2 for place in one.keys() | two.keys())
    first, last = (sum(w**2 for w in each.values()) for each in (one, two))
    expected = first + between - last

    def variances(each: np.ndarray) -> np.ndarray:
        return np.concatenate([np.repeat(2 * each[:1], 3), np.tile(2 * each[1:], 3)])[None]

    step = Errors.of(variances(first), before, offset[None], np.eye(3)[None], np.ones(3))
    found = left_of(step, after)[0]
    np.testing.assert_array_equal(found[3:], np.tile(found[3:6], 3))
    # a sum of squares over the voxels of an edge is less than the integral, by 1 / n²
    np.testing.assert_allclose(found[[0, 3, 4, 5]] / (first + last), expected / (first + last), rtol=0, atol=0.01)
    # the same where every point has a window of its own
    own = Errors.of(variances(first), np.array([before]), offset[None], np.eye(3)[None], np.ones(3))
    np.testing.assert_array_equal(left_of(own, np.array([after]))[0], found)


def test_noise_stays_at_the_faces_of_a_window() -> None:
    offset, n = np.array([[1.0, 0, 0]]), (15, 17, 19)

    def left(offset: np.ndarray, F: np.ndarray, kappa: float) -> np.ndarray:
        return left_of(Errors.of(np.ones((1, 12)), n, offset, F[None], np.full(3, kappa)), n)[0]

    assert left(offset, np.eye(3), 1)[0] == pytest.approx(1 / 15)
    # noise of which eight voxels count as one; a window that is deformed; one that lies elsewhere
    assert left(offset, np.eye(3), 8)[0] == pytest.approx(1 / 30)
    assert left(0 * offset, np.diag([1.02, 1, 1]), 1)[0] == pytest.approx(0.01)
    assert (left(99 * offset, np.eye(3), 1) == 1).all()
