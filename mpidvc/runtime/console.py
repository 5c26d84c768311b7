"""Output for the user: lines, tables and progress, on the terminal and in a log file; silent on all ranks but 0."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from mpidvc.errors import UserError
from mpidvc.runtime.terminal import LiveLines, Terminal, lay_out, wrap

__all__ = ["QUIET", "Console", "Progress", "duration"]

#: Environment variable of the ranks that a Python program started: 1 if they print nothing.
QUIET = "MPIDVC_QUIET"
#: Seconds between progress lines where there is no terminal.
LINE_EVERY = 60.0
#: Columns of the bar that shows progress.
LEAST_BAR, MOST_BAR = 8, 40


class _Lines(Protocol):
    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


class Console:
    """Output of one command.

    Parameters
    ----------
    terminal : Terminal, optional
        A file or pipe, which gets unwrapped lines and no live bar, if there is none.
    log : str, optional
        File to which every line is appended, with a time stamp.
    silent : bool
        Whether to print nothing and open no file: all ranks but rank 0.
    quiet : bool
        Whether to print nothing but errors; the log file is written.
    clock : callable
        Seconds; replaced in tests.
    """

    def __init__(
        self,
        terminal: Terminal | None = None,
        log: str | None = None,
        silent: bool = False,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.terminal = Terminal() if silent or quiet or terminal is None else terminal
        self.silent = silent
        self.quiet = quiet
        #: What `warn` and `note` were told, whether it was shown or not.
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self._clock = clock
        self._progress: Progress | None = None
        self._log: TextIO | None = None
        if log is not None and not silent:
            _refuse_binary(log)
            try:
                self._log = Path(log).open("a", 1, "utf-8", "backslashreplace")  # noqa: SIM115
            except OSError as error:
                raise UserError(f"--log {log}: cannot be written ({error.strerror})") from None

    def __reduce__(self) -> tuple[Any, ...]:
        # other processes that get it have nothing to print
        return Console, (None, None, True)

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End a live bar and close the log file."""
        if self._progress is not None:
            self._progress.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def print(self, text: str = "") -> None:
        """Print lines as they are: they may be copied."""
        self._show(text, sys.stdout)

    def tell(self, text: str, stream: TextIO | None = None) -> None:
        """Print a line on stdout, or another stream, broken between words where a terminal is narrower."""
        columns = self.terminal.columns
        self._show("\n".join(wrap(text, columns, "    ")) if columns else text, stream or sys.stdout, text)

    def note(self, text: str, stream: TextIO | None = None) -> None:
        """Print information that a user may want, on stdout or another stream."""
        self.notes.append(text)
        self.tell(f"note: {text}", stream)

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        self.warnings.append(text)
        self.tell(f"warning: {text}", sys.stderr)

    def error(self, text: str) -> None:
        """Print on stderr why the command ends; any rank may do so, even a silent one."""
        self.close_progress()
        _write(sys.stderr, text + "\n")
        self._to_log(text)

    def settings(self, title: str, values: Mapping[str, object], usual: Mapping[str, object] | None = None) -> None:
        """Print the settings of a run, one line each; all of them go to the log file.

        Parameters
        ----------
        title : str
            For example ``mpidvc ldic``.
        values : mapping
            Names, printed in capitals, and values.
        usual : mapping, optional
            Defaults: settings that are the same are not shown. All are shown without it.
        """

        def lines(chosen: Mapping[str, object], head: str) -> str:
            return "\n".join([f"[{title}] {head}:", *(f"\t{name.upper()}: {one}" for name, one in chosen.items())])

        every = lines(values, "Current Settings")
        if usual is None:
            self.print(every)
            return
        differing = {name: one for name, one in values.items() if name not in usual or usual[name] != one}
        self._show(lines(differing, "Settings that differ from the defaults (--verbose: all)"), sys.stdout, every)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a boxed table that fits the terminal; columns of numbers are right-aligned."""
        numeric = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(columns))]
        cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
        fitting, whole = (_table(title, cells, numeric, width) for width in (self.terminal.columns, 0))
        self._show(fitting, sys.stdout, whole)

    def progress(self, total: int, what: str, unit: str = "points", done: int = 0) -> Progress:
        """Return a context manager that shows the progress of some work.

        Parameters
        ----------
        total : int
            Number of units.
        what : str
            Name of the work, one word.
        unit : str
            Name of the units, plural.
        done : int
            Units that are done already; they do not count in the rate.
        """
        self.close_progress()
        self._progress = Progress(self, total, what, unit, done)
        return self._progress

    def close_progress(self) -> None:
        """End a live bar that is still shown."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def _show(self, text: str, stream: TextIO, for_log: str | None = None) -> None:
        if self.silent:
            return
        live = self._progress is not None and self._progress.print_above(text)
        if not (live or self.quiet):
            _write(stream, text + "\n")
        self._to_log(text if for_log is None else for_log)

    def _to_log(self, text: str) -> None:
        if self._log is not None:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            try:
                self._log.write("".join(f"{stamp} {line}\n" for line in text.split("\n")))
            except OSError as error:
                _discard(self._log)
                self._log.close()
                self._log = None
                _write(sys.stderr, f"warning: the log file cannot be written any more ({error.strerror})\n")


def _table(title: str, rows: Sequence[Sequence[str]], numeric: Sequence[bool], columns: int) -> str:
    """A boxed table of so many columns at most (0: of any width); the first row is its head."""
    cells = lay_out(rows, columns, between=3, around=4)
    widths = [max(len(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]

    def rule(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * (width + 2) for width in widths) + right

    def lines(row: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
        found = []
        for k in range(max(map(len, row))):
            parts = [cell[k] if k < len(cell) else "" for cell in row]
            aligned = [
                part.rjust(width) if to_right else part.ljust(width)
                for part, width, to_right in zip(parts, widths, right, strict=True)
            ]
            found.append("│ " + " │ ".join(aligned) + " │")
        return found

    top = rule("┌", "┬", "┐")
    # heads of numbers stand over them
    found = [title.center(len(top)).rstrip(), top, *lines(cells[0], numeric), rule("├", "┼", "┤")]
    for row in cells[1:]:
        found += lines(row, numeric)
    return "\n".join([*found, rule("└", "┴", "┘")])


def _refuse_binary(log: str) -> None:
    """Refuse an image that was given as the log file by mistake."""
    try:
        with Path(log).open("rb") as file:
            binary = b"\0" in file.read(4096) if Path(log).is_file() else False
    except OSError:
        return  # missing, or refused when it is opened
    if binary:
        raise UserError(f"--log {log}: is no text file; choose another name")


class _Nowhere(io.TextIOBase):
    """A stream that drops everything."""

    def write(self, text: str, /) -> int:
        return len(text)


def _discard(stream: Any) -> None:
    """Drop the buffered output of a stream, which would fail again when the stream is closed."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _write(stream: _Lines, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # A closed pipe or a full disk must not end hours of work: results go to files.
        if stream is sys.stdout:
            _discard(stream)
            sys.stdout = _Nowhere()


class Progress:
    """Progress of some work; made by `Console.progress`."""

    def __init__(self, console: Console, total: int, what: str, unit: str, done: int = 0) -> None:
        self.total = total
        self.done = self._before = done
        self._console = console
        self._what = what
        self._unit = unit
        self._start = self._last_line = console._clock()
        self._live: LiveLines | None = None
        self._info = self._notice = ""
        self._open = True

    def __enter__(self) -> Progress:
        if self._console.terminal:
            self._live = LiveLines(self._console.terminal, self._lines, lambda text: _write(sys.stdout, text))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, n: int = 1, info: str = "") -> None:
        """Note that `n` more units are done; `info` describes the last one."""
        self.done += n
        console = self._console
        if console.silent:
            return
        now = console._clock()
        # the live lines draw themselves from this
        self._info = info or self._info
        if now - self._last_line >= LINE_EVERY:
            self._last_line = now
            line = self._line(now, f"{_hours(self._left(now))} left")
            if self._live is None and not console.quiet:
                _write(sys.stdout, line + "\n")
            console._to_log(line)

    def close(self) -> None:
        """Stop showing."""
        if not self._open:
            return
        self._open = False
        console = self._console
        if self._live is not None:
            self._live.close()
            self._live = None
        if console._progress is self:
            console._progress = None
        if not console.silent:
            now = console._clock()
            console._to_log(self._line(now, f"{_hours(now - self._start)} taken"))

    def at_once(self, text: str) -> None:
        """Show a line from the handler of a signal, which may not wait for anything."""
        if self._console.silent or self._console.quiet:
            return
        if self._live is not None:
            self._notice = text
        else:
            with contextlib.suppress(OSError):
                os.write(2, f"{text}\n".encode(errors="replace"))

    def _line(self, now: float, last: str) -> str:
        share = 100 * self.done / self.total if self.total else 100.0
        counts = f"{self._what}: {self.done}/{self.total} {self._unit} ({share:.1f}%)"
        return f"{counts}, {self._rate(now):.0f} {self._unit}/s, {last}"

    def print_above(self, text: str) -> bool:
        """Print lines above the live bar; False if there is none."""
        if self._live is None:
            return False
        self._live.print_above(text)
        return True

    def _rate(self, now: float) -> float:
        return (self.done - self._before) / max(now - self._start, 1e-9)

    def _left(self, now: float) -> float:
        return (self.total - self.done) / self._rate(now) if self.done > self._before else float("inf")

    def _lines(self, columns: int) -> list[str]:
        """The live lines: as much as there is room for, the most important first."""
        now = self._console._clock()
        share = self.done / self.total if self.total else 1.0
        counts = f"{self.done}/{self.total}"
        parts = {
            "what": self._what,
            "share": f"{int(100 * share):3d}%",
            "counts": f"{counts} {self._unit}",
            "rate": f"{self._rate(now):.0f}/s" if self.done > self._before else "",
            "taken": _hours(now - self._start),
            "left": f"{_hours(self._left(now))} left",
        }
        for name, shorter in (("", ""), ("taken", ""), ("counts", counts), ("rate", ""), ("what", ""), ("left", "")):
            parts |= {name: shorter} if name else {}
            shown = {key: text for key, text in parts.items() if text}
            room = columns - len(" ".join(shown.values())) - 1
            if room >= LEAST_BAR:
                break
        width = max(0, min(room, MOST_BAR))
        filled = int(width * share)
        bar = "━" * filled + "─" * (width - filled)
        first = parts.pop("what")
        line = " ".join(text for text in (first, bar, *parts.values()) if text)
        lines = [line, f"  last: {self._info}" if self._info else "", *wrap(self._notice, columns, "  ")]
        return [one[:columns] for one in lines if one]


def duration(seconds: float) -> str:
    """A time span for people: ``12.3 s``, ``01:02:03`` from a minute on."""
    return f"{seconds:.1f} s" if seconds < 59.95 else _hours(seconds)


def _hours(seconds: float) -> str:
    if seconds == float("inf"):
        return "--:--:--"
    whole = max(0, round(seconds))
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
