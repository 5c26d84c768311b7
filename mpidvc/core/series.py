"""Numerics of a series of states: composed fields, fields without gaps, and the quality of a state."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from mpidvc.arrays import Array, Ints
from mpidvc.core import deformation
from mpidvc.kernels import neighbours

__all__ = ["Errors", "Quality", "compose_along", "fill", "left_of", "mean_phi", "quality_of"]

#: Statuses of points that were not compared.
NOT_COMPARED = (0, -5, -7)
#: Neighbours that a gap is filled from.
NEIGHBOURS = 8
#: A state is poor below this median ZNCC, or below this share of converged points.
LEAST_ZNCC, LEAST_CONVERGED = 0.8, 0.9
#: Share of converged points below which a result is no first guess for the next state.
LEAST_FOR_GUESS = 0.5


def compose_along(total: Array, step: Array, nodes: Array, positions: Array) -> Array:
    """Phi of material points over two steps: from state 0 to a reference state, and from there to a later state.

    A point at X in state 0 is at x = X + u in the reference state. The step was measured at a node near x; its Phi is
    expressed about x, ``t' = t_step + (F_step - I) (x - node)``. Then ``F = F_step F_total`` and ``t = u + t'``, which
    is exact where the step is affine between the node and x.

    Parameters
    ----------
    total : (n, 4, 4) float64
        Phi from state 0 to the reference state, about `positions`.
    step : (n, 4, 4) float64
        Phi from the reference state on, about `nodes`.
    nodes, positions : (n, 3) float64
        Voxels.

    Returns
    -------
    (n, 4, 4) float64
        Phi from state 0 on, about `positions`; nan where one of both is nan.
    """
    composed = np.array(total, np.float64)
    moved = deformation.apply(step, nodes, positions + composed[:, :3, 3])
    composed[:, :3, :3] = step[:, :3, :3] @ composed[:, :3, :3]
    composed[:, :3, 3] += moved
    return composed


class Errors(NamedTuple):
    """Random errors of a step from a reference to a state that may be the next reference.

    Attributes
    ----------
    variances : (n, 12) float64
        Of the displacement along z, y, x, and of F row by row.
    window : (n, 3) or (3,) int64
        Compared voxels along z, y, x.
    apart : (n, 3) float64
        How far the faces of its window lie from those of an equal one at the node that takes the point up, in the mean,
        voxels.
    correlated : float
        Voxels along an axis that noise is correlated over: faces that are nearer have most of it in common.
    """

    variances: Array
    window: Ints
    apart: Array
    correlated: float

    @classmethod
    def of(cls, variances: Array, window: npt.ArrayLike, offsets: Array, F: Array, kappa: Array) -> Errors:
        """Those of a step.

        Parameters
        ----------
        variances, window
            As the attributes.
        offsets : (n, 3) float64
            From the material point in the state to the node that takes it up, voxels.
        F : (n, 3, 3) float64
            Of the step: its window is deformed, that of the next step is not.
        kappa : (3,) float64
            Voxels of the noise that count as one, for the displacement along z, y, x.
        """
        n = np.asarray(window, np.int64)
        spread = np.abs(F - np.eye(3))
        apart = np.abs(offsets) + np.einsum("nij,nj->ni", spread, np.broadcast_to(n / 4, offsets.shape))
        apart += np.einsum("nii->ni", spread) * n / 4
        axes = 2 if n.reshape(-1, 3)[0, 0] == 1 else 3
        return cls(variances, n, apart, max(float(kappa[-axes:].mean()), 1.0) ** (1 / axes))


def left_of(step: Errors, window: npt.ArrayLike) -> Array:
    """What the variances of a total field have of a step, after its last state has become the reference.

    The noise of that state is in both steps, with opposite signs: it cancels where their windows lie on each other, and
    stays at their faces. Of the variance of a step it is one half; both steps leave what they have for themselves.

    Parameters
    ----------
    step : Errors
        Of the step that ends in the reference.
    window : (n, 3) or (3,) int
        Compared voxels along z, y, x of the step that begins there, whose variances are added to these.

    Returns
    -------
    (n, 12) float64
    """
    before, after = np.broadcast_arrays(step.window.astype(np.float64), np.asarray(window, np.float64))
    least, other = np.minimum(before, after), np.abs(before - after)
    # the smaller window lies in the larger one, unless its faces are moved beyond
    lost = np.clip((step.apart - other / 2) / step.correlated, 0, least)
    share = ((least - lost) / after).prod(axis=-1, keepdims=True)
    # F along an axis: the mean product of the places in both windows, over that of the squares in the second one
    ends = ((least - lost) ** 2 - 3 * lost * (lost + other)) / after**2
    shared = np.concatenate([np.repeat(share, 3, axis=-1), np.tile(share * ends, 3)], axis=-1)
    return np.asarray(step.variances * (1 - shared))


def fill(positions: Array, phi: Array, good: NDArray[np.bool_]) -> Array:
    """Phi at all points: that of good points, and for the others the mean of those of the nearest good points.

    The means have the weights 1 / distance; the Phi of every neighbour is expressed about the point to be filled.
    Points without a position, such as missing labels, stay as they are.

    Parameters
    ----------
    positions : (n, 3) float64
        Voxels.
    phi : (n, 4, 4) float64
        About `positions`.
    good : (n,) bool
        At least one.

    Returns
    -------
    (n, 4, 4) float64
    """
    filled = np.array(phi, np.float64)
    known, gaps = np.flatnonzero(good), np.flatnonzero(~good & np.isfinite(positions).all(axis=1))
    if len(gaps) == 0:
        return filled
    near = known[neighbours.Points(positions[known]).nearest(positions[gaps], min(NEIGHBOURS, len(known)))]
    moved = deformation.move_centre(phi[near], positions[near], positions[gaps][:, None])
    distance = np.linalg.norm(positions[near] - positions[gaps][:, None], axis=2)
    weights = 1 / np.maximum(distance, 1e-6)
    weights /= weights.sum(axis=1, keepdims=True)
    filled[gaps] = np.einsum("nk,nkij->nij", weights, moved)
    return filled


class Quality(NamedTuple):
    """Quality of the result of a state.

    Attributes
    ----------
    compared : int
        Points that were compared, not skipped.
    converged : float
        Share of these that converged; 0 if there are none.
    zncc : float
        Median ZNCC of the converged points; nan if there are none.
    """

    compared: int
    converged: float
    zncc: float

    @property
    def poor(self) -> bool:
        """Whether the state is too far from its reference: the reference has to be a later one."""
        return not (self.converged >= LEAST_CONVERGED and self.zncc >= LEAST_ZNCC)

    @property
    def guides(self) -> bool:
        """Whether the result is a first guess for the next state."""
        return self.converged >= LEAST_FOR_GUESS


def quality_of(status: Array, zncc: Array) -> Quality:
    """Quality of a result from the return statuses (n,) and ZNCC (n,) of its points."""
    compared = int(np.sum(~np.isin(status, NOT_COMPARED)))
    good = status == 2
    known = zncc[good & np.isfinite(zncc)]
    converged = float(good.sum()) / compared if compared else 0.0
    return Quality(compared, converged, float(np.median(known)) if len(known) else np.nan)


def mean_phi(phi: Array, good: NDArray[np.bool_]) -> Array:
    """Mean (3, 4) of F and displacements of the good ones of n points; nan where there is none."""
    return phi[good, :3].mean(axis=0) if good.any() else np.full((3, 4), np.nan)
