"""The run of ``mpidvc report``: from a result to a page and its numbers."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpidvc.atomic import replacing
from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.commands import COMMANDS
from mpidvc.commands.report.facts import Material, collect
from mpidvc.commands.report.gather import gather
from mpidvc.commands.report.page import make_page
from mpidvc.commands.report.pictures import make_pictures
from mpidvc.errors import UserError
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor, InlineExecutor
from mpidvc.tasks.ranks import Team, agree_on_instruction_set
from mpidvc.workflow.plot import check_picture

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """A result to be reported.

    Attributes
    ----------
    material : Material or None
        What the page is made of, on rank 0.
    output : Path
    """

    #: It only looks.
    timed = False

    material: Material | None
    output: Path

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        # rank 0 alone interpolates image 2, for the residual
        agree_on_instruction_set(InlineExecutor())
        given = Path(args.result)
        if not given.exists():
            raise UserError(f"{given}: does not exist; give a result (.h5 or .tsv), or a folder with results")
        output = given / "report.html" if given.is_dir() else given.with_name(f"{given.stem}-report.html")
        output = Path(args.output) if args.output is not None else output
        check_picture("--output", str(output))
        # numbers of a result may be absurd, and their squares no numbers
        with np.errstate(over="ignore", invalid="ignore"):
            return cls(material=collect(gather(args.result), COMMANDS, args.images), output=output)

    def for_workers(self) -> Plan:
        return replace(self, material=None)

    def execute(self, executor: Executor, console: Console) -> Outcome:
        material = self.material
        if material is None:
            return Outcome(0)
        with np.errstate(over="ignore", invalid="ignore"):
            page = make_page(material, make_pictures(material))
        numbers = self.output.with_suffix(".json")
        _write(numbers, json.dumps(material.facts, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        _write(self.output, page)
        console.tell(material.facts["verdict"]["text"])
        for line in material.facts["verdict"]["warnings"]:
            console.warn(line)
        for line in material.facts["verdict"]["advice"]:
            console.note(line)
        for path in (self.output, numbers):
            console.print(f"Written: {path}")
        value: dict[str, Any] = material.facts
        return Outcome(0, value, (self.output, numbers))


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        # a name may hold bytes that are no text
        temporary.write_bytes(text.encode("utf-8", "replace"))
