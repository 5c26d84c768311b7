"""Refinement of a motion between two images by Gauss–Newton with the unknowns of a similarity."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mpidvc.arrays import Array, is_two_d
from mpidvc.core import deformation
from mpidvc.core.boxes import gradient_voxels
from mpidvc.core.coarse_pair import Level, framed
from mpidvc.core.registration import BlockSums, GaussNewton, RegistrationSettings
from mpidvc.kernels import correlation

__all__ = ["Candidate", "Refinement"]

#: Least part of image 1 that has to be compared.
LEAST_OVERLAP = 0.1


class Candidate(NamedTuple):
    """A refined motion.

    Attributes
    ----------
    score : float
        Fisher's z of the ZNCC times the root of the number of compared voxels; 0 for a refinement that failed.
    zncc : float
    overlap : float
        Part of image 1 that was compared.
    phi : (4, 4) float64
        About the centre of the image, in its voxels.
    """

    score: float
    zncc: float
    overlap: float
    phi: Array


class Similarity(GaussNewton):
    """Gauss–Newton with the unknowns of a similarity: translation, rotation, uniform stretch."""

    def __init__(self, settings: RegistrationSettings, phi: Array, two_d: bool) -> None:
        super().__init__(settings, phi, two_d)
        # columns: how the twelve entries of a change of Phi follow from each unknown
        turns = np.zeros((3, 3, 4))
        for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
            turns[axis, i, j], turns[axis, j, i] = -1, 1
        stretch = np.zeros((1, 3, 4))
        moves = np.zeros((3, 3, 4))
        for axis in range(3):
            moves[axis, axis, 3] = 1
            stretch[0, axis, axis] = 0 if two_d and axis == 0 else 1
        basis = [turns[:1], stretch, moves[1:]] if two_d else [turns, stretch, moves]
        self._basis = np.concatenate(basis).reshape(-1, 12).T

    def _solve(self, moments: Array, products: Array) -> Array | None:
        B = self._basis
        M = B.T @ products.transpose(0, 2, 1, 3).reshape(12, 12) @ B
        diagonal = np.diag(M)
        if not (np.isfinite(M).all() and (diagonal > 0).all()):
            return None
        scale = 1 / np.sqrt(diagonal)
        M = M * scale[:, None] * scale[None, :]
        if np.linalg.eigvalsh(M)[0] < correlation.LEAST_PIVOT:
            return None
        delta: Array = B @ (np.linalg.solve(M, B.T @ moments.ravel() * scale) * scale)
        return delta.reshape(3, 4) if np.isfinite(delta).all() else None

    def _update(self, delta: Array) -> None:
        super()._update(delta)
        if not self.finished:
            F = self.phi[:3, :3]
            volume = np.linalg.det(F)
            if not volume > 0:
                self._stop(-3, final=True)
                return
            stretch = volume ** (1 / (2 if self.two_d else 3))
            self.phi[:3, :3] = deformation.polar(F)[0] @ np.diag([1 if self.two_d else stretch, stretch, stretch])


class Refinement:
    """Gauss–Newton from each of many first guesses; a chunk is one of them.

    Parameters
    ----------
    level : Level
    starts : list of (4, 4) float64
        Phi about the centre of the image.
    """

    def __init__(self, level: Level, starts: list[Array]) -> None:
        self._level = level
        self._starts = starts
        self.n_chunks = len(starts)

    def run(self, chunk: int) -> Candidate:
        """Return the refined motion, in voxels of this level."""
        im1, data1, im2, data2 = self._level
        two_d = is_two_d(im1.shape)
        box1 = correlation.empty_box(im1.shape)
        box1[...] = im1
        box, begin, end, centre = framed(im2)
        valid = None
        if data2 is not None:
            valid = np.ones(box.shape, np.uint8)
            valid[tuple(slice(int(a), int(b) + 1) for a, b in zip(begin, end, strict=True))] = data2
        usable = gradient_voxels(data1, 1, False, two_d)
        low = np.array([0 if two_d else 1, 1, 1])
        n = np.array(im1.shape) - 2 * low
        spread1, spread2 = float(im1.std(dtype=np.float64)), float(im2.std(dtype=np.float64))
        if not (spread1 > 0 and spread2 > 0):
            return Candidate(0.0, math.nan, 0.0, self._starts[chunk])
        gain = spread1 / spread2
        mean1 = float(im1.mean(dtype=np.float64))
        settings = RegistrationSettings(
            max_iterations=60,
            min_delta_phi=2e-4,
            criterion="znssd",
            gain=gain,
            bias=mean1 - gain * float(im2.mean(dtype=np.float64)),
            level=mean1,
        )
        kernel = settings.for_kernels(two_d)
        solver = Similarity(settings, self._starts[chunk], two_d)
        inner = tuple(slice(a, a + k) for a, k in zip(low, n, strict=True))
        voxels = float(n.prod() if usable is None else usable[inner].sum())
        while not solver.finished:
            phi = solver.phi
            place = (centre + phi[:3, 3]).tolist()
            sums = correlation.block_sums(
                kernel, box1, usable, None, box, valid, low, n, phi[:3, :3], place, begin, end,
                settings.level, solver.gain, solver.bias,
            )  # fmt: skip
            if sums[0] < LEAST_OVERLAP * voxels:
                return Candidate(0.0, math.nan, float(sums[0]) / max(voxels, 1.0), phi)
            solver.advance(BlockSums.of(sums))
        if solver.status < 1 or not solver.zncc > 0:
            return Candidate(0.0, solver.zncc, 0.0, solver.phi)
        score = math.atanh(min(solver.zncc, 0.9999)) * math.sqrt(solver.compared)
        return Candidate(score, solver.zncc, solver.compared / voxels, solver.phi)
