#!/usr/bin/env python3
"""What ``ldic --start-from neighbours`` gains and costs: the time of the points, iterations, and points that are right.

    python benchmarks/neighbours.py --data DIR --work /tmp/near     # writes docs/benchmarks-neighbours.md

DIR holds 3d/v4_sandstone/V4_bin2_Intact.tif and V4_bin2_Deformed.tif (289 x 225 x 225 voxels), and
2d/dic_challenge_12/oht_cfrp_00.tiff and oht_cfrp_11.tiff (1040 x 400 pixels). Runs from the guess and from neighbours
alternate on one core; the least CPU time of the points counts. A point is right if it has converged within 0.3 voxels
of the run that starts from a registration.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
from compare import facts_table, machine, measure, options_for, table

from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.read import read_field

MODES = ("guess", "neighbours")
#: Voxels within which a point is right.
RIGHT = 0.3


@dataclass
class Case:
    """A pair of images, `stem` of their registration, and the options of a run, from the registration if `guess`."""

    name: str
    stem: str
    line: str
    guess: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    fields: dict[str, object] = field(default_factory=dict)
    true: object = None

    def compared(self, mode):
        return self.fields[mode]["returnStatus"] > -5

    def converged(self, mode):
        return f"{(self.fields[mode]['returnStatus'][self.compared(mode)] == 2).mean():.1%}"

    def iterations(self, mode):
        return float(self.fields[mode]["iterations"][self.compared(mode)].mean())

    def right(self, mode):
        if self.true is None:
            return "–"
        field, true = self.fields[mode], self.true
        known = true["returnStatus"] == 2
        apart = np.abs(field.displacements[known] - true.displacements[known]).max(axis=1)
        return f"{((field['returnStatus'][known] == 2) & (apart < RIGHT)).mean():.1%}"


def main():
    parser = options_for(__doc__, "benchmarks-neighbours.md", spam=False)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--times", type=int, default=5, help="runs of each kind (default: %(default)s)")
    args = parser.parse_args()
    work, about = args.work, machine()
    sand = tuple(args.data.resolve() / f"3d/v4_sandstone/V4_bin2_{name}.tif" for name in ("Intact", "Deformed"))
    plate = tuple(args.data.resolve() / f"2d/dic_challenge_12/oht_cfrp_{name}.tiff" for name in ("00", "11"))
    pair = AnalyticPair((300, 300, 300), seed=300)
    made = work / "v1.tif", work / "v2.tif"
    for path, image in zip(made, (pair.image1, pair.image2), strict=True):
        if not path.exists():
            tifffile.imwrite(path, image())
    pairs = {"v": made, "s": sand, "p": plate}
    cases = [
        Case("300³, from a registration", "v", "-ns 20 -hws 10", guess=True),
        Case("300³, from a registration", "v", "-ns 20 -hws 10 -o 3", guess=True),
        Case("sandstone, no guess", "s", "-ns 8 -hws 7 -glt 8000"),
        Case("sandstone, from a registration", "s", "-ns 8 -hws 7 -glt 8000", guess=True),
        Case("plate with a hole, no guess", "p", "-ns 20 -hws 14 -o 3 -glt 30"),
        Case("plate with a hole, from a registration", "p", "-ns 20 -hws 14 -o 3 -glt 30", guess=True),
    ]

    def ldic(case, stem, *more):
        command = [args.mpidvc, "ldic", *pairs[case.stem], *case.line.split(), "-np", "1", "-od", work, "-pre", stem]
        run = measure([*map(str, command), "--overwrite", *more], work, memory=False, statuses=(0, 1))
        return run.timings["points_cpu"], read_field(work / f"{stem}-ldic.h5")

    for stem, images in pairs.items():
        measure([args.mpidvc, "reg", *map(str, images), "-np", "1", "-od", str(work), "-pre", stem], work, memory=False)
    for k, case in enumerate(cases):
        registration = ["-pf", str(work / f"{case.stem}-registration.tsv")]
        if not case.guess:
            case.true = ldic(case, f"{k}-true", *registration)[1]
        for _ in range(args.times):
            for mode in MODES:
                found = ldic(case, f"{k}-{mode}", "--start-from", mode, *(registration if case.guess else []))
                case.seconds[mode] = min(found[0], case.seconds.get(mode, np.inf))
                case.fields[mode] = found[1]
        print(case.name, case.line, case.seconds, [case.right(mode) for mode in MODES], flush=True)
    columns = {
        "images": "name",
        "options": lambda case: f"`{case.line}`",
        "points": lambda case: int(case.compared("guess").sum()),
        "guess: CPU s": lambda case: case.seconds["guess"],
        "neighbours: CPU s": lambda case: case.seconds["neighbours"],
        "times as fast": lambda case: case.seconds["guess"] / case.seconds["neighbours"],
        **{f"{mode}: iterations": lambda case, mode=mode: case.iterations(mode) for mode in MODES},
        **{f"{mode}: converged": lambda case, mode=mode: case.converged(mode) for mode in MODES},
        **{f"{mode}: right": lambda case, mode=mode: case.right(mode) for mode in MODES},
    }
    lines = [
        "# Starts from neighbours",
        "",
        "Made by `benchmarks/neighbours.py`: `ldic` with `--start-from guess` and with `neighbours`, on one core.",
        f"CPU seconds are those of the points, the least of {args.times} runs that alternate. Iterations are those of",
        "the result that is kept, as a mean over the compared points. A point is right if it has converged within",
        f"{RIGHT:g} voxels of the run that starts from a registration.",
        "",
        table(cases, columns),
        "",
        facts_table(about),
        "",
    ]
    args.report.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
