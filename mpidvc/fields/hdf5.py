"""Fields as HDF5 files that ParaView opens as they are: the results file of a finished run.

The file is laid out completely before its first row is written: all metadata, and every dataset contiguous and
allocated. Rows then go to known offsets, from any process, with or without HDF5, and the metadata never change.
No byte depends on anything but the content. Groups and components are described in ``docs/results-file.md``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpidvc.arrays import Array, Ints, Triple
from mpidvc.atomic import beside, keep_mode, replacing
from mpidvc.core.grid import lines_of
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PHI, POSITIONS, Layout, PhiField, hidden
from mpidvc.fields.vtk import HIDDEN_CELL, HIDDEN_POINT
from mpidvc.kernels.records import take_groups
from mpidvc.rowfile import (
    HOME,
    JOURNAL,
    METADATA,
    SIGNATURE,
    Slot,
    boxes,
    create_dataset,
    create_file,
    read_attributes,
    read_rows,
    reserve,
)

__all__ = [
    "FORMAT",
    "NOISE",
    "VERDICT",
    "FieldLayout",
    "ResultsFile",
    "Rows",
    "check_results_file",
    "columns_of",
    "create_results_file",
    "dataset_rows",
    "is_hdf5",
    "least_bytes",
    "phi_of",
    "read_hdf5",
    "record_rows",
    "rows_of",
    "write_hdf5",
]

#: The attribute `format` of our group.
FORMAT = "mpidvc results 1"

VTK = "VTKHDF"
POINTS = f"{VTK}/Points"
SHOWN = f"{VTK}/PointData"
#: Dataset by which ParaView hides the points of an image, or else vertices; and its mark.
GHOSTS = {
    True: (f"{SHOWN}/vtkGhostType", HIDDEN_POINT),
    False: (f"{VTK}/CellData/vtkGhostType", HIDDEN_CELL),
}
#: Datasets of every field besides its columns, and the shape of a row.
OWN = {"positions": (3,), "displacement": (3,), "F": (9,)}
#: Columns of a record's Phi, row by row, that make up a displacement and an F there.
RECORD = ((11, 7, 3), (10, 9, 8, 6, 5, 4, 2, 1, 0))
#: Datasets of the noise of a pair of images: the shape of the first two is that of `FieldLayout.lags`.
NOISE = {name: f"{HOME}/{name}" for name in ("noiseCovariance", "residualCovariance", "kappa", "interpolationBias")}
#: Dataset with the exit status of the finished run: 0 for a result to trust, 1 for one that is not.
VERDICT = f"{HOME}/exitStatus"
#: Attributes of our group that the layout determines.
OWN_ATTRIBUTES = {
    "format",
    "layout",
    "n_points",
    "columns",
    "voxel_size",
    "unit",
    "dims",
    "spacing",
    "origin",
    "regular",
}
#: Columns that ParaView colours by at first: the first of these that exists.
SCALARS = ("returnStatus", "pixelSearchCC")
#: Exceptions with which h5py and the checks answer to damaged content.
DAMAGE = (EOFError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError, OSError)
#: Rows of a whole field that are read and written at a time.
BLOCK = 2**16


@dataclass(frozen=True)
class FieldLayout:
    """Layout of the file of a field: all that is known of the field before anything is measured.

    It determines the place of every number in the file.

    Parameters
    ----------
    n : int
        Number of points, at least 1.
    layout : {"registration", "grid", "labels", "points"}
    dims, spacing, origin : tuples of 3, optional
        Nodes along z, y, x, their distance, and the first node (z, y, x), voxels; of grids only.
    columns : tuple of str
        Names of the further numbers of each point.
    regular : bool
        Whether the nodes of the grid are `spacing` apart everywhere; otherwise ParaView is shown points.
    voxel_size : float
        Edge of a voxel in `unit`, for the lengths that ParaView shows. Rows are written and read in voxels.
    unit : str
    attributes : dict of str
        Texts that go with the field: the command, its settings, fingerprints …
    lags : 3 ints, optional
        Shape of the autocovariances of the noise, if the file holds them.
    judged : bool
        Whether the file holds the exit status of its run.

    Raises
    ------
    ValueError
        If the parameters contradict each other, or a column has a name that no dataset can have.
    """

    n: int
    layout: Layout = "points"
    dims: Triple | None = None
    spacing: tuple[float, float, float] | None = None
    origin: tuple[float, float, float] | None = None
    columns: tuple[str, ...] = ()
    regular: bool = True
    voxel_size: float = 1.0
    unit: str = "voxel"
    attributes: dict[str, str] = field(default_factory=dict)
    lags: Triple | None = None
    judged: bool = False

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout) or (self.layout == "registration" and self.n != 1):
            raise ValueError(f"{self.n} points cannot have the layout {self.layout!r}")
        given = {part is not None for part in (self.dims, self.spacing, self.origin)}
        if given != {self.layout == "grid"}:
            raise ValueError("a grid, and nothing else, has dims, spacing and origin")
        if self.n < 1 or (self.dims is not None and math.prod(self.dims) != self.n):
            raise ValueError(f"{self.n} points cannot be those of a field with dims {self.dims}")
        if not 0 < self.voxel_size < math.inf:
            raise ValueError(f"a voxel of {self.voxel_size} has no size")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"a column is there twice: {self.columns}")
        for name in self.columns:
            if name in ("", ".", "journal", VERDICT.rpartition("/")[2], *OWN, *NOISE) or "/" in name or "\0" in name:
                raise ValueError(f"no column can be named {name!r}")
        if taken := OWN_ATTRIBUTES & self.attributes.keys():
            raise ValueError(f"attributes of the format's own: {taken}")

    @classmethod
    def of(
        cls, field: PhiField, voxel_size: float = 1.0, unit: str = "voxel", attributes: Mapping[str, str] | None = None
    ) -> FieldLayout:
        """Layout of the file of a field."""
        origin = None
        regular = True
        if field.dims is not None and field.spacing is not None:
            first = field.positions[0]
            origin = (float(first[0]), float(first[1]), float(first[2]))
            steps = np.array(field.spacing)
            index = np.moveaxis(np.indices(field.dims, np.int32), 0, -1).reshape(-1, 3)
            far = np.abs(first + index * steps - field.positions) > 1e-6 * np.abs(steps)
            regular = bool(np.all(steps > 0)) and bool(np.isfinite(first).all()) and not far.any()
        return cls(
            len(field),
            field.layout,
            field.dims,
            field.spacing,
            origin,
            tuple(field.columns),
            regular,
            voxel_size,
            unit,
            dict(attributes or {}),
        )

    @classmethod
    def of_grid(cls, origin: Array, dims: Triple, spacing: Triple, columns: tuple[str, ...]) -> FieldLayout:
        """Layout of the nodes of a regular grid that begins at `origin` (z, y, x; voxels)."""
        first = (float(origin[0]), float(origin[1]), float(origin[2]))
        step = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
        return cls(math.prod(dims), "grid", dims, step, first, columns)

    @property
    def axes(self) -> tuple[Array, Array, Array]:
        """Coordinates of the nodes of a regular grid along z, y and x, voxels."""
        assert self.origin is not None
        assert self.dims is not None
        assert self.spacing is not None
        z, y, x = (
            np.asarray(o + s * np.arange(n), np.float64)
            for o, s, n in zip(self.origin, self.spacing, self.dims, strict=True)
        )
        return z, y, x

    def nodes(self, rows: Ints) -> Array:
        """Positions (k, 3) of these rows of a regular grid, voxels."""
        assert self.dims is not None
        index = np.unravel_index(np.asarray(rows), self.dims)
        return np.stack([axis[i] for axis, i in zip(self.axes, index, strict=True)], axis=-1)

    def nodes_between(self, start: int, stop: int) -> Array:
        """Positions (stop - start, 3) of the rows [start, stop) of a regular grid, voxels."""
        z, y, x = self.axes
        lines, part, rows = lines_of(start, stop, len(x))
        plane, line = np.divmod(lines, len(y))
        found = np.empty((len(lines), part.stop - part.start, 3))
        for axis, positions in enumerate((z[plane], y[line], x[part])):
            found[..., axis] = positions
        return found.reshape(-1, 3)[rows]

    @property
    def is_image(self) -> bool:
        """Whether VTK sees an ImageData; otherwise it sees a PolyData.

        VTK reads a volume, an image that is flat along z, and a line along x, but no other flat image.
        """
        if self.dims is None or not self.regular:
            return False
        nz, ny, nx = self.dims
        return min(ny, nx) > 1 or nz == ny == 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Leading axes of all datasets: (nz, ny, nx), of 2D grids (ny, nx), or (n,) of points and single lines."""
        if self.dims is None or not self.is_image:
            return (self.n,)
        flat = self.dims[0] == 1
        # VTK expects flat axes to be left out
        return self.dims[1 + (self.dims[1] == 1) :] if flat else self.dims

    @property
    def real(self) -> bool:
        """Whether ParaView is shown other lengths than voxels."""
        return self.voxel_size != 1.0

    @property
    def datasets(self) -> dict[str, tuple[int, ...]]:
        """Paths of the datasets that rows are written to, and the shape of a row."""
        paths: dict[str, tuple[int, ...]] = {f"{HOME}/{name}": shape for name, shape in OWN.items()}
        paths |= {f"{HOME}/{name}": () for name in self.columns}
        if self.real:
            paths[f"{SHOWN}/displacement"] = (3,)
        if not self.is_image:
            paths[POINTS] = (3,)
        paths[GHOSTS[self.is_image][0]] = ()
        return paths

    @property
    def known_at_the_end(self) -> dict[str, tuple[int, ...]]:
        """Paths of the datasets that are no rows, of the noise and of the verdict, and their shapes."""
        paths: dict[str, tuple[int, ...]] = {VERDICT: (1,)} if self.judged else {}
        if self.lags is not None:
            paths |= {path: self.lags if name.endswith("Covariance") else (3,) for name, path in NOISE.items()}
        return paths

    def dtype(self, path: str) -> str:
        """Type of a dataset that rows are written to."""
        return "|u1" if path == GHOSTS[self.is_image][0] else "<f8"


class Rows(NamedTuple):
    """Some rows of a field: positions (k, 3), phi (k, 4, 4), and the columns (k,) each."""

    positions: Array
    phi: Array
    columns: dict[str, Array]


def create_results_file(
    path: str | os.PathLike[str], layout: FieldLayout, named: str | os.PathLike[str] | None = None
) -> dict[str, Slot]:
    """Make a file with everything but the rows, and reserve the space for these.

    Parameters
    ----------
    path : path-like
        Replaced if it exists; removed again if the file cannot be made.
    layout : FieldLayout
    named : path-like, optional
        The name that it will get at the end: messages use it, and the permissions of a file of that name are kept.

    Returns
    -------
    dict of Slot
        By the path of the dataset, as `dataset_rows` names them.

    Raises
    ------
    UserError
        If the file cannot be made, or the disk has no room for it.
    """

    path = Path(path)
    try:
        # An old file could be a symbolic link, or open somewhere.
        path.unlink(missing_ok=True)
        slots, counts = _create(path, layout)
        if named is not None:
            keep_mode(named, path)
        with path.open("r+b") as raw:
            reserve(raw.fileno(), path.stat().st_size)
            for start, length in counts:
                for first in range(0, length, BLOCK):
                    numbers = np.arange(first, min(first + BLOCK, length), dtype="<i8")
                    os.pwrite(raw.fileno(), numbers.tobytes(), start + 8 * first)
    except OSError as error:
        path.unlink(missing_ok=True)
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())[:200]
        raise UserError(
            f"{named or path}: the {least_bytes(layout)} bytes of the results file cannot be reserved ({reason}); "
            "make room, or choose another folder by -od"
        ) from None
    return slots


def check_results_file(path: str | os.PathLike[str], layout: FieldLayout) -> None:
    """Check that a finished file is laid out for a field: its rows have no checksums, but their places are known.

    Parameters
    ----------
    path : path-like
    layout : FieldLayout
        Its attributes, voxel size and unit do not count, nor whether it holds the exit status.

    Raises
    ------
    UserError
        If it is not, or cannot be read.
    """
    damaged = f"{path}: is damaged; add --overwrite to measure it again"
    with beside(path) as skeleton:
        try:
            with ResultsFile(path) as file:
                found = file.layout
                told = {name: file.slot(name) for name in (*found.datasets, *found.known_at_the_end)}
        except UserError:
            raise UserError(damaged) from None
        slots, _ = _create(skeleton, found)
    same = replace(found, attributes={}, voxel_size=layout.voxel_size, unit=layout.unit, judged=layout.judged)
    if same != replace(layout, attributes={}) or told != slots:
        raise UserError(damaged)


def least_bytes(layout: FieldLayout) -> int:
    """Least size in bytes of a complete file."""
    row = sum(np.dtype(layout.dtype(name)).itemsize * math.prod(shape) for name, shape in layout.datasets.items())
    rows = layout.n * (row + 16 * (not layout.is_image)) + sum(
        8 * math.prod(shape) for shape in layout.known_at_the_end.values()
    )
    return rows + METADATA + sum(4 * len(text) for text in layout.attributes.values())


def _create(path: Path, layout: FieldLayout) -> tuple[dict[str, Slot], list[tuple[int, int]]]:
    """Create a file with everything but the rows; return their places, and those of datasets as `_add_vtk` does."""
    with create_file(path, least_bytes(layout)) as file:
        slots = {
            name: create_dataset(file, name, layout.shape, layout.dtype(name), row)
            for name, row in layout.datasets.items()
        }
        slots |= {name: create_dataset(file, name, shape, "<f8") for name, shape in layout.known_at_the_end.items()}
        _describe(file[HOME], layout)
        return slots, _add_vtk(file, layout)


def _describe(own: Any, layout: FieldLayout) -> None:
    """Describe the content of the file in the attributes of our group."""
    own.attrs["format"] = FORMAT
    own.attrs["layout"] = layout.layout
    own.attrs["n_points"] = np.int64(layout.n)
    own.attrs["columns"] = json.dumps(layout.columns, ensure_ascii=False)
    own.attrs["voxel_size"] = np.float64(layout.voxel_size)
    own.attrs["unit"] = layout.unit
    if layout.layout == "grid":
        own.attrs["dims"] = np.array(layout.dims, "<i8")
        own.attrs["spacing"] = np.array(layout.spacing, "<f8")
        own.attrs["origin"] = np.array(layout.origin, "<f8")
        own.attrs["regular"] = np.int64(layout.regular)
    for name, text in layout.attributes.items():
        own.attrs[name] = text
    own["positions"].attrs["components"] = "z, y, x in voxels"
    own["displacement"].attrs["components"] = "X, Y, Z in voxels"
    own["F"].attrs["components"] = "XX, XY, XZ, YX, YY, YZ, ZX, ZY, ZZ (row, column)"


def _add_vtk(file: Any, layout: FieldLayout) -> list[tuple[int, int]]:
    """Add the group that VTK reads; return (offset, length) of the datasets that will hold 0, 1, 2, …"""
    import h5py

    def ascii_attribute(group: Any, name: str, text: str) -> None:
        group.attrs.create(name, text.encode(), dtype=h5py.string_dtype("ascii", len(text)))

    group = file.require_group(VTK)
    group.attrs["Version"] = np.array((2, 0), "<i8")
    ascii_attribute(group, "Type", "ImageData" if layout.is_image else "PolyData")
    counts = []
    if layout.is_image:
        nz, ny, nx = cast("Triple", layout.dims)
        group.attrs["WholeExtent"] = np.array([0, nx - 1, 0, ny - 1, 0, nz - 1], "<i8")
        group.attrs["Origin"] = np.array(layout.origin, "<f8")[::-1] * layout.voxel_size
        group.attrs["Spacing"] = np.array(layout.spacing, "<f8")[::-1] * layout.voxel_size
        group.attrs["Direction"] = np.eye(3).ravel()
    else:
        _small(file, f"{VTK}/NumberOfPoints", [layout.n])
        for kind in ("Vertices", "Lines", "Strips", "Polygons"):
            n = layout.n if kind == "Vertices" else 0
            _small(file, f"{VTK}/{kind}/NumberOfCells", [n])
            _small(file, f"{VTK}/{kind}/NumberOfConnectivityIds", [n])
            if n:
                counts += [
                    (create_dataset(file, f"{VTK}/{kind}/{name}", (length,), "<i8").offset, length)
                    for name, length in (("Offsets", n + 1), ("Connectivity", n))
                ]
            else:
                _small(file, f"{VTK}/{kind}/Offsets", [0])
                _small(file, f"{VTK}/{kind}/Connectivity", [])
    shown = file.require_group(SHOWN)
    for name in ("displacement", "F", *layout.columns):
        if name not in shown:
            shown[name] = file[f"{HOME}/{name}"]
    active = {"Vectors": "displacement", "Tensors": "F"}
    scalars = next((name for name in SCALARS if name in layout.columns), None)
    if scalars is not None:
        active["Scalars"] = scalars
    for role, name in active.items():
        # The attribute of the group is documented; VTK reads the attribute of the dataset.
        ascii_attribute(shown, role, name)
        ascii_attribute(shown[name], "Attribute", role)
    _small(file, f"{VTK}/FieldData/voxel_size", [layout.voxel_size], "<f8")
    return counts


def _small(file: Any, name: str, values: Sequence[float], dtype: str = "<i8") -> None:
    file.create_dataset(name, data=np.array(values, dtype), track_times=False)


def dataset_rows(
    layout: FieldLayout, positions: ArrayLike, phi: ArrayLike, columns: Mapping[str, ArrayLike]
) -> dict[str, NDArray[np.generic]]:
    """Values for the rows of each dataset, for k points.

    Parameters
    ----------
    layout : FieldLayout
    positions : (k, 3) array
        z, y, x in voxels.
    phi : (k, 3, 4) or (k, 4, 4) array
        Phi of the points, in z, y, x and voxels; the last row of (k, 4, 4), always 0, 0, 0, 1, is not stored.
    columns : mapping of (k,) arrays
        Columns of the layout; others are ignored.

    Returns
    -------
    dict of arrays (k, …)
        By the paths of `create_results_file`; contiguous, little-endian, k rows of the slot's `row_shape`.
    """
    functions = np.asarray(phi, np.float64)
    displacement = functions[:, :3, 3][:, ::-1]
    F = functions[:, :3, :3][:, ::-1, ::-1].reshape(-1, 9)
    return _datasets(layout, positions, displacement, F, [columns[name] for name in layout.columns])


def record_rows(
    layout: FieldLayout, positions: ArrayLike, table: Array, rows: Ints, first: int = 0
) -> dict[str, NDArray[np.generic]]:
    """The same as `dataset_rows` of points whose numbers are rows of a table.

    Parameters
    ----------
    layout : FieldLayout
    positions : (k, 3) array
        z, y, x in voxels.
    table : (n, first + 12 + c) float64
        The first three rows of Phi, and a number for each of the layout's columns.
    rows : (k,) int64
        Rows of the table.
    first : int
        Column at which Phi begins.
    """
    groups = [*RECORD, *([12 + k] for k in range(len(layout.columns)))]
    displacement, F, *singles = take_groups(table, rows, [[first + k for k in group] for group in groups])
    return _datasets(layout, positions, displacement, F, [values[:, 0] for values in singles])


def _datasets(
    layout: FieldLayout, positions: ArrayLike, displacement: Array, F: Array, columns: Sequence[ArrayLike]
) -> dict[str, NDArray[np.generic]]:
    """The same of displacements (k, 3) and F (k, 9) in the order of the file, and of the layout's columns."""
    points = np.asarray(positions, np.float64)
    singles = {name: np.asarray(values, np.float64) for name, values in zip(layout.columns, columns, strict=True)}
    values = {
        f"{HOME}/positions": points,
        f"{HOME}/displacement": displacement,
        f"{HOME}/F": F,
        **{f"{HOME}/{name}": column for name, column in singles.items()},
    }
    if layout.real:
        values[f"{SHOWN}/displacement"] = displacement * layout.voxel_size
    if not layout.is_image:
        # a label that is not in the image has no position, and VTK's bounds would not be numbers
        known = np.isfinite(points).all(axis=1, keepdims=True)
        values[POINTS] = np.where(known, points[:, ::-1] * layout.voxel_size, 0.0)
    found = {name: np.ascontiguousarray(rows, "<f8") for name, rows in values.items()}
    ghosts, mark = GHOSTS[layout.is_image]
    nothing = hidden(displacement, singles.get("returnStatus"))
    return found | {ghosts: nothing * np.array(mark, layout.dtype(ghosts))}


def columns_of(layout: FieldLayout, values: Mapping[str, Array]) -> dict[str, Array]:
    """Numbers of points from their rows in each dataset, by their names in a `PhiField`: views, nothing is copied."""
    positions, displacement, F = (values[f"{HOME}/{name}"] for name in OWN)
    found = {name: values[f"{HOME}/{name}"] for name in layout.columns}
    found |= {name: positions[:, k] for k, name in enumerate(POSITIONS)}
    for k, name in enumerate(PHI):
        row, column = divmod(k, 4)
        # X, Y, Z there
        found[name] = displacement[:, 2 - row] if column == 3 else F[:, 8 - 3 * row - column]
    return found


def rows_of(layout: FieldLayout, values: Mapping[str, ArrayLike]) -> Rows:
    """The inverse of `dataset_rows`: points from their rows in each dataset, all in voxels and z, y, x."""
    phi = phi_of(values[f"{HOME}/displacement"], values[f"{HOME}/F"])
    columns = {name: np.asarray(values[f"{HOME}/{name}"], np.float64) for name in layout.columns}
    return Rows(np.asarray(values[f"{HOME}/positions"], np.float64), phi, columns)


def phi_of(displacement: ArrayLike, F: ArrayLike) -> Array:
    """Phi (k, 4, 4) in z, y, x from the rows of its two datasets."""
    moved, gradient = np.asarray(displacement, np.float64), np.asarray(F, np.float64)
    phi = np.zeros((len(gradient), 4, 4))
    phi[:, 3, 3] = 1
    phi[:, :3, 3] = moved[:, ::-1]
    phi[:, :3, :3] = gradient.reshape(-1, 3, 3)[:, ::-1, ::-1]
    return phi


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file that is HDF5 by its first bytes, whatever its name."""
    # a pipe would be waited for, and what is read from it would be lost
    if not Path(path).is_file():
        return False
    try:
        with Path(path).open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


class ResultsFile:
    """A results file, open for reading row by row; a context manager.

    Parameters
    ----------
    path : path-like

    Attributes
    ----------
    layout : FieldLayout
        Layout of the field; its `attributes` hold all texts of the file.

    Raises
    ------
    UserError
        If the file is missing, damaged, not written by mpidvc, or that of an unfinished run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import h5py

        self._path = path
        self._slots: dict[str, Slot | None] = {}
        if Path(path).exists() and not Path(path).is_file():
            raise UserError(f"field {path}: is no results file (.h5) of mpidvc")
        try:
            # A finished file is never written again: no lock is needed, and some file systems have none.
            self._file = h5py.File(path, "r", locking=False)
        except FileNotFoundError:
            raise UserError(f"field {path}: does not exist; check the path") from None
        except OSError as error:
            if not is_hdf5(path):
                raise UserError(f"field {path}: is no results file (.h5) of mpidvc") from None
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"field {path}: is cut off or damaged ({reason}); run its command again") from None
        try:
            self._bytes = Path(path).stat().st_size
            self.layout = self._read_layout()
        except DAMAGE as error:
            self.close()
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"field {path}: is damaged ({reason}); run its command again") from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_layout(self) -> FieldLayout:
        own = self._file.get(HOME)
        if JOURNAL in self._file:
            raise UserError(
                f"field {self._path}: is the results file of an unfinished run; "
                "finish it by the command that began it, with --resume"
            )
        told = {} if own is None else read_attributes(own)
        found = str(told.get("format", ""))[:60]
        if found != FORMAT:
            what = f"has the format {found!r}, not {FORMAT!r}" if found else "is no results file of mpidvc"
            raise UserError(f"field {self._path}: {what}; give the .h5 or .tsv file of a finished run")
        grid: dict[str, Any] = {name: told.pop(name, None) for name in ("dims", "spacing", "origin")}
        columns = json.loads(told.pop("columns"))
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise ValueError("its columns are no list of names")
        layout = FieldLayout(
            int(told.pop("n_points")),
            told.pop("layout"),
            **{name: None if values is None else _triple(name, values) for name, values in grid.items()},
            columns=tuple(columns),
            regular=bool(told.pop("regular", True)),
            voxel_size=float(told.pop("voxel_size")),
            unit=str(told.pop("unit")),
            attributes={
                name: text for name, text in told.items() if isinstance(text, str) and name not in OWN_ATTRIBUTES
            },
            lags=None if (found := own.get("noiseCovariance")) is None else _lags(found),
            judged=VERDICT in self._file,
        )
        for path, shape in layout.known_at_the_end.items():
            _check_dataset(own, path.rpartition("/")[2], shape, self._bytes)
        for name, row_shape in {**OWN, **dict.fromkeys(columns, ())}.items():
            _check_dataset(own, name, (*layout.shape, *row_shape), self._bytes)
        return layout

    def slot(self, name: str) -> Slot | None:
        """Place of a dataset in the file; None if it cannot be told."""
        n = len(self.layout.known_at_the_end.get(name, self.layout.shape))
        try:
            dataset = self._file[name]
            return Slot(dataset.id.get_offset() or 0, dataset.dtype, dataset.shape[n:], dataset.shape[:n])
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, OSError):
            return None

    def rows(self, start: int, stop: int) -> Rows:
        """Read rows [start, stop), all in voxels and z, y, x.

        Raises
        ------
        UserError
            If the rows cannot be read.
        """
        names = (*OWN, *self.layout.columns)
        return rows_of(self.layout, {f"{HOME}/{name}": self._read(f"{HOME}/{name}", start, stop) for name in names})

    def positions(self, start: int = 0, stop: int | None = None) -> Array:
        """Read the positions (k, 3) of rows [start, stop), z, y, x in voxels; of all rows if not given.

        Raises
        ------
        UserError
            If the rows cannot be read.
        """
        return self._read(f"{HOME}/positions", start, self.layout.n if stop is None else stop)

    def displacements(self) -> Array:
        """Read the displacements (n, 3) of all rows, z, y, x in voxels.

        Raises
        ------
        UserError
            If they cannot be read.
        """
        return self._read(f"{HOME}/displacement", 0, self.layout.n)[:, ::-1]

    def exit_status(self) -> int | None:
        """Read the exit status of the run that made the file; None if the file does not tell.

        Raises
        ------
        UserError
            If it cannot be read.
        """
        if not self.layout.judged:
            return None
        try:
            return {0.0: 0, 1.0: 1}.get(float(self._file[VERDICT][0]))
        except DAMAGE as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"field {self._path}: is damaged ({reason}); run its command again") from None

    def field(self) -> PhiField:
        """Read the whole field, in voxels and z, y, x.

        Raises
        ------
        UserError
            If its rows cannot be read.
        """
        layout = self.layout
        positions, phi = np.empty((layout.n, 3)), np.empty((layout.n, 4, 4))
        columns = {name: np.empty(layout.n) for name in layout.columns}
        # some at a time: displacements and F are not in memory twice
        for start in range(0, layout.n, BLOCK):
            part = slice(start, min(start + BLOCK, layout.n))
            rows = self.rows(part.start, part.stop)
            positions[part], phi[part] = rows.positions, rows.phi
            for name, values in rows.columns.items():
                columns[name][part] = values
        return PhiField(positions, phi, {**columns}, layout.layout, layout.dims, layout.spacing)

    def hidden(self) -> NDArray[np.bool_]:
        """Read which points (n,) have nothing to show.

        Raises
        ------
        UserError
            If this cannot be read.
        """
        return np.asarray(self._read(GHOSTS[self.layout.is_image][0], 0, self.layout.n) != 0)

    def noise(self) -> dict[str, Array] | None:
        """Read the noise of the images: datasets of `NOISE`, by name; None if the file holds none.

        Raises
        ------
        UserError
            If it cannot be read.
        """
        if self.layout.lags is None:
            return None
        try:
            return {name: np.asarray(self._file[path][()], np.float64) for name, path in NOISE.items()}
        except DAMAGE as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"field {self._path}: its noise cannot be read ({reason}); run its command again") from None

    def column(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Read rows [start, stop) of one column; all rows if not given.

        Raises
        ------
        KeyError
            If there is no such column.
        UserError
            If the rows cannot be read.
        """
        if name not in self.layout.columns:
            raise KeyError(name)
        return self._read(f"{HOME}/{name}", start, self.layout.n if stop is None else stop)

    def _read(self, name: str, start: int, stop: int) -> Array:
        if name not in self._slots:
            self._slots[name] = self.slot(name)
        slot = self._slots[name]
        try:
            # each call of HDF5 takes longer than to read a thousand numbers
            if slot is not None and slot.offset and 0 <= start < stop <= self.layout.n:
                parts = [read_rows(self._file.id.get_vfd_handle(), slot, start, stop)]
            else:
                dataset = self._file[name]
                row_shape = dataset.shape[len(self.layout.shape) :]
                parts = [dataset[index].reshape(-1, *row_shape) for index in boxes(self.layout.shape, start, stop)]
        except DAMAGE as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"field {self._path}: /{name} cannot be read ({reason}); run its command again") from None
        return np.asarray(parts[0] if len(parts) == 1 else np.concatenate(parts), np.float64)


def _triple(name: str, values: Any) -> tuple[Any, Any, Any]:
    """An attribute of a grid as numbers along z, y, x; nodes are counted, and lengths above 0."""
    array = np.asarray(values)
    counts = name == "dims"
    if array.shape != (3,) or array.dtype.kind not in ("iu" if counts else "fiu"):
        raise ValueError(f"{name} are no three numbers: {values!r}")
    if name != "origin" and not (np.isfinite(array).all() and (array > 0).all()):
        raise ValueError(f"{name} are not above 0: {values!r}")
    first, second, third = (int(value) if counts else float(value) for value in array)
    return first, second, third


def _lags(dataset: Any) -> Triple:
    """Shape of an autocovariance: odd numbers, few of them."""
    shape = tuple(int(n) for n in dataset.shape)
    if len(shape) != 3 or any(n % 2 == 0 or n > 31 for n in shape):
        raise ValueError(f"the noise has the shape {shape}")
    return shape[0], shape[1], shape[2]


def _check_dataset(own: Any, name: str, shape: tuple[int, ...], file_bytes: int) -> None:
    """Check that our group holds a dataset of numbers of this shape, and the file all of them.

    Raises
    ------
    ValueError
        If not.
    """
    import h5py

    # no other link: one may lead to itself, or to another file
    if not isinstance(own.get(name, getlink=True), h5py.HardLink) or not isinstance(own[name], h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    dataset = own[name]
    if dataset.shape != shape or dataset.dtype.kind not in "fiu":
        raise ValueError(f"{name} has the shape {dataset.shape} and the type {dataset.dtype}, not {shape} and numbers")
    # Numbers that were never written take no space in a file, but as much as others when they are read.
    if dataset.chunks is not None:
        chunks = math.prod(-(-n // size) for n, size in zip(shape, dataset.chunks, strict=True))
        stored = dataset.id.get_num_chunks() == chunks
    else:
        size = math.prod(shape) * dataset.dtype.itemsize
        stored = size <= min(dataset.id.get_storage_size(), file_bytes) and not (dataset.external or dataset.is_virtual)
    if not stored:
        raise ValueError(f"{name} has no data")


def read_hdf5(path: str | os.PathLike[str], bin_ratio: float = 1.0) -> PhiField:
    """Read a field. With a `bin_ratio` of 1 every bit is as it was written, whatever the voxel size.

    Parameters
    ----------
    path : path-like
    bin_ratio : float
        Factor on positions and displacements: binning of the field's images over that of the images to be used.

    Raises
    ------
    UserError
        If the file is missing, damaged, not written by mpidvc, or that of an unfinished run.
    """
    with ResultsFile(path) as file:
        found = file.field()
    if bin_ratio != 1:
        found.positions *= bin_ratio
        found.phi[:, :3, 3] *= bin_ratio
        if found.spacing is not None:
            z, y, x = found.spacing
            found.spacing = (z * bin_ratio, y * bin_ratio, x * bin_ratio)
    return found


def write_hdf5(
    path: str | os.PathLike[str],
    field: PhiField,
    voxel_size: float = 1.0,
    unit: str = "voxel",
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write a whole field; the file appears whole or not at all.

    Parameters
    ----------
    path : path-like
    field : PhiField
        Columns become float64; the last rows of `phi` are taken to be 0, 0, 0, 1.
    voxel_size : float
        Edge of a voxel in `unit`, for the lengths that ParaView shows.
    unit : str
    attributes : mapping of str, optional
        Texts that go with the field.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    layout = FieldLayout.of(field, voxel_size, unit, attributes)
    with replacing(path) as temporary:
        slots = create_results_file(temporary, layout, path)
        with temporary.open("r+b") as file:
            for start in range(0, layout.n, BLOCK):
                part = slice(start, start + BLOCK)
                columns = {name: values[part] for name, values in field.columns.items()}
                for name, rows in dataset_rows(layout, field.positions[part], field.phi[part], columns).items():
                    file.seek(slots[name].offset + start * slots[name].row_bytes)
                    file.write(rows.tobytes())
