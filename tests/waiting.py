"""Waiting in tests: for what is meant, not for a time that should do: other processes may take most of a machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["LONGEST", "state_of", "until"]

#: Seconds after which something has hung; on a busy machine all takes many times longer than alone.
LONGEST = 300.0


def until(condition: Callable[[], object], what: str, longest: float = LONGEST) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + longest
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)


def state_of(pid: int) -> str:
    """State of a process: R, S, D, T (suspended), Z …; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
