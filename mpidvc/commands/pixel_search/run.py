"""The run of ``mpidvc pixelSearch``: from its options to its files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from mpidvc.arrays import Triple
from mpidvc.cli.options import image_mode
from mpidvc.commands.pixel_search.labels import LabelPlan
from mpidvc.core.pixel_search import RESULT, SearchSettings
from mpidvc.core.statuses import SEARCH
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.runtime.console import Console
from mpidvc.tasks.memory import search_bytes
from mpidvc.tasks.pixel_search import RECORD, PixelSearchTask, brick
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.announce import announce, describe_slices
from mpidvc.workflow.guess import nodes_to_measure, open_guess
from mpidvc.workflow.inputs import open_search_pair, window_sizes
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output, check_results, pair_stem
from mpidvc.workflow.pointwise import Part, PointwisePlan
from mpidvc.workflow.search import FILES, LESS, search_options, search_settings, seconds_of_point, show_search
from mpidvc.workflow.summary import MOST_JUDGED, pieces
from mpidvc.workflow.work import Work, in_bricks

__all__ = ["Plan"]

#: Bytes of a point while rank 0 counts what was found.
SHOWN = 30


@dataclass(frozen=True, kw_only=True)
class Plan(PointwisePlan[Part]):
    """Two images to be searched.

    Attributes
    ----------
    settings : SearchSettings
    spacing : 3 ints or None
        Node spacing as asked for, voxels.
    """

    files, less = FILES, LESS

    settings: SearchSettings
    spacing: Triple | None

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan | LabelPlan:
        if args.labels1 is not None:
            return LabelPlan.prepare(args, console, team)
        guess = open_guess(args.phi_file, args.phi_file_bin_ratio, team)
        images = open_search_pair(args)
        shape = images.image1.shape
        hws, spacing = window_sizes(args.half_window_size, args.node_spacing, shape, args.mask_coverage, args.notes)
        settings = search_settings(args, hws, images.two_d, args.apply_F)
        nodes = nodes_to_measure("pixelSearch", guess, shape, spacing)
        stem = pair_stem(args, "pixelSearch")
        output = Output.of(args)
        check_results(stem, output, args.phi_file)
        announce(console, "pixelSearch", args)
        describe_slices(console, images.image1, images.image2)
        guess.announce(console, shape, args.tif)
        return cls(
            parts=[Part(images=images, stem=stem)],
            nodes=nodes,
            guess=guess,
            hws=hws,
            output=output,
            settings=settings,
            spacing=spacing,
            estimated_seconds=len(nodes) * seconds_of_point(settings),
            image_mode=image_mode(args),
            memory=args.memory,
        )

    def judging_bytes(self) -> int:
        return SHOWN * min(len(self.nodes), MOST_JUDGED)

    def chunk_bytes(self, part: Part) -> int:
        return search_bytes(part.images, self.nodes.point_set(self.guess), self.settings)

    def work(self, part: Part) -> Work:
        nodes, settings = self.nodes, self.settings
        edge = brick(len(nodes), nodes.distance, settings, part.images.two_d, nodes.regular)
        order, starts = in_bricks(nodes, edge)
        determines = search_options("pixelSearch", part.images, settings)
        determines |= {"first guess (-pf)": self.guess.digest, "-ns": self.spacing}
        return Work(
            determines=determines,
            nodes=nodes,
            columns=RESULT,
            record=RECORD,
            guess=self.guess,
            stored_f=settings.apply_f,
            order=order,
            starts=starts,
        )

    def measure(self, part: Part, measurement: Measurement) -> None:
        measurement.start("Starting Pixel Search", part.images, self.settings)
        measurement.run(
            PixelSearchTask(part.images, measurement.journal, self.settings),
            "pixelSearch",
            lambda last: f"NCC={last['pixelSearchCC']:.5f} rs={last['returnStatus']:+.0f}",
        )

    def summarise(
        self, part: Part, work: Work, results: ResultsFile, statuses: Mapping[str, int], console: Console
    ) -> int:
        limit = sum(int(results.column("atLimit", *some).sum()) for some in pieces(len(self.nodes)))
        show_search(console, statuses, limit, self.settings, SEARCH, "Points")
        if all(float(status) < 0 for status in statuses):
            console.warn(
                "no window was found: see -mf1, -mf2, -mc, -glt, -ght, and whether the guess leads out of image 2"
            )
            return 1
        return 0
