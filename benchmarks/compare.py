#!/usr/bin/env python3
"""Compare mpidvc with spam (and with other programs) on one image pair whose displacements are known, in one run.

    python benchmarks/compare.py --work /tmp/bench                 # makes a venv with spam 0.9.1 there
    python benchmarks/compare.py --work /tmp/bench --spam /path/to/venv/bin --quick
    python benchmarks/compare.py --work /tmp/bench --before /path/to/an/earlier/venv/bin/mpidvc
    python benchmarks/compare.py --work /tmp/bench --program 'other=run {im1} {im2} {guess} {ns} {hws} {np} {out}'

A further program correlates the nodes ns, 2 ns, … of the pair and writes its field as `{out}` in spam's TSV format;
`{guess}` is the TSV of a registration, `{order}` 1 or 3. Any program may write its stage times, as mpidvc does, as JSON
into the file that MPIDVC_TIMINGS names:
    {"stages": {"startup": s, "read": s, "points": s, "write": s}, "points_cpu": s of all ranks, "points": n}
Results: benchmarks.json in the work directory, and docs/benchmarks.md (`--report` for another place).
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import tifffile

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from mpidvc.core.analytic import AnalyticPair  # noqa: E402

HWS = 10
#: Short commands are repeated so often, or for so many seconds.
SHORT_TIMES, SHORT = 9, 6.0
#: Products of a point of the first search, of all voxels and of blocks of two along each axis; bytes of its windows.
PRODUCTS, BLOCK_PRODUCTS = (9**3 * n**3 for n in (2 * HWS + 1, HWS + 1))
WINDOW_BYTES = 4 * ((2 * HWS + 1) ** 3 + (2 * HWS + 9) ** 3)
CYCLES = PRODUCTS / 32e3, BLOCK_PRODUCTS / 11 * 16 / 32e3
SEARCH_LIMITS = f"""A point at ±4 takes {PRODUCTS / 1e6:.2f} million products over all voxels, or
{BLOCK_PRODUCTS / 1e6:.2f} million over blocks of two voxels along each axis, which leave few candidates. At two
multiply-adds of 16 lanes per cycle these are {CYCLES[0]:.0f} and {CYCLES[1]:.0f} thousand cycles (rows of blocks fill
11 of 16 lanes). Both windows are {WINDOW_BYTES / 1e3:.0f} kB in float32, more than the nearest cache holds."""
#: Pixel searches: bits of grey levels, range, and node spacing in spacings of the other runs.
SEARCHES = ((16, 4, 1), (8, 4, 1), (16, 12, 3))
BEFORE = """* `before` is an earlier state of mpidvc, by the same commands.
"""
TEXT_OF_PAIR = "rotation 2°, strain up to 1 %, translation (1.3, −0.7, 2.4), sinusoid of 0.3 px with wavelength 200 px"


# ---- measuring a process


@dataclass
class Measure:
    """One run of one command; times in seconds, memory in MB; `resident` is that of the largest process."""

    wall: float
    cpu: float
    memory: float
    timings: dict = field(default_factory=dict)
    resident: float = 0.0


def process_tree(root):
    """Ids of a process and of all its descendants."""
    ids = [root]
    for pid in ids:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            ids += [int(child) for child in children.read_text().split()]
    return ids


def memory_of_tree(root):
    """Memory of a process tree, MB: pages that several processes share count once (sum of PSS)."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in process_tree(root)]
    return sum(int(text.split("Pss:")[1].split()[0]) for text in rollups) / 1024


def measure(command, work, memory=True, statuses=(0,)):
    """Run a command to its end, its output in a log; end with that log if its exit status is none of these.

    Without `memory` nothing looks at its processes meanwhile, which takes several percent of a CPU.
    """
    timings, log = work / "timings.json", work / "last.log"
    timings.unlink(missing_ok=True)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "MPIDVC_TIMINGS": str(timings)}
    peak, done = [0.0], threading.Event()

    def sample(pid):
        while not done.wait(0.05):
            with contextlib.suppress(OSError, IndexError):  # a process ended while its files were read
                peak[0] = max(peak[0], memory_of_tree(pid))

    with log.open("w") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=work)
        sampler = threading.Thread(target=sample, args=(process.pid,))
        if memory:
            sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        if memory:
            sampler.join()
    if process.returncode not in statuses:
        raise SystemExit(f"{shlex.join(map(str, command))}\nended with {process.returncode}\n{log.read_text()[-3000:]}")
    logged = json.loads(timings.read_text()) if timings.exists() else {}
    return Measure(wall, usage.ru_utime + usage.ru_stime, peak[0], logged, usage.ru_maxrss / 1024)


def best_of(command, work, times=3, budget=20.0):
    """The run with the least wall time, with the least CPU time of the points of all runs.

    There are `times` runs, or as many as fit into a budget in seconds, and more of what takes less than a second: other
    work on the machine, and its noise, only add to them.
    """
    runs = []

    def more():
        spent = sum(r.wall for r in runs)
        return (len(runs) < times and spent + runs[-1].wall < budget) or (len(runs) < SHORT_TIMES and spent < SHORT)

    while not runs or more():
        runs.append(measure(command, work))
    best = min(runs, key=lambda r: r.wall)
    if "points_cpu" in best.timings:
        best.timings["points_cpu"] = min(r.timings["points_cpu"] for r in runs)
    return best


# ---- the programs


@dataclass
class Program:
    """How to call a program; `help` only starts it, and is subtracted where a program logs no stages."""

    name: str
    reg: list | None
    ldic: list
    help: list | None
    reg_ranks: tuple = (1,)
    search: list | None = None


def spam_like(name, reg, ldic, search, ranks):
    """A program with spam's command line; `ranks`: the numbers of processes to register with."""
    pair = ["{im1}", "{im2}", "-o", "{order}", "-od", "{folder}", "-pre", "{stem}"]
    grid = ["-pf", "{guess}", "-ns", "{ns}", "-hws", "{hws}", "-np", "{np}"]
    reg_ranks = ["-np", "{np}"] if len(ranks) > 1 else []
    about = [
        "{im1}",
        "{im2}",
        "-od",
        "{folder}",
        "-pre",
        "{stem}",
        "-ns",
        "{ns}",
        "-hws",
        "{hws}",
        "-np",
        "{np}",
        "-sr",
    ]
    searched = [*search, *about, *["-{reach}", "{reach}"] * 3]
    return Program(name, [*reg, *pair, *reg_ranks], [*ldic, *pair, *grid], [*ldic, "--help"], ranks, searched)


def find_spam(folder, work):
    """Directory of spam's scripts: the one given, or that of a virtual environment made for it."""
    if folder:
        return Path(folder).absolute()
    venv = work / "venv-spam"
    if not (venv / "bin/spam-ldic").exists():
        subprocess.run([sys.executable, "-I", "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", "spam==0.9.1"], check=True)
    return venv / "bin"


# ---- results


@dataclass
class Row:
    """One program doing one task."""

    program: str
    task: str
    order: int
    ranks: int
    wall: float
    cpu: float
    memory: float
    stages: dict
    points: int = 0
    points_wall: float | None = None
    points_cpu: float | None = None
    iterations: float | None = None
    converged: int | None = None
    in_image: int | None = None
    mean_error: list | None = None
    std_error: list | None = None

    @property
    def points_per_second(self):
        """And core; None for a registration."""
        return self.points / self.points_cpu if self.points_cpu and self.iterations else None

    @property
    def nanoseconds(self):
        """Of CPU per iteration and voxel of the window in use; None for a registration."""
        voxels = (2 * HWS - 1) ** 3
        return 1e9 / (self.points_per_second * self.iterations * voxels) if self.points_per_second else None


def evaluate(row, path, pair, startup_cpu):
    """Complete a row from the field that the program wrote and from the stages that it logged."""
    column = np.genfromtxt(path, names=True, ndmin=1)
    positions, displacements = (np.stack([column[axis + kind] for axis in "ZYX"], axis=1) for kind in ("pos", "disp"))
    row.points = len(positions)
    row.points_wall = row.stages.get("points")
    if row.points_cpu is None and startup_cpu is not None:
        row.points_cpu = row.cpu - startup_cpu
    if row.task == "reg":
        return
    truth = pair.displacement(positions)
    centres = np.hstack([positions, positions + truth])
    in_image = np.all((centres >= HWS) & (centres <= np.tile(pair.shape, 2) - 1 - HWS), axis=1)
    good = in_image & (column["returnStatus"] == 2)
    error = displacements[good] - truth[good]
    row.in_image, row.converged = int(in_image.sum()), int(good.sum())
    row.mean_error, row.std_error = error.mean(axis=0).tolist(), error.std(axis=0).tolist()
    row.iterations = float(column["iterations"].mean())


def run(program, task, order, ranks, pair, files, ns, startup_cpu, times=3, budget=20.0):
    work = files["work"]
    # results of another spacing would have to be overwritten
    stem = f"{program.name}-{task}-o{order}" + (f"-ns{ns}" if task == "ldic" else "")
    out = work / "out" / f"{stem}-{'registration' if task == 'reg' else 'ldic'}.tsv"
    guess = work / "out" / f"{program.name}-reg-o1-registration.tsv"
    if not guess.exists():  # a program without a registration starts from another's
        guess = next((work / "out").glob("*-reg-o1-registration.tsv"), "")
    values = {"im1": files["im1"], "im2": files["im2"], "folder": out.parent, "stem": stem, "out": out, "guess": guess}
    values |= {"ns": ns, "hws": HWS, "np": ranks, "order": order}
    command = [part.format(**values) for part in getattr(program, task)]
    out.unlink(missing_ok=True)
    m = best_of(command, work, times, budget)
    row = Row(program.name, task, order, ranks, m.wall, m.cpu, m.memory, m.timings.get("stages", {}))
    row.points_cpu = m.timings.get("points_cpu")
    evaluate(row, out, pair, startup_cpu)
    print(f"{stem} np {ranks}: {m.wall:.2f} s wall, {m.cpu:.2f} s CPU, {m.memory:.0f} MB", flush=True)
    return row


@dataclass
class SearchRow:
    """One program doing one pixel search."""

    program: str
    bits: int  # of grey levels
    reach: int
    ranks: int
    wall: float
    cpu: float
    memory: float
    points: int
    points_cpu: float
    within_one: float  # share of the nodes inside both images whose displacement is within a voxel of the truth

    @property
    def microseconds(self):
        """Of CPU per point."""
        return 1e6 * self.points_cpu / self.points


def run_search(program, bits, reach, ranks, pair, files, ns, startup_cpu, times=3, budget=20.0):
    work = files["work"]
    stem = f"{program.name}-search{bits}-{reach}"
    out = work / "out" / f"{stem}-pixelSearch.tsv"
    values = {"im1": files[f"im1-{bits}"], "im2": files[f"im2-{bits}"]}
    values |= {"folder": out.parent, "stem": stem, "reach": reach}
    values |= {"ns": ns, "hws": HWS, "np": ranks}
    out.unlink(missing_ok=True)
    m = best_of([part.format(**values) for part in program.search], work, times, budget)
    column = np.genfromtxt(out, names=True, ndmin=1)
    positions, found = (np.stack([column[axis + kind] for axis in "ZYX"], axis=1) for kind in ("pos", "disp"))
    truth = pair.displacement(positions)
    last = np.array(pair.shape) - 1 - HWS
    inside = np.all((positions >= HWS) & (positions <= last) & (positions + truth >= HWS + 1), axis=1)
    inside &= np.all(positions + truth <= last - 1, axis=1) & (np.abs(truth).max(axis=1) < reach)
    close = np.abs(found - truth)[inside].max(axis=1) < 1
    cpu = m.timings.get("points_cpu", m.cpu - startup_cpu)
    print(f"{stem} np {ranks}: {m.wall:.2f} s wall, {m.cpu:.2f} s CPU, {m.memory:.0f} MB", flush=True)
    return SearchRow(program.name, bits, reach, ranks, m.wall, m.cpu, m.memory, len(column), cpu, float(close.mean()))


# ---- report


def number(value):
    """A value to three significant digits; an en dash for nothing."""
    if isinstance(value, list):
        return " ".join(f"{v:+.4f}" for v in value)
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "–" if value is None else str(value)


def table(rows, columns):
    """Markdown table of one line per row; `columns`: title → function of a row, or name of an attribute."""
    if not rows:
        return "Not measured."
    values = [attrgetter(value) if isinstance(value, str) else value for value in columns.values()]
    lines = [list(columns), ["---"] * len(columns), *([number(value(row)) for value in values] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def options_for(doc, page=None, spam=True):
    """Parser of a benchmark's options: the folder that it works in, the programs, and the page that it writes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    holds = "images, results and spam's venv" if spam else "images and results"
    parser.add_argument("--work", type=made_folder, required=True, help=f"directory for {holds}")
    if spam:
        text = "directory of spam's scripts (default: install spam in a venv)"
        parser.add_argument("--spam", metavar="BIN", help=text)
    parser.add_argument("--mpidvc", metavar="COMMAND", default=str(Path(sys.executable).parent / "mpidvc"))
    if page is not None:
        parser.add_argument("--report", type=Path, default=REPOSITORY / "docs" / page)
    return parser


def made_folder(path):
    """A folder, made if it is missing."""
    folder = Path(path).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def facts_table(about):
    """Markdown table of what `machine` tells."""
    return table(list(about.items()), {"machine": lambda item: item[0], " ": lambda item: item[1]})


def machine():
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.processor())
    flags = next((line for line in info if line.startswith("flags")), "").split()
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "vector instructions": next((name for name in ("avx512f", "avx2", "sse2") if name in flags), "unknown"),
        "memory": f"{memory:.0f} GiB",
        "load average before the run": f"{os.getloadavg()[0]:.2f}",
        "system": f"Linux {platform.release()}, Python {platform.python_version()}, numpy {np.__version__}",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


JOB = {"program": "program", "command": "task", "order": "order", "ranks": "ranks"}
SPEED = {
    **JOB,
    "wall s": "wall",
    "CPU s": "cpu",
    "points/s/core": "points_per_second",
    "ns/voxel/iteration": "nanoseconds",
}
SPEED |= {"iterations/point": "iterations", "peak MB": "memory"}
ERRORS = {"program": "program", "order": "order", "converged": "converged", "in the image": "in_image"}
ERRORS |= {"mean error z y x, px": "mean_error", "standard deviation z y x, px": "std_error"}


def stage_table(rows):
    names = dict.fromkeys(name for r in rows for name in r.stages)
    return table([r for r in rows if r.stages], {**JOB, **{f"{n} s": lambda r, n=n: r.stages.get(n) for n in names}})


def ratio_table(rows):
    """How many times as fast as spam; a command that has no ranks in spam is compared with its one process."""
    spam = {(r.task, r.order, r.ranks): r for r in rows if r.program == "spam"}

    def base(r):
        return spam[r.task, r.order, r.ranks if r.task == "ldic" else 1]

    columns = {**JOB, "point stage, per core": lambda r: base(r).points_cpu / r.points_cpu if r.points_cpu else None}
    columns |= {
        "wall": lambda r: base(r).wall / r.wall,
        "memory": lambda r: base(r).memory / r.memory if r.memory else None,
    }
    before = {(r.task, r.order, r.ranks): r.points_cpu for r in rows if r.program == "before"}
    if before:
        columns["point stage, times `before`"] = lambda r: before[r.task, r.order, r.ranks] / r.points_cpu
    return table([r for r in rows if r.program != "spam"], columns)


def scaling_table(rows):
    one = rows[0]
    columns = {"ranks": "ranks", "points s": "points_wall", "whole process s": "wall"}
    columns["efficiency, points"] = lambda r: one.points_wall / r.points_wall / r.ranks if r.points_wall else None
    columns["efficiency, whole process"] = lambda r: one.wall / r.wall / r.ranks
    return table(rows, columns)


def search_table(rows):
    spam = {(r.bits, r.reach): r for r in rows if r.program == "spam"}
    columns = {"program": "program", "bits": "bits", "range": lambda r: f"±{r.reach}"}
    columns |= {"ranks": "ranks", "points": "points"}
    columns |= {"wall s": "wall", "CPU s": "cpu", "peak MB": "memory", "CPU µs/point": "microseconds"}
    columns["times as fast as spam, per core"] = lambda r: spam[r.bits, r.reach].microseconds / r.microseconds
    before = {(r.bits, r.reach, r.ranks): r.microseconds for r in rows if r.program == "before"}
    if before:

        def against_before(r):
            return before[r.bits, r.reach, r.ranks] / r.microseconds if r.program != "spam" else None

        columns["times `before`"] = against_before
    columns["within one voxel of the truth"] = lambda r: f"{100 * r.within_one:.1f} %"
    return table(rows, columns)


def report(result, rows, long_rows, searches, ns, long_ns):
    shape = " × ".join(map(str, result["shape"]))
    starting = {"program": lambda m: m[0], "wall s": lambda m: m[1]["wall"], "CPU s": lambda m: m[1]["cpu"]}
    text = f"""# Benchmarks

Written by `benchmarks/compare.py`: every figure here comes from one run on one machine. Do not edit.

{facts_table(result["machine"])}

Image pair: {shape} voxels, uint16, in closed form in both states; {TEXT_OF_PAIR}.
Nodes every {ns} voxels, half-window {HWS} ({2 * HWS - 1}³ voxels compared), guess: the program's own registration.
Best of three to nine runs, fewer of what takes long; one BLAS thread per process. What each change of the kernels has
brought, and how far they are from what the processor allows: [benchmarks-kernels.md](benchmarks-kernels.md).

* CPU: user and system time of all processes. Memory: the largest sum of PSS over the processes, shared pages once.
* points/s/core and ns/voxel/iteration: from the CPU time of the point stage that the program logs; for spam, which logs
  none, from all its CPU time but that of `spam-ldic --help`.
{BEFORE if any(r.program == "before" for r in rows) else ""}
## Speed

{table(rows, SPEED)}

### Start-up (`ldic --help`)

{table(list(result["startup"].items()), starting)}

### Stages

{stage_table(rows)}

### Times as fast as spam 0.9.1, times less memory

{ratio_table(rows)}

## Error against the true displacement

Of converged nodes whose windows lie inside both images. A first-order shape function cannot follow the sinusoid
within a window: that part of the error is common to all programs.

{table([r for r in rows if r.task == "ldic" and r.ranks == 1], ERRORS)}
"""
    text += f"""
## Pixel search

Windows of {2 * HWS + 1}³ voxels, no first guess, of the pair and of the same with 8 bits. CPU per point as above; last
column: of nodes whose windows lie inside both images and whose true displacement is inside the range.

{search_table(searches)}

{SEARCH_LIMITS}
"""
    if long_rows:
        text += f"""
## Parallel efficiency

`mpidvc ldic -o 3` with nodes every {long_ns} voxels ({long_rows[0].points:,} points), best of three.

{scaling_table(long_rows)}
"""
    return text


def main():
    parser = options_for(__doc__, "benchmarks.md")
    parser.add_argument("--program", action="append", default=[], metavar="NAME=COMMAND", help="another program")
    parser.add_argument("--before", metavar="COMMAND", help="an earlier mpidvc, which is compared as `before`")
    parser.add_argument("--quick", action="store_true", help="a pair of 120³ voxels instead of 300³")
    options = parser.parse_args()

    work = options.work
    for old in made_folder(work / "out").iterdir():
        old.unlink()
    n, ns, long_ns = (120, 20, 4) if options.quick else (300, 20, 5)
    pair = AnalyticPair((n, n, n), seed=300)
    files = {"work": work}
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        images = replace(pair, dtype=dtype)
        for name, image in (("im1", images.image1), ("im2", images.image2)):
            files[f"{name}-{bits}"] = work / f"{name}-{n}-{bits}.tif"
            tifffile.imwrite(files[f"{name}-{bits}"], image(), photometric="minisblack", metadata={"axes": "ZYX"})
    files |= {name: files[f"{name}-16"] for name in ("im1", "im2")}

    spam = find_spam(options.spam, work)
    programs = [
        spam_like("spam", *([str(spam / f"spam-{name}")] for name in ("reg", "ldic", "pixelSearch")), ranks=(1,))
    ]
    mpidvc = shlex.split(options.mpidvc)
    named = {"before": shlex.split(options.before)} if options.before else {}
    if shutil.which(mpidvc[0]):
        named["mpidvc"] = mpidvc
    else:
        print(f"{mpidvc[0]} not found: without mpidvc")
    for name, command in named.items():
        programs.append(spam_like(name, *([*command, job] for job in ("reg", "ldic", "pixelSearch")), ranks=(1, 2)))
    for text in options.program:
        name, command = text.split("=", 1)
        programs.append(Program(name, None, shlex.split(command), None))

    result = {"machine": machine(), "shape": pair.shape, "startup": {}}
    rows, long_rows, searches = [], [], []
    for program in programs:
        startup_cpu = None
        if program.help:
            startup = best_of(program.help, work)
            result["startup"][program.name] = asdict(startup)
            startup_cpu = startup.cpu
        job = (pair, files, ns, startup_cpu)
        if program.reg:
            rows += [run(program, "reg", order, ranks, *job) for order in (1, 3) for ranks in program.reg_ranks]
        rows += [run(program, "ldic", order, ranks, *job) for order in (1, 3) for ranks in (1, 2)]
        if program.search:
            for bits, reach, step in SEARCHES:
                for ranks in program.reg_ranks:
                    searches.append(run_search(program, bits, reach, ranks, pair, files, step * ns, startup_cpu))
        if program.name == "mpidvc":
            job = (pair, files, long_ns, startup_cpu)
            long_rows = [run(program, "ldic", 3, ranks, *job, budget=np.inf) for ranks in (1, 2)]
    result["runs"] = [asdict(r) for r in rows]
    result["searches"] = [asdict(r) for r in searches]
    result["long runs"] = [asdict(r) for r in long_rows]
    (work / "benchmarks.json").write_text(json.dumps(result, indent=1) + "\n")
    options.report.write_text(report(result, rows, long_rows, searches, ns, long_ns))
    print(f"written: {options.report}, {work / 'benchmarks.json'}")


if __name__ == "__main__":
    main()
