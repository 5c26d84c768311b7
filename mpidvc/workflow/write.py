"""The other files of a run, written from its finished results file: text by all ranks, TIFF and VTK."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpidvc.arrays import Ints
from mpidvc.atomic import replacing
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import FieldLayout, ResultsFile, Rows, read_hdf5, rows_of
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tiff import write_field_tiffs
from mpidvc.fields.tsv import column_names, format_rows, header, tsv_table, write_tsv_parts
from mpidvc.fields.vtk import write_grid_vtk, write_points_vtk
from mpidvc.rowfile import RowFile, reserve
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.memory import ROWS
from mpidvc.tasks.ranks import on_leader
from mpidvc.workflow.files import RunFiles
from mpidvc.workflow.output import Output

__all__ = ["FieldFiles", "TextRows", "note_stale", "write"]


@dataclass(frozen=True)
class FieldFiles:
    """The text, TIFF and VTK files of a command, as in spam.

    Attributes
    ----------
    family : str or sequence of str
        Columns of the text file: a key of `mpidvc.fields.tsv.COLUMNS`, or their names.
    tif : mapping of str to str
        Columns that are written as TIFF files, by the suffix of the file; displacements are always.
    vtk : tuple of str
        Columns in the VTK file; displacements are always.
    magnitude : bool
        Whether it holds the lengths of the displacements, too.
    """

    family: str | Sequence[str]
    tif: Mapping[str, str] = field(default_factory=dict)
    vtk: tuple[str, ...] = ()
    magnitude: bool = False


def write(
    executor: Executor, console: Console, output: Output, files: RunFiles, kind: FieldFiles, hws: Sequence[float]
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
    hws : 3 ints
        Half-window size (voxels): cells of the VTK grid begin half a window before their node; 0 along z in 2D.
    """
    if output.tsv:
        _write_text(executor, console, files, kind.family)
    if executor.rank != 0 or not (output.tif or output.vtk):
        return
    found = read_hdf5(files.path)
    stem = files.stem
    if output.tif and found.dims is not None:
        parts = {f"{axis}disp": found.displacements[:, a] for a, axis in enumerate("ZYX") if hws[a] > 0}
        write_field_tiffs(stem, found.dims, parts | {name: found.columns[column] for name, column in kind.tif.items()})
        console.print(f"Written: {stem}-*.tif")
    if output.vtk:
        path = stem.with_name(f"{stem.name}.vtk")
        shown = {"displacements": found.displacements}
        if kind.magnitude:
            shown["mag(displacements)"] = np.linalg.norm(found.displacements, axis=1)
        shown |= {name: np.asarray(found.columns[name]) for name in kind.vtk}
        if found.dims is not None and found.spacing is not None:
            write_grid_vtk(path, found.dims, found.spacing, found.positions[0] - np.array(hws), shown)
        else:
            write_points_vtk(path, found.positions, shown)
        console.print(f"Written: {path}")


def note_stale(console: Console, output: Output, stem: Path, kind: FieldFiles) -> None:
    """Name files of an earlier run that this one has not written again."""
    suffixes = [*(f"-{axis}disp" for axis in "ZYX"), *(f"-{suffix}" for suffix in kind.tif)]
    asked = {
        "-tif": (output.tif, [f"{suffix}.tif" for suffix in suffixes]),
        "-vtk": (output.vtk, [".vtk"]),
        "without -notsv": (output.tsv, [".tsv"]),
    }
    for option, (written, endings) in asked.items():
        old = [path for ending in endings if (path := stem.with_name(f"{stem.name}{ending}")).exists()]
        if old and not written:
            more = f" and {len(old) - 1} more" if len(old) > 1 else ""
            console.note(f"{old[0]}{more}: of an earlier run; remove what is no longer valid, or renew it ({option})")


def _write_text(executor: Executor, console: Console, files: RunFiles, family: str | Sequence[str]) -> None:
    """Write the TSV file, by all ranks where they may write it at the same time."""
    path = files.stem.with_name(f"{files.stem.name}.tsv")
    source = files.finished
    if source is not None and executor.size > 1 and files.driver != "gather":
        source.path = files.path
        with contextlib.ExitStack() as stack:
            temporary = on_leader(executor, lambda: stack.enter_context(replacing(path)))
            _write_text_together(executor, source, files.layout, temporary, family)
    elif executor.rank == 0:
        with ResultsFile(files.path) as file:
            layout = file.layout
            ranges = [(start, min(start + ROWS, layout.n)) for start in range(0, layout.n, ROWS)]
            parts = (_as_field(file.rows(start, stop)) for start, stop in ranges)
            write_tsv_parts(path, parts, family, layout.layout == "labels")
    console.print(f"Written: {path}")


def _write_text_together(
    executor: Executor, source: RowFile, layout: FieldLayout, path: Path, family: str | Sequence[str]
) -> None:
    """Format twice: for the lengths, which give the place of every part in the file, and to write."""
    names = column_names(family, layout.layout == "labels")
    lengths = np.zeros(-(-layout.n // ROWS), np.int64)

    def sink(chunk: int, length: Any) -> None:
        lengths[chunk] = length

    executor.map(TextRows(source, layout, names), sink)

    def begin() -> Ints:
        head = header(names)
        starts = len(head) + np.concatenate([[0], np.cumsum(lengths)])
        try:
            with path.open("wb") as file:
                file.write(head)
                reserve(file.fileno(), int(starts[-1]))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror or error}); make room for it") from error
        return starts

    starts = on_leader(executor, begin)
    target = RowFile(path, {})
    target.hold()
    executor.map(TextRows(source, layout, names, target, starts), None)
    target.close()


class TextRows:
    """Formats the rows of a finished file, part by part; returns the length, and writes if it has a file.

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
        self.n_chunks = -(-layout.n // ROWS)

    def run(self, chunk: int) -> Any:
        start, stop = chunk * ROWS, min((chunk + 1) * ROWS, self._layout.n)
        values = {name: self._source.read(name, start, stop) for name in self._source.slots}
        text = format_rows(tsv_table(_as_field(rows_of(self._layout, values)), self._names, first=start))
        if self._target is not None and self._starts is not None:
            self._target.write_at(int(self._starts[chunk]), text)
            # safe before rank 0 lets the file take its place
            self._target.sync()
        return len(text)


def _as_field(rows: Rows) -> PhiField:
    return PhiField(rows.positions, rows.phi, {**rows.columns})
