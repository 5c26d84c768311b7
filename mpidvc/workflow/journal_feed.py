"""A propagation that goes to the journal of a run, and is resumed from it."""

from __future__ import annotations

import time

import numpy as np

from mpidvc.arrays import Ints, Records
from mpidvc.core.pixel_search import RESULT
from mpidvc.core.propagation import Propagation
from mpidvc.tasks.pixel_search import CC, RECORD, RETURN_STATUS
from mpidvc.workflow.measurement import Measurement

__all__ = ["LOGGED", "JournalFeed"]

#: A record of the journal: the row of the field, and what was found there.
LOGGED = np.dtype([("row", np.int64), *((name, RECORD[name]) for name in ("phi", "result"))])
#: Points, and seconds, after which results go to the journal.
MOST_UNWRITTEN, LONGEST_UNWRITTEN = 256, 1.0


class JournalFeed:
    """A propagation whose results go to the journal in the order in which they come; on rank 0.

    Points that an interrupted run has recorded are taken as soon as they are ready, and not searched again.

    Parameters
    ----------
    propagation : Propagation
    rows : (n,) int64
        Row of the field of each of its points; -1 for a starting point that is not written.
    measurement : Measurement
        With a journal of records `LOGGED`.
    """

    def __init__(self, propagation: Propagation, rows: Ints, measurement: Measurement) -> None:
        self._propagation = propagation
        self._rows = rows
        self._measurement = measurement
        self._journal = measurement.journal
        self._free = measurement.files.todo
        recorded = self._journal.records(np.setdiff1d(np.arange(self._journal.n_blocks), self._free))
        self._known = np.full(len(self._journal), -1)
        self._known[recorded["row"]] = np.arange(len(recorded))
        self._recorded = recorded
        # not those of rows that are no points
        self._left = int(np.isin(recorded["row"], rows).sum())
        self._waiting: list[Records] = []
        self._unwritten: list[Records] = []
        self._since = time.monotonic()
        self._replay()

    @property
    def ready(self) -> int:
        return sum(map(len, self._waiting)) + self._propagation.ready

    @property
    def exhausted(self) -> bool:
        return not self._waiting and self._propagation.exhausted

    def take(self, most: int) -> Records:
        if not self._waiting:
            return self._propagation.take(most)
        batch, rest = self._waiting[0][:most], self._waiting[0][most:]
        self._waiting[:1] = [rest] if len(rest) else []
        return batch

    def finished(self, batch: Records, records: Records) -> None:
        rows = self._rows[batch["point"]]
        mine = (rows >= 0) & (self._known[rows] < 0)
        logged = np.zeros(int(mine.sum()), LOGGED)
        logged["row"], logged["phi"], logged["result"] = rows[mine], records["phi"][mine], records["result"][mine]
        # as spam writes it for a propagation
        logged["result"][:, RESULT.index("iterations")] = 0
        self._unwritten.append(logged)
        if sum(map(len, self._unwritten)) >= MOST_UNWRITTEN or time.monotonic() - self._since > LONGEST_UNWRITTEN:
            self.flush()
        self._tell(batch, records)
        self._measurement.advance(len(logged), f"CC={records['result'][-1, CC]:.5f}")
        if self._left:
            self._replay()

    def flush(self) -> None:
        """Write what is not in the journal yet."""
        logged = np.concatenate([np.zeros(0, LOGGED), *self._unwritten])
        self._unwritten, self._since = [], time.monotonic()
        while len(logged):
            # what is free begins with one stretch, unless a record was found damaged
            first = int(self._free[0])
            stretch = int(np.argmin(np.append(np.diff(self._free[: len(logged)]) == 1, False))) + 1
            self._journal.record_singles(first, logged[:stretch])
            self._free, logged = self._free[stretch:], logged[stretch:]

    def place(self) -> None:
        """Give every row of the journal its row of the field, when all are there."""
        rows = self._journal.records(np.arange(self._journal.n_blocks))["row"]
        self._journal.place(np.asarray(rows, np.int64))

    def _tell(self, batch: Records, records: Records) -> None:
        """Tell the propagation; points without a displacement guide no others, whatever the threshold."""
        searched = records["result"][:, RETURN_STATUS] == 1
        cc = np.where(searched, records["result"][:, CC], -np.inf)
        self._propagation.finished(batch, records["phi"][:, :, 3], cc)

    def _replay(self) -> None:
        """Take what is ready and recorded, again and again; what is ready and not recorded waits to be taken."""
        while self._left and self._propagation.ready:
            batch = self._propagation.take(self._propagation.ready)
            rows = self._rows[batch["point"]]
            known = np.where(rows >= 0, self._known[rows], -1)
            if not (known >= 0).all():
                self._waiting.append(batch[known < 0])
            if (known >= 0).any():
                self._left -= int((known >= 0).sum())
                self._tell(batch[known >= 0], self._recorded[known[known >= 0]])
