"""Order of points and what they start from, against the definition one point after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mpidvc.core.propagation import GUESS, Propagation, rank_points
from tests.kernels.test_neighbours import brute_walk, some_points

#: The threshold of all tests.
GOOD = 0.9


@pytest.mark.parametrize("seed", range(20))
def test_ranking(seed: int) -> None:
    points = some_points(seed)
    square = np.square(points - points[0]).sum(axis=1)
    by_distance = [0, *sorted(range(1, len(points)), key=lambda k: (square[k], k))]
    order = rank_points(points, "distance", 1.0)
    assert order.dtype == np.int64
    assert order.tolist() == by_distance
    assert rank_points(points, "walk", 1.5).tolist() == brute_walk(points, 1.5)


@pytest.mark.parametrize("ranking", ["distance", "walk"])
def test_nothing_to_rank(ranking: str) -> None:
    assert rank_points(np.zeros((0, 3)), ranking, 1.0).shape == (0,)


def answer(point: int, guess: np.ndarray, share_bad: float) -> tuple[np.ndarray, float]:
    """A search that finds something which follows from the guess, and sometimes nothing good."""
    rng = np.random.default_rng(point)
    bad = rng.random() < share_bad
    return guess + rng.integers(-2, 4, 3), 0.5 if bad else float(rng.choice([GOOD, 0.95, 1.0]))


def one_after_the_other(
    positions: np.ndarray, start: np.ndarray, radius: float, distance: float, share_bad: float
) -> tuple[list[list[int]], int]:
    """Guesses by the definition, and the longest chain of points that wait for one another."""
    n = len(positions)
    guesses, found, depth = [], np.zeros((n, 3)), np.zeros(n, int)
    good = np.zeros(n, bool)
    for k in range(n):
        square = np.square(positions[:k] - positions[k]).sum(axis=1)
        reach = radius
        while not good[:k][square <= reach**2].any() and reach < 1e6:
            reach *= 2
        near = np.nonzero((square <= reach**2) & good[:k])[0]
        depth[k] = 1 + depth[:k][square <= reach**2].max(initial=0)
        guess = start
        if len(near):
            weights = [math.exp((square[near].min() - square[j]) / distance**2) for j in near]
            sums = [sum(w * found[j, a] for w, j in zip(weights, near, strict=True)) for a in range(3)]
            guess = np.array([round(s / sum(weights)) for s in sums])
        guesses.append(guess.tolist())
        found[k], cc = answer(k, guess, share_bad)
        good[k] = cc >= GOOD
    return guesses, int(depth.max(initial=0))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("share_bad", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("ranking", ["distance", "walk"])
def test_any_order_of_work_gives_the_sequential_guesses(seed: int, share_bad: float, ranking: str) -> None:
    rng = np.random.default_rng(seed)
    positions = some_points(seed)
    radius, distance = float(rng.choice([0.05, 0.5, 1.5, 3.0])), float(rng.choice([0.1, 2.0, 30.0]))
    positions = positions[rank_points(positions, ranking, radius)]
    start = np.array([3, -4, 5])
    expected, longest = one_after_the_other(positions, start, radius, distance, share_bad)
    propagation = Propagation(positions, start, radius, distance, GOOD)
    assert len(propagation) == len(positions)
    guesses: dict[int, list[int]] = {}
    flying: list[np.ndarray] = []
    while not propagation.exhausted or flying:
        if propagation.ready and rng.random() < 0.6:
            batch = propagation.take(int(rng.integers(1, 6)))
            assert batch.dtype == GUESS
            assert len(batch)
            flying.append(batch)
        elif flying:
            # the oldest one need not end first
            batch = flying.pop(int(rng.integers(len(flying))))
            displacement, cc = np.zeros((len(batch), 3)), np.zeros(len(batch))
            for k, (point, position, guess) in enumerate(batch):
                assert np.array_equal(position, positions[point])
                assert point not in guesses
                guesses[int(point)] = guess.tolist()
                displacement[k], cc[k] = answer(int(point), guess, share_bad)
            displacement[cc < GOOD] = np.nan
            propagation.finished(batch, displacement, cc)
    assert [guesses[k] for k in range(len(positions))] == expected
    assert propagation.mean_width == pytest.approx(len(positions) / longest)


def test_lookups_may_be_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked up at once is a matter of memory, not of the result."""
    monkeypatch.setattr("mpidvc.core.propagation.AT_ONCE", 3)
    test_any_order_of_work_gives_the_sequential_guesses(5, 0.4, "distance")


def test_a_bad_point_counts_no_more_than_none() -> None:
    """Neighbours: a bad one nearby, a good one farther away, whose displacement is taken."""
    positions = np.array([[0, 0, 0], [0, 0, 9], [0, 0, 10.0]])
    propagation = Propagation(positions, (0, 0, 0), 2.0, 5.0, GOOD)
    results = iter([((1, 2, 3), 1.0), ((50, 50, 50), 0.89)])
    for displacement, cc in results:
        assert propagation.ready == 1
        batch = propagation.take(10)
        propagation.finished(batch, np.array([displacement], float), np.array([cc]))
    assert propagation.take(10)["guess"].tolist() == [[1, 2, 3]]
    assert propagation.exhausted
    assert propagation.mean_width == 1.0


def test_weights_do_not_vanish_together() -> None:
    """exp(-d²/D²) of neighbours 1000 D away is 0 in any floating point."""
    propagation = Propagation(np.array([[0, 0, 0], [0, 0, 1000.0]]), (0, 0, 0), 1.0, 1.0, GOOD)
    propagation.finished(propagation.take(1), np.array([[7.0, -8, 9]]), np.ones(1))
    assert propagation.take(1)["guess"].tolist() == [[7, -8, 9]]
