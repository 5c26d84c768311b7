"""Estimate of a run before it begins: points, time, memory, files; nothing is written beside its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpidvc.cli.command import Command
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import least_bytes
from mpidvc.fields.tsv import column_names
from mpidvc.runtime.console import Console
from mpidvc.tasks.points import INPUT
from mpidvc.workflow.calibration import Rate, calibrate, texture_warning
from mpidvc.workflow.output import results_path
from mpidvc.workflow.plan import KernelPlan
from mpidvc.workflow.pointwise import PointwisePlan
from mpidvc.workflow.road import RoadPlan

__all__ = ["Estimate", "estimate"]

#: Bytes of a number in text, on average.
NUMBER = 11
#: Seconds until a process has loaded its libraries.
START = 0.5


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A run as expected.

    Attributes
    ----------
    command : str
    points : int
    border : int
        Points whose window of image 1 sticks out of the image.
    chunks : int
        Pieces of work that ranks get.
    work_seconds : float
        CPU seconds of the points, on one rank.
    fixed_seconds : float
        Seconds of rank 0 before and after, however many ranks there are.
    outputs : tuple of (Path, int)
        Files that the run writes, and their bytes.
    scratch_bytes : int
        Further bytes that its files take while it runs.
    warnings : tuple of str
    plan : KernelPlan
        The plan of the command.
    """

    command: str
    points: int
    border: int
    chunks: int
    work_seconds: float
    fixed_seconds: float
    outputs: tuple[tuple[Path, int], ...]
    scratch_bytes: int = 0
    warnings: tuple[str, ...] = ()
    plan: KernelPlan = field(repr=False)

    def seconds(self, ranks: int, nodes: int = 1) -> float:
        """Expected seconds of the run on so many ranks."""
        return self.fixed_seconds + self.work_seconds / min(ranks, max(self.chunks, 1))

    def memory(self, ranks_per_node: int) -> tuple[str, int, int]:
        """Way to read the images, least bytes on a node with so many ranks, and bytes of its largest rank."""
        return self.plan.memory_on(ranks_per_node)


def estimate(argv: Sequence[str], commands: Mapping[str, Command], calibration: bool = True) -> Estimate:
    """Estimate a run.

    Parameters
    ----------
    argv : sequence of str
        The command line of the run, without ``mpidvc``.
    commands : mapping
        The table of commands.
    calibration : bool
        Whether the time of a point is measured on some of the points; otherwise it is a rough guess.

    Raises
    ------
    UserError
        If the run could not begin, or the command measures nothing.
    """
    if not argv or argv[0] not in commands:
        raise UserError(f"{argv[0] if argv else 'no command'}: is no command of mpidvc; see mpidvc --help")
    command = commands[argv[0]]
    args = command.parse(list(argv[1:]))
    console = Console(silent=True)
    plan = command.plan.prepare(args, console)
    if not isinstance(plan, RoadPlan):
        raise UserError(f"{command.name}: has no points whose number decides its time; it is not estimated")
    warnings = [*args.notes, *console.warnings]
    rates, works = [], []
    for part in plan.parts:
        work = plan.work(part)
        works.append(work)
        rates.append(calibrate(plan, part, work) if calibration else _rough(plan, len(work.measured)))
        if isinstance(plan, PointwisePlan) and hasattr(part, "settings"):
            text = texture_warning(part, work, part.settings)
            warnings += [text] if text else []
    seconds = sum(rate.once + rate.seconds * len(work.measured) for rate, work in zip(rates, works, strict=True))
    return Estimate(
        command=command.name,
        points=sum(len(work.order) for work in works),
        border=_at_border(plan),
        chunks=sum(len(work.starts) - 1 - len(work.kept) for work in works),
        work_seconds=seconds,
        fixed_seconds=START,
        outputs=tuple(file for part, work in zip(plan.parts, works, strict=True) for file in _files(plan, part, work)),
        scratch_bytes=max(len(work.order) * (INPUT.itemsize + work.record.itemsize + 36) for work in works),
        warnings=tuple(dict.fromkeys(warnings)),
        plan=plan,
    )


def _rough(plan: RoadPlan[Any], points: int) -> Rate:
    return Rate(plan.estimated_seconds / max(len(plan.parts) * points, 1))


def _at_border(plan: RoadPlan[Any]) -> int:
    """Points whose window of image 1 sticks out of it, in all parts."""
    if not isinstance(plan, PointwisePlan) or plan.nodes.layout.layout == "labels":
        return 0
    positions, hws = plan.nodes.positions, np.array(plan.hws)
    found = 0
    for part in plan.parts:
        last = np.array(part.images.image1.shape) - 1
        found += int(((positions < hws) | (positions > last - hws)).any(axis=1).sum())
    return found


def _files(plan: RoadPlan[Any], part: Any, work: Any) -> list[tuple[Path, int]]:
    """Files of a part and their bytes: TSV and VTK files are texts, of about so many bytes for a number."""
    output, kind, n, stem = plan.output, plan.files, len(work.order), part.stem
    files = []
    if output.keep:
        files.append((results_path(stem), least_bytes(work.layout)))
    if output.tsv:
        names = column_names(kind.family, work.layout.layout == "labels")
        files.append((stem.with_name(f"{stem.name}.tsv"), n * NUMBER * len(names)))
    if output.tif and work.layout.dims is not None:
        axes = [axis for a, axis in enumerate("ZYX") if kind.displacements and plan.half_cell[a] > 0]
        tif = kind.tif_stem(stem)
        shown = [*(f"{axis}disp" for axis in axes), *kind.tif]
        files += [(tif.with_name(f"{tif.name}-{name}.tif"), 4 * n + 400) for name in shown]
    if output.vtk:
        numbers = 3 * kind.displacements + kind.magnitude + len(kind.vtk)
        numbers += sum({1: 1, 3: 3, 6: 9}[len(columns)] for columns in kind.groups.values())
        numbers += 0 if work.layout.dims is not None else 3
        files.append((stem.with_name(f"{stem.name}.vtk"), n * NUMBER * numbers))
    return files
