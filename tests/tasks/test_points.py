"""Points as tasks take them."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.fields.phifield import PhiField
from mpidvc.tasks.points import INPUT, inputs_of, record_of, rows_as_records, windows_of
from tests.tasks.given import scattered


@pytest.mark.parametrize("rows", [3, 4])
def test_inputs(rows: int) -> None:
    """Position and the first three rows of Phi, whatever is below them."""
    random = np.random.default_rng(1)
    positions, phi = random.normal(size=(5, 3)), random.normal(size=(5, rows, 4))
    inputs = inputs_of(positions, phi)
    assert inputs.dtype == INPUT
    np.testing.assert_array_equal(inputs["position"], positions)
    np.testing.assert_array_equal(inputs["phi"], phi[:, :3])
    # the journal stores rows as 15 doubles without gaps
    np.testing.assert_array_equal(
        inputs.view(np.float64).reshape(5, 15), np.concatenate([positions, phi[:, :3].reshape(5, 12)], axis=1)
    )


def test_no_points() -> None:
    assert inputs_of(np.zeros((0, 3)), np.zeros((0, 4, 4))).shape == (0,)


def test_rows_of_a_field_as_they_are() -> None:
    """Columns that the field lacks are 0, and nan if spam does not have them either."""
    positions, phi = scattered((20, 20, 20), 9)
    error = np.arange(9.0) + 0.5
    field = PhiField(positions, phi, {"error": error, "zncc": error / 10, "other": error})
    columns = ("returnStatus", "error", "coverage", "zncc", "outlier")
    rows = np.array([7, 2, 2, 0])
    records = rows_as_records(field, rows, columns)
    assert records.dtype == record_of(columns)
    np.testing.assert_array_equal(records["phi"], phi[rows, :3])
    expected = np.stack([np.zeros(4), error[rows], np.full(4, np.nan), error[rows] / 10, np.full(4, np.nan)], axis=1)
    np.testing.assert_array_equal(records["result"], expected)
    nothing = rows_as_records(None, rows, columns)
    assert not nothing["phi"].any()
    np.testing.assert_array_equal(nothing["result"], np.tile([0, 0, np.nan, np.nan, np.nan], (4, 1)))


@pytest.mark.parametrize("rows", [[], [4], [2, 3, 4, 5], [0, 2, 4, 6], [3, 4, 7], [3, 5, 6], [5, 4, 3], [6, 7, 8]])
def test_any_rows_of_a_field(rows: list[int]) -> None:
    """Those that follow each other are copied at once; all others are looked up."""
    positions, phi = scattered((20, 20, 20), 9)
    error = np.arange(9.0) + 0.5
    records = rows_as_records(PhiField(positions, phi, {"error": error}), np.array(rows, np.int64), ("error",))
    assert records["result"][:, 0].tolist() == [row + 0.5 for row in rows]
    assert records["phi"].tolist() == [phi[row, :3].tolist() for row in rows]


def test_windows_of_points() -> None:
    """Of 2 h - 1 voxels along the axes that count; where no window was chosen it is the largest."""
    positions, phi = scattered((20, 20, 20), 3)
    field = PhiField(positions, phi, {"halfWindowSize": np.array([4.0, np.nan, 6.0])})
    np.testing.assert_array_equal(windows_of(field, (15, 15, 15)), [[7] * 3, [15] * 3, [11] * 3])
    np.testing.assert_array_equal(windows_of(field, (1, 15, 15)), [[1, 7, 7], [1, 15, 15], [1, 11, 11]])
    np.testing.assert_array_equal(windows_of(PhiField(positions, phi), (9, 11, 13)), [9, 11, 13])
