"""Executors and the schedule."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpidvc.runtime.comm import SerialCommunicator
from mpidvc.runtime.executor import Following, InlineExecutor, make_executor
from mpidvc.runtime.launch import Mpiexec
from mpidvc.runtime.schedule import LONGEST_BATCH, SCHEDULER_ONLY_FROM, FlowSchedule, Followed, Schedule
from tests.conftest import Job

PROGRAM = str(Path(__file__).with_name("executor_program.py"))
LOSS_PROGRAM = str(Path(__file__).with_name("loss_program.py"))
FAREWELL_PROGRAM = str(Path(__file__).with_name("farewell_program.py"))
MAILBOX_PROGRAM = str(Path(__file__).with_name("mailbox_program.py"))
WHATS = ["map", "flow", "reduce", "following"]


@pytest.fixture
def _survives(launcher: Mpiexec) -> None:
    if not launcher.fault_tolerant:
        pytest.skip("this MPI ends a job that loses a rank")


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4])
def test_equal_to_inline(mpiexec: Job, n_ranks: int) -> None:
    done = mpiexec(n_ranks, PROGRAM, str(n_ranks))
    assert (done.returncode, done.stdout, done.stderr) == (0, "all equal\n", "")


@pytest.mark.usefixtures("_survives")
@pytest.mark.parametrize("what", WHATS)
@pytest.mark.parametrize(("n_ranks", "killed"), [(2, "1"), (3, "2"), (4, "1,3"), (4, "1,2,3")])
def test_killed_workers(mpiexec: Job, what: str, n_ranks: int, killed: str) -> None:
    done = mpiexec(n_ranks, LOSS_PROGRAM, what, "KILL", killed)
    lines = done.stdout.splitlines()
    n = len(killed.split(","))
    assert (done.returncode, lines[-1]) == (0, f"all equal {n} lost"), done.stderr
    assert sorted(line.split(" on ")[0] for line in lines[:-1]) == [
        f"warning: process {rank}" for rank in killed.split(",")
    ]
    assert all("was lost; its work goes to the others" in line for line in lines[:-1])


@pytest.mark.usefixtures("_survives")
def test_workers_do_not_outlive_rank_0(mpiexec: Job) -> None:
    done = mpiexec(3, LOSS_PROGRAM, "map", "KILL", "0")
    assert done.returncode != 0
    assert done.stdout == ""


@pytest.mark.parametrize("what", WHATS)
def test_stopped_worker(mpiexec: Job, what: str) -> None:
    """A rank is suspended for good; the others do its work when its lease has run out."""
    done = mpiexec(3, LOSS_PROGRAM, what, "STOP", "1", MPIDVC_LEASE="3")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "all equal 1 lost"), done.stderr
    assert "process 1 on" in done.stdout
    assert "does not answer" in done.stdout


@pytest.mark.parametrize("what", ["map", "flow", "following"])
@pytest.mark.parametrize("ranks", ["0", "1", "1,2", "0,1,2"])
def test_stop_request_of_some_ranks(mpiexec: Job, what: str, ranks: str) -> None:
    """Every rank gets `Stopped`; the results so far have reached rank 0 and are right."""
    done = mpiexec(3, LOSS_PROGRAM, what, "USR1", ranks)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped 0 lost\n", "")


@pytest.mark.parametrize("late", ["0", "1", "2"])
def test_ready_before_the_others(mpiexec: Job, late: str) -> None:
    """A worker that is ready to end while another still takes the last broadcast is not forgotten."""
    done = mpiexec(3, FAREWELL_PROGRAM, late)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_serial_is_inline() -> None:
    assert isinstance(make_executor(SerialCommunicator()), InlineExecutor)


def simulate(costs: list[float], size: int) -> float:
    """Play a schedule with these costs; return how long the slowest rank worked."""
    schedule = Schedule(len(costs), size)
    ranks = range(0 if size < SCHEDULER_ONLY_FROM else 1, size)
    queues: dict[int, list[range]] = {rank: [] for rank in ranks}
    free = dict.fromkeys(ranks, 0.0)
    seen: list[int] = []

    def refill(rank: int) -> None:
        while len(queues[rank]) < (2 if rank else 1) and (chunks := schedule.take(rank, len(queues[rank]))) is not None:
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
            # An idle rank waits for the next result.
            if not queues[other]:
                free[other] = max(free[other], now)
        schedule.finished(chunks, seconds)
    assert schedule.exhausted
    assert seen == list(range(len(costs)))
    return max(free.values())


@pytest.mark.parametrize("size", [2, 4, 64])
def test_schedule_balances_uneven_chunks(size: int) -> None:
    # Air, ordinary chunks and a diverging region at the end of the image.
    costs = [0.0] * 2000 + [0.1] * 4000 + [1.0] * 400
    workers = size if size < SCHEDULER_ONLY_FROM else size - 1
    assert simulate(costs, size) < 1.1 * sum(costs) / workers + 2


def test_schedule_keeps_no_reserve_at_the_end() -> None:
    schedule = Schedule(5, 4)
    assert [schedule.take(1, 0), schedule.take(1, 1), schedule.take(1, 2)] == [range(1), range(1, 2), None]
    assert [schedule.take(2, 0), schedule.take(2, 1)] == [range(2, 3), None]


class Pool:
    """A feed whose ready pieces the test sets."""

    def __init__(self, ready: int, exhausted: bool = False) -> None:
        self.ready = ready
        self.exhausted = exhausted

    def take(self, most: int) -> range:
        assert 0 < most <= self.ready
        self.ready -= most
        return range(most)

    def finished(self, batch: range, result: None) -> None: ...


def test_flow_batches_are_a_share_of_what_is_ready_and_short() -> None:
    pool = Pool(10_000)
    schedule: FlowSchedule[range, None] = FlowSchedule(pool, 4)
    first = schedule.take(1, 0)
    assert first == range(1)
    schedule.finished(first, LONGEST_BATCH / 100)
    assert len(schedule.take(1, 0) or ()) == 100
    pool.ready = 80
    assert [len(schedule.take(rank, 0) or ()) for rank in (0, 2, 3)] == [10, 8, 7]


def test_flow_gives_a_reserve_only_if_there_is_enough_for_all() -> None:
    pool = Pool(3)
    schedule: FlowSchedule[range, None] = FlowSchedule(pool, 2)
    assert schedule.take(1, 0) == range(1)
    assert schedule.take(1, 1) == range(1)
    assert schedule.take(1, 2) is None
    assert pool.ready == 1
    schedule.finished(range(1), 1.0)
    schedule.finished(range(1), 1.0)
    # the last one is for rank 0, which waits for it otherwise
    assert schedule.take(1, 0) is None
    assert schedule.take(0, 0) == range(1)
    assert schedule.take(0, 0) is None
    pool.ready = 2
    schedule = FlowSchedule(pool, 3)
    assert schedule.take(1, 0) == range(1)
    pool.ready = 2
    assert schedule.take(1, 1) is None
    assert schedule.take(2, 0) == range(1)


def test_rank_0_of_many_only_schedules_a_flow() -> None:
    schedule: FlowSchedule[range, None] = FlowSchedule(Pool(1), SCHEDULER_ONLY_FROM)
    assert schedule.take(0, 0) is None
    assert schedule.take(7, 0) == range(1)


def test_flow_that_is_stuck_ends() -> None:
    with pytest.raises(RuntimeError, match="ready"):
        InlineExecutor().flow(len, Pool(0))
    schedule: FlowSchedule[range, None] = FlowSchedule(Pool(2), 2)
    assert schedule.take(1, 0) is not None
    assert schedule.take(0, 0) is not None
    assert schedule.take(0, 0) is None
    for _ in range(2):
        schedule.finished(range(1), 0.0)
    with pytest.raises(RuntimeError, match="ready"):
        schedule.take(0, 0)


def test_following_that_is_stuck_ends() -> None:
    class Nothing:
        n_chunks = 2

        def run(self, chunk: int) -> None: ...

    with pytest.raises(RuntimeError, match="ready"):
        InlineExecutor().map(Nothing(), None, None, Following(len, Pool(0)))
    schedule = Followed(Schedule(2, 2), Pool(0))
    given = schedule.take(1, 0)
    assert given == range(1)
    assert schedule.take(0, 0) == range(1, 2)
    assert schedule.take(0, 0) is None
    for _ in range(2):
        schedule.finished(range(1), 0.0)
    with pytest.raises(RuntimeError, match="ready"):
        schedule.take(0, 0)


def test_what_waits_to_be_sent_is_looked_at_a_few_at_a_time(mpiexec: Job) -> None:
    done = mpiexec(2, MAILBOX_PROGRAM)
    assert (done.returncode, done.stdout, done.stderr) == (0, "bounded\n", "")
