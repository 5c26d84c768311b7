"""The record of ``mpidvc run``: which steps have been done, and with what. A finished step is not repeated."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mpidvc.atomic import replacing
from mpidvc.runtime.journal import in_use, locked
from mpidvc.workflow.line import state_of

__all__ = ["Done", "Record"]

#: Name of its file in the folder of a run.
NAME = "steps.json"


@dataclass(frozen=True)
class Done:
    """The end of a step.

    Attributes
    ----------
    status : int
        Exit status of its command.
    files : tuple of Path
        Its results, the most precise one first.
    value : object
        What it told, in JSON.
    said : tuple of str
        Why its result is not one to trust, and what helps, in lines.
    """

    status: int
    files: tuple[Path, ...]
    value: Any = None
    said: tuple[str, ...] = ()


class Record:
    """What is known of a run and of its steps, in a file in its folder; used on rank 0.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / NAME

    @cached_property
    def _told(self) -> dict[str, dict[str, Any]]:
        # read where it is used: on rank 0 alone
        told: Any = None
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(self._path.read_text(encoding="utf-8"))
        told = _dict(told)
        return {part: _dict(told.get(part)) for part in ("run", "steps")}

    # ---- the run

    @property
    def exists(self) -> bool:
        """Whether the folder is that of a run."""
        return bool(self._told["run"])

    @property
    def about(self) -> dict[str, Any]:
        """The run: its ``line``, the ``folder`` where that was given, its ``instruction set``, and its exit ``status``.

        The status is None until it ends. ``steps`` are the titles of those that it has come to, in their order: the
        file remembers those of earlier runs as well, with other options or images.
        """
        return self._told["run"]

    @property
    def instruction_set(self) -> str | None:
        """That of the run."""
        found = self.about.get("instruction set")
        return found if isinstance(found, str) else None

    @property
    def at_work(self) -> bool:
        """Whether a run is at work in the folder, as far as this host sees it."""
        return in_use(self._folder)

    @contextlib.contextmanager
    def of_run(self, line: str, instruction_set: str) -> Iterator[None]:
        """Keep other runs away from the folder, and note that this one is at work.

        Raises
        ------
        UserError
            If another one is.
        """
        with locked(self._folder):
            # what another one has written until now
            self.__dict__.pop("_told", None)
            told = {"line": line, "folder": str(Path.cwd()), "instruction set": instruction_set, "status": None}
            self._told["run"] = {**told, "steps": []}
            self._write()
            yield

    def end_run(self, status: int) -> None:
        """Note that the run has come to its end."""
        self._told["run"]["status"] = status
        self._write()

    # ---- its steps

    @property
    def steps(self) -> dict[str, int | None]:
        """Exit statuses of the steps that the run has come to, by their titles; None for one that has not ended."""
        statuses = {title: step.get("status") for title, step in self._come_to.items()}
        return {title: status if isinstance(status, int) else None for title, status in statuses.items()}

    @property
    def results(self) -> list[Path]:
        """Results files of these steps, wherever the folder is now."""
        files = [Path(file) for step in self._come_to.values() for file in _dict(step.get("files"))]
        # each lies in the folder of its step
        return [self._folder / file.parent.name / file.name for file in files if file.suffix == ".h5"]

    @property
    def _come_to(self) -> dict[str, dict[str, Any]]:
        """What is known of the steps that the run has come to."""
        steps, titles = self._told["steps"], self.about.get("steps")
        found = {title: _dict(steps.get(str(title))) for title in (titles if isinstance(titles, list) else steps)}
        return {title: step for title, step in found.items() if step}

    def done(self, step: str, key: str) -> Done | None:
        """The end of a step, if it has been done as the key says and its files are still the same."""
        told: Any = self._told["steps"].get(step)
        try:
            if told["key"] != key or told["status"] is None:
                return None
            if any(state_of(Path(file)) != state for file, state in told["files"].items()):
                return None
            files = tuple(Path(file) for file in told["files"])
            return Done(int(told["status"]), files, told["value"], tuple(told["said"]))
        except (TypeError, KeyError, AttributeError, ValueError):
            return None

    def begun(self, step: str, key: str) -> bool:
        """Whether the files of a step, if there are any, were begun as the key says."""
        told = self._told["steps"].get(step)
        return not isinstance(told, dict) or (told.get("key") == key and told.get("status") is None)

    def come_to(self, step: str) -> None:
        """Note that the run has come to a step that is done."""
        self._told["run"]["steps"].append(step)
        self._write()

    def begin(self, step: str, key: str, line: str) -> None:
        """Note that a step begins."""
        told: dict[str, Any] = {"line": line, "key": key, "status": None, "files": {}, "value": None, "said": []}
        self._told["steps"][step] = told
        self._told["run"]["steps"].append(step)
        self._write()

    def end(self, step: str, done: Done) -> None:
        """Note that a step has ended."""
        files = {str(file): state_of(file) for file in done.files}
        told = {"status": done.status, "files": files, "value": done.value, "said": list(done.said)}
        self._told["steps"][step].update(told)
        self._write()

    def _write(self) -> None:
        with replacing(self._path) as made:
            Path(made).write_text(json.dumps(self._told, indent=1) + "\n", encoding="utf-8")


def _dict(value: Any) -> dict[str, Any]:
    """A dict as it is, anything else as an empty one: the file may be damaged."""
    return value if isinstance(value, dict) else {}
