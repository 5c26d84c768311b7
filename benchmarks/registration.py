#!/usr/bin/env python3
"""CPU time of one iteration of reg at full resolution, per compared voxel, on volumes of two sizes.

    python benchmarks/registration.py --work /tmp/registration                # writes docs/benchmarks-registration.md
    python benchmarks/registration.py --work /tmp/registration --edges 300    # without the volumes of 7 GB

The volumes are the pair of benchmarks/compare.py, and the same repeated along every axis; they are mapped. The first
pass makes the sums that are kept, and touches the pages of the files; the others do not. Cases take turns.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import tifffile
from compare import facts_table, machine, options_for, table

from mpidvc.core import deformation
from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.registration import RegistrationSettings
from mpidvc.images.image import open_image
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import correlation
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks.registration import LevelSettings, Pass, RegistrationTask

#: Edge of the volume in closed form, voxels.
EDGE = 300
#: Names and settings of the cases; those of the largest volumes.
CASES = {
    "linear (`-o 1`)": {},
    "linear, znssd": {"criterion": "znssd"},
    "cubic (`-o 3`)": {"order": 3},
    "linear, Gaussian gradients (`-gm gaussian -gs 1`)": {"sigma": 1.0},
    "linear, `-ug`": {"update_gradient": True},
}
EVERYWHERE = ("linear (`-o 1`)", "cubic (`-o 3`)")
#: Mean grey level of the pair, about.
LEVEL = 19676.0
#: A motion like that of the pair.
PHI = deformation.compute_phi((1.28, -0.74, 2.37), (1.61, 0.77, 0.835))


@dataclass
class Row:
    """A case on a volume: CPU nanoseconds per compared voxel of the first pass, and of the others."""

    name: str
    edge: int
    first: float = np.nan
    others: list[float] = field(default_factory=list)

    @property
    def other(self):
        return min(self.others)


def volumes(folder, edge):
    """The two images of this edge, made if they are missing."""
    paths = [folder / f"im{k}-{edge}.tif" for k in (1, 2)]
    if all(path.exists() for path in paths):
        return paths
    pair, times = AnalyticPair((EDGE,) * 3, seed=300), -(-edge // EDGE)
    for path, make in zip(paths, (pair.image1, pair.image2), strict=True):
        small = make()
        planes = (np.tile(small[z % EDGE], (times, times))[:edge, :edge] for z in range(edge))
        tifffile.imwrite(path, planes, shape=(edge,) * 3, dtype=small.dtype, photometric="minisblack", bigtiff=True)
    return paths


def measure(folder, edge, names, repeat):
    """Rows of the cases on a volume."""
    image1, image2 = (open_image(str(path)).mapped() for path in volumes(folder, edge))
    margin = LevelSettings().margin_of((edge,) * 3, 1)
    tasks = {}
    for name in names:
        settings = RegistrationSettings(
            level=float(image1.read_box((0, 0, 0), (30, 300, 300))[0].mean()), **CASES[name]
        )
        tasks[name] = RegistrationTask(ImagePair(image1, image2), settings, margin), Row(name, edge)
    for turn in range(repeat + 1):
        for task, row in tasks.values():
            begun = time.process_time()
            voxels = InlineExecutor().reduce(task, Pass(PHI, 1.0, 0.0))[0]
            spent = 1e9 * (time.process_time() - begun) / voxels
            if turn == 0:
                row.first = spent
            else:
                row.others.append(spent)
    return [row for _, row in tasks.values()]


def report(rows, about, repeat):
    """The text of the page."""
    columns = {"interpolation": "name", "edge": "edge", "first pass": "first", "another pass": "other"}
    return f"""# An iteration of reg

Written by `benchmarks/registration.py`: every figure of the table comes from one run on one machine. Do not edit.

{facts_table(about)}

CPU nanoseconds per compared voxel of a pass at full resolution, one core, images of 16 bits, mapped; the least of
{repeat} passes. The first pass makes the sums that are kept, and pages of the files are touched.

{table(rows, columns)}

## What has brought what

{CHANGES}"""


CHANGES = """\
Measured when the changes were made, on the machine of the table, 300 voxels an edge, against the build before them:

* Sums of image 1 alone are kept from pass to pass, gradients are taken from the box where they are used, and there are
  no arrays of them to be cleared: linear 2.2 → 1.2 ns, cubic 8.7 → 5.2. Blocks of 64 planes instead of 32 (linear), and
  a box 2 without the frame that only `-ug` needs, are a tenth of it.
* Gaussian gradients a plane at a time, in rows: 15 → 7 ns.
* Binning by a compiled loop: 71 → 30 ms for both images and levels, of 190 → 100 ms for a registration (linear) whose
  images are in the page tables.

The limit of the sums over a block that is near, and what keeps them from it, is told in
[benchmarks-kernels.md](benchmarks-kernels.md). Beside them: both images from memory, 6 bytes a voxel with what
surrounds the blocks; about three voxels that become floats; sixty µs of a block (0.1 ns) outside of the kernels. What
is left: grey levels as they are in the kernel, without boxes of floats. Cubic: a third is the spline prefilter of box
2, again in every pass.
"""


def main():
    parser = options_for(__doc__, "benchmarks-registration.md", spam=False)
    parser.add_argument("--edges", type=int, nargs="+", default=[EDGE, 4 * EDGE])
    parser.add_argument("--repeat", type=int, default=5, help="passes that are measured")
    options = parser.parse_args()
    correlation.use_instruction_set(correlation.instruction_sets()[-1])
    about, rows = machine(), []
    for edge in options.edges:
        rows += measure(options.work, edge, CASES if edge <= EDGE else EVERYWHERE, options.repeat)
    options.report.write_text(report(rows, about, options.repeat))
    print(f"written: {options.report}")


if __name__ == "__main__":
    main()
