"""The run of ``mpidvc suggest``: opens the images, and prints the suggestion."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.errors import UserError
from mpidvc.images.image import open_image
from mpidvc.runtime.console import Console, duration
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.grey import with_limits
from mpidvc.tasks.ranks import Team, agree_on_instruction_set
from mpidvc.tasks.trial import groups_in
from mpidvc.workflow.guess import read_guess
from mpidvc.workflow.inputs import open_like, open_mask
from mpidvc.workflow.suggest import Inputs, Row, Suggestion, suggest
from mpidvc.workflow.window_trials import largest_fitting

__all__ = ["Plan", "Suggestion"]

#: CPU seconds of a group, alone and with each other image.
COST, COST_OF_PAIR = 0.4, 0.4
#: Rows of the table: about these half-window sizes.
SHOWN = (5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22, 25, 28, 32, 36, 40)


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """Images that a window is suggested for.

    Attributes
    ----------
    inputs : Inputs
    json : bool
    """

    #: It only looks.
    timed = False

    inputs: Inputs
    json: bool

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        image1 = with_limits(open_image(args.im1))
        others = [open_like(image1, path, what) for path, what in ((args.im2, "image 2"), (args.repeat, "--repeat"))]
        mask1 = open_mask(args.mask1, image1)
        mask = open_like(image1, args.noise_mask, "--noise-mask", grey=False)
        largest = largest_fitting(image1)
        guess = read_guess(args.phi_file, args.phi_file_bin_ratio)
        if guess.field is not None:
            raise UserError(f"-pf {guess.name}: is a field; give the registration that mpidvc reg wrote")
        names = [str(getattr(one, "path", one)) for one in (args.im1, args.im2 or "IMAGE2")]
        inputs = Inputs(
            image1=image1,
            mask1=mask1,
            image2=others[0],
            repeat=others[1],
            names=(names[0], names[1]),
            noise=args.noise,
            noise_mask=mask,
            guess=guess,
            target_sigma=args.target_sigma,
            target_strain=args.target_strain,
        )
        pairs = sum(other is not None for other in others)
        groups = len(groups_in(image1, largest))
        return cls(inputs=inputs, json=args.json, estimated_seconds=groups * (COST + pairs * COST_OF_PAIR))

    def configure(self, executor: Executor) -> None:
        agree_on_instruction_set(executor)

    def execute(self, executor: Executor, console: Console) -> Outcome:
        found = suggest(self.inputs, executor)
        if self.json:
            console.print(json.dumps(found.as_dict(), indent=2))
        else:
            _show(found, console)
            for text in found.warnings:
                console.warn(text)
        return Outcome(0, found)


def _show(found: Suggestion, console: Console) -> None:
    """Print it for people."""
    texture = found.texture
    axes = "zyx"[-len(texture.lengths) :]
    lengths = ", ".join(f"{axis} {length:.1f}" for axis, length in zip(axes, texture.lengths, strict=True))
    console.tell(f"Texture: correlated over (1/e) {lengths} voxels; a feature measures {texture.feature:.1f} voxels")
    periods = [f"{axis} {p:.1f}" for axis, p in zip(axes, texture.periods, strict=True) if p is not None]
    if periods:
        console.tell(f"Period: {', '.join(periods)} voxels: a first guess has to be nearer than half of it")
    low, high = min(texture.contrasts), max(texture.contrasts)
    console.tell(
        f"Grey levels: mean {texture.mean:.4g}, standard deviation {texture.contrast:.3g} ({low:.3g} to {high:.3g} in "
        f"{len(texture.contrasts)} bricks), {100 * texture.saturated:.2g} % of the voxels are saturated"
    )
    if texture.threshold is not None:
        console.tell(
            f"Air: below {texture.threshold:g}, {100 * texture.air:.0f} % of the places that were "
            "looked at; there may be more at the borders of the image, which were not"
        )
    if found.noise_source is not None and found.noise_deviation is not None:
        console.tell(
            f"Noise: standard deviation {found.noise_deviation:.3g}, neighbouring voxels are correlated by "
            f"{found.noise_correlation:.2f}; from {found.noise_source}"
        )
    known = found.noise_source is not None
    smoothed = any(row.bias is not None for row in found.rows)
    columns = ["-hws"]
    columns += ["σ of u, median", "95 %", "σ of F, median", "95 %"] if known else []
    columns += ["smoothed away"] if smoothed else []
    columns += ["damped by 10 %", "time"]
    rows = [row for row in found.rows if row.hws in SHOWN or row.hws == found.hws]
    console.table("Windows (voxels)", columns, [_cells(row, known, smoothed, found.hws) for row in rows])
    console.print(found.command)
    for reason in found.reasons:
        console.tell(reason)


def _cells(row: Row, known: bool, smoothed: bool, chosen: int) -> list[object]:
    cells: list[object] = [f"{row.hws} ←" if row.hws == chosen else f"{row.hws}"]
    if known:
        cells += [_number(value) for value in (row.sigma, row.sigma95, row.sigma_f, row.sigma_f95)]
    if smoothed:
        cells.append(_number(row.bias))
    return [*cells, f"{row.damped:.0f}", duration(row.seconds)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
