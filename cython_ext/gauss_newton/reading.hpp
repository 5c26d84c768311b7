// Reads window 1 from a box: grey levels less a level, gradients, weights, and the sums that do not need the residual.
//
// Needs: a box with a frame of gradient_reach voxels (one more for Shift-DVC) around the compared voxels.
#pragma once
#include <string.h>

#include "moments.hpp"
#include "sampler.hpp"
#include "window.hpp"

namespace {

// Mean of n voxels, `py` and `pz` apart, that have the weights w (of pitch `pitch`; null: all 1), `count` in number.
double mean_level(const float *src, Int py, Int pz, const Int n[3], const float *w, Int pitch, Int count) {
    double sum = 0;
    for (Int z = 0; z < n[0]; z++) {
        Full plane = {};
        for (Int y = 0; y < n[1]; y++) {
            const float *f = src + z * pz + y * py;
            for (Int x = 0; x < n[2]; x += FULL) {
                Full v = first_lanes<FULL>(load<FULL>(f + x), n[2] - x);
                if (w) v *= load<FULL>(w + (z * n[1] + y) * pitch + x);
                plane += v;
            }
        }
        sum += total(plane);
    }
    return count ? sum / (double)count : 0.0;
}

// Reads window 1: f0 = f - level (level NaN: the window's own mean), gradients, weights; N, F and FF of the sums, and
// without update_gradient M, for znssd C and D, too, unless these are known. -1 where memory is short.
int read_window(Window &win, const mpidvc_box &box, const float *sampled, const Int low[3], const mpidvc_settings &set,
                double level, const Int index[3], bool known, double *sums) {
    const Int *n = win.n, pitch = win.pitch, py = box.pitch_y, pz = box.pitch_z;
    const Int origin = low[0] * pz + low[1] * py + low[2];
    const float *src = box.data + origin;
    Int voxels = n[0] * n[1] * n[2];
    win.weighted = false;
    if (set.shift) {
        Sampler s = {};
        s.data = sampled, s.py = py, s.pz = pz, s.shift = true;
        s.index0 = index[0], s.index_y = index[1], s.index_z = index[2];
        const double identity[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
        double centre[3];
        for (int a = 0; a < 3; a++) {
            s.shape[a] = box.shape[a], s.n[a] = n[a];
            s.low[a] = 0, s.high[a] = (double)box.shape[a] - 1;
            centre[a] = (double)low[a] + 0.5 * (double)(n[a] - 1);
        }
        sample_mapped(s, set, identity, centre, win.f, win.w, pitch);
    }
    if (box.valid) {
        voxels = count_of(box.valid + origin, py, pz, n);
        win.weighted = voxels != n[0] * n[1] * n[2];
        if (win.weighted) read_weights(win, box.valid + origin, py, pz);
    }
    forget(win);
    find_ends(win);
    const float *const w = win.weighted ? win.w : 0;
    const float *const f = set.shift ? win.f : src;
    const Int fy = set.shift ? pitch : py, fz = set.shift ? n[1] * pitch : pz;
    if (level != level) level = mean_level(f, fy, fz, n, w, pitch, voxels);
    win.level = (double)(float)level;
    sums[MPIDVC_N] = (double)voxels, sums[MPIDVC_F] = sums[MPIDVC_FF] = 0;
    if (!set.shift && !set.gauss && !set.update_gradient) {
        double *const M = sums + MPIDVC_M, *const F = sums + MPIDVC_F, *const FF = sums + MPIDVC_FF;
        const float minus = (float)level;
        if (set.two_d)
            w ? products_of(win, FreshGradients<true, 2, true>{win, src, w, py, pz, minus}, M, F, FF)
              : products_of(win, FreshGradients<false, 2, true>{win, src, w, py, pz, minus}, M, F, FF);
        else
            w ? products_of(win, FreshGradients<true, 3, true>{win, src, w, py, pz, minus}, M, F, FF)
              : products_of(win, FreshGradients<false, 3, true>{win, src, w, py, pz, minus}, M, F, FF);
        if (set.znssd) grey_moments(win, 0, sums);
        return 0;
    }
    for (Int z = 0; z < n[0]; z++) {
        Wide one = {}, two = {};
        for (Int y = 0; y < n[1]; y++) {
            const float *from = f + z * fz + y * fy, *weight = win.w + (z * n[1] + y) * pitch;
            float *to = win.f + (z * n[1] + y) * pitch;
            for (Int x = 0; x < n[2]; x++) to[x] = (from[x] - (float)level) * (w ? weight[x] : 1.f);
            for (Int x = 0; x < n[2]; x += WIDE) {
                const Wide v = first_lanes<WIDE>(load<WIDE>(to + x), n[2] - x);
                one += v, two += v * v;
            }
        }
        sums[MPIDVC_F] += total(one), sums[MPIDVC_FF] += total(two);
    }
    if (set.update_gradient) return 0;  // gradients are those of window 2
    if (set.shift ? shifted_gradients(src, py, pz, n, set, index, win.gz, win.gy, win.gx, pitch)
                  : gradients(src, py, pz, n, set, win.gz, win.gy, win.gx, pitch))
        return -1;
    if (win.hz) central_differences(src, py, pz, n, set.two_d, win.hz, win.hy, win.hx, pitch);
    if (w) apply_weights(win, w);
    if (!known) gradient_sums(win, 0, set.znssd, sums);
    return 0;
}

}  // namespace
