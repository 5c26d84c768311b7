"""Pixel search of many points, chunk by chunk: boxes are shared as in `mpidvc.tasks.ldic`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Float32Array, Ints, Records
from mpidvc.core.boxes import TAPS, Scratch
from mpidvc.core.grid import brick_edge
from mpidvc.core.pixel_search import RESULT, SearchSettings, applied_gradients, cut_window, pad_of, warp_window
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import pixel_search
from mpidvc.tasks.boxes import read_float_box
from mpidvc.tasks.ldic import LARGEST_BOX, NEAR
from mpidvc.tasks.points import Points, record_of

__all__ = ["RECORD", "PixelSearch", "PixelSearchTask", "brick"]

Map = npt.NDArray[np.uint8] | None

#: Result of a point: Phi, and a number for each of `RESULT`.
RECORD = record_of(RESULT)
#: Indices of the columns in `RESULT`.
CC, RETURN_STATUS, ERROR = (RESULT.index(name) for name in ("pixelSearchCC", "returnStatus", "error"))
COVERAGE, AT_LIMIT = RESULT.index("coverage"), RESULT.index("atLimit")


def brick(n_points: int, spacing: npt.ArrayLike, settings: SearchSettings, two_d: bool, regular: bool = True) -> Array:
    """Edges (voxels) of the bricks whose points share boxes.

    `spacing` is the typical distance of points, `regular` says whether they are nodes of a grid.
    """
    low, high = np.array(settings.low), np.array(settings.high)
    frame = 2 * np.array(settings.hws) + 1 + np.maximum(high - low, 2 * (pad_of(settings.hws) + TAPS))
    if two_d:
        frame[0] = 1
    spacing = np.maximum(np.asarray(spacing, dtype=np.float64), 1.0)
    return brick_edge(n_points, spacing, frame, LARGEST_BOX, regular)


class PixelSearch:
    """Searches the windows of image 1 around points in image 2.

    Parameters
    ----------
    images : ImagePair
    settings : SearchSettings
    """

    def __init__(self, images: ImagePair, settings: SearchSettings) -> None:
        self.images = images
        self.settings = settings
        self._two_d = images.two_d
        self._scratch = (Scratch(), Scratch())
        self._bases = images.image1.base, images.image2.base
        # windows hold grey levels less the base
        low, high = (limit - images.image1.base for limit in (settings.grey_low, settings.grey_high))
        self._window_settings = replace(settings, grey_low=low, grey_high=high)

    def search(self, positions: Array, guess: Array) -> Records:
        """Search points that lie close together, and so share boxes; return their records.

        Parameters
        ----------
        positions : (n, 3) float64
            Points in image 1; fractions are dropped.
        guess : (n, 3 or 4, 4) float64
            First guess of Phi about each point: the search begins at its rounded translation, its F deforms window 1
            as far as the settings say, and is kept in the result. A guess that is not finite gives return status -7.
        """
        records = np.zeros(len(positions), RECORD)
        F = guess[:, :3, :3]
        known = np.asarray(np.isfinite(F).all(axis=(1, 2)))
        records["phi"][:, :, :3] = np.where(known[:, None, None], F, np.eye(3))
        records["phi"][:, :, 3] = np.nan
        records["result"] = [0, -7, np.inf, 1, 1, 0, 0]
        deformed, gradients = applied_gradients(F, self.settings.apply_f)
        usable = np.isfinite(guess).all(axis=(1, 2)) & np.isfinite(gradients).all(axis=(1, 2))
        chosen = np.flatnonzero(usable)
        if len(chosen) == 0:
            return records
        records["result"][chosen, RETURN_STATUS] = -5
        nodes = positions[chosen].astype(np.int64)
        # a guess beyond any image must not overflow the integers of its window
        rounded = np.clip(np.rint(guess[chosen, :3, 3]), -(2.0**40), 2.0**40).astype(np.int64)
        if self._two_d:
            rounded[:, 0] = 0
        first, last = self._searched(nodes, rounded)
        meets = ((last >= 0) & (first < np.array(self.images.image2.shape))).all(axis=1)
        chosen, nodes, rounded = chosen[meets], nodes[meets], rounded[meets]
        if len(chosen) == 0:
            return records
        far = np.abs(rounded - np.median(rounded, axis=0)).max(axis=1) > NEAR
        for group in (np.nonzero(~far)[0], *(np.array([k]) for k in np.nonzero(far)[0])):
            if len(group):
                these = chosen[group]
                part = records[these]
                self._search(nodes[group], rounded[group], deformed[these], gradients[these], part)
                records[these] = part
        return records

    def _searched(self, nodes: Ints, rounded: Ints) -> tuple[Ints, Ints]:
        """First and last voxel of image 2 within the search of each point."""
        settings = self.settings
        hws = np.array(settings.hws)
        return nodes + rounded - hws + np.array(settings.low), nodes + rounded + hws + np.array(settings.high)

    def _search(
        self,
        nodes: Ints,
        rounded: Ints,
        deformed: npt.NDArray[np.bool_],
        gradients: Array,
        records: Records,
    ) -> None:
        """Search points that share boxes, and complete their records."""
        settings = self.settings
        hws, low, high = settings.hws, settings.low, settings.high
        around = np.array(hws) + (pad_of(hws) + TAPS if deformed.any() else 0)
        if self._two_d:
            around[0] = 0
        box1, real1, covered1, start1 = self._box(
            self.images.image1, self.images.mask1, nodes.min(axis=0) - around, nodes.max(axis=0) + around + 1, 0
        )
        first, last = self._searched(nodes, rounded)
        box2, _, usable2, start2 = self._box(
            self.images.image2, self.images.mask2, first.min(axis=0), last.max(axis=0) + 1, 1
        )
        centre1, centre2 = nodes - start1, nodes + rounded - start2
        n = len(nodes)
        offset, cc, error = np.zeros((n, 3), np.int64), np.zeros(n), np.full(n, np.inf)
        coverage = np.ones(n)
        # plain windows go through the kernel together
        plain = ~deformed
        tested = covered1 is not None or settings.grey_low > -np.inf or settings.grey_high < np.inf
        if tested:
            for k in np.nonzero(plain)[0]:
                cut = cut_window(box1, covered1, real1, centre1[k], self._window_settings)
                plain[k], coverage[k] = cut.accepted, cut.coverage
        which = np.nonzero(plain)[0]
        if len(which):
            out, cc_out, error_out = offset[which], cc[which], error[which]
            pixel_search.search_points(
                *(box1, covered1, box2, usable2, hws, low, high, settings.zero_mean),
                *(np.ascontiguousarray(centre1[which]), np.ascontiguousarray(centre2[which])),
                out,
                cc_out,
                error_out,
                settings.min_overlap,
                bases=self._bases,
            )
            offset[which], cc[which], error[which] = out, cc_out, error_out
        for k in np.nonzero(deformed)[0]:
            window = warp_window(box1, covered1, real1, centre1[k], gradients[k], self._window_settings)
            coverage[k] = window.coverage
            if window.accepted:
                offset[k], cc[k], error[k] = pixel_search.search_window(
                    *(window.values, window.usable, box2, usable2, low, high, settings.zero_mean),
                    centre2[k],
                    settings.min_overlap,
                    bases=self._bases,
                )
        found = cc > 0
        records["phi"][found, :, 3] = (offset + rounded)[found]
        result = records["result"]
        result[found, RETURN_STATUS] = 1
        result[:, COVERAGE] = coverage
        result[found, CC], result[found, ERROR] = cc[found], error[found]
        low_, high_ = np.array(low), np.array(high)
        ends = ((offset == low_) | (offset == high_)) & (low_ < high_)
        result[:, AT_LIMIT] = found & ends.any(axis=1)

    def _box(
        self, image: Image, mask: Image | None, start: Ints, stop: Ints, scratch: int
    ) -> tuple[Float32Array, Map, Map, Ints]:
        """Read grey levels less the base, maps of existing and of comparable voxels, and the first voxel of the box."""
        box, _, real = read_float_box(image, start, stop, self._scratch[scratch])
        usable = real
        if mask is not None:
            open_ = np.zeros(box.shape, np.uint8)
            low, high = (tuple(int(v) for v in corner) for corner in (start, stop))
            part, where = mask.read_box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
            open_[where] = part != 0
            usable = open_ if real is None else open_ & real
            if usable.all():
                usable = None
        return box, real, usable, start


class PixelSearchTask:
    """The search of many points, chunk by chunk; parameters as in `PixelSearch`.

    Parameters
    ----------
    images : ImagePair
    points : Points
    settings : SearchSettings
    """

    dtype = RECORD

    def __init__(
        self,
        images: ImagePair,
        points: Points,
        settings: SearchSettings,
    ) -> None:
        self._search = PixelSearch(images, settings)
        self.points = points
        self.n_chunks = points.n_blocks

    def run(self, chunk: int) -> Records:
        """Records of the chunk's points, in the chunk's order."""
        inputs = self.points.inputs(chunk)
        return self._search.search(inputs["position"], inputs["phi"])
