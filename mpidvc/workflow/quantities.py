"""What a field shows: its displacements, strains, statuses and columns, by names, with titles and units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Array, Ints
from mpidvc.core.motion import MotionFit, fit_all
from mpidvc.core.series import NOT_COMPARED
from mpidvc.core.statuses import CORRELATION, FLAGS, LABELS, SEARCH, STRAIN, Status
from mpidvc.core.strain import COMPONENTS, along_z, components, gradients_around
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.kernels.neighbours import Points

__all__ = ["MAGNITUDE", "RADIUS", "Kind", "Quantities", "Quantity", "in_plane", "statuses_of"]

#: How values are coloured: of both signs, or differences (0 is in the middle, too, where one sign occurs), grey levels
#: (in colours where both signs occur), amounts, or numbers that are names: return statuses and `FLAGS`.
Kind = Literal["signed", "difference", "grey", "amount", "status"]
#: Length of the displacement, with and without the rigid motion of all points.
MAGNITUDE, REST = "disp", "nonrigid"
DISPLACEMENT = {"Zdisp": 0, "Ydisp": 1, "Xdisp": 2}
NONRIGID = {"Znonrigid": 0, "Ynonrigid": 1, "Xnonrigid": 2}
#: All points.
ALL = slice(None)
#: Radius, in node spacings, of the linear fits that strain comes from where a field has no strain of its own.
RADIUS = 1.5
#: The strain component of each column.
STRAINS = {column: component for component in COMPONENTS.values() for column in component.columns}
#: Titles of columns; others are their names.
TITLES = {
    MAGNITUDE: "length of the displacement",
    REST: "length of the displacement less rigid motion",
    "vol": "volumetric strain",
    "dev": "deviatoric strain",
    "volss": "volumetric strain (small strains)",
    "devss": "deviatoric strain (small strains)",
    "returnStatus": "return status",
    "zncc": "ZNCC",
    "outlier": "outlier (1: yes)",
    "correction": "correction (1: mean or linear fit, 2: quadratic fit)",
}
PARTS = {"e": "small strain", "GL": "Green–Lagrange strain", "H": "Hencky strain", "U": "stretch U", "z": "stretch"}
#: Units of columns that have one, besides displacements, strains and sigma.
UNITS = {"coverage": "share of the window", "error": "grey levels", "deltaPhiNorm": "voxels"}


class Quantity(NamedTuple):
    """A number of each point: its name, its title and unit for people, and how it is coloured."""

    name: str
    title: str
    unit: str
    kind: Kind


def statuses_of(field: PhiField, command: str = "") -> dict[int, Status]:
    """The return statuses that a field may have, the best first.

    Parameters
    ----------
    field : PhiField
    command : str
        That made it, if it is known.
    """
    known = STRAIN if command == "regularStrain" else CORRELATION
    if "LabelDilate" in field:
        known = LABELS
    elif "pixelSearchCC" in field:
        known = {**CORRELATION, **SEARCH}
    return dict(sorted(known.items(), reverse=True))


class Quantities:
    """The quantities of a field at some of its points.

    Parameters
    ----------
    field : PhiField
        Not a registration.
    attributes : mapping of str
        The texts of its results file.
    all_points : bool
        Whether points that are not good have displacements, and all that follows from them, too.

    Attributes
    ----------
    points : (n,) bool
        All points: row 0 of labels is the background, and none.
    """

    def __init__(self, field: PhiField, attributes: Mapping[str, str] | None = None, all_points: bool = False) -> None:
        self.field = field
        self.command = (attributes or {}).get("command", "")
        self._shown: NDArray[np.bool_] = np.array(field.finite if all_points else field.good)
        self.points: NDArray[np.bool_] = np.ones(len(field), bool)
        if field.layout == "labels":
            self.points[0] = self._shown[0] = False

    @cached_property
    def flat(self) -> bool:
        """Whether this is a 2D field: at z = 0, and nothing moves along z."""
        # a single layer of windows in a volume moves along z, too
        positions, moved = self.field.positions[:, 0], self.field.displacements[:, 0]
        return not positions[np.isfinite(positions)].any() and not moved[np.isfinite(moved)].any()

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Mask (n,) of the points that have displacements and strains."""
        return self._shown

    @cached_property
    def rigid(self) -> MotionFit | None:
        """The rigid motion of the points that are shown; None if there is none."""
        if not self._shown.any():
            return None
        return fit_all(self.field.positions[self._shown], self.field.displacements[self._shown], "rigid")

    @property
    def has_strain(self) -> bool:
        """Whether strains can be computed: the field is one, or has neighbours on a grid."""
        if self.command == "regularStrain":
            return True
        dims = self.field.dims
        return dims is not None and min(dims[1:]) > 1

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All quantities, in the order of the help."""
        axes = "YX" if self.flat else "ZYX"
        found = [f"{axis}disp" for axis in axes] + [MAGNITUDE]
        found += [f"{axis}nonrigid" for axis in axes] + [REST]
        if self.has_strain:
            found += [name for name in STRAINS if (in_plane(name) or not self.flat)]
        columns = [name for name in self.field.columns if name not in found and name != "Label"]
        return tuple(found + columns)

    @cached_property
    def usual(self) -> tuple[str, ...]:
        """The quantities that are looked at first."""
        axes = "YX" if self.flat else "ZYX"
        columns = tuple(self.field.columns)
        own = [name for name in STRAINS if name in columns and (in_plane(name) or not self.flat)]
        sigma = [name for name in columns if name.startswith("sigma") and (in_plane(name) or not self.flat)]
        rest = [name for name in ("returnStatus", "zncc", "pixelSearchCC") if name in columns]
        if self.command == "regularStrain" and own:
            return (*own, "returnStatus")
        found = [f"{axis}disp" for axis in axes] + [f"{axis}nonrigid" for axis in axes]
        return (*found, *(["vol", "dev"] if self.has_strain else []), *sigma, *rest)

    def about(self, name: str) -> Quantity:
        """Title, unit and colours of a quantity.

        Raises
        ------
        UserError
            If there is none of this name.
        """
        if name not in self.names and name not in self.field.columns:
            raise UserError(f"--component {name}: there is no such quantity; there are {' '.join(self.names)}")
        if name in DISPLACEMENT:
            return Quantity(name, f"{name[0].lower()} displacement", "voxels", "signed")
        if name in NONRIGID:
            return Quantity(name, f"{name[0].lower()} displacement less rigid motion", "voxels", "signed")
        if name in (MAGNITUDE, REST):
            return Quantity(name, TITLES[name], "voxels", "amount")
        if name in STRAINS:
            part = STRAINS[name].name
            suffix = name[len(part) :]
            unit = "degrees" if part == "r" else "strain"
            title = f"rotation about {suffix}" if part == "r" else TITLES.get(name, f"{PARTS.get(part, part)} {suffix}")
            if part == "Up":
                # ascending along the columns, by their eigenvalues
                order = {"z": "smallest", "y": "smallest" if self.flat else "middle", "x": "largest"}
                title = f"{order[suffix]} principal strain"
            return Quantity(name, title, unit, "amount" if part in ("dev", "devss") else "signed")
        if name == "returnStatus" or name in FLAGS:
            return Quantity(name, TITLES.get(name, name), "", "status")
        values = np.asarray(self.field.columns[name], np.float64)
        signed = bool((values < 0).any() and (values > 0).any()) and name not in ("zncc", "error", "pixelSearchCC")
        unit = "voxels" if name.startswith("sigma") and name.endswith("disp") else UNITS.get(name, "")
        title = TITLES.get(name, name)
        if name.startswith("sigma"):
            of = name.removeprefix("sigma")
            title = f"random error of {f'{of[0].lower()} displacement' if of in DISPLACEMENT else TITLES.get(of, of)}"
        return Quantity(name, title, unit, "signed" if signed else "amount")

    def compute(self, names: Iterable[str], points: Ints | slice = ALL) -> dict[str, Array]:
        """Values of quantities at some points; nan where there is none.

        Parameters
        ----------
        names : iterable of str
        points : ints or slice
            Their indices; all of them by default.

        Returns
        -------
        dict of (k,) float64
        """
        names = list(names)
        field, shown = self.field, self._shown[points]
        asked = {name: STRAINS[name].name for name in names if name in STRAINS and name not in field.columns}
        strains = self._strains(tuple(dict.fromkeys(asked.values())), points) if asked else {}
        moved = field.displacements[points]
        nonrigid = moved
        if self.rigid is not None and any(name in NONRIGID or name == REST for name in names):
            nonrigid = moved - self.rigid.displacements(field.positions[points])
        found = {}
        for name in names:
            if name in DISPLACEMENT:
                values = moved[:, DISPLACEMENT[name]]
            elif name in NONRIGID:
                values = nonrigid[:, NONRIGID[name]]
            elif name in (MAGNITUDE, REST):
                values = np.linalg.norm(moved if name == MAGNITUDE else nonrigid, axis=1)
            elif name in strains:
                values = strains[name]
            else:
                values = np.asarray(field.columns[name][points], np.float64)
                if name == "iterations" and "returnStatus" in field:
                    values = np.where(np.isin(field["returnStatus"][points], NOT_COMPARED), np.nan, values)
                if not (name in STRAINS or name.startswith("sigma")):
                    found[name] = np.where(self.points[points], values, np.nan)
                    continue
            found[name] = np.where(shown, values, np.nan)
        return found

    def _strains(self, parts: tuple[str, ...], points: Ints | slice) -> dict[str, Array]:
        """Columns of strain components, from the F of a strain or from linear fits around the points."""
        field = self.field
        F = np.full((len(field.positions[points]), 3, 3), np.nan)
        shown = self._shown[points]
        if self.command == "regularStrain":
            F[shown] = field.F[points][shown]
        elif shown.any() and field.dims is not None and field.spacing is not None:
            radius = RADIUS * max(step for n, step in zip(field.dims, field.spacing, strict=True) if n > 1)
            F[shown], _, _ = gradients_around(
                self._search,
                np.ascontiguousarray(field.positions[points][shown]),
                radius,
                self._shown,
                field.positions,
                np.ascontiguousarray(field.displacements),
                field.dims[0] == 1,
            )
        values, _ = components(F, parts, self.flat or (field.dims is not None and field.dims[0] == 1))
        columns = [column for part in parts for column in COMPONENTS[part].columns]
        return dict(zip(columns, values.T, strict=True))

    @cached_property
    def _search(self) -> Points:
        return Points(self.field.positions, None, self.field.dims)


def in_plane(column: str) -> bool:
    """Whether a column of strain or sigma tells something in 2D."""
    if column.startswith("sigma"):
        return "z" not in column.removeprefix("sigma").lower()
    return not along_z(column) and column not in ("ry", "rx")
