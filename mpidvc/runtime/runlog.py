"""The log of a run: everything that does not determine its result, in a JSON file beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mpidvc.atomic import replacing
from mpidvc.errors import UserError

__all__ = ["RunLog", "path_of"]

#: Seconds between two updates of a running run.
EVERY = 30.0


def path_of(results: Path) -> Path:
    """The run log of a results file."""
    return results.with_suffix(".run.json")


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
        before = self._before() if resumed else {}
        self._begun = time.monotonic()
        self._written = -EVERY
        self._warn: Callable[[str], None] | None = warn
        self._facts: dict[str, Any] = {
            **facts,
            "state": "running",
            "started": _now(),
            "updated": _now(),
            "resumes": int(before.get("resumes", 0)) + 1 if resumed else 0,
            "seconds_before": float(before.get("seconds_before", 0)) + float(before.get("seconds", 0)),
            "points": total,
            "done_at_start": done,
            "done": done,
        }
        self.update(done)

    def _before(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            return {}

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
