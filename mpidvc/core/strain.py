"""Strain: deformation gradients from displacements at points, and their components.

Lengths are voxels, angles degrees; all functions take many points at once, and a point has the same numbers whichever
points are computed with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from mpidvc.arrays import Array, Ints, Triple
from mpidvc.core.deformation import rotation_vector
from mpidvc.core.neighbourhood import neighbour_lists
from mpidvc.kernels import strain as kernels
from mpidvc.kernels.neighbours import Points

__all__ = [
    "COMPONENTS",
    "Component",
    "along_z",
    "cell_errors",
    "cell_gradients",
    "column_names",
    "components",
    "corner_nodes",
    "fit_gradients",
    "gradients_around",
]


class Decomposed(NamedTuple):
    """Deformation gradients F (n, 3, 3), decomposed: F = R U, U = V S V^T; nan where F is no deformation.

    Attributes
    ----------
    F, R, U : (n, 3, 3) float64
    stretches : (n, 3) float64
        S, ascending.
    directions : (n, 3, 3) float64
        V.
    two_d : bool
        Whether nothing happens along z.
    """

    F: Array
    R: Array
    U: Array
    stretches: Array
    directions: Array
    two_d: bool

    @property
    def volume(self) -> Array:
        """det F (n,)."""
        return np.asarray(self.stretches.prod(axis=1), np.float64)


def _symmetric(F: Array) -> Array:
    return np.asarray((F + np.swapaxes(F, 1, 2)) / 2, np.float64)


def _small(given: Decomposed) -> Array:
    return _symmetric(given.F) - np.eye(3)


def _green_lagrange(given: Decomposed) -> Array:
    # with H = F - I there is no difference of large numbers
    H = given.F - np.eye(3)
    return _symmetric(H) + np.swapaxes(H, 1, 2) @ H / 2


def _hencky(given: Decomposed) -> Array:
    V = given.directions
    with np.errstate(divide="ignore", invalid="ignore"):
        return _symmetric((V * np.log(given.stretches)[:, None, :]) @ np.swapaxes(V, 1, 2))


def _deviator(tensor: Array, mean: Array, two_d: bool) -> Array:
    """Frobenius norm (n,) of a tensor less `mean` times the identity; in 2D of its block in the plane."""
    first = 1 if two_d else 0
    tensor = tensor[:, first:, first:]
    return np.asarray(np.linalg.norm(tensor - mean[:, None, None] * np.eye(3 - first), axis=(1, 2)), np.float64)


def _deviatoric(given: Decomposed) -> Array:
    # the same as the norm of U det(F)^(-1/d) - I
    size = given.volume ** (1 / (2 if given.two_d else 3))
    return _deviator(given.U, size, given.two_d) / size


def _small_deviatoric(given: Decomposed) -> Array:
    e = _small(given)
    trace = np.trace(e, axis1=1, axis2=2)
    return _deviator(e, trace / (2 if given.two_d else 3), given.two_d)


def _principal(given: Decomposed) -> Array:
    values = given.stretches - 1
    if given.two_d:
        # z is no direction of the plane: its stretch is 1 exactly, and comes first
        along_z = np.argmax(np.abs(given.directions[:, 0, :]), axis=1)
        rest = np.sort(np.where(np.arange(3) == along_z[:, None], -np.inf, values), axis=1)
        values = np.column_stack([np.take_along_axis(values, along_z[:, None], axis=1), rest[:, 1:]])
    return values


#: Axes of the columns of a vector and of a symmetric tensor, and the places of the latter's columns.
AXES = ("z", "y", "x")
PAIRS = ("zz", "zy", "zx", "yy", "yx", "xx")
UPPER = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))


@dataclass(frozen=True)
class Component:
    """A component of strain: a scalar, a vector or a symmetric tensor.

    Attributes
    ----------
    name : str
        As in ``-comp``.
    suffixes : tuple of str
        Its columns are named by its name and these.
    compute : callable
        Gives its values (n,), (n, 3) or (n, 3, 3).
    """

    name: str
    suffixes: tuple[str, ...]
    compute: Callable[[Decomposed], Array]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns."""
        return tuple(f"{self.name}{suffix}" for suffix in self.suffixes)

    def values(self, given: Decomposed) -> Array:
        """Its columns (n, k)."""
        found = self.compute(given)
        if found.ndim == 3:
            return np.asarray(found[:, UPPER[0], UPPER[1]], np.float64)
        return found.reshape(len(found), len(self.suffixes))


#: By name: the components of spam, and after them ours.
COMPONENTS = {
    component.name: component
    for component in (
        Component("vol", ("",), lambda given: given.volume - 1),
        Component("dev", ("",), _deviatoric),
        Component("volss", ("",), lambda given: np.asarray(np.trace(_small(given), axis1=1, axis2=2), np.float64)),
        Component("devss", ("",), _small_deviatoric),
        Component("r", AXES, lambda given: rotation_vector(given.R)),
        Component("z", AXES, lambda given: np.diagonal(given.U, axis1=1, axis2=2)),
        Component("Up", AXES, _principal),
        Component("U", PAIRS, lambda given: given.U),
        Component("e", PAIRS, _small),
        Component("GL", PAIRS, _green_lagrange),
        Component("H", PAIRS, _hencky),
    )
}


def column_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of components, in the order of these."""
    return tuple(itertools.chain.from_iterable(COMPONENTS[name].columns for name in names))


def along_z(column: str) -> bool:
    """Whether a column is of the z axis; the only rotation in a plane is about it."""
    return column not in ("rz", "vol", "dev", "volss", "devss") and "z" in (column[1:] if column[0] == "z" else column)


def components(F: Array, names: Sequence[str], two_d: bool) -> tuple[Array, NDArray[np.bool_]]:
    """Components of strain.

    Parameters
    ----------
    F : (n, 3, 3) float64
        Deformation gradients; in 2D Fzz is 1 and the rest of its row and column 0.
    names : sequence of str
        Of the components, keys of `COMPONENTS`:

        - ``vol``: det F - 1; ``dev``: the norm of U det(F)^(-1/3) - I (2D: of the block in the plane, with -1/2);
        - ``volss``: the trace of e; ``devss``: the norm of e - I volss/3 (2D: of the block in the plane, with 1/2);
        - ``r``: rotation vector of R in degrees; ``U``: U; ``z``: its diagonal; ``Up``: its eigenvalues less 1,
          ascending (2D: 0 for z, then those in the plane);
        - ``e``: (F + F^T)/2 - I; ``GL``: Green-Lagrange strain (F^T F - I)/2; ``H``: Hencky strain ln U.
    two_d : bool

    Returns
    -------
    values : (n, k) float64
        A column for each of `column_names`; nan where F is no deformation.
    exists : (n,) bool
        Whether F is a deformation: finite, with a determinant above 0.
    """
    R, U, stretches, directions = kernels.polar(F)
    exists = ~np.isnan(stretches[:, 0])
    F = np.where(exists[:, None, None], F, np.nan)
    given = Decomposed(F, R, U, stretches, directions, two_d)
    parts = [COMPONENTS[name].values(given) for name in names]
    return np.concatenate([np.zeros((len(F), 0)), *parts], axis=1), exists


def component_errors(F: Array, errors: Array, names: Sequence[str], two_d: bool) -> Array:
    """Standard deviations of components of strain from those of F.

    Parameters
    ----------
    F : (n, 3, 3) float64
    errors : (n, 3, 3) float64
        1 standard deviation of F's components, taken for independent; nan where they are not known.
    names, two_d
        As of `components`.

    Returns
    -------
    (n, k) float64
        A column for each of `column_names`, to first order: half the change between F with its component one deviation
        up and one down. A norm (dev, devss) near 0 is not linear, and its error less than this tells.
    """
    total = np.zeros((len(F), len(column_names(names))))
    for i in range(3):
        for j in range(3):
            if two_d and 0 in (i, j):
                continue
            step = np.zeros_like(F)
            step[:, i, j] = errors[:, i, j]
            change = components(F + step, names, two_d)[0] - components(F - step, names, two_d)[0]
            total += change**2 / 4
    return np.asarray(np.sqrt(total))


def corner_nodes(cells: Ints, dims: Triple) -> Ints:
    """Nodes at the corners of the cells of a grid.

    Parameters
    ----------
    cells : (n,) int64
        Cells of the grid of ``nz - 1, ny - 1, nx - 1`` cells (2D: ``1, ny - 1, nx - 1``), x fastest.
    dims : 3 ints
        Number of nodes along z, y, x; nz = 1 in 2D.

    Returns
    -------
    (n, 2, 2, 2) int64
        Indices of the nodes, by their place along z, y, x; (n, 1, 2, 2) in 2D.
    """
    _, ny, nx = dims
    z, y, x = np.unravel_index(cells, tuple(max(n - 1, 1) for n in dims))
    low = (z * ny + y) * nx + x
    steps = [np.arange(2 if n > 1 else 1) * step for n, step in zip(dims, (ny * nx, nx, 1), strict=True)]
    return np.asarray(low[:, None, None, None] + sum(np.meshgrid(*steps, indexing="ij")), np.int64)


def cell_gradients(corners: Ints, positions: Array, displacements: Array) -> tuple[Array, Array]:
    """Deformation gradients at the centres of cells: of trilinear elements of eight nodes (2D: bilinear, of four).

    Parameters
    ----------
    corners : (n, 2, 2, 2) int64
        As of `corner_nodes`.
    positions, displacements : (m, 3) float64
        Of all nodes, in voxels; the displacement is nan where a node does not count.

    Returns
    -------
    F : (n, 3, 3) float64
        Nan where one of the nodes does not count.
    displacement : (n, 3) float64
        At the centre, voxels.
    """
    u, x = displacements[corners], positions[corners]
    F = np.tile(np.eye(3), (len(corners), 1, 1))
    for axis in range(3):
        if corners.shape[1 + axis] == 2:
            edges = np.diff(u, axis=1 + axis) / np.diff(x[..., axis, None], axis=1 + axis)
            F[:, :, axis] += edges.mean(axis=(1, 2, 3))
    displacement = u.mean(axis=(1, 2, 3))
    bad = np.isnan(displacement).any(axis=1)
    F[bad] = displacement[bad] = np.nan
    return F, displacement


def cell_errors(corners: Ints, positions: Array, errors: Array, window: npt.ArrayLike, two_d: bool) -> Array:
    """Standard deviations of `cell_gradients` from those of the displacements of nodes whose windows overlap.

    Parameters
    ----------
    corners, positions
        As of `cell_gradients`.
    errors : (m, 3) float64
        1 standard deviation of the displacements of all nodes, voxels; nan where it is not known.
    window : (3,) or (m, 3) float
        Edges of the windows of correlation along z, y, x, of all nodes or of each, voxels.
    two_d : bool

    Returns
    -------
    (n, 3, 3) float64
        nan where the error of a corner is not known.

    Notes
    -----
    Errors of two nodes are correlated by what their windows have in common, over the root of the product of both. At
    the corners of a cell the mean slope of its edges is the gradient of a linear fit.
    """
    found = np.ascontiguousarray(corners.reshape(len(corners), -1))
    start = np.arange(len(found) + 1) * found.shape[1]
    return np.asarray(kernels.fit_gradient_errors(positions, errors, start, found.ravel(), window, two_d))


def fit_gradients(
    centres: Array, start: Ints, found: Ints, positions: Array, displacements: Array, two_d: bool
) -> tuple[Array, Array]:
    """Deformation gradients by a linear fit of the displacements around places.

    Parameters
    ----------
    centres : (n, 3) float64
        The places, z, y, x in voxels.
    start, found : (n + 1,) and (start[n],) int64
        Indices of the points around each place: ``found[start[j]:start[j + 1]]``.
    positions, displacements : (m, 3) float64
        Of the points, in voxels.
    two_d : bool

    Returns
    -------
    F : (n, 3, 3) float64
        Nan where the points are too few or lie in a plane (2D: on a line).
    displacement : (n, 3) float64
        Of the fit at the place, voxels.

    Notes
    -----
    The linear model of Geers, de Borst and Brekelmans 1996 (doi 10.1016/0020-7683(95)00240-5) as unweighted least
    squares with an intercept. A point takes part in the fit at its own place.
    """
    gradient, displacement, _ = kernels.fit_gradients(centres, positions, displacements, start, found, two_d)
    return gradient + np.eye(3), displacement


def gradients_around(
    points: Points,
    centres: Array,
    radius: float,
    usable: NDArray[np.bool_],
    positions: Array,
    displacements: Array,
    two_d: bool,
    errors: Array | None = None,
    window: npt.ArrayLike = (1, 1, 1),
) -> tuple[Array, Array, Array | None]:
    """Deformation gradients at places by `fit_gradients` to the points within a radius, in batches that fit in memory.

    Parameters
    ----------
    points : Points
        Search of neighbours among the points.
    centres : (n, 3) float64
        The places, z, y, x in voxels.
    radius : float
        Voxels.
    usable : (m,) bool
        Points that take part.
    positions, displacements : (m, 3) float64
        Of the points, in voxels.
    two_d : bool
    errors, window
        As of `cell_errors`.

    Returns
    -------
    F : (n, 3, 3) float64
    displacement : (n, 3) float64
        As of `fit_gradients`.
    sigma : (n, 3, 3) float64 or None
        Standard deviations of F, nan where that of a point around is not known; None without `errors`.
    """
    F, displacement = np.empty((len(centres), 3, 3)), np.empty((len(centres), 3))
    sigma = None if errors is None else np.full((len(centres), 3, 3), np.nan)
    for which, start, found in neighbour_lists(points, centres, radius, None, usable):
        F[which], displacement[which] = fit_gradients(centres[which], start, found, positions, displacements, two_d)
        if errors is not None and sigma is not None:
            sigma[which] = kernels.fit_gradient_errors(positions, errors, start, found, window, two_d)
    return F, displacement, sigma
