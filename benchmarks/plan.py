#!/usr/bin/env python3
"""Compare what `mpidvc plan` says with what runs take: CPU time and memory of one process.

    python benchmarks/plan.py --work /tmp/plan                  # writes docs/benchmarks-plan.md
    python benchmarks/plan.py --work /tmp/plan --ranks 2        # wall time on two ranks, too: on a quiet machine only

Plan and run take turns, and the medians of `--repeat` ratios count: so other work on the machine concerns both. The
time is the CPU time of the whole process, from its start to its end; plan says seconds of one rank. Memory is the
largest that is resident (VmHWM), images and libraries included. The images are smoothed noise, and the same moved by a
spline.
"""

import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from compare import REPOSITORY, facts_table, machine, measure, options_for, table
from scipy import ndimage

#: Edge of the images, voxels.
EDGE = 240
#: The run that gives the field of some cases.
FIELD = "ldic im1.tif im2.tif -ns 5 -hws 4 -pre field --overwrite"
#: Name and command line of the cases.
CASES = {
    "ldic, trilinear": "ldic im1.tif im2.tif -ns 9 -hws 7",
    "ldic, tricubic": "ldic im1.tif im2.tif -ns 12 -hws 8 -o 3",
    "pixelSearch": "pixelSearch im1.tif im2.tif -ns 12 -hws 7 -sr -3 3 -3 3 -3 3",
    "regularStrain": "regularStrain field-ldic.h5 -comp vol dev r U e",
    "filterPhiField": "filterPhiField -pf field-ldic.h5 -slqc -cint",
    "passPhiField": "passPhiField -pf field-ldic.h5 -ns 5 -im1 im1.tif",
    "reg": "reg im1.tif im2.tif",
}
#: Runs mpidvc and prints the memory that it took: what looks at a process from time to time misses its peak.
PEAK = REPOSITORY / "tests/peak_memory.py"
#: The promise: neither more nor less than so many times what is measured.
PROMISED = 1.5


@dataclass
class Row:
    """A case: medians of CPU seconds, and bytes; ratios of what was planned to what was measured."""

    name: str
    line: str
    planned: float
    measured: float
    time: float
    planned_bytes: float
    measured_bytes: float
    wall: float

    @property
    def memory(self):
        return self.planned_bytes / self.measured_bytes

    @property
    def holds(self):
        ratios = [self.time, self.memory, *([self.wall] if self.wall else [])]
        return all(1 / PROMISED <= ratio <= PROMISED for ratio in ratios)


def make_images(folder):
    """An image of smoothed noise, and the same moved by some voxels."""
    noise = np.random.default_rng(1).random((EDGE, EDGE, EDGE), np.float32)
    image = ndimage.gaussian_filter(noise, 1.5)
    moved = ndimage.shift(image, (0.4, -1.3, 2.2), order=3, mode="nearest")
    for name, values in (("im1", image), ("im2", moved)):
        grey = np.clip((values - image.min()) / np.ptp(image) * 60000, 0, 65535).astype(np.uint16)
        tifffile.imwrite(folder / f"{name}.tif", grey, photometric="minisblack")


def compare(name, line, folder, mpidvc, repeat, ranks):
    """A row of the table."""
    turns = []
    for _ in range(repeat):
        measure([mpidvc, "plan", "--no-cache", "--json", "--ranks", "1", str(ranks), "--", *line.split()], folder)
        plan = json.loads((folder / "last.log").read_text())
        one, many = plan["runs"]
        options = ["--overwrite", "-od", "out"] if line.split()[0] != "reg" else ["-od", "out"]
        python = str(Path(mpidvc).with_name("python"))
        run = measure([python, PEAK, *line.split(), "-np", "1", *options], folder, memory=False)
        peak = int(re.findall(r"^peak (\d+)$", (folder / "last.log").read_text(), re.MULTILINE)[-1])
        wall = 0.0
        if ranks > 1:
            shared = measure([mpidvc, *line.split(), "-np", str(ranks), *options], folder, memory=False)
            wall = many["seconds"] / shared.wall
        turns.append((one["seconds"], run.cpu, one["seconds"] / run.cpu, one["memory_per_node"], peak, wall))
    return Row(name, line, *(statistics.median(column) for column in zip(*turns, strict=True)))


def report(rows, about, ranks, repeat):
    """The text of the page."""
    columns = {
        "": "name",
        "planned s": "planned",
        "measured s": "measured",
        "time, ratio": "time",
        "planned MB": lambda row: row.planned_bytes / 1e6,
        "measured MB": lambda row: row.measured_bytes / 1e6,
        "memory, ratio": "memory",
    }
    if ranks > 1:
        columns[f"wall time on {ranks} ranks, ratio"] = "wall"
    columns[f"within {PROMISED:g}"] = lambda row: "yes" if row.holds else "no"
    lines = "\n".join(f"* {row.name}: `mpidvc {row.line}`" for row in rows)
    return f"""# Plans compared with runs

Written by `benchmarks/plan.py`: every figure here comes from one run on one machine. Do not edit.

{facts_table(about)}

CPU seconds and memory of one process, its start and its files included, as `mpidvc plan` says and as measured; images
of {EDGE} × {EDGE} × {EDGE} voxels, 16 bits. Plan and run took turns, and ratios are medians of {repeat} turns. The
memory in a plan is an upper bound; what is measured is the largest resident memory, images and libraries included.

{table(rows, columns)}

{lines}
"""


def main():
    parser = options_for(__doc__, "benchmarks-plan.md", spam=False)
    parser.add_argument("--only", help="a part of the name of a case")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=1)
    args = parser.parse_args()
    work = args.work
    about, rows = machine(), []
    make_images(work)
    measure([args.mpidvc, *FIELD.split(), "-np", "1"], work)
    for name, line in CASES.items():
        if args.only is None or args.only in name:
            rows.append(compare(name, line, work, args.mpidvc, args.repeat, args.ranks))
            print(rows[-1], "holds" if rows[-1].holds else "does not hold", flush=True)
            args.report.write_text(report(rows, about, args.ranks, args.repeat), encoding="utf-8")


if __name__ == "__main__":
    main()
