"""Stacks of 2D images, which are read one at a time: files, folders, HDF5 datasets and parts of them, arrays."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from mpidvc.errors import UserError
from mpidvc.images.files import one_line
from mpidvc.images.hdf5 import SEPARATOR, check_values, find_dataset, opening
from mpidvc.images.image import ArrayImage, Image, image_of, open_image
from mpidvc.images.linked import encoded
from mpidvc.images.source import CACHE, stored_dtype

__all__ = ["Index", "SlicedDataset", "Stack", "open_stack", "plane_of", "split_uri", "stack_of"]

Index = tuple[Any, ...]


class SlicedDataset:
    """Part of an HDF5 dataset, of which three axes are left: image, y, x.

    Parameters
    ----------
    file, dataset : str
    index : tuple of int, slice and Ellipsis
        As for an array.

    Raises
    ------
    UserError
        If it cannot be opened, or the part is no stack.
    """

    def __init__(self, file: str, dataset: str, index: Index) -> None:
        self.path = f"{file}{SEPARATOR}{dataset}"
        self._file, self._dataset = file, dataset
        self._opened: Any = None
        name = f"stack {self.path}"
        with opening(file, name) as opened:
            found, dtype = find_dataset(opened, dataset, name)
            shape = found.shape
            self.dtype = stored_dtype(np.float32 if dtype == np.float16 else dtype, name).newbyteorder("=")
            check_values(found, name)
        given = list(index)
        if Ellipsis in given:
            place = given.index(Ellipsis)
            given[place : place + 1] = [slice(None)] * (len(shape) - len(given) + 1)
        given += [slice(None)] * (len(shape) - len(given))
        told = ",".join(_told(one) for one in index)
        if len(given) != len(shape):
            raise UserError(f"{name}: slice {told}: has more axes than the dataset, whose shape is {shape}")
        self._index: list[int | range] = []
        for one, n in zip(given, shape, strict=True):
            if isinstance(one, int) and not -n <= one < n:
                raise UserError(f"{name}: slice {told}: {one} is outside the dataset, whose shape is {shape}")
            self._index.append(range(n)[one])
        kept = [len(one) for one in self._index if isinstance(one, range)]
        if len(kept) != 3 or 0 in kept:
            raise UserError(f"{name}: slice {told}: leaves the shape {tuple(kept)}; a stack has three axes, image y x")
        self.shape = (kept[0], kept[1], kept[2])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _open(self) -> Any:
        import h5py

        if self._opened is None:
            # neighbouring images may share chunks
            self._opened = h5py.File(self._file, "r", rdcc_nbytes=CACHE)[encoded(self._dataset)]
        return self._opened

    def plane(self, number: int) -> NDArray[Any]:
        """An image of the stack."""
        first = next(k for k, one in enumerate(self._index) if isinstance(one, range))
        index: list[Any] = []
        backwards: list[slice] = []
        for k, one in enumerate(self._index):
            if isinstance(one, int):
                index.append(one)
            elif k == first:
                index.append(one[number])
            else:
                # HDF5 reads forwards only
                forwards = one if one.step > 0 else one[::-1]
                index.append(slice(forwards.start, forwards.stop, forwards.step))
                backwards.append(slice(None, None, 1 if one.step > 0 else -1))
        try:
            values: NDArray[Any] = self._open()[tuple(index)]
        except MemoryError:
            raise
        except Exception as error:  # h5py raises exceptions of any kind at damaged files
            raise UserError(f"stack {self.path}: cannot be read ({one_line(error)}); copy it again") from error
        return np.asarray(values[tuple(backwards)], self.dtype)


Stack: TypeAlias = Image | SlicedDataset


def plane_of(stack: Stack, number: int) -> NDArray[Any]:
    """An image of a stack (ny, nx), in its own dtype."""
    if isinstance(stack, SlicedDataset):
        return stack.plane(number)
    _, ny, nx = stack.shape
    part: NDArray[Any] = stack.read_box((number, 0, 0), (number + 1, ny, nx))[0]
    return part.reshape(ny, nx)


def split_uri(uri: str) -> tuple[str, str, Index]:
    """File, dataset and slice of a URI: ``file::/path``, or silx's ``silx:file?path=/path&slice=0:5,::2``.

    File and dataset are empty, and the slice is (), where the URI does not give them.

    Raises
    ------
    UserError
        If the slice is none.
    """
    text = uri
    if text.startswith("silx:"):
        text = text.removeprefix("silx:")
        # an absolute path follows three slashes, another one two or none
        text = text.removeprefix("//")
    file, mark, query = text.partition("?")
    if not mark or Path(text).exists():
        file, _, dataset = text.partition(SEPARATOR)
        found = re.fullmatch(r"(.*?)\[([^\[\]]*)\]", dataset)
        return (file, found[1], _index(found[2], uri)) if found else (file, dataset, ())
    if "=" not in query:
        name, mark, cut = query.partition("&")
        return file, name, _index(cut, uri) if mark else ()
    given = dict(parse_qsl(query))
    unknown = [name for name in given if name not in ("path", "slice")]
    if unknown:
        raise UserError(f"stack {uri}: has a part {unknown[0]!r}; a URI has ?path=/dataset&slice=0:5")
    return file, given.get("path", ""), _index(given["slice"], uri) if "slice" in given else ()


def _index(text: str, uri: str) -> Index:
    index: list[Any] = []
    for word in text.split(","):
        parts = word.strip().split(":")
        try:
            if word.strip() == "...":
                index.append(Ellipsis)
            elif len(parts) == 1:
                index.append(int(parts[0]))
            elif len(parts) <= 3:
                index.append(slice(*(int(part) if part.strip() else None for part in parts)))
            else:
                raise ValueError
            if isinstance(index[-1], slice):
                # a step of 0
                index[-1].indices(1)
        except ValueError:
            raise UserError(f"stack {uri}: slice {text}: is none; give for instance slice=0:100,...") from None
    if index.count(Ellipsis) > 1:
        raise UserError(f"stack {uri}: slice {text}: has more than one ellipsis")
    return tuple(index)


def _told(one: Any) -> str:
    if one is Ellipsis:
        return "..."
    if not isinstance(one, slice):
        return str(one)
    words = ["" if part is None else str(part) for part in (one.start, one.stop, one.step)]
    return ":".join(words if one.step is not None else words[:2])


def open_stack(uri: str) -> Stack:
    """Open a stack of 2D images; only headers are read.

    Parameters
    ----------
    uri : str
        An HDF5 dataset (`split_uri`), a TIFF file of several pages, or a folder of TIFF files.

    Raises
    ------
    UserError
        If it is missing or damaged, or no stack.
    """
    file, dataset, index = split_uri(uri)
    name = f"stack {uri}"
    if not file:
        raise UserError(f"{name}: names no file; give file.h5::/path, a TIFF file or a folder")
    if index and not dataset:
        raise UserError(f"{name}: has a slice, but names no dataset; give file.h5::/path[0:100]")
    single = UserError(f"{name}: is a single image; a stack has three axes, image y x")
    if dataset:
        with opening(file, name) as opened:
            found, dtype = find_dataset(opened, dataset, name)
            axes = len(found.shape)
        if index or dtype == np.float16:
            return SlicedDataset(file, dataset, index)
        image = open_image(f"{file}{SEPARATOR}{dataset}", "stack")
        if axes < 3:
            raise single
        return image
    image = open_image(f"{file}{SEPARATOR}" if uri.endswith(SEPARATOR) else file, "stack")
    if image.two_d and not Path(file).is_dir():
        raise single
    return image


def _opens_again(file: str) -> bool:
    """Whether a file that is open in this process can be opened as well: HDF5 refuses another way of locking."""
    import h5py

    try:
        h5py.File(file, "r").close()
    except OSError:
        return False
    return True


def stack_of(value: Any, name: str) -> Stack | str:
    """Stack of an array or of a sequence of images; a URI is returned as it is.

    Parameters
    ----------
    value : str, Path, DataUrl of silx, Image, (n, ny, nx) array, or sequence of (ny, nx) arrays
        A nested list of two levels is a stack of images of one row. For an open dataset of h5py its URI is returned, or
        its values, if this process cannot open the file once more.
    name : str
        Of the stack, in messages.

    Raises
    ------
    UserError
        If it is no stack.
    """
    if isinstance(value, str | Path):
        return str(value)
    if hasattr(value, "data_path") and hasattr(value, "file_path"):
        # DataUrl of silx
        return str(value.path())
    if hasattr(value, "read_box"):
        return image_of(value)
    if hasattr(value, "file") and hasattr(value, "name"):
        if _opens_again(value.file.filename):
            return f"{value.file.filename}{SEPARATOR}{value.name}"
        value = value[()]
    told = f"stack {name}"
    try:
        array = value if isinstance(value, np.ndarray) else np.array(value if hasattr(value, "__array__") else [*value])
    except (TypeError, ValueError):
        raise UserError(f"{told}: is no stack; give a URI, an array (image, y, x), or images of one shape") from None
    rows = isinstance(value, list | tuple) and array.ndim == 2 and not any(hasattr(one, "__array__") for one in value)
    if rows:
        array = array[:, None]
    if array.ndim != 3:
        raise UserError(f"{told}: has {array.ndim} dimensions, its shape is {array.shape}; a stack has three")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    # an array of the caller stays writeable
    return ArrayImage(array.view(), told)
