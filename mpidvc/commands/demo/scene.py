"""Scenes of ``mpidvc demo``: images whose motion is known, and the commands that measure it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from mpidvc.arrays import Array
from mpidvc.atomic import replacing
from mpidvc.fields.phifield import PhiField
from mpidvc.runtime.console import Console

__all__ = ["Found", "Scene", "statistics", "write_image"]

#: A command and its options, by the names of its parameters in Python.
Call = tuple[str, dict[str, Any]]


class Found(Protocol):
    """The comparison of a result with the truth."""

    @property
    def good(self) -> bool:
        """Whether this is what a sound installation gives."""
        ...


class Scene(ABC):
    """Images with a known motion.

    Attributes
    ----------
    stem : str
        Beginning of the names of all files that the commands write.
    about : str
        The images, for the user.
    points : str
        Name of the points of the result.
    limits : str
        The largest errors of a sound installation, for the user.
    seconds : float
        Rough CPU seconds of the commands.
    """

    stem: ClassVar[str]
    about: ClassVar[str]
    points: ClassVar[str]
    limits: ClassVar[str]
    seconds: ClassVar[float]

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write the images."""

    @abstractmethod
    def calls(self, folder: Path) -> list[Call]:
        """The commands, in order; the last one makes the result."""

    @abstractmethod
    def compare(self, field: PhiField) -> Found:
        """Compare the result with the truth."""

    @abstractmethod
    def draw(self, path: Path, folder: Path, field: PhiField) -> None:
        """Write the picture as PNG; ImportError without matplotlib."""

    @abstractmethod
    def report(self, field: PhiField, console: Console) -> None:
        """Print the errors."""

    def count(self, field: PhiField) -> int:
        """Number of points that were measured."""
        return len(field)

    @abstractmethod
    def next_steps(self, folder: Path) -> str:
        """The files that were written, and command lines for images of the user's own."""


def write_image(path: Path, image: NDArray[Any]) -> None:
    """Write a volume as TIFF; it appears whole."""
    with replacing(path) as temporary:
        tifffile.imwrite(temporary, image, photometric="minisblack", metadata={"axes": "ZYX"})


def statistics(errors: Array) -> Array:
    """Mean, standard deviation and largest magnitude (columns) of components (rows): of errors (n, k), without nan."""
    kept = errors[np.isfinite(errors).all(axis=1)]
    if len(kept) == 0:
        return np.full((errors.shape[1], 3), np.nan)
    return np.stack([kept.mean(axis=0), kept.std(axis=0), np.abs(kept).max(axis=0)], axis=1)
