"""Where a result comes from: the settings and command lines of its run and of those before, and their images."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpidvc.cli.command import Command
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.read import read_field
from mpidvc.images.fingerprint import fingerprint
from mpidvc.images.image import Image, open_image
from mpidvc.runtime.runlog import Past, path_of, read_log
from mpidvc.tasks.grey import with_limits
from mpidvc.workflow.determines import made_with, texts_of
from mpidvc.workflow.motion import REMOVED, removed_motions
from mpidvc.workflow.output import base_name

__all__ = ["Step", "find_images", "find_labels", "open_step", "removed_before", "steps_before"]

#: Fields that led to a field, at most.
MOST = 8
#: What an image is called among what determines a result.
IMAGES = ("image 1", "image 2")


@dataclass(frozen=True)
class Step:
    """A result, and what is known of its run.

    Attributes
    ----------
    path : Path
    texts : mapping of str
        Of its results file; none for a text file.
    settings : dict
        What determines it.
    run : Past
        Its run log.
    """

    path: Path
    texts: Mapping[str, str]
    settings: dict[str, Any]
    run: Past

    @property
    def command(self) -> str:
        """The command that made it, "" if that is not known."""
        return self.texts.get("command", "")

    def read(self) -> PhiField:
        """The field.

        Raises
        ------
        UserError
            If it cannot be read.
        """
        return read_field(self.path)


def open_step(path: str | Path) -> Step:
    """What is known of a result.

    Raises
    ------
    UserError
        If it is HDF5, and damaged or none of ours.
    """
    place = Path(path)
    texts = texts_of(str(place))
    return Step(place, texts, made_with(texts), read_log(path_of(place)))


def _options(step: Step, commands: Mapping[str, Command]) -> Any:
    """The parsed options of a step's command line; None if there is none that can be parsed."""
    words = shlex.split(step.run.command_line)[1:]
    if not words or words[0] not in commands:
        return None
    try:
        return commands[words[0]].parse(words[1:])
    except UserError:
        return None


def _found(step: Step, given: str) -> str:
    """A file of a command line: where it was then, or else beside the result."""
    there = Path(step.run.folder or ".") / given
    file, _, dataset = str(there).partition("::")
    beside = step.path.parent / Path(file).name
    if not Path(file).exists() and beside.exists():
        return f"{beside}::{dataset}" if dataset else str(beside)
    return str(there)


def steps_before(step: Step, commands: Mapping[str, Command]) -> list[Step]:
    """The fields that led to a result, the nearest first: what its ``-pf`` was, and so on; those that are still there.

    Parameters
    ----------
    step : Step
    commands : mapping of str to Command
    """
    found: list[Step] = []
    seen = {step.path.resolve()}
    while len(found) < MOST:
        options = _options(step, commands)
        given = getattr(options, "phi_file", None)
        if not isinstance(given, str):
            break
        path = Path(_found(step, given))
        # the text file beside a results file says less
        results = path.with_suffix(".h5")
        path = results if path.suffix == ".tsv" and results.is_file() else path
        if path.resolve() in seen or not path.is_file():
            break
        seen.add(path.resolve())
        try:
            step = open_step(path)
        except UserError:
            break
        found.append(step)
    return found


def find_images(step: Step, commands: Mapping[str, Command]) -> tuple[Image, Image] | None:
    """The images that a result was measured on, if they are still where they were, or beside it, and still the same.

    Parameters
    ----------
    step : Step
        Of a correlation, or of a field made from one.
    commands : mapping of str to Command
    """
    for one in (step, *steps_before(step, commands)):
        marks = [one.settings.get(name) for name in IMAGES]
        if None in marks:
            continue
        found = [next(_same(one, commands, mark), None) for mark in marks]
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
        return None
    return None


def removed_before(step: Step, commands: Mapping[str, Command]) -> list[dict[str, Any]]:
    """The motions that were removed from a field since its correlation, the first one first: kind, Phi and centre.

    Parameters
    ----------
    step : Step
    commands : mapping of str to Command
    """
    for one in (step, *steps_before(step, commands)):
        if REMOVED in one.texts:
            # with those that had been removed before
            with contextlib.suppress(ValueError, TypeError, KeyError):
                return removed_motions(str(one.path))
        if all(name in one.settings for name in IMAGES):
            break
    return []


def find_labels(step: Step, commands: Mapping[str, Command]) -> Image | None:
    """The image of the labels that a result was measured on, if it is still there and the same.

    Parameters
    ----------
    step : Step
        Of ddic, or of a field made from one.
    commands : mapping of str to Command
    """
    for one in (step, *steps_before(step, commands)):
        mark = one.settings.get("labels")
        if isinstance(mark, dict):
            return next(_same(one, commands, mark, labels=True), None)
    return None


def _same(step: Step, commands: Mapping[str, Command], mark: Any, labels: bool = False) -> Iterator[Image]:
    """The images, or the labels, of a step's command line that have this fingerprint."""
    options = _options(step, commands)
    if options is None:
        return
    if labels:
        named = [getattr(options, name, None) for name in ("lab1", "labels1")]
    else:
        named = [getattr(options, name, None) for name in ("im1", "im2")]
        named += [*(getattr(options, "images", None) or []), *(getattr(options, "more", None) or [])]
    given = [name for name in named if isinstance(name, str)]
    # those in the name of the result first: a series has many
    given.sort(key=lambda name: base_name(name) not in step.path.name)
    for name in dict.fromkeys(given):
        try:
            there = _found(step, name)
            image = open_image(there, "labels") if labels else with_limits(open_image(there))
            alike = list(image.shape) == mark.get("shape") and image.dtype.name == mark.get("dtype")
            if alike and fingerprint(image) == mark:
                yield image
        except (UserError, OSError, AttributeError):
            continue
