"""Images written plane by plane: one TIFF file, or a folder of slices."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mpidvc.atomic import replacing
from mpidvc.errors import UserError
from mpidvc.images.image import Image

__all__ = ["DATASET", "planes_to"]

#: Name of the image in HDF5 files.
DATASET = "image"


@contextmanager
def planes_to(
    target: Path, image: Image, name: str, slices: bool, dtype: npt.DTypeLike | None = None
) -> Iterator[Callable[[int, npt.NDArray[np.generic]], None]]:
    """A function ``put(first plane, planes)``; the file, or folder of slices, appears whole or not at all.

    Parameters
    ----------
    target : Path
        An HDF5 file with the dataset `DATASET` if its name ends in ``.h5``, else TIFF (BigTIFF from 4 GB on).
    image : Image
        Has the shape that is written.
    name : str
        Begin of the names of slices.
    slices : bool
        Write a folder of TIFF slices instead of one file.
    dtype : dtype, optional
        That of the image by default.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    import tifffile

    if not slices:
        shape = image.shape[1:] if image.two_d else image.shape
        write = _hdf5 if target.suffix == ".h5" else _tiff
        with replacing(target) as temporary, write(temporary, shape, np.dtype(dtype or image.dtype)) as put:
            yield put
        return

    folder = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    digits = len(str(image.shape[0] - 1))

    def put_slices(first: int, planes: npt.NDArray[np.generic]) -> None:
        for k, plane in enumerate(planes):
            tifffile.imwrite(folder / f"{name}-{first + k:0{digits}d}.tif", plane, photometric="minisblack")

    try:
        folder.mkdir()
        yield put_slices
        if target.is_dir():
            shutil.rmtree(target)
        folder.replace(target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); check the output directory") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


Put = Callable[[int, npt.NDArray[np.generic]], None]


@contextmanager
def _tiff(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Put]:
    """Planes go to their places in the file: it is not mapped, so that it takes no memory."""
    import tifffile

    axes = "YX" if len(shape) == 2 else "ZYX"
    volume = tifffile.memmap(path, shape=shape, dtype=dtype, photometric="minisblack", metadata={"axes": axes})
    offset, order = volume.offset, volume.dtype
    del volume
    plane = int(np.prod(shape[-2:])) * dtype.itemsize
    with path.open("r+b") as file:

        def put(first: int, planes: npt.NDArray[np.generic]) -> None:
            file.seek(offset + first * plane)
            file.write(np.ascontiguousarray(planes, order).data)

        yield put


@contextmanager
def _hdf5(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Put]:
    import h5py

    with h5py.File(path, "w") as file:
        volume = file.create_dataset(DATASET, shape, dtype)

        def put(first: int, planes: npt.NDArray[np.generic]) -> None:
            if len(shape) == 2:
                volume[...] = planes[0]
            else:
                volume[first : first + len(planes)] = planes

        yield put
