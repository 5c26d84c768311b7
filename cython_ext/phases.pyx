# cython: boundscheck=False, wraparound=False, cdivision=True
"""Phases of the cross power of two spectra."""

from libc.stdint cimport int64_t

import numpy as np

cdef extern from "<cmath>" namespace "std" nogil:
    float sqrt(float)
    double sqrt(double)

__all__ = ["cross_phases"]

ctypedef fused number:
    float
    double


def cross_phases(number[:, :, ::1] spectrum, const number[:, :, ::1] reference, double least):
    """Make a spectrum that of the phase correlation with a reference: conj(reference) spectrum / abs(spectrum).

    Parameters
    ----------
    spectrum : (ny, nx, 2) array of float32 or float64
        Real and imaginary parts; changed in place.
    reference : (ny, nx, 2) array of the same dtype
        Values of magnitude 1, or 0.
    least : float
        A value whose magnitude is not above it becomes 0.

    Returns
    -------
    (nx,) array of int64
        Values that are not 0, for each column.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    cdef Py_ssize_t ny = spectrum.shape[0], nx = spectrum.shape[1], j, i
    cdef number re, im, power, scale, a, b, limit = <number> (least * least)
    cdef number *s
    cdef const number *r
    cdef int64_t[::1] kept
    if spectrum.shape[2] != 2 or any(spectrum.shape[k] != reference.shape[k] for k in range(3)):
        raise ValueError("spectrum and reference have different shapes")
    counts = np.zeros(nx, np.int64)
    kept = counts
    with nogil:
        for j in range(ny if nx else 0):
            s, r = &spectrum[j, 0, 0], &reference[j, 0, 0]
            for i in range(nx):
                re, im, a, b = s[2 * i], s[2 * i + 1], r[2 * i], r[2 * i + 1]
                power = re * re + im * im
                # without branches, this loop works on several values at once
                scale = (power > limit) / sqrt(power + (power <= limit))
                re, im = re * scale, im * scale
                s[2 * i] = a * re + b * im
                s[2 * i + 1] = a * im - b * re
            for i in range(nx):
                kept[i] += (s[2 * i] != 0) | (s[2 * i + 1] != 0)
    return counts
