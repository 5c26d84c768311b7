"""Executors and the schedule."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpidvc.runtime import executor as executor_module
from mpidvc.runtime.comm import SerialCommunicator
from mpidvc.runtime.executor import InlineExecutor, Schedule, make_executor
from tests.conftest import Job

PROGRAM = str(Path(__file__).with_name("executor_program.py"))


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4])
def test_equal_to_inline(mpiexec: Job, n_ranks: int) -> None:
    done = mpiexec(n_ranks, PROGRAM, str(n_ranks))
    assert (done.returncode, done.stdout, done.stderr) == (0, "all equal\n", "")


def test_serial_is_inline() -> None:
    assert isinstance(make_executor(SerialCommunicator()), InlineExecutor)


def simulate(costs: list[float], size: int) -> float:
    """Play a schedule with these costs; return how long the slowest rank worked."""
    schedule = Schedule(len(costs), size)
    ranks = range(0 if size < executor_module.SCHEDULER_ONLY_FROM else 1, size)
    queues: dict[int, list[range]] = {rank: [] for rank in ranks}
    free = dict.fromkeys(ranks, 0.0)
    seen: list[int] = []

    def refill(rank: int) -> None:
        while len(queues[rank]) < (2 if rank else 1) and (chunks := schedule.take(rank)) is not None:
            queues[rank].append(chunks)
            seen.extend(chunks)

    while True:
        for rank in ranks:
            refill(rank)
        busy = [rank for rank in ranks if queues[rank]]
        if not busy:
            break
        rank = min(busy, key=lambda rank: free[rank] + sum(costs[i] for i in queues[rank][0]))
        chunks = queues[rank].pop(0)
        seconds = sum(costs[i] for i in chunks)
        now = free[rank] = free[rank] + seconds
        for other in ranks:
            # Who has nothing waits for the news.
            if not queues[other]:
                free[other] = max(free[other], now)
        schedule.finished(rank, chunks, seconds)
    assert schedule.exhausted
    assert seen == list(range(len(costs)))
    return max(free.values())


@pytest.mark.parametrize("size", [2, 4, 64])
def test_schedule_balances_uneven_chunks(size: int) -> None:
    # Air, ordinary chunks and a diverging region at the end of the image.
    costs = [0.0] * 2000 + [0.1] * 4000 + [1.0] * 400
    workers = size if size < executor_module.SCHEDULER_ONLY_FROM else size - 1
    assert simulate(costs, size) < 1.1 * sum(costs) / workers + 2


def test_schedule_hands_out_about_a_second() -> None:
    schedule = Schedule(10**6, 4)
    first = schedule.take(1)
    assert first == range(1)
    schedule.finished(1, first, 0.01)
    assert len(schedule.take(1) or ()) == 100
    assert len(schedule.take(0) or ()) == 1


def test_schedule_keeps_no_reserve_at_the_end() -> None:
    schedule = Schedule(5, 4)
    assert [schedule.take(1), schedule.take(1), schedule.take(1)] == [range(1), range(1, 2), None]
    assert [schedule.take(2), schedule.take(2)] == [range(2, 3), None]
