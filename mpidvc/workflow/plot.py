"""Pictures of fields on a grid: their middle slices."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mpidvc.atomic import replacing
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField

__all__ = ["check_plot", "need_matplotlib", "plot_slices"]

#: Most columns of a field in a picture.
MOST = 9


def need_matplotlib(option: str) -> None:
    """Check that matplotlib, which an option needs, is installed.

    Raises
    ------
    UserError
        If it is not.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"{option}: matplotlib is not installed; pip install matplotlib")


def check_plot(path: str) -> None:
    """Check, before anything is done, that a picture can be drawn and written.

    Raises
    ------
    UserError
        If matplotlib is missing, or there is no such folder.
    """
    need_matplotlib("--plot")
    if not Path(path).resolve().parent.is_dir():
        raise UserError(f"--plot {path}: there is no folder {Path(path).resolve().parent}; make it")


def plot_slices(path: str, field: PhiField, columns: Sequence[str]) -> None:
    """Write the middle slices of columns of a field as PNG: a row for each column; nan is grey.

    Parameters
    ----------
    path : str
    field : PhiField
        On a grid.
    columns : sequence of str
        Names; the first `MOST` are drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    assert field.dims is not None
    names = columns[:MOST]
    axes = [axis for axis in range(3) if all(n > 1 for k, n in enumerate(field.dims) if k != axis)] or [0]
    figure = Figure(figsize=(0.8 + 3.4 * len(axes), 0.4 + 3.0 * len(names)), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    positions = field.grid(field.positions)
    for row, name in zip(figure.subplots(len(names), len(axes), squeeze=False), names, strict=True):
        values = field.grid(name)
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, [1, 99]) if len(finite) else (0.0, 1.0)
        # values of both signs: the colour of 0 is the middle one
        signed = low < 0 < high
        limits = (-max(-low, high), max(-low, high)) if signed else (low, high)
        for panel, axis in zip(row, axes, strict=True):
            middle = field.dims[axis] // 2
            place, picture = np.take(positions, middle, axis), np.take(values, middle, axis)
            down, right = (k for k in range(3) if k != axis)
            y, x = place[:, 0, down], place[0, :, right]
            dy, dx = ((line[1] - line[0]) / 2 if len(line) > 1 else 0.5 for line in (y, x))
            shown = panel.imshow(
                picture,
                extent=(x[0] - dx, x[-1] + dx, y[-1] + dy, y[0] - dy),
                cmap="RdBu_r" if signed else "viridis",
                vmin=limits[0],
                vmax=limits[1],
                interpolation="nearest",
            )
            panel.set_facecolor("0.85")
            panel.set_title(f"{name}, {'zyx'[axis]} = {place[0, 0, axis]:g}", fontsize=9)
            panel.set_ylabel(f"{'zyx'[down]} (voxels)", fontsize=8)
            panel.set_xlabel(f"{'zyx'[right]} (voxels)", fontsize=8)
            panel.tick_params(labelsize=7)
        figure.colorbar(shown, ax=list(row), shrink=0.8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
