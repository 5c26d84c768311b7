"""The text of a results file: the places of its parts, and that a file which has changed is noticed."""

from __future__ import annotations

import errno
import os
import stat
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mpidvc.errors import ResourceError, UserError
from mpidvc.fields.hdf5 import FieldLayout, create_results_file, dataset_rows
from mpidvc.fields.tsv import COLUMNS, header
from mpidvc.rowfile import RowFile
from mpidvc.workflow import text
from mpidvc.workflow.text import TextPart, TextPlaces, TextRows, create_text, text_length, write_text

N = 100
NAMES = COLUMNS["LDIC"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "ROWS", 30)
    monkeypatch.setattr(text, "AT_ONCE", 7)


def field_file(folder: Path) -> tuple[RowFile, FieldLayout, dict[str, np.ndarray]]:
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
    return finished, layout, values


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
STARTS = [40, 80, 0, 50, 10, 95, 60, 25]


def ranges() -> list[tuple[int, int]]:
    ends = sorted([*STARTS[1:], STARTS[0], N])
    return [(start, min(end for end in ends if end > start)) for start in STARTS]


def parts_of(lengths: list[int]) -> list[TextPart]:
    places = TextPlaces(NAMES, N)
    found = []
    for (first, stop), length in zip(ranges(), lengths, strict=True):
        assert not places.complete
        found += places.add(first, stop, length)
    assert places.complete
    assert places.size == len(header(NAMES)) + sum(lengths)
    return found


def test_written_at_the_places_that_were_counted(tmp_path: Path) -> None:
    source, layout, values = field_file(tmp_path)
    lengths = [
        text_length(layout, NAMES, {name: rows[a:b] for name, rows in values.items()}, a, b) for a, b in ranges()
    ]
    target = create_text(tmp_path / "a.tsv.part", NAMES, N, tmp_path / "a.tsv")
    parts = parts_of(lengths)
    for part in reversed(parts):
        TextRows(source, layout, NAMES).write(part, target)
    text = target.path.read_bytes()
    assert text[: parts[-1].end] == plain_text(values)
    # more is reserved than is used
    assert set(text[parts[-1].end :]) <= {0}


def test_text_of_a_file_that_was_finished_before(tmp_path: Path) -> None:
    _, layout, values = field_file(tmp_path)
    write_text(tmp_path / "a.h5", layout, NAMES, tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == plain_text(values)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.tsv"]


def test_parts_have_about_so_many_rows_and_lose_none() -> None:
    lengths = list(range(1, len(STARTS) + 1))
    parts = parts_of(lengths)
    # 0 10 | 25 40 | 50 60 | 80 95, at most 30 rows each where ranges allow it
    assert [(part.first, part.stop) for part in parts] == [(0, 25), (25, 50), (50, 80), (80, 100)]
    head = len(header(NAMES))
    by_start = dict(zip(STARTS, lengths, strict=True))
    places = [head + sum(length for start, length in by_start.items() if start < row) for row in (0, 25, 50, 80, 100)]
    assert [(part.at, part.end) for part in parts] == list(pairwise(places))


def test_a_part_is_known_when_all_before_it_is_counted() -> None:
    places = TextPlaces(NAMES, N)
    assert list(places.add(60, 100, 5)) == []
    assert list(places.add(25, 60, 4)) == []
    head = len(header(NAMES))
    assert list(places.add(0, 25, 3)) == [
        TextPart(0, 25, head, head + 3),
        TextPart(25, 60, head + 3, head + 7),
        TextPart(60, 100, head + 7, head + 12),
    ]


def test_rows_that_have_changed_since_they_were_counted(tmp_path: Path) -> None:
    source, layout, values = field_file(tmp_path)
    length = text_length(layout, NAMES, values, 0, N)
    target = create_text(tmp_path / "a.tsv.part", NAMES, N, tmp_path / "a.tsv")
    (part,) = TextPlaces(NAMES, N).add(0, N, length)
    source.write("mpidvc/error", 3, np.array([1e9]))
    with pytest.raises(ResourceError, match="has changed since it was written"):
        TextRows(source, layout, NAMES).write(part, target)


def test_text_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be reserved .* -notsv"):
        create_text(tmp_path / "no" / "a.tsv.part", NAMES, N, tmp_path / "no" / "a.tsv")


def test_what_is_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space for numbers of some digits, with the permissions of the text that is replaced; none without it."""
    named, path = tmp_path / "a.tsv", tmp_path / "a.tsv.part"
    for file in (named, path):
        file.write_text("of before")
    named.chmod(0o600)
    create_text(path, NAMES, N, named).close()
    content = path.read_bytes()
    assert len(content) == len(header(NAMES)) + text.NUMBER * len(NAMES) * N
    assert content.rstrip(b"\0") == header(NAMES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert named.read_text() == "of before"

    def full(descriptor: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(text, "reserve", full)
    with pytest.raises(UserError, match=rf"the {len(content)} bytes .* cannot be reserved \(No space left on device\)"):
        create_text(path, NAMES, N, named)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tsv"]


@pytest.mark.parametrize("what", ["folder", "device"])
def test_a_folder_or_a_device_has_its_name(what: str, tmp_path: Path) -> None:
    """Neither is replaced, also where a symbolic link leads to it."""
    named = tmp_path / "a.tsv"
    if what == "folder":
        named.mkdir()
    else:
        os.mkfifo(tmp_path / "pipe")
        named.symlink_to(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"a\.tsv: is no plain file; .* -notsv"):
        create_text(tmp_path / "a.tsv.part", NAMES, N, named)
    assert not (tmp_path / "a.tsv.part").exists()
    assert not named.is_file()
