"""The Laplacian of a field: exact for polynomials of second order, none for noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpidvc.core.curvature import curvatures
from mpidvc.core.neighbourhood import neighbour_lists
from mpidvc.kernels.neighbours import Points

Array = NDArray[Any]


def found_at(positions: Array, u: Array, at: Array, radius: float, two_d: bool = False) -> Array:
    out = np.full(len(at), np.nan)
    for which, start, found in neighbour_lists(Points(positions), at, radius, None):
        out[which] = curvatures(positions, u, at[which], start, found, two_d)
    return out


def quadratic(x: Array, H: Array) -> Array:
    """Displacement with the second derivatives H (3, 3, 3), and a linear part."""
    return 3.0 + x @ np.array([[0.1, 0, 0.02], [0.01, 0.2, 0], [0, 0, -0.1]]) + np.einsum("iab,na,nb->ni", H, x, x) / 2


@pytest.mark.parametrize("scattered", [False, True])
def test_exact_for_quadratic_fields(scattered: bool) -> None:
    random = np.random.default_rng(1)
    positions = 10.0 * np.stack(np.meshgrid(*[np.arange(8.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    if scattered:
        positions += random.uniform(-4, 4, positions.shape)
    H = random.normal(0, 1e-3, (3, 3, 3))
    H = (H + H.transpose(0, 2, 1)) / 2
    u = quadratic(positions, H)
    at = positions[((positions > 22) & (positions < 55)).all(axis=1)]
    expected = np.abs(np.trace(H, axis1=1, axis2=2)).max()
    assert len(at) > 20
    np.testing.assert_allclose(found_at(positions, u, at, 25.0), expected, rtol=1e-6)


def test_two_dimensions() -> None:
    y, x = (a.ravel() * 5.0 for a in np.meshgrid(np.arange(12.0), np.arange(12.0), indexing="ij"))
    positions = np.stack([np.zeros_like(y), y, x], axis=1)
    # what moves along z does not count
    u = np.stack([y**2, 1e-3 * y**2 + 2e-3 * x**2, x * y / 100], axis=1)
    at = positions[((positions[:, 1:] > 12) & (positions[:, 1:] < 45)).all(axis=1)]
    np.testing.assert_allclose(found_at(positions, u, at, 12.5, two_d=True), 6e-3, rtol=1e-6)


def test_noise_has_no_curvature() -> None:
    random = np.random.default_rng(2)
    positions = 10.0 * np.stack(np.meshgrid(*[np.arange(14.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    u = random.normal(0, 0.02, positions.shape)
    found = found_at(positions, u, positions, 25.0)
    # of three components some 0.8 % are beyond three standard errors; second differences would be 0.0013 everywhere
    assert 0 < np.mean(found > 0) < 0.03
    curved = u + quadratic(positions, np.full((3, 3, 3), 1e-3) * np.eye(3))
    inner = ((positions > 25) & (positions < 105)).all(axis=1)
    np.testing.assert_allclose(np.median(found_at(positions, curved, positions[inner], 25.0)), 3e-3, rtol=0.05)


@pytest.mark.parametrize("layers", [1, 2])
def test_few_layers_tell_what_is_in_their_plane(layers: int) -> None:
    grid = np.meshgrid(np.arange(float(layers)), np.arange(14.0), np.arange(14.0), indexing="ij")
    positions = 10.0 * np.stack(grid, axis=-1).reshape(-1, 3)
    # a steep slope along z is no curvature
    u = quadratic(positions, np.diag([0, 1e-3, 2e-3]) * np.ones((3, 1, 1))) + 0.3 * positions[:, :1]
    at = positions[((positions[:, 1:] > 35) & (positions[:, 1:] < 95)).all(axis=1)]
    # what is not determined is told apart by small weights only
    np.testing.assert_allclose(found_at(positions, u, at, 31.0), 3e-3, rtol=2e-3)


def test_where_nothing_is_known() -> None:
    y, x = (a.ravel() * 5.0 for a in np.meshgrid(np.arange(12.0), np.arange(12.0), indexing="ij"))
    plane = np.stack([np.zeros_like(y), y, x], axis=1)
    assert np.isnan(found_at(plane, np.ones_like(plane), plane, 5.0, two_d=True)).all()
    assert len(curvatures(plane, plane, plane[:0], np.zeros(1, np.int64), np.zeros(0, np.int64), True)) == 0
