"""The correlation window of a results file, which is part of the virtual strain gauge."""

from __future__ import annotations

import json

from mpidvc.arrays import Triple
from mpidvc.workflow.determines import made_with, texts_of

__all__ = ["WINDOW", "correlation_window"]

#: Attribute of a results file that passes the window of the field it was made from on.
WINDOW = "correlation_window"


def correlation_window(name: str) -> Triple | None:
    """Voxels along z, y, x that the correlation behind a file compared around each point; None if it does not say."""
    texts = texts_of(name)
    if WINDOW in texts:
        z, y, x = json.loads(texts[WINDOW])
        return z, y, x
    told = made_with(texts)
    hws = told.get("-hws")
    if not (isinstance(hws, list) and len(hws) == 3 and all(isinstance(half, int) for half in hws)):
        return None
    # the outermost layer of a window of ldic has no gradient
    less = -1 if told.get("command") == "ldic" else 1
    return max(2 * hws[0] + less, 1), 2 * hws[1] + less, 2 * hws[2] + less
