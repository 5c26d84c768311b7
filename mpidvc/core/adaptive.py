"""Windows per point: the smallest one whose predicted random error meets a target, where the field is smooth enough.

The error of a window follows from image 1 and the noise (`mpidvc.core.uncertainty`), for the displacement alone:

    Cov = s² A⁻¹ D M D A⁻ᵀ,    M = Σ G Gᵀ,    A = Σ G Kᵀ - what image 1's own noise makes of it

(3, 3), with image 1's gradient G and that of its interpolation K. In a window that is cut or uneven the displacement
depends on F, which is fitted, too: with the weights w = G · G it is the value of a line at 0, whose variance is larger
by ``1 / (1 - mᵀ S⁻¹ m / Σ w)``, ``m = Σ w x``, ``S = Σ w x xᵀ``.

A window of half-window size H, which compares 2 H - 1 voxels along each axis, gives the mean displacement of its
voxels: of a quadratic field H (H - 1) |∇²u| / 6 too much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints
from mpidvc.core.nested_windows import nested_kappas
from mpidvc.core.uncertainty import Noise, shared_noise

__all__ = ["CURVATURE", "LARGEST", "MET", "NoiseFacts", "SizeRule", "largest_smooth", "steps"]

#: What limits a window (column windowLimit): nothing, the largest size, the curvature of the field.
MET, LARGEST, CURVATURE = 0, 1, 2
#: Windows grow by about this factor of their voxels before they are looked at again.
GROWTH = 1.5


@dataclass(frozen=True)
class NoiseFacts:
    """What is known of the noise of a pair.

    Attributes
    ----------
    noise : Noise
        Of the residual.
    image : (2 l + 1, …) float64
        Autocovariance of the noise of image 1, grey levels squared.
    gamma : (3, 2 l + 1, …) float64
        Autocorrelations of image 1's gradients.
    own : (3,) float64
        `uncertainty.own_share` of image 1.
    variance : float
        Of the residual, grey levels squared: a mean of the pair where each window has its own. nan: it is not known.
    """

    noise: Noise
    image: Array
    gamma: Array
    own: Array
    variance: float

    def of_windows(self, size: int) -> Noise:
        """The noise as windows of this half-window size have it: fewer of their voxels have all their neighbours."""
        return replace(self.noise, kappa=nested_kappas(self.noise.rho, self.gamma, size - 1, self.own))


def steps(least: int, most: int, two_d: bool) -> list[tuple[int, int]]:
    """Half-window sizes ``[first, end)`` that are looked at together, up to `most`."""
    found, first = [], least
    while first <= most:
        larger = (2 * first - 1) * GROWTH ** (1 / (2 if two_d else 3))
        end = min(max(first + 1, int((larger + 1) / 2) + 1), most + 1)
        found.append((first, end))
        first = end
    return found


def largest_smooth(
    curvature: npt.ArrayLike, target: float, least: int, most: int
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Largest half-window sizes whose bias stays within a target.

    Parameters
    ----------
    curvature : (n,) float64
        Largest component of |∇²u|, 1/voxel; nan where it is not known: no limit.
    target : float
        Voxels.
    least, most : int

    Returns
    -------
    sizes : (n,) int64
        At least `least`, even where its bias is larger.
    beyond : (n,) bool
        Where it is.
    """
    sizes = np.arange(least, most + 1)
    bias = np.nan_to_num(np.asarray(curvature, np.float64))[:, None] * (sizes * (sizes - 1) / 6)
    good = np.count_nonzero(bias <= target, axis=1)
    return np.maximum(least + good - 1, least).astype(np.int64), good == 0


class SizeRule:
    """Predicts random errors of windows of all sizes from their sums (`kernels.windows.shell_sums`).

    Parameters
    ----------
    facts : NoiseFacts
    order : {1, 3}
        Of the interpolation of image 2.
    least, most : int
        Half-window sizes.
    """

    def __init__(self, facts: NoiseFacts, order: int, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.two_d = facts.image.shape[0] == 1
        self._variance = facts.variance
        self._shared_K, self._shared_G = (shared_noise(facts.image, one) for one in (order, None))
        # of the displacement
        self._root = np.sqrt([facts.of_windows(size).kappa[3::4] for size in range(least, most + 1)])

    def sigma(self, sums: Array, first: int) -> Array:
        """Largest standard deviation of a component of the displacement, voxels.

        Parameters
        ----------
        sums : (n, k, SUMS) float64
            Of whole windows of the half-window sizes `first`, first + 1 …
        first : int

        Returns
        -------
        (n, k) float64
            inf where there is no texture besides the noise.
        """
        n, k = sums.shape[:2]
        root = self._root[first - self.least : first - self.least + k]
        M = sums[..., [[0, 1, 2], [1, 3, 4], [2, 4, 5]]]
        voxels, whole = sums[..., 15, None, None], sums[..., 16, None, None]
        A = sums[..., 6:15].reshape(n, k, 3, 3) - whole * self._shared_K - (voxels - whole) * self._shared_G
        if self.two_d:
            root, M, A = root[:, 1:], M[..., 1:, 1:], A[..., 1:, 1:]
        diagonal = np.diagonal(A, axis1=2, axis2=3)
        scale = np.sqrt(np.abs(diagonal[..., :, None] * diagonal[..., None, :]))
        textured = (diagonal > 0).all(axis=2)
        scale[~textured] = 1.0
        textured &= np.abs(np.linalg.det(A / scale)) > 1e-6
        A = np.where(textured[..., None, None], A, np.eye(A.shape[-1]))
        inverse = np.linalg.inv(A)
        DMD = root[..., :, None] * M * root[..., None, :]
        variance = self._variance * np.einsum("...ij,...jk,...ik->...i", inverse, DMD, inverse)
        variance *= _unevenness(sums[..., 17:], self.two_d)[..., None]
        found = np.sqrt(np.maximum(variance.max(axis=2), 0))
        return np.asarray(np.where(textured, found, np.inf))


def _unevenness(moments: Array, two_d: bool) -> Array:
    """Factor (n, k) of the variance of a displacement by which it depends on F, from moments (n, k, 10) of G · G."""
    total, m = np.maximum(moments[..., 0], 1e-300), moments[..., 1:4]
    S = moments[..., [[4, 5, 6], [5, 7, 8], [6, 8, 9]]]
    if two_d:
        m, S = m[..., 1:], S[..., 1:, 1:]
    # where voxels lie in a plane, or a line, nothing depends on what is across it
    S = S + (1e-9 * np.trace(S, axis1=2, axis2=3)[..., None, None] + 1e-300) * np.eye(S.shape[-1])
    share = np.einsum("...i,...i->...", m, np.linalg.solve(S, m[..., None])[..., 0]) / total
    return np.asarray(1 / np.maximum(1 - share, 1e-6))
