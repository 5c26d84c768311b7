"""The measurement of a run: results go to the journal as they come, and progress to the console."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Records
from mpidvc.core.texture import sample_of
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.console import Console, Progress
from mpidvc.runtime.executor import Executor, Following, Task
from mpidvc.runtime.journal import Journal, JournalTask
from mpidvc.runtime.runlog import RunLog
from mpidvc.runtime.stop import Stopped, StopRequest, goes_on, graceful
from mpidvc.tasks.texture import WindowSettings
from mpidvc.workflow.announce import warn_of_texture
from mpidvc.workflow.files import RunFiles, close_parallel
from mpidvc.workflow.finishing import Finishing
from mpidvc.workflow.output import Output
from mpidvc.workflow.stages import Stages
from mpidvc.workflow.work import Work

__all__ = ["Measurement"]


class SharedTask(Protocol):
    """Work of which some chunks are measured by all ranks together."""

    def run_together(self, executor: Executor, chunk: int) -> Records:
        """Records of a chunk; every rank calls it, and those of rank 0 count."""


class Measurement:
    """The points of a run that are still to be measured; every rank makes one.

    Parameters
    ----------
    executor : Executor
    console : Console
    stages : Stages
        Gets the times.
    output : Output
    files : RunFiles
        With a journal.
    work : Work or None
        On rank 0.
    names : sequence of str
        Columns of the text, if one is wanted.

    Attributes
    ----------
    journal : Journal
    finishing : Finishing
    done, total : int
        Points, on rank 0.
    noise : dict of arrays
        Datasets of the finished file that are known now, by their paths; on rank 0.
    """

    noise: Mapping[str, NDArray[Any]] = MappingProxyType({})

    def __init__(
        self,
        executor: Executor,
        console: Console,
        stages: Stages,
        output: Output,
        files: RunFiles,
        work: Work | None,
        names: Sequence[str],
    ) -> None:
        assert files.journal is not None
        self.finishing = Finishing(files, names, stages, executor.rank == 0)
        self.executor, self.console, self.stages, self.files, self.work = executor, console, stages, files, work
        self.journal: Journal = files.journal
        self.total = self.done = 0
        self._progress: Progress | None = None
        self._log: RunLog | None = None
        if executor.rank == 0:
            self._announce(output)

    def _announce(self, output: Output) -> None:
        """Say how far the run is, and begin its log."""
        executor = self.executor
        self.total = len(self.journal)
        self.done = self.total - int(np.diff(self.journal.starts)[self.files.todo].sum())
        if self.files.resumed:
            self.console.tell(f"Going on with {self.journal.path}: {self.done} of {self.total} points are done")
        else:
            self.console.tell(f"Results go to {self.files.path}; if the run is interrupted, {goes_on(brief=True)}")
        facts = {
            "command_line": output.command_line,
            "folder": str(Path.cwd()),
            "ranks": executor.size,
            "hosts": dict(Counter(host for host, _ in executor.processes)),
            "driver": self.files.driver,
        }
        self._log = RunLog(self.journal.path, self.files.resumed, facts, self.done, self.total, self.console.warn)

    @property
    def left(self) -> int:
        """Points that are still to be measured, on rank 0."""
        return self.total - self.done

    def start(self, line: str, images: ImagePair, windows: WindowSettings | None = None, points: str = "nodes") -> None:
        """Print on rank 0 that the work begins, and warn if windows have too little texture.

        Parameters
        ----------
        line : str
            Begin of the line, up to the number of nodes.
        images : ImagePair
        windows : WindowSettings, optional
            Settings of the windows whose texture is looked at.
        points : str
            A word for the points.
        """
        if self.work is None:
            return
        processes = f" (with {self.executor.size} processes)" if self.executor.size > 1 else ""
        self.console.print(f"{line} for {self.left} {points}{processes}")
        if windows is not None:
            with self.stages.stage("texture"):
                rows = self.work.measured_at(sample_of(self.work.n_measured))
                warn_of_texture(self.console, images, self.work.nodes[rows], windows)

    @contextlib.contextmanager
    def measuring(self, what: str) -> Iterator[StopRequest]:
        """Around the work: shows progress, and keeps what is measured if the run is asked to stop.

        Raises
        ------
        Stopped
            Again, after what is measured is safe.
        """
        with (
            self.stages.stage("points", count_cpu=True),
            self.console.progress(self.total, what, "points", self.done) as progress,
            graceful(self._asked if self.executor.rank == 0 else None) as request,
        ):
            self._progress = progress
            try:
                yield request
            except Stopped:
                self._close()
                if self.executor.rank == 0:
                    self._stopped(request)
                raise
            self._close()

    def _close(self) -> None:
        close_parallel(self.executor, self.files, self.journal)
        self.journal.sync()

    def run(
        self,
        task: Task,
        what: str,
        describe: Callable[[dict[str, float]], str],
        shared: tuple[SharedTask, Sequence[int]] | None = None,
    ) -> None:
        """Run the blocks that are still to be measured.

        Parameters
        ----------
        task : Task
            Its chunks are the journal's blocks.
        what : str
            A word for the progress.
        describe : callable
            Gives the progress's words about the numbers of a point, by the names of the columns.
        shared : (SharedTask, sequence of int), optional
            The blocks that all ranks measure together, before the others.
        """
        journal, todo = self.journal, self.files.todo
        common = np.isin(todo, shared[1]) if shared is not None else np.zeros(len(todo), bool)
        rest = todo[~common]
        writes = self.files.driver != "gather"
        finishing, following = self.finishing, None
        if finishing.along:
            following = Following(finishing.run, finishing if self.executor.rank == 0 else None)
        sizes = np.diff(journal.starts)

        def sink(chunk: int, data: Any) -> None:
            block = int(rest[chunk])
            records = np.frombuffer(data, journal.record_dtype)
            if not writes:
                journal.record(block, records)
            count(block, records)

        def count(block: int, records: Records) -> None:
            last = dict(zip(self.files.layout.columns, records["result"][-1].tolist(), strict=True))
            self.advance(int(sizes[block]), describe(last))
            finishing.done(block)

        with self.measuring(what) as request:
            for block in todo[common].tolist():
                if self.executor.broadcast(request.requested):
                    raise Stopped
                assert shared is not None
                records = shared[0].run_together(self.executor, block)
                if self.executor.rank == 0:
                    journal.record(block, records)
                    count(block, records)
            self.executor.map(JournalTask(task, journal, rest, writes), sink, request, following)

    def advance(self, points: int, info: str) -> None:
        """Note on rank 0 that points are measured and in the journal."""
        self.done += points
        if self._progress is not None:
            self._progress.advance(points, info)
        if self._log is not None:
            self._log.update(self.done)

    def _asked(self, number: int) -> None:
        """Say what happens when a signal has asked the run to stop, and how to resume it."""
        if self._progress is not None:
            name = signal.Signals(number).name
            again = "; Ctrl-C again: at once" if number == signal.SIGINT else ""
            self._progress.at_once(f"{name}: stopping after the points in hand, {goes_on(brief=True)}{again}")

    def _stopped(self, request: StopRequest) -> None:
        if self._log is not None:
            self._log.close("stopped", done=self.done)
        self.console.close_progress()
        name = signal.Signals(request.signal or signal.SIGTERM).name
        self.console.tell(
            f"Stopped by {name}: {self.done} of {self.total} points are in {self.journal.path}; {goes_on()}"
        )

    def finished(self, statuses: dict[str, int]) -> None:
        """Close the log of the finished run, on rank 0.

        Parameters
        ----------
        statuses : dict of str to int
            Number of points by return status.
        """
        if self._log is not None:
            facts = {"done": self.done, "statuses": statuses, "lost": list(self.executor.losses)}
            self._log.close("finished", self.files.path, **facts)
