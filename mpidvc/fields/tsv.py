"""Fields as tab-separated text, as `spam` writes and reads it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Array
from mpidvc.atomic import replacing
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PHI, POSITIONS, Layout, PhiField
from mpidvc.kernels import text

__all__ = ["COLUMNS", "column_names", "format_rows", "header", "read_tsv", "tsv_table", "write_tsv", "write_tsv_parts"]

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
BLOCK = 65536


def read_tsv(path: str | os.PathLike[str], bin_ratio: float = 1.0) -> PhiField:
    """Read a field. Column order is free; other columns are kept if they are numbers.

    Parameters
    ----------
    path : str or Path
        One data row is a registration. More rows are nodes if there is a column ``NodeNumber`` (a grid if they fill
        one, else points), or labels if there is a column ``Label``.
    bin_ratio : float
        Factor on positions and displacements: binning of the field's images over that of the images to be used.

    Returns
    -------
    PhiField
        Its `columns` are the file's other columns, float64, by today's names (``PSCC`` is ``pixelSearchCC``).

    Raises
    ------
    UserError
        If the file is missing, empty, not tab-separated or lacks columns, or a line has too few, too many or
        unreadable numbers.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"field {path}: does not exist; check the path") from error
    except OSError as error:
        raise UserError(f"field {path}: cannot be read ({error.strerror}); give a TSV file") from error
    names, rows = _split_header(lines, path)
    values = _numbers(rows, names, path)
    n = len(next(iter(values.values())))

    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[:, :3] = np.stack([values.pop(name) for name in PHI], axis=-1).reshape(n, 3, 4)
    phi[:, :3, 3] *= bin_ratio
    positions = np.stack([values.pop(name) for name in POSITIONS], axis=-1) * bin_ratio
    numbered = values.pop("NodeNumber", None) is not None
    columns: dict[str, NDArray[np.generic]] = {**values}
    if n == 1:
        columns.pop("Label", None)
        return PhiField(positions, phi, columns, "registration")
    if numbered:
        return PhiField.from_positions(positions, phi, columns)
    if "Label" in columns:
        return PhiField(positions, phi, columns, "labels")
    raise UserError(f"field {path}: lacks the column NodeNumber or Label, which files of several rows need; add it")


def _split_header(lines: list[str], path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Today's names of the columns, and the lines after the header."""
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) < 2:
        raise UserError(f"field {path}: is empty, it has no row of numbers; give the TSV file of a finished run")
    head = lines[0].lstrip("# ")
    names = [name.strip() for name in head.split("\t")]
    names = [OLD_NAMES[name] if OLD_NAMES.get(name, name) not in names else name for name in names]
    missing = [name for name in (*POSITIONS, *PHI, *CONVERGENCE) if name not in names]
    if missing and "\t" not in head and POSITIONS[0] in head:
        raise UserError(f"field {path}: is not separated by tabs; replace what separates its columns by tabs")
    if missing:
        raise UserError(
            f"field {path}: lacks the column(s) {' '.join(missing)}; give a TSV file with a deformation field"
        )
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise UserError(f"field {path}: has the column(s) {' '.join(double)} more than once; keep one of each")
    return names, lines[1:]


def _numbers(rows: list[str], names: list[str], path: str | os.PathLike[str]) -> dict[str, Array]:
    """Columns by name. A column of an unknown name is left out if its first cell is no number."""
    for i, row in enumerate(rows):
        if row.count("\t") != len(names) - 1:
            raise UserError(
                f"field {path}: line {i + 2} has {row.count(chr(9)) + 1} values but the header names "
                f"{len(names)} columns; correct this line"
            )
    known = {*POSITIONS, *PHI, *CONVERGENCE, "NodeNumber", "Label", "error", "pixelSearchCC", "LabelDilate"}
    first = rows[0].split("\t")
    wanted = [i for i, name in enumerate(names) if name in known or _is_number(first[i])]
    try:
        table = np.loadtxt(rows, delimiter="\t", comments=None, ndmin=2, usecols=wanted)
    except ValueError:
        for i, row in enumerate(rows):
            cells = row.split("\t")
            for column in wanted:
                if not _is_number(cells[column]):
                    raise UserError(
                        f"field {path}: line {i + 2} has {cells[column]!r} in the column {names[column]}, "
                        "which is not a number; correct it"
                    ) from None
        raise
    return {names[column]: np.ascontiguousarray(table[:, i]) for i, column in enumerate(wanted)}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


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


def tsv_table(
    field: PhiField, family: str | Sequence[str], start: int = 0, stop: int | None = None, first: int = 0
) -> Array:
    """Rows of a field as numbers in the order of a file's columns.

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
    (n, k) float64
        ``NodeNumber`` counts from `first`, and is 1 for a registration.
    """
    names = _names(family)
    rows = range(len(field))[start:stop]
    part = slice(rows.start, rows.stop)
    table = np.zeros((len(rows), len(names)))
    for i, name in enumerate(names):
        if (key := OLD_NAMES.get(name, name)) in field:
            table[:, i] = field[key][part]
        elif name in {"NodeNumber", "Label", "StrainPointNumber"}:
            single = name == "NodeNumber" and field.layout == "registration"
            table[:, i] = 1 if single else np.arange(rows.start, rows.stop) + first
    return table


def format_rows(table: Array) -> bytes:
    """Text of an (n, k) table: a line per row, tabs between numbers.

    ``'%.7f'``, but ``'%.7e'`` where 0 < |v| < 1e-3, so that small numbers keep their digits; nan, inf, -inf.
    """
    return text.format_rows(np.ascontiguousarray(table, np.float64))


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

    def tables() -> Iterator[Array]:
        first = 0
        for part in parts:
            yield tsv_table(part, names, first=first)
            first += len(part)

    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(header(names))
        for table in tables():
            file.write(format_rows(table))


def _rows_of(field: PhiField, start: int, stop: int) -> PhiField:
    rows = slice(start, stop)
    layout: Layout = "registration" if field.layout == "registration" else "points"
    return PhiField(
        field.positions[rows], field.phi[rows], {name: values[rows] for name, values in field.columns.items()}, layout
    )
