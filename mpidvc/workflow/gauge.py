"""The correlation window of a results file, which is part of the virtual strain gauge."""

from __future__ import annotations

import json

from mpidvc.arrays import Triple
from mpidvc.fields.hdf5 import ResultsFile, is_hdf5

__all__ = ["WINDOW", "correlation_window"]

#: Attribute of a results file that passes the window of the field it was made from on.
WINDOW = "correlation_window"


def correlation_window(name: str) -> Triple | None:
    """Voxels along z, y, x that the correlation behind a file compared around each point; None if it does not say."""
    if not is_hdf5(name):
        return None
    with ResultsFile(name) as file:
        attributes = file.layout.attributes
    if WINDOW in attributes:
        z, y, x = json.loads(attributes[WINDOW])
        return z, y, x
    told = json.loads(attributes.get("determines", "{}"))
    hws = told.get("-hws")
    if not (isinstance(hws, list) and len(hws) == 3 and all(isinstance(half, int) for half in hws)):
        return None
    # the outermost layer of a window of ldic has no gradient
    less = -1 if told.get("command") == "ldic" else 1
    return max(2 * hws[0] + less, 1), 2 * hws[1] + less, 2 * hws[2] + less
