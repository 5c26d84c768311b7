"""The picture of ``mpidvc demo --grains``: images, motions of the grains, found against known, and errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mpidvc.arrays import Array, Ints
from mpidvc.atomic import replacing
from mpidvc.core import deformation
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image

__all__ = ["draw"]

#: Arrows are so much longer than displacements.
STRETCH = 5
COLOURS = ("tab:blue", "tab:orange", "tab:green")


def draw(path: Path, images: Sequence[Image], field: PhiField, known: Array, moved: Array, turned: Array) -> None:
    """Write the middle plane of the images, the motions of its grains, and the errors of all grains as PNG.

    Parameters
    ----------
    path : Path
    images : three Images
        Image 1, its labels, image 2.
    field : PhiField
        Phi found, a row for each label and row 0.
    known : (n + 1, 4, 4) float64
        Known Phi of each label.
    moved, turned : (n, 3) float64
        Errors of the displacement (voxels) and of the rotation vector (degrees) of labels 1 … n; nan without a result.
    """
    z = images[0].shape[0] // 2
    one, labels, two = (_plane(image, z) for image in images)
    # row 0 is the background
    good: NDArray[np.bool_] = np.concatenate(([False], np.isfinite(moved[:, 0])))
    found, turns = (np.full((len(field), 3), np.nan) for _ in range(2))
    found[good] = field.displacements[good]
    turns[good] = deformation.rotation_vector(field.F[good])

    figure = Figure(figsize=(13.2, 8.2), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3)
    limits = np.percentile(one, [0.5, 99.8])
    for panel, plane, title in zip(panels[:, 0], (one, two), ("image 1 and its labels", "image 2"), strict=True):
        shown = panel.imshow(plane, cmap="gray", vmin=limits[0], vmax=limits[1])
        _bar(figure, shown, panel, "grey level")
        panel.set_title(f"{title}, plane z = {z}")
    _outline(panels[0, 0], labels)

    relative = found - np.nanmedian(found, axis=0)
    _map(figure, panels[0, 1], labels, relative[:, 0], "displacement along z (voxels)", "PuOr")
    seen = [k for k in np.unique(labels).tolist() if k and good[k]]
    y, x = np.array([np.argwhere(labels == k).mean(axis=0) for k in seen]).reshape(-1, 2).T
    v, u = relative[seen, 1], relative[seen, 2]
    panels[0, 1].quiver(x, y, u, v, angles="xy", scale_units="xy", scale=1 / STRETCH, width=0.006, pivot="mid")
    panels[0, 1].set_title(f"displacement found, less the median (arrows {STRETCH}× longer)", fontsize=10)
    _map(figure, panels[1, 1], labels, turns[:, 0], "rotation about z (°)", "RdBu_r")
    panels[1, 1].set_title("rotation found")
    for panel in panels[:, :2].ravel():
        panel.set_xlabel("x (voxels)", fontsize=9)
        panel.set_ylabel("y (voxels)", fontsize=9)

    _against(panels[0, 2], deformation.rotation_vector(known[1:, :3, :3]), turns[1:])
    for axis, (name, colour) in enumerate(zip("zyx", COLOURS, strict=True)):
        values = moved[:, axis]
        label = f"{name}: {np.nanstd(moved[:, axis]):.4f} voxels, {np.nanstd(turned[:, axis]):.3f}°"
        panels[1, 2].hist(
            1000 * values[np.isfinite(values)], bins=21, histtype="step", lw=1.6, color=colour, label=label
        )
    panels[1, 2].set_title("error of the displacement")
    panels[1, 2].set_xlabel("found − known (thousandths of a voxel)", fontsize=9)
    panels[1, 2].set_ylabel("grains", fontsize=9)
    panels[1, 2].legend(fontsize=8, title="standard deviation of displacement, rotation", title_fontsize=8)
    low, high = panels[1, 2].get_ylim()
    panels[1, 2].set_ylim(low, 1.35 * high)
    for panel in panels.ravel():
        panel.tick_params(labelsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _plane(image: Image, z: int) -> NDArray[Any]:
    _, ny, nx = image.shape
    return np.asarray(image.read_box((z, 0, 0), (z + 1, ny, nx))[0][0])


def _outline(panel: Any, labels: Ints) -> None:
    """Lines around the labels of a plane."""
    edge = np.zeros(labels.shape, bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    colour = np.zeros((*labels.shape, 4))
    colour[edge] = (1.0, 0.75, 0.0, 0.8)
    panel.imshow(colour, interpolation="nearest")


def _map(figure: Figure, panel: Any, labels: Ints, values: Array, label: str, colours: str) -> None:
    """Labels of a plane, each in the colour of its value."""
    plane = values[labels]
    most = np.nanmax(np.abs(plane)) if np.isfinite(plane).any() else 1.0
    panel.set_facecolor("0.85")
    _bar(figure, panel.imshow(plane, cmap=colours, vmin=-most, vmax=most, interpolation="nearest"), panel, label)


def _against(panel: Any, known: Array, found: Array) -> None:
    most = 1.05 * np.abs(known).max()
    panel.plot((-most, most), (-most, most), color="0.6", lw=1)
    for axis, (name, colour) in enumerate(zip("zyx", COLOURS, strict=True)):
        panel.plot(known[:, axis], found[:, axis], "o", ms=3, color=colour, label=f"about {name}")
    panel.set(xlim=(-most, most), ylim=(-most, most), aspect="equal")
    panel.set_xlabel("rotation known (°)", fontsize=9)
    panel.set_ylabel("rotation found (°)", fontsize=9)
    panel.set_title("rotation of all grains")
    panel.legend(fontsize=8)


def _bar(figure: Figure, shown: Any, panel: Any, label: str) -> None:
    bar = figure.colorbar(shown, ax=panel, shrink=0.8)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
