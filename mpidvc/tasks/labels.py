"""Labels of an image that is never whole in memory: all in one pass that the ranks share, or the mask of one."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Ints, Records, Triple
from mpidvc.core.grid import Chunks, chunk_points
from mpidvc.core.labels import LARGEST_LABEL, Labels, LabelSums, label_mask
from mpidvc.errors import UserError
from mpidvc.images.image import Image
from mpidvc.images.source import Source, in_pieces
from mpidvc.kernels import labels as kernels
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.stop import Stopped, StopRequest
from mpidvc.tasks.ranks import on_leader

__all__ = ["LabelTask", "chunk_labels", "measure_labels", "read_label_mask"]

#: Most labels of a chunk, fewest chunks, and voxels of the windows of a chunk: at least, at most.
MOST_LABELS, FEWEST_CHUNKS, LEAST_VOXELS, MOST_VOXELS = 64, 96, 20_000, 4_000_000
#: This part of the voxels, in the end, is in chunks so many times as small: at the end of a run ranks wait for no more
#: than one of them.
LAST, FINER = 1 / 8, 4
#: Most threads of a pass: each holds a piece of the image, and they soon share the bandwidth of the memory.
MOST_THREADS = 8
#: A voxel and its value.
Wrong = tuple[Triple, Any]
#: First voxel of a piece, the sums of its labels, and its first voxel whose value is no label.
Sums = tuple[Triple, Records, Wrong | None]


class LabelTask:
    """Sums over the labels of an image, piece by piece.

    Parameters
    ----------
    image : Image
        Labels of any dtype that an image can have; they are never converted.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        grain = image.grain if isinstance(image, Source) else (1, 1, 1)
        self._pieces = list(in_pieces(image.shape, grain, image.dtype.itemsize))
        self._tally = kernels.Tally()
        self.n_chunks = len(self._pieces)

    def run(self, chunk: int) -> Sums:
        """Sums over a piece."""
        low, high = self._pieces[chunk]
        part, _ = self._image.read_box(low, high)
        sums, index = self._tally.of(part, LARGEST_LABEL)
        if index < 0:
            return low, sums, None
        z, y, x = (int(k) for k in np.unravel_index(index, part.shape))
        return low, sums, ((low[0] + z, low[1] + y, low[2] + x), part[z, y, x].item())


def measure_labels(executor: Executor, image: Image, stop: StopRequest | None = None, threads: int = 1) -> Labels:
    """Volume, bounding box and centre of mass of every label of an image; every rank calls it.

    For each number up to the largest label, rank 0 needs up to 260 bytes meanwhile, the other ranks 4, and 160 to
    receive the result, which has 80.

    Parameters
    ----------
    executor : Executor
    image : Image
        Integers, or floating-point numbers that are integers; from 0, the background, to `LARGEST_LABEL`.
    stop : StopRequest, optional
    threads : int
        CPUs that a process may use that is alone, without ranks to share the pass with.

    Returns
    -------
    Labels
        The same bits on every rank, on any number of ranks or threads.

    Raises
    ------
    AgreedError
        On every rank, if a value is no label, or the image is too large.
    Stopped
        As in `Executor.map`.
    """

    def begin() -> LabelSums:
        try:
            return LabelSums(image.shape)
        except ValueError as error:
            raise UserError(f"{image.path}: {error}; take a part of it") from error

    sums = on_leader(executor, begin)
    wrong: list[Wrong] = []

    def keep(_: int, result: Sums) -> None:
        low, found, voxel = result
        if voxel is None:
            sums.add(found, low)
        else:
            wrong.append(voxel)

    if executor.size == 1 and threads > 1:
        for chunk, result in enumerate(_by_threads(image, min(threads, MOST_THREADS))):
            if stop is not None and stop.requested:
                raise Stopped
            keep(chunk, result)
    else:
        executor.map(LabelTask(image), keep, stop)

    def end() -> Labels:
        if wrong:
            raise UserError(_refusal(image.path, *min(wrong, key=lambda voxel: voxel[0])))
        return sums.labels()

    return on_leader(executor, end)


def _by_threads(image: Image, threads: int) -> Iterator[Sums]:
    """Sums over the pieces of an image, in their order."""
    own = threading.local()

    def run(chunk: int) -> Sums:
        if not hasattr(own, "task"):
            # a file and a tally of its own
            own.task = LabelTask(copy.copy(image))
        result: Sums = own.task.run(chunk)
        return result

    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(run, range(LabelTask(image).n_chunks))
    finally:
        pool.shutdown(cancel_futures=True)


def _refusal(path: str, place: Triple, value: Any) -> str:
    told = f"{path}: has the value {value} at voxel (z, y, x) = {place}"
    if LARGEST_LABEL < value < np.inf and value == int(value):
        return (
            f"{path}: has the label {int(value)} at voxel (z, y, x) = {place}, beyond the largest one of "
            f"{LARGEST_LABEL}; relabel the image with the numbers 1, 2, 3, …"
        )
    return f"{told}, which is no label; give integers from 0, the background"


def read_label_mask(
    image: Image,
    labels: Labels,
    label: int,
    low: Sequence[int] | Ints,
    high: Sequence[int] | Ints,
    dilate: int = 0,
    keep_others: bool = False,
) -> npt.NDArray[np.uint8]:
    """Read the mask of a label in the box ``[low, high)``, which may stick out of the image.

    No more of the image is read than the mask depends on. See `mpidvc.core.labels.label_mask`.

    Parameters
    ----------
    image : Image
        Labels.
    labels : Labels
        Of this image.
    label : int
    low, high : 3 ints
    dilate : int
    keep_others : bool

    Returns
    -------
    (z, y, x) uint8
    """
    spans = labels.spans(label, low, high, dilate) or [(0, 0, 0)] * 3
    first = [max(first - frame, 0) for first, _, frame in spans]
    last = [last + frame for _, last, frame in spans]
    part, _ = image.read_box(first, last)
    return label_mask(labels, label, part, first, low, high, dilate, keep_others)


def chunk_labels(labels: Labels, numbers: Ints, voxels: Ints, large: int) -> Chunks:
    """Divide labels into chunks of near neighbours whose windows have about as many voxels.

    Large labels come first, each by itself; then chunks with a label that is large for a chunk, so that none of them is
    the last one. The last chunks are smaller than the others.

    Parameters
    ----------
    labels : Labels
    numbers : (n,) int64
        Labels to be measured; none may be missing.
    voxels : (n,) int64
        Of their windows.
    large : int
        Labels with more voxels are large.

    Returns
    -------
    Chunks
        Of the labels' numbers.
    """
    if len(numbers) == 0:
        return Chunks(np.zeros(0, np.int64), np.zeros(1, np.int64))
    is_large = voxels > large
    first = np.flatnonzero(is_large)
    first = first[np.argsort(-voxels[first], kind="stable")]
    rest = np.flatnonzero(~is_large)
    parts: list[Ints] = [np.array([k]) for k in first]
    if len(rest):
        budget = int(np.clip(voxels[rest].sum() / FEWEST_CHUNKS, LEAST_VOXELS, MOST_VOXELS))
        edge = max(1.0, float(np.cbrt(budget)) * 2)
        order = rest[chunk_points(labels.centre[numbers[rest]], [edge] * 3).order]
        small = _cut(order, voxels, budget)
        small.sort(key=lambda part: -int(voxels[part].max() > 2 * budget) * int(voxels[part].sum()))
        parts += small
    starts = np.cumsum([0, *(len(part) for part in parts)])
    return Chunks(numbers[np.concatenate(parts)].astype(np.int64), starts.astype(np.int64))


def _cut(order: Ints, voxels: Ints, budget: int) -> list[Ints]:
    """Stretches of an order that have at most `MOST_LABELS` labels, and little more than `budget` voxels."""
    most, sizes = MOST_LABELS, voxels[order]
    finer = int((1 - LAST) * sizes.sum())
    cuts, count, sum_, before = [0], 0, 0, 0
    for k, size in enumerate(sizes.tolist()):
        if before <= finer < before + size:
            most, budget = MOST_LABELS // FINER, max(budget // FINER, LEAST_VOXELS)
        if count and (count >= most or sum_ + size > budget):
            cuts.append(k)
            count = sum_ = 0
        count, sum_, before = count + 1, sum_ + size, before + size
    return [order[a:b] for a, b in pairwise([*cuts, len(order)])]
