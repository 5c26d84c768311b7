#!/usr/bin/env python3
"""Compare the commands that work on fields with spam's: CPU seconds of the computing stage on 64 000 points.

    python benchmarks/fields.py --work /tmp/bench                      # makes a venv with spam 0.9.1 there
    python benchmarks/fields.py --work /tmp/bench --spam /path/to/venv/bin --only passPhiField

Imports and files do not count on either side. mpidvc tells its computing stage (MPIDVC_TIMINGS). spam's is the CPU
time of its process, less that of the same command on 64 points, less that of reading and writing a file of this size
with the functions that it uses (spam.helpers.readCorrelationTSV, numpy.savetxt); all with one process. The two programs
take turns, and the least of `--repeat` runs counts. The table goes into docs/benchmarks-fields.md (`--report` for
another place) after every case.
"""

from dataclasses import dataclass

import numpy as np
from compare import facts_table, find_spam, machine, measure, options_for, table

from mpidvc.commands import COMMANDS
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import write_tsv

SPACING, LARGE, SMALL = 20, 40, 4


@dataclass
class Row:
    """CPU seconds of one case: of the computing stage, and of the whole process."""

    name: str
    mpidvc: float
    mpidvc_whole: float
    spam: float
    spam_whole: float


@dataclass
class Case:
    """A command line for both programs; `{size}` is the size of the image, z y x."""

    name: str
    command: str
    options: str
    spam_options: str | None = None


CASES = [
    Case("pass, default radius", "passPhiField", "-ns 20 -im1shape {size}"),
    Case("pass, 8 nearest", "passPhiField", "-ns 20 -nn 8 -im1shape {size}"),
    Case("filter, inverse distance", "filterPhiField", "-srs -cint"),
    Case("filter, quadratic fit", "filterPhiField", "-srs -clqf"),
    Case("filter, coherency", "filterPhiField", "-slqc -cint"),
    Case("filter, median", "filterPhiField", "-fm"),
    Case("strain, Q8", "regularStrain", "-comp vol dev r U e"),
    Case("strain, Geers", "regularStrain", "-g -comp vol dev r U e"),
    Case("strain, raw", "regularStrain", "-raw -comp vol dev r U e"),
]
FILES = """\
import io, os, sys, time
import numpy as np
import spam.helpers
begin = time.process_time()
spam.helpers.readCorrelationTSV(sys.argv[1], readError=True)
table = np.zeros((int(sys.argv[2]), 21)) + 0.1234567
with open(os.devnull, "w") as sink:
    np.savetxt(sink, table, fmt="%.7f", delimiter="\\t")
print(time.process_time() - begin)
"""


def write_field(path, edge):
    """A field of smooth displacements, with noise, and 2 % of the nodes not converged."""
    random = np.random.default_rng(1)
    axis = SPACING * np.arange(1.0, edge + 1)
    z, y, x = (a.ravel() for a in np.meshgrid(axis, axis, axis, indexing="ij"))
    n = len(z)
    u = 2 * np.sin(2 * np.pi * np.stack([x, z, y], axis=1) / 400) + random.normal(0, 0.0035, (n, 3))
    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[:, :3, :3] += random.normal(0, 0.003, (n, 3, 3))
    phi[:, :3, 3] = u
    status = np.where(random.random(n) < 0.02, 1, 2)
    columns = {
        "error": np.ones(n),
        "iterations": np.full(n, 5),
        "returnStatus": status,
        "deltaPhiNorm": np.full(n, 1e-4),
    }
    write_tsv(path, PhiField.from_positions(np.stack([z, y, x], axis=1), phi, columns), "LDIC")


def ours(case, edge, folder, mpidvc):
    """CPU seconds of the computing stage, and of the whole process."""
    words = [case.command, "-pf", f"field{edge}.tsv", *words_of(case.options, edge)]
    run = measure([mpidvc, *words, "-np", "1", "-noh5", "--overwrite", "-od", "ours"], folder)
    return run.timings["points_cpu"], run.cpu


def theirs(case, edge, folder, spam):
    words = words_of(case.spam_options or case.options, edge)
    line = [spam / f"spam-{case.command}", "-pf", f"field{edge}.tsv", *words, "-np", "1", "-od", "spam"]
    return measure(line, folder).cpu


def words_of(options, edge):
    size = SPACING * (edge + 1)
    return options.format(size=f"{size} {size} {size}").split()


def report(rows, files, about):
    """The text of the page."""
    columns = {
        "": "name",
        "spam, computing s": "spam",
        "mpidvc, computing s": "mpidvc",
        "times as fast": lambda row: max(row.spam, 0) / row.mpidvc,
        "spam, whole s": "spam_whole",
        "mpidvc, whole s": "mpidvc_whole",
    }
    return f"""# Benchmarks of the commands on fields

Written by `benchmarks/fields.py`: every figure here comes from one run on one machine. Do not edit.

{facts_table(about)}

CPU seconds on a grid of {LARGE} × {LARGE} × {LARGE} = {LARGE**3:,} nodes, one process each. *Computing* leaves imports
and files out on both sides: mpidvc tells its computing stage, and from the time of spam's process that of the same
command on {SMALL**3} nodes is taken off, and that of reading and writing the files ({files:.2f} s).

{table(rows, columns)}
"""


def main():
    parser = options_for(__doc__, "benchmarks-fields.md")
    parser.add_argument("--only", help="one command")
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()
    work = args.work
    about, spam = machine(), find_spam(args.spam, work)
    for edge in (LARGE, SMALL):
        write_field(work / f"field{edge}.tsv", edge)
    files = np.inf
    for _ in range(args.repeat):
        measure([spam / "python", "-c", FILES, f"field{LARGE}.tsv", str(LARGE**3)], work)
        files = min(files, float((work / "last.log").read_text().split()[-1]))
    rows = []
    for case in CASES:
        if case.command not in COMMANDS or args.only not in (None, case.command):
            continue
        runs = []
        for _ in range(args.repeat):
            mine, small = ours(case, LARGE, work, args.mpidvc), theirs(case, SMALL, work, spam)
            runs.append((*mine, theirs(case, LARGE, work, spam), small))
        computing, whole, all_of_spam, small = (min(column) for column in zip(*runs, strict=True))
        rows.append(Row(case.name, computing, whole, all_of_spam - small - files, all_of_spam))
        print(rows[-1], flush=True)
        args.report.write_text(report(rows, files, about), encoding="utf-8")


if __name__ == "__main__":
    main()
