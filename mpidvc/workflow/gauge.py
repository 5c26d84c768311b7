"""The correlation window of a results file, which is part of the virtual strain gauge."""

from __future__ import annotations

import json
import re

from mpidvc.arrays import Triple
from mpidvc.workflow.determines import made_with, texts_of

__all__ = ["STRAIN_GAUGE", "WINDOW", "correlation_window", "gauge_window"]

#: Attribute of a results file that passes the window of the field it was made from on.
WINDOW = "correlation_window"
#: Attribute of a file of strains: the size of the virtual strain gauge in words, which begin with its numbers.
STRAIN_GAUGE = "virtual_strain_gauge"


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


def gauge_window(name: str) -> Triple | None:
    """Voxels along z, y, x that a point of a file stands for: those of its virtual strain gauge, or of its window."""
    told = texts_of(name).get(STRAIN_GAUGE)
    if told is None:
        return correlation_window(name)
    sizes = re.match(r"([\d.]+(?: x [\d.]+)+) voxels", told)
    if sizes is None or told.endswith("not known"):
        return None
    *z, y, x = (round(float(size)) for size in sizes[1].split(" x "))
    return (z[0] if z else 1), y, x
