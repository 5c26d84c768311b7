// Sampling of box 2 under a linear mapping: plan() decides how, then rows are interpolated in groups of lanes.
//
// Along a row the position advances by almost one voxel per voxel. So a group of lanes has one integer origin, or two
// neighbouring ones per axis: all loads are contiguous, and no gathers are needed. Template arguments: L lanes, O order
// of the interpolation (1 linear, 3 cubic B-spline), D dimensions.
//
// Needs: a box with a readable frame around all samples (MPIDVC_FRAME), spline coefficients in it for order 3.
#pragma once
#include <math.h>
#include <string.h>

#include "../gauss_newton.hpp"
#include "../lanes.hpp"

namespace {

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

enum { PIECE = 32 };  // rows whose groups are placed at once

// A region of box 2 and the way to sample it: position of the region's voxel x = centre + F (x - (n - 1) / 2).
struct Sampler {
    const float *data, *origin;  // origin: first tap of position (0, 0, 0)
    const uint8_t *valid;
    Int py, pz, shape[3], n[3];
    double F[9], start[3], low[3], high[3];  // start: position of the region's first voxel
    float unit;      // interpolated value = unit * sum of the taps
    bool all_inside; // no sample of the region needs a test
    bool wild;       // positions beyond the range of fixed point: every sample is tested
    bool shift;
    Int index0, index_y, index_z;  // Shift-DVC: flattened index of the region's first voxel, and of steps along y and z
    Int base[3], along_z[3], along_y[3], along_x[3];  // fixed point, 32 fractional bits; along_x[2] less one voxel
    float slope[3];
    int lanes;       // widest group that lies in two voxels at most along every axis; 0: single samples
    bool slow;       // positions move so slowly that find_places() holds for the groups of a piece
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

// Whether a sample at p is inside [low, high].
bool inside(const Sampler &s, const double p[3], int D) {
    for (int a = 3 - D; a < 3; a++)
        if (!(p[a] >= s.low[a] && p[a] <= s.high[a])) return false;
    return true;
}

// The sampler of a region of n voxels; samples outside [low, high] are not data. To be planned before it is used.
Sampler sampler_of(const mpidvc_box &box, const Int n[3], const double low[3], const double high[3]) {
    Sampler s = {};
    s.data = box.data, s.valid = box.valid, s.py = box.pitch_y, s.pz = box.pitch_z;
    for (int a = 0; a < 3; a++) {
        s.shape[a] = box.shape[a], s.n[a] = n[a];
        s.low[a] = low[a] - 1e-6, s.high[a] = high[a] + 1e-6;
    }
    return s;
}

// Lanes of the next group of a row with so many voxels left, at most `most`.
MPIDVC_INLINE int lanes_for(Int left, int most) {
    if (left <= QUAD || most <= QUAD) return QUAD;
    return left <= WIDE || most <= WIDE ? WIDE : FULL;
}

// Positions, steps and groups for one mapping.
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
        s.along_x[a] = s.wild || a < 3 - D ? 0 : fixed(F[3 * a + 2] - (a == 2));
        s.slope[a] = (float)(F[3 * a + 2] - (a == 2));
    }
    double steepest = 0;
    for (int a = 3 - D; a < 3; a++) {
        const double v = fabs(F[3 * a + 2] - (a == 2));
        if (!(v <= steepest)) steepest = v;
    }
    s.lanes = steepest * (FULL - 1) < 1   ? FULL
              : steepest * (WIDE - 1) < 1 ? WIDE
              : steepest * (QUAD - 1) < 1 ? QUAD
                                          : 0;
    double along = 0;
    for (int a = 3 - D; a < 3; a++) along = fmax(along, fabs(F[3 * a + 1] - (a == 1)));
    const double farthest = 256 * (double)(s.py + (D == 3 ? s.pz : 0));  // between the groups of a piece, at most
    s.slow = s.lanes && !s.wild && along * PIECE <= 100 && farthest < 2e9;
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

// One sample anywhere; taps are kept inside the box. False where the sample is not data.
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
                // a linear interpolation at a voxel gives its neighbours no weight: they may be holes
                if (s.valid && !s.valid[oy + tap[2][i]] &&
                    !(O == 1 && w[2][i] * w[1][j] * (D == 3 ? w[0][k] : 1.f) == 0.f))
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

// Position of the region's voxel (z, y, x).
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

// A group of samples: its first tap, and its first sample's distance from there along every axis.
struct Place {
    const float *p;
    float t[3];
    int split;  // bit a: the group lies in two voxels along axis a
};

// Values of a group, in units of s.unit.
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

// Places of the groups of a column, one below the other. What is stored across two cache lines is read late.
struct Places {
    alignas(64) float t[3][PIECE];
    alignas(64) int32_t offset[PIECE];
    alignas(64) int32_t split[PIECE];
    const float *first;
    MPIDVC_METHOD Place operator[](Int y) const {
        return Place{first + offset[y], {t[0][y], t[1][y], t[2][y]}, split[y]};
    }
};

// Fills them, from the group of `count` voxels at (z, y, x) down, for samplers that are slow (see plan()): their 24
// fractional bits leave seven for the drift along the column. In a loop of its own, so that rows share the registers.
template <int D> void find_places(const Sampler &s, Int z, Int y, Int x, Int count, Int rows, Places &out) {
    int32_t rest[3], step[3], span[3];
    Int origin[3];
    for (int a = 0; a < 3; a++) {
        const Int at = s.base[a] + z * s.along_z[a] + y * s.along_y[a] + x * s.along_x[a];
        origin[a] = at >> 32;
        rest[a] = (int32_t)((uint32_t)at >> 8);
        step[a] = (int32_t)((s.along_y[a] - (a == 1 ? (Int)1 << 32 : 0) + 128) >> 8);
        span[a] = (int32_t)((s.along_x[a] * (count - 1)) >> 8);
    }
    out.first = s.origin + (D == 3 ? origin[0] * s.pz : 0) + origin[1] * s.py + origin[2] + x;
    typedef typename Lanes<FULL>::I I;
    const int32_t pitch[3] = {D == 3 ? (int32_t)s.pz : 0, (int32_t)s.py, 1};
    I row = lane_numbers<FULL>();
    for (Int k = 0; k < rows; k += FULL, row += (int32_t)FULL) {
        I offset = row * pitch[1], split = {};
        MPIDVC_UNROLL
        for (int a = 3 - D; a < 3; a++) {
            const I first = rest[a] + row * step[a], last = first + span[a];
            const I i = first >> 24, e = last >> 24, least = i < e ? i : e;
            offset += least * pitch[a];
            store<FULL>(out.t[a] + k, to_floats<FULL>(first - least * (1 << 24)) * (1.f / 16777216.f));
            split |= i != e ? I{} + (1 << a) : I{};
        }
        *(I *)(out.offset + k) = offset, *(I *)(out.split + k) = split;
    }
}

// Values of the voxels [from, to) of a row in groups of L; up to L - 1 values behind them are overwritten.
template <int L, int O, int D>
MPIDVC_INLINE void part_of_row(const Sampler &s, const Int at[3], Int from, Int to, float *value) {
    for (Int x = from; x < to; x += L) {
        const Int end = smaller(x + L, to) - 1;
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

// Voxels [from, to) of a row, all of whose samples are data; up to FULL - 1 values behind them are overwritten.
template <int O, int D>
MPIDVC_NOINLINE void row_values(const Sampler &s, const Int at[3], Int from, Int to, float *value) {
    if (s.lanes >= FULL) return part_of_row<FULL, O, D>(s, at, from, to, value);
    if (s.lanes >= WIDE) return part_of_row<WIDE, O, D>(s, at, from, to, value);
    if (s.lanes >= QUAD) return part_of_row<QUAD, O, D>(s, at, from, to, value);
    for (Int x = from; x < to; x++) {
        double p[3];
        for (int a = 0; a < 3; a++)
            p[a] = (double)(at[a] + s.along_x[a] * x) * (1.0 / FIXED) + (a == 2 ? (double)x : 0.0);
        sample<O, D>(s, p, value + x);
    }
}

// The voxels [from, to) of a row whose samples lie inside [low, high], which are neighbours; to <= from: none.
template <int D> MPIDVC_INLINE void ends_of_row(const Sampler &s, Int z, Int y, Int *from, Int *to) {
    *from = 0, *to = s.n[2];
    for (int a = 3 - D; a < 3 && !s.all_inside; a++) {
        const double p = s.start[a] + s.F[3 * a] * (double)z + s.F[3 * a + 1] * (double)y, slope = s.F[3 * a + 2];
        const double last = p + slope * (double)(s.n[2] - 1);
        if (p >= s.low[a] && p <= s.high[a] && last >= s.low[a] && last <= s.high[a]) continue;
        const double low = (s.low[a] - p) / slope, high = (s.high[a] - p) / slope;
        const double first = slope > 0 ? low : high, end = slope > 0 ? high : low;
        if (!(first <= (double)s.n[2] && end >= 0)) {  // nan: no slope, and outside
            *to = 0;
            continue;
        }
        if (first > 0) *from = larger(*from, -floor_to_int(-first));
        if (end < (double)s.n[2]) *to = smaller(*to, floor_to_int(end) + 1);
    }
}

// A row of the region whose samples in [from, to) are data, without maps and shifts: values in units of s.unit, 0 beyond
// the data. Up to FULL - 1 values behind the row are overwritten.
template <int O, int D> MPIDVC_INLINE void plain_row(const Sampler &s, Int z, Int y, Int from, Int to, float *value) {
    Int at[3];
    for (int a = 0; a < 3; a++) at[a] = s.base[a] + z * s.along_z[a] + y * s.along_y[a];
    if (from < to) row_values<O, D>(s, at, from, to, value);
    for (Int x = 0; x < from; x++) value[x] = 0.f;
    for (Int x = larger(to, 0); x < s.n[2]; x++) value[x] = 0.f;
}

// A row of the region: values in units of s.unit, and weights 0 or 1. Up to FULL - 1 values behind it are overwritten.
template <int O, int D> MPIDVC_INLINE void any_row(const Sampler &s, Int z, Int y, float *value, float *weight) {
    if (s.valid || s.shift || s.wild) return careful_row<O, D>(s, z, y, value, weight);
    Int from, to;
    ends_of_row<D>(s, z, y, &from, &to);
    plain_row<O, D>(s, z, y, from, to, value);
    for (Int x = 0; x < s.n[2]; x++) weight[x] = x >= from && x < to ? 1.f : 0.f;
}

// The whole region into arrays: values, and weights 0 or 1. Rows are `pitch` apart, and FULL floats behind the last are
// overwritten.
template <int O, int D> void sample_region(const Sampler &s, float *value, float *weight, Int pitch) {
    for (Int z = 0; z < s.n[0]; z++)
        for (Int y = 0; y < s.n[1]; y++) {
            float *v = value + (z * s.n[1] + y) * pitch, *w = weight + (z * s.n[1] + y) * pitch;
            any_row<O, D>(s, z, y, v, w);
            for (Int x = 0; x < s.n[2]; x++) v[x] *= s.unit;
            for (Int x = s.n[2]; x < pitch; x++) v[x] = w[x] = 0.f;
        }
}

// plan() and sample_region() for one mapping, by the settings' order and dimensions.
void sample_mapped(Sampler &s, const mpidvc_settings &set, const double F[9], const double centre[3], float *value,
                   float *weight, Int pitch) {
    if (set.order == 1 && set.two_d) {
        plan<1, 2>(s, F, centre);
        sample_region<1, 2>(s, value, weight, pitch);
    } else if (set.order == 1) {
        plan<1, 3>(s, F, centre);
        sample_region<1, 3>(s, value, weight, pitch);
    } else if (set.two_d) {
        plan<3, 2>(s, F, centre);
        sample_region<3, 2>(s, value, weight, pitch);
    } else {
        plan<3, 3>(s, F, centre);
        sample_region<3, 3>(s, value, weight, pitch);
    }
}

}  // namespace
