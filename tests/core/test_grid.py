"""Nodes where they have to be, and chunks that hold every point once."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core import grid
from mpidvc.core.grid import MOST_POINTS, brick_edge, chunk_points, grid_order, make_grid


@pytest.mark.parametrize(
    ("shape", "spacing", "axes"),
    [
        ((40, 44, 48), (10, 11, 12), ([10, 20, 30], [11, 22, 33], [12, 24, 36])),
        ((41, 45, 49), (10, 11, 12), ([10, 20, 30, 40], [11, 22, 33, 44], [12, 24, 36, 48])),
        ((5, 6, 7), (4, 6, 3), ([4], [], [3, 6])),
        ((1, 21, 31), (10, 10, 10), ([0], [10, 20], [10, 20, 30])),
        ((2, 3, 3), (1, 1, 1), ([1], [1, 2], [1, 2])),
    ],
)
def test_grid(shape, spacing, axes):
    """First node at the spacing, all below the size, Z slowest; Z = 0 in 2D."""
    positions, dims = make_grid(shape, spacing)
    expected = [(z, y, x) for z in axes[0] for y in axes[1] for x in axes[2]]
    assert dims == tuple(map(len, axes))
    assert positions.dtype == np.float64
    assert positions.shape == (len(expected), 3)
    assert positions.tolist() == [list(map(float, p)) for p in expected]


def check_partition(chunks: grid.Chunks, n: int) -> None:
    parts = [chunks.points(k) for k in range(len(chunks))]
    assert sorted(np.concatenate([*parts, np.zeros(0, int)]).tolist()) == list(range(n))
    assert all(0 < len(part) <= MOST_POINTS for part in parts)
    assert chunks.order.dtype == chunks.start.dtype == np.int64


@pytest.mark.parametrize("n_nodes", [(1, 1, 1), (3, 4, 5), (20, 21, 22), (1, 50, 60), (40, 3, 90)])
@pytest.mark.parametrize("edge", [(5, 5, 5), (31, 17, 44), (1000, 1000, 1000), (0.5, 0.5, 0.5)])
def test_every_point_once(n_nodes, edge):
    positions, _ = make_grid(tuple(5 * n + 1 if n > 1 else 6 for n in n_nodes), (5, 5, 5))
    check_partition(chunk_points(positions, edge), len(positions))


def test_scattered_points():
    positions = np.random.default_rng(1).uniform(-50, 200, (3000, 3))
    chunks = chunk_points(positions, (40, 50, 60))
    check_partition(chunks, 3000)
    for k in range(len(chunks)):
        assert (np.ptp(positions[chunks.points(k)], axis=0) <= (40, 50, 60)).all()


@pytest.mark.parametrize("far", [100.0, 1e4, 2.0**39])
def test_bricks_are_in_their_order(far):
    """z slowest, and within a brick the order of the points, however many bricks there are."""
    positions = np.random.default_rng(4).integers(0, int(far), (3000, 3)).astype(float)
    edge = np.array([7.0, 9.0, 30.0])
    brick = np.floor((positions - positions.min(axis=0) + 0.5) / edge)
    expected = sorted(range(len(positions)), key=lambda k: (*brick[k], k))
    assert chunk_points(positions, edge).order.tolist() == expected


def test_coinciding_points():
    """More points than a chunk holds in one place."""
    chunks = chunk_points(np.ones((2 * MOST_POINTS + 7, 3)), (10, 10, 10))
    check_partition(chunks, 2 * MOST_POINTS + 7)
    assert [len(chunks.points(k)) for k in range(len(chunks))] == [MOST_POINTS, MOST_POINTS, 7]


def test_no_points():
    chunks = chunk_points(np.zeros((0, 3)), (10, 10, 10))
    assert len(chunks) == 0
    check_partition(chunks, 0)


def test_bricks_hold_whole_numbers_of_nodes():
    """Chunks of a grid are full bricks of neighbours, whatever the last digit of a position."""
    for noise in (0.0, 1e-9):
        positions, dims = make_grid((100, 100, 100), (7, 7, 7))
        positions += noise * np.random.default_rng(2).uniform(-1, 1, positions.shape)
        chunks = chunk_points(positions, np.array([3, 3, 3]) * 7)
        assert dims == (14, 14, 14)
        assert len(chunks) == 5**3
        sizes = [len(chunks.points(k)) for k in range(len(chunks))]
        assert sorted(set(sizes)) == [8, 12, 18, 27]
        for k in range(len(chunks)):
            assert (np.ptp(positions[chunks.points(k)], axis=0) < 14.1).all()


def test_order_of_a_chunk_is_that_of_the_points():
    positions, _ = make_grid((60, 60, 60), (5, 5, 5))
    chunks = chunk_points(positions, (20, 20, 20))
    for k in range(len(chunks)):
        assert (np.diff(chunks.points(k)) > 0).all()


def test_chunks_follow_from_their_input_alone():
    positions = np.random.default_rng(3).uniform(0, 100, (700, 3))
    first, second = (chunk_points(positions.copy(), (30, 30, 30)) for _ in range(2))
    assert first.order.tobytes() == second.order.tobytes()
    assert first.start.tobytes() == second.start.tobytes()
    # the same points in another place: the same division
    moved = chunk_points(positions + 512, (30, 30, 30))
    assert moved.order.tobytes() == first.order.tobytes()


@pytest.mark.parametrize("n_points", [1, 40, 1000, 10**5, 10**7])
@pytest.mark.parametrize("spacing", [1, 5, 20, 300])
@pytest.mark.parametrize("two_d", [False, True], ids=["3d", "2d"])
def test_bricks(n_points, spacing, two_d):
    """At least one point, at most as many as a chunk holds, boxes within the limit; enough of them to share out."""
    frame = np.array([1 if two_d else 40, 40, 40])
    largest = 2_000_000
    edge = brick_edge(n_points, (spacing,) * 3, frame, largest)
    per_axis = edge / spacing
    axes = 2 if two_d else 3
    assert (per_axis == per_axis[0]).all()
    per_axis = per_axis[0]
    assert per_axis == int(per_axis) >= 1
    assert per_axis**axes <= MOST_POINTS
    box = ((per_axis - 1) * spacing + frame[-axes:]).prod()
    assert box <= largest or per_axis == 1
    assert n_points / per_axis**axes >= 24 or per_axis == 1
    # one point more per axis would break a limit, or leave too few chunks
    more = per_axis + 1
    too_large = (per_axis * spacing + frame[-axes:]).prod() > largest
    assert too_large or more**axes > MOST_POINTS or n_points / more**axes < grid.FEWEST_CHUNKS


def test_brick_along_every_axis():
    """Bricks are boxes of as many nodes along every axis, not cubes of space."""
    edge = brick_edge(10**6, (4, 8, 16), (40, 40, 40), 16_000_000)
    np.testing.assert_array_equal(edge, [32, 64, 128])
    positions, _ = make_grid((161, 321, 641), (4, 8, 16))
    chunks = chunk_points(positions, edge)
    assert [len(chunks.points(k)) for k in range(len(chunks))] == [512] * 125


@pytest.mark.parametrize("n", [20, 60, 2000])
def test_boxes_of_few_scattered_points_stay_small(n):
    """Far apart points share no box; what is near shares one of about the largest size."""
    rng = np.random.default_rng(n)
    positions = rng.random((n, 3)) * 2000
    frame = np.array([49.0, 49, 49])
    spacing = np.full(3, 2000 / n ** (1 / 3))
    chunks = chunk_points(positions, brick_edge(n, spacing, frame, 16_000_000, regular=False))
    extents = [np.ptp(positions[chunks.points(k)], axis=0) + frame for k in range(len(chunks))]
    assert max(map(np.prod, extents)) <= 16_000_000 * 1.01


@pytest.mark.parametrize("dims", [(1, 1, 1), (7, 5, 9), (1, 23, 47), (16, 8, 24), (17, 9, 1), (1, 1, 40), (3, 40, 2)])
@pytest.mark.parametrize("per", [(1, 1, 1), (8, 8, 8), (1, 22, 22), (3, 2, 5)])
def test_computed_order_is_the_sorted_one(dims: tuple[int, int, int], per: tuple[int, int, int]) -> None:
    spacing = np.array([4.0, 3.0, 5.0])
    positions = np.stack(np.meshgrid(*map(np.arange, dims), indexing="ij"), axis=-1).reshape(-1, 3) * spacing + 7
    edge = np.array(per) * spacing
    sorted_ones = chunk_points(positions, edge)
    order = grid_order(dims, spacing, edge)
    assert order is not None
    n = len(order)
    assert order[:].tolist() == sorted_ones.order.tolist()
    assert order.starts.tolist() == sorted_ones.start.tolist()
    nx = dims[2]
    # parts of lines, too: the middle of the first and of the last one, and from one to the next
    parts = [(nx // 3, nx // 2 + 1), (n - nx // 2 - 1, n), (nx // 2, min(nx + 1, n))]
    for start, stop in ((0, n), (n // 3, n // 2), (n, n), *parts):
        assert order[start:stop].tolist() == sorted_ones.order[start:stop].tolist()
        assert np.argsort(sorted_ones.order)[start:stop].tolist() == order.places(start, stop).tolist()
    for most in (1, 30, 200, 10**6):
        found = order.pieces(most)
        pieces = [found[k] for k in range(len(found))]
        assert found.ends.tolist() == [piece[1] for piece in pieces]
        assert [piece[0] for piece in pieces[1:]] == [piece[1] for piece in pieces[:-1]]
        assert (pieces[0][0], pieces[-1][1]) == (0, len(order.starts) - 1)
        for first, end, ranges in pieces:
            rows = np.concatenate([np.arange(*each) for each in ranges])
            assert rows.tolist() == sorted(order[order.starts[first] : order.starts[end]].tolist())
            assert len(rows) <= most or end - first == 1


@pytest.mark.parametrize(
    ("spacing", "edge"), [((4, 4, 4), (32, 32, 30)), ((0.4, 0.4, 0.4), (4, 4, 4)), ((4, 4, 4), (40, 40, 40))]
)
def test_uneven_bricks_are_not_computed(spacing: tuple[float, ...], edge: tuple[float, ...]) -> None:
    """Bricks that cut the grid unevenly, nodes closer than the slack, and more nodes than a chunk may have."""
    assert grid_order((20, 20, 20), spacing, edge) is None
