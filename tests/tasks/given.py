"""Points, images and chunks in memory, for tasks without a run around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mpidvc.arrays import Array, Ints, Records
from mpidvc.images.image import ArrayImage
from mpidvc.tasks.points import inputs_of

__all__ = ["Given", "Watched", "brute_places", "phi_of", "run_all", "scattered"]


class Given:
    """Points in memory, in chunks of the caller's choice; by default all points are one chunk."""

    def __init__(self, positions: Any, phi: Any, chunks: Sequence[Any] | None = None) -> None:
        self.positions, self.phi = np.asarray(positions, float), np.asarray(phi, float)
        whole = [np.arange(len(self.positions))]
        self.chunks: list[Ints] = [np.asarray(chunk, np.int64) for chunk in (whole if chunks is None else chunks)]

    @property
    def n_blocks(self) -> int:
        return len(self.chunks)

    def inputs(self, block: int) -> Records:
        chunk = self.chunks[block]
        return inputs_of(self.positions[chunk], self.phi[chunk])


class PointTask(Protocol):
    dtype: np.dtype[Any]
    points: Any

    def run(self, chunk: int) -> Records: ...


def run_all(task: PointTask) -> Records:
    """Records of all points, in the points' order."""
    records = np.zeros(len(task.points.positions), task.dtype)
    for k, chunk in enumerate(task.points.chunks):
        records[chunk] = task.run(k)
    return records


def phi_of(displacements: Any) -> Array:
    """Phi (n, 4, 4) without gradient."""
    t = np.asarray(displacements, float)
    phi = np.tile(np.eye(4), (len(t), 1, 1))
    phi[:, :3, 3] = t
    return phi


def scattered(shape: tuple[int, ...], n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Random points and random Phi."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, np.array(shape) - 1, (n, 3))
    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[:, :3] += 0.04 * rng.standard_normal((n, 3, 4))
    phi[:, :3, 3] *= 40
    if shape[0] == 1:
        positions[:, 0] = 0
        phi[:, 0], phi[:, :, 0] = [1, 0, 0, 0], [1, 0, 0, 0]
    return positions, phi


def brute_places(shape: tuple[int, ...], positions: np.ndarray, phi: np.ndarray, nn: int, disp: bool) -> np.ndarray:
    """The formula, voxel by voxel, over all points."""
    places = np.empty((*shape, 3))
    inverse = np.linalg.inv(phi[:, :3, :3])
    for voxel in np.ndindex(*shape):
        v = np.array(voxel, float)
        distance = np.linalg.norm(positions + phi[:, :3, 3] - v, axis=1)
        near = np.argsort(distance, kind="stable")[:nn]
        weight = 1 / (distance[near] + 1e-6)
        if disp:
            moved = -phi[near, :3, 3]
        else:
            moved = np.array(
                [-inverse[k] @ phi[k, :3, 3] + (inverse[k] - np.eye(3)) @ (v - positions[k]) for k in near]
            )
        places[voxel] = v + weight @ moved / weight.sum()
    return places


class Watched(ArrayImage):
    """An image in memory that notes the size of every box that is read."""

    def __init__(self, array: Any) -> None:
        super().__init__(array)
        self.boxes: list[int] = []

    def read_box(self, low: Sequence[int], high: Sequence[int]) -> Any:
        self.boxes.append(math.prod(int(b) - int(a) for a, b in zip(low, high, strict=True)))
        return super().read_box(low, high)
