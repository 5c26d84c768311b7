#!/usr/bin/env python3
"""Time the propagation of a pixel search on one and two processes, and the ranking of its points.

    python benchmarks/propagation.py --work /tmp/bench

Runs of one and of two processes alternate, the best of three of each counts; both must write the same bytes. The table
goes into docs/benchmarks-propagation.md (`--report` for another place).
"""

import filecmp
import time

import numpy as np
import tifffile
from compare import machine, measure, options_for

from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.propagation import rank_points

SHAPE, SPACING, HWS, RANGE, RADIUS = (200, 200, 200), 10, 10, 5, 20
TIMES = 3


def rankings(n):
    """Seconds to rank about n points of a grid, by both rankings."""
    edge = round(n ** (1 / 3))
    points = np.stack(np.meshgrid(*[np.arange(edge) * 10.0] * 3, indexing="ij"), -1).reshape(-1, 3)
    seconds = {}
    for ranking in ("distance", "walk"):
        start = time.perf_counter()
        rank_points(points, ranking, 15.0)
        seconds[ranking] = time.perf_counter() - start
    return len(points), seconds


def main():
    parser = options_for(__doc__, "benchmarks-propagation.md", spam=False)
    args = parser.parse_args()
    work = args.work
    about = machine()
    pair = AnalyticPair(SHAPE, 1)
    tifffile.imwrite(work / "p1.tif", pair.image1())
    tifffile.imwrite(work / "p2.tif", pair.image2())
    start = np.array(SHAPE) // 2
    moved = np.rint(pair.displacement(start[None].astype(float))[0]).astype(int)
    search = ["-sp", *map(str, [*start, *moved]), "-sr", *[str(s * RANGE) for s in (-1, 1)] * 3]
    grid = ["-ns", str(SPACING), "-hws", str(HWS), "-nr", str(RADIUS)]
    best = {}
    for _ in range(TIMES):
        for n in (1, 2):
            command = [args.mpidvc, "pixelSearchPropagate", "p1.tif", "p2.tif", *search, *grid, "-np", str(n)]
            run = measure([*command, "-od", str(work), "-pre", f"np{n}"], work)
            print(f"np {n}: {run.wall:.2f} s wall, points {run.timings['stages']['points']:.2f} s", flush=True)
            if n not in best or run.timings["stages"]["points"] < best[n].timings["stages"]["points"]:
                best[n] = run
    names = [work / f"np{n}-pixelSearchPropagate.tsv" for n in (1, 2)]
    if not filecmp.cmp(*names, shallow=False):
        raise SystemExit("one and two processes wrote different results")
    points = best[1].timings["points"]
    stage = {n: run.timings["stages"]["points"] for n, run in best.items()}
    n_ranked, seconds = rankings(100_000)
    lines = [
        "# Propagation of a pixel search",
        "",
        f"Made by `benchmarks/propagation.py`: {' × '.join(map(str, SHAPE))} voxels, nodes every {SPACING} voxels,",
        f"`-hws {HWS}`, range ±{RANGE}, `-nr {RADIUS}`, ranking by distance; best of {TIMES}.",
        "",
        *(f"* {name}: {value}" for name, value in about.items()),
        "",
        "| processes | points | point stage (s) | CPU of all (s) | ms per point and core | whole process (s) |",
        "|---|---|---|---|---|---|",
    ]
    for n, run in best.items():
        cpu = run.timings["points_cpu"]
        lines.append(f"| {n} | {points} | {stage[n]:.2f} | {cpu:.2f} | {1e3 * cpu / points:.2f} | {run.wall:.2f} |")
    lines += [
        "",
        f"Two processes need {stage[2] / stage[1]:.2f} of one's time for the points, and write the same bytes.",
        f"Ranking {n_ranked} points: {seconds['distance']:.2f} s by distance, {seconds['walk']:.2f} s by the walk.",
        "",
    ]
    args.report.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
