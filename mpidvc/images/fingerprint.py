"""Fingerprint of an image: a resumed run recognises its images without reading all of a large one."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from mpidvc.images.image import Image

__all__ = ["fingerprint"]

#: Voxels that are read at most, and number of slabs of neighbouring planes that they are in.
MOST_VOXELS, SLABS = 2**26, 16


def fingerprint(image: Image) -> dict[str, Any]:
    """Shape, dtype and a checksum of voxels: the same for the same voxels, whatever file holds them.

    An image of up to `MOST_VOXELS` is read as a whole, a larger one in slabs of planes, evenly spread.

    Parameters
    ----------
    image : Image

    Returns
    -------
    dict
        ``shape``, ``dtype`` and ``blocks``, the checksum (SHA-256).
    """
    nz, ny, nx = image.shape
    planes = max(1, min(nz, MOST_VOXELS // (ny * nx)))
    slabs = 1 if planes == nz else min(planes, SLABS)
    starts = np.unique(np.linspace(0, nz - planes // slabs, slabs).astype(int)).tolist()
    checksum = hashlib.sha256()
    for start in starts:
        # plane by plane: a slab may be large
        for z in range(start, start + planes // slabs):
            part, _ = image.read_box((z, 0, 0), (z + 1, ny, nx))
            checksum.update(np.ascontiguousarray(part).data)
    return {"shape": list(image.shape), "dtype": image.dtype.name, "blocks": checksum.hexdigest()}
