"""The points of a run, in blocks, and what determines their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpidvc.arrays import Array, Ints, Records
from mpidvc.fields.hdf5 import FieldLayout
from mpidvc.tasks.memory import ROWS
from mpidvc.tasks.points import inputs_of

__all__ = ["Work"]


@dataclass
class Work:
    """What is to be measured; known on rank 0 only.

    Attributes
    ----------
    determines : dict
        What determines the result, by the names of options where there are such; can be written as JSON.
    layout : FieldLayout
        Of the finished file, without attributes.
    positions : (n, 3) float64
    guess : callable
        Gives the first guesses (k, 3 or 4, 4) of these rows of the field.
    order, starts : int64 arrays
        Rows of the field in the order of the blocks, and where in it these begin.
    record : dtype
        Of a record: fields ``phi`` (3, 4) and ``result``, a number for each of the layout's columns.
    kept : dict
        Records of blocks that are not to be measured, the last ones, by block.
    """

    determines: dict[str, Any]
    layout: FieldLayout
    positions: Array
    guess: Callable[[Ints], Array]
    order: Ints
    starts: Ints
    record: np.dtype[Any]
    kept: dict[int, Records] = field(default_factory=dict)

    def inputs(self, rows: Ints) -> Records:
        """Positions and first guesses of these rows of the field, as the journal holds them."""
        return inputs_of(self.positions[rows], self.guess(rows))

    @property
    def measured(self) -> Ints:
        """Rows of the field that are to be measured."""
        return self.order[: self.starts[len(self.starts) - 1 - len(self.kept)]]

    @property
    def n_kept(self) -> int:
        """Number of rows that are not."""
        return len(self.order) - len(self.measured)

    def keep(self, rows: Ints, records: Callable[[Ints], Records]) -> None:
        """Add rows that are not to be measured, with their records."""
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            self.kept[len(self.starts) - 1] = records(part)
            self.order = np.concatenate([self.order, part])
            self.starts = np.append(self.starts, len(self.order))
