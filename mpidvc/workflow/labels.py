"""The labels that a command follows: opened, measured, and compared with a first guess."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpidvc.arrays import Triple
from mpidvc.core.labels import MOST_RADIUS, Labels
from mpidvc.errors import UserError
from mpidvc.images.image import Image, open_image
from mpidvc.runtime.console import Console
from mpidvc.tasks.labels import measure_labels
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.guess import Guess
from mpidvc.workflow.inputs import by
from mpidvc.workflow.pointwise import Part

__all__ = ["LabelPart", "check_dilation", "check_guess", "labels_of", "open_labels", "typical_size"]


@dataclass(frozen=True, kw_only=True)
class LabelPart(Part):
    """The images, with the labels of image 1 as its mask.

    Attributes
    ----------
    labels : Labels
    """

    labels: Labels


def check_dilation(radius: int) -> None:
    """Check the value of ``-ld``.

    Raises
    ------
    UserError
        If no ball is so large.
    """
    if abs(radius) > MOST_RADIUS:
        raise UserError(f"-ld {radius}: has to be between -{MOST_RADIUS} and {MOST_RADIUS}")


def open_labels(path: str, image1: Image) -> Image:
    """Open the image of the labels of image 1.

    Raises
    ------
    UserError
        If it cannot be opened, or has another shape than image 1.
    """
    numbers = open_image(path, "labels")
    if numbers.shape != image1.shape:
        raise UserError(
            f"{numbers.path}: the labels have {by(numbers.shape)} voxels but {image1.path} has {by(image1.shape)}; "
            "they need the shape of image 1"
        )
    return numbers


def labels_of(numbers: Image, console: Console, team: Team) -> Labels:
    """Measure the labels of an image by all ranks, and print how many there are.

    Raises
    ------
    UserError
        If there is none, or a value is no label.
    """
    labels = team.call(measure_labels, numbers, None, team.threads)
    if len(labels.numbers) == 0:
        raise UserError(f"{numbers.path}: has no label, every voxel is 0; give an image of labels")
    console.print(f"Number of labels = {len(labels.numbers)}")
    if len(labels.missing):
        console.note(f"{len(labels.missing)} numbers up to the largest label are no labels: their status is -7")
    return labels


def check_guess(guess: Guess, labels: Labels, within: float) -> None:
    """Check that a field given as a first guess is one of these labels.

    Parameters
    ----------
    guess : Guess
    labels : Labels
    within : float
        Largest distance of a centre of mass from the position in the field along an axis, voxels.

    Raises
    ------
    UserError
        If it is not.
    """
    field = guess.field
    if field is None:
        return
    if field.layout != "labels":
        raise UserError(
            f"-pf {guess.name}: is a field of {len(field)} points; give a registration, or a field of these labels"
        )
    if len(field) != len(labels):
        raise UserError(
            f"-pf {guess.name}: has {len(field)} rows, but the labels go up to {len(labels) - 1}, which makes "
            f"{len(labels)} with row 0; give a field of these labels"
        )
    apart = np.abs(field.positions[1:] - labels.centre[1:]).max(axis=1)
    other = np.isnan(field.positions[1:]).any(axis=1) != np.isnan(labels.centre[1:, 0])
    wrong = 1 + np.flatnonzero(other | (apart > within))
    if len(wrong):
        k = int(wrong[0])
        there, here = (" ".join(f"{x:.1f}" for x in place) for place in (field.positions[k], labels.centre[k]))
        raise UserError(
            f"-pf {guess.name}: label {k} is at {there} there, but at {here} here ({len(wrong)} labels differ); give a "
            "field of these labels, or -pfb if it is of another binning"
        )


def typical_size(labels: Labels) -> Triple:
    """Half the median size of labels, voxels; 0 along z in 2D."""
    size = np.median(labels.highest[labels.numbers] + 1 - labels.lowest[labels.numbers], axis=0)
    z, y, x = (max(1, int(n) // 2) for n in size)
    return 0 if labels.two_d else z, y, x
