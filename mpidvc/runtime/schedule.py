"""The schedule: which rank gets which work, and how long it may keep it. Neither MPI nor clocks are known here."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from mpidvc.errors import UserError

__all__ = ["Feed", "FlowSchedule", "Followed", "Lease", "Ledger", "Policy", "Schedule", "Shares"]

Assignment = TypeVar("Assignment")
Batch = TypeVar("Batch", bound=Sized)
Given = TypeVar("Given", contravariant=True)
Result = TypeVar("Result")

#: Number of ranks from which rank 0 only schedules: the more ranks wait for its answers, the dearer a chunk of its own.
SCHEDULER_ONLY_FROM = 24
#: Longest assignment, in seconds; two of them outlast most chunks that rank 0 works on.
LONGEST_ASSIGNMENT = 2.0
#: An assignment is a rank's part of the remaining chunks, divided by this. Air, ordinary and diverging chunks come in
#: runs, so that an assignment can cost ten times the mean, as a single chunk can, and is not shared then. Where rank 0
#: works assignments are longer: workers would run out of work before it answers.
SHARE, SHARE_OF_FEW = 8, 4
#: An assignment has at most this many times the chunks that each rank has done on average. Cheap chunks come back
#: first, so that the mean is too small in the beginning; no assignment should last longer than the run so far.
GROWTH = 2
#: Seconds of rank 0 for an assignment and its report, a little more than measured (docs/scaling.md). Until the end no
#: assignment is shorter than this times the number of ranks: all ranks would wait for rank 0.
SERVED = 7e-5
#: Longest batch of a flow, in seconds: the results of a piece wait for the rest of its batch.
LONGEST_BATCH = 0.05

STUCK = "no piece of the flow is ready, and none is being worked on that could make others ready"


class Feed(Protocol[Batch, Given]):
    """Work in pieces that become ready when others are done, and are made from their results; lives on rank 0.

    The results must depend neither on the division into batches nor on the order in which batches end: then they are
    the same on any number of ranks.
    """

    @property
    def ready(self) -> int:
        """Number of pieces that could be taken now."""

    @property
    def exhausted(self) -> bool:
        """Whether every piece has been taken."""

    def take(self, most: int) -> Batch:
        """Return from one to `most` pieces that are ready; called only if `ready` is not 0."""

    def finished(self, batch: Batch, result: Given) -> None:
        """Take the result of a batch, which may make other pieces ready."""


class Policy(Protocol[Assignment]):
    """Cuts the work into assignments.

    Attributes
    ----------
    size : int
        Number of working ranks, rank 0 included; it changes when ranks are lost, become late and answer again.
    """

    size: int

    @property
    def exhausted(self) -> bool:
        """Whether everything has been handed out."""

    def take(self, rank: int, in_hand: int) -> Assignment | None:
        """Return the next assignment for a rank, or None if it shall get none now.

        Parameters
        ----------
        rank : int
            Rank 0 asks for itself, and on behalf of all workers.
        in_hand : int
            Number of assignments that the rank has. If a worker is refused, so is every other with as many in hand,
            until something is finished.
        """

    def finished(self, assignment: Assignment, seconds: float) -> None:
        """Note that an assignment was done, and its seconds."""

    def expected(self, assignment: Assignment) -> float | None:
        """Return the expected seconds of an assignment by the mean so far, None if nothing is known."""


class Rate:
    """Mean cost of a piece of work so far."""

    def __init__(self) -> None:
        self.done = 0
        self.seconds = 0.0

    def note(self, pieces: int, seconds: float) -> None:
        self.done += pieces
        self.seconds += seconds

    def expected(self, pieces: int) -> float | None:
        return self.seconds / self.done * pieces if self.done else None


class Schedule:
    """Numbered chunks: long assignments while many are left, single chunks in the end.

    Chunks cost from nothing to ten times the mean, and which ones is not known; the constants follow from this.

    Parameters
    ----------
    n_chunks : int
        Number of chunks, 0 … n_chunks - 1.
    size : int
        Number of ranks.
    """

    def __init__(self, n_chunks: int, size: int) -> None:
        self.n_chunks = n_chunks
        self.size = size
        #: Number of chunks handed out so far, and their mean cost.
        self.handed_out = 0
        self.rate = Rate()

    @property
    def exhausted(self) -> bool:
        return self.handed_out >= self.n_chunks

    def take(self, rank: int, in_hand: int) -> range | None:
        left = self.n_chunks - self.handed_out
        many = self.size >= SCHEDULER_ONLY_FROM
        if left <= 0 or (rank == 0 and many):
            return None
        # Nobody else can take a reserve: there is none where rank 0 only schedules, and so answers at once, nor where
        # less than one chunk is left for each rank.
        if in_hand > (not many and left >= self.size):
            return None
        count = 1 if rank == 0 else self._worth(left)
        chunks = range(self.handed_out, min(self.handed_out + count, self.n_chunks))
        self.handed_out = chunks.stop
        return chunks

    def _worth(self, left: int) -> int:
        """Number of chunks in a worker's next assignment."""
        share = SHARE if self.size >= SCHEDULER_ONLY_FROM else SHARE_OF_FEW
        count = left // (share * self.size)
        if self.rate.seconds > 0:
            per_second = self.rate.done / self.rate.seconds
            served = SERVED * self.size
            if left >= share * self.size:
                count = max(count, int(served * per_second))
            count = min(count, int(max(LONGEST_ASSIGNMENT, 2 * served) * per_second))
        return max(1, min(count, GROWTH * self.rate.done // self.size))

    def finished(self, chunks: range, seconds: float) -> None:
        self.rate.note(len(chunks), seconds)

    def expected(self, chunks: range) -> float | None:
        return self.rate.expected(len(chunks))


class Followed(Generic[Batch]):
    """The chunks of a schedule, and the pieces of a feed that become ready as they are done: a ready piece goes first.

    So the work that follows the chunks is done while they are, and little of it is left in the end.

    Parameters
    ----------
    chunks : Schedule
    feed : Feed
        Its batches are no ranges. One piece is handed out at a time.
    """

    def __init__(self, chunks: Schedule, feed: Feed[Batch, Any]) -> None:
        self._chunks, self._feed = chunks, feed
        self._out = 0
        self._rate = Rate()

    @property
    def size(self) -> int:
        return self._chunks.size

    @size.setter
    def size(self, size: int) -> None:
        self._chunks.size = size

    @property
    def exhausted(self) -> bool:
        return self._chunks.exhausted and self._feed.exhausted

    def take(self, rank: int, in_hand: int) -> range | Batch | None:
        many = self.size >= SCHEDULER_ONLY_FROM
        given: range | Batch | None
        if self._feed.ready and not (many and (in_hand or rank == 0)):
            given = self._feed.take(1)
        else:
            given = self._chunks.take(rank, in_hand)
        if given is not None:
            self._out += 1
        elif self._out == 0 and self._chunks.exhausted and not self._feed.exhausted and not self._feed.ready:
            raise RuntimeError(STUCK)
        return given

    def finished(self, given: range | Batch, seconds: float) -> None:
        self._out -= 1
        if isinstance(given, range):
            self._chunks.finished(given, seconds)
        else:
            self._rate.note(len(given), seconds)

    def expected(self, given: range | Batch) -> float | None:
        return self._chunks.expected(given) if isinstance(given, range) else self._rate.expected(len(given))


class Shares:
    """Numbered chunks in one piece of neighbours for each rank, the same pieces time after time.

    The data that a rank reads for one chunk, and may keep, serve its next chunk, and the same chunks of the next sum.

    Parameters
    ----------
    n_chunks, size : int
        Numbers of chunks and ranks.
    """

    def __init__(self, n_chunks: int, size: int) -> None:
        self.size = size
        ranges = [range(n_chunks * rank // size, n_chunks * (rank + 1) // size) for rank in range(size)]
        self._own: deque[range] = deque(ranges[:1] if ranges[0] else ())
        self._others: deque[range] = deque(filter(None, ranges[1:]))
        self._rate = Rate()

    @property
    def exhausted(self) -> bool:
        return not self._own and not self._others

    def take(self, rank: int, in_hand: int) -> range | None:
        if in_hand:
            return None
        if rank == 0 and (self._own or self.size > 1):
            return self._own.popleft() if self._own else None
        return self._others.popleft() if self._others else None

    def finished(self, chunks: range, seconds: float) -> None:
        self._rate.note(len(chunks), seconds)

    def expected(self, chunks: range) -> float | None:
        return self._rate.expected(len(chunks))


class FlowSchedule(Generic[Batch, Result]):
    """The ready pieces of a feed.

    At times few are ready, and a piece that others wait for should not lie in a reserve: a batch is a share of the
    ready pieces, and reserves are given only while there are pieces for all ranks. The last ready piece goes to rank 0,
    which need not send it.

    Parameters
    ----------
    feed : Feed
    size : int
        Number of ranks.
    """

    def __init__(self, feed: Feed[Batch, Result], size: int) -> None:
        self.size = size
        self._feed = feed
        self._out = 0
        self._rate = Rate()

    @property
    def exhausted(self) -> bool:
        return self._feed.exhausted

    def take(self, rank: int, in_hand: int) -> Batch | None:
        ready = self._feed.ready
        leads_only = self.size >= SCHEDULER_ONLY_FROM
        if rank == 0:
            if ready == 0 and not self._feed.exhausted and self._out == 0:
                raise RuntimeError(STUCK)
            if leads_only:
                return None
        elif in_hand > (ready >= self.size) or (ready == 1 and not leads_only):
            return None
        if ready == 0:
            return None
        most = ready // (2 * self.size)
        if self._rate.done == 0:
            most = 1
        elif self._rate.seconds > 0:
            most = min(most, int(LONGEST_BATCH * self._rate.done / self._rate.seconds))
        batch = self._feed.take(max(most, 1))
        self._out += 1
        return batch

    def finished(self, batch: Batch, seconds: float) -> None:
        self._out -= 1
        self._rate.note(len(batch), seconds)

    def expected(self, batch: Batch) -> float | None:
        return self._rate.expected(len(batch))


@dataclass(frozen=True)
class Lease:
    """Time for which a worker may keep an assignment before it is given to another rank too; all in seconds.

    A short lease costs work that is done twice, a long one a wait for a worker that hangs.

    Attributes
    ----------
    first : float
        For a rank's first assignment, which may find the rank still starting, and while no cost is known.
    least : float
        Least time for every other assignment.
    times : float
        Additional time per second that the assignment should take; a chunk may cost ten times the mean.
    grace : float
        Time in which a worker has to send a result that is no longer needed, before it is given up.
    """

    first: float = 120.0
    least: float = 30.0
    times: float = 20.0
    grace: float = 10.0

    @classmethod
    def from_environment(cls) -> Lease:
        """Return the default, or the lease set by ``MPIDVC_LEASE`` (seconds, for `first`, `least` and `grace`).

        Raises
        ------
        UserError
            If its value is no number above 0.
        """
        text = os.environ.get("MPIDVC_LEASE")
        if not text:
            return cls()
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not seconds > 0:
            raise UserError(f"MPIDVC_LEASE={text}: give a number of seconds above 0")
        return cls(first=seconds, least=seconds, grace=seconds)


#: Seconds between two searches for late assignments.
_EXPIRE_EVERY = 1.0


class Ledger(Generic[Assignment]):
    """Record of all assignments: hands them out, again if a worker is lost or late; the first result counts.

    Every call but `expire` (once a second at most) costs the same on any number of ranks. Times are seconds of the
    caller's clock.

    Parameters
    ----------
    policy : Policy
    workers : iterable of int
        The ranks besides 0.
    lease : Lease
    """

    def __init__(self, policy: Policy[Assignment], workers: Iterable[int], lease: Lease) -> None:
        self._policy = policy
        self._lease = lease
        #: Assignments in every worker's hands; it returns them in this order.
        self._hands: dict[int, deque[int]] = {rank: deque() for rank in workers}
        # Workers that could get an assignment: those with none in hand, and those with no reserve.
        self._idle: dict[int, None] = dict.fromkeys(self._hands)
        self._single: dict[int, None] = {}
        self._overdue: set[int] = set()
        self._deadlines: dict[int, float] = {}
        self._answered: set[int] = set()
        #: Assignments without a result, the rank that got each of them last, and those that wait for another rank.
        self._open: dict[int, Assignment] = {}
        self._holders: dict[int, int] = {}
        self._again: deque[int] = deque()
        self._following = 0
        self._next_look = -math.inf
        self._cut = False
        self.stopping = False

    @property
    def finished(self) -> bool:
        """Whether all results are there, or everybody but late workers has stopped."""
        if self.stopping:
            return len(self._hands) == len(self._idle) + len(self._overdue)
        return not self._open and self._policy.exhausted

    @property
    def undone(self) -> bool:
        """Whether work is left without a result."""
        return bool(self._open) or self._cut or not self._policy.exhausted

    @property
    def n_owing(self) -> int:
        """Number of workers that have an assignment in hand, needed or not."""
        return len(self._hands) - len(self._idle)

    def owing(self) -> dict[int, float]:
        """Return the workers that have an assignment in hand, and the times when their leases end."""
        return {rank: self._deadlines[rank] for rank, hand in self._hands.items() if hand}

    def hand_out(self, now: float) -> Iterator[tuple[int, int, Assignment]]:
        """Yield worker, number and assignment for all that can be handed out now, first to idle workers."""
        for waiting, in_hand in ((self._idle, 0), (self._single, 1)):
            while waiting:
                rank = next(iter(waiting))
                taken = self._take(rank, in_hand)
                if taken is None:
                    break
                self._hands[rank].append(taken[0])
                if in_hand == 0:
                    self._start(rank, now)
                self._place(rank)
                yield rank, *taken

    def own(self) -> tuple[int, Assignment] | None:
        """Return number and assignment for rank 0 itself, None if it gets none now."""
        return self._take(0, 0)

    def returned(self, rank: int, number: int, seconds: float, now: float, cut: bool = False) -> Assignment | None:
        """Note a result (a part of it if it was cut); return its assignment, or None if the result is not needed."""
        assignment = self._open.pop(number, None)
        if assignment is not None:
            self._holders.pop(number, None)
            self._cut |= cut
            if not cut:
                self._policy.finished(assignment, seconds)
        if rank != 0:
            self._answered.add(rank)
            self._release(rank, [number], now)
        return assignment

    def given_back(self, rank: int, numbers: list[int], now: float) -> None:
        """Note that a worker has returned assignments that it had not begun."""
        self._requeue(rank, numbers)
        self._release(rank, numbers, now)

    def lost(self, rank: int) -> None:
        """Note that a worker is lost; its assignments are handed out before any others."""
        hand = self._hands.pop(rank, None)
        if hand is None:
            return
        self._requeue(rank, hand)
        if rank in self._overdue:
            self._overdue.discard(rank)
        else:
            self._policy.size -= 1
        self._idle.pop(rank, None)
        self._single.pop(rank, None)

    def expire(self, now: float) -> list[int]:
        """Return the workers that have become late: others get their assignments too, and they get no new ones."""
        if now < self._next_look:
            return []
        self._next_look = now + min(_EXPIRE_EVERY, self._lease.least / 10)
        late = [rank for rank, until in self.owing().items() if until < now and rank not in self._overdue]
        for rank in late:
            self._overdue.add(rank)
            self._policy.size -= 1
            self._single.pop(rank, None)
            self._requeue(rank, self._hands[rank])
        return late

    def stop(self) -> list[int]:
        """Hand out nothing more; return the workers that have an assignment in hand."""
        self.stopping = True
        return [rank for rank, hand in self._hands.items() if hand]

    def _take(self, rank: int, in_hand: int) -> tuple[int, Assignment] | None:
        if self.stopping:
            return None
        if in_hand == 0 and (rank != 0 or self._policy.size < SCHEDULER_ONLY_FROM):
            while self._again:
                number = self._again.popleft()
                if number in self._open:
                    self._holders[number] = rank
                    return number, self._open[number]
        assignment = self._policy.take(rank, in_hand)
        if assignment is None:
            return None
        number = self._following
        self._following += 1
        self._open[number] = assignment
        self._holders[number] = rank
        return number, assignment

    def _requeue(self, rank: int, numbers: Iterable[int]) -> None:
        """Hand out again those assignments that no other rank has got since."""
        for number in numbers:
            if self._holders.get(number) == rank:
                del self._holders[number]
                self._again.append(number)

    def _release(self, rank: int, numbers: list[int], now: float) -> None:
        hand = self._hands[rank]
        for number in numbers:
            hand.remove(number)
        if rank in self._overdue:
            self._overdue.discard(rank)
            self._policy.size += 1
        if hand:
            self._start(rank, now)
        self._place(rank)

    def _start(self, rank: int, now: float) -> None:
        """Begin the lease of a worker's next assignment."""
        assignment = self._open.get(self._hands[rank][0])
        expected = None if assignment is None else self._policy.expected(assignment)
        long = self._lease.first if expected is None else self._lease.least + self._lease.times * expected
        self._deadlines[rank] = now + (long if rank in self._answered else max(long, self._lease.first))

    def _place(self, rank: int) -> None:
        n = len(self._hands[rank])
        for waiting, in_hand in ((self._idle, 0), (self._single, 1)):
            if n == in_hand:
                waiting[rank] = None
            else:
                waiting.pop(rank, None)
