"""The compiled formatter gives byte for byte what Python's % gives."""

import locale

import numpy as np
import pytest

from mpidvc.kernels import text

RANDOM = np.random.default_rng(20)
POWERS = 10.0 ** np.arange(-323, 309)
VALUES = {
    "normal": RANDOM.normal(size=40_000),
    "magnitudes": RANDOM.normal(size=40_000) * 10.0 ** RANDOM.integers(-25, 25, 40_000),
    "any bits": np.frombuffer(RANDOM.bytes(8 * 20_000)),
    "halves of the last digit": (RANDOM.integers(0, 10**9, 20_000) + 0.5) * 1e-7,
    "exact ties": (2 * RANDOM.integers(0, 2**30, 20_000) + 1) / 2.0**8,
    "exact ties of %e": (2 * RANDOM.integers(10**7, 10**8, 20_000) + 1) / 2.0 ** RANDOM.integers(38, 60, 20_000),
    "halves of the last digit of %e": (RANDOM.integers(10**7, 10**8, 20_000) + 0.5)
    / 10.0 ** RANDOM.integers(11, 23, 20_000),
    "fractions of large numbers": RANDOM.integers(1, 2**53, 20_000) / 2.0 ** RANDOM.integers(1, 20, 20_000),
    "powers of ten": np.concatenate([POWERS, np.nextafter(POWERS, 0), np.nextafter(POWERS, np.inf)]),
    "about one digit more": np.concatenate(
        [(10.0**k - 5e-8) * (1 + np.arange(-4, 5) * 2.0**-52) for k in range(-3, 14)]
    ),
    "powers of two": 2.0 ** np.arange(-1074, 1024),
    "counters": np.arange(3000.0),
    "special": np.array(
        [
            *(
                0,
                5e-8,
                1.5e-7,
                1e-3,
                9.9999999e-4,
                9.99999995e-4,
                0.99999995,
                0.999999949999,
                9.99999995,
                np.inf,
                np.nan,
            ),
            *(5e-324, 2.2250738585072014e-308, 1.7976931348623157e308),
            *(2.0**39, 2.0**39 - 2.0**-14, 2.0**-49, 2.0**53, 2.0**63, 2.0**64),
        ]
    ),
}


def expected(value: float) -> str:
    return ("%.7e" if 0 < abs(value) < 1e-3 else "%.7f") % value


@pytest.mark.parametrize("kind", VALUES)
def test_equals_python(kind):
    values = np.concatenate([VALUES[kind], -VALUES[kind]])
    lines = text.format_columns([values]).decode("ascii").split("\n")
    assert lines.pop() == ""
    assert lines == [expected(value) for value in values.tolist()]
    lengths = [text.columns_length([values[k : k + 1]]) for k in range(len(values))]
    assert lengths == [len(line) + 1 for line in lines]
    assert text.columns_length([values]) == sum(lengths)


def test_length_of_numbers_of_all_kinds_beside_each_other():
    values = np.concatenate([*VALUES.values(), -VALUES["special"], np.full(3, -np.nan)])
    values = np.random.default_rng(3).permutation(values)[: 5 * (len(values) // 5)]
    columns = values.reshape(-1, 5).T
    assert text.columns_length(columns) == len(text.format_columns(columns))
    for n in range(130):
        assert text.columns_length([values[:n]]) == sum(len(expected(value)) + 1 for value in values[:n].tolist())


def test_layout():
    table = np.array([[1, -0.0, np.nan], [np.inf, -np.inf, -1e-5]])
    assert text.format_columns(table.T) == b"1.0000000\t-0.0000000\tnan\ninf\t-inf\t-1.0000000e-05\n"
    assert text.format_columns(table[:1].T, b", ", b"    ") == b"    1.0000000, -0.0000000, nan\n"
    assert text.format_columns(np.zeros((3, 0))) == b""
    assert text.columns_length(table.T) == len(text.format_columns(table.T))
    assert text.columns_length(table[:0].T) == 0
    assert text.format_columns([]) == b""


def test_rows_that_are_longer_than_usual():
    table = np.full((50, 20), -1.7976931348623157e308)
    row = "\t".join([expected(table[0, 0])] * 20) + "\n"
    assert text.format_columns(table.T).decode() == row * 50


def test_wrong_tables_are_refused():
    with pytest.raises(ValueError, match="dtype"):
        text.format_columns([np.zeros(2, "f4")])
    with pytest.raises(ValueError, match="dimensions"):
        text.format_columns([np.zeros((2, 2))])
    for count in (text.format_columns, text.columns_length):
        with pytest.raises(ValueError, match="columns of 2 and 3"):
            count([np.zeros(2), np.zeros(3)])


def test_columns_of_any_steps():
    """Parts of records, of a table from its end, and one number for all rows."""
    records = np.zeros(3, [("a", "i1"), ("b", "f8")])
    records["b"] = 1, -2, 3e-5
    columns = [records["b"], np.arange(6.0)[::-2], np.broadcast_to(7.5, 3)]
    told = text.format_columns(columns)
    assert told == b"".join(
        b"%s\t%d.0000000\t7.5000000\n" % row for row in ((b"1.0000000", 5), (b"-2.0000000", 3), (b"3.0000000e-05", 1))
    )
    assert text.columns_length(columns) == len(told)


def test_read_only_tables():
    table = np.ones((1, 1))
    table.flags.writeable = False
    assert text.format_columns(table) == b"1.0000000\n"


def test_locale_is_not_asked():
    before = locale.setlocale(locale.LC_NUMERIC)
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "de_DE"):
        try:
            locale.setlocale(locale.LC_NUMERIC, name)
            break
        except locale.Error:
            continue
    else:
        pytest.skip("no locale with a decimal comma is installed")
    try:
        assert text.format_columns(np.array([[1.5], [1.5e-30], [1.5e300]])).startswith(
            b"1.5000000\t1.5000000e-30\t1500000000"
        )
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)
