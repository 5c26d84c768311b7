"""A field in a file that gives every point its first guess: all ranks look at it, and write the guesses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from mpidvc.arrays import Array
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import Rows
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.stored import StoredField
from mpidvc.rowfile import JOURNAL
from mpidvc.runtime.executor import Executor, Task
from mpidvc.runtime.journal import Journal
from mpidvc.tasks.points import INPUT, inputs_of
from mpidvc.tasks.ranks import on_first_host, on_leader, sum_over_ranks

__all__ = ["InputsTask", "Survey", "SurveyTask", "checksum_of", "survey", "write_inputs"]

#: Rows of a field that have a checksum of their own: that of the field is made of these.
ROWS = 2**14
#: Rows whose inputs are written at a time.
WRITTEN = 2**15
#: Most threads that look at a field.
MOST_THREADS = 8


class Survey(NamedTuple):
    """What is to be known of a field before it is used.

    Attributes
    ----------
    checksum : str
        Of all of its numbers.
    displacements : (2, 3) float64
        Least and largest displacement along each axis, voxels; nan where no point has one.
    on_grid : bool
        Whether the positions are, to the last bit, those of its grid.
    """

    checksum: str
    displacements: Array
    on_grid: bool


def _digest(rows: Rows) -> bytes:
    """Checksum of some rows, their columns in the order of their names."""
    found = hashlib.sha256()
    for values in (rows.positions, rows.phi[:, :3], *(rows.columns[name] for name in sorted(rows.columns))):
        found.update(np.ascontiguousarray(values, np.float64).data)
    return found.digest()


def _of_digests(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()


def checksum_of(field: PhiField) -> str:
    """Checksum of the numbers of a field in memory: that of the same field in a file."""

    def parts() -> Iterator[bytes]:
        for start in range(0, len(field), ROWS):
            part = slice(start, start + ROWS)
            columns = {name: np.asarray(values[part], np.float64) for name, values in field.columns.items()}
            yield _digest(Rows(field.positions[part], field.phi[part], columns))

    return _of_digests(parts())


class SurveyTask:
    """A look at the rows of a field.

    A chunk returns the checksum of its rows, their least and largest displacement, and whether they are where the grid
    has its nodes.
    """

    def __init__(self, field: StoredField) -> None:
        self._field = field
        self.n_chunks = -(-len(field) // ROWS)

    def run(self, chunk: int) -> tuple[bytes, Array, bool]:
        start = chunk * ROWS
        stop = min(start + ROWS, len(self._field))
        rows = self._field.rows(start, stop)
        moved = np.ascontiguousarray(rows.phi[:, :3, 3].T)
        # without the nan, unless there is nothing else
        extremes = np.stack([np.fmin.reduce(moved, axis=1), np.fmax.reduce(moved, axis=1)])
        nodes = self._field.layout.nodes_between(start, stop)
        return _digest(rows), extremes, np.array_equal(rows.positions, nodes)


def survey(executor: Executor, field: StoredField, threads: int = 1) -> Survey:
    """Look at all rows of a field; every rank calls it.

    Parameters
    ----------
    executor : Executor
    field : StoredField
    threads : int
        CPUs that a process may use that is alone.

    Returns
    -------
    Survey
        On every rank; the same on any number of ranks or threads.

    Raises
    ------
    AgreedError
        On every rank, if the field cannot be read, or was changed meanwhile.
    """
    task = SurveyTask(field)
    found: dict[int, tuple[bytes, Array, bool]] = {}
    _map(executor, field, task, True, found.__setitem__, threads)

    def end() -> Survey:
        digests, extremes, on_grid = zip(*(found[chunk] for chunk in range(task.n_chunks)), strict=True)
        low, high = np.fmin.reduce([low for low, _ in extremes]), np.fmax.reduce([high for _, high in extremes])
        return Survey(_of_digests(digests), np.stack([low, high]), all(on_grid))

    return on_leader(executor, end)


class InputsTask:
    """Writes the inputs of the points of a grid to their journal, piece by piece.

    Parameters
    ----------
    journal : Journal
        Of points that every rank can compute, but for their first guess.
    field : StoredField
        That of the guesses, in the order of the grid.
    """

    def __init__(self, journal: Journal, field: StoredField) -> None:
        assert journal.computed is not None
        self._journal, self._field = journal, field
        self._pieces = journal.computed.order.pieces(WRITTEN)
        self.n_chunks = len(self._pieces)

    def run(self, chunk: int) -> None:
        journal = self._journal
        first, end, ranges = self._pieces[chunk]
        begin = int(journal.starts[first])
        inputs = np.empty(int(journal.starts[end]) - begin, INPUT)
        for start, stop in ranges:
            places = journal.places(start, stop) - begin
            inputs[places] = inputs_of(journal.positions(start, stop), self._field.phi(start, stop))
        journal.write(f"{JOURNAL}/inputs", begin, inputs)


def write_inputs(executor: Executor, journal: Journal, field: StoredField, alike: bool) -> None:
    """Write the inputs of a journal by all ranks; every rank calls it.

    Parameters
    ----------
    executor : Executor
    journal : Journal
    field : StoredField
        That of the first guesses.
    alike : bool
        Whether all ranks see the journal alike; otherwise those of rank 0's host write.

    Raises
    ------
    AgreedError
        On every rank, if the field was changed since it was opened, or a file cannot be read or written.
    """
    _map(executor, field, InputsTask(journal, field), alike)
    if not alike:
        # the others read them in the file
        on_leader(executor, lambda: journal.sync(always=True))


class _Told:
    """A task whose chunks return their result, or the reason why there is none: the ranks end the round as always."""

    def __init__(self, task: Task) -> None:
        self._task, self.n_chunks = task, task.n_chunks

    def run(self, chunk: int) -> tuple[Any, str | None]:
        try:
            return self._task.run(chunk), None
        except UserError as error:
            return None, str(error)


def _map(
    executor: Executor,
    field: StoredField,
    task: Task,
    alike: bool,
    sink: Callable[[int, Any], None] | None = None,
    threads: int = 1,
) -> None:
    """Run a task on the ranks and refuse a field that was changed.

    Those of rank 0's host work where not all see the journal alike, rank 0 alone where not all see the same field.
    """
    refusals: dict[int, str] = {}

    def take(chunk: int, result: tuple[Any, str | None]) -> None:
        value, refusal = result
        if refusal is not None:
            refusals[chunk] = refusal
        elif sink is not None:
            sink(chunk, value)

    def end() -> None:
        # what was read from a changed file may be anything
        field.refuse_changes()
        if refusals:
            raise UserError(refusals[min(refusals)])

    told = _Told(task)
    among = None if alike else on_first_host(executor)
    if sum_over_ranks(executor, [field.changed])[0]:
        among = set()
    if executor.size == 1 and threads > 1:
        pool = ThreadPoolExecutor(min(threads, MOST_THREADS))
        try:
            for chunk, result in enumerate(pool.map(told.run, range(told.n_chunks))):
                take(chunk, result)
        finally:
            # at once, if it is interrupted
            pool.shutdown(cancel_futures=True)
    else:
        executor.map(told, take, among=among)
    on_leader(executor, end)
