"""What tells one image from another without reading all of it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from mpidvc.images.image import Image

__all__ = ["fingerprint"]

#: Edge of the blocks that are looked at, voxels, and their number per axis.
EDGE, PER_AXIS = 32, 4


def fingerprint(image: Image) -> dict[str, Any]:
    """Shape, dtype and a checksum of fixed blocks: the same for the same voxels, whatever the file that holds them.

    Up to 4 x 4 x 4 blocks of 32 voxels, spread evenly; small images are covered as a whole.
    """
    starts = [np.unique(np.linspace(0, max(n - EDGE, 0), PER_AXIS).astype(int)).tolist() for n in image.shape]
    checksum = hashlib.sha256()
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                part, _ = image.read_box((z, y, x), (z + EDGE, y + EDGE, x + EDGE))
                checksum.update(np.ascontiguousarray(part).data)
    return {"shape": list(image.shape), "dtype": image.dtype.name, "blocks": checksum.hexdigest()}
