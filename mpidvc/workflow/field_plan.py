"""The road of the commands that work on a field: open, measure, finish, write, close; without images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from mpidvc.cli.command import Outcome, Plan
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.fields.phifield import PhiField
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.memory import memory_limit, size_text
from mpidvc.tasks.memory import field_bytes
from mpidvc.tasks.placement import base_bytes
from mpidvc.tasks.ranks import agree_on_instruction_set, check_instruction_set
from mpidvc.tasks.source import Source, share_source, source_bytes
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
    """Plan of a command that works on a field.

    Attributes
    ----------
    stem : Path
        Of the files that are written.
    nodes : Nodes
        The points; on rank 0 with the positions that were given.
    guess : Guess
        Their first Phi, on rank 0.
    given : PhiField or None
        The field that neighbours are taken from, on rank 0; None where none are.
    half_cell : 3 floats
        Cells of the VTK grid begin so much before their node, voxels; 0 along z in 2D.
    output : Output
    """

    stem: Path
    nodes: Nodes
    guess: Guess = field(default_factory=Guess)
    given: PhiField | None = None
    half_cell: tuple[float, float, float]
    output: Output

    def __post_init__(self) -> None:
        check_instruction_set()

    @property
    @abstractmethod
    def files(self) -> FieldFiles:
        """The text, TIFF and VTK files of the command."""

    def fit(self: P, ranks: int, console: Console, may_take_fewer: bool = False) -> tuple[P, int]:
        finishing, rank0 = field_bytes(len(self.nodes))
        given = 0 if self.given is None else source_bytes(self.given)
        # rank 0 has read it when it is copied for all ranks of the node
        need = rank0 + given * (2 if ranks > 1 else 1)
        limit, why = memory_limit(None)
        if need + ranks * (finishing + base_bytes(ranks)) > limit and may_take_fewer:
            ranks = 1
        if need + ranks * (finishing + base_bytes(ranks)) > limit:
            raise UserError(
                f"{len(self.nodes)} points: about {size_text(need)} are needed, but {size_text(limit)} may be used "
                f"({why}); run on a node with more memory"
            )
        return self, ranks

    def configure(self, executor: Executor) -> None:
        agree_on_instruction_set(executor)

    def for_workers(self: P) -> P:
        return replace(self, nodes=replace(self.nodes, given=None), guess=Guess(), given=None)

    @abstractmethod
    def work(self) -> Work:
        """The points in blocks, and what determines their results; on rank 0."""

    @abstractmethod
    def measure(self, source: Source | None, measurement: Measurement) -> None:
        """Measure the points that are still to be measured; on every rank."""

    @abstractmethod
    def summarise(self, work: Work, results: ResultsFile, console: Console) -> int:
        """Print how many points came to which end; return the exit status; on rank 0."""

    def execute(self, executor: Executor, console: Console) -> Outcome:
        stages = Stages(executor)
        with stages.stage("layout"):
            files, work = begin(executor, console, self.output, self.stem, self.work)
        if files.journal is not None:
            with closing(executor, files):
                measurement = Measurement(executor, console, stages, self.output, files, work)
                with stages.stage("source"):
                    source = share_source(executor, self.given)
                self.measure(source, measurement)
                finish(executor, files, measurement)
        status = points = 0
        if work is not None:
            with ResultsFile(files.path) as results:
                status = self.summarise(work, results, console)
            points = len(work.order)
        with stages.stage("write"):
            write(executor, console, self.output, files, self.files, self.half_cell)
        if executor.rank == 0:
            if files.journal is not None:
                note_stale(console, self.output, files.stem, self.files)
            close_results(files, self.output, console)
        stages.report(points)
        return Outcome(status, [files.path])
