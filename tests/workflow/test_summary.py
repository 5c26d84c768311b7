"""Return statuses are counted, and rows that stand for a large field are read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mpidvc.fields.hdf5 import ResultsFile, write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.workflow import summary
from mpidvc.workflow.summary import MOST_JUDGED, PIECES, count_statuses, pieces, spread, values_at


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
    # of six parts of 35 rows, 25 of which can be the first one of a piece: k 35 + 25 frac(0.618 k)
    assert ranges == [(start, start + 10) for start in (0, 50, 75, 126, 151, 177)]
    rows = np.concatenate([np.arange(*one) for one in ranges])
    with ResultsFile(tmp_path / "a.h5") as results:
        error, zncc = values_at(results, ranges, "error", "zncc")
    np.testing.assert_array_equal(error, columns["error"][rows])
    np.testing.assert_array_equal(zncc, columns["zncc"][rows])
    assert spread(60) == [(0, 60)]


@pytest.mark.parametrize("n", [2**18 + 1, 2**18 + 255, 2**18 + 256, 2**19 + 3, 12_345_678, 10**9, 10**12])
def test_no_row_stands_for_all_twice(n: int) -> None:
    ends = np.array(spread(n))
    assert ends.shape == (PIECES, 2)
    assert (ends[:, 1] - ends[:, 0] == MOST_JUDGED // PIECES).all()
    assert ends[0, 0] >= 0
    assert (ends[1:, 0] >= ends[:-1, 1]).all()
    assert ends[-1, 1] <= n


@pytest.mark.parametrize("lines", [255, 256, 1020, 1024, 4080, 4096, 5000])
@pytest.mark.parametrize("nx", [2500, 4096, 10_000])
def test_every_part_of_a_line_is_met(lines: int, nx: int) -> None:
    """However the number of lines and that of the pieces fit together: each tenth of x gets some of its share.

    With 256 lines each has one piece, which is nearer to its middle than to its ends.
    """
    along = np.concatenate([np.arange(*one) for one in spread(lines * nx)]) % nx
    shares = np.bincount(along * 10 // nx, minlength=10) / len(along)
    assert shares.min() > (0.015 if lines == PIECES else 0.08)
    assert shares.max() < (0.2 if lines == PIECES else 0.12)


def test_pieces_make_up_all_rows() -> None:
    assert list(pieces(0)) == []
    assert list(pieces(MOST_JUDGED)) == [(0, MOST_JUDGED)]
    assert list(pieces(MOST_JUDGED + 5)) == [(0, MOST_JUDGED), (MOST_JUDGED, MOST_JUDGED + 5)]
