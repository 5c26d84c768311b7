"""The text file of a run, written by all ranks: every part of it at its place, which follows from the lengths."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints
from mpidvc.atomic import replacing
from mpidvc.errors import ResourceError, UserError
from mpidvc.fields.hdf5 import FieldLayout, ResultsFile, rows_of
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import format_rows, header, length_of_rows, tsv_columns
from mpidvc.rowfile import RowFile, reserve
from mpidvc.runtime.executor import Executor, InlineExecutor
from mpidvc.tasks.memory import ROWS
from mpidvc.tasks.ranks import on_leader
from mpidvc.workflow.files import RunFiles

__all__ = ["TextParts", "TextRows", "parts_of", "text_length", "write_text"]

#: Rows that are formatted at once.
AT_ONCE = 8192


class TextParts(NamedTuple):
    """Parts of a text: part k has the rows ``[rows[k], rows[k + 1])`` of the field at the bytes ``[places[k], …)``."""

    rows: Ints
    places: Ints


def parts_of(names: Sequence[str], starts: npt.ArrayLike, lengths: npt.ArrayLike, n: int) -> TextParts:
    """Parts of about `ROWS` rows of a text, from the lengths of ranges of rows that make up a field.

    Parameters
    ----------
    names : sequence of str
        Columns of the text.
    starts, lengths : (k,) ints
        First row of each range, in any order, and bytes of its text.
    n : int
        Rows of the field.
    """
    order = np.argsort(starts)
    rows = np.append(np.asarray(starts)[order], n)
    places = len(header(names)) + np.append(0, np.cumsum(np.asarray(lengths)[order]))
    kept = [0]
    while kept[-1] < len(rows) - 1:
        most = int(np.searchsorted(rows, rows[kept[-1]] + ROWS, side="right")) - 1
        kept.append(max(kept[-1] + 1, most))
    return TextParts(rows[kept], places[kept])


def text_length(
    layout: FieldLayout, names: Sequence[str], values: Mapping[str, npt.NDArray[Any]], start: int, stop: int
) -> int:
    """Bytes of the text of the rows [start, stop) of a field, whose datasets have these values."""
    done = 0
    for first in range(start, stop, AT_ONCE):
        part = slice(first - start, min(first + AT_ONCE, stop) - start)
        done += length_of_rows(_columns(layout, names, {name: rows[part] for name, rows in values.items()}, first))
    return done


def write_text(executor: Executor, files: RunFiles, names: Sequence[str], parts: TextParts | None) -> Path:
    """Write the TSV file, by all ranks where they may write it at the same time.

    Parameters
    ----------
    executor : Executor
    files : RunFiles
        Finished.
    names : sequence of str
        Columns of the text.
    parts : TextParts, optional
        On rank 0; they are counted first if it does not have them.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    AgreedError
        If it cannot be written.
    """
    path = files.stem.with_name(f"{files.stem.name}.tsv")
    together = files.finished is not None and files.driver != "gather"
    if together or executor.rank == 0:
        # what was finished before, or what other hosts may not see yet, is written by rank 0
        working = executor if together else InlineExecutor()
        source = files.finished or _opened(files.path)
        source.path = files.path
        with contextlib.ExitStack() as stack:
            temporary = on_leader(working, lambda: stack.enter_context(replacing(path)))
            _write_together(working, TextRows(source, files.layout, names), parts, temporary, path)
        if files.finished is None:
            source.close()
    return path


def _opened(path: Path) -> RowFile:
    """The rows of a finished file."""
    with ResultsFile(path) as file:
        slots = {name: file.slot(name) for name in file.layout.datasets}
    return RowFile(path, {name: slot for name, slot in slots.items() if slot is not None})


def _write_together(executor: Executor, source: TextRows, parts: TextParts | None, temporary: Path, path: Path) -> None:
    """Count the bytes of every part where that is not done yet, as they give its place; then format and write."""
    counted = executor.broadcast(parts is not None)
    lengths = np.zeros(source.n_chunks, np.int64)

    def sink(chunk: int, length: Any) -> None:
        lengths[chunk] = length

    if not counted:
        executor.map(source, sink)

    def begin() -> TextParts:
        found = parts or parts_of(source.names, source.starts[:-1], lengths, int(source.starts[-1]))
        try:
            with temporary.open("wb") as file:
                file.write(header(source.names))
                reserve(file.fileno(), int(found.places[-1]))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror or error}); make room for it") from error
        return found

    found = on_leader(executor, begin)
    target = RowFile(temporary, {})
    target.hold()
    # as the user knows it
    target.path = path
    executor.map(TextRows(source.source, source.layout, source.names, target, found), None)
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
    parts : TextParts, optional
        Of it.
    """

    def __init__(
        self,
        source: RowFile,
        layout: FieldLayout,
        names: Sequence[str],
        target: RowFile | None = None,
        parts: TextParts | None = None,
    ) -> None:
        self.source, self.layout, self.names, self._target, self._parts = source, layout, names, target, parts
        # those of the points: the file may have others
        self._datasets = [name for name in layout.datasets if name in source.slots]
        self.starts = np.append(np.arange(0, layout.n, ROWS), layout.n) if parts is None else parts.rows
        self.n_chunks = len(self.starts) - 1

    def run(self, chunk: int) -> Any:
        start, stop = int(self.starts[chunk]), int(self.starts[chunk + 1])
        if self._target is None or self._parts is None:
            return sum(text_length(self.layout, self.names, values, *rows) for rows, values in self._read(start, stop))
        at, end = (int(place) for place in self._parts.places[chunk : chunk + 2])
        for (first, _), values in self._read(start, stop):
            text = format_rows(_columns(self.layout, self.names, values, first))
            self._target.write_at(at, text)
            at += len(text)
        if at != end:
            raise ResourceError(
                f"{self.source.path}: has changed since it was written, by the disk or another program; --overwrite "
                "measures it again"
            )
        # safe before rank 0 lets the file take its place
        self._target.sync()
        return None

    def _read(self, start: int, stop: int) -> Iterator[tuple[tuple[int, int], dict[str, npt.NDArray[Any]]]]:
        for first in range(start, stop, AT_ONCE):
            end = min(first + AT_ONCE, stop)
            yield (first, end), {name: self.source.read(name, first, end) for name in self._datasets}


def _columns(
    layout: FieldLayout, names: Sequence[str], values: Mapping[str, npt.NDArray[Any]], first: int
) -> list[Array]:
    """Columns of the text of some rows, the first of which has this number."""
    rows = rows_of(layout, values)
    return tsv_columns(PhiField(rows.positions, rows.phi, {**rows.columns}), names, first=first)
