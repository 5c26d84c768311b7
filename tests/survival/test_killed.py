"""Jobs that are killed, whole or in part, at any moment: their results so far are kept, and they can be resumed."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mpidvc.atomic import beside
from mpidvc.runtime.launch import Mpiexec
from tests.outputs import outputs
from tests.survival.conftest import LINES, Make
from tests.survival.jobs import LONG, Job, Started, drivers, interrupted, seeds, state, suspended, wait

Oracle = Callable[[str], Path]

#: Processes that are killed.
VICTIMS = ("all", "parent", "mpiexec", "rank 0", "worker")
#: When: a stage, or a share of the blocks.
MOMENTS = ("layout", "points", 0.1, "any", "any", "any", 0.9, "finish", "write")


def strike(job: Job, started: Started, victim: str) -> None:
    """Kill a part of a job; the rest has to end by itself."""
    if victim == "all":
        started.kill_all()
        return
    ranks = started.ranks()
    pids = {
        "parent": [started.process.pid],
        "mpiexec": started.launchers(),
        "rank 0": [ranks[0]] if 0 in ranks else [],
        "worker": [pid for rank, pid in ranks.items() if rank != 0][:1],
    }[victim]
    started.send(signal.SIGKILL, pids or [started.process.pid])
    started.end()


@pytest.mark.parametrize("seed", seeds(4, 30))
def test_killed_and_resumed(seed: int, make: Make, oracle: Oracle, launcher: Mpiexec) -> None:
    """A job is killed, resumed, killed again ... on other numbers of ranks and by other drivers, and ends well."""
    chance = random.Random(seed)
    line = list(LINES.values())[seed % len(LINES)]
    job = make(line)
    ways = itertools.cycle(drivers())
    for _ in range(seed):
        next(ways)
    for kill in range(1 + seed % 3 if LONG else 1 + seed % 2):
        where = MOMENTS[(2 * seed + 3 * kill) % len(MOMENTS)]
        if where == "any":
            where = chance.random()
        victim = VICTIMS[(seed + kill) % len(VICTIMS)]
        if victim == "worker" and launcher.fault_tolerant:
            victim = "all"
        n = chance.randint(1 if victim == "all" else 2, 4)
        with job.start(n, "--hdf5-driver", next(ways), *(["--resume"] if kill else [])) as started:
            wait(job, started, where)
            at = state(job.results)
            strike(job, started, victim)
        print(f"{victim} of {n} killed at {where} ({at}), left: {state(job.results)}")
    job.resume(oracle(line), "--hdf5-driver", next(ways), n=chance.randint(1, 4))


def test_starts_from_neighbours_are_resumed(make: Make, oracle: Oracle) -> None:
    """A chunk knows no other one: the bytes are those of an undisturbed run, whichever chunks were done before."""
    line = "ldic @a.tif @b.tif -ns 4 -hws 8 -o 3 -dp 1e-5 --start-from neighbours"
    job = make(line)
    interrupted(job, 0.5)
    job.resume(oracle(line), n=3)


def test_chosen_windows_are_resumed(make: Make, oracle: Oracle) -> None:
    """The noise is told by the same windows again, and chooses the same ones."""
    line = "ldic @a.tif @b.tif -ns 5 -hws 9 --adaptive 0.01 --adaptive-from 4"
    job = make(line)
    interrupted(job, 0.5)
    job.resume(oracle(line), n=3)


@pytest.mark.parametrize("name", LINES if LONG else ["pixelSearch"])
@pytest.mark.parametrize("stage", ["layout", "points", "finish", "write"])
def test_killed_in_every_stage(name: str, stage: str, make: Make, oracle: Oracle) -> None:
    job = make(LINES[name])
    if stage == "points":
        interrupted(job, 0.5)
    else:
        with suspended(job, stage) as started:
            started.kill_all()
    job.resume(oracle(LINES[name]))


def test_results_get_their_name_when_the_text_is_whole(make: Make, oracle: Oracle) -> None:
    """A moment later it has its own; nothing takes long in between."""
    line = LINES["pixelSearch"]
    job = make(line)
    with suspended(job, "write"):
        text = job.tsv.with_name(f"{job.tsv.name}.part").read_bytes()
    assert text == (oracle(line) / job.tsv.name).read_bytes()


def test_text_that_is_not_wanted_any_more(make: Make, oracle: Oracle) -> None:
    """A killed run leaves the space that it has reserved; the one that resumes it frees that."""
    line = LINES["pixelSearch"]
    job = make(line)
    interrupted(job)
    assert job.tsv.with_name(f"{job.tsv.name}.part").exists()
    ended = job.run(1, "--resume", "-notsv")
    assert ended.process.returncode == 0, ended.err
    assert outputs(job.out) == {job.results.name: (oracle(line) / job.results.name).read_bytes()}


def test_what_the_log_of_a_killed_run_left_is_removed(make: Make, oracle: Oracle) -> None:
    """A run that was killed while it wrote its log for the last time: all else is done."""
    job = make(LINES["pixelSearch"])
    assert job.run(1).process.returncode == 0
    with subprocess.Popen(["true"]) as gone:
        pass
    with beside(job.log) as temporary:
        left = temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
    left.touch()
    job.resume(oracle(LINES["pixelSearch"]))
    assert not left.exists()
