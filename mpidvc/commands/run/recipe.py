"""The recipe of a run: the options of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mpidvc.cli.parser import Parser
from mpidvc.cli.toml import option_of, option_value, read_toml, spellings, table
from mpidvc.commands import COMMANDS
from mpidvc.errors import UserError

__all__ = ["ALWAYS", "STEPS", "Recipe", "read_recipe"]

#: Steps in their order, and the command of each.
STEPS = {
    "reg": "reg",
    "pixelSearch": "pixelSearch",
    "filterSearch": "filterPhiField",
    "passPhiField": "passPhiField",
    "ldic": "ldic",
    "ddic": "ddic",
    "filterPhiField": "filterPhiField",
    "ldicAgain": "ldic",
    "ddicAgain": "ddic",
    "regularStrain": "regularStrain",
    "deformImage": "deformImage",
}
#: Steps that cannot be left out.
ALWAYS = ("passPhiField", "filterSearch", "ldic", "ddic")
#: Steps that are only done after a pixel search.
AFTER_SEARCH = ("filterSearch", "passPhiField")
#: Options that the run itself gives: files, folders, and all that changes no result.
_GIVEN = {
    *("im1", "im2", "lab1", "more", "images", "image1", "labels1", "mask1", "phi_file", "out_dir", "prefix", "h5"),
    *("noise_from", "noise_mask", "skip", "resume", "overwrite", "processes", "log", "memory", "image_mode", "lazy"),
    *("all_settings", "help"),
}
#: The same, of single steps: the grid of the first guess is that of ldic.
_GIVEN_TO = {"passPhiField": {"node_spacing"}}


@dataclass
class Recipe:
    """Options of the steps.

    Attributes
    ----------
    steps : dict
        By the name of the step: options by the names that its parser stores them under, or False for a step that is
        left out. A step that is missing is free: the run chooses.
    """

    steps: dict[str, dict[str, Any] | bool] = field(default_factory=dict)

    def left_out(self, step: str) -> bool:
        """Whether a step is left out on purpose."""
        return self.steps.get(step) is False

    def asked(self, step: str) -> bool:
        """Whether a step is asked for by name."""
        return isinstance(self.steps.get(step), dict)

    def options(self, step: str) -> dict[str, Any]:
        """The options of a step."""
        found = self.steps.get(step)
        return dict(found) if isinstance(found, dict) else {}

    def text(self) -> str:
        """The recipe as a file."""
        lines = ["# Recipe of mpidvc run: the options of its steps, by their long names; false leaves a step out."]
        lines += [f"{step} = false" for step in STEPS if self.left_out(step)]
        for step, name in STEPS.items():
            if self.asked(step) and not (step in AFTER_SEARCH and self.left_out("pixelSearch")):
                lines += ["", f"[{step}]", *table(COMMANDS[name].parser(), self.options(step))]
        return "\n".join(lines) + "\n"


def read_recipe(path: str) -> Recipe:
    """Read a recipe.

    Raises
    ------
    UserError
        If it cannot be read, or has an unknown step or option, or a value that makes no sense.
    """
    told = read_toml(path, "the recipe of a run (recipe.toml)")
    found: dict[str, dict[str, Any] | bool] = {}
    for step, options in told.items():
        if step not in STEPS:
            raise UserError(f"{path}: {step} is no step; there are {', '.join(STEPS)}")
        if options is False and step not in ALWAYS:
            found[step] = False
        elif isinstance(options, dict):
            found[step] = _options(path, step, options)
        else:
            raise UserError(f"{path}: {step} = {options!r}: " + _remedy(step))
    return Recipe(found)


def _remedy(step: str) -> str:
    if step in ALWAYS:
        return f"write its options below [{step}]"
    return f"write its options below [{step}], or {step} = false to leave it out"


def _options(path: str, step: str, told: dict[str, Any]) -> dict[str, Any]:
    """The options of a step, by the names that its parser stores them under."""
    parser: Parser = COMMANDS[STEPS[step]].parser()
    found, given = {}, _GIVEN | _GIVEN_TO.get(step, set())
    for key, value in told.items():
        option, action = option_of(parser, key)
        where = f"{path}: [{step}] {key}"
        if action is None or action.dest in given:
            may = {one.dest for one in parser._actions} - given
            raise UserError(f"{where}: is none of the options here: {', '.join(spellings(parser, may))}")
        found[action.dest] = option_value(f"{where} = {value!r}", parser, option, action, value)
    return found
