"""The type that every command reads or makes: Phi at points, and the kind of these points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpidvc.arrays import Array, Triple
from mpidvc.core.statuses import CORRELATION, SEARCH

__all__ = ["PHI", "POSITIONS", "Layout", "PhiField", "grid_of", "hidden"]

Layout = Literal["registration", "grid", "labels", "points"]

#: Names of the coordinates, and of the first three rows of Phi, row by row, as in the text files.
POSITIONS = ("Zpos", "Ypos", "Xpos")
PHI = ("Fzz", "Fzy", "Fzx", "Zdisp", "Fyz", "Fyy", "Fyx", "Ydisp", "Fxz", "Fxy", "Fxx", "Xdisp")


@dataclass(repr=False)
class PhiField:
    """Deformation functions at points.

    ``field[name]`` is one number per point, by the names of the text files: ``field["Zdisp"]``, ``field["Fzy"]``,
    ``field["returnStatus"]``. `names` lists them; ``name in field`` tells whether there is such an array.

    Parameters
    ----------
    positions : (n, 3) float64
        z, y, x in voxels.
    phi : (n, 4, 4) float64
        Deformation functions about the positions.
    columns : dict of (n,) arrays
        Further numbers of each point, by the names of the text files: ``returnStatus``, ``error`` …
    layout : {"registration", "grid", "labels", "points"}
        A single registration of whole images, the nodes of a regular grid (z slowest, x fastest), labels (one row each,
        row 0 the background), or scattered points.
    dims : tuple of 3 ints, optional
        Number of nodes along z, y, x; of grids only.
    spacing : tuple of 3 floats, optional
        Distance of nodes in voxels; of grids only.

    Raises
    ------
    ValueError
        If the shapes contradict each other.
    """

    positions: Array
    phi: Array
    columns: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    layout: Layout = "points"
    dims: Triple | None = None
    spacing: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        self.positions = np.ascontiguousarray(self.positions, np.float64)
        self.phi = np.ascontiguousarray(self.phi, np.float64)
        n = len(self.positions)
        if self.positions.shape != (n, 3) or self.phi.shape != (n, 4, 4):
            raise ValueError(f"positions {self.positions.shape} and phi {self.phi.shape} are not (n, 3) and (n, 4, 4)")
        for name, values in self.columns.items():
            if np.shape(values) != (n,):
                raise ValueError(f"column {name} has the shape {np.shape(values)}, not ({n},)")
        if (self.layout == "grid") != (self.dims is not None and self.spacing is not None):
            raise ValueError("a grid, and nothing else, has dims and spacing")
        if self.dims is not None and np.prod(self.dims) != n:
            raise ValueError(f"a grid of {self.dims} has not {n} nodes")

    @classmethod
    def from_positions(
        cls,
        positions: Array,
        phi: Array | None = None,
        columns: dict[str, NDArray[np.generic]] | None = None,
    ) -> PhiField:
        """Field at these points: a ``grid`` if they are all nodes of one in its order, otherwise ``points``.

        Parameters
        ----------
        positions : (n, 3) float64
            z, y, x in voxels.
        phi : (n, 4, 4) float64, optional
            Identity if not given.
        columns : dict of (n,) arrays, optional
        """
        if phi is None:
            phi = np.tile(np.eye(4), (len(positions), 1, 1))
        grid = grid_of(positions)
        if grid is None:
            return cls(positions, phi, columns or {}, "points")
        return cls(positions, phi, columns or {}, "grid", *grid)

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        if self.dims is not None and self.spacing is not None:
            points = "grid of " + " × ".join(map(str, self.dims)) + " nodes, "
            points += " × ".join(f"{step:g}" for step in self.spacing) + " voxels apart"
        elif self.layout == "registration":
            points = "registration"
        else:
            points = f"{len(self)} {self.layout}"
        return f"<PhiField: {points}; {np.count_nonzero(self.good)} good; columns: {', '.join(self.columns) or 'none'}>"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays that ``field[name]`` gives."""
        return (*POSITIONS, *PHI, *self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the array (n,) of this name: a view of `positions` or `phi` (voxels), or a column.

        Raises
        ------
        KeyError
            If there is none.
        """
        if name in POSITIONS:
            return self.positions[:, POSITIONS.index(name)]
        if name in PHI:
            return self.phi[:, PHI.index(name) // 4, PHI.index(name) % 4]
        if name in self.columns:
            return self.columns[name]
        raise KeyError(f"there is no array {name!r}; there are {', '.join(self.names)}")

    # A field has points, names and columns: none of them is what a loop over it would obviously give.
    __iter__ = None

    @property
    def displacements(self) -> Array:
        """Displacements (n, 3) in voxels: a view of `phi`."""
        return self.phi[:, :3, 3]

    @property
    def F(self) -> Array:
        """Deformation gradients (n, 3, 3): a view of `phi`."""
        return self.phi[:, :3, :3]

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Mask (n,) of the points whose position and Phi are finite."""
        return np.asarray(np.isfinite(self.positions).all(axis=1) & np.isfinite(self.phi[:, :3]).all(axis=(1, 2)))

    @property
    def good(self) -> NDArray[np.bool_]:
        """Mask (n,) of the points to trust: their position and Phi are finite, and their return status is good.

        Good is 2 for a correlation. It is 1 or 2 in a field with the column ``pixelSearchCC``, which pixel searches
        have, and fields that were passed on or filtered, where 1 stands for an interpolated value. (A discrete
        correlation may also have this column; its column ``LabelDilate`` tells them apart.) Of a filtered field, whose
        column ``correction`` tells, 1 is good where a search found the point or the filter corrected it: others are
        windows that had not converged, and were left. In a field without return statuses a finite Phi is enough.
        """
        if "returnStatus" not in self.columns:
            return self.finite
        status = self.columns["returnStatus"]
        found = self._searched & (status == 1)
        if "correction" in self.columns:
            corrected, cc = (np.asarray(self.columns[name], np.float64) for name in ("correction", "pixelSearchCC"))
            found = found & ((corrected > 0) | (cc > 0))
        return np.asarray(self.finite & ((status == 2) | found))

    @property
    def statuses(self) -> dict[str, NDArray[np.bool_]]:
        """Masks (n,) of the points with each return status, by its short name.

        The names of a correlation are ``converged`` (2), ``not converged`` (1), ``not computed`` (0), ``diverged``
        (-1), ``singular system`` (-2), ``volume change`` (-3), ``singular Phi`` (-4), ``skipped`` (-5) and ``no guess``
        (-7); those of a field with pixel search CC (see `good`) are the same, but for ``found`` (1). Every name is
        there, if no point has this status its mask is all False. Another number gets the name ``status <number>``.
        """
        if "returnStatus" not in self.columns:
            return {}
        status = np.asarray(self.columns["returnStatus"], np.float64)
        known = {**CORRELATION, **SEARCH} if self._searched else CORRELATION
        masks = {known[value].name: np.asarray(status == value) for value in known}
        for value in np.unique(status[~np.isin(status, list(known))]):
            masks[f"status {value:g}"] = np.isnan(status) if np.isnan(value) else np.asarray(status == value)
        return masks

    @property
    def _searched(self) -> bool:
        """Whether the return statuses are those of a pixel search."""
        return "pixelSearchCC" in self.columns and "LabelDilate" not in self.columns

    def grid(self, array: str | ArrayLike) -> NDArray[Any]:
        """Values at the nodes of a grid in its shape.

        Parameters
        ----------
        array : str or (n, ...) array
            A name as of ``field[name]``, or one value per node: ``field.good``, ``field.displacements``, ``field.F``.

        Returns
        -------
        (nz, ny, nx, ...) array
            A view where that is possible. 2D fields have nz = 1.

        Raises
        ------
        KeyError
            If there is no array of this name.
        ValueError
            If the field is no grid, or the array has not one value per node.
        """
        if self.dims is None:
            raise ValueError(f"a field of layout {self.layout!r} has no grid shape")
        values = self[array] if isinstance(array, str) else np.asarray(array)
        if values.ndim == 0 or len(values) != len(self):
            raise ValueError(f"an array of shape {values.shape} has not one value for each of the {len(self)} nodes")
        return values.reshape(*self.dims, *values.shape[1:])


def grid_of(positions: Array) -> tuple[Triple, tuple[float, float, float]] | None:
    """Number of nodes and spacing of the grid whose nodes these are, in the order z slowest, x fastest.

    Parameters
    ----------
    positions : (n, 3) float64
        z, y, x in voxels.

    Returns
    -------
    dims, spacing : tuples of 3
        `spacing` is the difference of the first two coordinates along each axis. A single coordinate counts as its own
        spacing, as the first node of a grid lies one spacing from the border, but never below 1 (2D: z = 0).
    None
        If the positions are not those of a grid.
    """
    if len(positions) == 0 or not np.isfinite(positions).all():
        return None
    axes = [np.unique(positions[:, axis]) for axis in range(3)]
    nz, ny, nx = (len(axis) for axis in axes)
    if nz * ny * nx != len(positions):
        return None
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    if not np.array_equal(nodes, positions):
        return None
    steps = [float(axis[1] - axis[0]) if len(axis) > 1 else max(float(axis[0]), 1.0) for axis in axes]
    return (nz, ny, nx), (steps[0], steps[1], steps[2])


def hidden(displacements: Array, status: ArrayLike | None) -> NDArray[np.bool_]:
    """Mask (n,) of the points with nothing to show: a return status below 1, or, without one, no displacement.

    Parameters
    ----------
    displacements : (n, 3) array
    status : (n,) array or None
    """
    if status is not None:
        return np.asarray(~(np.asarray(status, np.float64) >= 1))
    return np.asarray(~np.isfinite(displacements).all(axis=1))
