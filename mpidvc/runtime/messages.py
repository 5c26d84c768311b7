"""Messages between rank 0 and the workers: no call blocks in MPI, and ranks that have died are noticed."""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from mpidvc.runtime.comm import MPICommunicator
from mpidvc.runtime.exit_status import RETRY

__all__ = ["Backoff", "Mailbox", "Tag"]

#: Longest message in bytes; some MPIs refuse counts above 2**31 - 1.
LONGEST_MESSAGE = 2**29
#: Seconds between two queries for ranks that have failed: receiving from any rank does not report them.
LOOK_EVERY = 0.05

_MOST_ARRIVING = 64
#: Sends tested for completion at a time: each test lets MPI progress all of them, and with thousands of ranks there are
#: thousands of them.
_MOST_TESTED = 4


class Tag:
    """Kinds of messages, as MPI's tags; plain numbers, since looking up members of an enumeration takes much longer."""

    #: A piece of a message that continues in the next one of the same rank.
    PART = 1
    #: From rank 0: an assignment; begin nothing more; the end of a round; the end of the job; leave, you are given up.
    WORK = 2
    RECALL = 3
    END = 4
    FAREWELL = 5
    RETIRE = 6
    #: Broadcasts: the head of a long one, which follows as `BYTES`, and a whole short one.
    HEAD = 7
    SHORT = 12
    BYTES = 100
    #: From a worker: its host and process; a result; assignments that it has not begun; the receipt of a broadcast.
    HELLO = 8
    DONE = 9
    BACK = 10
    GOT = 11
    #: From a worker: it has done its part of the job, and waits for the farewell.
    READY = 13


class Backoff:
    """Waits that begin as polling and grow to naps of a millisecond; signals are handled in between."""

    def __init__(self) -> None:
        self._rounds = 0

    def __call__(self) -> None:
        self._rounds += 1
        time.sleep(0.0 if self._rounds < 100 else min(1e-3, 1e-5 * (self._rounds - 99)))


class Mailbox:
    """Messages of pickled values or of bytes, split where too long, sent and received in the background of `poll`.

    With Open MPI's fault tolerance it also notices ranks that have died: rank 0 finds them in `failed`, and a worker
    whose rank 0 has died ends its process.

    Parameters
    ----------
    communicator : MPICommunicator

    Attributes
    ----------
    silenced : set of int
        Ranks whose messages are dropped and which nobody waits for.
    failed : list of int
        Ranks that have died and that the owner has not dealt with yet.
    """

    def __init__(self, communicator: MPICommunicator) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = communicator.mpi
        self._communicator = communicator
        self._rank = communicator.rank
        self._status = MPI.Status()
        self._sends: deque[tuple[Any, Any, int]] = deque()
        self._abandoned: list[Any] = []
        self._arriving: list[tuple[int, int, Any, bytearray]] = []
        self._parts: dict[int, list[bytearray]] = {}
        self._dead: set[int] = set()
        self._next_look = 0.0
        self.silenced: set[int] = set()
        self.failed: list[int] = []

    def send(self, value: Any, to: int, tag: int) -> None:
        """Begin to send a value."""
        self.send_bytes(memoryview(pickle.dumps(value, protocol=5)), to, tag)

    def send_all(self, value: Any, ranks: Iterable[int], tag: int) -> None:
        """Begin to send a value to several ranks."""
        data = memoryview(pickle.dumps(value, protocol=5))
        for to in ranks:
            self.send_bytes(data, to, tag)

    def send_bytes(self, data: memoryview, to: int, tag: int) -> None:
        """Begin to send bytes, which must not be changed until they are sent."""
        if to in self.silenced:
            return
        starts = range(0, len(data), LONGEST_MESSAGE)
        for start in starts:
            part = data[start : start + LONGEST_MESSAGE]
            try:
                request = self._comm.Isend(
                    [part, self._mpi.BYTE], dest=to, tag=tag if start == starts[-1] else Tag.PART
                )
            except self._mpi.Exception:
                self._explain()
                return
            self._sends.append((request, part, to))
        self.progress()

    def progress(self, most: int = _MOST_TESTED) -> None:
        """Let MPI progress the sends, and forget the completed ones among the `most` oldest."""
        for _ in range(min(most, len(self._sends))):
            send = self._sends.popleft()
            if not self._sent(*send):
                self._sends.append(send)

    def _sent(self, request: Any, part: Any, to: int) -> bool:
        if to in self.silenced:
            # MPI may still read the buffer.
            self._abandoned.append((request, part))
            return True
        try:
            return bool(request.Test())
        except self._mpi.Exception:
            self._explain()
            return True

    def flush(self, seconds: float) -> None:
        """Wait until everything is sent, for `seconds` at most: a receiver may hang."""
        backoff = Backoff()
        until = time.monotonic() + seconds
        while self._sends and time.monotonic() < until:
            self.progress(len(self._sends))
            self.look()
            backoff()

    def poll(self) -> tuple[int, int, Any] | None:
        """Return ``(rank, tag, value)`` of a message that has arrived, or None."""
        self.progress()
        self.look()
        while True:
            probed = self._probe()
            rank, tag, data = self._arrived()
            if data is None:
                if not probed:
                    return None
                continue
            parts = self._parts.setdefault(rank, [])
            parts.append(data)
            if tag == Tag.PART:
                continue
            del self._parts[rank]
            if rank in self.silenced:
                continue
            whole = parts[0] if len(parts) == 1 else b"".join(parts)
            return rank, tag, whole if tag == Tag.BYTES else pickle.loads(whole)

    def _probe(self) -> bool:
        """Begin to receive a message if one is waiting."""
        if len(self._arriving) >= _MOST_ARRIVING:
            return False
        status = self._status
        try:
            if not self._comm.Iprobe(source=self._mpi.ANY_SOURCE, tag=self._mpi.ANY_TAG, status=status):
                return False
            rank, tag = status.Get_source(), status.Get_tag()
            part = bytearray(status.Get_count(self._mpi.BYTE))
            # Not a blocking receive: the sender may stop or die in the middle of it.
            request = self._comm.Irecv([part, self._mpi.BYTE], source=rank, tag=tag)
        except self._mpi.Exception:
            self._explain()
            return False
        self._arriving.append((rank, tag, request, part))
        return True

    def _arrived(self) -> tuple[int, int, bytearray | None]:
        """Return the first complete message, keeping the order of each rank's messages."""
        waiting: set[int] = set()
        for k, (rank, tag, request, part) in enumerate(self._arriving):
            if rank in waiting:
                continue
            try:
                if not request.Test():
                    waiting.add(rank)
                    continue
            except self._mpi.Exception:
                self._explain()
                del self._arriving[k]
                self._parts.pop(rank, None)
                break
            del self._arriving[k]
            return rank, tag, part
        return -1, -1, None

    def silence(self, rank: int) -> None:
        """Drop all messages of a rank from now on."""
        self.silenced.add(rank)
        self._parts.pop(rank, None)
        self._abandoned += [item for item in self._arriving if item[0] == rank]
        self._arriving = [item for item in self._arriving if item[0] != rank]
        self.progress(len(self._sends))

    def look(self, now: bool = False) -> None:
        """Query for ranks that have died, at most every `LOOK_EVERY` seconds unless `now`."""
        if not self._communicator.fault_tolerant:
            return
        moment = time.monotonic()
        if not now and moment < self._next_look:
            return
        self._next_look = moment + LOOK_EVERY
        dead = self._communicator.dead() - self._dead
        if dead:
            self._dead |= dead
            # Unacknowledged failures make every receive from any rank fail.
            self._comm.Ack_failed(len(self._dead))
            if self._rank != 0:
                if 0 in dead:
                    os._exit(RETRY)
            else:
                self.failed += sorted(dead)

    def _explain(self) -> None:
        """Raise the current exception again unless the death of a rank explains it."""
        if not self._communicator.fault_tolerant:
            raise
        self.look(now=True)
        if not self._dead:
            raise
