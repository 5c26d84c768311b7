"""Executors: the same work on one process or on all ranks, with the same bits."""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from mpidvc.runtime.comm import Communicator, MPICommunicator, SerialCommunicator

__all__ = [
    "Executor",
    "Feed",
    "FlowSchedule",
    "InlineExecutor",
    "MPIExecutor",
    "Schedule",
    "SumTask",
    "Task",
    "make_executor",
]

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")
Assignment = TypeVar("Assignment")
Batch = TypeVar("Batch", bound=Sized)
Given = TypeVar("Given", contravariant=True)
Sink = Callable[[int, NDArray[Any]], None]

#: Results in order; closing it early lets the workers go.
Stream: TypeAlias = Generator[Result, None, None]

#: From this number of ranks on, rank 0 only schedules.
SCHEDULER_ONLY_FROM = 48
#: Longest piece of work that is handed out at once, in seconds.
LONGEST_ASSIGNMENT = 1.0
#: Longest batch of a flow, in seconds: what waits for its results waits no longer for the rest of the batch.
LONGEST_BATCH = 0.05
#: Pieces of a batch where there is one process only.
INLINE_BATCH = 16
#: Longest message in bytes; some MPIs refuse counts above 2**31 - 1.
LONGEST_MESSAGE = 2**29

_PART, _WHOLE, _STOP = 1, 2, 3

STUCK = "no piece of the flow is ready, and none is being worked on that could make one so"


class Task(Protocol):
    """Work in numbered chunks; a task knows no ranks."""

    @property
    def n_chunks(self) -> int: ...

    def run(self, chunk: int) -> NDArray[Any]:
        """Return the structured records of a chunk."""


class SumTask(Protocol):
    """A sum over numbered chunks; a task knows no ranks."""

    @property
    def n_chunks(self) -> int: ...

    def run_sum(self, chunk: int, argument: Any) -> NDArray[np.float64]:
        """Return the chunk's share of the sum, a vector of the same length for every chunk."""


class Feed(Protocol[Batch, Given]):
    """Work in pieces that become ready as others are done, and are made from their results; lives on rank 0.

    The pieces' results must not depend on how they are batched nor on the order in which batches end: then they are
    the same on any number of ranks.
    """

    @property
    def ready(self) -> int:
        """Number of pieces that could be taken now."""

    @property
    def exhausted(self) -> bool:
        """Whether every piece has been taken."""

    def take(self, most: int) -> Batch:
        """Return from one to `most` pieces that are ready; called only if there are any."""

    def finished(self, batch: Batch, result: Given) -> None:
        """Take the result of a batch, which may make other pieces ready."""


class Executor(Protocol):
    """What runs tasks. Every rank calls every method, with the same arguments unless said otherwise."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def communicator(self) -> Communicator: ...

    def broadcast(self, value: T | None) -> T:
        """Return rank 0's value on every rank; the other ranks pass None."""

    def map(self, task: Task, sink: Sink | None) -> None:
        """Run every chunk once, anywhere, and call ``sink(chunk, records)`` on rank 0, in any order.

        The other ranks' `sink` is ignored; with None on rank 0 the records stay where they were made.
        """

    def reduce(self, task: SumTask, argument: Any) -> NDArray[np.float64]:
        """Return the sum of ``task.run_sum(chunk, argument)``, added in chunk order, on every rank.

        The argument is rank 0's; the other ranks' is ignored. The bits do not depend on the number of ranks.
        """

    def stream(self, function: Callable[[Item], Result], items: Iterable[Item] | None) -> Stream[Result]:
        """Return ``function(item)`` for rank 0's items, in their order, with a bounded number in flight.

        Rank 0 gets the results as they come and has to use the iterator up or close it; the other ranks work inside the
        call and get an exhausted iterator.
        """

    def flow(self, function: Callable[[Batch], Result], feed: Feed[Batch, Result] | None) -> None:
        """Run ``function(batch)`` for all batches of rank 0's feed, anywhere, until the feed is exhausted.

        The other ranks pass None.

        Raises
        ------
        RuntimeError
            If nothing is ready or being worked on, and the feed is not exhausted.
        """


def make_executor(communicator: Communicator) -> Executor:
    """Return the executor for a communicator."""
    return MPIExecutor(communicator) if isinstance(communicator, MPICommunicator) else InlineExecutor()


def _ordered_sum(vectors: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    total: NDArray[np.float64] | None = None
    for vector in vectors:
        total = np.array(vector, dtype=np.float64) if total is None else np.add(total, vector, out=total)
    return np.zeros(0) if total is None else total


class InlineExecutor:
    """Everything in this process, one chunk after the other: the oracle of `MPIExecutor`."""

    rank = 0
    size = 1
    communicator: Communicator = SerialCommunicator()

    def broadcast(self, value: T | None) -> T:
        return value  # type: ignore[return-value]

    def map(self, task: Task, sink: Sink | None) -> None:
        for chunk in range(task.n_chunks):
            records = task.run(chunk)
            if sink is not None:
                sink(chunk, records)

    def reduce(self, task: SumTask, argument: Any) -> NDArray[np.float64]:
        return _ordered_sum(task.run_sum(chunk, argument) for chunk in range(task.n_chunks))

    def stream(self, function: Callable[[Item], Result], items: Iterable[Item] | None) -> Stream[Result]:
        return (function(item) for item in items or ())

    def flow(self, function: Callable[[Batch], Result], feed: Feed[Batch, Result] | None) -> None:
        while feed is not None and not feed.exhausted:
            if feed.ready == 0:
                raise RuntimeError(STUCK)
            batch = feed.take(INLINE_BATCH)
            feed.finished(batch, function(batch))


class Schedule:
    """Which chunks go where; knows neither MPI nor clocks.

    Chunks cost from nothing to ten times the mean, so a worker gets as many as should last `LONGEST_ASSIGNMENT`, and
    fewer when the work runs out.

    Parameters
    ----------
    n_chunks : int
        Chunks 0 … n_chunks - 1 are to be done.
    size : int
        Number of ranks; rank 0 is the one that asks.
    """

    def __init__(self, n_chunks: int, size: int) -> None:
        self.n_chunks = n_chunks
        self.size = size
        self._next = 0
        self._in_hand = [0] * size
        self._done = 0
        self._seconds = 0.0

    @property
    def exhausted(self) -> bool:
        """Whether all chunks have been handed out."""
        return self._next >= self.n_chunks

    def take(self, rank: int) -> range | None:
        """Return the chunks that a rank shall do now or next, or None if it shall get nothing now."""
        left = self.n_chunks - self._next
        if rank == 0:
            if self.size >= SCHEDULER_ONLY_FROM:
                return None
            count = 1
        else:
            # Nobody else can take what is held in reserve: no reserves once there is less than one chunk for each rank.
            if self._in_hand[rank] > (left >= self.size):
                return None
            count = left // (4 * self.size)
            if self._seconds > 0:
                count = min(count, int(LONGEST_ASSIGNMENT * self._done / self._seconds))
            elif self._done == 0:
                count = 1
        if left <= 0:
            return None
        chunks = range(self._next, min(self._next + max(count, 1), self.n_chunks))
        self._next = chunks.stop
        self._in_hand[rank] += 1
        return chunks

    def finished(self, rank: int, chunks: range, seconds: float) -> None:
        """Note that a rank has done these chunks in so many seconds."""
        self._in_hand[rank] -= 1
        self._done += len(chunks)
        self._seconds += seconds


class _Window(Generic[Item]):
    """Schedule of a stream: numbered items, no more of them in flight than the window is wide."""

    def __init__(self, items: Iterable[Item], size: int) -> None:
        self._items = enumerate(items)
        self._in_hand = [0] * size
        self._free = 4 * size
        self.exhausted = False

    def take(self, rank: int) -> tuple[int, Item] | None:
        if self.exhausted or self._free == 0 or self._in_hand[rank] > 1:
            return None
        try:
            pair = next(self._items)
        except StopIteration:
            self.exhausted = True
            return None
        self._free -= 1
        self._in_hand[rank] += 1
        return pair

    def finished(self, rank: int, assignment: tuple[int, Item], seconds: float) -> None:
        self._in_hand[rank] -= 1

    def release(self) -> None:
        self._free += 1


class FlowSchedule(Generic[Batch, Result]):
    """Which ready pieces of a feed go where; knows neither MPI nor clocks.

    Few are ready at times, and what others wait for should not lie in a reserve: batches are a share of what is ready,
    and a reserve is given only where there is something for everybody. The last piece that is ready is for the rank
    that asks, which need not send it anywhere.

    Parameters
    ----------
    feed : Feed
    size : int
        Number of ranks; rank 0 is the one that asks.
    """

    def __init__(self, feed: Feed[Batch, Result], size: int) -> None:
        self.size = size
        self._feed = feed
        self._in_hand = [0] * size
        self._done = 0
        self._seconds = 0.0

    @property
    def exhausted(self) -> bool:
        """Whether all pieces have been handed out."""
        return self._feed.exhausted

    def take(self, rank: int) -> Batch | None:
        """Return what a rank shall do now or next, or None if it shall get nothing now."""
        ready = self._feed.ready
        leads_only = self.size >= SCHEDULER_ONLY_FROM
        if rank == 0:
            if ready == 0 and not self._feed.exhausted and not any(self._in_hand):
                raise RuntimeError(STUCK)
            if leads_only:
                return None
        elif self._in_hand[rank] > (ready >= self.size) or (ready == 1 and not leads_only):
            return None
        if ready == 0:
            return None
        most = ready // (2 * self.size)
        if self._done == 0:
            most = 1
        elif self._seconds > 0:
            most = min(most, int(LONGEST_BATCH * self._done / self._seconds))
        batch = self._feed.take(max(most, 1))
        self._in_hand[rank] += 1
        return batch

    def finished(self, rank: int, batch: Batch, seconds: float) -> None:
        """Note that a rank has done this batch in so many seconds."""
        self._in_hand[rank] -= 1
        self._done += len(batch)
        self._seconds += seconds


class _Assigner(Protocol[Assignment]):
    @property
    def exhausted(self) -> bool: ...

    def take(self, rank: int) -> Assignment | None: ...

    def finished(self, rank: int, assignment: Assignment, seconds: float) -> None: ...


class _Backoff:
    """Waits that begin as polling and end as naps of a millisecond; signals are seen in between."""

    def __init__(self) -> None:
        self._rounds = 0

    def __call__(self) -> None:
        self._rounds += 1
        time.sleep(0.0 if self._rounds < 100 else min(1e-3, 1e-5 * (self._rounds - 99)))


class MPIExecutor:
    """All ranks of a communicator; rank 0 is the master and, below `SCHEDULER_ONLY_FROM` ranks, a worker too.

    Parameters
    ----------
    communicator : MPICommunicator
    """

    def __init__(self, communicator: MPICommunicator) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self.communicator: Communicator = communicator
        self._comm = communicator.mpi
        self.rank = communicator.rank
        self.size = communicator.size
        self._status = MPI.Status()
        self._sends: list[tuple[Any, Any]] = []
        self._parts: dict[int, list[bytearray]] = {}
        #: What every worker has been given and not yet returned; it returns them in this order.
        self._given: dict[int, deque[Any]] = {rank: deque() for rank in range(1, self.size)}

    # Collective parts

    def broadcast(self, value: T | None) -> T:
        data = np.frombuffer(pickle.dumps(value, protocol=5) if self.rank == 0 else b"", dtype=np.uint8)
        length = np.array([data.size], dtype=np.int64)
        self._wait(self._comm.Ibcast([length, self._mpi.INT64_T], root=0))
        if self.rank != 0:
            data = np.empty(int(length[0]), dtype=np.uint8)
        for start in range(0, data.size, LONGEST_MESSAGE):
            self._wait(self._comm.Ibcast([data[start : start + LONGEST_MESSAGE], self._mpi.BYTE], root=0))
        if self.rank == 0:
            return value  # type: ignore[return-value]
        result: T = pickle.loads(data.tobytes())
        return result

    def reduce(self, task: SumTask, argument: Any) -> NDArray[np.float64]:
        argument = self.broadcast(argument)
        # neighbouring chunks on one rank: what it reads for one, and may keep, serves the next
        first, end = (task.n_chunks * rank // self.size for rank in (self.rank, self.rank + 1))
        mine = [task.run_sum(chunk, argument) for chunk in range(first, end)]
        total: NDArray[np.float64] | None = None
        if self.rank != 0:
            self._send(np.array(mine, dtype=np.float64), 0, _WHOLE)
            self._flush()
        else:
            shares = [mine, *(() for _ in range(1, self.size))]
            for _ in range(1, self.size):
                rank, _tag, shares[rank] = self._receive()
            total = _ordered_sum(vector for share in shares for vector in share)
        return self.broadcast(total)

    # Master and workers

    def map(self, task: Task, sink: Sink | None) -> None:
        wanted = self.broadcast(sink is not None)

        def run(chunks: range) -> list[NDArray[Any]]:
            records = []
            for chunk in chunks:
                made = task.run(chunk)
                if wanted:
                    records.append(made)
                self._progress()
            return records

        if self.rank != 0:
            self._serve(run)
            return
        for chunks, records in self._lead(Schedule(task.n_chunks, self.size), run):
            if sink is not None:
                for chunk, made in zip(chunks, records, strict=True):
                    sink(chunk, made)
        self._dismiss()

    def stream(self, function: Callable[[Item], Result], items: Iterable[Item] | None) -> Stream[Result]:
        def run(pair: tuple[int, Item]) -> Result:
            return function(pair[1])

        if self.rank != 0:
            self._serve(run)
            nobody: tuple[Result, ...] = ()
            return (result for result in nobody)
        results = self._in_order(_Window(items or (), self.size), run)
        # Run to the first, empty, yield: closing an iterator that never started would not let the workers go.
        next(results)
        return cast("Stream[Result]", results)

    def flow(self, function: Callable[[Batch], Result], feed: Feed[Batch, Result] | None) -> None:
        if self.rank != 0:
            self._serve(function)
            return
        if feed is not None:
            for batch, result in self._lead(FlowSchedule(feed, self.size), function):
                feed.finished(batch, result)
        self._dismiss()

    def _in_order(self, window: _Window[Item], run: Callable[[tuple[int, Item]], Result]) -> Stream[Result | None]:
        early: dict[int, Result] = {}
        following = 0
        try:
            yield None
            for (number, _item), result in self._lead(window, run):
                early[number] = result
                while following in early:
                    yield early.pop(following)
                    following += 1
                    window.release()
        except GeneratorExit:
            self._dismiss()
            raise
        self._dismiss()

    def _lead(
        self, schedule: _Assigner[Assignment], run: Callable[[Assignment], Result]
    ) -> Iterator[tuple[Assignment, Result]]:
        """Hand out assignments, do some oneself, and yield each with its result until none is left."""
        hungry = set(range(1, self.size))
        backoff = _Backoff()
        while True:
            for rank in sorted(hungry):
                while (assignment := schedule.take(rank)) is not None:
                    self._send(assignment, rank, _WHOLE)
                    self._given[rank].append(assignment)
                # Who was refused for the sake of others (the tail of a map, the window of a stream) is asked again.
                if schedule.exhausted or len(self._given[rank]) > 1:
                    hungry.discard(rank)
            message = self._poll()
            if message is not None:
                rank, _tag, (seconds, result) = message
                assignment = self._given[rank].popleft()
            elif (own := schedule.take(0)) is not None:
                rank, assignment = 0, own
                start = time.perf_counter()
                result = run(assignment)
                seconds = time.perf_counter() - start
            elif schedule.exhausted and not any(self._given.values()):
                return
            else:
                backoff()
                continue
            backoff = _Backoff()
            schedule.finished(rank, assignment, seconds)
            if rank != 0:
                hungry.add(rank)
            yield assignment, result

    def _dismiss(self) -> None:
        """Wait for what is still being worked on, drop it, and let the workers go."""
        while any(self._given.values()):
            rank, _tag, _result = self._receive()
            self._given[rank].popleft()
        for rank in range(1, self.size):
            self._send(None, rank, _STOP)
        self._flush()

    def _serve(self, run: Callable[[Any], Any]) -> None:
        """Work for rank 0 until it says stop (which it does only when nothing is left here)."""
        queue: deque[Any] = deque()
        while True:
            message = self._poll() if queue else self._receive()
            if message is None:
                start = time.perf_counter()
                result = run(queue.popleft())
                self._send((time.perf_counter() - start, result), 0, _WHOLE)
            elif message[1] == _STOP:
                break
            else:
                queue.append(message[2])
        self._flush()

    # Messages: pickled, split where too long, never blocking in MPI, so that signals are seen and both sides may send

    def _send(self, value: Any, to: int, tag: int) -> None:
        data = memoryview(pickle.dumps(value, protocol=5))
        starts = range(0, len(data), LONGEST_MESSAGE)
        for start in starts:
            part = data[start : start + LONGEST_MESSAGE]
            request = self._comm.Isend([part, self._mpi.BYTE], dest=to, tag=tag if start == starts[-1] else _PART)
            self._sends.append((request, part))
        self._progress()

    def _progress(self) -> None:
        """Let MPI move what is being sent."""
        if self._sends:
            self._sends = [send for send in self._sends if not send[0].Test()]

    def _flush(self) -> None:
        backoff = _Backoff()
        while self._sends:
            self._progress()
            backoff()

    def _wait(self, request: Any) -> None:
        backoff = _Backoff()
        while not request.Test():
            backoff()

    def _poll(self) -> tuple[int, int, Any] | None:
        """Return ``(rank, tag, value)`` of a message that has come, or None."""
        self._progress()
        status = self._status
        while self._comm.Iprobe(source=self._mpi.ANY_SOURCE, tag=self._mpi.ANY_TAG, status=status):
            rank, tag = status.Get_source(), status.Get_tag()
            part = bytearray(status.Get_count(self._mpi.BYTE))
            self._comm.Recv([part, self._mpi.BYTE], source=rank, tag=tag)
            parts = self._parts.setdefault(rank, [])
            parts.append(part)
            if tag != _PART:
                del self._parts[rank]
                return rank, tag, pickle.loads(parts[0] if len(parts) == 1 else b"".join(parts))
        return None

    def _receive(self) -> tuple[int, int, Any]:
        backoff = _Backoff()
        while (message := self._poll()) is None:
            backoff()
        return message
