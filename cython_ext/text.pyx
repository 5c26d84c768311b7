# cython: boundscheck=False, wraparound=False
"""Columns of numbers as text."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_Resize
from libcpp.string cimport string
from libcpp.vector cimport vector

__all__ = ["columns_length", "format_columns"]


cdef extern from "number_text.hpp" namespace "number_text" nogil:
    cppclass Column:
        const char *first
        ptrdiff_t step

    cppclass Rows:
        vector[Column] columns
        size_t n
        string prefix, separator
        size_t longest()
        char *write_to(char *out, const char *end, size_t& row)

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
    bytearray
        Numbers as Python's ``'%.7f'``, or ``'%.7e'`` where 0 < |v| < 1e-3; ``nan``, ``inf``, ``-inf``.
        Every row ends with a line feed.
    """
    cdef Rows rows
    cdef size_t row = 0, used = 0, size
    cdef char *out
    rows.prefix, rows.separator = prefix, separator
    rows.n = places_of(columns, rows.columns)
    # usual numbers have 9 to 14 bytes
    size = rows.n * (rows.columns.size() * (12 + rows.separator.size()) + rows.prefix.size() + 1) + rows.longest()
    # the bytes are made once: they are neither set to 0 before nor copied
    text = PyByteArray_FromStringAndSize(NULL, size)
    while row < rows.n:
        out = PyByteArray_AS_STRING(text)
        with nogil:
            used = rows.write_to(out + used, out + size, row) - out
        if row < rows.n:
            size += size // 2
            PyByteArray_Resize(text, size)
    PyByteArray_Resize(text, used)
    return text
