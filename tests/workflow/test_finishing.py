"""The finished file and the text are written while points are measured, and their bytes do not depend on the pieces."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.main import main
from mpidvc.workflow import finishing, text
from mpidvc.workflow.finishing import OrderedRows
from mpidvc.workflow.text import TextPart, TextRows
from tests.outputs import outputs


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    pair = AnalyticPair((24, 60, 60), seed=3, translation=(0.6, -0.4, 0.7), amplitude=0.1, wavelength=60.0)
    for name, image in (("a", pair.image1()), ("b", pair.image2())):
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="minisblack")
    options = "-ns 2 -hws 2 -sr -1 1 -1 1 -1 1"
    return ["pixelSearch", str(tmp_path / "a.tif"), str(tmp_path / "b.tif"), *options.split()]


class Events:
    """What is written, with the numbers of blocks that are done and of all blocks at that time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
        self.seen: list[tuple[str, int, int]] = []
        rows, part = OrderedRows.run, TextRows.write

        def note(what: str) -> None:
            with h5py.File(results, "r", locking=False) as file:
                marks = file["mpidvc/journal/marks"][()]
            self.seen.append((what, int(np.count_nonzero(marks)), len(marks)))

        def run(ordered: OrderedRows, piece: int) -> object:
            note("rows")
            return rows(ordered, piece)

        def write(written: TextRows, place: TextPart, *others: object) -> object:
            note("text")
            return part(written, place, *others)  # type: ignore[arg-type]

        monkeypatch.setattr(OrderedRows, "run", run)
        monkeypatch.setattr(TextRows, "write", write)

    def first(self, what: str) -> tuple[int, int]:
        """Blocks that are done when this is written for the first time, and all blocks."""
        return next((done, n) for name, done, n in self.seen if name == what)


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "ROWS", 2000)
    monkeypatch.setattr(text, "ROWS", 500)


def test_written_while_points_are_measured(line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*line, "-np", "1", "-od", str(tmp_path / "whole")]) == 0
    small(monkeypatch)
    events = Events(monkeypatch, tmp_path / "pieces" / "a-b-pixelSearch.h5")
    assert main([*line, "-np", "1", "-od", str(tmp_path / "pieces")]) == 0
    assert outputs(tmp_path / "pieces") == outputs(tmp_path / "whole")
    for what in ("rows", "text"):
        done, n = events.first(what)
        assert 0 < done < 0.5 * n
        # the last bricks along z are left in the end, a quarter of the nodes
        left = [done == n for name, done, n in events.seen if name == what]
        assert sum(left) < 0.5 * len(left)
    assert sum(name == "rows" for name, *_ in events.seen) > 5


def test_without_text(line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([*line, "-np", "1", "-od", str(tmp_path / "whole")]) == 0
    small(monkeypatch)
    events = Events(monkeypatch, tmp_path / "pieces" / "a-b-pixelSearch.h5")
    assert main([*line, "-np", "1", "-notsv", "-od", str(tmp_path / "pieces")]) == 0
    made, whole = outputs(tmp_path / "pieces"), outputs(tmp_path / "whole")
    assert made == {name: content for name, content in whole.items() if not name.endswith(".tsv")}
    assert {name for name, *_ in events.seen} == {"rows"}


def test_points_that_every_rank_cannot_compute(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes of a file: the rows of a piece are from many blocks, and wait for the end."""
    guess = tmp_path / "guess"
    assert main([*line, "-np", "1", "-od", str(guess)]) == 0
    nodes = guess / "a-b-pixelSearch.tsv"
    head, *rows = nodes.read_text().splitlines(keepends=True)
    nodes.write_text("".join([head, *rows[5:]]))
    words = [*line[:3], "-pf", str(nodes), *line[5:]]
    assert main([*words, "-np", "1", "-od", str(tmp_path / "whole")]) == 0
    small(monkeypatch)
    events = Events(monkeypatch, tmp_path / "pieces" / "a-b-pixelSearch.h5")
    assert main([*words, "-np", "1", "-od", str(tmp_path / "pieces")]) == 0
    assert outputs(tmp_path / "pieces") == outputs(tmp_path / "whole")
    assert {done == n for _, done, n in events.seen} == {True}
    assert [name for name, *_ in events.seen] == ["rows"] * 5 + ["text"] * 5
