"""The run of ``mpidvc ldic``: from its options to its files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpidvc.arrays import Triple
from mpidvc.cli.manifest import with_own
from mpidvc.cli.options import as_given, check_sigma, image_mode
from mpidvc.core.adaptive import CURVATURE, LARGEST
from mpidvc.core.grey import choose_criterion
from mpidvc.errors import AgreedError, UserError
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.fields.phifield import PhiField
from mpidvc.images.pair import ImagePair
from mpidvc.kernels.correlation import ERRORS
from mpidvc.runtime.console import Console
from mpidvc.tasks.adaptive import AdaptiveSettings, SizeChoice
from mpidvc.tasks.grey import Windows, grey_levels
from mpidvc.tasks.ldic import LdicSettings, LdicTask, brick, columns_of, records_of
from mpidvc.tasks.memory import JUDGED, NOISE_RANK0, ldic_bytes, looking_bytes
from mpidvc.tasks.noise import WindowNoise, lags_of
from mpidvc.tasks.points import CHOSEN, record_of
from mpidvc.tasks.ranks import Team
from mpidvc.tasks.source import TREE, share_source, source_bytes
from mpidvc.workflow import inputs, uncertainty
from mpidvc.workflow.announce import announce, describe_slices
from mpidvc.workflow.determines import fingerprints
from mpidvc.workflow.guess import Guess, Nodes, nodes_to_measure, open_guess, read_guess
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output, check_results, series_stems
from mpidvc.workflow.registration import describe_criterion, registration_options, registration_settings
from mpidvc.workflow.series import SeriesPart, SeriesPlan
from mpidvc.workflow.summary import count_statuses, show_statuses, spread, values_at
from mpidvc.workflow.uncertainty import NoiseSource
from mpidvc.workflow.verdict import judge_correlation, note_outliers
from mpidvc.workflow.work import Work, in_bricks
from mpidvc.workflow.write import FieldFiles

__all__ = ["Pair", "Plan"]

#: Statuses of nodes that -skp correlates again.
AGAIN = (1, -1, -2, -3)
#: Rough CPU seconds per compared voxel of a point, by interpolation order: five iterations.
COST = {1: 8.0e-9, 3: 2.0e-8}
#: Bytes of the position and Phi of a point.
FIELD = 19 * 8
#: Columns that TIFF and VTK files show beside the displacements.
SHOWN = ("error", "iterations", "returnStatus", "deltaPhiNorm")


@dataclass(frozen=True, kw_only=True)
class Pair(SeriesPart):
    """A pair of a series, with the settings that follow from its grey levels."""

    settings: LdicSettings
    criterion: str


@dataclass(frozen=True, kw_only=True)
class Plan(SeriesPlan[Pair]):
    """Pairs of images to be correlated.

    Attributes
    ----------
    stored_f : {"all", "rigid", "no"}
        Part of the F of a registration that the nodes start with.
    skip : bool
        Whether good nodes of the first guess are kept.
    spacing : 3 ints or None
        Node spacing as asked for, voxels.
    noise : NoiseSource or None
        For the random errors.
    adaptive : bool
        Whether every node has a window of its own.
    """

    stored_f: str
    skip: bool
    spacing: Triple | None
    noise: NoiseSource | None
    adaptive: bool

    @property
    def files(self) -> FieldFiles:
        first, errors = (*SHOWN, *(CHOSEN if self.adaptive else ())), self.noise is not None
        shown = (*first, *(uncertainty.SHOWN if errors else ()))
        return FieldFiles("LDIC", {name: name for name in shown}, (*first, *(ERRORS if errors else ())))

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        seconds = args.images[1:]
        # a series follows its points on rank 0, and the nodes that -skp keeps, and neighbours, are looked up there
        whole = len(seconds) > 1 or args.skip or args.adaptive is not None
        given = args.phi_file, args.phi_file_bin_ratio
        guess = read_guess(*given) if whole else open_guess(*given, team)
        firsts = args.images[:-1] if args.series_incremental else [args.images[0]] * len(seconds)
        opened = [inputs.open_pair(*names, args.mask1) for names in zip(firsts, seconds, strict=True)]
        shape = opened[0].image1.shape
        hws, spacing = inputs.window_sizes(
            args.half_window_size, args.node_spacing, shape, args.mask_coverage, args.notes
        )
        if args.skip and guess.registration is not None:
            raise UserError(f"-skp: {guess.name} is a registration; it needs the field that it continues")
        if args.skip and guess.field is not None and "returnStatus" not in guess.field:
            raise UserError(f"-skp: {guess.name} has no column returnStatus to choose the nodes by; drop -skp")
        nodes = nodes_to_measure("ldic", guess, shape, spacing)
        noise = uncertainty.read_source(args, opened[0].image1)
        output = Output.of(args)
        stems = series_stems(args, "ldic", firsts, seconds)
        for stem in stems:
            check_results(stem, output, args.phi_file)
        announce(console, "ldic", args)
        describe_slices(console, opened[0].image1, *(pair.image2 for pair in opened))
        guess.announce(console, shape, args.tif)
        own = [{} for _ in seconds] if args.states is None else [state.own for state in args.states[1:]]
        pairs = [
            Pair(
                images=images,
                stem=stem,
                warm=args.warm_start and k > 0,
                own=own[k],
                **_settings(with_own(args, own[k]), images, nodes, guess, hws),
            )
            for k, (images, stem) in enumerate(zip(opened, stems, strict=True))
        ]
        voxels = float(np.prod([2 * h + 1 for h in hws]))
        cost = voxels * COST[args.interpolation_order] * (3 if args.update_gradient else 1)
        plan = cls(
            parts=pairs,
            nodes=nodes,
            guess=guess,
            hws=hws,
            output=output,
            stored_f=args.apply_F,
            skip=args.skip,
            spacing=spacing,
            noise=noise,
            adaptive=args.adaptive is not None,
            estimated_seconds=len(pairs) * len(nodes) * cost,
            image_mode=image_mode(args),
            memory=args.memory,
            options=args,
            warm_start=args.warm_start,
            update_reference=args.update_reference,
            prefix=args.prefix,
        )
        plan.check_states()
        return plan

    def settled(self, part: Pair, nodes: Nodes, guess: Guess) -> dict[str, Any]:
        assert self.options is not None
        return _settings(with_own(self.options, part.own), part.images, nodes, guess, self.hws)

    def chunk_bytes(self, part: Pair) -> int:
        points = (self.nodes.point_set(self.guess), *self.later_points())
        return max(ldic_bytes(part.images, one, part.settings, self.noise is not None) for one in points)

    def rank0_bytes(self) -> int:
        field = _trusted(self.guess) if self.adaptive else None
        shared = 0 if field is None else source_bytes(field)
        if self.adaptive and self.warm_start:
            # any later state has a field of all nodes
            shared = (TREE + FIELD) * len(self.nodes)
        return super().rank0_bytes() + (NOISE_RANK0 if self.noise is not None else 0) + shared

    def looking_bytes(self) -> int:
        return looking_bytes(self.hws)

    def judging_bytes(self) -> int:
        # the nodes that were measured may be anywhere
        return JUDGED * len(self.nodes) if self.skip else super().judging_bytes()

    def work(self, part: Pair) -> Work:
        nodes, guess, settings = self.nodes, self.guess, part.settings
        again, kept = None, np.zeros(0, np.int64)
        if self.skip and guess.field is not None:
            keep = ~np.isin(guess.field["returnStatus"], AGAIN)
            again, kept = np.flatnonzero(~keep), np.flatnonzero(keep)
        n = len(nodes) - len(kept)
        edge = brick(n, nodes.distance, settings, part.images.two_d, nodes.regular)
        order, starts = in_bricks(nodes, edge, again)
        determines = {
            "command": "ldic",
            **fingerprints(part.images, second_mask=False),
            "first guess (-pf)": guess.digest,
            "-F": self.stored_f,
            "-skp": self.skip,
            "--start-from": "guess" if settings.spacing is None else "neighbours",
            "-ns": self.spacing,
            "-hws": self.hws,
            "-m": settings.margin,
            "-mc": settings.min_coverage,
            "-glt": settings.grey_low,
            "-ght": settings.grey_high,
            **(
                {} if settings.adaptive is None else {"--adaptive": [settings.adaptive.target, settings.adaptive.least]}
            ),
            **(self.noise.determines if self.noise is not None else {}),
            **registration_options(settings.registration),
        }
        errors, chosen = self.noise is not None, self.adaptive
        columns = columns_of(errors, chosen)
        work = Work(
            determines=determines,
            nodes=nodes,
            columns=columns,
            record=record_of(columns),
            guess=guess,
            stored_f=self.stored_f,
            order=order,
            starts=starts,
            attributes={} if self.noise is None else {"noise": self.noise.told},
            lags=None if self.noise is None else lags_of(part.images.two_d),
        )
        work.keep(kept, lambda rows: records_of(guess.field, rows, errors, chosen))
        return work

    def measure(self, part: Pair, measurement: Measurement) -> None:
        if measurement.work is not None:
            measurement.console.print(f"Correlating: {part.stem.name}")
            measurement.console.tell(part.criterion)
            if self.skip:
                measurement.console.print(f"-skp: {measurement.work.n_kept} nodes are kept as they are in the file")
        images, points, settings = part.images, measurement.journal, part.settings
        noise = choice = None
        if self.noise is not None:
            task = WindowNoise(images, points, settings)
            order = settings.registration.order
            facts = uncertainty.measure_noise(measurement, self.noise, task, images.image1, order, settings.compared)
            noise = facts.noise
            if settings.adaptive is not None:
                if np.isnan(facts.variance):
                    raise AgreedError(
                        "--adaptive: no window tells the noise, so that none can be chosen; give --noise-from or "
                        "--noise-mask"
                    )
                field = None if measurement.work is None else _trusted(measurement.work.guess)
                choice = SizeChoice(settings.adaptive, facts, order, share_source(measurement.executor, field))
        measurement.start("Starting Local DIC", images, settings)
        measurement.run(
            LdicTask(images, points, settings, noise, choice),
            "ldic",
            lambda last: (
                f"it={last['iterations']:02.0f} dPhiNorm={last['deltaPhiNorm']:.3e} rs={last['returnStatus']:+.0f}"
            ),
        )

    def summarise(
        self, part: Pair, work: Work, results: ResultsFile, statuses: Mapping[str, int], console: Console
    ) -> int:
        show_statuses(console, "Local DIC summary", statuses)
        ranges = [(0, len(self.nodes))] if work.n_kept else spread(len(self.nodes))
        rows = np.concatenate([np.arange(*each) for each in ranges])
        columns = values_at(results, ranges, "returnStatus", "error", "zncc")
        if work.n_kept:
            rows = work.measured
            columns = [values[rows] for values in columns]
            statuses = count_statuses(columns[0])
        status, error, zncc = columns
        note_outliers(console, status, error, zncc, of=statuses)
        settings = part.settings.registration
        if self.noise is not None:
            uncertainty.show_errors(console, results, settings.order, part.images.two_d)
        if part.settings.adaptive is not None:
            _show_windows(console, results, part.settings.adaptive)
        return judge_correlation(console, part.images, self.nodes[rows], status, self.hws, settings, statuses)


def _trusted(guess: Guess) -> PhiField | None:
    """Displacements of a first guess whose curvature is to be known: None if it has no field, or no point to trust."""
    field = guess.field
    if field is None:
        return None
    good = np.isfinite(field.positions).all(axis=1) & field.finite
    if "returnStatus" in field:
        good &= field["returnStatus"] >= 1
    return PhiField(field.positions[good], field.phi[good]) if good.any() else None


def _show_windows(console: Console, results: ResultsFile, settings: AdaptiveSettings) -> None:
    """Print which windows were chosen, and how many nodes have the random error that was asked for.

    Where there are many nodes, of some that stand for them.
    """
    status, sizes, limits = values_at(results, spread(results.layout.n), "returnStatus", *CHOSEN)
    known = (status > -5) & np.isfinite(sizes)
    if not known.any():
        return
    low, middle, high = np.quantile(sizes[known], [0, 0.5, 1], method="lower").astype(int).tolist()
    largest, curved = (100 * np.mean(limits[known] == limit) for limit in (LARGEST, CURVATURE))
    told = f"Windows: half-window sizes {low} to {high}, median {middle}; {100 - largest - curved:.1f}% of the nodes"
    console.print(
        f"{told} have a predicted random error of at most {settings.target:g} voxel, {largest:.1f}% not even with the "
        f"largest window (-hws {settings.most}), {curved:.1f}% not because of the curvature of the field"
    )


def _settings(args: argparse.Namespace, images: ImagePair, nodes: Nodes, guess: Guess, hws: Triple) -> dict[str, Any]:
    """Settings of a pair, with the criterion that its grey levels call for, and the line about this."""
    windows = Windows(
        positions=nodes,
        guess=lambda rows: guess.at(rows, nodes[rows], args.apply_F),
        hws=hws,
        min_coverage=args.mask_coverage,
        grey_low=args.grey_low_threshold,
        grey_high=args.grey_high_threshold,
    )
    # a state of a manifest may have a -shift of its own
    check_sigma(args)
    choice = choose_criterion(args.criterion, grey_levels(images, windows))
    # beyond the image there is nothing to compare
    z, y, x = (min(m, n) for m, n in zip(args.margin, images.image1.shape, strict=True))
    settings = LdicSettings(
        registration_settings(args, choice, args.rigid, args.shift),
        hws=windows.hws,
        margin=(0 if images.two_d else z, y, x),
        min_coverage=windows.min_coverage,
        grey_low=windows.grey_low,
        grey_high=windows.grey_high,
        spacing=nodes.distance if args.start_from == "neighbours" else None,
        adaptive=_adaptive(args, hws, nodes, images.two_d),
    )
    return {"settings": settings, "criterion": describe_criterion(choice)}


def _adaptive(args: argparse.Namespace, hws: Triple, nodes: Nodes, two_d: bool) -> AdaptiveSettings | None:
    if args.adaptive is None:
        return None
    if len({*hws[two_d:]}) > 1:
        raise UserError(f"{as_given('-hws', hws)}: windows of --adaptive are cubes; give -hws")
    return AdaptiveSettings(args.adaptive, args.adaptive_from, hws[1], max(nodes.distance[two_d:]))
