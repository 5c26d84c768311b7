#!/usr/bin/env python3
"""Compare the commands that work on fields with spam's: CPU seconds of the computing stage on 64 000 points.

    python benchmarks/fields.py --work /tmp/fields --spam /path/to/venv/bin            # all that both have
    python benchmarks/fields.py --work /tmp/fields --spam /path/to/venv/bin --only passPhiField

Imports and files do not count on either side. mpidvc tells its computing stage (MPIDVC_TIMINGS). spam's is the CPU
time of its process, less that of the same command on 64 points, less that of reading and writing a file of this size
with the functions that it uses (spam.helpers.readCorrelationTSV, numpy.savetxt); all with one process. The two programs
take turns, and the least of `--repeat` runs counts. Results: fields.json in the work directory, and
docs/benchmarks-fields.md.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from mpidvc.commands import COMMANDS  # noqa: E402
from mpidvc.fields.phifield import PHI, POSITIONS  # noqa: E402

SPACING, LARGE, SMALL = 20, 40, 4


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
    Case("pass, less a registration", "passPhiField", "-regs registration.tsv"),
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
print(time.process_time() - begin, file=sys.stderr)
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
    table = np.column_stack([np.arange(n), z, y, x, phi[:, :3].reshape(n, 12), np.ones(n), np.full(n, 5), status])
    names = ("NodeNumber", *POSITIONS, *PHI, "error", "iterations", "returnStatus", "deltaPhiNorm")
    table = np.column_stack([table, np.full(n, 1e-4)])
    np.savetxt(path, table, fmt="%.7f", delimiter="\t", header="\t".join(names), comments="")


def cpu_of(command, folder, **variables):
    """CPU seconds of a command with all of its children."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **threads, **variables}, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stderr


def ours(case, edge, folder):
    """CPU seconds of the computing stage, and of the whole process."""
    timings = folder / "timings.json"
    words = words_of(case.options, edge)
    line = [sys.executable, "-m", "mpidvc", case.command, "-pf", f"field{edge}.tsv", *words, "-np", "1", "-noh5"]
    line += ["--overwrite", "-od", "ours"]
    whole, _ = cpu_of(line, folder, MPIDVC_TIMINGS=str(timings), PYTHONPATH=str(REPOSITORY))
    return json.loads(timings.read_text())["points_cpu"], whole


def theirs(case, edge, folder, spam):
    words = words_of(case.spam_options or case.options, edge)
    line = [spam / f"spam-{case.command}", "-pf", f"field{edge}.tsv", *words, "-np", "1", "-od", "spam"]
    return cpu_of(line, folder)[0]


def words_of(options, edge):
    size = SPACING * (edge + 1)
    return options.format(size=f"{size} {size} {size}").split()


def report(rows, files):
    lines = [
        "# Working on fields: CPU seconds",
        "",
        f"`benchmarks/fields.py` on a grid of {LARGE} × {LARGE} × {LARGE} = {LARGE**3} nodes, one process each, on "
        f"{processor()}. *Computing* leaves imports and files out on both sides: mpidvc tells its computing stage, and",
        "from the time of spam's process that of the same command on 64 nodes is taken off, and that of reading and",
        f"writing the files ({files:.2f} s).",
        "",
        "| | spam, computing | mpidvc, computing | ratio | spam, whole | mpidvc, whole |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = max(row["spam"], 0) / row["mpidvc"] if row["mpidvc"] else float("inf")
        cells = [row["name"], f"{row['spam']:.2f}", f"{row['mpidvc']:.3f}", f"{ratio:.0f}"]
        cells += [f"{row['spam_whole']:.2f}", f"{row['mpidvc_whole']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--spam", type=Path, required=True, help="folder of spam's scripts")
    parser.add_argument("--only", help="one command")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--report", type=Path, default=REPOSITORY / "docs" / "benchmarks-fields.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for edge in (LARGE, SMALL):
        write_field(args.work / f"field{edge}.tsv", edge)
    one = (args.work / f"field{SMALL}.tsv").read_text().splitlines()[:2]
    (args.work / "registration.tsv").write_text("\n".join([*one, ""]))
    python = args.spam / "python"
    files = min(
        float(cpu_of([python, "-c", FILES, f"field{LARGE}.tsv", str(LARGE**3)], args.work)[1].split()[-1])
        for _ in range(args.repeat)
    )
    rows = []
    for case in CASES:
        if case.command not in COMMANDS or args.only not in (None, case.command):
            continue
        runs = []
        for _ in range(args.repeat):
            mine, small = ours(case, LARGE, args.work), theirs(case, SMALL, args.work, args.spam)
            runs.append((*mine, theirs(case, LARGE, args.work, args.spam), small))
        computing, whole, spam, small = (min(column) for column in zip(*runs, strict=True))
        row = {"name": case.name, "mpidvc": computing, "mpidvc_whole": whole}
        rows.append(row | {"spam": spam - small - files, "spam_whole": spam})
        print(rows[-1], flush=True)
        (args.work / "fields.json").write_text(json.dumps(rows, indent=1))
        args.report.write_text(report(rows, files))


if __name__ == "__main__":
    main()
