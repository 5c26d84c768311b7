"""The noise of a pair of images, from the residuals of some windows or from a uniform region."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Float32Array, Ints, Records, Triple
from mpidvc.core.boxes import data_voxels
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.uncertainty import LAGS, Sample, lag_sums, line_spectra
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import correlation
from mpidvc.tasks.boxes import read_reference_box, read_sampled_box
from mpidvc.tasks.ldic import LdicSettings, LdicTask
from mpidvc.tasks.points import Points

__all__ = ["PILOTS", "RegionNoise", "WindowNoise", "lags_of", "sample_of_window"]

#: Windows that tell the noise of a run.
PILOTS = 200
#: Least half-window size of these windows in 3D and in 2D: the fit of a smaller one takes the large scales off.
LEAST_HWS = {False: 11, True: 21}
#: Change of the displacement within a window, voxels, up to which all of it is sampled at the same sub-voxel place.
STEADY = 0.25
#: Edge of the bricks of a uniform region, voxels, how many are looked at and used, and the least part in the region.
BRICK, MOST_BRICKS, USED_BRICKS, LEAST_PART = 32, 4000, 200, 0.5


def lags_of(two_d: bool) -> Triple:
    """Shape of the autocovariances."""
    n = 2 * LAGS + 1
    return (1 if two_d else n), n, n


class _Pilots:
    """Some of the points of a run, one in every block; which follows from the run's blocks alone."""

    def __init__(self, points: Points) -> None:
        self._points = points
        blocks = points.n_blocks
        if blocks >= PILOTS:
            self._chosen = [((2 * k + 1) * blocks // (2 * PILOTS), 0, 1) for k in range(PILOTS)]
        else:
            each = -(-PILOTS // max(blocks, 1))
            self._chosen = [(block, k, each) for block in range(blocks) for k in range(each)]

    @property
    def n_blocks(self) -> int:
        return len(self._chosen)

    def inputs(self, block: int) -> Records:
        """The pilot itself; nothing where there are fewer points than pilots."""
        source, k, each = self._chosen[block]
        whole = self._points.inputs(source)
        n = len(whole)
        if n < each:
            return whole[k : k + 1]
        at = (2 * k + 1) * n // (2 * each)
        return whole[at : at + 1]


class WindowNoise:
    """Samples of the residual of an ldic, from windows that are large enough.

    Parameters
    ----------
    images : ImagePair
    points : Points
        All points of the run.
    settings : LdicSettings
        Of the run. Where it chooses windows, the smallest ones count.
    """

    def __init__(self, images: ImagePair, points: Points, settings: LdicSettings) -> None:
        least = LEAST_HWS[images.two_d]
        smallest = settings.hws if settings.adaptive is None else (settings.adaptive.least,) * 3
        z, y, x = (max(h, least) for h in smallest)
        self._settings = replace(settings, hws=(0 if images.two_d else z, y, x))
        self._pilots = _Pilots(points)
        self._images = images
        self._task = LdicTask(images, self._pilots, self._settings)
        self.n_chunks = self._pilots.n_blocks

    def run(self, chunk: int) -> Sample | None:
        """The sample of a pilot; None where it has not converged."""
        inputs = self._pilots.inputs(chunk)
        if len(inputs) == 0:
            return None
        record = self._task.run(chunk)[0]
        if record["result"][correlation.RESULT.index("returnStatus")] != 2:
            return None
        n = np.array(self._settings.compared)
        node = inputs["position"][0].astype(np.int64)
        return sample_of_window(self._images, self._settings.registration, node - (n - 1) // 2, n, record["phi"])


def sample_of_window(
    images: ImagePair,
    registration: RegistrationSettings,
    low: Ints,
    n: Ints,
    phi: Array,
    mask: npt.NDArray[np.uint8] | None = None,
) -> Sample | None:
    """Correlations of the residual and the gradients in a window.

    Parameters
    ----------
    images : ImagePair
    registration : RegistrationSettings
    low, n : (3,) int64
        First voxel and number of the voxels compared.
    phi : (3, 4) float64
        About the window's middle.
    mask : (z, y, x) uint8, optional
        Voxels that count.
    """
    edge = np.array([0 if images.two_d else 1, 1, 1])
    box1, (usable, _, _), _ = read_reference_box(
        images.image1, None if mask is not None else images.mask1, low - edge, low + n + edge, registration, 1
    )
    inner = tuple(slice(int(e), int(e + k)) for e, k in zip(edge, n, strict=True))
    f = box1[inner].astype(np.float64)
    weights = np.ones(f.shape) if usable is None else usable[inner].astype(np.float64)
    if mask is not None:
        weights *= mask
    g = _deformed(images.image2, registration.order, low + (n - 1) / 2, n, phi)
    data = np.isfinite(g)
    weights *= data
    count = float(weights.sum())
    if count < 100:
        return None
    g = np.where(data, g, 0.0)
    gain, bias = 1.0, images.image2.base - images.image1.base
    if registration.criterion == "znssd":
        mean1, mean2 = ((part * weights).sum() / count for part in (f, g))
        spread1, spread2 = ((weights * (part - m) ** 2).sum() for part, m in ((f, mean1), (g, mean2)))
        if not (spread1 > 0 and spread2 > 0):
            return None
        gain = float(np.sqrt(spread1 / spread2))
        bias = mean1 - gain * mean2
    products, pairs = lag_sums((f - gain * g - bias) * weights, weights)
    gamma, power = np.zeros((3, *products.shape)), np.zeros(3)
    middle = tuple(k // 2 for k in products.shape)
    for a in range(1 if images.two_d else 0, 3):
        ahead, behind = (
            tuple(slice(s.start + d * (b == a), s.stop + d * (b == a)) for b, s in enumerate(inner)) for d in (1, -1)
        )
        slope = (box1[ahead].astype(np.float64) - box1[behind]) / 2 * weights
        sums, _ = lag_sums(slope, weights)
        found = sums / np.maximum(pairs, 1)
        if not found[middle] > 0:
            return None
        gamma[a], power[a] = found / found[middle], found[middle]
    place = phi[:, 3].copy()
    place[(np.abs(phi[:, :3] - np.eye(3)) * (n - 1) / 2).sum(axis=1) > STEADY] = np.nan
    spectra = line_spectra(f) if weights.all() else np.full((3, 33), np.nan)
    return Sample(products / np.maximum(pairs, 1), gamma, power, place, spectra)


def _deformed(image: Image, order: int, centre: Array, n: Ints, phi: Array) -> Array:
    """Image 2 in the frame of window 1, less its base; nan where it is no data."""
    F, middle = phi[:, :3], centre + phi[:, 3]
    reach = (np.abs(F) * (n - 1) / 2).sum(axis=1)
    last = np.array(image.shape) - 1.0
    low, high = np.maximum(middle - reach, 0.0), np.minimum(middle + reach, last)
    first, end = np.floor(low).astype(np.int64), np.ceil(high).astype(np.int64)
    if image.two_d:
        first[0] = end[0] = 0
    out = np.full(tuple(n.tolist()), np.nan, np.float32)
    if (first > end).any():
        return out.astype(np.float64)
    box, valid, origin = read_sampled_box(image, first, end, order)
    start, stop = (first - origin).astype(np.float64), (end - origin).astype(np.float64)

    def warp(source: Float32Array, order: int, out: Float32Array, outside: float) -> None:
        correlation.warp(source, order, image.two_d, F, middle - origin, start, stop, out, outside)

    warp(box, order, out, np.nan)
    if valid is not None:
        holes, seen = correlation.empty_box(valid.shape), np.zeros(out.shape, np.float32)
        holes[...] = valid
        warp(holes, 1, seen, 0.0)
        out[seen < 0.999] = np.nan
    return out.astype(np.float64)


class RegionNoise:
    """Autocovariance of the noise of an image in a uniform region of it, brick by brick.

    Parameters
    ----------
    image, mask : Image
        The region is where the mask is not 0.
    """

    def __init__(self, image: Image, mask: Image) -> None:
        self._image, self._mask = image, mask
        shape = np.array(image.shape)
        counts = -(-shape // BRICK)
        total = int(np.prod(counts))
        chosen = np.unique(np.linspace(0, total - 1, min(total, MOST_BRICKS)).astype(np.int64))
        self._low = np.stack(np.unravel_index(chosen, tuple(counts.tolist())), axis=-1) * BRICK
        self.n_chunks = len(self._low)

    def run(self, chunk: int) -> tuple[Array, Array] | None:
        """Sums of products and numbers of pairs of a brick; None where too little of it is in the region."""
        low = self._low[chunk]
        high = np.minimum(low + BRICK, self._image.shape)
        region, _ = self._mask.read_box(low.tolist(), high.tolist())
        inside: npt.NDArray[Any] = region != 0
        if inside.mean() < LEAST_PART:
            return None
        part, _ = self._image.read_box(low.tolist(), high.tolist())
        weights = (inside & data_voxels(part, self._image.limits)).astype(np.float64)
        if weights.sum() < 100:
            return None
        values = np.where(weights > 0, part, 0).astype(np.float64)
        return lag_sums((values - (values * weights).sum() / weights.sum()) * weights, weights)
