"""The text file of a run, written by all ranks: every part of it at its place, which follows from the lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from mpidvc.arrays import Array
from mpidvc.atomic import keep_mode, replacing
from mpidvc.errors import ResourceError, UserError
from mpidvc.fields.hdf5 import FieldLayout, ResultsFile, columns_of
from mpidvc.fields.tsv import format_rows, header, length_of_rows, named_columns
from mpidvc.rowfile import RowFile, reserve
from mpidvc.tasks.memory import ROWS

__all__ = ["NUMBER", "TextPart", "TextPlaces", "TextRows", "create_text", "text_length", "text_path", "write_text"]

#: Bytes of a number in text, on average.
NUMBER = 11
#: Rows that are formatted at once.
AT_ONCE = 8192


class TextPart(NamedTuple):
    """A part of a text: the rows ``[first, stop)`` of the field at the bytes ``[at, end)``."""

    first: int
    stop: int
    at: int
    end: int


class TextPlaces:
    """The places of the parts of a text, known as soon as all rows before them are counted.

    Parameters
    ----------
    names : sequence of str
        Columns of the text.
    n : int
        Rows of the field.
    """

    def __init__(self, names: Sequence[str], n: int) -> None:
        self._n = n
        #: Ends and bytes of ranges that are counted and do not follow those before, by their first rows.
        self._counted: dict[int, tuple[int, int]] = {}
        #: Where the next part begins, and where the rows end that are counted without a gap: row and byte.
        self._begin = self._end = (0, len(header(names)))

    @property
    def complete(self) -> bool:
        """Whether all rows are counted."""
        return self._end[0] == self._n

    @property
    def size(self) -> int:
        """Bytes of the text so far."""
        return self._end[1]

    def add(self, first: int, stop: int, length: int) -> Iterator[TextPart]:
        """Add the bytes of the rows [first, stop); yield the parts, of about `ROWS` rows, whose places are known now.

        Ranges of rows may come in any order, and make up the field.
        """
        self._counted[first] = stop, length
        while (found := self._counted.pop(self._end[0], None)) is not None:
            row, begun = found[0], self._begin
            if row - begun[0] > ROWS and self._end != begun:
                yield self._part()
            self._end = row, self._end[1] + found[1]
            if self.complete:
                yield self._part()

    def _part(self) -> TextPart:
        (first, at), (stop, end) = self._begin, self._end
        self._begin = self._end
        return TextPart(first, stop, at, end)


def text_path(stem: Path) -> Path:
    """The text file of a run."""
    return stem.with_name(f"{stem.name}.tsv")


def create_text(path: Path, names: Sequence[str], n: int, named: Path) -> RowFile:
    """Make a text file with its header, and reserve about the space for its rows.

    Parameters
    ----------
    path : Path
        Replaced if it exists; removed again if it cannot be made.
    names : sequence of str
        Columns of the text.
    n : int
        Rows.
    named : Path
        The name that it will get at the end: messages use it, and the permissions of a file of that name are kept.

    Raises
    ------
    UserError
        If it cannot be made, the disk has no room for it, or a folder or a device has its name.
    """
    if named.exists() and not named.is_file():
        raise UserError(f"{named}: is no plain file; move it away, choose another name by -pre, or add -notsv")
    need = len(header(names)) + NUMBER * len(names) * n
    try:
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            keep_mode(named, path)
            file.write(header(names))
            file.flush()
            reserve(file.fileno(), need)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UserError(
            f"{named}: the {need} bytes that the text may take cannot be reserved ({error.strerror or error}); make "
            "room, choose another folder by -od, or leave the text out by -notsv"
        ) from None
    return RowFile(path, {}, named)


def text_length(
    layout: FieldLayout, names: Sequence[str], values: Mapping[str, npt.NDArray[Any]], start: int, stop: int
) -> int:
    """Bytes of the text of the rows [start, stop) of a field, whose datasets have these values."""
    done = 0
    for first in range(start, stop, AT_ONCE):
        part = slice(first - start, min(first + AT_ONCE, stop) - start)
        done += length_of_rows(_columns(layout, names, {name: rows[part] for name, rows in values.items()}, first))
    return done


class TextRows:
    """The text of the rows of a results file.

    Parameters
    ----------
    source : RowFile
        The results file, where these rows are written.
    layout : FieldLayout
    names : sequence of str
        Columns of the text.
    """

    def __init__(self, source: RowFile, layout: FieldLayout, names: Sequence[str]) -> None:
        self._source, self._layout, self._names = source, layout, names
        # those of the points: the file may have others
        self._datasets = [name for name in layout.datasets if name in source.slots]

    def format(self, start: int, stop: int) -> Iterator[bytearray]:
        """The text of the rows [start, stop), some rows at a time."""
        for first in range(start, stop, AT_ONCE):
            end = min(first + AT_ONCE, stop)
            values = {name: self._source.read(name, first, end) for name in self._datasets}
            yield format_rows(_columns(self._layout, self._names, values, first))

    def write(self, part: TextPart, target: RowFile) -> None:
        """Write a part of the text at its place, and force it to the disk.

        Raises
        ------
        UserError
            If it cannot be written, or has another length than was counted.
        """
        at = part.at
        for text in self.format(part.first, part.stop):
            target.write_at(at, text)
            at += len(text)
        if at != part.end:
            raise ResourceError(
                f"{self._source.named}: has changed since it was written, by the disk or another program; --resume "
                "writes it again"
            )
        # safe before rank 0 lets the file take its place
        target.sync()


def write_text(results: Path, layout: FieldLayout, names: Sequence[str], path: Path) -> None:
    """Write the text of a results file that was finished before.

    Parameters
    ----------
    results : Path
    layout : FieldLayout
    names : sequence of str
        Columns of the text.
    path : Path
        The text file.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    with ResultsFile(results) as file:
        slots = {name: file.slot(name) for name in file.layout.datasets}
    source = RowFile(results, {name: slot for name, slot in slots.items() if slot is not None})
    try:
        with replacing(path) as temporary, temporary.open("wb") as written:
            written.write(header(names))
            for text in TextRows(source, layout, names).format(0, layout.n):
                written.write(text)
    finally:
        source.close()


def _columns(
    layout: FieldLayout, names: Sequence[str], values: Mapping[str, npt.NDArray[Any]], first: int
) -> list[Array]:
    """Columns of the text of some rows, the first of which has this number."""
    return named_columns(columns_of(layout, values), names, first)
