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
    void *memory, *errors;
};

// Voxels around the compared ones that gradients need; one more where Shift-DVC takes them beside the voxels.
MPIDVC_INLINE Int frame_of(const mpidvc_settings &set) { return set.gradient_reach + (set.shift ? 1 : 0); }

// A window of n voxels, without memory.
Window window_of(const Int n[3]) {
    Window win = {};
    memcpy(win.n, n, sizeof win.n);
    win.pitch = (n[2] + 7) / 8 * 8;
    win.rows = n[0] * n[1];
    return win;
}

// Gives a window its rows, and memory of so many arrays of its size and of so many floats more. These are 0, of the
// arrays only what is behind the voxels of a row: they are large, and filled anyway. Returns the first; null where
// memory is short. To be given back by free(win.memory).
float *allocate_floats(Window &win, int arrays, Int more) {
    const Int size = win.rows * win.pitch + 64;
    win.memory = malloc(sizeof(Int) * 5 * win.rows + sizeof(float) * (arrays * size + more));
    if (!win.memory) return 0;
    win.first = (Int *)win.memory, win.last = win.first + win.rows;
    win.kept_from = win.last + win.rows, win.kept_to = win.kept_from + win.rows, win.kept = win.kept_to + win.rows;
    float *const first = (float *)(win.kept + win.rows);
    for (int k = 0; k < arrays; k++) {
        float *const p = first + k * size;
        for (Int r = 0; r < win.rows; r++)
            for (Int x = win.n[2]; x < win.pitch; x++) p[r * win.pitch + x] = 0.f;
        memset(p + size - 64, 0, sizeof(float) * 64);
    }
    memset(first + arrays * size, 0, sizeof(float) * more);
    return first;
}

// Memory for weights and samples alone, where grey levels and gradients stay in a box. False where memory is short.
bool allocate_weights(Window &win) {
    const Int size = win.rows * win.pitch + 64;
    float *p = allocate_floats(win, 3, win.pitch + 64);
    if (!p) return false;
    win.w = p, win.now = p + size, win.residual = p + 2 * size, win.row = p + 3 * size;
    return true;
}

// Memory for all of it. False where memory is short.
bool allocate(Window &win, const mpidvc_settings &set) {
    const Int *n = win.n, size = win.rows * win.pitch + 64;
    for (int a = 0; a < 3; a++)
        win.frame[a] = set.update_gradient ? n[a] + (set.two_d && a == 0 ? 0 : 2 * frame_of(set)) : 0;
    win.frame_pitch = (win.frame[2] + 7) / 8 * 8;
    const Int frame = win.frame[0] * win.frame[1] * win.frame_pitch + 64;
    const Int line = larger(win.pitch, win.frame_pitch) + 64;
    const int arrays = set.gauss ? 10 : 7;
    float *p = allocate_floats(win, arrays, 2 * frame + 2 * line);
    if (!p) return false;
    win.f = p, win.gz = p + size, win.gy = p + 2 * size, win.gx = p + 3 * size, win.w = p + 4 * size;
    win.now = p + 5 * size, win.residual = p + 6 * size;
    win.hz = win.hy = win.hx = 0;
    if (set.gauss) win.hz = p + 7 * size, win.hy = p + 8 * size, win.hx = p + 9 * size;
    win.warped = p + arrays * size, win.warped_weight = win.warped + frame;
    win.row = win.warped_weight + frame;
    if (set.two_d) {  // no gradient along z
        memset(win.gz, 0, sizeof(float) * size);
        if (win.hz) memset(win.hz, 0, sizeof(float) * size);
    }
    return true;
}

// Memory for random errors with this noise, all of it 0; to be given back by free(win.errors). False where it is short.
bool allocate_errors(Window &win, const mpidvc_noise &noise) {
    const Int *n = win.n, size = win.rows * win.pitch + 64, lags = noise.count;
    const int64_t *r = noise.reach;
    win.around_pitch = n[2] + 2 * r[2];
    const Int around = lags > 1 ? (n[0] + 2 * r[0]) * (n[1] + 2 * r[1]) * win.around_pitch + 64 : 0;
    win.errors = calloc(1, sizeof(Int) * lags + sizeof(float) * (3 * size + around));
    if (!win.errors) return false;
    win.lag = (Int *)win.errors;
    for (Int k = 0; k < lags; k++) {
        const int64_t *lag = noise.lag + 3 * k;
        win.lag[k] = ((lag[0] + r[0]) * (n[1] + 2 * r[1]) + lag[1] + r[1]) * win.around_pitch + lag[2] + r[2];
    }
    float *const p = (float *)(win.lag + lags);
    for (int a = 0; a < 3; a++) win.k[a] = p + a * size;
    win.around = p + 3 * size;
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

// A row times a weight, added to another one, or in its place.
MPIDVC_INLINE void add_row(const float *__restrict from, float weight, Int n, bool first, float *__restrict to) {
    if (first)
        for (Int x = 0; x < n; x++) to[x] = weight * from[x];
    else
        for (Int x = 0; x < n; x++) to[x] += weight * from[x];
}

// Gradients by the settings' method: central differences, or separable Gaussian derivatives (a frame of `reach`).
int gradients(const float *src, Int py, Int pz, const Int n[3], const mpidvc_settings &set, float *gz, float *gy,
              float *gx, Int pitch) {
    if (!set.gauss) {
        central_differences(src, py, pz, n, set.two_d, gz, gy, gx, pitch);
        return 0;
    }
    // a plane at a time: smoothed along z and y
    const Int reach = set.gradient_reach, taps = 2 * reach + 1, ny = n[1] + 2 * reach, nx = n[2] + 2 * reach;
    float *p = (float *)malloc(sizeof(float) * (2 * ny + 3) * nx);
    if (!p) return -1;
    float *smooth_z = p, *slope_z = p + ny * nx, *a = slope_z + ny * nx, *b = a + nx, *c = b + nx;
    const float *first = src - (set.two_d ? 0 : reach * pz) - reach * py - reach;
    for (Int z = 0; z < n[0]; z++) {
        for (Int y = 0; y < ny; y++)
            for (Int k = 0; k < (set.two_d ? 1 : taps); k++) {
                const float *q = first + (z + k) * pz + y * py;
                add_row(q, set.two_d ? 1.f : (float)set.gauss[k], nx, k == 0, smooth_z + y * nx);
                add_row(q, set.two_d ? 0.f : (float)set.gauss_derivative[k], nx, k == 0, slope_z + y * nx);
            }
        for (Int y = 0; y < n[1]; y++) {
            for (Int k = 0; k < taps; k++) {
                const float *s = smooth_z + (y + k) * nx, *d = slope_z + (y + k) * nx;
                add_row(d, (float)set.gauss[k], nx, k == 0, a);
                add_row(s, (float)set.gauss_derivative[k], nx, k == 0, b);
                add_row(s, (float)set.gauss[k], nx, k == 0, c);
            }
            const Int o = (z * n[1] + y) * pitch;
            for (Int k = 0; k < taps; k++) {
                add_row(a + k, (float)set.gauss[k], n[2], k == 0, gz + o);
                add_row(b + k, (float)set.gauss[k], n[2], k == 0, gy + o);
                add_row(c + k, (float)set.gauss_derivative[k], n[2], k == 0, gx + o);
            }
        }
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

// The weights of window 1 from a map of the voxels that may be compared.
void read_weights(Window &win, const uint8_t *map, Int py, Int pz) {
    for (Int z = 0; z < win.n[0]; z++)
        for (Int y = 0; y < win.n[1]; y++) {
            const uint8_t *v = map + z * pz + y * py;
            float *w = win.w + (z * win.n[1] + y) * win.pitch;
            for (Int x = 0; x < win.n[2]; x++) w[x] = v[x] ? 1.f : 0.f;
        }
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
