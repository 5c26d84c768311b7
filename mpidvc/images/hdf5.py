"""Images in HDF5 datasets, named ``file.h5::/path/of/dataset``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Triple
from mpidvc.errors import UserError
from mpidvc.images.plain import PlainImage
from mpidvc.images.source import Box, Source, stored_dtype, volume_axes, volume_shape

__all__ = ["SEPARATOR", "SUFFIXES", "Hdf5Image", "open_hdf5"]

SEPARATOR = "::"
#: Suffixes of files that hold datasets, of which one has to be named.
SUFFIXES = {".h5", ".hdf5", ".hdf", ".nx", ".nxs", ".nexus", ".cxi"}


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
                self._opened = h5py.File(file, "r", **options)[dataset]
            part: NDArray[Any] = self._opened[tuple(index)]
        except (OSError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"image {self.path}: cannot be read ({reason}); copy or export it again") from error
        return part.reshape([s.stop - s.start for s in box])


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
    import h5py

    name = f"{what} {path}"
    file_name, _, dataset_name = path.partition(SEPARATOR)
    if not Path(file_name).is_file():
        raise UserError(f"{name}: the file {file_name} does not exist; check the path")
    try:
        file = h5py.File(file_name, "r")
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: cannot be opened as HDF5 ({reason}); check the file") from error
    with file:
        dataset = file.get(dataset_name) if dataset_name.strip("/") else None
        if not isinstance(dataset, h5py.Dataset):
            raise UserError(f"{name}: names no dataset; {_available(file, file_name)}")
        stored = stored_dtype(dataset.dtype, name)
        if dataset.shape is None:
            raise UserError(f"{name}: is empty; give a dataset with at least one voxel")
        shape = volume_shape(dataset.shape, name)
        creation = dataset.id.get_create_plist()
        for i in range(creation.get_nfilters()):
            code = creation.get_filter(i)[0]
            if not h5py.h5z.filter_avail(code):
                raise UserError(
                    f"{name}: is compressed by HDF5 filter {code}, which is not installed; "
                    "set HDF5_PLUGIN_PATH to the folder that holds it"
                )
        plain = dataset.chunks is None and not dataset.is_virtual and not dataset.external
        offset = dataset.id.get_offset() if plain else None
        if offset is not None:
            # An external link leads to a dataset of another file.
            return PlainImage(path, shape, stored, [offset], dataset.file.filename)
        return Hdf5Image(path, shape, stored, dataset.shape, dataset.chunks)


def _available(file: Any, file_name: str) -> str:
    """Remedy of a wrong name: the datasets of the file that can be images."""
    import h5py

    names: list[str] = []

    def note(name: str, item: object) -> bool | None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2:
            names.append(f"/{name}")
        return True if len(names) == 8 else None

    file.visititems(note)
    if not names:
        return f"{file_name} holds no dataset of 2 or 3 dimensions"
    return (
        f"{file_name} holds {', '.join(names)}{' …' if len(names) == 8 else ''}; give {file_name}{SEPARATOR}{names[0]}"
    )
