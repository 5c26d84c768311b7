"""The table of return statuses at the end of a correlation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mpidvc.arrays import Array
from mpidvc.core.statuses import CORRELATION, Status
from mpidvc.runtime.console import Console

__all__ = ["show_statuses"]

#: Statuses of windows that were skipped, as background.
BACKGROUND = (-5, -7)


def show_statuses(
    console: Console,
    title: str,
    values: Array,
    statuses: Mapping[int, Status] = CORRELATION,
    points: str = "Points",
) -> None:
    """Print how many points came to which end.

    Parameters
    ----------
    console : Console
    title : str
    values : (n,) float64
        Return statuses of all points.
    statuses : mapping of int to Status
        Meanings of the numbers.
    points : str
        Title of the column that counts them.
    """
    foreground = int(np.sum(~np.isin(values, BACKGROUND)))

    def share(count: int) -> str:
        return f"{100 * count / foreground:.1f}%" if foreground else "-"

    rows = []
    for value, status in statuses.items():
        count = int(np.sum(values == value))
        if count or value in (2, 1, -5):
            rows.append([f"RS={value:+d}", count, "" if value in BACKGROUND else share(count), status.meaning])
    other = int(np.sum(~np.isin(values, list(statuses))))
    if other:
        rows.append(["other", other, share(other), "kept from the file of -pf as they are"])
    console.table(title, ["Status", points, "Percent of non-background", "Meaning"], rows)
