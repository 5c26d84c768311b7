"""The terminal that a run is watched on: its width, and lines that are drawn again and again at its bottom."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["TERMINAL", "LiveLines", "Terminal", "find_terminal", "lay_out", "wrap"]

#: Environment variable of the ranks, whose stdout is a pipe: columns of the terminal, 0 if there is none, and its path.
TERMINAL = "MPIDVC_TERMINAL"
#: Least width of a column of text in a table.
LEAST = 4
#: Seconds between two drawings of live lines.
EVERY = 0.25
#: Seconds in which a drawing ends that is under way.
LONGEST_DRAWING = 2.0


@dataclass(frozen=True)
class Terminal:
    """A terminal, or none.

    Attributes
    ----------
    width : int
        Columns when it was found; 0: there is none, but a file or a pipe.
    path : str
        Its device; "" if there is none to be asked.
    """

    width: int = 0
    path: str = ""

    def __bool__(self) -> bool:
        return self.width > 0

    def __str__(self) -> str:
        """The value of `TERMINAL`."""
        return f"{self.width} {self.path}".strip()

    @property
    def columns(self) -> int:
        """Its width now."""
        if self.path:
            with contextlib.suppress(OSError):
                # the ranks live in another session, and must not get a controlling terminal
                device = os.open(self.path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    return os.get_terminal_size(device).columns or self.width
                finally:
                    os.close(device)
        return self.width


def find_terminal(launched: bool) -> Terminal:
    """The terminal that stdout goes to.

    Parameters
    ----------
    launched : bool
        Whether a launcher started this process. Its pipes may look like a terminal: only `TERMINAL` counts then.
    """
    width, _, path = os.environ.get(TERMINAL, "").partition(" ")
    if width.isdecimal():
        return Terminal(int(width), path)
    if launched or os.environ.get("TERM", "dumb") == "dumb" or not sys.stdout.isatty():
        return Terminal()
    try:
        device = sys.stdout.fileno()
        # a terminal that does not tell its size says 0
        return Terminal(os.get_terminal_size(device).columns or 80, os.ttyname(device))
    except (OSError, ValueError):
        return Terminal(80)


def lay_out(rows: Sequence[Sequence[str]], columns: int, between: int, around: int) -> list[list[list[str]]]:
    """The lines of every cell of a table, wrapped where the table would be wider than the terminal.

    Parameters
    ----------
    rows : sequence of sequences of str
    columns : int
        Width of the terminal; 0: nothing is wrapped.
    between, around : int
        Columns between two cells, and beside the outermost ones together.
    """
    of_columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in of_columns]
    words = [max((len(word) for cell in column for word in cell.split()), default=0) for column in of_columns]
    room = columns - around - between * (len(widths) - 1)
    # words stay whole as long as there is room for them
    for least in (words, [LEAST] * len(widths)):
        while columns and sum(widths) > room:
            widest = max(range(len(widths)), key=lambda k: widths[k] if widths[k] > least[k] else 0)
            if widths[widest] <= least[widest]:
                break
            widths[widest] -= 1
    return [[_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)] for row in rows]


def _wrapped(text: str, width: int) -> list[str]:
    return [text] if len(text) <= width else textwrap.wrap(text, width, break_on_hyphens=False)


def wrap(text: str, columns: int, indent: str) -> list[str]:
    """The lines of a text for so many columns; words, and numbers in brackets, stay whole.

    Parameters
    ----------
    text : str
        One line.
    columns : int
    indent : str
        Before all lines but the first.
    """
    if len(text) <= columns:
        return [text]
    # textwrap does not break at this blank
    whole = re.sub(r"\[[^]]*\]|= +", lambda found: found[0].replace(" ", "\xa0"), text)
    width = max(columns, len(indent) + 1)
    lines = textwrap.wrap(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\xa0", " ") for line in lines]


class LiveLines:
    """Lines at the bottom of a terminal that are drawn again and again, by a thread, until they are closed.

    Parameters
    ----------
    terminal : Terminal
    lines : callable
        Gives the lines for a number of columns, which none may exceed.
    write : callable
        Writes text to the terminal.
    """

    def __init__(
        self, terminal: Terminal, lines: Callable[[int], Sequence[str]], write: Callable[[str], object]
    ) -> None:
        self._terminal, self._lines, self._write = terminal, lines, write
        self._drawn: list[str] = []
        self._lock = threading.RLock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._draw_on, daemon=True)
        self._draw()
        self._thread.start()

    def print_above(self, text: str) -> None:
        """Print lines above."""
        self._draw(f"{text}\n")

    def close(self) -> None:
        """Draw for the last time; the lines stay."""
        self._end.set()
        self._thread.join(LONGEST_DRAWING)
        self._draw()

    def _draw_on(self) -> None:
        while not self._end.wait(EVERY):
            self._draw()

    def _draw(self, above: str = "") -> None:
        with self._lock:
            columns = self._terminal.columns
            lines = list(self._lines(columns))
            if above or lines != self._drawn:
                self._write(f"{self._erase(columns)}{above}" + "".join(f"{line}\n" for line in lines))
                self._drawn = lines

    def _erase(self, columns: int) -> str:
        # in a terminal that has become narrower lines are broken or cut: nobody knows how many there are now
        if not self._drawn or max(map(len, self._drawn)) > columns:
            return ""
        return f"\x1b[{len(self._drawn)}A\r\x1b[J"
