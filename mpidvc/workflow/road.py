"""The one road of the commands that compute points: open, measure, finish, write, close."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from mpidvc.cli.command import Outcome
from mpidvc.core.texture import sample_of
from mpidvc.fields.hdf5 import ResultsFile, least_bytes
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.runlog import path_of
from mpidvc.tasks.points import INPUT
from mpidvc.workflow.begin import begin
from mpidvc.workflow.calibration import FEWEST, Cost, Sampling
from mpidvc.workflow.files import RunFiles, closing
from mpidvc.workflow.finish import finish
from mpidvc.workflow.guess import Guess, Nodes
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output, results_path
from mpidvc.workflow.plan import KernelPlan
from mpidvc.workflow.stages import Stages
from mpidvc.workflow.summary import count_statuses, pieces
from mpidvc.workflow.text import text_path
from mpidvc.workflow.work import Work
from mpidvc.workflow.write import FieldFiles, note_stale, write, written_files

__all__ = ["Ended", "RoadPart", "RoadPlan"]

P = TypeVar("P", bound="RoadPlan[Any]")
PartT = TypeVar("PartT", bound="RoadPart")


@dataclass(frozen=True, kw_only=True)
class RoadPart:
    """A part of a run, with a results file of its own.

    Attributes
    ----------
    stem : Path
        Of the files that its results go to.
    """

    stem: Path


class Ended(NamedTuple):
    """A part that is measured and written, with its exit status and its results file."""

    part: Any
    status: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class RoadPlan(KernelPlan, Generic[PartT]):
    """Plan of a command that computes points, one independent of the other or along a front.

    Attributes
    ----------
    parts : sequence of RoadPart
    nodes : Nodes
        The points; on rank 0 with the positions that were given.
    guess : Guess
        Their first guess, on rank 0.
    output : Output
    """

    parts: Sequence[PartT]
    nodes: Nodes
    guess: Guess = field(default_factory=Guess)
    output: Output

    @property
    @abstractmethod
    def files(self) -> FieldFiles:
        """The text, TIFF and VTK files of the command."""

    @property
    @abstractmethod
    def half_cell(self) -> Sequence[float]:
        """Cells of the VTK grid begin so much before their node (z, y, x), voxels; 0 along z in 2D."""

    def for_workers(self: P) -> P:
        # they read their points and first guesses in the journal
        return replace(self, nodes=replace(self.nodes, given=None), guess=Guess())

    @abstractmethod
    def work(self, part: PartT) -> Work:
        """The points of a part in blocks, and what determines their results; on rank 0."""

    def of_part(self: P, part: PartT) -> P:
        """The plan that a part is measured by, where nothing was measured before; on rank 0."""
        return self

    @abstractmethod
    def at_hand(
        self, part: PartT, executor: Executor, console: Console, stages: Stages
    ) -> AbstractContextManager[PartT]:
        """The part with its inputs as they are read during the measurement; on every rank."""

    @abstractmethod
    def measure(self, part: PartT, measurement: Measurement) -> None:
        """Measure the points that are still to be measured, with inputs at hand; on every rank."""

    def sample(self, part: PartT, sampling: Sampling) -> None:
        """Measure some of the points for their time, with inputs at hand."""
        self.measure(part, sampling)

    def cost(self, budget: float) -> Cost:
        n = len(self.parts)
        parts = [self.parts[k] for k in sample_of(n, FEWEST).tolist()]
        works = [(part, self.of_part(part).work(part)) for part in parts]
        if budget == 0:
            chunks = sum(len(work.starts) - 1 - len(work.kept) for _, work in works) / len(works)
            return Cost(self.estimated_seconds, round(n * chunks), rounds=n)
        found = [self._sampled(part, work, budget / len(works)) for part, work in works]
        statuses: Counter[str] = Counter()
        for one in found:
            statuses.update(one.statuses)
        return Cost(
            n / len(found) * sum(one.seconds for one in found),
            round(n / len(found) * sum(one.chunks for one in found)),
            tuple(seconds for one in found for seconds in one.sample),
            sum(one.points for one in found),
            dict(statuses),
            n,
        )

    def _sampled(self, part: PartT, work: Work, budget: float) -> Cost:
        each = self.estimated_seconds / max(len(self.parts) * work.n_measured, 1)
        # a part of a block will do where a block would take longer than all of them should
        whole = each == 0 or work.layout.layout == "labels"
        sampling = Sampling(work, budget, 2**62 if whole else max(8, int(budget / FEWEST / each)))
        with self.at_hand(part, sampling.executor, sampling.console, sampling.stages) as ready:
            self.sample(ready, sampling)
        return sampling.cost

    def written(self) -> tuple[list[tuple[Path, int]], int]:
        work, output = self.work(self.parts[0]), self.output
        found = []
        for part in self.parts:
            if output.keep:
                found.append((results_path(part.stem), least_bytes(work.layout)))
            found += written_files(output, part.stem, self.files, work.layout, self.half_cell)
        # of the journal: inputs, records, and the order of the points
        return found, len(self.nodes) * (INPUT.itemsize + work.record.itemsize + 8 * 4)

    @abstractmethod
    def summarise(
        self, part: PartT, work: Work, results: ResultsFile, statuses: Mapping[str, int], console: Console
    ) -> int:
        """Print how many points came to which end; return the exit status; on rank 0.

        `results` may have another name than the file has in the end. `statuses` are the numbers of points by return
        status: ``"2"``, ``"-1"``.
        """

    def runs(self: P, executor: Executor, console: Console, stages: Stages) -> Iterator[tuple[P, PartT]]:
        """The parts in their order, each with the plan that it is measured by; on every rank.

        A part is measured and written when the next one is asked for, which may depend on its result.
        """
        for part in self.parts:
            yield self, part

    def outcome(self, ended: Sequence[Ended]) -> Outcome:
        """The end of the command; what it says counts on rank 0."""
        status = next((one.status for one in ended if one.status), 0)
        return self.outcome_of(status, [one.path for one in ended])

    def outcome_of(self, status: int, paths: list[Path]) -> Outcome:
        """The end of a command that made these results files."""
        texts = [text_path(path.with_suffix("")) for path in paths if self.output.tsv]
        return Outcome(status, paths, (*paths, *texts))

    def execute(self, executor: Executor, console: Console) -> Outcome:
        stages = Stages(executor)
        points = 0
        done, ended = [], []
        for plan, part in self.runs(executor, console, stages):
            files, n, status = plan._run(part, executor, console, stages)
            points += n
            ended.append(Ended(part, status, files.path))
            with stages.stage("write"):
                write(executor, console, self.output, files, self.files, self.half_cell)
                if executor.rank == 0 and files.journal is not None:
                    note_stale(console, self.output, files.stem, self.files)
            done.append(files)
        # not one by one: an interrupted series is resumed after the pairs that are finished
        for files in done:
            if executor.rank == 0:
                _close(files, self.output, console)
        stages.report(points)
        return self.outcome(ended)

    def _run(self, part: PartT, executor: Executor, console: Console, stages: Stages) -> tuple[RunFiles, int, int]:
        """Measure what is not in the results file of a part yet, finish and judge it.

        Returns
        -------
        files : RunFiles
        points : int
            Their number, on rank 0.
        status : int
            Exit status, on rank 0.
        """
        with stages.stage("layout"):
            files, work = begin(executor, console, self.output, part.stem, lambda: self.work(part), self.files.names)
        self.looked(part)

        def judge(results: ResultsFile, statuses: Mapping[str, int]) -> int:
            assert work is not None
            return self.summarise(part, work, results, statuses, console)

        points = 0 if work is None else len(work.order)
        if files.journal is not None:
            with closing(executor, files):
                names = self.files.names(files.layout) if self.output.tsv else ()
                measurement = Measurement(executor, console, stages, self.output, files, work, names)
                with self.at_hand(part, executor, console, stages) as ready:
                    self.measure(ready, measurement)
                return files, points, finish(executor, files, measurement, judge)
        if work is None:
            return files, points, 0
        with stages.stage("summary"), ResultsFile(files.path) as results:
            statuses: Counter[str] = Counter()
            for some in pieces(results.layout.n):
                statuses.update(count_statuses(results.column("returnStatus", *some)))
            return files, points, judge(results, statuses)

    def looked(self, part: PartT) -> None:
        """Drop what was only needed to look at a part before its measurement."""


def _close(files: RunFiles, output: Output, console: Console) -> None:
    """Remove the results file if it shall not stay, when everything else is written."""
    if not output.keep:
        files.path.unlink(missing_ok=True)
        path_of(files.path).unlink(missing_ok=True)
    elif files.journal is not None:
        console.print(f"Written: {files.path}")
