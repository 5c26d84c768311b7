"""The pixel search by its definition, in float64, one candidate after the other."""

from __future__ import annotations

import itertools

import numpy as np


def search_window(
    window1: np.ndarray,
    usable1: np.ndarray,
    box2: np.ndarray,
    usable2: np.ndarray,
    low: np.ndarray,
    zero_mean: bool = False,
    overlap: float = 0.0,
) -> tuple[list[int], float, float]:
    """Best offset of a window, its CC and its error.

    `box2` holds every candidate, the first one at its corner. Those that do not offer the fraction `overlap` of the
    usable voxels of window 1 do not count.
    """
    size = np.array(window1.shape)
    best, offset, error = 0.0, [0, 0, 0], np.inf
    for shift in itertools.product(*(range(n) for n in np.array(box2.shape) - size + 1)):
        part = tuple(slice(s, s + n) for s, n in zip(shift, size, strict=True))
        both = usable1 & usable2[part]
        a, b = window1[both].astype(np.float64), box2[part][both].astype(np.float64)
        if len(a) == 0 or len(a) < overlap * usable1.sum():
            continue
        sum_a, square = a.sum(), np.square(a - b).sum()
        if zero_mean:
            a, b = a - a.mean(), b - b.mean()
        norm = np.sqrt((a @ a) * (b @ b))
        cc = a @ b / norm if norm > 0 else 0.0
        if cc > best * (1 + 1e-12):
            best, offset = cc, (np.array(shift) + low).tolist()
            error = square / sum_a if sum_a else np.inf
    return offset, float(best), float(error)
