"""The run of ``mpidvc study``: opens the images, prints the errors, and writes table and picture."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from mpidvc.atomic import replacing
from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.errors import UserError
from mpidvc.images.image import open_image
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.grey import with_limits
from mpidvc.tasks.ranks import Team, agree_on_instruction_set
from mpidvc.tasks.trial import groups_in
from mpidvc.workflow.inputs import by, open_like
from mpidvc.workflow.output import check_files
from mpidvc.workflow.plot import need_matplotlib
from mpidvc.workflow.study import STEPS, Inputs, Row, Study, rms, study
from mpidvc.workflow.window_trials import ladder, largest_fitting

__all__ = ["Plan", "Study"]

#: CPU seconds of a group, and of one of its virtual states.
COST, COST_OF_STATE = 0.6, 0.4
#: Columns of the file of --csv.
COLUMNS = (
    *("hws", "nodes", "converged", "biasZ", "biasY", "biasX", "sigmaZ", "sigmaY", "sigmaX"),
    *("predictedZ", "predictedY", "predictedX", "sigmaF", "predictedF", "strainMean", "strainSd", "seconds"),
)
#: Observed over predicted standard deviation that is warned of.
FAR = 1.3


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """A study to be made.

    Attributes
    ----------
    inputs : Inputs
    json : bool
    csv, plot : str or None
        Files to write.
    """

    #: It only looks.
    timed = False

    inputs: Inputs
    json: bool
    csv: str | None
    plot: str | None

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        if args.plot is not None:
            need_matplotlib("--plot")
        image = with_limits(open_image(args.im1))
        repeat = open_like(image, args.repeat, "--repeat")
        mask = open_like(image, args.noise_mask, "--noise-mask", grey=False)
        named = {"image 1": args.im1, "--repeat": args.repeat, "--noise-mask": args.noise_mask}
        read = {name: f"is the file of {option}" for option, name in named.items() if isinstance(name, str)}
        check_files(args, ("csv", "plot"), read)
        most = largest_fitting(image)
        sizes = tuple(args.sizes or ladder(most, image.two_d))
        if sizes[-1] > most:
            raise UserError(
                f"-hws {sizes[-1]}: is too large to be tried in {by(image.shape)} voxels; give {most} or less"
            )
        inputs = Inputs(
            image=image,
            sizes=sizes,
            repeat=repeat,
            noise=args.noise,
            noise_mask=mask,
            order=args.interpolation_order,
            virtual=args.virtual,
            strain=args.strain,
        )
        groups = len(groups_in(image, sizes[-1]))
        cost = COST + (COST_OF_STATE * (STEPS - 1 + (args.strain != 0)) if args.virtual else 0)
        return cls(inputs=inputs, json=args.json, csv=args.csv, plot=args.plot, estimated_seconds=groups * cost)

    def configure(self, executor: Executor) -> None:
        agree_on_instruction_set(executor)

    def execute(self, executor: Executor, console: Console) -> Outcome:
        found = study(self.inputs, executor)
        if self.json:
            console.print(json.dumps(found.as_dict(), indent=2))
        else:
            _show(found, console)
        if executor.rank != 0:
            return Outcome(0, found)
        if self.csv is not None:
            lines = [",".join(COLUMNS), *(",".join(f"{value:.6g}" for value in _values(row)) for row in found.rows)]
            with replacing(self.csv) as path:
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if self.plot is not None:
            from mpidvc.commands.study.plot import draw

            draw(self.plot, found)
        if not self.json:
            for name in (self.csv, self.plot):
                if name is not None:
                    console.print(f"Written: {name}")
        return Outcome(0, found)


def _values(row: Row) -> list[float]:
    """A row of the file of --csv."""
    start = [row.hws, row.nodes, row.converged, *row.bias, *row.sigma, *row.predicted]
    return [*start, row.sigma_f, row.predicted_f, row.strain_mean, row.strain_sd, row.seconds]


def _show(found: Study, console: Console) -> None:
    """Print it for people."""
    console.tell(f"Correlated: {found.source}")
    console.tell(
        f"Noise: standard deviation {found.noise_deviation:.3g}, neighbouring voxels are correlated by "
        f"{found.noise_correlation:.2f}; from {found.noise_source}"
    )
    if found.drift is not None:
        z, y, x, stretch = found.drift
        console.tell(
            f"Drift between the scans, which is taken off: z {z:.3f}, y {y:.3f}, x {x:.3f} voxels, mean stretch "
            f"{stretch:.1e}"
        )
    axes = slice(1, 3) if found.two_d else slice(0, 3)
    known = found.drift is None
    columns = ["-hws", "converged"]
    columns += ["bias of u"] if known else []
    columns += ["σ of u " + ", ".join("zyx"[axes]), "predicted", "σ of F", "predicted", "strain: mean", "sd", "time"]
    rows = []
    for row in found.rows:
        cells = [str(row.hws), f"{100 * row.converged:.0f} %"]
        cells += [f"{max(row.bias[axes]):.1e}"] if known else []
        cells += [", ".join(f"{value:.2g}" for value in row.sigma[axes]), f"{rms(row.predicted):.2g}"]
        cells += [f"{row.sigma_f:.1e}", f"{row.predicted_f:.1e}", f"{row.strain_mean:.1e}", f"{row.strain_sd:.1e}"]
        rows.append([*cells, f"{1e3 * row.seconds:.2g} ms"])
    console.table("Errors (voxels)", columns, rows)
    for what, (factor, exponent) in (("u", found.law), ("F", found.law_f)):
        console.tell(f"σ of {what} = {factor:.3g} n^{exponent:.2f} for windows of n voxels along an axis")
    far = [row for row in found.rows if row.converged > 0 and row.ratio > FAR]
    if far:
        told = ", ".join(f"{row.ratio:.2f} at -hws {row.hws}" for row in far)
        console.warn(
            f"the observed random error is larger than the predicted one (by {told}): windows that are too small and "
            "jump to a wrong place, a bias of the interpolation that differs from node to node (-o 1), a repeat scan "
            "that has moved otherwise than as a whole, or artefacts such as rings"
        )
