"""The run of ``mpidvc preeval``: the stacks, their scores, and the files of the ranking."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mpidvc.atomic import replacing
from mpidvc.cli.command import Outcome
from mpidvc.cli.command import Plan as CommandPlan
from mpidvc.commands.preeval.names import named
from mpidvc.core.phase_correlation import Match, Ranking, StackScore, ranked
from mpidvc.errors import UserError
from mpidvc.images.stack import Stack, open_stack, split_uri
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.ranks import Team
from mpidvc.tasks.stacks import StackTask
from mpidvc.workflow.announce import announce
from mpidvc.workflow.output import check_files
from mpidvc.workflow.plot import need_matplotlib

__all__ = ["Plan", "Ranking"]

#: CPU seconds for each pixel, double for double precision.
COST = 4e-8


@dataclass(frozen=True, kw_only=True)
class Plan(CommandPlan):
    """Stacks to be ranked.

    Attributes
    ----------
    stacks : list of (name, URI, Stack)
        None are open if nothing is to be ranked.
    reference : str or None
        The stack that was asked for.
    json, tsv, plot : str or None
        Files to write.
    """

    stacks: Sequence[tuple[str, str, Stack]]
    reference: str | None
    json: str | None
    tsv: str | None
    plot: str | None

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        if args.plot is not None:
            need_matplotlib("--plot")
        # names and stacks that were given in Python are pairs
        words = [one for one in args.stacks if isinstance(one, str)]
        given = [one for one in args.stacks if not isinstance(one, str)] + named(words)
        plan = cls(stacks=[], reference=args.reference or None, json=args.json, tsv=args.tsv, plot=args.plot)
        read = {split_uri(uri)[0]: "is one of the stacks" for _, uri in given if isinstance(uri, str)}
        check_files(args, ("json", "tsv", "plot"), read)
        known = [name for name, _ in given] + words
        if not args.skip and plan.reference is not None and plan.reference not in known:
            raise UserError(f"--reference {plan.reference}: is none of the stacks {', '.join(n for n, _ in given)}")
        announce(console, "preeval", args)
        if args.skip or plan.reference is not None:
            return plan
        opened = [(name, str(getattr(uri, "path", uri)), _opened(name, uri)) for name, uri in given]
        (first, _, stack), *others = opened
        for name, _, other in others:
            if other.shape[0] != stack.shape[0]:
                raise UserError(
                    f"stack {name}: has {other.shape[0]} images but {first} has {stack.shape[0]}; stacks that need the "
                    "same alignment have the same number"
                )
        seconds = sum(COST * math.prod(one.shape) * max(one.dtype.itemsize / 4, 1) for _, _, one in opened)
        return replace(plan, stacks=opened, estimated_seconds=seconds)

    def execute(self, executor: Executor, console: Console) -> Outcome:
        if not self.stacks:
            ranking = Ranking(self.reference, None)
            console.print(f"Reference stack: {self.reference or 'none'}; nothing was ranked")
            if executor.rank == 0:
                self._write(ranking, console)
            return Outcome(0, ranking)
        task = StackTask([stack for _, _, stack in self.stacks])
        found: list[list[Match | None]] = [[None] * stack.shape[0] for _, _, stack in self.stacks]
        with console.progress(sum(map(len, found)), "preeval", "images") as progress:

            def sink(chunk: int, matches: list[Match]) -> None:
                number, images = task.images_of(chunk)
                found[number][images.start : images.stop] = matches
                progress.advance(len(images))

            executor.map(task, sink if executor.rank == 0 else None)
        if executor.rank != 0:
            return Outcome(0)
        pairs = zip(self.stacks, found, strict=True)
        scores = [StackScore.of(name, [one for one in matches if one is not None]) for (name, _, _), matches in pairs]
        stacks = ranked(scores)
        ranking = Ranking(stacks[0].name, stacks)
        self._tell(ranking, console)
        self._write(ranking, console)
        return Outcome(0, ranking)

    def _tell(self, ranking: Ranking, console: Console) -> None:
        stacks = ranking.stacks or []
        rows = [
            (k, one.name, f"{one.score:.5f}", f"{one.ratio:.4g}", f"{100 * one.distinct:.0f} %", len(one.matches))
            for k, one in enumerate(stacks, 1)
        ]
        console.table("Stacks, best first", ("rank", "stack", "score", "peak / mean", "distinct peaks", "images"), rows)
        for one in stacks:
            bad = sum(math.isnan(match.peak) for match in one.matches)
            if bad:
                told = "its first image holds" if math.isnan(one.matches[0].peak) else f"{bad} of its images hold"
                console.warn(f"stack {one.name}: {told} nan or infinity; it has no score and is ranked last")
        if not math.isnan(stacks[0].score) and stacks[0].distinct < 0.5:
            console.warn(
                "the best stack has no distinct peak in most of its images; phase correlation will not align them"
            )
        console.print(f"Reference stack: {ranking.reference}")

    def _write(self, ranking: Ranking, console: Console) -> None:
        """The files asked for; on rank 0."""
        uris = {name: uri for name, uri, _ in self.stacks}
        stacks = ranking.stacks or []
        if self.json is not None:
            document = {
                "reference_stack": ranking.reference,
                "ranked_stack_names": ranking.names,
                "stacks": [{**_row(one, uris[one.name]), "matches": _columns(one.matches)} for one in stacks],
            }
            with replacing(self.json) as path:
                path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            console.print(f"Written: {self.json}")
        if self.tsv is not None:
            rows = [{"rank": k, **_row(one, uris[one.name])} for k, one in enumerate(stacks, 1)]
            lines = ["\t".join(rows[0])]
            lines += ["\t".join("nan" if value is None else str(value) for value in row.values()) for row in rows]
            with replacing(self.tsv) as path:
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            console.print(f"Written: {self.tsv}")
        if self.plot is not None:
            from mpidvc.commands.preeval.plot import draw

            draw(self.plot, stacks)
            console.print(f"Written: {self.plot}")


def _opened(name: str, uri: Any) -> Stack:
    return open_stack(uri) if isinstance(uri, str) else uri


def _number(value: float) -> float | None:
    # JSON has no nan
    return value if math.isfinite(value) else None


def _row(one: StackScore, uri: str) -> dict[str, Any]:
    numbers = {name: _number(getattr(one, name)) for name in ("score", "ratio", "distinct")}
    return {"stack": one.name, **numbers, "images": len(one.matches), "uri": uri}


def _columns(matches: Sequence[Match]) -> dict[str, list[float | None]]:
    return {name: [_number(getattr(match, name)) for match in matches] for name in Match._fields}
