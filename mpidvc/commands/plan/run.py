"""The run of ``mpidvc plan``: prints the estimate of another command."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.commands import COMMANDS
from mpidvc.runtime.console import Console, duration
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.launch import available_cpus
from mpidvc.runtime.memory import size_text
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.estimate import RANKS, SENSIBLE, Estimate, estimate

__all__ = ["Plan"]

#: Files that are named.
FILES = 12


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """A run to be estimated.

    Attributes
    ----------
    run : list of str
        Its command line, without ``mpidvc``.
    ranks : list of int or None
    per_node : int
        Ranks on a node.
    calibration, remember : bool
        As of `estimate`.
    json : bool
    """

    #: It only looks.
    timed = False

    run: list[str]
    ranks: list[int] | None
    per_node: int
    calibration: bool
    remember: bool
    json: bool

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        return cls(
            run=args.run,
            ranks=args.ranks,
            per_node=args.ranks_per_node or max(available_cpus(), 1),
            calibration=args.calibration,
            remember=args.remember,
            json=args.json,
        )

    def execute(self, executor: Executor, console: Console) -> Outcome:
        if executor.rank != 0:
            return Outcome(0)
        found = estimate(self.run, COMMANDS, self.calibration, self.remember)
        told = self._told(found)
        if self.json:
            console.print(json.dumps(told, indent=2))
        else:
            self._show(found, told, console)
        return Outcome(0, found)

    def _told(self, found: Estimate) -> dict[str, Any]:
        """The estimate as JSON."""
        ranks = self.ranks or [n for n in RANKS if n == 1 or n <= found.cost.chunks / max(found.cost.rounds, 1)]
        runs = []
        for n in ranks:
            nodes = -(-n // self.per_node)
            on_node = min(n, self.per_node)
            seconds = found.seconds(n)
            runs.append(
                {
                    "ranks": n,
                    "nodes": nodes,
                    "seconds": round(seconds, 3),
                    "efficiency": round(found.seconds(1) / (n * seconds), 4),
                    "memory_per_node": found.memory(on_node)[1],
                }
            )
        chosen = found.memory(1)[0]
        return {
            "command": shlex.join(["mpidvc", *self.run]),
            "points": found.points,
            "border": found.border,
            "chunks": found.cost.chunks,
            "work_seconds": found.work_seconds,
            "fixed_seconds": found.fixed_seconds,
            "measured_points": found.cost.points,
            "measured_statuses": found.cost.statuses,
            "runs": runs,
            "sensible_ranks": found.sensible_ranks,
            "memory": [
                {
                    "mode": mode,
                    "chosen": mode == chosen,
                    "ranks_per_node": n,
                    "node": found.memory(n, mode)[1],
                    "rank": found.memory(n, mode)[2],
                }
                for mode in found.modes or (None,)
                for n in sorted({1, self.per_node})
            ],
            "outputs": [{"file": str(path), "bytes": size} for path, size in found.outputs],
            "scratch_bytes": found.scratch_bytes,
            "warnings": [*found.warnings, *_of_ranks(found, self.ranks)],
        }

    def _show(self, found: Estimate, told: dict[str, Any], console: Console) -> None:
        """Print it for people."""
        cost = found.cost
        console.tell(told["command"])
        if found.points:
            border = f", {found.border} of them with a window that sticks out of the image" if found.border else ""
            console.tell(f"Points: {found.points}{border}")
        how = "a rough guess, as nothing was measured (--no-calibration)"
        if cost.points and found.points:
            good = sum(cost.statuses.get(status, 0) for status in ("1", "2"))
            how = f"{cost.points} points measured on this machine, {good} of them found"
        elif cost.sample:
            how = "measured on a part of the work, on this machine"
        console.tell(f"Work: {_time(found.work_seconds)} of one core ({how})")
        console.table(
            "Time",
            ["Ranks", "Nodes", "Time", "Efficiency", "Memory of a node"],
            [
                [
                    run["ranks"],
                    run["nodes"],
                    _time(run["seconds"]),
                    f"{100 * run['efficiency']:.0f}%",
                    size_text(run["memory_per_node"]),
                ]
                for run in told["runs"]
            ],
        )
        console.tell(f"Ranks that make sense: up to {told['sensible_ranks']} (efficiency of {SENSIBLE:.0%} or more)")
        console.table(
            "Memory",
            ["Image mode", "Ranks of a node", "Largest rank", "Node"],
            [
                [
                    f"{one['mode'] or 'no image'}{' (chosen)' if one['mode'] and one['chosen'] else ''}",
                    one["ranks_per_node"],
                    size_text(one["rank"]),
                    size_text(one["node"]),
                ]
                for one in told["memory"]
            ],
        )
        files = told["outputs"]
        rows = [[one["file"], _size(one["bytes"])] for one in files[:FILES]]
        if len(files) > FILES:
            rows.append([f"{len(files) - FILES} more", _size(sum(one["bytes"] for one in files[FILES:]))])
        console.table("Files", ["File", "Size"], rows)
        if found.scratch_bytes:
            console.tell(f"While it runs, its files take {_size(found.scratch_bytes)} more")
        for text in told["warnings"]:
            console.warn(text)


def _of_ranks(found: Estimate, ranks: Sequence[int] | None) -> list[str]:
    """A warning if more ranks are asked for than make sense."""
    most = max(ranks or [1])
    pieces = round(found.cost.chunks / max(found.cost.rounds, 1))
    if most > pieces:
        return [f"--ranks {most}: there are {pieces} pieces of work; more ranks than that have nothing to do"]
    if most > 1 and found.efficiency(most) < SENSIBLE:
        return [
            f"--ranks {most}: each would do {found.efficiency(most):.0%} of what a single one does; up to "
            f"{found.sensible_ranks} make sense"
        ]
    return []


def _time(seconds: float) -> str:
    """A time span for people: hours from some days on, too."""
    return duration(seconds) if seconds < 360000 else f"{seconds / 3600:.0f} h"


def _size(size: float) -> str:
    return size_text(size) if size >= 1e6 else f"{max(size / 1e3, 0.1):.1f} kB"
