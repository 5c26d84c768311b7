"""The normalised median test, on fields with known errors and against its formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core.outliers import PASSES, block_reach, default_test, residuals
from mpidvc.kernels.field import around

AMPLITUDE, WAVELENGTH, SPACING = 2.0, 400.0, 20.0
NOISE_U, NOISE_F = 0.0035, 5.6e-4


def waves(dims, kind, rng):
    """Sinusoids in every component: along its own axis, along all (the sum of them), or the product of them."""
    points = SPACING * (1 + np.stack(np.unravel_index(np.arange(np.prod(dims)), dims), axis=1).astype(float))
    phase = 2 * np.pi / WAVELENGTH * points[:, None] + rng.uniform(0, 2 * np.pi, (3, 3))
    sine, slope = np.sin(phase), 2 * np.pi / WAVELENGTH * np.cos(phase)
    phi = np.tile(np.eye(4), (len(points), 1, 1))
    if kind == "product":
        phi[:, :3, 3] = AMPLITUDE * sine.prod(axis=2)
        for axis in range(3):
            phi[:, :3, axis] += AMPLITUDE * slope[:, :, axis] * np.delete(sine, axis, axis=2).prod(axis=2)
        return points, phi
    used = np.eye(3) if kind == "own" else np.ones((3, 3))
    phi[:, :3, 3] = AMPLITUDE * (used * sine).sum(axis=2)
    phi[:, :3, :3] += AMPLITUDE * used * slope
    return points, phi


def found_in(points, phi, dims, epsilon, threshold):
    rows = np.arange(len(points))
    lists = around(dims, block_reach(dims), rows)
    found = np.zeros(len(points), bool)
    for _ in range(PASSES):
        values = residuals(points, phi, rows, *lists, ~found, epsilon)
        found = np.where(np.isnan(values), found, values > threshold)
    return found


@pytest.mark.parametrize(("dims", "count"), [((5, 5, 5), 26), ((1, 7, 7), 24)])
def test_neighbours_of_a_node(dims, count):
    """Those around it; in 2D, where they are 8 only, those of two rings."""
    edges = 2 * np.array(block_reach(dims)) + 1
    assert np.prod(edges) - 1 == count
    assert edges[1] == edges[2]


@pytest.mark.parametrize("kind", ["own", "sum", "product"])
@pytest.mark.parametrize(("share", "least"), [(0.05, 0.99), (0.35, 0.85)])
def test_errors_of_half_a_voxel_on_waves(kind, share, least):
    rng = np.random.default_rng(11)
    dims = (24, 24, 24)
    points, phi = waves(dims, kind, rng)
    n = len(points)
    phi[:, :3, 3] += rng.normal(0, NOISE_U, (n, 3))
    phi[:, :3, :3] += rng.normal(0, NOISE_F, (n, 3, 3))
    wrong = np.zeros(n, bool)
    wrong[rng.choice(n, round(share * n), replace=False)] = True
    directions = rng.normal(size=(wrong.sum(), 3))
    phi[wrong, :3, 3] += 0.5 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    found = found_in(points, phi, dims, *default_test(phi[:, :3, :3]))
    assert found[wrong].mean() >= least
    assert found[~wrong].mean() <= 0.001


def test_integer_displacements_have_a_default_of_their_own():
    rng = np.random.default_rng(2)
    dims = (16, 16, 16)
    points, phi = waves(dims, "product", rng)
    phi[:, :3, :3] = np.eye(3)
    wrong = rng.random(len(points)) < 0.05
    directions = rng.normal(size=(wrong.sum(), 3))
    phi[wrong, :3, 3] += 4 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    phi[:, :3, 3] = np.round(phi[:, :3, 3])
    epsilon, threshold = default_test(phi[:, :3, :3])
    assert epsilon == 0.5
    found = found_in(points, phi, dims, epsilon, threshold)
    assert found[wrong].mean() >= 0.98
    assert found[~wrong].mean() <= 0.001


def test_formula():
    rng = np.random.default_rng(3)
    dims = (3, 4, 5)
    points, phi = waves(dims, "sum", rng)
    phi[:, :3] += rng.normal(0, 0.01, (60, 3, 4))
    usable = rng.random(60) < 0.6
    start, near = around(dims, (1, 1, 1), np.arange(60))
    values = residuals(points, phi, np.arange(60), start, near, usable, 0.03)
    few = 0
    for i in range(60):
        j = near[start[i] : start[i + 1]]
        j = j[usable[j]]
        if len(j) < 6:
            few += 1
            assert np.isnan(values[i])
            continue
        G = 0.5 * (phi[j, :3, :3] + np.median(phi[j, :3, :3], axis=0)) - np.eye(3)
        p = phi[j, :3, 3] + np.einsum("jab,jb->ja", G, points[i] - points[j])
        m = np.median(p, axis=0)
        expected = np.abs(phi[i, :3, 3] - m) / (np.median(np.abs(p - m), axis=0) + 0.03)
        assert values[i] == pytest.approx(expected.max(), rel=1e-12)
    assert 0 < few < 40


def test_affine_fields_have_no_residual():
    rng = np.random.default_rng(4)
    points = rng.uniform(0, 300, (40, 3))
    F = np.eye(3) + rng.normal(0, 0.1, (3, 3))
    phi = np.tile(np.eye(4), (40, 1, 1))
    phi[:, :3, :3] = F
    phi[:, :3, 3] = points @ (F - np.eye(3)).T + 5
    lists = np.arange(41) * 40, np.tile(np.arange(40), 40)
    assert residuals(points, phi, np.arange(40), *lists, np.ones(40, bool), 0.01).max() < 1e-10
