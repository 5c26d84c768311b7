"""The files that a command reads, checked: images, masks, lists of points."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from mpidvc.arrays import Array, Triple, is_two_d
from mpidvc.cli.options import as_given, require
from mpidvc.errors import UserError
from mpidvc.images.image import Image, open_image
from mpidvc.images.pair import ImagePair
from mpidvc.images.source import refuse_labels_only
from mpidvc.tasks.grey import with_limits

__all__ = ["FARTHEST", "by", "open_like", "open_mask", "open_pair", "open_search_pair", "read_points", "window_sizes"]

#: Coordinates beyond any image, which would overflow the integers of a window.
FARTHEST = 2.0**40


def by(shape: Triple) -> str:
    """Size of an image in words."""
    return " × ".join(map(str, shape[1:] if is_two_d(shape) else shape))


def open_pair(path1: str, path2: str, mask1: str | None) -> ImagePair:
    """Open two images of equal shape, and the mask of image 1.

    Raises
    ------
    UserError
        If one cannot be opened, or their shapes differ.
    """
    image1, image2 = with_limits(open_image(path1)), with_limits(open_image(path2))
    if image1.shape != image2.shape:
        raise UserError(
            f"{image2.path}: has {by(image2.shape)} voxels but {image1.path} has {by(image1.shape)}; "
            "both need the same shape"
        )
    return ImagePair(image1, image2, open_mask(mask1, image1))


def open_search_pair(args: argparse.Namespace) -> ImagePair:
    """Open both images, which may differ in size, and their masks.

    Raises
    ------
    UserError
        If one cannot be opened, a mask has not its image's shape, or only one image is 2D.
    """
    image1, image2 = with_limits(open_image(args.im1)), with_limits(open_image(args.im2))
    two_d = image1.two_d
    if two_d != (image2.two_d):
        flat, deep = (args.im1, args.im2) if two_d else (args.im2, args.im1)
        raise UserError(f"{flat}: has 2 dimensions but {deep} has 3; both images need the same number")
    return ImagePair(image1, image2, open_mask(args.mask1, image1), open_mask(args.mask2, image2, 2))


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
    refuse_labels_only(mask.dtype, f"mask {path}")
    if mask.shape != image.shape:
        raise UserError(
            f"-mf{number} {path}: has {by(mask.shape)} voxels but {image.path} has {by(image.shape)}; the mask needs "
            f"the shape of image {number}"
        )
    return mask


def open_like(image1: Image, path: str | Image | None, what: str, grey: bool = True) -> Image | None:
    """Open another image of the shape of image 1; None if there is none.

    Parameters
    ----------
    image1 : Image
    path : str, Image or None
    what : str
        What it is, in messages.
    grey : bool
        Whether it holds grey levels, and not a mask.

    Raises
    ------
    UserError
        If it cannot be opened or has another shape.
    """
    if path is None:
        return None
    other = open_image(path, what)
    if grey:
        other = with_limits(other)
    else:
        refuse_labels_only(other.dtype, f"{what} {other.path}")
    if other.shape != image1.shape:
        raise UserError(
            f"{what} {other.path}: has {by(other.shape)} voxels but {image1.path} has {by(image1.shape)}; it needs the "
            "same shape"
        )
    return other


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


def window_sizes(
    hws: Triple, spacing: Triple | None, shape: Triple, min_coverage: float, notes: list[str]
) -> tuple[Triple, Triple | None]:
    """Half-window size and node spacing for an image: in 2D their first number does not count.

    Parameters
    ----------
    hws : 3 ints
        As asked for, voxels.
    spacing : 3 ints or None
        As asked for, voxels.
    shape : 3 ints
        Of image 1.
    min_coverage : float
        The value of ``-mc``.
    notes : list of str
        Gets a line for the user if windows are larger than the image.

    Raises
    ------
    UserError
        If one is 0 in 3D, or windows are so much larger than the image that all would be skipped.
    """
    given = hws
    if is_two_d(shape):
        hws, spacing = (0, *hws[1:]), None if spacing is None else (1, *spacing[1:])
    else:
        for option, value in (("-hws", hws), ("-ns", spacing)):
            require(value is None or value[0] >= 1, option, value, "has to be at least 1 along z in 3D")
    window = (2 * hws[0] + 1, 2 * hws[1] + 1, 2 * hws[2] + 1)
    if any(w > n for w, n in zip(window, shape, strict=True)):
        told = f"windows of {by(window)} voxels are larger than the image ({by(shape)} voxels)"
        # no window has more of itself inside
        inside = math.prod(min(w, n) / w for w, n in zip(window, shape, strict=True))
        few = inside < min_coverage or any(h > n for h, n in zip(hws, shape, strict=True))
        require(not few, "-hws", given, f"{told}: at most {100 * inside:.2g}% of a window lies inside; make it smaller")
        notes.append(f"{as_given('-hws', given)}: {told}; the part outside does not count")
    return hws, spacing
