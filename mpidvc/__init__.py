"""Digital image and volume correlation with MPI.

Every command is a function here: ``mpidvc.ldic([im1, im2], node_spacing=20, half_window_size=10)``. ``read_field``
reads what commands have written.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

__all__ = ["PhiField", "UserError", "__version__", "read_field"]

#: Modules of names that are loaded when they are used.
_PLACES = {
    "PhiField": "mpidvc.fields.phifield",
    "UserError": "mpidvc.errors",
    "read_field": "mpidvc.fields.read",
}


def __getattr__(name: str) -> Any:
    """Load what is used: importing the package loads neither numpy nor MPI."""
    if name.startswith("__"):
        raise AttributeError(name)
    if name in _PLACES:
        found = getattr(importlib.import_module(_PLACES[name]), name)
    else:
        from mpidvc.api import functions

        found = functions().get(name)
        if found is None:
            raise AttributeError(f"module 'mpidvc' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    from mpidvc.api import functions

    return sorted({*globals(), *__all__, *functions()})
