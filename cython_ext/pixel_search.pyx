"""Pixel search kernels: the Cython side of ``window_search.cpp``.

Small ranges are correlated directly, large ones by FFT. Both give the same answer, because every candidate that may be
the best is evaluated again in double precision. Arrays are (z, y, x); a 2D image is one plane.
"""

from libc.stdint cimport int64_t, uint8_t

import numpy as np

from mpidvc.kernels.processor import level

cdef extern from *:
    """
    #include "window_search.hpp"
    static const mpidvc_search_kernels *mpidvc_search_table(int level) {
    #ifdef MPIDVC_X86_DISPATCH
        if (level == 1) return mpidvc_search_kernels_avx2();
        if (level == 2) return mpidvc_search_kernels_avx512();
    #endif
        return mpidvc_search_kernels_baseline();
    }
    """
    const mpidvc_search_kernels* mpidvc_search_table(int) nogil

cdef extern from "window_search.hpp" nogil:
    enum:
        MPIDVC_SUMS_OF_SEARCH
        MPIDVC_PLANES

    struct mpidvc_search_box:
        const float* data
        const uint8_t* usable
        int64_t pitch_y
        int64_t pitch_z
        int64_t shape[3]

    struct mpidvc_search:
        mpidvc_search_box box1
        mpidvc_search_box box2
        int64_t hws[3]
        int64_t low[3]
        int64_t high[3]
        int zero_mean
        double base1
        double base2
        double min_overlap
        int64_t count
        const int64_t* centre1
        const int64_t* centre2
        int64_t* offset
        double* cc
        double* error
        int64_t evaluated

    struct mpidvc_planes:
        int64_t n1[3]
        int64_t n2[3]
        int needed
        float* planes1[3]
        float* planes2[3]

    struct mpidvc_search_kernels:
        const char* name
        int (*search)(mpidvc_search*) noexcept nogil
        int (*planes)(const mpidvc_search*, int64_t, mpidvc_planes*) noexcept nogil
        int (*choose)(mpidvc_search*, int64_t, const float**, double) noexcept nogil

__all__ = ["METHODS", "choose_method", "memory_of", "search_points", "search_window"]

#: Ways to correlate; ``auto`` takes the cheaper one by :func:`choose_method`.
METHODS = ("auto", "direct", "fft")
#: Planes of the two windows whose correlation is sum k (see ``window_search.hpp``).
cdef tuple PLANES_OF = ((0, 0), (1, 1), (0, 1), (2, 1), (1, 0), (1, 2))

# Costs in nanoseconds, fixed here so that the choice never depends on a timing: of direct sums per multiplication, of
# an FFT per voxel and doubling of the size, of the Python code per point.
cdef double NS_PRODUCT = 0.03
cdef double NS_FFT = 1.3
cdef double NS_POINT = 100e3


def fft_length(int n):
    """Return the smallest product of 2, 3, 5 and 7 that is not below `n`: a length for which an FFT is fast."""
    cdef int length = max(n, 1), rest
    while True:
        rest = length
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def choose_method(hws, low, high):
    """Return the cheaper way, ``direct`` or ``fft``, for these half-window sizes and ranges (3 ints each)."""
    products, size, points = 1.0, 1.0, 0.0
    for h, a, b in zip(hws, low, high, strict=True):
        width, offsets = 2 * int(h) + 1, int(b) - int(a) + 1
        products *= width * offsets
        length = fft_length(width + offsets - 1)
        size *= length
        points += np.log2(length)
    return "direct" if NS_PRODUCT * products <= NS_FFT * size * points + NS_POINT else "fft"


def memory_of(hws, low, high):
    """Estimate the memory (bytes) of a search besides its boxes; parameters as of :func:`choose_method`."""
    offsets, region, window = 1, 1, 1
    for h, a, b in zip(hws, low, high, strict=True):
        offsets *= int(b) - int(a) + 1
        window *= 2 * int(h) + 1
        region *= 2 * int(h) + 1 + int(b) - int(a)
    return 64 * offsets + 60 * region + 12 * window


cdef int fill_box(mpidvc_search_box* box, const float[:, :, ::1] data, const uint8_t[:, :, ::1] usable) except -1:
    """A box in the kernels' form."""
    cdef int a
    box.data = &data[0, 0, 0]
    box.usable = NULL
    if usable is not None:
        for a in range(3):
            if usable.shape[a] != data.shape[a]:
                raise ValueError("a map of voxels must have the shape of its box")
        box.usable = &usable[0, 0, 0]
    for a in range(3):
        box.shape[a] = data.shape[a]
    box.pitch_y = data.shape[2]
    box.pitch_z = data.shape[1] * data.shape[2]
    return 0


def search_points(const float[:, :, ::1] box1 not None, const uint8_t[:, :, ::1] usable1,
                  const float[:, :, ::1] box2 not None, const uint8_t[:, :, ::1] usable2, hws, low, high,
                  bint zero_mean, const int64_t[:, ::1] centre1 not None, const int64_t[:, ::1] centre2 not None,
                  int64_t[:, ::1] offset not None, double[::1] cc not None, double[::1] error not None,
                  double min_overlap=0.0, str method="auto", bases=(0.0, 0.0)):
    """Find the windows of image 1 around many points in image 2.

    Parameters
    ----------
    box1, box2 : (z, y, x) float32
        Parts of the two images, less the bases; finite everywhere.
    usable1, usable2 : (z, y, x) uint8 or None
        0 where a voxel is not data. None: all are.
    hws : 3 ints
        Half-window size: window 1 is ``centre1 - hws … centre1 + hws``.
    low, high : 3 ints
        Search range: windows about ``centre2 + o`` are tried for every integer o from `low` to `high`, both included.
    zero_mean : bool
        Whether the means are taken off before windows are compared.
    centre1, centre2 : (n, 3) int64
        In box 1 and box 2, which must hold all windows.
    offset : (n, 3) int64, out
        The best o; of equally good ones the first in z, y, x order; 0 if nothing can be compared, no CC is above 0, or
        window 1 is of one grey level.
    cc : (n,) float64, out
        Its correlation coefficient, 0 if there is none.
    error : (n,) float64, out
        ``sum((a - b)**2) / sum(a)`` there, infinite if there is none.
    min_overlap : float
        Least fraction of the usable voxels of window 1 that a candidate has to compare.
    method : {"auto", "direct", "fft"}
        For tests: the answer is the same.
    bases : 2 floats
        Constants that were taken off the grey levels of image 1 and 2. CC and error are those of the images.

    Returns
    -------
    evaluated : int
        Number of candidates of all points that were evaluated in double precision.

    Raises
    ------
    ValueError
        If shapes do not belong together, a range is empty, or a window is not inside its box.
    """
    cdef mpidvc_search job
    cdef int a, failed
    cdef int64_t n = centre1.shape[0], k
    cdef const mpidvc_search_kernels* table = mpidvc_search_table(level())
    if method not in METHODS:
        raise ValueError(f"method {method!r}: only {', '.join(METHODS)} exist")
    if n == 0:
        return 0
    if (centre2.shape[0] != n or offset.shape[0] != n or cc.shape[0] != n or error.shape[0] != n
            or centre1.shape[1] != 3 or centre2.shape[1] != 3 or offset.shape[1] != 3):
        raise ValueError("arrays of points must be (n, 3) and (n,)")
    fill_box(&job.box1, box1, usable1)
    fill_box(&job.box2, box2, usable2)
    for a in range(3):
        job.hws[a] = hws[a]
        job.low[a] = low[a]
        job.high[a] = high[a]
        if job.hws[a] < 0:
            raise ValueError("a half-window size may not be negative")
        if job.low[a] > job.high[a]:
            raise ValueError("a search range begins after its end")
        for k in range(n):
            if centre1[k, a] - job.hws[a] < 0 or centre1[k, a] + job.hws[a] >= box1.shape[a]:
                raise ValueError(f"window of point {k} leaves its box")
            if (centre2[k, a] - job.hws[a] + job.low[a] < 0
                    or centre2[k, a] + job.hws[a] + job.high[a] >= box2.shape[a]):
                raise ValueError(f"search range of point {k} leaves its box")
    job.zero_mean = zero_mean
    job.base1, job.base2 = bases
    job.min_overlap = min_overlap
    job.count = n
    job.centre1 = &centre1[0, 0]
    job.centre2 = &centre2[0, 0]
    job.offset = &offset[0, 0]
    job.cc = &cc[0]
    job.error = &error[0]
    job.evaluated = 0
    if (choose_method(hws, low, high) if method == "auto" else method) == "direct":
        with nogil:
            failed = table.search(&job)
        if failed:
            raise MemoryError("no memory for a search")
    else:
        by_fft(table, &job)
    return job.evaluated


def search_window(window1, usable1, const float[:, :, ::1] box2 not None, const uint8_t[:, :, ::1] usable2, low, high,
                  bint zero_mean, centre2, double min_overlap=0.0, str method="auto", bases=(0.0, 0.0)):
    """Find one window that is given as an array of its own.

    Parameters
    ----------
    window1, usable1 : (z, y, x) float32, uint8 or None
        Of odd shape.
    box2, usable2, low, high, zero_mean, min_overlap, method, bases
        As in :func:`search_points`.
    centre2 : 3 ints

    Returns
    -------
    offset : (3,) int64
    cc, error : float
        As in :func:`search_points`.
    """
    hws = [n // 2 for n in window1.shape]
    offset = np.zeros((1, 3), np.int64)
    cc, error = np.zeros(1), np.zeros(1)
    centre1 = np.array([hws], np.int64)
    search_points(window1, usable1, box2, usable2, hws, low, high, zero_mean, centre1,
                  np.array(centre2, np.int64).reshape(1, 3), offset, cc, error, min_overlap, method, bases)
    return offset[0], float(cc[0]), float(error[0])


cdef int by_fft(const mpidvc_search_kernels* table, mpidvc_search* job) except -1:
    """Search every point by FFT: the sums of all its offsets at once, in float32."""
    cdef mpidvc_planes point
    cdef const float* sums[MPIDVC_SUMS_OF_SEARCH]
    cdef float[::1] memory
    cdef int64_t k, size1 = 1, size2 = 1
    cdef int a, i, failed
    cdef double noise
    d = tuple([job.high[a] - job.low[a] + 1 for a in range(3)])
    for a in range(3):
        size1 *= 2 * job.hws[a] + 1
        size2 *= 2 * job.hws[a] + d[a]
    planes1 = [np.empty(size1, np.float32) for _ in range(MPIDVC_PLANES)]
    planes2 = [np.empty(size2, np.float32) for _ in range(MPIDVC_PLANES)]
    for i in range(MPIDVC_PLANES):
        memory = planes1[i]
        point.planes1[i] = &memory[0]
        memory = planes2[i]
        point.planes2[i] = &memory[0]
    for k in range(job.count):
        with nogil:
            failed = table.planes(job, k, &point)
        if failed:
            raise MemoryError("no memory for a search")
        n1 = [point.n1[a] for a in range(3)]
        n2 = [point.n2[a] for a in range(3)]
        spectra1, spectra2, kept = {}, {}, []
        noise = 1.0
        for i in range(MPIDVC_SUMS_OF_SEARCH):
            sums[i] = NULL
            if not point.needed >> i & 1:
                continue
            p, q = PLANES_OF[i]
            lengths = [fft_length(n) for n in n2]
            # error of a float32 FFT: a few units in the last place per doubling of its size, here for three of them
            noise = 2.0**-24 * 4 * (3 + np.log2(float(np.prod(lengths))))
            if p not in spectra1:
                spectra1[p] = spectrum(planes1[p][:n1[0] * n1[1] * n1[2]].reshape(n1), lengths)
            if q not in spectra2:
                spectra2[q] = spectrum(planes2[q][:n2[0] * n2[1] * n2[2]].reshape(n2), lengths)
            kept.append(offsets_of(spectra1[p], spectra2[q], lengths, d).reshape(-1))
            memory = kept[-1]
            sums[i] = &memory[0]
        with nogil:
            failed = table.choose(job, k, sums, noise)
        if failed:
            raise MemoryError("no memory for a search")
    return 0


def spectrum(values, lengths):
    """Transform values padded with zeros; the short axes are padded last, so that rows of zeros are not transformed."""
    # without a factor to apply numpy computes in double precision, at seven times the cost: "ortho" always has one
    out = np.fft.rfft(values, lengths[2], axis=2, norm="ortho")
    out = np.fft.fft(out, lengths[1], axis=1, norm="ortho")
    return np.fft.fft(out, lengths[0], axis=0, norm="ortho") if lengths[0] > 1 else out


def offsets_of(spectrum1, spectrum2, lengths, d):
    """Return ``sum_x a(x) b(x + o)`` for o = 0 … d - 1, from the transforms of a and b."""
    product = spectrum1.conj()
    product *= spectrum2
    if lengths[0] > 1:
        product = np.fft.ifft(product, axis=0, norm="ortho")[:d[0]]
    product = np.fft.ifft(product, axis=1, norm="ortho")[:, :d[1]]
    out = np.fft.irfft(product, lengths[2], axis=2, norm="ortho")[:, :, :d[2]]
    return np.multiply(out, np.float32(np.sqrt(float(np.prod(lengths)))), dtype=np.float32)
