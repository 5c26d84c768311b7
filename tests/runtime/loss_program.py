"""Run on several ranks, some of which get a signal meanwhile: the results are those of one process.

Arguments: what is run, the signal, and the numbers of the ranks that get it, once some results are there. A rank that
gets SIGSTOP sends it to itself between messages: suspended within MPI it may block the shared queues of the others.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

from mpidvc.runtime.comm import connect, find_launcher, install_abort_hook
from mpidvc.runtime.executor import Following, InlineExecutor, make_executor
from mpidvc.runtime.stop import Stopped, graceful, handling_signals
from tests.runtime.pieces import Sums, Tens, Uneven, follow, work

CHUNKS = 300
SUMS = 4

what, name, ranks = sys.argv[1:4]
communicator = connect(find_launcher())
install_abort_hook(communicator)
me = make_executor(communicator, warn=lambda text: print(f"warning: {text}", flush=True))
inline = InlineExecutor()
struck = False


def strike(n: int) -> None:
    """Send the signal after so many results."""
    global struck
    if me.rank == 0 and n == 20 and not struck and name != "STOP":
        struck = True
        for rank in map(int, ranks.split(",")):
            os.kill(me.processes[rank][1], signal.Signals[f"SIG{name}"])


calls = 0


def hang() -> None:
    global calls
    calls += 1
    if name == "STOP" and calls == 4 and str(me.rank) in ranks.split(","):
        os.kill(os.getpid(), signal.SIGSTOP)


def linger(number: int) -> None:
    """Let work last that is asked to stop: a rank may be slow to tell the others that it was."""
    if name == "USR1" and number > 60:
        time.sleep(0.05)


def working(batch: list[tuple[int, int]]) -> list[int]:
    hang()
    linger(batch[0][0])
    return work(batch)


class Struck(Uneven):
    def run(self, chunk: int) -> np.ndarray:
        hang()
        linger(chunk)
        return super().run(chunk)

    def run_sum(self, chunk: int, argument: np.ndarray) -> np.ndarray:
        hang()
        if argument[0] == 3:
            strike(chunk + 20 if me.rank == 0 else 0)
        return super().run_sum(chunk, argument)


class StruckSums(Sums):
    def finished(self, batch: list[tuple[int, int]], result: list[int]) -> None:
        super().finished(batch, result)
        if len(self.results) > 20:
            strike(20)


def run_map() -> bool:
    here: dict[int, bytes] = {}
    there: dict[int, bytes] = {}

    def sink(chunk: int, records: np.ndarray) -> None:
        assert chunk not in there
        there[chunk] = records.tobytes()
        strike(len(there))

    stopped = False
    try:
        me.map(Struck(CHUNKS), sink if me.rank == 0 else None, stop)
    except Stopped:
        stopped = True
    if me.rank == 0:
        inline.map(Uneven(CHUNKS), lambda chunk, records: here.update({chunk: records.tobytes()}))
        assert there.items() <= here.items()
        assert stopped == (len(there) < CHUNKS)
    return stopped


def run_flow() -> bool:
    feed, oracle = StruckSums(1000), Sums(1000)
    stopped = False
    try:
        me.flow(working, feed if me.rank == 0 else None, stop)
    except Stopped:
        stopped = True
    if me.rank == 0:
        inline.flow(work, oracle)
        assert feed.results.items() <= oracle.results.items()
        assert stopped == (len(feed.results) < 1000)
    return stopped


def following(batch: list[tuple[str, int]]) -> list[int]:
    hang()
    return follow(batch)


def run_following() -> bool:
    feed, done = Tens(CHUNKS), []

    def sink(chunk: int, records: np.ndarray) -> None:
        assert chunk not in done
        done.append(chunk)
        feed.done(chunk)
        strike(len(done))

    stopped = False
    try:
        me.map(
            Struck(CHUNKS), sink if me.rank == 0 else None, stop, Following(following, feed if me.rank == 0 else None)
        )
    except Stopped:
        stopped = True
    if me.rank == 0:
        assert feed.results.items() <= feed.expected.items()
        assert stopped == (len(done) < CHUNKS or len(feed.results) < len(feed.expected))
    return stopped


def run_reduce() -> bool:
    for k in range(2, 2 + SUMS):
        argument = np.full(30, float(k))
        total = me.reduce(Struck(CHUNKS), argument if me.rank == 0 else None)
        assert total.tobytes() == inline.reduce(Uneven(CHUNKS), argument).tobytes()
    return False


with handling_signals(), graceful() as stop:
    stopped = globals()[f"run_{what}"]()
    # The remaining ranks still work together, with long broadcasts too.
    if not stopped:
        for size in (1, 10**5):
            values = me.broadcast(np.arange(size) if me.rank == 0 else None)
            assert np.array_equal(values, np.arange(size))
        assert run_reduce() is False
if me.rank == 0:
    print(f"{'stopped' if stopped else 'all equal'} {len(me.losses)} lost", flush=True)
me.finish(0)
