"""Discrete correlation: a Phi for every label, from the grey levels of its voxels.

A label's window is its bounding box; voxels outside its (dilated) mask do not take part. Each label reads boxes of its
own. A large one is registered by all ranks together, block by block, as whole images are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints, Records
from mpidvc.core import deformation
from mpidvc.core.boxes import Scratch, Slices
from mpidvc.core.grey import ANY_VALUE
from mpidvc.core.grid import Chunks
from mpidvc.core.labels import Labels
from mpidvc.core.registration import RegistrationSettings
from mpidvc.errors import UserError
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.images.part import ImagePart
from mpidvc.images.source import crop
from mpidvc.kernels import correlation
from mpidvc.runtime.executor import Executor, InlineExecutor
from mpidvc.tasks.boxes import around_samples, read_reference_box, read_sampled_box
from mpidvc.tasks.labels import chunk_labels, read_label_mask
from mpidvc.tasks.points import Points, record_of
from mpidvc.tasks.registration import LevelSettings, register_multiscale

__all__ = ["COLUMNS", "RECORD", "DdicSettings", "DdicTask", "background", "make_chunks", "missing", "together"]

#: Numbers of a label besides Phi.
COLUMNS = (*correlation.RESULT, "LabelDilate")
#: Result of a label: Phi about its centre of mass, and a number for each of `COLUMNS`.
RECORD = record_of(COLUMNS)

Box = tuple[Ints, Ints]

_STATUS, _COVERAGE = COLUMNS.index("returnStatus"), COLUMNS.index("coverage")
#: Fraction of a label's voxels that has to stay on data (`MPIDVC_LEAST_COVERAGE` is the kernel's own limit).
_LEAST_COVERAGE = 0.5
#: Labels whose window has more voxels are registered by all ranks together.
TOGETHER = 2_000_000
#: Voxels around the guess in which most labels stay, and the share of window 2 below which it is read first.
NEAR, LESS = 3, 0.7


@dataclass(frozen=True)
class DdicSettings:
    """Settings that determine a discrete correlation, besides images and labels.

    Attributes
    ----------
    registration : RegistrationSettings
    dilate : int
        Radius (voxels) of the ball that dilates labels; below 0 erodes them.
    margin : int
        Voxels by which a window of image 2 reaches beyond that of image 1, twice (see `DdicTask`).
    volume_threshold : int
        Labels whose mask has no more voxels are skipped.
    keep_others : bool
        Whether voxels of other labels stay in a dilated mask.
    binning : int
        Binning of the first level of each label's registration, a power of two.
    """

    registration: RegistrationSettings
    dilate: int = 1
    margin: int = 5
    volume_threshold: int = 100
    keep_others: bool = False
    binning: int = 1

    @property
    def reach(self) -> int:
        """Voxels from the bounding box of a label to the sides of its window 2: of window 1, and once more."""
        return max(0, self.dilate + self.margin) + self.margin + max(self.dilate, 0)


def make_chunks(labels: Labels, numbers: Ints, settings: DdicSettings) -> Chunks:
    """Divide labels into chunks as `chunk_labels` does; those of more than `TOGETHER` voxels are by themselves.

    Parameters
    ----------
    labels : Labels
    numbers : (n,) int64
        Labels to be measured; none may be missing.
    settings : DdicSettings

    Returns
    -------
    Chunks
        Of the labels' numbers.
    """
    low, high = labels.mask_boxes(numbers, settings.dilate)
    return chunk_labels(labels, numbers, np.prod(high - low, axis=1), TOGETHER)


def together(labels: Labels, chunks: Chunks, settings: DdicSettings) -> list[int]:
    """Chunks of one label that all ranks register together."""
    low, high = labels.mask_boxes(chunks.order, settings.dilate)
    large = np.prod(high - low, axis=1) > TOGETHER
    return [k for k in range(len(chunks)) if large[chunks.start[k]]]


def background(phi: Array) -> Records:
    """Record of row 0, the background, with the guess applied to it."""
    record = np.zeros(1, RECORD)
    record["phi"][0] = phi[:3]
    record["result"][0, [_COVERAGE, COLUMNS.index("zncc")]] = np.nan
    return record


def missing(n: int, dilate: int) -> Records:
    """Records of missing labels."""
    records = np.zeros(n, RECORD)
    records["phi"] = np.eye(4)[:3]
    records["phi"][:, :, 3] = np.nan
    records["result"] = [np.inf, 0, -7, np.inf, 0, np.nan, dilate]
    return records


class DdicTask:
    """Registers labels of image 1 in image 2.

    Window 1 is the box of the label's mask. Window 2 is the bounding box moved by the rounded guess and grown as spam
    grows it: by dilation and margin, twice. Samples outside of it are not data.

    Parameters
    ----------
    images : ImagePair
        Mask 1 is the image of the labels; mask 2 is not used.
    labels : Labels
    chunks : Chunks
        Of labels.
    points : Points
        Centres of mass and first guesses, in the order of the chunks; a guess that is not finite gives return
        status -7.
    settings : DdicSettings
    """

    dtype = RECORD

    def __init__(
        self, images: ImagePair, labels: Labels, chunks: Chunks, points: Points, settings: DdicSettings
    ) -> None:
        assert images.mask1 is not None
        self.images, self.labels, self.chunks, self.points, self.settings = images, labels, chunks, points, settings
        self.n_chunks = len(chunks)
        self._numbers: Image = images.mask1
        self._kernel_settings = settings.registration.for_kernels(images.two_d, images.image1.base, images.image2.base)
        self._scratch = (Scratch(), Scratch())

    def run(self, chunk: int) -> Records:
        """Records of the chunk's labels, in its order."""
        inputs = self.points.inputs(chunk)
        labels = self.chunks.points(chunk)
        return np.concatenate([self._label(int(n), row) for n, row in zip(labels, inputs, strict=True)])

    def run_together(self, executor: Executor, chunk: int) -> Records:
        """Record of a chunk's only label, registered block by block by all ranks; every rank calls it."""
        return self._label(int(self.chunks.points(chunk)[0]), self.points.inputs(chunk)[0], executor)

    def _label(self, label: int, row: np.void, executor: Executor | None = None) -> Records:
        settings, labels = self.settings, self.labels
        guess = np.eye(4)
        guess[:3] = row["phi"]
        record = missing(1, settings.dilate)
        if not (np.isfinite(guess).all() and np.isfinite(row["position"]).all()):
            return record
        record["result"][0, _STATUS] = -5
        low, high = (ends[0] for ends in labels.mask_boxes(np.array([label]), settings.dilate))
        low2, high2 = self._window2(label, guess[:3, 3])
        if (low2 >= high2).any():
            return record
        volume, mask = int(labels.volume[label]), None
        if executor is None:
            mask = read_label_mask(self._numbers, labels, label, low, high, settings.dilate, settings.keep_others)
            volume = int(np.count_nonzero(mask))
        if volume <= settings.volume_threshold:
            return record
        if mask is not None and settings.binning == 1:
            found, result = self._register(mask, low, high, low2, high2, row["position"], guess)
            # of the mask, not of the box
            result[_COVERAGE] *= float(np.prod(high - low)) / volume
        else:
            found, result = self._register_parts(
                executor or InlineExecutor(), label, (low, high), (low2, high2), row["position"], guess
            )
            result[_COVERAGE] /= volume
        if result[_STATUS] != -5:
            record["phi"][0] = found[:3]
            record["result"][0, :-1] = result
        return record

    def _window2(self, label: int, displacement: Array) -> tuple[Ints, Ints]:
        """Window 2 ``[low, high)`` of a label, clipped to image 2; empty where it misses it."""
        # a guess beyond any image must not overflow
        shift = np.clip(np.rint(displacement), -(2.0**40), 2.0**40).astype(np.int64)
        low, high = self.labels.box(label, self.settings.reach)
        return np.maximum(low + shift, 0), np.minimum(high + shift, np.array(self.images.image2.shape))

    def _register(
        self, mask: npt.NDArray[np.uint8], low: Ints, high: Ints, low2: Ints, high2: Ints, centre: Array, guess: Array
    ) -> tuple[Array, Array]:
        """Phi (4, 4) about the centre of mass, and the result, from one window in memory."""
        settings, images = self.settings, self.images
        order = settings.registration.order
        reach = self._kernel_settings.gradient_reach
        size = high - low
        node, middle = low + (size - 1) // 2, low + (size - 1) / 2
        hws = size // 2 + 1
        around = np.maximum(hws, size // 2 + reach)
        if settings.registration.shift:
            around = around + around_samples(order)
        if images.two_d:
            hws[0] = around[0] = 0
        origin1 = node - around
        box1, (usable, _, _), sampled1 = read_reference_box(
            images.image1, None, origin1, node + around + 1, settings.registration, reach, self._scratch[0]
        )
        of_label = np.zeros(box1.shape, np.uint8)
        first = low - origin1
        of_label[tuple(slice(a, a + n) for a, n in zip(first, mask.shape, strict=True))] = mask
        if usable is not None:
            of_label &= usable
        start = deformation.move_centre(guess, centre, middle)
        result = np.zeros((1, len(correlation.RESULT)))
        left = np.zeros(1, np.uint8)
        for first2, last2 in self._samples(middle, size, start, low2, high2):
            box2, valid2, origin2 = read_sampled_box(images.image2, first2, last2 - 1, order, self._scratch[1])
            phi = start[:3].reshape(1, 12).copy()
            correlation.correlate_points(
                self._kernel_settings,
                box1,
                of_label,
                None,
                None,
                sampled1,
                box2,
                valid2,
                hws,
                origin1 - origin2,
                np.ascontiguousarray((node - origin1)[None]),
                np.ascontiguousarray((first2 - origin2)[None], np.float64),
                np.ascontiguousarray((last2 - 1 - origin2)[None], np.float64),
                phi,
                result,
                _LEAST_COVERAGE,
                compared=size,
                left=left,
            )
            if not left[0]:
                break
        found = np.eye(4)
        found[:3] = phi.reshape(3, 4)
        return deformation.move_centre(found, middle, centre), result[0]

    def _samples(self, middle: Array, size: Ints, start: Array, low2: Ints, high2: Ints) -> Iterator[Box]:
        """Parts of window 2 ``[low, high)`` to be read: around the guess, and the whole, if a sample has left that.

        Most labels stay near their guess, and the whole is several times as large.
        """
        place = middle + start[:3, 3]
        reach = np.abs(start[:3, :3]) @ ((size - 1) / 2) + NEAR
        low = np.maximum(low2, np.floor(np.clip(place - reach, low2, high2)).astype(np.int64))
        high = np.minimum(high2, np.ceil(np.clip(place + reach, low2, high2)).astype(np.int64) + 1)
        if self.images.two_d:
            low[0], high[0] = low2[0], high2[0]
        if (low < high).all() and np.prod(high - low) < LESS * np.prod(high2 - low2):
            yield low, high
        yield low2, high2

    def _register_parts(
        self, executor: Executor, label: int, box1: Box, box2: Box, centre: Array, guess: Array
    ) -> tuple[Array, Array]:
        """The same by sums over blocks, from coarse to fine; for the coverage the number of voxels compared."""
        settings, images = self.settings, self.images
        shift = np.rint(guess[:3, 3]).astype(np.int64)
        # one frame for both images, which holds window 1 and, moved by the rounded guess, window 2
        low, high = np.minimum(box1[0], box2[0] - shift), np.maximum(box1[1], box2[1] - shift)
        cut = ImagePair(
            ImagePart(images.image1, low, high),
            ImagePart(images.image2, low + shift, high + shift, box2),
            LabelPart(self._numbers, self.labels, label, low, high, settings),
        )
        own = low + (high - low - 1) / 2
        start = deformation.move_centre(guess, centre, own)
        start[:3, 3] -= shift
        levels = LevelSettings(settings.binning, 1, (0, 0, 0))
        try:
            outcome = register_multiscale(executor, cut, settings.registration, levels, start, lambda line: None)
        except UserError:
            # too few voxels along an axis
            return guess, np.array([np.inf, 0, -5, np.inf, 0, np.nan])
        phi = outcome.phi.copy()
        phi[:3, 3] += shift
        state = outcome.last
        norm = state.delta_phi_norm
        result = np.array([state.error, state.iterations, state.status, norm, state.compared, state.zncc])
        return deformation.move_centre(phi, own, centre), result


class LabelPart:
    """The mask of a label in a box ``[low, high)``, as an `Image` that is read piece by piece."""

    def __init__(self, image: Image, labels: Labels, label: int, low: Ints, high: Ints, settings: DdicSettings) -> None:
        nz, ny, nx = (int(n) for n in high - low)
        self.path, self.shape, self.dtype = image.path, (nz, ny, nx), np.dtype(np.uint8)
        self.limits, self.base, self.two_d = ANY_VALUE, 0.0, image.two_d
        self._image, self._labels, self._label, self._low, self._settings = image, labels, label, low, settings

    def read_box(self, low: Sequence[int], high: Sequence[int]) -> tuple[npt.NDArray[np.uint8], Slices]:
        """See `Image.read_box`."""
        source, inside = crop(self.shape, low, high)
        start, stop = (np.array(ends) + self._low for ends in zip(*((s.start, s.stop) for s in source), strict=True))
        if (start >= stop).any():
            return np.zeros(stop - start, np.uint8), inside
        dilate, keep_others = self._settings.dilate, self._settings.keep_others
        return read_label_mask(self._image, self._labels, self._label, start, stop, dilate, keep_others), inside
