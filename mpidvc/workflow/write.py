"""The other files of a run, written from its finished results file: TIFF, VTK, and a text that is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.fields.hdf5 import FieldLayout, ResultsFile
from mpidvc.fields.tiff import write_field_tiffs
from mpidvc.fields.tsv import column_names
from mpidvc.fields.vtk import write_grid_vtk, write_points_vtk
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.ranks import on_leader
from mpidvc.workflow.files import RunFiles
from mpidvc.workflow.output import Output
from mpidvc.workflow.text import NUMBER, text_path, write_text

__all__ = ["FieldFiles", "note_stale", "write", "written_files"]


@dataclass(frozen=True)
class FieldFiles:
    """The text, TIFF and VTK files of a command, as in spam.

    Attributes
    ----------
    family : str or sequence of str
        Columns of the text file: a key of `mpidvc.fields.tsv.COLUMNS`, or their names.
    tif : mapping of str to str
        Columns that are written as TIFF files, by the suffix of the file.
    vtk : tuple of str
        Columns in the VTK file.
    magnitude : bool
        Whether it holds the lengths of the displacements, too.
    displacements : bool
        Whether TIFF and VTK files hold the displacements.
    groups : mapping of str to tuple of str
        Scalars, vectors (z, y, x) and symmetric tensors (zz, zy, zx, yy, yx, xx) in the VTK file: their one, three or
        six columns.
    keep_nan : bool
        Whether nan stays in the VTK file.
    tif_drops : str
        Ending of the stem that the names of TIFF files lack.
    """

    family: str | Sequence[str]
    tif: Mapping[str, str] = field(default_factory=dict)
    vtk: tuple[str, ...] = ()
    magnitude: bool = False
    displacements: bool = True
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keep_nan: bool = False
    tif_drops: str = ""

    def names(self, layout: FieldLayout) -> tuple[str, ...]:
        """Columns of the text file of a field."""
        return column_names(self.family, layout.layout == "labels")

    def tif_stem(self, stem: Path) -> Path:
        """Stem of the TIFF files."""
        return stem.with_name(stem.name.removesuffix(self.tif_drops))

    def drawn(self, results: ResultsFile, half_cell: Sequence[float]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Suffixes and content of the TIFF files."""
        if self.displacements:
            displacements = results.displacements()
            for a, axis in enumerate("ZYX"):
                if half_cell[a] > 0:
                    yield f"{axis}disp", displacements[:, a]
            del displacements
        for name, column in self.tif.items():
            yield name, results.column(column)

    def shown(self, results: ResultsFile) -> Iterator[tuple[str, NDArray[Any]]]:
        """Names and content of the fields in the VTK file."""
        if self.displacements or self.magnitude:
            displacements = results.displacements()
            if self.displacements:
                yield "displacements", displacements
            if self.magnitude:
                yield "mag(displacements)", np.linalg.norm(displacements, axis=1)
            del displacements
        for name, columns in self.groups.items():
            values = np.stack([results.column(column) for column in columns], axis=-1)
            # places of the nine numbers of a tensor among its six columns
            places: Any = {1: 0, 3: [0, 1, 2], 6: [[0, 1, 2], [1, 3, 4], [2, 4, 5]]}[len(columns)]
            yield name, values[:, places]
        for name in self.vtk:
            yield name, results.column(name)


def write(
    executor: Executor,
    console: Console,
    output: Output,
    files: RunFiles,
    kind: FieldFiles,
    half_cell: Sequence[float],
) -> None:
    """Write the files that are asked for and are not there yet; on every rank, and by rank 0.

    Parameters
    ----------
    executor : Executor
    console : Console
    output : Output
    files : RunFiles
        Finished.
    kind : FieldFiles
    half_cell : 3 floats
        Cells of the VTK grid begin so much before their node, voxels: of a correlation half a window; 0 along z in 2D.
    """
    if output.tsv:
        path = text_path(files.stem)
        if files.text is None:
            # the results file was finished before
            on_leader(executor, lambda: write_text(files.path, files.layout, kind.names(files.layout), path))
        console.print(f"Written: {path}")
    if executor.rank != 0 or not (output.tif or output.vtk):
        return
    # one component after the other: a field need not be in memory
    with ResultsFile(files.path) as results:
        layout = results.layout
        if output.tif and layout.dims is not None:
            stem = kind.tif_stem(files.stem)
            write_field_tiffs(stem, layout.dims, kind.drawn(results, half_cell))
            console.print(f"Written: {stem}-*.tif")
        if output.vtk:
            path = files.stem.with_name(f"{files.stem.name}.vtk")
            nothing = results.hidden()
            if layout.dims is not None and layout.spacing is not None:
                origin = results.positions(0, 1)[0] - np.array(half_cell)
                write_grid_vtk(path, layout.dims, layout.spacing, origin, kind.shown(results), kind.keep_nan, nothing)
            else:
                write_points_vtk(path, results.positions(), kind.shown(results), kind.keep_nan, nothing)
            console.print(f"Written: {path}")


def written_files(
    output: Output, stem: Path, kind: FieldFiles, layout: FieldLayout, half_cell: Sequence[float]
) -> list[tuple[Path, int]]:
    """The files that `write` writes, and their bytes: of texts about so many for a number."""
    n = layout.n
    found = []
    if output.tsv:
        found.append((text_path(stem), n * NUMBER * len(kind.names(layout))))
    if output.tif and layout.dims is not None:
        axes = [axis for a, axis in enumerate("ZYX") if kind.displacements and half_cell[a] > 0]
        tif = kind.tif_stem(stem)
        suffixes = [*(f"{axis}disp" for axis in axes), *kind.tif]
        found += [(tif.with_name(f"{tif.name}-{suffix}.tif"), 4 * n) for suffix in suffixes]
    if output.vtk:
        numbers = 3 * kind.displacements + kind.magnitude + len(kind.vtk) + (3 if layout.dims is None else 0)
        numbers += sum({1: 1, 3: 3, 6: 9}[len(columns)] for columns in kind.groups.values())
        found.append((stem.with_name(f"{stem.name}.vtk"), n * NUMBER * numbers))
    return found


def note_stale(console: Console, output: Output, stem: Path, kind: FieldFiles) -> None:
    """Name files of an earlier run that this one has not written again."""
    suffixes = [*(f"{axis}disp" for axis in "ZYX" if kind.displacements), *kind.tif]
    tif = kind.tif_stem(stem)
    asked = {
        "-tif": (output.tif, [tif.with_name(f"{tif.name}-{suffix}.tif") for suffix in suffixes]),
        "-vtk": (output.vtk, [stem.with_name(f"{stem.name}.vtk")]),
        "without -notsv": (output.tsv, [text_path(stem)]),
    }
    for option, (written, paths) in asked.items():
        old = [path for path in paths if path.exists()]
        if old and not written:
            more = f" and {len(old) - 1} more" if len(old) > 1 else ""
            console.note(f"{old[0]}{more}: of an earlier run; remove what is no longer valid, or renew it ({option})")
