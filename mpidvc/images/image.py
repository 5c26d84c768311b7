"""The one door to images: `open_image`, and the `Image` that everything else reads through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpidvc.arrays import Triple
from mpidvc.core.grey import Limits
from mpidvc.errors import UserError
from mpidvc.images.hdf5 import SEPARATOR, SUFFIXES, open_hdf5
from mpidvc.images.slices import open_slices
from mpidvc.images.source import Source, stored_dtype, volume_shape
from mpidvc.images.tiff import open_tiff

__all__ = ["ArrayImage", "Image", "open_image"]


class Image(Protocol):
    """Volume (z, y, x) of which boxes can be read; a 2D image has the shape (1, ny, nx). Can be pickled."""

    path: str
    shape: Triple
    dtype: np.dtype[Any]
    #: Least and greatest value that is a grey level; others are no data (`mpidvc.core.grey.plausible_limits`).
    limits: Limits

    @property
    def two_d(self) -> bool:
        """Whether this is a 2D image, a single plane."""

    def read_box(self, low: Sequence[int], high: Sequence[int]) -> tuple[NDArray[Any], tuple[slice, slice, slice]]:
        """Real part of the box ``[low, high)``, which may stick out of the image or miss it altogether.

        Parameters
        ----------
        low, high : sequence of 3 ints
            First voxel (z, y, x) of the box and the one after its last.

        Returns
        -------
        part : (a, b, c) array of `dtype`
            In native byte order; may be empty, and may be a read-only view of what others read, too.
        inside : tuple of 3 slices
            Where `part` is in the box.
        """


class ArrayImage(Source):
    """Image in memory.

    Parameters
    ----------
    array : (nz, ny, nx) or (ny, nx) array
        Kept as it is, without a copy, where it can be.
    path : str
        What messages call it.

    Raises
    ------
    UserError
        If it is empty or has an unsupported dtype or number of dimensions.
    """

    def __init__(self, array: ArrayLike, path: str = "<array>") -> None:
        values = np.asarray(array)
        stored = stored_dtype(values.dtype, path)
        super().__init__(path, volume_shape(values.shape, path), stored)
        if values.dtype.kind == "b":
            values = values.view(np.uint8)
        self.array: NDArray[Any] = values.reshape(self.shape)

    def _read(self, box: tuple[slice, slice, slice]) -> NDArray[Any]:
        return self.array[box]


def open_image(path: str | Path, what: str = "image") -> Image:
    """Open an image; reads headers only.

    Parameters
    ----------
    path : str or Path
        A TIFF file, a directory of TIFF slices (sorted by name), or an HDF5 dataset ``file.h5::/dataset``.
    what : str
        What messages call it, for instance ``"mask"``.

    Returns
    -------
    Image
        Reads boxes into memory of their own; `mpidvc.tasks.placement` maps it or keeps a copy for a run.

    Raises
    ------
    UserError
        If it is missing, damaged or nothing that can be correlated.
    """
    text = str(path)
    place = Path(text)
    if place.is_dir():
        return open_slices(text, what)
    if place.exists():
        if place.suffix.lower() in SUFFIXES:
            return open_hdf5(text, what)
        return open_tiff(text, what)
    if SEPARATOR in text:
        return open_hdf5(text, what)
    raise UserError(f"{what} {text}: does not exist; check the path")
