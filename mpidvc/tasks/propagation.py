"""Pixel search at points that come with a guess each: what every rank does in a propagation.

Points that are ready at the same time lie on a front, far from one another: each reads boxes of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpidvc.core.boxes import Scratch
from mpidvc.images.image import Image
from mpidvc.kernels import pixel_search
from mpidvc.tasks.ldic import read_float_box

__all__ = ["RECORD", "SearchSettings", "WindowSearch"]

Ints = npt.NDArray[np.int64]

#: What is known of a point afterwards; `limit`: the best offset is the first or last one along an axis.
RECORD = np.dtype(
    [
        ("displacement", np.int64, (3,)),
        ("cc", np.float64),
        ("error", np.float64),
        ("status", np.int64),
        ("limit", np.bool_),
    ]
)


@dataclass(frozen=True)
class SearchSettings:
    """What determines a search besides images and points.

    Attributes
    ----------
    hws : 3 ints
        Half-window size, voxels; ``2 * hws + 1`` voxels per axis are compared. 0 along z in 2D.
    low, high : 3 ints
        First and last offset per axis, relative to the guess.
    zero_mean : bool
        Compare what is left of the grey levels when their means are subtracted.
    min_coverage : float
        Least fraction of window 1 inside the image and not masked.
    grey_low, grey_high : float
        Window means must lie strictly between.
    """

    hws: tuple[int, int, int]
    low: tuple[int, int, int]
    high: tuple[int, int, int]
    zero_mean: bool = False
    min_coverage: float = 0.5
    grey_low: float = -np.inf
    grey_high: float = np.inf


class WindowSearch:
    """Finds the windows of image 1 around points in image 2, to whole voxels.

    Parameters
    ----------
    image1, image2 : Image
    mask1, mask2 : Image or None
        Voxels that are 0 are not compared.
    settings : SearchSettings
    """

    def __init__(
        self, image1: Image, image2: Image, mask1: Image | None, mask2: Image | None, settings: SearchSettings
    ) -> None:
        self.image1, self.image2, self.mask1, self.mask2 = image1, image2, mask1, mask2
        self.settings = settings
        self._scratch = (Scratch(), Scratch())

    def search(self, batch: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Records of a batch of `mpidvc.core.propagation.GUESS`."""
        records = np.zeros(len(batch), RECORD)
        for k, position in enumerate(batch["position"]):
            self._search(records[k : k + 1], position.astype(np.int64), batch["guess"][k])
        return records

    def _search(self, record: npt.NDArray[np.void], node: Ints, guess: Ints) -> None:
        settings = self.settings
        record["error"], record["status"] = np.inf, -5
        hws, low, high = np.array(settings.hws), np.array(settings.low), np.array(settings.high)
        start2, stop2 = node + guess - hws + low, node + guess + hws + high + 1
        if (start2 >= self.image2.shape).any() or (stop2 <= 0).any():
            return
        box1, usable1 = self._window1(node - hws, node + hws + 1)
        if box1 is None:
            return
        box2, usable2 = _masked(self.image2, self.mask2, start2, stop2, self._scratch[1])
        offset, cc, error = np.zeros((1, 3), np.int64), np.zeros(1), np.zeros(1)
        pixel_search.search_points(
            box1,
            usable1,
            box2,
            usable2,
            hws,
            low,
            high,
            settings.zero_mean,
            hws[None].copy(),
            (hws - low)[None].copy(),
            offset,
            cc,
            error,
        )
        if np.isfinite(error[0]):
            record["displacement"], record["cc"], record["error"] = guess + offset[0], cc[0], error[0]
            record["status"] = 1
            record["limit"] = ((low < high) & ((offset[0] == low) | (offset[0] == high))).any()

    def _window1(self, start: Ints, stop: Ints) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.uint8] | None]:
        """Window 1 and its usable voxels; no window if it is not to be searched."""
        settings = self.settings
        if (start >= self.image1.shape).any() or (stop <= 0).any():
            return None, None
        box, _inside, real = read_float_box(self.image1, start, stop, self._scratch[0])
        usable = real
        if self.mask1 is not None:
            usable = _open(self.mask1, start, stop, real)
        if usable is not None and usable.mean() < settings.min_coverage:
            return None, None
        if settings.grey_low > -np.inf or settings.grey_high < np.inf:
            grey = box.mean(dtype=np.float64) if real is None else box[real != 0].mean(dtype=np.float64)
            if not settings.grey_low < grey < settings.grey_high:
                return None, None
        return box, usable


def _masked(
    image: Image, mask: Image | None, start: Ints, stop: Ints, scratch: Scratch
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8] | None]:
    box, _inside, real = read_float_box(image, start, stop, scratch)
    return box, real if mask is None else _open(mask, start, stop, real)


def _open(mask: Image, start: Ints, stop: Ints, real: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    """Voxels of a box that exist and are not masked."""
    shape = stop - start
    low, high = start.tolist(), stop.tolist()
    opened = np.zeros(shape, np.uint8)
    part, where = mask.read_box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    opened[where] = part != 0
    return opened if real is None else opened & real
