"""The files that a report is about: the result, its strain, and what else is in the folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mpidvc.core.series import mean_phi, quality_of
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import is_hdf5
from mpidvc.fields.phifield import PHI, PhiField
from mpidvc.workflow.history import Step, open_step
from mpidvc.workflow.record import Record

__all__ = ["Gathered", "Table", "gather"]

#: Which result of a folder is shown: that of the first of these commands; "" is a text file.
ORDER = (
    "series",
    "ldic",
    "ddic",
    "filterPhiField",
    "passPhiField",
    "pixelSearchPropagate",
    "pixelSearch",
    "regularStrain",
    "",
)
#: Ends of the names of the tables of a series, and of mpidvc study; most bytes and rows of one.
SERIES, STUDY, LONGEST, MOST_ROWS = "-series.tsv", "study.csv", 2**24, 10_000


@dataclass(frozen=True)
class Table:
    """A table in a text file: its name, the names of its columns, and its rows; numbers where all of a column are."""

    name: str
    columns: list[str]
    rows: list[list[str | float]]


@dataclass(frozen=True)
class Gathered:
    """What a report is about.

    Attributes
    ----------
    title : str
        Name of the result, or of the folder.
    main : Step
        The result.
    strain : Step or None
        Its strain, if a file has it.
    files : list of Step
        All results of the folder, or the one.
    refused : list of str
        A line for each file that could not be read.
    series, study : Table or None
    """

    title: str
    main: Step
    strain: Step | None = None
    files: list[Step] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    series: Table | None = None
    study: Table | None = None


def gather(given: str) -> Gathered:
    """Find the files of a report.

    Parameters
    ----------
    given : str
        A result, or a folder with results, or that of ``mpidvc run``.

    Raises
    ------
    UserError
        If there is no result.
    """
    path = Path(given)
    if path.is_dir():
        return _folder(path)
    main = open_step(path)
    folder = path.parent
    strain = None
    for other in _natural(folder.glob(f"{_plain(path.stem)}*-strain-*.h5")):
        strain = strain or _strain(other)
    return Gathered(path.name, main, strain, [main], [], *_tables(folder, path.stem))


def _folder(folder: Path) -> Gathered:
    found: list[Step] = []
    refused: list[str] = []
    for path in _results(folder):
        if not is_hdf5(path):
            continue
        try:
            found.append(open_step(path))
        except UserError as error:
            # images are HDF5, too
            if "is no results file of mpidvc" not in str(error):
                refused.append(str(error))
    if not found:
        # without results files, text files are all there is
        for path in _natural(folder.glob("*.tsv")):
            if path.name.endswith(SERIES):
                continue
            step = open_step(path)
            try:
                step.read()
            except UserError as error:
                refused.append(str(error))
            else:
                found.append(step)
    if not found:
        why = f": {refused[0]}" if refused else "; give one with the files (.h5, .tsv) of a command"
        raise UserError(f"{folder}: holds no result that can be read{why}")
    # the last of the best: of a series the last state
    best = min(_rank(step) for step in found)
    main = [step for step in found if _rank(step) == best][-1]
    strain = None
    for step in found:
        if step.command == "regularStrain" and step is not main and step.path.name.startswith(main.path.stem):
            strain = step
    name = folder.resolve().name or str(folder)
    series, study = _tables(folder, None)
    if series is not None and Record(folder).exists and not _has_states(series, found):
        series = None
    if series is not None:
        series = _with_last(series, [step for step in found if _rank(step) == best])
    return Gathered(name, main, strain, found, refused, series, study)


def _results(folder: Path) -> list[Path]:
    """Results files of a folder, by the numbers in their names; those of its folders if there are none, as of a run."""
    record = Record(folder)
    # beside those of a run lies what earlier ones left, with other options or images
    found = [path for path in record.results if path.is_file()] if record.exists else [*folder.glob("*.h5")]
    found = found or sorted(folder.glob("*/*.h5"))
    # of the same name, what was measured again follows: the sort is stable
    return _natural(found)


def _rank(step: Step) -> int:
    return ORDER.index(step.command) if step.command in ORDER else len(ORDER)


def _strain(path: Path) -> Step | None:
    try:
        step = open_step(path)
    except UserError:
        return None
    return step if step.command == "regularStrain" else None


def _tables(folder: Path, stem: str | None) -> tuple[Table | None, Table | None]:
    """The tables of a series and of a study in a folder; of a single result those that it is a part of."""
    series = study = None
    # those of folders in a folder follow
    places = ("*", "*/*") if stem is None else ("*",)
    for path in [path for place in places for path in _natural(folder.glob(f"{place}{SERIES}"))]:
        table = _read(path)
        if table is not None and series is None and (stem is None or _is_state(table, stem)):
            series = table
    for path in _natural(folder.glob(f"*{STUDY}")):
        if stem is None or stem.startswith(path.name.removesuffix(STUDY)):
            study = study or _read(path, ",")
    return series, study


def _is_state(table: Table, stem: str) -> bool:
    """Whether a result is that of a state of a series."""
    if not {"image", "reference"} <= {*table.columns}:
        return False
    at, of = table.columns.index("image"), table.columns.index("reference")
    return any(f"{row[of]}-{row[at]}-" in f"{stem}-" for row in table.rows)


def _has_states(table: Table, found: Sequence[Step]) -> bool:
    """Whether every state of a series has a result among these."""
    if "image" not in table.columns:
        return False
    at = table.columns.index("image")
    return all(any(f"-{row[at]}-" in f"{step.path.stem}-" for step in found) for row in table.rows)


def _with_last(table: Table, found: Sequence[Step]) -> Table:
    """The table of a series with the numbers of the last result of each state, where there are several.

    A run measures points again after a filter, and may have found others in a wrong place before.
    """
    rows, name = [], table.name
    for row in table.rows:
        told = dict(zip(table.columns, row, strict=True))
        stem = f"{told.get('reference')}-{told.get('image')}-"
        results = [step for step in found if step.path.stem.startswith(stem)]
        if len(results) > 1:
            told |= {key: value for key, value in _numbers_of(results[-1].read()).items() if key in told}
            name = f"{table.name}, with what was measured again"
        rows.append(list(told.values()))
    return replace(table, name=name, rows=rows)


def _numbers_of(field: PhiField) -> dict[str, float]:
    """The numbers of a state in the table of a series."""
    # row 0 of labels is the background
    rows = slice(1, None) if field.layout == "labels" else slice(None)
    if not {"returnStatus", "zncc"} <= {*field.columns}:
        return {}
    status = np.asarray(field["returnStatus"], np.float64)[rows]
    compared, converged, zncc = quality_of(status, np.asarray(field["zncc"], np.float64)[rows])
    found = {"compared": float(compared), "converged": converged, "medianZNCC": zncc}
    means = mean_phi(field.phi[rows], status == 2)
    return {**found, **dict(zip(PHI, means.ravel().tolist(), strict=True))}


def _read(path: Path, separator: str = "\t") -> Table | None:
    """A table; None if it is none."""
    try:
        if not path.is_file() or path.stat().st_size > LONGEST:
            return None
        lines = [line.split(separator) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError):
        return None
    columns, cells = (lines[0], lines[1 : 1 + MOST_ROWS]) if lines else ([], [])
    if not cells or len({len(row) for row in lines}) != 1:
        return None
    read: list[list[str | float]] = [list(row) for row in cells]
    for k, name in enumerate(columns):
        # a name may be a number
        if name in ("image", "reference"):
            continue
        numbers = _numbers([row[k] for row in cells])
        for row, number in zip(read, numbers, strict=False):
            row[k] = number
    return Table(path.name, columns, read)


def _numbers(texts: Sequence[str]) -> list[float]:
    """The cells of a column as numbers; none if one is none."""
    try:
        return [float(text) for text in texts]
    except ValueError:
        return []


def _natural(paths: object) -> list[Path]:
    """Paths by the numbers in their names."""

    def key(path: Path) -> list[tuple[int, int, str]]:
        parts = re.split(r"([0-9]+)", path.name)
        return [(1, int(part), "") if k % 2 else (0, 0, part) for k, part in enumerate(parts)]

    return sorted(paths, key=key)  # type: ignore[call-overload, no-any-return]


def _plain(name: str) -> str:
    """A pattern of glob for a name as it stands there."""
    return re.sub(r"([*?[])", r"[\1]", name)
