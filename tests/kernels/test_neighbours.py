"""Neighbours and the walk against a comparison with every point."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.kernels import neighbours
from tests.core.brute import BruteForce


def some_points(seed: int) -> np.ndarray:
    """Few places for many points: ties, points on a sphere's surface, and points at the same place."""
    rng = np.random.default_rng(seed)
    n, edge = int(rng.integers(1, 200)), int(rng.integers(1, 12))
    points = rng.integers(0, edge, (n, 3)).astype(float)
    return points * 0.1 if seed % 3 == 0 else points


def brute_walk(points: np.ndarray, radius: float) -> list[int]:
    order, left = [0], list(range(1, len(points)))
    for centre in order:
        square = np.square(points[left] - points[centre]).sum(axis=1) if left else np.zeros(0)
        near = [k for k, s in zip(left, square, strict=True) if s <= radius * radius]
        if not near and left:
            near = [left[int(np.argmin(square))]]
        order += near
        left = [k for k in left if k not in near]
    return order


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("radius", [0.0, 0.3, 1.0, 2.5, 100.0])
def test_walk(seed: int, radius: float) -> None:
    points = some_points(seed)
    order = neighbours.walk(points, radius)
    assert order.dtype == np.int64
    assert order.tolist() == brute_walk(points, radius)


def test_walk_of_nothing() -> None:
    assert neighbours.walk(np.zeros((0, 3)), 1.0).tolist() == []


@pytest.mark.parametrize("seed", range(20))
def test_earlier(seed: int) -> None:
    positions = some_points(seed)
    rng = np.random.default_rng(seed + 100)
    asked = rng.integers(0, len(positions), 50)
    radii = rng.choice([0.0, 0.3, 1.0, 2.0, 5.0, 50.0], 50)
    start, found = neighbours.Points(positions).earlier(asked, radii, 10**9)
    assert start[0] == 0
    for k, (point, radius) in enumerate(zip(asked, radii, strict=True)):
        square = np.square(positions[:point] - positions[point]).sum(axis=1)
        assert found[start[k] : start[k + 1]].tolist() == np.nonzero(square <= radius * radius)[0].tolist()


def test_earlier_ends_early() -> None:
    positions = np.zeros((10, 3))
    start, found = neighbours.Points(positions).earlier(np.arange(10), np.ones(10), 2)
    assert start.tolist() == [0, 0, 1, 3]
    assert found.tolist() == [0, 0, 1]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        neighbours.Points([[0, np.nan, 0]])
    points = neighbours.Points(np.zeros((2, 3)))
    for wrong in (-1, 2):
        with pytest.raises(IndexError):
            points.earlier(np.array([wrong]), np.ones(1), 9)
    with pytest.raises(ValueError, match="length"):
        points.earlier(np.array([0]), np.ones(2), 9)


@pytest.mark.parametrize("seed", range(12))
def test_within_and_nearest(seed: int) -> None:
    positions = some_points(seed)
    rng = np.random.default_rng(seed + 200)
    centres = np.concatenate([positions[:3], rng.uniform(-2, 12, (10, 3))])
    radii = rng.choice([0.0, 0.3, 1.0, 2.0, 50.0], len(centres))
    points = neighbours.Points(positions)
    for shared in (points, neighbours.Points(positions, points.tree)):
        start, found = shared.within(centres, radii)
        assert start[0] == 0
        for k, centre in enumerate(centres):
            square = np.square(positions - centre).sum(axis=1)
            assert found[start[k] : start[k + 1]].tolist() == np.nonzero(square <= radii[k] ** 2)[0].tolist()
        for number in (0, 1, 7, len(positions) + 3):
            # by distance, then by index
            order = [np.argsort(np.square(positions - c).sum(axis=1), kind="stable")[:number] for c in centres]
            assert shared.nearest(centres, number).tolist() == np.array(order).tolist()


@pytest.mark.parametrize("seed", range(6))
def test_within_on_grids(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dims = (1 if seed % 3 == 0 else 4, 6, 5)
    # whole numbers have neighbours at the radius itself; others do not
    axes = [np.cumsum(rng.integers(1, 4, n) if seed % 2 else rng.uniform(0.1, 3, n)).astype(float) for n in dims]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    centres = np.concatenate([positions[::7], rng.uniform(-2, 14, (10, 3)), np.full((1, 3), 1e9)])
    usable = rng.random(len(positions)) < 0.5
    brute, points = BruteForce(positions), neighbours.Points(positions, None, dims)
    for radius in (0.0, 1.0, 2.0, 5.0, 100.0):
        for fewest, most in ((0, -1), (0, 40), (9 if radius else 0, 40)):
            for marks in (None, usable):
                got = points.within(centres, radius, marks, fewest, most)
                right = brute.within(centres, radius, marks, fewest, most)
                assert [part.tolist() for part in got] == [part.tolist() for part in right]
    assert points.nearest(centres, 4, usable).tolist() == brute.nearest(centres, 4, usable).tolist()


def test_points_that_are_no_grid_are_searched_by_the_tree() -> None:
    positions = np.stack(np.meshgrid([0.0, 1], [0.0, 1], [0.0, 1, 2], indexing="ij"), axis=-1).reshape(-1, 3)
    moved = positions.copy()
    moved[5, 1] += 0.25
    for points, dims in (
        (moved, (2, 2, 3)),
        (positions, (3, 2, 2)),
        (positions[::-1], (2, 2, 3)),
        (positions, (2, 2, 2)),
    ):
        got = neighbours.Points(points, None, dims).within(points, 1.0)
        right = BruteForce(points).within(points, 1.0)
        assert [part.tolist() for part in got] == [part.tolist() for part in right]


def test_neighbours_of_nothing() -> None:
    points = neighbours.Points(np.zeros((0, 3)))
    empty = neighbours.Points(np.zeros((0, 3)), points.tree)
    assert empty.nearest([[0.0, 0.0, 0.0]], 3).shape == (1, 0)
    assert empty.within([[0.0, 0.0, 0.0]], 9.0)[0].tolist() == [0, 0]
    for wrong in (points.nearest, points.within):
        with pytest.raises(ValueError, match="finite"):
            wrong([[0, 0, np.nan]], 1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fewest", [0, 5, 10_000])
def test_usable_points_alone_are_found(seed: int, fewest: int) -> None:
    rng = np.random.default_rng(seed)
    positions, centres = rng.uniform(0, 100, (300, 3)), rng.uniform(0, 100, (20, 3))
    usable = rng.random(300) < (0.0, 0.01, 0.3)[seed % 3]
    brute, points = BruteForce(positions), neighbours.Points(positions)
    for most in (-1, 10):
        for got, right in zip(
            points.within(centres, 12.0, usable, fewest, most),
            brute.within(centres, 12.0, usable, fewest, most),
            strict=True,
        ):
            assert got.tolist() == right.tolist()
    for number in (0, 4, 400):
        assert points.nearest(centres, number, usable).tolist() == brute.nearest(centres, number, usable).tolist()


def test_usable_tells_of_every_point_and_a_doubled_radius_grows() -> None:
    points = neighbours.Points(np.zeros((3, 3)))
    for search in (points.within, points.nearest):
        with pytest.raises(ValueError, match="every point"):
            search(np.zeros((1, 3)), 1, np.ones(2, bool))
    with pytest.raises(ValueError, match="doubled"):
        points.within(np.zeros((1, 3)), 0.0, fewest=1)
