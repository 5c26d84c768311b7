"""Sums over windows of many sizes about points: the Cython side of ``window_sums.hpp``."""

from libc.stdint cimport int64_t, uint8_t

import numpy as np

cdef extern from "window_sums.hpp" nogil:
    enum:
        WINDOW_SUMS
        WINDOW_FRAME

    struct window_box:
        const float* f
        const float* g
        const uint8_t* usable
        const uint8_t* whole
        int64_t pitch_y
        int64_t pitch_z
        bint two_d

    bint window_shells(const window_box&, const int64_t*, int64_t, int64_t, int64_t, double*)

__all__ = ["SUMS", "shell_sums"]

#: Sums of a shell: G_i G_k for ik = zz zy zx yy yx xx, G_i K_k row by row, number of voxels, and of those with a K,
#: moments 1 z y x zz zy zx yy yx xx of G.G about the point.
SUMS = WINDOW_SUMS


cdef const uint8_t* map_of(const uint8_t[:, :, ::1] voxels, const float[:, :, ::1] box) except? NULL:
    if voxels is None:
        return NULL
    if voxels.shape[0] != box.shape[0] or voxels.shape[1] != box.shape[1] or voxels.shape[2] != box.shape[2]:
        raise ValueError("a map of voxels must have the shape of its box")
    return &voxels[0, 0, 0]


def shell_sums(
    const float[:, :, ::1] f not None, const float[:, :, ::1] g not None, const uint8_t[:, :, ::1] usable,
    const uint8_t[:, :, ::1] whole, const int64_t[:, ::1] centres not None, int64_t first, int64_t last, bint two_d
):
    """Sum products of gradients over shells of voxels around points.

    A shell holds the voxels whose distance from the point, the largest along an axis, is the same. Of shells in 3D that
    are farther than 8 voxels away every second row, that of an even z + y about the point, counts twice. G are central
    differences of `f`, K those over three voxels at either side of `g`.

    Parameters
    ----------
    f, g : (z, y, x) float32
    usable : (z, y, x) uint8 or None
        Voxels that count; None: all.
    whole : (z, y, x) uint8 or None
        Voxels whose K touches data only; at the others K is G.
    centres : (n, 3) int64
        Points in the box.
    first, last : int
        Distances of the shells, voxels.
    two_d : bool
        Shells lie in one plane; gradients along z are 0.

    Returns
    -------
    (n, last - first + 1, SUMS) float64

    Raises
    ------
    ValueError
        If a window, with three voxels around it, is not inside the box, or shapes differ.
    """
    cdef window_box box
    cdef int64_t n = centres.shape[0], k, reach = last + WINDOW_FRAME
    cdef int a
    cdef bint made
    if f.shape[0] != g.shape[0] or f.shape[1] != g.shape[1] or f.shape[2] != g.shape[2] or centres.shape[1] != 3:
        raise ValueError("the boxes must have the same shape, and points three coordinates")
    if not 0 <= first <= last:
        raise ValueError("the distances of shells rise from 0 on")
    for a in range(3):
        for k in range(n):
            if two_d and a == 0:
                if f.shape[0] != 1 or centres[k, 0] != 0:
                    raise ValueError("a box of two dimensions has one plane")
            elif centres[k, a] < reach or centres[k, a] + reach >= f.shape[a]:
                raise ValueError(f"window of point {k} leaves its box")
    found = np.zeros([n, last - first + 1, SUMS])
    if n == 0:
        return found
    cdef double[:, :, ::1] out = found
    box.f, box.g = &f[0, 0, 0], &g[0, 0, 0]
    box.usable, box.whole = map_of(usable, f), map_of(whole, f)
    box.pitch_y, box.pitch_z, box.two_d = f.shape[2], f.shape[1] * f.shape[2], two_d
    with nogil:
        made = window_shells(box, &centres[0, 0], n, first, last, &out[0, 0, 0])
    if not made:
        raise MemoryError("no memory for the sums of a window")
    return found
