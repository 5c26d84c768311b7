"""The scene of ``mpidvc demo``: a solid that is compressed and turned, measured on a grid by ``ldic``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpidvc.arrays import Array
from mpidvc.commands.demo.scene import Call, Scene, statistics, write_image
from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import open_image
from mpidvc.runtime.console import Console

__all__ = ["PAIR", "Errors", "FieldScene", "compare"]

#: A compressed and turned sample with a little noise.
PAIR = AnalyticPair(
    (120, 120, 120),
    seed=7,
    rotation=(2.0, 0.5, 0.5),
    strain=(-0.010, 0.003, 0.003),
    translation=(1.6, 0.6, -0.8),
    noise=0.004,
)
#: The grid: a node every `SPACING` voxels, windows of ``2 * HALF_WINDOW + 1``, which reach `MARGIN` further in image 2.
SPACING, HALF_WINDOW, MARGIN = 5, 10, 3
ORDER = 3
#: Rough CPU seconds of ldic per voxel of a window.
SECONDS_PER_VOXEL = 3e-8
NAMES = ("im1", "im2")
#: About twice the errors (voxels) of a sound installation, which come from noise and from the curvature of the field
#: inside a window; and the least share of interior nodes that converge.
LARGEST_MEAN, LARGEST_SD, LEAST_CONVERGED = 0.006, 0.008, 0.99


@dataclass(frozen=True)
class Errors:
    """Displacement found less displacement known, at the interior nodes that converged.

    Attributes
    ----------
    errors : (n, 3) float64
        z, y, x in voxels; nan at nodes that are left out.
    interior : int
        Nodes whose window lies inside both images.
    converged : int
        Those of them that converged.
    """

    errors: Array
    interior: int
    converged: int

    @property
    def table(self) -> Array:
        """Mean, standard deviation and largest magnitude (columns) of the components z, y, x (rows)."""
        return statistics(self.errors)

    @property
    def good(self) -> bool:
        """Whether this is what a sound installation gives."""
        means, deviations, _ = self.table.T
        near = bool(np.abs(means).max() <= LARGEST_MEAN and deviations.max() <= LARGEST_SD)
        return near and self.converged >= LEAST_CONVERGED * self.interior


class FieldScene(Scene):
    """`PAIR`, registered by ``reg`` and correlated by ``ldic``."""

    stem = "-".join(NAMES)
    about = f"two images of {' × '.join(map(str, PAIR.shape))} voxels whose displacement is known"
    points = "nodes"
    limits = f"mean {LARGEST_MEAN}, standard deviation {LARGEST_SD} voxels, {LEAST_CONVERGED:.0%} converged"
    seconds = float(np.prod([(n - 1) // SPACING for n in PAIR.shape]) * (2 * HALF_WINDOW + 1) ** 3 * SECONDS_PER_VOXEL)

    def write(self, folder: Path) -> None:
        for name, image in zip(NAMES, (PAIR.image1(), PAIR.image2()), strict=True):
            write_image(folder / f"{name}.tif", image)

    def calls(self, folder: Path) -> list[Call]:
        one, two = (folder / f"{name}.tif" for name in NAMES)
        ldic = {
            "images": [one, two],
            "phi_file": f"{folder / self.stem}-registration.tsv",
            "node_spacing": SPACING,
            "half_window_size": HALF_WINDOW,
            "interpolation_order": ORDER,
            "tif": True,
            "vtk": True,
        }
        return [("reg", {"im1": one, "im2": two}), ("ldic", ldic)]

    def compare(self, field: PhiField) -> Errors:
        return compare(field)

    def draw(self, path: Path, folder: Path, field: PhiField) -> None:
        from mpidvc.commands.demo.field_picture import draw

        draw(path, [open_image(folder / f"{name}.tif") for name in NAMES], field, compare(field).errors)

    def report(self, field: PhiField, console: Console) -> None:
        found = compare(field)
        rows = [
            [axis, f"{mean:+.5f}", f"{deviation:.5f}", f"{worst:.5f}"]
            for axis, (mean, deviation, worst) in zip("ZYX", found.table, strict=True)
        ]
        console.table(
            "Displacement found less displacement known (voxels)",
            ["Component", "Mean", "Standard deviation", "Worst"],
            rows,
        )
        console.print(f"at {found.converged} of {found.interior} nodes whose windows lie inside both images")

    def next_steps(self, folder: Path) -> str:
        return (
            f"and everything is in {folder}: the field as {self.stem}-ldic.tsv (all numbers),\n"
            f"{self.stem}-ldic.h5 and .vtk (for ParaView), and {self.stem}-ldic-*.tif (a volume for each\n"
            "component).\n\n"
            "With your own images, TIFF files or folders of slices:\n"
            "  mpidvc reg im1.tif im2.tif\n"
            "  mpidvc ldic im1.tif im2.tif -pf im1-im2-registration.tsv -ns 10 -hws 10 -tif -vtk\n"
            "mpidvc ldic --help explains the options."
        )


def compare(field: PhiField) -> Errors:
    """Compare a field with the known displacement of `PAIR`."""
    last = np.array(PAIR.shape) - 1
    interior = np.ones(len(field), bool)
    for centre, reach in (
        (field.positions, HALF_WINDOW),
        (PAIR.phi(field.positions), HALF_WINDOW + MARGIN),
    ):
        interior &= ((centre - reach >= 0) & (centre + reach <= last)).all(axis=1)
    counted = interior & (field.columns["returnStatus"] == 2)
    errors = np.where(counted[:, None], field.displacements - PAIR.displacement(field.positions), np.nan)
    return Errors(errors, int(interior.sum()), int(counted.sum()))
