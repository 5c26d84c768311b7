"""What a command line determines: its words, and the files that they name, as they are now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpidvc.workflow.determines import version

__all__ = ["key_of", "state_of"]


def key_of(words: Sequence[str], *more: Any) -> str:
    """Checksum of a command line, of the files that it names, of the version, and of more that counts.

    Parameters
    ----------
    words : sequence of str
        Name of the command first: it is no file, even where something has that name.
    *more
        Numbers and texts.
    """
    told: list[Any] = [version(), *more, *words[:1]]
    for word in words[1:]:
        # an option may hold its value: --opt=file; an HDF5 file its dataset
        name = (word.partition("=")[2] if word.startswith("-") else word).partition("::")[0]
        told.append([word, state_of(Path(name)) if name else None])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def state_of(path: Path) -> list[Any] | None:
    """Size and date of a file, and those of the files in a folder; None if there is none."""
    try:
        if path.is_dir():
            return [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in sorted(path.iterdir())]
        state = path.stat()
    except (OSError, ValueError):
        return None
    return [state.st_size, state.st_mtime_ns]
