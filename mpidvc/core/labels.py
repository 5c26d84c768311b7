"""Labels: the voxels of an image that have the same number are a grain, 0 is the background.

Volumes and first moments are sums of integers: those of boxes add up to those of the image, in any order, and each
centre of mass takes one division. The results have the same bits however the image is cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints, Records, Triple, is_two_d
from mpidvc.kernels import labels as kernels

__all__ = ["LARGEST_LABEL", "MOST_RADIUS", "LabelSums", "Labels", "label_mask"]

#: Largest label of an image: tables have a row for each number up to its largest label. Integers up to here are exact
#: in single precision too.
LARGEST_LABEL = 2**24 - 1
#: Largest voxel count times longest side of an image, whose moments are 64-bit integers.
MOST_MOMENT = 2**63 - 1

MOST_RADIUS = kernels.MOST_RADIUS


@dataclass(frozen=True)
class Labels:
    """Size and place of every label of an image, a row for each number from 0 to the largest label.

    Row 0, the background, and the rows of missing numbers have the volume 0 and an empty box (0 to -1). The centre of
    mass is (0, 0, 0) in row 0, as in spam, and nan in those of missing numbers.

    Attributes
    ----------
    shape : 3 ints
        Of the image.
    volume : (n,) int64
        Voxels.
    lowest, highest : (n, 3) int64
        Bounding box: first and last voxel (z, y, x) along each axis.
    centre : (n, 3) float64
        Centre of mass: the mean index of the voxels.
    """

    shape: Triple
    volume: Ints
    lowest: Ints
    highest: Ints
    centre: Array

    def __len__(self) -> int:
        return len(self.volume)

    @property
    def two_d(self) -> bool:
        """Whether the image is a plane."""
        return is_two_d(self.shape)

    @property
    def numbers(self) -> Ints:
        """The labels of the image, ascending."""
        return np.flatnonzero(self.volume)

    @property
    def missing(self) -> Ints:
        """The numbers from 1 to the largest label that no voxel has, ascending."""
        return 1 + np.flatnonzero(self.volume[1:] == 0)

    @property
    def touches_edge(self) -> npt.NDArray[np.bool_]:
        """Whether each label has voxels (n,) in an outermost layer of the image, in the plane in 2D."""
        first = 1 if self.two_d else 0
        last = np.array(self.shape) - 1
        outermost = (self.lowest == 0) | (self.highest == last)
        touches: npt.NDArray[np.bool_] = outermost[:, first:].any(axis=1) & (self.volume > 0)
        return touches

    def box(self, label: int | Ints, grown: int = 0) -> tuple[Ints, Ints]:
        """Bounding box ``[low, high)`` of a label, or of labels (n, 3), grown (in the plane in 2D) and not clipped."""
        grow = np.array([0 if self.two_d else grown, grown, grown])
        return self.lowest[label] - grow, self.highest[label] + 1 + grow

    def mask_boxes(self, numbers: Ints, dilate: int = 0) -> tuple[Ints, Ints]:
        """Boxes ``[low, high)`` (n, 3) in the image that hold the masks of labels, dilated by so many voxels."""
        grow = np.full(3, max(dilate, 0))
        grow[: self.two_d] = 0
        low = np.maximum(self.lowest[numbers] - grow, 0)
        high = np.minimum(self.highest[numbers] + 1 + grow, np.array(self.shape))
        return low, high

    def spans(
        self, label: int, low: Sequence[int] | Ints, high: Sequence[int] | Ints, dilate: int
    ) -> list[tuple[int, int, int]] | None:
        """Voxels ``[first, last)`` along each axis to which the mask of a label in a box is confined.

        Parameters
        ----------
        label : int
        low, high : 3 ints
            The box.
        dilate : int
            Radius of a dilation, or of an erosion if negative.

        Returns
        -------
        list of 3 tuples, or None
            First and last for z, y and x, and the frame: the mask depends on as many voxels before and after them.
            None if there is no mask in the box.
        """
        found = []
        frame, grown = abs(dilate), max(dilate, 0)
        ends = zip(
            self.lowest[label].tolist(), self.highest[label].tolist(), map(int, low), map(int, high), strict=True
        )
        for axis, (lowest, highest, a, b) in enumerate(ends):
            if axis == 0 and self.two_d:
                first, last, around = max(lowest, a), min(highest + 1, b), 0
            else:
                first, last, around = max(lowest - grown, a), min(highest + 1 + grown, b), frame
            if first >= last:
                return None
            found.append((first, last, around))
        return found


class LabelSums:
    """Sums over the labels of an image, from its boxes.

    Parameters
    ----------
    shape : 3 ints
        Of the image.

    Raises
    ------
    ValueError
        If the moments of the image may be larger than 64-bit integers.
    """

    def __init__(self, shape: Triple) -> None:
        if math.prod(shape) * max(shape) > MOST_MOMENT:
            raise ValueError(f"an image of {' × '.join(map(str, shape))} voxels is too large for sums over labels")
        self._shape = shape
        self._n = 1
        self._rows = _empty_rows(1)

    def add(self, sums: Records, low: Sequence[int]) -> None:
        """Add the labels of a box; boxes must not overlap, and come in any order.

        Parameters
        ----------
        sums : (n,) array of `kernels.labels.SUMS`
            Every label once; indices count from the first voxel of the box.
        low : 3 ints
            First voxel of the box.
        """
        if len(sums) == 0:
            return
        labels = sums["label"]
        self._n = max(self._n, int(labels.max()) + 1)
        if self._n > len(self._rows):
            self._rows = np.concatenate([self._rows, _empty_rows(max(self._n, 2 * len(self._rows)) - len(self._rows))])
        start = np.array(low, np.int64)
        rows, volume = self._rows, sums["volume"]
        rows["volume"][labels] += volume
        rows["moment"][labels] += sums["moment"] + volume[:, None] * start
        rows["lowest"][labels] = np.minimum(rows["lowest"][labels], sums["lowest"] + start)
        rows["highest"][labels] = np.maximum(rows["highest"][labels], sums["highest"] + start)

    def labels(self) -> Labels:
        """Labels of all boxes."""
        rows = self._rows[: self._n]
        volume = rows["volume"].copy()
        there = volume > 0
        centre = np.full((self._n, 3), np.nan)
        centre[there] = rows["moment"][there] / volume[there, None]
        centre[0] = 0
        lowest = np.where(there[:, None], rows["lowest"], 0)
        return Labels(self._shape, volume, lowest, rows["highest"].copy(), centre)


def _empty_rows(n: int) -> Records:
    rows = np.zeros(n, kernels.SUMS)
    rows["lowest"], rows["highest"] = np.iinfo(np.int64).max, -1
    return rows


def label_mask(
    labels: Labels,
    label: int,
    part: npt.NDArray[Any],
    start: Sequence[int] | Ints,
    low: Sequence[int] | Ints,
    high: Sequence[int] | Ints,
    dilate: int = 0,
    keep_others: bool = False,
) -> npt.NDArray[np.uint8]:
    """Mask of a label in the box ``[low, high)``, dilated or eroded by a digital ball.

    A dilated label has the voxels at most `dilate` away from one of its own, z² + y² + x² <= dilate², less those of
    other labels unless these are kept. An eroded one (`dilate` < 0) has the voxels from which all others are further
    away than ``-dilate``. Voxels outside the image belong to no label and are in no mask. In 2D the ball is a disc.

    Parameters
    ----------
    labels : Labels
    label : int
        One that is there.
    part : (z, y, x) array
        Labels of the image from voxel `start` on. It has to hold the box of the label, or as much of ``[low, high)``
        as is in the image, with a frame of ``abs(dilate)`` voxels where the image goes on.
    start, low, high : 3 ints
        The box may stick out of `part` and of the image.
    dilate : int
        At most `MOST_RADIUS` either way.
    keep_others : bool
        Whether voxels of other labels stay in a dilated mask.

    Returns
    -------
    (z, y, x) uint8
        1 in the mask, 0 elsewhere.
    """
    first_out = [int(a) for a in low]
    out = np.zeros([int(b) - a for a, b in zip(first_out, high, strict=True)], np.uint8)
    spans = labels.spans(label, low, high, dilate)
    if spans is None:
        return out
    # along each axis: the mask, cut to the part, in the box; the part that it depends on; the mask in this part
    put, piece, take = [], [], []
    missing = []
    for (first, last, frame), begin, size, origin in zip(spans, map(int, start), part.shape, first_out, strict=True):
        end = begin + size
        first, last = max(first, begin), min(last, end)
        if first >= last:
            return out
        inside, beyond = max(first - frame, begin), min(last + frame, end)
        piece.append(slice(inside - begin, beyond - begin))
        put.append(slice(first - origin, last - origin))
        before, after = inside - (first - frame), last + frame - beyond
        missing.append((before, after))
        take.append(slice(frame - before, frame - before + last - first))
    values = part[tuple(piece)]
    if dilate < 0 and any(map(any, missing)):
        # voxels beyond the image are not the label's: an erosion begins at the image's faces too
        values = np.pad(values, missing)
        take = [slice(s.start + before, s.stop + before) for s, (before, _) in zip(take, missing, strict=True)]
    out[tuple(put)] = kernels.mask(values, label, dilate, keep_others)[tuple(take)]
    return out
