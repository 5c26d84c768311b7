// Random errors of a registered window: the covariance s^2 A^-1 B A^-T of `mpidvc.core.uncertainty`.
//
// Needs: a window after its last pass, and the sampler planned for it.
#pragma once
#include <math.h>
#include <string.h>

#include "algebra.hpp"
#include "moments.hpp"
#include "reading.hpp"
#include "slopes.hpp"

namespace {

// Symmetric matrix (12 x 12) of the 60 sums of products.
void matrix_of(const double *products, double M[144]) {
    for (int u = 0; u < 12; u++)
        for (int v = 0; v < 12; v++)
            M[12 * u + v] = products[10 * PAIR[u / 4][v / 4] + MONOMIAL[u % 4][v % 4]];
}

// Rows u of the inverse of the part of A that these m unknowns span, in W (12 x 12; other entries are 0). False where A
// is singular. By elimination with pivots, scaled by the diagonal of M: A is symmetric, but noise may leave it indefinite.
bool inverse_of(const double A[144], const double M[144], const int *unknown, int m, double W[144]) {
    double a[12][24], scale[12];
    for (int i = 0; i < m; i++) {
        const double d = M[13 * unknown[i]];
        if (!(d > 0 && d < 1e300)) return false;
        scale[i] = 1.0 / sqrt(d);
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++) {
            a[i][j] = A[12 * unknown[i] + unknown[j]] * scale[i] * scale[j];
            a[i][m + j] = i == j;
        }
    for (int c = 0; c < m; c++) {
        int pivot = c;
        for (int i = c + 1; i < m; i++)
            if (fabs(a[i][c]) > fabs(a[pivot][c])) pivot = i;
        if (!(fabs(a[pivot][c]) > MPIDVC_LEAST_PIVOT)) return false;
        if (pivot != c)
            for (int j = c; j < 2 * m; j++) {
                const double v = a[c][j];
                a[c][j] = a[pivot][j], a[pivot][j] = v;
            }
        const double d = 1.0 / a[c][c];
        for (int j = c; j < 2 * m; j++) a[c][j] *= d;
        for (int i = 0; i < m; i++) {
            const double v = a[i][c];
            if (i == c || v == 0) continue;
            for (int j = c; j < 2 * m; j++) a[i][j] -= v * a[c][j];
        }
    }
    memset(W, 0, 144 * sizeof(double));
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++) W[12 * unknown[i] + unknown[j]] = a[i][m + j] * scale[i] * scale[j];
    return true;
}

// Part of a window's voxels that the fit may take for D M D to stand for B: beyond, noise is correlated over a good part of
// the window, where the products of different gradients differ more from one another than kappa tells.
constexpr double MPIDVC_MOST_TAKEN = 0.2;

// Whether the voxels with weight w are a box: then few of them lack a neighbour.
bool is_box(const Window &win, const float *w) {
    Int low[3] = {win.n[0], win.n[1], win.n[2]}, high[3] = {-1, -1, -1}, count = 0;
    for (Int z = 0; z < win.n[0]; z++)
        for (Int y = 0; y < win.n[1]; y++) {
            const float *row = w + (z * win.n[1] + y) * win.pitch;
            Int first = 0, last = win.n[2] - 1;
            while (first <= last && !(row[first] > 0.f)) first++;
            while (last >= first && !(row[last] > 0.f)) last--;
            if (first > last) continue;
            for (Int x = first; x <= last; x++) count += row[x] > 0.f;
            const Int at[3] = {z, y, first}, end[3] = {z, y, last};
            for (int a = 0; a < 3; a++) low[a] = smaller(low[a], at[a]), high[a] = larger(high[a], end[a]);
        }
    return count == (high[0] - low[0] + 1) * (high[1] - low[1] + 1) * (high[2] - low[2] + 1);
}

// Of large windows only some rows (z, y) are looked at: every second one tells A to a per cent, every fourth one B to some.
MPIDVC_INLINE bool looked_at(Int z, Int y, double voxels, int step) {
    return voxels < 2500 || (step == 2 ? (z + y) % 2 : (2 * z + y) % 4) == 0;
}

// The number of all compared voxels over that of those in rows that are looked at.
double share_of_rows(const Window &win, const float *now, double voxels, int step) {
    double some = 0;
    for (Int z = 0; z < win.n[0]; z++)
        for (Int y = 0; y < win.n[1]; y++) {
            if (!looked_at(z, y, voxels, step)) continue;
            if (!now) {
                some += (double)win.n[2];
                continue;
            }
            Wide row = {};
            for (Int x = 0; x < win.n[2]; x += WIDE)
                row += first_lanes<WIDE>(load<WIDE>(now + (z * win.n[1] + y) * win.pitch + x), win.n[2] - x);
            some += total(row);
        }
    return voxels / fmax(some, 1.0);
}

// K of the rows that are looked at, else 0.
template <int O, int D>
void slopes_of_region(const Sampler &s, const float T[9], double voxels, float *const K[3], Int pitch) {
    for (Int z = 0; z < s.n[0]; z++)
        for (Int y = 0; y < s.n[1]; y++) {
            const Int o = (z * s.n[1] + y) * pitch;
            float *const out[3] = {K[0] + o, K[1] + o, K[2] + o};
            if (looked_at(z, y, voxels, 2))
                slopes_of_row<O, D>(s, z, y, T, out);
            else
                for (int a = 0; a < 3; a++) memset(out[a], 0, sizeof(float) * (size_t)s.n[2]);
        }
}

// out = rho * in in these rows, the sum over all lags of a gradient that is 0 where nothing is compared; else 0.
void correlate_noise(const Window &win, const mpidvc_noise &noise, double voxels, const float *in, float *out) {
    const Int *n = win.n, *r = noise.reach;
    const Int pitch = win.around_pitch, plane = (n[1] + 2 * r[1]) * pitch;
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++)
            memcpy(win.around + (z + r[0]) * plane + (y + r[1]) * pitch + r[2], in + (z * n[1] + y) * win.pitch,
                   sizeof(float) * (size_t)n[2]);
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) {
            if (!looked_at(z, y, voxels, 4)) {
                memset(out + (z * n[1] + y) * win.pitch, 0, sizeof(float) * (size_t)n[2]);
                continue;
            }
            for (Int x = 0; x < n[2];) {
                // all neighbours at the lag -r of each
                const float *const p = win.around + z * plane + y * pitch + x;
                float *const to = out + (z * n[1] + y) * win.pitch + x;
                const int lanes = lanes_for(n[2] - x, FULL);
                if (lanes == FULL) {
                    Lanes<FULL>::F sum = {};
                    for (Int k = 0; k < noise.count; k++) sum += load<FULL>(p + win.lag[k]) * noise.rho[k];
                    store<FULL>(to, sum);
                } else if (lanes == WIDE) {
                    Lanes<WIDE>::F sum = {};
                    for (Int k = 0; k < noise.count; k++) sum += load<WIDE>(p + win.lag[k]) * noise.rho[k];
                    store<WIDE>(to, sum);
                } else {
                    Lanes<QUAD>::F sum = {};
                    for (Int k = 0; k < noise.count; k++) sum += load<QUAD>(p + win.lag[k]) * noise.rho[k];
                    store<QUAD>(to, sum);
                }
                x += lanes;
            }
        }
}

// Standard deviations of t (3) and F (9, row by row) of a window that has converged, and that of its residual (1).
// now: the weights of the voxels that were compared (null: all 1); squares: sum r^2; M: sum G_i G_k X_j X_l of these
// voxels; place: where t is wanted, from the middle. nan where they cannot be told. -1 where memory is short.
int random_errors(const mpidvc_points &points, Window &win, const Sampler &s, const Int low1[3], const Int index[3],
                  const float *now, const double *M, double voxels, double squares, double gain, const double F[9],
                  const double *place, double out[13]) {
    const mpidvc_settings &set = *points.settings;
    const mpidvc_noise &noise = *points.noise;
    if (set.update_gradient) {
        // the gradients of image 2 have its noise, as has K
        const Int py = points.box1.pitch_y, pz = points.box1.pitch_z;
        const float *const src = points.box1.data + low1[0] * pz + low1[1] * py + low1[2];
        if (set.shift ? shifted_gradients(src, py, pz, win.n, set, index, win.gz, win.gy, win.gx, win.pitch)
                      : gradients(src, py, pz, win.n, set, win.gz, win.gy, win.gx, win.pitch))
            return -1;
    }
    double products[60], A[144], B[144], W[144], V[144];
    int unknown[12], m = 0;
    Window pair = win;
    if (set.update_gradient || set.gauss) {
        pair.hz = 0;  // the square of the gradient itself
        gradient_products(pair, now, products);
        M = products;
    }
    matrix_of(M, B);
    double mixed[60];
    float T[9];
    for (int i = 0; i < 9; i++) T[i] = (float)(gain * F[i]) * s.unit;
    float *const *const K = win.k;
    pair.hz = K[0], pair.hy = K[1], pair.hx = K[2];
    if (set.order == 1)
        set.two_d ? slopes_of_region<1, 2>(s, T, voxels, K, win.pitch)
                  : slopes_of_region<1, 3>(s, T, voxels, K, win.pitch);
    else
        set.two_d ? slopes_of_region<3, 2>(s, T, voxels, K, win.pitch)
                  : slopes_of_region<3, 3>(s, T, voxels, K, win.pitch);
    gradient_products(pair, now, mixed);
    const double rows = share_of_rows(win, now, voxels, 2);
    for (int i = 0; i < 60; i++) mixed[i] *= rows;
    matrix_of(mixed, A);
    for (int u = 0; u < 12; u++)
        if (!set.two_d || (u >= 4 && u % 4 != 0)) unknown[m++] = u;
    if (!inverse_of(A, B, unknown, m, W)) return 0;
    // the fit takes a part of the residual: each parameter its kappa = B_uu / M_uu
    double taken = 0;
    for (int i = 0; i < m; i++) taken += noise.kappa[unknown[i]];
    if (noise.count > 1 && (taken > MPIDVC_MOST_TAKEN * voxels || (now && !is_box(win, now)))) {
        if (now) apply_weights(win, now);
        const float *const G[3] = {win.gz, win.gy, win.gx};
        for (int a = set.two_d; a < 3; a++) correlate_noise(win, noise, voxels, G[a], K[a]);
        gradient_products(pair, 0, mixed);
        const double whole = share_of_rows(win, now, voxels, 4);
        for (int i = 0; i < 60; i++) mixed[i] *= whole;
        double square[12];
        for (int u = 0; u < 12; u++) square[u] = B[13 * u];
        matrix_of(mixed, B);
        taken = 0;
        for (int i = 0; i < m; i++) taken += B[13 * unknown[i]] / square[unknown[i]];
    } else {
        double root[12];
        for (int u = 0; u < 12; u++) root[u] = sqrt(noise.kappa[u]);
        for (int u = 0; u < 12; u++)
            for (int v = 0; v < 12; v++) B[12 * u + v] *= root[u] * root[v];
    }
    const double left = voxels - taken;
    double variance = squares / left;
    if (noise.variance == noise.variance)
        variance = 0.5 * (1 + gain * gain) * noise.variance;
    else if (!(left > 0))
        return 0;
    // rows of W: what each parameter gets of the noise; rigid: the skew part of F only
    for (int i = 0; i < 3 && set.rigid; i++)
        for (int j = 0; j <= i; j++)
            for (int k = 0; k < 12; k++) {
                const double half = 0.5 * (W[12 * (4 * i + j) + k] - W[12 * (4 * j + i) + k]);
                W[12 * (4 * i + j) + k] = half, W[12 * (4 * j + i) + k] = -half;
            }
    // Phi (I + delta) changes by F delta
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 4; j++)
            for (int k = 0; k < 12; k++)
                V[12 * (4 * i + j) + k] = F[3 * i] * W[12 * j + k] + F[3 * i + 1] * W[12 * (4 + j) + k] +
                                          F[3 * i + 2] * W[12 * (8 + j) + k];
    for (int i = 0; i < 3 && place; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 12; k++) V[12 * (4 * i + 3) + k] += V[12 * (4 * i + j) + k] * place[j];
    for (int u = 0; u < 12; u++) {
        double sum = 0;
        for (int i = 0; i < 12; i++) {
            double row = 0;
            for (int k = 0; k < 12; k++) row += B[12 * i + k] * V[12 * u + k];
            sum += row * V[12 * u + i];
        }
        out[u % 4 == 3 ? u / 4 : 3 + 3 * (u / 4) + u % 4] = sqrt(variance * (sum > 0 ? sum : 0.0));
    }
    out[12] = sqrt(variance);
    return 0;
}

}  // namespace
