"""The summary of a correlation: how many points came to which end, and whether there is a result to trust."""

from __future__ import annotations

import numpy as np

from mpidvc.arrays import Array, Ints
from mpidvc.core.statuses import CORRELATION
from mpidvc.runtime.console import Console

__all__ = ["summarise"]


def summarise(console: Console, title: str, values: Array, measured: Ints) -> int:
    """Print a table of return statuses; return the exit status.

    Parameters
    ----------
    console : Console
    title : str
    values : (n,) float64
        Return statuses of all points.
    measured : (k,) int64
        Points that this run has measured; the others were kept.

    Returns
    -------
    int
        1 if windows were tried and none was found, else 0.
    """
    foreground = int(np.sum(values != -5))
    rows = []
    for value, status in CORRELATION.items():
        count = int(np.sum(values == value))
        if count == 0 and value not in (2, 1, -5):
            continue
        share = "" if value == -5 else f"{100 * count / foreground:.1f}%" if foreground else "-"
        rows.append([f"RS={value:+d}", count, share, status.meaning])
    other = int(np.sum(~np.isin(values, list(CORRELATION))))
    if other:
        rows.append(["other", other, f"{100 * other / foreground:.1f}%", "kept from the file of -pf as they are"])
    console.table(title, ["Status", "Points", "Percent of non-background", "Meaning"], rows)
    tried = values[measured]
    if len(tried) and np.all(tried == -5):
        console.warn("all windows were skipped: see -mf1, -mc, -glt, -ght, and whether the guess leads out of image 2")
        return 1
    if not np.any(tried == 2) and np.sum((tried < 0) & (tried != -5)) > np.sum(tried == 1):
        console.warn("no window converged: see the first guess (-pf), the texture of windows (-hws), and -it")
        return 1
    return 0
