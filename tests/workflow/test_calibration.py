"""Sampled chunks: which are run, for how long, and what follows for all of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mpidvc.fields.hdf5 import FieldLayout
from mpidvc.tasks.points import record_of
from mpidvc.workflow import calibration
from mpidvc.workflow.calibration import FEWEST, SampledPoints, Sampling, time_chunks
from mpidvc.workflow.guess import Nodes
from mpidvc.workflow.work import Work

COLUMNS = ("error", "returnStatus")


def work_of(sizes: list[int]) -> Work:
    n = sum(sizes)
    positions = np.arange(3.0 * n).reshape(n, 3)
    nodes = Nodes(FieldLayout(n, "points"), (1.0, 1.0, 1.0), positions)
    return Work(
        determines={},
        nodes=nodes,
        columns=COLUMNS,
        record=record_of(COLUMNS),
        order=np.arange(n)[::-1].copy(),
        starts=np.concatenate([[0], np.cumsum(sizes)]),
    )


class Slow:
    """Chunks that take a second for a point, by a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, points: SampledPoints | None = None) -> None:
        self.now, self.run_of, self.points = 0.0, [], points
        monkeypatch.setattr(calibration.time, "process_time", lambda: self.now)

    def run(self, chunk: int) -> Any:
        n = len(self.points.inputs(chunk)) if self.points is not None else 1
        self.now += n
        self.run_of.append(chunk)
        records = np.zeros(n, record_of(COLUMNS))
        records["result"][:, 1] = 2 - 3 * (chunk == 0)
        return records


def test_the_budget_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    found = list(time_chunks(slow.run, 1000, 10.5))
    assert [seconds for _, seconds, _ in found] == [1.0] * 11
    chunks = [chunk for chunk, _, _ in found]
    # the first one is run once before it counts
    assert slow.run_of == [chunks[0], *chunks]
    assert max(b - a for a, b in pairwise(sorted(chunks))) < 200


@pytest.mark.parametrize(("n", "expected"), [(100, FEWEST), (2, 2), (0, 0)])
def test_some_chunks_are_run_however_long_they_take(monkeypatch: pytest.MonkeyPatch, n: int, expected: int) -> None:
    assert len(list(time_chunks(Slow(monkeypatch).run, n, 0.1))) == expected


def test_sampled_points_are_those_of_the_blocks() -> None:
    work = work_of([3, 5, 2])
    points = SampledPoints(work, 4)
    assert (points.n_blocks, len(points)) == (3, 10)
    np.testing.assert_array_equal(points.inputs(1)["position"], work.positions[[6, 5, 4, 3]])
    np.testing.assert_array_equal(points.inputs(2)["position"], work.positions[[1, 0]])


@pytest.mark.parametrize("most", [2**62, 2])
def test_cost_of_all_points_follows(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    work = work_of([3, 5, 2] * 20)
    sampling = Sampling(work, 12.0, most)
    slow = Slow(monkeypatch, sampling.journal)  # type: ignore[arg-type]
    sampling.sample(slow.run, 60, lambda chunk: int(np.diff(work.starts)[chunk]))
    cost = sampling.cost
    assert cost.seconds == pytest.approx(200.0)
    assert cost.chunks == 60
    assert set(cost.sample) <= {3.0, 5.0, 2.0}
    assert 12 < cost.points < 20
    assert sum(cost.statuses.values()) == cost.points
    assert set(cost.statuses) <= {"2", "-1"}
