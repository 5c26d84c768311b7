"""The run of ``mpidvc ddic``: from its options to its files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpidvc.arrays import Array, Ints
from mpidvc.cli.manifest import State, with_own
from mpidvc.cli.options import image_mode
from mpidvc.core import deformation
from mpidvc.core.grey import choose_criterion
from mpidvc.core.grid import Chunks
from mpidvc.core.labels import Labels
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.statuses import LABELS
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.fields.phifield import PhiField
from mpidvc.images.pair import ImagePair
from mpidvc.kernels.correlation import ERRORS
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.ddic import (
    DdicSettings,
    DdicTask,
    LabelNoise,
    background,
    columns_of,
    make_chunks,
    missing,
    together,
)
from mpidvc.tasks.grey import Windows, grey_levels, region_windows
from mpidvc.tasks.memory import NOISE_RANK0, ddic_bytes
from mpidvc.tasks.noise import lags_of
from mpidvc.tasks.points import record_of, rows_as_records
from mpidvc.tasks.ranks import Team, agree_on_instruction_set
from mpidvc.tasks.registration import LevelSettings, RegistrationResult, register_multiscale
from mpidvc.workflow import inputs, uncertainty
from mpidvc.workflow.announce import announce, describe_slices
from mpidvc.workflow.determines import fingerprints
from mpidvc.workflow.guess import Guess, Nodes, read_guess
from mpidvc.workflow.labels import LabelPart, check_dilation, check_guess, labels_of, open_labels, typical_size
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output, check_results, series_stems
from mpidvc.workflow.registration import describe_criterion, registration_options, registration_settings
from mpidvc.workflow.series import SeriesPart, SeriesPlan
from mpidvc.workflow.summary import count_statuses, show_statuses
from mpidvc.workflow.uncertainty import NoiseSource
from mpidvc.workflow.verdict import judge_labels, note_outliers
from mpidvc.workflow.work import Work
from mpidvc.workflow.write import FieldFiles

__all__ = ["Pair", "Plan"]

#: Rough CPU seconds per voxel of a label's window, by interpolation order: five iterations.
COST = {1: 2.0e-8, 3: 5.0e-8}
#: Largest distance (voxels) of a centre of mass from the position in the guess.
SAME_PLACE = 0.1


@dataclass(frozen=True, kw_only=True)
class Pair(LabelPart, SeriesPart):
    """The images, with settings that follow from their grey levels.

    Attributes
    ----------
    settings : DdicSettings
    criterion : str
        The line about it.
    chunks : Chunks
        Of the labels to be measured.
    """

    settings: DdicSettings
    criterion: str
    chunks: Chunks


@dataclass(frozen=True, kw_only=True)
class Plan(SeriesPlan[Pair]):
    """Labels to be correlated.

    Attributes
    ----------
    stored_f : {"all", "rigid", "no"}
        Part of the F of a registration that the labels start with.
    skip : bool
        Whether converged labels of the first guess are kept.
    debug : bool
        Whether the result of every label is printed.
    noise : NoiseSource or None
        For the random errors.
    """

    less = "a smaller margin (-m)"

    stored_f: str
    skip: bool
    debug: bool
    noise: NoiseSource | None

    @property
    def files(self) -> FieldFiles:
        errors = () if self.noise is None else ERRORS
        return FieldFiles("DDIC", vtk=("returnStatus", *errors), magnitude=True)

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        check_dilation(args.label_dilate)
        guess = read_guess(args.phi_file, args.phi_file_bin_ratio)
        states = args.states
        if states is None:
            states = [State(args.im1, args.lab1), *(State(image) for image in (args.im2, *args.more))]
        # a state with labels is the reference of those that follow
        sources = [max(i for i in range(k) if states[i].labels is not None) for k in range(1, len(states))]
        opened = [inputs.open_pair(states[i].image, to.image, None) for i, to in zip(sources, states[1:], strict=True)]
        first = opened[0].image1
        numbers = {i: open_labels(states[i].labels, opened[sources.index(i)].image1) for i in sorted(set(sources))}
        if args.skip and (guess.field is None or "returnStatus" not in guess.field):
            raise UserError(f"-skp: {guess.name} has no return statuses of labels; give the field that is continued")
        noise = uncertainty.read_source(args, first)
        names = [states[i].image for i in sources], [state.image for state in states[1:]]
        stems, output = series_stems(args, "ddic", *names, states[0].labels), Output.of(args)
        for stem in stems:
            check_results(stem, output, args.phi_file)
        announce(console, "ddic", args)
        describe_slices(console, first, *numbers.values(), *(pair.image2 for pair in opened))
        measured = {i: labels_of(one, console, team) for i, one in numbers.items()}
        check_guess(guess, measured[0], SAME_PLACE)
        guess.announce(console, first.shape, tif=False)
        if args.registration_bin_begin is not None:
            guess = _registration(args, opened[0], console, team)
        pairs, voxels = [], 0.0
        for k, (i, pair, stem) in enumerate(zip(sources, opened, stems, strict=True)):
            images, labels, own = pair._replace(mask1=numbers[i]), measured[i], states[k + 1].own
            given = guess if i == 0 else Guess()
            settings = _settings(with_own(args, own), images, labels, given)
            again = labels.numbers
            if args.skip and given.field is not None:
                again = again[given.field["returnStatus"][again] != 2]
            pairs.append(
                Pair(
                    images=images,
                    stem=stem,
                    # labels of another reference are other labels
                    warm=args.warm_start and k > 0 and sources[k - 1] == i,
                    own=own,
                    labels=labels,
                    chunks=make_chunks(labels, again, settings["settings"]),
                    **settings,
                )
            )
            voxels += float(np.prod(labels.highest[again] + 1 - labels.lowest[again], axis=1).sum())
        return cls(
            parts=pairs,
            nodes=Nodes.of_labels(measured[0].centre),
            guess=guess,
            hws=typical_size(measured[0]),
            output=output,
            stored_f=args.apply_F,
            skip=args.skip,
            debug=args.debug,
            noise=noise,
            estimated_seconds=voxels * COST[args.interpolation_order],
            image_mode=image_mode(args),
            memory=args.memory,
            warm_start=args.warm_start,
            prefix=args.prefix,
            options=args,
        )

    def of_part(self, part: Pair) -> Plan:
        guess = self.guess if part.labels is self.parts[0].labels else Guess()
        return replace(self, nodes=Nodes.of_labels(part.labels.centre), guess=guess)

    def settled(self, part: Pair, nodes: Nodes, guess: Guess) -> dict[str, Any]:
        assert self.options is not None
        return _settings(with_own(self.options, part.own), part.images, part.labels, guess)

    def chunk_bytes(self, part: Pair) -> int:
        errors, gradient = self.noise is not None, self.guess.gradient
        return ddic_bytes(part.images, part.labels, part.chunks.order, part.settings, gradient, errors)

    def rank0_bytes(self) -> int:
        return super().rank0_bytes() + (NOISE_RANK0 if self.noise is not None else 0)

    def work(self, part: Pair) -> Work:
        settings, guess = part.settings, self.guess
        determines = {
            "command": "ddic",
            **fingerprints(part.images, second_mask=False),
            "first guess (-pf)": guess.digest,
            "-F": self.stored_f,
            "-skp": self.skip,
            "-ld": settings.dilate,
            "-vt": settings.volume_threshold,
            "-dmo": settings.keep_others,
            "-m": settings.margin,
            "-msb": settings.binning,
            **registration_options(settings.registration),
        }
        determines["labels"] = determines.pop("mask (-mf1)")
        errors = self.noise is not None
        if self.noise is not None:
            determines |= self.noise.determines
        columns = columns_of(errors)
        work = Work(
            determines=determines,
            nodes=self.nodes,
            columns=columns,
            record=record_of(columns),
            guess=guess,
            stored_f=self.stored_f,
            order=part.chunks.order,
            starts=part.chunks.start,
            attributes={} if self.noise is None else {"noise": self.noise.told},
            lags=None if self.noise is None else lags_of(part.images.two_d),
        )
        start = guess.at(np.array([0]), self.nodes[np.array([0])], self.stored_f)[0]
        work.keep(np.array([0]), lambda rows: background(start, errors))
        work.keep(part.labels.missing, lambda rows: missing(len(rows), settings.dilate, errors))
        kept = np.setdiff1d(part.labels.numbers, part.chunks.order)
        work.keep(kept, lambda rows: rows_as_records(guess.field, rows, columns))
        return work

    def measure(self, part: Pair, measurement: Measurement) -> None:
        console = measurement.console
        if measurement.work is not None:
            console.print(part.criterion)
            kept = len(part.labels.numbers) - len(part.chunks.order)
            if self.skip:
                console.print(f"-skp: {kept} labels are kept as they are in the file")
        given = part.images, part.labels, part.chunks, measurement.journal, part.settings
        noise = None
        if self.noise is not None:
            order = part.settings.registration.order
            pilots, image1 = LabelNoise(*given), part.images.image1
            noise = uncertainty.measure_noise(measurement, self.noise, pilots, image1, order).noise
        task = DdicTask(*given, noise)
        measurement.start("Starting Discrete DIC", part.images, points="labels")
        measurement.run(
            task,
            "ddic",
            lambda last: (
                f"it={last['iterations']:02.0f} dPhiNorm={last['deltaPhiNorm']:.3e} rs={last['returnStatus']:+.0f}"
            ),
            (task, together(part.labels, part.chunks, part.settings)),
        )

    def summarise(
        self, part: Pair, work: Work, results: ResultsFile, statuses: Mapping[str, int], console: Console
    ) -> int:
        status, error = results.column("returnStatus"), results.column("error")
        measured, settings = np.sort(work.measured), part.settings.registration
        if self.debug:
            iterations = results.column("iterations")
            for label in measured.tolist():
                console.print(
                    f"label {label}: rs={status[label]:+.0f} it={iterations[label]:.0f} error={error[label]:.4g}"
                )
        show_statuses(console, "Discrete DIC summary", count_statuses(status[1:]), LABELS, "Labels")
        note_outliers(console, status[measured], error[measured], results.column("zncc")[measured], "labels")
        if self.noise is not None:
            uncertainty.show_errors(console, results, settings.order, part.images.two_d)
        return judge_labels(console, part.images, part.labels.centre[measured], status[measured], self.hws, settings)


def _settings(args: argparse.Namespace, images: ImagePair, labels: Labels, guess: Guess) -> dict[str, Any]:
    """Settings of a pair, with the criterion that its grey levels call for, and the line about this."""
    centres: Array = labels.centre[labels.numbers]

    def guesses(rows: Ints) -> Array:
        return guess.at(labels.numbers[rows], labels.centre[labels.numbers[rows]], args.apply_F)

    # whole windows: grains that move would leave a mask of image 1
    whole = images._replace(mask1=None)
    grey = grey_levels(whole, Windows(positions=centres, guess=guesses, hws=typical_size(labels)))
    choice = choose_criterion(args.criterion, grey)
    settings = DdicSettings(
        replace(registration_settings(args, choice, rigid=not args.non_rigid), level=grey.mean1),
        dilate=args.label_dilate,
        margin=args.margin,
        volume_threshold=args.volume_threshold,
        keep_others=args.dont_mask_others,
        binning=args.multiscale_binning,
    )
    return {"settings": settings, "criterion": describe_criterion(choice)}


def _registration(args: argparse.Namespace, images: ImagePair, console: Console, team: Team) -> Guess:
    """A registration of the whole images (-regbb, -regbe) by all ranks, as a first guess."""
    whole = ImagePair(images.image1, images.image2)
    levels = LevelSettings(args.registration_bin_begin, args.registration_bin_end)
    shape = images.image1.shape
    grey = grey_levels(whole, region_windows(shape, levels.margin_of(shape, 1), np.eye(4)))
    choice = choose_criterion(args.criterion, grey)
    settings = RegistrationSettings(
        min_delta_phi=1e-4, criterion=choice.criterion, gain=choice.gain, bias=choice.bias, level=grey.mean1
    )
    # refused here, before every rank is
    levels.usable(images.image1, settings)
    console.print("Registering the whole images first (-regbb, -regbe)")
    found = team.call(_register, whole, settings, levels, console)
    if found.last.status != 2:
        raise UserError(
            f"-regbb {args.registration_bin_begin}: the registration of the whole images did not converge (return "
            f"status {found.last.status}); take a coarser level, or register them by mpidvc reg and give the result by "
            "-pf"
        )
    field = PhiField(found.centre[None], found.phi[None], {}, "registration")
    R, _ = deformation.polar(field.F[0])
    shown = " ".join(f"{x:.3f}" for x in found.phi[:3, 3])
    turned = " ".join(f"{x:.3f}" for x in deformation.rotation_vector(R))
    console.print(f"First guess: translation {shown} px, rotation {turned}°")
    return Guess(registration=field, name="-regbb")


def _register(
    executor: Executor, images: ImagePair, settings: RegistrationSettings, levels: LevelSettings, console: Console
) -> RegistrationResult:
    # the ranks prepare: they have not agreed on one yet
    agree_on_instruction_set(executor)
    return register_multiscale(executor, images, settings, levels, np.eye(4), console.print)
