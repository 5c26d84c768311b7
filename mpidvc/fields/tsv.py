"""Fields as tab-separated text, as `spam` writes and reads it."""

from __future__ import annotations

import codecs
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Array
from mpidvc.atomic import replacing
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PHI, POSITIONS, Layout, PhiField
from mpidvc.fields.stream import Stream
from mpidvc.kernels import text

__all__ = [
    "COLUMNS",
    "column_names",
    "format_rows",
    "header",
    "length_of_rows",
    "named_columns",
    "read_tsv",
    "read_tsv_stream",
    "tsv_columns",
    "write_tsv",
    "write_tsv_parts",
]

#: Column families, each in its order. The first column of SEARCH is ``Label`` in fields of labels. To the columns of
#: STRAIN the components are added: ``(*COLUMNS["STRAIN"], "ezz", …)`` is a family as well.
COLUMNS: dict[str, tuple[str, ...]] = {
    family: tuple(names.split())
    for family, names in {
        "LDIC": "NodeNumber Zpos Ypos Xpos Fzz Fzy Fzx Zdisp Fyz Fyy Fyx Ydisp Fxz Fxy Fxx Xdisp "
        "error iterations returnStatus deltaPhiNorm",
        "SEARCH": "NodeNumber Zpos Ypos Xpos Fzz Fzy Fzx Zdisp Fyz Fyy Fyx Ydisp Fxz Fxy Fxx Xdisp "
        "pixelSearchCC returnStatus error deltaPhiNorm iterations",
        "DDIC": "Label Zpos Ypos Xpos Zdisp Ydisp Xdisp Fzz Fzy Fzx Fyz Fyy Fyx Fxz Fxy Fxx PSCC "
        "error iterations returnStatus deltaPhiNorm LabelDilate",
        "EREG": "Zpos Ypos Xpos Fzz Fzy Fzx Zdisp Fyz Fyy Fyx Ydisp Fxz Fxy Fxx Xdisp "
        "returnStatus deltaPhiNorm error iterations bin",
        "STRAIN": "StrainPointNumber Zpos Ypos Xpos",
    }.items()
}

CONVERGENCE = ("returnStatus", "deltaPhiNorm", "iterations")
#: Names of old files, used where today's name is absent.
OLD_NAMES = {
    **{f"F{1 + i // 4}{1 + i % 4}": name for i, name in enumerate(PHI)},
    "SubPixReturnStat": "returnStatus",
    "SubPixDeltaPhiNorm": "deltaPhiNorm",
    "SubPixDeltaFnorm": "deltaPhiNorm",
    "SubPixIterations": "iterations",
    "SubPixError": "error",
    "PSCC": "pixelSearchCC",
}
#: Columns that every field has; without those of the z axis it is 2D.
NEEDED = (*POSITIONS, "Zdisp", "Ydisp", "Xdisp")
#: Columns that have to be numbers in every row.
KNOWN = {*POSITIONS, *PHI, *CONVERGENCE, "NodeNumber", "Label", "error", "pixelSearchCC", "LabelDilate"}
#: Characters between columns; a header with none of them has blanks.
SEPARATORS = ("\t", ",", ";")
#: Most characters of a line.
LONGEST = 2**20
#: Rows that are written at a time.
BLOCK = 65536


def read_tsv(path: str | os.PathLike[str], bin_ratio: float = 1.0) -> PhiField:
    """Read a field. Column order is free; other columns are kept if they are numbers.

    Positions and displacements are enough. Without F it is the identity; without ``Zpos`` and ``Zdisp`` the field is 2D
    and lies at z = 0.

    Parameters
    ----------
    path : path-like
        A file or a pipe: a line that names the columns, then a line for each point. Tabs separate the columns; if the
        first line has none, commas, semicolons or blanks do. One data row is a registration. More rows are labels if
        there is a column ``Label`` and no ``NodeNumber``, otherwise nodes (a grid if they fill one).
    bin_ratio : float
        Factor on positions and displacements: binning of the field's images over that of the images to be used.

    Returns
    -------
    PhiField
        Its `columns` are the file's other columns, float64, by today's names (``PSCC`` is ``pixelSearchCC``).

    Raises
    ------
    UserError
        If the file is missing, empty, no text or lacks columns, or a line has too few, too many or unreadable numbers.
    """
    named = f"field {os.fspath(path)}"
    with Stream(path, named) as stream:
        return read_tsv_stream(stream, named, bin_ratio)


def read_tsv_stream(stream: Stream, named: str, bin_ratio: float = 1.0) -> PhiField:
    """Read a field from an open file or pipe, `named` in messages; otherwise as `read_tsv`."""
    values = _read_columns(stream, named)
    n = len(values["Ypos"])
    phi = np.tile(np.eye(4), (n, 1, 1))
    for place, name in enumerate(PHI):
        if name in values:
            phi[:, place // 4, place % 4] = values.pop(name)
    phi[:, :3, 3] *= bin_ratio
    positions = np.stack([values.pop(name, np.zeros(n)) for name in POSITIONS], axis=-1) * bin_ratio
    numbered = values.pop("NodeNumber", None) is not None
    columns: dict[str, NDArray[np.generic]] = {**values}
    if n == 1:
        columns.pop("Label", None)
        return PhiField(positions, phi, columns, "registration")
    if "Label" in columns and not numbered:
        return PhiField(positions, phi, columns, "labels")
    return PhiField.from_positions(positions, phi, columns)


def _read_columns(stream: Stream, named: str) -> dict[str, Array]:
    """Columns by today's names. A column of an unknown name is left out if its first cell is no number."""
    names: list[str] = []
    separator: str | None = None
    wanted: list[int] = []
    # a list of parts for each column, so that no second copy of all of them is made
    parts: list[list[Array]] = []
    blank = 0
    for number, lines in _blocks_of_lines(stream, named):
        rows = lines
        if not names and lines:
            names, separator = _split_header(lines[0], named)
            number, rows = number + 1, lines[1:]
        end = len(rows)
        while end and not rows[end - 1].strip():
            end -= 1
        if end and blank:
            raise UserError(f"{named}: line {blank} is empty, but others follow; remove it")
        if end < len(rows) and not blank:
            blank = number + end
        if end:
            if not parts:
                first = rows[0].split(separator)
                wanted = [i for i, cell in enumerate(first[: len(names)]) if names[i] in KNOWN or _is_number(cell)]
                parts = [[] for _ in wanted]
            table = _numbers(rows[:end], number, names, separator, wanted, named)
            for i, part in enumerate(parts):
                part.append(table[:, i].copy())
    if not parts:
        raise UserError(f"{named}: is empty, it has no row of numbers; give the text file of a finished run")
    return {names[column]: np.concatenate(parts.pop(0)) for column in wanted}


def _blocks_of_lines(stream: Stream, named: str) -> Iterator[tuple[int, list[str]]]:
    """Lines of a text, some at a time, with the number of the first."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")("replace"), translate=True)
    number, rest = 1, ""
    for chunk in itertools.chain(stream.chunks(), [b""]):
        text = rest + decoder.decode(chunk, final=not chunk)
        lines = text.split("\n")
        if "\0" in text:
            at = next(i for i, line in enumerate(lines) if "\0" in line)
            raise UserError(
                f"{named}: is no text, line {number + at} has a NUL byte; give the .h5 or .tsv file of a run"
            )
        if max(map(len, lines)) > LONGEST:
            at = next(i for i, line in enumerate(lines) if len(line) > LONGEST)
            raise UserError(
                f"{named}: is no table, line {number + at} has more than {LONGEST} characters; give a text file with a "
                "line for each point"
            )
        rest = lines.pop() if chunk else ""
        yield number, lines
        number += len(lines)


def _split_header(line: str, named: str) -> tuple[list[str], str | None]:
    """Today's names of the columns, and the character between them (None: blanks)."""
    head = line.lstrip("# ")
    separator = next((one for one in SEPARATORS if one in head), None)
    names = [name.strip() for name in head.split(separator)]
    if not any(names):
        raise UserError(f"{named}: is empty, or its first line is; that has to name the columns")
    if all(map(_is_number, names)):
        raise UserError(f"{named}: its first line has numbers, but has to name the columns: {' '.join(NEEDED)} …")
    names = [OLD_NAMES[name] if OLD_NAMES.get(name, name) not in names else name for name in names]
    two_d = not {"Zpos", "Zdisp"} & set(names)
    gradient = [name for name in PHI if name not in NEEDED and not (two_d and "z" in name)]
    needed = [name for name in NEEDED if not (two_d and name.startswith("Z"))]
    if any(name in names for name in gradient):
        needed += gradient
    missing = [name for name in needed if name not in names]
    if missing:
        raise UserError(
            f"{named}: lacks the column(s) {' '.join(missing)}; a field has {' '.join(NEEDED)} (2D: without Zpos and "
            "Zdisp), and all of F or nothing of it"
        )
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise UserError(f"{named}: has the column(s) {' '.join(double)[:200]!r} more than once; keep one of each")
    return names, separator


def _numbers(
    rows: list[str], first: int, names: list[str], separator: str | None, wanted: list[int], named: str
) -> Array:
    """The wanted columns of some rows, the first of which is line `first`."""
    for line, row in enumerate(rows, first):
        count = len(row.split()) if separator is None else row.count(separator) + 1
        if count != len(names):
            raise UserError(
                f"{named}: line {line} has {count} values but the header names {len(names)} columns; correct this line"
            )
    try:
        return np.loadtxt(rows, delimiter=separator, comments=None, ndmin=2, usecols=wanted)
    except ValueError as error:
        for line, row in enumerate(rows, first):
            cells = row.split(separator)
            for column in wanted:
                if not _is_number(cells[column]):
                    raise UserError(
                        f"{named}: line {line} has {cells[column][:40]!r} in the column {names[column][:40]}, "
                        "which is not a number; correct it"
                    ) from None
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{named}: lines {first} to {first + len(rows) - 1} are no numbers ({reason})") from None


def _is_number(cell: str) -> bool:
    """Whether a cell is a number in ASCII digits, without the underscores that Python takes."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and "_" not in cell


def _names(family: str | Sequence[str]) -> tuple[str, ...]:
    return COLUMNS[family] if isinstance(family, str) else tuple(family)


def column_names(family: str | Sequence[str], labels: bool = False) -> tuple[str, ...]:
    """Names of a file's columns, in their order.

    Parameters
    ----------
    family : str or sequence of str
        A key of `COLUMNS`, or column names.
    labels : bool
        Whether the rows are labels: then ``Label`` replaces ``NodeNumber``.
    """
    names = _names(family)
    return ("Label", *names[1:]) if labels and names[0] == "NodeNumber" else names


def header(family: str | Sequence[str], first_column: str | None = None) -> bytes:
    """First line of a file.

    Parameters
    ----------
    family : str or sequence of str
        A key of `COLUMNS`, or column names.
    first_column : str, optional
        Replaces the family's own first name: ``Label`` for ``NodeNumber``.
    """
    names = _names(family)
    if first_column is not None:
        names = (first_column, *names[1:])
    return "\t".join(names).encode() + b"\n"


def tsv_columns(
    field: PhiField, family: str | Sequence[str], start: int = 0, stop: int | None = None, first: int = 0
) -> list[Array]:
    """Rows of a field as the columns of a file, in their order; views of its arrays where there are such.

    Parameters
    ----------
    field : PhiField
    family : str or sequence of str
        A key of `COLUMNS`, or column names. A column that the field does not have is 0.
    start, stop : int
        Rows [start, stop); all of them if not given.
    first : int
        Number of the first row of `field`, where it is a part of a larger field.

    Returns
    -------
    list of (n,) float64
        ``NodeNumber`` counts from `first`, and is 1 for a registration.
    """
    rows = range(len(field))[start:stop]
    values = {name: field[name][rows.start : rows.stop] for name in field.names}
    return named_columns(values, _names(family), None if field.layout == "registration" else rows.start + first)


def named_columns(values: Mapping[str, Array], names: Sequence[str], first: int | None) -> list[Array]:
    """The columns of a file, from those of a field by their names; `first` is the number of the first row, if any."""
    n = len(values["Zpos"])
    found: list[Array] = []
    for name in names:
        if (key := OLD_NAMES.get(name, name)) in values:
            found.append(np.asarray(values[key], np.float64))
        elif name in {"NodeNumber", "Label", "StrainPointNumber"} and first is not None:
            found.append(np.arange(first, first + n, dtype=np.float64))
        else:
            found.append(np.broadcast_to(float(name == "NodeNumber"), n))
    return found


def format_rows(columns: Sequence[Array]) -> bytearray:
    """Text of columns (n,) of numbers: a line per row, tabs between numbers.

    ``'%.7f'``, but ``'%.7e'`` where 0 < |v| < 1e-3, so that small numbers keep their digits; nan, inf, -inf.
    """
    return text.format_columns(columns)


def length_of_rows(columns: Sequence[Array]) -> int:
    """Number of bytes that `format_rows` gives."""
    return text.columns_length(columns)


def write_tsv(path: str | Path, field: PhiField, family: str | Sequence[str]) -> None:
    """Write a field; the file appears whole or not at all.

    Parameters
    ----------
    path : str or Path
    field : PhiField
    family : str or sequence of str
        A key of `COLUMNS`, or column names.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    parts = (_rows_of(field, start, start + BLOCK) for start in range(0, len(field), BLOCK))
    write_tsv_parts(path, parts, family, field.layout == "labels")


def write_tsv_parts(
    path: str | Path,
    parts: Iterable[PhiField],
    family: str | Sequence[str],
    labels: bool = False,
) -> None:
    """Write a field that comes in parts, in the order of its rows; otherwise as `write_tsv`.

    Parameters
    ----------
    path : str or Path
    parts : iterable of PhiField
    family : str or sequence of str
    labels : bool
        Whether the field is one of labels.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    names = column_names(family, labels)

    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(header(names))
        first = 0
        for part in parts:
            file.write(format_rows(tsv_columns(part, names, first=first)))
            first += len(part)


def _rows_of(field: PhiField, start: int, stop: int) -> PhiField:
    rows = slice(start, stop)
    layout: Layout = "registration" if field.layout == "registration" else "points"
    return PhiField(
        field.positions[rows], field.phi[rows], {name: values[rows] for name, values in field.columns.items()}, layout
    )
