"""The other files of a run, written from its finished results file: text by all ranks, TIFF and VTK."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Ints
from mpidvc.atomic import replacing
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import FieldLayout, ResultsFile, Rows, rows_of
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tiff import write_field_tiffs
from mpidvc.fields.tsv import column_names, format_rows, header, length_of_rows, tsv_table
from mpidvc.fields.vtk import write_grid_vtk, write_points_vtk
from mpidvc.rowfile import RowFile, reserve
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor, InlineExecutor
from mpidvc.tasks.memory import ROWS
from mpidvc.tasks.ranks import on_leader
from mpidvc.workflow.files import RunFiles
from mpidvc.workflow.output import Output

__all__ = ["FieldFiles", "TextRows", "note_stale", "write", "written_files"]

#: Rows that are formatted at once.
AT_ONCE = 8192
#: Bytes of a number in text, on average.
NUMBER = 11


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
    executor: Executor, console: Console, output: Output, files: RunFiles, kind: FieldFiles, half_cell: Sequence[float]
) -> None:
    """Write the files that are asked for; on every rank.

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
        _write_text(executor, console, files, kind.family)
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
        names = column_names(kind.family, layout.layout == "labels")
        found.append((stem.with_name(f"{stem.name}.tsv"), n * NUMBER * len(names)))
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
        "without -notsv": (output.tsv, [stem.with_name(f"{stem.name}.tsv")]),
    }
    for option, (written, paths) in asked.items():
        old = [path for path in paths if path.exists()]
        if old and not written:
            more = f" and {len(old) - 1} more" if len(old) > 1 else ""
            console.note(f"{old[0]}{more}: of an earlier run; remove what is no longer valid, or renew it ({option})")


def _write_text(executor: Executor, console: Console, files: RunFiles, family: str | Sequence[str]) -> None:
    """Write the TSV file, by all ranks where they may write it at the same time."""
    path = files.stem.with_name(f"{files.stem.name}.tsv")
    together = files.finished is not None and files.driver != "gather"
    if together or executor.rank == 0:
        # what was finished before, or what other hosts may not see yet, is written by rank 0
        working = executor if together else InlineExecutor()
        source = files.finished or _opened(files.path)
        source.path = files.path
        with contextlib.ExitStack() as stack:
            temporary = on_leader(working, lambda: stack.enter_context(replacing(path)))
            _write_text_together(working, source, files.layout, temporary, path, family)
        if files.finished is None:
            source.close()
    console.print(f"Written: {path}")


def _opened(path: Path) -> RowFile:
    """The rows of a finished file."""
    with ResultsFile(path) as file:
        slots = {name: file.slot(name) for name in file.layout.datasets}
    return RowFile(path, {name: slot for name, slot in slots.items() if slot is not None})


def _write_text_together(
    executor: Executor,
    source: RowFile,
    layout: FieldLayout,
    temporary: Path,
    path: Path,
    family: str | Sequence[str],
) -> None:
    """Count the bytes of every part first, which gives its place in the file; then format and write."""
    names = column_names(family, layout.layout == "labels")
    lengths = np.zeros(-(-layout.n // ROWS), np.int64)

    def sink(chunk: int, length: Any) -> None:
        lengths[chunk] = length

    executor.map(TextRows(source, layout, names), sink)

    def begin() -> Ints:
        head = header(names)
        starts = len(head) + np.concatenate([[0], np.cumsum(lengths)])
        try:
            with temporary.open("wb") as file:
                file.write(head)
                reserve(file.fileno(), int(starts[-1]))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror or error}); make room for it") from error
        return starts

    starts = on_leader(executor, begin)
    target = RowFile(temporary, {})
    target.hold()
    # as the user knows it
    target.path = path
    executor.map(TextRows(source, layout, names, target, starts), None)
    target.close()


class TextRows:
    """The text of the rows of a finished file, part by part: its length, or it is written if there is a file.

    Parameters
    ----------
    source : RowFile
        The finished file.
    layout : FieldLayout
    names : sequence of str
        Columns of the text.
    target : RowFile, optional
        The file to write.
    starts : int64 array, optional
        Where in it the parts begin.
    """

    def __init__(
        self,
        source: RowFile,
        layout: FieldLayout,
        names: Sequence[str],
        target: RowFile | None = None,
        starts: Ints | None = None,
    ) -> None:
        self._source, self._layout, self._names, self._target, self._starts = source, layout, names, target, starts
        # those of the points: the file may have others
        self._datasets = [name for name in layout.datasets if name in source.slots]
        self.n_chunks = -(-layout.n // ROWS)

    def run(self, chunk: int) -> Any:
        done = 0
        for start in range(chunk * ROWS, min((chunk + 1) * ROWS, self._layout.n), AT_ONCE):
            stop = min(start + AT_ONCE, (chunk + 1) * ROWS, self._layout.n)
            values = {name: self._source.read(name, start, stop) for name in self._datasets}
            table = tsv_table(_as_field(rows_of(self._layout, values)), self._names, first=start)
            if self._target is None or self._starts is None:
                done += length_of_rows(table)
            else:
                text = format_rows(table)
                self._target.write_at(int(self._starts[chunk]) + done, text)
                done += len(text)
        if self._target is not None:
            # safe before rank 0 lets the file take its place
            self._target.sync()
        return done


def _as_field(rows: Rows) -> PhiField:
    return PhiField(rows.positions, rows.phi, {**rows.columns})
