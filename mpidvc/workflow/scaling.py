"""Costs of a run besides its points, on a cluster: measured ones, and those of a network and a file system as assumed.

`benchmarks/scaling.py` measures them, and says in ``docs/scaling.md`` what follows from them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mpidvc.core.grid import GridOrder, GridPieces
from mpidvc.runtime.simulation import Case, Costs, Ending, extended
from mpidvc.tasks.memory import ROWS
from mpidvc.workflow.summary import MOST_JUDGED

__all__ = [
    "BANDWIDTH",
    "CHUNK_POINTS",
    "CLUSTER",
    "COSTS",
    "FILE_ALL",
    "FILE_CLIENT",
    "FILE_LATENCY",
    "FINGERPRINT",
    "HOST",
    "HOST_RANKS",
    "LATENCY",
    "NEAR",
    "READ",
    "RECORD_BYTES",
    "SIZES",
    "FileSystem",
    "Whole",
    "alone",
    "costs_of",
    "ending",
    "guessing",
    "kept",
    "ordered_bytes",
    "ordering",
    "reports",
    "seconds_of_chunks",
    "sharing",
    "starting",
    "summing",
    "text_bytes",
    "whole",
]

#: The measured costs.
COSTS = Path(__file__).with_name("scaling.json")
#: A cluster, which cannot be measured here: network, and a shared file system as one client sees it and as a whole.
LATENCY, BANDWIDTH = 2e-6, 1e10
FILE_LATENCY, FILE_CLIENT, FILE_ALL = 0.5e-3, 1e9, 2e10
#: Points of the largest chunk, bytes of the record of a point, and seconds of a chunk of air, whose boxes are read.
CHUNK_POINTS, RECORD_BYTES, READ = 512, 144, 1e-3
#: Its nodes along each axis.
BRICK = (8, 8, 8)
#: Bytes of a point that are read and written to put its guess into the journal: displacement and F, and its inputs.
GUESS_BYTES = 96 + 120
#: Bytes of two large images that go into their fingerprints: 16 bits of 2**26 voxels each.
FINGERPRINT = 2 * 2 * 2**26
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


@dataclass(frozen=True)
class FileSystem:
    """A file system: seconds of a call, and bytes per second of a client and of all clients together."""

    latency: float
    client: float
    all: float


#: The shared file system of a cluster, as assumed; and one whose calls cost what the processor spends on them.
CLUSTER, NEAR = FileSystem(FILE_LATENCY, FILE_CLIENT, FILE_ALL), FileSystem(0.0, math.inf, FILE_ALL)
#: As one host of the cluster sees it, with so many ranks.
HOST, HOST_RANKS = FileSystem(FILE_LATENCY, FILE_CLIENT, FILE_CLIENT), 64


def starting(measured: dict[str, Any], n: int, n_points: float, looked: float = FINGERPRINT) -> float:
    """Seconds of rank 0 alone until the first chunk is handed out, and for the short messages of a whole run.

    `looked`: bytes that go into the fingerprints of images.
    """
    start, points = measured["start"], measured["points"]
    send, message, _ = reports(measured, "posix")
    looking = looked * (points["fingerprint"] / FINGERPRINT + 1 / FILE_CLIENT)
    files = points["files"] + points["chunk"] * n_points / CHUNK_POINTS
    return float(looking + files + n * (start["sent"] * send + start["got"] * message))


def summing(measured: dict[str, Any], n_points: float) -> float:
    """Seconds of rank 0 alone to judge a result."""
    return float(measured["points"]["summary"] * min(n_points, MOST_JUDGED))


def alone(measured: dict[str, Any], n: int, n_points: float) -> float:
    """Seconds of rank 0 alone before and after the work, but for fingerprints."""
    return starting(measured, n, n_points, 0.0) + summing(measured, n_points)


def ordering(measured: dict[str, Any], ranks: int, n_points: float, files: FileSystem = NEAR) -> float:
    """Seconds to write the grid-ordered datasets by so many ranks."""
    cpu = measured["points"]["grid order"]
    return _shared(ranks, n_points, cpu, ordered_bytes(measured), _calls(measured, _cube(n_points)), files)


def sharing(measured: dict[str, Any], ranks: int, n_points: float, files: FileSystem = NEAR) -> float:
    """Seconds to write the TSV by so many ranks; its length is counted with the grid order."""
    points = measured["points"]
    return _shared(ranks, n_points, points["TSV"], text_bytes(measured), points["calls of the TSV"], files)


def guessing(measured: dict[str, Any], ranks: int, n_points: float) -> float:
    """Seconds to look at a field in its file, and to write its guesses to the journal, by so many ranks on a host."""
    points = measured["points"]
    moved = points["bytes of the finished file"] + GUESS_BYTES
    return _shared(ranks, n_points, points["look"] + points["field"], moved, 0.0, NEAR)


def ordered_bytes(measured: dict[str, Any]) -> float:
    """Bytes of a point that are read and written for the grid-ordered datasets."""
    return float(RECORD_BYTES + measured["points"]["bytes of the finished file"])


def text_bytes(measured: dict[str, Any]) -> float:
    """Bytes of a point that are read and written for the TSV."""
    points = measured["points"]
    return float(points["bytes of the finished file"] + points["bytes of the TSV"])


def _shared(ranks: int, n_points: float, cpu: float, moved: float, calls: float, files: FileSystem) -> float:
    """Seconds of a map over pieces of a field: by processors and clients, or by the file system as a whole.

    `cpu`, `moved`: seconds and bytes of a point; `calls`: of a point, too.
    """
    each = cpu + moved / files.client + calls * files.latency
    pieces, rows = max(1, math.ceil(n_points / ROWS)), min(n_points, ROWS)
    if ranks == 1:
        return each * n_points + n_points * moved / files.all
    ours = seconds_of_chunks(each * n_points, pieces, (1.0,), ranks)
    return max(ours, n_points * moved / files.all + each * rows)


def _cube(n_points: float) -> GridPieces:
    """The pieces of a cube of about so many nodes."""
    edge = max(1, round(n_points ** (1 / 3)))
    return GridOrder((edge,) * 3, BRICK).pieces(ROWS)


def _calls(measured: dict[str, Any], pieces: GridPieces) -> float:
    """Calls for a row of the finished file: records and marks are read, and every dataset written in ranges of rows."""
    _, _, ranges = pieces[0]
    rows = sum(stop - start for start, stop in ranges)
    return float((2 + len(ranges) * measured["points"]["datasets"]) / rows)


def ending(measured: dict[str, Any], n_points: float, files: FileSystem) -> Ending:
    """What is written while the chunks of a cube of nodes are measured."""
    points, pieces = measured["points"], _cube(n_points)
    first, end, ranges = pieces[0]
    rows = sum(stop - start for start, stop in ranges)

    def seconds(cpu: float, moved: float, calls: float) -> float:
        return rows * (cpu + moved / files.client + calls * files.latency)

    ordered, text = ordered_bytes(measured), text_bytes(measured)
    return Ending(
        chunks=end - first,
        layer=math.ceil(len(pieces) * pieces.layers / pieces.order.bricks[0]),
        rows=seconds(points["grid order"], ordered, _calls(measured, pieces)),
        text=seconds(points["TSV"], text, points["calls of the TSV"]),
        chunk_bytes=CHUNK_POINTS * RECORD_BYTES,
        rows_bytes=rows * ordered,
        text_bytes=rows * text,
        bandwidth=files.all,
    )


@dataclass(frozen=True)
class Whole:
    """A whole run: seconds of its stages, and what bounds it.

    Attributes
    ----------
    stages : dict of str to float
    work : float
        Seconds of work for each rank.
    files : float
        Seconds in which the file system can move all bytes that are read and written.
    """

    stages: dict[str, float]
    work: float
    files: float

    @property
    def efficiency(self) -> float:
        return self.work / sum(self.stages.values())

    @property
    def bound(self) -> float:
        """Efficiency if nothing took time but the work and, at the same time, these bytes: nothing surpasses it."""
        return self.work / max(self.work, self.files)


def whole(
    measured: dict[str, Any],
    ranks: int,
    work: float,
    points_per_second: float,
    measuring: float,
    files: FileSystem = CLUSTER,
) -> Whole:
    """A run from start to end, but for the start of Python.

    Parameters
    ----------
    measured : dict
    ranks : int
    work : float
        Seconds of work for each rank.
    points_per_second : float
        Of a rank.
    measuring : float
        Seconds until all points are measured, and all of the finished file and of the text is written, from a
        simulation with an `ending`.
    files : FileSystem
    """
    n_points = ranks * work * points_per_second
    stages = {
        "start": starting(measured, ranks, n_points),
        "points": measuring,
        "summary": summing(measured, n_points),
    }
    moved = RECORD_BYTES + ordered_bytes(measured) + text_bytes(measured)
    return Whole(stages, work, n_points * moved * max(1 / files.all, 1 / ranks / files.client))


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
