"""Local correlation of many points, chunk by chunk.

A chunk is a brick of neighbouring points. It reads one box of each image, converts it once, prefilters the spline once,
and registers all its points on those boxes. Points whose guess departs from the others' get boxes of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Float32Array, Records, Triple
from mpidvc.core.boxes import Scratch
from mpidvc.core.grid import Chunks, brick_edge, chunk_points
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.uncertainty import Noise
from mpidvc.fields.phifield import PhiField
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import correlation
from mpidvc.tasks.boxes import Ints, Map, around_samples, read_reference_box, read_sampled_box
from mpidvc.tasks.points import Points, record_of, rows_as_records

__all__ = ["LdicSettings", "LdicTask", "brick", "columns_of", "make_chunks", "records_of"]

Samples = Float32Array | None

#: Most voxels of a box of image 2 that points share.
LARGEST_BOX = 16_000_000
#: Points whose rounded guess is farther than this (voxels) from the chunk's median get boxes of their own.
NEAR = 16


def columns_of(errors: bool) -> tuple[str, ...]:
    """Numbers of a point besides Phi, with random errors or without."""
    return (*correlation.RESULT, *(correlation.ERRORS if errors else ()))


@dataclass(frozen=True)
class LdicSettings:
    """Settings that determine a local correlation, besides images and points.

    Attributes
    ----------
    registration : RegistrationSettings
    hws : 3 ints
        Half-window size, voxels; ``2 * hws - 1`` voxels per axis are compared. 0 along z in 2D.
    margin : 3 ints
        Voxels by which window 2 reaches beyond window 1 at each side.
    min_coverage : float
        Least fraction of window 1 inside the image and not masked.
    grey_low, grey_high : float
        Limits of the mean grey level of window 1, both excluded.
    """

    registration: RegistrationSettings
    hws: Triple
    margin: Triple
    min_coverage: float = 0.5
    grey_low: float = -np.inf
    grey_high: float = np.inf


def make_chunks(
    positions: Array, spacing: npt.ArrayLike, settings: LdicSettings, two_d: bool, regular: bool = True
) -> Chunks:
    """Divide points into the chunks of a run with these settings.

    `spacing` is the typical distance of points, `regular` says whether they are nodes of a grid.
    """
    return chunk_points(positions, brick(len(positions), spacing, settings, two_d, regular))


def brick(n_points: int, spacing: npt.ArrayLike, settings: LdicSettings, two_d: bool, regular: bool = True) -> Array:
    """Edges (voxels) of the bricks whose points share boxes; parameters as in `make_chunks`."""
    hws, margin = np.array(settings.hws), np.array(settings.margin)
    frame = 2 * hws + 1 + 2 * margin + 2 * around_samples(settings.registration.order)
    if two_d:
        frame[0] = 1
    spacing = np.maximum(np.asarray(spacing, dtype=np.float64), 1.0)
    return brick_edge(n_points, spacing, frame, LARGEST_BOX, regular)


class LdicTask:
    """Registers the windows of image 1 around points in image 2.

    Parameters
    ----------
    images : ImagePair
        Mask 2 is not used.
    points : Points
        Points in image 1, at whole voxels (fractions are dropped); a guess that is not finite gives return status -7.
    settings : LdicSettings
    noise : Noise, optional
        Asks for the random errors.
    """

    def __init__(
        self,
        images: ImagePair,
        points: Points,
        settings: LdicSettings,
        noise: Noise | None = None,
    ) -> None:
        self.dtype = record_of(columns_of(noise is not None))
        self._noise = None if noise is None else correlation.Noise(noise.rho, noise.kappa, noise.variance)
        self.images = images
        self.points, self.settings = points, settings
        self.n_chunks = points.n_blocks
        self._two_d = images.two_d
        self._kernel_settings = settings.registration.for_kernels(self._two_d, images.image1.base, images.image2.base)
        self._scratch = (Scratch(), Scratch())

    def run(self, chunk: int) -> Records:
        """Records of the chunk's points, in the chunk's order."""
        inputs = self.points.inputs(chunk)
        records = np.zeros(len(inputs), self.dtype)
        guess = inputs["phi"]
        finite = np.asarray(np.isfinite(guess).all(axis=(1, 2)))
        records["phi"] = np.where(finite[:, None, None], guess, np.eye(4)[:3])
        n = len(correlation.RESULT)
        records["result"][:, :n] = [np.inf, 0, -7, np.inf, 0, np.nan]
        records["result"][:, n:] = np.nan
        usable = np.nonzero(finite)[0]
        if len(usable):
            nodes = inputs["position"][usable].astype(np.int64)
            rounded = np.rint(guess[usable, :3, 3])
            # a guess beyond any image must not overflow the integers of its window
            rounded = np.clip(rounded, -(2.0**40), 2.0**40).astype(np.int64)
            far = np.abs(rounded - np.median(rounded, axis=0)).max(axis=1) > NEAR
            groups = [np.nonzero(~far)[0], *(np.array([k]) for k in np.nonzero(far)[0])]
            for group in groups:
                if len(group):
                    chosen = usable[group]
                    records[chosen] = self._register(nodes[group], rounded[group], records[chosen])
        skipped = np.isin(records["result"][:, 2], (-5, -7))
        records["phi"][skipped] = np.eye(4)[:3]
        records["phi"][skipped, :, 3] = np.nan
        return records

    def _register(self, nodes: Ints, rounded: Ints, records: Records) -> Records:
        """Register points that share boxes; `records` hold their guess."""
        settings = self.settings
        hws, margin = np.array(settings.hws), np.array(settings.margin)
        last = np.array(self.images.image2.shape) - 1
        low2 = np.maximum(nodes + rounded - hws - margin, 0)
        high2 = np.minimum(nodes + rounded + hws + margin, last)
        if self._two_d:
            low2[:, 0] = high2[:, 0] = 0
        meets = (low2 <= high2).all(axis=1)
        box_low = low2[meets].min(axis=0) if meets.any() else np.zeros(3, np.int64)
        box_high = high2[meets].max(axis=0) if meets.any() else np.zeros(3, np.int64)
        order = settings.registration.order
        box2, valid2, origin2 = read_sampled_box(self.images.image2, box_low, box_high, order, self._scratch[1])
        box1, (usable, covered, real), sampled1, origin1 = self._reference_box(nodes)
        phi = np.ascontiguousarray(records["phi"].reshape(len(nodes), 12))
        n = len(correlation.RESULT)
        result, errors = (np.ascontiguousarray(part) for part in np.split(records["result"], [n], axis=1))
        correlation.correlate_points(
            self._kernel_settings,
            box1,
            usable,
            covered,
            real,
            sampled1,
            box2,
            valid2,
            hws,
            origin1 - origin2,
            np.ascontiguousarray(nodes - origin1),
            # bounds in the wrong order mark a window that misses image 2
            np.where(meets[:, None], low2 - origin2, 1.0).astype(np.float64),
            np.where(meets[:, None], high2 - origin2, 0.0).astype(np.float64),
            phi,
            result,
            settings.min_coverage,
            settings.grey_low,
            settings.grey_high,
            noise=self._noise,
            errors=errors,
        )
        records["phi"] = phi.reshape(-1, 3, 4)
        records["result"] = np.concatenate([result, errors], axis=1)
        return records

    def _reference_box(self, nodes: Ints) -> tuple[Float32Array, tuple[Map, Map, Map], Samples, Ints]:
        """Image 1 around nodes: grey levels, maps (usable, covered, real), samples for Shift-DVC, and the origin."""
        registration = self.settings.registration
        reach = self._kernel_settings.gradient_reach
        around = np.maximum(np.array(self.settings.hws), np.array(self.settings.hws) - 1 + reach)
        if registration.shift:
            around = around + around_samples(registration.order)  # samples and gradients beside the voxels
        if self._two_d:
            around[0] = 0
        start, stop = nodes.min(axis=0) - around, nodes.max(axis=0) + around + 1
        box, maps, sampled1 = read_reference_box(
            self.images.image1, self.images.mask1, start, stop, registration, reach, self._scratch[0]
        )
        return box, maps, sampled1, start


def records_of(field: PhiField | None, rows: Ints, errors: bool = False) -> Records:
    """Records of rows of a field as they are, with random errors or without.

    Columns of the text files that the field does not have are 0, as in spam; all others are nan.
    """
    return rows_as_records(field, rows, columns_of(errors))
