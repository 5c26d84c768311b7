"""Run on several ranks: compares `MPIExecutor` with `InlineExecutor`, bit by bit."""

from __future__ import annotations

import sys

import numpy as np

from mpidvc.runtime import messages, schedule
from mpidvc.runtime.comm import connect, find_launcher, install_abort_hook
from mpidvc.runtime.executor import Executor, Following, InlineExecutor, make_executor
from tests.runtime.pieces import Sums, Tens, Uneven, follow, work


class Wide:
    n_chunks = 3

    def run(self, chunk: int) -> np.ndarray:
        return np.arange(200_000, dtype="f8") * chunk


communicator = connect(find_launcher())
install_abort_hook(communicator)
me = make_executor(communicator)
inline = InlineExecutor()
assert me.size == int(sys.argv[1])


def check(task: Uneven | Wide) -> None:
    here: dict[int, bytes] = {}
    there: dict[int, bytes] = {}

    def sink(chunk: int, records: np.ndarray) -> None:
        assert chunk not in there
        there[chunk] = records.tobytes()

    me.map(task, sink if me.rank == 0 else None)
    if me.rank == 0:
        inline.map(task, lambda chunk, records: here.update({chunk: records.tobytes()}))
        assert here == there


def check_following(executor: Executor, n_chunks: int) -> None:
    feed, done = Tens(n_chunks), []

    def sink(chunk: int, records: np.ndarray) -> None:
        feed.done(chunk)
        done.append(chunk)

    leads = executor.rank == 0
    executor.map(Uneven(n_chunks), sink if leads else None, None, Following(follow, feed if leads else None))
    if leads:
        assert sorted(done) == list(range(n_chunks))
        assert feed.results == feed.expected


for n_chunks in (0, 1, 2, 3, 5, 100):
    check_following(me, n_chunks)
    check_following(inline, n_chunks)
    check(Uneven(n_chunks))
    argument = np.linspace(1, 2, 30) if me.rank == 0 else None
    total = me.reduce(Uneven(n_chunks), argument)
    expected = inline.reduce(Uneven(n_chunks), np.linspace(1, 2, 30))
    assert total.tobytes() == expected.tobytes()
    assert total.dtype == np.float64

for n_pieces in (0, 1, 2, 3, 100, 1000):
    feed = Sums(n_pieces)
    me.flow(work, feed if me.rank == 0 else None)
    if me.rank == 0:
        oracle = Sums(n_pieces)
        inline.flow(work, oracle)
        assert feed.results == oracle.results
        assert len(feed.results) == n_pieces


# Some of the workers only: the results are those of rank 0 and these.
class Ranks(Uneven):
    def run(self, chunk: int) -> int:  # type: ignore[override]
        super().run(chunk)
        return me.rank


def rank_of(batch: list[tuple[int, int]]) -> list[int]:
    work(batch)
    return [me.rank] * len(batch)


def check_among(among: set[int]) -> None:
    seen: set[int] = set()
    me.map(Ranks(60), (lambda chunk, rank: seen.add(rank)) if me.rank == 0 else None, among=among)
    feed = Sums(60)
    me.flow(rank_of, feed if me.rank == 0 else None, among=among)
    if me.rank == 0:
        allowed = {0, *among} & set(range(me.size))
        assert seen == allowed
        assert set(feed.results.values()) == allowed
        assert len(feed.results) == 60


for among in (set(), {1}, {2, 3}):
    check_among(among)

# Messages that have to be split.
messages.LONGEST_MESSAGE = 100_000
check(Wide())
assert np.array_equal(me.broadcast(np.arange(1e5) if me.rank == 0 else None), np.arange(1e5))
messages.LONGEST_MESSAGE = 2**29

# Records that nobody wants, rank 0 as scheduler only.
me.map(Uneven(10), None)
if me.size > 1:
    schedule.SCHEDULER_ONLY_FROM = 2
    check(Uneven(50))
    check_following(me, 105)
    feed = Sums(60)
    me.flow(work, feed if me.rank == 0 else None)
    assert len(feed.results) == (60 if me.rank == 0 else 0)
assert me.broadcast("end" if me.rank == 0 else None) == "end"
if me.rank == 0:
    print("all equal")
