// Interface of the registration core to the Cython layer: plain structs, the limits of a registration, and one table of
// functions per instruction set. Axis order is (z, y, x); lengths are voxels. A 2D image is one plane: shape[0] == 1,
// and z is never touched.
#pragma once
#include <stdint.h>

// Limits of a registration, the same for windows and for whole images; `mpidvc.core.registration` reads them from here.
// deltaPhiNorm before the first step.
static const double MPIDVC_NOT_YET = 100.0;
// Status -1: in the second half of the iterations, the mean square residual before was less than this fraction of that
// after.
static const double MPIDVC_GROWTH = 0.8;
// Status -2: a pivot of M, scaled to unit diagonal, is less; the sums carry six digits.
static const double MPIDVC_LEAST_PIVOT = 1e-9;
// Status -3: |det F| is outside these.
static const double MPIDVC_LARGEST_VOLUME = 3.0, MPIDVC_SMALLEST_VOLUME = 0.2;
// Status -3 of windows: less than this fraction of the comparable voxels is left (or than the coverage asked for, if
// that is less).
static const double MPIDVC_LEAST_COVERAGE = 0.5;
// Starts from a neighbour whose displacements differ from those of the guess by less than this all over the window
// (voxels) are not compared with it.
static const double MPIDVC_SAME_START = 0.5;
// Status -4 of windows: a component of F or t (voxels) is larger.
static const double MPIDVC_LARGEST_F = 1e6, MPIDVC_LARGEST_T = 1e9;

enum {
    MPIDVC_FRAME = 3,    // voxels that a box must have around all samples: taps of their interpolation may touch them
    MPIDVC_PADDING = 64  // floats that must be readable behind a box's last element
};

// Float samples of a part of an image. Rows are contiguous.
struct mpidvc_box {
    const float *data;
    const uint8_t *valid;  // same pitches, 0 = not data; null = every voxel is data
    int64_t pitch_y, pitch_z;
    int64_t shape[3];
};

struct mpidvc_settings {
    int order;            // 1 linear, 3 cubic B-spline (box 2 then holds spline coefficients)
    int two_d;
    int znssd;            // else ssd
    int rigid;
    int update_gradient;
    int shift;            // Shift-DVC
    int max_iterations;
    int gradient_reach;   // 1: central differences, else the half width of the two kernels below
    const double *gauss, *gauss_derivative;  // 2 * gradient_reach + 1 weights each, or null
    double min_delta_phi;
    double gain, bias;    // f = gain * g + bias between the boxes' grey levels; znssd: a first estimate
    double base1;         // constant that was taken off box 1; errors and thresholds are those of whole grey levels
};

// Sums over one window or block, all about its own centre ((n - 1) / 2), as doubles in this order.
// r = f0 - g0, f0 = f - level, g0 = gain * g + bias - level; G = gradient, X = (z, y, x, 1), i outer, j inner index.
enum {
    MPIDVC_N,         // voxels compared
    MPIDVC_F,         // sum f0
    MPIDVC_FF,        // sum f0^2
    MPIDVC_R,         // sum r
    MPIDVC_RR,        // sum r^2
    MPIDVC_FR,        // sum f0 r
    MPIDVC_A,         // 12: sum r G_i X_j
    MPIDVC_C = MPIDVC_A + 12,  // 12: sum f0 G_i X_j
    MPIDVC_D = MPIDVC_C + 12,  // 12: sum G_i X_j
    // 6 x 10: sum G_i G_k X_j X_l for ik = zz zy zx yy yx xx, jl = 1 z y x zz zy zx yy yx xx (Gaussian gradients: G_i
    // smooth, G_k central difference)
    MPIDVC_M = MPIDVC_D + 12,
    MPIDVC_SUMS = MPIDVC_M + 60
};

// One block of the registration of whole images.
struct mpidvc_block {
    mpidvc_box box1, box2;
    const float *sampled1;   // Shift-DVC: box 1 in the form that is interpolated (spline coefficients), else null
    const mpidvc_settings *settings;
    int64_t low1[3], n[3];   // compared voxels: [low1, low1 + n) of box 1
    int64_t index0;          // Shift-DVC: flattened index of the first compared voxel, and of steps along y and z
    int64_t index_y, index_z;
    double F[9], centre2[3]; // gradient of the mapping, and the place of the block's centre in box 2
    double low2[3], high2[3];// samples of box 2 outside [low2, high2] are not data
    double level;
};

// Noise of the residual between the boxes: its correlations not 0, and the voxels that count as one for each parameter.
struct mpidvc_noise {
    int64_t reach[3], count;
    const int64_t *lag;   // (count, 3), none beyond reach
    const float *rho;
    double kappa[12];
    double variance;      // of the residual; nan: each window's own
};

enum { MPIDVC_ERRORS = 13 };  // standard deviations of a window: of t, of F row by row, and of the residual

// The windows around many points that share two boxes.
struct mpidvc_points {
    mpidvc_box box1, box2;
    const float *sampled1;   // as in mpidvc_block
    const uint8_t *covered;  // of box 1: 1 = inside the image and not masked; null = all
    const uint8_t *real;     // of box 1: 1 = inside the image; null = all
    const mpidvc_settings *settings;
    int64_t hws[3];          // of the window whose coverage and mean count
    int64_t n[3];            // compared voxels: from centre1 - (n - 1) / 2 on, rounded down
    double min_coverage, grey_low, grey_high;
    double offset[3];        // position in box 2 = position in box 1 + offset + displacement
    int64_t count;
    const int64_t *centre1;  // (count, 3) in box 1
    const double *low2, *high2;  // (count, 3) in box 2
    double *phi;             // (count, 12): rows (F_i0, F_i1, F_i2, t_i) about the middle of the compared voxels, guess
                             // in, result out
    uint8_t *left;           // (count,): 1 = in some pass a sample was no data; or null
    double *result;          // (count, 6): error, iterations, returnStatus, deltaPhiNorm, coverage, zncc
    // (count, most_near): points that a point may start from, as far as they precede it, -1 = no more; null: all start
    // from their guess
    const int64_t *near;
    int64_t most_near;
    int64_t *began;          // (count,): the neighbour that a point has started from, -1 = its guess; or null
    int64_t margin[3];       // by which a window of box 2 reaches beyond hws; a start from a neighbour has its own
    double first2[3], last2[3];  // first and last voxel of image 2, in box 2
    double low_at_hand[3], high_at_hand[3];  // first and last voxel of box 2 that has its frame, and its coefficients
    const double *least;     // (count,): a point whose ZNCC is not above this at its start is left as it is, with status
                             // 0; or null
    const mpidvc_noise *noise;  // for the random errors, or null
    const double *place;     // (count, 3): where t has its error, from the middle of the compared voxels; null: there
    double *errors;          // (count, MPIDVC_ERRORS): nan unless returnStatus is 2
};

// A block of an image that is sampled under a linear mapping.
struct mpidvc_warp {
    mpidvc_box box;
    int order, two_d;
    int64_t n[3];
    double F[9], centre[3];  // gradient of the mapping, and the place of the block's centre in the box
    double low[3], high[3];
    float outside;           // the value of samples outside [low, high]
    float *out;              // (n0, n1, n2), contiguous
};

// Grey levels of an image, to become floats. Rows are contiguous on both sides.
struct mpidvc_grey {
    const void *data;
    int bytes;               // of an unsigned integer: 1 or 2; of a float: 4
    int64_t shape[3];        // of `out`
    int64_t step_y, step_z;  // in bytes
    float *out;
    int64_t pitch_y, pitch_z;
    int64_t factor[3];       // of bin_mean: voxels of a bin
    float low, high;         // of convert: the limits of what is data, for floats
};

// Functions return 0, or -1 where memory is short.
struct mpidvc_kernels {
    const char *name;
    int lanes;
    int (*convert)(const mpidvc_grey *);   // whether all are data
    int (*bin_mean)(const mpidvc_grey *);
    int (*prefilter)(float *data, int64_t pitch_y, int64_t pitch_z, const int64_t low[3], const int64_t high[3],
                     const int64_t needed_low[3], const int64_t needed_high[3]);
    int (*correlate)(const mpidvc_points *);
    // whole: N, F, FF, C, D and M of all comparable voxels, which do not depend on the mapping; made where N is NaN. With
    // update_gradient there are none.
    int (*block_sums)(const mpidvc_block *, double *whole, double *sums);
    int (*warp)(const mpidvc_warp *);
};

extern "C" {
const mpidvc_kernels *mpidvc_kernels_baseline(void);
#ifdef MPIDVC_X86_DISPATCH
const mpidvc_kernels *mpidvc_kernels_avx2(void);
const mpidvc_kernels *mpidvc_kernels_avx512(void);
#endif
}
