// Window 1, the reference: memory for its grey levels, gradients and weights; gradients from grey levels.
//
// Needs: a box with a frame of gradient_reach voxels (one more for Shift-DVC) around the compared voxels.
#pragma once
#include <stdlib.h>
#include <string.h>

#include "sampler.hpp"

namespace {

// Window 1, rows padded with zeros to a multiple of 8: f0 and the gradients are 0 wherever there is no data.
struct Window {
    Int n[3], pitch, rows;
    float *f, *gz, *gy, *gx;            // grey levels, gradients
    float *w;                           // weights of window 1, 0 or 1; to be used where `weighted`
    float *now;                         // weights of the last careful pass: w without the samples that fell out
    float *warped, *warped_weight;      // update_gradient: window 2 with a frame of gradient_reach
    float *residual;                    // update_gradient
    float *hz, *hy, *hx;                // Gaussian gradients: central differences beside them, for M
    float *k[3];                        // errors: gradients of image 2, as image 1 sees them
    float *around;                      // errors: a gradient with a frame of the noise's reach, which is 0
    Int around_pitch, *lag;             // and the distance in it from the lag -reach to each of the noise's
    Int frame[3], frame_pitch;          // of `warped`
    float *row;                         // a row of values, and one of weights behind it
    bool weighted;                      // some w are 0
    Int *kept_from, *kept_to, *kept;    // rows of `now`: voxels [from, to) of w, and their number; from -1: otherwise
    Int *first, *last;                  // voxels [first, last) of a row beyond which all w are 0; by whole groups
    double level;
    void *memory;
};

// Voxels around the compared ones that gradients need; one more where Shift-DVC takes them beside the voxels.
MPIDVC_INLINE Int frame_of(const mpidvc_settings &set) { return set.gradient_reach + (set.shift ? 1 : 0); }

// Memory of a window of n voxels, to be given back by free(win.memory); noise: of a window with random errors, or null.
// False where memory is short.
bool allocate(Window &win, const Int n[3], const mpidvc_settings &set, const mpidvc_noise *noise) {
    memcpy(win.n, n, sizeof win.n);
    win.pitch = (n[2] + 7) / 8 * 8;
    win.rows = n[0] * n[1];
    const Int size = win.rows * win.pitch + 64;
    for (int a = 0; a < 3; a++)
        win.frame[a] = set.update_gradient ? n[a] + (set.two_d && a == 0 ? 0 : 2 * frame_of(set)) : 0;
    win.frame_pitch = (win.frame[2] + 7) / 8 * 8;
    const Int frame = win.frame[0] * win.frame[1] * win.frame_pitch + 64;
    const Int line = larger(win.pitch, win.frame_pitch) + 64;
    const Int lags = noise ? noise->count : 0;
    Int around = 0;
    if (lags > 1) {
        win.around_pitch = n[2] + 2 * noise->reach[2];
        around = (n[0] + 2 * noise->reach[0]) * (n[1] + 2 * noise->reach[1]) * win.around_pitch + 64;
    }
    const Int floats = (7 + (set.gauss ? 3 : 0) + (noise ? 3 : 0)) * size + 2 * frame + 2 * line + around;
    win.memory = calloc(1, sizeof(Int) * (5 * win.rows + lags) + sizeof(float) * floats);
    if (!win.memory) return false;
    win.first = (Int *)win.memory, win.last = win.first + win.rows;
    win.kept_from = win.last + win.rows, win.kept_to = win.kept_from + win.rows, win.kept = win.kept_to + win.rows;
    win.lag = win.kept + win.rows;
    for (Int k = 0; k < lags && around; k++) {
        const int64_t *lag = noise->lag + 3 * k, *r = noise->reach;
        win.lag[k] = ((lag[0] + r[0]) * (n[1] + 2 * r[1]) + lag[1] + r[1]) * win.around_pitch + lag[2] + r[2];
    }
    float *p = (float *)(win.lag + lags);
    win.f = p, win.gz = p + size, win.gy = p + 2 * size, win.gx = p + 3 * size, win.w = p + 4 * size;
    win.now = p + 5 * size;
    win.warped = p + 6 * size, win.warped_weight = win.warped + frame;
    win.row = win.warped_weight + frame;
    win.residual = win.row + 2 * line;
    win.hz = win.hy = win.hx = 0;
    p = win.residual + size;
    if (set.gauss) win.hz = p, win.hy = p + size, win.hx = p + 2 * size, p += 3 * size;
    for (int a = 0; a < 3 && noise; a++) win.k[a] = p, p += size;
    win.around = p;
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

// Shift-DVC: the gradients at the samples' positions, by linear interpolation between those of the voxels.
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

// The groups of each row beyond which nothing is compared: the mask of a grain leaves a good part of its box empty.
// Groups stay where they are, so that sums have the same terms in the same order, less some zeros.
void find_ends(Window &win) {
    for (Int r = 0; r < win.rows; r++) {
        const float *w = win.w + r * win.pitch;
        Int first = 0, last = (win.n[2] + WIDE - 1) / WIDE;
        if (win.weighted) {
            while (last > 0 && total(load<WIDE>(w + (last - 1) * WIDE)) == 0) last--;
            while (first < last && total(load<WIDE>(w + first * WIDE)) == 0) first++;
        }
        win.first[r] = first * WIDE, win.last[r] = smaller(last * WIDE, win.n[2]);
    }
}

// Voxels of a row that are not 0 in a map.
MPIDVC_INLINE Int count_of(const uint8_t *map, Int n) {
    Int sum = 0;
    for (Int x = 0; x < n;) {  // bytes add up to bytes for a while
        const Int end = smaller(n, x + 128);
        uint8_t some = 0;
        for (; x < end; x++) some = (uint8_t)(some + (map[x] != 0));
        sum += some;
    }
    return sum;
}

// Says that the rows of `now` have to be filled anew.
void forget(Window &win) {
    for (Int r = 0; r < win.rows; r++) win.kept_from[r] = -1;
}

// Gradients become 0 where w is.
void apply_weights(Window &win, const float *w) {
    for (Int i = 0; i < win.rows * win.pitch; i++) {
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

}  // namespace
