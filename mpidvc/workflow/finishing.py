"""Rows of the finished file and the text of a run, written piece by piece as the points of each piece are done."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from mpidvc.arrays import Array, Ints, Records
from mpidvc.fields.hdf5 import FieldLayout, record_rows
from mpidvc.rowfile import HOME, JOURNAL, RowFile
from mpidvc.runtime.journal import Journal, Pieces
from mpidvc.tasks.memory import ROWS
from mpidvc.workflow.files import RunFiles
from mpidvc.workflow.stages import Stages
from mpidvc.workflow.summary import count_statuses
from mpidvc.workflow.text import TextPart, TextPlaces, TextRows, text_length

__all__ = ["Finishing", "OrderedRows"]


class Finishing:
    """The rows of the finished file of a run, and its text, as work in pieces; every rank makes one.

    A piece of rows is ready when its points are done, and a part of the text when all rows before it are counted. So
    most of both is written while points are still measured, if every rank knows the order of the rows and all hosts see
    the journal alike; the rest, or else all of it, is written when all points are done.

    On rank 0 it is the feed of the pieces. A batch is a list of pieces of rows, by their numbers, and of parts of the
    text.

    Parameters
    ----------
    files : RunFiles
        With a journal.
    names : sequence of str
        Columns of the text, if one is wanted.
    stages : Stages
        Gets the times.
    leads : bool
        Whether this is rank 0.

    Attributes
    ----------
    along : bool
        Whether pieces are written while points are measured.
    damaged : int
        On rank 0: blocks of the journal whose records do not fit their marks.
    statuses : Counter
        On rank 0: points by return status (``"2"``).
    """

    def __init__(self, files: RunFiles, names: Sequence[str], stages: Stages, leads: bool) -> None:
        journal, target = files.journal, files.finished
        assert journal is not None
        assert target is not None
        self._text, self._stages = files.text, stages
        self._rows = OrderedRows(journal, target, files.layout, () if files.text is None else names)
        self._text_rows = TextRows(target, files.layout, names)
        self.along = files.driver == "posix" and files.coherent and journal.computed is not None
        self.damaged, self.statuses = 0, Counter[str]()
        self._ready: deque[int | TextPart] = deque()
        #: Parts of the text that wait until every rank may read the rows of the others.
        self._held: list[TextPart] | None = [] if files.driver == "mpio" else None
        self._places = TextPlaces(names, files.layout.n)
        #: Pieces of rows, and rows of the text, that are still to be taken.
        self._pieces_left = self._rows.n_chunks
        self._rows_left = 0 if files.text is None else files.layout.n
        #: Blocks of each piece that are not done, and the ends of the pieces.
        self._undone = [1] * self._rows.n_chunks if leads else []
        self._ends: list[int] = []
        if leads and self.along and journal.computed is not None:
            ends = journal.computed.order.pieces(ROWS).ends
            todo = np.searchsorted(ends, files.todo, side="right")
            self._ends, self._undone = ends.tolist(), np.bincount(todo, minlength=len(ends)).tolist()
            self._ready.extend(piece for piece, left in enumerate(self._undone) if left == 0)

    # The feed, on rank 0

    def done(self, block: int) -> None:
        """Note that a block of the journal is done."""
        if not self.along:
            return
        # for every block of a run: without arrays
        piece = bisect_right(self._ends, block)
        self._undone[piece] -= 1
        if self._undone[piece] == 0:
            self._ready.append(piece)

    def all_done(self) -> None:
        """Note that all blocks are done."""
        self._ready.extend(piece for piece, left in enumerate(self._undone) if left)
        self._undone = [0] * len(self._undone)

    def all_readable(self) -> None:
        """Note that every rank may read the rows that others have written."""
        held, self._held = self._held, None
        self._ready.extend(held or ())

    @property
    def text_bytes(self) -> int:
        """Length of the text, when all is written."""
        return self._places.size

    @property
    def ready(self) -> int:
        return len(self._ready)

    @property
    def exhausted(self) -> bool:
        return self._pieces_left == 0 and (self._rows_left == 0 or self._held is not None)

    def take(self, most: int) -> list[int | TextPart]:
        batch = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        for piece in batch:
            if isinstance(piece, TextPart):
                self._rows_left -= piece.stop - piece.first
            else:
                self._pieces_left -= 1
        return batch

    def finished(self, batch: list[int | TextPart], result: list[Any]) -> None:
        for piece, found in zip(batch, result, strict=True):
            if isinstance(piece, TextPart):
                continue
            damaged, statuses, lengths = found
            self.damaged += damaged
            self.statuses.update(statuses)
            if self._text is None:
                continue
            waiting = self._ready if self._held is None else self._held
            for (start, stop), length in zip(self._rows.pieces[piece][2], lengths.tolist(), strict=True):
                waiting.extend(self._places.add(start, stop, length))

    # The work, on every rank

    def run(self, batch: list[int | TextPart]) -> list[Any]:
        """Write pieces of rows, and parts of the text.

        Returns
        -------
        list
            Of a piece of rows as `OrderedRows.run`, of a part of the text None.
        """
        found: list[Any] = []
        for piece in batch:
            if isinstance(piece, TextPart):
                assert self._text is not None
                with self._stages.stage("write"):
                    self._text_rows.write(piece, self._text)
                found.append(None)
            else:
                with self._stages.stage("finish"):
                    found.append(self._rows.run(piece))
        return found


class OrderedRows:
    """Copies the records of a journal to the rows of the finished file, piece by piece.

    A chunk returns the number of blocks whose records do not fit their marks, of points by return status, and of bytes
    of the text of each of its ranges of rows. Where the order of the blocks is computed a piece has whole blocks, whose
    records are read once and checked.

    Parameters
    ----------
    journal : Journal
    target : RowFile
        The finished file.
    layout : FieldLayout
    names : sequence of str
        Columns of the text; without any nothing is counted.

    Attributes
    ----------
    pieces : Pieces
    """

    def __init__(self, journal: Journal, target: RowFile, layout: FieldLayout, names: Sequence[str] = ()) -> None:
        self._journal, self._target, self._layout, self._names = journal, target, layout, names
        self.pieces: Pieces = _Ranges(layout.n) if journal.computed is None else journal.computed.order.pieces(ROWS)
        self.n_chunks = len(self.pieces)
        self._memory: Records | None = None

    def run(self, chunk: int) -> tuple[int, dict[str, int], Ints]:
        journal = self._journal
        first, end, ranges = self.pieces[chunk]
        damaged, begun = 0, 0
        if journal.computed is None:
            records = journal.mapped(f"{JOURNAL}/records")
        else:
            # pages of fresh memory are cleared, which takes longer than to read the records
            records, bad = journal.checked(first, end, self._memory)
            self._memory = records if self._memory is None or len(records) > len(self._memory) else self._memory
            damaged, begun = len(bad), int(journal.starts[first])
        # numbers of eight bytes: see `record_of`; those of a propagation begin with another one than Phi
        table = records.view(np.float64).reshape(len(records), -1)
        phi = dict(records.dtype.fields or {})["phi"][1] // 8
        lengths = np.zeros(len(ranges), np.int64)
        statuses: list[Array] = []
        # some rows at a time: what is made of them stays in the cache
        for k, (start, stop) in enumerate(ranges):
            places = journal.places(start, stop) - begun
            values = record_rows(self._layout, journal.positions(start, stop), table, places, phi)
            if self._names:
                lengths[k] = text_length(self._layout, self._names, values, start, stop)
            for name, rows in values.items():
                self._target.write(name, start, rows)
            statuses.append(np.asarray(values[f"{HOME}/returnStatus"], np.float64))
        # safe before rank 0 lets the file take the journal's place
        self._target.sync()
        return damaged, count_statuses(np.concatenate(statuses)), lengths


class _Ranges:
    """Pieces of a field whose order is not computed: ranges of its rows, of no whole blocks."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return -(-self._n // ROWS)

    def __getitem__(self, k: int) -> tuple[int, int, list[tuple[int, int]]]:
        return 0, 0, [(k * ROWS, min((k + 1) * ROWS, self._n))]
