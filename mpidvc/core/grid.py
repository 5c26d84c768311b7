"""The grid of nodes, and its division into chunks of neighbouring points."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints, Triple, is_two_d

__all__ = ["Chunks", "brick_edge", "chunk_points", "make_grid"]

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
    axes = [np.arange(s, n, s, dtype=np.float64) for n, s in zip(shape, spacing, strict=True)]
    if is_two_d(shape):
        axes[0] = np.zeros(1)
    z, y, x = np.meshgrid(*axes, indexing="ij")
    positions = np.stack([z.ravel(), y.ravel(), x.ravel()], axis=-1)
    return positions, (len(axes[0]), len(axes[1]), len(axes[2]))


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
