"""Images written plane by plane: one TIFF file, or a folder of slices."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mpidvc.atomic import replacing
from mpidvc.errors import UserError
from mpidvc.images.image import Image

__all__ = ["planes_to"]


@contextmanager
def planes_to(
    target: Path, image: Image, name: str, slices: bool
) -> Iterator[Callable[[int, npt.NDArray[np.generic]], None]]:
    """A function ``put(first plane, planes)``; the file, or folder of slices, appears whole or not at all.

    Parameters
    ----------
    target : Path
    image : Image
        Has the shape and the dtype that are written.
    name : str
        Begin of the names of slices.
    slices : bool
        Write a folder of TIFF slices instead of one TIFF file.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    import tifffile

    if not slices:
        shape = image.shape[1:] if image.two_d else image.shape
        with replacing(target) as temporary:
            volume = tifffile.memmap(
                temporary,
                shape=shape,
                dtype=image.dtype,
                photometric="minisblack",
                metadata={"axes": "YX" if len(shape) == 2 else "ZYX"},
            )

            def put_planes(first: int, planes: npt.NDArray[np.generic]) -> None:
                volume.reshape(image.shape)[first : first + len(planes)] = planes

            yield put_planes
            volume.flush()
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
