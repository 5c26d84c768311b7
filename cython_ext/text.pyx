# cython: boundscheck=False, wraparound=False
"""Tables of numbers as text."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libcpp.string cimport string


cdef extern from "number_text.hpp" nogil:
    string rows "number_text::rows"(
        const double *values, size_t n, size_t columns, const string& prefix, const string& separator
    ) except +
    size_t length_of "number_text::rows_length"(const double *values, size_t n, size_t columns)


def rows_length(const double[:, ::1] table):
    """Number of bytes of a table's text as `format_rows` makes it, at a fraction of the cost.

    Parameters
    ----------
    table : (n, k) C-contiguous array of float64

    Returns
    -------
    int
    """
    cdef size_t n = table.shape[0], columns = table.shape[1], total
    if n == 0 or columns == 0:
        return 0
    with nogil:
        total = length_of(&table[0, 0], n, columns)
    return total


def format_rows(const double[:, ::1] table, bytes separator=b"\t", bytes prefix=b""):
    """Format a table of numbers, one line per row.

    Parameters
    ----------
    table : (n, k) C-contiguous array of float64
    separator : bytes
        Between two numbers of a row.
    prefix : bytes
        Before each row.

    Returns
    -------
    bytes
        Numbers as Python's ``'%.7f'``, or ``'%.7e'`` where 0 < |v| < 1e-3; ``nan``, ``inf``, ``-inf``.
        Every row ends with a line feed.
    """
    cdef size_t n = table.shape[0], columns = table.shape[1]
    cdef string before = prefix, between = separator, text
    if n == 0 or columns == 0:
        return b""
    with nogil:
        text = rows(&table[0, 0], n, columns, before, between)
    return PyBytes_FromStringAndSize(text.data(), text.size())
