// What the numerical core offers to the Cython layer: plain structs and one table of functions per instruction set.
// Axis order is (z, y, x); lengths are voxels. A 2D image is one plane: shape[0] == 1, and z is never touched.
#pragma once
#include <stdint.h>

// Float samples of a part of an image. Rows are contiguous; data may be read 64 floats past the last element.
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
    double gain, bias;    // znssd: first estimate of f = gain * g + bias
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
    MPIDVC_M = MPIDVC_D + 12,  // 6 x 10: sum G_i G_k X_j X_l (Gaussian gradients: of one with the other kind) for ik = zz zy zx yy yx xx, jl = 1 z y x zz zy zx yy yx xx
    MPIDVC_SUMS = MPIDVC_M + 60
};

// One block of a registration.
struct mpidvc_block {
    mpidvc_box box1, box2;
    const float *sampled1;   // Shift-DVC: box 1 as it is to be interpolated (spline coefficients), else null
    const mpidvc_settings *settings;
    int64_t low1[3], n[3];   // compared voxels: [low1, low1 + n) of box 1
    int64_t index0;          // Shift-DVC: flattened index of the first compared voxel, and of steps along y and z
    int64_t index_y, index_z;
    double F[9], centre2[3]; // where the block's centre falls in box 2, and the gradient of the mapping there
    double low2[3], high2[3];// samples of box 2 outside [low2, high2] are not data
    double level;
};

struct mpidvc_points {
    mpidvc_box box1, box2;
    const float *sampled1;
    const uint8_t *covered;  // of box 1: 1 = inside the image and not masked; null = all
    const uint8_t *real;     // of box 1: 1 = inside the image; null = all
    const mpidvc_settings *settings;
    int64_t hws[3];
    double min_coverage, grey_low, grey_high;
    double offset[3];        // position in box 2 = position in box 1 + offset + displacement
    int64_t count;
    const int64_t *centre1;  // (count, 3) in box 1
    const double *low2, *high2;  // (count, 3) in box 2
    double *phi;             // (count, 12): rows (F_i0, F_i1, F_i2, t_i), guess in, result out
    double *result;          // (count, 6): error, iterations, returnStatus, deltaPhiNorm, coverage, zncc
};

struct mpidvc_warp {
    mpidvc_box box;
    int order, two_d;
    int64_t n[3];
    double F[9], centre[3];  // of the output block
    double low[3], high[3];
    float *out;              // (n0, n1, n2), contiguous; what lies outside [low, high] becomes 0
};

// Functions return 0, or -1 where there is no memory.
struct mpidvc_kernels {
    const char *name;
    int lanes;
    int (*prefilter)(float *data, int64_t pitch_y, int64_t pitch_z, const int64_t low[3], const int64_t high[3]);
    int (*correlate)(const mpidvc_points *);
    int (*block_sums)(const mpidvc_block *, double *sums);
    int (*warp)(const mpidvc_warp *);
};

extern "C" {
const mpidvc_kernels *mpidvc_kernels_baseline(void);
#ifdef MPIDVC_X86_DISPATCH
const mpidvc_kernels *mpidvc_kernels_avx2(void);
const mpidvc_kernels *mpidvc_kernels_avx512(void);
#endif
}
