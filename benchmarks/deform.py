#!/usr/bin/env python3
"""Compare deformImage with spam's: CPU time per voxel of an image deformed by a field on a grid.

    python benchmarks/deform.py --work /tmp/bench                      # makes a venv with spam 0.9.1 there
    python benchmarks/deform.py --work /tmp/bench --spam /path/to/venv/bin

Imports and files do not count on either side. mpidvc tells its computing stage (MPIDVC_TIMINGS), which writes the
image, too. spam's is the CPU time of its process on one image, less that on a smaller one, for each voxel that the
first has more. spam takes a quarter of a millisecond for a voxel: its images are small. All with one process. The two
programs take turns, and the least of `--repeat` runs counts. The table goes into docs/benchmarks-deform.md (`--report`
for another place) after every case.
"""

from dataclasses import dataclass

import numpy as np
import tifffile
from compare import facts_table, find_spam, machine, measure, options_for, table

from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import write_tsv

SPACING = 10
#: Edges of the images, voxels: of mpidvc's, and of the two of spam.
OURS, LARGE, SMALL = 240, 60, 20
#: Name of a case, options of mpidvc, and those of spam; None: spam has no such thing.
CASES = [
    ("8 nearest nodes, linear", "", ""),
    ("8 nearest nodes, cubic", "-o 3", None),
    ("8 nearest nodes, displacements only", "-disp", "-disp"),
    ("tetrahedra", "-tet", None),
]


@dataclass
class Row:
    """CPU time of one case, ns and µs per voxel; None where spam did not run."""

    name: str
    mpidvc: float
    spam: float | None

    @property
    def ratio(self):
        return None if self.spam is None else 1e3 * self.spam / self.mpidvc


def write_inputs(work, edge):
    """An image, and a field of smooth displacements on a grid."""
    pair = AnalyticPair((edge,) * 3, seed=1)
    tifffile.imwrite(work / f"image{edge}.tif", pair.image1(), photometric="minisblack", metadata={"axes": "ZYX"})
    axis = np.arange(SPACING, edge, SPACING, dtype=np.float64)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    n = len(nodes)
    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[:, :3, 3] = 2 * np.sin(2 * np.pi * nodes[:, ::-1] / 100)
    phi[:, :3, :3] += np.random.default_rng(1).normal(0, 0.003, (n, 3, 3))
    columns = {"error": np.ones(n), "iterations": np.full(n, 5)}
    columns |= {"returnStatus": np.full(n, 2), "deltaPhiNorm": np.full(n, 1e-4)}
    write_tsv(work / f"field{edge}.tsv", PhiField.from_positions(nodes, phi, columns), "LDIC")


def words(edge, options):
    return [f"image{edge}.tif", "-pf", f"field{edge}.tsv", *options.split(), "-np", "1"]


def report(rows, about):
    """The text of the page."""
    columns = {
        "": "name",
        "spam, µs/voxel": "spam",
        "mpidvc, ns/voxel": "mpidvc",
        "times as fast": "ratio",
    }
    return f"""# Benchmark of deformImage

Written by `benchmarks/deform.py`: every figure here comes from one run on one machine. Do not edit.

{facts_table(about)}

CPU time per voxel of a uint16 image that is deformed by a field on a grid with a node spacing of {SPACING} voxels, one
process each. Imports and files are left out on both sides, but mpidvc's time includes writing the image. spam's image
has {LARGE} × {LARGE} × {LARGE} voxels, mpidvc's {OURS} × {OURS} × {OURS}.
Linear and cubic: interpolation of grey levels.

{table(rows, columns)}
"""


def main():
    parser = options_for(__doc__, "benchmarks-deform.md")
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()
    work = args.work
    about, spam = machine(), find_spam(args.spam, work)
    for edge in (OURS, LARGE, SMALL):
        write_inputs(work, edge)
    rows = []
    for name, options, spam_options in CASES:
        ours, theirs = [], {LARGE: [], SMALL: []}
        for _ in range(args.repeat):
            line = [args.mpidvc, "deformImage", *words(OURS, options), "-od", "ours"]
            ours.append(measure(line, work).timings["points_cpu"])
            for edge in theirs if spam_options is not None else ():
                line = [spam / "spam-deformImage", *words(edge, spam_options), "-od", "spam"]
                theirs[edge].append(measure(line, work).cpu)
        spam_time = None
        if spam_options is not None:
            spam_time = 1e6 * (min(theirs[LARGE]) - min(theirs[SMALL])) / (LARGE**3 - SMALL**3)
        rows.append(Row(name, 1e9 * min(ours) / OURS**3, spam_time))
        print(rows[-1], flush=True)
        args.report.write_text(report(rows, about), encoding="utf-8")


if __name__ == "__main__":
    main()
