"""Grey levels of the two states: their statistics and the choice of the criterion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Ints, Triple

__all__ = ["CRITERIA", "Criterion", "GreyLevels", "choose_criterion", "lattice"]

Criterion = Literal["ssd", "znssd"]
CRITERIA = ("auto", "ssd", "znssd")

#: Most voxels of the lattice on which grey levels are compared.
LATTICE_VOXELS = 1_000_000
#: Limits within which ssd is chosen: difference of the means in standard deviations, ratio of the standard deviations.
LARGEST_SHIFT = 0.1
LARGEST_RATIO = 1.1
SMALLEST_RATIO = 0.9


def lattice(shape: Triple) -> tuple[Ints, Ints, int]:
    """Fixed sample of an image: planes, rows of each, and the step along the rows (whole rows read fastest).

    Returns
    -------
    planes, rows : int64 arrays
    step : int
        Every ``step``-th voxel of a row; the sample has at most `LATTICE_VOXELS` voxels.
    """
    nz, ny, nx = shape
    step = max(1, -(-nx // 1000))
    n_rows = max(1, LATTICE_VOXELS // -(-nx // step))
    n_z = min(nz, n_rows, max(1, int(np.sqrt(n_rows * nz / ny))))
    n_y = min(ny, max(1, n_rows // n_z))
    return _spread(nz, n_z), _spread(ny, n_y), step


def _spread(n: int, count: int) -> Ints:
    """``count`` indices spread evenly over ``range(n)``."""
    return (np.arange(count, dtype=np.int64) * 2 + 1) * n // (2 * count)


@dataclass(frozen=True)
class GreyLevels:
    """Mean and standard deviation of both images on the lattice."""

    mean1: float
    sd1: float
    mean2: float
    sd2: float

    @classmethod
    def of(cls, sample1: npt.ArrayLike, sample2: npt.ArrayLike) -> GreyLevels:
        """Statistics of two samples of grey levels; an empty sample counts as constant 0."""
        a, b = np.asarray(sample1, np.float64), np.asarray(sample2, np.float64)
        if a.size == 0:
            return cls(0.0, 0.0, 0.0, 0.0)
        return cls(float(a.mean()), float(a.std()), float(b.mean()), float(b.std()))


@dataclass(frozen=True)
class Choice:
    """The criterion of a run, the map ``f = gain * g + bias`` of grey levels it starts from, and the reason."""

    criterion: Criterion
    gain: float
    bias: float
    reason: str


def choose_criterion(asked: str, levels: GreyLevels) -> Choice:
    """Decide between ``ssd`` (spam's) and ``znssd`` (zero-mean normalised), once per run.

    ``auto`` takes ssd where the grey levels of both states agree: |m1 - m2| ≤ 0.1 sd1 and 0.9 ≤ sd2 / sd1 ≤ 1.1.
    """
    if asked not in CRITERIA:
        raise ValueError(f"criterion {asked!r}: choose from {', '.join(CRITERIA)}")
    told = f"grey levels {levels.mean1:.5g} ± {levels.sd1:.4g} and {levels.mean2:.5g} ± {levels.sd2:.4g}"
    same = (
        abs(levels.mean1 - levels.mean2) <= LARGEST_SHIFT * levels.sd1
        and SMALLEST_RATIO * levels.sd1 <= levels.sd2 <= LARGEST_RATIO * levels.sd1
    )
    gain = levels.sd1 / levels.sd2 if levels.sd1 > 0 and levels.sd2 > 0 else 1.0
    bias = levels.mean1 - gain * levels.mean2
    if asked == "ssd" or (asked == "auto" and same):
        agree = "agree" if same else "differ"
        return Choice("ssd", 1.0, 0.0, f"asked for ({told})" if asked == "ssd" else f"{told} {agree}")
    return Choice("znssd", gain, bias, f"asked for ({told})" if asked == "znssd" else f"{told} differ")
