"""Registration kernels: the Cython side of ``gauss_newton.cpp``.

One copy of the numerical core per instruction set is linked in; :func:`use_instruction_set` chooses one that this
processor has, for these and all other kernels. Arrays are (z, y, x); a 2D image is one plane. No function allocates
memory per point.
"""

from libc.math cimport INFINITY, NAN
from libc.stdint cimport int64_t, uint8_t, uint16_t

import numpy as np

from mpidvc.kernels import processor
from mpidvc.kernels.processor import INSTRUCTION_SETS, instruction_set, instruction_sets, use_instruction_set

cdef extern from *:
    """
    #include "gauss_newton.hpp"
    static const mpidvc_kernels *mpidvc_table(int level) {
    #ifdef MPIDVC_X86_DISPATCH
        if (level == 1) return mpidvc_kernels_avx2();
        if (level == 2) return mpidvc_kernels_avx512();
    #endif
        return mpidvc_kernels_baseline();
    }
    """
    const mpidvc_kernels* mpidvc_table(int) nogil

cdef extern from "gauss_newton.hpp" nogil:
    const double MPIDVC_NOT_YET
    const double MPIDVC_GROWTH
    const double MPIDVC_LEAST_PIVOT
    const double MPIDVC_LARGEST_VOLUME
    const double MPIDVC_SMALLEST_VOLUME

    enum:
        MPIDVC_FRAME
        MPIDVC_PADDING
        MPIDVC_SUMS
        MPIDVC_ERRORS

    struct mpidvc_box:
        const float* data
        const uint8_t* valid
        int64_t pitch_y
        int64_t pitch_z
        int64_t shape[3]

    struct mpidvc_settings:
        int order
        int two_d
        int znssd
        int rigid
        int update_gradient
        int shift
        int max_iterations
        int gradient_reach
        const double* gauss
        const double* gauss_derivative
        double min_delta_phi
        double gain
        double bias
        double base1

    struct mpidvc_block:
        mpidvc_box box1
        mpidvc_box box2
        const float* sampled1
        const mpidvc_settings* settings
        int64_t low1[3]
        int64_t n[3]
        int64_t index0
        int64_t index_y
        int64_t index_z
        double F[9]
        double centre2[3]
        double low2[3]
        double high2[3]
        double level

    struct mpidvc_noise:
        int64_t reach[3]
        int64_t count
        const int64_t* lag
        const float* rho
        double kappa[12]
        double variance

    struct mpidvc_points:
        mpidvc_box box1
        mpidvc_box box2
        const float* sampled1
        const uint8_t* covered
        const uint8_t* real
        const mpidvc_settings* settings
        int64_t hws[3]
        int64_t n[3]
        double min_coverage
        double grey_low
        double grey_high
        double offset[3]
        int64_t count
        const int64_t* centre1
        const double* low2
        const double* high2
        double* phi
        uint8_t* left
        double* result
        const int64_t* near
        int64_t most_near
        int64_t* began
        int64_t margin[3]
        double first2[3]
        double last2[3]
        double low_at_hand[3]
        double high_at_hand[3]
        const double* least
        const mpidvc_noise* noise
        const double* place
        double* errors

    struct mpidvc_warp:
        mpidvc_box box
        int order
        int two_d
        int64_t n[3]
        double F[9]
        double centre[3]
        double low[3]
        double high[3]
        float outside
        float* out

    struct mpidvc_grey:
        const void* data
        int bytes
        int64_t shape[3]
        int64_t step_y
        int64_t step_z
        float* out
        int64_t pitch_y
        int64_t pitch_z
        int64_t factor[3]
        float low
        float high

    struct mpidvc_kernels:
        const char* name
        int lanes
        int (*convert)(const mpidvc_grey*) noexcept nogil
        int (*bin_mean)(const mpidvc_grey*) noexcept nogil
        int (*prefilter)(float*, int64_t, int64_t, const int64_t*, const int64_t*, const int64_t*,
                         const int64_t*) noexcept nogil
        int (*correlate)(const mpidvc_points*) noexcept nogil
        int (*block_sums)(const mpidvc_block*, double*, double*) noexcept nogil
        int (*warp)(const mpidvc_warp*) noexcept nogil

__all__ = [
    "ERRORS",
    "FRAME",
    "GROWTH",
    "INSTRUCTION_SETS",
    "LARGEST_VOLUME",
    "LEAST_PIVOT",
    "NOT_YET",
    "Noise",
    "PADDING",
    "RESULT",
    "SMALLEST_VOLUME",
    "SUMS",
    "Settings",
    "bin_mean",
    "block_sums",
    "correlate_points",
    "empty_box",
    "instruction_set",
    "instruction_sets",
    "prefilter",
    "to_float",
    "use_instruction_set",
    "warp",
]

#: Columns of the results of :func:`correlate_points`.
RESULT = ("error", "iterations", "returnStatus", "deltaPhiNorm", "coverage", "zncc")
#: Columns of the random errors of :func:`correlate_points`: standard deviations of the displacement and of F, and of
#: the residual.
ERRORS = ("sigmaZdisp", "sigmaYdisp", "sigmaXdisp", "sigmaFzz", "sigmaFzy", "sigmaFzx", "sigmaFyz", "sigmaFyy",
          "sigmaFyx", "sigmaFxz", "sigmaFxy", "sigmaFxx", "noise")
#: Length of the vector that :func:`block_sums` fills.
SUMS = MPIDVC_SUMS
#: Voxels that a box must have around all samples: taps of their interpolation may touch them.
FRAME = MPIDVC_FRAME
#: Floats that must be readable behind a box's last element.
PADDING = MPIDVC_PADDING
#: deltaPhiNorm before the first step.
NOT_YET = MPIDVC_NOT_YET
#: Diverged (status -1): in the second half of the iterations, the mean square residual before was less than this
#: fraction of that after.
GROWTH = MPIDVC_GROWTH
#: Singular (status -2): a pivot of the matrix, scaled to unit diagonal, is less.
LEAST_PIVOT = MPIDVC_LEAST_PIVOT
#: Diverged (status -3): ``|det F|`` is outside these.
LARGEST_VOLUME, SMALLEST_VOLUME = MPIDVC_LARGEST_VOLUME, MPIDVC_SMALLEST_VOLUME

cdef const mpidvc_kernels* kernels() except NULL:
    """The core for the instruction set in use."""
    return mpidvc_table(processor.level())


def empty_box(shape):
    """Make a box: zeros, with :data:`PADDING` floats readable behind its end.

    Parameters
    ----------
    shape : 3 ints

    Returns
    -------
    (z, y, x) float32
    """
    cdef object size = int(np.prod(shape, dtype=np.int64))
    return np.zeros(size + PADDING, dtype=np.float32)[:size].reshape(shape)


ctypedef fused Grey:
    const uint8_t
    const uint16_t
    const float


cdef bint fill_grey(mpidvc_grey* grey, Grey[:, :, :] part, float[:, :, :] out, factor) except *:
    """Grey levels in the kernels' form; whether there are any."""
    cdef int a
    for a in range(3):
        grey.factor[a] = factor[a]
        grey.shape[a] = out.shape[a]
        if grey.factor[a] < 1 or part.shape[a] != out.shape[a] * grey.factor[a]:
            raise ValueError("the shapes of grey levels and of floats do not belong together")
    if out.shape[0] == 0 or out.shape[1] == 0 or out.shape[2] == 0:
        return False
    grey.bytes = sizeof(part[0, 0, 0])
    if (part.shape[2] > 1 and part.strides[2] != grey.bytes) or (out.shape[2] > 1 and out.strides[2] != sizeof(float)):
        raise ValueError("rows must be contiguous")
    grey.data = &part[0, 0, 0]
    grey.step_y = part.strides[1]
    grey.step_z = part.strides[0]
    grey.out = &out[0, 0, 0]
    grey.pitch_y = out.strides[1] // <int>sizeof(float)
    grey.pitch_z = out.strides[0] // <int>sizeof(float)
    return True


def to_float(Grey[:, :, :] part not None, float[:, :, :] out not None, double low=-INFINITY, double high=INFINITY):
    """Convert grey levels, several times as fast as numpy does.

    Parameters
    ----------
    part : (z, y, x) uint8, uint16 or float32
        With contiguous rows.
    out : (z, y, x) float32, out
        The same, and of the same shape.
    low, high : float
        Limits of what is data, for float32.

    Returns
    -------
    bool
        Whether all are data.

    Raises
    ------
    ValueError
        If shapes differ, or rows are not contiguous.
    """
    cdef mpidvc_grey grey
    cdef const mpidvc_kernels* table = kernels()
    cdef int data = True
    grey.low = <float>low
    grey.high = <float>high
    if fill_grey(&grey, part, out, (1, 1, 1)):
        with nogil:
            data = table.convert(&grey)
    return bool(data)


def bin_mean(Grey[:, :, :] part not None, factor, float[:, :, :] out not None):
    """Compute block means, added up in single precision; a bin that holds a nan is nan.

    Parameters
    ----------
    part : (fz z, fy y, fx x) uint8, uint16 or float32
        With contiguous rows.
    factor : 3 ints
        Voxels of a bin along each axis: fz, fy, fx.
    out : (z, y, x) float32, out
        With contiguous rows.

    Raises
    ------
    ValueError
        If shapes do not belong together, or rows are not contiguous.
    """
    cdef mpidvc_grey grey
    cdef const mpidvc_kernels* table = kernels()
    cdef int failed
    if fill_grey(&grey, part, out, factor):
        with nogil:
            failed = table.bin_mean(&grey)
        if failed:
            raise MemoryError("no memory for a row of the image")


cdef class Settings:
    """The settings of a registration in the kernels' form, shared by all windows of a run.

    Parameters
    ----------
    order : {1, 3}
        Interpolation of image 2: linear or cubic B-spline.
    two_d : bool
        Images are one plane.
    znssd : bool
        Compare grey levels after image 2's have been mapped to mean and deviation of image 1's; else as they are (ssd).
    rigid : bool
        Rotation and translation only.
    update_gradient : bool
        Gradient of the deformed image 2, anew in every iteration, instead of image 1's.
    shift : bool
        Shift-DVC: both images are sampled a quarter of a voxel off the grid.
    max_iterations : int
    min_delta_phi : float
        Converged when the norm of the change of Phi is at most this.
    sigma : float or None
        Standard deviation (voxels) of Gaussian derivatives; None: central differences.
    gain, bias : float
        ``f = gain * g + bias`` between the boxes' grey levels; znssd: a first estimate.
    base1 : float
        Constant that was taken off the grey levels of box 1. Errors and thresholds are those of the image itself.

    Raises
    ------
    ValueError
        If the order or sigma is not one of these.
    """

    cdef mpidvc_settings c
    cdef object kernels

    def __init__(self, int order=1, bint two_d=False, bint znssd=False, bint rigid=False, bint update_gradient=False,
                 bint shift=False, int max_iterations=50, double min_delta_phi=1e-3, sigma=None, double gain=1.0,
                 double bias=0.0, double base1=0.0):
        cdef double[::1] gauss, derivative
        if order not in (1, 3):
            raise ValueError(f"interpolation order {order}: only 1 and 3 exist")
        self.c.order = order
        self.c.two_d = two_d
        self.c.znssd = znssd
        self.c.rigid = rigid
        self.c.update_gradient = update_gradient
        self.c.shift = shift
        self.c.max_iterations = max_iterations
        self.c.min_delta_phi = min_delta_phi
        self.c.gain = gain
        self.c.bias = bias
        self.c.base1 = base1
        self.c.gradient_reach = 1
        self.c.gauss = NULL
        self.c.gauss_derivative = NULL
        if sigma is not None:
            if not sigma > 0:
                raise ValueError(f"standard deviation {sigma}: must be above 0")
            # the weights of a correlation (not a convolution), cut off at four standard deviations
            reach = max(1, int(4.0 * sigma + 0.5))
            at = np.arange(-reach, reach + 1, dtype=np.float64)
            weights = np.exp(-0.5 * (at / sigma) ** 2)
            weights /= weights.sum()
            self.kernels = (weights, weights * at / sigma**2)
            gauss, derivative = self.kernels
            self.c.gradient_reach = reach
            self.c.gauss = &gauss[0]
            self.c.gauss_derivative = &derivative[0]

    @property
    def gradient_reach(self):
        """Voxels that gradients need around the compared ones."""
        return self.c.gradient_reach


cdef class Noise:
    """The noise of residuals in the kernels' form; see :class:`mpidvc.core.uncertainty.Noise`.

    Parameters
    ----------
    rho : (2 l + 1, 2 m + 1, 2 n + 1) float64
        Autocorrelation.
    kappa : 12 floats
    variance : float
        Grey levels of image 1, squared; nan: each window's own.
    """

    cdef mpidvc_noise c
    cdef object arrays

    def __init__(self, rho, kappa, double variance=NAN):
        cdef int64_t[:, ::1] lag
        cdef float[::1] values
        cdef int a
        rho = np.asarray(rho, np.float64)
        some = np.argwhere(rho) - np.array(rho.shape) // 2
        self.arrays = np.ascontiguousarray(some, np.int64), np.ascontiguousarray(rho[rho != 0], np.float32)
        lag, values = self.arrays
        self.c.count = lag.shape[0]
        if self.c.count:
            self.c.lag = &lag[0, 0]
            self.c.rho = &values[0]
        for a in range(3):
            self.c.reach[a] = np.abs(some[:, a]).max(initial=0)
        for a in range(12):
            self.c.kappa[a] = kappa[a]
        self.c.variance = variance


cdef const uint8_t* voxel_map(const uint8_t[:, :, ::1] voxels, const float[:, :, ::1] box) except? NULL:
    """The first element of a box's map of voxels; NULL if there is no map."""
    if voxels is None:
        return NULL
    if voxels.shape[0] != box.shape[0] or voxels.shape[1] != box.shape[1] or voxels.shape[2] != box.shape[2]:
        raise ValueError("a map of voxels must have the shape of its box")
    return &voxels[0, 0, 0]


cdef const float* samples_of(const float[:, :, ::1] samples, const float[:, :, ::1] box) except? NULL:
    """The first element of a second array of a box's shape; NULL if there is none."""
    if samples is None:
        return NULL
    if samples.shape[0] != box.shape[0] or samples.shape[1] != box.shape[1] or samples.shape[2] != box.shape[2]:
        raise ValueError("the samples must have the shape of their box")
    return &samples[0, 0, 0]


cdef bint framed(double low, double high, int64_t n, bint two_d, int axis) noexcept:
    """Whether samples between `low` and `high` have their frame inside an axis of n voxels."""
    cdef int frame = 0 if two_d and axis == 0 else MPIDVC_FRAME
    return low >= frame and high <= n - 1 - frame


cdef int fill_box(mpidvc_box* box, const float[:, :, ::1] data, const uint8_t[:, :, ::1] valid) except -1:
    """A box in the kernels' form."""
    cdef int a
    box.data = &data[0, 0, 0]
    box.valid = voxel_map(valid, data)
    for a in range(3):
        box.shape[a] = data.shape[a]
    box.pitch_y = data.shape[2]
    box.pitch_z = data.shape[1] * data.shape[2]
    return 0


def prefilter(float[:, :, ::1] box, low, high, needed=None):
    """Turn ``box[low:high]`` into cubic B-spline coefficients, in place, with a mirror boundary at `low` and `high`.

    The coefficients c are scaled so that the value at a voxel is ``(c[-1] + 4 c[0] + c[1]) / 6`` per axis (Unser 1999,
    doi 10.1109/79.799930). The two voxels around ``[low, high)``, as far as the box has them, get the mirrored
    coefficients.

    Parameters
    ----------
    box : (z, y, x) float32, in and out
        From :func:`empty_box`.
    low, high : 3 ints
        Inside the box.
    needed : (low, high), optional
        The voxels whose coefficients are needed, inside the others, which are left unfinished; default: all.

    Raises
    ------
    ValueError
        If the part is not inside the box, or what is needed is not inside the part.
    """
    cdef int64_t lo[3]
    cdef int64_t hi[3]
    cdef int64_t needed_low[3]
    cdef int64_t needed_high[3]
    cdef int a, failed
    cdef const mpidvc_kernels* table = kernels()
    for a in range(3):
        lo[a] = low[a]
        hi[a] = high[a]
        if not 0 <= lo[a] <= hi[a] <= box.shape[a]:
            raise ValueError(f"part {low}:{high} is not inside the box")
        needed_low[a] = lo[a] if needed is None else needed[0][a]
        needed_high[a] = hi[a] if needed is None else needed[1][a]
        if not lo[a] <= needed_low[a] <= needed_high[a] <= hi[a]:
            raise ValueError(f"the voxels {needed} are not inside the part {low}:{high}")
    if hi[0] == lo[0] or hi[1] == lo[1] or hi[2] == lo[2]:
        return
    with nogil:
        failed = table.prefilter(&box[0, 0, 0], box.shape[2], box.shape[1] * box.shape[2], lo, hi, needed_low,
                                 needed_high)
    if failed:
        raise MemoryError("no memory for a row of the image")
    # mirrored frame: c[low - k] = c[low + k], c[high - 1 + k] = c[high - 1 - k]
    array = np.asarray(box)
    for a in range(3):
        view = np.moveaxis(array, a, 0)
        n = hi[a] - lo[a]
        for k in (1, 2):
            mirrored = k if n > k else (k % 2 if n == 2 else 0)
            if lo[a] - k >= 0:
                view[lo[a] - k] = view[lo[a] + mirrored]
            if hi[a] - 1 + k < box.shape[a]:
                view[hi[a] - 1 + k] = view[hi[a] - 1 - mirrored]


def correlate_points(Settings settings not None, const float[:, :, ::1] box1 not None, const uint8_t[:, :, ::1] usable,
                     const uint8_t[:, :, ::1] covered, const uint8_t[:, :, ::1] real, const float[:, :, ::1] sampled1,
                     const float[:, :, ::1] box2 not None, const uint8_t[:, :, ::1] valid2, hws, offset,
                     const int64_t[:, ::1] centre1 not None, const double[:, ::1] low2 not None,
                     const double[:, ::1] high2 not None, double[:, ::1] phi not None,
                     double[:, ::1] result not None, double min_coverage=0.0, double grey_low=-INFINITY,
                     double grey_high=INFINITY, compared=None, uint8_t[::1] left=None, const int64_t[:, ::1] near=None,
                     margin=(0, 0, 0), image2=None, at_hand=None, const double[::1] least=None,
                     int64_t[::1] began=None, Noise noise=None, double[:, ::1] errors=None,
                     const double[:, ::1] place=None):
    """Register the windows of many points that share two boxes.

    The method is Gauss–Newton on ``f(x) = g(Phi x)``; see ``gauss_newton.cpp``.

    Parameters
    ----------
    settings : Settings
    box1, box2 : (z, y, x) float32
        Voxels of the two images, from :func:`empty_box`, less a constant if there is one in the settings. With
        ``order == 3`` box 2 holds spline coefficients.
    usable, covered, real : (z, y, x) uint8 or None
        Maps of box 1: voxels that may be compared because their gradients are data, too; voxels that count for the
        coverage; voxels that exist. None: all.
    sampled1 : (z, y, x) float32 or None
        Shift-DVC only: box 1 in the form that is interpolated (spline coefficients for order 3).
    valid2 : (z, y, x) uint8 or None
        Voxels of box 2 that are data.
    hws : 3 ints
        Half-window size; ``2 * hws - 1`` voxels per axis are compared unless `compared` says otherwise.
    offset : 3 floats
        A voxel of box 1 lies at ``offset`` + its index in box 2.
    centre1 : (n, 3) int64
        Nodes in box 1. Windows must lie inside the box.
    low2, high2 : (n, 3) float64
        Samples of box 2 outside ``[low2, high2]`` are not data; a point with low2 > high2 is skipped (status -5).
    phi : (n, 12) float64, in and out
        Rows ``F_i0 F_i1 F_i2 t_i``; translations in voxels.
    result : (n, 6) float64, out
        Columns :data:`RESULT`.
    min_coverage, grey_low, grey_high : float
        Windows are registered if their covered fraction is at least `min_coverage` and ``grey_low < mean < grey_high``.
    compared : 3 ints, optional
        Voxels to compare along each axis. Phi is about their middle, which is the node, or half a voxel above it along
        an axis of an even number.
    left : (n,) uint8, optional, out
        1 where in some iteration a sample of box 2 was no data, which includes those outside ``[low2, high2]``.
    near : (n, m) int64, optional
        Neighbours of each point, by index; -1 fills rows that have fewer. A point then starts from the neighbour before
        it that has converged with the best ZNCC, its displacement predicted with that neighbour's F, where this
        correlates better than the guess in `phi`, or hardly differs from it.
    margin : 3 ints
        Voxels by which the window of such a start reaches beyond `hws` in box 2, as far as that is at hand.
    image2, at_hand : (low, high)
        First and last voxel of image 2, and those that have their frame and coefficients in box 2: indices in box 2,
        where there is `near`. A start whose window is not at hand is not used.
    least : (n,) float64, optional
        A point whose ZNCC at its start is not above this is left there, with status 0.
    began : (n,) int64, optional, in and out
        The neighbour that each point has started from, -1 where it was the guess; skipped points are left out.
    noise : Noise, optional
        Asks for the random errors.
    errors : (n, 13) float64, out
        With `noise`: columns :data:`ERRORS`; nan unless the return status is 2.
    place : (n, 3) float64, optional
        Where the displacement has its error, from the middle of the compared voxels; default: there.

    Raises
    ------
    ValueError
        If shapes do not belong together, or a window is not inside its box.
    """
    cdef mpidvc_points points
    cdef const mpidvc_kernels* table = kernels()
    cdef int a, failed
    cdef int64_t n = centre1.shape[0], k
    cdef int64_t reach = settings.c.gradient_reach, below, above, frame
    if n == 0:
        return
    if (phi.shape[0] != n or phi.shape[1] != 12 or result.shape[0] != n or result.shape[1] != 6 or low2.shape[0] != n
            or high2.shape[0] != n or centre1.shape[1] != 3 or low2.shape[1] != 3 or high2.shape[1] != 3):
        raise ValueError("arrays of points must be (n, 3), (n, 12) and (n, 6)")
    fill_box(&points.box1, box1, usable)
    fill_box(&points.box2, box2, valid2)
    points.covered = voxel_map(covered, box1)
    points.real = voxel_map(real, box1)
    points.sampled1 = samples_of(sampled1, box1)
    if settings.c.shift and sampled1 is None:
        raise ValueError("Shift-DVC needs sampled1")
    points.settings = &settings.c
    points.min_coverage = min_coverage
    points.grey_low = grey_low
    points.grey_high = grey_high
    points.count = n
    for a in range(3):
        points.hws[a] = hws[a]
        points.offset[a] = offset[a]
        if settings.c.two_d and a == 0:
            if points.hws[a] != 0:
                raise ValueError("the half-window size along z must be 0 in 2D")
        elif points.hws[a] < 1:
            raise ValueError("a half-window size must be at least 1")
        points.n[a] = 1 if settings.c.two_d and a == 0 else 2 * points.hws[a] - 1
        if compared is not None:
            points.n[a] = compared[a]
            if points.n[a] < 1 or points.n[a] > 2 * points.hws[a] + 1:
                raise ValueError(f"{compared} voxels to compare are not inside the window")
        frame = 0 if settings.c.two_d and a == 0 else reach + settings.c.shift
        below = max(points.hws[a], (points.n[a] - 1) // 2 + frame)
        above = max(points.hws[a], points.n[a] // 2 + frame)
        for k in range(n):
            if centre1[k, a] - below < 0 or centre1[k, a] + above >= box1.shape[a]:
                raise ValueError(f"window of point {k} leaves its box")
            if low2[k, a] <= high2[k, a] and not framed(low2[k, a], high2[k, a], box2.shape[a], settings.c.two_d, a):
                raise ValueError(f"window 2 of point {k} leaves its box")
    points.centre1 = &centre1[0, 0]
    points.low2 = &low2[0, 0]
    points.high2 = &high2[0, 0]
    points.phi = &phi[0, 0]
    points.result = &result[0, 0]
    points.noise = NULL
    points.place = NULL
    points.errors = NULL
    if noise is not None:
        if errors is None or errors.shape[0] != n or errors.shape[1] != MPIDVC_ERRORS:
            raise ValueError("the random errors must be (n, 13)")
        if place is not None and (place.shape[0] != n or place.shape[1] != 3):
            raise ValueError("places must be (n, 3)")
        points.noise = &noise.c
        points.errors = &errors[0, 0]
        if place is not None:
            points.place = &place[0, 0]
    points.left = NULL
    if left is not None:
        if left.shape[0] != n:
            raise ValueError("left has to have a number for each point")
        points.left = &left[0]
    points.near = NULL
    points.most_near = 0
    if near is not None and near.shape[1] > 0:
        if near.shape[0] != n or np.max(near) >= n:
            raise ValueError("near has to have a row for each point, of points")
        points.near = &near[0, 0]
        points.most_near = near.shape[1]
        for a in range(3):
            points.margin[a] = margin[a]
            points.first2[a], points.last2[a] = image2[0][a], image2[1][a]
            points.low_at_hand[a], points.high_at_hand[a] = at_hand[0][a], at_hand[1][a]
            if not framed(points.low_at_hand[a], points.high_at_hand[a], box2.shape[a], settings.c.two_d, a):
                raise ValueError("what is at hand leaves its box")
    points.least = NULL
    if least is not None:
        if least.shape[0] != n:
            raise ValueError("least has to have a number for each point")
        points.least = &least[0]
    points.began = NULL
    if began is not None:
        if began.shape[0] != n:
            raise ValueError("began has to have a number for each point")
        points.began = &began[0]
    with nogil:
        failed = table.correlate(&points)
    if failed:
        raise MemoryError("no memory for a correlation window")


def block_sums(Settings settings not None, const float[:, :, ::1] box1 not None, const uint8_t[:, :, ::1] usable,
               const float[:, :, ::1] sampled1, const float[:, :, ::1] box2 not None,
               const uint8_t[:, :, ::1] valid2, low1, n, F, centre2, low2, high2, double level, double gain,
               double bias, index=(0, 0, 0), double[::1] whole=None):
    """Compute the sums of one registration pass over a block of image 1.

    Parameters
    ----------
    settings : Settings
        Of which gain and bias do not count.
    box1, usable, sampled1, box2, valid2
        As in :func:`correlate_points`.
    low1, n : 3 ints
        First of the compared voxels, as an index in box 1, and their number along every axis.
    F : (3, 3) floats
        Gradient of the mapping.
    centre2 : 3 floats
        Place of the block's centre in box 2.
    low2, high2 : 3 floats
        Samples of box 2 outside are not data.
    level : float
        Subtracted from f and from ``gain * g + bias``, all of them grey levels of the boxes.
    gain, bias : float
    index : 3 ints
        Shift-DVC: flattened index of the first voxel in its image, and of steps along y and z.
    whole : (SUMS,) float64, optional, in and out
        Sums of image 1 alone over all voxels of the block that may be compared, from an earlier call for the same
        block, settings and level; where the first is nan they are made. The result is the same to the last bit.

    Returns
    -------
    (SUMS,) float64
        In the order of ``gauss_newton.hpp``; coordinates are relative to the block's centre.

    Raises
    ------
    ValueError
        If the block or its samples are not inside their boxes.
    """
    cdef mpidvc_block block
    cdef const mpidvc_kernels* table = kernels()
    cdef int a, b, failed
    cdef int64_t edge
    cdef mpidvc_settings with_levels = settings.c
    out = np.zeros(MPIDVC_SUMS)
    cdef double[::1] sums = out
    cdef double[::1] kept = np.full(MPIDVC_SUMS, np.nan) if whole is None else whole
    if kept.shape[0] != MPIDVC_SUMS:
        raise ValueError("the sums of image 1 must be as many as those of a pass")
    fill_box(&block.box1, box1, usable)
    fill_box(&block.box2, box2, valid2)
    if settings.c.shift and sampled1 is None:
        raise ValueError("Shift-DVC needs sampled1")
    block.sampled1 = samples_of(sampled1, box1)
    with_levels.gain = gain
    with_levels.bias = bias
    block.settings = &with_levels
    for a in range(3):
        block.low1[a] = low1[a]
        block.n[a] = n[a]
        block.centre2[a] = centre2[a]
        block.low2[a] = low2[a]
        block.high2[a] = high2[a]
        for b in range(3):
            block.F[3 * a + b] = F[a][b]
        edge = 0 if settings.c.two_d and a == 0 else settings.c.gradient_reach + settings.c.shift
        if block.low1[a] < edge or block.low1[a] + block.n[a] + edge > box1.shape[a]:
            raise ValueError("the block and its gradients must lie inside box 1")
        if block.n[a] < 1:
            raise ValueError("a block has at least one voxel")
        if not framed(block.low2[a], block.high2[a], box2.shape[a], settings.c.two_d, a):
            raise ValueError("the samples must lie inside box 2")
    block.level = level
    block.index0, block.index_y, block.index_z = index
    with nogil:
        failed = table.block_sums(&block, &kept[0], &sums[0])
    if failed:
        raise MemoryError("no memory for a block")
    return out


def warp(const float[:, :, ::1] box not None, int order, bint two_d, F, centre, low, high,
         float[:, :, ::1] out not None, float outside=0.0):
    """Sample a box at ``centre + F (x - (n - 1) / 2)`` for every voxel x of an array of shape n.

    Parameters
    ----------
    box : (z, y, x) float32
        From :func:`empty_box`; spline coefficients for order 3.
    order : {1, 3}
    two_d : bool
    F : (3, 3) floats
    centre : 3 floats
    low, high : 3 floats
        Samples outside become `outside`.
    out : (z, y, x) float32, out
    outside : float

    Raises
    ------
    ValueError
        If the samples do not lie inside the box.
    """
    cdef mpidvc_warp job
    cdef const mpidvc_kernels* table = kernels()
    cdef int a, b, failed
    if order not in (1, 3):
        raise ValueError(f"interpolation order {order}: only 1 and 3 exist")
    fill_box(&job.box, box, None)
    job.order = order
    job.two_d = two_d
    for a in range(3):
        job.n[a] = out.shape[a]
        job.centre[a] = centre[a]
        job.low[a] = low[a]
        job.high[a] = high[a]
        if not framed(job.low[a], job.high[a], box.shape[a], two_d, a):
            raise ValueError("the samples must lie inside the box")
        for b in range(3):
            job.F[3 * a + b] = F[a][b]
    job.out = &out[0, 0, 0]
    job.outside = outside
    with nogil:
        failed = table.warp(&job)
    if failed:
        raise MemoryError("no memory for a row of the image")
