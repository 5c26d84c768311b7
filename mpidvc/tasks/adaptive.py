"""Windows per point for ldic, chosen in each chunk from its box of image 1, the noise, and the field of the guess."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Float32Array, Ints
from mpidvc.core.adaptive import CURVATURE, LARGEST, MET, NoiseFacts, SizeRule, largest_smooth, steps
from mpidvc.core.boxes import gradient_voxels
from mpidvc.core.curvature import FEWEST, curvatures
from mpidvc.core.neighbourhood import neighbour_lists
from mpidvc.core.uncertainty import FRAME
from mpidvc.kernels import correlation, windows
from mpidvc.tasks.boxes import Map
from mpidvc.tasks.source import Source

__all__ = ["FITS", "SUMS", "AdaptiveSettings", "SizeChoice"]

#: Neighbours of a point that tell the curvature of the field lie within so many node spacings.
NEIGHBOURS = 2.5
#: Points whose fits are made at a time, bytes that these take, and bytes of the sums of the points of a chunk.
PLACES, FITS, SUMS = 32, 8_000_000, 3_000_000


@dataclass(frozen=True)
class AdaptiveSettings:
    """How windows are chosen.

    Attributes
    ----------
    target : float
        Largest standard deviation of a component of the displacement, and largest bias, voxels.
    least, most : int
        Smallest and largest half-window size.
    spacing : float
        Typical distance of points, voxels.
    """

    target: float
    least: int
    most: int
    spacing: float


class SizeChoice:
    """Chooses the windows of points.

    Parameters
    ----------
    settings : AdaptiveSettings
    facts : NoiseFacts
    order : {1, 3}
        Of the interpolation of image 2.
    field : Source or None
        Displacements whose curvature limits windows, of points that are to be trusted.
    """

    def __init__(self, settings: AdaptiveSettings, facts: NoiseFacts, order: int, field: Source | None = None) -> None:
        self._settings, self._order, self._field = settings, order, field
        self._rule = SizeRule(facts, order, settings.least, settings.most)
        self._facts = facts
        self._noises: dict[int, correlation.Noise] = {}
        self._two_d = self._rule.two_d

    @property
    def reach(self) -> int:
        """Voxels of image 1 around a point that a choice needs."""
        return self._settings.most - 1 + FRAME

    def noise(self, size: int) -> correlation.Noise:
        """The noise that windows of this half-window size have, for the kernels."""
        if size not in self._noises:
            noise = self._facts.of_windows(size)
            self._noises[size] = correlation.Noise(noise.rho, noise.kappa, noise.variance)
        return self._noises[size]

    def choose(self, box: Float32Array, usable: Map, real: Map, centres: Ints, nodes: Ints) -> tuple[Ints, Ints]:
        """Half-window sizes (n,) of points, and what limits them (n,).

        Parameters
        ----------
        box : (z, y, x) float32
            Image 1 around the points.
        usable, real : (z, y, x) uint8 or None
            Voxels that may be compared, and that exist.
        centres, nodes : (n, 3) int64
            Points in the box, and in image 1.
        """
        least, most, target, two_d = self._settings.least, self._settings.most, self._settings.target, self._two_d
        n = len(nodes)
        limit, beyond = largest_smooth(self._curvature(nodes.astype(np.float64)), target, least, most)
        whole = gradient_voxels(real, FRAME, True, two_d)
        smooth = box if self._order == 3 else _smoothed(box, two_d)
        sizes, met = limit.copy(), np.zeros(n, bool)
        total, last = np.zeros((n, windows.SUMS)), -1
        for first, end in steps(least, most, two_d):
            who = np.flatnonzero(~met & (limit >= first))
            if len(who) == 0:
                break
            # of H voxels to either side, 2 H - 1 are compared; the first step begins in the middle
            shells = windows.shell_sums(box, smooth, usable, whole, centres[who], last + 1, end - 2, two_d)
            sums = total[who, None] + np.cumsum(shells, axis=1)
            total[who], last = sums[:, -1], end - 2
            good = self._rule.sigma(sums[:, first - end :], first) <= target
            good &= np.arange(first, end) <= limit[who, None]
            some = good.any(axis=1)
            sizes[who[some]], met[who[some]] = first + good[some].argmax(axis=1), True
        met &= ~beyond
        return sizes, np.where(met, MET, np.where(beyond | (limit < most), CURVATURE, LARGEST))

    def _curvature(self, at: Array) -> Array:
        """Of the field at some places; nan where it is not known."""
        found = np.full(len(at), np.nan)
        if self._field is None:
            return found
        field, points = self._field.field, self._field.points
        radius, fewest = NEIGHBOURS * self._settings.spacing, FEWEST[self._two_d]
        for first in range(0, len(at), PLACES):
            some, part = at[first : first + PLACES], found[first : first + PLACES]
            for which, start, near in neighbour_lists(points, some, radius, None, None, fewest):
                part[which] = curvatures(field.positions, field.displacements, some[which], start, near, self._two_d)
        return found


def _smoothed(box: Float32Array, two_d: bool) -> Float32Array:
    """Image 1 as linear interpolations at all sub-voxel places show it in the mean; outermost voxels stay."""
    found: npt.NDArray[np.float32] = box.copy()
    for axis in range(1 if two_d else 0, 3):
        along, source = np.moveaxis(found, axis, 0), np.moveaxis(found.copy(), axis, 0)
        along[1:-1] += (source[:-2] - 2 * source[1:-1] + source[2:]) / np.float32(12)
    return found
