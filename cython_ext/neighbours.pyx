# cython: boundscheck=False, wraparound=False
"""Neighbours of points: within a radius, or the nearest ones."""

from libc.stdint cimport int64_t, uint8_t
from libcpp.vector cimport vector

import numpy as np


cdef extern from "point_tree.hpp" namespace "point_tree" nogil:
    cdef cppclass Node:
        pass

    cdef cppclass Candidate:
        pass

    cdef cppclass Tree:
        void build(const double *points, int64_t n) except +
        void view(const double *points, const int64_t *order, int64_t n, const Node *nodes, int64_t n_nodes)
        const int64_t *order()
        const Node *nodes()
        int64_t n_nodes()
        void nearest(
            const double *centre, int64_t count, vector[Candidate]& heap, int64_t *found, const uint8_t *usable
        ) except +
        void within(
            const double *centre, double square_radius, int64_t before, vector[int64_t]& found, const uint8_t *usable
        ) except +
        void walk(double radius, int64_t *ranked) except +


cdef extern from "point_grid.hpp" namespace "point_grid" nogil:
    cdef cppclass Grid:
        bint hold(const double *points, int64_t n, const int64_t *dims) except +
        bint held()
        void within(
            const double *centre, double square_radius, vector[int64_t]& found, size_t& count, const uint8_t *usable
        ) except +


cdef class Points:
    """Points in space, ready for searches of neighbours.

    Parameters
    ----------
    positions : (n, 3) float64
        z, y, x; finite.
    tree : (order, nodes), optional
        The `tree` of the same points, made before, which is not copied; it is made when it is needed otherwise.
    dims : tuple of 3 ints, optional
        Nodes along z, y, x of a grid. Where the points are its nodes, those within a radius are found without a tree.

    Raises
    ------
    ValueError
        If a position is not finite.
    """

    cdef Tree own
    cdef Grid grid
    cdef const double[:, ::1] positions
    cdef const int64_t[::1] order
    cdef const unsigned char[::1] nodes

    def __init__(self, positions, tree=None, dims=None):
        self.positions = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
        if not np.isfinite(self.positions).all():
            raise ValueError("positions have to be finite")
        cdef int64_t n = self.positions.shape[0]
        cdef int64_t[::1] nodes
        if n > 0 and dims is not None:
            nodes = np.array(dims, np.int64)
            self.grid.hold(&self.positions[0, 0], n, &nodes[0])
        if n > 0 and tree is not None:
            self.order, self.nodes = tree
            if self.order.shape[0] != n or self.nodes.shape[0] % sizeof(Node) or not self.nodes.shape[0]:
                raise ValueError("the tree is not one of these points")
            self.own.view(
                &self.positions[0, 0],
                &self.order[0],
                n,
                <const Node *> &self.nodes[0],
                self.nodes.shape[0] // sizeof(Node),
            )

    cdef void plant(self):
        """Make the tree, unless it is there."""
        cdef int64_t n = self.positions.shape[0]
        if n > 0 and self.own.n_nodes() == 0:
            with nogil:
                self.own.build(&self.positions[0, 0], n)

    @property
    def tree(self):
        """The tree as two arrays, to be used by other processes: copies of the points' order (n,) and of its nodes."""
        cdef int64_t n = self.positions.shape[0], size
        if n == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.uint8)
        self.plant()
        size = self.own.n_nodes() * <int64_t> sizeof(Node)
        order = <const int64_t[:n]> self.own.order()
        nodes = <const unsigned char[:size]> <const unsigned char *> self.own.nodes()
        return np.array(order), np.array(nodes)

    def _centres(self, centres):
        cdef const double[:, ::1] asked = np.ascontiguousarray(centres, dtype=np.float64).reshape(-1, 3)
        if not np.isfinite(asked).all():
            raise ValueError("centres have to be finite")
        return asked

    def _usable(self, usable):
        """Marks of the points that may be found, None for all of them, and their number."""
        if usable is None:
            return None, self.positions.shape[0]
        marks = np.ascontiguousarray(usable, dtype=np.bool_).view(np.uint8)
        if marks.shape != (self.positions.shape[0],):
            raise ValueError("usable has to tell of every point")
        return marks, np.count_nonzero(marks)

    def within(self, centres, radius, usable=None, int64_t fewest=0, int64_t most=-1):
        """Find the points at most a radius away from each centre.

        Parameters
        ----------
        centres : (m, 3) float64
        radius : float, or (m,) float64
            Above 0 where `fewest` is.
        usable : (n,) bool, optional
            Points that may be found; all by default.
        fewest : int
            The radius of a centre is doubled until it has so many points, or all that may be found.
        most : int
            The search ends once more points than this are found; -1: it does not.

        Returns
        -------
        start : (k + 1,) int64
            For the first k of the centres: k = m, or less if the search ended early, but at least 1.
        found : (start[k],) int64
            Indices of the points of centre j: ``found[start[j]:start[j + 1]]``, ascending.

        Raises
        ------
        ValueError
            If a centre is not finite, or the arrays do not fit each other.
        """
        cdef const double[:, ::1] asked = self._centres(centres)
        cdef Py_ssize_t m = asked.shape[0], k = 0, before
        cdef const double[::1] radii = np.ascontiguousarray(np.broadcast_to(np.asarray(radius, np.float64), (m,)))
        cdef int64_t n = self.positions.shape[0], enough
        cdef const uint8_t[::1] marks
        cdef const uint8_t *mark = NULL
        marks, enough = self._usable(usable)
        if marks is not None and n:
            mark = &marks[0]
        enough = min(enough, fewest)
        if enough > 0 and m and not np.min(radii) > 0:
            raise ValueError("a radius of 0 cannot be doubled")
        start = np.zeros(m + 1, np.int64)
        cdef int64_t[::1] ends = start
        cdef vector[int64_t] found
        # of what is found; on a grid there is room after it
        cdef size_t count = 0
        cdef double reach
        cdef bint gridded = self.grid.held()
        if not gridded:
            self.plant()
        with nogil:
            while k < m and (most < 0 or <int64_t> count <= most):
                before = count
                reach = radii[k]
                while True:
                    if gridded:
                        self.grid.within(&asked[k, 0], reach * reach, found, count, mark)
                    else:
                        self.own.within(&asked[k, 0], reach * reach, n, found, mark)
                        count = found.size()
                    if <int64_t> count - before >= enough:
                        break
                    count = before
                    if not gridded:
                        found.resize(before)
                    reach = 2 * reach
                k += 1
                ends[k] = count
            found.resize(count)
        return start[:k + 1], _listed(found)

    def nearest(self, centres, int64_t number, usable=None):
        """Find the nearest points of each centre.

        Parameters
        ----------
        centres : (m, 3) float64
        number : int
            Of points for each; all of them if there are fewer.
        usable : (n,) bool, optional
            Points that may be found; all by default.

        Returns
        -------
        (m, min(number, n)) int64
            Their indices by distance, and of equally near points by index; n is the number of usable points.

        Raises
        ------
        ValueError
            If a centre is not finite, or the arrays do not fit each other.
        """
        cdef const double[:, ::1] asked = self._centres(centres)
        cdef Py_ssize_t m = asked.shape[0], k
        cdef int64_t n = self.positions.shape[0], count
        cdef const uint8_t[::1] marks
        cdef const uint8_t *mark = NULL
        marks, count = self._usable(usable)
        if marks is not None and n:
            mark = &marks[0]
        count = max(0, min(number, count))
        indices = np.empty((m, count), np.int64)
        cdef int64_t[:, ::1] found = indices
        cdef vector[Candidate] heap
        self.plant()
        if count:
            with nogil:
                for k in range(m):
                    self.own.nearest(&asked[k, 0], count, heap, &found[k, 0], mark)
        return indices

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
        cdef Py_ssize_t m = points.shape[0], k = 0
        if radii.shape[0] != m:
            raise ValueError("points and radii have to be of one length")
        if m and (np.min(points) < 0 or np.max(points) >= self.positions.shape[0]):
            raise IndexError("there is no such point")
        start = np.zeros(m + 1, np.int64)
        cdef int64_t[::1] ends = start
        cdef vector[int64_t] found
        self.plant()
        with nogil:
            while k < m and <int64_t> found.size() <= most:
                self.own.within(&self.positions[points[k], 0], radii[k] * radii[k], points[k], found, NULL)
                k += 1
                ends[k] = found.size()
        return start[:k + 1], _listed(found)


cdef object _listed(vector[int64_t]& found):
    """A copy as an array."""
    cdef int64_t n = found.size()
    return np.array(<int64_t[:n]> found.data()) if n else np.zeros(0, np.int64)


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
    near.plant()
    order = np.empty(near.positions.shape[0], np.int64)
    cdef int64_t[::1] ranked = order
    if order.size:
        with nogil:
            near.own.walk(radius, &ranked[0])
    return order
