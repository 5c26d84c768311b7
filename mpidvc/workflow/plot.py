"""Pictures of fields on a grid and of images: their middle slices."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpidvc.arrays import Array, Triple
from mpidvc.atomic import replacing
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image

__all__ = ["MAGNITUDE", "check_plot", "need_matplotlib", "plot_images", "plot_slices"]

#: Most columns of a field in a picture.
MOST = 9
#: Different values up to which all of them are shown.
FEW = 12
#: Name of the length of the displacements, besides those of columns.
MAGNITUDE = "|displacement|"


def need_matplotlib(option: str) -> None:
    """Check that matplotlib, which an option needs, is installed.

    Raises
    ------
    UserError
        If it is not.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"{option}: matplotlib is not installed; pip install matplotlib")


def check_plot(path: str | None, is_grid: bool = True) -> None:
    """Check, before anything is done, that a picture can be drawn and written.

    Parameters
    ----------
    path : str or None
        None: there is no picture.
    is_grid : bool
        Whether the points are those of a grid.

    Raises
    ------
    UserError
        If matplotlib is missing, there is no such folder, or there are no slices.
    """
    if path is None:
        return
    need_matplotlib("--plot")
    if not Path(path).resolve().parent.is_dir():
        raise UserError(f"--plot {path}: there is no folder {Path(path).resolve().parent}; make it")
    if not is_grid:
        raise UserError(f"--plot {path}: slices need the nodes of a grid; drop it")


class _Slice(NamedTuple):
    """A slice: its axis and its place there, its values, and its edges (left, right, bottom, top), voxels."""

    axis: int
    place: float
    values: Array
    extent: tuple[float, float, float, float]


class _Row(NamedTuple):
    """Slices of one quantity, with the limits and the map of its colours."""

    name: str
    slices: list[_Slice]
    limits: tuple[float, float]
    colours: str


def _sliced(dims: Sequence[int]) -> list[int]:
    """Axes across which slices have an area."""
    return [axis for axis in range(3) if all(n > 1 for k, n in enumerate(dims) if k != axis)] or [0]


def _row(name: str, slices: list[_Slice], values: Array, colours: str) -> _Row:
    """A row with the limits of these values; values of both signs: the colour of 0 is the middle one."""
    finite = values[np.isfinite(values)]
    if len(different := np.unique(finite[:: 1 + len(finite) // 10**6])) <= FEW:
        # statuses and their kind: rare ones count, too
        low, high = (float(finite.min()), float(finite.max())) if len(different) else (0.0, 1.0)
        return _Row(name, slices, (low, high) if low < high else (low - 0.5, high + 0.5), colours)
    low, high = (float(v) for v in np.percentile(finite, [1, 99]))
    if low < 0 < high:
        return _Row(name, slices, (-max(-low, high), max(-low, high)), "RdBu_r")
    return _Row(name, slices, (low, high), colours)


def plot_slices(path: str, field: PhiField, columns: Sequence[str]) -> None:
    """Write the middle slices of columns of a field as PNG: a row for each column; nan is grey.

    Parameters
    ----------
    path : str
    field : PhiField
        On a grid.
    columns : sequence of str
        Names, or `MAGNITUDE`; the first `MOST` are drawn.
    """
    assert field.dims is not None
    positions = field.grid(field.positions)
    rows = []
    for name in columns[:MOST]:
        values = field.grid(np.linalg.norm(field.displacements, axis=1) if name == MAGNITUDE else name)
        slices = []
        for axis in _sliced(field.dims):
            middle = field.dims[axis] // 2
            place = np.take(positions, middle, axis)
            down, right = (k for k in range(3) if k != axis)
            y, x = place[:, 0, down], place[0, :, right]
            dy, dx = ((line[1] - line[0]) / 2 if len(line) > 1 else 0.5 for line in (y, x))
            extent = (x[0] - dx, x[-1] + dx, y[-1] + dy, y[0] - dy)
            slices.append(_Slice(axis, place[0, 0, axis], np.take(values, middle, axis), extent))
        rows.append(_row(name, slices, values, "viridis"))
    _draw(path, rows)


def plot_images(path: str, images: dict[str, Image]) -> None:
    """Write the middle slices of images as PNG: a row for each, by its title; nan is grey.

    Images of both signs, as residuals, are in colours.
    """
    rows = []
    for name, image in images.items():
        slices = []
        for axis in _sliced(image.shape):
            middle = image.shape[axis] // 2
            low, high = [0, 0, 0], list(image.shape)
            low[axis], high[axis] = middle, middle + 1
            values = np.take(image.read_box(_triple(low), _triple(high))[0], 0, axis).astype(np.float64)
            ny, nx = values.shape
            slices.append(_Slice(axis, middle, values, (-0.5, nx - 0.5, ny - 0.5, -0.5)))
        rows.append(_row(name, slices, np.concatenate([part.values.ravel() for part in slices]), "gray"))
    _draw(path, rows)


def _triple(numbers: list[int]) -> Triple:
    z, y, x = numbers
    return z, y, x


def _draw(path: str, rows: Sequence[_Row]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = len(rows[0].slices)
    figure = Figure(figsize=(0.8 + 3.4 * columns, 0.4 + 3.0 * len(rows)), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    for panels, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        for panel, part in zip(panels, row.slices, strict=True):
            down, right = (k for k in range(3) if k != part.axis)
            shown = panel.imshow(
                part.values,
                extent=part.extent,
                cmap=row.colours,
                vmin=row.limits[0],
                vmax=row.limits[1],
                interpolation="antialiased",
            )
            panel.set_facecolor("0.85")
            panel.set_title(f"{row.name}, {'zyx'[part.axis]} = {part.place:g}", fontsize=9)
            panel.set_ylabel(f"{'zyx'[down]} (voxels)", fontsize=8)
            panel.set_xlabel(f"{'zyx'[right]} (voxels)", fontsize=8)
            panel.tick_params(labelsize=7)
        figure.colorbar(shown, ax=list(panels), shrink=0.8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
