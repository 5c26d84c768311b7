"""What is shown fits the terminal, also when its size changes during the run: at pseudo-terminals."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.runtime.console import Console, Progress
from mpidvc.runtime.launch import find_mpiexec
from mpidvc.runtime.terminal import LiveLines, Terminal, find_terminal, lay_out, wrap
from tests.waiting import LONGEST


def resize(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_width_is_asked_each_time(pty: tuple[int, int]) -> None:
    master, slave = pty
    terminal = Terminal(80, os.ttyname(slave))
    for columns in (200, 60):
        resize(master, columns)
        assert terminal.columns == columns
    resize(master, 0)
    assert terminal.columns == 80
    assert Terminal(70, "/dev/pts/none").columns == 70
    assert Terminal(70).columns == 70
    assert not Terminal()


def test_ranks_are_told_the_terminal(pty: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty
    resize(master, 60)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("MPIDVC_TERMINAL", raising=False)
    with os.fdopen(os.dup(slave), "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        found = find_terminal(launched=False)
        assert not find_terminal(launched=True)
        monkeypatch.setenv("TERM", "dumb")
        assert not find_terminal(launched=False)
    monkeypatch.setenv("MPIDVC_TERMINAL", str(found))
    told = find_terminal(launched=True)
    assert told == found == Terminal(60, os.ttyname(slave))
    resize(master, 90)
    assert told.columns == 90


class Screen:
    """What a terminal with endless memory shows, as far as the program's escape sequences go."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = 0

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[\d*[A-Z]|\n|\r|[^\x1b\n\r]+", text):
            if part == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif part.endswith("A") and part[0] == "\x1b":
                self.row -= int(part[2:-1])
                assert self.row >= 0
            elif part == "\x1b[J":
                self.lines[self.row :] = [""]
            elif part != "\r":
                assert self.lines[self.row] == ""
                self.lines[self.row] = part


def test_live_lines(pty: tuple[int, int]) -> None:
    """They stay at the bottom; where the terminal has become too narrow for them they begin again."""
    master, slave = pty
    resize(master, 60)
    screen, count = Screen(), 0

    def lines(columns: int) -> list[str]:
        return [f"{count} ".ljust(min(columns, 80), "x"), "second"][: 1 + count % 2]

    live = LiveLines(Terminal(1, os.ttyname(slave)), lines, screen.write)
    for count in range(1, 6):
        live.print_above(f"line {count}")
    assert [line[:6].strip() for line in screen.lines] == [*(f"line {n}" for n in range(1, 6)), "5 xxxx", "second", ""]
    assert len(screen.lines[5]) == 60
    resize(master, 200)
    live.print_above("wide")
    assert screen.lines[5] == "wide"
    assert len(screen.lines[6]) == 80
    resize(master, 30)
    live.print_above("narrow")
    live.close()
    assert [len(line) for line in screen.lines[6:]] == [80, 6, 6, 30, 6, 0]
    assert screen.lines[8] == "narrow"


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("done", [0, 1, 999_999])
def test_progress_fits(columns: int, done: int) -> None:
    progress = Progress(Console(), 1_000_000, "pixelSearch", "points")
    progress.advance(done, "NCC=0.99817 rs=+1")
    progress._notice = "SIGINT: stopping after the points in hand, --resume goes on; Ctrl-C again: at once"
    lines = progress._lines(columns)
    assert max(map(len, lines)) <= columns
    assert f"{99 if done > 1 else 0}%" in lines[0]
    assert " ".join(" ".join(lines).split()).endswith("--resume goes on; Ctrl-C again: at once")
    if columns >= 60:
        assert f"{done}/1000000" in lines[0]
        assert lines[0].endswith(" left")
        assert lines[0].count("━") + lines[0].count("─") >= 8
    if columns == 200:
        assert f"{done}/1000000 points" in lines[0]


@pytest.mark.parametrize("columns", [30, 60, 80, 200, 0])
def test_table_fits(columns: int, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    heads = ["Status", "Points", "Percent of non-background", "Meaning"]
    rows = [["RS=+2", 7286, "99.9%", "converged: the change of Phi fell below the limit"], ["RS=-5", 99, "", "skipped"]]
    with Console(Terminal(columns), str(tmp_path / "log")) as console:
        console.table("Summary", heads, rows)
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines[1:]}) == 1
    if columns:
        assert max(map(len, lines)) <= columns
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    told = " ".join(row[3] for row in cells if row[3])
    assert told == "Meaning converged: the change of Phi fell below the limit skipped" or columns == 30
    if columns in (0, 200):
        assert cells == [heads, *([str(cell) for cell in row] for row in rows)]
    # the log is as wide as it has to be
    logged = [line[20:] for line in (tmp_path / "log").read_text().splitlines()]
    assert f"│ {rows[0][3]} │" in logged[4]


def test_lay_out_keeps_words_whole() -> None:
    assert lay_out([["one two three", "x"], ["one", "y"]], 14, 3, 4) == [
        [["one", "two", "three"], ["x"]],
        [["one"], ["y"]],
    ]
    assert lay_out([["one two  three", "x"]], 0, 3, 4) == [[["one two  three"], ["x"]]]


def test_numbers_in_brackets_stay_whole() -> None:
    line = "It#:001 |δΦ|=0.34851 error= 138.01 t=[  0.213  -0.103   0.247]px r=[  2.108   0.827   1.144]°"
    assert wrap(line, 60, "    ") == [
        "It#:001 |δΦ|=0.34851 error= 138.01",
        "    t=[  0.213  -0.103   0.247]px",
        "    r=[  2.108   0.827   1.144]°",
    ]
    assert wrap("short", 60, "    ") == ["short"]


#: Keeps the last chunks waiting until a file is there.
LASTS = """
import os, time
from mpidvc.tasks.ldic import LdicTask
def lasting(self, chunk, run=LdicTask.run):
    while chunk >= self.n_chunks / 2 and not os.path.exists({gate!r}):
        time.sleep(0.01)
    return run(self, chunk)
LdicTask.run = lasting
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    image = np.random.default_rng(3).integers(0, 60000, (40, 60, 80)).astype(np.uint16)
    for name in "ab":
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    return folder


def watched(arguments: list[str], environment: dict[str, str], columns: int, see: Callable[[int, str], None]) -> str:
    """Run in a pseudo-terminal; `see` gets it and all that was printed so far."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.clear()
        os.environ.update(environment, TERM="xterm")
        resize(0, columns)
        os.execv(sys.executable, [sys.executable, "-m", "mpidvc", *arguments])
    told, end = b"", time.monotonic() + LONGEST
    with contextlib.suppress(OSError):
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                new = os.read(terminal, 65536)
                if not new:
                    break
                # a character may come in two parts
                told += new
            see(terminal, told.decode(errors="replace"))
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, told
    return told.decode()


@pytest.mark.parametrize("n", [1, 2])
def test_a_run_follows_the_terminal(n: int, images: Path, environment: dict[str, str], tmp_path: Path) -> None:
    if n > 1 and find_mpiexec() is None:
        pytest.skip("no MPI in this environment")
    gate = tmp_path / "gate"
    changed = 0

    def see(terminal: int, told: str) -> None:
        nonlocal changed
        drawn = len(re.findall("ldic [━─]", told))
        if not changed and drawn > 2:
            resize(terminal, 60)
            changed = drawn
        elif changed and drawn > changed + 2:
            gate.touch()

    line = f"ldic {images}/a.tif {images}/b.tif -ns 5 -hws 5 -od {tmp_path} -np {n}"
    code = LASTS.format(gate=str(gate))
    told = watched(line.split(), environment | {"MPIDVC_TEST_CODE": code}, 200, see)
    assert changed
    bars = [text for text in re.sub(r"\x1b\[\d*[A-Z]|\r", "", told).splitlines() if "━" in text or "──" in text]
    bars = [text for text in bars if text.startswith("ldic")]
    assert 60 < max(map(len, bars[:3])) <= 200
    assert max(map(len, bars[-2:])) <= 60
    (top,) = re.findall("┌.*┐", told)
    assert len(top) <= 60
    assert "Elapsed time: " in told.splitlines()[-1]
