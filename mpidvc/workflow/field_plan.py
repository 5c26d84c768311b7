"""The road of the commands that compute points from a field, without images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.fields.phifield import PhiField
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.memory import memory_limit, size_text
from mpidvc.tasks.memory import HDF5_ALONE, PLOT, PLOTTED, field_bytes
from mpidvc.tasks.placement import base_bytes
from mpidvc.tasks.source import Source, moving_bytes, share_source, source_bytes
from mpidvc.workflow.plot import plot_slices
from mpidvc.workflow.road import RoadPart, RoadPlan
from mpidvc.workflow.stages import Stages

__all__ = ["FieldPart", "FieldPlan"]

P = TypeVar("P", bound="FieldPlan")


@dataclass(frozen=True, kw_only=True)
class FieldPart(RoadPart):
    """The one part of the run of a command that works on a field.

    Attributes
    ----------
    given : PhiField or None
        The field that neighbours are taken from, on rank 0; None where none are.
    search : bool
        Whether neighbours are searched among its points.
    source : Source or None
        The same on every rank, during the measurement.
    """

    given: PhiField | None = None
    search: bool = True
    source: Source | None = None


@dataclass(frozen=True, kw_only=True)
class FieldPlan(RoadPlan[FieldPart]):
    """Plan of a command that works on a field.

    Attributes
    ----------
    cell : 3 floats
        Size of a cell of the VTK grid, in whose middle a point lies, voxels; 0 along z in 2D.
    plot : str or None
        File for a picture of the result.
    """

    #: Bytes of a point on rank 0, besides the field: measured.
    point_bytes: ClassVar[int]

    cell: tuple[float, float, float]
    plot: str | None = None

    @property
    def half_cell(self) -> tuple[float, float, float]:
        z, y, x = self.cell
        return z / 2, y / 2, x / 2

    def fit(self: P, ranks: int, console: Console, may_take_fewer: bool = False) -> tuple[P, int]:
        limit, why = memory_limit(None)
        if self.memory_on(ranks)[1] > limit and may_take_fewer:
            ranks = 1
        need = self.memory_on(ranks)[1]
        if need > limit:
            raise UserError(
                f"{len(self.nodes)} points: about {size_text(need)} are needed, but {size_text(limit)} may be used "
                f"({why}); run on a node with more memory"
            )
        return self, ranks

    def memory_on(self, ranks: int, mode: str | None = None) -> tuple[str, int, int]:
        finishing, rank0 = field_bytes(len(self.nodes), HDF5_ALONE, self.point_bytes)
        fields = [part.given for part in self.parts if part.given is not None]
        # a single process searches a grid without a tree
        trees = [
            part.search and (ranks > 1 or part.given.dims is None) for part in self.parts if part.given is not None
        ]
        if self.plot is not None:
            rank0 += PLOT + PLOTTED * len(self.nodes)
        first, each = rank0 + sum(map(source_bytes, fields, trees)), finishing + base_bytes(ranks)
        moving = max(map(moving_bytes, fields), default=0) if ranks > 1 else 0
        return "field", first + moving + ranks * each, first + each

    def for_workers(self: P) -> P:
        return replace(super().for_workers(), parts=[replace(part, given=None) for part in self.parts])

    @contextmanager
    def at_hand(self, part: FieldPart, executor: Executor, console: Console, stages: Stages) -> Iterator[FieldPart]:
        with stages.stage("source"):
            source = share_source(executor, part.given, part.search)
        yield replace(part, source=source)

    def draw(self, results: ResultsFile, columns: Sequence[str], console: Console) -> None:
        """Draw slices of the columns of the result, if a picture is asked for; on rank 0."""
        if self.plot is not None:
            plot_slices(self.plot, results.field(), columns)
            console.print(f"Written: {self.plot}")
