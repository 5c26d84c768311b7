"""The road of the point-wise commands, which measure points in images as these are placed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from mpidvc.arrays import Triple
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.memory import JUDGED, JUDGING, POINT_RANK0, READING, WRITERS, WRITTEN, field_bytes, looking_bytes
from mpidvc.tasks.placement import Needs, forget, placed
from mpidvc.workflow.plan import CorrelationPlan
from mpidvc.workflow.road import RoadPart, RoadPlan
from mpidvc.workflow.stages import Stages
from mpidvc.workflow.summary import MOST_JUDGED

__all__ = ["Part", "PointwisePlan"]

PartT = TypeVar("PartT", bound="Part")


@dataclass(frozen=True, kw_only=True)
class Part(RoadPart):
    """A part of a run: one pair of a series.

    Attributes
    ----------
    images : ImagePair
    """

    images: ImagePair


@dataclass(frozen=True, kw_only=True)
class PointwisePlan(RoadPlan[PartT], CorrelationPlan):
    """Plan of a command that measures points in images.

    Attributes
    ----------
    hws : 3 ints
        Half-window size, voxels; 0 along z in 2D.
    """

    #: Things that a user can make smaller where there is not enough memory.
    less: ClassVar[str] = "smaller windows (-hws)"

    hws: Triple

    @property
    def half_cell(self) -> Triple:
        return self.hws

    @abstractmethod
    def chunk_bytes(self, part: PartT) -> int:
        """Bytes that a rank needs for its largest block of points."""

    def rank0_bytes(self) -> int:
        """Bytes that rank 0 needs besides the field."""
        return 0

    def looking_bytes(self) -> int:
        """Bytes that rank 0 needs before it measures."""
        return looking_bytes(self.hws, grey=False)

    def judging_bytes(self) -> int:
        """Bytes that rank 0 needs to judge the result."""
        return JUDGED * min(len(self.nodes), MOST_JUDGED)

    def ending_bytes(self) -> int:
        """Bytes that rank 0 needs after the work: to judge the result, and to write it in other forms."""
        written = WRITERS + WRITTEN * len(self.nodes) if self.output.tif or self.output.vtk else 0
        return JUDGING + self.judging_bytes() + written

    def needs(self) -> Needs:
        n, field = len(self.nodes), self.guess.field
        # the nodes of a grid are computed, some at a time, and their rows are written while others are measured
        finishing, rank0 = field_bytes(n, point=0 if field is None and self.nodes.given is None else POINT_RANK0)
        along = finishing if self.nodes.given is None else 0
        if field is not None:
            rank0 += sum(column.nbytes for column in field.columns.values())
        return Needs(
            [part.images for part in self.parts],
            max(self.chunk_bytes(part) for part in self.parts) + along,
            rank0=rank0 + self.rank0_bytes(),
            looking=self.looking_bytes() + (0 if field is None else READING * n),
            ending=finishing,
            ending0=max(0, self.ending_bytes() - finishing),
            less=self.less,
        )

    def looked(self, part: PartT) -> None:
        forget(part.images)

    @contextmanager
    def at_hand(self, part: PartT, executor: Executor, console: Console, stages: Stages) -> Iterator[PartT]:
        with placed(executor, self.placement, part.images, console.note) as images:
            yield replace(part, images=ImagePair._make(images))
