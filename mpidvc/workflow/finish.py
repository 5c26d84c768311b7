"""The end of a run: records go to the rows of the finished file, which takes the journal's place."""

from __future__ import annotations

import os
import stat
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc.fields.hdf5 import FieldLayout, ResultsFile, dataset_rows
from mpidvc.rowfile import JOURNAL, RowFile
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.journal import Journal
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
        task = OrderedRows(journal, target, files.layout)
        if files.driver == "gather":
            # the other hosts need not see yet what this one has written
            for chunk in range(task.n_chunks) if executor.rank == 0 else ():
                task.run(chunk)
        else:
            if files.driver == "mpio" and nobody_is_lost(executor):
                target.open_parallel(executor.communicator.mpi)  # type: ignore[attr-defined]
            executor.map(task, None)
            close_parallel(executor, files, target)
        on_leader(executor, lambda: _publish(files, target, measurement))
        # frees its space, which the other files may need
        journal.close()
        target.close()


def _publish(files: RunFiles, target: RowFile, measurement: Measurement) -> None:
    target.sync()
    target.close()
    part = part_of(files.path)
    if files.path.exists():
        # who was kept from reading the file before is kept from it now
        part.chmod(stat.S_IMODE(files.path.stat().st_mode))
    part.replace(os.path.realpath(files.path))
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
