"""The picture of ``mpidvc demo``: both images, the displacement found, and its error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mpidvc.arrays import Array
from mpidvc.atomic import replacing
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image

__all__ = ["draw"]

#: Every second node along an axis has an arrow, so much longer than its displacement.
EVERY, STRETCH = 2, 3


def draw(path: Path, images: Sequence[Image], field: PhiField, errors: Array) -> None:
    """Write the middle plane of both images, of the field and of its error as PNG.

    Parameters
    ----------
    path : Path
    images : two Images
        What was correlated.
    field : PhiField
        What was found, on a grid.
    errors : (n, 3) float64
        Found less known displacement, nan at nodes that are left out.
    """
    assert field.dims is not None
    layer = field.dims[0] // 2
    positions = field.positions.reshape(*field.dims, 3)[layer]
    found = field.displacements.reshape(*field.dims, 3)[layer]
    error = np.linalg.norm(errors, axis=1).reshape(field.dims)[layer]
    z = int(positions[0, 0, 0])
    _, ny, nx = images[0].shape
    planes = [image.read_box((z, 0, 0), (z + 1, ny, nx))[0][0] for image in images]

    figure = Figure(figsize=(9.6, 8.6), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2).ravel()
    limits = np.percentile(planes[0], [0.5, 99.5])
    for panel, plane, title in zip(panels[:2], planes, ("image 1", "image 2"), strict=True):
        shown = panel.imshow(plane, cmap="gray", vmin=limits[0], vmax=limits[1])
        _bar(figure, shown, panel, "grey level")
        panel.set_title(f"{title}, plane z = {z}")

    ys, xs = positions[:, 0, 1], positions[0, :, 2]
    dy, dx = (ys[1] - ys[0]) / 2, (xs[1] - xs[0]) / 2
    extent = (xs[0] - dx, xs[-1] + dx, ys[-1] + dy, ys[0] - dy)
    shown = panels[2].imshow(found[..., 0], extent=extent, cmap="viridis", interpolation="nearest")
    _bar(figure, shown, panels[2], "displacement along z (voxels)")
    y, x = positions[::EVERY, ::EVERY, 1], positions[::EVERY, ::EVERY, 2]
    v, u = found[::EVERY, ::EVERY, 1], found[::EVERY, ::EVERY, 2]
    panels[2].quiver(x, y, u, v, angles="xy", scale_units="xy", scale=1 / STRETCH, color="white", width=0.006)
    panels[2].set_title(f"displacement found (arrows {STRETCH}× longer)")

    shown = panels[3].imshow(1000 * error, extent=extent, cmap="magma", vmin=0, interpolation="nearest")
    _bar(figure, shown, panels[3], "|found − known| (thousandths of a voxel)")
    panels[3].set_facecolor("0.85")
    panels[3].set_title("its error (grey: window not inside both images)", fontsize=11)
    for panel in panels:
        panel.set(xlim=(-0.5, nx - 0.5), ylim=(ny - 0.5, -0.5), aspect="equal")
        panel.set_xlabel("x (voxels)", fontsize=9)
        panel.set_ylabel("y (voxels)", fontsize=9)
        panel.tick_params(labelsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _bar(figure: Figure, shown: Any, panel: Any, label: str) -> None:
    bar = figure.colorbar(shown, ax=panel, shrink=0.8)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
