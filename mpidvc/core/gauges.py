"""Gauges on a field: means over regions and virtual extensometers, with standard errors that know of shared windows.

Every result is a linear function of the numbers at the points. The noise of two points is correlated as far as their
windows share voxels: ``rho = prod max(0, 1 - |distance| / window)`` along the axes, and for windows of two sizes the
common voxels over the root of their product. That is exact for means of white noise over the windows, and for the sums
from which a correlation takes the displacement of a window of even texture.
The variance of the noise comes from what is left of the numbers beside a linear function of the place, a real
deformation that is not linear included.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from mpidvc.arrays import Array, Ints

__all__ = ["UPPER", "Extension", "Region", "correlated", "extension", "region", "windows_at"]

#: Places of the six components zz, zy, zx, yy, yx, xx of a symmetric tensor.
UPPER = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))
#: Directions along which the points are spread by less than this share of the widest one do not count.
FLAT = 1e-6


class Region(NamedTuple):
    """Means over the points of a region, and the strain of their displacements.

    Attributes
    ----------
    points : int
    independent : float
        Number of points without common windows whose mean would be as uncertain.
    means, errors : (m,) float64
        Of the columns: displacements along z, y, x first, voxels. An error is nan where too few points tell it.
    strain, strain_errors : (6,) float64
        Green-Lagrange strain zz, zy, zx, yy, yx, xx of the linear function that fits the displacements best; nan along
        an axis in which the points do not differ.
    """

    points: int
    independent: float
    means: Array
    errors: Array
    strain: Array
    strain_errors: Array


class Extension(NamedTuple):
    """The reading of a virtual extensometer.

    Attributes
    ----------
    points : int
        Around both ends.
    elongation, strain : float
        Change of the distance of the ends in voxels, and over the first distance.
    elongation_error, strain_error : float
    """

    points: int
    elongation: float
    elongation_error: float
    strain: float
    strain_error: float


class _Basis:
    """Orthonormal functions of the place that are linear, at some points.

    Attributes
    ----------
    functions : (n, p) float64
    """

    def __init__(self, positions: Array) -> None:
        self._centre = positions.mean(axis=0)
        self._size = max(float(np.abs(positions - self._centre).max()), 1.0)
        X = self._columns(positions)
        values, directions = np.linalg.eigh(np.einsum("ni,nj->ij", X, X))
        counts = values > FLAT**2 * values[-1]
        self._map = directions[:, counts] / np.sqrt(values[counts])
        self._missing = directions[:, ~counts]
        self.functions = np.einsum("ni,ip->np", X, self._map)

    def _columns(self, positions: Array) -> Array:
        return np.column_stack([np.ones(len(positions)), (positions - self._centre) / self._size])

    def at(self, place: Array) -> Array:
        """The functions (p,) at a place; along what the points do not tell, they do not change."""
        return np.asarray((self._columns(place[None])[0] @ self._map), np.float64)

    @property
    def gradients(self) -> Array:
        """Their derivatives (3, p) along z, y, x; nan along an axis in which the points do not differ."""
        known = np.abs(self._missing[1:]).max(axis=1, initial=0) < 1e-3
        return np.asarray(np.where(known[:, None], self._map[1:] / self._size, np.nan), np.float64)


def correlated(
    positions: Array, weights: Array, window: npt.ArrayLike | None, places: tuple[Array, Array, Array] | None = None
) -> Array:
    """Weights (n, k) times the matrix of the correlations of the points' noise.

    Parameters
    ----------
    positions : (n, 3) float64
        Voxels.
    weights : (n, k) float64
    window : (3,) or (n, 3) int, optional
        Voxels of a window along z, y, x, of all points or of each; without it the noise of points is independent.
    places : 3 arrays, optional
        Coordinates of the nodes of a grid along z, y, x, at which all points lie, each at its own: this takes less time
        where windows are shared by many.
    """
    if window is None or len(positions) == 0:
        return weights
    sizes = np.asarray(window, np.float64)
    if places is not None:
        index = tuple(np.searchsorted(axis, positions[:, k]) for k, axis in enumerate(places))
        laid = np.zeros((*map(len, places), weights.shape[1]))
        laid[index] = weights
        if sizes.ndim == 2:
            edges = np.ones((*map(len, places), 3))
            edges[index] = sizes
            return np.asarray(_of_pairs(laid, edges, places)[index], np.float64)
        for k, axis in enumerate(places):
            shared = np.maximum(1 - np.abs(axis[:, None] - axis) / sizes[k], 0)
            laid = np.moveaxis(np.einsum("ij,j...->i...", shared, np.moveaxis(laid, k, 0)), 0, k)
        return np.asarray(laid[index], np.float64)
    from scipy.spatial import KDTree

    pairs = KDTree(positions / sizes.reshape(-1, 3).max(axis=0)).query_pairs(1.0, p=np.inf, output_type="ndarray")
    found = weights.copy()
    if len(pairs):
        one, other = pairs.T
        edges = np.broadcast_to(sizes, positions.shape)
        share = _share(edges[one], edges[other], np.abs(positions[one] - positions[other]).T)
        np.add.at(found, one, share * weights[other])
        np.add.at(found, other, share * weights[one])
    return np.asarray(found, np.float64)


def _share(one: Array, other: Array, apart: Sequence[Array]) -> Array:
    """Common voxels of windows (…, 3) so far apart along z, y, x, over the root of the product of theirs: (…, 1)."""
    share = np.ones(one.shape[:-1])
    for k in range(3):
        a, b = one[..., k], other[..., k]
        common = np.minimum(np.minimum(a, b), (a + b) / 2 - apart[k])
        share *= np.maximum(common, 0) / np.sqrt(a * b)
    return share[..., None]


def _of_pairs(laid: Array, edges: Array, places: tuple[Array, Array, Array]) -> Array:
    """Weights (z, y, x, k) at the nodes of a grid times the correlations of windows with these edges (z, y, x, 3)."""
    found: Array = laid.copy()
    widest = edges.reshape(-1, 3).max(axis=0)
    reach = [
        max(int((np.searchsorted(axis, axis + wide) - np.arange(len(axis))).max()) - 1, 0)
        for axis, wide in zip(places, widest, strict=True)
    ]
    for steps in product(*(range(-n, n + 1) for n in reach)):
        # each pair once
        if steps <= (0, 0, 0):
            continue
        here, there = (
            tuple(slice(max(n, 0), len(axis) + min(n, 0)) for n, axis in zip(moves, places, strict=True))
            for moves in ([-n for n in steps], steps)
        )
        apart = np.ix_(*(np.abs(axis[b] - axis[a]) for axis, a, b in zip(places, here, there, strict=True)))
        share = _share(edges[here], edges[there], apart)
        found[here] += share * laid[there]
        found[there] += share * laid[here]
    return found


def windows_at(window: npt.ArrayLike | None, rows: Ints | NDArray[np.bool_]) -> Ints | None:
    """Windows of some points: (3,) or (n, 3) as given, or None."""
    if window is None:
        return None
    windows = np.asarray(window)
    return windows if windows.ndim == 1 else windows[rows]


def _places(positions: Array) -> tuple[Array, Array, Array] | None:
    """Coordinates along the axes whose grid holds all points; None if it has many more nodes."""
    z, y, x = (np.unique(positions[:, k]) for k in range(3))
    return (z, y, x) if len(z) * len(y) * len(x) <= 8 * len(positions) + 1000 else None


def region(positions: Array, values: Array, window: npt.ArrayLike | None) -> Region:
    """Means of numbers over points, and the strain of their displacements, with standard errors.

    Parameters
    ----------
    positions : (n, 3) float64
        At least one; voxels.
    values : (n, m) float64
        Displacements along z, y, x, and further numbers; finite.
    window : (3,) or (n, 3) int, optional
        As in `correlated`.
    """
    n = len(positions)
    basis = _Basis(positions)
    Q = basis.functions
    A = np.einsum("np,nq->pq", Q, correlated(positions, Q, window, _places(positions)))
    own = np.einsum("np,nm->pm", Q, values)
    rest = values - np.einsum("np,pm->nm", Q, own)
    variance = _variance((rest**2).sum(axis=0), n - float(np.trace(A)))
    ones = Q.sum(axis=0) / n
    of_mean = float(ones @ A @ ones)
    G = basis.gradients
    F = np.eye(3) + np.einsum("jp,pi->ij", G, own[:, :3])
    M = G @ A @ G.T
    E, spread = (F.T @ F - np.eye(3)) / 2, np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            # dE = (F^T dF + dF^T F) / 2; the displacements along two axes are independent
            terms = F[:, i] ** 2 * M[j, j] + F[:, j] ** 2 * M[i, i] + 2 * F[:, i] * F[:, j] * M[i, j]
            spread[i, j] = (variance[:3] * terms).sum() / 4
    return Region(
        points=n,
        independent=1 / of_mean,
        means=values.mean(axis=0),
        errors=np.sqrt(variance * max(of_mean, 0.0)),
        strain=E[UPPER],
        strain_errors=np.sqrt(np.maximum(spread[UPPER], 0)),
    )


def extension(
    positions: Array, displacements: Array, ends: Array, radius: float, window: npt.ArrayLike | None
) -> Extension:
    """The change of the distance of two places of a field.

    The displacement of an end is that of the linear function that fits best to the points around it, those that are
    nowhere farther than the radius along an axis.

    Parameters
    ----------
    positions, displacements : (n, 3) float64
        Finite; voxels.
    ends : (2, 3) float64
        Different ones.
    radius : float
        Voxels.
    window : (3,) or (n, 3) int, optional
        As in `correlated`.

    Returns
    -------
    Extension
        With nan where an end has not more points around it than a linear function takes.
    """
    near = [np.nonzero((np.abs(positions - end) <= radius).all(axis=1))[0] for end in ends]
    rows = np.unique(np.concatenate(near))
    weights = np.zeros((len(positions), 1))
    squares, freedom, moves = np.zeros(3), 0.0, []
    for end, found, sign in zip(ends, near, (-1, 1), strict=True):
        basis = _Basis(positions[found]) if len(found) else None
        if basis is None or len(found) <= basis.functions.shape[1]:
            return Extension(len(rows), *[np.nan] * 4)
        Q = basis.functions
        own = np.einsum("np,nm->pm", Q, displacements[found])
        squares += ((displacements[found] - np.einsum("np,pm->nm", Q, own)) ** 2).sum(axis=0)
        RQ = correlated(positions[found], Q, windows_at(window, found))
        freedom += len(found) - float(np.einsum("np,np->", Q, RQ))
        here = basis.at(end)
        weights[found, 0] += sign * np.einsum("np,p->n", Q, here)
        moves.append(here @ own)
    used = weights[rows]
    share = float(used[:, 0] @ correlated(positions[rows], used, windows_at(window, rows))[:, 0])
    spread = _variance(squares, freedom) * max(share, 0.0)
    before, after = ends[1] - ends[0], ends[1] - ends[0] + moves[1] - moves[0]
    length, now = float(np.linalg.norm(before)), float(np.linalg.norm(after))
    error = float(np.sqrt((spread * (after / now) ** 2).sum()))
    return Extension(len(rows), now - length, error, (now - length) / length, error / length)


def _variance(squares: Array, freedom: float) -> Array:
    """Variance of the noise from the sums of squares of what is left; nan where too few points leave anything."""
    return np.asarray(squares / freedom if freedom > 1e-6 else squares * np.nan, np.float64)
