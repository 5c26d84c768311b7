"""The end of a run: records go to the rows of the finished file, which takes the journal's place."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc.atomic import sync_folder
from mpidvc.errors import ResourceError
from mpidvc.fields.hdf5 import FieldLayout, ResultsFile, dataset_rows
from mpidvc.rowfile import JOURNAL, RowFile
from mpidvc.runtime.executor import Executor, InlineExecutor
from mpidvc.runtime.journal import Journal, MarksTask
from mpidvc.tasks.memory import ROWS
from mpidvc.tasks.ranks import on_leader
from mpidvc.workflow.files import RunFiles, close_parallel, nobody_is_lost, part_of
from mpidvc.workflow.measurement import Measurement

__all__ = ["OrderedRows", "finish"]


def finish(executor: Executor, files: RunFiles, measurement: Measurement) -> None:
    """Write the finished file, and let it take the journal's place; on every rank."""
    journal, target = measurement.journal, files.finished
    assert target is not None
    measurement.stages.journal(journal.seconds)
    with measurement.stages.stage("finish"):
        # the other hosts need not see yet what rank 0 has written
        alone = InlineExecutor() if files.driver == "gather" else None
        _verify(executor, journal, alone)
        task = OrderedRows(journal, target, files.layout)
        if alone is not None:
            if executor.rank == 0:
                alone.map(task, None)
        else:
            if files.driver == "mpio" and nobody_is_lost(executor):
                target.open_parallel(executor.communicator.mpi)  # type: ignore[attr-defined]
            executor.map(task, None)
            close_parallel(executor, files, target)
        on_leader(executor, lambda: _publish(files, target, measurement))
        # frees its space, which the other files may need
        journal.close()
        target.close()


def _verify(executor: Executor, journal: Journal, alone: Executor | None) -> None:
    """Check once more that the records are those that were measured, before they are copied; on every rank.

    Raises
    ------
    AgreedError
        If the disk or the memory has changed some.
    """
    damaged = 0

    def sink(chunk: int, found: Any) -> None:
        nonlocal damaged
        damaged += found

    if alone is None:
        executor.map(MarksTask(journal), sink)
    elif executor.rank == 0:
        alone.map(MarksTask(journal), sink)

    def refuse() -> None:
        if damaged:
            raise ResourceError(
                f"{journal.path}: {damaged} of {journal.n_blocks} pieces do not fit their checksums any more, as the "
                "disk or the memory has changed them; --resume measures them again"
            )

    on_leader(executor, refuse)


def _publish(files: RunFiles, target: RowFile, measurement: Measurement) -> None:
    for name, values in measurement.noise.items():
        target.write(name, 0, values)
    target.sync(always=True)
    target.close()
    part = part_of(files.path)
    part.replace(os.path.realpath(files.path))
    sync_folder(part.parent)
    if measurement.journal.path != files.path:
        measurement.journal.path.unlink(missing_ok=True)
    with ResultsFile(files.path) as file:
        values, counts = np.unique(file.column("returnStatus"), return_counts=True)
    measurement.finished({f"{value:g}": int(count) for value, count in zip(values, counts, strict=True)})


class OrderedRows:
    """Copies the records of a journal to the rows of the finished file, block of rows by block of rows."""

    def __init__(self, journal: Journal, target: RowFile, layout: FieldLayout) -> None:
        self._journal, self._target, self._layout = journal, target, layout
        self.n_chunks = -(-layout.n // ROWS)

    def run(self, chunk: int) -> npt.NDArray[Any]:
        start, stop = chunk * ROWS, min((chunk + 1) * ROWS, self._layout.n)
        places = self._journal.read(f"{JOURNAL}/places", start, stop)
        records = self._journal.mapped(f"{JOURNAL}/records")[places]
        positions = self._journal.read(f"{JOURNAL}/positions", start, stop)
        columns = {name: records["result"][:, k] for k, name in enumerate(self._layout.columns)}
        for name, rows in dataset_rows(self._layout, positions, records["phi"], columns).items():
            self._target.write(name, start, rows)
        # safe before rank 0 lets the file take the journal's place
        self._target.sync()
        return np.zeros(0)
