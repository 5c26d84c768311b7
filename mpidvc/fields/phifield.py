"""The type that every command reads or makes: Phi at points, and what these points are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Array, Triple

__all__ = ["Layout", "PhiField", "grid_of"]

Layout = Literal["registration", "grid", "labels", "points"]


@dataclass
class PhiField:
    """Deformation functions at points.

    Parameters
    ----------
    positions : (n, 3) float64
        z, y, x in voxels.
    phi : (n, 4, 4) float64
        Deformation functions about the positions.
    columns : dict of (n,) arrays
        What else is known of each point, by the names of the text files: ``returnStatus``, ``error`` …
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
        If the shapes do not belong together.
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

    @property
    def displacements(self) -> Array:
        """Displacements (n, 3) in voxels: a view of `phi`."""
        return self.phi[:, :3, 3]

    @property
    def F(self) -> Array:
        """Deformation gradients (n, 3, 3): a view of `phi`."""
        return self.phi[:, :3, :3]


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
