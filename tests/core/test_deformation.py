"""Algebra of Phi against scipy's rotations and against its own definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mpidvc.core import deformation

RANDOM = np.random.default_rng(40)
ANGLES = [1e-3, 0.1, 5, 45, 90, 135, 179.9, 180]


def random_axis() -> np.ndarray:
    axis = RANDOM.normal(size=3)
    return axis / np.linalg.norm(axis)


def stretches() -> dict[str, list[float]]:
    return {
        "distinct": [0.9, 1.05, 1.2],
        "two equal": [0.95, 1.01, 1.01],
        "nearly equal": [0.95, 1.01, 1.01 + 1e-12],
        "all equal": [1.02, 1.02, 1.02],
        "none": [1.0, 1.0, 1.0],
        "wide": [1e-3, 1.0, 1e3],
    }


def random_phi(*shape: int) -> np.ndarray:
    phi = np.zeros((*shape, 4, 4))
    phi[..., :3, :3] = np.eye(3) + 0.1 * RANDOM.normal(size=(*shape, 3, 3))
    phi[..., :3, 3] = RANDOM.normal(size=(*shape, 3))
    phi[..., 3, 3] = 1
    return phi


@pytest.mark.parametrize("angle", ANGLES)
def test_rotation_matrix_equals_scipy(angle):
    vectors = np.array([angle * random_axis() for _ in range(20)])
    expected = Rotation.from_rotvec(vectors, degrees=True).as_matrix()
    np.testing.assert_allclose(deformation.rotation_matrix(vectors), expected, rtol=0, atol=1e-15 * 10)


def test_rotation_about_one_axis():
    """Components are (z, y, x): a quarter turn about z takes y to x."""
    R = deformation.rotation_matrix([90, 0, 0])
    np.testing.assert_allclose(R @ [0, 1, 0], [0, 0, 1], rtol=0, atol=1e-15)
    np.testing.assert_allclose(R @ [1, 0, 0], [1, 0, 0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("angle", ANGLES)
def test_rotation_vector_is_the_inverse(angle):
    vectors = np.array([angle * random_axis() for _ in range(50)])
    back = deformation.rotation_vector(deformation.rotation_matrix(vectors))
    if angle == 180:  # both signs of the axis are the same rotation
        back *= np.sign((back * vectors).sum(axis=1))[:, None]
    # a matrix knows its angle to 1e-15 rad; near 180 degrees its axis too
    np.testing.assert_allclose(back, vectors, rtol=0, atol=1e-11)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1], [-1, 2, 0]])
def test_half_turns(axis):
    n = np.array(axis) / np.linalg.norm(axis)
    R = 2 * np.outer(n, n) - np.eye(3)
    vector = deformation.rotation_vector(R)
    assert np.linalg.norm(vector) == pytest.approx(180, abs=1e-12)
    np.testing.assert_allclose(deformation.rotation_matrix(vector), R, rtol=0, atol=1e-14)


def test_more_than_half_a_turn():
    vector = deformation.rotation_vector(deformation.rotation_matrix([0, 0, 200]))
    np.testing.assert_allclose(vector, [0, 0, -160], rtol=0, atol=1e-12)


def test_smallest_rotation():
    """Rotations below 1e-4 degrees are none, in both directions."""
    assert np.array_equal(deformation.rotation_matrix([0, 0, 0.9e-4]), np.eye(3))
    assert not np.array_equal(deformation.rotation_matrix([0, 0, 1.1e-4]), np.eye(3))
    assert np.array_equal(deformation.rotation_vector(Rotation.from_rotvec([0, 0, 1.5e-6]).as_matrix()), np.zeros(3))
    assert np.array_equal(deformation.rotation_vector(np.eye(3)), np.zeros(3))
    vector = deformation.rotation_vector(Rotation.from_rotvec([0, 0, 2e-6]).as_matrix())
    assert vector[2] == pytest.approx(np.rad2deg(2e-6), rel=1e-9)


@pytest.mark.parametrize("kind", stretches())
def test_polar(kind):
    values = np.array(stretches()[kind])
    for angle in (0.0, 1e-6, 7.3, 120, 180):
        R = Rotation.from_rotvec(angle * random_axis(), degrees=True).as_matrix()
        Q = Rotation.random(rng=RANDOM).as_matrix()
        U = Q @ np.diag(values) @ Q.T
        got_R, got_U = deformation.polar(R @ U)
        # the rotation of F is known to 1e-16 times the ratio of its stretches
        condition = values.max() / values.min()
        np.testing.assert_allclose(got_R, R, rtol=0, atol=1e-15 * (10 + condition))
        np.testing.assert_allclose(got_U, U, rtol=0, atol=1e-14 * values.max())
        np.testing.assert_allclose(got_R @ got_R.T, np.eye(3), rtol=0, atol=1e-14)
        assert np.array_equal(got_U, got_U.T) or abs(got_U - got_U.T).max() < 1e-14 * values.max()


def test_polar_of_equal_stretches_exact():
    """The case that an unsymmetric eigensolver gets wrong: off-diagonals of U of 0.7."""
    R = Rotation.from_rotvec([5, 10, 3], degrees=True).as_matrix()
    got_R, got_U = deformation.polar(R @ np.diag([0.95, 1.01, 1.01]))
    np.testing.assert_allclose(got_U, np.diag([0.95, 1.01, 1.01]), rtol=0, atol=1e-14)
    np.testing.assert_allclose(deformation.rotation_vector(got_R), [5, 10, 3], rtol=0, atol=1e-12)


def test_polar_of_what_is_no_deformation():
    bad = np.array([np.zeros((3, 3)), np.diag([1, 1, 0]), np.diag([1, 1, -1]), np.full((3, 3), np.nan), -np.eye(3)])
    mixed = np.concatenate([bad, np.eye(3)[None], np.diag([1, np.inf, 1])[None]])
    R, U = deformation.polar(mixed)
    assert np.isnan(R[[0, 1, 2, 3, 4, 6]]).all()
    assert np.isnan(U[[0, 1, 2, 3, 4, 6]]).all()
    np.testing.assert_allclose(R[5], np.eye(3), rtol=0, atol=1e-15)
    np.testing.assert_allclose(U[5], np.eye(3), rtol=0, atol=1e-15)


def test_compute_phi_stretches_first():
    U = np.diag([1.0, 1.1, 0.9])
    phi = deformation.compute_phi([1, 2, 3], [90, 0, 0], U)
    # the stretch along y by 1.1 ends along x
    np.testing.assert_allclose(phi @ [0, 1, 0, 1], [1, 2, 4.1, 1], rtol=0, atol=1e-15)
    assert np.array_equal(deformation.compute_phi(), np.eye(4))
    np.testing.assert_array_equal(phi[3], [0, 0, 0, 1])


def test_rigid_part():
    U = np.array([[1, 0.02, 0], [0.02, 1.05, 0], [0, 0, 0.9]])
    phi = deformation.compute_phi([1, 2, 3], [10, -20, 30], U)
    before = phi.copy()
    expected = deformation.compute_phi([1, 2, 3], [10, -20, 30])
    np.testing.assert_allclose(deformation.rigid_part(phi), expected, rtol=0, atol=1e-14)
    assert np.array_equal(phi, before)


def test_apply():
    """t + (F - I)(p - c) is where the point goes, less where it was."""
    phi, centre, points = random_phi(), RANDOM.normal(size=3) * 10, RANDOM.normal(size=(50, 3)) * 10
    moved = deformation.apply(phi, centre, points)
    for p, u in zip(points, moved, strict=True):
        expected = phi[:3, :3] @ (p - centre) + phi[:3, 3] + centre - p
        np.testing.assert_allclose(u, expected, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(deformation.apply(phi, centre, centre), phi[:3, 3])


def test_move_centre():
    phi, old, new = random_phi(), np.array([1.0, 2, 3]), np.array([-4.0, 7, 2])
    points = RANDOM.normal(size=(30, 3)) * 20
    elsewhere = deformation.move_centre(phi, old, new)
    np.testing.assert_array_equal(elsewhere[:3, :3], phi[:3, :3])
    np.testing.assert_array_equal(elsewhere[3], [0, 0, 0, 1])
    expected = deformation.apply(phi, old, points)
    np.testing.assert_allclose(deformation.apply(elsewhere, new, points), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(deformation.move_centre(elsewhere, new, old), phi, rtol=0, atol=1e-13)


def test_move_to_many_centres():
    """One Phi about many points: a stack of them."""
    phi, new = random_phi(), RANDOM.normal(size=(5, 2, 3))
    moved = deformation.move_centre(phi, np.zeros(3), new)
    assert moved.shape == (5, 2, 4, 4)
    for at in np.ndindex(5, 2):
        np.testing.assert_allclose(moved[at], deformation.move_centre(phi, np.zeros(3), new[at]), rtol=0, atol=1e-14)


def test_compose():
    """Inner first."""
    inner, outer, centre = random_phi(), random_phi(), np.array([3.0, -1, 2])
    p = RANDOM.normal(size=3)
    q = p + deformation.apply(inner, centre, p)
    expected = q + deformation.apply(outer, centre, q)
    got = p + deformation.apply(deformation.compose(outer, inner), centre, p)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def test_scale_translation():
    phi = random_phi(4)
    before = phi.copy()
    got = deformation.scale_translation(phi, 0.25)
    np.testing.assert_array_equal(got[:, :3, 3], 0.25 * phi[:, :3, 3])
    np.testing.assert_array_equal(got[:, :, :3], phi[:, :, :3])
    assert np.array_equal(phi, before)


def test_stacks_equal_single_ones():
    """Any leading shape, the empty one included."""
    phi = random_phi(3, 5)
    vectors = RANDOM.normal(size=(3, 5, 3)) * 40
    vectors[0, 0] = 0
    matrices = deformation.rotation_matrix(vectors)
    R, U = deformation.polar(phi[..., :3, :3])
    built = deformation.compute_phi(vectors / 10, vectors, U)
    for at in np.ndindex(3, 5):
        np.testing.assert_array_equal(matrices[at], deformation.rotation_matrix(vectors[at]))
        np.testing.assert_allclose(R[at], deformation.polar(phi[at][:3, :3])[0], rtol=0, atol=1e-15)
        np.testing.assert_allclose(U[at], deformation.polar(phi[at][:3, :3])[1], rtol=0, atol=1e-15)
        np.testing.assert_array_equal(
            deformation.rotation_vector(matrices)[at], deformation.rotation_vector(matrices[at])
        )
        single = deformation.compute_phi(vectors[at] / 10, vectors[at], U[at])
        np.testing.assert_allclose(built[at], single, rtol=0, atol=1e-15)
    assert deformation.polar(np.zeros((0, 3, 3)))[0].shape == (0, 3, 3)
    assert deformation.rotation_matrix(np.zeros((0, 3))).shape == (0, 3, 3)
    assert deformation.rotation_vector(np.zeros((0, 3, 3))).shape == (0, 3)
    assert deformation.compute_phi(np.zeros((7, 3)), np.zeros((7, 3))).shape == (7, 4, 4)
