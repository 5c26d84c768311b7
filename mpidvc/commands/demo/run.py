"""The run of ``mpidvc demo``: images, their commands by their own command lines, and the comparison with the truth."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpidvc import api
from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.cli.keywords import words
from mpidvc.commands import COMMANDS
from mpidvc.commands.demo.field import FieldScene
from mpidvc.commands.demo.grains import GrainScene
from mpidvc.commands.demo.scene import Scene
from mpidvc.errors import UserError
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor

if TYPE_CHECKING:
    from mpidvc.tasks.ranks import Team

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """Folder and scene of the demonstration."""

    folder: Path
    scene: Scene

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        folder = Path(args.directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: the folder cannot be made ({error.strerror}); name another one") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{folder}: the folder cannot be written to; name another one")
        scene: Scene = GrainScene() if args.grains else FieldScene()
        return cls(folder=folder, scene=scene, estimated_seconds=scene.seconds)

    def execute(self, executor: Executor, console: Console) -> Outcome:
        """Make the images, run the commands, compare; the exit status is 0 if the result is what it should be."""
        scene, stem = self.scene, self.folder / self.scene.stem
        console.print(f"Making {scene.about}")
        if executor.rank == 0:
            scene.write(self.folder)
        calls = scene.calls(self.folder)
        lines = [shlex.join(["mpidvc", name, *words(COMMANDS[name].parser(), options)]) for name, options in calls]
        seconds = 0.0
        field: Any = None
        for line, (name, options) in zip(lines, calls, strict=True):
            console.print(f"\n$ {line}")
            start = time.perf_counter()
            # an earlier demo may have been interrupted in the middle of its last command
            again = {"overwrite": True} if line is lines[-1] else {}
            field = api.call(name, options | again | {"out_dir": self.folder}, executor, console).value
            seconds = time.perf_counter() - start
            if not field.good.any():
                return Outcome(1)
        if executor.rank != 0:
            return Outcome(0)
        found = scene.compare(field)
        console.print()
        picture = Path(f"{stem}-field.png")
        try:
            scene.draw(picture, self.folder, field)
        except ImportError:
            console.note("no picture: matplotlib is not installed (pip install matplotlib)")
        else:
            console.print(f"Written: {picture}")
        scene.report(field, console)
        number = scene.count(field)
        processes = "one process" if executor.size == 1 else f"{executor.size} processes"
        console.print(
            f"{calls[-1][0]} took {seconds:.1f} s for {number} {scene.points} on {processes}: "
            f"{number / seconds:.0f} {scene.points}/s"
        )
        used = "\n".join(f"  {line}" for line in lines)
        console.print(f"\nThe command lines were\n{used}\n{scene.next_steps(self.folder)}")
        if not found.good:
            console.warn(f"the error is larger than it should be ({scene.limits}): do not trust this installation")
        return Outcome(0 if found.good else 1, found)
