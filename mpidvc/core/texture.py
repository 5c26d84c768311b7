"""Whether windows have enough grey-level variation to be followed from one image to the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints

__all__ = ["MOST_WINDOWS", "Texture", "sample_of", "structure"]


#: Most windows that are looked at.
MOST_WINDOWS = 48
#: Correlation of neighbouring voxels below which a window is noise: noise has none, texture that can be interpolated
#: between voxels has 0.5 and more.
LEAST_CORRELATION = 0.1
#: Least standard deviation of a window, as a fraction of that of the most textured windows.
LEAST_SHARE = 0.02
#: Share of windows without texture from which a warning is given.
LARGE_SHARE = 0.25


def sample_of(n: int, count: int = MOST_WINDOWS) -> Ints:
    """At most `count` of n indices, in an order whose every beginning is spread evenly.

    Steps of the golden ratio never fall in with the rows of a grid.
    """
    golden = (math.sqrt(5) - 1) / 2
    steps = np.mod((np.arange(min(n, count)) + 0.5) * golden, 1.0)
    if n <= count:
        return np.argsort(steps).astype(np.int64)
    chosen = (steps * n).astype(np.int64)
    _, first = np.unique(chosen, return_index=True)
    result: Ints = chosen[np.sort(first)]
    return result


def structure(values: npt.ArrayLike, usable: npt.NDArray[np.bool_] | None = None) -> tuple[float, float, float]:
    """Mean and standard deviation of a window, and the correlation of neighbouring voxels.

    Parameters
    ----------
    values : (z, y, x)
    usable : (z, y, x) bool, optional
        Voxels that count; all if not given.

    Returns
    -------
    mean, deviation, correlation : float
        Noise that is independent from voxel to voxel has the correlation 0; a window without neighbours or without
        variation has 0, too.
    """
    grey = np.asarray(values, np.float64)
    use = np.ones(grey.shape, bool) if usable is None else np.asarray(usable, bool)
    if not use.any():
        return 0.0, 0.0, 0.0
    mean = float(grey[use].mean())
    centred = np.where(use, grey - mean, 0.0)
    variance = float((centred[use] ** 2).mean())
    products, count = 0.0, 0
    for axis in range(3):
        a, b = np.moveaxis(centred, axis, 0), np.moveaxis(use, axis, 0)
        products += float((a[1:] * a[:-1]).sum())
        count += int((b[1:] & b[:-1]).sum())
    correlation = products / count / variance if count and variance > 0 else 0.0
    return mean, math.sqrt(variance), correlation


@dataclass(frozen=True)
class Texture:
    """Texture of a sample of windows: how many, how many without variation and with noise only, and the limit.

    `grain` is the size of a feature in voxels: the median full width at half maximum of the autocorrelation, as of a
    Gaussian one with the measured correlation of neighbouring voxels; 0 without texture.
    """

    looked_at: int
    flat: int
    noise: int
    least_deviation: float
    grain: float = 0.0

    @classmethod
    def of(cls, windows: Array, step: float) -> Texture:
        """Texture from rows (mean, deviation, correlation); `step`: smallest difference of stored grey levels."""
        if len(windows) == 0:
            return cls(0, 0, 0, 0.0)
        deviation = windows[:, 1]
        least = max(LEAST_SHARE * float(np.quantile(deviation, 0.9)), 0.5 * step)
        flat = (deviation <= least) | (deviation <= 1e-6 * np.abs(windows[:, 0]))
        noise = ~flat & (windows[:, 2] < LEAST_CORRELATION)
        textured = np.clip(windows[~flat & ~noise, 2], 1e-3, 1 - 1e-6)
        # exp(-1 / (2 s^2)) = correlation; the full width at half maximum is 2 s sqrt(2 ln 2)
        widths = 2 * math.sqrt(math.log(2)) / np.sqrt(-np.log(textured))
        grain = float(np.median(widths)) if len(widths) else 0.0
        return cls(len(windows), int(flat.sum()), int(noise.sum()), least, grain)

    def warning(self) -> str | None:
        """Warning, if a large share of the windows has too little texture."""
        bad = self.flat + self.noise
        if self.looked_at == 0 or bad < LARGE_SHARE * self.looked_at:
            return None
        reasons = []
        if self.flat:
            reasons.append(f"{self.flat} with a standard deviation of at most {self.least_deviation:.3g}")
        if self.noise:
            reasons.append(f"{self.noise} with noise only, neighbouring voxels being independent")
        return (
            f"{bad} of {self.looked_at} windows looked at ({100 * bad / self.looked_at:.0f}%) have too little "
            f"grey-level variation to be followed ({'; '.join(reasons)}): enlarge them (-hws), or skip those outside "
            "the object by their grey level (-glt, -ght) or a mask (-mf1)"
        )
