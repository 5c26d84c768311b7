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
from mpidvc.core.uncertainty import Noise, Sample
from mpidvc.errors import UserError
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.images.part import ImagePart
from mpidvc.images.source import crop, in_pieces
from mpidvc.kernels import correlation
from mpidvc.runtime.executor import Executor, InlineExecutor
from mpidvc.tasks.boxes import around_samples, read_reference_box, read_sampled_box
from mpidvc.tasks.labels import chunk_labels, read_label_mask
from mpidvc.tasks.noise import PILOTS, sample_of_window
from mpidvc.tasks.points import Points, record_of
from mpidvc.tasks.registration import LevelSettings, register_multiscale

__all__ = [
    "COLUMNS",
    "DdicSettings",
    "DdicTask",
    "LabelNoise",
    "background",
    "columns_of",
    "make_chunks",
    "missing",
    "together",
]

#: Numbers of a label besides Phi.
COLUMNS = (*correlation.RESULT, "LabelDilate")

Box = tuple[Ints, Ints]

_STATUS, _COVERAGE = COLUMNS.index("returnStatus"), COLUMNS.index("coverage")
#: Fraction of a label's voxels that has to stay on data (`MPIDVC_LEAST_COVERAGE` is the kernel's own limit).
_LEAST_COVERAGE = 0.5
#: Labels whose window has more voxels are registered by all ranks together.
TOGETHER = 2_000_000
#: Voxels of a label that tells the correlations of the noise, and fewest of these; else the largest labels tell them.
LEAST_VOXELS, FEWEST_LARGE = 21**3, 20
#: Voxels around the guess in which most labels stay, and the share of window 2 below which it is read first.
NEAR, LESS = 3, 0.7


def columns_of(errors: bool) -> tuple[str, ...]:
    """Numbers of a label besides Phi, which is about its centre of mass, with random errors or without."""
    return (*COLUMNS, *(correlation.ERRORS if errors else ()))


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


def background(phi: Array, errors: bool = False) -> Records:
    """Record of row 0, the background, with the guess applied to it; with random errors or without."""
    record = np.zeros(1, record_of(columns_of(errors)))
    record["result"][0, len(COLUMNS) :] = np.nan
    record["phi"][0] = phi[:3]
    record["result"][0, [_COVERAGE, COLUMNS.index("zncc")]] = np.nan
    return record


def missing(n: int, dilate: int, errors: bool = False) -> Records:
    """Records of missing labels; with random errors or without."""
    records = np.zeros(n, record_of(columns_of(errors)))
    records["phi"] = np.eye(4)[:3]
    records["phi"][:, :, 3] = np.nan
    records["result"][:, : len(COLUMNS)] = [np.inf, 0, -7, np.inf, 0, np.nan, dilate]
    records["result"][:, len(COLUMNS) :] = np.nan
    return records


@dataclass(frozen=True)
class Windows:
    """Windows of labels, a row each; boxes ``[low, high)`` in voxels of their image.

    Attributes
    ----------
    low, high : (n, 3) int64
        Window 1, the box of the label's mask.
    middle : (n, 3) float64
        Of window 1.
    hws : (n, 3) int64
        Half-window size in the kernel's sense.
    around, read, stop : (n, 3) int64
        Voxels to be read on both sides of the central voxel of window 1, and the box ``[read, stop)`` that these make.
    start : (n, 4, 4) float64
        First guess, about the middle.
    low2, high2 : (n, 3) int64
        Window 2, clipped to image 2; empty where it misses it.
    near, far : (n, 3) int64
        The part of window 2 around the guess.
    less : (n,) bool
        Whether this part is read first. Most labels stay in it, and the whole is several times as large.
    """

    low: Ints
    high: Ints
    middle: Array
    hws: Ints
    around: Ints
    read: Ints
    stop: Ints
    start: Array
    low2: Ints
    high2: Ints
    near: Ints
    far: Ints
    less: npt.NDArray[np.bool_]

    def samples(self, k: int) -> Iterator[Box]:
        """Boxes of image 2 to be read: around the guess, and all of window 2, if a sample has left that."""
        if self.less[k]:
            yield self.near[k], self.far[k]
        yield self.low2[k], self.high2[k]


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
    noise : Noise, optional
        Asks for the random errors; labels that are registered by parts have none.
    """

    def __init__(
        self,
        images: ImagePair,
        labels: Labels,
        chunks: Chunks,
        points: Points,
        settings: DdicSettings,
        noise: Noise | None = None,
    ) -> None:
        self.dtype = record_of(columns_of(noise is not None))
        self._noise = None if noise is None else correlation.Noise(noise.rho, noise.kappa, noise.variance)
        assert images.mask1 is not None
        self.images, self.labels, self.chunks, self.points, self.settings = images, labels, chunks, points, settings
        self.n_chunks = len(chunks)
        #: The image of the labels.
        self.numbers: Image = images.mask1
        self._kernel_settings = settings.registration.for_kernels(images.two_d, images.image1.base, images.image2.base)
        self._scratch = (Scratch(), Scratch())

    def run(self, chunk: int) -> Records:
        """Records of the chunk's labels, in its order."""
        return self._measure(self.chunks.points(chunk), self.points.inputs(chunk))

    def run_together(self, executor: Executor, chunk: int) -> Records:
        """Record of a chunk's only label, registered block by block by all ranks; every rank calls it."""
        return self._measure(self.chunks.points(chunk), self.points.inputs(chunk), executor)

    def register(self, numbers: Ints, inputs: Records) -> Records:
        """Records of some labels, of which `inputs` are the points."""
        return self._measure(numbers, inputs)

    def _measure(self, numbers: Ints, inputs: Records, executor: Executor | None = None) -> Records:
        """Records of labels; with an executor by sums over blocks."""
        records = missing(len(numbers), self.settings.dilate, self._noise is not None)
        known = np.isfinite(inputs["phi"]).all(axis=(1, 2)) & np.isfinite(inputs["position"]).all(axis=1)
        phi, result, errors = self._register(numbers[known], inputs[known], executor)
        records["result"][known, _STATUS] = -5
        rows = np.flatnonzero(known)[result[:, _STATUS] != -5]
        measured = result[:, _STATUS] != -5
        records["phi"][rows] = phi[measured, :3]
        n = len(COLUMNS)
        records["result"][rows, : n - 1] = result[measured]
        if self._noise is not None:
            records["result"][rows, n:] = errors[measured]
        return records

    def _register(self, numbers: Ints, inputs: Records, executor: Executor | None) -> tuple[Array, Array, Array]:
        """Phi (n, 4, 4) of labels about their centres of mass, their results, status -5 where there is none, and their
        random errors.
        """
        settings, labels, centre = self.settings, self.labels, inputs["position"]
        guess = np.zeros((len(numbers), 4, 4))
        guess[:, :3], guess[:, 3, 3] = inputs["phi"], 1.0
        # for all labels at once: numpy takes longer over a single one than its registration does
        windows = self._windows(numbers, guess, centre)
        in_memory = executor is None and settings.binning == 1
        phi = windows.start.copy() if in_memory else guess
        result = np.zeros((len(numbers), len(correlation.RESULT)))
        result[:, _STATUS] = -5
        errors = np.full((len(numbers), len(correlation.ERRORS)), np.nan)
        dilate, keep_others = settings.dilate, settings.keep_others
        for k in np.flatnonzero((windows.low2 < windows.high2).all(axis=1)).tolist():
            label = int(numbers[k])
            volume, mask = 0, None
            if executor is not None:
                part = LabelPart(self.numbers, labels, label, windows.low[k], windows.high[k], settings)
                volume = int(executor.reduce(MaskVolume(part), None)[0])
            else:
                read, stop = windows.read[k].tolist(), windows.stop[k].tolist()
                mask = read_label_mask(self.numbers, labels, label, read, stop, dilate, keep_others)
                volume = int(np.count_nonzero(mask))
            if volume <= settings.volume_threshold:
                continue
            if in_memory and mask is not None:
                place = (centre[k] - windows.middle[k])[None]
                self._register_window(windows, k, mask, phi[k, :3], result[k : k + 1], errors[k : k + 1], place)
                # of the mask, not of the box
                result[k, _COVERAGE] *= float(np.prod(windows.high[k] - windows.low[k])) / volume
            else:
                phi[k], result[k] = self._register_parts(
                    executor or InlineExecutor(),
                    label,
                    (windows.low[k], windows.high[k]),
                    (windows.low2[k], windows.high2[k]),
                    centre[k],
                    guess[k],
                )
                result[k, _COVERAGE] /= volume
        return deformation.move_centre(phi, windows.middle, centre) if in_memory else phi, result, errors

    def _windows(self, numbers: Ints, guess: Array, centre: Array) -> Windows:
        """Windows of labels with guesses (n, 4, 4) about their centres of mass."""
        images, settings, labels = self.images, self.settings, self.labels
        low, high = labels.mask_boxes(numbers, settings.dilate)
        size = high - low
        middle = low + (size - 1) / 2
        hws = size // 2 + 1
        around = np.maximum(hws, size // 2 + self._kernel_settings.gradient_reach)
        if settings.registration.shift:
            around += around_samples(settings.registration.order)
        # a guess beyond any image must not overflow
        shift = np.clip(np.rint(guess[:, :3, 3]), -(2.0**40), 2.0**40).astype(np.int64)
        low2, high2 = labels.box(numbers, settings.reach)
        low2, high2 = np.maximum(low2 + shift, 0), np.minimum(high2 + shift, np.array(images.image2.shape))
        with np.errstate(over="ignore", invalid="ignore"):
            start = deformation.move_centre(guess, centre, middle)
            place = middle + start[:, :3, 3]
            reach = (np.abs(start[:, :3, :3]) * ((size - 1) / 2)[:, None]).sum(axis=2) + NEAR
            near = np.maximum(low2, np.floor(np.clip(place - reach, low2, high2)).astype(np.int64))
            far = np.minimum(high2, np.ceil(np.clip(place + reach, low2, high2)).astype(np.int64) + 1)
        if images.two_d:
            hws[:, 0] = around[:, 0] = 0
            near[:, 0], far[:, 0] = low2[:, 0], high2[:, 0]
        node = low + (size - 1) // 2
        less = (near < far).all(axis=1) & (np.prod(far - near, axis=1) < LESS * np.prod(high2 - low2, axis=1))
        return Windows(
            low, high, middle, hws, around, node - around, node + around + 1, start, low2, high2, near, far, less
        )

    def _register_window(
        self,
        windows: Windows,
        k: int,
        mask: npt.NDArray[np.uint8],
        phi: Array,
        result: Array,
        errors: Array,
        place: Array,
    ) -> None:
        """Register a label from one window in memory.

        Parameters
        ----------
        windows : Windows
        k : int
            Row of the label.
        mask : (z, y, x) uint8
            Of the label, in the box that is read.
        phi : (3, 4) float64, out
            About the middle of window 1.
        result : (1, 6) float64, out
        errors : (1, 13) float64, out
        place : (1, 3) float64
            Where the displacement has its error, from the middle of window 1.
        """
        images, registration = self.images, self.settings.registration
        origin1, around = windows.read[k], windows.around[k]
        box1, (usable, _, _), sampled1 = read_reference_box(
            images.image1,
            None,
            origin1,
            windows.stop[k],
            registration,
            self._kernel_settings.gradient_reach,
            self._scratch[0],
        )
        if usable is not None:
            mask &= usable
        left = np.zeros(1, np.uint8)
        for low2, high2 in windows.samples(k):
            box2, valid2, origin2 = read_sampled_box(
                images.image2, low2, high2 - 1, registration.order, self._scratch[1]
            )
            phi[:] = windows.start[k, :3]
            correlation.correlate_points(
                self._kernel_settings,
                box1,
                mask,
                None,
                None,
                sampled1,
                box2,
                valid2,
                windows.hws[k],
                origin1 - origin2,
                around[None],
                (low2 - origin2)[None].astype(np.float64),
                (high2 - 1 - origin2)[None].astype(np.float64),
                phi.reshape(1, 12),
                result,
                _LEAST_COVERAGE,
                compared=windows.high[k] - windows.low[k],
                left=left,
                noise=self._noise,
                errors=errors,
                place=place,
            )
            if not left[0]:
                break

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
            LabelPart(self.numbers, self.labels, label, low, high, settings),
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


class LabelNoise:
    """Samples of the residual of a ddic, from its largest labels.

    Parameters
    ----------
    images, labels, chunks, points, settings
        As of `DdicTask`.
    """

    def __init__(
        self, images: ImagePair, labels: Labels, chunks: Chunks, points: Points, settings: DdicSettings
    ) -> None:
        self._images, self._labels, self._chunks, self._points = images, labels, chunks, points
        self._settings = settings
        self._task = DdicTask(images, labels, chunks, points, settings)
        low, high = labels.mask_boxes(chunks.order, settings.dilate)
        voxels = np.where(np.prod(high - low, axis=1) <= TOGETHER, labels.volume[chunks.order], 0)
        # of the large ones any will do
        large = np.flatnonzero(voxels >= LEAST_VOXELS)
        if len(large) < FEWEST_LARGE:
            large = np.sort(np.argsort(-voxels, kind="stable")[:PILOTS])
        self._places = np.unique(large[np.linspace(0, len(large) - 1, min(len(large), PILOTS)).astype(np.int64)])
        self.n_chunks = len(self._places)

    def run(self, chunk: int) -> Sample | None:
        """The sample of a label; None where it has not converged."""
        place = int(self._places[chunk])
        block = int(np.searchsorted(self._chunks.start, place, side="right")) - 1
        first = place - int(self._chunks.start[block])
        inputs = self._points.inputs(block)[first : first + 1]
        number = self._chunks.order[place : place + 1]
        record = self._task.register(number, inputs)
        if record["result"][0, _STATUS] != 2:
            return None
        settings, labels, images = self._settings, self._labels, self._images
        low, high = (ends[0] for ends in labels.mask_boxes(number, settings.dilate))
        mask = read_label_mask(
            self._task.numbers, labels, int(number[0]), low, high, settings.dilate, settings.keep_others
        )
        phi = np.eye(4)
        phi[:3] = record["phi"][0]
        middle = low + (high - low - 1) / 2
        about = deformation.move_centre(phi[None], inputs["position"], middle[None])[0, :3]
        return sample_of_window(images, settings.registration, low, high - low, about, mask)


class MaskVolume:
    """Number of the voxels of a mask, a sum over pieces.

    Parameters
    ----------
    mask : LabelPart
    """

    def __init__(self, mask: LabelPart) -> None:
        self._mask = mask
        self._pieces = list(in_pieces(mask.shape, (1, 1, 1), mask.dtype.itemsize))
        self.n_chunks = len(self._pieces)

    def run_sum(self, chunk: int, argument: None) -> Array:
        """Voxels of a piece: whole numbers, whose sum is exact."""
        part, _ = self._mask.read_box(*self._pieces[chunk])
        return np.array([np.count_nonzero(part)], np.float64)


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
