"""The finished file and the text are written while points are measured, and their bytes do not depend on the pieces."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.hdf5 import FieldLayout
from mpidvc.fields.tsv import COLUMNS, header
from mpidvc.main import main
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.runtime.exit_status import STOPPED
from mpidvc.runtime.journal import Journal
from mpidvc.workflow import begin, finishing, text
from mpidvc.workflow.files import RunFiles
from mpidvc.workflow.finishing import Finishing, OrderedRows
from mpidvc.workflow.stages import Stages
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


def test_a_folder_gets_the_name_of_the_text(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While points are measured: a line says so, and the results are kept."""
    out = tmp_path / "out"
    taken = out / "a-b-pixelSearch.tsv"
    write = TextRows.write

    def taking(*given: Any) -> None:
        taken.mkdir(exist_ok=True)
        write(*given)

    monkeypatch.setattr(TextRows, "write", taking)
    assert main([*line, "-np", "1", "-od", str(out)]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert f"{taken}: cannot be written (Is a directory); what is measured is kept: --resume goes on" in told
    assert not taken.with_name(f"{taken.name}.part").exists()
    taken.rmdir()
    monkeypatch.undo()
    assert main([*line, "-np", "1", "-od", str(out), "--resume"]) == 0
    assert "nothing is left to be measured" in capsys.readouterr().out
    assert main([*line, "-np", "1", "-od", str(tmp_path / "whole")]) == 0
    assert outputs(out) == outputs(tmp_path / "whole")


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


def test_hosts_that_see_the_journal_differently(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others have measured is not there for every rank: all is written in the end."""
    assert main([*line, "-np", "1", "-od", str(tmp_path / "whole")]) == 0
    small(monkeypatch)
    events = Events(monkeypatch, tmp_path / "pieces" / "a-b-pixelSearch.h5")
    # one process has no others to wait for, unless it is made to
    monkeypatch.setattr(begin, "_choose_driver", lambda *given: "gather")
    assert main([*line, "-np", "1", "-od", str(tmp_path / "pieces")]) == 0
    assert outputs(tmp_path / "pieces") == outputs(tmp_path / "whole")
    assert {done == n for _, done, n in events.seen} == {True}


def test_gone_on_with(line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces whose points were all done before the stop are written, too, and need no further point."""
    assert main([*line, "-np", "1", "-od", str(tmp_path / "whole")]) == 0
    small(monkeypatch)
    folder = str(tmp_path / "pieces")
    record, done = Journal.record, []

    def stopping(journal: Journal, block: int, records: np.ndarray) -> None:
        record(journal, block, records)
        done.append(block)
        if len(done) == int(0.6 * journal.n_blocks):
            os.kill(os.getpid(), signal.SIGUSR1)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", stopping)
        assert main([*line, "-np", "1", "-od", folder]) == STOPPED
    events = Events(monkeypatch, tmp_path / "pieces" / "a-b-pixelSearch.h5")
    assert main([*line, "-np", "1", "-od", folder, "--resume"]) == 0
    assert outputs(tmp_path / "pieces") == outputs(tmp_path / "whole")
    assert sum(n < len(done) + 5 for name, n, _ in events.seen if name == "rows") >= 2


@pytest.mark.parametrize("driver", ["gather", "mpio"])
def test_order_of_the_pieces(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of all points, and each part of the text when those before are counted; after mpio when all may read it."""
    monkeypatch.setattr(finishing, "ROWS", 10)
    monkeypatch.setattr(text, "ROWS", 10)
    stubs: Any = SimpleNamespace(computed=None), SimpleNamespace(slots={}), object()
    journal, finished, written = stubs
    files = RunFiles(
        Path("a"), journal, np.arange(9), finished, FieldLayout(35, columns=("returnStatus",)), driver, text=written
    )
    names = COLUMNS["LDIC"]
    feed = Finishing(files, names, Stages(InlineExecutor()), leads=True)
    feed.done(3)
    assert feed.ready == 0
    assert not feed.exhausted
    feed.all_done()
    assert feed.take(3) == [0, 1, 2]
    feed.all_done()
    assert feed.take(3) == [3]
    lengths = {0: 500, 1: 600, 2: 700, 3: 300}
    at = [len(header(names)), *(len(header(names)) + n for n in (500, 1100, 1800, 2100))]
    parts = [TextPart(10 * k, min(10 * k + 10, 35), at[k], at[k + 1]) for k in range(4)]
    # how many parts are known after each piece
    for piece, known in ((2, 0), (0, 0), (3, 0), (1, 4)):
        bad = int(piece == 1)
        feed.finished([piece], [(bad, {"2": 4, f"-{piece}": 1}, np.array([lengths[piece]]))])
        assert feed.ready == (known if driver == "gather" else 0)
    assert feed.text_bytes == at[-1]
    assert feed.damaged == 1
    assert feed.statuses == {"2": 16, "-0": 1, "-1": 1, "-2": 1, "-3": 1}
    if driver == "mpio":
        assert feed.exhausted
        feed.all_readable()
    assert not feed.exhausted
    assert feed.take(3) == parts[:3]
    assert not feed.exhausted
    assert feed.take(9) == parts[3:]
    assert feed.exhausted
    feed.finished(parts, [None] * 4)
    assert feed.text_bytes == at[-1]


def test_other_ranks_take_no_note() -> None:
    """Rank 0 alone knows what is ready."""
    stubs: Any = SimpleNamespace(computed=None), SimpleNamespace(slots={})
    files = RunFiles(Path("a"), stubs[0], np.arange(9), stubs[1], FieldLayout(35), "gather")
    other = Finishing(files, (), Stages(InlineExecutor()), leads=False)
    other.all_done()
    assert other.ready == 0
