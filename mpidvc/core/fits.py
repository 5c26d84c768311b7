"""Fits of one motion to the displacements of many points in the least squares: a rigid one, and an affine one.

In closed form, for pictures and reports of fields of any size; `mpidvc.core.motion` has the fit that withstands wrong
points, by which motions are removed from a field.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mpidvc.arrays import Array
from mpidvc.core import deformation

__all__ = ["MotionFit", "fit_affine", "fit_rigid"]


class MotionFit(NamedTuple):
    """One motion for all points: ``x + u(x) = F (x - centre) + centre + translation``.

    Attributes
    ----------
    phi : (4, 4) float64
        F and translation about `centre`.
    centre : (3,) float64
        Mean of the points, voxels.
    rms : float
        Root of the mean squared distance between displacements and fit, voxels.
    """

    phi: Array
    centre: Array
    rms: float

    @property
    def F(self) -> Array:
        """Deformation gradient (3, 3)."""
        return self.phi[:3, :3]

    @property
    def translation(self) -> Array:
        """Displacement of the centre (3,), voxels."""
        return self.phi[:3, 3]

    def displacements(self, positions: Array) -> Array:
        """Displacements (n, 3) of points by the fit, voxels."""
        moved: Array = self.translation + (positions - self.centre) @ (self.F - np.eye(3)).T
        return moved


def fit_rigid(positions: Array, displacements: Array) -> MotionFit:
    """The rotation and translation nearest to displacements, in the least squares.

    By the singular values of the covariance of both configurations (Kabsch 1976, doi 10.1107/S0567739476001873; with
    the sign of Umeyama 1991, doi 10.1109/34.88573). Points in a plane determine it, too; those on a line, or a single
    one, leave a rotation open: the smallest one is taken.

    Parameters
    ----------
    positions, displacements : (n, 3) float64
        Finite; n is at least 1. In 2D z is the same for all, and does not move.
    """
    centre, shift = positions.mean(axis=0), displacements.mean(axis=0)
    before = positions - centre
    after = before + displacements - shift
    U, size, Vt = np.linalg.svd(after.T @ before)
    R = np.eye(3)
    if size[1] > 1e-12 * max(size[0], 1e-300):
        R = U @ np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))]) @ Vt
    elif size[0] > 0:
        R = _turned(Vt[0], U[:, 0])
    return _fit(R, shift, centre, positions, displacements)


def fit_affine(positions: Array, displacements: Array) -> MotionFit:
    """The affine motion nearest to displacements, in the least squares.

    Parameters
    ----------
    positions, displacements : (n, 3) float64
        Finite; n is at least 1. Along directions in which the points do not extend F is the identity.
    """
    centre, shift = positions.mean(axis=0), displacements.mean(axis=0)
    # of the equations, the shortest solution: 0 where nothing is known
    H, *_ = np.linalg.lstsq(positions - centre, displacements - shift, rcond=1e-9)
    return _fit(np.eye(3) + H.T, shift, centre, positions, displacements)


def _fit(F: Array, shift: Array, centre: Array, positions: Array, displacements: Array) -> MotionFit:
    phi = np.eye(4)
    phi[:3, :3], phi[:3, 3] = F, shift
    found = MotionFit(phi, centre, 0.0)
    left = displacements - found.displacements(positions)
    return found._replace(rms=float(np.sqrt((left**2).sum(axis=1).mean())))


def _turned(start: Array, end: Array) -> Array:
    """The smallest rotation that takes one direction to another."""
    axis, cosine = np.cross(start, end), float(np.clip(start @ end, -1, 1))
    sine = float(np.linalg.norm(axis))
    return deformation.rotation_matrix(axis / sine * np.rad2deg(np.arctan2(sine, cosine))) if sine > 0 else np.eye(3)
