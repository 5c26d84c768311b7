#!/usr/bin/env python3
"""Start and end of large runs: their share of the time of real runs of 10⁶ and 10⁷ points on two ranks.

    python benchmarks/large_runs.py --work /tmp/large
    python benchmarks/large_runs.py --work /tmp/large --only 2      # one run; the others as told in the folder

Needs 7 GB of disk, and some minutes of two cores. Small windows are the hardest case: their points cost least.
"""

import json
from dataclasses import asdict, dataclass

import tifffile
from compare import facts_table, machine, measure, options_for, table

from mpidvc.core.analytic import AnalyticPair

RANKS = 2
#: A motion that windows of 7 voxels find without a guess.
MOTION = {"rotation": (0.2, 0.1, 0.1), "translation": (0.3, -0.4, 0.2), "strain": (-0.002, 0.001, 0.001)}
AFTER = ("finish", "summary", "write")


@dataclass(frozen=True)
class Run:
    """An ldic of a cube of voxels; `limit`: largest share of the time outside of the points, %."""

    name: str
    edge: int
    options: str
    limit: float | None = None


RUNS = (
    Run("small", 201, "-hws 3 -o 1 -ns 2"),
    Run("small, each with a guess of its own", 201, "-hws 3 -o 1 -pf small-ldic.h5"),
    Run("large", 201, "-hws 10 -o 3 -ns 2", 3),
    Run("small, ten times as many", 217, "-hws 3 -o 1 -ns 1", 10),
    Run("small, ten times as many, each with a guess", 217, "-hws 3 -o 1 -pf small-ten-times-as-many-ldic.h5"),
)


@dataclass(frozen=True)
class Told:
    """CPU seconds of the busiest rank in every stage, and the share of all but the points, %; the same of wall time."""

    points: int
    cpu: dict
    memory: float
    outside: float
    outside_wall: float


def measured(run, work, mpidvc):
    pair = AnalyticPair((run.edge,) * 3, 1, **MOTION)
    for name, image in ((f"one{run.edge}", pair.image1), (f"two{run.edge}", pair.image2)):
        if not (work / f"{name}.tif").exists():
            tifffile.imwrite(work / f"{name}.tif", image())
    stem = run.name.replace(", ", "-").replace(" ", "-")
    words = f"ldic one{run.edge}.tif two{run.edge}.tif {run.options} -np {RANKS} -od . -pre {stem} --overwrite".split()
    # not every window of 7 voxels converges
    found = measure([mpidvc, *words], work, memory=True, statuses=(0, 1))
    stages, points = found.timings["stages"], found.timings["points"]
    cpu = {name: max(spent) for name, spent in found.timings["cpu"].items()}
    guesses = any(f"{stem}-ldic.h5" in other.options for other in RUNS)
    for name in ("tsv", *([] if guesses else ["h5", "run.json"])):
        (work / f"{stem}-ldic.{name}").unlink()
    shares = [100 * (1 - times["points"] / sum(times.values())) for times in (cpu, stages)]
    return Told(points, cpu, found.memory, *shares)


def report(rows, about):
    """The text of the page, of pairs of `Run` and `Told`."""
    columns = {
        "windows": lambda row: row[0].name,
        "options": lambda row: f"`{row[0].options}`",
        "points": lambda row: f"{row[1].points:,}",
        "starting s": lambda row: row[1].cpu["startup"],
        "layout s": lambda row: row[1].cpu["layout"],
        "points s": lambda row: row[1].cpu["points"],
        "a point µs": lambda row: 1e6 * RANKS * row[1].cpu["points"] / row[1].points,
        **{f"{name} s": lambda row, name=name: row[1].cpu[name] for name in AFTER},
        "outside of the points": lambda row: f"{row[1].outside:.1f} %",
        "by wall time": lambda row: f"{row[1].outside_wall:.1f} %",
        "peak MB": lambda row: row[1].memory,
    }
    return f"""# Start and end of large runs

Written by `benchmarks/large_runs.py`: every row is one run, all on one machine. Do not edit.

{facts_table(about)}

CPU seconds of the busier of {RANKS} ranks in each stage, of real runs: until Python has started, until the first point
is handed out, the points, the finished file, the verdict, and the text. *Outside of the points* is all but the points,
of the sum of these seconds. Most rows and text are written among the points, and counted apart.
Wall times are told besides; they have other work on the machine in them, and the disk.
The closer the nodes, the more of them share what is read and prefiltered, and the less does a point cost: at a spacing
of 1 it is the least, and the share of the rest the largest.
Memory is that of all ranks: pages that they share count once.

{table(rows, columns)}

A guess of its own for each point (`-pf` with the results file of a grid) is read by all ranks, twice, by ranges of
rows: for its checksum and extremes before they begin, and to write it to the journal, where ranks read the guesses of
their chunks. No rank has the field in memory, and nothing of it is broadcast.
"""


def main():
    parser = options_for(__doc__, "benchmarks-large-runs.md", spam=False)
    parser.add_argument("--only", type=int, nargs="*", default=range(len(RUNS)), help="numbers of runs, from 0")
    args = parser.parse_args()
    # not the load: rows may be older than the page
    about = {name: fact for name, fact in machine().items() if not name.startswith("load")}
    for k in args.only:
        told = measured(RUNS[k], args.work, args.mpidvc)
        print(RUNS[k].name, told, flush=True)
        (args.work / f"told-{k}.json").write_text(json.dumps(asdict(told)), encoding="utf-8")
    kept = [(run, args.work / f"told-{k}.json") for k, run in enumerate(RUNS)]
    rows = [(run, Told(**json.loads(path.read_text(encoding="utf-8")))) for run, path in kept if path.exists()]
    args.report.write_text(report(rows, about), encoding="utf-8")
    too_much = [(run, told) for run, told in rows if run.limit is not None and told.outside > run.limit]
    for run, told in too_much:
        print(f"{run.name}: {told.outside:.1f} % of the time is outside of the points, not {run.limit:g} %")
    return int(bool(too_much))


if __name__ == "__main__":
    raise SystemExit(main())
