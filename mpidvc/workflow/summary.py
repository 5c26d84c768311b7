"""The table of return statuses at the end of a correlation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mpidvc.arrays import Array
from mpidvc.core.statuses import CORRELATION, Status
from mpidvc.fields.hdf5 import ResultsFile
from mpidvc.runtime.console import Console

__all__ = ["MOST_JUDGED", "count_statuses", "pieces", "show_statuses", "spread", "values_at"]

#: Most rows that are judged, and pieces that they are from where a field has more. So many tell a share of one per cent
#: to a fiftieth of it.
MOST_JUDGED, PIECES = 2**18, 256
#: Its multiples, less their whole parts, are evenly spread, and never come back.
GOLDEN = (5**0.5 - 1) / 2
#: Statuses of windows that were skipped, as background.
BACKGROUND = (-5, -7)


def count_statuses(values: Array) -> dict[str, int]:
    """Number of points by return status: ``"2"``, ``"-1"``."""
    # nearly all are equal, and these are counted in a tenth of the time that sorting takes
    usual = np.array([1.0, 2.0])
    equal = [values == value for value in usual]
    found, counts = np.unique(values[~(equal[0] | equal[1])], return_counts=True)
    found = np.append(found, usual)
    counts = np.append(counts, [np.count_nonzero(same) for same in equal])
    return {f"{found[k]:g}": int(counts[k]) for k in np.argsort(found) if counts[k]}


def spread(n: int) -> list[tuple[int, int]]:
    """Ranges of n rows that stand for all: all of them, or a piece of every part where they are too many.

    The pieces are not at equal distances: many lines of a grid could be met at the same places.
    """
    if n <= MOST_JUDGED:
        return [(0, n)]
    size, part = MOST_JUDGED // PIECES, n / PIECES
    starts = [int(k * part + k * GOLDEN % 1 * (part - size)) for k in range(PIECES)]
    return [(start, start + size) for start in starts]


def pieces(n: int) -> Iterator[tuple[int, int]]:
    """Ranges that make up n rows: few enough at a time to be in memory, however many there are."""
    return ((start, min(start + MOST_JUDGED, n)) for start in range(0, n, MOST_JUDGED))


def values_at(results: ResultsFile, ranges: Sequence[tuple[int, int]], *names: str) -> list[Array]:
    """Columns of these ranges of rows."""
    return [np.concatenate([results.column(name, *one) for one in ranges]) for name in names]


def show_statuses(
    console: Console,
    title: str,
    counts: Mapping[str, int],
    statuses: Mapping[int, Status] = CORRELATION,
    points: str = "Points",
) -> None:
    """Print how many points came to which end.

    Parameters
    ----------
    console : Console
    title : str
    counts : mapping of str to int
        Number of points by return status, as `count_statuses` gives it.
    statuses : mapping of int to Status
        Meanings of the numbers.
    points : str
        Title of the column that counts them.
    """
    foreground = sum(counts.values()) - sum(counts.get(f"{value}", 0) for value in BACKGROUND)

    def share(count: int) -> str:
        return f"{100 * count / foreground:.1f}%" if foreground else "-"

    rows = []
    for value, status in statuses.items():
        count = counts.get(f"{value}", 0)
        if count or value in (2, 1, -5):
            rows.append([f"RS={value:+d}", count, "" if value in BACKGROUND else share(count), status.meaning])
    other = sum(counts.values()) - sum(counts.get(f"{value}", 0) for value in statuses)
    if other:
        rows.append(["other", other, share(other), "kept from the file of -pf as they are"])
    console.table(title, ["Status", points, "Percent of non-background", "Meaning"], rows)
