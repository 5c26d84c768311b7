"""Motions of the whole: closed forms, with a fifth of the points wrong, and the nearest rotation by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from mpidvc.core import deformation
from mpidvc.core.motion import CommonMotion, fit_all, fit_motion, remove_motion

CENTRE, MOVE = np.array([10.0, 20.0, 30.0]), np.array([3.0, -2.0, 1.0])
ROTATION = deformation.rotation_matrix((3, -5, 8))
SHEARED = ROTATION @ np.array([[1.01, 0.002, 0], [0.002, 0.99, 0.003], [0, 0.003, 1.02]])
F = {"rigid": ROTATION, "similarity": 1.004 * ROTATION, "affine": SHEARED}


def field(kind: str, n: int = 3000, noise: float = 0.0, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, displacements, and which of them are right."""
    random = np.random.default_rng(seed)
    positions = random.uniform(0, 200, (n, 3))
    moves = (positions - CENTRE) @ (F[kind] - np.eye(3)).T + MOVE + random.normal(0, noise, (n, 3))
    return positions, moves, random.random(n) >= 0.2


def about(kind: str, centre: np.ndarray) -> np.ndarray:
    """The true Phi about another centre."""
    phi = np.eye(4)
    phi[:3, :3], phi[:3, 3] = F[kind], MOVE + (F[kind] - np.eye(3)) @ (centre - CENTRE)
    return phi


@pytest.mark.parametrize("kind", F)
@pytest.mark.parametrize("wrong", ["scattered", "together"])
def test_a_fifth_of_gross_outliers_changes_nothing(kind: str, wrong: str) -> None:
    positions, moves, right = field(kind)
    random = np.random.default_rng(2)
    n = int((~right).sum())
    moves[~right] = np.full(3, 40.0) if wrong == "together" else moves[~right] + random.normal(0, 20, (n, 3))
    found = fit_motion(positions, moves, kind, False)
    # only rounding is left: displacements of some 50 voxels have 14 digits
    np.testing.assert_allclose(found.phi, about(kind, found.centre), atol=1e-11)
    assert found.share == pytest.approx(right.mean(), abs=0.005)
    assert found.scatter < 1e-10


def test_the_majority_counts_where_two_parts_move() -> None:
    positions, moves, _ = field("rigid")
    # a part of the specimen slides away as a whole
    away = positions[:, 0] > 128
    assert 0.3 < away.mean() < 0.4
    moves[away] += (4.0, -6.0, 2.0)
    found = fit_motion(positions, moves, "rigid", False)
    np.testing.assert_allclose(found.phi, about("rigid", found.centre), atol=1e-11)


def test_noise_is_averaged_and_told() -> None:
    positions, moves, right = field("affine", noise=0.05)
    moves[~right] += 15.0
    found = fit_motion(positions, moves, "affine", False)
    # the translation is a mean of 2400 displacements: 0.05 / sqrt(2400) = 0.001, and a little more; 5 of these
    np.testing.assert_allclose(found.phi[:3, 3], about("affine", found.centre)[:3, 3], atol=0.0053)
    assert np.linalg.norm(found.phi[:3, :3] - SHEARED) < 1e-4
    # the outliers make the median of all that of 62 % of the right ones: 20 % more for 3 degrees of freedom, at most
    assert 0.05 < found.scatter < 0.06


def test_a_plane_has_no_motion_along_z() -> None:
    random = np.random.default_rng(3)
    positions = random.uniform(0, 200, (400, 3)) * (0, 1, 1)
    for kind, angle, stretch in (("rigid", 4.0, 1.0), ("similarity", 4.0, 1.003), ("affine", 4.0, 1.003)):
        G = stretch * deformation.rotation_matrix((angle, 0, 0))
        G[0, 0] = 1
        moves = positions @ (G - np.eye(3)).T + (0, 1, 2)
        moves[:60] += (0, 9, 9)
        found = fit_motion(positions, moves, kind, True)
        np.testing.assert_allclose(found.phi[:3, :3], G, atol=1e-12)
        assert found.phi[0, 3] == 0


@pytest.mark.parametrize(
    ("kind", "points", "two_d"),
    [
        ("rigid", [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)], False),
        ("similarity", [(0, 0, 0), (0, 5, 0)], False),
        ("affine", [(4, 0, 0), (4, 1, 0), (4, 0, 1), (4, 1, 1), (4, 3, 1)], False),
        ("affine", [(0, 1, 1), (0, 2, 2), (0, 3, 3)], True),
        ("rigid", [(0, 3, 3)], True),
        ("rigid", np.zeros((0, 3)), False),
    ],
)
def test_points_that_determine_none(kind: str, points: list, two_d: bool) -> None:
    positions = np.array(points, np.float64)
    assert fit_motion(positions, np.zeros_like(positions), kind, two_d) is None


def test_a_plane_of_a_volume_has_a_rotation() -> None:
    positions = np.array([(4, 0, 0), (4, 30, 0), (4, 0, 20), (4, 9, 8)], np.float64)
    for vector in np.random.default_rng(5).uniform(-90, 90, (20, 3)):
        # no reflection, which would fit to a plane as well
        rotation = deformation.rotation_matrix(vector)
        moves = (positions - CENTRE) @ (rotation - np.eye(3)).T
        np.testing.assert_allclose(fit_motion(positions, moves, "rigid", False).phi[:3, :3], rotation, atol=1e-12)


def test_what_is_left_is_the_rest() -> None:
    """A deformation after which the whole moved: removal gives the deformation back, at every point."""
    random = np.random.default_rng(4)
    positions = random.uniform(0, 100, (50, 3))
    own = np.tile(np.eye(4), (50, 1, 1))
    own[:, :3, :3] += random.normal(0, 0.05, (50, 3, 3))
    own[:, :3, 3] = random.normal(0, 1, (50, 3))
    motion = CommonMotion("affine", about("affine", CENTRE), CENTRE, 1.0, 0.0)
    moved = own.copy()
    # by places: x -> x + u, then F (x + u - c) + t + c
    moved[:, :3, :3] = SHEARED @ own[:, :3, :3]
    moved[:, :3, 3] = (positions + own[:, :3, 3] - CENTRE) @ SHEARED.T + MOVE + CENTRE - positions
    moved[7] = np.nan
    left = remove_motion(moved, positions, motion)
    assert np.isnan(left[7]).all()
    np.testing.assert_allclose(np.delete(left, 7, 0), np.delete(own, 7, 0), atol=1e-12)


# ---- in the least squares

RANDOM = np.random.default_rng(4)
POINTS = RANDOM.uniform(0, 200, (300, 3))


def turned_by(vector: list[float]) -> np.ndarray:
    """By scipy, in any order of axes: the matrix of a rotation vector in degrees."""
    return Rotation.from_rotvec(np.deg2rad(vector)).as_matrix()


@pytest.mark.parametrize("vector", [[0, 0, 0], [3, -2, 1], [170, 20, -10]])
def test_a_rigid_motion_is_found_exactly(vector: list[float]) -> None:
    R, t = turned_by(vector), np.array([1.5, -2.0, 30.0])
    moved = (POINTS - 50) @ R.T + 50 + t - POINTS
    found = fit_all(POINTS, moved, "rigid")
    np.testing.assert_allclose(found.F, R, atol=1e-12)
    np.testing.assert_allclose(found.displacements(POINTS), moved, atol=1e-10)
    assert found.rms < 1e-10


def test_no_other_rotation_is_nearer() -> None:
    """Of displacements that no rigid motion makes: compared with a search by scipy."""
    moved = POINTS @ RANDOM.normal(0, 0.05, (3, 3)) + RANDOM.normal(0, 1, POINTS.shape)
    found = fit_all(POINTS, moved, "rigid")
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
    R = turned_by([20, -30, 5])
    found = fit_all(flat, flat @ R.T - flat, "rigid")
    np.testing.assert_allclose(found.F, R, atol=1e-12)


def test_reflections_are_no_rotation() -> None:
    found = fit_all(POINTS, POINTS * [-2, 0, 0], "rigid")
    assert np.linalg.det(found.F) == pytest.approx(1)


def test_points_on_a_line_and_a_single_one() -> None:
    line = np.outer(np.arange(5.0), [0, 1, 0])
    R = turned_by([90, 0, 0])
    found = fit_all(line, line @ R.T - line, "rigid")
    np.testing.assert_allclose(found.displacements(line), line @ R.T - line, atol=1e-12)
    # the smallest rotation that does so: about the axis across both directions
    np.testing.assert_allclose(np.abs(Rotation.from_matrix(found.F).magnitude()), np.pi / 2)
    single = fit_all(line[:1], np.array([[1.0, 2.0, 3.0]]), "rigid")
    np.testing.assert_array_equal(single.F, np.eye(3))
    np.testing.assert_array_equal(single.translation, [1, 2, 3])


def test_an_affine_motion_is_found_exactly() -> None:
    F, t = np.eye(3) + RANDOM.normal(0, 0.1, (3, 3)), np.array([1.0, -2.0, 3.0])
    moved = (POINTS - POINTS.mean(axis=0)) @ (F - np.eye(3)).T + t
    found = fit_all(POINTS, moved, "affine")
    np.testing.assert_allclose(found.F, F, atol=1e-12)
    np.testing.assert_allclose(found.translation, t, atol=1e-12)


def test_the_affine_fit_is_that_of_the_normal_equations() -> None:
    moved = RANDOM.normal(0, 1, POINTS.shape)
    design = np.column_stack([POINTS, np.ones(len(POINTS))])
    solved = np.linalg.solve(design.T @ design, design.T @ moved)
    found = fit_all(POINTS, moved, "affine")
    np.testing.assert_allclose(found.F - np.eye(3), solved[:3].T, atol=1e-12)
    assert found.rms == pytest.approx(np.sqrt(((design @ solved - moved) ** 2).sum(axis=1).mean()))


def test_a_direction_without_extent_is_the_identity() -> None:
    flat = POINTS * [0, 1, 1]
    found = fit_all(flat, flat @ np.array([[0, 0, 0], [0.1, 0.01, 0], [0, 0, 0.02]]), "affine")
    np.testing.assert_allclose(found.F, [[1, 0.1, 0], [0, 1.01, 0], [0, 0, 1.02]], atol=1e-12)


def test_a_stretch_is_that_of_the_least_squares() -> None:
    """A similarity: of the rotation that fits best, the stretch by linear regression."""
    moved = POINTS @ RANDOM.normal(0, 0.05, (3, 3)) + RANDOM.normal(0, 1, POINTS.shape)
    found = fit_all(POINTS, moved, "similarity")
    rigid = fit_all(POINTS, moved, "rigid")
    about = (POINTS - POINTS.mean(axis=0)) @ rigid.F.T
    after = POINTS + moved - (POINTS + moved).mean(axis=0)
    np.testing.assert_allclose(found.F, rigid.F * (about * after).sum() / (about**2).sum(), atol=1e-12)


def test_a_line_of_a_plane_is_turned_within_it() -> None:
    """The robust fit, too: in 2D a line determines the rotation."""
    line = np.outer(np.arange(8.0), [0, 3, 1])
    R = deformation.rotation_matrix((25, 0, 0))
    found = fit_motion(line, line @ R.T - line, "rigid", True)
    np.testing.assert_allclose(found.phi[:3, :3], R, atol=1e-12)
