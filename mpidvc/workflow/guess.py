"""The first guess of a run and the nodes that it is measured at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mpidvc.arrays import Array, Ints, Triple, is_two_d
from mpidvc.cli.options import as_given
from mpidvc.core import deformation
from mpidvc.core.grid import grid_dims
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import FieldLayout
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.read import read_field
from mpidvc.fields.stored import StoredField, open_stored
from mpidvc.runtime.console import Console
from mpidvc.tasks.guesses import Survey, checksum_of, survey
from mpidvc.tasks.memory import PointSet
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.inputs import FARTHEST

__all__ = ["Guess", "Nodes", "Start", "grid_nodes", "nodes_to_measure", "open_guess", "read_guess", "status_threshold"]


#: Remedy for a guess of other images.
REMEDY = "give a guess of these images, or -pfb if it is of another binning"


@dataclass(frozen=True)
class Start:
    """What nodes start from where it follows from their positions: a registration, or the identity.

    Attributes
    ----------
    phi : (4, 4) float64
        Of the registration; the displacements of the nodes follow it.
    centre : (3,) float64
        The point that it is about (z, y, x; voxels).
    F : (3, 3) float64
        F of the nodes.
    """

    phi: Array
    centre: Array
    F: Array

    def at(self, positions: Array) -> Array:
        """First Phi (k, 4, 4) of nodes at these positions (k, 3)."""
        phi = np.zeros((len(positions), 4, 4))
        phi[:, 3, 3] = 1
        phi[:, :3, :3] = self.F
        phi[:, :3, 3] = deformation.apply(self.phi, self.centre, positions)
        return phi


@dataclass(frozen=True)
class Guess:
    """The first guess of a run: a registration, a field in memory or in its file, or nothing (all None).

    Attributes
    ----------
    registration : PhiField or None
        One Phi for the whole image.
    field : PhiField or None
        A Phi for every point of its own.
    stored : StoredField or None
        The same, in its file.
    survey : Survey or None
        What is known of it.
    name : str
        What messages call it: the file of ``-pf``.
    bin_ratio : float
        The value of ``-pfb``.
    """

    registration: PhiField | None = None
    field: PhiField | None = None
    stored: StoredField | None = None
    survey: Survey | None = None
    name: str = ""
    bin_ratio: float = 1.0

    @property
    def gradient(self) -> Array:
        """F - I (3, 3) of the registration, else 0."""
        if self.registration is None:
            return np.zeros((3, 3))
        return np.asarray(self.registration.F[0] - np.eye(3), np.float64)

    @property
    def displacements(self) -> Array | None:
        """Displacements (n, 3) of the field in voxels, or the extremes (2, 3) of one in its file; None without one."""
        if self.survey is not None:
            return self.survey.displacements
        return None if self.field is None else self.field.displacements

    @property
    def digest(self) -> str | None:
        """A checksum of its numbers, whatever the file that holds them; None without a guess."""
        if self.survey is not None:
            return self.survey.checksum
        given = self.registration or self.field
        return None if given is None else checksum_of(given)

    def start(self, stored_f: str) -> Start | None:
        """What nodes start from; None if every node has a guess of its own. `stored_f` as in `at`."""
        if self.field is not None or self.stored is not None:
            return None
        if self.registration is None:
            return Start(np.eye(4), np.zeros(3), np.eye(3))
        given, F = self.registration, np.eye(3)
        if stored_f != "no":
            F = given.F[0] if stored_f == "all" else deformation.polar(given.F[0])[0]
        return Start(given.phi[0], given.positions[0], F)

    def at(self, rows: Ints, positions: Array, stored_f: str = "no") -> Array:
        """First Phi (k, 4, 4) of these rows of the nodes: not of all at once, since there may be many.

        Parameters
        ----------
        rows : (k,) int64
        positions : (k, 3) float64
            Of these nodes.
        stored_f : {"all", "rigid", "no"}
            Part of the registration's F that the nodes start with; displacements always follow its whole Phi. A field
            is taken as it is.
        """
        if self.stored is not None:
            return self.stored.phi_at(rows)
        if self.field is not None:
            return self.field.phi[rows]
        start = self.start(stored_f)
        assert start is not None
        return start.at(positions)

    def announce(self, console: Console, shape: Triple, tif: bool) -> None:
        """Print what the registration says; warn of a field that seems to be one of other images.

        Parameters
        ----------
        console : Console
        shape : 3 ints
            Of the image.
        tif : bool
            Whether TIFF files are asked for, which need a grid.
        """
        given = self.field if self.stored is None else self.stored
        if given is not None:
            outside = _whereabouts(given, shape).outside
            if outside:
                console.warn(
                    f"-pf {self.name}: {outside} of its {len(given)} points lie outside of the image; is it of other "
                    "images, or of another binning (-pfb)?"
                )
            if tif and self.field is not None and self.field.layout == "points":
                console.note("the nodes of -pf are no full grid: no TIFF is written")
            return
        if self.registration is None:
            return
        other = _of_other_images(self.registration, shape)
        if other is not None:
            console.warn(f"-pf {self.name}: {other}; {REMEDY}")
        R, U = deformation.polar(self.registration.F[0])
        rows = (
            ("Translations (px)  ", self.registration.displacements[0], 4),
            ("Rotations (deg)    ", deformation.rotation_vector(R), 4),
            ("Zoom/Stretch       ", U.diagonal(), 5),
        )
        lines = [
            f"{title} " + "  ".join(f"{axis}: {value:.{digits}f}" for axis, value in zip("zyx", values, strict=True))
            for title, values, digits in rows
        ]
        console.print("\n".join([f"I read a registration from {self.name} in binning {self.bin_ratio}", *lines]))


def read_guess(given: str | PhiField | None, bin_ratio: float) -> Guess:
    """The guess of ``-pf``: a results file (HDF5), a text file, or a field in memory.

    Raises
    ------
    UserError
        If it cannot be read, a position is not finite (but of missing labels), or it is a registration that is no
        deformation.
    """
    if given is None:
        return Guess()
    if isinstance(given, PhiField):
        name = "field"
        phi = given.phi.copy()
        phi[:, :3, 3] *= bin_ratio
        spacing = given.spacing
        if spacing is not None:
            spacing = (spacing[0] * bin_ratio, spacing[1] * bin_ratio, spacing[2] * bin_ratio)
        field = replace(given, positions=given.positions * bin_ratio, phi=phi, spacing=spacing)
    else:
        name = given
        field = read_field(given, bin_ratio)
    far = ~(np.abs(field.positions) < FARTHEST).all(axis=1)
    if field.layout == "labels":
        # missing labels have no position
        far &= ~np.isnan(field.positions).all(axis=1)
    lost = np.nonzero(far)[0]
    if len(lost):
        raise UserError(f"-pf {name}: the position in row {lost[0] + 1} is not finite, or absurd; drop such rows")
    if field.layout != "registration":
        return Guess(field=field, name=name, bin_ratio=bin_ratio)
    if not (np.isfinite(field.phi).all() and np.linalg.det(field.F[0]) > 0):
        raise UserError(f"-pf {name}: its Phi is no deformation (not finite, or the determinant of F is not above 0)")
    return Guess(registration=field, name=name, bin_ratio=bin_ratio)


def open_guess(given: str | PhiField | None, bin_ratio: float, team: Team) -> Guess:
    """The guess of ``-pf`` for points of which each is measured by itself; otherwise as `read_guess`.

    A field on a regular grid in a results file stays there: all ranks look at it, and none has it in memory.
    """
    stored = open_stored(given, bin_ratio) if isinstance(given, str) else None
    if stored is not None and all(np.abs(axis).max() < FARTHEST for axis in stored.layout.axes):
        found = team.call(survey, stored, team.threads)
        if found.on_grid:
            return Guess(stored=stored, survey=found, name=str(given), bin_ratio=bin_ratio)
    return read_guess(given, bin_ratio)


def status_threshold(field: PhiField, asked: int | None, console: Console) -> int:
    """Least return status of the points of a field that take part: the one asked for (-rst), or a default with a note.

    The default is 2, or 1 where no point with a finite Phi has 2.
    """
    if asked is not None:
        return asked
    if (np.asarray(field["returnStatus"])[field.finite] >= 2).any():
        return 2
    console.note(
        "no point has return status 2, as after a pixel search, passPhiField or a filter: the threshold is 1 (-rst)"
    )
    return 1


@dataclass(frozen=True)
class Nodes:
    """The nodes of a grid, or the points of a field; their positions are made when they are wanted: ``nodes[rows]``.

    Attributes
    ----------
    layout : FieldLayout
        Of the results file, without columns.
    distance : tuple of 3 floats
        Typical distance of neighbouring nodes along each axis, voxels.
    given : (n, 3) float64 or None
        Positions of the points of a field; None for a regular grid.
    """

    layout: FieldLayout
    distance: tuple[float, float, float]
    given: Array | None = None

    @classmethod
    def at(cls, points: Array) -> Nodes:
        """Scattered points (n, 3) in voxels."""
        return cls(FieldLayout(len(points), "points"), (1.0, 1.0, 1.0), points)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "positions"}

    def __len__(self) -> int:
        return self.layout.n

    def __getitem__(self, rows: Ints) -> Array:
        """Positions (k, 3) of these rows, voxels."""
        return self.layout.nodes(rows) if self.given is None else self.given[rows]

    def between(self, start: int, stop: int) -> Array:
        """Positions (stop - start, 3) of the rows [start, stop), voxels."""
        return self.layout.nodes_between(start, stop) if self.given is None else self.given[start:stop]

    @cached_property
    def positions(self) -> Array:
        """Positions (n, 3) in voxels."""
        return self.between(0, len(self))

    @property
    def regular(self) -> bool:
        """Whether they fill a grid."""
        return self.layout.dims is not None

    @classmethod
    def of_labels(cls, centres: Array) -> Nodes:
        """Centres of mass (n, 3) of labels in voxels, nan where one is missing; row 0 is the background."""
        return cls(FieldLayout(len(centres), "labels"), (1.0, 1.0, 1.0), centres)

    def point_set(self, guess: Guess) -> PointSet:
        """The nodes as far as they, and their guess, determine the boxes of chunks."""
        return PointSet(len(self), self.distance, self.regular, guess.displacements, guess.gradient)


def grid_nodes(shape: Triple, spacing: Triple | None) -> Nodes:
    """Nodes of a grid in an image of this shape.

    Raises
    ------
    UserError
        If there is no spacing, or no node.
    """
    if spacing is None:
        raise UserError("the distance of the nodes is missing: give -ns or -ns3, or a field by -pf")
    origin, dims = grid_dims(shape, spacing)
    if min(dims) < 1:
        sizes = " × ".join(map(str, shape))
        raise UserError(
            f"{as_given('-ns', spacing)}: leaves no node inside an image of {sizes} voxels; make it smaller"
        )
    z, y, x = spacing
    return Nodes(FieldLayout.of_grid(origin, dims, spacing, ()), (float(z), float(y), float(x)))


def nodes_to_measure(command: str, guess: Guess, shape: Triple, spacing: Triple | None) -> Nodes:
    """Points of the field that is the guess, else nodes of a grid.

    Raises
    ------
    UserError
        If there is neither, no node is inside the image, the field is one of labels or of other images, or its nodes
        are not `spacing` apart.
    """
    given = guess.field if guess.stored is None else guess.stored
    if given is None:
        return grid_nodes(shape, spacing)
    other = _of_other_images(given, shape)
    if other is not None:
        raise UserError(f"-pf {guess.name}: {other}; {REMEDY}")
    layout = replace(given.layout if isinstance(given, StoredField) else FieldLayout.of(given), columns=())
    if layout.layout == "labels":
        raise UserError(f"-pf {guess.name}: is a field of labels; {command} takes a registration or a field of nodes")
    if spacing is not None and layout.spacing is not None and layout.dims is not None:
        own = layout.spacing
        # along z a single layer of nodes has no spacing
        if any(n > 1 and abs(a - b) > 1e-6 for n, a, b in zip(layout.dims, own, spacing, strict=True)):
            raise UserError(
                f"{as_given('-ns', spacing)}: the nodes of {guess.name} are "
                f"{' '.join(f'{s:g}' for s in own)} apart; drop -ns or pass the field to another grid first"
            )
    if isinstance(given, StoredField):
        assert layout.spacing is not None
        return Nodes(layout, layout.spacing)
    distance = _typical_distance(given, is_two_d(shape))
    grid = Nodes(layout, distance)
    if layout.dims is not None and layout.regular and np.array_equal(grid.positions, given.positions):
        return grid
    return Nodes(layout, distance, given.positions)


class _Whereabouts(NamedTuple):
    """Where the points of a guess are: how many inside and outside of an image, all at z = 0, all at the origin."""

    inside: int
    outside: int
    flat: bool
    at_origin: bool


def _whereabouts(given: PhiField | StoredField, shape: Triple) -> _Whereabouts:
    last = np.array(shape) - 1
    if isinstance(given, StoredField):
        z, y, x = axes = given.layout.axes
        inside = math.prod(int(np.sum((axis >= 0) & (axis <= end))) for axis, end in zip(axes, last, strict=True))
        return _Whereabouts(inside, len(given) - inside, not z.any(), not (z.any() or y.any() or x.any()))
    positions = given.positions
    inside = int(np.sum(((positions >= 0) & (positions <= last)).all(axis=1)))
    # a label that is not there is neither
    outside = int(np.sum(((positions < 0) | (positions > last)).any(axis=1)))
    return _Whereabouts(inside, outside, not positions[:, 0].any(), not positions.any())


def _of_other_images(given: PhiField | StoredField, shape: Triple) -> str | None:
    """Words for a guess that cannot be one of images of this shape; None if it can."""
    found = _whereabouts(given, shape)
    # a single point at the origin may be of either
    if found.flat != is_two_d(shape) and not found.at_origin:
        return "is of 2D images, but these are 3D" if found.flat else "is of 3D images, but these are 2D"
    if not found.inside:
        what = "its point lies" if len(given) == 1 else f"all of its {len(given)} points lie"
        sizes = " × ".join(map(str, shape[1:] if is_two_d(shape) else shape))
        return f"{what} outside of an image of {sizes} voxels"
    return None


def _typical_distance(field: PhiField, two_d: bool) -> tuple[float, float, float]:
    """Distance of neighbouring points along each axis; for scattered points about what it would be on a grid."""
    if field.spacing is not None:
        return field.spacing
    extent = np.ptp(field.positions, axis=0) + 1
    distance = (float(np.prod(extent)) / max(len(field), 1)) ** (1 / (2 if two_d else 3))
    return distance, distance, distance
