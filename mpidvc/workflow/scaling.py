"""Costs of a run besides its points, on a cluster: measured ones, and those of a network and a file system as assumed.

`benchmarks/scaling.py` measures them, and says in ``docs/scaling.md`` what follows from them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from mpidvc.runtime.simulation import Case, Costs, extended
from mpidvc.tasks.memory import ROWS

__all__ = [
    "BANDWIDTH",
    "CHUNK_POINTS",
    "COSTS",
    "FILE_ALL",
    "FILE_CLIENT",
    "FILE_LATENCY",
    "LATENCY",
    "READ",
    "RECORD_BYTES",
    "SIZES",
    "alone",
    "costs_of",
    "kept",
    "ordering",
    "reports",
    "seconds_of_chunks",
    "sharing",
]

#: The measured costs.
COSTS = Path(__file__).with_name("scaling.json")
#: A cluster, which cannot be measured here: network, and a shared file system as one client sees it and as a whole.
LATENCY, BANDWIDTH = 2e-6, 1e10
FILE_LATENCY, FILE_CLIENT, FILE_ALL = 0.5e-3, 1e9, 2e10
#: Points of the largest chunk, bytes of the record of a point, and seconds of a chunk of air, whose boxes are read.
CHUNK_POINTS, RECORD_BYTES, READ = 512, 144, 1e-3
#: Chunks in an assignment when the costs of reports are measured.
SIZES = (1, 8)
#: Chunks of a simulation at most, unless that leaves a rank less than so many; a longer run is prolonged.
MOST, LEAST_EACH = 5000, 30
#: Seeds of which the median counts, where simulations are short.
SEEDS = 3


@cache
def kept() -> dict[str, Any]:
    """The measured costs."""
    found: dict[str, Any] = json.loads(COSTS.read_text(encoding="utf-8"))
    return found


def reports(measured: dict[str, Any], kind: str) -> tuple[float, float, float]:
    """Seconds of rank 0 to send an assignment, for a report, and for every chunk in it."""
    few, many = SIZES
    one, other = (measured["reports"][f"{kind} {size}"] for size in (few, many))
    each = max((other["report"] - one["report"]) / (many - few), 0.0)
    return one["send"], max(one["report"] - few * each, 0.0), each


def costs_of(measured: dict[str, Any], driver: str, rank0: tuple[float, float, float] | None = None) -> Costs:
    """Costs of a run on a cluster.

    Parameters
    ----------
    measured : dict
    driver : {"posix", "mpio", "gather"}
    rank0 : 3 floats, optional
        Instead of those of `reports`.
    """
    kind = "gather" if driver == "gather" else "posix"
    send, message, chunk = rank0 or reports(measured, kind)
    record = CHUNK_POINTS * RECORD_BYTES
    write = READ
    if driver != "gather":
        # records and mark are a call each
        write += measured["record"][driver] + 2 * FILE_LATENCY + record / FILE_CLIENT
    return Costs(
        send=send,
        message=message,
        chunk=chunk,
        write=write,
        payload=record if driver == "gather" else RECORD_BYTES,
        latency=LATENCY,
        bandwidth=BANDWIDTH,
    )


def alone(measured: dict[str, Any], n: int, n_points: float) -> float:
    """Seconds of rank 0 alone before and after the work, with `posix`."""
    points, start = measured["points"], measured["start"]
    send, message, _ = reports(measured, "posix")
    return float(
        n_points * (points["lay out"] + points["summary"]) + n * (start["sent"] * send + start["got"] * message)
    )


def sharing(measured: dict[str, Any], ranks: int, n_points: float) -> float:
    """Seconds to write the TSV by so many ranks, which share it in large blocks and write each of them twice."""
    points = measured["points"]
    return float(
        points["TSV"] * max(n_points / ranks, min(n_points, ROWS)) + n_points * points["bytes of the TSV"] / FILE_ALL
    )


def ordering(measured: dict[str, Any], ranks: int, n_points: float) -> float:
    """Seconds to write the grid-ordered datasets by so many ranks."""
    points = measured["points"]
    bytes_moved = n_points * (points["bytes of the journal"] + points["bytes of the finished file"])
    # rows are shared out in large blocks
    return float(points["grid order"] * max(n_points / ranks, min(n_points, ROWS)) + bytes_moved / FILE_ALL)


@cache
def seconds_of_chunks(work: float, n_chunks: int, sample: tuple[float, ...], ranks: int) -> float:
    """Seconds in which so many ranks measure the chunks of a run.

    Parameters
    ----------
    work : float
        Seconds of all chunks together.
    n_chunks : int
    sample : tuple of float
        Seconds of some of them; empty: as `simulate` makes them up.
    ranks : int
    """
    if work <= 0 or n_chunks == 0:
        return 0.0
    if ranks == 1:
        return work
    costs, most = costs_of(kept(), "posix"), max(MOST, LEAST_EACH * ranks)
    found = []
    for seed in range(1, (SEEDS if min(most, n_chunks) <= MOST else 1) + 1):
        case = Case(ranks, work / ranks, work / n_chunks, seed=seed, sample=sample)
        outcome = extended(case, costs, most)
        # the work is known, that of the chunks as drawn differs
        found.append(outcome.seconds * work / outcome.work if outcome.work > 0 else work / min(ranks, n_chunks))
    return sorted(found)[len(found) // 2]
