#!/usr/bin/env python3
"""How many ranks make sense: a simulation of the master and its workers, with the real scheduling and measured costs.

    python benchmarks/scaling.py --measure --work /tmp/scaling  # measures costs here into mpidvc/workflow/scaling.json
    python benchmarks/scaling.py --measure-points                  # the same for points only
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

from mpidvc.runtime.schedule import (  # noqa: E402
    GROWTH,
    LONGEST_ASSIGNMENT,
    SCHEDULER_ONLY_FROM,
    SERVED,
    Schedule,
)
from mpidvc.runtime.simulation import Case, Costs, Ending, Outcome, bound, extended, simulate  # noqa: E402
from mpidvc.workflow.scaling import (  # noqa: E402
    BANDWIDTH,
    CHUNK_POINTS,
    CLUSTER,
    COSTS,
    FILE_ALL,
    FILE_CLIENT,
    FILE_LATENCY,
    HOST,
    HOST_RANKS,
    LATENCY,
    READ,
    RECORD_BYTES,
    Whole,
    costs_of,
    ending,
    ordered_bytes,
    ordering,
    reports,
    sharing,
    starting,
    summing,
    text_bytes,
    whole,
)
from mpidvc.workflow.summary import MOST_JUDGED  # noqa: E402

REPORT = REPOSITORY / "docs/scaling.md"
RANKS = (2, 8, 32, 128, 512, 2048, 10000)
WORK = (1.0, 10.0, 100.0, 1000.0)
DRIVERS = ("posix", "mpio", "gather")
#: Mean seconds of a chunk: all, and the one of most tables.
CHUNKS, CHUNK = (0.1, 0.3, 1.0), 0.3
#: The run whose points per second are used for whole runs.
TYPICAL = "-hws 10 -o 3"
#: Most chunks that are simulated one by one, unless that leaves a rank less than `LEAST_WORK` seconds of work; in whole
#: runs `LEAST_WHOLE`, as what follows the chunks begins late.
MOST, LEAST_WORK, LEAST_WHOLE = 2e5, 12.0, 100.0
#: Number of seeds of which every result is the median, by the number of simulated chunks.
SEEDS = ((2e4, 5), (5e5, 3), (math.inf, 1))
#: Real runs: ranks, seconds of work for each, mean seconds of a chunk, seed, and seconds that it took before.
CHECKS = (
    *((2, 3.0, 0.05, 1, 3.03), (4, 3.0, 0.05, 2, 3.71), (32, 3.0, 0.05, 3, 4.38), (64, 4.0, 0.1, 4, 10.2)),
    *((4, 3.0, 0.05, 11, 2.6), (16, 3.0, 0.05, 12, 3.25), (32, 3.0, 0.05, 13, 3.23), (32, 3.0, 0.05, 14, 4.76)),
)
#: Rank 0's seconds to send an assignment, for a report and for every chunk in it, before both were made leaner.
COSTS_BEFORE = (19e-6, 45e-6, 4.9e-6)


class Before(Schedule):
    """The schedule of the first simulation: it trusted the first mean, and gave reserves to the end."""

    def take(self, rank: int, in_hand: int) -> range | None:
        left = self.n_chunks - self.handed_out
        if left <= 0 or (rank == 0 and self.size >= 48) or in_hand > (left >= self.size):
            return None
        count = 1
        if rank != 0 and self.rate.done:
            count = left // (4 * self.size)
            if self.rate.seconds > 0:
                count = min(count, int(self.rate.done / self.rate.seconds))
        chunks = range(self.handed_out, min(self.handed_out + max(count, 1), self.n_chunks))
        self.handed_out = chunks.stop
        return chunks


# ---- costs


def here(measured: dict[str, Any]) -> Costs:
    """Costs of sleeping chunks on this machine: nothing is written, and sleeps are a little too long."""
    send, message, chunk = reports(measured, "posix")
    return Costs(
        send=send,
        message=message,
        chunk=chunk,
        write=measured["oversleeping"],
        latency=measured["ping"]["latency"],
    )


def most_chunks(case: Case, least: float = LEAST_WORK) -> float:
    """Number of chunks of a case that are simulated one by one."""
    return max(MOST, case.ranks * least / case.chunk)


@cache
def run(case: Case, costs: Costs, before: bool = False, also: Ending | None = None) -> Outcome:
    """Outcome of a case with the median efficiency of several seeds; `also`: what is written besides the records."""
    print(f"  {case.ranks} ranks, {case.work:g} s, chunks of {case.chunk} s", file=sys.stderr, flush=True)
    most = most_chunks(case, LEAST_WORK if also is None else LEAST_WHOLE + 1)
    n_seeds = next(n for limit, n in SEEDS if min(case.n_chunks, most) <= limit)
    schedule = Before if before else Schedule
    outcomes = [
        extended(replace(case, seed=seed), costs, most, schedule=schedule, ending=also)
        for seed in range(1, n_seeds + 1)
    ]
    return sorted(outcomes, key=lambda outcome: outcome.efficiency)[n_seeds // 2]


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
    """Efficiency, marked where the master is the limit, and where the run was prolonged."""
    marks = " *" * (outcome.load > 0.8) + " †" * (case.n_chunks > most_chunks(case))
    return percent(outcome.efficiency) + marks


def efficiency_table(measured: dict[str, Any], driver: str, works: tuple[float, ...] = WORK) -> list[str]:
    costs = costs_of(measured, driver)
    cases = [[Case(n, work, CHUNK) for work in works] for n in RANKS]
    rows = [[f"{row[0].ranks}", *(cell(run(case, costs), case) for case in row)] for row in cases]
    return table(["ranks", *(f"{work:g} s" for work in works)], rows)


def limits_table(measured: dict[str, Any]) -> list[str]:
    rows = []
    for name, driver in (("posix, mpio", "posix"), ("gather", "gather")):
        costs = costs_of(measured, driver)
        row = [name, seconds(costs.send), seconds(costs.message), seconds(costs.chunk)]
        for chunk in CHUNKS:
            # in the long middle of a run, with assignments of the longest kind
            per = max(1, int(LONGEST_ASSIGNMENT / chunk))
            spent = costs.send + costs.message + per * costs.chunk
            row.append(f"{int(per * chunk / spent / 100) * 100}")
        row += [percent(run(Case(n, 10.0, CHUNK), costs).load) for n in RANKS[-2:]]
        rows.append(row)
    titles = ["driver", "to send", "a report", "each chunk in it"]
    titles += [f"full at (ranks), chunks of {chunk} s" for chunk in CHUNKS]
    return table([*titles, *(f"busy, {n} ranks with 10 s" for n in RANKS[-2:])], rows)


def losses_table(measured: dict[str, Any]) -> list[str]:
    costs = costs_of(measured, "posix")
    rows = []
    for n, work in ((32, 10.0), (32, 100.0), (512, 10.0), (512, 100.0), (2048, 10.0)):
        case = Case(n, work, CHUNK)
        cells = [f"{n}", f"{work:g} s", seconds(simulate(case, costs).seconds)]
        for lost, hung in ((0.001, 0.0), (0.01, 0.0), (0.0, 0.001)):
            other = simulate(replace(case, lost=lost, hung=hung), costs)
            cells.append(f"{seconds(other.seconds)} ({other.lost})")
        rows.append(cells)
    return table(["ranks", "work per rank", "undisturbed", "0.1 % killed", "1 % killed", "0.1 % hang"], rows)


@cache
def whole_run(n: int, work: float) -> Whole:
    """A whole run of typical windows on n ranks; a long one is prolonged at the rate of a half of `LEAST_WHOLE`."""
    measured = json.loads(COSTS.read_text())
    typical = measured["chunks"][TYPICAL]
    per_second = typical["points_per_second"]
    also = ending(measured, n * work * per_second, CLUSTER)

    def measuring(work: float) -> float:
        outcome = run(Case(n, work, typical["chunk"]), costs_of(measured, "posix"), also=also)
        # the work is known, that of the chunks as drawn differs
        return outcome.seconds * n * work / outcome.work

    long = min(work, LEAST_WHOLE)
    seconds = measuring(long)
    if work > long:
        seconds += (work - long) / (0.5 * long) * (seconds - measuring(0.5 * long))
    return whole(measured, n, work, per_second, seconds)


def around_table(measured: dict[str, Any]) -> list[str]:
    rows = []
    for n in RANKS:
        n_points = n * 10.0 * measured["chunks"][TYPICAL]["points_per_second"]
        times = (
            starting(measured, n, n_points),
            ordering(measured, n, n_points, CLUSTER),
            summing(measured, n_points),
            sharing(measured, n, n_points, CLUSTER),
            ordering(measured, min(n, HOST_RANKS), n_points, HOST),
            sharing(measured, min(n, HOST_RANKS), n_points, HOST),
        )
        rows.append([f"{n}", f"{n_points / 1e6:.3g}", *map(seconds, times)])
    titles = ["start, messages", "grid order", "summary", "TSV", "grid order, gather", "TSV, gather"]
    return table(["ranks", "10⁶ points", *titles], rows)


def whole_table() -> list[str]:
    """Efficiency of a whole run, start, end and TSV included, and what the file system allows."""
    rows = []
    for n in RANKS:
        cells = [f"{n}"]
        for work in WORK:
            found = whole_run(n, work)
            cells += [f"{percent(found.efficiency)} of {percent(found.bound)}"]
        rows.append(cells)
    return table(["ranks", *(f"{work:g} s" for work in WORK)], rows)


def ends_table(measured: dict[str, Any]) -> list[str]:
    """CPU seconds of the busiest rank after the points, in real runs and as the simulation reckons."""
    points, rows = measured["points"], []
    for found in measured["ends"]:
        share = found["points"] / found["ranks"]
        cells = [f"{found['ranks']}", f"{found['points'] / 1e6:.2f}"]
        told = {"finish": points["grid order"] * share, "write": points["TSV"] * share}
        for stage, predicted in told.items():
            cells += [
                f"{seconds(found[stage])}",
                f"{seconds(predicted)} ({100 * (predicted / found[stage] - 1):+.0f} %)",
            ]
        rows.append(cells)
    titles = ("grid order", "predicted", "TSV", "predicted")
    return table(["ranks", "10⁶ points", *titles], rows)


def chunks_table(measured: dict[str, Any]) -> list[str]:
    cases = [[Case(n, 10.0, chunk) for chunk in CHUNKS] for n in RANKS]
    costs = costs_of(measured, "posix")
    rows = [
        [f"{row[0].ranks}", *(text for case in row for text in (cell(run(case, costs), case), percent(bound(case))))]
        for row in cases
    ]
    return table(["ranks", *(f"{chunk} s{what}" for chunk in CHUNKS for what in ("", ": bound"))], rows)


def before_table(measured: dict[str, Any]) -> list[str]:
    rows = []
    for n, work in (
        (2, 10.0),
        (8, 10.0),
        (32, 10.0),
        (128, 10.0),
        (512, 10.0),
        (512, 100.0),
        (2048, 10.0),
        (10000, 10.0),
    ):
        case = Case(n, work, CHUNK)
        old, new = (
            run(case, costs_of(measured, "posix", COSTS_BEFORE if before else None), before) for before in (True, False)
        )
        rows.append(
            [f"{n}", f"{work:g} s", *(f"{percent(made.efficiency)} ({percent(made.load)})" for made in (old, new))]
        )
    return table(["ranks", "work per rank", "before", "now"], rows)


def check_table(measured: dict[str, Any]) -> list[str]:
    costs = here(measured)
    rows = []
    for found, (*_, before) in zip(measured["check"], CHECKS, strict=True):
        case = Case(found["ranks"], found["work"], found["chunk"], seed=found["seed"])
        cells = [f"{case.ranks}", f"{case.n_chunks}", f"{case.seed}", seconds(before), seconds(found["seconds"])]
        for assumed in (costs, replace(costs, write=0.0)):
            predicted = simulate(case, assumed).seconds
            cells.append(f"{seconds(predicted)} ({100 * (predicted / found['seconds'] - 1):+.0f} %)")
        rows.append(cells)
    return table(
        ["ranks", "chunks", "seed", "before", "measured", "predicted", "predicted, without oversleeping"], rows
    )


def draw(measured: dict[str, Any], folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, constrained_layout=True)
    for axis, (title, before) in zip(axes, (("before", True), ("now", False)), strict=True):
        costs = costs_of(measured, "posix", COSTS_BEFORE if before else None)
        for work in (1.0, 10.0, 100.0):
            values = [100 * run(Case(n, work, CHUNK), costs, before).efficiency for n in RANKS]
            axis.plot(RANKS, values, "o-", label=f"{work:g} s of work per rank")
        axis.set(title=title, xscale="log", xlabel="ranks", ylim=(0, 100))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("efficiency (%)")
    axes[0].legend(loc="lower left")
    figure.savefig(folder / "scaling-efficiency.png", dpi=110)
    figure, axis = plt.subplots(figsize=(6, 4), constrained_layout=True)
    for driver, label, style in (("gather", "gather", "o-"), ("posix", "posix, mpio", "s-")):
        loads = [100 * run(Case(n, 10.0, CHUNK), costs_of(measured, driver)).load for n in RANKS]
        axis.plot(RANKS, loads, style, label=label)
    axis.set(xscale="log", xlabel="ranks", ylabel="rank 0's time spent on messages (%)", ylim=(0, 102))
    axis.set_title(f"10 s of work per rank, chunks of {CHUNK} s")
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
    lasts = ", ".join(f"{seconds(found['chunk'])} with `{name}`" for name, found in measured["chunks"].items())
    medians = ", ".join(f"{seconds(book['median'])} ({n} ranks)" for n, book in books.items())
    written = 10000 / CHUNK * RECORD_BYTES * CHUNK_POINTS / 1e9
    moved = RECORD_BYTES + ordered_bytes(measured) + text_bytes(measured)
    largest_whole = whole_run(10000, 100.0)
    largest = run(Case(10000, 10.0, CHUNK), posix)
    gathered = run(Case(10000, 10.0, CHUNK), costs_of(measured, "gather"))

    def ratio(n: int) -> float:
        return whole_run(n, 100.0).efficiency / whole_run(n, 100.0).bound

    def rows(lines: list[str]) -> str:
        return "\n".join(lines)

    return wrapped(f"""# How many ranks make sense

Made by `benchmarks/scaling.py`. No run with 10 000 ranks is behind this: it is a simulation, in which the program's own
scheduler (`Schedule` and `Ledger` of `mpidvc/runtime/schedule.py`) decides what goes to whom, and clocks, network and
ranks are made up from costs that were measured. *Efficiency* is the time of the work itself, over ranks times wall
time. Numbers are medians of {SEEDS[1][1]} or {SEEDS[0][1]} seeds, but one seed above {SEEDS[1][0]:.0f} chunks;
another seed may give five points more or less, with
few ranks ten.

## In short

* Points divided by 512 is the number of chunks, and a chunk is one rank's: more ranks than that gain nothing, and a
thirtieth of it is a sensible number. Chunks of 512 points take {lasts} (one core of the machine named below).

* Give every rank at least 10 s of work, better 100 s. With 10 s the end counts: somebody is in the middle of a chunk
that costs ten times the mean while the others have nothing left.

* Every point is written and read a few times, {moved:.0f} bytes in all, mostly while others are measured. With many
fast ranks the file system takes longer for it than the work takes: on 10 000 ranks with 100 s of work each
{seconds(largest_whole.files)} at {FILE_ALL / 1e9:g} GB/s. What the ranks do is not what limits such a run.

* `posix` (the default on file systems that all hosts see alike) and `mpio` differ little: a chunk costs the worker
{seconds(posix.write - READ)} and {seconds(mpio.write - READ)} for writing. `gather` brings all records to rank 0; it is
meant for NFS, and for a few hundred ranks.

![Efficiency over ranks](images/scaling-efficiency.png)

## Efficiency while points are measured

By ranks and seconds of work per rank, with chunks of {CHUNK} s on average. Where there are fewer chunks than ranks the
rest idle. An asterisk says that rank 0 is busy for more than 80 % of the time, a dagger that the first
{LEAST_WORK:g} s per rank (or {MOST:.0f} chunks) were simulated and prolonged at the rate of their middle, which is
rough.

### posix

{rows(efficiency_table(measured, "posix"))}

### mpio

{rows(efficiency_table(measured, "mpio", (10.0, 100.0)))}

### gather

{rows(efficiency_table(measured, "gather"))}

### Short and long chunks

With 10 s of work per rank, `posix`. No scheduler can surpass the bound, as the longest chunk takes its time.

{rows(chunks_table(measured))}

## Where the master is full

Rank 0's time for a message, and the number of ranks that keep it busy all the time in the long middle of a run, when an
assignment lasts {LONGEST_ASSIGNMENT:g} s; towards the end assignments are shorter. The last columns say how busy it is
over whole runs with 10 s of work per rank and chunks of {CHUNK} s.

{rows(limits_table(measured))}

![Rank 0's time spent on messages](images/scaling-master.png)

With `posix` and `mpio` 10 000 ranks with 10 s of work each keep rank 0 busy for {percent(largest.load)} of the time.
With chunks of 0.1 s, a million of them, it is the bottleneck (see the table above). With `gather` it is for
{percent(gathered.load)}: it checks and writes {RECORD_BYTES * CHUNK_POINTS / 1e3:.0f} kB for every chunk.
Several
writers, one for every host, would mend that, but not in one file: two hosts that write to the same page of a file on
NFS may overwrite each other's bytes. The ranks of rank 0's host, which see what it has written, finish the files.

The bookkeeping costs little more on more ranks, per report and median: {medians}. Only the look for late workers,
once a second, grows: {seconds(books["10000"]["expire"])} with 10 000 ranks. The rest is MPI, pickle, and what the
progress shows.

## What the simulation changed

Efficiency, and in brackets how busy rank 0 is, before and now:

{rows(before_table(measured))}

* What is back first is what was cheap, and the mean of it promised far too much: early assignments had dozens of
chunks, and lasted for minutes where points diverged. Now nobody gets more than {GROWTH} times the chunks that each rank
has done on average.

* From {SCHEDULER_ONLY_FROM} ranks on an assignment is an eighth of a rank's part of what is left, not a quarter; and
until the end none is
shorter than rank 0 needs to serve every rank, {seconds(SERVED)} for each.

* Rank 0 works itself below {SCHEDULER_ONLY_FROM} ranks only, not below 48: the others waited for its answers. Where it
does not, nobody gets an assignment in reserve, which others could not take in the end.

* Reports carry bytes instead of NumPy records; what goes to all is pickled once, and short broadcasts are one message
instead of two. By the same measurement an assignment of one chunk took rank 0
{seconds(sum(COSTS_BEFORE))}, and takes {seconds(posix.send + posix.message + posix.chunk)} now. A run sent 27 messages
to every worker besides the work, now {start["sent"]:.0f}. Of what is not yet through, MPI is asked for a few
at a time, not for all whenever something is sent.

* The text of the TSV is written by all ranks at its places, instead of by rank 0.

## What remains

* *The file system.* Every record is written, read, put in the order of the grid, and its row is read once for the text.
The results file alone (`-notsv`) takes {RECORD_BYTES + ordered_bytes(measured):.0f} of {moved:.0f} bytes.

* *A field as a guess.* The points of a grid are computed by every rank. Where each has a guess of its own, in the
results file of a grid (`-pf`), all ranks look at the rows of the field, in {seconds(points["look"])} for each, and
write the guesses to the journal in the order of the chunks, in {seconds(points["field"])}; none has the field in
memory. A text, scattered points, a series, `-skp` and `--adaptive` remain: there rank 0 alone reads the field.

* *gather*, see above.

* *The end.* What is missing below {SCHEDULER_ONLY_FROM} ranks is mostly rank 0's own chunks, during which it answers
nobody;
above, diverging chunks that begin last. Chunks could be cut again for the end.

## Ranks that are lost

Wall time with `posix`, one seed; in brackets the number of ranks that were lost. A killed rank is noticed after 0.1 s,
and costs what it had in hand. A rank that hangs is noticed when its lease ends: 120 s for its first assignment, for
others 30 s and twenty times what they should take; in the end 10 s are waited for it. Differences of a few per cent are
chance.

{rows(losses_table(measured))}

## Before and after the work

For 10 s of work per rank with `{TYPICAL}`, that is {typical["points_per_second"]:.0f} points per second and rank. Rank
0 makes the files, takes the fingerprints of the images, and has {start["sent"]:.0f} short messages for and
{start["got"]:.0f} from every rank in a run; it judges at most {MOST_JUDGED / 1e6:.1f} million points. Grid order and
TSV are the times of all ranks for them, if nothing else is done: with `mpio` after the points, with `posix` mostly
among them; with `gather` they are those of the {HOST_RANKS} ranks of rank 0's host, a single client, after the points.

{rows(around_table(measured))}

Whole runs with `posix` and TSV, in which rows and text are written as soon as the points of a piece are done. Chunks
take {seconds(typical["chunk"])} on average. Each cell says how efficient the run is, of how much the assumed file
system allows: that is the run in which nothing takes time but the work and, while it is done, the {moved:.0f} bytes of
every point, at {FILE_CLIENT / 1e9:g} GB/s for a rank and {FILE_ALL / 1e9:g} GB/s in all. This is the limit of the
hardware, as long as so many bytes are moved. In this simulation the file system serves all ranks one after the other.

{rows(whole_table())}

Runs of 100 s reach {percent(ratio(2048))} of it on 2048 ranks, and {percent(ratio(10000))} on 10 000. When rows and
text were written after the points it was 73 % and 73 %; and when rank 0 wrote all points to the journal, the same runs
had an efficiency of 32 % and 9 %, with kernels that took three times as long for a point.

The start of Python is not in it: half a second from a local disk, but 10 000 ranks that read thousands of small files
from one server can take minutes. Use a container, or copy the environment to every node.

## Is the simulation right?

Real runs of ranks whose chunks sleep, on a machine with two cores: as they mostly sleep, many more ranks than cores are
honest. They oversleep by {seconds(measured["oversleeping"])} (measured apart), and the prediction reckons with that.
How
long the end of a run takes is chance: it matters who gets a slow chunk last, and a fraction of a millisecond per chunk
can change that. The column *before* is the same run, one of each, before the changes above.

Below 24 ranks predictions are rather too good, and there they misled once: an eighth instead of a quarter of the rest
looked better, but nine of eleven real runs of 4 ranks took longer, by 5 % on average, and predictions were up to 18 %
too
short. Why is not known; it is a quarter still.

{rows(check_table(measured))}

Rows and text in real runs of small windows: CPU seconds of the busiest rank, as other work was on the
machine. Predictions are from pieces of the program run by one process.

{rows(ends_table(measured))}

## What is measured, and what is assumed

* Measured on {machine["processor"]}, two cores shared with other work, Open MPI, Python {machine["python"]}: CPU time
of
rank 0 for reports and assignments in the program's own executor, writing of a chunk's records to a local disk, what
every point costs before and after the work, points per second, and the messages of a run. Each is the least of
{scaling_costs.TIMES} measurements, as other work only adds to such times.

* Assumed: a network with {seconds(LATENCY)} and {BANDWIDTH / 1e9:g} GB/s; a shared file system with
{seconds(FILE_LATENCY)} for a call, {FILE_CLIENT / 1e9:g} GB/s for a client and {FILE_ALL / 1e9:g} GB/s in all. 10 000
ranks with chunks of {CHUNK} s write {written:.1f} GB/s of records in {2e4 / CHUNK / 1000:.0f} thousand calls per
second. Only the table of whole runs knows that the file system serves all of them.

* Assumed: MPI takes short messages at once. A fifth of the chunks are air and cost nothing, three quarters cost about
the same (±30 %), a twentieth diverges and costs 4 to 10 times as much; neighbours are alike, in runs of 8 chunks on
average. Reading its boxes takes {seconds(READ)} for every chunk.

* The schedule was chosen by seeds 1 to 7 of such chunks, and with few ranks up to 200 of them; some of the seeds here
are among these.

* From {SCHEDULER_ONLY_FROM} ranks on rank 0 counts as a rank that idles.

* `pixelSearchPropagate` is not in here: how much of it is ready at a time is what limits it.
""")


def check() -> list[dict[str, Any]]:
    """Real runs of ranks that sleep."""
    found = []
    for ranks, work, chunk, seed, _ in CHECKS:
        said = scaling_costs.run_ranks(ranks, "sleep", str(work), str(chunk), str(seed))
        found.append({"ranks": ranks, "work": work, "chunk": chunk, "seed": seed, **json.loads(said.splitlines()[-1])})
        print(found[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure costs, and write them")
    parser.add_argument("--measure-points", action="store_true", help="measure what points cost only")
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
        if args.measure_points:
            measured |= scaling_costs.measure_points(folder)
        if args.measure_mpio:
            # the additional time of parallel HDF5
            record = scaling_costs.measure_messages(folder)["record"]
            measured.setdefault("record", {})["mpio"] = record["mpio"]
    if args.check:
        measured["oversleeping"] = scaling_costs.oversleeping()
        measured["check"] = check()
    if args.measure or args.measure_points or args.measure_mpio or args.check:
        COSTS.write_text(json.dumps(measured, indent=1) + "\n")
        return
    draw(measured, args.report.parent / "images")
    args.report.write_text(report(measured))


if __name__ == "__main__":
    main()
