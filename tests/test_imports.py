"""Imports point one way: every import of the package, in functions too, against the order of the rooms."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpidvc

PACKAGE = Path(mpidvc.__file__).parent
SOURCES = PACKAGE.parent / "cython_ext"

#: The rooms from top to bottom. A module belongs to the room with the longest prefix of its name, and may import from
#: its own room and from lines below. Rooms of the same line do not see each other.
ROOMS = [
    ["mpidvc.__main__"],
    ["mpidvc.main"],
    ["mpidvc.commands.demo", "mpidvc.commands.run", "mpidvc.ewoks"],  # users of the API
    ["mpidvc.api"],
    ["mpidvc.commands.*"],  # every command is a room of its own
    ["mpidvc.commands"],  # the table of commands
    ["mpidvc.gui"],  # the window of ereg
    ["mpidvc.workflow"],
    ["mpidvc.cli"],
    ["mpidvc.tasks"],
    ["mpidvc.runtime"],
    ["mpidvc.fields", "mpidvc.images"],
    ["mpidvc.core"],
    ["mpidvc.kernels"],
    # for all: they know nothing of the rest
    ["mpidvc.errors", "mpidvc.atomic", "mpidvc.rowfile", "mpidvc.arrays", "mpidvc"],
]
#: The line whose rooms see each other.
SHARED = len(ROOMS) - 1
#: The door of the package: it opens these when a name of theirs is asked for.
DOOR = {("mpidvc", f"mpidvc.{module}") for module in ("api", "fields.phifield", "fields.read")}


def place_of(module: str) -> tuple[int, str]:
    """Line and room of a module; the room is the part of its name that its neighbours share."""
    parts = module.split(".")
    exact = {room: line for line, rooms in enumerate(ROOMS) for room in rooms}
    if module in exact:
        return exact[module], module
    for k in range(len(parts) - 1, 1, -1):
        prefix = ".".join(parts[:k])
        if prefix in exact and prefix != "mpidvc.commands":
            return exact[prefix], prefix
    if parts[:2] == ["mpidvc", "commands"]:
        return exact["mpidvc.commands.*"], ".".join(parts[:3])
    raise AssertionError(f"{module} is in no room: add it to the map")


def allowed(source: str, target: str) -> bool:
    (above, room), (below, other) = place_of(source), place_of(target)
    return above < below or room == other or above == below == SHARED


# ---- what modules import


def modules() -> dict[str, Path]:
    found = {}
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, module: str, is_package: bool, known: set[str]) -> Iterator[tuple[str, int]]:
    """Modules of the package that are imported anywhere in a tree, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                around = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*around, base] if base else around)
            # a name may be a module of the package, or something in it
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        else:
            continue
        for name in names:
            if name.partition(".")[0] == "mpidvc":
                yield name, node.lineno


def imports() -> dict[tuple[str, str], str]:
    """Every import (from, to), and where it stands."""
    known = modules()
    edges: dict[tuple[str, str], str] = {}
    for module, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for target, line in imported(tree, module, path.name == "__init__.py", set(known)):
            if target != module and (module, target) not in DOOR:
                edges.setdefault((module, target), f"{path.relative_to(PACKAGE.parent)}:{line}")
    for path in SOURCES.glob("*.pyx"):
        for found in re.finditer(r"^\s*(?:from|c?import) (mpidvc[\w.]*)(?: c?import (\w+))?", path.read_text(), re.M):
            name = f"{found[1]}.{found[2]}"
            target = name if name in known else found[1]
            edges.setdefault((f"mpidvc.kernels.{path.stem}", target), f"{path.relative_to(PACKAGE.parent)}")
    return edges


def circles(edges: set[tuple[str, str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or not (Tarjan's components of more than one)."""
    following: dict[str, list[str]] = {}
    for source, target in sorted(edges):
        following.setdefault(source, []).append(target)
    reached: dict[str, set[str]] = {}
    for start in following:
        seen, waiting = set(), list(following[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += following.get(module, [])
        reached[start] = seen
    groups = {frozenset({a} | {b for b in reached[a] if a in reached.get(b, ())}) for a in reached if a in reached[a]}
    return sorted(sorted(group) for group in groups)


# ---- the tests


def test_no_import_points_up() -> None:
    wrong = {edge: where for edge, where in imports().items() if not allowed(*edge)}
    assert [f"{where}: {source} imports {target}" for (source, target), where in sorted(wrong.items())] == []


def test_no_circles() -> None:
    assert circles(set(imports())) == []


def test_the_map_has_no_room_too_many() -> None:
    """Rooms that are no module and hold none are mistakes of the map."""
    known = modules()
    for room in (room for rooms in ROOMS for room in rooms):
        assert room in known or any(name.startswith(room.rstrip("*").rstrip(".") + ".") for name in known)


@pytest.mark.parametrize(
    ("source", "target", "good"),
    [
        ("mpidvc.main", "mpidvc.api", True),
        ("mpidvc.api", "mpidvc.main", False),
        ("mpidvc.ewoks.preeval", "mpidvc.api", True),
        ("mpidvc.ewoks.preeval", "mpidvc.commands.demo.run", False),
        ("mpidvc.api", "mpidvc.ewoks.preeval", False),
        ("mpidvc.commands.demo.run", "mpidvc.api", True),
        ("mpidvc.commands.demo.run", "mpidvc.commands.ldic.run", True),
        ("mpidvc.commands.ldic.run", "mpidvc.commands.ldic.options", True),
        ("mpidvc.commands.ldic.run", "mpidvc.commands.reg.run", False),
        ("mpidvc.commands.ldic.run", "mpidvc.commands.demo", False),
        ("mpidvc.commands.ldic.run", "mpidvc.workflow.results", True),
        ("mpidvc.workflow.results", "mpidvc.commands.ldic.run", False),
        ("mpidvc.cli.parser", "mpidvc.commands", False),
        ("mpidvc.commands", "mpidvc.cli.parser", True),
        ("mpidvc.commands.ldic.run", "mpidvc.commands", True),
        ("mpidvc.commands", "mpidvc.commands.ldic", False),
        ("mpidvc.cli.parser", "mpidvc.workflow.results", False),
        ("mpidvc.images.tiff", "mpidvc.fields.hdf5", False),
        ("mpidvc.fields.hdf5", "mpidvc.images.pair", False),
        ("mpidvc.core.boxes", "mpidvc.kernels.correlation", True),
        ("mpidvc.core.boxes", "mpidvc.images.image", False),
        ("mpidvc.kernels.correlation", "mpidvc.core.boxes", False),
        ("mpidvc.commands.ereg.run", "mpidvc.gui.start", True),
        ("mpidvc.gui.model", "mpidvc.tasks.registration", True),
        ("mpidvc.workflow.results", "mpidvc.gui.model", False),
        ("mpidvc.gui.files", "mpidvc.commands.ereg.options", False),
        ("mpidvc.rowfile", "mpidvc.errors", True),
        ("mpidvc.errors", "mpidvc.core", False),
        ("mpidvc.core.grid", "mpidvc.arrays", True),
    ],
)
def test_order(source: str, target: str, good: bool) -> None:
    assert allowed(source, target) is good


#: The modules of the window that know Qt; all other modules never import it.
WIDGETS = {f"mpidvc.gui.{name}" for name in ("canvas", "dialogs", "histogram", "panels", "start", "window", "worker")}


def test_qt_is_known_to_the_widgets_of_the_window_only() -> None:
    qt = re.compile(r"^\s*(?:from|import) (PySide6|PyQt\d|qtpy|shiboken6)\b", re.MULTILINE)
    found = {name for name, path in modules().items() if qt.search(path.read_text(encoding="utf-8"))}
    assert found == WIDGETS


def test_unknown_rooms_are_told() -> None:
    with pytest.raises(AssertionError, match="in no room"):
        place_of("mpidvc.attic.chest")


def test_every_kind_of_import_is_seen() -> None:
    text = """
import mpidvc.core.grid as g
from mpidvc import errors
from mpidvc.core import boxes, registration
from mpidvc.fields.tsv import read_tsv
from . import sibling
from .sibling import name
from ..images import pair
if TYPE_CHECKING:
    from mpidvc.runtime.executor import Executor
def f():
    class C:
        from mpidvc.tasks import ldic
    import numpy, mpidvc.main
"""
    known = {
        "mpidvc.errors",
        "mpidvc.core.boxes",
        "mpidvc.core.registration",
        "mpidvc.tasks.ldic",
        "mpidvc.images.pair",
    }
    known |= {"mpidvc.here.sibling"}
    found = {name for name, _ in imported(ast.parse(text), "mpidvc.here.module", False, known)}
    assert found == {
        *known,
        "mpidvc.core.grid",
        "mpidvc.fields.tsv",
        "mpidvc.runtime.executor",
        "mpidvc.main",
    }
    inside = {name for name, _ in imported(ast.parse("from . import sibling"), "mpidvc.here", True, known)}
    assert inside == {"mpidvc.here.sibling"}


def test_circles_are_seen() -> None:
    edges = {("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e"), ("x", "y"), ("y", "x")}
    assert circles(edges) == [["a", "b", "c"], ["x", "y"]]
    assert circles({("a", "b"), ("b", "c"), ("a", "c")}) == []
