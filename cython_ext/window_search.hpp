// Interface of the pixel search to the Cython layer: plain structs, and one table of functions per instruction set.
// Axis order is (z, y, x); a 2D image is one plane. Window 1 = box1[centre1 - hws, centre1 + hws]; its candidates in
// box 2 are the windows about centre2 + o for every integer o in [low, high].
#pragma once
#include <stdint.h>

// Samples of a part of an image; rows are contiguous. Nothing behind the last element is read.
struct mpidvc_search_box {
    const float *data;
    const uint8_t *usable;  // same pitches, 0 = not data; null = every voxel is data
    int64_t pitch_y, pitch_z;
    int64_t shape[3];
};

struct mpidvc_search {
    mpidvc_search_box box1, box2;
    int64_t hws[3], low[3], high[3];
    int zero_mean;
    double base1, base2;     // constants that were taken off the boxes; CC and error are those of the whole grey levels
    double min_overlap;      // a candidate compares at least this fraction of the usable voxels of window 1
    int64_t count;
    const int64_t *centre1, *centre2;  // (count, 3)
    int64_t *offset;         // (count, 3), out: best offset
    double *cc, *error;      // (count), out
    int64_t evaluated;       // out: candidates of all points that were evaluated in double precision; added to
};

// Sums over a window that change from candidate to candidate, as correlations of two planes each.
enum {
    MPIDVC_AB,      // sum a' b'
    MPIDVC_COUNT,   // voxels usable in both
    MPIDVC_A,       // sum a'   over them
    MPIDVC_AA,      // sum a'^2
    MPIDVC_B,       // sum b'
    MPIDVC_BB,      // sum b'^2
    MPIDVC_SUMS_OF_SEARCH
};
// Planes that are correlated: values, 1 for each usable voxel, squares; 0 where a voxel is not usable. The values are
// a' = a - (a constant), so that float32 stays precise.
enum { MPIDVC_VALUE, MPIDVC_USABLE, MPIDVC_SQUARE, MPIDVC_PLANES };

// The planes of one point, to be correlated by FFT. Both parts are the smallest that hold all usable voxels.
struct mpidvc_planes {
    int64_t n1[3], n2[3];
    int needed;              // bit k: sum k of the first enum above is needed
    float *planes1[MPIDVC_PLANES], *planes2[MPIDVC_PLANES];  // contiguous, room for whole windows
};

struct mpidvc_search_kernels {
    const char *name;
    // All functions return 0, or -1 where memory is short. This one searches all points with direct sums.
    int (*search)(mpidvc_search *);
    // Fills the planes of point k; `needed` is 0 if nothing can be found there.
    int (*planes)(const mpidvc_search *, int64_t k, mpidvc_planes *);
    // Finishes point k from its sums (contiguous, one value per offset; null if not needed). `noise`: the error of a
    // sum is at most this times the norms of the two planes that were correlated.
    int (*choose)(mpidvc_search *, int64_t k, const float *const sums[MPIDVC_SUMS_OF_SEARCH], double noise);
};

extern "C" {
const mpidvc_search_kernels *mpidvc_search_kernels_baseline(void);
#ifdef MPIDVC_X86_DISPATCH
const mpidvc_search_kernels *mpidvc_search_kernels_avx2(void);
const mpidvc_search_kernels *mpidvc_search_kernels_avx512(void);
#endif
}
