"""Output on terminals, in pipes and in log files."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from mpidvc.errors import UserError
from mpidvc.runtime.console import Console
from mpidvc.runtime.terminal import Terminal, find_terminal


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_settings_and_messages(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.settings("mpidvc ldic", {"mask1": None, "node_spacing": (20, 20, 20)})
    console.note("x" * 200)
    console.warn("careful")
    out, err = capsys.readouterr()
    assert out.startswith("[mpidvc ldic] Current Settings:\n\tMASK1: None\n\tNODE_SPACING: (20, 20, 20)\n")
    assert out.endswith(f"note: {'x' * 200}\n")
    assert err == "warning: careful\n"


def test_silent(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    console = Console(Terminal(80), str(tmp_path / "log"), silent=True)
    console.print("a")
    console.warn("b")
    with console.progress(10, "ldic") as progress:
        progress.advance(10)
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "log").exists()


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table("Summary", ["Status", "Points"], [["Converged: RS=2", 10], ["Diverged", 2000]])
    assert capsys.readouterr().out.splitlines() == [
        "          Summary",
        "┌─────────────────┬────────┐",
        "│ Status          │ Points │",
        "├─────────────────┼────────┤",
        "│ Converged: RS=2 │     10 │",
        "│ Diverged        │   2000 │",
        "└─────────────────┴────────┘",
    ]


def test_progress_off_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clock = Clock()
    log = tmp_path / "run.log"
    with Console(None, str(log), clock=clock) as console:
        with console.progress(1_000_000, "ldic") as progress:
            for _ in range(5):
                clock.now += 30
                progress.advance(100_000, "it=4 dPhiNorm=0.00053 rs=+2")
        console.print("done\nall")
    assert capsys.readouterr().out.splitlines() == [
        "ldic: 200000/1000000 points (20.0%), 3333 points/s, 00:04:00 left",
        "ldic: 400000/1000000 points (40.0%), 3333 points/s, 00:03:00 left",
        "done",
        "all",
    ]
    stamped = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in stamped)
    assert [line[20:] for line in stamped] == [
        "ldic: 200000/1000000 points (20.0%), 3333 points/s, 00:04:00 left",
        "ldic: 400000/1000000 points (40.0%), 3333 points/s, 00:03:00 left",
        "ldic: 500000/1000000 points (50.0%), 3333 points/s, 00:02:30 taken",
        "done",
        "all",
    ]


def test_progress_on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    console = Console(Terminal(80))
    with console.progress(1000, "ldic") as progress:
        progress.advance(250, "it=4 dPhiNorm=0.00053 rs=+2")
        console.print("[a] line " + "x" * 100)
        progress.advance(750)
    text = terminal.getvalue()
    assert "1000/1000 points" in text
    assert "last: it=4 dPhiNorm=0.00053 rs=+2" in text
    assert "[a] line " + "x" * 100 in text
    # A killed job could not show the cursor again.
    assert "\x1b[?25l" not in text


def test_empty_progress() -> None:
    with Console().progress(0, "ldic") as progress:
        progress.advance(0)


def test_log_is_continued(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with Console(log=str(tmp_path / "log")) as console:
            console.print(text)
    assert [line[20:] for line in (tmp_path / "log").read_text().splitlines()] == ["first", "second"]


def test_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--log .*nowhere"):
        Console(log=str(tmp_path / "nowhere" / "log"))


def test_closed_pipe_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    console = Console()
    console.print("one")
    console.print("two")
    sys.stdout.close()


def test_find_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPIDVC_TERMINAL", raising=False)
    assert not find_terminal(launched=True)
    assert not find_terminal(launched=False)
    monkeypatch.setenv("MPIDVC_TERMINAL", "132")
    assert find_terminal(launched=True).columns == 132
