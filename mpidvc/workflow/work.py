"""The points of a run, in blocks, and what determines their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints, Records, Triple
from mpidvc.core.grid import GridOrder, chunk_points, grid_order
from mpidvc.fields.hdf5 import FieldLayout
from mpidvc.fields.stored import StoredField
from mpidvc.tasks.memory import ROWS
from mpidvc.tasks.points import inputs_of
from mpidvc.workflow.guess import Guess, Nodes, Start

__all__ = ["ComputedPoints", "Work", "in_bricks"]

#: Points of a block, where a command does not choose.
BLOCK = 64


@dataclass(frozen=True)
class ComputedPoints:
    """The points of a run on a regular grid, which every rank can compute; a journal need not hold them.

    Attributes
    ----------
    order : GridOrder
        Rows of the field in the order of the blocks.
    nodes : Nodes
    start : Start or None
        What they start from; None if every point has a guess of its own, which the journal holds.
    stored : StoredField or None
        The field of these guesses, where it is in its file.
    """

    order: GridOrder
    nodes: Nodes
    start: Start | None
    stored: StoredField | None = None

    def positions(self, start: int, stop: int) -> Array:
        """Positions of the rows [start, stop) of the field, voxels."""
        return self.nodes.between(start, stop)

    def inputs(self, start: int, stop: int) -> Records:
        """`INPUT` of the points [start, stop) in the order of the blocks."""
        assert self.start is not None
        positions = self.nodes[self.order[start:stop]]
        return inputs_of(positions, self.start.at(positions))


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
    order : int64 array or GridOrder, optional
        Rows of the field in the order of the blocks. By default blocks of neighbouring rows.
    starts : int64 array, optional
        The place in it where each block begins.
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
    order: Ints | GridOrder = field(default_factory=lambda: np.zeros(0, np.int64))
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
        return replace(self.nodes.layout, columns=tuple(self.columns), lags=self.lags, judged=True)

    @property
    def positions(self) -> Array:
        """Positions (n, 3) in voxels."""
        return self.nodes.positions

    def inputs(self, rows: Ints) -> Records:
        """Positions and first guesses of these rows of the field, as the journal holds them."""
        positions = self.nodes[rows]
        return inputs_of(positions, self.guess.at(rows, positions, self.stored_f))

    @property
    def computed(self) -> ComputedPoints | None:
        """The points, if every rank can compute them."""
        if not isinstance(self.order, GridOrder) or self.nodes.given is not None:
            return None
        return ComputedPoints(self.order, self.nodes, self.guess.start(self.stored_f), self.guess.stored)

    @property
    def n_measured(self) -> int:
        """Number of rows of the field that are to be measured."""
        return int(self.starts[len(self.starts) - 1 - len(self.kept)])

    @property
    def measured(self) -> Ints:
        """Rows of the field that are to be measured."""
        return self.order[: self.n_measured]

    @property
    def n_kept(self) -> int:
        """Number of rows that are not."""
        return len(self.order) - self.n_measured

    def measured_at(self, which: Ints) -> Ints:
        """Some of the rows that are to be measured, by their numbers among these: not of all, there may be many."""
        return which if self.n_kept == 0 else np.sort(self.measured)[which]

    def keep(self, rows: Ints, records: Callable[[Ints], Records]) -> None:
        """Add rows that are not to be measured, with their records."""
        if len(rows):
            self.order = self.order[:]
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            self.kept[len(self.starts) - 1] = records(part)
            self.order = np.concatenate([self.order, part])
            self.starts = np.append(self.starts, len(self.order))


def in_bricks(nodes: Nodes, edge: npt.ArrayLike, rows: Ints | None = None) -> tuple[Ints | GridOrder, Ints]:
    """Nodes in bricks of these edges (voxels), all of them or some rows: `order` and `starts` of a `Work`."""
    layout = nodes.layout
    if rows is None and nodes.given is None and layout.dims is not None and layout.spacing is not None:
        order = grid_order(layout.dims, layout.spacing, edge)
        if order is not None:
            return order, order.starts
    if rows is None:
        chunks = chunk_points(nodes.positions, edge)
        return chunks.order, chunks.start
    chunks = chunk_points(nodes[rows], edge)
    return rows[chunks.order], chunks.start
