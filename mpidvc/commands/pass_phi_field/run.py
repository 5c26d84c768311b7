"""The run of ``mpidvc passPhiField``: from its options to its files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpidvc.arrays import Ints, Records
from mpidvc.commands.pass_phi_field.changed import less, merged, read_status
from mpidvc.commands.pass_phi_field.targets import Targets, targets_of
from mpidvc.core.statuses import CORRELATION, PASSED
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import FieldLayout, ResultsFile
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.read import read_field
from mpidvc.images.fingerprint import fingerprint
from mpidvc.images.image import open_image
from mpidvc.runtime.console import Console
from mpidvc.tasks.passing import (
    NO_NEIGHBOUR,
    RECORD,
    RESULT,
    TAKEN,
    AppliedTask,
    PassingSettings,
    PassingTask,
    records_of,
)
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.announce import announce
from mpidvc.workflow.determines import checksum
from mpidvc.workflow.field_plan import FieldPart, FieldPlan
from mpidvc.workflow.guess import Guess, Nodes, read_guess
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output, check_results, field_stem
from mpidvc.workflow.plot import MAGNITUDE, check_plot
from mpidvc.workflow.summary import count_statuses, show_statuses
from mpidvc.workflow.work import Work
from mpidvc.workflow.write import FieldFiles

__all__ = ["Plan"]

#: Points of a block.
BLOCK = 2048
#: CPU seconds of a point.
SECONDS = 5e-6


@dataclass(frozen=True, kw_only=True)
class Plan(FieldPlan):
    """A field to be passed on, or changed at its own points.

    Attributes
    ----------
    settings : PassingSettings or None
        None where no means are taken: of a registration, and of a field that is changed.
    stored_f : {"all", "rigid", "no"}
        Part of the F of a registration that the points get.
    kept : Records or None
        On rank 0: the results of a field that is changed, (n,).
    missing : (k,) int64
        Rows without a position.
    determines : dict
    """

    point_bytes = 230
    files = FieldFiles("SEARCH", {}, ("returnStatus",))

    settings: PassingSettings | None = None
    stored_f: str = "all"
    kept: Records | None = None
    missing: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    determines: dict[str, Any]

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        guess = read_guess(args.phi_file, args.phi_file_bin_ratio)
        if guess.field is not None:
            guess = replace(guess, field=_moved(guess.field, guess.bin_ratio))
        if guess.registration is not None:
            guess = replace(guess, registration=_moved(guess.registration, guess.bin_ratio))
        stem, output = field_stem(args, guess.name, "passed"), Output.of(args)
        if args.registration_subtract is not None or args.phi_file2 is not None:
            return cls._changed(args, console, guess, stem, output)
        announce(console, "passPhiField", args)
        targets = targets_of(args, console, team)
        stem = stem.with_name(f"{stem.name}{targets.suffix}")
        check_results(stem, output, args.phi_file)
        nodes, field = targets.nodes, None
        check_plot(args.plot, nodes.regular)
        given = guess.field or guess.registration
        assert given is not None
        if given.positions.any() and targets.two_d != (not given.positions[:, 0].any()):
            words = ("3D", "2D") if targets.two_d else ("2D", "3D")
            raise UserError(
                f"-pf {guess.name}: is of {words[0]} images, but the new points are those of a {words[1]} one"
            )
        settings = None
        if guess.field is not None:
            field = _usable(guess, args.return_status_threshold, console)
            settings = _settings(args, targets, len(field), console)
        else:
            guess.announce(console, (2**40, 2**40, 2**40), tif=False)
        return cls(
            parts=[FieldPart(stem=stem, given=field)],
            output=output,
            nodes=nodes,
            guess=guess if guess.registration is not None else Guess(),
            cell=_cell(nodes.layout, targets.two_d),
            settings=settings,
            stored_f=args.apply_F,
            missing=targets.missing,
            determines={
                "command": "passPhiField",
                "-pf": guess.digest,
                **targets.determines,
                "-F": args.apply_F,
                "-nr": settings and settings.radius,
                "-nn": settings and settings.number,
                "-cps": settings and settings.surrounded,
                "-rst": args.return_status_threshold if settings else None,
            },
            estimated_seconds=len(nodes) * SECONDS,
            plot=args.plot,
        )

    @classmethod
    def _changed(cls, args: argparse.Namespace, console: Console, guess: Guess, stem: Path, output: Output) -> Plan:
        """The plan of a field that is changed at its own points."""
        field = guess.field
        option = "-pf2" if args.phi_file2 is not None else "-regs"
        if field is None:
            raise UserError(f"-pf {guess.name}: is a registration, but {option} changes a field; give one")
        check_plot(args.plot, field.dims is not None)
        determines: dict[str, Any] = {"command": "passPhiField", "-pf": guess.digest}
        if option == "-regs":
            path = args.registration_subtract
            registration = _read("-regs", path, args.registration_subtract_bin_ratio)
            if len(registration) != 1 or not np.isfinite(registration.phi).all():
                raise UserError(f"-regs {path}: is no registration with a finite Phi; give the file of a reg")
            suffix = {"no": "disp"}.get(args.registration_subtract_F, args.registration_subtract_F)
            stem = stem.with_name(f"{stem.name}-regs-{suffix}")
            check_results(stem, output, args.phi_file)
            announce(console, "passPhiField", args)
            kept = less(field, registration, args.registration_subtract_F)
            determines |= {"-regs": checksum(registration.positions, registration.phi)}
            determines |= {"-regsF": args.registration_subtract_F}
        else:
            if field.layout == "labels":
                raise UserError(f"-pf {guess.name}: is a field of labels; -pf2 merges labels into a field of nodes")
            others = [_read("-pf2", path, args.phi_file2_bin_ratio) for path in args.phi_file2]
            for path, other in zip(args.phi_file2, others, strict=True):
                if other.layout != "labels":
                    raise UserError(f"-pf2 {path}: is no field of labels; give the file of a ddic")
            images = [open_image(path, "labels") for path in args.labels1]
            stem = stem.with_name(f"{stem.name}-merged")
            check_results(stem, output, args.phi_file)
            announce(console, "passPhiField", args)
            kept, count = merged(field, others, images, args.merge_prefer_label)
            console.print(f"Nodes that got the Phi of a label: {count} of {len(field)}")
            determines |= {"-pf2": [checksum(other.positions, other.phi, read_status(other)) for other in others]}
            determines |= {"-lab1": [fingerprint(image) for image in images], "-mpl": args.merge_prefer_label}
        layout = replace(FieldLayout.of(field), columns=())
        return cls(
            parts=[FieldPart(stem=stem)],
            output=output,
            nodes=Nodes(layout, field.spacing or (1.0, 1.0, 1.0), field.positions),
            cell=_cell(layout, not field.positions[:, 0].any()),
            kept=kept,
            determines=determines,
            plot=args.plot,
        )

    def for_workers(self) -> Plan:
        return replace(super().for_workers(), kept=None)

    def work(self, part: FieldPart) -> Work:
        n = len(self.nodes)
        labels = self.nodes.layout.layout == "labels"
        measured = np.arange(n)
        if self.kept is not None:
            measured = measured[:0]
        elif labels:
            # row 0 is no label
            measured = np.setdiff1d(measured[1:], self.missing)
        work = Work(
            determines=self.determines,
            nodes=self.nodes,
            columns=RESULT,
            record=RECORD,
            guess=self.guess,
            stored_f=self.stored_f,
            order=measured,
            starts=np.append(np.arange(0, len(measured), BLOCK), len(measured)),
        )
        if self.kept is not None:
            kept = self.kept
            work.keep(np.arange(n), lambda rows: kept[rows])
        elif labels:
            start = self.guess.at(np.array([0]), work.nodes[np.array([0])], self.stored_f)
            work.keep(np.array([0]), lambda rows: records_of(start, np.zeros(1)))
            work.keep(
                self.missing,
                lambda rows: records_of(np.full((len(rows), 4, 4), np.nan), np.full(len(rows), NO_NEIGHBOUR)),
            )
        return work

    def measure(self, part: FieldPart, measurement: Measurement) -> None:
        task: PassingTask | AppliedTask = AppliedTask(measurement.journal)
        if part.source is not None and self.settings is not None:
            task = PassingTask(part.source, measurement.journal, self.settings)
        measurement.run(task, "passPhiField", lambda last: f"rs={last['returnStatus']:+.0f}")

    def summarise(
        self, part: FieldPart, work: Work, results: ResultsFile, statuses: Mapping[str, int], console: Console
    ) -> int:
        status = results.column("returnStatus")
        if work.nodes.layout.layout == "labels":
            status = status[1:]
        show_statuses(
            console, "Result of passPhiField", count_statuses(status), CORRELATION if self.kept is not None else PASSED
        )
        self.draw(results, (MAGNITUDE, "returnStatus"), console)
        if self.settings is not None and not (status == 1).any():
            console.warn("no point has a neighbour in the field: see -nr, -nn, -cps, -pfb")
            return 1
        return 0


def _read(option: str, path: str, ratio: float) -> PhiField:
    """Read a field whose images have `ratio` times the binning of the new points."""
    try:
        return _moved(read_field(path, ratio), ratio)
    except UserError as error:
        raise UserError(f"{option} {error}") from None


def _moved(field: PhiField, ratio: float) -> PhiField:
    """A field whose positions, which are multiples of `ratio`, are moved to the same places in the finer images.

    Voxel p of a binned image stands for the voxels r p to r p + r - 1, whose middle is r p + (r - 1) / 2.
    """
    if ratio == 1:
        return field
    shift = np.full(3, (ratio - 1) / 2)
    if not field.positions[:, 0].any():
        shift[0] = 0
    return replace(field, positions=field.positions + shift)


def _usable(guess: Guess, threshold: int, console: Console) -> PhiField:
    """The points of a field that are taken: finite, with a return status of at least the threshold, and no background.

    A grid keeps all its nodes, among which neighbours are found without a tree; its column `TAKEN` tells of them.

    Raises
    ------
    UserError
        If there is none.
    """
    field = guess.field
    assert field is not None
    good = field.finite
    if field.layout == "labels":
        good[0] = False
    finite = int(good.sum())
    status = read_status(field)
    good &= status >= threshold
    taken = int(good.sum())
    if not taken:
        why = "no point has a finite Phi" if not finite else f"none of {finite} points has such a return status"
        raise UserError(f"-pf {guess.name}, -rst {threshold}: {why}; lower -rst, or give a field with good points")
    console.print(f"Points of the field that are taken: {taken} of {len(field)}")
    diverged = int((status[good] < 0).sum())
    if diverged:
        console.note(f"{diverged} of them diverged (status below 0): -rst 1 leaves them out")
    if field.dims is not None:
        return replace(field, columns={TAKEN: good})
    return PhiField(field.positions[good], field.phi[good])


def _settings(args: argparse.Namespace, targets: Targets, n: int, console: Console) -> PassingSettings:
    radius, number = args.neighbourhood_radius, args.number_of_neighbours
    if radius is None and number is None:
        radius = max(targets.radius, 1.0)
        console.print(f"Neighbours within {radius:.4g} voxels (-nr)")
    elif radius is not None:
        number = None
    elif number > n:
        console.note(f"-nn {number}: only {n} points are taken, so that each point gets the mean of all")
        number = n
    return PassingSettings(radius, number, args.apply_F, args.check_point_surrounded)


def _cell(layout: FieldLayout, two_d: bool) -> tuple[float, float, float]:
    """Node spacing of a grid, voxels; 0 along z in 2D."""
    z, y, x = layout.spacing or (0.0, 0.0, 0.0)
    return 0.0 if two_d else z, y, x
