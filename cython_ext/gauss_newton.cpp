// Gauss-Newton registration of windows and blocks, compiled once per instruction set (MPIDVC_ISA names the copy).
//
// Method: f(x) = g(Phi x); A = sum r G X, M = sum (G X)(G X)^T with G the gradient of f, Phi <- Phi (I + M^-1 A).
// One pass interpolates a row of window 2, forms the residual and adds the 12 moments of r G, all in registers.
// Along a row the position advances almost by one voxel per voxel, so that a group of lanes has one integer origin,
// or two neighbouring ones per axis: all loads are contiguous, and no gathers are needed.
//
// Everything has internal linkage but the table at the end, and nothing of the C++ library is used: a shared inline
// function could be linked in the copy of another instruction set.
#include "gauss_newton.hpp"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lanes.hpp"

#ifndef MPIDVC_ISA
#define MPIDVC_ISA baseline
#endif

namespace {

typedef int64_t Int;

MPIDVC_INLINE Int smaller(Int a, Int b) { return a < b ? a : b; }
MPIDVC_INLINE Int larger(Int a, Int b) { return a > b ? a : b; }
MPIDVC_INLINE Int clamp(Int i, Int n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }

// ---------------------------------------------------------------------------------------------------- interpolation

// Weights of the taps along one axis (times 6 for the cubic spline). SPLIT: some lanes have passed into the next voxel
// (t in [1, 2)); one tap more, and every lane uses its own run of them.
template <int L, int O, bool SPLIT>
MPIDVC_INLINE void weights(typename Lanes<L>::F t, typename Lanes<L>::F *w) {
    typedef typename Lanes<L>::F V;
    const V zero = {};
    if (O == 1) {
        if (!SPLIT) {
            w[0] = 1.f - t;
            w[1] = t;
        } else {
            const auto next = t >= 1.f;
            const V u = t - 1.f;
            w[0] = next ? zero : 1.f - t;
            w[1] = next ? 1.f - u : t;
            w[2] = next ? u : zero;
        }
    } else {
        const auto next = t >= 1.f;
        if (SPLIT) t = next ? t - 1.f : t;
        const V u = 1.f - t, t2 = t * t, u2 = u * u;
        const V a = u2 * u, d = t2 * t, b = t2 * (3.f * t - 6.f) + 4.f, c = (6.f - a) - (b + d);
        if (!SPLIT) {
            w[0] = a, w[1] = b, w[2] = c, w[3] = d;
        } else {
            w[0] = next ? zero : a;
            w[1] = next ? a : b;
            w[2] = next ? b : c;
            w[3] = next ? c : d;
            w[4] = next ? d : zero;
        }
    }
}

template <int L, int O, int D, bool SZ, bool SY, bool SX>
MPIDVC_INLINE typename Lanes<L>::F interpolate(const float *p, Int py, Int pz, typename Lanes<L>::F tz,
                                               typename Lanes<L>::F ty, typename Lanes<L>::F tx) {
    typedef typename Lanes<L>::F V;
    if (O == 1 && !SZ && !SY && !SX) {
        V row[4];
        MPIDVC_UNROLL
        for (int k = 0; k < (D == 3 ? 4 : 2); k++) {
            const float *q = p + (k >> 1) * pz + (k & 1) * py;
            const V a = load<L>(q), b = load<L>(q + 1);
            row[k] = a + tx * (b - a);
        }
        const V low = row[0] + ty * (row[1] - row[0]);
        if (D == 2) return low;
        const V high = row[2] + ty * (row[3] - row[2]);
        return low + tz * (high - low);
    }
    constexpr int N = O + 1;
    V wz[N + 1], wy[N + 1], wx[N + 1];
    if (D == 3) weights<L, O, SZ>(tz, wz);
    weights<L, O, SY>(ty, wy);
    weights<L, O, SX>(tx, wx);
    V sum = {};
    MPIDVC_UNROLL
    for (int k = 0; k < (D == 3 ? N + SZ : 1); k++) {
        V plane = {};
        MPIDVC_UNROLL
        for (int j = 0; j < N + SY; j++) {
            const float *q = p + k * pz + j * py;
            V line = load<L>(q) * wx[0];
            MPIDVC_UNROLL
            for (int i = 1; i < N + SX; i++) line += load<L>(q + i) * wx[i];
            plane += line * wy[j];
        }
        sum = D == 3 ? sum + plane * wz[k] : plane;
    }
    return sum;
}

enum { GROUPS = 64 };  // rows of more groups are sampled value by value

// Where and how box 2 is sampled: position of voxel x of the region = centre + F (x - (n - 1) / 2).
struct Sampler {
    const float *data, *origin;  // origin: first tap of position (0, 0, 0)
    const uint8_t *valid;
    Int py, pz, shape[3], n[3];
    double F[9], start[3], low[3], high[3];  // start: position of the region's first voxel
    float unit;      // interpolated value = unit * sum of the taps
    bool all_inside; // no sample of the region needs a test
    bool wild;       // positions beyond the range of fixed point: every sample is tested
    bool shift;
    Int index0, index_y, index_z;
    Int base[3], along_z[3], along_y[3], along_x[3];  // fixed point, 32 fractional bits; along_x[2] less one voxel
    float slope[3];
    int lanes;         // widest group that lies in two voxels at most along every axis; 0: single samples
    Axes first[GROUPS], last[GROUPS];  // drift of a group's ends from the row's start, 24 fractional bits
};

const double FIXED = 4294967296.0;

MPIDVC_INLINE Int fixed(double v) { return floor_to_int(v * FIXED + 0.5); }

// Displacement of the sampling point of Shift-DVC: a quarter of a voxel, all signs in turn along the flattened index
// (Wantz et al. 2025, after Su et al. 2019, doi 10.1016/j.optlaseng.2018.10.012).
MPIDVC_INLINE double shift_of(int axis, int two_d, Int index) {
    const int bit = two_d ? (axis == 1 ? 1 : 0) : 2 - axis;
    if (two_d && axis == 0) return 0.0;
    return (index >> bit) & 1 ? 0.25 : -0.25;
}

bool inside(const Sampler &s, const double p[3], int D) {
    for (int a = 3 - D; a < 3; a++)
        if (!(p[a] >= s.low[a] && p[a] <= s.high[a])) return false;
    return true;
}

template <int O, int D> void plan(Sampler &s, const double F[9], const double centre[3]) {
    memcpy(s.F, F, sizeof s.F);
    s.wild = false;
    for (int a = 0; a < 3; a++) {
        double p = centre[a];
        for (int b = 0; b < 3; b++) {
            p -= F[3 * a + b] * 0.5 * (double)(s.n[b] - 1);
            s.wild = s.wild || !(fabs(F[3 * a + b]) * (double)s.n[b] < 1e8);
        }
        s.wild = s.wild || !(fabs(p) < 1e9);
        s.start[a] = a < 3 - D ? 0.0 : p;
    }
    for (int a = 0; a < 3; a++) {
        const double p = s.start[a];
        s.base[a] = a < 3 - D || s.wild ? 0 : fixed(p);
        s.along_z[a] = s.wild ? 0 : fixed(F[3 * a]);
        s.along_y[a] = s.wild ? 0 : fixed(F[3 * a + 1]);
        s.along_x[a] = s.wild ? 0 : fixed(F[3 * a + 2] - (a == 2));
        s.slope[a] = (float)(F[3 * a + 2] - (a == 2));
    }
    double steepest = 0;
    for (int a = 3 - D; a < 3; a++) {
        const double v = fabs(F[3 * a + 2] - (a == 2));
        if (!(v <= steepest)) steepest = v;
    }
    s.lanes = steepest * (WIDE - 1) < 1 ? WIDE : steepest * (NARROW - 1) < 1 ? NARROW : steepest * (QUAD - 1) < 1 ? QUAD : 0;
    const Int groups = (s.n[2] + WIDE - 1) / WIDE;
    if (s.lanes == WIDE && (groups > GROUPS || steepest * (double)s.n[2] > 100)) s.lanes = NARROW;
    if (s.lanes == WIDE)
        for (Int g = 0; g < groups; g++) {
            const Int x = g * WIDE, end = smaller(x + WIDE, s.n[2]) - 1;
            for (int a = 0; a < 4; a++) {
                const Int along = a < 3 - D || a == 3 ? 0 : s.along_x[a];
                s.first[g][a] = (int32_t)(along * x >> 8), s.last[g][a] = (int32_t)(along * end >> 8);
            }
        }
    s.origin = s.data;
    if (O == 3) s.origin -= (D == 3 ? s.pz : 0) + s.py + 1;
    s.unit = O == 1 ? 1.f : D == 3 ? 1.f / 216.f : 1.f / 36.f;
    s.all_inside = !s.valid && !s.shift && !s.wild;
    for (int corner = 0; corner < 8 && s.all_inside; corner++) {
        double p[3];
        for (int a = 0; a < 3; a++) {
            p[a] = s.start[a];
            for (int b = 0; b < 3; b++)
                if (corner >> b & 1) p[a] += F[3 * a + b] * (double)(s.n[b] - 1);
        }
        s.all_inside = inside(s, p, D);
    }
}

// One sample anywhere; taps are kept inside the box. Returns false where the sample is not data.
template <int O, int D> MPIDVC_NOINLINE bool sample(const Sampler &s, const double p[3], float *value) {
    *value = 0.f;
    if (!inside(s, p, D)) return false;
    constexpr int N = O + 1;
    float w[3][4];
    Int tap[3][4];
    for (int a = 3 - D; a < 3; a++) {
        Int i = floor_to_int(p[a]);
        const float t = (float)(p[a] - (double)i), u = 1.f - t;
        if (O == 1) {
            w[a][0] = u, w[a][1] = t;
        } else {
            w[a][0] = u * u * u, w[a][3] = t * t * t;
            w[a][1] = t * t * (3.f * t - 6.f) + 4.f;
            w[a][2] = (6.f - w[a][0]) - (w[a][1] + w[a][3]);
            i--;
        }
        for (int k = 0; k < N; k++) tap[a][k] = clamp(i + k, s.shape[a]);
    }
    float sum = 0.f;
    for (int k = 0; k < (D == 3 ? N : 1); k++) {
        const Int oz = D == 3 ? tap[0][k] * s.pz : 0;
        float plane = 0.f;
        for (int j = 0; j < N; j++) {
            const Int oy = oz + tap[1][j] * s.py;
            float line = 0.f;
            for (int i = 0; i < N; i++) {
                if (s.valid && !s.valid[oy + tap[2][i]] && !(O == 1 && w[2][i] * w[1][j] * (D == 3 ? w[0][k] : 1.f) == 0.f))
                    return false;
                line += s.data[oy + tap[2][i]] * w[2][i];
            }
            plane += line * w[1][j];
        }
        sum += D == 3 ? plane * w[0][k] : plane;
    }
    *value = sum;
    return true;
}

template <int O, int D>
MPIDVC_INLINE void position(const Sampler &s, Int z, Int y, Int x, double p[3]) {
    double q[3] = {(double)z, (double)y, (double)x};
    if (s.shift) {
        const Int index = s.index0 + z * s.index_z + y * s.index_y + x;
        for (int a = 0; a < 3; a++) q[a] += shift_of(a, D == 2, index);
    }
    for (int a = 0; a < 3; a++)
        p[a] = s.start[a] + s.F[3 * a] * q[0] + s.F[3 * a + 1] * q[1] + s.F[3 * a + 2] * q[2];
}

// A row sample by sample: values (in units of s.unit) and weights 0 or 1.
template <int O, int D> MPIDVC_NOINLINE void careful_row(const Sampler &s, Int z, Int y, float *value, float *weight) {
    for (Int x = 0; x < s.n[2]; x++) {
        double p[3];
        position<O, D>(s, z, y, x, p);
        weight[x] = sample<O, D>(s, p, value + x) ? 1.f : 0.f;
    }
}

struct Place {
    const float *p;
    float t[3];
    int split;  // bit a: the group lies in two voxels along axis a
};

template <int L, int O, int D> MPIDVC_INLINE typename Lanes<L>::F group_at(const Sampler &s, const Place &q) {
    typedef typename Lanes<L>::F V;
    const V lane = ramp<L>();
    const Int py = s.py, pz = s.pz;
    V tz = {};
    if (D == 3) tz = lane * s.slope[0] + q.t[0];
    const V ty = lane * s.slope[1] + q.t[1], tx = lane * s.slope[2] + q.t[2];
    switch (q.split) {
        case 0: return interpolate<L, O, D, false, false, false>(q.p, py, pz, tz, ty, tx);
        case 2: return interpolate<L, O, D, false, true, false>(q.p, py, pz, tz, ty, tx);
        case 1: if (D == 3) return interpolate<L, O, D, true, false, false>(q.p, py, pz, tz, ty, tx);
        // fall through
        case 3: if (D == 3) return interpolate<L, O, D, true, true, false>(q.p, py, pz, tz, ty, tx);
        // fall through
        default: return interpolate<L, O, D, true, true, true>(q.p, py, pz, tz, ty, tx);
    }
}

// A row: whole voxels of its first sample, the rest of it (24 fractional bits), and the taps' first address.
struct Row {
    Axes rest;
    const float *p;
};

template <int D> MPIDVC_INLINE Row row_of(const Sampler &s, const Int at[3]) {
    Row row;
    // built in one go: element by element it would pass through memory and stall
    row.rest = Axes{D == 3 ? (int32_t)((uint32_t)at[0] >> 8) : 0, (int32_t)((uint32_t)at[1] >> 8),
                    (int32_t)((uint32_t)at[2] >> 8), 0};
    row.p = s.origin + (D == 3 ? (at[0] >> 32) * s.pz : 0) + (at[1] >> 32) * s.py + (at[2] >> 32);
    return row;
}

// Group g of a row, where plan() found that it lies in two voxels at most along every axis.
template <int D> MPIDVC_INLINE Place place(const Sampler &s, const Row &row, Int g) {
    Place q;
    const Axes first = row.rest + s.first[g], last = row.rest + s.last[g];
    const Axes i = first >> 24, j = last >> 24, low = lower(i, j);
    const AxesF t = to_float(first - (low << 24)) * (1.f / 16777216.f);
    q.split = differ(i, j) & 7;
    q.p = row.p + (D == 3 ? low[0] * s.pz : 0) + low[1] * s.py + low[2] + g * WIDE;
    for (int a = 3 - D; a < 3; a++) q.t[a] = t[a];
    return q;
}

// Values of a row whose samples move fast along it: shorter groups, then single samples.
template <int L, int O, int D> MPIDVC_INLINE void short_groups(const Sampler &s, const Int at[3], float *value) {
    for (Int x = 0; x < s.n[2]; x += L) {
        const Int end = smaller(x + L, s.n[2]) - 1;
        Place q;
        Int low[3] = {0, 0, 0};
        q.split = 0;
        for (int a = 3 - D; a < 3; a++) {
            const Int first = at[a] + s.along_x[a] * x, last = at[a] + s.along_x[a] * end;
            low[a] = smaller(first >> 32, last >> 32);
            if (first >> 32 != last >> 32) q.split |= 1 << a;
            q.t[a] = (float)(first - low[a] * ((Int)1 << 32)) * (float)(1.0 / FIXED);
        }
        q.p = s.origin + (D == 3 ? low[0] * s.pz : 0) + low[1] * s.py + low[2] + x;
        store<L>(value + x, group_at<L, O, D>(s, q));
    }
}

// A row of samples that are all data.
template <int O, int D> MPIDVC_NOINLINE void row_values(const Sampler &s, const Int at[3], float *value) {
    if (s.lanes >= WIDE) {
        const Row row = row_of<D>(s, at);
        for (Int x = 0, g = 0; x < s.n[2]; x += WIDE, g++)
            store<WIDE>(value + x, group_at<WIDE, O, D>(s, place<D>(s, row, g)));
        return;
    }
    if (s.lanes >= NARROW) return short_groups<NARROW, O, D>(s, at, value);
    if (s.lanes >= QUAD) return short_groups<QUAD, O, D>(s, at, value);
    for (Int x = 0; x < s.n[2]; x++) {
        double p[3];
        for (int a = 0; a < 3; a++)
            p[a] = (double)(at[a] + s.along_x[a] * x) * (1.0 / FIXED) + (a == 2 ? (double)x : 0.0);
        sample<O, D>(s, p, value + x);
    }
}

MPIDVC_INLINE bool row_inside(const Sampler &s, Int z, Int y, int D) {
    if (s.all_inside) return true;
    if (s.valid || s.shift || s.wild) return false;
    double p[3];
    for (int end = 0; end < 2; end++) {
        for (int a = 0; a < 3; a++)
            p[a] = s.start[a] + s.F[3 * a] * (double)z + s.F[3 * a + 1] * (double)y +
                   s.F[3 * a + 2] * (double)(end ? s.n[2] - 1 : 0);
        if (!inside(s, p, D)) return false;
    }
    return true;
}

// The whole region into an array: values and, where asked for, weights.
template <int O, int D> void sample_region(const Sampler &s, float *value, float *weight, Int pitch, float *scratch) {
    for (Int z = 0; z < s.n[0]; z++)
        for (Int y = 0; y < s.n[1]; y++) {
            float *v = value + (z * s.n[1] + y) * pitch, *w = weight + (z * s.n[1] + y) * pitch;
            memset(w, 0, sizeof(float) * pitch);
            if (row_inside(s, z, y, D)) {
                Int at[3];
                for (int a = 0; a < 3; a++) at[a] = s.base[a] + z * s.along_z[a] + y * s.along_y[a];
                row_values<O, D>(s, at, scratch);
                for (Int x = 0; x < s.n[2]; x++) v[x] = scratch[x] * s.unit, w[x] = 1.f;
            } else {
                careful_row<O, D>(s, z, y, v, w);
                for (Int x = 0; x < s.n[2]; x++) v[x] *= s.unit;
            }
        }
}

// ------------------------------------------------------------------------------------------------- reference window

typedef Lanes<WIDE>::F Wide;

// Window 1, rows padded with zeros to a multiple of 8: f0 and the gradients are 0 wherever there is no data.
struct Window {
    Int n[3], pitch, rows;
    float *f, *gz, *gy, *gx, *w, *now;  // w: weights of window 1; now: those of the last pass, where samples fell out
    float *warped, *warped_weight;      // update_gradient: window 2 with a frame of gradient_reach
    float *residual;                    // update_gradient
    float *hz, *hy, *hx;                // Gaussian gradients: central differences beside them, for M
    Int frame[3], frame_pitch;
    float *row, *scratch;
    bool weighted;                      // some w are 0
    double level;
    void *memory;
};

// What gradients need around the compared voxels; one more where Shift-DVC takes them beside the voxels.
MPIDVC_INLINE Int frame_of(const mpidvc_settings &set) { return set.gradient_reach + (set.shift ? 1 : 0); }

bool allocate(Window &win, const Int n[3], const mpidvc_settings &set) {
    memcpy(win.n, n, sizeof win.n);
    win.pitch = (n[2] + 7) / 8 * 8;
    win.rows = n[0] * n[1];
    const Int size = win.rows * win.pitch + 64;
    for (int a = 0; a < 3; a++)
        win.frame[a] = set.update_gradient ? n[a] + (set.two_d && a == 0 ? 0 : 2 * frame_of(set)) : 0;
    win.frame_pitch = (win.frame[2] + 7) / 8 * 8;
    const Int frame = win.frame[0] * win.frame[1] * win.frame_pitch + 64;
    const Int line = larger(win.pitch, win.frame_pitch) + 64;
    float *p = (float *)calloc(1, sizeof(float) * ((set.gauss ? 10 : 7) * size + 2 * frame + 3 * line));
    win.memory = p;
    if (!p) return false;
    win.f = p, win.gz = p + size, win.gy = p + 2 * size, win.gx = p + 3 * size, win.w = p + 4 * size;
    win.now = p + 5 * size;
    win.warped = p + 6 * size, win.warped_weight = win.warped + frame;
    win.row = win.warped_weight + frame, win.scratch = win.row + 2 * line;
    win.residual = win.scratch + line;
    win.hz = win.hy = win.hx = 0;
    if (set.gauss) win.hz = win.residual + size, win.hy = win.hz + size, win.hx = win.hy + size;
    return true;
}

// Central differences of the n voxels from src on (a frame of 1 must exist).
void central_differences(const float *src, Int py, Int pz, const Int n[3], bool two_d, float *gz, float *gy, float *gx,
                         Int pitch) {
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) {
            const float *p = src + z * pz + y * py;
            const Int o = (z * n[1] + y) * pitch;
            if (!two_d)
                for (Int x = 0; x < n[2]; x++) gz[o + x] = 0.5f * (p[x + pz] - p[x - pz]);
            for (Int x = 0; x < n[2]; x++) gy[o + x] = 0.5f * (p[x + py] - p[x - py]);
            for (Int x = 0; x < n[2]; x++) gx[o + x] = 0.5f * (p[x + 1] - p[x - 1]);
        }
}

// Gradients by the settings' method: central differences, or separable Gaussian derivatives (a frame of `reach`).
int gradients(const float *src, Int py, Int pz, const Int n[3], const mpidvc_settings &set, float *gz, float *gy,
              float *gx, Int pitch) {
    if (!set.gauss) {
        central_differences(src, py, pz, n, set.two_d, gz, gy, gx, pitch);
        return 0;
    }
    const Int reach = set.gradient_reach, ny = n[1] + 2 * reach, nx = n[2] + 2 * reach;
    const Int full = n[0] * ny * nx, half = n[0] * n[1] * nx;
    float *p = (float *)calloc(1, sizeof(float) * (2 * full + 3 * half));
    if (!p) return -1;
    float *smooth_z = p, *slope_z = p + full, *a = slope_z + full, *b = a + half, *c = b + half;
    const float *first = src - (set.two_d ? 0 : reach * pz) - reach * py - reach;
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < ny; y++) {
            float *s = smooth_z + (z * ny + y) * nx, *d = slope_z + (z * ny + y) * nx;
            for (Int k = 0; k < (set.two_d ? 1 : 2 * reach + 1); k++) {
                const float *q = first + (z + k) * pz + y * py;
                const float ws = set.two_d ? 1.f : (float)set.gauss[k];
                const float wd = set.two_d ? 0.f : (float)set.gauss_derivative[k];
                for (Int x = 0; x < nx; x++) s[x] += ws * q[x];
                for (Int x = 0; x < nx; x++) d[x] += wd * q[x];
            }
        }
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) {
            const Int o = (z * n[1] + y) * nx;
            for (Int k = 0; k <= 2 * reach; k++) {
                const float *s = smooth_z + (z * ny + y + k) * nx, *d = slope_z + (z * ny + y + k) * nx;
                const float ws = (float)set.gauss[k], wd = (float)set.gauss_derivative[k];
                for (Int x = 0; x < nx; x++) a[o + x] += ws * d[x];
                for (Int x = 0; x < nx; x++) b[o + x] += wd * s[x];
                for (Int x = 0; x < nx; x++) c[o + x] += ws * s[x];
            }
        }
    for (Int r = 0; r < n[0] * n[1]; r++)
        for (Int x = 0; x < n[2]; x++) {
            float s = 0.f, t = 0.f, u = 0.f;
            for (Int k = 0; k <= 2 * reach; k++) {
                s += (float)set.gauss[k] * a[r * nx + x + k];
                t += (float)set.gauss[k] * b[r * nx + x + k];
                u += (float)set.gauss_derivative[k] * c[r * nx + x + k];
            }
            gz[r * pitch + x] = s, gy[r * pitch + x] = t, gx[r * pitch + x] = u;
        }
    free(p);
    return 0;
}

// Shift-DVC: the gradients where the samples are, by linear interpolation between the voxels' own.
int shifted_gradients(const float *src, Int py, Int pz, const Int n[3], const mpidvc_settings &set, const Int index[3],
                      float *gz, float *gy, float *gx, Int pitch) {
    const int D = set.two_d ? 2 : 3;
    Int frame[3], edge[3];
    for (int a = 0; a < 3; a++) {
        edge[a] = a < 3 - D ? 0 : 1;
        frame[a] = n[a] + 2 * edge[a];
    }
    const Int plane = frame[1] * frame[2], size = frame[0] * plane;
    float *p = (float *)calloc(3, sizeof(float) * size);
    if (!p) return -1;
    float *const out[3] = {gz, gy, gx};
    int failed = gradients(src - edge[0] * pz - edge[1] * py - edge[2], py, pz, frame, set, p, p + size, p + 2 * size,
                           frame[2]);
    for (Int z = 0; z < n[0] && !failed; z++)
        for (Int y = 0; y < n[1]; y++)
            for (Int x = 0; x < n[2]; x++) {
                const Int k = index[0] + z * index[2] + y * index[1] + x;
                const Int step[3] = {plane, frame[2], 1};
                Int near = (z + edge[0]) * plane + (y + edge[1]) * frame[2] + x + edge[2], towards[3];
                for (int a = 0; a < 3; a++) {
                    const double s = shift_of(a, set.two_d, k);
                    towards[a] = s > 0 ? step[a] : s < 0 ? -step[a] : 0;
                }
                for (int g = 0; g < 3; g++) {
                    float v = 0.f;
                    for (int corner = 0; corner < 8; corner++) {
                        Int at = near;
                        float w = 1.f;
                        for (int a = 0; a < 3; a++) {
                            at += corner >> a & 1 ? towards[a] : 0;
                            w *= corner >> a & 1 ? 0.25f : 0.75f;
                        }
                        v += w * p[g * size + at];
                    }
                    out[g][(z * n[1] + y) * pitch + x] = v;
                }
            }
    free(p);
    return failed;
}

void apply_weights(Window &win, const float *w) {
    for (Int i = 0; i < win.rows * win.pitch; i++) {
        win.f[i] *= w[i];
        win.gz[i] *= w[i];
        win.gy[i] *= w[i];
        win.gx[i] *= w[i];
    }
    if (win.hz)
        for (Int i = 0; i < win.rows * win.pitch; i++) {
            win.hz[i] *= w[i];
            win.hy[i] *= w[i];
            win.hx[i] *= w[i];
        }
}

// Reads window 1: f0 = f - level (level NaN: the window's own mean), gradients, weights; N, F and FF of the sums.
int read_window(Window &win, const mpidvc_box &box, const float *sampled, const Int low[3], const mpidvc_settings &set,
                double level, const Int index[3], double *sums) {
    const Int *n = win.n, pitch = win.pitch;
    const Int origin = low[0] * box.pitch_z + low[1] * box.pitch_y + low[2];
    const float *src = box.data + origin;
    if (set.shift ? shifted_gradients(src, box.pitch_y, box.pitch_z, n, set, index, win.gz, win.gy, win.gx, pitch)
                  : gradients(src, box.pitch_y, box.pitch_z, n, set, win.gz, win.gy, win.gx, pitch))
        return -1;
    if (win.hz) central_differences(src, box.pitch_y, box.pitch_z, n, set.two_d, win.hz, win.hy, win.hx, pitch);
    Int voxels = n[0] * n[1] * n[2];
    win.weighted = false;
    if (set.shift) {
        Sampler s = {};
        s.data = sampled, s.py = box.pitch_y, s.pz = box.pitch_z, s.shift = true;
        s.index0 = index[0], s.index_y = index[1], s.index_z = index[2];
        const double unit[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
        double centre[3];
        for (int a = 0; a < 3; a++) {
            s.shape[a] = box.shape[a], s.n[a] = n[a];
            s.low[a] = 0, s.high[a] = (double)box.shape[a] - 1;
            centre[a] = (double)low[a] + 0.5 * (double)(n[a] - 1);
        }
        if (set.order == 3)
            set.two_d ? plan<3, 2>(s, unit, centre) : plan<3, 3>(s, unit, centre);
        else
            set.two_d ? plan<1, 2>(s, unit, centre) : plan<1, 3>(s, unit, centre);
        if (set.order == 3)
            set.two_d ? sample_region<3, 2>(s, win.f, win.w, pitch, win.scratch)
                      : sample_region<3, 3>(s, win.f, win.w, pitch, win.scratch);
        else
            set.two_d ? sample_region<1, 2>(s, win.f, win.w, pitch, win.scratch)
                      : sample_region<1, 3>(s, win.f, win.w, pitch, win.scratch);
    } else {
        for (Int z = 0; z < n[0]; z++)
            for (Int y = 0; y < n[1]; y++)
                memcpy(win.f + (z * n[1] + y) * pitch, src + z * box.pitch_z + y * box.pitch_y, sizeof(float) * n[2]);
    }
    if (box.valid) {
        voxels = 0;
        for (Int z = 0; z < n[0]; z++)
            for (Int y = 0; y < n[1]; y++) {
                const uint8_t *v = box.valid + origin + z * box.pitch_z + y * box.pitch_y;
                float *w = win.w + (z * n[1] + y) * pitch;
                for (Int x = 0; x < n[2]; x++) w[x] = v[x] ? 1.f : 0.f;
                for (Int x = 0; x < n[2]; x++) voxels += v[x] != 0;
            }
        win.weighted = voxels != n[0] * n[1] * n[2];
    }
    if (win.weighted) apply_weights(win, win.w);
    if (level != level) {
        double sum = 0;
        for (Int z = 0; z < n[0]; z++) {
            Wide plane = {};
            for (Int y = 0; y < n[1]; y++) {
                const float *f = win.f + (z * n[1] + y) * pitch;
                Int x = 0;
                for (; x + WIDE <= n[2]; x += WIDE) plane += load<WIDE>(f + x);
                if (x < n[2]) plane += first_lanes<WIDE>(load<WIDE>(f + x), n[2] - x);
            }
            sum += total(plane);
        }
        level = voxels ? sum / (double)voxels : 0.0;
    }
    const float minus = (float)level;
    double s1 = 0, s2 = 0;
    for (Int z = 0; z < n[0]; z++) {
        Wide one = {}, two = {};
        for (Int y = 0; y < n[1]; y++) {
            float *f = win.f + (z * n[1] + y) * pitch;
            const float *w = win.w + (z * n[1] + y) * pitch;
            if (win.weighted)
                for (Int x = 0; x < n[2]; x++) f[x] -= minus * w[x];
            else
                for (Int x = 0; x < n[2]; x++) f[x] -= minus;
            for (Int x = 0; x < n[2]; x += WIDE) {
                const Wide v = first_lanes<WIDE>(load<WIDE>(f + x), n[2] - x);
                one += v, two += v * v;
            }
        }
        s1 += total(one), s2 += total(two);
    }
    win.level = (double)minus;
    sums[MPIDVC_N] = (double)voxels, sums[MPIDVC_F] = s1, sums[MPIDVC_FF] = s2;
    return 0;
}

// ------------------------------------------------------------------------------------------------------ moment sums

// The 60 sums of products of gradients; w (or null) is applied to them. CROSS: products of the Gaussian gradient with
// the central differences. The residual changes with the texture's own slope, which smoothing flattens: the square of
// the smooth gradient would make every step too long by as much.
template <bool CROSS> void products_of(const Window &win, const float *w, double *out) {
    const Int *n = win.n;
    const double half[3] = {0.5 * (double)(n[0] - 1), 0.5 * (double)(n[1] - 1), 0.5 * (double)(n[2] - 1)};
    const Wide lane = ramp<WIDE>();
    double acc[10][6];
    memset(acc, 0, sizeof acc);
    for (Int z = 0; z < n[0]; z++) {
        // one plane in single precision, planes are added in double
        Wide p0[6] = {}, px[6] = {}, pxx[6] = {}, py[6] = {}, pyy[6] = {}, pyx[6] = {};
        for (Int y = 0; y < n[1]; y++) {
            const Int o = (z * n[1] + y) * win.pitch;
            Wide r0[6] = {}, rx[6] = {}, rxx[6] = {};
            for (Int x = 0; x < n[2]; x += WIDE) {
                Wide a = load<WIDE>(win.gz + o + x), b = load<WIDE>(win.gy + o + x), c = load<WIDE>(win.gx + o + x);
                if (w) {
                    const Wide v = load<WIDE>(w + o + x);
                    a *= v, b *= v, c *= v;
                }
                Wide p = a, q = b, r = c;
                if (CROSS) p = load<WIDE>(win.hz + o + x), q = load<WIDE>(win.hy + o + x), r = load<WIDE>(win.hx + o + x);
                const Wide at = lane + (float)((double)x - half[2]);
                Wide product[6] = {a * p, a * q, a * r, b * q, b * r, c * r};
                if (CROSS) {
                    product[1] = 0.5f * (product[1] + b * p);
                    product[2] = 0.5f * (product[2] + c * p);
                    product[4] = 0.5f * (product[4] + c * q);
                }
                MPIDVC_UNROLL
                for (int i = 0; i < 6; i++) {
                    r0[i] += product[i];
                    const Wide t = product[i] * at;
                    rx[i] += t;
                    rxx[i] += t * at;
                }
            }
            const float dy = (float)((double)y - half[1]);
            MPIDVC_UNROLL
            for (int i = 0; i < 6; i++) {
                const Wide t = r0[i] * dy;
                p0[i] += r0[i], px[i] += rx[i], pxx[i] += rxx[i];
                py[i] += t, pyy[i] += t * dy, pyx[i] += rx[i] * dy;
            }
        }
        const double dz = (double)z - half[0];
        for (int i = 0; i < 6; i++) {
            const double s0 = total(p0[i]), sy = total(py[i]), sx = total(px[i]);
            acc[0][i] += s0;
            acc[1][i] += s0 * dz;
            acc[2][i] += sy;
            acc[3][i] += sx;
            acc[4][i] += s0 * dz * dz;
            acc[5][i] += sy * dz;
            acc[6][i] += sx * dz;
            acc[7][i] += total(pyy[i]);
            acc[8][i] += total(pyx[i]);
            acc[9][i] += total(pxx[i]);
        }
    }
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 10; k++) out[10 * i + k] = acc[k][i];
}

void gradient_products(const Window &win, const float *w, double *out) {
    if (win.hz)
        products_of<true>(win, w, out);
    else
        products_of<false>(win, w, out);
}

// sum r G X (r null: ones; w null: ones).
void gradient_moments(const Window &win, const float *gz, const float *gy, const float *gx, const float *r,
                      const float *w, double out[12]) {
    const Int *n = win.n;
    const Wide lane = ramp<WIDE>();
    memset(out, 0, 12 * sizeof(double));
    for (Int z = 0; z < n[0]; z++) {
        Wide p0[3] = {}, py[3] = {}, px[3] = {};
        for (Int y = 0; y < n[1]; y++) {
            const Int o = (z * n[1] + y) * win.pitch;
            const float dy = (float)((double)y - 0.5 * (double)(n[1] - 1));
            Wide r0[3] = {};
            for (Int x = 0; x < n[2]; x += WIDE) {
                Wide g[3] = {load<WIDE>(gz + o + x), load<WIDE>(gy + o + x), load<WIDE>(gx + o + x)};
                Wide v = {};
                v += 1.f;
                if (r) v = load<WIDE>(r + o + x);
                if (w) v *= load<WIDE>(w + o + x);
                const Wide at = lane + (float)((double)x - 0.5 * (double)(n[2] - 1));
                for (int i = 0; i < 3; i++) {
                    const Wide t = g[i] * v;
                    r0[i] += t;
                    px[i] += t * at;
                }
            }
            for (int i = 0; i < 3; i++) p0[i] += r0[i], py[i] += r0[i] * dy;
        }
        const double dz = (double)z - 0.5 * (double)(n[0] - 1);
        for (int i = 0; i < 3; i++) {
            const double s0 = total(p0[i]);
            out[4 * i] += s0 * dz;
            out[4 * i + 1] += total(py[i]);
            out[4 * i + 2] += total(px[i]);
            out[4 * i + 3] += s0;
        }
    }
}

// Sums of f0 alone over the voxels with weight w, and what follows from the weights.
void window_sums(const Window &win, const float *w, bool znssd, double *sums) {
    double n = 0, s1 = 0, s2 = 0;
    for (Int r = 0; r < win.rows; r++) {
        Wide c = {}, one = {}, two = {};
        for (Int x = 0; x < win.pitch; x += WIDE) {
            const Int o = r * win.pitch + x;
            const Wide v = load<WIDE>(w + o), f = load<WIDE>(win.f + o) * v;
            c += v, one += f, two += f * f;
        }
        n += total(c), s1 += total(one), s2 += total(two);
    }
    sums[MPIDVC_N] = n, sums[MPIDVC_F] = s1, sums[MPIDVC_FF] = s2;
    gradient_products(win, w, sums + MPIDVC_M);
    if (znssd) {
        gradient_moments(win, win.gz, win.gy, win.gx, win.f, w, sums + MPIDVC_C);
        gradient_moments(win, win.gz, win.gy, win.gx, 0, w, sums + MPIDVC_D);
    }
}

// --------------------------------------------------------------------------------------------- the Gauss-Newton pass

// Sums of a pass in registers: of a row, of the plane so far, and of the planes since the last fold.
struct Sums {
    Wide row[3], plane[3], y[3], x[3], rr, r, fr;
};

MPIDVC_INLINE void add_group(Sums &s, const Window &win, Int o, Int x, Wide r, Wide f, bool moments, float half) {
    s.rr += r * r;
    s.r += r;
    s.fr += f * r;
    if (moments) {
        const Wide at = ramp<WIDE>() + ((float)x - half);
        const Wide a = r * load<WIDE>(win.gz + o + x), b = r * load<WIDE>(win.gy + o + x),
                   c = r * load<WIDE>(win.gx + o + x);
        s.row[0] += a, s.row[1] += b, s.row[2] += c;
        s.x[0] += a * at, s.x[1] += b * at, s.x[2] += c * at;
    }
}

MPIDVC_INLINE void start(Sums &s, double *sums) {
    const Wide zero = {};
    for (int i = 0; i < 3; i++) s.row[i] = s.plane[i] = s.y[i] = s.x[i] = zero;
    s.rr = s.r = s.fr = zero;
    for (int i = MPIDVC_R; i <= MPIDVC_FR; i++) sums[i] = 0;
    for (int i = 0; i < 12; i++) sums[MPIDVC_A + i] = 0;
}

MPIDVC_INLINE void end_row(Sums &s, float dy) {
    const Wide zero = {};
    for (int i = 0; i < 3; i++) {
        s.plane[i] += s.row[i];
        s.y[i] += s.row[i] * dy;
        s.row[i] = zero;
    }
}

MPIDVC_INLINE void fold(Sums &s, double *sums) {
    const Wide zero = {};
    for (int i = 0; i < 3; i++) {
        sums[MPIDVC_A + 4 * i + 1] += total(s.y[i]);
        sums[MPIDVC_A + 4 * i + 2] += total(s.x[i]);
        s.y[i] = s.x[i] = zero;
    }
    sums[MPIDVC_R] += total(s.r);
    sums[MPIDVC_RR] += total(s.rr);
    sums[MPIDVC_FR] += total(s.fr);
    s.rr = s.r = s.fr = zero;
}

// Planes are added in double; other sums every so many voxels.
MPIDVC_INLINE void end_plane(Sums &s, Int z, const Int n[3], double *sums) {
    const Wide zero = {};
    const double dz = (double)z - 0.5 * (double)(n[0] - 1);
    for (int i = 0; i < 3; i++) {
        const double p = total(s.plane[i]);
        sums[MPIDVC_A + 4 * i] += p * dz;
        sums[MPIDVC_A + 4 * i + 3] += p;
        s.plane[i] = zero;
    }
    if (z + 1 == n[0] || (z + 1) % larger(1, 16384 / (n[1] * n[2])) == 0) fold(s, sums);
}

// R, RR, FR and (MOMENTS) A of the sums, where all samples are data: interpolation and sums in one go.
template <int O, int D, bool W, bool MOMENTS>
void fused_pass(const Window &win, const Sampler &s, float gain, float bias, double *sums) {
    const Int n0 = win.n[0], n1 = win.n[1], n2 = win.n[2], pitch = win.pitch;
    const float unit = s.unit * gain, half = 0.5f * (float)(n2 - 1);
    const Int whole = n2 / WIDE * WIDE, rest = n2 - whole;
    const Int step[3] = {s.along_y[0], s.along_y[1], s.along_y[2]};
    Sums acc;
    start(acc, sums);
    Int o = 0;
    for (Int z = 0; z < n0; z++) {
        Int at[3] = {s.base[0] + z * s.along_z[0], s.base[1] + z * s.along_z[1], s.base[2] + z * s.along_z[2]};
        for (Int y = 0; y < n1; y++, o += pitch, at[0] += step[0], at[1] += step[1], at[2] += step[2]) {
            const Row row = row_of<D>(s, at);
            Int x = 0, g = 0;
            for (; x < whole; x += WIDE, g++) {
                const Wide f = load<WIDE>(win.f + o + x);
                Wide r = f - (group_at<WIDE, O, D>(s, place<D>(s, row, g)) * unit + bias);
                if (W) r *= load<WIDE>(win.w + o + x);
                add_group(acc, win, o, x, r, f, MOMENTS, half);
            }
            if (rest) {
                const Place q = place<D>(s, row, g);
                const Wide v = rest <= NARROW ? Widen<WIDE, NARROW>::of(group_at<NARROW, O, D>(s, q))
                                              : group_at<WIDE, O, D>(s, q);
                const Wide f = load<WIDE>(win.f + o + x);
                Wide r = first_lanes<WIDE>(f - (v * unit + bias), rest);
                if (W) r *= load<WIDE>(win.w + o + x);
                add_group(acc, win, o, x, r, f, MOMENTS, half);
            }
            end_row(acc, (float)y - 0.5f * (float)(n1 - 1));
        }
        end_plane(acc, z, win.n, sums);
    }
}

// The same where samples may be no data or move fast along a row. win.now gets the weights of this pass; returns their
// sum.
template <int O, int D> double careful_pass(const Window &win, const Sampler &s, float gain, float bias, double *sums) {
    const Int *n = win.n;
    const float unit = s.unit * gain, half = 0.5f * (float)(n[2] - 1);
    float *const value = win.row, *const weight = win.row + (larger(win.pitch, win.frame_pitch) + 64);
    double count = 0;
    Sums acc;
    start(acc, sums);
    for (Int z = 0; z < n[0]; z++) {
        for (Int y = 0; y < n[1]; y++) {
            const Int o = (z * n[1] + y) * win.pitch;
            float *now = win.now + o;
            if (row_inside(s, z, y, D)) {
                const Int at[3] = {s.base[0] + z * s.along_z[0] + y * s.along_y[0],
                                   s.base[1] + z * s.along_z[1] + y * s.along_y[1],
                                   s.base[2] + z * s.along_z[2] + y * s.along_y[2]};
                row_values<O, D>(s, at, value);
                for (Int x = 0; x < n[2]; x++) now[x] = win.weighted ? win.w[o + x] : 1.f;
            } else {
                careful_row<O, D>(s, z, y, value, weight);
                for (Int x = 0; x < n[2]; x++) now[x] = win.weighted ? win.w[o + x] * weight[x] : weight[x];
            }
            for (Int x = 0; x < n[2]; x++) count += (double)now[x];
            for (Int x = 0; x < n[2]; x += WIDE) {
                const Wide f = load<WIDE>(win.f + o + x);
                const Wide r = first_lanes<WIDE>(f - (load<WIDE>(value + x) * unit + bias), n[2] - x);
                add_group(acc, win, o, x, r * load<WIDE>(now + x), f, true, half);
            }
            end_row(acc, (float)y - 0.5f * (float)(n[1] - 1));
        }
        end_plane(acc, z, n, sums);
    }
    return count;
}

// Whether gradients at p touch data only: neighbours along the axes, or the whole cube.
bool all_data(const float *weight, Int p, Int pitch, Int plane, Int reach, bool cube, int D) {
    const Int rz = D == 3 ? reach : 0;
    for (Int z = -rz; z <= rz; z++)
        for (Int y = -reach; y <= reach; y++)
            for (Int x = -reach; x <= reach; x++)
                if ((cube || (z != 0) + (y != 0) + (x != 0) <= 1) && !(weight[p + z * plane + y * pitch + x] > 0.f))
                    return false;
    return true;
}

// The same with the gradient of the deformed image: all sums of this iteration, M, C and D included.
template <int O, int D>
int pass_updating_gradient(Window &win, const Sampler &inner, const mpidvc_settings &set, float gain, float bias,
                           double *sums, double *compared) {
    Sampler s = inner;
    const Int reach = frame_of(set), pitch = win.frame_pitch;
    const Int edge[3] = {D == 3 ? reach : 0, reach, reach};
    const Int index[3] = {inner.index0, inner.index_y, inner.index_z};
    double centre[3];
    for (int a = 0; a < 3; a++) {
        s.n[a] = win.frame[a];
        centre[a] = inner.start[a];
        for (int b = 0; b < 3; b++) centre[a] += inner.F[3 * a + b] * 0.5 * (double)(inner.n[b] - 1);
    }
    s.shift = false;
    plan<O, D>(s, inner.F, centre);
    sample_region<O, D>(s, win.warped, win.warped_weight, pitch, win.scratch);
    for (Int i = 0; i < win.frame[0] * win.frame[1] * pitch; i++)
        win.warped[i] = win.warped_weight[i] > 0.f ? win.warped[i] * gain + bias : 0.f;
    const Int plane = win.frame[1] * pitch, first = edge[0] * plane + edge[1] * pitch + edge[2];
    if (set.shift
            ? shifted_gradients(win.warped + first, pitch, plane, win.n, set, index, win.gz, win.gy, win.gx, win.pitch)
            : gradients(win.warped + first, pitch, plane, win.n, set, win.gz, win.gy, win.gx, win.pitch))
        return -1;
    if (win.hz)
        central_differences(win.warped + first, pitch, plane, win.n, set.two_d, win.hz, win.hy, win.hx, win.pitch);
    for (Int z = 0; z < win.n[0]; z++)
        for (Int y = 0; y < win.n[1]; y++) {
            const Int o = (z * win.n[1] + y) * win.pitch;
            const Int p = first + z * plane + y * pitch;
            for (Int x = 0; x < win.n[2]; x++) {
                bool data = !win.weighted || win.w[o + x] > 0.f;
                if (data && !s.all_inside)
                    data = all_data(win.warped_weight, p + x, pitch, plane, reach, set.gauss || set.shift, D);
                win.now[o + x] = data ? 1.f : 0.f;
            }
        }
    // the residual, row by row; Shift-DVC takes its samples beside the voxels
    float *r = win.residual;
    double n = 0, s1 = 0, s2 = 0, r1 = 0, r2 = 0, fr = 0;
    for (Int z = 0; z < win.n[0]; z++)
        for (Int y = 0; y < win.n[1]; y++) {
            const Int o = (z * win.n[1] + y) * win.pitch;
            const float *value = win.warped + first + z * plane + y * pitch;
            if (set.shift) {
                float *weight = win.row + (larger(win.pitch, win.frame_pitch) + 64);
                careful_row<O, D>(inner, z, y, win.row, weight);
                for (Int x = 0; x < win.n[2]; x++) {
                    win.row[x] = win.row[x] * inner.unit * gain + bias;
                    win.now[o + x] *= weight[x];
                }
                value = win.row;
            }
            for (Int x = 0; x < win.n[2]; x++) {
                const double w = (double)win.now[o + x], f = (double)win.f[o + x] * w;
                const double d = w * ((double)win.f[o + x] - (double)value[x]);
                r[o + x] = (float)d;
                n += w, s1 += f, s2 += f * f, r1 += d, r2 += d * d, fr += f * d;
            }
        }
    sums[MPIDVC_N] = n, sums[MPIDVC_F] = s1, sums[MPIDVC_FF] = s2;
    sums[MPIDVC_R] = r1, sums[MPIDVC_RR] = r2, sums[MPIDVC_FR] = fr;
    gradient_moments(win, win.gz, win.gy, win.gx, r, 0, sums + MPIDVC_A);
    gradient_products(win, win.now, sums + MPIDVC_M);
    if (set.znssd) {
        gradient_moments(win, win.gz, win.gy, win.gx, win.f, win.now, sums + MPIDVC_C);
        gradient_moments(win, win.gz, win.gy, win.gx, 0, win.now, sums + MPIDVC_D);
    }
    *compared = n;
    return 0;
}

template <int O, int D>
int one_pass(Window &win, Sampler &s, const mpidvc_settings &set, const double F[9], const double centre[3], double gain,
             double bias, bool moments, double *sums, double *compared) {
    plan<O, D>(s, F, centre);
    if (set.update_gradient) return pass_updating_gradient<O, D>(win, s, set, (float)gain, (float)bias, sums, compared);
    const float a = (float)gain, b = (float)bias;
    if (!s.all_inside || s.lanes != WIDE) {
        *compared = careful_pass<O, D>(win, s, a, b, sums);
    } else if (win.weighted) {
        moments ? fused_pass<O, D, true, true>(win, s, a, b, sums) : fused_pass<O, D, true, false>(win, s, a, b, sums);
    } else {
        moments ? fused_pass<O, D, false, true>(win, s, a, b, sums) : fused_pass<O, D, false, false>(win, s, a, b, sums);
    }
    return 0;
}

int any_pass(Window &win, Sampler &s, const mpidvc_settings &set, const double F[9], const double centre[3], double gain,
             double bias, bool moments, double *sums, double *compared) {
    if (set.order == 1)
        return set.two_d ? one_pass<1, 2>(win, s, set, F, centre, gain, bias, moments, sums, compared)
                         : one_pass<1, 3>(win, s, set, F, centre, gain, bias, moments, sums, compared);
    return set.two_d ? one_pass<3, 2>(win, s, set, F, centre, gain, bias, moments, sums, compared)
                     : one_pass<3, 3>(win, s, set, F, centre, gain, bias, moments, sums, compared);
}

Sampler sampler_of(const mpidvc_box &box, const Window &win, const double low[3], const double high[3]) {
    Sampler s = {};
    s.data = box.data, s.valid = box.valid, s.py = box.pitch_y, s.pz = box.pitch_z;
    for (int a = 0; a < 3; a++) {
        s.shape[a] = box.shape[a], s.n[a] = win.n[a];
        s.low[a] = low[a] - 1e-6, s.high[a] = high[a] + 1e-6;
    }
    return s;
}

int block_sums(const mpidvc_block *block, double *sums) {
    const mpidvc_settings &set = *block->settings;
    memset(sums, 0, sizeof(double) * MPIDVC_SUMS);
    Window win = {};
    if (!allocate(win, block->n, set)) return -1;
    const Int index[3] = {block->index0, block->index_y, block->index_z};
    int failed = read_window(win, block->box1, block->sampled1, block->low1, set, block->level, index, sums);
    if (!failed) {
        Sampler s = sampler_of(block->box2, win, block->low2, block->high2);
        s.shift = set.shift != 0;
        s.index0 = index[0], s.index_y = index[1], s.index_z = index[2];
        double compared = sums[MPIDVC_N];
        failed = any_pass(win, s, set, block->F, block->centre2, set.gain, set.bias - block->level, true, sums,
                          &compared);
        if (!failed && !set.update_gradient) {
            if (compared != sums[MPIDVC_N]) {
                window_sums(win, win.now, set.znssd, sums);
            } else {
                gradient_products(win, 0, sums + MPIDVC_M);
                if (set.znssd) {
                    gradient_moments(win, win.gz, win.gy, win.gx, win.f, 0, sums + MPIDVC_C);
                    gradient_moments(win, win.gz, win.gy, win.gx, 0, 0, sums + MPIDVC_D);
                }
            }
        }
    }
    free(win.memory);
    return failed;
}

// ------------------------------------------------------------------------------------------------------ small algebra

double determinant(const double F[9]) {
    return F[0] * (F[4] * F[8] - F[5] * F[7]) - F[1] * (F[3] * F[8] - F[5] * F[6]) + F[2] * (F[3] * F[7] - F[4] * F[6]);
}

// Rotation of the polar decomposition F = R U (Higham's Newton iteration, doi 10.1137/0907079).
bool rotation_of(const double F[9], double R[9]) {
    memcpy(R, F, 9 * sizeof(double));
    for (int k = 0; k < 50; k++) {
        const double det = determinant(R);
        if (!(fabs(det) > 1e-300)) return false;
        const double T[9] = {  // inverse transposed
            (R[4] * R[8] - R[5] * R[7]) / det, (R[5] * R[6] - R[3] * R[8]) / det, (R[3] * R[7] - R[4] * R[6]) / det,
            (R[2] * R[7] - R[1] * R[8]) / det, (R[0] * R[8] - R[2] * R[6]) / det, (R[1] * R[6] - R[0] * R[7]) / det,
            (R[1] * R[5] - R[2] * R[4]) / det, (R[2] * R[3] - R[0] * R[5]) / det, (R[0] * R[4] - R[1] * R[3]) / det};
        double change = 0;
        for (int i = 0; i < 9; i++) {
            const double v = 0.5 * (R[i] + T[i]);
            change += fabs(v - R[i]);
            R[i] = v;
        }
        if (change < 1e-15) break;
    }
    return determinant(R) > 0;
}

// M (m x m, symmetric, positive definite) x = b in place by Cholesky with unit diagonal; false where M is singular.
bool solve(double *M, double *b, int m) {
    double scale[12];
    for (int i = 0; i < m; i++) {
        const double d = M[i * m + i];
        if (!(d > 0) || d > 1e300) return false;
        scale[i] = 1.0 / sqrt(d);
    }
    for (int i = 0; i < m; i++) {
        b[i] *= scale[i];
        for (int j = 0; j < m; j++) M[i * m + j] *= scale[i] * scale[j];
    }
    for (int j = 0; j < m; j++) {
        for (int k = 0; k < j; k++)
            for (int i = j; i < m; i++) M[i * m + j] -= M[i * m + k] * M[j * m + k];
        if (!(M[j * m + j] > 1e-9)) return false;  // the sums carry six digits
        const double d = 1.0 / sqrt(M[j * m + j]);
        for (int i = j; i < m; i++) M[i * m + j] *= d;
    }
    for (int i = 0; i < m; i++) {
        for (int k = 0; k < i; k++) b[i] -= M[i * m + k] * b[k];
        b[i] /= M[i * m + i];
    }
    for (int i = m - 1; i >= 0; i--) {
        for (int k = i + 1; k < m; k++) b[i] -= M[k * m + i] * b[k];
        b[i] /= M[i * m + i];
    }
    for (int i = 0; i < m; i++) b[i] *= scale[i];
    return true;
}

// Position in the list 1 z y x zz zy zx yy yx xx of the product of coordinates a and b (0 1 2 = z y x, 3 = one).
const int MONOMIAL[4][4] = {{4, 5, 6, 1}, {5, 7, 8, 2}, {6, 8, 9, 3}, {1, 2, 3, 0}};
const int PAIR[3][3] = {{0, 1, 2}, {1, 3, 4}, {2, 4, 5}};

// delta (12, rows i, columns z y x 1) = M^-1 A from the 60 + 12 sums.
bool increment(const double *products, const double A[12], int two_d, double delta[12]) {
    double M[144], b[12];
    int unknown[12], m = 0;
    for (int u = 0; u < 12; u++)
        if (!two_d || (u >= 4 && u % 4 != 0)) unknown[m++] = u;
    for (int i = 0; i < m; i++) {
        b[i] = A[unknown[i]];
        for (int j = 0; j < m; j++)
            M[i * m + j] = products[10 * PAIR[unknown[i] / 4][unknown[j] / 4] + MONOMIAL[unknown[i] % 4][unknown[j] % 4]];
    }
    if (!solve(M, b, m)) return false;
    for (int i = 0; i < 12; i++) delta[i] = 0;
    for (int i = 0; i < m; i++) {
        delta[unknown[i]] = b[i];
        if (!(fabs(b[i]) < 1e100)) return false;
    }
    return true;
}

// The residual sums of r' = f0 - (alpha g0 + beta), with alpha, beta such that both have the same mean and deviation.
struct Normalised {
    double alpha, beta, rr, zncc, A[12];
    bool flat;
};

Normalised normalise(const double *s) {
    Normalised q = {};
    const double n = s[MPIDVC_N], f = s[MPIDVC_F], ff = s[MPIDVC_FF], r = s[MPIDVC_R], rr = s[MPIDVC_RR],
                 fr = s[MPIDVC_FR];
    const double mean_f = f / n, mean_g = (f - r) / n;
    const double var_f = ff / n - mean_f * mean_f, var_g = (ff - 2 * fr + rr) / n - mean_g * mean_g;
    q.flat = !(var_f > 0 && var_g > 0);
    if (q.flat) return q;
    q.alpha = sqrt(var_f / var_g);
    q.beta = mean_f - q.alpha * mean_g;
    q.zncc = ((ff - fr) / n - mean_f * mean_g) / sqrt(var_f * var_g);
    const double a = 1 - q.alpha;
    q.rr = a * a * ff + q.alpha * q.alpha * rr + n * q.beta * q.beta + 2 * a * q.alpha * fr - 2 * a * q.beta * f -
           2 * q.alpha * q.beta * r;
    for (int i = 0; i < 12; i++)
        q.A[i] = a * s[MPIDVC_C + i] + q.alpha * s[MPIDVC_A + i] - q.beta * s[MPIDVC_D + i];
    return q;
}

// --------------------------------------------------------------------------------------------------- points of a chunk

double mean_of(const uint8_t *map, const mpidvc_box &box, const Int low[3], const Int n[3]) {
    Int sum = 0;
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) {
            const uint8_t *p = map + (low[0] + z) * box.pitch_z + (low[1] + y) * box.pitch_y + low[2];
            Int row = 0;
            for (Int x = 0; x < n[2]; x++) row += p[x] != 0;
            sum += row;
        }
    return (double)sum / (double)(n[0] * n[1] * n[2]);
}

// Mean grey level of window 1 over voxels that exist (those outside the image and NaN skipped, masked ones counted).
double mean_grey(const mpidvc_points &set, const Int low[3], const Int n[3]) {
    double sum = 0;
    Int count = 0;
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) {
            const Int o = (low[0] + z) * set.box1.pitch_z + (low[1] + y) * set.box1.pitch_y + low[2];
            for (Int x = 0; x < n[2]; x++)
                if (!set.real || set.real[o + x]) sum += (double)set.box1.data[o + x], count++;
        }
    return count ? sum / (double)count : 0.0;
}

struct Outcome {
    double error, delta_norm, coverage, zncc;
    int iterations, status;
};

int register_window(const mpidvc_points &points, Window &win, const Int centre1[3], const double low2[3],
                    const double high2[3], double F[9], double t[3], Outcome &out) {
    const mpidvc_settings &set = *points.settings;
    const double NOT_YET = 100.0;  // spam's start value of deltaPhiNorm
    double sums[MPIDVC_SUMS] = {0};
    Int low1[3], index[3];
    for (int a = 0; a < 3; a++) low1[a] = centre1[a] - (win.n[a] - 1) / 2;
    const Int wy = 2 * points.hws[1] + 1, wx = 2 * points.hws[2] + 1;
    index[1] = wx, index[2] = wx * wy;
    index[0] = (set.two_d ? 0 : index[2]) + index[1] + 1;
    if (read_window(win, points.box1, points.sampled1, low1, set, NAN, index, sums)) return -1;
    const double comparable = sums[MPIDVC_N], all = (double)(win.n[0] * win.n[1] * win.n[2]);
    const double enough = (points.min_coverage < 0.5 ? points.min_coverage : 0.5) * comparable;
    out.error = INFINITY, out.iterations = 0, out.status = 0, out.delta_norm = NOT_YET, out.coverage = comparable / all,
    out.zncc = NAN;
    if (comparable < 1) {
        out.status = -2;
        return 0;
    }
    if (set.rigid) {
        double R[9];
        if (!rotation_of(F, R)) {
            out.status = -4;
            return 0;
        }
        memcpy(F, R, sizeof R);
    }
    if (!set.update_gradient) {
        gradient_products(win, 0, sums + MPIDVC_M);
        if (set.znssd) {
            gradient_moments(win, win.gz, win.gy, win.gx, win.f, 0, sums + MPIDVC_C);
            gradient_moments(win, win.gz, win.gy, win.gx, 0, 0, sums + MPIDVC_D);
        }
    }
    Sampler s = sampler_of(points.box2, win, low2, high2);
    s.shift = set.shift != 0;
    s.index0 = index[0], s.index_y = index[1], s.index_z = index[2];
    double gain = set.znssd ? set.gain : 1.0, bias = (set.znssd ? set.bias : 0.0) - win.level;
    double error = INFINITY, A[12], whole[3] = {comparable, sums[MPIDVC_F], sums[MPIDVC_FF]}, counted = comparable;
    double whole_sums[MPIDVC_SUMS];
    memcpy(whole_sums, sums, sizeof sums);
    for (bool last = false, first = true;; first = false) {
        // residual and moments at the present Phi
        double centre2[3], compared = comparable;
        for (int a = 0; a < 3; a++) centre2[a] = (double)centre1[a] + points.offset[a] + t[a];
        if (any_pass(win, s, set, F, centre2, gain, bias, !last, sums, &compared)) return -1;
        if (!set.update_gradient && compared != counted) {
            // other voxels take part than before: everything that is summed over them changes
            counted = compared;
            if (compared == comparable) {
                for (int i = MPIDVC_C; i < MPIDVC_SUMS; i++) sums[i] = whole_sums[i];
                for (int i = 0; i < 3; i++) sums[i] = whole[i];
            } else {
                window_sums(win, win.now, set.znssd, sums);
            }
        }
        out.coverage = sums[MPIDVC_N] / all;
        if (!(sums[MPIDVC_N] >= 1) || sums[MPIDVC_N] < enough) {
            out.status = -3;  // it has left the data
            break;
        }
        const double before = error, grey = sums[MPIDVC_F] + sums[MPIDVC_N] * win.level;
        double scale = 1;
        const Normalised q = normalise(sums);
        out.zncc = q.flat ? NAN : q.zncc;
        if (set.znssd) {
            if (q.flat) {
                out.status = -2;
                break;
            }
            error = q.rr / grey;
            memcpy(A, q.A, sizeof A);
            gain *= q.alpha;
            bias = q.alpha * bias + q.beta;
            if (set.update_gradient) scale = q.alpha;
        } else {
            error = sums[MPIDVC_RR] / grey;
            memcpy(A, sums + MPIDVC_A, sizeof A);
        }
        out.error = error;
        if (!first) {
            if (before < 0.8 * error && out.iterations > set.max_iterations / 2.0) {
                out.status = -1;
                break;
            }
            const double det = fabs(determinant(F));
            if (det > 3 || det < 0.2) {
                out.status = -3;
                break;
            }
            out.iterations++;
        }
        if (out.iterations >= set.max_iterations || out.delta_norm <= set.min_delta_phi) break;
        double delta[12];
        if (!increment(sums + MPIDVC_M, A, set.two_d, delta)) {
            out.status = -2;
            break;
        }
        for (int i = 0; i < 12; i++) delta[i] /= scale;
        double G[9], step[3] = {delta[3], delta[7], delta[11]}, norm = 0;
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++) G[3 * i + j] = delta[4 * i + j] + (i == j);
        if (set.rigid) {
            double R[9];
            if (!rotation_of(G, R)) {
                out.status = -2;
                break;
            }
            memcpy(G, R, sizeof G);
        }
        for (int i = 0; i < 3; i++) {
            norm += step[i] * step[i];
            for (int j = 0; j < 3; j++) norm += (G[3 * i + j] - (i == j)) * (G[3 * i + j] - (i == j));
        }
        out.delta_norm = sqrt(norm);
        double next[9];
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 3; j++) t[i] += F[3 * i + j] * step[j];
            for (int j = 0; j < 3; j++)
                next[3 * i + j] = F[3 * i] * G[j] + F[3 * i + 1] * G[3 + j] + F[3 * i + 2] * G[6 + j];
        }
        memcpy(F, next, sizeof next);
        bool finite = determinant(F) != 0;
        for (int i = 0; i < 9; i++) finite = finite && fabs(F[i]) < 1e6;
        for (int i = 0; i < 3; i++) finite = finite && fabs(t[i]) < 1e9;
        if (!finite) {
            out.status = -4;
            break;
        }
        last = out.delta_norm <= set.min_delta_phi || out.iterations + 1 >= set.max_iterations;
    }
    if (out.status != -2 && out.status != -4) {
        if (out.delta_norm <= set.min_delta_phi)
            out.status = 2;
        else if (out.status == 0)
            out.status = 1;
    }
    return 0;
}

int correlate(const mpidvc_points *points) {
    const mpidvc_settings &set = *points->settings;
    Int n[3], whole[3];
    for (int a = 0; a < 3; a++) {
        whole[a] = 2 * points->hws[a] + 1;
        n[a] = set.two_d && a == 0 ? 1 : 2 * points->hws[a] - 1;
    }
    Window win = {};
    if (!allocate(win, n, set)) return -1;
    int failed = 0;
    for (Int k = 0; k < points->count && !failed; k++) {
        const Int *centre = points->centre1 + 3 * k;
        double *phi = points->phi + 12 * k, *result = points->result + 6 * k;
        Int low[3];
        for (int a = 0; a < 3; a++) low[a] = centre[a] - points->hws[a];
        const double covered = points->covered ? mean_of(points->covered, points->box1, low, whole) : 1.0;
        bool skip = covered < points->min_coverage || covered == 0;
        for (int a = 0; a < 3; a++) skip = skip || points->low2[3 * k + a] > points->high2[3 * k + a];
        if (!skip && (points->grey_low > -INFINITY || points->grey_high < INFINITY)) {
            const double grey = mean_grey(*points, low, whole);
            skip = !(points->grey_low < grey && grey < points->grey_high);
        }
        if (skip) {
            const double row[6] = {INFINITY, 0, -5, INFINITY, covered, NAN};
            memcpy(result, row, sizeof row);
            continue;
        }
        double F[9], t[3];
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 3; j++) F[3 * i + j] = phi[4 * i + j];
            t[i] = phi[4 * i + 3];
        }
        Outcome out = {};
        failed = register_window(*points, win, centre, points->low2 + 3 * k, points->high2 + 3 * k, F, t, out);
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 3; j++) phi[4 * i + j] = F[3 * i + j];
            phi[4 * i + 3] = t[i];
        }
        const double row[6] = {out.error, (double)out.iterations, (double)out.status, out.delta_norm, out.coverage,
                               out.zncc};
        memcpy(result, row, sizeof row);
    }
    free(win.memory);
    return failed;
}

// ------------------------------------------------------------------------------------------- prefilter, whole warps

// Cubic B-spline coefficients along one axis, mirror boundary: pole sqrt(3) - 2, gain 6 (Unser 1999,
// doi 10.1109/79.799930). `width` neighbouring lines at once, elements `step` apart along the axis.
const float POLE = -0.26794919243112270647f;

MPIDVC_INLINE void update(float *p, const float *q, Int width, float own, float other) {  // p = own p + other q
    Int x = 0;
    for (; x + WIDE <= width; x += WIDE) store<WIDE>(p + x, load<WIDE>(p + x) * own + load<WIDE>(q + x) * other);
    for (; x < width; x++) p[x] = p[x] * own + q[x] * other;
}

// `width` neighbouring lines at once by recursion, elements `step` apart along the axis.
void filter_lines(float *c, Int n, Int step, Int width, float *start) {
    if (n < 2) return;
    const double pole = (double)POLE;
    memcpy(start, c, sizeof(float) * width);
    double power = pole;
    if (n <= 28) {
        double back = pow(pole, (double)(2 * n - 3)), scale = 1.0 / (1.0 - pow(pole, (double)(2 * n - 2)));
        for (Int k = 1; k < n - 1; k++, power *= pole, back /= pole)
            update(start, c + k * step, width, 1.f, (float)(power + back));
        update(start, c + (n - 1) * step, width, (float)scale, (float)(scale * power));
    } else {
        for (Int k = 1; k < 28; k++, power *= pole) update(start, c + k * step, width, 1.f, (float)power);
    }
    for (Int x = 0; x < width; x++) c[x] = 6.f * start[x];
    for (Int i = 1; i < n; i++) update(c + i * step, c + (i - 1) * step, width, 6.f, POLE);
    const float end = POLE / (POLE * POLE - 1.f);
    update(c + (n - 1) * step, c + (n - 2) * step, width, end, end * POLE);
    for (Int i = n - 2; i >= 0; i--) update(c + i * step, c + (i + 1) * step, width, -POLE, POLE);
}

// One line along x by the truncated impulse response, which needs no transposition: sqrt(3) pole^|k| to 1e-7.
void filter_row(float *c, Int n, float *line) {
    enum { REACH = 12 };
    if (n < 2) return;
    float *centre = line + REACH;
    memcpy(centre, c, sizeof(float) * n);
    for (Int k = 1; k <= REACH; k++) {  // mirrored at both ends, as often as a short line needs it
        const Int period = 2 * n - 2, left = k % period, right = (n - 1 + k) % period;
        centre[-k] = c[left < n ? left : period - left];
        centre[n - 1 + k] = c[right < n ? right : period - right];
    }
    float weight[REACH + 1];
    double sum = 0, power = 1;
    for (int k = 0; k <= REACH; k++, power *= (double)POLE) sum += k ? 2 * power : power;
    power = 1;
    for (int k = 0; k <= REACH; k++, power *= (double)POLE) weight[k] = (float)(power / sum);
    Int x = 0;
    for (; x < n; x += WIDE) {
        Wide v = load<WIDE>(centre + x) * weight[0];
        MPIDVC_UNROLL
        for (int k = 1; k <= REACH; k++) v += (load<WIDE>(centre + x - k) + load<WIDE>(centre + x + k)) * weight[k];
        if (x + WIDE <= n) {
            store<WIDE>(c + x, v);
        } else {
            float last[WIDE];
            store<WIDE>(last, v);
            memcpy(c + x, last, sizeof(float) * (n - x));
        }
    }
}

// Coefficients of [low, high) in place; nothing outside is touched.
int prefilter(float *data, Int py, Int pz, const Int low[3], const Int high[3]) {
    const Int nz = high[0] - low[0], ny = high[1] - low[1], nx = high[2] - low[2];
    if (nz < 1 || ny < 1 || nx < 1) return 0;
    float *line = (float *)calloc(1, sizeof(float) * (nx + 128));
    if (!line) return -1;
    float *first = data + low[0] * pz + low[1] * py + low[2];
    for (Int z = 0; z < nz; z++) {
        for (Int y = 0; y < ny; y++) filter_row(first + z * pz + y * py, nx, line);
        filter_lines(first + z * pz, ny, py, nx, line);
    }
    for (Int y = 0; y < ny; y++) filter_lines(first + y * py, nz, pz, nx, line);
    free(line);
    return 0;
}

template <int O, int D> int warp_region(const mpidvc_warp &job) {
    Window win = {};
    memcpy(win.n, job.n, sizeof win.n);
    Sampler s = sampler_of(job.box, win, job.low, job.high);
    plan<O, D>(s, job.F, job.centre);
    const Int pitch = (job.n[2] + 7) / 8 * 8 + 16;
    float *memory = (float *)calloc(1, sizeof(float) * ((2 * job.n[1] + 1) * pitch + 64));
    if (!memory) return -1;
    float *weight = memory + job.n[1] * pitch, *scratch = weight + job.n[1] * pitch;
    Sampler plane = s;
    plane.n[0] = 1;
    for (Int z = 0; z < job.n[0]; z++) {
        for (int a = 0; a < 3; a++) {
            plane.start[a] = s.start[a] + s.F[3 * a] * (double)z;
            plane.base[a] = s.base[a] + z * s.along_z[a];
        }
        sample_region<O, D>(plane, memory, weight, pitch, scratch);
        for (Int y = 0; y < job.n[1]; y++)
            for (Int x = 0; x < job.n[2]; x++)
                job.out[(z * job.n[1] + y) * job.n[2] + x] =
                    weight[y * pitch + x] > 0.f ? memory[y * pitch + x] : 0.f;
    }
    free(memory);
    return 0;
}

int warp(const mpidvc_warp *job) {
    if (job->order == 1) return job->two_d ? warp_region<1, 2>(*job) : warp_region<1, 3>(*job);
    return job->two_d ? warp_region<3, 2>(*job) : warp_region<3, 3>(*job);
}

#define MPIDVC_TEXT_(x) #x
#define MPIDVC_TEXT(x) MPIDVC_TEXT_(x)
#define MPIDVC_JOIN_(a, b) a##b
#define MPIDVC_JOIN(a, b) MPIDVC_JOIN_(a, b)

const mpidvc_kernels TABLE = {MPIDVC_TEXT(MPIDVC_ISA), WIDE, prefilter, correlate, block_sums, warp};

}  // namespace

extern "C" const mpidvc_kernels *MPIDVC_JOIN(mpidvc_kernels_, MPIDVC_ISA)(void) { return &TABLE; }
