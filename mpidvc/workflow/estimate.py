"""Estimate of a run before it begins: points, time, memory, files. Nothing is written beside its inputs."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from mpidvc.atomic import replacing
from mpidvc.cli.command import Command
from mpidvc.core.texture import sample_of
from mpidvc.errors import UserError
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.runtime.memory import read_text
from mpidvc.tasks.placement import Mode
from mpidvc.tasks.ranks import Team
from mpidvc.tasks.texture import texture_of
from mpidvc.workflow.calibration import BUDGET, Cost
from mpidvc.workflow.line import key_of
from mpidvc.workflow.plan import CorrelationPlan, KernelPlan
from mpidvc.workflow.pointwise import PointwisePlan
from mpidvc.workflow.road import RoadPlan
from mpidvc.workflow.scaling import FILE_CLIENT, alone, guessing, kept, ordering, seconds_of_chunks, sharing

__all__ = ["Estimate", "NotEstimatedError", "cache_folder", "estimate"]

#: Seconds until a launcher has started ranks, and these have met.
LAUNCH = 0.4
#: Numbers of ranks that are looked at to find how many make sense.
RANKS = (1, 4, 16, 64, 256, 1024)
#: Least efficiency of a number of ranks that makes sense.
SENSIBLE = 0.5
#: Share of points from which a warning is given: those at the border, those that fail.
LARGE_SHARE = 0.5
#: Features of the texture that should fit into the edge of a window (iDICs: A Good Practices Guide for DIC, 2018).
FEWEST_GRAINS = 3


class NotEstimatedError(UserError):
    """A command that is not estimated."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A run as expected.

    Attributes
    ----------
    command : str
    points : int
        0 for a command without points.
    border : int
        Points whose window of image 1 sticks out of the image.
    cost : Cost
        CPU time of the work.
    fixed_seconds : float
        Seconds besides the work on one rank: start, preparation, files.
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
    cost: Cost
    fixed_seconds: float
    outputs: tuple[tuple[Path, int], ...]
    scratch_bytes: int = 0
    warnings: tuple[str, ...] = ()
    plan: KernelPlan = field(repr=False)

    @property
    def work_seconds(self) -> float:
        """CPU seconds of the work on one rank."""
        return self.cost.seconds

    def seconds(self, ranks: int) -> float:
        """Expected seconds of the run on so many ranks."""
        cost, rounds = self.cost, max(self.cost.rounds, 1)
        chunks = max(1, round(cost.chunks / rounds))
        work = rounds * seconds_of_chunks(cost.seconds / rounds, chunks, cost.sample, ranks)
        fixed = self.fixed_seconds
        if ranks > 1:
            costs = kept()
            fixed += LAUNCH
            for stage in (alone, ordering, sharing):
                fixed += stage(costs, ranks, self.points) - stage(costs, 1, self.points)
            if isinstance(self.plan, RoadPlan) and self.plan.guess.stored is not None:
                fixed += guessing(costs, ranks, self.points) - guessing(costs, 1, self.points)
        return fixed + work

    def memory(self, ranks_per_node: int, mode: str | None = None) -> tuple[str, int, int]:
        """Way to read the images, least bytes on a node with so many ranks, and bytes of its largest rank.

        Parameters
        ----------
        ranks_per_node : int
        mode : {"shared", "mapped", "boxes"}, optional
            Another way than the one that would be chosen.
        """
        return self.plan.memory_on(ranks_per_node, mode)

    @property
    def modes(self) -> tuple[str, ...]:
        """Ways to read the images; those that cannot be had are left out."""
        if not isinstance(self.plan, CorrelationPlan):
            return ()
        return tuple(mode for mode in get_args(Mode) if self.memory(1, mode)[0] == mode)

    def efficiency(self, ranks: int) -> float:
        """Seconds of one rank over those of all ranks together."""
        return self.seconds(1) / (ranks * self.seconds(ranks))

    @cached_property
    def sensible_ranks(self) -> int:
        """The largest of some numbers of ranks of which each does half of what a single one does."""
        return max(ranks for ranks in RANKS if ranks == 1 or self.efficiency(ranks) >= SENSIBLE)


def estimate(
    argv: Sequence[str],
    commands: Mapping[str, Command],
    calibration: bool = True,
    remember: bool = True,
) -> Estimate:
    """Estimate a run.

    Parameters
    ----------
    argv : sequence of str
        The command line of the run, without ``mpidvc``.
    commands : mapping
        The table of commands.
    calibration : bool
        Whether some of the work is done to find its time, for some seconds; otherwise this is a rough guess.
    remember : bool
        Whether the measured time is kept in the user's cache for the next time.

    Raises
    ------
    UserError
        If the run could not begin, or the command has nothing that takes time.
    """
    if not argv or argv[0] not in commands:
        raise UserError(f"{argv[0] if argv else 'no command'}: is no command of mpidvc; see mpidvc --help")
    command = commands[argv[0]]
    args = command.parse(list(argv[1:]))
    console = Console(silent=True)
    if not issubclass(command.plan, KernelPlan):
        raise NotEstimatedError(f"{command.name}: is not estimated; only commands on pairs of images and on fields are")
    begun = time.process_time()
    plan = command.plan.prepare(args, console, Team(InlineExecutor()))
    assert isinstance(plan, KernelPlan)
    looked = time.process_time()
    # takes the fingerprints of the images of a part
    outputs, scratch = plan.written()
    ended = time.process_time()
    fixed = _start(command) + ended - begun
    # the kernels of the run itself
    plan.configure(InlineExecutor())
    cost = _cost(plan, argv, calibration, remember)
    points = 0
    if isinstance(plan, RoadPlan):
        points = len(plan.parts) * len(plan.nodes)
        fixed += (len(plan.parts) - 1) * (ended - looked)
        fixed += alone(kept(), 1, points) + ordering(kept(), 1, points)
        fixed += sharing(kept(), 1, points) if plan.output.tsv else 0.0
        # the preparation has looked at them already
        fixed += 0.0 if plan.guess.displacements is None else kept()["points"]["field"] * points
    else:
        # by rank 0 alone
        fixed += sum(size for _, size in outputs) / FILE_CLIENT
    border = _at_border(plan)
    warnings = [*args.notes, *console.warnings, *_warnings(plan, border, points, cost)]
    return Estimate(
        command=command.name,
        points=points,
        border=border,
        cost=cost,
        fixed_seconds=fixed,
        outputs=tuple(outputs),
        scratch_bytes=scratch,
        warnings=tuple(dict.fromkeys(warnings)),
        plan=plan,
    )


def _start(command: Command) -> float:
    """CPU seconds of a process that loads the libraries of a command, and does nothing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {command.plan.__module__}"], check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# ---- the cache


def cache_folder() -> Path:
    """Folder of what is remembered for this user: ``$XDG_CACHE_HOME/mpidvc``, or ``~/.cache/mpidvc``."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if given else Path("~/.cache").expanduser()) / "mpidvc"


def _cost(plan: KernelPlan, argv: Sequence[str], calibration: bool, remember: bool) -> Cost:
    """The cost of the work, as remembered or measured."""
    if not calibration:
        return plan.cost(0)
    path = cache_folder() / "costs" / f"{_key(argv)}.json"
    if remember:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            told = json.loads(path.read_text(encoding="utf-8"))
            return Cost(**{**told, "sample": tuple(told["sample"])})
    cost = plan.cost(BUDGET)
    if remember:
        with contextlib.suppress(OSError, UserError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, durable=False) as temporary:
                temporary.write_text(json.dumps(asdict(cost)), encoding="utf-8")
    return cost


def _key(argv: Sequence[str]) -> str:
    """Checksum of all that decides the time of a run: this machine, the command line, and the files that it names."""
    processor = re.search(r"^model name\s*: (.*)$", read_text(Path("/proc/cpuinfo")), re.MULTILINE)
    words = [word for word in argv if word not in ("--resume", "--overwrite")]
    return key_of(words, platform.node(), processor[1] if processor else platform.processor())


# ---- warnings


def _at_border(plan: KernelPlan) -> int:
    """Points whose window of image 1 sticks out of it, in all parts."""
    if not isinstance(plan, PointwisePlan) or plan.nodes.layout.layout == "labels":
        return 0
    positions, hws = plan.nodes.positions, np.array(plan.hws)
    found = 0
    for part in plan.parts:
        last = np.array(part.images.image1.shape) - 1
        found += int(((positions < hws) | (positions > last - hws)).any(axis=1).sum())
    return found


def _warnings(plan: KernelPlan, border: int, points: int, cost: Cost) -> Iterator[str]:
    """Reasons to change the command before it is run."""
    if cost.remark:
        yield cost.remark
    if points and border > LARGE_SHARE * points:
        yield f"{border} of {points} windows stick out of the image: take smaller ones (-hws)"
    if isinstance(plan, PointwisePlan):
        yield from _window_warnings(plan)
    good = sum(cost.statuses.get(status, 0) for status in ("1", "2"))
    skipped = sum(cost.statuses.get(status, 0) for status in ("-5", "-6", "-7"))
    tried = cost.points - skipped
    if cost.statuses and tried == 0:
        yield f"all of the {cost.points} points that were tried are skipped (masked, or beyond -glt, -ght)"
    elif cost.statuses and good < LARGE_SHARE * tried:
        yield f"only {good} of the {tried} points that were tried are found: see the first guess (-pf) and the windows"


def _window_warnings(plan: PointwisePlan[Any]) -> Iterator[str]:
    """About the windows of the first part, whose texture is looked at as the run itself does."""
    part = plan.parts[0]
    settings = getattr(part, "settings", None) or getattr(plan, "settings", None)
    if settings is None or plan.nodes.layout.layout == "labels" or not hasattr(settings, "grey_low"):
        return
    texture = texture_of(part.images.image1, part.images.mask1, plan.nodes[sample_of(len(plan.nodes))], settings)
    told = texture.warning()
    if told is not None:
        yield told
    edges = [2 * half + 1 for half in plan.hws if half > 0]
    grain = texture.grain
    if told is None and edges and grain > 0 and min(edges) < FEWEST_GRAINS * grain:
        yield (
            f"windows of {min(edges)} voxels are small: a feature of the texture measures about {grain:.1f}, and "
            f"{FEWEST_GRAINS} of them should fit; take -hws {math.ceil((FEWEST_GRAINS * grain - 1) / 2)} or more"
        )
    margin = getattr(settings, "margin", None)
    if isinstance(margin, tuple) and any(m > h > 0 for m, h in zip(margin, plan.hws, strict=True)):
        shape = np.array(plan.hws) * 2 + 1
        times = float(np.prod((shape + 2 * np.array(margin)) / shape))
        yield (
            f"-m {' '.join(map(str, margin))}: is larger than the half-window; windows of image 2 have {times:.0f} "
            "times the voxels, which take memory: a better first guess (-pf) needs a margin of some voxels only"
        )
