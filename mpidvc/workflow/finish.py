"""The end of a run: the finished file takes the journal's place, and the text its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mpidvc.errors import ResourceError
from mpidvc.fields.hdf5 import VERDICT, ResultsFile
from mpidvc.rowfile import RowFile
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.journal import MarksTask
from mpidvc.tasks.ranks import on_first_host, on_leader
from mpidvc.workflow.files import RunFiles, close_parallel, nobody_is_lost
from mpidvc.workflow.measurement import Measurement

__all__ = ["finish"]


def finish(
    executor: Executor,
    files: RunFiles,
    measurement: Measurement,
    judge: Callable[[ResultsFile, Mapping[str, int]], int],
) -> int:
    """Write what is left of the finished file and of the text, and the verdict; let them take their places.

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
    journal, target, finishing = measurement.journal, files.finished, measurement.finishing
    assert target is not None

    def complete() -> int:
        if finishing.damaged:
            raise ResourceError(
                f"{journal.path}: {finishing.damaged} of {journal.n_blocks} pieces do not fit their checksums any "
                "more, as the disk or the memory has changed them; --resume measures them again"
            )
        for name, values in measurement.noise.items():
            target.write(name, 0, values)
        target.sync(always=True)
        # before it is finished: a file never is without its verdict
        with ResultsFile(target.path) as results:
            return judge(results, finishing.statuses)

    measurement.stages.journal(journal.seconds)
    with measurement.stages.stage("finish"):
        _write_rest(executor, files, measurement)
    with measurement.stages.stage("summary"):
        status = on_leader(executor, complete)
    with measurement.stages.stage("finish"):
        on_leader(executor, lambda: _publish(files, target, measurement, status))
        # frees its space, which the other files may need
        journal.close()
        for file in (target, files.text):
            if file is not None:
                file.close()
    return status


def _write_rest(executor: Executor, files: RunFiles, measurement: Measurement) -> None:
    """Write the rows and the parts of the text that are not written yet."""
    journal, target, finishing = measurement.journal, files.finished, measurement.finishing
    assert target is not None
    # other hosts need not see yet what rank 0 has written, and two may not write to the same page
    near = on_first_host(executor) if executor.rank == 0 else None
    among = near if files.driver == "gather" else None

    def count(chunk: int, found: Any) -> None:
        finishing.damaged += found

    def write(begin: Callable[[], None], among: set[int] | None) -> None:
        if executor.rank == 0:
            begin()
        executor.flow(finishing.run, finishing if executor.rank == 0 else None, among=among)

    if files.driver == "mpio" and nobody_is_lost(executor):
        target.open_parallel(executor.communicator.mpi)  # type: ignore[attr-defined]
    if journal.computed is None:
        # the rows of a piece are from many blocks
        executor.map(MarksTask(journal), count, among=among)
    write(finishing.all_done, among)
    close_parallel(executor, files, target)
    if files.driver == "mpio":
        # the text is not written by parallel HDF5
        write(finishing.all_readable, None if files.coherent else near)


def _publish(files: RunFiles, target: RowFile, measurement: Measurement, status: int) -> None:
    target.write(VERDICT, 0, np.array([status]))
    target.sync(always=True)
    if files.text is not None:
        # more was reserved
        files.text.truncate(measurement.finishing.text_bytes)
        files.text.sync(always=True)
    # one after the other: both have all that they will have
    target.take_place()
    if files.text is not None:
        files.text.take_place()
    if measurement.journal.path != files.path:
        measurement.journal.path.unlink(missing_ok=True)
    statuses = measurement.finishing.statuses
    measurement.finished({value: statuses[value] for value in sorted(statuses, key=float)})
