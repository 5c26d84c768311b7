"""What goes where, again and to whom; no ranks and no clocks needed."""

from __future__ import annotations

import time

import pytest

from mpidvc.errors import UserError
from mpidvc.runtime.schedule import SCHEDULER_ONLY_FROM, Lease, Ledger, Schedule, Shares, Window

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
    """What it had comes first, to one that has nothing; rank 0 does it all if nobody is left."""
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
    # it still works on what rank 0 has done, and rank 2 on what it has done itself
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


def test_window() -> None:
    window = Window(iter("abcdefghij"), 2)
    taken = [window.take(1, 0) for _ in range(9)]
    assert taken[0] == (0, "a")
    assert taken[8] is None
    window.release()
    assert window.take(1, 1) == (8, "i")


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
