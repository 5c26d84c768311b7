"""Fits of one motion: closed forms, and the rotation that minimises the distance, found by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from mpidvc.core.fits import fit_affine, fit_rigid

RANDOM = np.random.default_rng(4)
POINTS = RANDOM.uniform(0, 200, (300, 3))


def rotation(vector: list[float]) -> np.ndarray:
    """By scipy, in any order of axes: the matrix of a rotation vector in degrees."""
    return Rotation.from_rotvec(np.deg2rad(vector)).as_matrix()


@pytest.mark.parametrize("vector", [[0, 0, 0], [3, -2, 1], [170, 20, -10]])
def test_a_rigid_motion_is_found_exactly(vector: list[float]) -> None:
    R, t = rotation(vector), np.array([1.5, -2.0, 30.0])
    moved = (POINTS - 50) @ R.T + 50 + t - POINTS
    found = fit_rigid(POINTS, moved)
    np.testing.assert_allclose(found.F, R, atol=1e-12)
    np.testing.assert_allclose(found.displacements(POINTS), moved, atol=1e-10)
    assert found.rms < 1e-10


def test_no_other_rotation_is_nearer() -> None:
    """Of displacements that no rigid motion makes: compared with a search by scipy."""
    moved = POINTS @ RANDOM.normal(0, 0.05, (3, 3)) + RANDOM.normal(0, 1, POINTS.shape)
    found = fit_rigid(POINTS, moved)
    about, shift = POINTS - POINTS.mean(axis=0), moved.mean(axis=0)

    def distance(vector: np.ndarray) -> float:
        return float((((about @ Rotation.from_rotvec(vector).as_matrix().T - about + shift) - moved) ** 2).sum())

    best = minimize(
        distance,
        Rotation.from_matrix(found.F).as_rotvec() + 0.05,
        method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-10},
    )
    assert found.rms == pytest.approx(np.sqrt(best.fun / len(POINTS)), rel=1e-8)
    assert np.linalg.det(found.F) == pytest.approx(1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_points_in_a_plane_turn_out_of_it(axis: int) -> None:
    flat = POINTS.copy()
    flat[:, axis] = 7
    R = rotation([20, -30, 5])
    found = fit_rigid(flat, flat @ R.T - flat)
    np.testing.assert_allclose(found.F, R, atol=1e-12)


def test_reflections_are_no_rotation() -> None:
    found = fit_rigid(POINTS, POINTS * [-2, 0, 0])
    assert np.linalg.det(found.F) == pytest.approx(1)


def test_points_on_a_line_and_a_single_one() -> None:
    line = np.outer(np.arange(5.0), [0, 1, 0])
    R = rotation([90, 0, 0])
    found = fit_rigid(line, line @ R.T - line)
    np.testing.assert_allclose(found.displacements(line), line @ R.T - line, atol=1e-12)
    # the smallest rotation that does so: about the axis across both directions
    np.testing.assert_allclose(np.abs(Rotation.from_matrix(found.F).magnitude()), np.pi / 2)
    single = fit_rigid(line[:1], np.array([[1.0, 2.0, 3.0]]))
    np.testing.assert_array_equal(single.F, np.eye(3))
    np.testing.assert_array_equal(single.translation, [1, 2, 3])


def test_an_affine_motion_is_found_exactly() -> None:
    F, t = np.eye(3) + RANDOM.normal(0, 0.1, (3, 3)), np.array([1.0, -2.0, 3.0])
    moved = (POINTS - POINTS.mean(axis=0)) @ (F - np.eye(3)).T + t
    found = fit_affine(POINTS, moved)
    np.testing.assert_allclose(found.F, F, atol=1e-12)
    np.testing.assert_allclose(found.translation, t, atol=1e-12)


def test_the_affine_fit_is_that_of_the_normal_equations() -> None:
    moved = RANDOM.normal(0, 1, POINTS.shape)
    design = np.column_stack([POINTS, np.ones(len(POINTS))])
    solved = np.linalg.solve(design.T @ design, design.T @ moved)
    found = fit_affine(POINTS, moved)
    np.testing.assert_allclose(found.F - np.eye(3), solved[:3].T, atol=1e-12)
    assert found.rms == pytest.approx(np.sqrt(((design @ solved - moved) ** 2).sum(axis=1).mean()))


def test_a_direction_without_extent_is_the_identity() -> None:
    flat = POINTS * [0, 1, 1]
    found = fit_affine(flat, flat @ np.array([[0, 0, 0], [0.1, 0.01, 0], [0, 0, 0.02]]))
    np.testing.assert_allclose(found.F, [[1, 0.1, 0], [0, 1.01, 0], [0, 0, 1.02]], atol=1e-12)
