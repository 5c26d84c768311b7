"""Grey levels of the two states: which are plausible, their statistics, and the choice of the criterion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array

__all__ = [
    "ANY_VALUE",
    "CRITERIA",
    "Criterion",
    "GreyLevels",
    "Limits",
    "base_of",
    "choose_criterion",
    "plausible_limits",
]

Criterion = Literal["ssd", "znssd"]
CRITERIA = ("auto", "ssd", "znssd")
#: Least and greatest value that is a grey level; both finite.
Limits = tuple[float, float]

#: The limits of every value that single precision holds.
ANY_VALUE: Limits = (-float(np.finfo(np.float32).max), float(np.finfo(np.float32).max))
#: Magnitude beyond which values mark missing data, as -3.4e38, 1e36 and 1e30 do: about 6e29.
LARGEST_VALUE = 2.0**99
#: Quantiles between which statistics are taken.
TAILS = (0.001, 0.999)
#: Distances of those quantiles that a grey level may lie beyond them.
BEYOND = 1000.0
#: Mean grey level, in standard deviations, up to which single precision has digits enough for the texture.
LARGEST_MEAN = 64
#: ssd needs means that differ by less than this many standard deviations, and standard deviations this equal.
LARGEST_SHIFT = 0.1
LARGEST_RATIO = 1.1
SMALLEST_RATIO = 0.9
#: Correlation of a window with its place in image 2 from which on it shows the same, and the fewest such windows.
LEAST_CORRELATION, FEWEST_ALIKE = 0.8, 8


def plausible_limits(sample: npt.ArrayLike) -> Limits:
    """Least and greatest plausible grey level of an image; what lies beyond is a fault of the file, and no data.

    Values beyond ±2^99 (6e29) mark missing data. Of the others, q and p being the 0.1 % and 99.9 % quantiles, grey
    levels lie between q - 1000 (p - q) and p + 1000 (p - q): an inclusion may depart from the image by a thousand times
    its contrast. Where q = p nothing measures the contrast, and every value within ±2^99 is plausible.

    Parameters
    ----------
    sample : array
        Grey levels from all over the image; may hold nan and infinite values, and be empty.

    Returns
    -------
    low, high : float
    """
    values = np.asarray(sample, np.float64).ravel()
    values = values[np.abs(values) <= LARGEST_VALUE]
    low, high = np.quantile(values, TAILS).tolist() if values.size else (0.0, 0.0)
    reach = BEYOND * (high - low) if low < high else math.inf
    return max(low - reach, -LARGEST_VALUE), min(high + reach, LARGEST_VALUE)


def _robust(sample: Array) -> tuple[float, float]:
    """Mean and standard deviation of the values between the 0.1 % and the 99.9 % quantile, ends included."""
    low, high = np.quantile(sample, TAILS)
    inner = sample[(sample >= low) & (sample <= high)]
    return float(inner.mean()), float(inner.std())


def base_of(sample: npt.ArrayLike) -> float:
    """Return the constant to take off an image's grey levels before they become single precision.

    Single precision has 24 bits: grey levels of 10⁶ ± 1 would leave four of them to the texture, and fewer after a
    spline prefilter. Where the robust mean is at most 64 standard deviations, 18 bits are left and the constant is 0.
    Else it is the mean, rounded to a power of two not above the deviation: differences of whole grey levels stay exact.

    Parameters
    ----------
    sample : array
        Plausible grey levels from all over the image; may be empty.
    """
    values = np.asarray(sample, np.float64).ravel()
    mean, sd = _robust(values) if values.size else (0.0, 0.0)
    if not (sd > 0 and abs(mean) > LARGEST_MEAN * sd):
        return 0.0
    step = math.ldexp(1.0, math.frexp(sd)[1] - 1)
    return round(mean / step) * step


@dataclass(frozen=True)
class GreyLevels:
    """Grey levels of what is compared in both images.

    Attributes
    ----------
    mean1, sd1, mean2, sd2 : float
        Robust mean and standard deviation of all windows together.
    local_shift, local_ratio : float
        How far single windows differ, as medians over windows: |m₂ - m₁| / s₁ and |s₂ / s₁ - 1|.
    """

    mean1: float
    sd1: float
    mean2: float
    sd2: float
    local_shift: float = 0.0
    local_ratio: float = 0.0

    @classmethod
    def of(cls, windows: Sequence[tuple[Array, Array]], alone: bool = True) -> GreyLevels:
        """Of the grey levels of images 1 and 2 at the same voxels of each window; no window counts as constant 0.

        `alone`: each window is registered by itself, so that single ones matter; if not, local differences are 0.

        Each image's mean and deviation are over its values between their 0.1 % and 99.9 % quantiles (a trimmed mean, as
        Huber & Ronchetti 2009, doi 10.1002/9780470434697): single faults do not count, and 8-bit and porous images,
        most of whose voxels are equal, keep a deviation. Single windows tell something where they show the same in
        both images, with a correlation of 0.8 or more: motion that the guess does not know changes them, too. With
        fewer than eight of these the local differences are 0.
        """
        if not windows:
            return cls(0.0, 0.0, 0.0, 0.0)
        first, second = (np.concatenate([np.asarray(pair[k], np.float64) for pair in windows]) for k in (0, 1))
        local = [one for a, b in windows if (one := _local(a, b)) is not None] if alone else []
        shift, ratio = np.median(np.array(local), axis=0).tolist() if len(local) >= FEWEST_ALIKE else (0.0, 0.0)
        return cls(*_robust(first), *_robust(second), shift, ratio)

    @property
    def agree(self) -> bool:
        """Whether |m₁ - m₂| ≤ 0.1 s₁ and 0.9 ≤ s₂ / s₁ ≤ 1.1, of all windows together and in most of them."""
        return self._agree_together and self.local_shift <= LARGEST_SHIFT and self.local_ratio <= LARGEST_RATIO - 1

    @property
    def _agree_together(self) -> bool:
        return (
            abs(self.mean1 - self.mean2) <= LARGEST_SHIFT * self.sd1
            and SMALLEST_RATIO * self.sd1 <= self.sd2 <= LARGEST_RATIO * self.sd1
        )

    def __str__(self) -> str:
        text = f"grey levels {self.mean1:.5g} ± {self.sd1:.4g} and {self.mean2:.5g} ± {self.sd2:.4g}"
        if self._agree_together and not self.agree:
            shift, ratio = self.local_shift, 100 * self.local_ratio
            return f"{text} differ in single windows (mean by {shift:.2g} deviations, deviation by {ratio:.2g} %)"
        return f"{text} {'agree' if self.agree else 'differ'}"


def _local(first: Array, second: Array) -> tuple[float, float] | None:
    """|m₂ - m₁| / s₁ and |s₂ / s₁ - 1| of a window; None where it does not show the same in both images."""
    mean1, mean2 = first.mean(), second.mean()
    a, b = first - mean1, second - mean2
    s1, s2 = math.sqrt((a * a).mean()), math.sqrt((b * b).mean())
    if not (s1 > 0 and s2 > 0) or (a * b).mean() < LEAST_CORRELATION * s1 * s2:
        return None
    return abs(mean2 - mean1) / s1, abs(s2 / s1 - 1)


@dataclass(frozen=True)
class Choice:
    """The criterion of a run, the map ``f = gain * g + bias`` of grey levels it starts from, and the reason."""

    criterion: Criterion
    gain: float
    bias: float
    reason: str


def choose_criterion(asked: str, levels: GreyLevels) -> Choice:
    """Decide between ``ssd`` (spam's) and ``znssd`` (zero-mean normalised), once per run.

    ``auto`` takes ssd where the grey levels of both states agree (`GreyLevels.agree`).
    """
    if asked not in CRITERIA:
        raise ValueError(f"criterion {asked!r}: choose from {', '.join(CRITERIA)}")
    reason = str(levels) if asked == "auto" else f"asked for; {levels}"
    if asked == "ssd" or (asked == "auto" and levels.agree):
        return Choice("ssd", 1.0, 0.0, reason)
    gain = levels.sd1 / levels.sd2 if levels.sd1 > 0 and levels.sd2 > 0 else 1.0
    return Choice("znssd", gain, levels.mean1 - gain * levels.mean2, reason)
