"""The log of a run: everything that does not determine its result, in a JSON file beside it."""

from __future__ import annotations

import json
import shlex
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mpidvc.atomic import replacing
from mpidvc.errors import UserError

__all__ = ["Past", "RunLog", "path_of", "read_log"]

#: Seconds between two updates of a running run.
EVERY = 30.0
#: Bytes that a log has at most; one with a line for each of ten thousand lost processes is shorter.
LONGEST = 2**24
#: Numbers beyond this are none: seconds, processes and points of any run are fewer.
MOST = 2**53
#: Categories of characters that are no part of a line: controls, halves of characters, ends of lines.
NO_LINE = ("Cc", "Cs", "Zl", "Zp")


def path_of(results: Path) -> Path:
    """The run log of a results file."""
    return results.with_suffix(".run.json")


@dataclass(frozen=True)
class Past:
    """The facts of a run log that are there and make sense; times in seconds since the epoch."""

    state: str = ""
    started: float | None = None
    updated: float | None = None
    seconds: float | None = None
    seconds_before: float = 0.0
    done_at_start: int = 0
    ranks: int | None = None
    resumes: int | None = None
    lost: list[str] = field(default_factory=list)
    command_line: str = ""
    folder: str = ""
    hosts: list[str] = field(default_factory=list)


def read_log(path: Path) -> Past:
    """Read a run log; a fact that is missing or damaged is absent, and so are all facts of an unreadable file."""
    try:
        # a pipe would be waited for
        told = json.loads(path.read_text(encoding="utf-8")) if _is_short_file(path) else {}
    except (OSError, ValueError, RecursionError):
        told = {}
    if not isinstance(told, dict):
        told = {}
    lost, hosts = told.get("lost"), told.get("hosts")
    return Past(
        _text(told.get("state")),
        _moment(told.get("started")),
        _moment(told.get("updated")),
        _number(told.get("seconds")),
        _number(told.get("seconds_before")) or 0.0,
        _count(told.get("done_at_start")) or 0,
        _count(told.get("ranks")),
        _count(told.get("resumes")),
        [line for line in map(_text, lost) if line] if isinstance(lost, list) else [],
        _words(told.get("command_line")),
        _text(told.get("folder")),
        [name for name in map(_text, hosts) if name] if isinstance(hosts, dict) else [],
    )


def _is_short_file(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= LONGEST


def _text(value: object) -> str:
    """A text of one line, "" for everything else."""
    if not isinstance(value, str) or any(unicodedata.category(character) in NO_LINE for character in value):
        return ""
    return value


def _words(value: object) -> str:
    """A command line, "" if it is none."""
    try:
        shlex.split(_text(value))
    except ValueError:
        return ""
    return _text(value)


def _number(value: object) -> float | None:
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST
    return float(value) if is_one else None  # type: ignore[arg-type]


def _count(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


def _moment(value: object) -> float | None:
    try:
        # "Z" is understood from Python 3.11 on only
        parsed = datetime.fromisoformat(_text(value).replace("Z", "+00:00"))
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None


class RunLog:
    """The log of a run, kept up to date while it works.

    Parameters
    ----------
    results : Path
        The results file.
    resumed : bool
        Whether the run resumes an earlier one, whose numbers are kept.
    facts : dict
        Facts known from the beginning: command line, ranks, hosts …
    done : int
        Points that were done already.
    total : int
        All points.
    warn : callable
        Called once if the file cannot be written; the run continues without it.
    """

    def __init__(
        self, results: Path, resumed: bool, facts: dict[str, Any], done: int, total: int, warn: Callable[[str], None]
    ) -> None:
        self.path = path_of(results)
        before = read_log(self.path) if resumed else Past()
        self._begun = time.monotonic()
        self._written = -EVERY
        self._warn: Callable[[str], None] | None = warn
        self._facts: dict[str, Any] = {
            **facts,
            "state": "running",
            "started": _now(),
            "updated": _now(),
            "resumes": (before.resumes or 0) + 1 if resumed else 0,
            "seconds_before": before.seconds_before + (before.seconds or 0.0),
            "points": total,
            "done_at_start": done,
            "done": done,
        }
        self.update(done)

    def update(self, done: int) -> None:
        """Note the number of points done; written every half minute."""
        self._facts["done"] = done
        if time.monotonic() - self._written > EVERY:
            self._write()

    def close(self, state: str, results: Path | None = None, **facts: Any) -> None:
        """Note the end of the run: ``finished`` or ``stopped``.

        Parameters
        ----------
        state : str
        results : Path, optional
            Results file that the file goes to, if the run was kept beside it.
        **facts
            Facts to add.
        """
        self._facts |= {"state": state, **facts}
        before = self.path
        self.path = before if results is None else path_of(results)
        self._write()
        if before != self.path:
            before.unlink(missing_ok=True)

    def _write(self) -> None:
        self._written = time.monotonic()
        self._facts |= {"updated": _now(), "seconds": round(self._written - self._begun, 3)}
        try:
            with replacing(self.path, durable=False) as temporary:
                temporary.write_text(json.dumps(self._facts, indent=1) + "\n", encoding="utf-8")
        except UserError as error:
            if self._warn is not None:
                self._warn(str(error))
                self._warn = None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
