"""Grey levels of two images on a fixed lattice, from which the criterion of a run is chosen."""

from __future__ import annotations

import numpy as np

from mpidvc.arrays import Array, Ints
from mpidvc.core.grey import GreyLevels, lattice
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair

__all__ = ["grey_levels"]


#: Voxels that are read at once, unless a row has more.
MOST_VOXELS = 4_000_000


def grey_levels(images: ImagePair, grey_low: float = -np.inf, grey_high: float = np.inf) -> GreyLevels:
    """Mean and standard deviation of both images on the lattice of image 1.

    Voxels outside the mask, voxels whose grey level in image 1 is outside the thresholds, and voxels that are not
    finite do not count.
    """
    image1, image2, mask1, _ = images
    planes, rows, step = lattice(image1.shape)
    samples1, samples2 = [], []
    for z in planes:
        plane1, plane2 = _rows(image1, z, rows, step), _rows(image2, z, rows, step)
        keep = (plane1 > grey_low) & (plane1 < grey_high) & np.isfinite(plane1) & np.isfinite(plane2)
        if mask1 is not None:
            keep &= _rows(mask1, z, rows, step) != 0
        samples1.append(plane1[keep])
        samples2.append(plane2[keep])
    return GreyLevels.of(np.concatenate(samples1), np.concatenate(samples2))


def _rows(image: Image, z: int, rows: Ints, step: int) -> Array:
    _, _, nx = image.shape
    values = np.empty((len(rows), -(-nx // step)))
    at = 0
    while at < len(rows):
        # with the rows between them, but never much of a large plane
        end = int(np.searchsorted(rows, rows[at] + max(1, MOST_VOXELS // nx)))
        part, _ = image.read_box((int(z), int(rows[at]), 0), (int(z) + 1, int(rows[end - 1]) + 1, nx))
        values[at:end] = part[0][rows[at:end] - rows[at], ::step]
        at = end
    return values
