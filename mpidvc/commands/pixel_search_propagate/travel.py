"""The part of a propagation that does not depend on what travels: windows of points, or labels."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from mpidvc.arrays import Array, Ints, Records, Triple
from mpidvc.core.pixel_search import RESULT
from mpidvc.core.propagation import GUESS, Propagation, rank_points
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import INLINE_BATCH, Executor
from mpidvc.tasks.propagation import GuidedLabelSearch, GuidedSearch
from mpidvc.workflow.calibration import Cost, Sampling
from mpidvc.workflow.journal_feed import JournalFeed
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.pointwise import Part, PointwisePlan
from mpidvc.workflow.work import Work

__all__ = ["Start", "Travel"]

#: Bytes of a point on rank 0 while a search propagates: its neighbours, its place among those that wait, and its guess.
TRAVELLING = 800

#: A front narrower than this many points for each process is worth a note.
NARROW = 2.0

PartT = TypeVar("PartT", bound=Part)


@dataclass(frozen=True, kw_only=True)
class Start:
    """The starting point.

    Attributes
    ----------
    position : (3,) float64
        Voxels.
    displacement : 3 ints
        As it is guessed, voxels.
    is_first : bool
        Whether it is the first of the points; otherwise it comes before them and is not written.
    """

    position: Array
    displacement: Triple
    is_first: bool


@dataclass(frozen=True, kw_only=True)
class Travel(PointwisePlan[PartT], Generic[PartT]):
    """Points to be searched one from the other.

    Attributes
    ----------
    start : Start
    ranking : {"distance", "walk"}
    radius, weighting_distance : float
        Voxels.
    threshold : float
        Least CC of a point that guides others.
    """

    #: A word for the points, and reasons for skipping some.
    points = "points"
    skipped = "outside an image, masked, or grey level beyond -glt or -ght"

    start: Start
    ranking: str
    radius: float
    weighting_distance: float
    threshold: float

    @abstractmethod
    def searcher(self, part: PartT, executor: Executor, rows: Ints | None) -> GuidedSearch | GuidedLabelSearch:
        """The search of batches; on every rank. `rows`: the rows of the field in their order, on rank 0."""

    @abstractmethod
    def rows(self, part: PartT) -> Ints:
        """Rows of the field that are searched; the starting point first, if it is one of them."""

    def options(self) -> dict[str, Any]:
        """Options of the propagation that determine its result."""
        return {
            "-sp": [*self.start.position.tolist(), *self.start.displacement],
            "--ranking": self.ranking,
            "-nr": self.radius,
            "-gwd": self.weighting_distance,
            "-cct": self.threshold,
        }

    def check_start(self, search: GuidedSearch | GuidedLabelSearch, named: str, refusal: str) -> None:
        """Search the starting point: without it nothing is worth starting.

        Parameters
        ----------
        search : GuidedSearch or GuidedLabelSearch
        named : str
            The starting point in messages.
        refusal : str
            Reasons for a starting point that is not searched, and the remedy.

        Raises
        ------
        UserError
            If it is not found.
        """
        batch = np.zeros(1, GUESS)
        batch["position"], batch["guess"] = self.start.position, self.start.displacement
        (result,) = search.search(batch)["result"]
        found = dict(zip(RESULT, result, strict=True))
        if found["returnStatus"] != 1:
            raise UserError(f"{named} is refused: {refusal}")
        if not found["pixelSearchCC"] >= self.threshold:
            raise UserError(
                f"{named} is not found: the best CC, {found['pixelSearchCC']:.4f}, is below -cct {self.threshold:g}; "
                "give its displacement by -sp, enlarge -sr, or lower -cct "
                f"(-cct {math.floor(100 * found['pixelSearchCC']) / 100:g} lets it begin)"
            )

    def rank0_bytes(self) -> int:
        return TRAVELLING * len(self.nodes)

    def measure(self, part: PartT, measurement: Measurement) -> None:
        what = "search"
        executor, console = measurement.executor, measurement.console
        if measurement.work is None:
            search = self.searcher(part, executor, None)
            with measurement.measuring(what) as request:
                executor.flow(search.search, None, request)
            return
        with measurement.stages.stage("rank"):
            start, rows = self.start, self.rows(part)
            positions = self.nodes.positions[rows]
            if not start.is_first:
                rows = np.concatenate([[-1], rows])
                positions = np.concatenate([start.position[None], positions])
            order = rank_points(positions, self.ranking, self.radius)
            distances = (self.radius, self.weighting_distance, self.threshold)
            propagation = Propagation(positions[order], start.displacement, *distances)
            feed = JournalFeed(propagation, rows[order], measurement)
        search = self.searcher(part, executor, rows[order])
        processes = f" (with {executor.size} processes)" if executor.size > 1 else ""
        console.print(f"Correlating: {part.stem.name}")
        console.print(f"Starting Pixel Search from point to point for {measurement.left} {self.points}{processes}")
        with measurement.measuring(what) as request:
            try:
                executor.flow(search.search, feed, request)
            finally:
                feed.flush()
        feed.place()
        width = propagation.mean_width
        console.print(f"Mean width of the front: {width:.1f} {self.points}")
        if width < NARROW * executor.size and executor.size > 1:
            hint = "--ranking distance has a wider front" if self.ranking == "walk" else "a smaller -nr widens it"
            console.note(f"the front is too narrow to keep {executor.size} processes busy; {hint}")

    def cost(self, budget: float) -> Cost:
        remark = "the time on several ranks is the least: they wait where the front of the propagation is narrow"
        return replace(super().cost(budget), remark=remark)

    def sample(self, part: PartT, sampling: Sampling) -> None:
        rows = self.rows(part)
        search = self.searcher(part, sampling.executor, rows)
        batches = -(-len(rows) // INLINE_BATCH)

        def run(chunk: int) -> Records:
            points = np.arange(chunk, len(rows), batches)
            batch = np.zeros(len(points), GUESS)
            batch["point"], batch["position"] = points, self.nodes.positions[rows[points]]
            # wherever a search begins, it takes its time
            batch["guess"] = self.start.displacement
            return search.search(batch)

        sampling.sample(run, batches, lambda chunk: len(range(chunk, len(rows), batches)))

    def summarise(
        self, part: PartT, work: Work, results: ResultsFile, statuses: Mapping[str, int], console: Console
    ) -> int:
        status, cc, at_limit = (results.column(name) for name in ("returnStatus", "pixelSearchCC", "atLimit"))
        # the background is no label
        counted = status != 0
        searched, cc, at_limit = status[counted] == 1, cc[counted], at_limit[counted]
        found = searched & (cc >= self.threshold)
        limit = int(np.sum(found & (at_limit == 1)))
        counts = [
            ("Found", int(found.sum()), f"CC of at least {self.threshold:g}"),
            ("Below the CC threshold", int(np.sum(searched & ~found)), "written, but guides no other point"),
            ("Skipped", int(np.sum(~searched)), self.skipped),
            ("Found at the limit of -sr", limit, "the true displacement may lie beyond"),
        ]
        rows = [[name, count, f"{100 * count / len(cc):.1f}%", meaning] for name, count, meaning in counts]
        console.table("Pixel search summary", ["Result", self.points.capitalize(), "Percent", "Meaning"], rows)
        if limit:
            console.note(
                f"{limit} {self.points} were found at the limit of the search range: enlarge -sr if they look wrong"
            )
        return 0
