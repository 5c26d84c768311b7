"""The grid of nodes, and its division into chunks of neighbouring points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints, Triple, is_two_d

__all__ = [
    "Chunks",
    "GridOrder",
    "GridPieces",
    "brick_edge",
    "chunk_points",
    "grid_dims",
    "grid_order",
    "lines_of",
    "make_grid",
]

#: Most points of a chunk.
MOST_POINTS = 512
#: A run has at least about this many chunks, if it has enough points.
FEWEST_CHUNKS = 48


def make_grid(shape: Triple, spacing: Triple) -> tuple[Array, Triple]:
    """Nodes at ``spacing, 2 spacing, …`` below the image's size, Z slowest; Z = 0 in 2D.

    Parameters
    ----------
    shape : 3 ints
        Shape of the image; (1, ny, nx) is 2D.
    spacing : 3 ints
        Node spacing in voxels.

    Returns
    -------
    positions : (n, 3) float64
    dims : 3 ints
        Nodes per axis.
    """
    origin, dims = grid_dims(shape, spacing)
    axes = [first + step * np.arange(n) for first, step, n in zip(origin, spacing, dims, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3), dims


def grid_dims(shape: Triple, spacing: Triple) -> tuple[Array, Triple]:
    """First node (3,) of the grid of `make_grid`, and its number of nodes per axis."""
    nz, ny, nx = ((n - 1) // s for n, s in zip(shape, spacing, strict=True))
    origin = np.array(spacing, np.float64)
    if is_two_d(shape):
        nz, origin[0] = 1, 0.0
    return origin, (nz, ny, nx)


@dataclass(frozen=True)
class Chunks:
    """A division of points into chunks: chunk ``k`` has the points ``order[start[k]:start[k + 1]]``."""

    order: Ints
    start: Ints

    def __len__(self) -> int:
        return len(self.start) - 1

    def points(self, chunk: int) -> Ints:
        """Indices of the points of a chunk."""
        return self.order[self.start[chunk] : self.start[chunk + 1]]


def brick_edge(
    n_points: int, spacing: npt.ArrayLike, frame: npt.ArrayLike, largest_box: int, regular: bool = True
) -> Array:
    """Edges (voxels) of the bricks whose points share a box.

    Many points share a box, so that few voxels are read twice; but a box stays small, and there are enough chunks for
    all ranks. The result follows from the settings alone, never from the number of ranks.

    Parameters
    ----------
    n_points : int
    spacing : 3 floats
        Distance of neighbouring points.
    frame : 3 ints
        Voxels of a box around the outermost points, both sides together.
    largest_box : int
        Most voxels of a box.
    regular : bool
        Whether the points are nodes of a grid. Scattered points may lie anywhere in a brick, so that their box is as
        large as the brick.
    """
    spacing = np.asarray(spacing, dtype=np.float64)
    frame = np.asarray(frame, dtype=np.float64)
    axes = 2 if frame[0] <= 1 else 3
    per_axis = round((n_points / FEWEST_CHUNKS) ** (1 / axes))
    per_axis = max(1, min(per_axis, int(MOST_POINTS ** (1 / axes) + 1e-9)))
    while per_axis > 1 and np.prod((per_axis - 1) * spacing[-axes:] + frame[-axes:]) > largest_box:
        per_axis -= 1
    edge: Array = per_axis * spacing
    if not regular:
        room = largest_box ** (1 / axes) - frame
        edge = np.minimum(edge, np.maximum(room, 1.0))
    return edge


def chunk_points(positions: Array, edge: npt.ArrayLike) -> Chunks:
    """Divide points into bricks of space, in the order of the bricks, at most `MOST_POINTS` in each chunk.

    Parameters
    ----------
    positions : (n, 3)
    edge : 3 floats
        Edges of a brick in voxels (> 0).
    """
    if len(positions) == 0:
        return Chunks(np.zeros(0, np.int64), np.zeros(1, np.int64))
    edge = np.asarray(edge, dtype=np.float64)
    # half a voxel of slack keeps nodes that lie on a brick's face together, whatever their last digit
    brick = np.floor((positions - positions.min(axis=0) + 0.5) / edge).astype(np.int64)
    nz, ny, nx = (int(n) + 1 for n in brick.max(axis=0))
    if nz * ny * nx < 2**62:
        key = (brick[:, 0] * ny + brick[:, 1]) * nx + brick[:, 2]
        # few bricks are sorted by their digits, in a tenth of the time
        order = np.argsort(key.astype(np.min_scalar_type(nz * ny * nx)), kind="stable")
        new = np.diff(key[order]) != 0
    else:
        order = np.lexsort((brick[:, 2], brick[:, 1], brick[:, 0]))
        new = np.any(np.diff(brick[order], axis=0) != 0, axis=1)
    starts = np.concatenate([[0], np.nonzero(new)[0] + 1, [len(order)]])
    parts = [np.arange(a, b, MOST_POINTS) for a, b in pairwise(starts)]
    return Chunks(order.astype(np.int64), np.concatenate([*parts, [len(order)]]).astype(np.int64))


def lines_of(start: int, stop: int, nx: int) -> tuple[Ints, slice, slice]:
    """The lines along x, of nx nodes each, that have the rows [start, stop) of a grid.

    Next to nothing is computed for each row by whole lines, and little for a few rows by a part of a single one.

    Returns
    -------
    lines : (n, 1) int64
        Numbers of the lines.
    part : slice
        The nodes of each line: all, or those of the rows where these are in a single line.
    rows : slice
        Place of the rows among these nodes.
    """
    first, last = start // nx, -(-stop // nx)
    part = slice(start - first * nx, stop - first * nx) if last - first == 1 else slice(0, nx)
    before = first * nx + part.start
    return np.arange(first, last, dtype=np.int64)[:, None], part, slice(start - before, stop - before)


@dataclass(frozen=True)
class GridOrder:
    """The nodes of a grid in the order of their bricks, as `chunk_points` would sort them, but computed where wanted.

    ``order[start:stop]`` are rows of the grid (z slowest), as of an array of all of them.

    Parameters
    ----------
    dims : 3 ints
        Nodes per axis.
    per : 3 ints
        Nodes of a brick per axis; bricks at the far end may have fewer.
    """

    dims: Triple
    per: Triple

    def __getstate__(self) -> dict[str, Triple]:
        return {"dims": self.dims, "per": self.per}

    def __len__(self) -> int:
        return math.prod(self.dims)

    @property
    def bricks(self) -> Triple:
        """Bricks per axis."""
        nz, ny, nx = (-(-n // p) for n, p in zip(self.dims, self.per, strict=True))
        return nz, ny, nx

    @cached_property
    def starts(self) -> Ints:
        """Place of the first node of each brick, and the number of nodes (bricks + 1,)."""
        (z, y, x), (_, ny, nx) = (self._edges(axis) for axis in range(3)), self.dims
        dz, dy = np.diff(z), np.diff(y)
        starts = ((z[:-1] * ny)[:, None] + dz[:, None] * y[:-1])[:, :, None] * nx
        starts = starts + (dz[:, None] * dy)[:, :, None] * x[:-1]
        return np.append(starts, len(self)).astype(np.int64)

    def _edges(self, axis: int) -> Ints:
        """First nodes of the bricks along an axis, and the number of nodes."""
        return np.append(np.arange(0, self.dims[axis], self.per[axis]), self.dims[axis]).astype(np.int64)

    def __getitem__(self, part: slice) -> Ints:
        at = np.arange(*part.indices(len(self)), dtype=np.int64)
        nz, ny, nx = self.dims
        pz, py, px = self.per
        z, at = np.divmod(at, pz * ny * nx)
        z *= pz
        dz = np.minimum(pz, nz - z)
        y, at = np.divmod(at, dz * (py * nx))
        y *= py
        dy = np.minimum(py, ny - y)
        x, at = np.divmod(at, dz * dy * px)
        x *= px
        line, at = np.divmod(at, np.minimum(px, nx - x))
        deep, across = np.divmod(line, dy)
        rows: Ints = ((z + deep) * ny + y + across) * nx + x + at
        return rows

    def places(self, start: int, stop: int) -> Ints:
        """The inverse: places in the order of the rows [start, stop) of the grid."""
        nz, ny, nx = self.dims
        pz, py, px = self.per
        lines, part, rows = lines_of(start, stop, nx)
        z, y = np.divmod(lines, ny)
        x = np.arange(part.start, part.stop, dtype=np.int64)
        deep, across, along = z % pz, y % py, x % px
        z, y, x = z - deep, y - across, x - along
        dz, dy, dx = np.minimum(pz, nz - z), np.minimum(py, ny - y), np.minimum(px, nx - x)
        places: Ints = (z * ny + dz * y) * nx + along + dz * dy * x + (deep * dy + across) * dx
        return places.reshape(-1)[rows]

    def pieces(self, most: int) -> GridPieces:
        """The grid in pieces of whole bricks that have at most `most` nodes, or are single bricks."""
        (_, ny, nx), (_, by, bx), (pz, py, px) = self.dims, self.bricks, self.per
        if pz * ny * nx <= most:
            return GridPieces(self, most // (pz * ny * nx), by, bx)
        if pz * py * nx <= most:
            return GridPieces(self, 1, most // (pz * py * nx), bx)
        return GridPieces(self, 1, 1, max(1, most // (pz * py * px)))


@dataclass(frozen=True)
class GridPieces:
    """Pieces of a grid: whole layers of its bricks, some lines of the bricks of a layer, or a part of a line.

    Parameters
    ----------
    order : GridOrder
    layers, lines, columns : int
        Bricks of a piece along z, y and x: all of them along the axes after one along which there are several.
    """

    order: GridOrder
    layers: int
    lines: int
    columns: int

    @property
    def _counts(self) -> Triple:
        """Pieces along z, y and x."""
        nz, ny, nx = (
            -(-n // p) for n, p in zip(self.order.bricks, (self.layers, self.lines, self.columns), strict=True)
        )
        return nz, ny, nx

    def __len__(self) -> int:
        return math.prod(self._counts)

    @property
    def ends(self) -> Ints:
        """Ends of the bricks of all pieces: piece k has those from ``ends[k - 1]`` to ``ends[k]``."""
        bz, by, bx = self.order.bricks
        per = self.layers, self.lines, self.columns
        # the last brick of each piece along z, y and x
        z, y, x = (
            np.minimum(np.arange(1, n + 1) * p, b) - 1 for n, p, b in zip(self._counts, per, (bz, by, bx), strict=True)
        )
        ends: Ints = ((z[:, None, None] * by + y[:, None]) * bx + x).reshape(-1) + 1
        return ends

    def __getitem__(self, k: int) -> tuple[int, int, list[tuple[int, int]]]:
        """Piece k.

        Returns
        -------
        first, end : int
            Its bricks ``[first, end)``.
        rows : list of (int, int)
            Ranges ``[start, stop)`` of rows of the grid that are these bricks' nodes, in order.
        """
        (nz, ny, nx), (bz, by, bx), (pz, py, px) = self.order.dims, self.order.bricks, self.order.per
        _, down, across = self._counts
        layer, line, column = k // (down * across), k // across % down, k % across
        z, y, x = layer * self.layers, line * self.lines, column * self.columns
        z_end, y_end, x_end = min(z + self.layers, bz), min(y + self.lines, by), min(x + self.columns, bx)
        first, end = (z * by + y) * bx + x, ((z_end - 1) * by + y_end - 1) * bx + x_end
        low, high = z * pz, min(z_end * pz, nz)
        near, far = y * py, min(y_end * py, ny)
        if down == across == 1:
            return first, end, [(low * ny * nx, high * ny * nx)]
        if across == 1:
            return first, end, [((i * ny + near) * nx, (i * ny + far) * nx) for i in range(low, high)]
        left, right = x * px, min(x_end * px, nx)
        lines = [(i * ny + j) * nx for i in range(low, high) for j in range(near, far)]
        return first, end, [(start + left, start + right) for start in lines]


def grid_order(dims: Triple, spacing: npt.ArrayLike, edge: npt.ArrayLike) -> GridOrder | None:
    """The order of a grid's nodes in bricks of these edges (voxels), if every brick has the same nodes per axis.

    Parameters
    ----------
    dims : 3 ints
    spacing, edge : 3 floats
        Distance of nodes, and edges of a brick.

    Returns
    -------
    GridOrder or None
        None if bricks would cut the grid unevenly, or have more than `MOST_POINTS` nodes: see `chunk_points`.
    """
    steps, edges = np.asarray(spacing, np.float64), np.asarray(edge, np.float64)
    per = [1 if n == 1 else round(e / s) for n, s, e in zip(dims, steps.tolist(), edges.tolist(), strict=True)]
    # half a voxel of slack, as in chunk_points, must not reach the next node
    even = [n == 1 or (s > 0.5 and p > 0 and p * s == e) for n, s, e, p in zip(dims, steps, edges, per, strict=True)]
    if not all(even) or math.prod(min(p, n) for p, n in zip(per, dims, strict=True)) > MOST_POINTS:
        return None
    pz, py, px = per
    return GridOrder(dims, (pz, py, px))
