"""Components of fields on a grid as small TIFF volumes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from mpidvc.atomic import replacing

__all__ = ["write_field_tiffs"]


def write_field_tiffs(stem: str | Path, dims: Sequence[int], components: Iterable[tuple[str, ArrayLike]]) -> None:
    """Write ``<stem>-<suffix>.tif`` for each component; each file appears whole or not at all.

    Parameters
    ----------
    stem : str or Path
        Beginning of the file names.
    dims : sequence of 3 ints
        Number of nodes along z, y, x: the shape of the volumes, (1, ny, nx) for 2D fields.
    components : iterable of (suffix, (n,) array)
        Suffixes, for instance ``"Zdisp"``, and values; z slowest. Written as float32, nan stays nan.

    Raises
    ------
    UserError
        If a file cannot be written.
    """
    import tifffile

    for suffix, values in components:
        with np.errstate(over="ignore"):
            volume = np.asarray(values).astype(np.float32).reshape(tuple(dims))
        with replacing(f"{stem}-{suffix}.tif") as temporary:
            # Otherwise tifffile takes a side of 3 or 4 nodes for colours.
            tifffile.imwrite(temporary, volume, photometric="minisblack", metadata={"axes": "ZYX"})
