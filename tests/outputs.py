"""What a command has written into a folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["other_outputs", "outputs"]


def outputs(folder: Path) -> dict[str, bytes]:
    """Contents of all files but those that tell how a run went (``.run.json``), by their names in the folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".run.json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def other_outputs(folder: Path) -> set[str]:
    """Names of the files beside the results files, each of which has to have its ``.run.json``."""
    names = {path.name for path in folder.iterdir()}
    results = {name for name in names if name.endswith(".h5")}
    logs = {name.removesuffix(".h5") + ".run.json" for name in results}
    assert {name for name in names if name.endswith(".run.json")} == logs
    return names - results - logs
