"""Whether a window can be shown here: what is missing is told in a line, where Qt itself would end the process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys

from mpidvc.errors import UserError

__all__ = ["need_window"]

#: What is tried in a process of its own, which Qt may end.
TRIAL = "from PySide6.QtWidgets import QApplication; QApplication(['trial'])"
#: Seconds that it may take.
PATIENCE = 60.0
#: Libraries of the system that Qt needs, as Debian calls them.
LIBRARIES = "libegl1 libgl1 libdbus-1-3 libfontconfig1 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1"
#: From this version on PySide6 needs a Python whose None is immortal, and does not say so.
FORGETFUL, IMMORTAL = (6, 12), (3, 12)


def need_window() -> None:
    """Check that there is a Qt that works, and a display.

    Raises
    ------
    UserError
        If not; says what to do.
    """
    if importlib.util.find_spec("PySide6") is None:
        raise UserError('the window needs PySide6, which is not installed; pip install "mpidvc[gui]"')
    if sys.version_info < IMMORTAL and _version() >= FORGETFUL:
        raise UserError(
            f"PySide6 {'.'.join(map(str, _version()))} loses references before Python 3.12 and would end the program "
            'after a while; pip install "PySide6-Essentials<6.12"'
        )
    platform = os.environ.get("QT_QPA_PLATFORM", "")
    displays = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not (platform or displays):
        raise UserError("there is no display for the window; run it on a desktop, or log in by ssh -X")
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRIAL],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"Qt has not begun within {PATIENCE:.0f} s; check the display") from None
    if done.returncode != 0:
        raise UserError(
            f"Qt cannot show a window here ({_reason(done.stderr)}); check the display, and install what it lacks "
            f"(Debian: apt install {LIBRARIES})"
        )


def _version() -> tuple[int, ...]:
    """Version of PySide6: major and minor."""
    for name in ("PySide6-Essentials", "PySide6"):
        try:
            return tuple(int(part) for part in importlib.metadata.version(name).split(".")[:2])
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
    return (0, 0)


def _reason(told: str) -> str:
    """The line that says most, of what a process told before it was ended."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    for sign in ("is needed to load", "could not connect", "Error: ", "Could not"):
        found = next((line for line in lines if sign in line), None)
        if found is not None:
            return found[:200]
    return lines[-1][:200] if lines else "it was ended"
