"""Pictures of grey levels: of one image, and of the comparison of two."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Float32Array
from mpidvc.core.grey import TAILS

__all__ = ["MODES", "Contrast", "Histogram", "Mode", "chessboard", "compare", "grey", "histogram", "robust_limits"]

Bytes = npt.NDArray[np.uint8]
#: Ways to compare two slices.
Mode = Literal["difference", "absolute", "checkerboard", "overlay"]
MODES: tuple[Mode, ...] = ("difference", "absolute", "checkerboard", "overlay")
#: Columns of a histogram.
BARS = 128
#: Colours (r, g, b) along a map, evenly spaced: blue over white to red, and black over red and yellow to white.
DIVERGING = ((33, 72, 150), (98, 152, 205), (245, 245, 245), (226, 121, 90), (158, 26, 44))
HEAT = ((8, 8, 18), (96, 18, 80), (200, 60, 50), (250, 160, 40), (255, 250, 210))
#: Where one of the images has no grey level.
NOTHING = (38, 42, 50)
#: The tint of image 1's squares.
TINT = (1.0, 0.84, 0.55)


class Contrast(NamedTuple):
    """The grey levels that are drawn black and white."""

    low: float
    high: float


class Histogram(NamedTuple):
    """Counts (BARS,) of grey levels between `low` and `high`; what lies beyond counts at the ends."""

    low: float
    high: float
    counts: npt.NDArray[np.int64]


def robust_limits(values: Float32Array) -> Contrast:
    """Grey levels between which nearly all values lie; they differ."""
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, TAILS).tolist() if finite.size else (0.0, 1.0)
    return Contrast(low, high) if high > low else Contrast(low - 0.5, low + 0.5)


def histogram(values: Float32Array, limits: Contrast) -> Histogram:
    """Histogram of the values that are finite, somewhat wider than the limits."""
    margin = 0.05 * (limits.high - limits.low)
    low, high = limits.low - margin, limits.high + margin
    finite = values[np.isfinite(values)]
    place = np.clip((finite - low) * (BARS / (high - low)), 0, BARS - 1).astype(np.int64)
    return Histogram(low, high, np.bincount(place, minlength=BARS))


def grey(values: Float32Array, contrast: Contrast) -> Bytes:
    """A slice in 256 greys (rows, columns); black where there is no grey level."""
    width = contrast.high - contrast.low if contrast.high > contrast.low else 1.0
    scaled: Float32Array = (values - np.float32(contrast.low)) * np.float32(255 / width)
    np.clip(scaled, 0, 255, out=scaled)
    scaled[np.isnan(scaled)] = 0
    return scaled.astype(np.uint8)


def compare(
    one: Float32Array,
    two: Float32Array,
    mode: Mode,
    contrasts: tuple[Contrast, Contrast],
    spread: float,
    gain: float = 1.0,
    bias: float = 0.0,
    squares: int = 5,
    tinted: bool = False,
) -> Bytes:
    """Comparison of two slices, in colours (rows, columns, 3).

    Parameters
    ----------
    one, two : (rows, columns) float32
        Image 1 deformed, and image 2.
    mode : Mode
        ``difference``: image 2 less image 1, blue to red; ``absolute``: its magnitude; ``checkerboard``: squares of
        both in turn; ``overlay``: image 1 in magenta over image 2 in green, grey where they agree.
    contrasts : 2 Contrast
        Of both images.
    spread : float
        Difference of grey levels that gets the last colour.
    gain, bias : float
        Map of the grey levels of image 2 to those of image 1, for differences.
    squares : int
        Squares along the longer side.
    tinted : bool
        Whether the squares of image 1 are tinted.
    """
    if mode in ("difference", "absolute"):
        difference = np.float32(gain) * two + np.float32(bias) - one
        colours = _DIVERGING if mode == "difference" else _HEAT
        scaled = difference / np.float32(spread if spread > 0 else 1.0)
        place = np.clip(128 + 127 * scaled, 1, 255) if mode == "difference" else np.clip(np.abs(scaled) * 255, 0, 255)
        nothing = np.isnan(place)
        place[nothing] = 0
        picture: Bytes = colours[place.astype(np.uint8)]
        picture[nothing] = NOTHING
        return picture
    a, b = grey(one, contrasts[0]), grey(two, contrasts[1])
    if mode == "overlay":
        return np.stack([a, b, a], axis=-1)
    first = chessboard((a.shape[0], a.shape[1]), squares)
    squared: Bytes = np.repeat(np.where(first, a, b)[..., None], 3, axis=-1)
    if tinted:
        # never black: an empty square of image 1 is to be told from one of image 2
        squared[first] = np.maximum(squared[first], 24) * np.array(TINT)
    return squared


def chessboard(shape: tuple[int, int], squares: int) -> npt.NDArray[np.bool_]:
    """Squares of image 1 (rows, columns): every other one, the first at the upper left included."""
    edge = max(shape) / squares
    rows, columns = ((np.arange(n) / edge).astype(np.int64) for n in shape)
    return np.asarray((rows[:, None] + columns) % 2 == 0)


def _map(anchors: tuple[tuple[int, int, int], ...]) -> Bytes:
    """256 colours between anchors."""
    at = np.linspace(0, len(anchors) - 1, 256)
    return np.stack([np.interp(at, range(len(anchors)), channel) for channel in zip(*anchors, strict=True)], -1).astype(
        np.uint8
    )


_DIVERGING, _HEAT = _map(DIVERGING), _map(HEAT)
