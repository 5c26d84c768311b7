"""The run of ``mpidvc regularStrain``: from its options to its files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Array
from mpidvc.commands.regular_strain.options import RADIUS
from mpidvc.core.statuses import STRAIN
from mpidvc.core.strain import COMPONENTS, along_z, column_names
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import FieldLayout, ResultsFile
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import COLUMNS
from mpidvc.kernels.correlation import ERRORS
from mpidvc.runtime.console import Console
from mpidvc.tasks.points import CHOSEN
from mpidvc.tasks.ranks import Team
from mpidvc.tasks.strain import BLOCK, StrainSettings, StrainTask
from mpidvc.workflow.announce import announce
from mpidvc.workflow.field_plan import FieldPart, FieldPlan
from mpidvc.workflow.gauge import STRAIN_GAUGE, correlation_window
from mpidvc.workflow.guess import Guess, Nodes, read_guess, status_threshold
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import Output, check_results, field_stem
from mpidvc.workflow.plot import check_plot
from mpidvc.workflow.summary import show_statuses
from mpidvc.workflow.work import Work
from mpidvc.workflow.write import FieldFiles

__all__ = ["Plan"]

#: CPU seconds of a point.
SECONDS = 1e-5


@dataclass(frozen=True, kw_only=True)
class Plan(FieldPlan):
    """A field whose strain is computed.

    Attributes
    ----------
    settings : StrainSettings
    determines : dict
    gauge : str
        Size of the virtual strain gauge, for the results file.
    vtk_nan : bool
        Whether nan stays in the VTK file.
    """

    point_bytes = 270

    settings: StrainSettings
    determines: dict[str, Any]
    gauge: str
    vtk_nan: bool

    @property
    def files(self) -> FieldFiles:
        settings = self.settings
        parts = [COMPONENTS[name] for name in settings.components]
        # in a plane there is nothing along z but the rotation about it
        tif = [column for column in column_names(settings.components) if not (settings.two_d and along_z(column))]
        return FieldFiles(
            (*COLUMNS["STRAIN"], *column_names(settings.components)),
            tif={f"{column}-{settings.mode}": column for column in tif},
            vtk=("returnStatus", *settings.sigma),
            displacements=False,
            groups={part.name: part.columns for part in parts},
            keep_nan=self.vtk_nan,
            tif_drops=f"-strain-{settings.mode}",
        )

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        guess = read_guess(args.phi_file, 1.0)
        field = guess.field
        if field is None:
            raise UserError(f"field {guess.name}: is a single Phi, and has no neighbours to differ from; give a field")
        mode, radius = _mode(args, guess.name, field)
        flat = _is_flat(field)
        # the F of a single layer of windows in a volume is that of a volume
        two_d = flat and (mode != "raw" or not field.positions[:, 0].any())
        if args.plot is not None:
            check_plot(args.plot)
            if field.dims is None or not args.strain_components:
                raise UserError(f"--plot {args.plot}: slices need a grid and components (-comp); drop it")
        stem, output = field_stem(args, guess.name, f"strain-{mode}"), Output.of(args)
        check_results(stem, output, args.phi_file)
        announce(console, "regularStrain", args)
        good = _points_that_count(args, guess.name, field, mode, console)
        masked = replace(field, phi=np.where(good[:, None, None], field.phi, np.nan))
        nodes, size = _strain_points(field, mode)
        gauge = _gauge(guess.name, field, mode, radius, two_d)
        console.print(f"Virtual strain gauge: {gauge}")
        # labels have no voxels in common
        window = (1, 1, 1) if field.layout == "labels" else correlation_window(guess.name)
        errors = all(name in field.columns for name in ERRORS[:12])
        if errors and mode != "raw" and window is None:
            console.note(f"{guess.name} does not say how large its windows are: random errors are told for -raw only")
            errors = False
        propagated = (ERRORS[3:12] if mode == "raw" else ERRORS[:3]) if errors else ()
        if errors and mode != "raw" and CHOSEN[0] in field.columns:
            propagated = (*propagated, CHOSEN[0])
        given = replace(masked, columns={name: field.columns[name] for name in propagated})
        if mode == "Geers" and field.layout == "labels":
            # the missing ones have no position
            columns = {name: values[good] for name, values in given.columns.items()}
            given = PhiField(field.positions[good], field.phi[good], columns)
        return cls(
            parts=[FieldPart(stem=stem, given=given if errors or mode != "raw" else None, search=mode == "Geers")],
            nodes=nodes,
            guess=Guess(field=masked) if mode in ("Geers", "raw") else Guess(),
            cell=size,
            output=output,
            settings=StrainSettings(
                mode=mode,
                components=tuple(args.strain_components),
                two_d=two_d,
                dims=field.dims or (0, 0, 0),
                radius=radius,
                errors=errors,
                window=window or (1, 1, 1),
            ),
            determines={
                "command": "regularStrain",
                "-pf": guess.digest,
                "mode": mode,
                "-comp": args.strain_components,
                "-r": radius if mode == "Geers" else None,
                "points that count": int(good.sum()),
                "-rst": args.return_status_threshold,
                "-nomaskBad": args.no_mask,
            },
            gauge=gauge,
            vtk_nan=args.vtk_nan,
            plot=args.plot,
            estimated_seconds=len(nodes) * SECONDS,
        )

    def work(self, part: FieldPart) -> Work:
        n = len(self.nodes)
        return Work(
            determines=self.determines,
            nodes=self.nodes,
            columns=self.settings.columns,
            record=StrainTask.record(self.settings),
            guess=self.guess,
            order=np.arange(n),
            starts=np.append(np.arange(0, n, BLOCK), n),
            attributes={STRAIN_GAUGE: self.gauge},
        )

    def measure(self, part: FieldPart, measurement: Measurement) -> None:
        task = StrainTask(part.source, measurement.journal, self.settings)
        measurement.run(task, "regularStrain", lambda last: f"rs={last['returnStatus']:+.0f}")

    def summarise(
        self, part: FieldPart, work: Work, results: ResultsFile, statuses: Mapping[str, int], console: Console
    ) -> int:
        show_statuses(console, f"Result of regularStrain ({self.settings.mode})", statuses, STRAIN, "Strains")
        self.draw(results, (*column_names(self.settings.components), *self.settings.sigma), console)
        if "2" not in statuses:
            console.warn(
                "there is no strain anywhere: see -rst, -nomaskBad, and -r, within which neighbours have to be"
            )
            return 1
        return 0


def _is_flat(field: PhiField) -> bool:
    """Whether all points lie in a plane z = constant."""
    z = field.positions[:, 0]
    z = z[np.isfinite(z)][1 if field.layout == "labels" else 0 :]
    return len(z) == 0 or bool(np.ptp(z) == 0)


def _mode(args: argparse.Namespace, name: str, field: PhiField) -> tuple[str, float]:
    """The mode, and the radius of neighbours in voxels.

    Raises
    ------
    UserError
        If the field is none for this mode.
    """
    if args.raw:
        return "raw", 0.0
    if field.dims is None or field.spacing is None:
        kind = {"labels": "a field of labels"}.get(field.layout, "a field of scattered points")
        if not args.geers:
            raise UserError(
                f"field {name}: is {kind}, without cells between its points; -g -r VOXELS fits the displacements "
                "around each point, -raw takes the F that was found"
            )
        if args.radius is None:
            raise UserError(f"field {name}: is {kind}, and has no node spacing; give the radius in voxels by -r")
        return "Geers", float(args.radius)
    single = [axis for axis, n in zip("yx", field.dims[1:], strict=True) if n == 1]
    if single:
        raise UserError(
            f"field {name}: has a single node along {single[0]}, and no derivative there; give a field with several "
            "nodes along y and x, or use -raw"
        )
    if args.geers:
        spacing = [step for n, step in zip(field.dims, field.spacing, strict=True) if n > 1]
        return "Geers", (RADIUS if args.radius is None else float(args.radius)) * max(spacing)
    return ("Q4" if field.dims[0] == 1 else "Q8"), 0.0


def _points_that_count(
    args: argparse.Namespace, name: str, field: PhiField, mode: str, console: Console
) -> NDArray[np.bool_]:
    """Mask (n,) of the points that count.

    Raises
    ------
    UserError
        If more than 99 % of the points do not.
    """
    measured = np.asarray(np.isfinite(np.column_stack([field.positions, field.displacements])).all(axis=1))
    if mode == "raw":
        measured &= np.isfinite(field.F).all(axis=(1, 2))
    if field.layout == "labels":
        # the background
        measured[0] = False
    good, least = measured, args.return_status_threshold
    words = "that have a displacement"
    if "returnStatus" in field and not args.no_mask:
        status = np.asarray(field["returnStatus"], np.float64)
        least = status_threshold(field, least, console)
        good = measured & (status >= least)
        words = f"with return status {least} or above (-rst)"
        ones = int((measured & (status == 1)).sum())
        if least > 1 and ones > 0.05 * len(field):
            console.note(f"{100 * ones / len(field):.1f}% of the points have return status 1: -rst 1 includes them")
    share = good.sum() / len(field)
    if share < 0.01:
        raise UserError(
            f"field {name}: only {100 * share:.1f}% of its points count, those {words}; see -rst and -nomaskBad"
        )
    console.print(f"Points that count: {good.sum()} of {len(field)} ({100 * share:.1f}%), {words}")
    return good


def _strain_points(field: PhiField, mode: str) -> tuple[Nodes, tuple[float, float, float]]:
    """The points that get a strain, and the size of their cells in voxels, 0 where there is none."""
    layout = replace(FieldLayout.of(field), columns=())
    if field.dims is None or field.spacing is None:
        return Nodes(layout, (1.0, 1.0, 1.0), field.positions), (0.0, 0.0, 0.0)
    z, y, x = field.spacing
    size = (1.0 if field.dims[0] == 1 else z, y, x)
    if mode in ("Geers", "raw"):
        return Nodes(layout, field.spacing, field.positions), size
    nz, ny, nx = (max(n - 1, 1) for n in field.dims)
    # edges of the cells may differ in length
    axes = [np.unique(field.positions[:, axis]) for axis in range(3)]
    middles = [(axis[1:] + axis[:-1]) / 2 if len(axis) > 1 else axis for axis in axes]
    positions = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, 3)
    first = positions[0]
    layout = replace(
        layout,
        n=nz * ny * nx,
        dims=(nz, ny, nx),
        origin=(float(first[0]), float(first[1]), float(first[2])),
    )
    return Nodes(layout, field.spacing, positions), size


def _gauge(name: str, field: PhiField, mode: str, radius: float, two_d: bool) -> str:
    """Size of the virtual strain gauge along z, y, x: window + (strain window - 1) x step, in words."""
    spread: Array = np.zeros(3)
    if mode in ("Q8", "Q4"):
        spread = np.array(field.spacing)
    elif mode == "Geers" and field.spacing is not None:
        steps = np.array(field.spacing)
        spread = 2 * np.floor(radius / steps + 1e-9) * steps
    elif mode == "Geers":
        spread = np.full(3, 2 * radius)
    window = correlation_window(name)
    if mode == "raw" and window is None:
        return "the correlation window, which is not known"
    sizes = (spread + (np.zeros(3) if window is None else window))[1 if two_d else 0 :]
    text = " x ".join(f"{size:g}" for size in sizes) + f" voxels ({'y x' if two_d else 'z y x'})"
    if window is None:
        return f"{text}, without the correlation window, which is not known"
    return f"{text}, of it the correlation window " + " x ".join(f"{size}" for size in window[1 if two_d else 0 :])
