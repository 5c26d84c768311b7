"""Errors of a step in the words of a run, which has no ``--resume``: its own line goes on."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["in_own_words"]

#: How a step is begun again; `FOLDER` is that of the step.
_AGAIN = "remove FOLDER to begin it again"
#: What a command says to those who typed it, and what helps those who typed a run.
_WORDS = (
    (r"^--resume: ", ""),
    (r"(, or)? choose another name( for them)? by -pre(,? or)?", ""),
    (r"add --resume to (go on|save what can be saved), or --overwrite to begin again", _AGAIN),
    (
        r"(add )?--overwrite( to (begin|start) again| to (replace|measure) (it|them)( again)?| measures it again)?",
        _AGAIN,
    ),
    (r"finish it by the command that began it, with --resume", _AGAIN),
    (r"go on with --resume|start again, with --resume|--resume (goes on|\w+ (it|them) again)", "the same line goes on"),
)


def in_own_words(text: str, folder: Path) -> str:
    """A step's error, with the remedy for a run.

    Parameters
    ----------
    text : str
    folder : Path
        Of the step.
    """
    for pattern, own in _WORDS:
        text = re.sub(pattern, lambda _, own=own: own.replace("FOLDER", str(folder)), text)  # type: ignore[misc]
    return text
