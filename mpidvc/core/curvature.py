"""Curvature of a displacement field: its Laplacian, from quadratic polynomials fitted to neighbours."""

from __future__ import annotations

import numpy as np

from mpidvc.arrays import Array, Ints

__all__ = ["FEWEST", "SIGNIFICANT", "curvatures"]

#: Neighbours that a fit needs at least: three for a coefficient, in 3D and in 2D.
FEWEST = {False: 28, True: 17}
#: A Laplacian of fewer standard errors than this is none.
SIGNIFICANT = 3.0


def curvatures(positions: Array, displacements: Array, at: Array, start: Ints, found: Ints, two_d: bool) -> Array:
    """Largest component of the Laplacian of the displacement at some places.

    Noise of the field has a Laplacian, too: one that its standard error explains counts as 0. The error follows from
    the residual of the fit.

    Parameters
    ----------
    positions, displacements : (n, 3) float64
        Of a field, voxels.
    at : (m, 3) float64
        Places, voxels.
    start, found : (m + 1,), (start[m],) int64
        Neighbours of place j: ``found[start[j]:start[j + 1]]``.
    two_d : bool

    Returns
    -------
    (m,) float64
        1/voxel; nan where neighbours are too few. Along axes where they do not tell a curvature there is none.
    """
    counts = np.diff(start)
    curved = np.full(len(at), np.nan)
    places = np.flatnonzero(counts >= FEWEST[two_d])
    if len(places) == 0:
        return curved
    axes = [1, 2] if two_d else [0, 1, 2]
    among = np.repeat(counts >= FEWEST[two_d], counts)
    points, of = found[among], np.repeat(np.arange(len(places)), counts[places])
    first = np.cumsum(counts[places]) - counts[places]
    x = (positions[points] - at[places][of])[:, axes]
    # in units of their extent
    unit = np.sqrt(np.maximum(np.add.reduceat(x**2, first, axis=0) / counts[places, None], 1e-12))
    x = x / unit[of]
    pairs = [(i, k) for i in range(len(axes)) for k in range(i, len(axes))]
    X = np.column_stack([np.ones(len(x)), x, *(x[:, i] * x[:, k] for i, k in pairs)])
    u = displacements[points][:, axes]
    n = X.shape[1]
    M = np.add.reduceat((X[:, :, None] * X[:, None, :]).reshape(len(X), -1), first, axis=0).reshape(-1, n, n)
    b = np.add.reduceat((X[:, :, None] * u[:, None, :]).reshape(len(X), -1), first, axis=0).reshape(len(M), n, -1)
    # what the neighbours do not determine, as along an axis with two layers of them, is linear, or constant
    least = np.where(np.arange(n) > len(axes), 1e-7, 1e-12)
    inverse = np.linalg.inv(M + counts[places, None, None] * np.diag(least))
    fit = inverse @ b
    squares = np.add.reduceat((u - np.einsum("pi,pij->pj", X, fit[of])) ** 2, first, axis=0)
    # d²/dx² of c x² is 2 c
    taps = np.zeros((len(M), n))
    for i in range(len(axes)):
        taps[:, 1 + len(axes) + pairs.index((i, i))] = 2 / unit[:, i] ** 2
    laplacian = np.abs(np.einsum("pi,pij->pj", taps, fit))
    shares = np.einsum("pi,pij,pj->p", taps, inverse @ M @ inverse, taps)
    spread = squares / (counts[places, None] - n) * shares[:, None]
    laplacian[laplacian <= SIGNIFICANT * np.sqrt(np.maximum(spread, 0))] = 0
    curved[places] = laplacian.max(axis=1)
    return curved
