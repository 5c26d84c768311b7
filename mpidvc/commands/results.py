"""The results file of a run: begun or gone on with, filled point by point, finished; for all point-wise commands."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc import __version__
from mpidvc.arrays import Array, Ints, Records
from mpidvc.atomic import replacing, sync_folder
from mpidvc.commands.run import Stages
from mpidvc.core.registration import RegistrationSettings
from mpidvc.errors import ResourceError, UserError
from mpidvc.fields.hdf5 import (
    FieldLayout,
    ResultsFile,
    Rows,
    check_results_file,
    create_results_file,
    dataset_rows,
    rows_of,
)
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import column_names, format_rows, header, tsv_table, write_tsv_parts
from mpidvc.kernels import correlation
from mpidvc.rowfile import JOURNAL, RowFile, reserve
from mpidvc.runtime import journal as journals
from mpidvc.runtime.console import Console, Progress
from mpidvc.runtime.executor import Executor, InlineExecutor, Task
from mpidvc.runtime.filesystems import COHERENT, file_system
from mpidvc.runtime.journal import Journal, JournalLayout, JournalTask, MarksTask
from mpidvc.runtime.runlog import RunLog, path_of
from mpidvc.runtime.stop import Stopped, StopRequest, graceful, keep
from mpidvc.tasks.memory import ROWS
from mpidvc.tasks.points import inputs_of
from mpidvc.tasks.ranks import agree_on_instruction_set, on_leader, sum_over_ranks

__all__ = ["Output", "Results", "Work", "check_results", "checksum", "digest", "registration_options"]


@dataclass(frozen=True)
class Output:
    """How results are kept.

    Attributes
    ----------
    resume, overwrite : bool
        What to do with an unfinished results file.
    keep : bool
        Whether the results file stays when everything else is written.
    driver : {"auto", "mpio", "posix", "gather"}
    voxel_size, unit : float, str
        Lengths that ParaView is shown.
    command_line : str
    """

    resume: bool
    overwrite: bool
    keep: bool
    driver: str
    voxel_size: float
    unit: str
    command_line: str

    @classmethod
    def of(cls, args: argparse.Namespace) -> Output:
        """From the options that `options.add_results` adds.

        Raises
        ------
        UserError
            If they contradict each other, or this h5py cannot do what ``--hdf5-driver`` asks for.
        """
        if args.hdf5_driver == "mpio":
            import h5py

            if not h5py.get_config().mpi:
                raise UserError(
                    "--hdf5-driver mpio: this h5py is built without MPI; rebuild it (HDF5_MPI=ON pip install "
                    "--no-binary=h5py h5py), or drop the option: the files are the same"
                )
        if args.resume and args.overwrite:
            raise UserError("--resume --overwrite: one goes on with a run, the other begins again; give one of them")
        how = (args.resume, args.overwrite, args.h5, args.hdf5_driver)
        return cls(*how, args.voxel_size, args.unit, args.command_line)


def results_path(stem: Path) -> Path:
    """The results file of a stem."""
    return stem.with_name(f"{stem.name}.h5")


def check_results(stem: Path, output: Output, guess: str | None = None) -> None:
    """Check, before anything is done, that a run may write its results file.

    Parameters
    ----------
    stem : Path
        Of the files that will be written.
    output : Output
    guess : str, optional
        The file of ``-pf``.

    Raises
    ------
    UserError
        If there is an unfinished one and nothing says what to do with it, something else is there, or it is `guess`.
    """
    path = results_path(stem)
    state = journals.kind_of_file(path)
    if state == "unfinished" and not (output.resume or output.overwrite):
        raise UserError(
            f"{path}: holds the results of an unfinished run; add --resume to go on, or --overwrite to begin again"
        )
    if state == "damaged" and not (output.resume or output.overwrite):
        raise UserError(f"{path}: is damaged; add --resume to save what can be saved, or --overwrite to begin again")
    if state == "foreign" and not output.overwrite:
        raise UserError(
            f"{path}: is no results file of mpidvc; move it away, choose another name by -pre, or add --overwrite"
        )
    if state == "finished" and guess is not None and Path(guess).exists() and path.samefile(guess):
        raise UserError(f"-pf {guess}: is where the results go; choose another name for them by -pre, or rename it")


def checksum(*arrays: npt.NDArray[Any]) -> str:
    """A checksum of numbers, taken as float64."""
    found = hashlib.sha256()
    for values in arrays:
        found.update(np.ascontiguousarray(values, np.float64).data)
    return found.hexdigest()


def digest(guess: PhiField | None) -> str | None:
    """A checksum of a field: the same for the same numbers, whatever the file that holds them."""
    if guess is None:
        return None
    return checksum(guess.positions, guess.phi, *(guess.columns[name] for name in sorted(guess.columns)))


def registration_options(settings: RegistrationSettings) -> dict[str, Any]:
    """What of a registration's settings determines its result, by the names of options."""
    return {
        "-o": settings.order,
        "-it": settings.max_iterations,
        "-dp": settings.min_delta_phi,
        "-rig": settings.rigid,
        "-ug": settings.update_gradient,
        "-shift": settings.shift,
        "--criterion": [settings.criterion, settings.gain, settings.bias],
    }


@dataclass
class Work:
    """What is to be measured; known on rank 0 only.

    Attributes
    ----------
    determines : dict
        What determines the result, by the names of options where there are such; can be written as JSON.
    layout : FieldLayout
        Of the finished file, without attributes.
    positions : (n, 3) float64
    guess : callable
        Gives the first guesses (k, 3 or 4, 4) of these rows of the field.
    order, starts : int64 arrays
        Rows of the field in the order of the blocks, and where in it these begin.
    record : dtype
        Of a record: fields ``phi`` (3, 4) and ``result``, a number for each of the layout's columns.
    kept : dict
        Records of blocks that are not to be measured, the last ones, by block.
    """

    determines: dict[str, Any]
    layout: FieldLayout
    positions: Array
    guess: Callable[[Ints], Array]
    order: Ints
    starts: Ints
    record: np.dtype[Any]
    kept: dict[int, Records] = field(default_factory=dict)

    @property
    def measured(self) -> Ints:
        """Rows of the field that are to be measured."""
        return self.order[: self.starts[len(self.starts) - 1 - len(self.kept)]]

    @property
    def n_kept(self) -> int:
        """Number of rows that are not."""
        return len(self.order) - len(self.measured)

    def keep(self, rows: Ints, records: Callable[[Ints], Records]) -> None:
        """Add rows that are not to be measured, with their records."""
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            self.kept[len(self.starts) - 1] = records(part)
            self.order = np.concatenate([self.order, part])
            self.starts = np.append(self.starts, len(self.order))


@dataclass(frozen=True)
class _Opened:
    """What every rank has to know of the files."""

    journal: Journal | None
    todo: Ints
    finished: RowFile | None
    layout: FieldLayout
    driver: str


class Results:
    """The results of one field, from the first point to the finished file; every rank makes one and calls all methods.

    Parameters
    ----------
    executor : Executor
    console : Console
    output : Output
    stem : Path
        Of the files that are written.
    stages : Stages
        Gets the times.
    """

    def __init__(self, executor: Executor, console: Console, output: Output, stem: Path, stages: Stages) -> None:
        self._executor, self._console, self._output, self._stages = executor, console, output, stages
        self.stem = stem
        self.path = results_path(stem)
        #: What `open` was told, on rank 0.
        self.work: Work | None = None
        self._log: RunLog | None = None
        self._total = self._done = 0
        self._progress: Progress | None = None
        self._opened: _Opened

    @property
    def journal(self) -> Journal | None:
        """None if the file was finished already."""
        return self._opened.journal

    @property
    def todo(self) -> Ints:
        """Blocks of the journal that are to be measured."""
        return self._opened.todo

    @property
    def left(self) -> int:
        """Number of points that are to be measured, on rank 0."""
        return self._total - self._done

    # Begin

    def open(self, describe: Callable[[], Work]) -> None:
        """Begin, or go on with, the results file; `describe` is called on rank 0.

        Raises
        ------
        AgreedError
            If the file cannot be written, or an earlier run cannot be gone on with.
        """
        executor = self._executor
        with self._stages.stage("layout"):
            begun_with = on_leader(executor, self._stored_instruction_set)
            if begun_with is not None:
                # otherwise that of the plan stays
                agree_on_instruction_set(executor, begun_with)
            coherent = self._is_coherent()
            self._opened = on_leader(executor, lambda: self._open_alone(describe(), coherent))
            journal, finished = self._opened.journal, self._opened.finished
            if journal is not None and finished is not None:
                journal.hold()
                finished.hold()
                # what follows is the cost of the journal; the layout is a stage
                journal.seconds = 0.0
                if self._opened.driver == "mpio":
                    journal.open_parallel(executor.communicator.mpi)  # type: ignore[attr-defined]
            keep(f"what is measured is in {self.path}; the same command with --resume goes on")

    def _stored_instruction_set(self) -> str | None:
        if not self._output.resume or journals.kind_of_file(self.path) not in ("unfinished", "damaged"):
            return None
        stored = journals.determines_of(self.path).get("instruction set")
        return stored if isinstance(stored, str) else None

    def _is_coherent(self) -> bool:
        """Whether the file is on a file system that shows it alike on every host; asked on all of them."""
        here = file_system(self.path) in COHERENT
        return bool(sum_over_ranks(self._executor, [not here])[0] == 0)

    def _open_alone(self, work: Work, coherent: bool) -> _Opened:
        """The same as `_open`, while no other run lays out files in the folder: two may have been begun at once."""
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # file systems without locks
                fcntl.flock(folder, fcntl.LOCK_EX)
            check_results(self.stem, self._output)
            return self._open(work, coherent)
        finally:
            os.close(folder)

    def _open(self, work: Work, coherent: bool) -> _Opened:
        output, console = self._output, self._console
        self.work = work
        determines = {**work.determines, "version": __version__, "instruction set": correlation.instruction_set()}
        determines = {name: _plain(value) for name, value in determines.items()}
        layout = replace(
            work.layout, attributes={"command": determines["command"], "determines": json.dumps(determines)}
        )

        def inputs(rows: Ints) -> Records:
            return inputs_of(work.positions[rows], work.guess(rows))

        state = "absent" if output.overwrite or not output.resume else journals.kind_of_file(self.path)
        resumed = state in ("unfinished", "damaged")
        if state == "finished":
            self._refuse_changes(determines, ("instruction set",))
            check_results_file(self.path, layout)
            console.note(f"{self.path} is finished: nothing is left to be measured, and it stays as it is")
            return _Opened(None, np.zeros(0, np.int64), None, layout, "posix")
        if self.path.exists():
            journals.refuse_in_use(self.path)
        beginning = JournalLayout(
            determines=determines,
            columns=layout.columns,
            records=work.record,
            order=work.order,
            starts=work.starts,
            positions=work.positions,
            inputs=inputs,
        )
        journal: Journal | None = None
        if resumed:
            self._refuse_changes(determines)
            journal = journals.open_journal(self.path, beginning)
        # before anything is touched: there may be no room
        slots = create_results_file(self._part, layout, self.path)
        try:
            if journal is None:
                journal = journals.create_journal(self.path, beginning)
            todo = journal.todo()
        except BaseException:
            self._part.unlink(missing_ok=True)
            raise
        kept = np.isin(todo, list(work.kept))
        for block in todo[kept].tolist():
            journal.record(block, work.kept[block])
        todo = todo[~kept]
        hosts = Counter(host for host, _ in self._executor.processes)
        driver = self._choose_driver(len(hosts), coherent)
        facts = {
            "command_line": output.command_line,
            "ranks": self._executor.size,
            "hosts": dict(hosts),
            "driver": driver,
        }
        sizes = np.diff(journal.starts)
        self._total, self._done = len(journal), len(journal) - int(sizes[todo].sum())
        if resumed:
            console.print(f"Going on with {self.path}: {self._done} of {self._total} points are done")
        else:
            console.print(f"Results go to {self.path}; if the run is interrupted, --resume goes on")
        self._log = RunLog(self.path, resumed, facts, self._done, self._total, console.warn)
        return _Opened(journal, todo, RowFile(self._part, slots), layout, driver)

    def _refuse_changes(self, now: dict[str, Any], but: tuple[str, ...] = ()) -> None:
        """Refuse to go on if what determines the result is not what it was."""
        then = journals.determines_of(self.path)
        for name in [name for name in {**then, **now} if name not in but]:
            if then.get(name) == now.get(name):
                continue
            what = f"was begun with another {name}"
            shown = [value for value in (then.get(name), now.get(name)) if not isinstance(value, dict)]
            if len(shown) == 2 and max(len(str(value)) for value in shown) < 60:
                old, new = (" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in shown)
                what = f"was begun with {name} {old}, now it is {new}"
            raise UserError(
                f"--resume: {self.path} {what}; give what it was begun with, add --overwrite to begin again, or choose "
                "another name by -pre"
            )

    def _choose_driver(self, n_hosts: int, coherent: bool) -> str:
        wanted = self._output.driver
        if self._executor.size == 1:
            return "posix"
        if n_hosts > 1 and wanted in ("auto", "posix"):
            if not coherent and wanted == "auto":
                return "gather"
            if not coherent:
                kind = file_system(self.path)
                where = kind if kind and kind not in COHERENT else "this file system"
                self._console.warn(f"--hdf5-driver posix: hosts may see a file on {where} differently; gather is safe")
        return "posix" if wanted == "auto" else wanted

    @property
    def _part(self) -> Path:
        """The finished file until it takes the journal's place; beside it, where a symbolic link may lead."""
        place = Path(os.path.realpath(self.path))
        return place.with_name(f"{place.name}.part")

    # Measure

    @contextlib.contextmanager
    def measuring(self, what: str) -> Iterator[StopRequest]:
        """Around the work: shows progress, and keeps what is measured if the run is asked to stop.

        Raises
        ------
        Stopped
            Again, after what is measured is safe.
        """
        journal = self.journal
        assert journal is not None
        leads = self._executor.rank == 0
        with (
            self._stages.stage("points", count_cpu=True),
            self._console.progress(self._total, what, "points", self._done) as progress,
            graceful() as request,
        ):
            self._progress = progress
            try:
                yield request
            except Stopped:
                self._close_parallel(journal)
                journal.sync()
                if leads:
                    self._stopped(request)
                raise
            self._close_parallel(journal)
            journal.sync()

    def _close_parallel(self, file: RowFile) -> None:
        """End parallel writing; after a loss without the others. Not where an error ends the job: that would wait."""
        if self._opened.driver == "mpio":
            file.close_parallel(collective=self._nobody_is_lost())

    def _nobody_is_lost(self) -> bool:
        """What only rank 0 knows, on every rank."""
        return self._executor.broadcast(not self._executor.losses)

    def measure(self, task: Task, what: str, describe: Callable[[Records], str]) -> None:
        """Run the blocks that are to be done.

        Parameters
        ----------
        task : Task
            Its chunks are the journal's blocks.
        what : str
            What is being done, one word.
        describe : callable
            Tells of a record what the progress shows.
        """
        journal = self.journal
        assert journal is not None
        todo = self.todo
        writes = self._opened.driver != "gather"
        sizes = np.diff(journal.starts)

        def sink(chunk: int, data: Any) -> None:
            block = int(todo[chunk])
            records = np.frombuffer(data, journal.record_dtype)
            if not writes:
                journal.record(block, records)
            self.advance(int(sizes[block]), describe(records[-1:]))

        with self.measuring(what) as request:
            self._executor.map(JournalTask(task, journal, todo, writes), sink, request)

    def advance(self, points: int, info: str) -> None:
        """Note on rank 0 that points are measured and in the journal."""
        self._done += points
        if self._progress is not None:
            self._progress.advance(points, info)
        if self._log is not None:
            self._log.update(self._done)

    def _stopped(self, request: StopRequest) -> None:
        if self._log is not None:
            self._log.close("stopped", done=self._done)
        self._part.unlink(missing_ok=True)
        self._console.close_progress()
        name = signal.Signals(request.signal or signal.SIGTERM).name
        self._console.print(
            f"Stopped by {name}: {self._done} of {self._total} points are in {self.path}; the same command with "
            "--resume goes on"
        )

    # Finish

    def finish(self) -> None:
        """Write the grid-ordered datasets, and let the finished file take the journal's place."""
        journal, target, layout = self._opened.journal, self._opened.finished, self._opened.layout
        if journal is None or target is None:
            return
        executor, driver = self._executor, self._opened.driver
        self._stages.journal(journal.seconds)
        with self._stages.stage("finish"):
            # the other hosts need not see yet what rank 0 has written
            alone = InlineExecutor() if driver == "gather" else None
            self._verify(journal, alone or executor)
            task = OrderedRows(journal, target, layout)
            if alone is not None:
                if executor.rank == 0:
                    alone.map(task, None)
            else:
                if driver == "mpio" and self._nobody_is_lost():
                    target.open_parallel(executor.communicator.mpi)  # type: ignore[attr-defined]
                executor.map(task, None)
                self._close_parallel(target)
            on_leader(executor, lambda: self._publish(target))
            # its space is free from now on, which the other files may need
            journal.close()
            target.close()

    def _verify(self, journal: Journal, executor: Executor) -> None:
        """Check once more that all records are those that were measured, before they are copied.

        Raises
        ------
        AgreedError
            If the disk or the memory has changed some.
        """
        damaged = 0

        def sink(chunk: int, found: Any) -> None:
            nonlocal damaged
            damaged += found

        if executor is self._executor or self._executor.rank == 0:
            executor.map(MarksTask(journal), sink)

        def refuse() -> None:
            if damaged:
                raise ResourceError(
                    f"{self.path}: {damaged} of {journal.n_blocks} pieces do not fit their checksums any more, as the "
                    "disk or the memory has changed them; --resume measures them again"
                )

        on_leader(self._executor, refuse)

    def _publish(self, target: RowFile) -> None:
        target.sync(always=True)
        target.close()
        self._part.replace(os.path.realpath(self.path))
        sync_folder(self._part.parent)
        self._log_end()

    def _log_end(self) -> None:
        if self._log is not None:
            with ResultsFile(self.path) as file:
                values, counts = np.unique(file.column("returnStatus"), return_counts=True)
            statuses = {f"{value:g}": int(count) for value, count in zip(values, counts, strict=True)}
            self._log.close("finished", done=self._done, statuses=statuses, lost=list(self._executor.losses))

    def column(self, name: str) -> Array:
        """A column of the finished file, on rank 0."""
        with ResultsFile(self.path) as file:
            return file.column(name)

    def write_tsv(self, family: str) -> None:
        """Write the TSV file from the finished file, by all ranks where they may write it at the same time."""
        path = self.stem.with_name(f"{self.stem.name}.tsv")
        executor, source = self._executor, self._opened.finished
        if source is not None and executor.size > 1 and self._opened.driver != "gather":
            source.path = self.path
            with contextlib.ExitStack() as stack:
                temporary = on_leader(executor, lambda: stack.enter_context(replacing(path)))
                self._write_text(source, temporary, family)
        elif executor.rank == 0:
            with ResultsFile(self.path) as file:
                layout = file.layout
                ranges = [(start, min(start + ROWS, layout.n)) for start in range(0, layout.n, ROWS)]
                parts = (_as_field(file.rows(start, stop)) for start, stop in ranges)
                write_tsv_parts(path, parts, family, layout.layout == "labels")
        self._console.print(f"Written: {path}")

    def _write_text(self, source: RowFile, path: Path, family: str) -> None:
        """Format twice: for the lengths, from which follows where in the file every part is, and to write."""
        executor, layout = self._executor, self._opened.layout
        names = column_names(family, layout.layout == "labels")
        lengths = np.zeros(-(-layout.n // ROWS), np.int64)

        def sink(chunk: int, length: Any) -> None:
            lengths[chunk] = length

        executor.map(TextRows(source, layout, names), sink)

        def begin() -> Ints:
            head = header(names)
            starts = len(head) + np.concatenate([[0], np.cumsum(lengths)])
            try:
                with path.open("wb") as file:
                    file.write(head)
                    reserve(file.fileno(), int(starts[-1]))
            except OSError as error:
                raise UserError(f"{path}: cannot be written ({error.strerror or error}); make room for it") from error
            return starts

        starts = on_leader(executor, begin)
        target = RowFile(path, {})
        target.hold()
        executor.map(TextRows(source, layout, names, target, starts), None)
        target.close()

    def close(self) -> None:
        """Remove the results file if it shall not stay; called when everything is written."""
        if self._executor.rank != 0:
            return
        if self._output.keep:
            if self._opened.journal is not None:
                self._console.print(f"Written: {self.path}")
        else:
            self.path.unlink(missing_ok=True)
            path_of(self.path).unlink(missing_ok=True)


class TextRows:
    """Formats the rows of a finished file, part by part; tells the length, or writes where it is told.

    Parameters
    ----------
    source : RowFile
        The finished file.
    layout : FieldLayout
    names : sequence of str
        Columns of the text.
    target : RowFile, optional
        Where to write.
    starts : int64 array, optional
        Where in it the parts begin.
    """

    def __init__(
        self,
        source: RowFile,
        layout: FieldLayout,
        names: Sequence[str],
        target: RowFile | None = None,
        starts: Ints | None = None,
    ) -> None:
        self._source, self._layout, self._names, self._target, self._starts = source, layout, names, target, starts
        self.n_chunks = -(-layout.n // ROWS)

    def run(self, chunk: int) -> Any:
        start, stop = chunk * ROWS, min((chunk + 1) * ROWS, self._layout.n)
        values = {name: self._source.read(name, start, stop) for name in self._source.slots}
        text = format_rows(tsv_table(_as_field(rows_of(self._layout, values)), self._names, first=start))
        if self._target is not None and self._starts is not None:
            self._target.write_at(int(self._starts[chunk]), text)
            # safe before rank 0 lets the file take its place
            self._target.sync()
        return len(text)


def _as_field(rows: Rows) -> PhiField:
    return PhiField(rows.positions, rows.phi, {**rows.columns})


def _plain(value: Any) -> Any:
    """A value as strict JSON gives it back: no tuples, and infinite numbers as texts."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


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
