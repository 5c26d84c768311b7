"""Chunks of the simulation that are like those of a real run; `tests/benchmarks/test_scaling.py` has the rest."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.runtime.simulation import Case, Costs, chunk_costs, simulate


def test_chunks_are_those_of_the_sample() -> None:
    costs = chunk_costs(20_000, 3.0, False, 1, (1.0, 2.0, 6.0))
    assert costs.mean() == pytest.approx(3.0)
    values, counts = np.unique(costs.round(9), return_counts=True)
    np.testing.assert_allclose(values / values[0], [1, 2, 6])
    assert counts.min() > 0.28 * len(costs)


@pytest.mark.parametrize("sample", [(5.0,), (0.0,), (0.0, 0.0)])
def test_a_single_chunk_costs_the_mean(sample: tuple[float, ...]) -> None:
    assert chunk_costs(1, 0.7, False, 3, sample).tolist() == [pytest.approx(0.7)]


def test_a_run_of_the_sample_has_its_work() -> None:
    outcome = simulate(Case(4, 10.0, 0.5, sample=(1.0, 3.0)), Costs())
    assert outcome.work == pytest.approx(40.0)
    assert outcome.seconds >= 10.0
    assert (outcome.times_done == 1).all()
