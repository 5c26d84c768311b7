"""Digital image and volume correlation with MPI.

Every command is a function: ``mpidvc.ldic([im1, im2], node_spacing=20, half_window_size=10)``. `read_field` reads the
files that commands have written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpidvc.errors import UserError as UserError
    from mpidvc.fields.phifield import PhiField as PhiField
    from mpidvc.fields.read import read_field as read_field

__version__ = "0.1.0"

#: Modules of names that are loaded when they are used.
_PLACES = {
    "PhiField": "mpidvc.fields.phifield",
    "UserError": "mpidvc.errors",
    "read_field": "mpidvc.fields.read",
}


def __getattr__(name: str) -> Any:
    """Load what is used: importing the package loads neither numpy nor MPI."""
    if name == "__all__":
        return __dir__()
    found = None
    if name in _PLACES:
        import importlib

        found = getattr(importlib.import_module(_PLACES[name]), name)
    elif not name.startswith("_"):
        from mpidvc.api import function

        found = function(name)
    if found is None:
        raise AttributeError(f"module 'mpidvc' has no attribute {name!r}", name=name, obj=__import__(__name__))
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    from mpidvc.api import names

    return sorted(["__version__", *_PLACES, *names()])
