# cython: boundscheck=False, wraparound=False, cdivision=True
"""Means of neighbouring deformation functions, weighted by inverse distance."""

from libc.math cimport NAN, sqrt
from libc.stdint cimport int64_t

import numpy as np

include "lists.pxi"


cdef void _check(const int64_t[::1] start, const int64_t[::1] found, const double[:, ::1] sources,
                 const double[:, ::1] targets) except *:
    if sources.shape[1] != 3 or targets.shape[1] != 3:
        raise ValueError("positions and targets have to be of shape (n, 3)")
    check_lists(targets.shape[0], start, found, sources.shape[0])


def inverse_distance(start, found, positions, phi, targets):
    """Take the mean of the neighbours' Phi at each target, weighted by 1 / (distance + 1e-6).

    Each of the 12 components is taken as it stands: a displacement is not carried along by F. Sums run in the order of
    the neighbours.

    Parameters
    ----------
    start : (m + 1,) int64
        The neighbours of target j are ``found[start[j]:start[j + 1]]``.
    found : (k,) int64
        Rows of `positions` and `phi`.
    positions : (n, 3) float64
        z, y, x of the sources.
    phi : (n, 4, 4) float64
        Deformation functions of the sources.
    targets : (m, 3) float64
        z, y, x.

    Returns
    -------
    (m, 4, 4) float64
        The means; the upper 12 components are nan where a target has no neighbour.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    IndexError
        If there is no such source.
    """
    cdef const int64_t[::1] begins = np.ascontiguousarray(start, dtype=np.int64)
    cdef const int64_t[::1] listed = np.ascontiguousarray(found, dtype=np.int64)
    cdef const double[:, ::1] sources = np.ascontiguousarray(positions, dtype=np.float64)
    cdef const double[:, :, ::1] functions = np.ascontiguousarray(phi, dtype=np.float64)
    cdef const double[:, ::1] places = np.ascontiguousarray(targets, dtype=np.float64)
    _check(begins, listed, sources, places)
    if functions.shape[0] != sources.shape[0] or functions.shape[1] != 4 or functions.shape[2] != 4:
        raise ValueError("phi has to be of shape (n, 4, 4), for as many points as positions")
    cdef Py_ssize_t m = places.shape[0], target, source, i, row, column
    cdef double dz, dy, dx, weight, total
    means = np.zeros((m, 4, 4))
    cdef double[:, :, ::1] mean = means
    with nogil:
        for target in range(m):
            mean[target, 3, 3] = 1
            total = 0
            for i in range(begins[target], begins[target + 1]):
                source = listed[i]
                dz = places[target, 0] - sources[source, 0]
                dy = places[target, 1] - sources[source, 1]
                dx = places[target, 2] - sources[source, 2]
                weight = 1 / (sqrt(dz * dz + dy * dy + dx * dx) + 1e-6)
                total += weight
                for row in range(3):
                    for column in range(4):
                        mean[target, row, column] += weight * functions[source, row, column]
            for row in range(3):
                for column in range(4):
                    if total > 0:
                        mean[target, row, column] /= total
                    else:
                        mean[target, row, column] = NAN
    return means


def surrounded(start, found, positions, targets):
    """Tell for each target whether it is in the box around its neighbours, faces included.

    Parameters
    ----------
    start, found, positions, targets
        As for `inverse_distance`.

    Returns
    -------
    (m,) bool
        False where a target has no neighbour.
    """
    cdef const int64_t[::1] begins = np.ascontiguousarray(start, dtype=np.int64)
    cdef const int64_t[::1] listed = np.ascontiguousarray(found, dtype=np.int64)
    cdef const double[:, ::1] sources = np.ascontiguousarray(positions, dtype=np.float64)
    cdef const double[:, ::1] places = np.ascontiguousarray(targets, dtype=np.float64)
    _check(begins, listed, sources, places)
    cdef Py_ssize_t m = places.shape[0], target, i, axis
    cdef bint below, above, inside
    flags = np.zeros(m, np.uint8)
    cdef unsigned char[::1] flag = flags
    with nogil:
        for target in range(m):
            inside = True
            for axis in range(3):
                below = above = False
                for i in range(begins[target], begins[target + 1]):
                    below = below or sources[listed[i], axis] <= places[target, axis]
                    above = above or sources[listed[i], axis] >= places[target, axis]
                inside = inside and below and above
            flag[target] = inside
    return flags.view(np.bool_)
