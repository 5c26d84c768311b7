"""The scene of ``mpidvc demo --grains``: grains that move and turn one by one, measured by ``ddic``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mpidvc.arrays import Array
from mpidvc.commands.demo.scene import Call, Scene, statistics, write_image
from mpidvc.core import deformation
from mpidvc.core.grains import AnalyticGrains
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import open_image
from mpidvc.runtime.console import Console

__all__ = ["Errors", "GrainScene", "compare"]

SHAPE, GRAINS = (130, 130, 130), 220
ORDER = 3
#: Rough CPU seconds of ddic.
SECONDS = 1.0
#: Image 1, its labels, image 2.
NAMES = ("grains1", "labels1", "grains2")
#: About twice the errors of a sound installation (voxels, degrees), and the least share of grains that converge.
LARGEST_SD, LARGEST_ROTATION, LEAST_CONVERGED = 0.008, 0.15, 0.99


@dataclass(frozen=True)
class Errors:
    """Motions found less motions known, about the centre of mass of each grain.

    Attributes
    ----------
    displacement : (n, 3) float64
        z, y, x in voxels; nan for a grain that did not converge.
    rotation : (n, 3) float64
        Rotation vector of the rotation found after the inverse of the one known, degrees; nan likewise.
    """

    displacement: Array
    rotation: Array

    @property
    def converged(self) -> int:
        """Number of grains that converged."""
        return int(np.isfinite(self.displacement).all(axis=1).sum())

    @property
    def table(self) -> Array:
        """Mean, standard deviation and largest magnitude (columns) of displacements and rotations (rows)."""
        return np.vstack([statistics(self.displacement), statistics(self.rotation)])

    @property
    def good(self) -> bool:
        """Whether this is what a sound installation gives."""
        means, deviations, _ = self.table.T
        spread = np.hypot(means, deviations)
        near = bool(spread[:3].max() <= LARGEST_SD and spread[3:].max() <= LARGEST_ROTATION)
        return near and self.converged >= LEAST_CONVERGED * len(self.displacement)


class GrainScene(Scene):
    """Asymmetric grains that move and turn one by one, registered by ``reg`` and correlated by ``ddic``."""

    stem = f"{NAMES[0]}-{NAMES[2]}"
    about = f"two images of {' × '.join(map(str, SHAPE))} voxels with {GRAINS} grains whose motions are known"
    points = "grains"
    limits = (
        f"{LARGEST_SD} voxels and {LARGEST_ROTATION}° root mean square of a component, {LEAST_CONVERGED:.0%} converged"
    )
    seconds = SECONDS

    @cached_property
    def packing(self) -> AnalyticGrains:
        """The grains; made where they are needed, in the same way on every rank."""
        return AnalyticGrains(
            *(SHAPE, GRAINS),
            seed=7,
            radii=(7.0, 9.0),
            gap=1.0,
            displacement=2.0,
            rotation=6.0,
            translation=(1.6, 0.6, -0.8),
            noise=0.004,
        )

    def write(self, folder: Path) -> None:
        images = (self.packing.image1(), self.packing.labels1(), self.packing.image2())
        for name, image in zip(NAMES, images, strict=True):
            write_image(folder / f"{name}.tif", image)

    def calls(self, folder: Path) -> list[Call]:
        one, labels, two = (folder / f"{name}.tif" for name in NAMES)
        ddic = {
            "im1": one,
            "lab1": labels,
            "im2": two,
            "phi_file": f"{folder / self.stem}-registration.tsv",
            "interpolation_order": ORDER,
        }
        return [("reg", {"im1": one, "im2": two, "rigid": True}), ("ddic", ddic)]

    def compare(self, field: PhiField) -> Errors:
        return compare(field, self.packing)

    def draw(self, path: Path, folder: Path, field: PhiField) -> None:
        from mpidvc.commands.demo.grains_picture import draw

        images = [open_image(folder / f"{name}.tif") for name in NAMES]
        found = self.compare(field)
        draw(path, images, field, self.packing.phi(), found.displacement, found.rotation)

    def report(self, field: PhiField, console: Console) -> None:
        found = self.compare(field)
        names = [
            *(f"Displacement {axis} (voxels)" for axis in "ZYX"),
            *(f"Rotation about {axis} (°)" for axis in "ZYX"),
        ]
        rows = [
            [name, f"{mean:+.4f}", f"{deviation:.4f}", f"{worst:.4f}"]
            for name, (mean, deviation, worst) in zip(names, found.table, strict=True)
        ]
        console.table(
            "Motions found less motions known, at the centres of mass",
            ["Component", "Mean", "Standard deviation", "Worst"],
            rows,
        )
        console.print(f"for {found.converged} of {len(found.displacement)} grains")

    def count(self, field: PhiField) -> int:
        # without row 0
        return len(field) - 1

    def next_steps(self, folder: Path) -> str:
        return (
            f"and everything is in {folder}: a row for every grain in {self.stem}-ddic.tsv\n"
            f"(all numbers; row 0 is the background), {self.stem}-ddic.h5 and .vtk (for ParaView).\n\n"
            "With your own images, and the labels of image 1 (0 is the background, each grain has a number):\n"
            "  mpidvc reg im1.tif im2.tif -rig\n"
            "  mpidvc ddic im1.tif labels1.tif im2.tif -pf im1-im2-registration.tsv\n"
            "mpidvc ddic --help explains the options."
        )


def compare(field: PhiField, packing: AnalyticGrains) -> Errors:
    """Compare a field of labels with the known motions of a packing."""
    known = packing.phi()[1:]
    good = field.columns["returnStatus"][1:] == 2
    displacement = field.displacements[1:] - known[:, :3, 3]
    rotation = np.full((len(known), 3), np.nan)
    for k in np.flatnonzero(good):
        rotation[k] = deformation.rotation_vector(field.F[1 + k] @ known[k, :3, :3].T)
    return Errors(np.where(good[:, None], displacement, np.nan), rotation)
