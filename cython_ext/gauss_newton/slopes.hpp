// Gradients of the interpolated box 2 at the samples of a window: the derivatives of the same interpolation.
//
// Needs: a sampler that is planned; see sampler.hpp.
#pragma once
#include "sampler.hpp"

namespace {

// Derivatives of weights() (times 6 for the cubic spline).
template <int L, int O, bool SPLIT>
MPIDVC_INLINE void slopes(typename Lanes<L>::F t, typename Lanes<L>::F *w) {
    typedef typename Lanes<L>::F V;
    const V zero = {}, one = zero + 1.f;
    const auto next = t >= 1.f;
    if (O == 1) {
        if (!SPLIT) {
            w[0] = -one, w[1] = one;
        } else {
            w[0] = next ? zero : -one;
            w[1] = next ? -one : one;
            w[2] = next ? one : zero;
        }
    } else {
        if (SPLIT) t = next ? t - 1.f : t;
        const V u = 1.f - t, a = -3.f * u * u, d = 3.f * t * t, b = t * (9.f * t - 12.f), c = -(a + b + d);
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

// The gradient g (z, y, x; in units of s.unit) of a group, as interpolate() gives its values.
template <int L, int O, int D, bool SZ, bool SY, bool SX>
MPIDVC_INLINE void interpolate_slopes(const float *p, Int py, Int pz, typename Lanes<L>::F tz, typename Lanes<L>::F ty,
                                      typename Lanes<L>::F tx, typename Lanes<L>::F *g) {
    typedef typename Lanes<L>::F V;
    constexpr int N = O + 1;
    V wz[N + 1], wy[N + 1], wx[N + 1], dz[N + 1], dy[N + 1], dx[N + 1];
    if (D == 3) weights<L, O, SZ>(tz, wz), slopes<L, O, SZ>(tz, dz);
    weights<L, O, SY>(ty, wy), slopes<L, O, SY>(ty, dy);
    weights<L, O, SX>(tx, wx), slopes<L, O, SX>(tx, dx);
    V sum[3] = {};
    MPIDVC_UNROLL
    for (int k = 0; k < (D == 3 ? N + SZ : 1); k++) {
        V value = {}, along_y = {}, along_x = {};
        MPIDVC_UNROLL
        for (int j = 0; j < N + SY; j++) {
            const float *q = p + k * pz + j * py;
            V first = load<L>(q), line = first * wx[0], slope = first * dx[0];
            MPIDVC_UNROLL
            for (int i = 1; i < N + SX; i++) {
                first = load<L>(q + i);
                line += first * wx[i], slope += first * dx[i];
            }
            if (D == 3) value += line * wy[j];
            along_y += line * dy[j], along_x += slope * wy[j];
        }
        if (D == 3)
            sum[0] += value * dz[k], sum[1] += along_y * wz[k], sum[2] += along_x * wz[k];
        else
            sum[1] = along_y, sum[2] = along_x;
    }
    g[0] = sum[0], g[1] = sum[1], g[2] = sum[2];
}

// Gradients of a group of a row from voxel x on, of which those before `to` are data, and of L values in all: returns the
// voxel behind it. T: from the gradient to what is stored, out_k = sum_i T[3 i + k] g_i.
template <int L, int O, int D>
MPIDVC_NOINLINE Int slopes_of_group(const Sampler &s, const Int at[3], Int x, Int to, const float T[9],
                                    float *const out[3]) {
    typedef typename Lanes<L>::F V;
    const Int end = smaller(x + L, to) - 1, py = s.py, pz = s.pz;
    Int low[3] = {0, 0, 0};
    float t[3] = {0, 0, 0};
    int split = 0;
    for (int a = 3 - D; a < 3; a++) {
        const Int first = at[a] + s.along_x[a] * x, last = at[a] + s.along_x[a] * end;
        low[a] = smaller(first >> 32, last >> 32);
        if (first >> 32 != last >> 32) split |= 1 << a;
        t[a] = (float)(first - low[a] * ((Int)1 << 32)) * (float)(1.0 / FIXED);
    }
    const float *const p = s.origin + (D == 3 ? low[0] * pz : 0) + low[1] * py + low[2] + x;
    const V lane = ramp<L>();
    V tz = {}, g[3];
    if (D == 3) tz = lane * s.slope[0] + t[0];
    const V ty = lane * s.slope[1] + t[1], tx = lane * s.slope[2] + t[2];
    if (split == 0)
        interpolate_slopes<L, O, D, false, false, false>(p, py, pz, tz, ty, tx, g);
    else if (split == 2)
        interpolate_slopes<L, O, D, false, true, false>(p, py, pz, tz, ty, tx, g);
    else if (D == 3 && split == 1)
        interpolate_slopes<L, O, D, true, false, false>(p, py, pz, tz, ty, tx, g);
    else if (D == 3 && split == 3)
        interpolate_slopes<L, O, D, true, true, false>(p, py, pz, tz, ty, tx, g);
    else
        interpolate_slopes<L, O, D, true, true, true>(p, py, pz, tz, ty, tx, g);
    for (int k = 3 - D; k < 3; k++) {
        V h = g[1] * T[3 + k] + g[2] * T[6 + k];
        if (D == 3) h += g[0] * T[k];
        store<L>(out[k] + x, first_lanes<L>(h, to - x));
    }
    return x + L;
}

// The same for one sample anywhere; false where it is not data.
template <int O, int D> bool slope_at(const Sampler &s, const double p[3], float g[3]) {
    float value;
    if (!sample<O, D>(s, p, &value)) return false;
    constexpr int N = O + 1;
    typename Lanes<QUAD>::F w[3][N + 1], d[3][N + 1], at = {};
    Int tap[3][N];
    for (int a = 3 - D; a < 3; a++) {
        const Int i = floor_to_int(p[a]);
        const typename Lanes<QUAD>::F t = at + (float)(p[a] - (double)i);
        weights<QUAD, O, false>(t, w[a]), slopes<QUAD, O, false>(t, d[a]);
        for (int k = 0; k < N; k++) tap[a][k] = clamp(i + k - (O == 3), s.shape[a]);
    }
    typename Lanes<QUAD>::F sum[3] = {};
    for (int k = 0; k < (D == 3 ? N : 1); k++)
        for (int j = 0; j < N; j++)
            for (int i = 0; i < N; i++) {
                const float v = s.data[(D == 3 ? tap[0][k] * s.pz : 0) + tap[1][j] * s.py + tap[2][i]];
                if (D == 3) {
                    sum[0] += v * d[0][k] * w[1][j] * w[2][i];
                    sum[1] += v * w[0][k] * d[1][j] * w[2][i];
                    sum[2] += v * w[0][k] * w[1][j] * d[2][i];
                } else {
                    sum[1] += v * d[1][j] * w[2][i];
                    sum[2] += v * w[1][j] * d[2][i];
                }
            }
    float lanes[3][8];
    for (int a = 0; a < 3; a++) store<QUAD>(lanes[a], sum[a]), g[a] = lanes[a][0];
    return true;
}

// K of a row: T applied to the gradients, 0 where samples are not data. FULL floats behind the row are overwritten.
template <int O, int D>
void slopes_of_row(const Sampler &s, Int z, Int y, const float T[9], float *const out[3]) {
    const bool groups = !s.valid && !s.shift && !s.wild && s.lanes;
    Int from = 0, to = 0;
    if (groups) ends_of_row<D>(s, z, y, &from, &to);
    for (int a = 0; a < 3; a++)
        for (Int x = 0; x < smaller(from, s.n[2]); x++) out[a][x] = 0.f;
    Int x = from, at[3];
    for (int a = 0; a < 3; a++) at[a] = s.base[a] + z * s.along_z[a] + y * s.along_y[a];
    while (x < to) {
        const int lanes = lanes_for(to - x, s.lanes);
        x = lanes == FULL   ? slopes_of_group<FULL, O, D>(s, at, x, to, T, out)
            : lanes == WIDE ? slopes_of_group<WIDE, O, D>(s, at, x, to, T, out)
                            : slopes_of_group<QUAD, O, D>(s, at, x, to, T, out);
    }
    for (x = larger(to, 0); x < s.n[2]; x++) {
        double p[3];
        float g[3] = {0, 0, 0};
        if (!groups) {
            position<O, D>(s, z, y, x, p);
            slope_at<O, D>(s, p, g);
        }
        for (int k = 0; k < 3; k++) out[k][x] = g[0] * T[k] + g[1] * T[3 + k] + g[2] * T[6 + k];
    }
}

}  // namespace
