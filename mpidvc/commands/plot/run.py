"""The run of ``mpidvc plot``: from a result to a picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpidvc.arrays import Array
from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.commands import COMMANDS
from mpidvc.commands.plot.options import place_of
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image, open_image
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.history import find_images, open_step
from mpidvc.workflow.plot import (
    Row,
    add_image,
    arrows_row,
    check_picture,
    draw,
    limits_of,
    planes_of,
    row_of,
    save,
)
from mpidvc.workflow.quantities import Quantities, Quantity, statuses_of

__all__ = ["Plan"]

Limits = tuple[float, float]

#: Names of the quantities that two results are compared by, where none is given.
COMPARED = ("Zdisp", "Ydisp", "Xdisp")
#: Components of the arrows, and what they are.
ARROWS = {
    "displacement": (COMPARED, "displacement"),
    "nonrigid": (("Znonrigid", "Ynonrigid", "Xnonrigid"), "displacement less rigid motion"),
}


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """A result to be drawn.

    Attributes
    ----------
    picture : _Picture or None
        What is drawn, on rank 0.
    output : str
    """

    #: It only looks.
    timed = False

    picture: _Picture | None
    output: str

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        output = args.output
        if output is None and isinstance(args.phi_file, PhiField):
            raise UserError("--output: is missing; a field in memory has no name, give that of the picture")
        output = output or str(Path(args.phi_file).with_suffix(".png"))
        check_picture("--output", output)
        return cls(picture=_Picture(args, console), output=output)

    def for_workers(self) -> Plan:
        return replace(self, picture=None)

    def execute(self, executor: Executor, console: Console) -> Outcome:
        if self.picture is None:
            return Outcome(0)
        save(self.output, draw(self.picture.rows, self.picture.notes()))
        console.print(f"Written: {self.output}")
        return Outcome(0, Path(self.output), (Path(self.output),))


class _Picture:
    """The rows of a picture, as the options ask for them.

    Raises
    ------
    UserError
        If the result, or what is asked for, cannot be drawn.
    """

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args, self.console = args, console
        self.given = self._open(args.phi_file)
        places = None if args.slice is None else dict(place_of(text) for text in args.slice)
        if self.given.flat and places is not None and set(places) != {0}:
            raise UserError(f"--slice {' '.join(args.slice)}: the result is 2D; drop it")
        self.planes = planes_of(self.given.field, places)
        self.points = np.concatenate([plane.points.ravel() for plane in self.planes])
        #: From the top.
        self.rows = self._all_rows()

    def _open(self, given: str | PhiField) -> Quantities:
        if isinstance(given, PhiField):
            field, texts, name = given, {}, "given"
        else:
            step = open_step(given)
            field, texts, name = step.read(), dict(step.texts), str(given)
        if field.layout == "registration" or len(field) == 1:
            raise UserError(
                f"field {name}: is a single Phi, and has no slices; give a field, or read it by mpidvc report"
            )
        return Quantities(field, texts, self.args.all_points)

    def notes(self) -> str:
        """What is drawn, in a line."""
        name = "" if isinstance(self.args.phi_file, PhiField) else Path(self.args.phi_file).name
        texts = [name] if name else []
        if self.args.compare is not None:
            texts = [f"A: {name or 'the field'}, B: {Path(self.args.compare).name}"]
        good, all_points = int(self.given.shown.sum()), int(self.given.points.sum())
        if not self.args.all_points and good < all_points:
            texts.append(f"displacements and strains of the {good} of {all_points} points that are good")
        return "; ".join(texts)

    def _all_rows(self) -> list[Row]:
        if self.args.compare is not None:
            return self._compared()
        image = self._image()
        found = []
        if self.args.quiver is not None:
            found.append(self._arrows(image))
        names = self.args.component or (() if self.args.quiver is not None else self.given.usual)
        found += self._rows(self.given, names, self.points)
        if image is not None and (self.args.image is not None or self.given.flat):
            start = len(found) - len(names)
            found[start:] = [row if row.colours == "status" else add_image(row, image) for row in found[start:]]
        return found

    def _rows(self, given: Quantities, names: Sequence[str], points: Any) -> list[Row]:
        about = [given.about(name) for name in names]
        values = given.compute(names, points)
        return [self._row(quantity, values[quantity.name], given) for quantity in about]

    def _row(self, quantity: Quantity, values: Array, given: Quantities, limits: Limits | None = None) -> Row:
        if self.args.limits is not None:
            limits = tuple(self.args.limits)
        return row_of(quantity, self.planes, values, statuses_of(given.field, given.command), limits)

    def _image(self) -> Image | None:
        """Image 1, where it is drawn."""
        if self.args.image is not None:
            return None if self.args.image == "none" else open_image(self.args.image)
        if isinstance(self.args.phi_file, PhiField) or not (self.args.quiver or self.given.flat):
            return None
        found = find_images(open_step(self.args.phi_file), COMMANDS)
        if found is None and self.args.quiver:
            self.console.note("image 1 is not found, or has changed; --image gives it")
        return None if found is None else found[0]

    def _arrows(self, image: Image | None) -> Row:
        names, what = ARROWS[self.args.quiver]
        values = self.given.compute(names, self.points)
        vectors = np.column_stack([values[name] for name in names])
        row = arrows_row(what, self.planes, vectors)
        return row if image is None else add_image(row, image)

    def _compared(self) -> list[Row]:
        """Rows with both results and their difference."""
        other = self._open(self.args.compare)
        names = self.args.component or [name for name in COMPARED if name in self.given.names]
        first, second = self.given.field, other.field
        match = _matching(first.positions[self.points], second.positions)
        if not (match >= 0).any():
            raise UserError(
                f"--compare {self.args.compare}: has no point in common with the planes of the first result; bring "
                "both to the same nodes by mpidvc passPhiField"
            )
        one = self.given.compute(names, self.points)
        two = {name: np.full(len(self.points), np.nan) for name in names}
        for name, values in other.compute(names, match[match >= 0]).items():
            two[name][match >= 0] = values
        rows = []
        for name in names:
            about = self.given.about(name)
            other.about(name)
            together = limits_of(np.concatenate([one[name], two[name]]), about.kind)[0]
            for letter, values in (("A", one[name]), ("B", two[name])):
                rows.append(self._row(about._replace(title=f"{letter}: {about.title}"), values, self.given, together))
            rows.append(self._difference(about, two[name] - one[name]))
        return rows

    def _difference(self, about: Quantity, values: Array) -> Row:
        finite = values[np.isfinite(values)]
        told = f"mean {finite.mean():.3g}, sd {finite.std():.3g}" if finite.size else "no point has both"
        return row_of(Quantity(about.name, f"B − A: {told}", about.unit, "difference"), self.planes, values)


def _matching(positions: Array, others: Array) -> Any:
    """Index of the other point at the same position, -1 where there is none."""
    near, distance = _nearest(others, positions)
    return np.where(distance <= 1e-6, near, -1)


def _nearest(points: Array, places: Array) -> tuple[Any, Array]:
    from scipy.spatial import cKDTree

    known = np.isfinite(points).all(axis=1)
    rows = np.flatnonzero(known)
    near, distance = np.zeros(len(places), np.int64), np.full(len(places), np.inf)
    asked = np.isfinite(places).all(axis=1)
    if len(rows) and asked.any():
        distance[asked], found = cKDTree(points[rows]).query(places[asked])
        near[asked] = rows[found]
    return near, distance
