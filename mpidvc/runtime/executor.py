"""Executors: run the same work on one process or on all ranks, with the same bits."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

import numpy as np

from mpidvc.arrays import Array
from mpidvc.runtime.comm import Communicator, MPICommunicator, SerialCommunicator
from mpidvc.runtime.job import find_job
from mpidvc.runtime.messages import Backoff, Mailbox, Tag
from mpidvc.runtime.schedule import STUCK, Feed, FlowSchedule, Followed, Lease, Ledger, Policy, Schedule, Shares
from mpidvc.runtime.stop import Stopped, StopRequest

__all__ = ["Executor", "Feed", "Following", "InlineExecutor", "MPIExecutor", "SumTask", "Task", "make_executor"]

T = TypeVar("T")
Result = TypeVar("Result")
Assignment = TypeVar("Assignment")
Batch = TypeVar("Batch", bound=Sized)
Sink = Callable[[int, Any], None]

#: Pieces of a batch on a single process.
INLINE_BATCH = 16
#: Longest value, pickled (bytes), that rank 0 sends to every rank itself: MPIs send as much without a handshake.
SHORT = 4096
#: Seconds after which a rank that does not acknowledge a broadcast is given up; it may be busy with work of its own.
LONGEST_BROADCAST = 1800.0
#: Longest wait for the end of sends, in seconds: the receiver may hang.
_LONGEST_FLUSH = 2.0
#: Least speed at which a long broadcast is passed on, bytes per second.
_SLOWEST = 1e7
#: Longest step of the time by which leases run out, in seconds: a rank 0 that was suspended, or busy with a long chunk
#: of its own, must not find every worker late.
_LONGEST_STEP = 5.0


class Task(Protocol):
    """Work in numbered chunks; a task knows no ranks."""

    @property
    def n_chunks(self) -> int: ...

    def run(self, chunk: int) -> Any:
        """Run a chunk and return its result; rank 0 unpickles it, which for bytes costs next to nothing."""


class SumTask(Protocol):
    """A sum over numbered chunks; a task knows no ranks."""

    @property
    def n_chunks(self) -> int: ...

    def run_sum(self, chunk: int, argument: Any) -> Array:
        """Return the chunk's share of the sum, a vector of the same length for every chunk."""


@dataclass(frozen=True)
class Following(Generic[Batch, Result]):
    """Work that follows the chunks of a map, in pieces that become ready as chunks are done.

    Attributes
    ----------
    run : callable
        Runs a batch of pieces and returns its result.
    feed : Feed or None
        On rank 0; the sink of the map makes its pieces ready. Its batches are no ranges.
    """

    run: Callable[[Batch], Result]
    feed: Feed[Batch, Result] | None


class Executor(Protocol):
    """Runs tasks. Every rank calls every method, with the same arguments unless said otherwise.

    Attributes
    ----------
    rank, size : int
        This process's number and the number of processes that the job was started with, lost ones included.
    communicator : Communicator
        For collective calls at the start; after a loss none of them works.
    processes : list of (str, int)
        On rank 0 host name and process id of every rank; empty on the others.
    losses : list of str
        On rank 0 a line for every lost rank, in the order in which the losses were noticed.
    """

    communicator: Communicator
    processes: list[tuple[str, int]]
    losses: list[str]

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def broadcast(self, value: T | None) -> T:
        """Return rank 0's value on every rank; the other ranks pass None."""

    def map(
        self,
        task: Task,
        sink: Sink | None,
        stop: StopRequest | None = None,
        following: Following[Any, Any] | None = None,
        among: Container[int] | None = None,
    ) -> None:
        """Run every chunk once, on any rank, and call ``sink(chunk, result)`` on rank 0, in any order.

        The other ranks' `sink` is ignored. With None on rank 0 no results are sent. The pieces of `following` are run
        before further chunks, on any rank, once each. Rank 0 may allow some of the others only to work (`among`).

        Raises
        ------
        RuntimeError
            If all chunks are done, and a piece does not become ready.
        Stopped
            On every rank, if any rank's `stop` was requested and chunks or pieces were left undone. None is left half
            done, and sink and feed have had the results of all that are done.
        """

    def reduce(self, task: SumTask, argument: Any) -> Array:
        """Return the sum of ``task.run_sum(chunk, argument)``, added in chunk order, on every rank.

        The argument is rank 0's; the other ranks' is ignored. The bits do not depend on the number of ranks.
        """

    def flow(
        self,
        function: Callable[[Batch], Result],
        feed: Feed[Batch, Result] | None,
        stop: StopRequest | None = None,
        among: Container[int] | None = None,
    ) -> None:
        """Run ``function(batch)`` for all batches of rank 0's feed, on any rank, until the feed is exhausted.

        The other ranks pass None. Rank 0 may allow some of them only to work (`among`).

        Raises
        ------
        RuntimeError
            If no piece is ready or being worked on, and the feed is not exhausted.
        Stopped
            As in `map`.
        """

    def finish(self, status: int) -> None:
        """End the job; the last call, after all output is flushed.

        Returns if the process may end as usual. After a loss it ends the process, with rank 0's exit status.
        """


def make_executor(communicator: Communicator, warn: Callable[[str], None] | None = None) -> Executor:
    """Return the executor for a communicator.

    Parameters
    ----------
    communicator : Communicator
    warn : callable, optional
        Called on rank 0 with a line for every rank that is lost.
    """
    if isinstance(communicator, MPICommunicator):
        return MPIExecutor(communicator, warn)
    return InlineExecutor(communicator)


def _ordered_sum(vectors: Iterable[Array]) -> Array:
    total: Array | None = None
    for vector in vectors:
        total = np.array(vector, dtype=np.float64) if total is None else np.add(total, vector, out=total)
    return np.zeros(0) if total is None else total


class InlineExecutor:
    """Runs everything in this process, one chunk after the other: the oracle of `MPIExecutor`."""

    rank = 0
    size = 1

    def __init__(self, communicator: Communicator | None = None) -> None:
        self.communicator: Communicator = communicator or SerialCommunicator()
        self.processes = [(platform.node(), os.getpid())]
        self.losses: list[str] = []

    def broadcast(self, value: T | None) -> T:
        return value  # type: ignore[return-value]

    def map(
        self,
        task: Task,
        sink: Sink | None,
        stop: StopRequest | None = None,
        following: Following[Any, Any] | None = None,
        among: Container[int] | None = None,
    ) -> None:
        feed = None if following is None else following.feed
        chunks = iter(range(task.n_chunks))
        while True:
            if feed is not None and following is not None and feed.ready:
                if stop is not None and stop.requested:
                    raise Stopped
                batch = feed.take(1)
                feed.finished(batch, following.run(batch))
                continue
            chunk = next(chunks, None)
            if chunk is None:
                break
            if stop is not None and stop.requested:
                raise Stopped
            result = task.run(chunk)
            if sink is not None:
                sink(chunk, result)
        if feed is not None and not feed.exhausted:
            raise RuntimeError(STUCK)

    def reduce(self, task: SumTask, argument: Any) -> Array:
        return _ordered_sum(task.run_sum(chunk, argument) for chunk in range(task.n_chunks))

    def flow(
        self,
        function: Callable[[Batch], Result],
        feed: Feed[Batch, Result] | None,
        stop: StopRequest | None = None,
        among: Container[int] | None = None,
    ) -> None:
        while feed is not None and not feed.exhausted:
            if stop is not None and stop.requested:
                raise Stopped
            if feed.ready == 0:
                raise RuntimeError(STUCK)
            batch = feed.take(INLINE_BATCH)
            feed.finished(batch, function(batch))

    def finish(self, status: int) -> None:
        pass


#: Runs an assignment and returns the result and whether it was cut short; between chunks it asks whether to end.
_Run: TypeAlias = Callable[[Any, Callable[[], bool]], tuple[Any, bool]]


def _never() -> bool:
    return False


class MPIExecutor:
    """Runs work on all ranks of a communicator; rank 0 is the master and, below `SCHEDULER_ONLY_FROM` ranks, works too.

    Everything that a worker does follows from rank 0's messages, so that no rank has to know which others live. With
    Open MPI's fault tolerance the death of a worker costs the chunks in its hands, and rank 0 does everything if no
    worker is left. A worker that hangs is late after its lease: its chunks go to others, and in the end it is given up.
    (One that is suspended within MPI, in the middle of a message, may block the shared memory of MPICH for all.)

    Parameters
    ----------
    communicator : MPICommunicator
    warn : callable, optional
        Called on rank 0 with a line for every rank that is lost.
    """

    def __init__(self, communicator: MPICommunicator, warn: Callable[[str], None] | None = None) -> None:
        self.communicator: Communicator = communicator
        self.rank = communicator.rank
        self.size = communicator.size
        self.processes: list[tuple[str, int]] = []
        self.losses: list[str] = []
        self.lease = Lease.from_environment()
        self._warn = warn
        self.mail = Mailbox(communicator)
        self._survives = communicator.fault_tolerant
        #: On rank 0: the living workers, whether one that was given up may still run, the workers that wait for the
        #: farewell, and the ledger of this round.
        self._living: Sequence[int] = range(1, self.size)
        self._hanging = False
        self._ready: set[int] = set()
        self._ledger: Ledger[Any] | None = None
        self._time = 0.0
        self._looked = time.monotonic()
        #: Number of the next broadcast, broadcasts that came early, and heads whose bytes have not arrived yet.
        self._broadcast = 0
        self._heard: dict[int, bytes | bytearray] = {}
        self._heads: dict[int, tuple[int, Sequence[int]]] = {}
        #: On a worker: its assignments, whether they were recalled, the end of the round, and the farewell.
        self._queue: deque[tuple[int, Any]] = deque()
        self._recalled = False
        self._end: Any = None
        self._farewell: bool | None = None
        self._meet()

    def _meet(self) -> None:
        me = (platform.node(), os.getpid())
        if self.rank != 0:
            self.mail.send(me, 0, Tag.HELLO)
            return
        self.processes = [me, *(("an unknown host", 0) for _ in self._living)]
        missing = set(self._living)
        backoff = Backoff()
        while missing:
            message = self.mail.poll()
            if message is not None:
                self.processes[message[0]] = message[2]
                missing.discard(message[0])
                continue
            missing.difference_update(self._bury())
            backoff()

    def _take(self) -> tuple[int, int, Any] | None:
        """On rank 0: return the next message, if any. Workers may be ready while others are still in the last round."""
        message = self.mail.poll()
        if message is not None and message[1] == Tag.READY:
            self._ready.add(message[0])
        return message

    # Broadcasts: short ones straight from rank 0, long ones along a tree of the living ranks, each acknowledged

    def broadcast(self, value: T | None) -> T:
        number = self._broadcast
        self._broadcast += 1
        if self.rank != 0:
            return cast("T", self._hear(number))
        data = memoryview(pickle.dumps(value, protocol=5))
        if len(data) <= SHORT:
            self.mail.send_all((number, bytes(data)), self._living, Tag.SHORT)
            self.mail.flush(_LONGEST_FLUSH)
        else:
            self._broadcast_long(data, number)
        return value  # type: ignore[return-value]

    def _pass_on(self, data: memoryview, number: int, ranks: Sequence[int]) -> None:
        """Send a broadcast to the middle one of these ranks, which serves the upper half; then the lower half."""
        while ranks:
            middle = len(ranks) // 2
            self.mail.send((number, ranks[middle + 1 :]), ranks[middle], Tag.HEAD)
            self.mail.send_bytes(data, ranks[middle], Tag.BYTES)
            ranks = ranks[:middle]

    def _broadcast_long(self, data: memoryview, number: int) -> None:
        missing = set(self._living)
        self._pass_on(data, number, self._living)
        backoff = Backoff()
        until = self.now() + LONGEST_BROADCAST
        while missing:
            message = self._take()
            if message is not None and message[1] == Tag.GOT:
                missing.discard(message[0])
                continue
            if lost := self._bury():
                # The tree may be broken at any place.
                missing -= set(lost)
                for rank in missing:
                    self._pass_on(data, number, [rank])
            if self.now() > until:
                for rank in sorted(missing):
                    self._give_up(rank)
                missing.clear()
            backoff()

    def _hear(self, number: int) -> Any:
        backoff = Backoff()
        while number not in self._heard:
            if not self._listen():
                backoff()
        data = self._heard.pop(number)
        # Others may wait for the part of the tree below this rank.
        self.mail.flush(_LONGEST_FLUSH + len(data) / _SLOWEST)
        return pickle.loads(data)

    def _hear_bytes(self, rank: int, data: bytearray) -> None:
        number, ranks = self._heads.pop(rank)
        if not self._keep(number, data):
            return
        self._pass_on(memoryview(data), number, ranks)
        self.mail.send(None, 0, Tag.GOT)

    def _keep(self, number: int, data: bytes | bytearray) -> bool:
        """Keep a broadcast until it is wanted; return whether it is new."""
        if number < self._broadcast - 1 or number in self._heard:
            return False
        self._heard[number] = data
        return True

    # Rounds: rank 0 hands out, the workers serve, until rank 0 ends it

    def map(
        self,
        task: Task,
        sink: Sink | None,
        stop: StopRequest | None = None,
        following: Following[Any, Any] | None = None,
        among: Container[int] | None = None,
    ) -> None:
        wanted = self.broadcast(sink is not None)

        def run(given: Any, ends: Callable[[], bool]) -> tuple[Any, bool]:
            if not isinstance(given, range):
                assert following is not None
                return following.run(given), False
            results: list[Any] = []
            for chunk in given:
                if chunk != given.start and ends():
                    return results, True
                result = task.run(chunk)
                if wanted:
                    results.append(result)
            return results, False

        if self.rank != 0:
            self._serve(run, stop)
            return
        workers = self._workers(among)
        schedule = Schedule(task.n_chunks, len(workers) + 1)
        feed = None if following is None else following.feed
        policy: Policy[Any] = schedule if feed is None else Followed(schedule, feed)
        for given, results in self._lead(policy, workers, run, stop):
            if not isinstance(given, range):
                assert feed is not None
                feed.finished(given, results)
            elif sink is not None:
                for chunk, result in zip(given, results, strict=False):
                    sink(chunk, result)
        self._dismiss()

    def reduce(self, task: SumTask, argument: Any) -> Array:
        def run(assignment: tuple[range, Any], ends: Callable[[], bool]) -> tuple[Array, bool]:
            chunks, argument = assignment
            return np.array([task.run_sum(chunk, argument) for chunk in chunks], dtype=np.float64), False

        if self.rank != 0:
            return cast("Array", self._serve(run))
        found: dict[int, Array] = {}
        shares = Shares(task.n_chunks, len(self._living) + 1)
        for (chunks, _), vectors in self._lead(_Argued(shares, argument), self._living, run):
            found[chunks.start] = vectors
        total = _ordered_sum(vector for start in sorted(found) for vector in found[start])
        self._dismiss(total)
        return total

    def flow(
        self,
        function: Callable[[Batch], Result],
        feed: Feed[Batch, Result] | None,
        stop: StopRequest | None = None,
        among: Container[int] | None = None,
    ) -> None:
        def run(batch: Batch, ends: Callable[[], bool]) -> tuple[Result, bool]:
            return function(batch), False

        if self.rank != 0:
            self._serve(run, stop)
            return
        if feed is None:
            raise TypeError("rank 0 needs a feed")
        workers = self._workers(among)
        for batch, result in self._lead(FlowSchedule(feed, len(workers) + 1), workers, run, stop):
            feed.finished(batch, result)
        self._dismiss()

    def _workers(self, among: Container[int] | None) -> Sequence[int]:
        """The living workers, or those that are allowed."""
        return self._living if among is None else [rank for rank in self._living if rank in among]

    def _lead(
        self, policy: Policy[Assignment], workers: Sequence[int], run: _Run, stop: StopRequest | None = None
    ) -> Iterator[tuple[Assignment, Any]]:
        """Hand out assignments, run some on this rank, and yield each with its result until none is left."""
        ledger: Ledger[Assignment] = Ledger(policy, workers, self.lease)
        self._ledger = ledger
        backoff = Backoff()
        while True:
            now = self.now()
            self._bury()
            ledger.expire(now)
            if stop is not None and stop.requested and not ledger.stopping:
                self._recall(ledger)
            for to, number, given in ledger.hand_out(now):
                self.mail.send((number, given), to, Tag.WORK)
            if ledger.finished:
                return
            message = self._take()
            if message is not None:
                rank, tag, value = message
                if tag != Tag.DONE:
                    if self._is_asked(message) and stop is not None and not ledger.stopping:
                        self._recall(ledger)
                    continue
                number, seconds, cut, result = value
            elif (own := ledger.own()) is not None:
                rank, (number, given) = 0, own
                start = time.perf_counter()
                result, cut = run(given, _never)
                seconds = time.perf_counter() - start
            else:
                backoff()
                continue
            backoff = Backoff()
            assignment = ledger.returned(rank, number, seconds, now, cut)
            if assignment is not None:
                yield assignment, result

    def _recall(self, ledger: Ledger[Any]) -> None:
        self.mail.send_all(None, ledger.stop(), Tag.RECALL)

    def _is_asked(self, message: tuple[int, int, Any]) -> bool:
        """Take back assignments that a worker returns; return whether a signal asked it to stop."""
        rank, tag, value = message
        if tag != Tag.BACK:
            return False
        numbers, asked = value
        if numbers and self._ledger is not None:
            self._ledger.given_back(rank, numbers, self._time)
        return bool(asked)

    def _dismiss(self, value: Any = None) -> None:
        """End the round: wait for the assignments still in hand, whose results are not needed, and tell the workers.

        Raises
        ------
        Stopped
            If work was left undone on request.
        """
        ledger, self._ledger = self._ledger, None
        stopped = False
        if ledger is not None:
            stopped = ledger.stopping and ledger.undone
            self._ledger = ledger
            self._settle(ledger)
            self._ledger = None
        self.mail.send_all((stopped, value), self._living, Tag.END)
        self.mail.flush(_LONGEST_FLUSH)
        if stopped:
            raise Stopped

    def _settle(self, ledger: Ledger[Any]) -> None:
        backoff = Backoff()
        least = self.now() + self.lease.grace
        look = 0.0
        while ledger.n_owing:
            self._bury()
            message = self._take()
            now = self.now()
            if message is not None:
                if message[1] == Tag.DONE:
                    number, seconds, cut, _result = message[2]
                    ledger.returned(message[0], number, seconds, now, cut)
                else:
                    self._is_asked(message)
                continue
            if now > look:
                look = now + min(0.1, self.lease.grace)
                for rank, until in ledger.owing().items():
                    if now > max(until, least):
                        self._give_up(rank)
            backoff()

    def now(self) -> float:
        """Time in seconds by which leases run out."""
        moment = time.monotonic()
        self._time += min(moment - self._looked, _LONGEST_STEP)
        self._looked = moment
        return self._time

    # Losses

    def _bury(self) -> list[int]:
        """Deal with the ranks that have died since the last call, and return them."""
        if not self.mail.failed:
            return []
        dead = [rank for rank in self.mail.failed if rank not in self.mail.silenced]
        self.mail.failed.clear()
        for rank in dead:
            self._lose(rank, "was lost")
        return dead

    def _give_up(self, rank: int) -> None:
        """Treat a worker that hangs as lost."""
        host, pid = self.processes[rank]
        if self._survives and host == self.processes[0][0] and _is_rank(pid, rank):
            # Alive it would keep the job from ending.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        else:
            self.mail.send(None, rank, Tag.RETIRE)
            self._hanging = True
        self._lose(rank, "does not answer")

    def _lose(self, rank: int, how: str) -> None:
        host, pid = self.processes[rank]
        self.mail.silence(rank)
        self._living = [other for other in self._living if other != rank]
        if self._ledger is not None:
            self._ledger.lost(rank)
        self.losses.append(f"process {rank} on {host} (pid {pid}) {how}; its work goes to the others")
        if self._warn is not None:
            self._warn(self.losses[-1])

    def finish(self, status: int) -> None:
        backoff = Backoff()
        if self.rank != 0:
            self.mail.send(None, 0, Tag.READY)
            while self._farewell is None:
                if not self._listen():
                    backoff()
            if not self._farewell:
                self._leave()
            return
        # MPI_Finalize waits for all ranks, so all have to be alive.
        until = self.now() + self.lease.first
        while missing := set(self._living) - self._ready:
            if self._take() is not None:
                continue
            self._bury()
            if self.now() > until:
                for rank in sorted(missing & set(self._living)):
                    self._give_up(rank)
            backoff()
        self.mail.look(now=True)
        self._bury()
        self.mail.send_all(not self.losses, self._living, Tag.FAREWELL)
        self.mail.flush(_LONGEST_FLUSH)
        if not self.losses:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        job = find_job()
        if job is not None:
            job.report(status, kill=self._hanging)
        elif self._hanging:
            # A rank that cannot be killed from here still runs, and the launcher would wait for it.
            self.communicator.abort(status)
        # MPI_Finalize may hang after a loss; our own launcher has the status already.
        os._exit(0 if job is not None else status)

    def _leave(self) -> None:
        """End a worker of a job that has lost others."""
        if not self._survives:
            # Rank 0 ends the job; to the launcher a process that ends before it has failed.
            time.sleep(60)
        os._exit(0)

    # The workers' side

    def _serve(self, run: _Run, stop: StopRequest | None = None) -> Any:
        """Work for rank 0 until it ends the round, and return the value that it sends with the end."""
        told = False

        def ends() -> bool:
            self._listen()
            return self._recalled or asked()

        def asked() -> bool:
            return stop is not None and stop.requested

        backoff = Backoff()
        while True:
            heard = self._listen()
            if self._end is not None:
                break
            if (asked() and not told) or (self._queue and (asked() or self._recalled)):
                numbers = [number for number, _ in self._queue]
                self._queue.clear()
                self.mail.send((numbers, asked()), 0, Tag.BACK)
                told = asked()
            elif self._queue:
                number, assignment = self._queue.popleft()
                start = time.perf_counter()
                result, cut = run(assignment, ends)
                self.mail.send((number, time.perf_counter() - start, cut, result), 0, Tag.DONE)
                backoff = Backoff()
            elif not heard:
                backoff()
        self.mail.flush(_LONGEST_FLUSH)
        (stopped, value), self._end = self._end, None
        self._recalled = False
        if stopped:
            raise Stopped
        return value

    def _listen(self) -> bool:
        """File the messages from rank 0, and return whether there were any."""
        heard = False
        # Messages after the end of a round belong to the next one.
        while self._end is None and (message := self.mail.poll()) is not None:
            heard = True
            rank, tag, value = message
            if tag == Tag.WORK:
                self._queue.append(value)
            elif tag == Tag.RECALL:
                self._recalled = True
            elif tag == Tag.END:
                self._end = value
            elif tag == Tag.FAREWELL:
                self._farewell = value
            elif tag == Tag.RETIRE:
                self._leave()
            elif tag == Tag.HEAD:
                self._heads[rank] = value
            elif tag == Tag.SHORT:
                self._keep(*value)
            else:
                self._hear_bytes(rank, value)
        return heard


def _is_rank(pid: int, rank: int) -> bool:
    """Whether the process with this id is that rank: in a container the id may mean another process."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"OMPI_COMM_WORLD_RANK=%d" % rank in environ


class _Argued:
    """Shares, each with the argument of the sum."""

    def __init__(self, shares: Shares, argument: Any) -> None:
        self._shares = shares
        self._argument = argument

    @property
    def size(self) -> int:
        return self._shares.size

    @size.setter
    def size(self, size: int) -> None:
        self._shares.size = size

    @property
    def exhausted(self) -> bool:
        return self._shares.exhausted

    def take(self, rank: int, in_hand: int) -> tuple[range, Any] | None:
        chunks = self._shares.take(rank, in_hand)
        return None if chunks is None else (chunks, self._argument)

    def finished(self, assignment: tuple[range, Any], seconds: float) -> None:
        self._shares.finished(assignment[0], seconds)

    def expected(self, assignment: tuple[range, Any]) -> float | None:
        return self._shares.expected(assignment[0])
