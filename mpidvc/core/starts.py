"""Starts of registrations from neighbours that have converged, among points that share a chunk.

Who is whose neighbour follows from the positions alone. A neighbour with Phi = (F, u) at x predicts the displacement
``u + (F - I)(y - x)`` at y (Pan 2009, doi 10.1364/AO.48.001535, takes the point of best correlation next; here the
order is that of the points, and the best neighbour is chosen).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints
from mpidvc.kernels.neighbours import Points

__all__ = ["best_neighbours", "kept_table", "neighbour_table", "predicted"]

#: Distance of neighbours in spacings: those along the axes of a grid, not those across.
NEAR = 1.2
#: Fewest neighbours of a point, itself included, if there are so many; scattered points reach further to have them.
FEWEST = 3


def kept_table(nodes: Ints, spacing: tuple[float, float, float]) -> Ints:
    """The `neighbour_table` of points at whole voxels, which is kept: the chunks of a grid are alike."""
    return _table((nodes - nodes[0]).tobytes(), spacing)


@lru_cache(maxsize=32)
def _table(nodes: bytes, spacing: tuple[float, float, float]) -> Ints:
    return neighbour_table(np.frombuffer(nodes, np.int64).reshape(-1, 3).astype(np.float64), spacing)


def neighbour_table(positions: Array, spacing: npt.ArrayLike) -> Ints:
    """Neighbours of points among each other.

    Parameters
    ----------
    positions : (n, 3) float64
    spacing : 3 floats
        Typical distance of neighbouring points along each axis, voxels.

    Returns
    -------
    (n, m) int64
        Indices in ascending order, and -1 where a point has less than m neighbours.
    """
    at = positions / np.maximum(np.asarray(spacing, np.float64), 1.0)
    start, found = Points(at).within(at, NEAR, fewest=FEWEST)
    owner = np.repeat(np.arange(len(at)), np.diff(start))
    other = found != owner
    owner, found = owner[other], found[other]
    count = np.bincount(owner, minlength=len(at))
    table = np.full((len(at), int(count.max(initial=0))), -1, np.int64)
    table[np.arange(table.shape[1]) < count[:, None]] = found
    return table


def best_neighbours(table: Ints, zncc: Array, usable: npt.NDArray[np.bool_]) -> Ints:
    """The usable neighbour of best correlation of each point, -1 where there is none.

    Parameters
    ----------
    table : (n, m) int64
        From `neighbour_table`.
    zncc : (n,) float64
    usable : (n,) bool

    Returns
    -------
    (n,) int64
    """
    if table.shape[1] == 0:
        return np.full(len(table), -1, np.int64)
    # the last one stands for -1
    value = np.append(np.where(usable, np.nan_to_num(zncc, nan=-np.inf), -np.inf), -np.inf)[table]
    best = value.argmax(axis=1)
    rows = np.arange(len(table))
    return np.where(value[rows, best] > -np.inf, table[rows, best], -1)


def predicted(phi: Array, offset: Array) -> Array:
    """Phi of points in the neighbourhood of others: their F, and the displacement that it predicts.

    Parameters
    ----------
    phi : (n, 3, 4) float64
        Of the others.
    offset : (n, 3) float64
        From the others to the points, voxels.
    """
    moved: Array = phi.copy()
    moved[:, :, 3] += np.einsum("nij,nj->ni", phi[:, :, :3] - np.eye(3), offset)
    return moved
