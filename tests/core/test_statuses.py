"""Return statuses: the numbers of spam's documentation, each with a name of its own."""

from __future__ import annotations

import pytest

from mpidvc.core.statuses import CORRELATION, LABEL_SEARCH, LABELS, PASSED, SEARCH, STRAIN, Status

#: Numbers that a row can have, by kind of result: those of spam 0.9.1, and -7; -6 is given by spam's ddic only.
NUMBERS = {
    "correlation": (CORRELATION, {2, 1, 0, -1, -2, -3, -4, -5, -7}),
    "labels": (LABELS, {2, 1, 0, -1, -2, -3, -4, -5, -7}),
    "search": (SEARCH, {1, -5, -7}),
    "label search": (LABEL_SEARCH, {1, 0, -5, -7}),
    "passed": (PASSED, {1, 0, -7}),
    "strain": (STRAIN, {2, -5}),
}
#: Words of the meaning that tell a status of one kind from that of another.
WORDS = [
    (CORRELATION, -5, "mask"),
    (CORRELATION, -7, "initial guess"),
    (LABELS, 0, "background"),
    (LABELS, -5, "-vt"),
    (LABELS, -7, "no such label"),
    (SEARCH, -5, "grey level"),
    (SEARCH, -7, "first guess"),
    (LABEL_SEARCH, -5, "-lvt"),
    (LABEL_SEARCH, -7, "no such label"),
    (PASSED, 1, "mean of neighbours"),
    (PASSED, -7, "no neighbour in the field"),
    (STRAIN, -5, "too few neighbours"),
]


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_and_names(kind: str) -> None:
    table, numbers = NUMBERS[kind]
    assert set(table) == numbers
    names = [status.name for status in table.values()]
    assert len(set(names)) == len(names)
    assert list(table) == sorted(table, reverse=True)
    assert all(status.meaning and "\n" not in status.meaning for status in table.values())


@pytest.mark.parametrize(("table", "number", "words"), WORDS)
def test_meanings(table: dict[int, Status], number: int, words: str) -> None:
    assert words in table[number].meaning


def test_both_kinds_call_the_same_number_the_same() -> None:
    for number in (-5, -7):
        assert CORRELATION[number].name == SEARCH[number].name
