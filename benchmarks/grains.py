#!/usr/bin/env python3
"""Compare the discrete correlation of mpidvc and of spam on packings of grains whose motions are known.

    python benchmarks/grains.py --work /tmp/bench                      # makes a venv with spam 0.9.1 there
    python benchmarks/grains.py --work /tmp/bench --spam /path/to/venv/bin --cases 300 5000 --long
    python benchmarks/grains.py --work /tmp/bench --cases 5000 --without-spam --report ranks.md    # two ranks over one

Runs of the programs alternate; the least CPU time of the label stage counts. spam logs no stages: its label stage is
all its CPU time but that of the same command on the same images with a single label, which is its start, the reading of
the images and one label. A run of spam of more than a minute is not repeated; of 5 000 grains with cubic splines it
correlates the first 250, and all only with `--long`. The tables go into docs/benchmarks-grains.md (`--report` for
another place) after every turn.

The label stage on two processes is compared with two runs on one process at the same time, too: these share nothing but
the machine, and no program is faster on two of its CPUs than they are.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import tifffile
from compare import facts_table, find_spam, machine, made_folder, measure, options_for, table

from mpidvc.core.grains import AnalyticGrains
from mpidvc.images.image import open_image
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks.labels import measure_labels

#: Shape, grains, and extent of their radii, voxels: balls, with a solid fraction of about 0.17.
CASES = {300: ((200, 200, 200), (9.0, 11.5)), 5000: ((400, 400, 400), (7.0, 9.0))}
TIMES = 3
#: Seconds of a run of spam that is not repeated, grains of a case that is long with cubic splines, and those of them
#: that spam correlates. Sizes and places of grains do not depend on their numbers.
LONG_RUN, LONG_CASE, SAMPLE = 60.0, 1000, 250


@dataclass
class Row:
    """The best run of one program with one number of processes.

    `stage` is the wall time of its label stage, `at_once` that of two runs on one process at the same time, `ranks_cpu`
    the CPU time of each process in it, and `measured` the number of grains that were correlated.
    """

    program: str
    grains: int
    measured: int
    order: int
    ranks: int
    wall: float
    cpu: float
    memory: float
    stage_cpu: float
    stage: float | None = None
    at_once: float | None = None
    ranks_cpu: list = field(default_factory=list)
    runs: int = 1
    converged: int = 0
    scatter: float = np.nan
    rotation: float = np.nan
    iterations: float = np.nan

    @property
    def milliseconds(self):
        """Of CPU per grain."""
        return 1e3 * self.stage_cpu / self.measured


class Case:
    """The images of a packing, and its truth."""

    def __init__(self, grains, work):
        shape, radii = CASES[grains]
        self.grains, self.shape, self.work = grains, shape, work
        self.packing = AnalyticGrains(shape, grains, kind="balls", radii=radii, gap=2.0, touching=0.0, margin=8.0)
        labels = self.packing.labels1()
        self.files = [str(work / f"{name}-{grains}.tif") for name in ("im1", "lab1", "im2")]
        self.single, self.sample = (str(work / f"{name}-{grains}.tif") for name in ("single", "sample"))
        images = (self.packing.image1(), labels, self.packing.image2())
        some = [np.where(labels <= n, labels, 0) for n in (1, SAMPLE)]
        for name, image in zip((*self.files, self.single, self.sample), (*images, *some), strict=True):
            tifffile.imwrite(name, image, photometric="minisblack", metadata={"axes": "ZYX"})
        boxes = measure_labels(InlineExecutor(), open_image(self.files[1]))
        self.box_centres = (boxes.lowest + boxes.highest) / 2.0

    def command(self, program, order, ranks, labels=None, folder=None):
        one, numbers, two = self.files
        where = ["-od", str(folder or self.work), "-pre", f"{self.grains}-o{order}"]
        return [*program, one, labels or numbers, two, "-o", str(order), "-np", str(ranks), *where]

    def judge(self, row):
        """Complete a row from the field: spam tells the displacement of the centre of the box, mpidvc that of mass."""
        field = np.genfromtxt(self.work / f"{self.grains}-o{row.order}-ddic.tsv", names=True)[1:]
        label = np.arange(1, row.measured + 1)
        places = (self.box_centres if row.program == "spam" else self.packing.centres)[label]
        truth = np.array([self.packing.moved(p, k) - p for p, k in zip(places, label, strict=True)])
        found = np.stack([field[f"{axis}disp"] for axis in "ZYX"], axis=1)
        F = np.stack([field[f"F{a}{b}"] for a in "zyx" for b in "zyx"], axis=1).reshape(-1, 3, 3)
        good = field["returnStatus"] == 2
        R = F[good] @ self.packing.phi()[label, :3, :3][good].transpose(0, 2, 1)
        angle = np.degrees(np.arccos(np.clip((np.trace(R, axis1=1, axis2=2) - 1) / 2, -1, 1)))
        row.converged, row.iterations = int(good.sum()), float(field["iterations"].mean())
        row.scatter, row.rotation = float((found - truth)[good].std()), float(np.median(angle))


def at_once(case, order, mpidvc):
    """Wall time of the label stage of two runs on one process at the same time, that of the slower one."""
    folders = [made_folder(case.work / name) for name in ("first", "second")]
    with ThreadPoolExecutor() as pool:
        runs = pool.map(lambda folder: measure(case.command(mpidvc, order, 1, None, folder), folder, False), folders)
        runs = list(runs)
    return max(run.timings["stages"]["points"] for run in runs)


def compare(case, order, spam, mpidvc, sampled):
    """Rows of spam, if it is given, on one process, and of mpidvc on one and two; after every turn."""
    best, start = {}, None
    for turn in range(TIMES):
        jobs = [("mpidvc", 1), ("mpidvc", 2)]
        if spam and (turn == 0 or best["spam", 1].wall < LONG_RUN):
            jobs.append(("spam", 1))
        for name, ranks in jobs:
            program, labels, measured = mpidvc, None, case.grains
            if name == "spam":
                program = spam
                if sampled:
                    labels, measured = case.sample, SAMPLE
                single = measure(case.command(program, order, ranks, case.single), case.work).cpu
                start = single if start is None else min(start, single)
            run = measure(case.command(program, order, ranks, labels), case.work, memory=turn == 0)
            logged = run.timings
            cpu = logged["points_cpu"] if logged else run.cpu - start
            print(
                f"{name} {case.grains} o{order} np {ranks}: {run.wall:.2f} s wall, labels {cpu:.3f} s CPU", flush=True
            )
            old = best.get((name, ranks))
            wall = logged["stages"]["points"] if logged else None
            if old is None:
                row = Row(name, case.grains, measured, order, ranks, run.wall, run.cpu, run.memory, cpu, wall)
                row.ranks_cpu = logged["ranks_cpu"] if logged else []
                case.judge(row)
                best[name, ranks] = row
                continue
            old.wall, old.cpu = min(old.wall, run.wall), min(old.cpu, run.cpu)
            if logged and cpu < old.stage_cpu:
                old.ranks_cpu = logged["ranks_cpu"]
            old.stage_cpu = min(old.stage_cpu, cpu)
            old.stage = min(old.stage, wall) if wall else None
            old.runs += 1
        both, two = at_once(case, order, mpidvc), best["mpidvc", 2]
        two.at_once = both if two.at_once is None else min(two.at_once, both)
        print(f"mpidvc {case.grains} o{order}, two runs on one process at once: labels {both:.2f} s wall", flush=True)
        yield list(best.values())


JOB = {"program": "program", "grains": "grains", "order": "order", "processes": "ranks"}


def report(rows, about):
    """The text of the page."""
    spam = {(r.grains, r.order): r for r in rows if r.program == "spam"}
    one = {(r.grains, r.order): r for r in rows if r.program == "mpidvc" and r.ranks == 1}
    speed = {
        **JOB,
        "grains correlated": "measured",
        "runs": "runs",
        "whole process s": "wall",
        "CPU s": "cpu",
        "label stage, CPU s": "stage_cpu",
    }
    speed |= {"CPU ms/grain": "milliseconds", "iterations/grain": "iterations", "peak MB": "memory"}

    def ratio(value, sampled=True):
        def of(row):
            other = spam.get((row.grains, row.order))
            return value(other) / value(row) if other and (sampled or other.measured == other.grains) else None

        return of

    ratios = {**JOB, "label stage, per core": ratio(lambda r: r.milliseconds)}
    ratios |= {"whole process": ratio(lambda r: r.wall, sampled=False)}
    errors = {"program": "program", "grains": "grains", "order": "order", "grains correlated": "measured"}
    errors |= {"converged": "converged"}
    errors |= {"displacement, standard deviation of the error, px": "scatter"}
    errors |= {"rotation, median error, °": "rotation"}
    ranks = {"grains": "grains", "order": "order", "label stage on one s": lambda r: one[r.grains, r.order].stage}
    ranks |= {"on two s": "stage", "times as fast": lambda r: one[r.grains, r.order].stage / r.stage}
    ranks |= {"whole process": lambda r: one[r.grains, r.order].wall / r.wall, "two runs at once s": "at_once"}
    ranks |= {"times as fast, these": lambda r: 2 * one[r.grains, r.order].stage / r.at_once}
    cpu = {"grains": "grains", "order": "order", "CPU of one s": lambda r: one[r.grains, r.order].stage_cpu}
    cpu |= {"of two s": "stage_cpu", "of the first s": lambda r: r.ranks_cpu[0]}
    cpu |= {"of the second s": lambda r: r.ranks_cpu[1]}
    cases = "\n".join(
        f"* {n:,} balls of radius {r[0]:g} to {r[1]:g} voxels in {' × '.join(map(str, s))}"
        for n, (s, r) in CASES.items()
        if any(row.grains == n for row in rows)
    )
    ours = [r for r in rows if r.program == "mpidvc"]
    two = [r for r in ours if r.ranks == 2]
    return f"""# Benchmarks of the discrete correlation

Written by `benchmarks/grains.py`: every figure here comes from one run on one machine. Do not edit.

{facts_table(about)}

Images in closed form in both states; displacements up to 3 voxels, rotations up to 5°, no first guess, default options:

{cases}

The programs alternate; least times of the runs; memory is that of the first one. Label stage: the CPU time that mpidvc
logs for all its processes; for spam, which logs none, all CPU time but that of the same command with a single label. On
a loaded machine, CPU times are to be compared, and not those of whole processes. Numbers are left out where spam was
not run, and times of whole processes where spam correlated only some of the grains.

## Speed

{table(rows, speed)}

### Times as fast as spam 0.9.1 on one process

{table(ours, ratios)}

### Two processes over one

Two runs at once: the label stage of the slower of two runs on one process at the same time. They share nothing but the
machine: the last column is the most that two of its CPUs can do.

{table(two, ranks)}

The work that the label stage takes, and its division:

{table(two, cpu)}

## Error against the true motion

Of the grains that converged. The displacement of spam is compared at the centre of the label's box, for which spam
calculates it, that of mpidvc at the centre of mass.

{table([r for r in rows if r.ranks == 1], errors)}
"""


def main():
    parser = options_for(__doc__, "benchmarks-grains.md")
    parser.add_argument("--cases", type=int, nargs="+", choices=CASES, default=[300], help="numbers of grains")
    parser.add_argument("--long", action="store_true", help="let spam correlate all of 5000 grains with cubic splines")
    parser.add_argument("--without-spam", action="store_true", help="run mpidvc only")
    args = parser.parse_args()
    work = args.work
    about = machine()
    spam = None if args.without_spam else [str(find_spam(args.spam, work) / "spam-ddic")]
    mpidvc = [args.mpidvc, "ddic"]
    rows = []
    for grains in args.cases:
        case = Case(grains, work)
        for order in (1, 3):
            sampled = order == 3 and grains > LONG_CASE and not args.long
            done = list(rows)
            for found in compare(case, order, spam, mpidvc, sampled):
                rows = done + found
                args.report.write_text(report(rows, about), encoding="utf-8")
    print(f"written: {args.report}")


if __name__ == "__main__":
    main()
