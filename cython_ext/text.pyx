# cython: boundscheck=False, wraparound=False
"""Columns of numbers as text."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "number_text.hpp" namespace "number_text" nogil:
    cppclass Column:
        const char *first
        ptrdiff_t step

    string rows(const vector[Column]& columns, size_t n, const string& prefix, const string& separator) except +
    size_t rows_length(const vector[Column]& columns, size_t n)


cdef size_t places_of(object columns, vector[Column]& found) except? 0:
    """Places of columns, and their number of rows; the arrays have to stay."""
    cdef const double[:] values
    cdef Column place
    cdef size_t n = 0
    for column in columns:
        values = column
        if found.empty():
            n = values.shape[0]
        elif n != <size_t> values.shape[0]:
            raise ValueError(f"columns of {n} and {values.shape[0]} numbers make no table")
        place.first = <const char *> &values[0] if n else NULL
        place.step = values.strides[0]
        found.push_back(place)
    return n


def columns_length(columns):
    """Number of bytes of the text of columns as `format_columns` makes it, at a fraction of the cost.

    Parameters
    ----------
    columns : sequence of (n,) float64 arrays

    Returns
    -------
    int
    """
    cdef vector[Column] places
    cdef size_t n = places_of(columns, places), total
    with nogil:
        total = rows_length(places, n)
    return total


def format_columns(columns, bytes separator=b"\t", bytes prefix=b""):
    """Format columns of numbers, one line per row.

    Parameters
    ----------
    columns : sequence of (n,) float64 arrays
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
    cdef vector[Column] places
    cdef size_t n = places_of(columns, places)
    cdef string before = prefix, between = separator, text
    if n == 0:
        return b""
    with nogil:
        text = rows(places, n, before, between)
    return PyBytes_FromStringAndSize(text.data(), text.size())
