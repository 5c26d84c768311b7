"""The end of a run: records go to the rows of the finished file, which takes the journal's place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mpidvc.arrays import Array
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

__all__ = ["OrderedRows", "finish"]


def finish(
    executor: Executor,
    files: RunFiles,
    measurement: Measurement,
    judge: Callable[[ResultsFile, Mapping[str, int]], int],
) -> int:
    """Write the finished file with its verdict, and let it take the journal's place; on every rank.

    Parameters
    ----------
    executor : Executor
    files : RunFiles
    measurement : Measurement
    judge : callable
        Gives the exit status from the finished file and the number of points by return status (``"2"``); on rank 0.

    Returns
    -------
    int
        The exit status, on every rank.

    Raises
    ------
    AgreedError
        If the disk or the memory has changed records since they were measured.
    """
    journal, target = measurement.journal, files.finished
    assert target is not None
    damaged, statuses = 0, Counter[str]()

    def sink(chunk: int, found: Any) -> None:
        nonlocal damaged
        damaged += found[0]
        statuses.update(found[1])

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
        ordered = OrderedRows(journal, target, files.layout)
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
    return status


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

    A chunk returns the number of blocks whose records do not fit their marks, and of points by return status. Where the
    order of the blocks is computed a piece has whole blocks, whose records are read once and checked.
    """

    def __init__(self, journal: Journal, target: RowFile, layout: FieldLayout) -> None:
        self._journal, self._target, self._layout = journal, target, layout
        self._pieces: Pieces = _Ranges(layout.n) if journal.computed is None else journal.computed.order.pieces(ROWS)
        self.n_chunks = len(self._pieces)

    def run(self, chunk: int) -> tuple[int, dict[str, int]]:
        journal = self._journal
        first, end, ranges = self._pieces[chunk]
        places = np.concatenate([journal.places(start, stop) for start, stop in ranges])
        damaged = 0
        if journal.computed is None:
            records = journal.mapped(f"{JOURNAL}/records")[places]
        else:
            records, bad = journal.checked(first, end)
            damaged, records = len(bad), records[places - journal.starts[first]]
        positions = np.concatenate([journal.positions(start, stop) for start, stop in ranges])
        columns: dict[str, Array] = {name: records["result"][:, k] for k, name in enumerate(self._layout.columns)}
        for name, rows in dataset_rows(self._layout, positions, records["phi"], columns).items():
            done = 0
            for start, stop in ranges:
                self._target.write(name, start, rows[done : done + stop - start])
                done += stop - start
        # safe before rank 0 lets the file take the journal's place
        self._target.sync()
        return damaged, count_statuses(columns["returnStatus"])


class _Ranges:
    """Pieces of a field whose order is not computed: ranges of its rows, of no whole blocks."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return -(-self._n // ROWS)

    def __getitem__(self, k: int) -> tuple[int, int, list[tuple[int, int]]]:
        return 0, 0, [(k * ROWS, min((k + 1) * ROWS, self._n))]
