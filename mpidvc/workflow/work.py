"""The points of a run, in blocks, and what determines their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mpidvc.arrays import Array, Ints, Records, Triple
from mpidvc.fields.hdf5 import FieldLayout
from mpidvc.tasks.memory import ROWS
from mpidvc.tasks.points import inputs_of
from mpidvc.workflow.guess import Guess, Nodes

__all__ = ["Work"]

#: Points of a block, where a command does not choose.
BLOCK = 64


@dataclass(kw_only=True)
class Work:
    """The points of a run; on rank 0.

    Attributes
    ----------
    determines : dict
        What determines the result, by the names of options where there are such; can be written as JSON.
    nodes : Nodes
        The points, a row of the field each.
    columns : sequence of str
        Names of the numbers of a result.
    record : dtype
        Of a result: fields ``phi`` (3, 4) and ``result``, a number for each of the columns.
    guess : Guess
        The first guess of the points; the identity by default.
    stored_f : {"all", "rigid", "no"}
        As in `Guess.at`.
    order, starts : int64 arrays, optional
        Rows of the field in the order of the blocks, and the place in it where each block begins. By default blocks of
        neighbouring rows.
    kept : dict
        Records of blocks that are not to be measured, the last ones, by block.
    attributes : dict of str
        Further texts for the results file.
    lags : 3 ints, optional
        As in `FieldLayout`.
    """

    determines: dict[str, Any]
    nodes: Nodes
    columns: Sequence[str]
    record: np.dtype[Any]
    guess: Guess = field(default_factory=Guess)
    stored_f: str = "no"
    order: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    starts: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    kept: dict[int, Records] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    lags: Triple | None = None

    def __post_init__(self) -> None:
        if len(self.starts) == 0:
            n = len(self.nodes)
            self.order, self.starts = np.arange(n), np.append(np.arange(0, n, BLOCK), n)

    @property
    def layout(self) -> FieldLayout:
        """Layout of the finished file, without attributes."""
        return replace(self.nodes.layout, columns=tuple(self.columns), lags=self.lags)

    @property
    def positions(self) -> Array:
        """Positions (n, 3) in voxels."""
        return self.nodes.positions

    def inputs(self, rows: Ints) -> Records:
        """Positions and first guesses of these rows of the field, as the journal holds them."""
        return inputs_of(self.positions[rows], self.guess.at(rows, self.positions, self.stored_f))

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
