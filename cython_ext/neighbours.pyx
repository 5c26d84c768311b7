# cython: boundscheck=False, wraparound=False
"""Neighbours of points: within a radius, or the nearest one."""

from libc.stdint cimport int64_t
from libcpp.vector cimport vector

import numpy as np


cdef extern from "point_tree.hpp" namespace "point_tree" nogil:
    cdef cppclass Tree:
        void build(const double *points, int64_t n) except +
        void within(const double *centre, double square_radius, int64_t before, vector[int64_t]& found) except +
        void walk(double radius, int64_t *ranked) except +


cdef class Points:
    """Points in space, ready for searches of neighbours.

    Parameters
    ----------
    positions : (n, 3) float64
        z, y, x; finite.

    Raises
    ------
    ValueError
        If a position is not finite.
    """

    cdef Tree tree
    cdef const double[:, ::1] positions

    def __init__(self, positions):
        self.positions = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
        if not np.isfinite(self.positions).all():
            raise ValueError("positions have to be finite")
        cdef int64_t n = self.positions.shape[0]
        if n > 0:
            with nogil:
                self.tree.build(&self.positions[0, 0], n)

    def earlier(self, const int64_t[::1] points, const double[::1] radii, int64_t most):
        """Find the neighbours within a radius that have a lower index.

        Parameters
        ----------
        points : (m,) int64
            Indices of the points whose neighbours are asked for.
        radii : (m,) float64
            Radius for each of them.
        most : int
            The search ends once more neighbours than this are found.

        Returns
        -------
        start : (k + 1,) int64
            For the first k of the points: k = m, or less if the search ended early, but at least 1.
        found : (start[k],) int64
            Indices of neighbours; those of point j are ``found[start[j]:start[j + 1]]``, ascending.

        Raises
        ------
        IndexError
            If there is no such point.
        """
        cdef Py_ssize_t m = points.shape[0], k = 0, j
        if radii.shape[0] != m:
            raise ValueError("points and radii have to be of one length")
        if m and (np.min(points) < 0 or np.max(points) >= self.positions.shape[0]):
            raise IndexError("there is no such point")
        start = np.zeros(m + 1, np.int64)
        cdef int64_t[::1] ends = start
        cdef vector[int64_t] found
        with nogil:
            while k < m and <int64_t> found.size() <= most:
                self.tree.within(&self.positions[points[k], 0], radii[k] * radii[k], points[k], found)
                k += 1
                ends[k] = found.size()
        listed = np.empty(found.size(), np.int64)
        cdef int64_t[::1] target = listed
        for j in range(<Py_ssize_t> found.size()):
            target[j] = found[j]
        return start[:k + 1], listed

    def within(self, centres, radii):
        """Find the points at most a radius from each centre.

        Parameters
        ----------
        centres : (m, 3) float64
            z, y, x.
        radii : float or (m,) float64

        Returns
        -------
        start : (m + 1,) int64
        found : (start[m],) int64
            Indices of points; those of centre j are ``found[start[j]:start[j + 1]]``, ascending.
        """
        cdef const double[:, ::1] places = np.ascontiguousarray(centres, dtype=np.float64).reshape(-1, 3)
        cdef Py_ssize_t m = places.shape[0], j
        cdef int64_t n = self.positions.shape[0]
        cdef const double[::1] radius = np.ascontiguousarray(np.broadcast_to(np.asarray(radii, np.float64), m))
        start = np.zeros(m + 1, np.int64)
        cdef int64_t[::1] ends = start
        cdef vector[int64_t] found
        if n > 0:
            with nogil:
                for j in range(m):
                    self.tree.within(&places[j, 0], radius[j] * radius[j], n, found)
                    ends[j + 1] = found.size()
        listed = np.empty(found.size(), np.int64)
        cdef int64_t[::1] target = listed
        for j in range(<Py_ssize_t> found.size()):
            target[j] = found[j]
        return start, listed


def walk(positions, double radius):
    """Order points along a walk that begins at the first one.

    For every point of the order, in turn, its neighbours within `radius` that are not yet in the order are appended by
    ascending index; if it has none, the nearest point that is not yet in the order (of equally near ones the one with
    the lowest index).

    Parameters
    ----------
    positions : (n, 3) float64
    radius : float

    Returns
    -------
    (n,) int64
        Indices of the points in the order of the walk.
    """
    points = Points(positions)
    cdef Points near = points
    order = np.empty(near.positions.shape[0], np.int64)
    cdef int64_t[::1] ranked = order
    if order.size:
        with nogil:
            near.tree.walk(radius, &ranked[0])
    return order
