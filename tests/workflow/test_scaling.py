"""Time on many ranks, from the simulation: bounds that hold whatever the costs are."""

from __future__ import annotations

import pytest

from mpidvc.workflow.scaling import FILE_ALL, alone, guessing, kept, ordering, seconds_of_chunks, sharing, text_bytes

EVEN = (1.0,)


def test_one_rank_does_all_the_work() -> None:
    assert seconds_of_chunks(123.0, 7, EVEN, 1) == 123.0
    assert seconds_of_chunks(0.0, 7, EVEN, 4) == 0.0


@pytest.mark.parametrize(("ranks", "chunks"), [(2, 10), (4, 64), (16, 400), (64, 1000)])
def test_no_faster_than_the_work_allows(ranks: int, chunks: int) -> None:
    work = 2.0 * chunks
    # where ranks are many rank 0 does no work
    workers = ranks - (ranks >= 24)
    rounds = -(-chunks // workers)
    found = seconds_of_chunks(work, chunks, EVEN, ranks)
    assert 2.0 * rounds <= found < 2.0 * (rounds + 1.2)


def test_more_ranks_than_chunks_gain_nothing() -> None:
    few, many = (seconds_of_chunks(30.0, 10, EVEN, ranks) for ranks in (16, 256))
    assert few >= 3.0
    assert many >= 3.0


def test_uneven_chunks_take_longer() -> None:
    even = seconds_of_chunks(160.0, 160, EVEN, 16)
    assert seconds_of_chunks(160.0, 160, (0.1, 0.1, 0.1, 0.1, 9.6), 16) > 1.1 * even


def test_long_runs_are_prolonged() -> None:
    assert seconds_of_chunks(1e6, 10**6, EVEN, 64) == pytest.approx(1e6 / 63, rel=0.05)


def test_costs_grow_with_the_points() -> None:
    costs = kept()
    for cost in (alone, ordering, sharing, guessing):
        assert 0 <= cost(costs, 4, 1e5) < cost(costs, 4, 1e7)
    # a 64th of the time of one rank, or what the file system takes for all of them
    one, files = sharing(costs, 1, 1e8), 1e8 * text_bytes(costs) / FILE_ALL
    assert max(one / 64, files) <= sharing(costs, 64, 1e8) < one / 64 + files
