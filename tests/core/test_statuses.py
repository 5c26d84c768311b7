"""Return statuses: the numbers of spam's documentation, each with a name of its own."""

from __future__ import annotations

import pytest

from mpidvc.core.statuses import CORRELATION, SEARCH, Status

#: Numbers of spam 0.9.1's correlations and searches that a row can have here; -6 is given by its ddic only.
NUMBERS = {"correlation": {2, 1, 0, -1, -2, -3, -4, -5, -7}, "search": {1, -5, -7}}


@pytest.mark.parametrize(("table", "kind"), [(CORRELATION, "correlation"), (SEARCH, "search")])
def test_numbers_and_names(table: dict[int, Status], kind: str) -> None:
    assert set(table) == NUMBERS[kind]
    names = [status.name for status in table.values()]
    assert len(set(names)) == len(names)
    assert list(table) == sorted(table, reverse=True)
    assert all(status.meaning and "\n" not in status.meaning for status in table.values())


def test_both_kinds_call_the_same_number_the_same() -> None:
    for number in (-5, -7):
        assert CORRELATION[number].name == SEARCH[number].name
