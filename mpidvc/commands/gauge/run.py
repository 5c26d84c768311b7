"""The run of ``mpidvc gauge``: the gauges, their readings in every state, and the files of these."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Array, Ints, Triple
from mpidvc.atomic import replacing
from mpidvc.cli.command import Outcome
from mpidvc.cli.command import Plan as CommandPlan
from mpidvc.commands.gauge.options import ends_of
from mpidvc.commands.gauge.reading import Reading
from mpidvc.core import gauges
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.read import read_field
from mpidvc.images.image import Image, open_image
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.points import windows_of
from mpidvc.tasks.ranks import Team, on_leader
from mpidvc.workflow.announce import announce
from mpidvc.workflow.gauge import gauge_window
from mpidvc.workflow.guess import status_threshold
from mpidvc.workflow.output import base_name, check_files
from mpidvc.workflow.plot import need_matplotlib

__all__ = ["Plan", "Reading"]

DISPLACEMENTS = ("Zdisp", "Ydisp", "Xdisp")
STRAINS = tuple(f"GL{'zyx'[i]}{'zyx'[j]}" for i, j in zip(*gauges.UPPER, strict=True))
#: Readings that are shown; all of them are in the file.
SHOWN = 60


@dataclass(frozen=True, kw_only=True)
class Plan(CommandPlan):
    """Fields to be read by gauges.

    Attributes
    ----------
    fields : sequence of str or PhiField
        The states; on rank 0, as is all else.
    extensometers, boxes : lists of pairs of points
    mask, labels : Image or None
    chosen : list of int
        Labels; all if empty.
    columns : list of str
    threshold : int or None
        Least return status.
    radius : float or None
    window : 3 ints or None
    tsv, plot : str or None
        Files to write.
    """

    fields: Sequence[Any]
    extensometers: list[Any]
    boxes: list[Any]
    mask: Image | None
    labels: Image | None
    chosen: list[int]
    columns: list[str]
    threshold: int | None
    radius: float | None
    window: Triple | None
    tsv: str | None
    plot: str | None

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        if args.plot is not None:
            need_matplotlib("--plot")
        read = {name: "is one of the fields" for name in args.fields if isinstance(name, str)}
        check_files(args, ("tsv", "plot"), read)
        window = args.window and (args.window * 3 if len(args.window) == 1 else args.window)
        announce(console, "gauge", args)
        return cls(
            fields=args.fields,
            extensometers=ends_of(args.extensometer or []),
            boxes=ends_of(args.box or []),
            mask=None if args.mask1 is None else open_image(args.mask1, "mask"),
            labels=None if args.labels1 is None else open_image(args.labels1, "labels"),
            chosen=sorted({*(args.label or [])}),
            columns=list(dict.fromkeys(args.columns or [])),
            threshold=args.return_status_threshold,
            radius=args.radius,
            window=window and (window[0], window[1], window[2]),
            tsv=args.tsv,
            plot=args.plot,
        )

    def execute(self, executor: Executor, console: Console) -> Outcome:
        # a matter of seconds, and of one field at a time
        return on_leader(executor, lambda: self._read(console))

    def _read(self, console: Console) -> Outcome:
        readings: list[Reading] = []
        unknown = False
        for state, given in enumerate(self.fields, 1):
            field = given if isinstance(given, PhiField) else read_field(given)
            name = f"field{state}" if isinstance(given, PhiField) else given
            windows = self._windows(given, field)
            unknown |= windows is None and field.layout == "grid"
            readings += self._of_state(state, name, field, windows, console)
        if unknown:
            console.warn(
                "the windows of the points are not known: standard errors take points as independent, and are too "
                "small where windows overlap; give --window, or .h5 files"
            )
        _show(console, readings)
        bad = [one for one in readings if not np.isfinite(one.value)]
        if bad:
            console.warn(
                f"{bad[0].gauge}: has too few points that count in state {bad[0].state} ({bad[0].file}): see -rst and "
                "--radius"
            )
        self._write(readings, console)
        return Outcome(1 if len(bad) == len(readings) else 0, readings)

    def _windows(self, given: Any, field: PhiField) -> Ints | None:
        """Voxels that a point stands for, (3,) or of each (n, 3); None if they are not known."""
        if self.window is not None:
            return np.array(self.window)
        told = None if isinstance(given, PhiField) else gauge_window(given)
        return None if told is None else windows_of(field, told)

    def _of_state(
        self, state: int, name: str, field: PhiField, windows: Ints | None, console: Console
    ) -> Iterator[Reading]:
        """Readings of all gauges in a state."""
        if field.layout == "registration":
            raise UserError(f"field {name}: is a registration, one Phi for the whole; give a field of several points")
        missing = [column for column in self.columns if column not in field.columns]
        if missing:
            known = ", ".join(field.columns)
            raise UserError(f"--columns {missing[0]}: field {name} has no such column, but {known}")
        values = np.column_stack([field.displacements, *(np.float64(field.columns[c]) for c in self.columns)])
        there: NDArray[np.bool_] = np.asarray(np.isfinite(field.positions).all(axis=1))
        if field.layout == "labels":
            # row 0 is no label
            there[0] = False
        counts = there & np.isfinite(values).all(axis=1)
        if "returnStatus" in field:
            counts &= np.float64(field["returnStatus"]) >= status_threshold(field, self.threshold, console)
        positions, values = field.positions[counts], values[counts]
        windows = gauges.windows_at(windows, counts)
        file = base_name(name)
        quantities = (*DISPLACEMENTS, *self.columns)
        for number, ends in enumerate(self.extensometers, 1):
            found = gauges.extension(positions, values[:, :3], np.array(ends), self._radius(name, field), windows)
            own = (state, file, f"extensometer {number}", found.points, np.nan)
            yield Reading(*own, "strain", found.strain, found.strain_error)
            yield Reading(*own, "elongation", found.elongation, found.elongation_error)
        for gauge, inside in self._regions(field.positions, there):
            if not inside.any():
                raise UserError(f"{gauge}: holds no point of field {name}; places are voxels z y x of image 1")
            chosen = inside[counts]
            if chosen.any():
                one = gauges.region(positions[chosen], values[chosen], gauges.windows_at(windows, chosen))
            else:
                nothing, none = np.full(len(quantities), np.nan), np.full(6, np.nan)
                one = gauges.Region(0, 0.0, nothing, nothing, none, none)
            rows = [*zip(quantities, one.means, one.errors, strict=True)]
            rows += zip(STRAINS, one.strain, one.strain_errors, strict=True)
            # in 2D nothing is along z
            flat = not field.positions[there, 0].any()
            for quantity, value, error in rows:
                if not (flat and (quantity == "Zdisp" or quantity in STRAINS[:3])):
                    yield Reading(state, file, gauge, one.points, one.independent, quantity, float(value), float(error))

    def _radius(self, name: str, field: PhiField) -> float:
        if self.radius is not None:
            return self.radius
        if field.spacing is None or field.dims is None:
            raise UserError(f"field {name}: has no node spacing; say by --radius which points are around an end")
        return 1.5 * max(step for n, step in zip(field.dims, field.spacing, strict=True) if n > 1)

    def _regions(self, positions: Array, there: NDArray[np.bool_]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Names of the regions, and which points are inside."""
        for number, (low, high) in enumerate(self.boxes, 1):
            inside = (positions >= low) & (positions <= high)
            yield f"box {number}", np.asarray(there & inside.all(axis=1))
        if self.mask is not None:
            # not a number is no value of a mask
            values = np.nan_to_num(_values_at(self.mask, positions, there), nan=0)
            yield f"mask {base_name(self.mask.path)}", there & (values != 0)
        if self.labels is not None:
            values = _values_at(self.labels, positions, there)
            for label in self.chosen or np.unique(values[there & (values > 0)]).astype(int).tolist():
                yield f"label {label}", there & (values == label)
        if not (self.boxes or self.extensometers or self.mask is not None or self.labels is not None):
            yield "all", there

    def _write(self, readings: Sequence[Reading], console: Console) -> None:
        """The files asked for."""
        if self.tsv is not None:
            lines = [
                "\t".join(("state", "file", "gauge", "points", "independent", "quantity", "value", "standardError"))
            ]
            for one in readings:
                numbers = f"{one.points}\t{one.independent:.4g}\t{one.quantity}\t{one.value:.9g}\t{one.error:.4g}"
                lines.append(f"{one.state}\t{one.file}\t{one.gauge}\t{numbers}")
            with replacing(self.tsv) as path:
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            console.print(f"Written: {self.tsv}")
        if self.plot is not None:
            from mpidvc.commands.gauge.plot import draw

            draw(self.plot, readings)
            console.print(f"Written: {self.plot}")


def _values_at(image: Image, positions: Array, there: NDArray[np.bool_]) -> Array:
    """Values (n,) of the voxels that are nearest to the points; 0 outside the image. It is read plane by plane."""
    found = np.zeros(len(positions))
    voxels = np.full(positions.shape, -1, np.int64)
    voxels[there] = np.floor(positions[there] + 0.5)
    inside = ((voxels >= 0) & (voxels < image.shape)).all(axis=1)
    for z in np.unique(voxels[inside, 0]):
        rows = np.nonzero(inside & (voxels[:, 0] == z))[0]
        plane, _ = image.read_box((int(z), 0, 0), (int(z) + 1, *image.shape[1:]))
        found[rows] = plane[0, voxels[rows, 1], voxels[rows, 2]]
    return found


def _show(console: Console, readings: Sequence[Reading]) -> None:
    rows = [
        (one.state, one.file, one.gauge, one.points, one.quantity, f"{one.value:.6g}", f"{one.error:.2g}")
        for one in readings[:SHOWN]
    ]
    console.table("Gauges", ("State", "File", "Gauge", "Points", "Quantity", "Value", "Standard error"), rows)
    if len(readings) > SHOWN:
        console.print(f"{len(readings) - SHOWN} more readings: see --tsv")
