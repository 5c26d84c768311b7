#!/usr/bin/env python3
"""Compare the discrete correlation of mpidvc and of spam on packings of grains whose motions are known.

    python benchmarks/grains.py --work /tmp/bench                      # makes a venv with spam 0.9.1 there
    python benchmarks/grains.py --work /tmp/bench --spam /path/to/venv/bin --cases 300 5000 --long

Runs of the programs alternate; the least CPU time of the label stage counts. spam logs no stages: its label stage is
all its CPU time but that of the same command on the same images with a single label, which is its start, the reading of
the images and one label. A run of spam of more than a minute is not repeated; on 5 000 grains with cubic splines spam
runs only with `--long`. The tables go into docs/benchmarks-grains.md (`--report` for another place) after every turn.
"""

from dataclasses import dataclass

import numpy as np
import tifffile
from compare import facts_table, find_spam, machine, measure, options_for, table

from mpidvc.core.grains import AnalyticGrains
from mpidvc.images.image import open_image
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks.labels import measure_labels

#: Shape, grains, and extent of their radii, voxels: balls, with a solid fraction of about 0.17.
CASES = {300: ((200, 200, 200), (9.0, 11.5)), 5000: ((400, 400, 400), (7.0, 9.0))}
TIMES = 3
#: Seconds of a run of spam that is not repeated, and grains of a case that is long with cubic splines.
LONG_RUN, LONG_CASE = 60.0, 1000


@dataclass
class Row:
    """The best run of one program with one number of processes."""

    program: str
    grains: int
    order: int
    ranks: int
    wall: float
    cpu: float
    memory: float
    stage_cpu: float
    stage: float | None = None
    runs: int = 1
    converged: int = 0
    scatter: float = np.nan
    rotation: float = np.nan
    iterations: float = np.nan

    @property
    def milliseconds(self):
        """Of CPU per grain."""
        return 1e3 * self.stage_cpu / self.grains


class Case:
    """The images of a packing, and its truth."""

    def __init__(self, grains, work):
        shape, radii = CASES[grains]
        self.grains, self.shape, self.work = grains, shape, work
        self.packing = AnalyticGrains(shape, grains, kind="balls", radii=radii, gap=2.0, touching=0.0, margin=8.0)
        labels = self.packing.labels1()
        self.files = [str(work / f"{name}-{grains}.tif") for name in ("im1", "lab1", "im2")]
        self.single = str(work / f"single-{grains}.tif")
        images = (self.packing.image1(), labels, self.packing.image2(), (labels == 1).astype(labels.dtype))
        for name, image in zip((*self.files, self.single), images, strict=True):
            tifffile.imwrite(name, image, photometric="minisblack", metadata={"axes": "ZYX"})
        boxes = measure_labels(InlineExecutor(), open_image(self.files[1]))
        self.box_centres = (boxes.lowest + boxes.highest) / 2.0

    def command(self, program, order, ranks, labels=None):
        one, numbers, two = self.files
        where = ["-od", str(self.work), "-pre", f"{self.grains}-o{order}"]
        return [*program, one, labels or numbers, two, "-o", str(order), "-np", str(ranks), *where]

    def judge(self, row):
        """Complete a row from the field: spam tells the displacement of the centre of the box, mpidvc that of mass."""
        field = np.genfromtxt(self.work / f"{self.grains}-o{row.order}-ddic.tsv", names=True)[1:]
        label = np.arange(1, self.grains + 1)
        places = self.box_centres[1:] if row.program == "spam" else self.packing.centres[1:]
        truth = np.array([self.packing.moved(p, k) - p for p, k in zip(places, label, strict=True)])
        found = np.stack([field[f"{axis}disp"] for axis in "ZYX"], axis=1)
        F = np.stack([field[f"F{a}{b}"] for a in "zyx" for b in "zyx"], axis=1).reshape(-1, 3, 3)
        good = field["returnStatus"] == 2
        R = F[good] @ self.packing.phi()[1:, :3, :3][good].transpose(0, 2, 1)
        angle = np.degrees(np.arccos(np.clip((np.trace(R, axis1=1, axis2=2) - 1) / 2, -1, 1)))
        row.converged, row.iterations = int(good.sum()), float(field["iterations"].mean())
        row.scatter, row.rotation = float((found - truth)[good].std()), float(np.median(angle))


def compare(case, order, spam, mpidvc, with_spam):
    """Rows of spam on one process, and of mpidvc on one and two; after every turn."""
    best, start = {}, None
    for turn in range(TIMES):
        jobs = [("mpidvc", 1), ("mpidvc", 2)]
        if with_spam and (turn == 0 or best["spam", 1].wall < LONG_RUN):
            jobs.append(("spam", 1))
        for name, ranks in jobs:
            program = spam if name == "spam" else mpidvc
            if name == "spam":
                single = measure(case.command(program, order, ranks, case.single), case.work).cpu
                start = single if start is None else min(start, single)
            run = measure(case.command(program, order, ranks), case.work)
            logged = run.timings
            cpu = logged["points_cpu"] if logged else run.cpu - start
            print(
                f"{name} {case.grains} o{order} np {ranks}: {run.wall:.2f} s wall, labels {cpu:.3f} s CPU", flush=True
            )
            old = best.get((name, ranks))
            wall = logged["stages"]["points"] if logged else None
            if old is None:
                row = Row(name, case.grains, order, ranks, run.wall, run.cpu, run.memory, cpu, wall)
                case.judge(row)
                best[name, ranks] = row
                continue
            old.wall, old.cpu = min(old.wall, run.wall), min(old.cpu, run.cpu)
            old.stage_cpu = min(old.stage_cpu, cpu)
            old.stage = min(old.stage, wall) if wall else None
            old.runs += 1
        yield list(best.values())


JOB = {"program": "program", "grains": "grains", "order": "order", "processes": "ranks"}


def report(rows, about):
    """The text of the page."""
    spam = {(r.grains, r.order): r for r in rows if r.program == "spam"}
    one = {(r.grains, r.order): r for r in rows if r.program == "mpidvc" and r.ranks == 1}
    speed = {**JOB, "runs": "runs", "whole process s": "wall", "CPU s": "cpu", "label stage, CPU s": "stage_cpu"}
    speed |= {"CPU ms/grain": "milliseconds", "iterations/grain": "iterations", "peak MB": "memory"}

    def ratio(value):
        return lambda r: value(spam[r.grains, r.order]) / value(r) if (r.grains, r.order) in spam else None

    ratios = {**JOB, "label stage, per core": ratio(lambda r: r.stage_cpu), "whole process": ratio(lambda r: r.wall)}
    errors = {"program": "program", "grains": "grains", "order": "order", "converged": "converged"}
    errors |= {"displacement, standard deviation of the error, px": "scatter"}
    errors |= {"rotation, median error, °": "rotation"}
    ranks = {"grains": "grains", "order": "order", "label stage on one s": lambda r: one[r.grains, r.order].stage}
    ranks |= {"on two s": "stage", "times as fast": lambda r: one[r.grains, r.order].stage / r.stage}
    ranks |= {"whole process": lambda r: one[r.grains, r.order].wall / r.wall}
    cases = "\n".join(
        f"* {n:,} balls of radius {r[0]:g} to {r[1]:g} voxels in {' × '.join(map(str, s))}"
        for n, (s, r) in CASES.items()
        if any(row.grains == n for row in rows)
    )
    ours = [r for r in rows if r.program == "mpidvc"]
    return f"""# Benchmarks of the discrete correlation

Written by `benchmarks/grains.py`: every figure here comes from one run on one machine. Do not edit.

{facts_table(about)}

Images in closed form in both states; displacements up to 3 voxels, rotations up to 5°, no first guess, default options:

{cases}

The programs alternate; least times of the runs. Label stage: the CPU time that mpidvc logs for all its processes; for
spam, which logs none, all CPU time but that of the same command with a single label. On a loaded machine, CPU times are
to be compared, and not those of whole processes. Numbers are left out where spam was not run.

## Speed

{table(rows, speed)}

### Times as fast as spam 0.9.1 on one process

{table(ours, ratios)}

### Two processes over one

{table([r for r in ours if r.ranks == 2], ranks)}

## Error against the true motion

Of the grains that converged. The displacement of spam is compared at the centre of the label's box, for which spam
calculates it, that of mpidvc at the centre of mass.

{table([r for r in rows if r.ranks == 1], errors)}
"""


def main():
    parser = options_for(__doc__, "benchmarks-grains.md")
    parser.add_argument("--cases", type=int, nargs="+", choices=CASES, default=[300], help="numbers of grains")
    parser.add_argument("--long", action="store_true", help="run spam with cubic splines on 5000 grains, too")
    args = parser.parse_args()
    work = args.work
    about = machine()
    spam, mpidvc = [str(find_spam(args.spam, work) / "spam-ddic")], [args.mpidvc, "ddic"]
    rows = []
    for grains in args.cases:
        case = Case(grains, work)
        for order in (1, 3):
            with_spam = order == 1 or grains < LONG_CASE or args.long
            done = list(rows)
            for found in compare(case, order, spam, mpidvc, with_spam):
                rows = done + found
                args.report.write_text(report(rows, about), encoding="utf-8")
    print(f"written: {args.report}")


if __name__ == "__main__":
    main()
