"""What the window reads and writes: pairs of images, Phi, and the deformed image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpidvc.arrays import Array
from mpidvc.core import deformation
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import write_tsv
from mpidvc.gui.display import Numbers
from mpidvc.gui.snap import Progress
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.images.planes import planes_to
from mpidvc.tasks.binned import BinnedImage
from mpidvc.tasks.deform import DeformTask, WholeMotion
from mpidvc.tasks.warp import to_dtype
from mpidvc.workflow.guess import read_guess
from mpidvc.workflow.inputs import by, open_pair
from mpidvc.workflow.output import base_name

__all__ = ["OpenedPair", "deformed_path", "field_of", "open_images", "read_phi", "save_deformed", "save_phi"]


@dataclass(frozen=True)
class OpenedPair:
    """Two images as they are moved.

    Attributes
    ----------
    images : ImagePair
        Binned by `binning`: one voxel of these is the unit of Phi.
    binning : int
    original : Image
        Image 1 as it is in its file.
    name : str
        Name of the text file of Phi, spam's.
    """

    images: ImagePair
    binning: int
    original: Image
    name: str


def open_images(path1: str, path2: str, binning: int) -> OpenedPair:
    """Open two images of equal shape, from any source; only headers are read.

    Raises
    ------
    UserError
        If one cannot be opened, their shapes differ, or they are smaller than a bin.
    """
    pair = open_pair(path1, path2, None)
    shape = pair.image1.shape
    if min(shape[1:] if pair.two_d else shape) < 2 * binning:
        raise UserError(f"-bin {binning}: leaves fewer than 2 voxels of an image of {by(shape)}; make it smaller")
    name = f"{base_name(path1)}-{base_name(path2)}-PhiEye-bin{binning}.tsv"
    original = pair.image1
    if binning > 1:
        pair = ImagePair(BinnedImage(pair.image1, binning), BinnedImage(pair.image2, binning))
    return OpenedPair(pair, binning, original, name)


def read_phi(given: str | PhiField, bin_ratio: float, images: ImagePair) -> Array:
    """Phi (4, 4) about the centre of the images: all of it, shear included.

    Raises
    ------
    UserError
        If it cannot be read, or is a field, or of images of the other number of dimensions.
    """
    guess = read_guess(given, bin_ratio)
    if guess.registration is None:
        points = 0 if guess.field is None else len(guess.field)
        raise UserError(f"-pf {guess.name}: is a field of {points} points; ereg starts from a single registration")
    phi, position = guess.registration.phi[0], guess.registration.positions[0]
    if images.two_d and not _in_plane(phi):
        raise UserError(f"-pf {guess.name}: moves out of the plane, but the images are 2D; give a Phi of 2D images")
    return deformation.move_centre(phi, position, (np.array(images.image1.shape) - 1) / 2)


def _in_plane(phi: Array) -> bool:
    F = phi[:3, :3]
    return bool(np.allclose([*F[0], *F[:, 0], phi[0, 3]], [1, 0, 0, 1, 0, 0, 0], atol=1e-6))


def field_of(phi: Array, centre: Array, binning: int, numbers: Numbers) -> PhiField:
    """Phi as a field of one point, with spam's columns: status 0, no iterations."""
    columns = {
        "returnStatus": 0.0,
        "deltaPhiNorm": 1.0,
        "error": numbers.error,
        "iterations": 0.0,
        "bin": float(binning),
    }
    values = {name: np.array([value]) for name, value in columns.items()}
    return PhiField(centre[None].copy(), phi[None].copy(), values, "registration")


def save_phi(path: Path, field: PhiField) -> None:
    """Write the text file of Phi, which ``-pf`` takes.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    _need_folder(path)
    write_tsv(path, field, "EREG")


def deformed_path(path: Path) -> Path:
    """File of the deformed image, beside the text file of Phi."""
    return path.with_name(f"{path.stem}-def.tif")


def save_deformed(path: Path, opened: OpenedPair, phi: Array, progress: Progress) -> None:
    """Write image 1 (binned, if it is) deformed by Phi, in its dtype: linear in 3D, cubic in 2D, as reg ``-def``.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    _need_folder(path)
    image, dtype = opened.images.image1, opened.original.dtype
    centre = (np.array(image.shape) - 1) / 2
    task = DeformTask(image, WholeMotion(phi, centre, 3 if image.two_d else 1))
    with planes_to(path, image, path.stem, False, dtype) as put:
        for chunk in range(task.n_chunks):
            progress(chunk / task.n_chunks, "image 1 is deformed")
            planes = task.run(chunk).planes
            put(chunk * task.planes, planes if planes.dtype == dtype else to_dtype(planes.astype(np.float64), dtype))


def _need_folder(path: Path) -> None:
    if not path.resolve().parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.resolve().parent}; make it, or give another name")
