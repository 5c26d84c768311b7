#!/usr/bin/env python3
"""Compare preeval with ewoksndreg 0.5.0: stacks ranked by both, in turns, from the same file.

    python -m venv /tmp/bench/ndreg && /tmp/bench/ndreg/bin/pip install ewoksndreg==0.5.0
    python benchmarks/preeval.py --work /tmp/bench --ndreg /tmp/bench/ndreg/bin/python

Both are processes, whose imports count. ewoksndreg has one process; mpidvc has `-np` ranks, which it starts. The stacks
need 4 GB with the default options; their file is removed. The tables go into docs/benchmarks-preeval.md (`--report` for
another place) after every round.
"""

import json
from dataclasses import dataclass

import h5py
import numpy as np
from compare import facts_table, machine, measure, options_for, table
from scipy.ndimage import gaussian_filter

#: Noise of the stacks, as a multiple of the texture's deviation.
NOISES = {"Fe": 0.3, "Ca": 1.0, "Zn": 3.0, "Ti": 10.0}
#: ewoksndreg's own functions, and the scores that its ranking is made of.
THEIRS = """
import json, sys
from ewoksndreg.evaluation.eval_metrics import peak_eval
from ewoksndreg.io.input_stack import input_context
with input_context(json.loads(sys.argv[1])) as stacks:
    scores = {name: float(peak_eval(stack, 0)) for name, stack in stacks.items()}
with open("theirs.json", "w") as file:
    json.dump(scores, file)
"""


@dataclass
class Round:
    """One run of each program; seconds, of the clock and of the CPUs."""

    number: int
    theirs: float
    theirs_cpu: float
    ours: float
    ours_cpu: float

    @property
    def ratio(self):
        return self.theirs / self.ours

    @property
    def cpu_ratio(self):
        return self.theirs_cpu / self.ours_cpu


@dataclass
class Score:
    """The scores of a stack."""

    name: str
    theirs: float
    ours: float


def write_stacks(path, images, size):
    """Stacks of a drifting texture with more and more noise; their URIs."""
    random = np.random.default_rng(13)
    texture = gaussian_filter(random.normal(size=(size, size)), 1.5, mode="wrap")
    texture /= texture.std()
    with h5py.File(path, "w") as file:
        for name, noise in NOISES.items():
            stack = file.create_dataset(name, (images, size, size), np.float32)
            for k in range(images):
                drift = (round(8 * np.sin(k / 90)), k // 25)
                moved = np.roll(texture, drift, (0, 1))
                stack[k] = 1000 + 50 * (moved + noise * random.standard_normal((size, size), np.float32))
    return {name: f"{path}::/{name}" for name in NOISES}


def report(rounds, scores, about, args):
    """The text of the page."""
    times = {
        "round": "number",
        "ewoksndreg, s": "theirs",
        "mpidvc, s": "ours",
        "times as fast": "ratio",
        "ewoksndreg, CPU s": "theirs_cpu",
        "mpidvc, CPU s": "ours_cpu",
        "times less CPU time": "cpu_ratio",
    }
    differences = {
        "stack": "name",
        "ewoksndreg": lambda row: f"{row.theirs:.7f}",
        "mpidvc": lambda row: f"{row.ours:.7f}",
        "difference": lambda row: f"{row.ours - row.theirs:.0e}",
    }
    return f"""# Benchmark of preeval

Written by `benchmarks/preeval.py`: every figure here comes from one run on one machine. Do not edit.

{facts_table(about)}

Four stacks of {args.images} float32 images of {args.size} × {args.size} pixels, ranked by ewoksndreg 0.5.0 in one
process and by mpidvc on {args.ranks} ranks, one after the other. Imports, the start of the ranks and reading count on
both sides. Where other programs use the CPUs, times of the clock tell less than CPU times.

{table(rounds, times)}

The scores, best first:

{table(scores, differences)}
"""


def main():
    parser = options_for(__doc__, "benchmarks-preeval.md", spam=False)
    parser.add_argument("--ndreg", metavar="PYTHON", required=True, help="interpreter that has ewoksndreg")
    parser.add_argument("--images", type=int, default=1000, help="of each stack")
    parser.add_argument("--size", type=int, default=512, help="edge of the images, pixels")
    parser.add_argument("-np", dest="ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    work, about, rounds = args.work, machine(), []
    uris = write_stacks(work / "stacks.h5", args.images, args.size)
    named = [f"{name}={uri}" for name, uri in uris.items()]
    try:
        for number in range(1, args.rounds + 1):
            theirs = measure([args.ndreg, "-c", THEIRS, json.dumps(uris)], work)
            ours = measure([args.mpidvc, "preeval", *named, "-np", str(args.ranks), "--json", "ours.json"], work)
            rounds.append(Round(number, theirs.wall, theirs.cpu, ours.wall, ours.cpu))
            print(rounds[-1], flush=True)
            expected = json.loads((work / "theirs.json").read_text())
            found = json.loads((work / "ours.json").read_text())["stacks"]
            scores = [Score(one["stack"], expected[one["stack"]], one["score"]) for one in found]
            args.report.write_text(report(rounds, scores, about, args), encoding="utf-8")
    finally:
        (work / "stacks.h5").unlink()


if __name__ == "__main__":
    main()
