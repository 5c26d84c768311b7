"""Algebra of the deformation function Phi.

Phi is a 4 × 4 matrix over (z, y, x, 1) that maps a point of image 1 into image 2 about a centre ``c``::

    x2 = F (x1 - c) + t + c,    F = Phi[:3, :3],    t = Phi[:3, 3]

All functions take stacks of matrices: any leading shape ``(...)``. Lengths are voxels, angles degrees.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array
from mpidvc.kernels import strain

__all__ = [
    "apply",
    "compose",
    "compute_phi",
    "move_centre",
    "polar",
    "rigid_part",
    "rotation_matrix",
    "rotation_vector",
    "scale_translation",
    "with_part",
]


#: Rotations below this angle (degrees) count as none: spam's threshold.
SMALLEST_ROTATION = 1e-4


def rotation_matrix(vector: npt.ArrayLike) -> Array:
    """Rotation matrix of a rotation vector (Rodrigues' formula).

    Parameters
    ----------
    vector : (..., 3)
        Axis times angle in degrees, components (z, y, x).

    Returns
    -------
    (..., 3, 3) float64
    """
    r = np.deg2rad(np.asarray(vector, dtype=np.float64))
    angle = np.linalg.norm(r, axis=-1)[..., None, None]
    zero = np.zeros(r.shape[:-1])
    K = np.stack(
        [
            np.stack([zero, -r[..., 2], r[..., 1]], -1),
            np.stack([r[..., 2], zero, -r[..., 0]], -1),
            np.stack([-r[..., 1], r[..., 0], zero], -1),
        ],
        -2,
    )
    small = angle < np.deg2rad(SMALLEST_ROTATION)
    safe = np.where(small, 1.0, angle)
    R = np.eye(3) + np.sin(safe) / safe * K + (1 - np.cos(safe)) / safe**2 * (K @ K)
    return np.where(small, np.eye(3), R)


def rotation_vector(R: npt.ArrayLike) -> Array:
    """Rotation vector (degrees; z, y, x) of rotation matrices ``(..., 3, 3)``; the inverse of `rotation_matrix`.

    The angle comes from the unit quaternion, so that it is right from 0 to 180 degrees (Shepperd 1978,
    doi 10.2514/3.55767b).
    """
    R = np.asarray(R, dtype=np.float64)
    d = np.stack([R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]], -1)
    # four times the outer product of the quaternion (w, a, b, c) with itself; its largest row is proportional to it
    Q = np.empty((*R.shape[:-2], 4, 4))
    Q[..., 0, 0] = 1 + d.sum(-1)
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        Q[..., a + 1, a + 1] = 1 + d[..., a] - d[..., b] - d[..., c]
        Q[..., 0, a + 1] = Q[..., a + 1, 0] = R[..., c, b] - R[..., b, c]
        Q[..., b + 1, c + 1] = Q[..., c + 1, b + 1] = R[..., b, c] + R[..., c, b]
    best = np.argmax(np.einsum("...ii->...i", Q), axis=-1)
    q = np.take_along_axis(Q, best[..., None, None], axis=-2)[..., 0, :]
    q = q * np.where(q[..., :1] < 0, -1.0, 1.0)
    length = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = np.rad2deg(2 * np.arctan2(length, q[..., :1]))
    axis = q[..., 1:] / np.where(length == 0, 1.0, length)
    return np.where(angle < SMALLEST_ROTATION, 0.0, axis * angle)


def polar(F: npt.ArrayLike) -> tuple[Array, Array]:
    """Polar decomposition F = R U, right for equal stretches too.

    Parameters
    ----------
    F : (..., 3, 3)

    Returns
    -------
    R, U : (..., 3, 3) float64
        Rotation and symmetric stretch; nan where F is not finite or its determinant is not above 0.
    """
    F = np.asarray(F, dtype=np.float64)
    R, U, _, _ = strain.polar(F.reshape(-1, 3, 3))
    return R.reshape(F.shape), U.reshape(F.shape)


def compute_phi(
    translation: npt.ArrayLike = (0, 0, 0),
    rotation: npt.ArrayLike = (0, 0, 0),
    stretch: npt.ArrayLike = ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
) -> Array:
    """Phi that stretches first, then rotates, then translates.

    Parameters
    ----------
    translation : (..., 3)
        Voxels.
    rotation : (..., 3)
        Rotation vector in degrees.
    stretch : (..., 3, 3)
        Symmetric stretch U; a diagonal matrix for zooms.
    """
    F = rotation_matrix(rotation) @ np.asarray(stretch, dtype=np.float64)
    t = np.broadcast_to(np.asarray(translation, dtype=np.float64), (*F.shape[:-2], 3))
    phi = np.zeros((*F.shape[:-2], 4, 4))
    phi[..., :3, :3] = F
    phi[..., :3, 3] = t
    phi[..., 3, 3] = 1
    return phi


def rigid_part(phi: npt.ArrayLike) -> Array:
    """The translation of Phi and the rotation of its F, without stretch."""
    out = np.array(phi, dtype=np.float64)
    out[..., :3, :3] = polar(out[..., :3, :3])[0]
    return out


def with_part(phi: npt.ArrayLike, part: str) -> Array:
    """The translation of Phi with a part of its F: ``all`` of it, its rotation (``rigid``), or the identity (``no``).

    Parameters
    ----------
    phi : (..., 4, 4)
        Where the translation is nan, F becomes nan, too.
    part : {"all", "rigid", "no"}
    """
    if part == "rigid":
        return rigid_part(phi)
    out = np.array(phi, dtype=np.float64)
    if part == "no":
        out[..., :3, :3] = np.where(np.isnan(out[..., :3, 3:]), np.nan, np.eye(3))
    return out


def apply(phi: npt.ArrayLike, centre: npt.ArrayLike, points: npt.ArrayLike) -> Array:
    """Displacement of points: ``t + (F - I) (p - c)``.

    Parameters
    ----------
    phi : (..., 4, 4)
    centre, points : (..., 3)

    Returns
    -------
    (..., 3) float64
        Voxels.
    """
    phi = np.asarray(phi, dtype=np.float64)
    arm = np.asarray(points, dtype=np.float64) - np.asarray(centre, dtype=np.float64)
    gradient = phi[..., :3, :3] - np.eye(3)
    # term by term: the same bits for any number of points, and on every processor
    moved: Array = phi[..., :3, 3] + gradient[..., 0] * arm[..., :1]
    moved = moved + gradient[..., 1] * arm[..., 1:2]
    return moved + gradient[..., 2] * arm[..., 2:]


def move_centre(phi: npt.ArrayLike, old: npt.ArrayLike, new: npt.ArrayLike) -> Array:
    """The same deformation expressed about another centre."""
    phi = np.asarray(phi, dtype=np.float64)
    t = apply(phi, old, new)
    out = np.array(np.broadcast_to(phi, (*t.shape[:-1], 4, 4)))
    out[..., :3, 3] = t
    return out


def compose(outer: npt.ArrayLike, inner: npt.ArrayLike) -> Array:
    """Phi of ``inner`` followed by ``outer``, both about the same centre."""
    return np.asarray(outer, dtype=np.float64) @ np.asarray(inner, dtype=np.float64)


def scale_translation(phi: npt.ArrayLike, ratio: float) -> Array:
    """Phi of an image whose voxels are ``1 / ratio`` times as large: F stays, t is multiplied."""
    out = np.array(phi, dtype=np.float64)
    out[..., :3, 3] *= ratio
    return out
