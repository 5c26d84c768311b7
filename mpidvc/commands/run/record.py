"""The record of a run: which steps have been done, and with what. A finished step is not repeated."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mpidvc.atomic import replacing
from mpidvc.workflow.determines import version

__all__ = ["Done", "Record", "key_of"]


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
            if any(_state(Path(file)) != state for file, state in told["files"].items()):
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
        self._told[step].update(status=done.status, files={str(file): _state(file) for file in done.files})
        self._write()

    def _write(self) -> None:
        with replacing(self._path) as made:
            Path(made).write_text(json.dumps(self._told, indent=1) + "\n", encoding="utf-8")


def key_of(words: Sequence[str]) -> str:
    """Checksum of all that determines the result of a command line: words, the files that they name, the version."""
    told: list[Any] = [version()]
    for word in words:
        # an option may hold its value: --opt=file; an HDF5 file its dataset
        name = (word.partition("=")[2] if word.startswith("-") else word).partition("::")[0]
        told.append([word, _state(Path(name)) if name else None])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _state(path: Path) -> list[Any] | None:
    """Size and date of a file, and those of the files in a folder; None if there is none."""
    try:
        if path.is_dir():
            return [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in sorted(path.iterdir())]
        state = path.stat()
    except (OSError, ValueError):
        return None
    return [state.st_size, state.st_mtime_ns]
