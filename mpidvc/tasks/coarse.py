"""Coarse search of a pair of images, shared over ranks: the pair is binned, then the motions are tried, in chunks.

Rank 0 chooses what is tried next, from the results of all chunks in their order: the number of ranks changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpidvc.arrays import Float32Array, Ints
from mpidvc.core.binning import bin_data, binned_shape, first_voxel
from mpidvc.core.boxes import data_voxels
from mpidvc.core.coarse import CoarseSearch, Found, StepTask, binning_of, in_steps
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.ranks import Team, led

__all__ = ["BinTask", "coarse_motion"]

#: Approximate number of voxels that are binned at a time.
PIECE = 4_000_000


class BinTask:
    """Block means of an image; a chunk is some rows of one plane of blocks, or some planes of small ones.

    Parameters
    ----------
    image : Image
    mask : Image or None
        Voxels where it is 0 are not data.
    """

    def __init__(self, image: Image, mask: Image | None = None) -> None:
        self._image, self._mask = image, mask
        self.factor = binning_of(image.shape)
        self.shape = binned_shape(image.shape, self.factor)
        row = self.factor[0] * self.factor[1] * image.shape[2]
        rows = max(1, PIECE // row)
        planes = max(1, rows // self.shape[1])
        self._size = (planes, min(rows, self.shape[1]))
        self._counts = tuple(-(-n // k) for n, k in zip(self.shape, self._size, strict=False))
        self.n_chunks = self._counts[0] * self._counts[1]

    def place(self, chunk: int) -> tuple[Ints, Ints]:
        """First block of a chunk, and the one behind its last."""
        z, y = divmod(chunk, self._counts[1])
        low = np.array((z * self._size[0], y * self._size[1], 0))
        high = np.minimum(low + np.array((*self._size, self.shape[2])), self.shape)
        return low, high

    def run(self, chunk: int) -> Float32Array:
        """Means of the blocks of a chunk, less the base of the image; nan where too little is data."""
        first, factor = np.array(first_voxel(self._image.shape, self.factor)), np.array(self.factor)
        low, high = ((end * factor + first).tolist() for end in self.place(chunk))
        part, _ = self._image.read_box(low, high)
        data = data_voxels(part, self._image.limits)
        if self._mask is not None:
            data &= self._mask.read_box(low, high)[0] != 0
        grey = part - self._image.base if self._image.base else part
        return bin_data(grey, data, self.factor).astype(np.float32)


class _Told:
    """Called after every chunk; on other processes it does nothing."""

    def __init__(self, call: Callable[[], None] | None = None) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return _Told, ()

    def __call__(self) -> None:
        if self._call is not None:
            self._call()


def coarse_motion(
    executor: Executor,
    images: ImagePair,
    max_angle: float = 180.0,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Motion from image 1 to image 2 without any guess (`mpidvc.core.coarse`); every rank calls it.

    Parameters
    ----------
    executor : Executor
    images : ImagePair
        Two images of equal shape; mask 2 is not used.
    max_angle : float
        Largest rotation, degrees.
    progress : callable, optional
        Called on rank 0 with the chunks that are done and with all of them.

    Returns
    -------
    Found
        Phi about the centre of the image, voxels.

    Raises
    ------
    AgreedError
        If an image has no texture, or nothing fits.
    """
    image1, image2, mask1, _ = images
    small1, small2 = _binned(executor, BinTask(image1, mask1)), _binned(executor, BinTask(image2))

    def lead(team: Team) -> Found:
        search = CoarseSearch(small1, small2, image1.shape, binning_of(image1.shape), max_angle)
        return in_steps(search, lambda task, told: team.call(_results, task, _Told(told)), progress)

    return led(executor, lead)


def _binned(executor: Executor, task: BinTask) -> Float32Array:
    """The binned image, on rank 0."""
    small = np.full(task.shape, np.nan, np.float32)

    def put(chunk: int, means: Float32Array) -> None:
        low, high = task.place(chunk)
        small[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = means

    executor.map(task, put if executor.rank == 0 else None)
    return small


def _results(executor: Executor, task: StepTask, told: Callable[[], None]) -> list[Any]:
    """Results of a task in the order of its chunks, on rank 0."""
    found: list[Any] = [None] * task.n_chunks

    def put(chunk: int, result: Any) -> None:
        found[chunk] = result
        told()

    executor.map(task, put if executor.rank == 0 else None)
    return found
