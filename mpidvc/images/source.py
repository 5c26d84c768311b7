"""What all kinds of images share: shape and dtype rules, clipping of boxes, native byte order, pickling."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mpidvc.arrays import Triple, is_two_d
from mpidvc.core.grey import ANY_VALUE, Limits
from mpidvc.errors import UserError

__all__ = ["CACHE", "Decoded", "Source", "crop", "stored_dtype", "volume_axes", "volume_shape"]

#: Kind and size in bytes of what can be read.
SUPPORTED = {"b1", "u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"}

#: Bytes of decoded values that an image keeps for the next box, if nobody says otherwise.
CACHE = 32 * 2**20

Box = tuple[slice, slice, slice]
Key = TypeVar("Key", bound=Hashable)


def crop(shape: Sequence[int], low: Sequence[int], high: Sequence[int]) -> tuple[Box, Box]:
    """Part of the box ``[low, high)`` that lies in an array of this shape.

    Returns
    -------
    source, inside : tuple of 3 slices each
        Where the part is in the array, and where it is in the box; of length 0 along an axis that does not meet.
    """
    source, inside = [], []
    for n, first, last in zip(shape, low, high, strict=True):
        start = min(max(int(first), 0), n)
        stop = max(min(int(last), n), start)
        offset = start - int(first) if stop > start else 0
        source.append(slice(start, stop))
        inside.append(slice(offset, offset + stop - start))
    return (source[0], source[1], source[2]), (inside[0], inside[1], inside[2])


def stored_dtype(dtype: DTypeLike, name: str) -> np.dtype[Any]:
    """Dtype in which to read stored values: bool as uint8, the byte order kept.

    Raises
    ------
    UserError
        If images of that dtype are not supported.
    """
    stored = np.dtype(dtype)
    if f"{stored.kind}{stored.itemsize}" not in SUPPORTED:
        raise UserError(
            f"{name}: cannot use values of type {stored.name}; convert it to 8, 16 or 32 bit integers or to float32"
        )
    return np.dtype(np.uint8) if stored.kind == "b" else stored


def volume_axes(shape: Sequence[int]) -> list[int]:
    """Axes that are left when those of length 1 in front of the last two are dropped until 3 remain."""
    spare = [axis for axis, n in enumerate(shape[:-2]) if n == 1][: max(len(shape) - 3, 0)]
    return [axis for axis in range(len(shape)) if axis not in spare]


def volume_shape(shape: Sequence[int], name: str) -> Triple:
    """Shape (z, y, x) of stored data; two dimensions get a first one of length 1, surplus ones of length 1 are dropped.

    Raises
    ------
    UserError
        If the data are empty, have fewer than 2 or more than 3 dimensions.
    """
    if 0 in shape:
        raise UserError(f"{name}: is empty, its shape is {tuple(shape)}; give an image with at least one voxel")
    sizes = [int(shape[axis]) for axis in volume_axes(shape)]
    if len(sizes) == 2:
        sizes = [1, *sizes]
    if len(sizes) != 3:
        raise UserError(f"{name}: has {len(sizes)} dimensions, its shape is {tuple(shape)}; give a 2D or 3D image")
    return sizes[0], sizes[1], sizes[2]


class Decoded:
    """What was decoded last, up to a number of bytes.

    Parameters
    ----------
    most : int
        Bytes; one piece is kept whatever its size.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key, make: Callable[[Key], NDArray[Any]]) -> NDArray[Any]:
        """The piece of this name, made if it is not there."""
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
    """Base of the images: a volume whose values are opened on first use, and anew after unpickling.

    It reads boxes into memory of their own and keeps at most `cache_bytes` of what it has decoded. `mapped` and `boxed`
    give the same image read in another way.

    Parameters
    ----------
    path : str
        Where it comes from, for messages.
    shape : tuple of 3 ints
        (z, y, x); 2D images are (1, ny, nx).
    stored : dtype
        Of the stored values; `dtype` is the same in native byte order.

    Attributes
    ----------
    plain : bool
        Whether the values are in the file as they are, so that it can be mapped into memory.
    maps : bool
        Whether boxes are views of a memory map, where they can be.
    cache_bytes : int
        Most bytes of decoded values that are kept.
    limits : 2 floats
        Least and greatest value that is a grey level (`mpidvc.core.grey.plausible_limits`); others are no data.
    """

    plain = False
    maps = False
    cache_bytes = CACHE
    limits: Limits = ANY_VALUE

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
        """Where the values are."""
        return [self.path]

    @property
    def grain(self) -> Triple:
        """Shape of the pieces that can only be decoded together; (1, 1, 1) where every voxel can be read alone."""
        return (1, 1, 1)

    @property
    def held(self) -> int:
        """Bytes that reading boxes keeps in memory at most, whatever their size."""
        if self.plain:
            return 0
        # the least that has to be decoded at once is there, too
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
        """Give back what was opened and kept; the next box opens it again."""
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
            Where `part` is in the box.
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
        """Values of a box that lies in the image and is not empty, as stored."""
        raise NotImplementedError
