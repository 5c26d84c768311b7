"""Displacements compared with, and replaced by, a local fit to those of their neighbours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints
from mpidvc.kernels import field

__all__ = ["LARGEST_COHERENCY", "coherency", "fewest_points", "fitted"]

#: Points from which on the local quadratic coherency counts as bad.
LARGEST_COHERENCY = 0.1


def fewest_points(two_d: bool) -> int:
    """Number of coefficients of a quadratic polynomial, and so of points that a fit needs at least."""
    return 6 if two_d else 10


def coherency(positions: Array, phi: Array, points: Ints, start: Ints, found: Ints) -> Array:
    """Local quadratic coherency (LQC) of points: the squared distance of a displacement from a local quadratic fit.

    As spam computes it after Masullo & Theunissen (2016, doi 10.1007/s00348-015-2110-8). With the median m of the
    neighbours' displacements u_k, s_k = ‖u_k - m‖ and K = mean(s_k) + 0.1, a polynomial of second order is fitted with
    the weights exp(-s_k² / (2 √K)). With its value φ at the point, LQC is ‖φ - u‖² / 3 / (median ‖u_k‖ + 0.1)².
    Where the weights leave too few points for a fit, they are all 1.

    Parameters
    ----------
    positions : (n, 3) float64
        z, y, x in voxels; in 2D the z of all points is the same.
    phi : (n, 3 or 4, 4) float64
    points : (m,) int64
        The points to be judged.
    start, found : (m + 1,) and (start[m],) int64
        Neighbours of point j, itself among them: ``found[start[j]:start[j + 1]]``.

    Returns
    -------
    (m,) float64
        nan where the neighbours determine no quadratic polynomial.
    """
    return field.coherency(positions, phi, points, start, found)


def fitted(positions: Array, phi: Array, at: Array, start: Ints, found: Ints) -> tuple[Array, npt.NDArray[np.int8]]:
    """Displacements at places by the fit of `coherency` to neighbours; exact for fields of second order.

    Parameters
    ----------
    positions : (n, 3) float64
    phi : (n, 3 or 4, 4) float64
    at : (m, 3) float64
        z, y, x in voxels.
    start, found : (m + 1,) and (start[m],) int64
        Neighbours, without points that are not to be trusted.

    Returns
    -------
    displacements : (m, 3) float64
        Voxels; nan where there is no fit.
    order : (m,) int8
        2, or 1 where the neighbours determine a linear polynomial only, or 0 where none.
    """
    return field.fit(positions, phi, at, start, found)
