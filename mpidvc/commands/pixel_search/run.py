"""The run of ``mpidvc pixelSearch``: from its options to its files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np

from mpidvc.arrays import Records, Triple
from mpidvc.cli.options import image_mode
from mpidvc.core.pixel_search import RESULT, SearchSettings
from mpidvc.core.statuses import SEARCH
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.runtime.console import Console
from mpidvc.tasks.memory import field_bytes, looking_bytes, search_bytes
from mpidvc.tasks.pixel_search import RECORD, PixelSearchTask, make_chunks
from mpidvc.tasks.placement import Needs
from mpidvc.workflow.announce import announce
from mpidvc.workflow.guess import nodes_to_measure, read_guess
from mpidvc.workflow.inputs import open_search_pair, window_sizes
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output, check_results, folder_of, make_folder, pair_name
from mpidvc.workflow.pointwise import Part, PointwisePlan
from mpidvc.workflow.search import FILES, search_options, search_settings, seconds_of_point
from mpidvc.workflow.work import Work

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan(PointwisePlan):
    """Two images to be searched.

    Attributes
    ----------
    settings : SearchSettings
    spacing : 3 ints or None
        Node spacing as asked for, voxels.
    """

    files = FILES

    settings: SearchSettings
    spacing: Triple | None

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console) -> Plan:
        guess = read_guess(args.phi_file, args.phi_file_bin_ratio)
        images = open_search_pair(args)
        shape = images.image1.shape
        hws, spacing = window_sizes(args.half_window_size, args.node_spacing, shape)
        settings = search_settings(args, hws, images.two_d, args.apply_F)
        nodes = nodes_to_measure("pixelSearch", guess, shape, spacing)
        folder = make_folder(args.out_dir, folder_of(args.im1, real=True), args.prefix)
        stem = folder / pair_name(args, "pixelSearch")
        output = Output.of(args)
        check_results(stem, output, args.phi_file)
        announce(console, "pixelSearch", args)
        guess.announce(console, args.tif)
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

    def needs(self) -> Needs:
        assert self.nodes is not None
        images = self.parts[0].images
        chunk = search_bytes(images, self.nodes.point_set(self.guess), self.settings)
        finishing, rank0 = field_bytes(len(self.nodes))
        rank0 += looking_bytes(self.hws, grey=False)
        return Needs([images], max(chunk, finishing), rank0=rank0, less="smaller windows or ranges (-hws, -sr)")

    def work(self, part: Part) -> Work:
        nodes, guess, settings = self.nodes, self.guess, self.settings
        assert nodes is not None
        chunks = make_chunks(nodes.positions, nodes.distance, settings, part.images.two_d, nodes.regular)
        determines = search_options("pixelSearch", part.images, settings)
        determines |= {"first guess (-pf)": guess.digest, "-ns": self.spacing}
        return Work(
            determines=determines,
            layout=replace(nodes.layout, columns=RESULT),
            positions=nodes.positions,
            guess=lambda rows: guess.at(rows, nodes.positions, settings.apply_f),
            order=chunks.order,
            starts=chunks.start,
            record=RECORD,
        )

    def measure(self, part: Part, measurement: Measurement) -> None:
        if measurement.work is not None:
            measurement.start("Starting Pixel Search", part.images, measurement.work.positions, self.settings)

        def describe(records: Records) -> str:
            last = dict(zip(RESULT, records["result"][-1], strict=True))
            return f"NCC={last['pixelSearchCC']:.5f} rs={last['returnStatus']:+.0f}"

        measurement.run(PixelSearchTask(part.images, measurement.journal, self.settings), "pixelSearch", describe)

    def summarise(self, work: Work, results: ResultsFile, console: Console) -> int:
        status, at_limit = results.column("returnStatus"), results.column("atLimit")
        rows = []
        for value, known in SEARCH.items():
            count = int(np.sum(status == value))
            if count or value != -7:
                rows.append([f"RS={value:+d}", count, f"{100 * count / len(status):.1f}%", known.meaning])
        found, limit = int(np.sum(status == 1)), int(at_limit.sum())
        share = f"{100 * limit / found:.1f}% of found" if found else "-"
        rows.insert(1, ["at the limit", limit, share, "found at an end of the search range"])
        console.table("Pixel search summary", ["Status", "Points", "Percent", "Meaning"], rows)
        if limit:
            ends = " ".join(f"{a} {b}" for a, b in zip(self.settings.low, self.settings.high, strict=True))
            console.note(f"{limit} displacements are at an end of the search range (-sr {ends}): enlarge it there")
        if np.all(status < 0):
            console.warn(
                "no window was found: see -mf1, -mf2, -mc, -glt, -ght, and whether the guess leads out of image 2"
            )
            return 0 if np.all(status == -5) else 1
        return 0
