# cython: boundscheck=False, wraparound=False, cdivision=True
"""Deformation gradients: least squares on neighbours, and their stretches and rotations."""

from libc.math cimport fabs, fmax, fmin, isfinite, sqrt
from libc.stdint cimport int64_t

import numpy as np

include "lists.pxi"

cdef enum:
    #: Sweeps of Jacobi rotations: they converge quadratically, so that five or six are enough.
    SWEEPS = 30

#: Smallest determinant of the neighbours' scatter, each axis divided by its own spread: below it they lie in a plane.
cdef double FLAT = 1e-10


cdef bint decompose(const double *f, double *rotation, double *u, double *stretches, double *directions) noexcept nogil:
    """Decompose one F (row by row); False if its determinant is not above 0.

    One-sided Jacobi rotations V make the columns of F V orthogonal: their lengths are the stretches, and F = R V S V^T.
    """
    cdef double a[3][3]
    cdef double v[3][3]
    cdef double length[3]
    cdef int order[3]
    cdef double scale = 0, det, alpha, beta, gamma, zeta, t, c, s, x, y
    cdef int i, j, k, p, q, _sweep
    cdef bint turned
    for k in range(9):
        if not isfinite(f[k]):
            return False
        scale = max(scale, fabs(f[k]))
    if scale == 0:
        return False
    # a[k] is column k
    for i in range(3):
        for k in range(3):
            a[k][i] = f[3 * i + k] / scale
            v[k][i] = i == k
    det = (
        a[0][0] * (a[1][1] * a[2][2] - a[1][2] * a[2][1])
        - a[1][0] * (a[0][1] * a[2][2] - a[0][2] * a[2][1])
        + a[2][0] * (a[0][1] * a[1][2] - a[0][2] * a[1][1])
    )
    if not det > 0:
        return False
    for _sweep in range(SWEEPS):
        turned = False
        for k in range(3):
            p, q = k, (k + 1) % 3
            alpha = a[p][0] * a[p][0] + a[p][1] * a[p][1] + a[p][2] * a[p][2]
            beta = a[q][0] * a[q][0] + a[q][1] * a[q][1] + a[q][2] * a[q][2]
            gamma = a[p][0] * a[q][0] + a[p][1] * a[q][1] + a[p][2] * a[q][2]
            if not fabs(gamma) > 2.3e-16 * sqrt(alpha * beta):
                continue
            turned = True
            zeta = (beta - alpha) / (2 * gamma)
            t = (1.0 if zeta >= 0 else -1.0) / (fabs(zeta) + sqrt(1 + zeta * zeta))
            c = 1 / sqrt(1 + t * t)
            s = c * t
            for i in range(3):
                x, y = a[p][i], a[q][i]
                a[p][i], a[q][i] = c * x - s * y, s * x + c * y
                x, y = v[p][i], v[q][i]
                v[p][i], v[q][i] = c * x - s * y, s * x + c * y
        if not turned:
            break
    for k in range(3):
        length[k] = sqrt(a[k][0] * a[k][0] + a[k][1] * a[k][1] + a[k][2] * a[k][2])
        order[k] = k
    for i in range(2):
        for k in range(2 - i):
            if length[order[k]] > length[order[k + 1]]:
                order[k], order[k + 1] = order[k + 1], order[k]
    p, q, k = order[0], (order[0] + 1) % 3, (order[0] + 2) % 3
    if not length[order[1]] > 0:
        return False
    for i in range(3):
        a[q][i] /= length[q]
        a[k][i] /= length[k]
    # the shortest column knows its direction least; R has no reflection
    for i in range(3):
        a[p][i] = a[q][(i + 1) % 3] * a[k][(i + 2) % 3] - a[q][(i + 2) % 3] * a[k][(i + 1) % 3]
    for i in range(3):
        stretches[i] = length[order[i]] * scale
        for j in range(3):
            rotation[3 * i + j] = u[3 * i + j] = 0
            directions[3 * i + j] = v[order[j]][i]
            for k in range(3):
                rotation[3 * i + j] += a[k][i] * v[k][j]
                u[3 * i + j] += (v[k][i] * v[k][j]) * (length[k] * scale)
    return True


def polar(gradients):
    """Decompose F = R U, right for equal stretches too.

    Parameters
    ----------
    gradients : (n, 3, 3) float64
        F.

    Returns
    -------
    rotation, stretch : (n, 3, 3) float64
        R and the symmetric U.
    stretches : (n, 3) float64
        Eigenvalues of U, ascending.
    directions : (n, 3, 3) float64
        Their directions in image 1, in columns; a rotation or a rotation with a reflection.

    All are nan where F is not finite or its determinant is not above 0.

    Notes
    -----
    One-sided Jacobi method (Hestenes 1958, doi 10.1137/0106005).
    """
    cdef const double[:, :, ::1] f = np.ascontiguousarray(gradients, np.float64).reshape(-1, 3, 3)
    cdef Py_ssize_t n = f.shape[0], k
    rotation, stretch, directions = np.empty((3, n, 3, 3))
    stretches = np.empty((n, 3))
    cdef double[:, :, ::1] r = rotation
    cdef double[:, :, ::1] u = stretch
    cdef double[:, :, ::1] d = directions
    cdef double[:, ::1] s = stretches
    cdef double nan = np.nan
    with nogil:
        for k in range(n):
            if not decompose(&f[k, 0, 0], &r[k, 0, 0], &u[k, 0, 0], &s[k, 0], &d[k, 0, 0]):
                r[k, :, :] = nan
                u[k, :, :] = nan
                d[k, :, :] = nan
                s[k, :] = nan
    return rotation, stretch, stretches, directions


cdef double adjugate(double[3][3] scatter, bint flat, double* spread, double[3][3] inverse) noexcept nogil:
    """Adjugate of a scatter matrix that is scaled by its spreads, and the determinant; 0 where a spread is 0.

    Of points in a plane z = constant the rows along z become those of the identity.
    """
    cdef int i, j, first = 1 if flat else 0
    for i in range(3):
        spread[i] = sqrt(scatter[i][i])
        if i >= first and not spread[i] > 0:
            return 0
    if flat:
        spread[0] = 1
        for i in range(3):
            scatter[0][i] = scatter[i][0] = i == 0
    for i in range(3):
        for j in range(3):
            scatter[i][j] /= spread[i] * spread[j]
    for i in range(3):
        for j in range(3):
            inverse[i][j] = (
                scatter[(i + 1) % 3][(j + 1) % 3] * scatter[(i + 2) % 3][(j + 2) % 3]
                - scatter[(i + 1) % 3][(j + 2) % 3] * scatter[(i + 2) % 3][(j + 1) % 3]
            )
    return scatter[0][0] * inverse[0][0] + scatter[0][1] * inverse[0][1] + scatter[0][2] * inverse[0][2]


cdef int64_t fit(
    const double *centre,
    const double[:, ::1] positions,
    const double[:, :] displacements,
    const int64_t *found,
    int64_t n,
    bint flat,
    double *gradient,
    double *moved,
) noexcept nogil:
    """Fit u = t + G (x - c) at one centre; return the number of points that took part, 0 if they do not determine G."""
    cdef double mean[6]
    cdef double scatter[3][3]
    cdef double mixed[3][3]
    cdef double inverse[3][3]
    cdef double spread[3]
    cdef double d[6]
    cdef double det
    cdef int64_t count = 0, k, point, base = -1
    cdef int i, j, m, first = 1 if flat else 0
    for i in range(6):
        mean[i] = 0
    for i in range(3):
        for j in range(3):
            scatter[i][j] = mixed[i][j] = inverse[i][j] = 0
    for k in range(n):
        point = found[k]
        if base < 0:
            base = point
        count += 1
        for i in range(3):
            mean[i] += positions[point, i] - centre[i]
            mean[3 + i] += displacements[point, i] - displacements[base, i]
    if count < 4 - first:
        return 0
    for i in range(6):
        mean[i] /= count
    for k in range(n):
        point = found[k]
        for i in range(3):
            d[i] = positions[point, i] - centre[i] - mean[i]
            d[3 + i] = displacements[point, i] - displacements[base, i] - mean[3 + i]
        for i in range(3):
            for j in range(3):
                scatter[i][j] += d[i] * d[j]
                mixed[i][j] += d[3 + i] * d[j]
    det = adjugate(scatter, flat, spread, inverse)
    if not det > FLAT:
        return 0
    for i in range(3):
        if flat:
            mixed[i][0] = 0
        moved[i] = displacements[base, i] + mean[3 + i]
        for j in range(3):
            gradient[3 * i + j] = 0
            for m in range(3):
                gradient[3 * i + j] += mixed[i][m] / spread[m] * inverse[m][j]
            gradient[3 * i + j] /= det * spread[j]
            moved[i] -= gradient[3 * i + j] * mean[j]
    return count


def fit_gradients(centres, positions, displacements, start, found, bint flat):
    """Fit a displacement that is linear in the position to the neighbours of points, by least squares.

    Parameters
    ----------
    centres : (m, 3) float64
        z, y, x in voxels.
    positions, displacements : (n, 3) float64
        Of all points, in voxels; finite.
    start : (m + 1,) int64
    found : (start[m],) int64
        Indices of the neighbours; those of centre j are ``found[start[j]:start[j + 1]]``.
    flat : bool
        Whether the points lie in a plane z = constant: derivatives along z, and of z, are 0 then.

    Returns
    -------
    gradient : (m, 3, 3) float64
        Derivative of displacement component i (row) along j (column); nan where the points do not determine it.
    displacement : (m, 3) float64
        Of the fit at the centre, voxels; nan as well.
    count : (m,) int64
        Number of points that took part, 0 where they do not determine the gradient: fewer than 4 (3 if `flat`), or
        all in a plane (on a line).

    Raises
    ------
    IndexError
        If there is no such point.
    ValueError
        If the arrays do not fit each other.
    """
    cdef const double[:, ::1] c = np.ascontiguousarray(centres, np.float64).reshape(-1, 3)
    cdef const double[:, ::1] x = np.ascontiguousarray(positions, np.float64).reshape(-1, 3)
    # a part of Phi, of which a copy would be as large as the field
    cdef const double[:, :] u = np.asarray(displacements, np.float64).reshape(-1, 3)
    cdef const int64_t[::1] ends = np.ascontiguousarray(start, np.int64)
    cdef const int64_t[::1] points = np.ascontiguousarray(found, np.int64)
    cdef Py_ssize_t m = c.shape[0], j
    if x.shape[0] != u.shape[0]:
        raise ValueError("positions and displacements are not of one length")
    check_lists(m, ends, points, x.shape[0])
    gradient, moved, count = np.full((m, 3, 3), np.nan), np.full((m, 3), np.nan), np.zeros(m, np.int64)
    if points.shape[0] == 0:
        return gradient, moved, count
    cdef double[:, :, ::1] derivatives = gradient
    cdef double[:, ::1] shift = moved
    cdef int64_t[::1] number = count
    with nogil:
        for j in range(m):
            if ends[j] < ends[j + 1]:
                number[j] = fit(
                    &c[j, 0], x, u, &points[ends[j]], ends[j + 1] - ends[j], flat,
                    &derivatives[j, 0, 0], &shift[j, 0],
                )
    return gradient, moved, count


cdef void slope_weights(const double* place, const double* mean, double[3][3] inverse, double* weight) noexcept nogil:
    """What a point's displacement counts in the derivatives of a fit."""
    cdef int a, b
    for a in range(3):
        weight[a] = 0
        for b in range(3):
            weight[a] += inverse[a][b] * (place[b] - mean[b])


cdef bint fit_errors(
    const double[:, ::1] x, const double[:, ::1] error, const int64_t* found, int64_t n, const double[:, :] window,
    bint flat, double* out,
) noexcept nogil:
    """Standard deviations (3, 3) of the derivatives of a fit; false where there is no fit."""
    cdef double mean[3]
    cdef double scatter[3][3]
    cdef double inverse[3][3]
    cdef double spread[3]
    cdef double mine[3]
    cdef double other[3]
    cdef double total[9]
    cdef double det, share, voxels, one, two, common
    cdef int64_t j, k
    cdef int i, a
    for i in range(3):
        mean[i] = 0
        for a in range(3):
            scatter[i][a] = inverse[i][a] = total[3 * i + a] = 0
    if n < (3 if flat else 4):
        return False
    for k in range(n):
        for i in range(3):
            mean[i] += x[found[k], i] / n
    for k in range(n):
        for i in range(3):
            for a in range(3):
                scatter[i][a] += (x[found[k], i] - mean[i]) * (x[found[k], a] - mean[a])
    det = adjugate(scatter, flat, spread, inverse)
    if not det > FLAT:
        return False
    for i in range(3):
        for a in range(3):
            inverse[i][a] /= det * spread[i] * spread[a]
    for j in range(n):
        slope_weights(&x[found[j], 0], mean, inverse, mine)
        for k in range(j + 1):
            share, voxels = 1 if j == k else 2, 1
            for a in range(3):
                one, two = window[found[j], a], window[found[k], a]
                common = (one + two) / 2 - fabs(x[found[j], a] - x[found[k], a])
                share *= fmax(fmin(fmin(one, two), common), 0)
                voxels *= one * two
            if share == 0:
                continue
            share /= sqrt(voxels)
            slope_weights(&x[found[k], 0], mean, inverse, other)
            for i in range(3):
                for a in range(3):
                    total[3 * i + a] += share * error[found[j], i] * error[found[k], i] * mine[a] * other[a]
    for i in range(9):
        out[i] = sqrt(fmax(total[i], 0)) if total[i] == total[i] else total[i]
    return True


def fit_gradient_errors(positions, errors, start, found, window, bint flat):
    """Standard deviations of the gradients of `fit_gradients` from those of displacements whose windows overlap.

    Parameters
    ----------
    positions : (n, 3) float64
        Of all points, voxels.
    errors : (n, 3) float64
        1 standard deviation of their displacements along z, y, x; nan where it is not known.
    start, found : (m + 1,) and (start[m],) int64
        As of `fit_gradients`.
    window : (3,) or (n, 3) float
        Edges of the windows of all points, or of each, voxels: the errors of two points are correlated by what their
        windows have in common, over the root of the product of their voxels.
    flat : bool
        As of `fit_gradients`.

    Returns
    -------
    (m, 3, 3) float64
        nan where there is no fit, or a point in it whose error is not known.

    Raises
    ------
    IndexError
        If there is no such point.
    ValueError
        If the arrays do not fit each other.
    """
    cdef const double[:, ::1] x = np.ascontiguousarray(positions, np.float64).reshape(-1, 3)
    cdef const double[:, ::1] error = np.ascontiguousarray(errors, np.float64).reshape(-1, 3)
    cdef const int64_t[::1] ends = np.ascontiguousarray(start, np.int64)
    cdef const int64_t[::1] points = np.ascontiguousarray(found, np.int64)
    cdef const double[:, :] edges = np.broadcast_to(np.asarray(window, np.float64), (x.shape[0], 3))
    cdef Py_ssize_t m = ends.shape[0] - 1, j
    if x.shape[0] != error.shape[0]:
        raise ValueError("positions and errors are not of one length")
    check_lists(m, ends, points, x.shape[0])
    sigma = np.full((m, 3, 3), np.nan)
    if points.shape[0] == 0:
        return sigma
    cdef double[:, :, ::1] out = sigma
    with nogil:
        for j in range(m):
            if ends[j] < ends[j + 1]:
                fit_errors(x, error, &points[ends[j]], ends[j + 1] - ends[j], edges, flat, &out[j, 0, 0])
    return sigma
