"""The run of ``mpidvc ldic``: from its options to its files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from mpidvc.arrays import Records, Triple
from mpidvc.cli.options import image_mode
from mpidvc.core.grey import choose_criterion
from mpidvc.core.registration import RegistrationSettings
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.images.pair import ImagePair
from mpidvc.kernels.correlation import RESULT
from mpidvc.runtime.console import Console
from mpidvc.tasks.grey import grey_levels
from mpidvc.tasks.ldic import RECORD, LdicSettings, LdicTask, make_chunks, records_of
from mpidvc.tasks.memory import field_bytes, ldic_bytes, looking_bytes
from mpidvc.tasks.placement import Needs
from mpidvc.workflow import inputs
from mpidvc.workflow.announce import announce, describe_criterion
from mpidvc.workflow.determines import fingerprints, registration_options
from mpidvc.workflow.guess import nodes_to_measure, read_guess
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output, check_results, series_stems
from mpidvc.workflow.pointwise import Part, PointwisePlan
from mpidvc.workflow.summary import summarise
from mpidvc.workflow.work import Work
from mpidvc.workflow.write import FieldFiles

__all__ = ["Pair", "Plan"]

#: Statuses of nodes that -skp correlates again.
AGAIN = (1, -1, -2, -3)
#: Rough CPU seconds per compared voxel of a point, by interpolation order: five iterations.
COST = {1: 1.0e-8, 3: 3.0e-8}
#: Columns that TIFF and VTK files show beside the displacements.
SHOWN = ("error", "iterations", "returnStatus", "deltaPhiNorm")


@dataclass(frozen=True, kw_only=True)
class Pair(Part):
    """A pair of a series, with the settings that follow from its grey levels."""

    settings: LdicSettings
    criterion: str


@dataclass(frozen=True, kw_only=True)
class Plan(PointwisePlan):
    """Pairs of images to be correlated.

    Attributes
    ----------
    stored_f : {"all", "rigid", "no"}
        Part of the F of a registration that the nodes start with.
    skip : bool
        Whether good nodes of the first guess are kept.
    spacing : 3 ints or None
        Node spacing as asked for, voxels.
    """

    files = FieldFiles("LDIC", {name: name for name in SHOWN}, SHOWN)

    stored_f: str
    skip: bool
    spacing: Triple | None

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console) -> Plan:
        guess = read_guess(args.phi_file, args.phi_file_bin_ratio)
        seconds = args.images[1:]
        firsts = args.images[:-1] if args.series_incremental else [args.images[0]] * len(seconds)
        opened = [inputs.open_pair(*names, args.mask1) for names in zip(firsts, seconds, strict=True)]
        shape = opened[0].image1.shape
        hws, spacing = inputs.window_sizes(args.half_window_size, args.node_spacing, shape)
        if args.skip and guess.registration is not None:
            raise UserError(f"-skp: {guess.name} is a registration; it needs the field that it continues")
        if args.skip and guess.field is not None and "returnStatus" not in guess.field:
            raise UserError(f"-skp: {guess.name} has no column returnStatus to choose the nodes by; drop -skp")
        nodes = nodes_to_measure("ldic", guess, shape, spacing)
        output = Output.of(args)
        stems = series_stems(args, "ldic", firsts, seconds)
        for stem in stems:
            check_results(stem, output, args.phi_file)
        announce(console, "ldic", args)
        guess.announce(console, args.tif)
        # beyond the image there is nothing to compare
        z, y, x = (min(m, n) for m, n in zip(args.margin, shape, strict=True))
        settings = LdicSettings(
            RegistrationSettings(
                order=args.interpolation_order,
                max_iterations=args.max_iterations,
                min_delta_phi=args.min_delta_phi,
                rigid=args.rigid,
                update_gradient=args.update_gradient,
                shift=args.shift,
            ),
            hws=hws,
            margin=(0 if opened[0].two_d else z, y, x),
            min_coverage=args.mask_coverage,
            grey_low=args.grey_low_threshold,
            grey_high=args.grey_high_threshold,
        )
        voxels = float(np.prod([2 * h + 1 for h in hws]))
        cost = voxels * COST[args.interpolation_order] * (3 if args.update_gradient else 1)
        return cls(
            parts=[_pair(*part, settings, args.criterion) for part in zip(opened, stems, strict=True)],
            nodes=nodes,
            guess=guess,
            hws=hws,
            output=output,
            stored_f=args.apply_F,
            skip=args.skip,
            spacing=spacing,
            estimated_seconds=len(opened) * len(nodes) * cost,
            image_mode=image_mode(args),
            memory=args.memory,
        )

    def needs(self) -> Needs:
        assert self.nodes is not None
        pairs = cast("list[Pair]", self.parts)
        points = self.nodes.point_set(self.guess)
        chunk = max(ldic_bytes(pair.images, points, pair.settings) for pair in pairs)
        finishing, rank0 = field_bytes(len(self.nodes))
        return Needs([pair.images for pair in pairs], max(chunk, finishing), rank0=rank0 + looking_bytes(self.hws))

    def work(self, part: Part) -> Work:
        pair, nodes, guess = cast("Pair", part), self.nodes, self.guess
        assert nodes is not None
        keep = np.zeros(len(nodes), bool)
        if self.skip and guess.field is not None:
            keep = ~np.isin(guess.field["returnStatus"], AGAIN)
        again, kept = np.flatnonzero(~keep), np.flatnonzero(keep)
        settings = pair.settings
        chunks = make_chunks(nodes.positions[again], nodes.distance, settings, pair.images.two_d, nodes.regular)
        determines = {
            "command": "ldic",
            **fingerprints(pair.images, second_mask=False),
            "first guess (-pf)": guess.digest,
            "-F": self.stored_f,
            "-skp": self.skip,
            "-ns": self.spacing,
            "-hws": self.hws,
            "-m": settings.margin,
            "-mc": settings.min_coverage,
            "-glt": settings.grey_low,
            "-ght": settings.grey_high,
            **registration_options(settings.registration),
        }
        work = Work(
            determines=determines,
            layout=replace(nodes.layout, columns=RESULT),
            positions=nodes.positions,
            guess=lambda rows: guess.at(rows, nodes.positions, self.stored_f),
            order=again[chunks.order],
            starts=chunks.start,
            record=RECORD,
        )
        work.keep(kept, lambda rows: records_of(guess.field, rows))
        return work

    def measure(self, part: Part, measurement: Measurement) -> None:
        pair, work, console = cast("Pair", part), measurement.work, measurement.console
        if work is not None:
            console.print(f"Correlating: {pair.stem.name}")
            console.print(pair.criterion)
            if self.skip:
                console.print(f"-skp: {work.n_kept} nodes are kept as they are in the file")
            measured = work.positions[work.measured]
            measurement.start("Starting Local DIC", pair.images, measured, pair.settings)

        def describe(records: Records) -> str:
            last = dict(zip(RESULT, records["result"][-1], strict=True))
            return f"it={last['iterations']:02.0f} dPhiNorm={last['deltaPhiNorm']:.3e} rs={last['returnStatus']:+.0f}"

        measurement.run(LdicTask(pair.images, measurement.journal, pair.settings), "ldic", describe)

    def summarise(self, work: Work, results: ResultsFile, console: Console) -> int:
        return summarise(console, "Local DIC summary", results.column("returnStatus"), work.measured)


def _pair(images: ImagePair, stem: Path, settings: LdicSettings, asked: str) -> Pair:
    """A pair, with the criterion that its grey levels call for."""
    choice = choose_criterion(asked, grey_levels(images, settings.grey_low, settings.grey_high))
    registration = replace(settings.registration, criterion=choice.criterion, gain=choice.gain, bias=choice.bias)
    return Pair(
        images=images,
        stem=stem,
        settings=replace(settings, registration=registration),
        criterion=describe_criterion(choice),
    )
