"""Groups of columns of a table's rows, against numpy's indices."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.kernels.records import take_groups

GROUPS = [[7, 5], [3], [], [0, 0, 8, 1, 4, 2]]


@pytest.mark.parametrize("rows", [[4, 0, 0, 3], [2], []])
def test_rows_in_any_order(rows: list[int]) -> None:
    table = np.random.default_rng(1).normal(size=(5, 9))
    table[2, 3] = np.nan
    table.flags.writeable = False
    found = take_groups(table, np.array(rows, np.int64), GROUPS)
    assert len(found) == len(GROUPS)
    for group, taken in zip(GROUPS, found, strict=True):
        assert taken.shape == (len(rows), len(group))
        np.testing.assert_array_equal(taken, table[np.array(rows, int)][:, np.array(group, int)])


@pytest.mark.parametrize(
    ("rows", "groups", "told"),
    [([0, 5], [[0]], "5 rows"), ([-1], [[0]], "5 rows"), ([0], [[0], [9]], "number 9"), ([0], [[-1]], "number -1")],
)
def test_what_the_table_lacks(rows: list[int], groups: list[list[int]], told: str) -> None:
    with pytest.raises(IndexError, match=told):
        take_groups(np.zeros((5, 9)), np.array(rows), groups)


def test_tables_without_columns_or_rows() -> None:
    assert [part.shape for part in take_groups(np.zeros((3, 0)), np.array([1]), [[], []])] == [(1, 0), (1, 0)]
    assert take_groups(np.zeros((0, 4)), np.zeros(0, np.int64), [[1, 2]])[0].shape == (0, 2)
