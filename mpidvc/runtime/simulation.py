"""A discrete-event simulation of the master and its workers.

What goes to whom, and again if somebody is lost, is decided by the program's own `Schedule` and `Ledger`; only time,
messages and the ranks themselves are made up here. The master is one server that does one thing after the other, as
rank 0 does; a worker begins what it was given in order, and has nothing to do while its next assignment is on its way.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.runtime.schedule import SCHEDULER_ONLY_FROM, Followed, Lease, Ledger, Schedule

__all__ = ["Case", "Costs", "Ending", "Outcome", "bound", "chunk_costs", "extended", "nap", "simulate"]

#: Longest nap of a waiting process, and the growth from nap to nap (`messages.Backoff`), seconds.
LONGEST_NAP, NAP_STEP = 1e-3, 1e-5
#: How chunks are distributed: share of all chunks and range of the cost over that of an ordinary chunk, and the number
#: of neighbours that are alike, on average.
AIR, DIVERGING, SLOWEST, ALIKE = 0.2, 0.05, (4.0, 10.0), 8


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Times besides those of the chunks, in seconds.

    Attributes
    ----------
    send : float
        Of the master, to send an assignment.
    message : float
        Of the master, for a report without regard to its length: receiving, bookkeeping.
    chunk : float
        Of the master, for every chunk that is reported.
    write : float
        Of the worker, for every chunk.
    payload : float
        Bytes that are reported for every chunk.
    latency, bandwidth : float
        Of the network, in seconds and bytes per second; the master's link is shared by all.
    """

    send: float = 0.0
    message: float = 0.0
    chunk: float = 0.0
    write: float = 0.0
    payload: float = 0.0
    latency: float = 0.0
    bandwidth: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The finished file and the text, which are written in pieces while chunks are done.

    Attributes
    ----------
    chunks : int
        Chunks of a piece.
    layer : int
        Pieces of a layer of the grid: the text of a layer is written when it and all layers before are in the file.
    rows, text : float
        Seconds of a rank for a piece, and for its text.
    chunk_bytes, rows_bytes, text_bytes : float
        Bytes that are read and written for a chunk, a piece and its text.
    bandwidth : float
        Of the file system, for all ranks together, bytes per second.
    """

    chunks: int
    layer: int
    rows: float
    text: float
    chunk_bytes: float = 0.0
    rows_bytes: float = 0.0
    text_bytes: float = 0.0
    bandwidth: float = math.inf


@dataclass(frozen=True)
class Case:
    """A run to be simulated.

    Attributes
    ----------
    ranks : int
    work : float
        Seconds of work for each rank, rank 0 included.
    chunk : float
        Mean seconds of a chunk.
    lost, hung : float
        Share of the workers that are killed, and that stop to answer, at random times of the run.
    even : bool
        Whether all chunks cost the same.
    detect : float
        Seconds until the master knows of a killed rank.
    seed : int
    sample : tuple of float
        Seconds of some chunks of a real run: chunks are like these, but for their mean. By default they are made up.
    """

    ranks: int
    work: float
    chunk: float = 0.3
    lost: float = 0.0
    hung: float = 0.0
    even: bool = False
    detect: float = 0.1
    seed: int = 1
    sample: tuple[float, ...] = ()

    @property
    def n_chunks(self) -> int:
        return max(1, round(self.ranks * self.work / self.chunk))


@dataclass(kw_only=True)
class Outcome:
    """Outcome of a simulated run.

    Attributes
    ----------
    seconds : float
        From the first assignment until all workers may go.
    work : float
        Seconds of all chunks together.
    ranks : int
    busy : float
        Seconds that the master worked on messages.
    peak : float
        Largest share of a second (or of the whole, if that is shorter) in which it did.
    messages : int
        Reports that the master got.
    handed : int
        Assignments that it gave, those given again included.
    times_done : array
        How often a result of each chunk was taken.
    lost : int
        Ranks that were killed or stopped to answer, and that was found out.
    middle : float
        Seconds that a second of work more would have taken in the middle of the run.
    """

    seconds: float
    work: float
    ranks: int
    busy: float
    peak: float
    messages: int
    handed: int
    times_done: NDArray[np.int64]
    lost: int
    middle: float

    @property
    def efficiency(self) -> float:
        return self.work / (self.ranks * self.seconds) if self.seconds else 1.0

    @property
    def load(self) -> float:
        return self.busy / self.seconds if self.seconds else 0.0


def chunk_costs(n: int, mean: float, even: bool, seed: int, sample: Sequence[float] = ()) -> NDArray[np.float64]:
    """Seconds of each chunk: neighbours are alike; a share is air and costs nothing, a share diverges, or they are like
    those of the sample.
    """
    if even:
        return np.full(n, mean)
    rng = np.random.default_rng(seed)
    n_runs = 2 * n // ALIKE + 64
    lengths = rng.geometric(1 / ALIKE, n_runs)
    while lengths.sum() < n:
        lengths = np.concatenate([lengths, rng.geometric(1 / ALIKE, n_runs)])
    if len(sample):
        drawn = np.repeat(rng.choice(np.asarray(sample, np.float64), len(lengths)), lengths)[:n]
        # their mean is known: a single chunk costs it
        like: NDArray[np.float64] = drawn * (mean / drawn.mean()) if drawn.any() else np.full(n, mean)
        return like
    kinds = rng.choice(3, len(lengths), p=[AIR, 1 - AIR - DIVERGING, DIVERGING])
    slow = rng.uniform(*SLOWEST, len(lengths))
    kind, slow = np.repeat(kinds, lengths)[:n], np.repeat(slow, lengths)[:n]
    costs = np.choose(kind, [np.zeros(n), rng.lognormal(0.0, 0.3, n), slow])
    # the expected mean, not that of this sample: a single chunk would always cost the mean
    expected = (1 - AIR - DIVERGING) * math.exp(0.045) + DIVERGING * sum(SLOWEST) / 2
    result: NDArray[np.float64] = costs * (mean / expected)
    return result


def nap(idle: float) -> float:
    """Mean delay until a process that has waited for `idle` seconds sees a message."""
    return min(LONGEST_NAP, math.sqrt(2 * NAP_STEP * max(idle, 0.0))) / 2


class _Master:
    """The clock of rank 0, and how busy it is."""

    def __init__(self) -> None:
        self.now = 0.0
        self.busy = 0.0
        self._seconds: dict[int, float] = {}

    def work(self, seconds: float) -> None:
        second = int(self.now)
        self._seconds[second] = self._seconds.get(second, 0.0) + seconds
        self.now += seconds
        self.busy += seconds

    @property
    def peak(self) -> float:
        return max(self._seconds.values(), default=0.0) / max(min(1.0, self.now), 1e-9)


class _Pieces:
    """The feed of the pieces of an `Ending`: ``[("rows", k)]``, and ``[("text", k)]``."""

    def __init__(self, ending: Ending, n_chunks: int) -> None:
        self._ending = ending
        n = -(-n_chunks // ending.chunks)
        self._undone = [min(ending.chunks, n_chunks - k * ending.chunks) for k in range(n)]
        self._unwritten = [min(ending.layer, n - k) for k in range(0, n, ending.layer)]
        self._ready: deque[tuple[str, int]] = deque()
        self._layer = 0
        self._left = 2 * n
        self._n = n

    def done(self, chunk: int) -> None:
        piece = chunk // self._ending.chunks
        self._undone[piece] -= 1
        if self._undone[piece] == 0:
            self._ready.append(("rows", piece))

    @property
    def ready(self) -> int:
        return len(self._ready)

    @property
    def exhausted(self) -> bool:
        return self._left == 0

    def take(self, most: int) -> list[tuple[str, int]]:
        self._left -= 1
        return [self._ready.popleft()]

    def finished(self, batch: list[tuple[str, int]], result: Any = None) -> None:
        kind, piece = batch[0]
        if kind == "text":
            return
        size = self._ending.layer
        self._unwritten[piece // size] -= 1
        while self._layer < len(self._unwritten) and self._unwritten[self._layer] == 0:
            first = self._layer * size
            self._ready.extend(("text", k) for k in range(first, min(first + size, self._n)))
            self._layer += 1


def simulate(
    case: Case,
    costs: Costs,
    schedule: Callable[[int, int], Any] = Schedule,
    lease: Lease | None = None,
    ending: Ending | None = None,
) -> Outcome:
    """Run a case to its end.

    Parameters
    ----------
    case : Case
    costs : Costs
    schedule : callable
        Makes the policy from the numbers of chunks and of ranks.
    lease : Lease, optional
    ending : Ending, optional
        What is written besides the chunks.
    """
    lease = lease or Lease()
    n, n_chunks = case.ranks, case.n_chunks
    each = chunk_costs(n_chunks, case.chunk, case.even, case.seed, case.sample)
    until = array("d", np.concatenate([[0.0], np.cumsum(each)]).tobytes())
    total = until[-1]
    times_done = array("q", bytes(8 * n_chunks))
    rng = np.random.default_rng(case.seed + 1)

    # when a worker stops: never, killed, or hung
    workers = n - 1
    n_lost, n_hung = math.ceil(case.lost * workers), math.ceil(case.hung * workers)
    unlucky = (rng.permutation(workers)[: n_lost + n_hung] + 1).tolist()
    ends = dict(zip(unlucky, rng.uniform(0.0, case.work, len(unlucky)).tolist(), strict=True))
    #: Messages to the master: time, order, worker (negative: it was killed), number, seconds, chunks.
    events: list[tuple[float, int, int, int, float, int]] = []
    order = 0
    for rank in unlucky[:n_lost]:
        order += 1
        events.append((ends[rank] + case.detect, order, -rank, 0, 0.0, 0))
    heapq.heapify(events)

    policy = schedule(n_chunks, n)
    feed = None if ending is None else _Pieces(ending, n_chunks)
    ledger: Ledger[Any] = Ledger(policy if feed is None else Followed(policy, feed), range(1, n), lease)
    master = _Master()
    free = [0.0] * n
    link = 0.0
    messages = handed = known_lost = 0
    # work done in the middle of the shortest possible run
    window, worked = (0.3 * total / n, 0.6 * total / n), 0.0

    # until then the file system has what to do
    files = 0.0

    def lasts(begins: float, given: Any) -> float:
        """Seconds of an assignment; the file system serves all of them in the order in which they are given."""
        nonlocal files
        if isinstance(given, range):
            seconds = until[given.stop] - until[given.start] + len(given) * costs.write
            moved = 0.0 if ending is None else len(given) * ending.chunk_bytes
        else:
            assert ending is not None
            rows = given[0][0] == "rows"
            seconds = ending.rows if rows else ending.text
            moved = ending.rows_bytes if rows else ending.text_bytes
        if ending is not None:
            files = max(files, master.now) + moved / ending.bandwidth
            seconds = max(seconds, files - begins)
        return float(seconds)

    def finish(given: Any) -> None:
        if not isinstance(given, range):
            assert feed is not None
            feed.finished(given)
            return
        for chunk in given:
            times_done[chunk] += 1
            if feed is not None:
                feed.done(chunk)

    def in_window(begins: float, seconds: float, given: Any) -> float:
        if not isinstance(given, range):
            return 0.0
        inside = min(begins + seconds, window[1]) - max(begins, window[0])
        return inside * (until[given.stop] - until[given.start]) / seconds if inside > 0 else 0.0

    def take(event: tuple[float, int, int, int, float, int]) -> tuple[int, Any]:
        nonlocal messages, known_lost
        _, _, rank, number, seconds, chunks = event
        if rank < 0:
            ledger.lost(-rank)
            known_lost += 1
            return -rank, None
        messages += 1
        master.work(costs.message + costs.chunk * chunks)
        return rank, ledger.returned(rank, number, seconds, master.now)

    while True:
        ledger.expire(master.now)
        for rank, number, given in ledger.hand_out(master.now):
            handed += 1
            master.work(costs.send)
            arrives = master.now + costs.latency
            if arrives > free[rank]:
                arrives += nap(arrives - free[rank]) if costs.latency else 0.0
            begins = max(arrives, free[rank])
            seconds = lasts(begins, given)
            free[rank] = begins + seconds
            worked += in_window(begins, seconds, given)
            if free[rank] <= ends.get(rank, math.inf):
                order += 1
                chunks = len(given) if isinstance(given, range) else 0
                heapq.heappush(events, (free[rank] + costs.latency, order, rank, number, seconds, chunks))
        if ledger.finished:
            break
        if events and events[0][0] <= master.now:
            event = heapq.heappop(events)
            if event[2] > 0 and costs.payload:
                # reports follow one another on the master's link
                link = max(link, event[0]) + event[5] * costs.payload / costs.bandwidth
                master.now = max(master.now, link)
            _, assignment = take(event)
        elif (own := ledger.own()) is not None:
            number, given = own
            seconds = lasts(master.now, given)
            worked += in_window(master.now, seconds, given)
            master.now += seconds
            assignment = ledger.returned(0, number, seconds, master.now)
        else:
            # leases are looked at once a second
            sleeps = (events[0][0] if events else math.inf) - master.now
            if sleeps > 1.0:
                master.now += 1.0
            else:
                master.now += sleeps + (nap(sleeps) if costs.latency else 0.0)
            continue
        if assignment is not None:
            finish(assignment)

    # workers that still have assignments are waited for, or given up
    least = master.now + lease.grace
    while ledger.n_owing:
        if events:
            event = heapq.heappop(events)
            master.now = max(master.now, event[0])
            take(event)
            continue
        owing = ledger.owing()
        master.now = max(least, min(owing.values()), master.now)
        for rank, deadline in owing.items():
            if deadline <= master.now:
                ledger.lost(rank)
                known_lost += 1
    middle = (window[1] - window[0]) / worked if worked else 0.0
    return Outcome(
        seconds=master.now,
        work=total,
        ranks=n,
        busy=master.busy,
        peak=master.peak,
        messages=messages,
        handed=handed,
        times_done=np.array(times_done),
        lost=known_lost,
        middle=middle,
    )


#: Runs that are prolonged differ in nothing but that.
_beginning = lru_cache(maxsize=4)(simulate)


def extended(case: Case, costs: Costs, most: float = 1e6, **other: Any) -> Outcome:
    """As `simulate`; a run of more chunks than `most` is simulated up to that, and its middle prolonged."""
    if case.n_chunks <= most:
        return simulate(case, costs, **other)
    part = _beginning(replace(case, work=most * case.chunk / case.ranks), costs, **other)
    more = (case.n_chunks - len(part.times_done)) * case.chunk
    seconds = part.seconds + more * part.middle
    return replace(part, seconds=seconds, work=part.work + more, busy=part.busy * seconds / part.seconds)


def bound(case: Case) -> float:
    """Efficiency that no scheduler can surpass: the longest chunk takes its time."""
    each = chunk_costs(case.n_chunks, case.chunk, case.even, case.seed, case.sample)
    workers = case.ranks - (case.ranks >= SCHEDULER_ONLY_FROM)
    total = float(each.sum())
    return total / (case.ranks * max(total / workers, float(each.max())))
