"""One motion for all points of a field: a robust fit, that of the least squares, and the removal of a motion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from mpidvc.arrays import Array
from mpidvc.core import deformation

__all__ = ["KINDS", "CommonMotion", "Kind", "MotionFit", "fit_all", "fit_motion", "remove_motion"]

Kind = Literal["rigid", "similarity", "affine"]
KINDS: tuple[Kind, ...] = ("rigid", "similarity", "affine")

#: Steps of each of the two fits at most, and the change of Phi (voxels over the field) that ends the first, which only
#: has to come near, and the second.
STEPS, NEAR, SMALLEST = 100, 1e-3, 1e-10
#: The scale of the residuals is not taken below this (voxels): where most points fit exactly, they all count.
LEAST_SCALE = 1e-6
#: Tukey's constant: 95 % of the efficiency of least squares on normal residuals.
TUKEY = 4.685
#: Points whose second singular value is so small a part of the first are a line.
LINE = 1e-12
#: The median length of a normal vector in 3 and in 2 dimensions.
MEDIAN_LENGTH = {3: 1.5382, 2: 1.1774}


@dataclass(frozen=True)
class CommonMotion:
    """One Phi for all points of a field.

    Attributes
    ----------
    kind : {"rigid", "similarity", "affine"}
    phi : (4, 4) float64
        About the centre.
    centre : (3,) float64
        z, y, x in voxels: the mean position of the points that it was fitted to.
    share : float
        Share of these points that the fit gives a weight: the others are far from it.
    scatter : float
        Robust standard deviation of their displacements along an axis from it, voxels.
    """

    kind: Kind
    phi: Array
    centre: Array
    share: float
    scatter: float


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
        return deformation.apply(self.phi, self.centre, positions)


def fit_all(positions: Array, displacements: Array, kind: Kind) -> MotionFit:
    """Fit one Phi to all displacements in the least squares: in closed form, for fields without wrong points.

    Parameters
    ----------
    positions, displacements : (n, 3) float64
        Finite; voxels; n is at least 1. In 2D z is the same for all, and does not move.
    kind : {"rigid", "similarity", "affine"}

    Notes
    -----
    Points in a plane determine a rotation, too; those on a line, or a single one, leave it open: the smallest one is
    taken. Along directions in which the points do not extend an affine F is the identity.
    """
    centre = positions.mean(axis=0)
    phi = _fitted(positions - centre, displacements, np.ones(len(positions)), kind, False)
    found = MotionFit(phi, centre, 0.0)
    left = displacements - found.displacements(positions)
    return found._replace(rms=float(np.sqrt((left**2).sum(axis=1).mean())))


def fit_motion(positions: Array, displacements: Array, kind: Kind, two_d: bool) -> CommonMotion | None:
    """Fit one Phi to displacements, of which a part may be wrong by any amount.

    Iteratively reweighted least squares: first with the weights 1/r, which make the sum of the lengths r of the
    residuals least, from the componentwise median on, then with Tukey's biweight, whose scale follows from the median
    of r. The first fit finds the side of the majority, the second one gives no weight to what is far from it.

    Parameters
    ----------
    positions, displacements : (n, 3) float64
        Finite; voxels.
    kind : {"rigid", "similarity", "affine"}
        Translation with a rotation, with a uniform stretch as well, or with any F.
    two_d : bool
        Nothing is fitted along z: the displacements along z are taken as 0.

    Returns
    -------
    CommonMotion or None
        None if the points determine no such motion: they are too few, or lie on a line (affine in 3D: in a plane).

    Notes
    -----
    Beaton & Tukey 1974 (doi 10.1080/00401706.1974.10489171); the weighted rotation and stretch of Umeyama 1991
    (doi 10.1109/34.88573). All sums are in double precision and in the order of the points.
    """
    centre = positions.mean(axis=0) if len(positions) else np.zeros(3)
    arms, moves = positions - centre, displacements.copy()
    if two_d:
        arms, moves = arms * (0, 1, 1), moves * (0, 1, 1)
    spread = np.sqrt(np.maximum(np.linalg.eigvalsh(np.einsum("ni,nj->ij", arms, arms)), 0))[::-1]
    # directions that the points have to fill: a line is turned in any way about itself
    needed = (2 if two_d else 3) if kind == "affine" else (1 if two_d else 2)
    if len(arms) <= needed or spread[needed - 1] <= 1e-6 * max(spread[0], 1.0):
        return None
    size = float(np.abs(arms).max())
    median_length = MEDIAN_LENGTH[2 if two_d else 3]
    phi = np.eye(4)
    phi[:3, 3] = np.median(moves, axis=0)
    scale = 0.0
    for biweight in (False, True):
        for _ in range(STEPS):
            r = np.linalg.norm(moves - deformation.apply(phi, 0, arms), axis=1)
            scale = max(float(np.median(r)) / median_length, LEAST_SCALE)
            far = r / (TUKEY * scale)
            weights = np.maximum(1 - far**2, 0) ** 2 if biweight else 1 / np.maximum(r, 0.1 * scale)
            new = _fitted(arms, moves, weights, kind, two_d)
            step = np.abs(new - phi)
            phi = new
            if step[:, 3].max() + size * step[:, :3].max() < (SMALLEST if biweight else NEAR):
                break
    r = np.linalg.norm(moves - deformation.apply(phi, 0, arms), axis=1)
    scatter = float(np.median(r)) / median_length
    inside = r < TUKEY * max(scatter, LEAST_SCALE)
    return CommonMotion(kind, phi, centre, float(inside.mean()), scatter)


def _fitted(arms: Array, moves: Array, weights: Array, kind: Kind, two_d: bool) -> Array:
    """Phi (4, 4) about the origin of `arms` by weighted least squares.

    Rotations by the singular values of the covariance of both configurations (Kabsch 1976, doi
    10.1107/S0567739476001873; with the sign, and the stretch, of Umeyama 1991, doi 10.1109/34.88573).
    """
    w = weights / weights.sum()
    middle, shift = np.einsum("n,ni->i", w, arms), np.einsum("n,ni->i", w, moves)
    a, u = arms - middle, moves - shift
    weighted = w[:, None] * a
    spread, mixed = np.einsum("ni,nj->ij", weighted, a), np.einsum("ni,nj->ij", u, weighted)
    F: Array
    if kind == "affine":
        # what the points do not determine, as the derivatives along z of a layer, is 0
        F = np.eye(3) + mixed @ np.linalg.pinv(spread, rcond=1e-12, hermitian=True)
    else:
        # places in image 2 are a + u
        U, S, V = np.linalg.svd(mixed + spread)
        signs = np.array([1, 1, np.sign(np.linalg.det(U) * np.linalg.det(V))])
        if S[1] > LINE * S[0]:
            F = np.asarray((U * signs) @ V, np.float64)
        else:
            F = _turned(V[0], U[:, 0]) if S[0] > 0 else np.eye(3)
        if kind == "similarity" and S[0] > 0:
            F = F * float((S * signs).sum() / np.trace(spread))
            if two_d:
                F[0, 0] = 1
    phi = np.eye(4)
    phi[:3, :3] = F
    phi[:3, 3] = shift - (F - np.eye(3)) @ middle
    return phi


def _turned(start: Array, end: Array) -> Array:
    """The smallest rotation that takes one direction to another."""
    axis, cosine = np.cross(start, end), float(np.clip(start @ end, -1, 1))
    sine = float(np.linalg.norm(axis))
    return deformation.rotation_matrix(axis / sine * np.rad2deg(np.arctan2(sine, cosine))) if sine > 0 else np.eye(3)


def remove_motion(phi: Array, positions: Array, motion: CommonMotion) -> Array:
    """Take a motion off: Phi becomes the inverse of the motion after Phi.

    Parameters
    ----------
    phi : (n, 4, 4) float64
        About the positions.
    positions : (n, 3) float64
    motion : CommonMotion

    Returns
    -------
    (n, 4, 4) float64
        nan where `phi` is.
    """
    here = deformation.move_centre(motion.phi, motion.centre, positions)
    F = np.linalg.inv(motion.phi[:3, :3])
    back = np.tile(np.eye(4), (len(positions), 1, 1))
    back[:, :3, :3] = F
    back[:, :3, 3] = -np.einsum("ij,nj->ni", F, here[:, :3, 3])
    return deformation.compose(back, phi)
