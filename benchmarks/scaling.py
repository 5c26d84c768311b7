#!/usr/bin/env python3
"""How many ranks make sense: a simulation of the master and its workers, with the real scheduling and measured costs.

    python benchmarks/scaling.py --measure --work /tmp/scaling     # measures costs here into benchmarks/scaling.json
    python benchmarks/scaling.py --measure-mpio                    # the same for mpio only, where h5py has MPI
    python benchmarks/scaling.py --check                           # compares with real runs of ranks that sleep
    python benchmarks/scaling.py                                   # simulates; writes docs/scaling.md and its pictures

The last takes some minutes and needs matplotlib. What is measured and what is assumed is said in the report.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import textwrap
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benchmarks")]

import scaling_costs  # noqa: E402
from scaling_model import Case, Costs, Outcome, bound, extended, simulate  # noqa: E402

from mpidvc.commands.results import ROWS  # noqa: E402
from mpidvc.runtime.schedule import LONGEST_ASSIGNMENT, SCHEDULER_ONLY_FROM, Schedule  # noqa: E402

COSTS = REPOSITORY / "benchmarks/scaling.json"
REPORT = REPOSITORY / "docs/scaling.md"
RANKS = (2, 8, 32, 128, 512, 2048, 10000)
WORK = (1.0, 10.0, 100.0, 1000.0)
DRIVERS = ("posix", "mpio", "gather")
#: Mean seconds of a chunk, and what the tables are about.
CHUNKS, CHUNK = (0.1, 0.3, 1.0), 0.3
#: The run whose points the whole run is reckoned for.
TYPICAL = "-hws 10 -o 3"
#: A cluster, which cannot be measured here: network, and a shared file system as one client sees it and as a whole.
LATENCY, BANDWIDTH = 2e-6, 1e10
FILE_LATENCY, FILE_CLIENT, FILE_ALL = 0.5e-3, 1e9, 2e10
RECORD_BYTES = 144
#: What even a chunk of air takes, as its boxes are read.
READ = 1e-3
#: Most chunks that are simulated one by one, if they give every rank so many seconds of work.
MOST, LEAST_WORK = 4e5, 20.0
#: Seeds that show what is chance; the tables have seed 1.
SEEDS = (2, 3, 4, 5, 6)
#: Real runs: ranks, seconds of work for each, mean seconds of a chunk, seed.
CHECKS = (
    *((2, 3.0, 0.05, 1), (4, 3.0, 0.05, 2), (32, 3.0, 0.05, 3), (64, 4.0, 0.1, 4)),
    *((4, 3.0, 0.05, 11), (16, 3.0, 0.05, 12), (32, 3.0, 0.05, 13), (32, 3.0, 0.05, 14)),
)
#: Seconds in which rank 0 should be able to serve a rank.
SERVED = 5e-5
#: Workers of a sub-master, where there are some.
GROUP = 512


class Wary(Schedule):
    """As `Schedule`, but it learns what chunks cost before it hands out many, and keeps more for the end.

    What is back first is what was cheap: a mean over fewer chunks than there are ranks says little. And where ranks are
    many, no assignment is so short that rank 0 could not serve all in that time.
    """

    def take(self, rank: int, in_hand: int) -> range | None:
        left = self.n_chunks - self._next
        if rank == 0:
            if self.size >= SCHEDULER_ONLY_FROM:
                return None
            count = 1
        else:
            if in_hand > (left >= 8 * self.size):
                return None
            count = left // (8 * self.size)
            if self._rate.seconds > 0:
                per_second = self._rate.done / self._rate.seconds
                count = max(count, int(SERVED * self.size * per_second))
                count = min(count, int(max(LONGEST_ASSIGNMENT, 2 * SERVED * self.size) * per_second))
            count = min(count, 2 * self._rate.done // self.size)
        if left <= 0:
            return None
        chunks = range(self._next, min(self._next + max(count, 1), self.n_chunks))
        self._next = chunks.stop
        return chunks


# ---- costs


def reports(measured: dict[str, Any], kind: str) -> tuple[float, float, float]:
    """Seconds of rank 0 to send an assignment, for a report, and for every chunk in it."""
    few, many = scaling_costs.SIZES
    one, other = (measured["reports"][f"{kind} {size}"] for size in (few, many))
    each = max((other["report"] - one["report"]) / (many - few), 0.0)
    return one["send"], max(one["report"] - few * each, 0.0), each


def costs_of(measured: dict[str, Any], driver: str, lean: bool = False) -> Costs:
    """Costs of a run on a cluster; `lean`: workers that write report nothing but the time."""
    kind = "gather" if driver == "gather" else "lean" if lean else "posix"
    send, message, chunk = reports(measured, kind)
    record = scaling_costs.POINTS * RECORD_BYTES
    write = READ
    if driver != "gather":
        # records and mark are a call each
        write += measured["record"][driver] + 2 * FILE_LATENCY + record / FILE_CLIENT
    return Costs(send, message, chunk, write, record if driver == "gather" else 0.0, LATENCY, BANDWIDTH)


def here(measured: dict[str, Any]) -> Costs:
    """Costs of sleeping chunks on this machine: nothing is written, and who sleeps sleeps a little too long."""
    send, message, chunk = reports(measured, "posix")
    return Costs(send, message, chunk, measured["oversleeping"], latency=measured["ping"]["latency"])


def most_chunks(case: Case) -> float:
    """How many chunks of a case are simulated one by one."""
    return max(MOST, case.ranks * LEAST_WORK / case.chunk)


@cache
def run(case: Case, costs: Costs, wary: bool = False, group: int = 0) -> Outcome:
    """Outcome of a case, of groups with a sub-master each if they have a size."""
    schedule = Wary if wary else Schedule
    print(f"  {case.ranks} ranks, {case.work:g} s, chunks of {case.chunk} s", file=sys.stderr, flush=True)
    n_groups = math.ceil(case.ranks / group) if group else 1
    most = most_chunks(case)
    if n_groups == 1:
        return extended(case, costs, most, schedule=schedule)
    parts = [
        extended(replace(case, ranks=case.ranks // n_groups, seed=100 + k), costs, most / n_groups, schedule=schedule)
        for k in range(n_groups)
    ]
    # a master of the sub-masters levels out what the groups have; here that is their mean
    seconds = sum(part.seconds for part in parts) / n_groups
    longest = max(parts, key=lambda part: part.peak)
    whole = replace(parts[0], seconds=seconds, ranks=case.ranks, work=sum(part.work for part in parts))
    return replace(whole, busy=longest.busy, peak=longest.peak)


def alone(measured: dict[str, Any], n: int, n_points: float, tsv: bool = False) -> float:
    """Seconds for what rank 0 does alone before and after the work, with `posix`."""
    points, start = measured["points"], measured["start"]
    send, message, _ = reports(measured, "lean")
    each = points["lay out"] + points["summary"] + tsv * text_seconds(measured)
    return n_points * each + n * (start["sent"] * send + start["got"] * message)


def text_seconds(measured: dict[str, Any]) -> float:
    """Seconds of rank 0 for a row of the TSV, which the others format."""
    return float(measured["points"]["TSV: rank 0 reads"] + measured["points"]["TSV: rank 0 passes on"])


def ordering(measured: dict[str, Any], ranks: int, n_points: float) -> float:
    """Seconds to write the grid-ordered datasets by so many ranks."""
    points = measured["points"]
    bytes_moved = n_points * (points["bytes of the journal"] + points["bytes of the finished file"])
    # rows are shared out in large blocks
    return float(points["grid order"] * max(n_points / ranks, min(n_points, ROWS)) + bytes_moved / FILE_ALL)


# ---- the report


def table(columns: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)] + [""]


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def seconds(value: float) -> str:
    if value < 1e-3:
        return f"{1e6 * value:.3g} µs"
    if value < 1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.3g} s" if value < 1000 else f"{value / 60:.0f} min"


def cell(outcome: Outcome, case: Case) -> str:
    """Efficiency, marked where the master is what is missing, and where the run was prolonged."""
    marks = " *" * (outcome.load > 0.8) + " †" * (case.n_chunks > most_chunks(case))
    return percent(outcome.efficiency) + marks


def efficiency_table(measured: dict[str, Any], driver: str, **design: Any) -> list[str]:
    lean = design.pop("lean", False)
    costs = costs_of(measured, driver, lean)
    rows = [
        [f"{n}", *(cell(run(case, costs, **design), case) for case in (Case(n, work, CHUNK) for work in WORK))]
        for n in RANKS
    ]
    return table(["ranks", *(f"{work:g} s" for work in WORK)], rows)


def limits_table(measured: dict[str, Any]) -> list[str]:
    rows = []
    for name, driver, lean in (
        ("posix, mpio", "posix", False),
        ("gather", "gather", False),
        ("posix, mpio with reports of times only", "posix", True),
    ):
        costs = costs_of(measured, driver, lean)
        row = [name, seconds(costs.send), seconds(costs.message), seconds(costs.chunk)]
        for chunk in CHUNKS:
            # in the long middle of a run, with assignments of the longest kind
            per = max(1, int(LONGEST_ASSIGNMENT / chunk))
            spent = costs.send + costs.message + per * costs.chunk
            row.append(f"{int(per * chunk / spent / 100) * 100}")
        rows.append(row)
    titles = ["driver", "to send", "a report", "each chunk in it"]
    return table([*titles, *(f"full at (ranks), chunks of {chunk} s" for chunk in CHUNKS)], rows)


def losses_table(measured: dict[str, Any]) -> list[str]:
    costs = costs_of(measured, "posix")
    rows = []
    for n in RANKS[2:]:
        for work in (10.0, 100.0) if n <= 2048 else (10.0,):
            case = Case(n, work, CHUNK)
            base = run(case, costs, True)
            cells = [f"{n}", f"{work:g} s", seconds(base.seconds)]
            for lost, hung in ((0.001, 0.0), (0.01, 0.0), (0.0, 0.001)):
                other = run(replace(case, lost=lost, hung=hung), costs, True)
                cells.append(f"{seconds(other.seconds)} ({other.lost})")
            rows.append(cells)
    return table(["ranks", "work per rank", "undisturbed", "0.1 % killed", "1 % killed", "0.1 % hang"], rows)


def around_table(measured: dict[str, Any]) -> list[str]:
    start, points = measured["start"], measured["points"]
    send, message, _ = reports(measured, "lean")
    rows = []
    for n in RANKS:
        n_points = n * 10.0 * measured["chunks"][TYPICAL]["points_per_second"]
        # a plan of 100 kB
        tree = math.ceil(math.log2(n)) * (LATENCY + 1e5 / BANDWIDTH + send)
        times = (
            n * start["got"] * message,
            n * start["sent"] * send,
            tree,
            n_points * points["lay out"],
            ordering(measured, n, n_points),
            ordering(measured, 1, n_points),
            n_points * text_seconds(measured),
        )
        rows.append([f"{n}", f"{n_points / 1e6:.3g}", *map(seconds, times)])
    titles = ["names, acknowledgements", "short messages", "plan, along a tree", "laying out"]
    return table(["ranks", "10⁶ points", *titles, "grid order, posix", "grid order, gather", "TSV"], rows)


def whole_table(measured: dict[str, Any], tsv: bool) -> list[str]:
    """Efficiency of a whole run, start and end included."""
    rows = []
    for n in RANKS:
        cells = [f"{n}"]
        for work in WORK:
            outcome = run(Case(n, work, CHUNK), costs_of(measured, "posix"))
            n_points = n * work * measured["chunks"][TYPICAL]["points_per_second"]
            whole = outcome.seconds + alone(measured, n, n_points, tsv) + ordering(measured, n, n_points)
            cells.append(percent(outcome.work / (n * whole)))
        rows.append(cells)
    return table(["ranks", *(f"{work:g} s" for work in WORK)], rows)


def chunks_table(measured: dict[str, Any]) -> list[str]:
    rows = []
    for n in RANKS:
        cells = [f"{n}"]
        for chunk in CHUNKS:
            case = Case(n, 10.0, chunk)
            now, wary = (run(case, costs_of(measured, "posix"), wary) for wary in (False, True))
            cells += [cell(now, case), cell(wary, case), percent(bound(case))]
        rows.append(cells)
    titles = [f"{chunk} s: {what}" for chunk in CHUNKS for what in ("as it is", "wary", "bound")]
    return table(["ranks", *titles], rows)


def check_table(measured: dict[str, Any]) -> list[str]:
    costs = here(measured)
    rows = []
    for found in measured["check"]:
        case = Case(found["ranks"], found["work"], found["chunk"], seed=found["seed"])
        cells = [f"{case.ranks}", f"{case.n_chunks}", f"{case.seed}", seconds(found["seconds"])]
        for assumed in (costs, replace(costs, write=0.0)):
            predicted = simulate(case, assumed).seconds
            cells.append(f"{seconds(predicted)} ({100 * (predicted / found['seconds'] - 1):+.0f} %)")
        rows.append(cells)
    return table(["ranks", "chunks", "seed", "measured", "predicted", "predicted, without oversleeping"], rows)


def chance_table(measured: dict[str, Any]) -> list[str]:
    """Range of the efficiency over seeds that no schedule was chosen by."""
    rows = []
    for n, work in ((32, 10.0), (128, 10.0), (512, 10.0), (512, 100.0), (2048, 10.0)):
        cells = [f"{n}", f"{work:g} s"]
        for wary in (False, True):
            outcomes = [run(Case(n, work, CHUNK, seed=seed), costs_of(measured, "posix"), wary) for seed in SEEDS]
            values = sorted(outcome.efficiency for outcome in outcomes)
            cells.append(f"{100 * values[0]:.0f} to {percent(values[-1])}")
        rows.append(cells)
    return table(["ranks", "work per rank", "as it is", "wary"], rows)


def draw(measured: dict[str, Any], folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, constrained_layout=True)
    designs = (("as it is", False, False, 0), (f"wary, lean reports, sub-masters of {GROUP}", True, True, GROUP))
    for axis, (title, wary, lean, group) in zip(axes, designs, strict=True):
        costs = costs_of(measured, "posix", lean)
        for work in WORK:
            values = [100 * run(Case(n, work, CHUNK), costs, wary, group if n > group else 0).efficiency for n in RANKS]
            axis.plot(RANKS, values, "o-", label=f"{work:g} s of work per rank")
        axis.set(title=title, xscale="log", xlabel="ranks", ylim=(0, 100))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("efficiency (%)")
    axes[0].legend(loc="lower left")
    figure.savefig(folder / "scaling-efficiency.png", dpi=110)
    figure, axis = plt.subplots(figsize=(6, 4), constrained_layout=True)
    for driver, lean, label, style in (
        ("gather", False, "gather", "o-"),
        ("posix", False, "posix, mpio", "s-"),
        ("posix", True, "posix, mpio, lean reports", "^--"),
    ):
        loads = [100 * run(Case(n, 10.0, CHUNK), costs_of(measured, driver, lean), True).load for n in RANKS]
        axis.plot(RANKS, loads, style, label=label)
    axis.set(xscale="log", xlabel="ranks", ylabel="rank 0's time spent on messages (%)", ylim=(0, 102))
    axis.set_title(f"wary schedule, 10 s of work per rank, chunks of {CHUNK} s")
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")
    figure.savefig(folder / "scaling-master.png", dpi=110)


def wrapped(text: str) -> str:
    """Paragraphs and items, separated by empty lines, each on one line of its own, broken at 120 characters."""
    parts = []
    for part in text.split("\n\n"):
        plain = " ".join(part.split())
        if part.lstrip().startswith(("|", "#", "!")):
            parts.append(part.strip())
        else:
            indent = "" if not plain.startswith(("* ", "1. ", "2. ", "3. ", "4. ")) else " " * (plain.index(" ") + 1)
            parts.append(textwrap.fill(plain, 120, subsequent_indent=indent, break_on_hyphens=False))
    return "\n\n".join(parts) + "\n"


def report(measured: dict[str, Any]) -> str:
    typical, points, start = measured["chunks"][TYPICAL], measured["points"], measured["start"]
    books, machine = measured["bookkeeping"], measured["machine"]
    posix, mpio = (costs_of(measured, driver) for driver in ("posix", "mpio"))
    best = [
        percent(run(Case(10000, 10.0, CHUNK), costs_of(measured, "posix", lean), wary, group).efficiency)
        for wary, lean, group in ((False, False, 0), (True, True, 0), (True, True, GROUP))
    ]
    long = Case(512, 1000.0, CHUNK)
    in_full = [percent(made.efficiency) for made in (simulate(long, posix), run(long, posix))]
    lasts = ", ".join(f"{seconds(found['chunk'])} with `{name}`" for name, found in measured["chunks"].items())
    medians = ", ".join(f"{seconds(book['median'])} ({n} ranks)" for n, book in books.items())
    written = 10000 / CHUNK * RECORD_BYTES * scaling_costs.POINTS / 1e9

    def rows(lines: list[str]) -> str:
        return "\n".join(lines)

    return wrapped(f"""# How many ranks make sense

Made by `benchmarks/scaling.py`. No run with 10 000 ranks is behind this: it is a simulation, in which the program's own
scheduler (`Schedule` and `Ledger` of `mpidvc/runtime/schedule.py`) decides what goes to whom, and clocks, network and
ranks are made up from costs that were measured. *Efficiency* is the time of the work itself, over ranks times wall
time.

## In short

* Give every rank at least 100 s of work. With 10 s the end dominates: somebody is in the middle of a chunk that costs
ten times the mean while the others have nothing left. With 1 s most ranks wait.

* There must be many more chunks than ranks: a chunk has at most 512 points, and is one rank's. Points divided by 512 is
the number of ranks beyond which nothing gets faster, as the others get nothing; a thirtieth of that is a sensible one.
Chunks of 512 points take {lasts} (one core of the machine that is named below).

* `posix` (the default on file systems that all hosts see alike) and `mpio` differ little: a chunk costs the worker
{seconds(posix.write - READ)} and {seconds(mpio.write - READ)} for writing. `gather` brings all records to rank 0, which
is full much sooner (see below); it is meant for NFS, and for hundreds of ranks at most.

* What rank 0 does alone for every point is not divided by the ranks: {seconds(points["lay out"])} to lay out the files,
{seconds(text_seconds(measured))} for the TSV. That is little beside {seconds(1 / typical["points_per_second"])}
of work for a point
(`{TYPICAL}`), but from some hundred ranks on it is most of a run. Use `-notsv` there, and read the HDF5 file.

![Efficiency over ranks](images/scaling-efficiency.png)

One seed: the dip of the left picture is an accident of it, see "What would mend it".

## Efficiency while points are measured

By ranks and seconds of work per rank, with chunks of {CHUNK} s on average. An asterisk says that rank 0 is busy for
more
than 80 % of the time. Every cell is one run with one seed; another seed may give ten or twenty points more or less
(see "What
would mend it"). Where there are fewer chunks than ranks (less work per rank than a chunk) the rest idle.
Start and end of a run are further below.

A dagger says that the run was simulated in part and prolonged, which is rough: 512 ranks with 1000 s of work reach
{in_full[0]} when simulated in full, and {in_full[1]} when prolonged.

### posix

{rows(efficiency_table(measured, "posix"))}

### mpio

{rows(efficiency_table(measured, "mpio"))}

### gather

{rows(efficiency_table(measured, "gather"))}

### Short and long chunks

With 10 s of work per rank, `posix`. *bound*: no scheduler can surpass it, as the longest chunk takes its time.
*wary*: a
mended scheduler, see below.

{rows(chunks_table(measured))}

## Where the master is full

Rank 0's time for a message, and the number of ranks that keep it busy all the time in the long middle of a run, when an
assignment lasts {LONGEST_ASSIGNMENT:g} s. Towards the end assignments are shorter, and rank 0 has several times as
much to
do; it is full there with a fraction of these ranks.

{rows(limits_table(measured))}

![Rank 0's time spent on messages](images/scaling-master.png)

The bookkeeping costs the same on any number of ranks, per report and median: {medians}. Only the look for late workers,
once a second, grows: {seconds(books["10000"]["expire"])} with 10 000 ranks. The rest is MPI and pickle; more than
half of a report is for the NumPy record in it.

## What would mend it

1. *Learn before handing out.* What comes back first is what was cheap: a chunk of air costs nothing. So the first
estimate of the cost is far too low, and the ranks that ask next get a quarter of their whole share at once, with as
much
in reserve. The *wary* schedule (in `benchmarks/scaling.py`) hands out at most twice what a rank has done on average, an
eighth of the rest instead of a quarter, nothing that is shorter than rank 0 needs to serve all ranks, and no reserves
when fewer than eight chunks per rank are left. That gains much with 10 s of work per rank and from a hundred ranks on.
With 100 s it gains little as a rule (see the ranges below), but it avoids accidents: with 512 ranks, 99, 138
and 221 assignments of 20 to 83 chunks went out while next to nothing but air was known (seeds 1, 2, 4). With seed 1 one
of these took 126 s, and the others waited for it (44 % in the table above).

2. *Reports without records*, where workers write their records themselves: less than half the time of a report.

3. *Sub-masters*, one for {GROUP} ranks, which get long ranges of chunks from rank 0. 10 000 ranks with 10 s of work
each:
{best[0]} as it is, {best[1]} with 1 and 2, {best[2]} with all three.

4. *Nothing per point on rank 0 alone*: every rank lays out the inputs of its rows, and writes text at its own offset.

The wary schedule was chosen among about twenty variants by cases that are in these tables (seed 1). This is the range
over five other seeds. It helps from about a hundred ranks on; below it is no better, and with 10 000 ranks it sends
more
messages than rank 0 can serve without 2.

{rows(chance_table(measured))}

### posix with 1 and 2

{rows(efficiency_table(measured, "posix", wary=True, lean=True))}

### posix with 1, 2 and 3

{rows(groups_rows(measured))}

## Ranks that are lost

Wall time with `posix` and the wary schedule; in brackets the number of ranks that were lost. A killed rank is noticed
after 0.1 s, and costs what it had in hand. A rank that hangs is noticed when its lease ends: 120 s for its first
assignment, for others 30 s and twenty times what they should take; in the end 10 s are waited for it. In runs of 10 to
100 s that is up to one and a half minutes. Longer runs with losses were not simulated. One seed per cell:
differences of
a few per cent are chance.

{rows(losses_table(measured))}

## Before and after the work

For 10 s of work per rank with `{TYPICAL}`, that is {typical["points_per_second"]:.0f} points per second and rank.
All of
it is rank 0's time: for names, acknowledgements and short messages ({start["sent"]:.0f} to and {start["got"]:.0f} from
every rank in a run), laying out, the TSV, and with `gather` the grid order; with `posix` all ranks share that.

{rows(around_table(measured))}

So the whole run, with `posix` and without a TSV, is less efficient than its middle:

{rows(whole_table(measured, tsv=False))}

And with a TSV:

{rows(whole_table(measured, tsv=True))}

The start of Python is not in it: half a second from a local disk, but 10 000 ranks that read thousands of small files
from one server can take minutes. Use a container, or copy the environment to every node.

## Is the simulation right?

Real runs of ranks whose chunks sleep, on a machine with two cores: as they mostly sleep, many more ranks than cores are
honest. They oversleep by {seconds(measured["oversleeping"])} (measured apart), and the prediction reckons with that. It
was added after the first four runs (seeds 1 to 4) had shown that it matters; the others came later, and nothing was
changed for them. How long the end of a run takes is chance: it matters who gets a slow chunk last, and a fraction of a
millisecond per chunk can change that.

{rows(check_table(measured))}

## What is measured, and what is assumed

* Measured on {machine["processor"]}, two cores shared with other work, Open MPI, Python {machine["python"]}: CPU
time of
rank 0 for reports and assignments in the program's own executor, writing of a chunk's records to a local disk, what
every
point costs before and after the work, points per second, and the messages of a run. Other work only adds to such times,
so they are rather too long.

* Assumed: a network with {seconds(LATENCY)} and {BANDWIDTH / 1e9:g} GB/s; a shared file system with
{seconds(FILE_LATENCY)} for a call, {FILE_CLIENT / 1e9:g} GB/s for a client and {FILE_ALL / 1e9:g} GB/s in all. 10
000 ranks
with chunks of {CHUNK} s write {written:.1f} GB/s in {2e4 / CHUNK / 1000:.0f} thousand calls per second. A file
system that
takes less limits the run, and that is not simulated.

* Assumed: MPI takes short messages at once. Rank 0 looks at all that it has not got rid of whenever it sends another,
so that the first assignments of thousands of ranks would take it long otherwise.

* Assumed: a fifth of the chunks are air and cost nothing, three quarters cost about the same (±30 %), a twentieth
diverges
and costs 4 to 10 times as much; neighbours are alike, in runs of 8 chunks on average. Reading its boxes takes
{seconds(READ)} for every chunk.

* Long runs are simulated up to {MOST:.0e} chunks, or {LEAST_WORK:g} s per rank, and prolonged at the rate of their
middle. Sub-masters are simulated as groups that share nothing, with the mean of their times: what leads them would
level them out.

* Below {SCHEDULER_ONLY_FROM} ranks rank 0 works too; from there on it only schedules, and counts as a rank that idles.

* `pixelSearchPropagate` is not in here: how much of it is ready at a time is what limits it.
""")


def groups_rows(measured: dict[str, Any]) -> list[str]:
    costs = costs_of(measured, "posix", True)
    big = [n for n in RANKS if n > GROUP]
    rows = [
        [f"{n}", *(cell(run(case, costs, True, GROUP), case) for case in (Case(n, work, CHUNK) for work in WORK))]
        for n in big
    ]
    return table(["ranks", *(f"{work:g} s" for work in WORK)], rows)


def check() -> list[dict[str, Any]]:
    """Real runs of ranks that sleep."""
    found = []
    for ranks, work, chunk, seed in CHECKS:
        said = scaling_costs.run_ranks(ranks, "sleep", str(work), str(chunk), str(seed))
        found.append({"ranks": ranks, "work": work, "chunk": chunk, "seed": seed, **json.loads(said.splitlines()[-1])})
        print(found[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure costs, and write them")
    parser.add_argument("--measure-mpio", action="store_true", help="measure parallel HDF5 only")
    parser.add_argument("--check", action="store_true", help="compare with real runs")
    parser.add_argument("--work", type=Path, help="directory for what is measured")
    parser.add_argument("--report", type=Path, default=REPORT)
    args = parser.parse_args()
    measured: dict[str, Any] = json.loads(COSTS.read_text()) if COSTS.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if args.measure:
            mpio = measured.get("record", {}).get("mpio")
            measured |= scaling_costs.measure(folder)
            if mpio is not None:
                measured["record"].setdefault("mpio", mpio)
        if args.measure_mpio:
            # what parallel HDF5 takes more than plain writing
            record = scaling_costs.measure_messages(folder)["record"]
            measured.setdefault("record", {})["mpio"] = record["mpio"]
    if args.check:
        measured["oversleeping"] = scaling_costs.oversleeping()
        measured["check"] = check()
    if args.measure or args.measure_mpio or args.check:
        COSTS.write_text(json.dumps(measured, indent=1) + "\n")
        return
    draw(measured, args.report.parent / "images")
    args.report.write_text(report(measured))


if __name__ == "__main__":
    main()
