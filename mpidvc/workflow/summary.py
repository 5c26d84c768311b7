"""The table of return statuses at the end of a correlation."""

from __future__ import annotations

import numpy as np

from mpidvc.arrays import Array
from mpidvc.core.statuses import CORRELATION
from mpidvc.runtime.console import Console

__all__ = ["show_statuses"]

#: Statuses of windows that were skipped, as background.
BACKGROUND = (-5, -7)


def show_statuses(console: Console, title: str, values: Array) -> None:
    """Print how many points came to which end.

    Parameters
    ----------
    console : Console
    title : str
    values : (n,) float64
        Return statuses of all points.
    """
    foreground = int(np.sum(~np.isin(values, BACKGROUND)))

    def share(count: int) -> str:
        return f"{100 * count / foreground:.1f}%" if foreground else "-"

    rows = []
    for value, status in CORRELATION.items():
        count = int(np.sum(values == value))
        if count or value in (2, 1, -5):
            rows.append([f"RS={value:+d}", count, "" if value in BACKGROUND else share(count), status.meaning])
    other = int(np.sum(~np.isin(values, list(CORRELATION))))
    if other:
        rows.append(["other", other, share(other), "kept from the file of -pf as they are"])
    console.table(title, ["Status", "Points", "Percent of non-background", "Meaning"], rows)
