// Sums over window 1 that do not depend on the residual: voxels, grey levels, and moments of the gradients.
//
// Needs: a window filled by read_window(). Rows are summed in single precision, planes in double.
#pragma once
#include <string.h>

#include "window.hpp"

namespace {

// The 60 sums of products of gradients, weighted by w (null: all 1). CROSS: products of the Gaussian gradient with the
// central differences, because the residual changes with the texture's own slope, which smoothing flattens: the square
// of the smooth gradient would make every step too long by as much.
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
            const Int line = z * n[1] + y, o = line * win.pitch;
            Wide r0[6] = {}, rx[6] = {}, rxx[6] = {};
            for (Int x = win.first[line]; x < win.last[line]; x += WIDE) {
                Wide a = load<WIDE>(win.gz + o + x), b = load<WIDE>(win.gy + o + x), c = load<WIDE>(win.gx + o + x);
                if (w) {
                    const Wide v = load<WIDE>(w + o + x);
                    a *= v, b *= v, c *= v;
                }
                Wide p = a, q = b, r = c;
                if (CROSS)
                    p = load<WIDE>(win.hz + o + x), q = load<WIDE>(win.hy + o + x), r = load<WIDE>(win.hx + o + x);
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

// The same by the window's kind of gradients.
void gradient_products(const Window &win, const float *w, double *out) {
    if (win.hz)
        products_of<true>(win, w, out);
    else
        products_of<false>(win, w, out);
}

// sum w r G X (r null: ones; w null: ones).
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

// M, and for znssd C and D, over the voxels with weight w (null: all 1).
void gradient_sums(const Window &win, const float *w, bool znssd, double *sums) {
    gradient_products(win, w, sums + MPIDVC_M);
    if (znssd) {
        gradient_moments(win, win.gz, win.gy, win.gx, win.f, w, sums + MPIDVC_C);
        gradient_moments(win, win.gz, win.gy, win.gx, 0, w, sums + MPIDVC_D);
    }
}

// All sums without the residual (N, F, FF, M, and for znssd C and D) over the voxels with weight w.
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
    gradient_sums(win, w, znssd, sums);
}

}  // namespace
