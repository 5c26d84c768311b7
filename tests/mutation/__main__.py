"""Mutation run: ``python -m tests.mutation run`` tries a random sample, ``… report`` writes it into docs/testing.md.

The run lists the mutants that no test sees. A survivor is harmless, or the tests lack something; which of the two is
said in ``judged.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.mutation.mutants import Mutant
from tests.mutation.planted import planted
from tests.mutation.run import GROUPS, ROOT, Outcome, Workshop, all_mutants, sample

__all__ = ["judgements", "name_of", "try_sample"]

JUDGED = Path(__file__).with_name("judged.json")
PAGE = ROOT / "docs" / "testing.md"
MARKS = "<!-- mutation run -->\n", "<!-- end of the mutation run -->\n"
Row = dict[str, Any]


def name_of(row: Row) -> tuple[Any, ...]:
    """What a mutant is recognised by, in another run."""
    return tuple(row[key] for key in ("file", "text", "column", "old", "new"))


def judgements() -> dict[tuple[Any, ...], str]:
    """Why the survivors that are known are harmless, or what is missing."""
    return {name_of(row): row["why"] for row in json.loads(JUDGED.read_text(encoding="utf-8"))}


def row_of(group: str, outcome: Outcome) -> Row:
    row = {"group": group} | asdict(outcome.mutant)
    return row | {"verdict": outcome.verdict, "by": outcome.by, "seconds": round(outcome.seconds, 1)}


def try_sample(
    workshop: Workshop, seconds: float, seed: int, groups: list[str], only: str = "", tried: Collection[Any] = ()
) -> Iterator[Row]:
    """The planted faults, and then mutants of the groups in turn until the CPU seconds are used, equally by all.

    `only` is a regular expression that is found in the files' paths; mutants of a name in `tried` are left out.
    """
    for mutant in planted(ROOT):
        if re.search(only, mutant.file) and mutant.name not in tried:
            yield row_of("planted", workshop.try_out(mutant))
    left = {}
    for group, mutants in all_mutants(groups, only).items():
        chosen = [mutant for mutant in sample(mutants, seed) if mutant.name not in tried]
        if chosen:
            left[group] = chosen
    used = dict.fromkeys(left, 0.0)
    while left and sum(used.values()) < seconds:
        group = min(left, key=lambda name: used[name])
        before = workshop.cpu_seconds()
        yield row_of(group, workshop.try_out(left[group].pop(0)))
        used[group] += workshop.cpu_seconds() - before
        if not left[group]:
            del left[group]


def told(row: Row) -> str:
    return f"{row['verdict']:9}{row['file']}:{row['line']}: {row['old']} → {row['new'] or 'nothing'}   {row['text']}"


def run(args: argparse.Namespace) -> None:
    os.nice(10)
    rows: list[Row] = []
    seeds = [args.seed]
    if args.add:
        before = json.loads(args.out.read_text(encoding="utf-8"))
        rows, seeds = before["rows"], [*before["seeds"], args.seed]
    counts = {name: len(found) for name, found in all_mutants().items()}
    result = {"seeds": list(dict.fromkeys(seeds)), "mutants": counts, "rows": rows}
    with Workshop.temporary() as workshop:
        tried = {name_of(row) for row in rows}
        for row in try_sample(workshop, args.seconds, args.seed, args.groups, args.only, tried):
            rows.append(row)
            print(told(row), flush=True)
            args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def again(args: argparse.Namespace) -> None:
    """Try the survivors of a run again, and the file is brought up to date."""
    os.nice(10)
    result = json.loads(args.out.read_text(encoding="utf-8"))
    now = {mutant.name: mutant for found in all_mutants().values() for mutant in found}
    with Workshop.temporary() as workshop:
        for k, row in enumerate(result["rows"]):
            if row["verdict"] != "survived":
                continue
            mutant = now.get(Mutant(**{key: row[key] for key in Mutant.__dataclass_fields__}).name)
            if mutant is None:
                print(f"gone     {row['file']}: {row['text']}")
                continue
            result["rows"][k] = row_of(row["group"], workshop.try_out(mutant))
            print(told(result["rows"][k]), flush=True)
            args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def report(args: argparse.Namespace) -> None:
    result = json.loads(args.out.read_text(encoding="utf-8"))
    rows = result["rows"]
    lines = [
        "| | mutants | tried | do not compile | killed | survived | CPU minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in ("planted", *GROUPS):
        mine = [row for row in rows if row["group"] == group]
        count = Counter(row["verdict"] for row in mine)
        minutes = sum(row["seconds"] for row in mine) / 60
        total = result["mutants"].get(group, len(mine))
        killed = count["killed"] + count["hangs"]
        lines.append(
            f"| {group} | {total} | {len(mine)} | {count['invalid']} | {killed} | {count['survived']} | {minutes:.1f} |"
        )
    judged = json.loads(JUDGED.read_text(encoding="utf-8"))
    known = {name_of(row) for row in judged}
    survivors = [row for row in rows if row["verdict"] == "survived"]
    new = [row | {"why": "**not judged**"} for row in survivors if name_of(row) not in known]
    lines += ["", "Survivors of this run and of earlier ones:", "", "| place | change | judgement |", "|---|---|---|"]
    for row in sorted(judged + new, key=lambda row: row["file"]):
        text, change = (value.replace("|", "\\|") for value in (row["text"], f"`{row['old']}` → `{row['new']}`"))
        lines.append(f"| {row['file']}<br>`{text}` | {change} | {row['why']} |")
    page = PAGE.read_text(encoding="utf-8")
    begin, end = MARKS
    assert begin in page
    assert end in page
    seeds = ", ".join(map(str, result["seeds"]))
    written = f"{begin}\nSeeds of the sample: {seeds}.\n\n" + "\n".join(lines) + f"\n\n{end}"
    PAGE.write_text(re.sub(f"{begin}.*{end}", lambda _: written, page, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("what", choices=["run", "again", "report"])
    parser.add_argument("--out", type=Path, default=Path("mutation.json"), help="the run's results, JSON")
    parser.add_argument("--seconds", type=float, default=1500, help="CPU seconds of the sample (default 1500)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--add", action="store_true", help="keep the results in --out, try further mutants")
    parser.add_argument("--only", default="", metavar="PATTERN", help="regular expression: files of these paths only")
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    args = parser.parse_args()
    {"run": run, "again": again, "report": report}[args.what](args)


if __name__ == "__main__":
    main()
