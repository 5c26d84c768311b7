"""Return statuses are counted, and rows that stand for a large field are read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mpidvc.fields.hdf5 import ResultsFile, write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.workflow import summary
from mpidvc.workflow.summary import count_statuses, spread, values_at


@pytest.mark.parametrize("among", [[2], [2, 1, -1, -3, -5, 1.5, np.nan, np.inf], [-1, -7], [1]])
def test_statuses_are_counted_in_their_order(among: list[float]) -> None:
    values = np.random.default_rng(1).choice(among, 999)
    expected = Counter(f"{value:g}" for value in np.sort(values).tolist())
    assert list(count_statuses(values).items()) == list(expected.items())


def test_no_status() -> None:
    assert count_statuses(np.zeros(0)) == {}


def test_pieces_that_stand_for_a_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "MOST_JUDGED", 60)
    monkeypatch.setattr(summary, "PIECES", 6)
    dims = (5, 6, 7)
    nodes = np.stack(np.meshgrid(*map(np.arange, dims), indexing="ij"), -1).reshape(-1, 3).astype(float)
    columns = {name: np.random.default_rng(k).normal(size=len(nodes)) for k, name in enumerate(("error", "zncc"))}
    phi = np.tile(np.eye(4), (len(nodes), 1, 1))
    write_hdf5(tmp_path / "a.h5", PhiField(nodes, phi, {**columns}, "grid", dims, (1.0, 1.0, 1.0)))
    ranges = spread(len(nodes))
    assert ranges == [(start, start + 10) for start in (0, 40, 80, 120, 160, 200)]
    rows = np.concatenate([np.arange(*one) for one in ranges])
    with ResultsFile(tmp_path / "a.h5") as results:
        error, zncc = values_at(results, ranges, "error", "zncc")
    np.testing.assert_array_equal(error, columns["error"][rows])
    np.testing.assert_array_equal(zncc, columns["zncc"][rows])
    assert spread(60) == [(0, 60)]
