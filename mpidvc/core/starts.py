"""Starts of registrations from neighbours that have converged, among points that share a chunk.

The order in which points are registered, and who is whose neighbour, follow from the positions alone. A neighbour with
Phi = (F, u) at x predicts the displacement ``u + (F - I)(y - x)`` at y (Pan 2009, doi 10.1364/AO.48.001535, takes the
point of best correlation next; here the order is fixed, and the best neighbour is chosen).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints
from mpidvc.kernels.neighbours import Points

__all__ = ["arranged", "best_neighbours", "neighbour_table", "outward", "predicted"]

#: Distance of neighbours in spacings: those along the axes of a grid, not those across.
NEAR = 1.2
#: Fewest neighbours of a point, itself included, if there are so many; scattered points reach further to have them.
FEWEST = 3


def arranged(nodes: Ints, spacing: tuple[float, float, float]) -> tuple[Ints, Ints]:
    """Order of points (`outward`), and the table of neighbours (`neighbour_table`) of the points in this order.

    Both are kept: the chunks of a grid are alike.

    Parameters
    ----------
    nodes : (n, 3) int64
    spacing : 3 floats
    """
    return _arranged((nodes - nodes[0]).tobytes(), spacing)


@lru_cache(maxsize=32)
def _arranged(nodes: bytes, spacing: tuple[float, float, float]) -> tuple[Ints, Ints]:
    positions = np.frombuffer(nodes, np.int64).reshape(-1, 3).astype(np.float64)
    order = outward(positions, spacing)
    return order, neighbour_table(positions[order], spacing)


def outward(positions: Array, spacing: npt.ArrayLike) -> Ints:
    """Order of points by their distance from the middle of their extent, in spacings; of equally far ones by index.

    Parameters
    ----------
    positions : (n, 3) float64
    spacing : 3 floats
        Typical distance of neighbouring points along each axis, voxels.

    Returns
    -------
    (n,) int64
    """
    at = positions / np.maximum(np.asarray(spacing, np.float64), 1.0)
    square = ((at - (at.min(axis=0) + at.max(axis=0)) / 2) ** 2).sum(axis=1)
    # equal distances are equal, whatever their last digit
    return np.argsort(square.round(6), kind="stable").astype(np.int64)


def neighbour_table(positions: Array, spacing: npt.ArrayLike) -> Ints:
    """Neighbours of points among each other.

    Parameters
    ----------
    positions : (n, 3) float64
    spacing : 3 floats
        As in `outward`.

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
