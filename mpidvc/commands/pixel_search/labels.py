"""The run of ``mpidvc pixelSearch -lab1``: labels instead of the nodes of a grid."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mpidvc.arrays import Ints
from mpidvc.cli.options import image_mode
from mpidvc.core.grid import Chunks
from mpidvc.core.pixel_search import RESULT, LabelSearchSettings
from mpidvc.core.statuses import LABEL_SEARCH
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.runtime.console import Console
from mpidvc.tasks.label_search import LabelSearch, LabelSearchTask, background, make_chunks, missing, search_boxes
from mpidvc.tasks.memory import label_search_bytes
from mpidvc.tasks.pixel_search import RECORD
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.announce import announce, describe_slices
from mpidvc.workflow.guess import Nodes, read_guess
from mpidvc.workflow.labels import LabelPart, check_dilation, check_guess, labels_of, typical_size
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output, check_results, pair_stem
from mpidvc.workflow.pointwise import PointwisePlan
from mpidvc.workflow.search import (
    LABEL_FILES,
    LABEL_LESS,
    label_search_options,
    label_search_settings,
    open_label_pair,
    refuse_huge_labels,
    seconds_of_labels,
    show_search,
)
from mpidvc.workflow.summary import count_statuses
from mpidvc.workflow.work import Work

__all__ = ["ChunkedPart", "LabelPlan"]

#: Largest distance (voxels) of a centre of mass from the position in the guess.
SAME_PLACE = 1.0


@dataclass(frozen=True, kw_only=True)
class ChunkedPart(LabelPart):
    """The images, with the labels in chunks.

    Attributes
    ----------
    chunks : Chunks
        Of the labels.
    """

    chunks: Chunks


@dataclass(frozen=True, kw_only=True)
class LabelPlan(PointwisePlan[ChunkedPart]):
    """Labels to be searched.

    Attributes
    ----------
    settings : LabelSearchSettings
    size : (n, 3) int64
        Of the windows of the labels, voxels; on rank 0.
    """

    files, less = LABEL_FILES, LABEL_LESS

    settings: LabelSearchSettings
    size: Ints

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> LabelPlan:
        check_dilation(args.label_dilate)
        guess = read_guess(args.phi_file, args.phi_file_bin_ratio)
        images, numbers = open_label_pair(args)
        stem, output = pair_stem(args, "pixelSearch"), Output.of(args)
        check_results(stem, output, args.phi_file)
        announce(console, "pixelSearch", args)
        describe_slices(console, images.image1, numbers, images.image2)
        labels = labels_of(numbers, console, team)
        check_guess(guess, labels, SAME_PLACE)
        guess.announce(console, images.image1.shape, tif=False)
        settings = label_search_settings(args, images.two_d, args.apply_F, args.label_volume_threshold)
        there = labels.numbers
        F = None
        if guess.registration is not None or guess.field is not None:
            F = guess.at(there, labels.centre[there], args.apply_F)[:, :3, :3]
        low, high = search_boxes(labels, there, settings, F)
        size = high - low
        refuse_huge_labels(numbers.path, there, size, settings)
        part = ChunkedPart(images=images, stem=stem, labels=labels, chunks=make_chunks(labels, there, size, settings))
        return cls(
            parts=[part],
            nodes=Nodes.of_labels(labels.centre),
            guess=guess,
            hws=typical_size(labels),
            output=output,
            settings=settings,
            size=size,
            estimated_seconds=seconds_of_labels(size, settings),
            image_mode=image_mode(args),
            memory=args.memory,
        )

    def for_workers(self) -> LabelPlan:
        return replace(super().for_workers(), size=self.size[:0])

    def chunk_bytes(self, part: ChunkedPart) -> int:
        deformed = self.settings.apply_f != "no" and self.guess.digest is not None
        return label_search_bytes(part.images, part.labels, self.size, self.settings, deformed)

    def work(self, part: ChunkedPart) -> Work:
        nodes, guess, settings = self.nodes, self.guess, self.settings
        determines = label_search_options("pixelSearch", part.images, settings)
        determines["first guess (-pf)"] = guess.digest
        work = Work(
            determines=determines,
            nodes=nodes,
            columns=RESULT,
            record=RECORD,
            guess=guess,
            stored_f=settings.apply_f,
            order=part.chunks.order,
            starts=part.chunks.start,
        )
        start = guess.at(np.array([0]), nodes[np.array([0])], settings.apply_f)[0]
        work.keep(np.array([0]), lambda rows: background(start))
        work.keep(
            part.labels.missing,
            lambda rows: missing(len(rows), guess.at(rows, nodes[rows], settings.apply_f)),
        )
        return work

    def measure(self, part: ChunkedPart, measurement: Measurement) -> None:
        measurement.start("Starting Pixel Search", part.images, points="labels")
        measurement.run(
            LabelSearchTask(LabelSearch(part.images, part.labels, self.settings), part.chunks, measurement.journal),
            "pixelSearch",
            lambda last: f"NCC={last['pixelSearchCC']:.5f} rs={last['returnStatus']:+.0f}",
        )

    def summarise(
        self, part: ChunkedPart, work: Work, results: ResultsFile, statuses: Mapping[str, int], console: Console
    ) -> int:
        # row 0 is no label
        status, at_limit = results.column("returnStatus")[1:], results.column("atLimit")[1:]
        show_search(console, count_statuses(status), int(at_limit.sum()), self.settings, LABEL_SEARCH, "Labels")
        if np.all(status < 0):
            console.warn("no label was found: see -ld, -lvt, and whether the guess leads out of image 2")
            return 1
        return 0
