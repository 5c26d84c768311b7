"""Output for the user: lines, tables and progress, on the terminal and in a log file; silent on all ranks but 0."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from mpidvc.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

__all__ = ["QUIET", "TERMINAL", "Console", "Progress", "terminal_columns"]

#: Environment variable of the ranks, whose stdout is a pipe: columns of the terminal, 0 if there is none.
TERMINAL = "MPIDVC_TERMINAL"
#: Environment variable of the ranks that a Python program started: 1 if they print nothing.
QUIET = "MPIDVC_QUIET"
#: Seconds between progress lines where there is no terminal.
LINE_EVERY = 60.0


def terminal_columns(launched: bool) -> int:
    """Return the width of the terminal that stdout goes to, 0 if it goes elsewhere.

    Parameters
    ----------
    launched : bool
        Whether a launcher started this process. Its pipes may look like a terminal: only `TERMINAL` counts then.
    """
    told = os.environ.get(TERMINAL, "")
    if told.isdecimal():
        return int(told)
    if launched or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return 0
    return shutil.get_terminal_size().columns


class _Lines(Protocol):
    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


class Console:
    """Output of one command.

    Parameters
    ----------
    columns : int
        Width of the terminal; 0 for a file or pipe, which gets unwrapped lines and no live bar.
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
        columns: int = 0,
        log: str | None = None,
        silent: bool = False,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.columns = 0 if silent or quiet else columns
        self.silent = silent
        self.quiet = quiet
        #: What `warn` was told, whether it was shown or not.
        self.warnings: list[str] = []
        self._clock = clock
        self._progress: Progress | None = None
        self._log: TextIO | None = None
        if log is not None and not silent:
            _refuse_binary(log)
            try:
                self._log = Path(log).open("a", 1, "utf-8", "backslashreplace")  # noqa: SIM115
            except OSError as error:
                raise UserError(f"--log {log}: cannot be written ({error.strerror})") from None

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
        """Print lines."""
        self._show(text, sys.stdout)

    def note(self, text: str) -> None:
        """Print information that a user may want."""
        self._show(f"note: {text}", sys.stdout)

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        self.warnings.append(text)
        self._show(f"warning: {text}", sys.stderr)

    def error(self, text: str) -> None:
        """Print on stderr why the command ends; any rank may do so, even a silent one."""
        self.close_progress()
        _write(sys.stderr, text + "\n")
        self._to_log(text)

    def settings(self, title: str, values: Mapping[str, object]) -> None:
        """Print the settings of a run, one line each.

        Parameters
        ----------
        title : str
            For example ``mpidvc ldic``.
        values : mapping
            Names, printed in capitals, and values.
        """
        lines = [f"[{title}] Current Settings:", *(f"\t{name.upper()}: {value}" for name, value in values.items())]
        self.print("\n".join(lines))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a boxed table; columns of numbers are right-aligned."""
        cells = [[str(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        numeric = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(columns))]

        def rule(left: str, middle: str, right: str) -> str:
            return left + middle.join("─" * (width + 2) for width in widths) + right

        def line(row: Sequence[str]) -> str:
            parts = [
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, numeric, strict=True)
            ]
            return "│ " + " │ ".join(parts) + " │"

        top = rule("┌", "┬", "┐")
        lines = [title.center(len(top)).rstrip(), top, line(columns), rule("├", "┼", "┤")]
        self.print("\n".join([*lines, *map(line, cells), rule("└", "┴", "┘")]))

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

    def _show(self, text: str, stream: TextIO) -> None:
        if self.silent:
            return
        live = self._progress is not None and self._progress.print_above(text)
        if not (live or self.quiet):
            _write(stream, text + "\n")
        self._to_log(text)

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
        self._bar: RichProgress | None = None
        self._open = True

    def __enter__(self) -> Progress:
        if self._console.columns:
            self._bar = self._make_bar(self._console.columns)
            self._bar.add_task(
                self._what, total=self.total, completed=self.done, rate="", left="--:--:--", info="", unit=self._unit
            )
            self._bar.start()
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
        if self._bar is not None:
            # The bar draws itself four times a second from these values.
            task = self._bar.tasks[0]
            task.completed = self.done
            task.fields.update(rate=f"{self._rate(now):.0f}", left=_hours(self._left(now)))
            if info:
                task.fields["info"] = info
        if now - self._last_line >= LINE_EVERY:
            self._last_line = now
            line = self._line(now, f"{_hours(self._left(now))} left")
            if self._bar is None and not console.quiet:
                _write(sys.stdout, line + "\n")
            console._to_log(line)

    def close(self) -> None:
        """Stop showing."""
        if not self._open:
            return
        self._open = False
        console = self._console
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if console._progress is self:
            console._progress = None
        if not console.silent:
            now = console._clock()
            console._to_log(self._line(now, f"{_hours(now - self._start)} taken"))

    def _line(self, now: float, last: str) -> str:
        share = 100 * self.done / self.total if self.total else 100.0
        counts = f"{self._what}: {self.done}/{self.total} {self._unit} ({share:.1f}%)"
        return f"{counts}, {self._rate(now):.0f} {self._unit}/s, {last}"

    def print_above(self, text: str) -> bool:
        """Print lines above the live bar; False if there is none."""
        if self._bar is None:
            return False
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        return True

    def _rate(self, now: float) -> float:
        return (self.done - self._before) / max(now - self._start, 1e-9)

    def _left(self, now: float) -> float:
        return (self.total - self.done) / self._rate(now) if self.done > self._before else float("inf")

    def _make_bar(self, columns: int) -> RichProgress:
        from rich import progress as bars
        from rich.console import Console as RichConsole
        from rich.console import RenderableType
        from rich.table import Column
        from rich.text import Text

        class Terminal(RichConsole):
            def show_cursor(self, show: bool = True) -> bool:
                # A job that is killed could not show a hidden cursor again.
                return False

        class Bar(bars.Progress):
            def get_renderables(self) -> list[RenderableType]:
                lines: list[RenderableType] = list(super().get_renderables())
                info = str(self.tasks[0].fields["info"]) if self.tasks else ""
                if info:
                    lines.append(Text(f"  last: {info}", no_wrap=True, overflow="ellipsis"))
                # Launchers forward whole lines only: the visible ones need one more after them.
                return [*lines, Text("")]

        def text(form: str) -> bars.TextColumn:
            return bars.TextColumn(form, markup=False, table_column=Column(no_wrap=True))

        return Bar(
            text("{task.description}"),
            bars.BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
            text("{task.percentage:>3.0f}%"),
            text("{task.completed}/{task.total} {task.fields[unit]}"),
            text("{task.fields[rate]}/s"),
            bars.TimeElapsedColumn(),
            text("{task.fields[left]} left"),
            console=Terminal(file=sys.stdout, force_terminal=True, width=columns, legacy_windows=False),
            refresh_per_second=4,
            expand=True,
        )


def _hours(seconds: float) -> str:
    if seconds == float("inf"):
        return "--:--:--"
    whole = max(0, round(seconds))
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
