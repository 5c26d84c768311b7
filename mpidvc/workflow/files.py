"""The results file of a run while it is written, as every rank knows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpidvc.arrays import Ints
from mpidvc.fields.hdf5 import FieldLayout
from mpidvc.rowfile import RowFile
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.journal import Journal
from mpidvc.workflow.output import results_path

__all__ = ["RunFiles", "close_parallel", "closing", "nobody_is_lost"]


@dataclass(frozen=True)
class RunFiles:
    """Journal and finished file of a run.

    Attributes
    ----------
    stem : Path
        Of all files of the run.
    journal : Journal or None
        None if the results file was finished before.
    todo : (k,) int64
        Blocks of the journal that are still to be measured.
    finished : RowFile or None
        The finished file, to be filled with rows.
    layout : FieldLayout
    driver : {"posix", "mpio", "gather"}
        Who writes the rows.
    coherent : bool
        Whether all ranks see the files alike.
    resumed : bool
        Whether an interrupted run is resumed.
    text : RowFile or None
        The text, to be filled, too; None if none is wanted, or the results file was finished before.
    """

    stem: Path
    journal: Journal | None
    todo: Ints
    finished: RowFile | None
    layout: FieldLayout
    driver: str
    coherent: bool = True
    resumed: bool = False
    text: RowFile | None = None

    @property
    def path(self) -> Path:
        """The results file."""
        return results_path(self.stem)


@contextlib.contextmanager
def closing(executor: Executor, files: RunFiles) -> Iterator[None]:
    """Close the files if the run ends early: the process may live on, and resume the run."""
    try:
        yield
    except BaseException:
        for file in (files.journal, files.finished, files.text):
            if file is not None:
                file.close()
                if executor.rank == 0 and file is not files.journal:
                    # --resume makes it anew
                    file.path.unlink(missing_ok=True)
        raise


def close_parallel(executor: Executor, files: RunFiles, file: RowFile) -> None:
    """End parallel writing; after a loss without the other ranks. After an error that ends the job it would wait."""
    if files.driver == "mpio":
        file.close_parallel(collective=nobody_is_lost(executor))


def nobody_is_lost(executor: Executor) -> bool:
    """Whether all ranks live, which rank 0 alone knows, on every rank."""
    return executor.broadcast(not executor.losses)
