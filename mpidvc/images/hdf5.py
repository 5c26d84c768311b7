"""Images in HDF5 datasets, named ``file.h5::/path/of/dataset``."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Triple
from mpidvc.errors import UserError
from mpidvc.images.files import check_regular, one_line
from mpidvc.images.linked import check_links, check_sources, encoded
from mpidvc.images.plain import PlainImage
from mpidvc.images.source import Box, Source, stored_dtype, volume_axes, volume_shape

__all__ = ["SEPARATOR", "SUFFIXES", "Hdf5Image", "check_values", "find_dataset", "open_hdf5", "opening"]

SEPARATOR = "::"
#: Suffixes of files that hold datasets, of which one has to be named.
SUFFIXES = {".h5", ".hdf5", ".hdf", ".nx", ".nxs", ".nexus", ".cxi"}

#: Chunks whose places are checked, about a second.
MOST_CHUNKS = 100_000


class Hdf5Image(Source):
    """Dataset that is chunked, compressed or spread over several files; h5py reads its boxes.

    Parameters
    ----------
    path : str
        ``file.h5::/dataset``.
    shape : tuple of 3 ints
        (z, y, x).
    stored : dtype
        Dtype of the stored values.
    dataset_shape : tuple of ints
        Shape of the dataset, which may have fewer or more axes.
    chunks : tuple of ints, optional
        Shape of the dataset's chunks.
    """

    def __init__(
        self,
        path: str,
        shape: Triple,
        stored: np.dtype[Any],
        dataset_shape: tuple[int, ...],
        chunks: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(path, shape, stored)
        self.axes = volume_axes(dataset_shape)
        self.ndim = len(dataset_shape)
        self.chunks = chunks

    @property
    def files(self) -> list[str]:
        return [self.path.partition(SEPARATOR)[0]]

    @property
    def grain(self) -> Triple:
        if self.chunks is None:
            return (1, 1, 1)
        sizes = [1, *(self.chunks[axis] for axis in self.axes)]
        return (sizes[-3], sizes[-2], sizes[-1])

    def _read(self, box: Box) -> NDArray[Any]:
        import h5py

        file, _, dataset = self.path.partition(SEPARATOR)
        index = [slice(0, 1)] * self.ndim
        for axis, extent in zip(self.axes, box[3 - len(self.axes) :], strict=True):
            index[axis] = extent
        try:
            if self._opened is None:
                # Neighbouring boxes share chunks; the default cache of 1 MB would decompress them again for each box.
                # The cache is a hash table: with fewer places, chunks would displace each other before it is full.
                places = 10 * self.cache_bytes // (math.prod(self.grain) * self.dtype.itemsize)
                options = {"rdcc_nbytes": self.cache_bytes, "rdcc_nslots": min(max(places, 521), 1_000_003) | 1}
                self._opened = h5py.File(file, "r", **options)[encoded(dataset)]
            part: NDArray[Any] = self._opened[tuple(index)]
            return part.reshape([s.stop - s.start for s in box])
        except MemoryError:
            raise
        except Exception as error:  # h5py raises exceptions of any kind at damaged files
            raise UserError(
                f"image {self.path}: cannot be read ({one_line(error)}); copy or export it again"
            ) from error


def open_hdf5(path: str, what: str = "image") -> PlainImage | Hdf5Image:
    """Open an HDF5 dataset: a contiguous one without filters is read by position, any other through h5py.

    Parameters
    ----------
    path : str
        ``file.h5::/dataset``.
    what : str
        Name of the image in messages.

    Returns
    -------
    PlainImage or Hdf5Image

    Raises
    ------
    UserError
        If the file or dataset is missing, or the dataset is no image of 2 or 3 dimensions and a supported dtype.
    """
    name = f"{what} {path}"
    file_name, _, dataset_name = path.partition(SEPARATOR)
    with opening(file_name, name) as file:
        return _image(file, dataset_name, path, name)


@contextmanager
def opening(file_name: str, name: str) -> Iterator[Any]:
    """An HDF5 file that is open within a block; all errors in the block are of this file.

    Raises
    ------
    UserError
        If it is missing or damaged; it begins with `name`.
    """
    import h5py

    check_regular(file_name, name)
    try:
        with h5py.File(file_name, "r") as file:
            yield file
    except (UserError, MemoryError):
        raise
    except Exception as error:  # h5py raises exceptions of any kind at damaged files
        raise UserError(f"{name}: cannot be opened as HDF5 ({one_line(error)}); check the file") from error


def _image(file: Any, dataset_name: str, path: str, name: str) -> PlainImage | Hdf5Image:
    dataset, dtype = find_dataset(file, dataset_name, name)
    stored = stored_dtype(dtype, name)
    shape = volume_shape(dataset.shape, name)
    check_values(dataset, name)
    here = not dataset.is_virtual and not dataset.external
    offset = dataset.id.get_offset() if here and dataset.chunks is None and _as_in_memory(dataset) else None
    if offset is None:
        return Hdf5Image(path, shape, stored, dataset.shape, dataset.chunks)
    # an external link leads to a dataset of another file
    return PlainImage(path, shape, stored, [offset], dataset.file.filename)


def find_dataset(file: Any, dataset_name: str, name: str) -> tuple[Any, np.dtype[Any]]:
    """A dataset of an open file that has a shape, and its dtype.

    Raises
    ------
    UserError
        If there is none, or its values are of no type of numpy.
    """
    dataset = _dataset(file, dataset_name, name)
    try:
        dtype = dataset.dtype
    except TypeError as error:
        raise UserError(
            f"{name}: cannot use its type of values ({one_line(error)}); convert it to 8, 16 or 32 bit integers or to "
            "float32"
        ) from error
    if dataset.shape is None:
        raise UserError(f"{name}: is empty; give a dataset with at least one voxel")
    return dataset, dtype


def check_values(dataset: Any, name: str) -> None:
    """Check that the values of a dataset are there, and can be decoded.

    Raises
    ------
    UserError
        If not.
    """
    _check_filters(dataset, name)
    check_sources(dataset, name)
    if not dataset.is_virtual and not dataset.external and dataset.id.get_storage_size() == 0:
        raise UserError(f"{name}: holds no values, none were ever written; give a dataset with values")
    if dataset.chunks is not None and hasattr(dataset.id, "chunk_iter"):  # HDF5 1.12.3
        _check_chunks(dataset, name)


def _dataset(file: Any, dataset_name: str, name: str) -> Any:
    import h5py

    check_links(file, dataset_name, name)
    told, dataset = "names no dataset", None
    try:
        dataset = file[encoded(dataset_name or "/")]
    except (KeyError, RuntimeError, UnicodeError) as error:  # damage, links that lead in a circle, names of any bytes
        reason = one_line(error)
        told += "" if "doesn't exist" in reason or "not found" in reason else f" ({reason})"
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{name}: {told}; {_available(file)}")
    return dataset


def _check_filters(dataset: Any, name: str) -> None:
    import h5py

    creation = dataset.id.get_create_plist()
    for i in range(creation.get_nfilters()):
        code = creation.get_filter(i)[0]
        if not h5py.h5z.filter_avail(code):
            raise UserError(
                f"{name}: is compressed by HDF5 filter {code}, which is not installed; "
                "set HDF5_PLUGIN_PATH to the folder that holds it"
            )


def _check_chunks(dataset: Any, name: str) -> None:
    """Check that chunks are where a chunk can be; where one is not, HDF5 may crash the process."""
    size = Path(dataset.file.filename).stat().st_size
    left = MOST_CHUNKS

    def wrong(chunk: Any) -> bool | None:
        nonlocal left
        left -= 1
        place = chunk.byte_offset
        return True if not place or chunk.size < 1 or place + chunk.size > size else left == 0 or None

    if dataset.id.chunk_iter(wrong) is not None and left > 0:
        raise UserError(f"{name}: is damaged, its chunks are not in the file; copy or export it again")


def _as_in_memory(dataset: Any) -> bool:
    """Whether numbers have the bits of `dataset.dtype`; HDF5 may store, say, 12 bits of 16, in another place."""
    import h5py

    return bool(dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype, logical=True)))


def _available(file: Any) -> str:
    """Remedy of a wrong name: the datasets of the file that can be images."""
    import h5py

    names: list[str] = []

    def note(name: bytes) -> bool | None:
        with suppress(Exception):  # one that is damaged does not hide the others
            item, text = h5py.h5o.open(file.id, name), os.fsdecode(name)
            usable = isinstance(item, h5py.h5d.DatasetID) and item.rank >= 2 and item.dtype.kind in "biuf"
            if usable and text.isprintable():
                names.append(f"/{text}")
        return True if len(names) == 8 else None

    with suppress(Exception):  # a damaged group ends the visit
        h5py.h5o.visit(file.id, note)
    if not names:
        return f"{file.filename} holds no dataset of 2 or 3 dimensions"
    more = " …" if len(names) == 8 else ""
    return f"{file.filename} holds {', '.join(names)}{more}; give {file.filename}{SEPARATOR}{names[0]}"
