"""The run of ``mpidvc filterPhiField``: from its options to its files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mpidvc.arrays import Array, Ints
from mpidvc.commands.filter_phi_field.options import CORRECTIONS, SELECTIONS, given_of
from mpidvc.core import outliers
from mpidvc.core.local_fit import fewest_points
from mpidvc.core.motion import CommonMotion, fit_motion
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import FieldLayout, ResultsFile
from mpidvc.fields.phifield import PhiField
from mpidvc.kernels.correlation import ERRORS
from mpidvc.runtime.console import Console
from mpidvc.tasks.field_filter import BLOCK, FilterSettings, FilterTask, Flags, columns_of, kept, select
from mpidvc.tasks.points import record_of
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.announce import announce
from mpidvc.workflow.field_plan import FieldPart, FieldPlan
from mpidvc.workflow.gauge import WINDOW, correlation_window
from mpidvc.workflow.guess import Nodes, read_guess
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.motion import REMOVED, as_removed, removed_motions, show_motion
from mpidvc.workflow.output import Output, check_results, field_stem
from mpidvc.workflow.plot import MAGNITUDE, check_plot
from mpidvc.workflow.work import Work
from mpidvc.workflow.write import FieldFiles

__all__ = ["LabelPlan", "Plan"]

#: CPU seconds of a point.
SECONDS = 1e-5
#: Neighbours where the points are no grid.
NEIGHBOURS = 27


@dataclass(frozen=True, kw_only=True)
class Plan(FieldPlan):
    """A field to be filtered.

    Attributes
    ----------
    settings : FilterSettings
    whole : PhiField or None
        The field with all of its rows; on rank 0.
    rows : (m,) int64
        Rows of the field that are points: all but the background and missing labels; on rank 0.
    digest : str
        Of the field.
    columns : tuple of str
        Of the result.
    attributes : dict of str
        Texts for the results file: the correlation window of the field, where it stays that of a point, and the motions
        that were removed from it.
    motion : CommonMotion or None
        Of the whole, to be removed.
    """

    point_bytes = 130
    files = FieldFiles("SEARCH", {}, ("returnStatus",))

    settings: FilterSettings
    columns: tuple[str, ...]
    whole: PhiField | None
    rows: Ints
    digest: str
    attributes: dict[str, str]
    motion: CommonMotion | None = None

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        guess = read_guess(args.phi_file, args.phi_file_bin_ratio)
        field = guess.field
        name = f"-pf {guess.name}"
        if field is None:
            raise UserError(f"{name}: is a registration; filterPhiField takes a field of several points")
        # spam's name, too, tells the option rather than what was done
        stem = field_stem(args, guess.name, "filtered-LQC" if args.correct_fit else "filtered")
        output = Output.of(args)
        check_results(stem, output, args.phi_file)
        rows = np.nonzero(np.isfinite(field.positions).all(axis=1))[0]
        labels = field.layout == "labels"
        if labels:
            # row 0 is no label
            rows = rows[rows > 0]
        if len(rows) == 0:
            raise UserError(f"{name}: holds no point with a position; give another field")
        points = field if len(rows) == len(field) else _taken(field, rows)
        settings = _settings(args, field, points, name)
        motion = None if args.remove_motion is None else _motion(args.remove_motion, points, settings, name)
        check_plot(args.plot, field.dims is not None)
        announce(console, "filterPhiField", args)
        # a median is one of many windows
        same = guess.bin_ratio == 1 and not settings.median
        window = correlation_window(guess.name) if same else None
        attributes = {} if window is None else {WINDOW: json.dumps(window)}
        removed = removed_motions(guess.name, guess.bin_ratio)
        if motion is not None:
            show_motion(console, motion)
            removed.append(as_removed(motion))
        if removed:
            attributes[REMOVED] = json.dumps(removed)
        z, y, x = field.spacing or (0.0, 0.0, 0.0)
        return (LabelPlan if labels else cls)(
            parts=[FieldPart(stem=stem, given=points, search=settings.searches(points))],
            output=output,
            nodes=Nodes(replace(FieldLayout.of(field), columns=()), field.spacing or (1.0, 1.0, 1.0), field.positions),
            # 2D images have z = 0
            cell=(z if points.positions[:, 0].any() else 0.0, y, x),
            settings=settings,
            whole=field,
            rows=rows,
            digest=str(guess.digest),
            plot=args.plot,
            attributes=attributes,
            motion=motion,
            columns=columns_of(field, same and motion is None),
            estimated_seconds=len(rows) * SECONDS,
        )

    def for_workers(self) -> Plan:
        return replace(super().for_workers(), whole=None, rows=self.rows[:0])

    def work(self, part: FieldPart) -> Work:
        whole = self.whole
        assert whole is not None
        determines = {"command": "filterPhiField", "-pf": self.digest, **asdict(self.settings)}
        if self.motion is not None:
            determines["--remove-motion"] = as_removed(self.motion)
        work = Work(
            determines=determines,
            nodes=self.nodes,
            columns=self.columns,
            record=record_of(self.columns),
            attributes=self.attributes,
            order=self.rows,
            starts=np.append(np.arange(0, len(self.rows), BLOCK), len(self.rows)),
        )
        work.keep(np.setdiff1d(np.arange(len(whole)), self.rows), lambda rows: kept(whole, rows, self.columns))
        return work

    def measure(self, part: FieldPart, measurement: Measurement) -> None:
        settings, source = self.settings, part.source
        assert source is not None
        with measurement.stages.stage("points", count_cpu=True):
            flags = select(measurement.executor, source, settings)
        if measurement.work is not None:
            _show_selection(measurement.console, flags, settings)
        starts = measurement.journal.starts
        task = FilterTask(source, settings, flags, starts[starts <= len(source.field)], self.motion, self.columns)
        measurement.run(task, "filterPhiField", lambda last: f"rs={last['returnStatus']:+.0f}")

    def summarise(
        self, part: FieldPart, work: Work, results: ResultsFile, statuses: Mapping[str, int], console: Console
    ) -> int:
        correction = results.column("correction")
        # nodes that are left as they are, or are background, have no correction
        self.draw(results, (MAGNITUDE, *(["outlier"] if self.settings.outliers else []), "correction"), console)
        return _show_corrections(console, correction, self.settings)


@dataclass(frozen=True, kw_only=True)
class LabelPlan(Plan):
    """A field of labels to be filtered: its VTK file has the lengths of the displacements, too."""

    files = FieldFiles("SEARCH", {}, ("returnStatus",), magnitude=True)


def _taken(field: PhiField, rows: Ints) -> PhiField:
    """Rows of a field, as scattered points."""
    columns = {name: values[rows] for name, values in field.columns.items()}
    return PhiField(field.positions[rows], field.phi[rows], columns)


def _settings(args: argparse.Namespace, field: PhiField, points: PhiField, name: str) -> FilterSettings:
    """Settings of a run, as far as they have a meaning for it.

    Raises
    ------
    UserError
        If the field has not what they need, nothing would be corrected, or nothing would be left to correct it from.
    """
    # a single layer of points, whatever its z
    flat = bool(np.ptp(points.positions[:, 0]) == 0)
    selection, correction = given_of(args, SELECTIONS)[:1], given_of(args, CORRECTIONS)[:1]
    if args.filter_median:
        if field.dims is None:
            raise UserError(f"{name}: has no grid, whose medians -fm takes; correct its points by -cint or -clqf")
        correction = []
    asked = args.outlier_epsilon is not None or args.outlier_threshold is not None
    known = not asked and all(name in points.columns for name in ERRORS[:3])
    errors = np.stack([points.columns[name] for name in ERRORS[:3]], axis=-1) if known else None
    epsilon, threshold = outliers.default_test(points.F, errors)
    radius, number = args.neighbourhood_radius, args.number_of_neighbours
    if radius is not None:
        number = None
    elif number is None and field.spacing is not None:
        steps = field.spacing[1:] if flat else field.spacing
        radius = max(4.0 * int(np.mean(steps)), 1.0)
    elif number is None:
        number = NEIGHBOURS
    fewest = fewest_points(flat)
    if number is not None and number < fewest and (selection == ["-slqc"] or correction == ["-clqf"]):
        option = "-clqf" if correction == ["-clqf"] else "-slqc"
        raise UserError(f"-nn {number}: a quadratic fit ({option}) needs at least {fewest} points; give more, or -nr")
    column = {"-srs": "returnStatus", "-scc": "pixelSearchCC"}.get("".join(selection))
    if column is not None and column not in field.columns:
        raise UserError(f"{name}: has no column {column}, which {selection[0]} needs; select by -slqc or --outliers")
    names: dict[str, Any] = {"-srs": "status", "-scc": "cc", "-slqc": "lqc", "-cint": "distance", "-clqf": "fit"}
    settings = FilterSettings(
        select=names[selection[0]] if selection else None,
        limit=args.select_cc_threshold if selection == ["-scc"] else args.select_status_threshold,
        outliers=args.outliers,
        epsilon=args.outlier_epsilon if args.outlier_epsilon is not None else epsilon,
        threshold=args.outlier_threshold if args.outlier_threshold is not None else threshold,
        correct=names[correction[0]] if correction else None,
        components=args.filter_F,
        median=args.filter_median_radius if args.filter_median else 0,
        radius=radius,
        number=number,
        no_mask=args.no_mask,
    )
    flags = Flags.of(points, settings)
    if not flags.present.any():
        raise UserError(f"{name}: all of its points have a return status below -4; -nomask takes them all the same")
    if correction and column is not None:
        limit = f"a {column} of {settings.limit:g} or less"
        if not (flags.sound & ~flags.selected).any():
            raise UserError(f"{selection[0]}: all points of {name[4:]} have {limit}; nothing is left to correct from")
        if not flags.selected.any() and not settings.outliers:
            raise UserError(f"{selection[0]}: no point of {name[4:]} has {limit}; use the field as it is")
    return settings


def _motion(kind: Any, points: PhiField, settings: FilterSettings, name: str) -> CommonMotion:
    """The motion of the good points that are not selected.

    Raises
    ------
    UserError
        If there are too few.
    """
    flags = Flags.of(points, settings)
    good = flags.sound & ~flags.selected
    if (good & points.good).any():
        good &= points.good
    motion = fit_motion(points.positions[good], points.displacements[good], kind, not points.positions[:, 0].any())
    if motion is None:
        raise UserError(
            f"--remove-motion {kind}: the {good.sum()} good points of {name[4:]} are too few or lie on a line or in a "
            "plane, and determine no such motion; try a simpler one"
        )
    return motion


def _show_selection(console: Console, flags: Flags, settings: FilterSettings) -> None:
    """Print how many points are bad, and how many nothing is known of."""
    present = int(flags.present.sum())

    def share(count: int) -> str:
        return f"{count} of {present} points ({count / max(present, 1):.1%})"

    if present < len(flags.present):
        skipped = len(flags.present) - present
        console.print(f"Background (return status below -4), left as it is: {skipped} points")
    if settings.outliers:
        found = int((flags.outlier == 1).sum())
        console.print(
            f"Outliers: {share(found)}; epsilon {settings.epsilon:g} voxels, threshold {settings.threshold:g}"
        )
    if settings.select is not None or settings.outliers:
        console.print(f"Selected: {share(int(flags.selected.sum()))}")
    if flags.unjudged:
        console.note(f"points with too few neighbours to be judged by: {flags.unjudged}")


def _show_corrections(console: Console, correction: Array, settings: FilterSettings) -> int:
    """Print how many points were corrected and left; return the exit status."""
    done, linear, left = (int(count.sum()) for count in (correction > 0, correction == 1, np.isnan(correction)))
    if settings.median:
        console.print(f"Smoothed: {done} points")
    elif settings.correct is not None:
        console.print(f"Corrected: {done} points")
        if settings.correct == "fit" and linear:
            console.note(f"{linear} of them by a linear fit: their neighbours determine no quadratic one")
    if left:
        console.warn(
            f"left as they are, with too few good neighbours: {left} points; give a larger -nr, or more by -nn"
        )
    return 1 if left and not done else 0
