"""The run of ``mpidvc run``: the plan, and the road from step to step."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpidvc import api
from mpidvc.atomic import replacing
from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.cli.keywords import signature, words
from mpidvc.commands import COMMANDS
from mpidvc.commands.run.choice import Choice, complete, without_images
from mpidvc.commands.run.recipe import STEPS, Recipe, read_recipe
from mpidvc.commands.run.words import in_own_words
from mpidvc.errors import AgreedError, UserError
from mpidvc.fields.read import read_field
from mpidvc.images.image import open_image
from mpidvc.kernels import correlation
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.stop import keep, within
from mpidvc.tasks.ranks import ISA_VARIABLE, agree_on_instruction_set, on_leader
from mpidvc.workflow.inputs import open_pair
from mpidvc.workflow.labels import open_labels
from mpidvc.workflow.line import key_of
from mpidvc.workflow.output import base_name, make_folder, output_folder
from mpidvc.workflow.record import Done, Record

if TYPE_CHECKING:
    from mpidvc.tasks.ranks import Team

__all__ = ["Plan"]

#: CPU seconds per voxel of an image: whether ranks pay.
SECONDS = 1e-6
#: Return statuses of points that the filter corrects.
BAD = (1, -1, -2, -3, -4)
#: Options of a series, which say nothing of a single pair.
OF_SERIES = ("warm_start", "update_reference", "series_incremental")
#: Options that change no result, and are passed on to every step.
RUNNING = ("lazy", "image_mode", "memory", "all_settings")


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """Scans to be measured, and how.

    Attributes
    ----------
    images : tuple of str
    mask1, labels1 : str or None
    folder : Path
    recipe : Recipe
        As given, with what needs no image to be chosen.
    two_d : bool
    keep_going : bool
    running : dict
        Options that are passed on to every step.
    again : str
        The command line that goes on.
    instruction_set : str or None
        That of the run that is gone on with.
    """

    images: tuple[str, ...]
    mask1: str | None
    labels1: str | None
    folder: Path
    recipe: Recipe
    two_d: bool
    keep_going: bool
    running: dict[str, Any]
    again: str
    instruction_set: str | None

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        given = read_recipe(args.recipe) if args.recipe else Recipe()
        first = open_image(args.images[0])
        for path in args.images[1:]:
            open_pair(args.images[0], path, args.mask1)
        if args.labels1 is not None:
            open_labels(args.labels1, first)
        folder = output_folder(argparse.Namespace(out_dir=args.out_dir, prefix=None), args.out_dir)
        return cls(
            images=tuple(args.images),
            mask1=args.mask1,
            labels1=args.labels1,
            folder=folder,
            recipe=without_images(given, args.labels1 is not None, first.two_d),
            two_d=first.two_d,
            keep_going=args.keep_going,
            running={name: getattr(args, name) for name in RUNNING},
            again=args.command_line,
            instruction_set=None if ISA_VARIABLE in os.environ else Record(folder).instruction_set,
            estimated_seconds=SECONDS * float(np.prod(first.shape)) * (len(args.images) - 1),
        )

    def configure(self, executor: Executor) -> None:
        # the same one in every step and in every part of a run, where the processors have it: it determines the results
        try:
            agree_on_instruction_set(executor, self.instruction_set)
        except AgreedError:
            agree_on_instruction_set(executor)

    def execute(self, executor: Executor, console: Console) -> Outcome:
        record = Record(self.folder)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_kept(correlation.instruction_set()))

            def begin() -> None:
                make_folder(self.folder)
                stack.enter_context(record.of_run(self.again, correlation.instruction_set()))

            on_leader(executor, begin)
            road = _Road(self, record, executor, console)
            try:
                with within(self.again):
                    road.follow()
            except _DistrustError as reason:
                console.warn(f"stopped after {reason}: its result is not one to trust, see above; or add --keep-going")
            except UserError as error:
                if not road.distrusted:
                    raise
                # what was kept going ends where nothing is left to go on with
                console.warn(str(error))
            status = 1 if road.distrusted else 0
            on_leader(executor, lambda: record.end_run(status))
            return Outcome(status, road.results, tuple(road.results))


@contextlib.contextmanager
def _kept(instruction_set: str) -> Iterator[None]:
    """Let every step choose this instruction set."""
    before = os.environ.get(ISA_VARIABLE)
    os.environ[ISA_VARIABLE] = instruction_set
    try:
        yield
    finally:
        if before is None:
            del os.environ[ISA_VARIABLE]
        else:
            os.environ[ISA_VARIABLE] = before


class _DistrustError(Exception):
    """A step whose result is not one to trust."""


class _Road:
    """The steps, each from the results of those before; every rank follows it.

    Parameters
    ----------
    plan : Plan
    record : Record
        Used on rank 0.
    executor : Executor
    console : Console

    Attributes
    ----------
    distrusted : bool
        Whether a step had a result that is not one to trust.
    results : list of Path
        Results files of the measurement, one for each pair; the last ones that were made.
    """

    def __init__(self, plan: Plan, record: Record, executor: Executor, console: Console) -> None:
        self._plan, self._record, self._executor, self._console = plan, record, executor, console
        self._recipe = plan.recipe
        self.distrusted = False
        #: Files of all steps so far.
        self._made: list[Path] = []
        self.results: list[Path] = []

    def follow(self) -> None:
        """Do all steps that are not done yet."""
        plan = self._plan
        self._write_recipe()
        first, second = plan.images[:2]
        guess = self._registration(first, second)
        name = "ddic" if plan.labels1 else "ldic"
        if plan.labels1:
            given: dict[str, Any] = {"im1": first, "lab1": plan.labels1, "im2": second, "more": list(plan.images[2:])}
        else:
            guess = self._search(first, second, guess)
            given = {"images": list(plan.images), "mask1": plan.mask1}
        if len(plan.images) > 2:
            given["warm_start"] = True
        found = self._step(name, {**given, "phi_file": guess})
        pairs = [(first, image) for image in plan.images[1:]]
        if self._recipe.options(name).get("series_incremental"):
            pairs = list(pairwise(plan.images))
        self.results = [path for path in found if path.suffix == ".h5"]
        self.results = [self._improved(name, path, *pair) for path, pair in zip(self.results, pairs, strict=True)]
        for path, (first, image) in zip(self.results, pairs, strict=True):
            if not plan.labels1 and not self._recipe.left_out("regularStrain"):
                self._step("regularStrain", {"phi_file": path}, path.stem)
            if not self._recipe.left_out("deformImage"):
                options = {
                    "im1": first,
                    "phi_file": path,
                    "im2": image,
                    "prefix": f"{base_name(first)}-{base_name(image)}",
                }
                self._step("deformImage", options, path.stem)
        self._report()

    def _report(self) -> None:
        """Judge the results in a page."""
        if on_leader(self._executor, lambda: importlib.util.find_spec("matplotlib") is None):
            self._console.note("no report: matplotlib is not installed (pip install matplotlib)")
            return
        folder = self._plan.folder
        pages = (folder / "report.html", folder / "report.json")
        self._call("report", "report", {"result": folder}, ["report", *map(str, self._made)], pages)

    def _registration(self, first: str, second: str) -> Path | None:
        """The motion of the whole, with a coarse search where blind registration fails."""
        if self._recipe.left_out("reg"):
            return None
        options = {"im1": first, "im2": second, "mask1": self._plan.mask1}
        if self._recipe.asked("reg") and self._recipe.options("reg"):
            return self._step("reg", options)[0]
        files, status = self._try("reg", options)
        if status == 0:
            self._made += files
            return files[0]
        self._console.note("blind registration fails: all rotations and translations are tried")
        if self._executor.rank == 0:
            # that it failed is all that is left of it: the files are those of the next one
            self._record.end("reg", Done(status, ()))
        self._recipe.steps["reg"] = {"coarse": True}
        self._write_recipe()
        return self._step("reg", options, "coarse")[0]

    def _search(self, first: str, second: str, guess: Path | None) -> Path | None:
        """The first guess: the registration, or a field where one motion is not enough."""
        self._choose(first, second, guess)
        if self._recipe.left_out("pixelSearch"):
            return guess
        options = {"im1": first, "im2": second, "phi_file": guess, "mask1": self._plan.mask1}
        found = self._step("pixelSearch", options)
        filtered = self._step("filterSearch", {"phi_file": found[0]})
        spacing = self._recipe.options("ldic")["node_spacing"]
        passed = self._step("passPhiField", {"phi_file": filtered[0], "image1": first, "node_spacing": spacing})
        return passed[0]

    def _choose(self, first: str, second: str, guess: Path | None) -> None:
        """Choose windows, spacing and first guess where the recipe is silent."""
        windows = {"node_spacing", "half_window_size"} - self._recipe.options("ldic").keys()
        if not windows and "pixelSearch" in self._recipe.steps:
            return
        found = self._suggested(first, second, guess)
        last = self._plan.images[-1]
        if windows and last != second and not self._recipe.left_out("reg"):
            # how wide windows may be is seen in the state that is deformed most
            files, status = self._try("reg", {"im1": first, "im2": last, "mask1": self._plan.mask1}, base_name(last))
            if status == 0:
                found = self._suggested(first, last, files[0], base_name(last))._replace(search=found.search)
        self._recipe = complete(self._recipe, found, self._plan.two_d)
        self._write_recipe()

    def _suggested(self, first: str, second: str, guess: Path | None, state: str = "") -> Choice:
        given = {"im1": first, "im2": second, "phi_file": guess, "mask1": self._plan.mask1}
        line = ["suggest", *words(COMMANDS["suggest"].parser(), given)]
        return Choice(**self._call(f"suggest {state}".strip(), "suggest", given, line).value)

    def _improved(self, name: str, path: Path, first: str, image: str) -> Path:
        """The field without its bad points: marked, corrected from their neighbours, and measured again."""
        if self._recipe.left_out("filterPhiField"):
            return path
        plan, again = self._plan, f"{name}Again"
        # the filter refuses a field without bad points, unless it looks for outliers
        if not self._recipe.options("filterPhiField").get("outliers") and not on_leader(
            self._executor, lambda: bool(np.isin(read_field(path)["returnStatus"], BAD).any())
        ):
            return path
        filtered = self._step("filterPhiField", {"phi_file": path}, path.stem)[0]
        if self._recipe.left_out(again):
            return filtered
        corrected = on_leader(self._executor, lambda: int((read_field(filtered)["returnStatus"] == 1).sum()))
        if not corrected:
            return filtered
        self._console.note(f"points corrected from their neighbours: {corrected}; they are measured again")
        if plan.labels1:
            pair: dict[str, Any] = {"im1": first, "lab1": plan.labels1, "im2": image}
        else:
            pair = {"images": [first, image], "mask1": plan.mask1}
        # as in the first measurement, from their corrected guess
        alone = {option: value for option, value in self._recipe.options(name).items() if option not in OF_SERIES}
        self._recipe.steps.setdefault(again, alone)
        # the noise of few points would be less certain
        noise = {"noise_from": path} if self._recipe.options(again).get("sigma") else {}
        return self._step(again, {**pair, "phi_file": filtered, "skip": True, **noise}, filtered.stem, judged=False)[0]

    def _step(self, step: str, options: dict[str, Any], state: str = "", judged: bool = True) -> tuple[Path, ...]:
        """Do a step, unless it is done.

        Parameters
        ----------
        step : str
        options : dict
            Besides those of the recipe.
        state : str
            For which result of a series, or how.
        judged : bool
            Whether the run ends where the result is not one to trust.

        Raises
        ------
        _DistrustError
            If the result is not one to trust, and this ends the run.
        """
        files, status = self._try(step, options, state, judged)
        self._made += files
        if status != 0:
            self.distrusted = True
            if not self._plan.keep_going:
                raise _DistrustError(step)
        return files

    def _try(
        self, step: str, options: dict[str, Any], state: str = "", judged: bool = True
    ) -> tuple[tuple[Path, ...], int]:
        """Do a step, unless it is done; return its files and exit status, which is 0 of one that is not judged."""
        name = STEPS[step]
        determining = {**options, **self._recipe.options(step)}
        line = [name, *words(COMMANDS[name].parser(), determining)]
        given = {**determining, "out_dir": self._plan.folder / step}
        done = self._call(f"{step} {state}".strip(), name, given, line, judged=judged)
        return done.files, done.status

    def _call(
        self,
        title: str,
        name: str,
        given: dict[str, Any],
        determining: list[str],
        pages: tuple[Path, ...] = (),
        judged: bool = True,
    ) -> Done:
        """Call a command, unless it has been called with the same words and files that determine its result.

        `pages` are the files of a command without ``-od``. A result that is not `judged` counts as one to trust.
        """
        plan, console, executor = self._plan, self._console, self._executor
        parser = COMMANDS[name].parser()
        known = signature(parser).parameters
        shown = shlex.join(["mpidvc", name, *words(parser, given)])
        console.print(f"\n$ {shown}")
        key, done, begun = on_leader(executor, lambda: self._before(title, determining))
        if done is not None:
            console.print("finished before" if done.status == 0 else "finished before: its result is not one to trust")
            for text in done.said:
                console.tell(text)
            return done
        if executor.rank == 0:
            self._record.begin(title, key, shown)
        warned, noted = len(console.warnings), len(console.notes)
        keep("finished steps are kept")
        how = {one: value for one, value in plan.running.items() if one in known}
        if "resume" in known:
            how["resume" if begun else "overwrite"] = True
        try:
            found = api.call(name, {**given, **how}, executor, console)
        except UserError as error:
            error.args = (f"{title}: {in_own_words(str(error), Path(given.get('out_dir', plan.folder)))}",)
            raise
        value = Choice.of(found.value)._asdict() if name == "suggest" else None
        # what a user reads who gives the same line again
        said = [
            *(f"warning: {text}" for text in console.warnings[warned:]),
            *(f"note: {text}" for text in console.notes[noted:]),
        ]
        if found.status and not judged:
            console.note("these are points that had failed before: the others stay as they are, and the run goes on")
        status = found.status if judged else 0
        done = Done(status, found.files or pages, value, tuple(said) if status else ())
        if executor.rank == 0:
            self._record.end(title, done)
        return done

    def _before(self, title: str, line: list[str]) -> tuple[str, Done | None, bool]:
        key = key_of(line)
        done = self._record.done(title, key)
        if done is not None:
            self._record.come_to(title)
        return key, done, self._record.begun(title, key)

    def _write_recipe(self) -> None:
        if self._executor.rank == 0:
            with replacing(self._plan.folder / "recipe.toml") as made:
                Path(made).write_text(self._recipe.text(), encoding="utf-8")
