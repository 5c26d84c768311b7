"""Fields as legacy ASCII VTK, for ParaView."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from mpidvc.arrays import Array
from mpidvc.atomic import replacing
from mpidvc.kernels import text

__all__ = ["write_grid_vtk", "write_points_vtk"]


def write_grid_vtk(
    path: str | Path,
    dims: Sequence[int],
    spacing: Sequence[float],
    origin: Sequence[float],
    fields: Mapping[str, ArrayLike],
    keep_nan: bool = False,
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
    fields : mapping of arrays
        Scalars (n,), vectors (n, 3) or tensors (n, 3, 3), n the number of cells, z slowest; components in z, y, x.
    keep_nan : bool
        Write nan and infinities as they are; otherwise they become 0.

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


def write_points_vtk(
    path: str | Path, positions: ArrayLike, fields: Mapping[str, ArrayLike], keep_nan: bool = False
) -> None:
    """Write fields at scattered points; the file appears whole or not at all.

    Parameters
    ----------
    path : str or Path
    positions : (n, 3) array
        z, y, x in voxels; a point with a coordinate that is not finite goes to 0, 0, 0.
    fields : mapping of arrays
        Scalars (n,), vectors (n, 3) or tensors (n, 3, 3), components in z, y, x.
    keep_nan : bool
        Write nan and infinities of the fields as they are; otherwise they become 0.

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
        file.write(_rows(points[:, ::-1]))
        file.write(_lines("", f"POINT_DATA {len(points)}"))
        _write_fields(file, len(points), fields, keep_nan)


def _title(text: str) -> str:
    """A second line that VTK takes: a single one of at most 255 bytes. A file name may be anything, even no text."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable.encode()[:255].decode(errors="ignore")


def _write_fields(file: BinaryIO, n: int, fields: Mapping[str, ArrayLike], keep_nan: bool) -> None:
    for name, given in fields.items():
        values = np.asarray(given, np.float64)
        if not keep_nan:
            values = np.where(np.isfinite(values), values, 0.0)
        if values.shape == (n,):
            file.write(_lines("", f"SCALARS {name} float", "LOOKUP_TABLE default"))
            file.write(_rows(values[:, None]))
        elif values.shape == (n, 3):
            file.write(_lines("", f"VECTORS {name} float"))
            file.write(_rows(values[:, ::-1]))
        elif values.shape == (n, 3, 3):
            file.write(_lines("", f"TENSORS {name} float"))
            file.write(_rows(values[:, ::-1, ::-1].reshape(-1, 3)))
        else:
            raise ValueError(f"field {name} has the shape {values.shape}, not ({n},), ({n}, 3) or ({n}, 3, 3)")


def _rows(table: Array) -> bytes:
    return text.format_rows(np.ascontiguousarray(table), b" ", b"    ")


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
