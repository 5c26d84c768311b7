"""Points to be measured, chunk by chunk: their positions and first guesses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mpidvc.arrays import Array, Ints, Records, Triple
from mpidvc.fields.phifield import PhiField
from mpidvc.kernels.correlation import ERRORS

__all__ = ["CHOSEN", "INPUT", "Points", "inputs_of", "record_of", "rows_as_records", "windows_of"]

#: A point: position in image 1 (z, y, x; voxels) and the first guess of Phi about it, without its last row.
INPUT = np.dtype([("position", np.float64, (3,)), ("phi", np.float64, (3, 4))])
#: Columns of a point whose window is chosen: half-window size, and what limits it (`core.adaptive`).
CHOSEN = ("halfWindowSize", "windowLimit")
#: Columns that spam's files do not have.
OWN = {"coverage", "zncc", "outlier", *ERRORS, *CHOSEN}


def record_of(columns: Sequence[str]) -> np.dtype[Any]:
    """Dtype of the result of a point: Phi without its last row, and a number for each of these columns."""
    return np.dtype([("phi", np.float64, (3, 4)), ("result", np.float64, (len(columns),))])


def rows_as_records(field: PhiField | None, rows: Ints, columns: Sequence[str]) -> Records:
    """Records (`record_of` the columns) of rows of a field as they are.

    Columns that the field does not have are 0, as in spam; those that spam does not have are nan.
    """
    # rows that follow each other are copied without looking each of them up
    which = slice(rows[0], rows[-1] + 1) if len(rows) and (np.diff(rows) == 1).all() else rows
    records = np.zeros(len(rows), record_of(columns))
    for name in OWN.intersection(columns):
        records["result"][:, columns.index(name)] = np.nan
    if field is not None:
        records["phi"] = field.phi[which, :3]
        for k, name in enumerate(columns):
            if name in field.columns:
                records["result"][:, k] = field.columns[name][which]
    return records


def windows_of(field: PhiField, window: Triple) -> Ints:
    """Compared voxels along z, y, x of the points of ldic: (n, 3) where each has a window of its own, else (3,).

    Parameters
    ----------
    field : PhiField
    window : 3 ints
        The largest; an axis that does not count has one voxel.
    """
    largest = np.array(window, np.int64)
    if CHOSEN[0] not in field.columns:
        return largest
    sizes = np.asarray(field[CHOSEN[0]], np.float64)[:, None]
    return np.where((largest == 1) | ~np.isfinite(sizes), largest, 2 * np.nan_to_num(sizes).astype(np.int64) - 1)


class Points(Protocol):
    """Source of the points of a task, chunk by chunk: the journal of a run."""

    @property
    def n_blocks(self) -> int:
        """Number of chunks."""

    def inputs(self, block: int) -> Records:
        """`INPUT` of a chunk's points, in the chunk's order."""


def inputs_of(positions: Array, phi: Array) -> Records:
    """`INPUT` of positions (n, 3) and guesses (n, 3 or 4, 4)."""
    inputs = np.zeros(len(positions), INPUT)
    inputs["position"] = positions
    inputs["phi"] = phi[:, :3]
    return inputs
