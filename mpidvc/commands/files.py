"""Files of a command: what it reads, checked, and the names of what it writes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from mpidvc.arrays import Array, Triple, is_two_d
from mpidvc.core.grid import make_grid
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import FieldLayout, is_hdf5, read_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv
from mpidvc.images.image import Image, open_image
from mpidvc.tasks.grey import with_limits

__all__ = [
    "base_name",
    "check_guess",
    "describe_guess",
    "folder_of",
    "make_folder",
    "nodes_of",
    "nodes_to_measure",
    "open_mask",
    "open_pair",
    "read_guess",
    "read_points",
    "window_sizes",
]


#: Coordinates beyond any image, which would overflow the integers of a window.
FARTHEST = 2.0**40


def base_name(path: str) -> str:
    """Name of an input without folder and last extension; ``scan-entry-data`` for ``scan.h5::/entry/data``."""
    file, _, dataset = path.partition("::")
    name = Path(file.rstrip("/") or "/").resolve() if file.rstrip("/") in ("", ".", "..") else Path(file)
    return "-".join([name.stem, *(part for part in dataset.split("/") if part)])


def folder_of(path: str, real: bool) -> str:
    """Folder of an input; where symbolic links lead if `real`."""
    file = path.partition("::")[0].rstrip("/") or "/"
    return os.path.dirname(os.path.realpath(file) if real else file) or "."  # noqa: PTH120


def make_folder(option: str | None, default: str, prefix: str | None = None) -> Path:
    """Folder for the output, made if missing; `prefix` is checked to lead to no other that is missing.

    Raises
    ------
    UserError
        If it cannot be made or written to.
    """
    folder = Path(default if option is None else option)
    named = f"-od {folder}" if option is not None else f"{folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{named}: the folder cannot be made ({error.strerror}); choose another by -od") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{named}: the folder cannot be written to; choose another by -od")
    if prefix == "":
        raise UserError('-pre "": is no name; drop it or give one')
    if prefix is not None and not (folder / prefix).parent.is_dir():
        raise UserError(f"-pre {prefix}: there is no folder {(folder / prefix).parent}; make it, or use -od")
    return folder


def _by(shape: Triple) -> str:
    return " × ".join(map(str, shape[1:] if is_two_d(shape) else shape))


def open_pair(path1: str, path2: str) -> tuple[Image, Image]:
    """Open two images of equal shape.

    Raises
    ------
    UserError
        If one cannot be opened or their shapes differ.
    """
    image1, image2 = with_limits(open_image(path1)), with_limits(open_image(path2))
    if image1.shape != image2.shape:
        raise UserError(
            f"{path2}: has {_by(image2.shape)} voxels but {path1} has {_by(image1.shape)}; both need the same shape"
        )
    return image1, image2


def open_mask(path: str | None, image: Image, number: int = 1) -> Image | None:
    """Open a mask of the shape of image 1 or 2 (`number`).

    Raises
    ------
    UserError
        If it cannot be opened or has another shape.
    """
    if path is None:
        return None
    mask = open_image(path, "mask")
    if mask.shape != image.shape:
        raise UserError(
            f"-mf{number} {path}: has {_by(mask.shape)} voxels but {image.path} has {_by(image.shape)}; the mask needs "
            f"the shape of image {number}"
        )
    return mask


def read_guess(path: str | None, bin_ratio: float) -> PhiField | None:
    """Read the file of ``-pf``: the results file (HDF5) or the text of a run.

    Raises
    ------
    UserError
        If it cannot be read, a position is not finite, or it is a registration that is no deformation.
    """
    if path is None:
        return None
    guess = (read_hdf5 if is_hdf5(path) else read_tsv)(path, bin_ratio)
    lost = np.nonzero(~(np.abs(guess.positions) < FARTHEST).all(axis=1))[0]
    if len(lost):
        raise UserError(f"-pf {path}: the position in row {lost[0] + 1} is not finite, or absurd; drop such rows")
    if guess.layout == "registration" and not (np.isfinite(guess.phi).all() and np.linalg.det(guess.F[0]) > 0):
        raise UserError(f"-pf {path}: its Phi is no deformation (not finite, or the determinant of F is not above 0)")
    return guess


def read_points(option: str, path: str) -> Array:
    """Read a text file with ``Z Y X`` in each line.

    Empty lines and what follows ``#`` do not count.

    Returns
    -------
    (n, 3) float64
        n is at least 1.

    Raises
    ------
    UserError
        If the file cannot be read, has no line, or one that does not hold three finite numbers.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be read ({error.strerror}); give a text file of points") from None
    except UnicodeDecodeError:
        raise UserError(f"{option} {path}: is no text file; give one with Z Y X in each line") from None
    points = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            point = [float(word) for word in words]
        except ValueError:
            point = []
        if len(point) != 3 or not all(abs(value) < FARTHEST for value in point):
            raise UserError(
                f"{option} {path}: line {number} is {line.strip()[:60]!r}; each line has to hold three numbers, Z Y X"
            )
        points.append(point)
    if not points:
        raise UserError(f"{option} {path}: holds no point; give one with Z Y X in each line")
    return np.array(points, np.float64)


def window_sizes(hws: Triple, spacing: Triple | None, shape: Triple) -> tuple[Triple, Triple | None]:
    """Half-window size and node spacing for an image, with what 2D makes of their first number.

    Raises
    ------
    UserError
        If it is 0 in 3D, or half a window is larger than the image.
    """
    two_d = is_two_d(shape)
    if any(h > n for h, n in zip(hws[two_d:], shape[two_d:], strict=True)):
        raise UserError(
            f"-hws {' '.join(map(str, hws))}: is larger than the image ({_by(shape)} voxels); make it smaller"
        )
    if two_d:
        return (0, *hws[1:]), None if spacing is None else (1, *spacing[1:])
    for option, value in (("-hws", hws), ("-ns", spacing)):
        if value is not None and value[0] < 1:
            raise UserError(f"{option} {' '.join(map(str, value))}: has to be at least 1 along z in 3D")
    return hws, spacing


def nodes_of(shape: Triple, spacing: Triple | None) -> tuple[Array, Triple]:
    """Nodes of a grid and their number per axis.

    Raises
    ------
    UserError
        If there is no spacing, or no node.
    """
    if spacing is None:
        raise UserError("the distance of the nodes is missing: give -ns or -ns3, or a field by -pf")
    positions, dims = make_grid(shape, spacing)
    if len(positions) == 0:
        shown = " ".join(map(str, spacing))
        raise UserError(f"-ns {shown}: leaves no node inside an image of {shape}; make it smaller")
    return positions, dims


def nodes_to_measure(
    guess: PhiField | None, shape: Triple, spacing: Triple | None, columns: tuple[str, ...]
) -> tuple[FieldLayout, Array, Array]:
    """Nodes of a field that is given as a guess, else of a grid.

    Returns
    -------
    layout : FieldLayout
        Of the results file, with these columns.
    positions : (n, 3) float64
    distance : (3,) float64
        Typical distance of neighbouring nodes along each axis.
    """
    if guess is not None and guess.layout != "registration":
        return replace(FieldLayout.of(guess), columns=columns), guess.positions, typical_spacing(guess, is_two_d(shape))
    positions, dims = nodes_of(shape, spacing)
    assert spacing is not None
    return FieldLayout.of_grid(positions[0], dims, spacing, columns), positions, np.array(spacing, np.float64)


def typical_spacing(field: PhiField, two_d: bool) -> Array:
    """Distance of neighbouring points along each axis; for scattered points about what it would be on a grid."""
    if field.spacing is not None:
        return np.array(field.spacing)
    extent = np.ptp(field.positions, axis=0) + 1
    return np.full(3, (float(np.prod(extent)) / max(len(field), 1)) ** (1 / (2 if two_d else 3)))


def check_guess(command: str, guess: PhiField | None, path: str, spacing: Triple | None) -> None:
    """Check that a guess is a registration or a field of nodes as far apart as those asked for.

    Raises
    ------
    UserError
        If not.
    """
    if guess is None:
        return
    if guess.layout == "registration":
        if spacing is None:
            raise UserError("the distance of the nodes is missing: give -ns or -ns3, or a field by -pf")
    elif guess.layout == "labels":
        raise UserError(f"-pf {path}: is a field of labels; {command} takes a registration or a field of nodes")
    elif spacing is not None and guess.spacing is not None:
        own = guess.spacing
        # along z a single layer of nodes has no spacing
        axes = [a for a in range(3) if guess.dims is not None and guess.dims[a] > 1]
        if any(abs(own[a] - spacing[a]) > 1e-6 for a in axes):
            raise UserError(
                f"-ns {' '.join(map(str, spacing))}: the nodes of {path} are "
                f"{' '.join(f'{s:g}' for s in own)} apart; drop -ns or pass the field to another grid first"
            )


def describe_guess(guess: PhiField, path: str, bin_ratio: float) -> str:
    """What a registration that serves as a guess says, in lines."""
    from mpidvc.core import deformation

    R, U = deformation.polar(guess.F[0])
    r = deformation.rotation_vector(R)
    t = guess.displacements[0]
    axes = ("z", "y", "x")
    return "\n".join(
        [
            f"I read a registration from {path} in binning {bin_ratio}",
            "Translations (px)   " + "  ".join(f"{a}: {v:.4f}" for a, v in zip(axes, t, strict=True)),
            "Rotations (deg)     " + "  ".join(f"{a}: {v:.4f}" for a, v in zip(axes, r, strict=True)),
            "Zoom/Stretch        " + "  ".join(f"{a}: {v:.5f}" for a, v in zip(axes, U.diagonal(), strict=True)),
        ]
    )
