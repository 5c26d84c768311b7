"""Random errors of windows of all sizes about a point, from one pass over the largest one."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints
from mpidvc.core.uncertainty import Noise, both_gradients, covariance, kappas, residual_of, shared_noise

__all__ = ["image_noise", "nested_errors", "nested_kappas", "nested_sums"]

#: Pairs of axes (i, k) of the products: those of image 1's gradients, i <= k, then those of both gradients.
_OURS = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
_MIXED = [(i, k) for i in range(3) for k in range(3)]
#: Pairs of (z, y, x, 1) of which the moments are taken, and where the moment of each pair is among them.
_PAIRS = [(i, k) for i in range(4) for k in range(i, 4)]
_MOMENT = np.array([[_PAIRS.index((min(i, k), max(i, k))) for k in range(4)] for i in range(4)])
#: Steps that find the noise of an image from that of a residual.
STEPS = 30


@lru_cache(maxsize=4)
def _shells(half: int, two_d: bool) -> tuple[Ints, Ints, Array]:
    """Voxels of the largest window by distance from the middle, where each distance begins, and moments (n, 10).

    The distance is the largest one along an axis.
    """
    x = np.arange(-half, half + 1)
    grid = np.meshgrid(x[half : half + 1] if two_d else x, x, x, indexing="ij")
    distance = np.abs(grid).max(axis=0).ravel()
    order = np.argsort(distance, kind="stable")
    starts = np.searchsorted(distance[order], np.arange(half + 2))
    X = np.stack([*(axis.ravel()[order] for axis in grid), np.ones(len(order))], axis=1).astype(np.float64)
    return order, starts, np.stack([X[:, i] * X[:, k] for i, k in _PAIRS], axis=1)


def nested_sums(window: npt.ArrayLike, order: int) -> tuple[Array, Array]:
    """Sums of the products of gradients with the moments of the places, for all windows about the middle of this one.

    Parameters
    ----------
    window : (z, y, x)
        Grey levels of image 1 in a cube, with `uncertainty.FRAME` voxels more than are compared at each side; (1, y, x)
        in 2D.
    order : {1, 3}
        Of the interpolation of image 2.

    Returns
    -------
    sums : (half + 1, 15, 10) float64
        Of the windows of 1, 3, … 2 half + 1 voxels.
    gradients : (3, …) float64
        Of image 1, in the compared voxels.
    """
    G, K = both_gradients(window, order)
    half = G.shape[-1] // 2
    voxels, starts, moments = _shells(half, G.shape[1] == 1)
    g, k = (array.reshape(3, -1)[:, voxels] for array in (G, K))
    products = np.stack([*(g[i] * g[j] for i, j in _OURS), *(g[i] * k[j] for i, j in _MIXED)])
    sums = [products[:, a:b] @ moments[a:b] for a, b in pairwise(starts)]
    return np.cumsum(sums, axis=0), G


def image_noise(residual: npt.ArrayLike, order: int) -> Array:
    """Autocovariance of the noise of each of two images whose residual has this one: the inverse of `residual_of`.

    Parameters
    ----------
    residual : (2 l + 1, …)
        1 along z in 2D.
    order : {1, 3}
        Of the interpolation of image 2.
    """
    R = np.asarray(residual, np.float64)
    found: Array = R / 2
    for _ in range(STEPS):
        # an interpolation lets between none and all of a frequency pass
        found = found + (R - residual_of(found, order)) / 2
    return found


def nested_kappas(rho: npt.ArrayLike, gamma: npt.ArrayLike, half: int, own: npt.ArrayLike | None = None) -> Array:
    """Voxels that count as one in a cube, for each parameter (12,).

    Parameters
    ----------
    rho : (2 l + 1, …)
        Autocorrelation of the residual.
    gamma : (3, 2 l + 1, …)
        Autocorrelations of the gradients of image 1.
    half : int
        The window compares 2 half + 1 voxels along each axis.
    own : (3,), optional
        As of `kappas`.
    """
    n = 2 * half + 1
    return kappas(rho, gamma, (1 if np.shape(rho)[0] == 1 else n, n, n), own)


def nested_errors(
    sums: Array, noise: Array, order: int, rho: Array, gamma: Array, variance: float
) -> tuple[Array, Array]:
    """Standard deviations of displacements and F for windows of all sizes about a point.

    Parameters
    ----------
    sums : (half + 1, 15, 10) float64
        Of `nested_sums`.
    noise : (2 l + 1, …)
        Autocovariance of the noise of image 1, which its gradients have too; 1 along z in 2D.
    order : {1, 3}
    rho, gamma : (2 l + 1, …), (3, 2 l + 1, …)
        Autocorrelations of the residual, and of the gradients of image 1.
    variance : float
        Of the residual at this point.

    Returns
    -------
    displacement : (half + 1, 3) float64
        Voxels; 0 along z in 2D, nan where there is no texture, or too few voxels.
    F : (half + 1, 3, 3) float64
    """
    two_d = noise.shape[0] == 1
    shared = shared_noise(noise, order)
    displacement, F = np.full((len(sums), 3), np.nan), np.full((len(sums), 3, 3), np.nan)
    for half in range(1, len(sums)):
        count = (2 * half + 1.0) ** (2 if two_d else 3)
        square = count * half * (half + 1) / 3
        places = np.diag([0.0 if two_d else square, square, square, count])
        M, A = np.zeros((12, 12)), np.zeros((12, 12))
        blocks = sums[half][:, _MOMENT]
        for (i, k), block in zip(_OURS, blocks, strict=False):
            M[4 * i : 4 * i + 4, 4 * k : 4 * k + 4] = M[4 * k : 4 * k + 4, 4 * i : 4 * i + 4] = block
        for (i, k), block in zip(_MIXED, blocks[len(_OURS) :], strict=True):
            A[4 * i : 4 * i + 4, 4 * k : 4 * k + 4] = block
        A -= np.kron(shared, places)
        try:
            C = covariance(A, M, Noise(rho, nested_kappas(rho, gamma, half)), variance)
        except np.linalg.LinAlgError:
            continue
        variances = np.diag(C).copy()
        # a parameter without a gradient
        variances[4 if two_d else 0 :][~(variances[4 if two_d else 0 :] > 0)] = np.nan
        if two_d:
            variances[[4, 8]] = 0
        sigma = np.sqrt(variances).reshape(3, 4)
        displacement[half], F[half] = sigma[:, 3], sigma[:, :3]
    return displacement, F
