"""The road of the commands that compute points from the points of a field, without images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from mpidvc.cli.command import Outcome, Plan
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.fields.phifield import PhiField
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.source import Source
from mpidvc.workflow.begin import begin
from mpidvc.workflow.files import closing
from mpidvc.workflow.finish import finish
from mpidvc.workflow.guess import Guess, Nodes
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output
from mpidvc.workflow.pointwise import close_results
from mpidvc.workflow.stages import Stages
from mpidvc.workflow.work import Work
from mpidvc.workflow.write import FieldFiles, note_stale, write

__all__ = ["FieldPlan"]

P = TypeVar("P", bound="FieldPlan")


@dataclass(frozen=True, kw_only=True)
class FieldPlan(Plan):
    """Plan of a command that computes points from a field.

    Attributes
    ----------
    stem : Path
        Of the files that are written.
    nodes : Nodes
        The points that are computed; on rank 0 with the positions that were given.
    guess : Guess
        Their first Phi, on rank 0.
    given : PhiField or None
        The field, on rank 0; the other ranks get it when the work begins.
    half_cell : 3 floats
        Cells of the VTK grid begin so much before their node, voxels; 0 along z in 2D.
    output : Output
    """

    stem: Path
    nodes: Nodes
    guess: Guess = field(default_factory=Guess)
    given: PhiField | None = None
    half_cell: tuple[float, float, float] = (0.0, 0.0, 0.0)
    output: Output

    @property
    @abstractmethod
    def files(self) -> FieldFiles:
        """The text, TIFF and VTK files of the command."""

    def for_workers(self: P) -> P:
        return replace(self, nodes=replace(self.nodes, given=None), guess=Guess(), given=None)

    @abstractmethod
    def work(self) -> Work:
        """The points in blocks, and what determines their results; on rank 0."""

    @abstractmethod
    def measure(self, source: Source | None, measurement: Measurement) -> None:
        """Compute the points that are still to be computed; on every rank."""

    @abstractmethod
    def summarise(self, work: Work, results: ResultsFile, console: Console) -> int:
        """Print how many points came to which end; return the exit status; on rank 0."""

    def execute(self, executor: Executor, console: Console) -> Outcome:
        stages = Stages(executor)
        with stages.stage("layout"):
            files, work = begin(executor, console, self.output, self.stem, self.work)
        if files.journal is not None:
            given: Any = executor.broadcast(self.given)
            source = None if given is None else Source(given)
            with closing(executor, files):
                measurement = Measurement(executor, console, stages, self.output, files, work)
                self.measure(source, measurement)
                finish(executor, files, measurement)
        status = points = 0
        if work is not None:
            with ResultsFile(files.path) as results:
                status = self.summarise(work, results, console)
            points = len(work.order)
        with stages.stage("write"):
            write(executor, console, self.output, files, self.files, self.half_cell)
            if executor.rank == 0 and files.journal is not None:
                note_stale(console, self.output, files.stem, self.files)
        if executor.rank == 0:
            close_results(files, self.output, console)
        stages.report(points)
        return Outcome(status, [files.path])
