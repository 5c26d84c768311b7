#!/usr/bin/env python3
"""What each change of the kernels has brought, and what the processor allows.

    python benchmarks/kernels.py --work /tmp/kernels             # writes docs/benchmarks-kernels.md; an hour
    python benchmarks/kernels.py --work /tmp/kernels --quick     # a pair of 160³ voxels; for trying it out
    python benchmarks/kernels.py --work /tmp/kernels --only limits
    python benchmarks/kernels.py --work /tmp/kernels --only page # from the results of earlier runs

The pair is that of compare.py. The changes are those of the list in changes.py: git has to have their commits. The work
folder keeps what was built, and the results as a JSON file of each part. Needs an x86 processor and Linux, g++ and
objdump.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import changes
import limits
import numpy as np
import tifffile
from compare import facts_table, machine, number, options_for, table

from mpidvc.core.analytic import AnalyticPair

EDGE, QUICK_EDGE = 300, 160
#: What is measured, each with a file of results of its own.
PARTS = ("changes", "limits", "runs")


def images(work: Path, edge: int) -> dict[str, Path]:
    """The files of the pair, of 8 and 16 bits, made if they are missing."""
    files = {f"im{k}-{bits}": work / f"im{k}-{edge}-{bits}.tif" for k in (1, 2) for bits in (8, 16)}
    if not all(path.exists() for path in files.values()):
        pair = AnalyticPair((edge,) * 3, seed=300)
        for bits, dtype in ((8, np.uint8), (16, np.uint16)):
            both = replace(pair, dtype=dtype)
            for k, image in ((1, both.image1), (2, both.image2)):
                tifffile.imwrite(files[f"im{k}-{bits}"], image(), photometric="minisblack", metadata={"axes": "ZYX"})
    return files


# ---- tables of the limits


def of_piece(name: str) -> limits.Work:
    return {**limits.WORK, **limits.search_work()}[name]


def limit_of(work: limits.Work, measured: limits.Measured) -> dict[str, float]:
    """Nanoseconds that the arithmetic, the loads and the bytes of a piece take at the peak, each by itself."""
    lanes = measured.best("lanes")
    # two operations of every lane an instruction, as if all could be fused
    arithmetic = work.flop / (2 * lanes * measured.best("fma"))
    loads = work.loads / lanes / measured.best("l1_off")
    outside = work.outside / (4 * lanes * measured.best("l2"))
    far = work.memory / (4 * lanes * measured.best("memory"))
    return {"FLOP": arithmetic, "loads": loads, "bytes": max(outside, far)}


def limits_table(measured: limits.Measured, unit: str) -> str:
    pieces = [p for p in measured.pieces if p.unit == unit and p.name != "search"]
    scale, name = (1, "ns") if unit == "voxel" else (1e-3, "µs")
    at_peak = {p.name: limit_of(of_piece(p.name), measured) for p in pieces}
    columns: dict[str, Any] = {"piece": "name", f"FLOP/{unit}": lambda p: float(of_piece(p.name).flop)}
    if unit == "voxel":
        columns |= {
            "bytes loaded": lambda p: 4.0 * of_piece(p.name).loads,
            "bytes from or to the second cache": lambda p: float(of_piece(p.name).outside),
        }
    columns |= {f"FLOP at the peak, {name}": lambda p: scale * at_peak[p.name]["FLOP"]}
    if unit == "voxel":
        columns |= {
            "loads at the peak, ns": lambda p: at_peak[p.name]["loads"],
            "bytes at the peak, ns": lambda p: at_peak[p.name]["bytes"],
        }
    columns |= {
        f"limit, {name}": lambda p: scale * max(at_peak[p.name].values()),
        f"measured, {name}": lambda p: scale * p.near,
    }
    if unit == "voxel":
        columns["measured, window after window, ns"] = "in_turn"

    def ratio(p: limits.Piece) -> float:
        return (p.in_turn if of_piece(p.name).memory and p.in_turn else p.near) / max(at_peak[p.name].values())

    columns |= {"times the limit": ratio}
    return table(pieces, columns)


def executed_table(measured: limits.Measured) -> str:
    clock = measured.best("clock")
    columns: dict[str, Any] = {"piece": "name", "instructions": lambda p: p.executed.all}
    columns |= {
        "multiply-adds": lambda p: p.executed.multiply,
        "additions": lambda p: p.executed.add,
        "loads": lambda p: p.executed.load,
        "stores": lambda p: p.executed.store,
        "other ones of vectors": lambda p: p.executed.move,
        "all others": lambda p: p.executed.other,
        "FLOP, idle lanes too": lambda p: p.executed.flop,
        "share of FLOP that is needed": lambda p: _share(p),
        "instructions/cycle": lambda p: p.executed.all / (p.near * clock),
        "FLOP/cycle": lambda p: p.executed.flop / (p.near * clock),
    }
    return table(measured.pieces, columns)


def functions_table(measured: limits.Measured) -> str:
    """The functions that most instructions of a piece belong to."""

    def listed(piece: limits.Piece) -> str:
        return ", ".join(f"`{name}` {100 * share:.0f} %" for name, share in piece.functions.items() if share > 0.02)

    return table(measured.pieces, {"piece": "name", "functions": listed})


def _share(piece: limits.Piece) -> str:
    work = {**limits.WORK, **limits.search_work()}.get(piece.name)
    return "–" if work is None or not work.flop else f"{100 * work.flop / piece.executed.flop:.0f} %"


def operations_table() -> str:
    work = list({**limits.WORK, **limits.search_work()}.items())
    columns = {"piece": lambda w: w[0], "FLOP": lambda w: float(w[1].flop), "what they are": lambda w: w[1].how}
    return table(work, columns)


def peaks_table(measured: limits.Measured) -> str:
    lanes, clock = measured.best("lanes"), measured.best("clock")
    wide = 4 * lanes
    rate = measured.best
    copies = f"{rate('copy_l2'):.0f} and {rate('copy_l3'):.0f} GB/s"
    rows = [
        ("clock", clock, "GHz", None),
        (f"multiply-adds of {lanes:.0f} lanes", 2 * lanes * rate("fma"), "GFLOP/s", rate("fma")),
        ("the same and additions in turn", 1.5 * lanes * rate("fma_and_add"), "GFLOP/s", rate("fma_and_add")),
        ("permutations", None, "", rate("shuffles")),
        ("loads from the nearest cache, aligned", wide * rate("l1"), "GB/s", rate("l1")),
        ("the same, not aligned", wide * rate("l1_off"), "GB/s", rate("l1_off")),
        ("loads from the second cache", wide * rate("l2"), "GB/s", rate("l2")),
        ("the same, not aligned", wide * rate("l2_off"), "GB/s", rate("l2_off")),
        ("loads from the third cache", wide * rate("l3"), "GB/s", rate("l3")),
        ("loads from memory", wide * rate("memory"), "GB/s", rate("memory")),
        ("copies in the second, in the third cache", None, copies, None),
        ("copies in memory", rate("copy_memory"), "GB/s", None),
        ("gathers", lanes * rate("gathers"), "values/ns", rate("gathers")),
    ]
    columns = {
        "what": lambda r: r[0],
        "peak": lambda r: f"{number(r[1])} {r[2]}" if r[1] is not None else r[2] or "–",
        "instructions/cycle": lambda r: r[3] / clock if r[3] is not None else None,
    }
    return table(rows, columns)


def runs_table(runs: dict[str, Any]) -> str:
    """Where the point stage of whole runs spends its CPU time."""
    names = [name for functions in limits.TIMED.values() for name in functions]
    kernels = {
        "correlate_points": "windows",
        "to_float": "casts",
        "prefilter": "prefilter",
        "search_points": "search",
        "block_sums": "blocks",
        "bin_mean": "bins",
    }
    rows = list(runs.items())

    def microseconds(run: dict[str, Any], seconds: float) -> float:
        return 1e6 * seconds / run["points"]

    columns: dict[str, Any] = {"run": lambda r: r[0], "points": lambda r: r[1]["points"]}
    columns["µs/point"] = lambda r: microseconds(r[1], r[1]["points_cpu"])
    for name in names:
        columns[kernels[name]] = lambda r, name=name: (
            microseconds(r[1], r[1]["kernels"][name]["seconds"]) if r[1]["kernels"][name]["calls"] else None
        )
    columns["the rest"] = lambda r: microseconds(
        r[1], r[1]["points_cpu"] - sum(k["seconds"] for k in r[1]["kernels"].values())
    )
    columns["voxels cast/point"] = lambda r: r[1]["kernels"]["to_float"]["size"] / r[1]["points"]
    columns["voxels prefiltered/point"] = lambda r: (
        r[1]["kernels"]["prefilter"]["size"] / r[1]["points"] if r[1]["kernels"]["prefilter"]["calls"] else None
    )
    return table(rows, columns)


def report(result: dict[str, Any]) -> str:
    """The text of the page, of what has been measured."""
    text = """# Kernels: what changes have brought, and what is left

Written by `benchmarks/kernels.py`: every figure of the tables was measured on one machine. Do not edit.

"""
    if "changes" in result:
        part = result["changes"]
        lines = [changes.Line(**line) for line in part["lines"]]
        text += CHANGED.format(
            machine=facts_table(part["machine"]),
            edge=part["edge"],
            hws=limits.HWS,
            scatter=100 * changes.scatter(lines),
            noticed=100 * changes.noticed(lines),
            table=changes.changes_table(lines),
        )
    if "limits" in result:
        part = result["limits"]
        measured = limits.Measured(part["peaks"], [], part["microseconds"], part["split"])
        measured.pieces = [
            limits.Piece(**{**piece, "executed": limits.Instructions(**piece["executed"])}) for piece in part["pieces"]
        ]
        text += LIMITS.format(
            machine=facts_table(part["machine"]),
            peaks=peaks_table(measured),
            operations=operations_table(),
            voxels=limits_table(measured, "voxel"),
            points=limits_table(measured, "point"),
            executed=executed_table(measured),
            functions=functions_table(measured),
            box=limits.BOX,
            prefiltered=limits.PREFILTERED,
            evaluated=measured.microseconds["search evaluated"],
            summed=measured.microseconds["search summed"],
            search=measured.microseconds["search whole"],
        )
        text += KEEPS.format(split=100 * measured.split, counted=limits.COUNTED_PREFILTER)
    if "runs" in result:
        part = result["runs"]
        text += RUNS.format(machine=facts_table(part["machine"]), runs=runs_table(part["runs"]))
    if "limits" in result:
        text += LEFT
    return text


CHANGED = """\
## A line per change

{machine}

CPU time of the point stage, one core, the least of several runs in turns; the pair of [benchmarks.md](benchmarks.md)
with {edge}³ voxels, `-hws {hws}`, `-ns 20` where nothing else is said. A cell has what the change brought (how many
times as fast as the line before), and in brackets all changes so far. The second least time of a case is
{scatter:.0f} % above the least (median): ratios that differ from 1 by less than {noticed:.0f} % are no change, others
are bold. Where the load average is above one, other work shared the cores and their caches, and times are longer than
alone.

{table}

"""

LIMITS = """\
## The limit

{machine}

### The processor

Each is the best of two measurements, before and after all others, of the least time of many short runs. The third
cache and the memory are shared with whatever else runs on the machine. Its hardware counters are not to be had in this
virtual machine: cache misses are not counted.

{peaks}

### Operations

FLOP that a voxel (or a point of a search) needs, as counted from the sources, where no group of lanes lies in two
voxels, without idle lanes, and without what is done once a column, a plane or a window. A multiply-add is two.

{operations}

### Time at the peak, and time measured

FLOP at the rate of multiply-adds, loads at the rate of those that are not aligned, bytes beyond the nearest cache at
that of the second one, those of a cast at that of the memory; the largest of the three is the limit. Times are the
least of many calls: of one window (a block of reg, a box of {prefiltered}³ voxels that is prefiltered) again and again,
at a place where no group lies in two voxels, and of 64 windows one after the other in boxes of {box}³ voxels (of a pass
the first one, which meets box 2 far away; of a cast all over the volume).

{voxels}

A search of 9³ offsets (windows of 21³ voxels, texture of the pair) takes {search:.1f} µs a point; it needs {summed:.1f}
of the 729 sums over all voxels, and evaluates {evaluated:.1f} candidates in double precision.

{points}

### Instructions

Instructions of one call by kind, as executed (the processor stops after each), per voxel or per point; cycles are the
time of the table above by the clock. A load that is an operand counts as a load, too. The share that is needed is that
of the operations above: what lacks are idle lanes (19 of 20 voxels of a row are used), and groups that lie in two
voxels, whose stencils are a tap longer along each axis.

{executed}

The functions that they belong to, with the first template argument, which is the number of lanes of some:

{functions}

"""


KEEPS = """\
### What keeps them from the limit

There are no counters: these are conclusions from the tables above.

* Linear passes, and window, gradients and Hessian: the number of instructions, of which four a cycle are executed;
  neither arithmetic nor loads nor bytes are at their peak. A row of 19 voxels is a group of 16 lanes and one of four,
  and the second one takes as many instructions for three voxels as the first for 16 (`add_column`, `add_products`).
  The groups have to be placed in box 2 (`find_places`).
* Cubic passes: loads and multiply-adds of both groups, one after the other: 64 loads of 16 lanes that cross a line of
  the cache take a cycle each, the 64 short ones of the second group half of it, and both have 84 multiply-adds. At
  the rotation of this pair {split:.0f} % of groups of 16 lanes lie in two voxels along some axis, and have a tap more
  along that axis or along all: the difference of windows one after the other. Addresses of rows are kept in memory, as
  there are not registers enough.
* Prefilter: along z and y each value waits for the one before (two dependent operations, four cycles each; four
  registers go side by side), along x 25 loads a group, which are not aligned. Its instructions are those of a box of
  {counted}³ voxels, where ends of rows weigh more.
* Cast: waiting for memory. A row of a box is a short piece of one of the image.
* Search: products of blocks have rows of 11 in 16 lanes, and sums of lanes after each offset; what is beside the
  products (filling the windows, box sums, the bounds of 729 candidates in double precision, one exact evaluation) is a
  third of the time. Products of all voxels (windows without blocks) use 21 of 24 lanes.
* reg: a block's rows are whole groups, and no column of four lanes is wasted: fewer instructions a voxel than a window.
  Linear: loads, one a cycle, of which groups in two voxels have more than the fifteen that are counted. Cubic: the same
  (up to 125 taps instead of 64), and boxes that only the second and third cache hold.

"""


RUNS = """\
### Whole runs

{machine}

CPU time of the point stage by the kernels' functions, µs per point (reg: the whole run is one point); the rest is
Python, and waiting for the file.

{runs}

"""


LEFT = """\
### What is left to gain

* The columns of four lanes: four rows of three voxels side by side in one register would leave a quarter of their
  arithmetic, not of their loads: up to a fifth of a pass. Without a change of the kernels: windows of `-hws` 8 (15
  voxels) and 16 (31) have whole groups.
* The first pass of a window waits for box 2, and the window itself for box 1 (the times of windows one after the
  other): both could be asked for while the window before is registered.
* Groups of a column are placed for each column anew, and their addresses one by one: a part of linear passes
  (`find_places`). Offsets as integers of 32 bits take fewer instructions, but correlations were slower in the build.
* Grey levels as they are in the kernels, without boxes of floats: the casts of whole runs, and half of the bytes of a
  window that is read for the first time.
* Whole runs: what is not in kernels, most of all where chunks have few points (`-ns 20`).
* The prefilter of order 3: neighbouring chunks filter the voxels of their frames twice.
* Not left: gathers (the table of the processor), more lanes, caches: windows fit into the second one.
"""


def kept(path: Path, result: dict[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    parser = options_for(__doc__, "benchmarks-kernels.md", spam=False)
    parser.add_argument(
        "--quick", action="store_true", help=f"a pair of {QUICK_EDGE}³ voxels, and one run of each case"
    )
    parser.add_argument("--repeat", type=int, help="runs of each commit and case (default: four, of long ones two)")
    parser.add_argument("--only", choices=(*PARTS, "page"), help="a part; the others as measured last")
    options = parser.parse_args()
    work, edge = options.work, QUICK_EDGE if options.quick else EDGE
    files = images(work, edge)
    if options.only in (None, "changes"):
        about = machine()

        def store(lines: list[changes.Line]) -> None:
            about["load average after the run"] = machine()["load average before the run"]
            kept(work / "changes.json", {"machine": about, "edge": edge, "lines": [asdict(line) for line in lines]})

        changes.measure(work, files, store, 1 if options.quick else options.repeat)
    if options.only in (None, "limits"):
        about = machine()
        measured = limits.measure_pieces(work, files, edge, options.quick)
        about["load average after the run"] = machine()["load average before the run"]
        kept(work / "limits.json", {"machine": about, **asdict(measured)})
    if options.only in (None, "runs"):
        about = machine()
        runs = limits.measure_runs(work, files, changes.registered(work, files, None), options.quick)
        about["load average after the run"] = machine()["load average before the run"]
        kept(work / "runs.json", {"machine": about, "runs": runs})
    result = {}
    for part in PARTS:
        path = work / f"{part}.json"
        if path.exists():
            result[part] = json.loads(path.read_text())
    options.report.write_text(report(result))
    print(f"written: {options.report}")


if __name__ == "__main__":
    main()
