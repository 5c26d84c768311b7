"""Gauges on a field: means over regions and virtual extensometers, with standard errors that know of shared windows.

Every result is a linear function of the numbers at the points. The noise of two points is correlated as far as their
windows share voxels: ``rho = prod max(0, 1 - |distance| / window)`` along the axes. That is exact for means of white
noise over the windows, and for the sums from which a correlation takes the displacement of a window of even texture.
The variance of the noise comes from what is left of the numbers beside a linear function of the place, a real
deformation that is not linear included.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mpidvc.arrays import Array, Triple

__all__ = ["UPPER", "Extension", "Region", "correlated", "extension", "region"]

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
    positions: Array, weights: Array, window: Triple | None, places: tuple[Array, Array, Array] | None = None
) -> Array:
    """Weights (n, k) times the matrix of the correlations of the points' noise.

    Parameters
    ----------
    positions : (n, 3) float64
        Voxels.
    weights : (n, k) float64
    window : 3 ints, optional
        Voxels of a window along z, y, x; without it the noise of points is independent.
    places : 3 arrays, optional
        Coordinates of the nodes of a grid along z, y, x, at which all points lie, each at its own: this takes less time
        where windows are shared by many.
    """
    if window is None or len(positions) == 0:
        return weights
    if places is not None:
        index = tuple(np.searchsorted(axis, positions[:, k]) for k, axis in enumerate(places))
        laid = np.zeros((*map(len, places), weights.shape[1]))
        laid[index] = weights
        for k, axis in enumerate(places):
            shared = np.maximum(1 - np.abs(axis[:, None] - axis) / window[k], 0)
            laid = np.moveaxis(np.einsum("ij,j...->i...", shared, np.moveaxis(laid, k, 0)), 0, k)
        return np.asarray(laid[index], np.float64)
    from scipy.spatial import KDTree

    scaled = positions / window
    pairs = KDTree(scaled).query_pairs(1.0, p=np.inf, output_type="ndarray")
    found = weights.copy()
    if len(pairs):
        one, other = pairs.T
        share = np.prod(np.maximum(1 - np.abs(scaled[one] - scaled[other]), 0), axis=1)[:, None]
        np.add.at(found, one, share * weights[other])
        np.add.at(found, other, share * weights[one])
    return np.asarray(found, np.float64)


def _places(positions: Array) -> tuple[Array, Array, Array] | None:
    """Coordinates along the axes whose grid holds all points; None if it has many more nodes."""
    z, y, x = (np.unique(positions[:, k]) for k in range(3))
    return (z, y, x) if len(z) * len(y) * len(x) <= 8 * len(positions) + 1000 else None


def region(positions: Array, values: Array, window: Triple | None) -> Region:
    """Means of numbers over points, and the strain of their displacements, with standard errors.

    Parameters
    ----------
    positions : (n, 3) float64
        At least one; voxels.
    values : (n, m) float64
        Displacements along z, y, x, and further numbers; finite.
    window : 3 ints, optional
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


def extension(positions: Array, displacements: Array, ends: Array, radius: float, window: Triple | None) -> Extension:
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
    window : 3 ints, optional
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
        freedom += len(found) - float(np.einsum("np,np->", Q, correlated(positions[found], Q, window)))
        here = basis.at(end)
        weights[found, 0] += sign * np.einsum("np,p->n", Q, here)
        moves.append(here @ own)
    used = weights[rows]
    share = float(used[:, 0] @ correlated(positions[rows], used, window)[:, 0])
    spread = _variance(squares, freedom) * max(share, 0.0)
    before, after = ends[1] - ends[0], ends[1] - ends[0] + moves[1] - moves[0]
    length, now = float(np.linalg.norm(before)), float(np.linalg.norm(after))
    error = float(np.sqrt((spread * (after / now) ** 2).sum()))
    return Extension(len(rows), now - length, error, (now - length) / length, error / length)


def _variance(squares: Array, freedom: float) -> Array:
    """Variance of the noise from the sums of squares of what is left; nan where too few points leave anything."""
    return np.asarray(squares / freedom if freedom > 1e-6 else squares * np.nan, np.float64)
