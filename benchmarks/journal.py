"""Cost of the journal: the share of its calls in the time of an ldic with many points.

    python benchmarks/journal.py [-np RANKS] [-ns SPACING]

Prints the times of the stages, and fails if the journal takes more than the limit of the time of the run; import,
final layout and TSV are told apart, they are no calls of the journal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.workflow.stages import TIMINGS

#: Largest share of the journal in the time of a run.
LIMIT = 0.02


def main() -> int:
    """Run it and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-np", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("-ns", type=int, default=3, help="spacing of the points (default: %(default)s: 10^5 points)")
    parser.add_argument("--hdf5-driver", default="auto", help="as of mpidvc (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pair = AnalyticPair((140, 140, 140), seed=1)
        for name, image in (("im1", pair.image1()), ("im2", pair.image2())):
            tifffile.imwrite(f"{folder}/{name}.tif", image, photometric="minisblack")
        words = ["ldic", f"{folder}/im1.tif", f"{folder}/im2.tif", "-hws", "5", "-ns", str(args.ns), "-od", folder]
        options = ["-np", str(args.np), "--hdf5-driver", args.hdf5_driver]
        file = Path(folder, "times.json")
        subprocess.run(
            [sys.executable, "-m", "mpidvc", *words, *options],
            env=os.environ | {TIMINGS: str(file)},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        told = json.loads(file.read_text(encoding="utf-8"))
    stages = told["stages"]
    whole = sum(stages.values())
    for name, seconds in stages.items():
        print(f"{name:10} {seconds:8.3f} s")
    share = told["journal"] / (args.np * whole)
    of_run = f"{100 * share:.2f} % of the run ({told['points']} points)"
    print(f"journal    {told['journal']:8.3f} s of all processes, {of_run}")
    return int(share > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
