"""A field that stays in its results file: any process reads ranges of its rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mpidvc.arrays import Array, Ints
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import OWN, FieldLayout, ResultsFile, Rows, is_hdf5, phi_of, rows_of
from mpidvc.rowfile import HOME, RowFile, Slot

__all__ = ["StoredField", "open_stored"]

#: Datasets in voxels.
LENGTHS = (f"{HOME}/positions", f"{HOME}/displacement")


class StoredField(RowFile):
    """A field on a regular grid in a results file that is not in memory. It can be pickled, as every `RowFile`.

    Parameters
    ----------
    path : Path
    slots : mapping of str to Slot
        Of its datasets, float64 in the byte order of this machine.
    layout : FieldLayout
        In voxels of the images to be used.
    bin_ratio : float
        Factor on positions and displacements.

    Attributes
    ----------
    stamp : tuple of ints
        Of the file as it was when this was made: inode, bytes, and time of the last change, nanoseconds.
    """

    def __init__(self, path: Path, slots: Mapping[str, Slot], layout: FieldLayout, bin_ratio: float) -> None:
        super().__init__(path, slots)
        self.layout, self._bin_ratio = layout, bin_ratio
        self.stamp = self._stamp_now()

    def __len__(self) -> int:
        return self.layout.n

    def descriptor(self) -> int:
        """As of `RowFile`, but nothing can be written."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor

    def _stamp_now(self) -> tuple[int, int, int]:
        # by the name: the file may have been replaced
        told = self.path.stat()
        return told.st_ino, told.st_size, told.st_mtime_ns

    @property
    def changed(self) -> bool:
        """Whether this process sees another file than the one that was opened at first, or none."""
        try:
            self.descriptor()
            return self._stamp_now() != self.stamp
        except OSError:
            return True

    def refuse_changes(self) -> None:
        """Refuse a file that is not the one that was opened at first.

        Raises
        ------
        UserError
            If the file was changed, replaced or removed.
        """
        if self.changed:
            raise UserError(f"field {self.path}: was changed while it was read; start again")

    def rows(self, start: int, stop: int) -> Rows:
        """Rows [start, stop), in voxels and z, y, x.

        Raises
        ------
        UserError
            If they cannot be read.
        """
        return rows_of(self.layout, {name: self._values(name, start, stop) for name in self.slots})

    def phi(self, start: int, stop: int) -> Array:
        """Phi (k, 4, 4) of the rows [start, stop), displacements in voxels.

        Raises
        ------
        UserError
            If they cannot be read.
        """
        return phi_of(*(self._values(f"{HOME}/{name}", start, stop) for name in ("displacement", "F")))

    def phi_at(self, rows: Ints) -> Array:
        """Phi (k, 4, 4) of any rows; those that follow each other are read at once.

        Raises
        ------
        UserError
            If they cannot be read.
        """
        phi = np.empty((len(rows), 4, 4))
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        for part, some in zip(np.split(phi, cuts), np.split(rows, cuts), strict=True):
            if len(some):
                part[:] = self.phi(int(some[0]), int(some[-1]) + 1)
        return phi

    def _values(self, name: str, start: int, stop: int) -> Array:
        values = self.read(name, start, stop)
        if self._bin_ratio != 1 and name in LENGTHS:
            values *= self._bin_ratio
        return values


def open_stored(path: str, bin_ratio: float = 1.0) -> StoredField | None:
    """A field that can stay in its file; None where it has to be read as a whole.

    It can where the file is HDF5, its layout a regular grid, and every dataset as mpidvc writes it: in one piece, of
    float64. Whether the positions in it are those of the grid is not looked at.

    Raises
    ------
    UserError
        If it is HDF5, but damaged, not written by mpidvc, or that of an unfinished run.
    """
    if not is_hdf5(path):
        return None
    with ResultsFile(path) as file:
        found = file.layout
        slots = {f"{HOME}/{name}": file.slot(f"{HOME}/{name}") for name in (*OWN, *found.columns)}
    if found.dims is None or found.spacing is None or found.origin is None or not found.regular:
        return None
    size = Path(path).stat().st_size
    whole: dict[str, Slot] = {}
    for name, slot in slots.items():
        # chunks have no offset
        if slot is None or slot.offset == 0 or slot.dtype != np.dtype("=f8"):
            return None
        if slot.offset + found.n * slot.row_bytes > size:
            return None
        whole[name] = slot
    (z, y, x), (oz, oy, ox) = found.spacing, found.origin
    layout = FieldLayout(
        found.n,
        "grid",
        found.dims,
        (z * bin_ratio, y * bin_ratio, x * bin_ratio),
        (oz * bin_ratio, oy * bin_ratio, ox * bin_ratio),
        found.columns,
    )
    return StoredField(Path(path), whole, layout, bin_ratio)
