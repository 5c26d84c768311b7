"""Pixel search of labels: the window of a label is the box of its mask, and only voxels in the mask are compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Float32Array, Ints, Records
from mpidvc.core.boxes import TAPS, Scratch
from mpidvc.core.grid import Chunks
from mpidvc.core.labels import Labels
from mpidvc.core.pixel_search import LabelSearchSettings, applied_gradients, deformed_boxes
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import correlation, pixel_search
from mpidvc.tasks.boxes import read_float_box
from mpidvc.tasks.labels import chunk_labels, read_label_mask
from mpidvc.tasks.pixel_search import AT_LIMIT, CC, COVERAGE, ERROR, RECORD, RETURN_STATUS
from mpidvc.tasks.points import Points

__all__ = ["LARGE", "LabelSearch", "LabelSearchTask", "background", "make_chunks", "missing", "search_boxes"]

#: Voxels of a search above which a label is a chunk by itself.
LARGE = 2_000_000
#: Labels whose deformed boxes are made at once.
AT_ONCE = 65536
#: Voxels around a mask that samples of its deformed image depend on.
AROUND = 1 + TAPS


def search_boxes(
    labels: Labels, numbers: Ints, settings: LabelSearchSettings, F: Array | None = None
) -> tuple[Ints, Ints]:
    """Windows ``[low, high)`` (n, 3) of labels, deformed by their F (n, 3, 3) as far as the settings say.

    Labels whose F cannot be applied are not deformed: they are not searched either.
    """
    low, high = labels.mask_boxes(numbers, settings.dilate)
    if F is None or settings.apply_f == "no":
        return low, high
    deformed, gradients = applied_gradients(F, settings.apply_f)
    which = np.flatnonzero(deformed & np.isfinite(gradients).all(axis=(1, 2)))
    for k in range(0, len(which), AT_ONCE):
        part = which[k : k + AT_ONCE]
        low[part], high[part] = deformed_boxes(
            low[part], high[part], labels.centre[numbers[part]], gradients[part], labels.two_d
        )
    return low, high


def make_chunks(labels: Labels, numbers: Ints, size: Ints, settings: LabelSearchSettings) -> Chunks:
    """Divide labels, with windows of this size (n, 3), into chunks; see `mpidvc.tasks.labels.chunk_labels`."""
    searched = size + np.array(settings.high) - np.array(settings.low)
    return chunk_labels(labels, numbers, np.prod(searched, axis=1), LARGE)


def background(phi: Array) -> Records:
    """Record of row 0, the background, with the guess (4, 4) applied to it."""
    record = missing(1, phi)
    record["phi"][0] = phi[:3]
    record["result"][0] = [0, 0, 0, 1, 1, np.nan, 0]
    return record


def missing(n: int, phi: Array) -> Records:
    """Records of n labels that are not searched, with the F of their guesses (4, 4) or (n, 4, 4) where it is finite."""
    records = np.zeros(n, RECORD)
    F = np.broadcast_to(phi, (n, 4, 4))[:, :3, :3]
    known = np.asarray(np.isfinite(F).all(axis=(1, 2)))
    records["phi"][:, :, :3] = np.where(known[:, None, None], F, np.eye(3))
    records["phi"][:, :, 3] = np.nan
    records["result"] = [0, -7, np.inf, 1, 1, 0, 0]
    return records


class LabelSearch:
    """Searches labels of image 1 in image 2.

    Parameters
    ----------
    images : ImagePair
        Mask 1 is the image of the labels; mask 2 is not used.
    labels : Labels
    settings : LabelSearchSettings
    """

    def __init__(self, images: ImagePair, labels: Labels, settings: LabelSearchSettings) -> None:
        assert images.mask1 is not None
        self.images, self.labels, self.settings = images, labels, settings
        self._numbers = images.mask1
        self._bases = images.image1.base, images.image2.base
        self._scratch = (Scratch(), Scratch())

    def search(self, label: int, centre: Array, guess: Array) -> Records:
        """Search a label; return its record.

        Parameters
        ----------
        label : int
            One that is there.
        centre : (3,) float64
            Its centre of mass.
        guess : (3 or 4, 4) float64
            First guess of Phi about it: the search begins at its rounded translation, its F deforms the label as far as
            the settings say, and is kept in the result. A guess that is not finite gives return status -7.
        """
        settings = self.settings
        phi = np.eye(4)
        phi[:3] = guess[:3]
        record = missing(1, phi)
        deformed, gradients = applied_gradients(phi[None, :3, :3], settings.apply_f)
        if not (np.isfinite(phi).all() and np.isfinite(gradients).all()):
            return record
        result = record["result"][0]
        result[RETURN_STATUS] = -5
        # a guess beyond any image must not overflow
        rounded = np.clip(np.rint(phi[:3, 3]), -(2.0**40), 2.0**40).astype(np.int64)
        if self.labels.two_d:
            rounded[0] = 0
        low, high = (ends[0] for ends in search_boxes(self.labels, np.array([label]), settings, phi[None, :3, :3]))
        # the kernel takes windows of an odd number of voxels: one more that is not in the mask changes nothing
        size = (high - low) // 2 * 2 + 1
        first, stop = low + rounded + np.array(settings.low), low + rounded + size + np.array(settings.high)
        if ((stop <= 0) | (first >= np.array(self.images.image2.shape))).any():
            return record
        if deformed[0]:
            values, usable, volume = self._deformed(label, low, size, centre, gradients[0])
        else:
            values, usable, volume = self._plain(label, low, size)
        if volume <= settings.volume_threshold or not usable.any():
            return record
        box2, _, real2 = read_float_box(self.images.image2, first, stop, self._scratch[1])
        offset, cc, error = pixel_search.search_window(
            *(values, usable, box2, real2, settings.low, settings.high, settings.zero_mean),
            size // 2 - np.array(settings.low),
            settings.min_overlap,
            bases=self._bases,
        )
        result[COVERAGE] = np.count_nonzero(usable) / volume
        if cc > 0:
            record["phi"][0, :, 3] = offset + rounded
            low_, high_ = np.array(settings.low), np.array(settings.high)
            at_end = ((offset == low_) | (offset == high_)) & (low_ < high_)
            result[[CC, RETURN_STATUS, ERROR, AT_LIMIT]] = cc, 1, error, at_end.any()
        return record

    def _plain(self, label: int, low: Ints, size: Ints) -> tuple[Float32Array, npt.NDArray[np.uint8], int]:
        """Grey levels less the base, voxels to be compared, and the number of voxels in the mask."""
        mask = read_label_mask(self._numbers, self.labels, label, low, low + size, self.settings.dilate)
        volume = int(np.count_nonzero(mask))
        values, _, real = read_float_box(self.images.image1, low, low + size, self._scratch[0])
        return values, mask if real is None else mask & real, volume

    def _deformed(
        self, label: int, low: Ints, size: Ints, centre: Array, F: Array
    ) -> tuple[Float32Array, npt.NDArray[np.uint8], int]:
        """The same of the deformed label: the value at x is that at ``c + F⁻¹ (x - c)``, c the centre of mass.

        The mask is deformed with it, and holds the voxels where its interpolation is at least 0.5. Samples next to
        voxels that do not exist are no data. The number of voxels is that of the mask before.
        """
        two_d = self.labels.two_d
        inverse = np.linalg.inv(F)
        around = np.full(3, AROUND)
        if two_d:
            inverse[0], inverse[:, 0] = (1, 0, 0), (1, 0, 0)
            around[0] = 0
        own = tuple(ends[0] for ends in self.labels.mask_boxes(np.array([label]), self.settings.dilate))
        start, stop = own[0] - around, own[1] + around
        mask = read_label_mask(self._numbers, self.labels, label, start, stop, self.settings.dilate)
        box, _, real = read_float_box(self.images.image1, start, stop, self._scratch[0])
        at = centre + inverse @ (low + (size - 1) / 2 - centre) - start
        reach = np.where(around > 0, 1.0, 0.0)
        first, last = own[0] - start - reach, own[1] - 1 - start + reach

        def sampled(source: Float32Array) -> Float32Array:
            out = correlation.empty_box(tuple(int(n) for n in size))
            correlation.warp(source, 1, two_d, inverse, at, first, last, out)
            return out

        def copied(voxels: npt.NDArray[np.uint8]) -> Float32Array:
            out = correlation.empty_box(voxels.shape)
            out[...] = voxels
            return out

        usable = sampled(copied(mask)) >= 0.5
        if real is not None:
            usable &= sampled(copied(real)) > 0.9999
        return sampled(box), usable.astype(np.uint8), int(np.count_nonzero(mask))


class LabelSearchTask:
    """The search of labels, chunk by chunk.

    Parameters
    ----------
    search : LabelSearch
    chunks : Chunks
        Of labels.
    points : Points
        Centres of mass and first guesses, in the order of the chunks.
    """

    dtype = RECORD

    def __init__(self, search: LabelSearch, chunks: Chunks, points: Points) -> None:
        self._search, self._chunks, self._points = search, chunks, points
        self.n_chunks = len(chunks)

    def run(self, chunk: int) -> Records:
        """Records of the chunk's labels, in its order."""
        rows = zip(self._chunks.points(chunk), self._points.inputs(chunk), strict=True)
        return np.concatenate([self._search.search(int(n), row["position"], row["phi"]) for n, row in rows])
