"""The run of ``mpidvc pixelSearchPropagate -lab1``: the guess travels from label to label."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np

from mpidvc.arrays import Array, Ints, Records
from mpidvc.cli.options import image_mode
from mpidvc.commands.pixel_search_propagate.travel import Start, Travel
from mpidvc.core.labels import Labels
from mpidvc.core.pixel_search import RESULT, LabelSearchSettings
from mpidvc.errors import UserError
from mpidvc.images.image import Image
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.label_search import LabelSearch, missing, search_boxes
from mpidvc.tasks.memory import label_search_bytes
from mpidvc.tasks.propagation import GuidedLabelSearch
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.announce import announce, describe_slices
from mpidvc.workflow.guess import Nodes
from mpidvc.workflow.journal_feed import LOGGED
from mpidvc.workflow.labels import LabelPart, check_dilation, labels_of, typical_size
from mpidvc.workflow.output import Output, check_results, pair_stem
from mpidvc.workflow.search import (
    LABEL_FILES,
    LABEL_LESS,
    label_search_options,
    label_search_settings,
    open_label_pair,
    refuse_huge_labels,
    seconds_of_labels,
)
from mpidvc.workflow.work import Work

__all__ = ["LabelPlan"]

#: Labels that have no more voxels than this, once dilated, are skipped, as in spam.
VOLUME_THRESHOLD = 27


@dataclass(frozen=True, kw_only=True)
class LabelPlan(Travel[LabelPart]):
    """Labels to be searched one from the other.

    Attributes
    ----------
    settings : LabelSearchSettings
    first : int
        The label at which the propagation begins.
    """

    files, less = LABEL_FILES, LABEL_LESS
    points, skipped = "labels", "no such label, too small, outside image 2, or nothing correlates"

    settings: LabelSearchSettings
    first: int

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> LabelPlan:
        check_dilation(args.label_dilate)
        images, numbers = open_label_pair(args)
        shown = " ".join(map(str, args.start))
        if images.two_d and (args.start[0] != 0 or args.start[3] != 0):
            raise UserError(f"-sp {shown}: the images are 2D; Z and its displacement have to be 0")
        stem, output = pair_stem(args, "pixelSearchPropagate"), Output.of(args)
        check_results(stem, output)
        labels = labels_of(numbers, console, team)
        settings = label_search_settings(args, images.two_d, "no", VOLUME_THRESHOLD)
        low, high = search_boxes(labels, labels.numbers, settings)
        refuse_huge_labels(numbers.path, labels.numbers, high - low, settings)
        first = _label_at(np.array(args.start[:3], np.float64), numbers, labels)
        half = typical_size(labels)
        axes = slice(1, 3) if images.two_d else slice(0, 3)
        ends = [max(end, 0) for end in args.search_range[1::2]]
        radius, distance = args.radius, args.weighting_distance
        if radius is None:
            # labels that touch
            radius = float(np.mean(2 * np.array(half[axes])) + np.mean(ends[axes]))
        if distance is None:
            distance = float(sum(half) + sum(ends[axes]))
        plan = cls(
            parts=[LabelPart(images=images, stem=stem, labels=labels)],
            nodes=Nodes.of_labels(labels.centre),
            hws=half,
            output=output,
            settings=settings,
            first=first,
            start=Start(
                position=labels.centre[first],
                displacement=(int(args.start[3]), int(args.start[4]), int(args.start[5])),
                is_first=True,
            ),
            ranking=args.ranking,
            radius=radius,
            weighting_distance=distance,
            threshold=args.threshold,
            estimated_seconds=seconds_of_labels(high - low, settings),
            image_mode=image_mode(args),
            memory=args.memory,
        )
        search = GuidedLabelSearch(LabelSearch(images, labels, settings), np.array([first]))
        refusal = "it is too small, outside image 2, or nothing correlates; choose another by -sp"
        plan.check_start(search, f"-sp {shown}: label {first}, where it begins,", refusal)
        announce(console, "pixelSearchPropagate", args, radius=radius, weighting_distance=distance)
        describe_slices(console, images.image1, numbers, images.image2)
        console.print(f"Starting at label {first}")
        return plan

    def for_workers(self) -> LabelPlan:
        return replace(super().for_workers(), first=0)

    def chunk_bytes(self, part: LabelPart) -> int:
        low, high = search_boxes(part.labels, part.labels.numbers, self.settings)
        return label_search_bytes(part.images, part.labels, high - low, self.settings, False)

    def work(self, part: LabelPart) -> Work:
        labels = part.labels
        determines = label_search_options("pixelSearchPropagate", part.images, self.settings)
        n = len(labels.numbers)
        work = Work(
            determines={**determines, **self.options()},
            nodes=self.nodes,
            columns=RESULT,
            record=LOGGED,
            # a block for every label: they come in no order
            order=labels.numbers,
            starts=np.arange(n + 1),
        )
        # as spam writes it for a propagation: nothing but zeros
        work.keep(np.array([0]), lambda rows: np.zeros(1, LOGGED))
        work.keep(labels.missing, _missing)
        return work

    def searcher(self, part: LabelPart, executor: Executor, rows: Ints | None) -> GuidedLabelSearch:
        numbers = executor.broadcast(rows)
        return GuidedLabelSearch(LabelSearch(part.images, part.labels, self.settings), numbers)

    def rows(self, part: LabelPart) -> Ints:
        numbers = part.labels.numbers
        return np.concatenate([[self.first], numbers[numbers != self.first]])


def _missing(rows: Ints) -> Records:
    """Records of missing labels in a journal of a propagation."""
    records = np.zeros(len(rows), LOGGED)
    found = missing(len(rows), np.eye(4))
    found["result"][:, RESULT.index("iterations")] = 0
    records["row"], records["phi"], records["result"] = rows, found["phi"], found["result"]
    return records


def _label_at(position: Array, numbers: Image, labels: Labels) -> int:
    """The label of a voxel, or if it has none the label whose centre of mass is nearest; of equal ones the first."""
    z, y, x = (int(p) for p in position)
    if all(0 <= p < n for p, n in zip((z, y, x), numbers.shape, strict=True)):
        part, _ = numbers.read_box((z, y, x), (z + 1, y + 1, x + 1))
        if part[0, 0, 0] != 0:
            return int(part[0, 0, 0])
    there = labels.numbers
    return int(there[np.argmin(np.square(labels.centre[there] - position).sum(axis=1))])
