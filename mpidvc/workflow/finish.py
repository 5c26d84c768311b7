"""The end of a run: records go to the rows of the finished file, which takes the journal's place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mpidvc.arrays import Array, Ints
from mpidvc.atomic import sync_folder
from mpidvc.errors import ResourceError
from mpidvc.fields.hdf5 import VERDICT, FieldLayout, ResultsFile, dataset_rows
from mpidvc.rowfile import JOURNAL, RowFile
from mpidvc.runtime.executor import Executor, InlineExecutor
from mpidvc.runtime.journal import Journal, MarksTask, Pieces
from mpidvc.tasks.memory import ROWS
from mpidvc.tasks.ranks import on_leader
from mpidvc.workflow.files import RunFiles, close_parallel, nobody_is_lost, part_of
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.summary import count_statuses
from mpidvc.workflow.text import TextParts, parts_of, text_length

__all__ = ["OrderedRows", "finish"]


def finish(
    executor: Executor,
    files: RunFiles,
    measurement: Measurement,
    judge: Callable[[ResultsFile, Mapping[str, int]], int],
    names: Sequence[str] = (),
) -> tuple[int, TextParts | None]:
    """Write the finished file with its verdict, and let it take the journal's place; on every rank.

    Parameters
    ----------
    executor : Executor
    files : RunFiles
    measurement : Measurement
    judge : callable
        Gives the exit status from the finished file and the number of points by return status (``"2"``); on rank 0.
    names : sequence of str
        Columns of the text that will be written: its bytes are counted while the rows are at hand.

    Returns
    -------
    status : int
        The exit status, on every rank.
    parts : TextParts or None
        Of the text, on rank 0; None without names.

    Raises
    ------
    AgreedError
        If the disk or the memory has changed records since they were measured.
    """
    journal, target = measurement.journal, files.finished
    assert target is not None
    damaged, statuses = 0, Counter[str]()
    starts: list[Ints] = []
    lengths: list[Ints] = []

    def sink(chunk: int, found: Any) -> None:
        nonlocal damaged
        damaged += found[0]
        statuses.update(found[1])
        if names and len(found) > 2:
            starts.append(ordered.starts(chunk))
            lengths.append(found[2])

    def complete() -> int:
        if damaged:
            raise ResourceError(
                f"{journal.path}: {damaged} of {journal.n_blocks} pieces do not fit their checksums any more, as the "
                "disk or the memory has changed them; --resume measures them again"
            )
        for name, values in measurement.noise.items():
            target.write(name, 0, values)
        target.sync(always=True)
        # before it is finished: a file never is without its verdict
        with ResultsFile(target.path) as results:
            return judge(results, statuses)

    measurement.stages.journal(journal.seconds)
    with measurement.stages.stage("finish"):
        # the other hosts need not see yet what rank 0 has written
        alone = InlineExecutor() if files.driver == "gather" else None
        ordered = OrderedRows(journal, target, files.layout, names)
        if alone is None and files.driver == "mpio" and nobody_is_lost(executor):
            target.open_parallel(executor.communicator.mpi)  # type: ignore[attr-defined]
        if alone is None or executor.rank == 0:
            if journal.computed is None:
                # the rows of a piece are from many blocks
                (alone or executor).map(MarksTask(journal), sink)
            (alone or executor).map(ordered, sink)
        close_parallel(executor, files, target)
    with measurement.stages.stage("summary"):
        status = on_leader(executor, complete)
    with measurement.stages.stage("finish"):
        on_leader(executor, lambda: _publish(files, target, measurement, statuses, status))
        # frees its space, which the other files may need
        journal.close()
        target.close()
        if not starts:
            return status, None
        return status, parts_of(names, np.concatenate(starts), np.concatenate(lengths), files.layout.n)


def _publish(files: RunFiles, target: RowFile, measurement: Measurement, statuses: Counter[str], status: int) -> None:
    target.write(VERDICT, 0, np.array([status]))
    target.sync(always=True)
    target.close()
    part = part_of(files.path)
    part.replace(os.path.realpath(files.path))
    sync_folder(part.parent)
    if measurement.journal.path != files.path:
        measurement.journal.path.unlink(missing_ok=True)
    measurement.finished({value: statuses[value] for value in sorted(statuses, key=float)})


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
    """

    def __init__(self, journal: Journal, target: RowFile, layout: FieldLayout, names: Sequence[str] = ()) -> None:
        self._journal, self._target, self._layout, self._names = journal, target, layout, names
        self._pieces: Pieces = _Ranges(layout.n) if journal.computed is None else journal.computed.order.pieces(ROWS)
        self.n_chunks = len(self._pieces)

    def starts(self, chunk: int) -> Ints:
        """First rows of the ranges of a chunk."""
        return np.array([start for start, _ in self._pieces[chunk][2]], np.int64)

    def run(self, chunk: int) -> tuple[int, dict[str, int], Ints]:
        journal = self._journal
        first, end, ranges = self._pieces[chunk]
        places = np.concatenate([journal.places(start, stop) for start, stop in ranges])
        damaged = 0
        if journal.computed is None:
            records = journal.mapped(f"{JOURNAL}/records").take(places)
        else:
            records, bad = journal.checked(first, end)
            # in a tenth of the time of an index
            damaged, records = len(bad), records.take(places - journal.starts[first])
        positions = np.concatenate([journal.positions(start, stop) for start, stop in ranges])
        columns: dict[str, Array] = {name: records["result"][:, k] for k, name in enumerate(self._layout.columns)}
        values = dataset_rows(self._layout, positions, records["phi"], columns)
        lengths = np.zeros(len(ranges), np.int64)
        done = 0
        for k, (start, stop) in enumerate(ranges):
            mine = {name: rows[done : done + stop - start] for name, rows in values.items()}
            for name, rows in mine.items():
                self._target.write(name, start, rows)
            if self._names:
                lengths[k] = text_length(self._layout, self._names, mine, start, stop)
            done += stop - start
        # safe before rank 0 lets the file take the journal's place
        self._target.sync()
        return damaged, count_statuses(columns["returnStatus"]), lengths


class _Ranges:
    """Pieces of a field whose order is not computed: ranges of its rows, of no whole blocks."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return -(-self._n // ROWS)

    def __getitem__(self, k: int) -> tuple[int, int, list[tuple[int, int]]]:
        return 0, 0, [(k * ROWS, min((k + 1) * ROWS, self._n))]
