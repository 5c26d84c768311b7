"""The text of a finished file in parts: their places, and that a file which has changed is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpidvc.arrays import Ints
from mpidvc.errors import ResourceError
from mpidvc.fields.hdf5 import FieldLayout, create_results_file, dataset_rows
from mpidvc.fields.tsv import COLUMNS, header
from mpidvc.rowfile import RowFile
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.workflow import text
from mpidvc.workflow.files import RunFiles
from mpidvc.workflow.text import parts_of, text_length, write_text

N = 100
NAMES = COLUMNS["LDIC"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "ROWS", 30)
    monkeypatch.setattr(text, "AT_ONCE", 7)


def field_file(folder: Path) -> tuple[RunFiles, dict[str, np.ndarray]]:
    """A finished file of 100 points whose numbers have texts of many lengths, and its datasets."""
    layout = FieldLayout(N, columns=("error", "returnStatus"))
    rng = np.random.default_rng(1)
    phi = np.tile(np.eye(4), (N, 1, 1)) + 10.0 ** rng.uniform(-6, 3, (N, 4, 4)) * rng.choice([-1, 1], (N, 4, 4))
    columns = {"error": rng.uniform(0, 2000, N), "returnStatus": rng.choice([2.0, -1.0], N)}
    positions = rng.uniform(0, 2000, (N, 3))
    values = dataset_rows(layout, positions, phi, columns)
    path = folder / "a.h5"
    finished = RowFile(path, create_results_file(path, layout))
    for name, rows in values.items():
        finished.write(name, 0, rows)
    return RunFiles(folder / "a", None, np.zeros(0, np.int64), finished, layout, "posix"), values


def plain_text(values: dict[str, np.ndarray]) -> bytes:
    """The text as Python formats it."""
    z, y, x = values["mpidvc/positions"].T
    u, F = values["mpidvc/displacement"], values["mpidvc/F"]
    zero = np.zeros(N)
    columns = [np.arange(N), z, y, x]
    for row in (2, 1, 0):
        columns += [F[:, 3 * row + 2], F[:, 3 * row + 1], F[:, 3 * row], u[:, row]]
    columns += [values["mpidvc/error"], zero, values["mpidvc/returnStatus"], zero]
    told = [
        "\t".join(("%.7e" if 0 < abs(v) < 1e-3 else "%.7f") % v for v in row) + "\n"
        for row in zip(*columns, strict=True)
    ]
    return header(NAMES) + "".join(told).encode()


#: Ranges of rows as the pieces of a grid have them: they interleave, and are reported in any order.
STARTS = np.array([40, 80, 0, 50, 10, 95, 60, 25])


def ranges(starts: Ints) -> list[tuple[int, int]]:
    ends = np.append(np.sort(starts)[1:], N)
    return [(start, int(ends[np.searchsorted(np.sort(starts), start)])) for start in starts.tolist()]


@pytest.mark.parametrize("counted", [True, False])
def test_written_at_the_places_that_were_counted(tmp_path: Path, counted: bool) -> None:
    files, values = field_file(tmp_path)
    parts = None
    if counted:
        lengths = [
            text_length(files.layout, NAMES, {name: rows[a:b] for name, rows in values.items()}, a, b)
            for a, b in ranges(STARTS)
        ]
        parts = parts_of(NAMES, STARTS, lengths, N)
    path = write_text(InlineExecutor(), files, NAMES, parts)
    assert path.read_bytes() == plain_text(values)


def test_parts_have_about_so_many_rows_and_lose_none() -> None:
    parts = parts_of(NAMES, STARTS, np.arange(1, len(STARTS) + 1), N)
    # 0 10 | 25 40 | 50 60 | 80 95, at most 30 rows each where ranges allow it
    assert parts.rows.tolist() == [0, 25, 50, 80, 100]
    head = len(header(NAMES))
    by_start = dict(zip(STARTS.tolist(), range(1, len(STARTS) + 1), strict=True))
    assert parts.places.tolist() == [
        head + sum(length for start, length in by_start.items() if start < row) for row in parts.rows.tolist()
    ]


def test_single_ranges_that_are_longer() -> None:
    assert parts_of(NAMES, [0, 45], [5, 6], N).rows.tolist() == [0, 45, 100]


def test_rows_that_have_changed_since_they_were_counted(tmp_path: Path) -> None:
    files, values = field_file(tmp_path)
    lengths = [text_length(files.layout, NAMES, values, 0, N)]
    parts = parts_of(NAMES, [0], lengths, N)
    assert files.finished is not None
    files.finished.write("mpidvc/error", 3, np.array([1e9]))
    with pytest.raises(ResourceError, match="has changed since it was written"):
        write_text(InlineExecutor(), files, NAMES, parts)
    assert not (tmp_path / "a.tsv").exists()
