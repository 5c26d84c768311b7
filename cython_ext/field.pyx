# cython: boundscheck=False, wraparound=False
"""Points of a field judged by their neighbours, and restored from them."""

from libc.stdint cimport int8_t, int64_t, uint8_t

import numpy as np

include "lists.pxi"

__all__ = ["around", "coherency", "fit", "medians", "residuals"]


cdef extern from "field.hpp" namespace "field" nogil:
    struct Field:
        const double *positions
        const double *phi
        int64_t pitch

    struct Grid:
        int64_t nodes[3]

    void coherencies(
        const Field& field, const int64_t *points, int64_t n, const int64_t *start, const int64_t *found, double *out
    ) except +
    void fits(
        const Field& field, const double *at, int64_t n, const int64_t *start, const int64_t *found, double *out,
        int8_t *order
    ) except +
    void fill_residuals "field::residuals"(
        const Field& field, const int64_t *points, int64_t n, const int64_t *start, const int64_t *found,
        const uint8_t *usable, double epsilon, int64_t fewest, double *out
    ) except +
    int64_t fill_around "field::around"(
        const Grid& grid, const int64_t *reach, const int64_t *points, int64_t n, int64_t *start, int64_t *found
    ) except +
    void all_medians "field::medians<12>"(
        const Field& field, const Grid& grid, const uint8_t *usable, int64_t radius, const int64_t *points, int64_t n,
        double *out
    ) except +
    void displacement_medians "field::medians<3>"(
        const Field& field, const Grid& grid, const uint8_t *usable, int64_t radius, const int64_t *points, int64_t n,
        double *out
    ) except +


cdef Field field_of(const double[:, ::1] positions, const double[:, :, ::1] phi) except *:
    """The field with these positions (n, 3) and Phi (n, 3 or 4, 4)."""
    cdef Field field
    if positions.shape[1] != 3 or phi.shape[1] not in (3, 4) or phi.shape[2] != 4:
        raise ValueError("positions have to be (n, 3), and phi (n, 3, 4) or (n, 4, 4)")
    if positions.shape[0] != phi.shape[0] or phi.shape[0] == 0:
        raise ValueError(f"{positions.shape[0]} positions for {phi.shape[0]} Phi")
    field.positions, field.phi, field.pitch = &positions[0, 0], &phi[0, 0, 0], 4 * phi.shape[1]
    return field


cdef Grid grid_of(dims, int64_t n) except *:
    """The grid of `n` nodes with so many along z, y, x."""
    cdef Grid grid
    nz, ny, nx = dims
    if min(nz, ny, nx) < 1 or nz * ny * nx != n:
        raise ValueError(f"a grid of {nz} x {ny} x {nx} nodes has not {n}")
    grid.nodes[0], grid.nodes[1], grid.nodes[2] = nz, ny, nx
    return grid


def coherency(
    const double[:, ::1] positions, const double[:, :, ::1] phi, const int64_t[::1] points, const int64_t[::1] start,
    const int64_t[::1] found
):
    """Local quadratic coherency of displacements: see `mpidvc.core.local_fit.coherency`.

    Parameters
    ----------
    positions : (n, 3) float64
    phi : (n, 3 or 4, 4) float64
    points : (m,) int64
    start : (m + 1,) int64
    found : (start[m],) int64
        Neighbours of point j, itself among them: ``found[start[j]:start[j + 1]]``.

    Returns
    -------
    (m,) float64
        nan where the neighbours determine no quadratic polynomial.
    """
    cdef Field field = field_of(positions, phi)
    cdef int64_t m = points.shape[0]
    check_points(points, positions.shape[0])
    check_lists(m, start, found, positions.shape[0])
    result = np.full(m, np.nan)
    cdef double[::1] out = result
    if m and found.shape[0]:
        with nogil:
            coherencies(field, &points[0], m, &start[0], &found[0], &out[0])
    return result


def fit(
    const double[:, ::1] positions, const double[:, :, ::1] phi, const double[:, ::1] at, const int64_t[::1] start,
    const int64_t[::1] found
):
    """Displacements at places by a quadratic fit to those of neighbours: see `mpidvc.core.local_fit.fitted`.

    Parameters
    ----------
    positions : (n, 3) float64
    phi : (n, 3 or 4, 4) float64
    at : (m, 3) float64
    start : (m + 1,) int64
    found : (start[m],) int64

    Returns
    -------
    displacements : (m, 3) float64
        nan where there is none.
    order : (m,) int8
        2 for a quadratic polynomial, 1 for a linear one, where the neighbours determine no quadratic one, 0 for none.
    """
    cdef Field field = field_of(positions, phi)
    cdef int64_t m = at.shape[0]
    if at.shape[1] != 3:
        raise ValueError("places have to be (m, 3)")
    check_lists(m, start, found, positions.shape[0])
    result, orders = np.full((m, 3), np.nan), np.zeros(m, np.int8)
    cdef double[:, ::1] out = result
    cdef int8_t[::1] order = orders
    if m and found.shape[0]:
        with nogil:
            fits(field, &at[0, 0], m, &start[0], &found[0], &out[0, 0], &order[0])
    return result, orders


def residuals(
    const double[:, ::1] positions, const double[:, :, ::1] phi, const int64_t[::1] points, const int64_t[::1] start,
    const int64_t[::1] found, const uint8_t[::1] usable, double epsilon, int64_t fewest
):
    """Normalised residuals against the predictions of neighbours: see `mpidvc.core.outliers.residuals`.

    Parameters
    ----------
    positions : (n, 3) float64
    phi : (n, 3 or 4, 4) float64
    points : (m,) int64
    start : (m + 1,) int64
    found : (start[m],) int64
    usable : (n,) uint8
        Not 0 for points that may be neighbours.
    epsilon : float
        Voxels.
    fewest : int
        Usable neighbours that a point needs.

    Returns
    -------
    (m,) float64
        nan where there are too few neighbours.
    """
    cdef Field field = field_of(positions, phi)
    cdef int64_t m = points.shape[0]
    check_points(points, positions.shape[0])
    check_lists(m, start, found, positions.shape[0])
    if usable.shape[0] != positions.shape[0]:
        raise ValueError("usable has to tell of every point")
    result = np.full(m, np.nan)
    cdef double[::1] out = result
    if m and found.shape[0]:
        with nogil:
            fill_residuals(
                field, &points[0], m, &start[0], &found[0], &usable[0], epsilon, max(fewest, 1), &out[0]
            )
    return result


def around(dims, reach, const int64_t[::1] points):
    """Nodes in the block around each of these nodes of a grid, without the node itself.

    Parameters
    ----------
    dims : 3 ints
        Nodes along z, y, x.
    reach : 3 ints
        Nodes from the middle of the block to its sides.
    points : (m,) int64

    Returns
    -------
    start : (m + 1,) int64
    found : (start[m],) int64
        Ascending for every node.
    """
    cdef Grid grid = grid_of(dims, dims[0] * dims[1] * dims[2])
    cdef int64_t m = points.shape[0], count
    cdef int64_t[3] wide
    wide[0], wide[1], wide[2] = reach
    check_points(points, dims[0] * dims[1] * dims[2])
    most = np.minimum(2 * np.array(reach, np.int64) + 1, dims).prod()
    starts, listed = np.zeros(m + 1, np.int64), np.zeros(m * most, np.int64)
    cdef int64_t[::1] start = starts, found = listed
    if m == 0:
        return starts, listed
    with nogil:
        count = fill_around(grid, &wide[0], &points[0], m, &start[0], &found[0])
    return starts, listed[:count].copy()


def medians(
    const double[:, ::1] positions, const double[:, :, ::1] phi, dims, const uint8_t[::1] usable, int64_t radius,
    const int64_t[::1] points, bint displacements_only=False
):
    """Medians of Phi over the cubes around nodes of a grid; beyond the border the grid is reflected.

    Parameters
    ----------
    positions : (n, 3) float64
    phi : (n, 3 or 4, 4) float64
    dims : 3 ints
    usable : (n,) uint8
        0 for nodes that are left out. Components that are not finite are, too.
    radius : int
        Nodes from the middle of the cube to its sides.
    points : (m,) int64
    displacements_only : bool

    Returns
    -------
    (m, 3, 4) float64, or (m, 3)
        Median of every component of Phi, or of the displacement; nan where no node has a finite one.
    """
    cdef Field field = field_of(positions, phi)
    cdef Grid grid = grid_of(dims, positions.shape[0])
    cdef int64_t m = points.shape[0]
    check_points(points, positions.shape[0])
    if usable.shape[0] != positions.shape[0] or radius < 0:
        raise ValueError("usable has to tell of every node, and the radius may not be negative")
    result = np.empty([m, 3] if displacements_only else [m, 3, 4])
    cdef double[::1] out = result.reshape(-1)
    if m and displacements_only:
        with nogil:
            displacement_medians(field, grid, &usable[0], radius, &points[0], m, &out[0])
    elif m:
        with nogil:
            all_medians(field, grid, &usable[0], radius, &points[0], m, &out[0])
    return result
