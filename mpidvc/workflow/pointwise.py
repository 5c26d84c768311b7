"""The one road of the point-wise commands: open, place images, measure, finish, write, close."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from mpidvc.arrays import Triple
from mpidvc.cli.command import Outcome
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.runlog import path_of
from mpidvc.tasks.memory import field_bytes, looking_bytes
from mpidvc.tasks.placement import Needs, forget, placed
from mpidvc.workflow.begin import begin
from mpidvc.workflow.files import RunFiles, closing
from mpidvc.workflow.finish import finish
from mpidvc.workflow.guess import Guess, Nodes
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output
from mpidvc.workflow.plan import CorrelationPlan
from mpidvc.workflow.stages import Stages
from mpidvc.workflow.work import Work
from mpidvc.workflow.write import FieldFiles, note_stale, write

__all__ = ["Part", "PointwisePlan", "close_results"]

P = TypeVar("P", bound="PointwisePlan[Any]")
PartT = TypeVar("PartT", bound="Part")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a run, with a results file of its own: one pair of a series.

    Attributes
    ----------
    images : ImagePair
    stem : Path
        Of the files that its results go to.
    """

    images: ImagePair
    stem: Path


@dataclass(frozen=True, kw_only=True)
class PointwisePlan(CorrelationPlan, Generic[PartT]):
    """Plan of a command that measures points, one independent of the other or along a front.

    Attributes
    ----------
    parts : sequence of Part
    nodes : Nodes
        The points; on rank 0 with the positions that were given.
    guess : Guess
        Their first guess, on rank 0.
    hws : 3 ints
        Half-window size, voxels; 0 along z in 2D.
    output : Output
    """

    #: The text, TIFF and VTK files of the command.
    files: ClassVar[FieldFiles]
    #: Things that a user can make smaller where there is not enough memory.
    less: ClassVar[str] = "smaller windows (-hws)"

    parts: Sequence[PartT]
    nodes: Nodes
    guess: Guess = field(default_factory=Guess)
    hws: Triple
    output: Output

    def for_workers(self: P) -> P:
        # they read their points and first guesses in the journal
        return replace(self, nodes=replace(self.nodes, given=None), guess=Guess())

    @abstractmethod
    def chunk_bytes(self, part: PartT) -> int:
        """Bytes that a rank needs for its largest block of points."""

    def rank0_bytes(self) -> int:
        """Bytes that rank 0 needs besides the field."""
        return 0

    def looking_bytes(self) -> int:
        """Bytes that rank 0 needs before it measures."""
        return looking_bytes(self.hws, grey=False)

    def needs(self) -> Needs:
        finishing, rank0 = field_bytes(len(self.nodes))
        chunk = max(finishing, *(self.chunk_bytes(part) for part in self.parts))
        return Needs(
            [part.images for part in self.parts],
            chunk,
            rank0=rank0 + self.rank0_bytes(),
            looking=self.looking_bytes(),
            less=self.less,
        )

    @abstractmethod
    def work(self, part: PartT) -> Work:
        """The points of a part in blocks, and what determines their results; on rank 0."""

    @abstractmethod
    def measure(self, part: PartT, measurement: Measurement) -> None:
        """Measure the points that are still to be measured, with images as they are placed; on every rank."""

    @abstractmethod
    def summarise(self, part: PartT, work: Work, results: ResultsFile, console: Console) -> int:
        """Print how many points came to which end; return the exit status; on rank 0."""

    def execute(self, executor: Executor, console: Console) -> Outcome:
        stages = Stages(executor)
        status = points = 0
        done = []
        for part in self.parts:
            files, work = self._run(part, executor, console, stages)
            if work is not None:
                with ResultsFile(files.path) as results:
                    status = status or self.summarise(part, work, results, console)
                points += len(work.order)
            with stages.stage("write"):
                write(executor, console, self.output, files, self.files, self.hws)
                if executor.rank == 0 and files.journal is not None:
                    note_stale(console, self.output, files.stem, self.files)
            done.append(files)
        # not one by one: an interrupted series is resumed after the pairs that are finished
        for files in done:
            if executor.rank == 0:
                close_results(files, self.output, console)
        stages.report(points)
        return Outcome(status, [files.path for files in done])

    def _run(self, part: PartT, executor: Executor, console: Console, stages: Stages) -> tuple[RunFiles, Work | None]:
        """Measure what is not in the results file of a part yet, and finish it."""
        with stages.stage("layout"):
            files, work = begin(executor, console, self.output, part.stem, lambda: self.work(part))
        forget(part.images)
        if files.journal is not None:
            with closing(executor, files):
                measurement = Measurement(executor, console, stages, self.output, files, work)
                with placed(executor, self.placement, part.images, console.note) as images:
                    self.measure(replace(part, images=ImagePair._make(images)), measurement)
                finish(executor, files, measurement)
        return files, work


def close_results(files: RunFiles, output: Output, console: Console) -> None:
    """Remove the results file if it shall not stay, when everything else is written."""
    if not output.keep:
        files.path.unlink(missing_ok=True)
        path_of(files.path).unlink(missing_ok=True)
    elif files.journal is not None:
        console.print(f"Written: {files.path}")
