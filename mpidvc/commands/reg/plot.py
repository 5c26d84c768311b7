"""The picture of a registration: slices of image 1, the deformed image 2 and their difference."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mpidvc.arrays import Array
from mpidvc.atomic import replacing
from mpidvc.images.image import Image
from mpidvc.tasks.warp import sample_block

__all__ = ["RegistrationPlot"]


class RegistrationPlot:
    """Middle slices along z, y and x (rows): image 1, image 2 pulled back by Phi, and their difference (columns).

    Parameters
    ----------
    image1, image2 : Image
    order : {1, 3}
        Interpolation of image 2.

    Attributes
    ----------
    live : bool
        Whether there is a display to show every iteration on.
    """

    def __init__(self, image1: Image, image2: Image, order: int) -> None:
        self.image1, self.image2, self.order = image1, image2, order
        self.live = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        self._figure: Any = None

    def show(self, phi: Array) -> None:
        """Draw Phi (about the image's centre) on the display."""
        from matplotlib import pyplot

        if self._figure is None:
            self._figure = pyplot.figure(figsize=(10, 3.2 * len(self._axes())), layout="constrained")
        self._draw(self._figure, phi)
        pyplot.pause(0.01)

    def save(self, path: Path, phi: Array) -> None:
        """Write the picture as PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 3.2 * len(self._axes())), layout="constrained", dpi=120)
        FigureCanvasAgg(figure)
        self._draw(figure, phi)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")

    def _axes(self) -> tuple[int, ...]:
        return (0,) if self.image1.two_d else (0, 1, 2)

    def _draw(self, figure: Any, phi: Array) -> None:
        figure.clear()
        axes = self._axes()
        panels = figure.subplots(len(axes), 3, squeeze=False)
        shape = self.image1.shape
        centre = (np.array(shape) - 1) / 2
        for row, axis in zip(panels, axes, strict=True):
            low, n = [0, 0, 0], list(shape)
            low[axis], n[axis] = shape[axis] // 2, 1
            part, _ = self.image1.read_box(low, [a + b for a, b in zip(low, n, strict=True)])
            one = np.squeeze(part.astype(np.float64), axis)
            two = np.squeeze(sample_block(self.image2, phi, centre, low, n, self.order).astype(np.float64), axis)
            limits = np.nanpercentile(one, [0.5, 99.5])
            difference = one - two
            spread = max(float(np.nanpercentile(np.abs(difference), 99)), 1e-12)
            for panel, picture, title, colours in (
                (row[0], one, "image 1", {"cmap": "gray", "vmin": limits[0], "vmax": limits[1]}),
                (row[1], two, "image 2 pulled back", {"cmap": "gray", "vmin": limits[0], "vmax": limits[1]}),
                (row[2], difference, "difference", {"cmap": "coolwarm", "vmin": -spread, "vmax": spread}),
            ):
                shown = panel.imshow(picture, interpolation="nearest", **colours)
                panel.set_title(title, fontsize=9)
                names = [name for k, name in enumerate("zyx") if k != axis]
                panel.set_ylabel(f"{names[0]} (voxels)", fontsize=8)
                panel.set_xlabel(f"{names[1]} (voxels)", fontsize=8)
                panel.tick_params(labelsize=7)
            figure.colorbar(shown, ax=list(row), shrink=0.8)
