"""The run of ``mpidvc demo``: images, ``reg``, ``ldic`` by their own command lines, and the comparison."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from mpidvc import api
from mpidvc.arrays import Array
from mpidvc.atomic import replacing
from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.commands import COMMANDS
from mpidvc.core.analytic import AnalyticPair
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import open_image
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor

__all__ = ["PAIR", "Errors", "Plan", "compare"]


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
        kept = self.errors[np.isfinite(self.errors).all(axis=1)]
        if len(kept) == 0:
            return np.full((3, 3), np.nan)
        return np.stack([kept.mean(axis=0), kept.std(axis=0), np.abs(kept).max(axis=0)], axis=1)

    @property
    def good(self) -> bool:
        """Whether this is what a sound installation gives."""
        means, deviations, _ = self.table.T
        near = bool(np.abs(means).max() <= LARGEST_MEAN and deviations.max() <= LARGEST_SD)
        return near and self.converged >= LEAST_CONVERGED * self.interior


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """Folder of the demonstration."""

    folder: Path

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console) -> Plan:
        folder = Path(args.directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: the folder cannot be made ({error.strerror}); name another one") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{folder}: the folder cannot be written to; name another one")
        nodes = np.prod([(n - 1) // SPACING for n in PAIR.shape])
        return cls(folder=folder, estimated_seconds=float(nodes * (2 * HALF_WINDOW + 1) ** 3 * SECONDS_PER_VOXEL))

    def execute(self, executor: Executor, console: Console) -> Outcome:
        """Make the images, run both commands, compare; the exit status is 0 if the result is what it should be."""
        one, two = (self.folder / f"{name}.tif" for name in NAMES)
        size = " × ".join(map(str, PAIR.shape))
        console.print(f"Making two images of {size} voxels whose displacement is known")
        if executor.rank == 0:
            _write_images(one, two)
        stem = self.folder / "-".join(NAMES)
        commands: list[tuple[str, dict[str, Any]]] = [
            ("reg", {"im1": one, "im2": two}),
            (
                "ldic",
                {
                    "images": [one, two],
                    "phi_file": f"{stem}-registration.tsv",
                    "node_spacing": SPACING,
                    "half_window_size": HALF_WINDOW,
                    "interpolation_order": ORDER,
                    "tif": True,
                    "vtk": True,
                },
            ),
        ]
        lines = [shlex.join(["mpidvc", name, *COMMANDS[name].parser().words(options)]) for name, options in commands]
        seconds = 0.0
        field: Any = None
        for line, (name, options) in zip(lines, commands, strict=True):
            console.print(f"\n$ {line}")
            start = time.perf_counter()
            field = api.call(name, options | {"out_dir": self.folder}, executor=executor, console=console)
            seconds = time.perf_counter() - start
            if not field.good.any():
                return Outcome(1)
        if executor.rank != 0:
            return Outcome(0)
        found = compare(field)
        console.print()
        picture = Path(f"{stem}-field.png")
        try:
            from mpidvc.commands.demo.picture import draw
        except ImportError:
            console.note("no picture: matplotlib is not installed (pip install matplotlib)")
        else:
            draw(picture, [open_image(one), open_image(two)], field, found.errors)
            console.print(f"Written: {picture}")
        _report(found, len(field), seconds, executor, console)
        _what_next(self.folder, lines, console)
        if not found.good:
            console.warn(
                f"the error is larger than it should be (mean {LARGEST_MEAN}, standard deviation {LARGEST_SD} voxels, "
                f"{LEAST_CONVERGED:.0%} converged): do not trust this installation"
            )
        return Outcome(0 if found.good else 1, found)


def _write_images(*paths: Path) -> None:
    for path, image in zip(paths, (PAIR.image1(), PAIR.image2()), strict=True):
        with replacing(path) as temporary:
            tifffile.imwrite(temporary, image, photometric="minisblack", metadata={"axes": "ZYX"})


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


def _report(found: Errors, nodes: int, seconds: float, executor: Executor, console: Console) -> None:
    rows = [
        [axis, f"{mean:+.5f}", f"{deviation:.5f}", f"{worst:.5f}"]
        for axis, (mean, deviation, worst) in zip("ZYX", found.table, strict=True)
    ]
    console.table(
        "Displacement found less displacement known (voxels)",
        ["Component", "Mean", "Standard deviation", "Worst"],
        rows,
    )
    processes = "one process" if executor.size == 1 else f"{executor.size} processes"
    console.print(
        f"at {found.converged} of {found.interior} nodes whose windows lie inside both images\n"
        f"ldic took {seconds:.1f} s for {nodes} nodes on {processes}: {nodes / seconds:.0f} nodes/s"
    )


def _what_next(folder: Path, lines: list[str], console: Console) -> None:
    used = "\n".join(f"  {line}" for line in lines)
    console.print(
        f"\nThe command lines were\n{used}\n"
        f"and everything is in {folder}: the field as {'-'.join(NAMES)}-ldic.tsv (all numbers),\n"
        f"{'-'.join(NAMES)}-ldic.h5 and .vtk (for ParaView), and {'-'.join(NAMES)}-ldic-*.tif (a volume for each\n"
        "component).\n\n"
        "With your own images, TIFF files or folders of slices:\n"
        "  mpidvc reg im1.tif im2.tif\n"
        "  mpidvc ldic im1.tif im2.tif -pf im1-im2-registration.tsv -ns 10 -hws 10 -tif -vtk\n"
        "mpidvc ldic --help explains the options."
    )
