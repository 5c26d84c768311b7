"""Gauges against closed forms, and their standard errors against made fields whose windows share voxels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mpidvc.core.gauges import correlated, extension, region

F = np.array([[1.02, 0.001, -0.002], [0.003, 0.99, 0.004], [0.0, -0.005, 1.01]])
GREEN_LAGRANGE = (F.T @ F - np.eye(3)) / 2
UPPER = np.triu_indices(3)


def grid(dims: tuple[int, int, int], step: float) -> np.ndarray:
    return step * (1.0 + np.stack(np.unravel_index(np.arange(np.prod(dims)), dims), axis=1))


def brute(positions: np.ndarray, window: tuple[int, int, int]) -> np.ndarray:
    """The matrix of correlations: shared voxels of every pair of windows over those of one."""
    apart = np.abs(positions[:, None] - positions)
    return np.prod(np.maximum(np.array(window) - apart, 0) / window, axis=2)


def counted(positions: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The matrix of correlations, by a voxel for every element of every window."""
    sides = np.int64(positions.max(axis=0)) + windows.max(axis=0) + 1
    marks = np.zeros((len(positions), *sides))
    for mark, first, edges in zip(
        marks, np.int64(positions) + (windows.max(axis=0) - windows) // 2, windows, strict=True
    ):
        mark[tuple(slice(a, a + n) for a, n in zip(first, edges, strict=True))] = 1
    flat = marks.reshape(len(positions), -1)
    size = np.sqrt((flat**2).sum(axis=1))
    return (flat @ flat.T) / np.outer(size, size)


def test_correlations_are_shared_voxels() -> None:
    random = np.random.default_rng(1)
    window = (9, 15, 21)
    nodes = grid((4, 5, 6), 7.0)[random.random(120) < 0.8]
    weights = random.normal(size=(len(nodes), 3))
    places = tuple(np.unique(nodes[:, k]) for k in range(3))
    expected = brute(nodes, window) @ weights
    np.testing.assert_allclose(correlated(nodes, weights, window, places), expected, atol=1e-12)
    np.testing.assert_allclose(correlated(nodes, weights, window), expected, atol=1e-12)
    np.testing.assert_array_equal(correlated(nodes, weights, None), weights)


def test_correlations_of_windows_of_several_sizes() -> None:
    random = np.random.default_rng(3)
    nodes = grid((3, 4, 3), 5.0)[random.random(36) < 0.8]
    windows = 2 * random.integers(1, 8, (len(nodes), 3)) + 1
    weights = random.normal(size=(len(nodes), 2))
    places = tuple(np.unique(nodes[:, k]) for k in range(3))
    expected = counted(nodes, windows) @ weights
    np.testing.assert_allclose(correlated(nodes, weights, windows, places), expected, atol=1e-12)
    np.testing.assert_allclose(correlated(nodes, weights, windows), expected, atol=1e-12)
    # a layer; and equal windows are those of one size
    flat, same = nodes * [0, 1, 1], np.tile((9, 15, 21), (len(nodes), 1))
    windows[:, 0] = 1
    layer = np.unique(flat, axis=0, return_index=True)[1]
    told = correlated(flat[layer], weights[layer], windows[layer], (np.zeros(1), *places[1:]))
    np.testing.assert_allclose(told, counted(flat[layer], windows[layer]) @ weights[layer], atol=1e-12)
    np.testing.assert_allclose(
        correlated(nodes, weights, same, places), brute(nodes, (9, 15, 21)) @ weights, atol=1e-12
    )


def test_an_affine_field_is_read_exactly() -> None:
    positions = grid((5, 6, 7), 10.0)
    moves = positions @ (F - np.eye(3)).T + (1, 2, 3)
    found = region(positions, moves, (21, 21, 21))
    np.testing.assert_allclose(found.means, moves.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.strain, GREEN_LAGRANGE[UPPER], atol=1e-13)
    np.testing.assert_allclose([*found.errors, *found.strain_errors], 0, atol=1e-12)
    ends = np.array([(12.0, 15.0, 15.0), (47.0, 33.0, 62.0)])
    arm = ends[1] - ends[0]
    expected = np.linalg.norm(F @ arm) / np.linalg.norm(arm) - 1
    read = extension(positions, moves, ends, 15.0, (21, 21, 21))
    assert read.strain == pytest.approx(expected, abs=1e-13)
    assert read.elongation == pytest.approx(expected * np.linalg.norm(arm), abs=1e-11)
    assert read.strain_error < 1e-12


def test_what_points_do_not_tell_is_nan() -> None:
    layer = grid((1, 6, 7), 10.0)
    found = region(layer, layer @ (F - np.eye(3)).T, (21, 21, 21))
    assert np.isnan(found.strain[:3]).all()
    np.testing.assert_allclose(found.strain[3:], GREEN_LAGRANGE[UPPER][3:], atol=1e-13)
    single = region(layer[:1], np.ones((1, 3)), (21, 21, 21))
    np.testing.assert_array_equal(single.means, 1)
    assert np.isnan([*single.errors, *single.strain]).all()
    line = grid((1, 1, 9), 10.0)
    strain = region(line, line @ (F - np.eye(3)).T, (21, 21, 21)).strain
    np.testing.assert_array_equal(np.isnan(strain), [True] * 5 + [False])
    # a single node, none, and four, which a linear function meets whatever they are
    ends = np.array([(10.0, 10.0, 10.0), (10.0, 60.0, 10.0)])
    assert np.isnan(extension(layer, layer, ends, 4.0, None)[1:]).all()
    assert np.isnan(extension(layer, layer, ends + 5.0, 4.0, None)[1:]).all()
    few = np.concatenate([positions_about(ends[0])[:4], positions_about(ends[1])])
    read = extension(few, few, ends, 4.0, None)
    assert read.points == 4 + 7
    assert np.isnan(read[1:]).all()
    read = extension(np.append(few, few[:1] + 1, axis=0), np.append(few, few[:1], axis=0), ends, 4.0, None)
    assert np.isfinite(read).all()


def positions_about(end: np.ndarray) -> np.ndarray:
    """A place and its neighbours along z, y, x: 7 points."""
    return end + np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])


def test_no_points() -> None:
    nothing = np.zeros((0, 3))
    assert correlated(nothing, nothing, (9, 9, 9)).shape == (0, 3)


def affine(positions: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """The linear function that fits best: of (1, z, y, x) (4, 3)."""
    return np.linalg.lstsq(np.column_stack([np.ones(len(positions)), positions]), moves, rcond=None)[0]


def left(positions: np.ndarray, moves: np.ndarray, R: np.ndarray) -> tuple[np.ndarray, float]:
    """Squares (3,) of what it leaves, and what they are over their variance where noise is correlated by R."""
    X = np.column_stack([np.ones(len(positions)), positions])
    rest = np.eye(len(X)) - X @ np.linalg.pinv(X)
    return ((rest @ moves) ** 2).sum(axis=0), float(np.trace(rest @ R))


def deviations(
    reading: Callable[[np.ndarray], np.ndarray], moves: np.ndarray, variance: np.ndarray, R: np.ndarray
) -> np.ndarray:
    """Standard deviations of readings of displacements with such noise: by their derivatives, one after the other."""
    total, step = 0.0, 1e-3
    for axis in range(3):
        J = []
        for k in range(len(moves)):
            change = np.zeros_like(moves)
            change[k, axis] = step
            J.append((reading(moves + change) - reading(moves - change)) / (2 * step))
        total = total + variance[axis] * np.einsum("k...,kl,l...->...", np.array(J), R, np.array(J))
    return np.sqrt(total)


@pytest.mark.parametrize("windows", ["none", "one size", "several sizes"])
def test_standard_errors_follow_from_all_correlations(windows: str) -> None:
    """Of any displacements: what is left of them, the matrix of all pairs, and the derivatives of the readings."""
    random = np.random.default_rng(6)
    positions = grid((4, 4, 5), 5.0)
    n = len(positions)
    moves = positions @ (F - np.eye(3)).T + random.normal(0, (0.02, 0.05, 0.1), (n, 3))
    given: np.ndarray | None = None
    R = np.eye(n)
    if windows == "one size":
        given = np.array([9, 13, 11])
        R = brute(positions, (9, 13, 11))
    elif windows == "several sizes":
        given = 2 * random.integers(2, 7, (n, 3)) + 1
        R = counted(positions, given)

    def strain(u: np.ndarray) -> np.ndarray:
        gradient = np.eye(3) + affine(positions, u)[1:].T
        return ((gradient.T @ gradient - np.eye(3)) / 2)[UPPER]

    found = region(positions, moves, given)
    squares, freedom = left(positions, moves, R)
    variance = squares / freedom
    assert found.points == n
    assert found.independent == pytest.approx(n**2 / R.sum())
    np.testing.assert_allclose(found.errors, np.sqrt(variance * R.sum()) / n, rtol=1e-9)
    np.testing.assert_allclose(found.strain, strain(moves), atol=1e-12)
    # squares of F have exact differences, but for rounding
    np.testing.assert_allclose(found.strain_errors, deviations(strain, moves, variance, R), rtol=1e-6)

    # both ends have points that lie at the radius exactly, and some that both have
    ends, radius = np.array([(10.0, 10.0, 10.0), (11.0, 14.0, 20.0)]), 5.0
    near = [[k for k in range(n) if max(abs(positions[k] - end)) <= radius] for end in ends]

    def length(u: np.ndarray) -> np.ndarray:
        moved = [end + np.append(1, end) @ affine(positions[k], u[k]) for end, k in zip(ends, near, strict=True)]
        return np.linalg.norm(moved[1] - moved[0])

    read = extension(positions, moves, ends, radius, given)
    parts = [left(positions[k], moves[k], R[np.ix_(k, k)]) for k in near]
    variance = (parts[0][0] + parts[1][0]) / (parts[0][1] + parts[1][1])
    before = float(np.linalg.norm(ends[1] - ends[0]))
    expected = float(deviations(length, moves, variance, R))
    assert read.points == len({*near[0], *near[1]}) < len(near[0]) + len(near[1])
    assert read.elongation == pytest.approx(float(length(moves)) - before, rel=1e-9)
    assert read.strain == pytest.approx(read.elongation / before, rel=1e-12)
    assert read.elongation_error == pytest.approx(expected, rel=1e-6)
    assert read.strain_error == pytest.approx(expected / before, rel=1e-6)


def noise(random: np.random.Generator, dims: tuple[int, int, int], step: int, width: int) -> np.ndarray:
    """Displacements (n, 3) at nodes: means of white noise over windows, by sums of the voxels."""
    shape = [step * (n - 1) + width for n in dims]
    made = []
    for _ in range(3):
        sums = random.normal(size=shape)
        for axis in range(3):
            total = np.cumsum(np.insert(sums, 0, 0, axis=axis), axis=axis)
            first = step * np.arange(dims[axis])
            sums = np.take(total, first + width, axis) - np.take(total, first, axis)
        made.append(sums.ravel() / width**1.5)
    return np.stack(made, axis=1)


@pytest.mark.parametrize(("step", "width"), [(6, 13), (6, 6), (5, 4)], ids=["shared", "touching", "apart"])
def test_standard_errors_are_those_of_many_made_fields(step: int, width: int) -> None:
    dims, times = (6, 7, 8), 200
    positions = grid(dims, float(step))
    random = np.random.default_rng(5)
    ends = np.array([(1.5, 2.0, 2.0), (4.5, 5.0, 6.0)]) * step + step
    window = (width, width, width)
    truth = positions @ (F - np.eye(3)).T
    # few points: what the linear function takes of their noise counts
    part = (positions <= step * np.array([3, 3, 4])).all(axis=1)
    readings, told = [], []
    for _ in range(times):
        moves = truth + 0.02 * noise(random, dims, step, width)
        one, two = region(positions[part], moves[part], window), extension(positions, moves, ends, 1.5 * step, window)
        readings.append([*one.means, *one.strain, two.strain])
        told.append([*one.errors, *one.strain_errors, two.strain_error])
    found, expected = np.std(readings, axis=0), np.sqrt(np.mean(np.square(told), axis=0))
    # the deviation of 200 readings is known to 5 %, the mean variance to less: 4 of these
    np.testing.assert_allclose(expected, found, rtol=0.2)
    # together, over ten numbers, which are partly dependent
    assert np.mean(expected / found) == pytest.approx(1, abs=0.07)


def test_shared_windows_are_fewer_independent_points() -> None:
    positions = grid((6, 6, 6), 5.0)
    moves = np.random.default_rng(2).normal(size=(216, 3))
    assert region(positions, moves, None).independent == pytest.approx(216)
    assert region(positions, moves, (5, 5, 5)).independent == pytest.approx(216)
    R = brute(positions, (20, 20, 20))
    assert region(positions, moves, (20, 20, 20)).independent == pytest.approx(216**2 / R.sum())


def test_every_point_of_an_extensometer_has_its_window() -> None:
    """The same as with one window where those of the points at hand are alike."""
    positions = grid((6, 6, 6), 5.0)
    moves = np.random.default_rng(2).normal(size=(216, 3))
    ends = np.array([(7.0, 7.0, 7.0), (27.0, 27.0, 27.0)])
    windows = np.full((216, 3), 13)
    windows[(positions[:, 0] > 12) & (positions[:, 0] < 22)] = 29
    assert extension(positions, moves, ends, 5.0, windows) == extension(positions, moves, ends, 5.0, (13, 13, 13))
