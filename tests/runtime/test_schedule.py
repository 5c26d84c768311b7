"""The schedule and the ledger, without ranks and clocks."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass

import numpy as np
import pytest

from mpidvc.errors import UserError
from mpidvc.runtime.schedule import (
    GROWTH,
    LONGEST_ASSIGNMENT,
    SCHEDULER_ONLY_FROM,
    SERVED,
    SHARE,
    SHARE_OF_FEW,
    Followed,
    Lease,
    Ledger,
    Schedule,
    Shares,
)
from tests.runtime.pieces import Tens

LEASE = Lease(first=100.0, least=10.0, times=5.0, grace=1.0)


def ledger(n_chunks: int, size: int) -> Ledger[range]:
    return Ledger(Schedule(n_chunks, size), range(1, size), LEASE)


def test_everybody_gets_one_before_anybody_gets_a_reserve() -> None:
    book = ledger(100, 4)
    assert [rank for rank, _, _ in book.hand_out(0.0)] == [1, 2, 3, 1, 2, 3]
    assert list(book.hand_out(0.0)) == []
    assert book.returned(2, 1, 0.5, 1.0) == range(1, 2)
    assert [rank for rank, _, _ in book.hand_out(1.0)] == [2]


def test_lost_worker() -> None:
    """Its assignments come first, to an idle rank; rank 0 does everything if no worker is left."""
    book = ledger(7, 3)
    given = {number: chunks for _, number, chunks in book.hand_out(0.0)}
    assert [list(chunks) for chunks in given.values()] == [[0], [1], [2], [3]]
    book.lost(1)
    assert book.own() == (0, range(1))
    book.returned(2, 1, 1.0, 1.0)
    book.returned(2, 3, 1.0, 1.0)
    assert next(book.hand_out(1.0)) == (2, 2, range(2, 3))
    book.lost(2)
    book.lost(2)
    done = [0, 1, 3]
    while (own := book.own()) is not None:
        book.returned(0, own[0], 1.0, 1.0)
        done += own[1]
    book.returned(0, 0, 1.0, 2.0)
    assert sorted(done) == list(range(7))
    assert book.finished
    assert not book.undone


def test_rank_0_works_when_too_few_are_left_to_keep_it_busy() -> None:
    book = ledger(1000, SCHEDULER_ONLY_FROM)
    assert book.own() is None
    book.lost(5)
    assert book.own() is not None


def test_late_worker() -> None:
    """Its work is given to others, it gets nothing more until it answers, and the first result counts."""
    book = ledger(5, 3)
    assert [rank for rank, _, _ in book.hand_out(0.0)] == [1, 2, 1]
    assert book.expire(99.0) == []
    assert book.returned(2, 1, 1.0, 99.5) == range(1, 2)
    assert book.expire(101.0) == [1]
    assert list(book.hand_out(101.0)) == [(2, 0, range(1)), (2, 3, range(3, 4))]
    assert book.own() == (2, range(2, 3))
    assert book.returned(0, 2, 1.0, 102.0) == range(2, 3)
    assert book.returned(1, 0, 100.0, 103.0) == range(1)
    # it still works on the assignment that rank 0 has done, and rank 2 on its own
    assert book.returned(2, 0, 1.0, 104.0) is None
    assert book.returned(2, 3, 1.0, 104.0) == range(3, 4)
    assert list(book.hand_out(104.0)) == [(2, 4, range(4, 5))]
    assert book.returned(2, 4, 1.0, 105.0) == range(4, 5)
    assert book.finished
    assert (list(book.owing()), book.n_owing) == ([1], 1)
    assert book.returned(1, 2, 1.0, 106.0) is None
    assert (book.n_owing, book.undone) == (0, False)


def test_lease_follows_the_mean() -> None:
    book = ledger(1000, 2)
    first = list(book.hand_out(0.0))
    assert book.owing() == {1: 100.0}
    book.returned(1, first[0][1], 2.0, 2.0)
    # one chunk, 2 s expected
    assert book.owing() == {1: 2.0 + 10.0 + 5.0 * 2.0}
    assert book.expire(22.5) == [1]


def test_lease_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPIDVC_LEASE", "2.5")
    assert Lease.from_environment() == Lease(first=2.5, least=2.5, grace=2.5)
    monkeypatch.setenv("MPIDVC_LEASE", "soon")
    with pytest.raises(UserError, match="MPIDVC_LEASE=soon"):
        Lease.from_environment()
    monkeypatch.delenv("MPIDVC_LEASE")
    assert Lease.from_environment() == Lease()


@pytest.mark.parametrize("lost", [False, True])
def test_stop(lost: bool) -> None:
    book = ledger(100, 3)
    given = list(book.hand_out(0.0))
    assert book.stop() == [1, 2]
    assert list(book.hand_out(0.0)) == []
    assert book.own() is None
    for rank in (1, 2):
        assert not book.finished
        if lost:
            book.lost(rank)
            continue
        first, reserve = (number for to, number, _ in given if to == rank)
        book.returned(rank, first, 1.0, 1.0)
        book.given_back(rank, [reserve], 1.0)
    assert book.finished
    assert book.undone


def test_stop_when_all_is_done_or_in_hand() -> None:
    book = ledger(1, 2)
    ((rank, number, _),) = book.hand_out(0.0)
    book.stop()
    book.returned(rank, number, 1.0, 1.0)
    assert book.finished
    assert not book.undone


def test_shares_are_the_same_every_time() -> None:
    for _ in range(2):
        book = Ledger(Shares(10, 4), range(1, 4), LEASE)
        assert [(rank, chunks) for rank, _, chunks in book.hand_out(0.0)] == [
            (1, range(2, 5)),
            (2, range(5, 7)),
            (3, range(7, 10)),
        ]
        assert book.own() == (3, range(2))
        assert book.own() is None


def test_cost_does_not_grow_with_the_ranks() -> None:
    """A message of 10 000 ranks costs what one of 100 does (measured as process time, with room for noise)."""

    def seconds(size: int) -> float:
        book = ledger(10**7, size)
        given = list(book.hand_out(0.0))
        start = time.process_time()
        for k in range(3000):
            rank, number, chunks = given[k % len(given)]
            book.expire(k * 1e-3)
            book.returned(rank, number, 0.01 * len(chunks), k * 1e-3)
            given[k % len(given)] = next(book.hand_out(k * 1e-3))
        return time.process_time() - start

    few, many = min(seconds(100) for _ in range(3)), min(seconds(10_000) for _ in range(3))
    assert many < 5 * few + 0.05


@dataclass
class Taken:
    """An assignment, and the state of the schedule when it was taken."""

    rank: int
    in_hand: int
    chunks: range
    left: int
    done: int
    seconds: float


class Watched(Schedule):
    """Records its assignments."""

    def __init__(self, n_chunks: int, size: int) -> None:
        super().__init__(n_chunks, size)
        self.taken: list[Taken] = []

    def take(self, rank: int, in_hand: int) -> range | None:
        left = self.n_chunks - self.handed_out
        chunks = super().take(rank, in_hand)
        if chunks is not None:
            self.taken.append(Taken(rank, in_hand, chunks, left, self.rate.done, self.rate.seconds))
        return chunks


def uneven(n: int, mean: float, seed: int) -> list[float]:
    """Seconds of chunks in runs of eight: a third next to nothing, a twentieth ten times as long as the others."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice([1e-3, 1.0, 10.0], n // 8 + 1, p=[0.33, 0.62, 0.05])
    costs = np.repeat(kinds, 8)[:n]
    return (costs * (mean / (0.62 + 0.5))).tolist()


def play(costs: list[float], size: int) -> tuple[list[Taken], list[int]]:
    """Run a schedule with these costs; return all assignments and the chunks in the order in which they were done."""
    schedule = Watched(len(costs), size)
    book: Ledger[range] = Ledger(schedule, range(1, size), Lease())
    free = [0.0] * size
    coming: list[tuple[float, int, int, float]] = []
    done: list[int] = []
    now = 0.0
    while True:
        for rank, number, chunks in book.hand_out(now):
            seconds = sum(costs[chunk] for chunk in chunks)
            free[rank] = max(free[rank], now) + seconds
            heapq.heappush(coming, (free[rank], number, rank, seconds))
        if book.finished:
            return schedule.taken, done
        if coming and coming[0][0] <= now:
            _, number, rank, seconds = heapq.heappop(coming)
        elif (own := book.own()) is not None:
            rank, number = 0, own[0]
            seconds = sum(costs[chunk] for chunk in own[1])
            now += seconds
        else:
            now = coming[0][0]
            continue
        done += book.returned(rank, number, seconds, now) or ()


@pytest.mark.parametrize("size", [1, 2, 8, SCHEDULER_ONLY_FROM - 1, SCHEDULER_ONLY_FROM, 300])
def test_rules(size: int) -> None:
    costs = uneven(40 * size, 0.3, size)
    taken, done = play(costs, size)
    assert sorted(done) == list(range(len(costs)))
    many = size >= SCHEDULER_ONLY_FROM
    share = SHARE if many else SHARE_OF_FEW
    reserves = 0
    for made in taken:
        count = len(made.chunks)
        if made.rank == 0:
            assert not many
            assert count == 1
            continue
        # a multiple of what each has done, and a share of what is left
        assert count <= max(1, GROWTH * made.done // size)
        served = SERVED * size * made.done / made.seconds if made.seconds > 0 and made.left >= share * size else 0
        assert count <= max(1, made.left // (share * size), served)
        assert made.in_hand <= (not many and made.left >= size)
        reserves += made.in_hand
    assert (reserves > 0) == (1 < size < SCHEDULER_ONLY_FROM)
    # and single chunks in the end
    assert all(len(made.chunks) == 1 for made in taken if made.left < 2 * share * size)


@pytest.mark.parametrize("size", [64, 500])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nobody_gets_much_on_the_word_of_what_was_cheap(size: int, seed: int) -> None:
    """The first results are nearly all air; only this test knows the true mean."""
    mean = 0.3
    costs = uneven(400 * size, mean, seed)
    taken, _ = play(costs, size)
    believed = [made.seconds / made.done for made in taken if made.done]
    assert min(believed) < mean / 20
    assert max(len(made.chunks) for made in taken) * mean < 3 * LONGEST_ASSIGNMENT


def test_many_ranks_get_no_less_than_rank_0_can_serve() -> None:
    size, each = 10_000, 0.01
    schedule = Schedule(1000 * size, size)
    schedule.finished(range(100 * size), each * 100 * size)
    assert len(schedule.take(1, 0) or ()) == 125
    schedule = Schedule(20 * size, size)
    schedule.finished(range(100 * size), each * 100 * size)
    assert len(schedule.take(1, 0) or ()) == int(SERVED * size / each)
    # two make a long one, or what rank 0 needs for all
    assert int(2 * SERVED * 3 * size / each) > LONGEST_ASSIGNMENT / each
    schedule = Schedule(10**5 * size, 3 * size)
    schedule.finished(range(10**5 * size), each * 10**5 * size)
    assert len(schedule.take(1, 0) or ()) == pytest.approx(2 * SERVED * 3 * size / each, abs=1)


def test_an_assignment_lasts_no_longer_than_is_allowed() -> None:
    schedule = Schedule(10**6, 4)
    schedule.finished(range(10_000), 100.0)
    assert len(schedule.take(1, 0) or ()) == LONGEST_ASSIGNMENT / 0.01
    assert len(schedule.take(0, 0) or ()) == 1


@pytest.mark.parametrize("size", [1, 2, SCHEDULER_ONLY_FROM])
def test_what_follows_goes_first(size: int) -> None:
    """A piece is handed out as soon as it is ready, also as a reserve, but to rank 0 of many ranks."""
    feed = Tens(40)
    schedule = Followed(Schedule(40, size), feed)
    many = size >= SCHEDULER_ONLY_FROM
    worker = 0 if size == 1 else 1
    assert schedule.take(worker, 0) == range(1)
    assert not schedule.exhausted
    for chunk in range(20):
        feed.done(chunk)
    schedule.finished(range(1), 1.0)
    assert schedule.take(0, 0) == (None if many else [("ten", 0)])
    assert schedule.take(worker, 0) == [("ten", 0 if many else 1)]
    feed.done(20)
    if worker:
        assert isinstance(schedule.take(worker, 0), list if many else range)
        feed = Tens(10)
        reserve = Followed(Schedule(10, size), feed)
        for chunk in range(10):
            feed.done(chunk)
        assert reserve.take(worker, 1) == (None if many else [("ten", 0)])


def test_what_follows_has_a_cost_of_its_own() -> None:
    feed = Tens(20)
    schedule = Followed(Schedule(20, 2), feed)
    schedule.size -= 1
    assert schedule.size == 1
    for chunk in range(20):
        given = schedule.take(0, 0)
        assert given == range(chunk, chunk + 1)
        schedule.finished(given, 0.1)
    for chunk in range(20):
        feed.done(chunk)
    first, second = schedule.take(0, 0), schedule.take(0, 0)
    assert not isinstance(first, range)
    assert not isinstance(second, range)
    assert first is not None
    assert second is not None
    assert schedule.expected(second) is None
    schedule.finished(first, 7.0)
    assert schedule.expected(second) == 7.0
    assert schedule.expected(range(3)) == pytest.approx(0.3)
    schedule.finished(second, 7.0)
    feed.finished(first + second, [0, 0])
    assert not schedule.exhausted
    assert [schedule.take(0, 0) for _ in range(2)] == [[("after", 0)], [("after", 1)]]
    assert schedule.exhausted
    assert schedule.take(0, 0) is None
