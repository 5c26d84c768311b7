"""Integer displacement of windows: settings of a search, window 1 as it is searched, numbers of a result."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Float32Array, Ints, Triple, is_two_d
from mpidvc.core import deformation
from mpidvc.kernels import correlation

__all__ = [
    "RESULT",
    "LabelSearchSettings",
    "SearchSettings",
    "Window",
    "applied_gradients",
    "cut_window",
    "deformed_boxes",
    "pad_of",
    "warp_window",
]

Map = npt.NDArray[np.uint8] | None

#: Numbers of a searched point, in the order of its records. ``coverage``: fraction of window 1 that exists and is not
#: masked; ``atLimit``: 1 if the best offset is an end of the search range.
RESULT = ("pixelSearchCC", "returnStatus", "error", "deltaPhiNorm", "iterations", "coverage", "atLimit")
#: A few voxels always agree somewhere: a candidate has to compare this fraction of window 1, or ``-mc`` if less.
LEAST_OVERLAP = 0.25


@dataclass(frozen=True)
class SearchSettings:
    """Settings that determine a pixel search, besides images and points.

    Attributes
    ----------
    hws : 3 ints
        Half-window size, voxels; 0 along z in 2D.
    low, high : 3 ints
        Range of the search about the rounded guess, both ends included; 0 along z in 2D.
    apply_f : {"all", "rigid", "no"}
        Part of the guess's F that deforms window 1.
    zero_mean : bool
        Whether the means are subtracted before windows are compared.
    min_coverage : float
        Least fraction of window 1 inside the image and not masked.
    grey_low, grey_high : float
        Limits of the mean grey level of window 1, both excluded.
    """

    hws: Triple
    low: Triple
    high: Triple
    apply_f: str = "all"
    zero_mean: bool = False
    min_coverage: float = 0.5
    grey_low: float = -math.inf
    grey_high: float = math.inf

    @property
    def min_overlap(self) -> float:
        """Least fraction of the usable voxels of window 1 that have a usable partner in a window of image 2."""
        return min(self.min_coverage, LEAST_OVERLAP)


@dataclass(frozen=True)
class LabelSearchSettings:
    """Settings that determine a pixel search of labels, besides images and labels.

    Attributes
    ----------
    low, high : 3 ints
        Range of the search about the rounded guess, both ends included; 0 along z in 2D.
    apply_f : {"all", "rigid", "no"}
        Part of the guess's F that deforms labels about their centres of mass.
    zero_mean : bool
        Whether the means are subtracted before windows are compared.
    dilate : int
        Radius (voxels) of the ball that dilates labels; below 0 erodes them.
    volume_threshold : int
        Labels whose mask has no more voxels are skipped.
    """

    low: Triple
    high: Triple
    apply_f: str = "all"
    zero_mean: bool = False
    dilate: int = 1
    volume_threshold: int = 100

    @property
    def min_overlap(self) -> float:
        """Least fraction of a label's voxels that have a partner in image 2."""
        return LEAST_OVERLAP


@dataclass(frozen=True)
class Window:
    """Window 1 of a point: grey levels (0 outside), usable voxels (None: all), and whether it is to be searched."""

    values: Float32Array
    usable: Map
    accepted: bool

    @property
    def coverage(self) -> float:
        """Fraction of its voxels that are usable."""
        return 1.0 if self.usable is None else np.count_nonzero(self.usable) / self.usable.size


def applied_gradients(F: Array, apply_f: str) -> tuple[npt.NDArray[np.bool_], Array]:
    """Mask of the points whose window is deformed, and the F to deform it by (nan where it cannot be applied).

    Parameters
    ----------
    F : (n, 3, 3)
    apply_f : {"all", "rigid", "no"}
    """
    if apply_f == "no":
        return np.zeros(len(F), bool), np.tile(np.eye(3), (len(F), 1, 1))
    used = deformation.polar(F)[0] if apply_f == "rigid" else np.array(F, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        determinant = np.linalg.det(np.where(np.isfinite(used), used, 0.0))
    used[~(np.abs(determinant) > 1e-9)] = np.nan
    same = np.asarray(np.isclose(used, np.eye(3), rtol=1e-5, atol=1e-8).all(axis=(1, 2)))
    return ~same, used


def pad_of(hws: Triple) -> int:
    """Voxels of image 1 that are read beyond a window when it is deformed."""
    return int(0.5 * math.ceil(max(hws)))


def deformed_boxes(low: Ints, high: Ints, centre: Array, F: Array, two_d: bool) -> tuple[Ints, Ints]:
    """Boxes ``[low, high)`` of masks that are deformed about a centre.

    Boxes reach beyond the given ones by at most half of their longest side: any rotation about the middle fits in.

    Parameters
    ----------
    low, high : (n, 3) int64
        Boxes that hold the masks, voxels.
    centre : (n, 3) float64
    F : (n, 3, 3)
    two_d : bool
        Whether only the plane is deformed.

    Returns
    -------
    low, high : (n, 3) int64
    """
    # voxels reach half a voxel beyond their middles
    middle, half = (low + high - 1) / 2, (high - low) / 2
    moved = centre + np.einsum("nij,nj->ni", F, middle - centre)
    reach = np.einsum("nij,nj->ni", np.abs(F), half)
    pad = np.ceil((high - low).max(axis=1) / 2)[:, None]
    first = np.clip(np.ceil(moved - reach), low - pad, high + pad).astype(np.int64)
    stop = np.clip(np.floor(moved + reach) + 1, first + 1, high + pad).astype(np.int64)
    if two_d:
        first[:, 0], stop[:, 0] = low[:, 0], high[:, 0]
    return first, np.maximum(stop, first + 1)


def _accepted(values: Float32Array, covered: Map, real: Map, settings: SearchSettings) -> bool:
    """Whether coverage and mean grey level are within the limits; voxels that do not exist have no grey level."""
    if covered is not None and not covered.any():
        return False
    if covered is not None and np.count_nonzero(covered) < settings.min_coverage * covered.size:
        return False
    if settings.grey_low == -math.inf and settings.grey_high == math.inf:
        return True
    grey = values if real is None else values[real != 0]
    return bool(settings.grey_low < float(grey.mean(dtype=np.float64)) < settings.grey_high)


def cut_window(box: Float32Array, covered: Map, real: Map, centre: Ints, settings: SearchSettings) -> Window:
    """Cut the window about a voxel of box 1.

    `covered` is the map of the voxels that exist and are not masked, `real` that of the voxels that exist.
    """
    part = tuple(slice(int(c) - h, int(c) + h + 1) for c, h in zip(centre, settings.hws, strict=True))
    usable, there = (None if voxels is None else voxels[part] for voxels in (covered, real))
    return Window(box[part], usable, _accepted(box[part], usable, there, settings))


def warp_window(box: Float32Array, covered: Map, real: Map, centre: Ints, F: Array, settings: SearchSettings) -> Window:
    """Cut the window about a voxel of box 1, deformed by F about its centre: the value at x is that at ``F⁻¹ x``.

    Samples farther from the window than `pad_of` are no data, nor are those next to voxels that do not exist; masks are
    sampled to the nearest voxel.

    Parameters
    ----------
    box : (z, y, x) float32
    covered, real : maps or None
    centre : 3 ints
        Voxel of the box, which reaches `pad_of` voxels and the taps of an interpolation beyond the window.
    F : (3, 3)
    settings : SearchSettings
    """
    hws = np.array(settings.hws)
    two_d = is_two_d(box.shape)
    inverse = np.linalg.inv(F)
    if two_d:
        inverse[0], inverse[:, 0] = (1, 0, 0), (1, 0, 0)
    reach = np.where(hws == 0, 0, hws + pad_of(settings.hws)) if two_d else hws + pad_of(settings.hws)
    low, high = (centre - reach).astype(np.float64), (centre + reach).astype(np.float64)
    shape = tuple(2 * hws + 1)

    def sampled(source: Float32Array) -> Float32Array:
        out = correlation.empty_box(shape)
        correlation.warp(source, 1, two_d, inverse, centre.astype(np.float64), low, high, out)
        return out

    values = sampled(box)
    corners = np.abs(inverse) @ hws
    if real is None and covered is None and bool((corners <= reach).all()):
        return Window(values, None, _accepted(values, None, None, settings))
    exists = np.ones(box.shape, np.float32) if real is None else real.astype(np.float32)
    usable_real = sampled(exists) > 0.9999
    usable = usable_real
    if covered is not None:
        usable = usable_real & (sampled(covered.astype(np.float32)) >= 0.5)
    open_, there = usable.astype(np.uint8), usable_real.astype(np.uint8)
    return Window(values, open_, _accepted(values, open_, there, settings))
