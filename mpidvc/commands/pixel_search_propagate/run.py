"""The run of ``mpidvc pixelSearchPropagate``: from its options to its files."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace

import numpy as np

from mpidvc.arrays import Array, Triple
from mpidvc.cli.options import image_mode
from mpidvc.core.pixel_search import RESULT, SearchSettings
from mpidvc.core.propagation import GUESS, Propagation, rank_points
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.console import Console
from mpidvc.tasks.memory import POINT_RANK0, PointSet, search_bytes
from mpidvc.tasks.propagation import GuidedSearch
from mpidvc.workflow.announce import announce, describe_slices
from mpidvc.workflow.determines import checksum
from mpidvc.workflow.guess import Nodes, grid_nodes
from mpidvc.workflow.inputs import open_search_pair, read_points, window_sizes
from mpidvc.workflow.journal_feed import LOGGED, JournalFeed
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output, check_results, pair_stem
from mpidvc.workflow.pointwise import Part, PointwisePlan
from mpidvc.workflow.search import FILES, LESS, search_options, search_settings, seconds_of_point
from mpidvc.workflow.work import Work

__all__ = ["Plan"]

#: Half-window size where none is given, voxels.
HALF_WINDOW = 5
#: A front narrower than this many points for each process is worth a note.
NARROW = 2.0


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
class Plan(PointwisePlan[Part]):
    """Two images to be searched from point to point.

    Attributes
    ----------
    settings : SearchSettings
    start : Start
    ranking : {"distance", "walk"}
    radius, weighting_distance : float
        Voxels.
    threshold : float
        Least CC of a point that guides others.
    """

    files, less = FILES, LESS

    settings: SearchSettings
    start: Start
    ranking: str
    radius: float
    weighting_distance: float
    threshold: float

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console) -> Plan:
        listed = None if args.guiding_points is None else read_points("-gp", args.guiding_points)
        images = open_search_pair(args)
        shape, two_d = images.image1.shape, images.two_d
        axes = slice(1, 3) if two_d else slice(0, 3)
        given_hws = args.half_window_size or (HALF_WINDOW,) * 3
        given_spacing = args.node_spacing or (2 * min(given_hws[1:] if two_d else given_hws),) * 3
        hws, spacing = window_sizes(given_hws, given_spacing, shape, args.mask_coverage, args.notes)
        settings = search_settings(args, hws, two_d, "no")
        nodes = grid_nodes(shape, spacing) if listed is None else Nodes.at(listed)
        if args.start is not None and two_d and (args.start[0] != 0 or args.start[3] != 0):
            shown = " ".join(map(str, args.start))
            raise UserError(f"-sp {shown}: the images are 2D; Z and its displacement have to be 0")
        start = [*nodes.positions[0], 0, 0, 0] if args.start is None else args.start
        radius, distance = args.radius, args.weighting_distance
        if radius is None:
            radius = float(np.mean(hws[axes]) + np.mean(settings.high[axes]))
        if distance is None:
            distance = float(sum(hws) + sum(settings.high))
        for value, option in ((radius, "-nr"), (distance, "-gwd")):
            if value <= 0:
                raise UserError(
                    f"{option}: its default, {value:g}, is not above 0 with this -hws and -sr; give {option}"
                )
        plan = cls(
            parts=(),
            nodes=nodes,
            hws=hws,
            output=Output.of(args),
            settings=settings,
            start=Start(
                position=np.array(start[:3], np.float64),
                displacement=(int(start[3]), int(start[4]), int(start[5])),
                is_first=args.start is None,
            ),
            ranking=args.ranking,
            radius=radius,
            weighting_distance=distance,
            threshold=args.threshold,
            estimated_seconds=len(nodes) * seconds_of_point(settings),
            image_mode=image_mode(args),
            memory=args.memory,
        )
        plan._check_start(args, images)
        stem = pair_stem(args, "pixelSearchPropagate")
        check_results(stem, plan.output)
        used = {"node_spacing": spacing, "half_window_size": hws, "radius": radius, "weighting_distance": distance}
        announce(console, "pixelSearchPropagate", args, **used)
        describe_slices(console, images.image1, images.image2)
        return replace(plan, parts=[Part(images=images, stem=stem)])

    def _check_start(self, args: argparse.Namespace, images: ImagePair) -> None:
        """Search the starting point: without it nothing is worth starting."""
        batch = np.zeros(1, GUESS)
        batch["position"], batch["guess"] = self.start.position, self.start.displacement
        (result,) = GuidedSearch(images, self.settings).search(batch)["result"]
        found = dict(zip(RESULT, result, strict=True))
        named = f"-gp {args.guiding_points}: the starting point {' '.join(f'{p:g}' for p in self.start.position)}"
        if args.start is not None:
            named = f"-sp {' '.join(map(str, args.start))}: the starting point"
        if found["returnStatus"] != 1:
            raise UserError(
                f"{named} is refused: its window is outside an image, masked (-mc) or of a mean grey level beyond -glt "
                "or -ght; choose another by -sp"
            )
        if not found["pixelSearchCC"] >= self.threshold:
            raise UserError(
                f"{named} is not found: the best CC, {found['pixelSearchCC']:.4f}, is below -cct {self.threshold:g}; "
                "give its displacement by -sp, enlarge -sr, or lower -cct "
                f"(-cct {math.floor(100 * found['pixelSearchCC']) / 100:g} lets it begin)"
            )

    def chunk_bytes(self, part: Part) -> int:
        return search_bytes(part.images, PointSet(1, 1, False, None, np.zeros((3, 3))), self.settings)

    def rank0_bytes(self) -> int:
        # the propagation itself needs about as much as the field
        return POINT_RANK0 * len(self.nodes)

    def work(self, part: Part) -> Work:
        nodes, start = self.nodes, self.start
        determines = {
            **search_options("pixelSearchPropagate", part.images, self.settings),
            "-ns": nodes.layout.spacing and [int(step) for step in nodes.layout.spacing],
            "points (-gp)": checksum(nodes.positions),
            "-sp": [*start.position.tolist(), *start.displacement],
            "--ranking": self.ranking,
            "-nr": self.radius,
            "-gwd": self.weighting_distance,
            "-cct": self.threshold,
        }
        return Work(
            determines=determines,
            nodes=nodes,
            columns=RESULT,
            record=LOGGED,
            # a block for every point: they come in no order
            order=np.arange(len(nodes)),
            starts=np.arange(len(nodes) + 1),
        )

    def measure(self, part: Part, measurement: Measurement) -> None:
        what, search = "search", GuidedSearch(part.images, self.settings)
        executor, console = measurement.executor, measurement.console
        if measurement.work is None:
            with measurement.measuring(what) as request:
                executor.flow(search.search, None, request)
            return
        with measurement.stages.stage("rank"):
            start, positions = self.start, self.nodes.positions
            if not start.is_first:
                positions = np.concatenate([start.position[None], positions])
            order = rank_points(positions, self.ranking, self.radius)
            distances = (self.radius, self.weighting_distance, self.threshold)
            propagation = Propagation(positions[order], start.displacement, *distances)
            feed = JournalFeed(propagation, order if start.is_first else order - 1, measurement)
        processes = f" (with {executor.size} processes)" if executor.size > 1 else ""
        console.print(f"Correlating: {part.stem.name}")
        console.print(f"Starting Pixel Search from point to point for {measurement.left} points{processes}")
        with measurement.measuring(what) as request:
            try:
                executor.flow(search.search, feed, request)
            finally:
                feed.flush()
        feed.place()
        width = propagation.mean_width
        console.print(f"Mean width of the front: {width:.1f} points")
        if width < NARROW * executor.size and executor.size > 1:
            hint = "--ranking distance has a wider front" if self.ranking == "walk" else "a smaller -nr widens it"
            console.note(f"the front is too narrow to keep {executor.size} processes busy; {hint}")

    def summarise(self, part: Part, work: Work, results: ResultsFile, console: Console) -> int:
        cc, searched = results.column("pixelSearchCC"), results.column("returnStatus") == 1
        found = searched & (cc >= self.threshold)
        limit = int(np.sum(found & (results.column("atLimit") == 1)))
        counts = [
            ("Found", int(found.sum()), f"CC of at least {self.threshold:g}"),
            ("Below the CC threshold", int(np.sum(searched & ~found)), "written, but guides no other point"),
            ("Skipped", int(np.sum(~searched)), "outside an image, masked, or grey level beyond -glt or -ght"),
            ("Found at the limit of -sr", limit, "the true displacement may lie beyond"),
        ]
        rows = [[name, count, f"{100 * count / len(cc):.1f}%", meaning] for name, count, meaning in counts]
        console.table("Pixel search summary", ["Result", "Points", "Percent", "Meaning"], rows)
        if limit:
            console.note(f"{limit} points were found at the limit of the search range: enlarge -sr if they look wrong")
        return 0
