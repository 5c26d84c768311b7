# cython: boundscheck=False, wraparound=False
"""Numbers of records, which lie beside each other, apart."""

from libc.stdint cimport int64_t
from libcpp.vector cimport vector

import numpy as np

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define MPIDVC_FETCH(place) __builtin_prefetch(place)
    #else
    #define MPIDVC_FETCH(place)
    #endif
    """
    void fetch "MPIDVC_FETCH"(const double *) nogil

__all__ = ["take_groups"]

# rows that are fetched ahead, as no processor guesses their places
cdef enum:
    AHEAD = 16

cdef struct Move:
    # where the number of the next row goes, how far the rows are apart there, and its column in the table
    double *to
    Py_ssize_t step, column


def take_groups(const double[:, ::1] table not None, const int64_t[::1] rows not None, groups):
    """Take rows of a table, each group of their columns for itself.

    Parameters
    ----------
    table : (n, m) float64
    rows : (k,) int64
        In any order.
    groups : sequence of sequences of int
        Columns of the table, in any order.

    Returns
    -------
    list of (k, len(group)) float64
        ``table[rows][:, group]`` for each group.

    Raises
    ------
    IndexError
        If the table lacks a row or a column.
    """
    cdef vector[Move] moves
    cdef Move move
    cdef Py_ssize_t n = table.shape[0], m = table.shape[1], k, j, count
    cdef double[:, ::1] out
    cdef const double *source
    cdef bint inside = True
    with nogil:
        for k in range(rows.shape[0]):
            inside &= 0 <= rows[k] < n
    if not inside:
        raise IndexError(f"the table has {n} rows, of which these are not all")
    found = [np.empty((rows.shape[0], len(group))) for group in groups]
    for group, made in zip(groups, found, strict=True):
        out = made
        for k, column in enumerate(group):
            if not 0 <= column < m:
                raise IndexError(f"the table has {m} columns, and none with the number {column}")
            move.to, move.step, move.column = &out[0, 0] + k if rows.shape[0] else NULL, len(group), column
            moves.push_back(move)
    count = <Py_ssize_t> moves.size()
    with nogil:
        for k in range(rows.shape[0] if m else 0):
            if k + AHEAD < rows.shape[0]:
                for j in range(0, m, 8):
                    fetch(&table[rows[k + AHEAD], j])
            source = &table[rows[k], 0]
            for j in range(count):
                moves[j].to[0] = source[moves[j].column]
                moves[j].to += moves[j].step
    return found
