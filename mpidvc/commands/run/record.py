"""The record of a run: which steps have been done, and with what. A finished step is not repeated."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mpidvc.atomic import replacing
from mpidvc.workflow.line import state_of

__all__ = ["Done", "Record"]


@dataclass(frozen=True)
class Done:
    """The end of a step.

    Attributes
    ----------
    status : int
        Exit status of its command.
    files : tuple of Path
        Its results, the most precise one first.
    """

    status: int
    files: tuple[Path, ...]


class Record:
    """What is known of the steps of a run, in a file in its folder; used on rank 0.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "steps.json"

    @cached_property
    def _told(self) -> dict[str, Any]:
        # read where it is used: on rank 0 alone
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(self._path.read_text(encoding="utf-8"))
            return told if isinstance(told, dict) else {}
        return {}

    def done(self, step: str, key: str) -> Done | None:
        """The end of a step, if it has been done as the key says and its files are still the same."""
        told: Any = self._told.get(step)
        try:
            if told["key"] != key or told["status"] is None:
                return None
            if any(state_of(Path(file)) != state for file, state in told["files"].items()):
                return None
            return Done(int(told["status"]), tuple(Path(file) for file in told["files"]))
        except (TypeError, KeyError, AttributeError, ValueError):
            return None

    def begun(self, step: str, key: str) -> bool:
        """Whether the files of a step, if there are any, were begun as the key says."""
        told = self._told.get(step)
        return not isinstance(told, dict) or (told.get("key") == key and told.get("status") is None)

    def begin(self, step: str, key: str, line: str) -> None:
        """Note that a step begins."""
        self._told[step] = {"line": line, "key": key, "status": None, "files": {}}
        self._write()

    def end(self, step: str, done: Done) -> None:
        """Note that a step has ended."""
        self._told[step].update(status=done.status, files={str(file): state_of(file) for file in done.files})
        self._write()

    def _write(self) -> None:
        with replacing(self._path) as made:
            Path(made).write_text(json.dumps(self._told, indent=1) + "\n", encoding="utf-8")
