"""Texture of a sample of the windows that will be correlated."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mpidvc.arrays import Array, Triple
from mpidvc.core.boxes import data_voxels
from mpidvc.core.texture import Texture, sample_of, structure
from mpidvc.images.image import Image

__all__ = ["WindowSettings", "texture_of"]


class WindowSettings(Protocol):
    """Settings of windows: half-window size (voxels), and which windows of image 1 are skipped."""

    @property
    def hws(self) -> Triple: ...

    @property
    def min_coverage(self) -> float: ...

    @property
    def grey_low(self) -> float: ...

    @property
    def grey_high(self) -> float: ...


def texture_of(image: Image, mask: Image | None, positions: Array, windows: WindowSettings) -> Texture:
    """Texture of windows about some of these positions; windows that will be skipped do not count."""
    size = np.array(windows.hws)
    found = []
    for node in positions[sample_of(len(positions))].astype(np.int64):
        low, high = (tuple(int(v) for v in corner) for corner in (node - size, node + size + 1))
        part, _ = image.read_box(low, high)
        values = part.astype(np.float64) - image.base
        usable = data_voxels(part, image.limits)
        grey = values[usable]
        if mask is not None:
            usable &= mask.read_box(low, high)[0] != 0
        if not usable.any() or usable.sum() < windows.min_coverage * np.prod(2 * size + 1):
            continue
        if windows.grey_low < grey.mean() + image.base < windows.grey_high:
            found.append(structure(np.where(usable, values, 0.0), usable))
    return Texture.of(np.array(found).reshape(-1, 3), 1.0 if image.dtype.kind in "iu" else 0.0)
