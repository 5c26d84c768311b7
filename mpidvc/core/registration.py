"""Gauss–Newton registration: its settings, and the solution from sums over blocks.

The model is ``im1(x) = im2(Phi x)``; every iteration solves ``M δ = A`` with ``A = Σ r G X`` and ``M = Σ (G X)(G X)ᵀ``
(r residual, G gradient of image 1, X = (z, y, x, 1) about the centre) and updates ``Phi ← Phi (I + δ)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array
from mpidvc.core import deformation
from mpidvc.core.grey import Criterion
from mpidvc.kernels import correlation

__all__ = ["BlockSums", "GaussNewton", "RegistrationSettings", "Step"]


@dataclass(frozen=True)
class RegistrationSettings:
    """Settings that determine a registration, besides the images.

    Attributes
    ----------
    order : {1, 3}
        Interpolation of image 2: linear or cubic B-spline.
    max_iterations : int
    min_delta_phi : float
        Largest norm of the change of Phi at which a registration has converged.
    rigid : bool
        Whether Phi is rotation and translation only.
    update_gradient : bool
        Whether the gradient is that of the deformed image 2, anew in every iteration, instead of image 1's.
    sigma : float or None
        Gaussian derivatives of this standard deviation (voxels); None: central differences.
    shift : bool
        Shift-DVC: both images sampled a quarter of a voxel off the grid, all signs in turn.
    criterion : {"ssd", "znssd"}
    gain, bias : float
        znssd: first estimate of the map ``im1 = gain * im2 + bias`` of grey levels.
    level : float
        Approximate mean grey level of image 1, subtracted in sums over the whole image to keep them precise.
    """

    order: int = 1
    max_iterations: int = 50
    min_delta_phi: float = 1e-3
    rigid: bool = False
    update_gradient: bool = False
    sigma: float | None = None
    shift: bool = False
    criterion: Criterion = "ssd"
    gain: float = 1.0
    bias: float = 0.0
    level: float = 0.0

    def for_kernels(self, two_d: bool, base1: float = 0.0, base2: float = 0.0) -> correlation.Settings:
        """The settings in the kernels' form; bases: constants that are taken off the images (`mpidvc.core.grey`)."""
        gain, bias = (self.gain, self.bias) if self.criterion == "znssd" else (1.0, 0.0)
        return correlation.Settings(
            order=self.order,
            two_d=two_d,
            znssd=self.criterion == "znssd",
            rigid=self.rigid,
            update_gradient=self.update_gradient,
            shift=self.shift,
            max_iterations=self.max_iterations,
            min_delta_phi=abs(self.min_delta_phi),
            sigma=self.sigma,
            gain=gain,
            bias=bias + gain * base2 - base1,
            base1=base1,
        )


#: Index into the ten monomials 1 z y x zz zy zx yy yx xx of the product of two of (z, y, x, 1).
_MONOMIAL = np.array([[4, 5, 6, 1], [5, 7, 8, 2], [6, 8, 9, 3], [1, 2, 3, 0]])
_PAIR = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])


@dataclass
class BlockSums:
    """Sums of one pass (see ``cython_ext/gauss_newton.hpp``), unpacked; they can be moved and added.

    Attributes
    ----------
    scalars : (6,) float64
        Voxels, Σf, Σf², Σr, Σr², Σfr (f less its level).
    moments : (3, 3, 4) float64
        Σ r G_i X_j, Σ f G_i X_j, Σ G_i X_j.
    products : (3, 3, 4, 4) float64
        Σ G_i G_k X_j X_l.
    """

    scalars: Array
    moments: Array
    products: Array

    @classmethod
    def of(cls, sums: Array) -> BlockSums:
        """Unpack a kernel's vector."""
        products = sums[42:102].reshape(6, 10)[_PAIR][:, :, _MONOMIAL]
        return cls(sums[:6].copy(), sums[6:42].reshape(3, 3, 4).copy(), products)

    def moved(self, offset: npt.ArrayLike) -> BlockSums:
        """The sums about an origin that lies at ``-offset`` from this one's: X becomes X + offset."""
        S = np.eye(4)
        S[:3, 3] = offset
        return BlockSums(self.scalars, self.moments @ S.T, S @ self.products @ S.T)

    def packed(self) -> Array:
        """One vector, for adding and sending."""
        return np.concatenate([self.scalars, self.moments.ravel(), self.products.ravel()])

    @classmethod
    def unpacked(cls, vector: Array) -> BlockSums:
        """The inverse of `packed`."""
        return cls(vector[:6], vector[6:42].reshape(3, 3, 4), vector[42:186].reshape(3, 3, 4, 4))


class Step(NamedTuple):
    """State of a registration after an iteration: Phi, the error there, and the norm of the last change of Phi."""

    phi: Array
    error: float
    delta_phi_norm: float


class GaussNewton:
    """State of one registration, advanced by the sums of each pass.

    Use: while not ``finished``, add up the sums of a pass at ``phi`` (with ``gain`` and ``bias``) and give them to
    `advance`. The first call only measures the error of the guess.

    Parameters
    ----------
    settings : RegistrationSettings
    phi : (4, 4)
        First guess about the centre that the sums refer to.
    two_d : bool

    Attributes
    ----------
    history : list of Step
        The start, and the state after every iteration.
    """

    def __init__(self, settings: RegistrationSettings, phi: Array, two_d: bool) -> None:
        self.settings = settings
        self.phi = deformation.rigid_part(phi) if settings.rigid else np.array(phi, dtype=np.float64)
        self.two_d = two_d
        self.gain = settings.gain if settings.criterion == "znssd" else 1.0
        self.bias = settings.bias if settings.criterion == "znssd" else 0.0
        self.error = math.inf
        self._mean_square = math.inf
        self.zncc = math.nan
        self.compared = 0.0
        self.iterations = 0
        self.status = 0
        self.delta_phi_norm = correlation.NOT_YET
        self.finished = False
        self.history: list[Step] = []
        self._unknowns = [u for u in range(12) if not two_d or (u >= 4 and u % 4 != 0)]

    def advance(self, sums: BlockSums) -> None:
        """Take the sums of a pass at the present Phi: test, then solve for the next Phi."""
        n, f, ff, r, rr, fr = sums.scalars
        level = self.settings.level
        self.compared = float(n)
        if n < 1:
            self._stop(-3, final=True)
            return
        moments = sums.moments[0]
        stretch = 1.0
        mean_f, mean_g = f / n, (f - r) / n
        var_f, var_g = ff / n - mean_f**2, (ff - 2 * fr + rr) / n - mean_g**2
        if var_f > 0 and var_g > 0:
            self.zncc = ((ff - fr) / n - mean_f * mean_g) / math.sqrt(var_f * var_g)
        if self.settings.criterion == "znssd":
            if not (var_f > 0 and var_g > 0):
                self._stop(-2, final=True)
                return
            alpha = math.sqrt(var_f / var_g)
            beta = mean_f - alpha * mean_g
            # r' = f - (alpha g + beta), from the sums of r = f - g
            moments = (1 - alpha) * sums.moments[1] + alpha * sums.moments[0] - beta * sums.moments[2]
            squares = (
                (1 - alpha) ** 2 * ff
                + alpha**2 * rr
                + n * beta**2
                + 2 * (1 - alpha) * alpha * fr
                - 2 * (1 - alpha) * beta * f
                - 2 * alpha * beta * r
            )
            self.bias = alpha * (self.bias - level) + beta + level
            self.gain *= alpha
            if self.settings.update_gradient:
                stretch = alpha
        else:
            squares = rr
        grey = f + n * level
        self.error = squares / grey if grey else math.inf
        # not the error: its sign is that of the grey levels
        before, self._mean_square = self._mean_square, squares / n
        self.history.append(Step(self.phi, self.error, self.delta_phi_norm))
        if len(self.history) > 1:
            if before < correlation.GROWTH * self._mean_square and self.iterations > self.settings.max_iterations / 2:
                self._stop(-1)
                return
            volume = abs(np.linalg.det(self.phi[:3, :3]))
            if volume > correlation.LARGEST_VOLUME or volume < correlation.SMALLEST_VOLUME:
                self._stop(-3)
                return
            self.iterations += 1
        if self.iterations >= self.settings.max_iterations or self.delta_phi_norm <= abs(self.settings.min_delta_phi):
            self._stop(0)
            return
        delta = self._solve(moments, sums.products)
        if delta is None:
            self._stop(-2, final=True)
            return
        self._update(delta / stretch)

    def _solve(self, moments: Array, products: Array) -> Array | None:
        M = products.transpose(0, 2, 1, 3).reshape(12, 12)[np.ix_(self._unknowns, self._unknowns)]
        diagonal = np.diag(M)
        if not (np.isfinite(M).all() and (diagonal > 0).all()):
            return None
        scale = 1 / np.sqrt(diagonal)
        try:
            L = np.linalg.cholesky(M * scale[:, None] * scale[None, :])
        except np.linalg.LinAlgError:
            return None
        if np.diag(L).min() ** 2 < correlation.LEAST_PIVOT:
            return None
        b = moments.ravel()[self._unknowns] * scale
        delta = np.zeros(12)
        delta[self._unknowns] = np.linalg.solve(L.T, np.linalg.solve(L, b)) * scale
        return delta.reshape(3, 4) if np.isfinite(delta).all() else None

    def _update(self, delta: Array) -> None:
        step = np.eye(4)
        step[:3] += delta
        if self.settings.rigid:
            step = deformation.rigid_part(step)
            if not np.isfinite(step).all():
                self._stop(-2, final=True)
                return
        self.delta_phi_norm = float(np.linalg.norm((step - np.eye(4))[:3]))
        self.phi = deformation.compose(self.phi, step)
        if not np.isfinite(self.phi).all() or np.linalg.det(self.phi[:3, :3]) == 0:
            self._stop(-4, final=True)

    def _stop(self, status: int, final: bool = False) -> None:
        """End with a status; unless it is final a small last step overrides it, as in spam."""
        self.finished = True
        self.status = status
        if not final:
            if self.delta_phi_norm <= abs(self.settings.min_delta_phi):
                self.status = 2
            elif status == 0:
                self.status = 1
