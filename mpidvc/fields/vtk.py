"""Fields as legacy ASCII VTK, for ParaView."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from mpidvc.arrays import Array
from mpidvc.atomic import replacing
from mpidvc.kernels import text

__all__ = ["HIDDEN_CELL", "HIDDEN_POINT", "write_grid_vtk", "write_points_vtk"]

#: Marks in an array of the name vtkGhostType by which VTK, and so ParaView, hides a point or a cell; 0: it is shown.
HIDDEN_POINT, HIDDEN_CELL = 2, 32
#: Points whose numbers are turned to text at a time.
PIECE = 65536


def write_grid_vtk(
    path: str | Path,
    dims: Sequence[int],
    spacing: Sequence[float],
    origin: Sequence[float],
    fields: Iterable[tuple[str, ArrayLike]],
    keep_nan: bool = False,
    hidden: ArrayLike | None = None,
) -> None:
    """Write fields as the cells of a regular grid; the file appears whole or not at all.

    Parameters
    ----------
    path : str or Path
    dims : sequence of 3 ints
        Number of cells along z, y, x.
    spacing : sequence of 3 floats
        Size of a cell (z, y, x) in voxels; a size that is not positive (z of 2D fields) becomes 1.
    origin : sequence of 3 floats
        Corner (z, y, x) of the first cell in voxels.
    fields : iterable of (name, array)
        Scalars (n,), vectors (n, 3) or tensors (n, 3, 3), n the number of cells, z slowest; components in z, y, x.
    keep_nan : bool
        Write nan and infinities as they are; otherwise they become 0.
    hidden : (n,) bool, optional
        Cells that ParaView does not show; they are marked if there are any.

    Raises
    ------
    ValueError
        If a field has another shape.
    UserError
        If the file cannot be written.
    """
    steps = [step if step > 0 else 1.0 for step in spacing]
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(
            _lines(
                "# vtk DataFile Version 2.0",
                _title(f"VTK file from mpidvc: {Path(path).name}"),
                "ASCII",
                "",
                "DATASET STRUCTURED_POINTS",
                "DIMENSIONS " + " ".join(str(int(n) + 1) for n in reversed(dims)),
                "ASPECT_RATIO " + " ".join(repr(float(step)) for step in reversed(steps)),
                "ORIGIN " + " ".join(repr(float(start)) for start in reversed(origin)),
                "",
                f"CELL_DATA {math.prod(dims)}",
            )
        )
        _write_fields(file, math.prod(dims), fields, keep_nan)
        _write_hidden(file, hidden, HIDDEN_CELL)


def write_points_vtk(
    path: str | Path,
    positions: ArrayLike,
    fields: Iterable[tuple[str, ArrayLike]],
    keep_nan: bool = False,
    hidden: ArrayLike | None = None,
) -> None:
    """Write fields at scattered points; the file appears whole or not at all.

    Parameters
    ----------
    path : str or Path
    positions : (n, 3) array
        z, y, x in voxels; a point with a coordinate that is not finite goes to 0, 0, 0.
    fields : iterable of (name, array)
        Scalars (n,), vectors (n, 3) or tensors (n, 3, 3), components in z, y, x.
    keep_nan : bool
        Write nan and infinities of the fields as they are; otherwise they become 0.
    hidden : (n,) bool, optional
        Points that ParaView does not show; they are marked if there are any.

    Raises
    ------
    ValueError
        If a field has another shape.
    UserError
        If the file cannot be written.
    """
    points = np.array(positions, np.float64).reshape(-1, 3)
    points[~np.isfinite(points).all(axis=1)] = 0
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(
            _lines(
                "# vtk DataFile Version 2.0",
                "Unstructured grid legacy vtk file with point scalar data",
                "ASCII",
                "",
                "DATASET UNSTRUCTURED_GRID",
                f"POINTS {len(points)} float",
            )
        )
        _write_rows(file, points[:, ::-1], 3, True)
        file.write(_lines("", f"POINT_DATA {len(points)}"))
        _write_fields(file, len(points), fields, keep_nan)
        _write_hidden(file, hidden, HIDDEN_POINT)


def _title(text: str) -> str:
    """A second line that VTK takes: a single one of at most 255 bytes. A file name may be anything, even no text."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable.encode()[:255].decode(errors="ignore")


def _write_fields(file: BinaryIO, n: int, fields: Iterable[tuple[str, ArrayLike]], keep_nan: bool) -> None:
    for name, given in fields:
        values = np.asarray(given, np.float64)
        kinds = {(n,): "SCALARS", (n, 3): "VECTORS", (n, 3, 3): "TENSORS"}
        if values.shape not in kinds:
            raise ValueError(f"field {name} has the shape {values.shape}, not ({n},), ({n}, 3) or ({n}, 3, 3)")
        kind = kinds[values.shape]
        file.write(_lines("", f"{kind} {name} float", *(["LOOKUP_TABLE default"] if kind == "SCALARS" else [])))
        # x, y, z, and a line for a scalar, a vector, or a row of a tensor
        turned = np.flip(values, tuple(range(1, values.ndim)))
        _write_rows(file, turned.reshape(n, -1), 1 if kind == "SCALARS" else 3, keep_nan)


def _write_hidden(file: BinaryIO, hidden: ArrayLike | None, mark: int) -> None:
    if hidden is not None and np.any(hidden):
        file.write(_lines("", "SCALARS vtkGhostType unsigned_char", "LOOKUP_TABLE default"))
        file.write(b"".join(b"    %d\n" % (mark if one else 0) for one in np.asarray(hidden).tolist()))


def _write_rows(file: BinaryIO, table: Array, width: int, keep_nan: bool) -> None:
    """Write a table piece by piece, so many numbers a line."""
    for start in range(0, len(table), PIECE):
        piece = np.array(table[start : start + PIECE], order="C").reshape(-1, width)
        if not keep_nan:
            piece[~np.isfinite(piece)] = 0.0
        file.write(text.format_columns(piece.T, b" ", b"    "))


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
