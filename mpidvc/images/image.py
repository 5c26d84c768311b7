"""Images from paths and arrays, and the `Image` protocol that all readers of voxels use."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpidvc.arrays import Triple
from mpidvc.core.grey import Limits
from mpidvc.errors import UserError
from mpidvc.images.files import identity_of
from mpidvc.images.hdf5 import SEPARATOR, SUFFIXES, open_hdf5
from mpidvc.images.plain import PlainImage
from mpidvc.images.slices import open_slices
from mpidvc.images.source import CACHE, Source, stored_dtype, volume_shape
from mpidvc.images.tiff import open_tiff

__all__ = ["ArrayImage", "Image", "image_at_hand", "image_of", "open_image", "shared_image"]

#: Bytes of a piece, and number of pieces, that are compared between a memory map and the file of its name.
SAMPLE, SAMPLES = 4096, 16


class Image(Protocol):
    """Volume (z, y, x) that is read in boxes; a 2D image has the shape (1, ny, nx). It can be pickled."""

    path: str
    shape: Triple
    dtype: np.dtype[Any]
    #: Least and greatest value that is a grey level; others are no data (`mpidvc.core.grey.plausible_limits`).
    limits: Limits
    #: Constant that is taken off the grey levels before they become single precision (`mpidvc.core.grey.base_of`).
    base: float

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
            In native byte order; may be empty, and may be a read-only view of memory that others read.
        inside : tuple of 3 slices
            Place of `part` in the box.
        """


class ArrayImage(Source):
    """Image in memory.

    Parameters
    ----------
    array : (nz, ny, nx) or (ny, nx) array
        Kept without a copy, in any byte order and memory layout. Boxes are read-only views of it.
    path : str
        Name of the image in messages.

    Raises
    ------
    UserError
        If the array is empty or masked, or has an unsupported dtype or number of dimensions.
    """

    # memory needs no copy, like a file that is mapped
    plain = True

    def __init__(self, array: ArrayLike, path: str = "<array>") -> None:
        if np.ma.isMaskedArray(array):
            raise UserError(f"{path}: is a masked array; give its data, and its mask as a mask")
        values = np.asarray(array)
        stored = stored_dtype(values.dtype, path)
        super().__init__(path, volume_shape(values.shape, path), stored)
        if values.dtype.kind == "b":
            values = values.view(np.uint8)
        self.array: NDArray[Any] = values.reshape(self.shape)
        self.array.flags.writeable = False

    def __reduce__(self) -> tuple[Any, ...]:
        at_hand = _at_hand.get(self.path)
        if at_hand is not None and at_hand.array is self.array:
            return _find, (self.path, self.limits, self.base)
        return _remake, (self.array, self.path, self.limits, self.base)

    @property
    def files(self) -> list[str]:
        return []

    def mapped(self) -> Source:
        return self

    def boxed(self, cache_bytes: int = CACHE) -> Source:
        return self

    def close(self) -> None:
        """Nothing is open."""

    def _read(self, box: tuple[slice, slice, slice]) -> NDArray[Any]:
        return self.array[box]


#: Images that every rank of a job has, by their paths.
_at_hand: dict[str, ArrayImage] = {}


def _find(path: str, limits: Limits, base: float) -> ArrayImage:
    return _remake(_at_hand[path].array, path, limits, base)


def _remake(array: NDArray[Any], path: str, limits: Limits, base: float) -> ArrayImage:
    image = ArrayImage(array, path)
    image.limits, image.base = limits, base
    return image


@contextmanager
def image_at_hand(image: ArrayImage) -> Iterator[ArrayImage]:
    """An image that every rank of a job has: its pickle is a name, as long as the block lasts.

    Parameters
    ----------
    image : ArrayImage
        The same voxels, by the same path, on every rank.
    """
    _at_hand[image.path] = image
    try:
        yield image
    finally:
        del _at_hand[image.path]


def open_image(path: str | Path | Image, what: str = "image") -> Image:
    """Open an image; only headers are read.

    Parameters
    ----------
    path : str, Path or Image
        A TIFF file, a directory of TIFF slices (ordered by the numbers in their names), or an HDF5 dataset
        ``file.h5::/dataset``. An image is returned as it is.
    what : str
        Name of the image in messages, for instance ``"mask"``.

    Returns
    -------
    Image
        It reads boxes into memory of their own; `mpidvc.tasks.placement` maps it or keeps a copy for a run.

    Raises
    ------
    UserError
        If the image is missing or damaged, or cannot be correlated.
    """
    if not isinstance(path, (str, Path)):
        return path
    text = str(path)
    place = Path(text)
    try:
        if text and place.is_dir():
            return open_slices(text, what)
        there = text != "" and place.exists()
    except OSError as error:
        raise UserError(f"{what} {text}: cannot be opened ({error.strerror}); check the path") from error
    if there:
        if place.suffix.lower() in SUFFIXES:
            return open_hdf5(text, what)
        return open_tiff(text, what)
    if SEPARATOR in text:
        return open_hdf5(text, what)
    raise UserError(f"{what} {text}: does not exist; check the path")


def image_of(value: str | Path | ArrayLike | Image, name: str = "image") -> Image:
    """Image of a path, an array or an image.

    Parameters
    ----------
    value : str, Path, (nz, ny, nx) or (ny, nx) array, or Image
        A path is opened by `open_image`, an image returned as it is. An array is kept without a copy; a memory map of a
        file (`numpy.memmap`, or a part of one) in C order becomes an image of this file, which any process can open.
    name : str
        Name of an array in messages. Images that are used together need different names.

    Returns
    -------
    Image

    Raises
    ------
    UserError
        If the value is no image.
    """
    if isinstance(value, (str, Path)) or hasattr(value, "read_box"):
        return open_image(cast("str | Path | Image", value), name)
    if not hasattr(value, "__array__"):
        raise UserError(f"{name}: is a {type(value).__name__}; give a path, a numpy array or an image")
    image = ArrayImage(value, name)
    return _in_file(value, image) if isinstance(value, np.memmap) else image


def _in_file(array: np.memmap[Any, Any], image: ArrayImage) -> Image:
    """Image of the file that a memory map shows; of the array, if that is not in C order or no longer in the file."""
    root: Any = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    file = array.filename
    if not isinstance(root.base, mmap.mmap) or file is None or array.mode == "c" or not array.flags.c_contiguous:
        return image
    # a part of a map has the offset of the whole map
    offset = array.offset + array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    inside = PlainImage(image.path, image.shape, image.stored, [offset], os.fspath(file))
    values = image.array.reshape(-1).view(np.uint8)
    try:
        with Path(file).open("rb") as opened:
            for start in np.linspace(0, max(values.size - SAMPLE, 0), SAMPLES).astype(int).tolist():
                opened.seek(offset + start)
                if opened.read(SAMPLE)[: values.size] != values[start : start + SAMPLE].tobytes():
                    return image
    except OSError:
        return image
    return inside


@contextmanager
def shared_image(image: ArrayImage) -> Iterator[PlainImage]:
    """Copy of an image in memory that other processes of this host open by its name.

    The memory is a file without a name in the file system, of this process; it is given back when the block has been
    left and the last process that mapped it has closed it. A killed process leaves nothing behind.

    Parameters
    ----------
    image : ArrayImage

    Yields
    ------
    PlainImage
        With the voxels of the image. Its pickle holds no voxels.

    Raises
    ------
    UserError
        If there is not so much memory.
    """
    file = -1
    try:
        try:
            file = os.memfd_create("mpidvc-array", os.MFD_CLOEXEC)
            # missing memory is an error here, and no signal later
            os.posix_fallocate(file, 0, image.nbytes)
            for z, plane in enumerate(image.array):
                data = np.ascontiguousarray(plane, image.dtype).data.cast("B")
                written = 0
                while written < len(data):
                    written += os.pwrite(file, data[written:], z * len(data) + written)
        except OSError as error:
            raise UserError(f"{image.path}: its {image.nbytes} bytes cannot be shared ({error.strerror})") from error
        place = f"/proc/{os.getpid()}/fd/{file}"
        shared = PlainImage(image.path, image.shape, image.dtype, [0], place, identity_of(file))
        shared.limits, shared.base = image.limits, image.base
        try:
            yield shared
        finally:
            shared.close()
    finally:
        if file >= 0:
            os.close(file)
