"""The simulation behind docs/scaling.md: what must hold whatever the costs are."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpidvc.runtime.launch import find_mpiexec
from mpidvc.runtime.schedule import Lease

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import scaling  # noqa: E402
import scaling_costs  # noqa: E402

from mpidvc.runtime import simulation  # noqa: E402
from mpidvc.runtime.simulation import Case, Costs, Ending, chunk_costs, extended, simulate  # noqa: E402

COSTS = Costs(send=2e-5, message=1e-4, chunk=1e-5, write=1e-3, payload=7e4, latency=1e-5, bandwidth=1e10)


@pytest.mark.parametrize("schedule", [scaling.Schedule, scaling.Before])
@pytest.mark.parametrize("ranks", [1, 2, 5, 23, 24, 300])
def test_every_chunk_is_done_once(ranks: int, schedule: type) -> None:
    outcome = simulate(Case(ranks, 5.0, 0.2), COSTS, schedule)
    assert (outcome.times_done == 1).all()
    assert outcome.lost == 0
    assert outcome.handed == outcome.messages
    assert 0 < outcome.efficiency <= 1
    assert (
        outcome.busy
        == pytest.approx(
            outcome.messages * (COSTS.send + COSTS.message) + COSTS.chunk * len(outcome.times_done), rel=0.1
        )
        or ranks < scaling.SCHEDULER_ONLY_FROM
    )


@pytest.mark.parametrize("ranks", [2, 16, 64, 256])
def test_equal_chunks_and_free_messages_leave_nobody_idle(ranks: int) -> None:
    outcome = simulate(Case(ranks, 60.0, 0.1, even=True), Costs())
    # where ranks are many rank 0 does nothing
    workers = ranks - (ranks >= scaling.SCHEDULER_ONLY_FROM)
    assert outcome.efficiency * ranks / workers > 0.98
    assert outcome.busy == 0


def test_work_that_takes_time_takes_it() -> None:
    """Against a schedule that can be followed by hand: one worker, chunks of a second, rank 0 working too."""
    outcome = simulate(Case(2, 3.0, 1.0, even=True), Costs())
    assert outcome.seconds == pytest.approx(3.0)
    outcome = simulate(Case(1, 3.0, 1.0, even=True), replace(COSTS, write=0.5))
    assert outcome.seconds == pytest.approx(4.5)


def test_more_latency_is_never_faster() -> None:
    case = Case(64, 10.0, 0.2, even=True)
    times = [simulate(case, replace(COSTS, latency=latency)).seconds for latency in (0.0, 1e-4, 1e-2, 0.1, 1.0)]
    assert times == sorted(times)
    assert times[-1] > times[0] + 1.0


def test_a_slow_master_is_what_limits_many_ranks() -> None:
    slow = replace(COSTS, message=4e-3)
    outcome = simulate(Case(800, 3.0, 0.3), slow)
    assert outcome.load > 0.95
    assert outcome.seconds >= outcome.messages * slow.message
    assert outcome.efficiency < 0.6 * simulate(Case(800, 3.0, 0.3), COSTS).efficiency


def test_the_master_s_link_is_shared() -> None:
    case = Case(100, 10.0, 0.1)
    narrow = replace(COSTS, bandwidth=1e7)
    assert simulate(case, narrow).seconds >= case.n_chunks * narrow.payload / narrow.bandwidth
    assert simulate(case, COSTS).seconds < 30


def test_chunks_of_killed_ranks_are_done_again() -> None:
    case = Case(60, 10.0, 0.2, lost=0.3)
    outcome = simulate(case, COSTS)
    assert outcome.lost > 10
    assert (outcome.times_done == 1).all()
    assert outcome.handed > outcome.messages
    assert outcome.seconds > simulate(replace(case, lost=0.0), COSTS).seconds


def test_rank_0_finishes_alone() -> None:
    outcome = simulate(Case(4, 5.0, 0.1, lost=1.0), COSTS)
    assert outcome.lost == 3
    assert (outcome.times_done == 1).all()


def test_ranks_that_hang_cost_a_lease() -> None:
    case = Case(60, 10.0, 0.2, hung=0.05)
    lease = Lease(first=25.0, least=25.0, times=1.0, grace=3.0)
    outcome = simulate(case, COSTS, lease=lease)
    assert outcome.lost == 3
    assert (outcome.times_done == 1).all()
    assert 25 < outcome.seconds < 25 + 10 + 25
    patient = simulate(case, COSTS, lease=replace(lease, first=60.0, least=60.0))
    assert patient.seconds > outcome.seconds + 20


ENDING = Ending(chunks=2, layer=1, rows=0.5, text=0.25)


def test_what_follows_takes_its_time() -> None:
    """By hand: four chunks of a second, two pieces of two chunks, and their texts."""
    assert simulate(Case(1, 4.0, 1.0, even=True), Costs(), ending=ENDING).seconds == pytest.approx(4 + 2 * 0.75)
    # two ranks: chunks 0 and 1, then the first piece and chunk 2 ...
    outcome = simulate(Case(2, 2.0, 1.0, even=True), Costs(), ending=ENDING)
    assert (4 + 1.5) / 2 <= outcome.seconds <= 3.5
    assert (outcome.times_done == 1).all()


def test_the_text_waits_for_the_layers_before_it() -> None:
    """With one layer for all, no text is written before the last rows are, and the file system has all of it then."""
    case = Case(30, 20.0, 0.1)
    n = case.n_chunks // 10
    text = replace(ENDING, rows=0.0, text=0.0, chunks=10, text_bytes=1.0, bandwidth=n / 5)
    alone = simulate(case, Costs()).seconds
    soon, end = (simulate(case, Costs(), ending=replace(text, layer=layer)).seconds for layer in (1, n))
    assert soon < alone + 3
    assert end == pytest.approx(alone + 5, rel=0.02)


@pytest.mark.parametrize("ranks", [4, 40])
def test_the_file_system_is_shared(ranks: int) -> None:
    case = Case(ranks, 10.0, 0.1, even=True)
    moved = case.n_chunks * 1e6 + case.n_chunks / 2 * 5e6
    narrow = replace(ENDING, rows=0.0, text=0.0, chunk_bytes=1e6, rows_bytes=2e6, text_bytes=3e6, bandwidth=moved / 15)
    # few ranks wait for it together, and leave it idle together
    assert 15 <= simulate(case, Costs(), ending=narrow).seconds < 18
    assert 10 <= simulate(case, Costs(), ending=replace(narrow, bandwidth=moved / 5)).seconds < 13


def test_what_follows_is_done_again_by_others() -> None:
    case = Case(60, 10.0, 0.2, lost=0.3)
    outcome = simulate(case, COSTS, ending=ENDING)
    assert outcome.lost > 10
    assert (outcome.times_done == 1).all()


def test_a_seed_gives_one_outcome_and_another_another() -> None:
    case = Case(80, 4.0, 0.1, lost=0.05, hung=0.02)
    one, two, other = (simulate(replace(case, seed=seed), COSTS) for seed in (7, 7, 8))
    assert (one.seconds, one.messages, one.busy) == (two.seconds, two.messages, two.busy)
    assert one.seconds != other.seconds


def test_chunks_cost_from_nothing_to_ten_times_the_mean() -> None:
    costs = chunk_costs(200_000, 0.5, False, 3)
    assert costs.mean() == pytest.approx(0.5, rel=0.03)
    assert np.mean(costs == 0) == pytest.approx(simulation.AIR, abs=0.02)
    assert 8 < costs.max() / 0.5 <= 10
    # neighbours are alike
    assert np.corrcoef(costs[1:], costs[:-1])[0, 1] > 0.6


def test_a_prolonged_run_takes_about_as_long_as_the_whole() -> None:
    case = Case(64, 60.0, 0.1)
    whole, part = simulate(case, COSTS), extended(case, COSTS, 15_000)
    assert len(part.times_done) < len(whole.times_done)
    assert part.efficiency == pytest.approx(whole.efficiency, abs=0.05)


@pytest.mark.parametrize(("ranks", "gain"), [(2, -0.015), (4, -0.015), (8, -0.015), (32, 0.15), (128, 0.2)])
def test_the_schedule_is_better_than_the_first_and_no_worse_with_few_ranks(ranks: int, gain: float) -> None:
    cases = [Case(ranks, 10.0, 0.3, seed=seed) for seed in range(100, 104 + 400 // ranks)]
    before, now = (
        np.mean([simulate(case, COSTS, schedule).efficiency for case in cases])
        for schedule in (scaling.Before, scaling.Schedule)
    )
    assert now - before > gain


def test_the_costs_that_are_kept_are_complete() -> None:
    measured = json.loads(scaling.COSTS.read_text())
    for driver in scaling.DRIVERS:
        costs = scaling.costs_of(measured, driver)
        assert 0 < costs.send < costs.message < 1e-3
    assert scaling.costs_of(measured, "gather").payload > 0
    # what the report claims of the real classes
    books = measured["bookkeeping"]
    assert books["10000"]["median"] < 3 * books["8"]["median"]


@pytest.mark.skipif(find_mpiexec() is None, reason="no MPI in this environment")
def test_the_programs_of_ranks_measure(tmp_path: Path) -> None:
    told = json.loads(scaling_costs.run_ranks(2, "messages", str(tmp_path), "50"))
    assert all(0 < part < 1 for found in told["reports"].values() for part in found.values())
    assert 0 < told["record"]["posix"] < 1
    assert json.loads(scaling_costs.run_ranks(2, "sleep", "0.2", "0.02", "1"))["seconds"] > 0.1


@pytest.mark.skipif(find_mpiexec() is None, reason="no MPI in this environment")
def test_a_program_that_fails_ends_at_once() -> None:
    with pytest.raises(SystemExit, match="FileNotFoundError"):
        scaling_costs.run_ranks(2, "messages", "/nowhere/at/all")


def test_costs_of_points_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_costs, "FIELD_EDGE", 16)
    found = scaling_costs.per_point(tmp_path)
    kept = json.loads(scaling.COSTS.read_text())["points"]
    # times of so few points tell nothing; what is counted does
    assert set(found) | {"summary"} == set(kept)
    assert found["bytes of the TSV"] == pytest.approx(kept["bytes of the TSV"], rel=0.05)
    assert found["TSV"] > 0
