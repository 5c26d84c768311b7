"""The run of ``mpidvc pixelSearchPropagate``: from its options to its files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np

from mpidvc.arrays import Ints
from mpidvc.cli.options import image_mode
from mpidvc.commands.pixel_search_propagate.labels import LabelPlan
from mpidvc.commands.pixel_search_propagate.options import HALF_WINDOW
from mpidvc.commands.pixel_search_propagate.travel import Start, Travel
from mpidvc.core.pixel_search import RESULT, SearchSettings
from mpidvc.errors import UserError
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.memory import PointSet, search_bytes
from mpidvc.tasks.propagation import GuidedSearch
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.announce import announce, describe_slices
from mpidvc.workflow.determines import checksum
from mpidvc.workflow.guess import Nodes, grid_nodes
from mpidvc.workflow.inputs import open_search_pair, read_points, window_sizes
from mpidvc.workflow.journal_feed import LOGGED
from mpidvc.workflow.output import Output, check_results, pair_stem
from mpidvc.workflow.pointwise import Part
from mpidvc.workflow.search import FILES, LESS, search_options, search_settings, seconds_of_point
from mpidvc.workflow.work import Work

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan(Travel[Part]):
    """Two images to be searched from point to point.

    Attributes
    ----------
    settings : SearchSettings
    """

    files, less = FILES, LESS

    settings: SearchSettings

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan | LabelPlan:
        if args.labels1 is not None:
            return LabelPlan.prepare(args, console, team)
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
        start = [*nodes[np.array([0])][0], 0, 0, 0] if args.start is None else args.start
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
        named = f"-gp {args.guiding_points}: the starting point {' '.join(f'{p:g}' for p in plan.start.position)}"
        if args.start is not None:
            named = f"-sp {' '.join(map(str, args.start))}: the starting point"
        refusal = (
            "its window is outside an image, masked (-mc) or of a mean grey level beyond -glt or -ght; choose another "
            "by -sp"
        )
        plan.check_start(GuidedSearch(images, settings), named, refusal)
        stem = pair_stem(args, "pixelSearchPropagate")
        check_results(stem, plan.output)
        used = {"node_spacing": spacing, "half_window_size": hws, "radius": radius, "weighting_distance": distance}
        announce(console, "pixelSearchPropagate", args, **used)
        describe_slices(console, images.image1, images.image2)
        return replace(plan, parts=[Part(images=images, stem=stem)])

    def chunk_bytes(self, part: Part) -> int:
        return search_bytes(part.images, PointSet(1, 1, False, None, np.zeros((3, 3))), self.settings)

    def work(self, part: Part) -> Work:
        nodes = self.nodes
        determines = {
            **search_options("pixelSearchPropagate", part.images, self.settings),
            "-ns": nodes.layout.spacing and [int(step) for step in nodes.layout.spacing],
            "points (-gp)": checksum(nodes.positions),
            **self.options(),
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

    def searcher(self, part: Part, executor: Executor, rows: Ints | None) -> GuidedSearch:
        return GuidedSearch(part.images, self.settings)

    def rows(self, part: Part) -> Ints:
        return np.arange(len(self.nodes))
