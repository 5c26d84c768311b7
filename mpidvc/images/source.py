"""Base of all images: rules of shape and dtype, clipping of boxes, native byte order, pickling."""

from __future__ import annotations

import copy
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mpidvc.arrays import Triple, is_two_d
from mpidvc.core.grey import ANY_VALUE, Limits
from mpidvc.errors import UserError

__all__ = [
    "CACHE",
    "PIECE",
    "Decoded",
    "Source",
    "crop",
    "in_pieces",
    "refuse_labels_only",
    "stored_dtype",
    "volume_axes",
    "volume_shape",
]

#: Kinds and sizes in bytes of the dtypes that can be read, and of those that can be labels, but no grey levels.
SUPPORTED = {"b1", "u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"}
LABELS_ONLY = {"u8", "i8"}

#: Voxels whose bytes can be counted in 64 bits.
MOST_VOXELS = 2**59

#: Bytes of decoded values that an image keeps for the next box, by default.
CACHE = 32 * 2**20
#: Bytes that are read at once by a pass over a whole image.
PIECE = 8 * 2**20

Box = tuple[slice, slice, slice]
Key = TypeVar("Key", bound=Hashable)


def crop(shape: Sequence[int], low: Sequence[int], high: Sequence[int]) -> tuple[Box, Box]:
    """Part of the box ``[low, high)`` that lies in an array of this shape.

    Returns
    -------
    source, inside : tuple of 3 slices each
        Place of the part in the array and in the box; of length 0 along an axis where box and array do not meet.
    """
    source, inside = [], []
    for n, first, last in zip(shape, map(int, low), map(int, high), strict=True):
        start = min(max(first, 0), n)
        stop = max(min(last, n), start)
        offset = start - first if stop > start else 0
        source.append(slice(start, stop))
        inside.append(slice(offset, offset + stop - start))
    return (source[0], source[1], source[2]), (inside[0], inside[1], inside[2])


def stored_dtype(dtype: DTypeLike, name: str) -> np.dtype[Any]:
    """Dtype for reading stored values: uint8 for bool, with the byte order of the file.

    Raises
    ------
    UserError
        If the dtype is not supported.
    """
    stored = np.dtype(dtype)
    if f"{stored.kind}{stored.itemsize}" not in SUPPORTED | LABELS_ONLY:
        raise _refusal(stored, name)
    return np.dtype(np.uint8) if stored.kind == "b" else stored


def refuse_labels_only(dtype: np.dtype[Any], name: str) -> None:
    """Refuse a dtype that can hold labels only, for grey levels and masks.

    Raises
    ------
    UserError
        If it is such a dtype.
    """
    if f"{dtype.kind}{dtype.itemsize}" in LABELS_ONLY:
        raise _refusal(dtype, name)


def _refusal(dtype: np.dtype[Any], name: str) -> UserError:
    return UserError(
        f"{name}: cannot use values of type {dtype.name}; convert it to 8, 16 or 32 bit integers or to float32"
    )


def volume_axes(shape: Sequence[int]) -> list[int]:
    """Axes of a volume: of more than 3, axes of length 1 before the last two are dropped until 3 remain."""
    spare = [axis for axis, n in enumerate(shape[:-2]) if n == 1][: max(len(shape) - 3, 0)]
    return [axis for axis in range(len(shape)) if axis not in spare]


def volume_shape(shape: Sequence[int], name: str) -> Triple:
    """Shape (z, y, x) of stored data: a 2D shape gets a first axis of length 1, surplus axes of length 1 are dropped.

    Raises
    ------
    UserError
        If the data are empty or beyond any memory, or have fewer than 2 or more than 3 dimensions.
    """
    if 0 in shape:
        raise UserError(f"{name}: is empty, its shape is {tuple(shape)}; give an image with at least one voxel")
    if math.prod(shape) > MOST_VOXELS:
        raise UserError(f"{name}: cannot have the shape {tuple(shape)}; check the file, or export it again")
    sizes = [int(shape[axis]) for axis in volume_axes(shape)]
    if len(sizes) == 2:
        sizes = [1, *sizes]
    if len(sizes) != 3:
        raise UserError(f"{name}: has {len(sizes)} dimensions, its shape is {tuple(shape)}; give a 2D or 3D image")
    return sizes[0], sizes[1], sizes[2]


def in_pieces(shape: Triple, grain: Triple, itemsize: int) -> Iterator[tuple[Triple, Triple]]:
    """Boxes ``[low, high)`` of about `PIECE` bytes that make up an image, for a pass over all of it.

    Parameters
    ----------
    shape : 3 ints
        Of the image.
    grain : 3 ints
        Shape of the pieces that are decoded as a whole: none is divided.
    itemsize : int
        Bytes of a voxel.
    """
    size = list(grain)
    most = PIECE // itemsize
    for axis in (2, 1, 0):
        # whole rows, then whole planes, then several planes
        other = math.prod(size) // size[axis]
        repeat = max(1, most // (other * size[axis]))
        size[axis] = min(size[axis] * repeat, shape[axis])
        if size[axis] < shape[axis]:
            break
    starts = [range(0, n, step) for n, step in zip(shape, size, strict=True)]
    for low in itertools.product(*starts):
        high = [min(a + step, n) for a, step, n in zip(low, size, shape, strict=True)]
        yield (low[0], low[1], low[2]), (high[0], high[1], high[2])


class Decoded:
    """Cache of the pieces that were used last, up to a number of bytes.

    Parameters
    ----------
    most : int
        Bytes that are kept; one piece is kept whatever its size.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key, make: Callable[[Key], NDArray[Any]]) -> NDArray[Any]:
        """The piece with this key; `make` makes it if it is not there."""
        piece = self._pieces.get(key)
        if piece is not None:
            self._pieces.move_to_end(key)
            return piece
        piece = make(key)
        self._bytes += piece.nbytes
        while self._pieces and self._bytes > self._most:
            self._bytes -= self._pieces.popitem(last=False)[1].nbytes
        self._pieces[key] = piece
        return piece


class Source:
    """Base of the images: a volume whose file is opened on first use, and anew after unpickling.

    A box is read into memory of its own; at most `cache_bytes` of decoded values are kept. `mapped` and `boxed` give
    the same image, read in another way.

    Parameters
    ----------
    path : str
        Name of the image in messages.
    shape : tuple of 3 ints
        (z, y, x); (1, ny, nx) for 2D images.
    stored : dtype
        Dtype of the stored values; `dtype` is the same in native byte order.

    Attributes
    ----------
    plain : bool
        Whether the file holds the values unencoded, so that it can be mapped into memory.
    maps : bool
        Whether boxes are views of a memory map, if the image is plain.
    cache_bytes : int
        Most bytes of decoded values that are kept.
    limits : 2 floats
        Least and greatest value that is a grey level (`mpidvc.core.grey.plausible_limits`); others are no data.
    base : float
        Constant that is taken off the grey levels before they become single precision (`mpidvc.core.grey.base_of`).
    """

    plain = False
    maps = False
    cache_bytes = CACHE
    limits: Limits = ANY_VALUE
    base: float = 0.0

    def __init__(self, path: str, shape: Triple, stored: np.dtype[Any]) -> None:
        self.path = path
        self.shape = shape
        self.stored = stored
        self.dtype: np.dtype[Any] = stored.newbyteorder("=")
        self._opened: Any = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, shape={self.shape}, dtype={self.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def describe(self) -> str:
        """One line for people: path, shape and dtype."""
        shape = self.shape[1:] if self.two_d else self.shape
        return f"{self.path}: {' × '.join(map(str, shape))} {self.dtype.name}"

    @property
    def two_d(self) -> bool:
        """Whether this is a 2D image, a single plane."""
        return is_two_d(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole image in its own dtype."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def files(self) -> list[str]:
        """Files or directories that hold the values."""
        return [self.path]

    @property
    def grain(self) -> Triple:
        """Shape of the pieces that are decoded as a whole; (1, 1, 1) if every voxel can be read alone."""
        return (1, 1, 1)

    @property
    def held(self) -> int:
        """Bytes that stay in memory between boxes at most."""
        if self.plain:
            return 0
        # one piece that is being decoded, and its result, are there too
        return min(self.nbytes, max(self.cache_bytes, 2 * math.prod(self.grain) * self.dtype.itemsize))

    def mapped(self) -> Source:
        """This image, mapped into memory if it is plain."""
        other = copy.copy(self)
        other.maps = self.plain
        return other

    def boxed(self, cache_bytes: int = CACHE) -> Source:
        """This image, neither mapped nor ever whole in memory."""
        other = copy.copy(self)
        other.maps, other.cache_bytes = False, cache_bytes
        return other

    def close(self) -> None:
        """Close the file and drop the cache; the next box opens the file again."""
        self._opened = None

    def read_box(self, low: Sequence[int], high: Sequence[int]) -> tuple[NDArray[Any], Box]:
        """Real part of the box ``[low, high)``, which may stick out of the image or miss it altogether.

        Parameters
        ----------
        low, high : sequence of 3 ints
            First voxel (z, y, x) of the box and the one after its last.

        Returns
        -------
        part : (a, b, c) array of `dtype`
            May be empty, and may be a read-only view of the file.
        inside : tuple of 3 slices
            Place of `part` in the box.
        """
        source, inside = crop(self.shape, low, high)
        size = [s.stop - s.start for s in source]
        if 0 in size:
            return np.empty(size, self.dtype), inside
        part = self._read(source)
        if part.dtype != self.dtype or not part.flags.aligned:
            part = part.astype(self.dtype)
        return part, inside

    def _read(self, box: Box) -> NDArray[Any]:
        """Stored values of a box that lies inside the image and is not empty."""
        raise NotImplementedError
