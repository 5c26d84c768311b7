// Sums over window 1 that do not depend on the residual: voxels, grey levels, and moments of the gradients.
//
// Needs: a window with gradients, or a box to take them from. Sums of about a thousand values are in single precision,
// the others in double.
#pragma once
#include <string.h>

#include "window.hpp"

namespace {

enum {
    DEPTH = 1024,  // values that a lane adds up in single precision, about
    ROWS = 64      // rows of a plane whose y is weighted at once
};

// Sums of the six products G_i G_k of a column of groups, per lane, with the weights 1 z zz y yz yy; and those of f0 and
// f0^2 where a source has them.
struct Products {
    Full sum[6][6], f, ff;
};

// Adds a column's sums, from voxel x on, to those of the window (null: none), and begins anew.
MPIDVC_INLINE void fold(Products &column, float dx, double *products, double *f, double *ff) {
    const Full at = ramp<FULL>() + dx;
    for (int i = 0; i < 6; i++) {
        const Full *s = column.sum[i];
        // 1 z y x zz zy zx yy yx xx
        const Full list[10] = {s[0], s[1], s[3], s[0] * at, s[2], s[4], s[1] * at, s[5], s[3] * at, s[0] * at * at};
        for (int k = 0; k < 10; k++) products[10 * i + k] += total(list[k]);
    }
    if (f) *f += total(column.f), *ff += total(column.ff);
    column = Products{};
}

// Where the products get the gradients of a group: from the window's arrays, weighted by w.
template <bool W> struct StoredGradients {
    const Window &win;
    const float *w;
    enum { CROSS = 0, LEVELS = 0, SKIPS = 1 };
    template <int L>
    MPIDVC_METHOD void group(Int, Int, Int, Int o, typename Lanes<L>::F *g, typename Lanes<L>::F *,
                             typename Lanes<L>::F &) const {
        g[0] = load<L>(win.gz + o), g[1] = load<L>(win.gy + o), g[2] = load<L>(win.gx + o);
        if (W) {
            const typename Lanes<L>::F v = load<L>(w + o);
            g[0] *= v, g[1] *= v, g[2] *= v;
        }
    }
};
// The same with the central differences beside the Gaussian gradients.
template <bool W> struct CrossedGradients {
    const Window &win;
    const float *w;
    enum { CROSS = 1, LEVELS = 0, SKIPS = 1 };
    template <int L>
    MPIDVC_METHOD void group(Int z, Int y, Int x, Int o, typename Lanes<L>::F *g, typename Lanes<L>::F *h,
                             typename Lanes<L>::F &f) const {
        StoredGradients<W>{win, w}.template group<L>(z, y, x, o, g, h, f);
        h[0] = load<L>(win.hz + o), h[1] = load<L>(win.hy + o), h[2] = load<L>(win.hx + o);
    }
};
// Central differences of a box, and grey levels less `level`; STORE: they are stored in the window on the way, one pass
// over the memory for all of it. src: the first voxel of the window.
template <bool W, int D, bool STORE> struct FreshGradients {
    const Window &win;
    const float *src, *w;
    Int py, pz;
    float level;
    enum { CROSS = 0, LEVELS = 1, SKIPS = W && !STORE };
    template <int L>
    MPIDVC_METHOD void group(Int z, Int y, Int x, Int o, typename Lanes<L>::F *g, typename Lanes<L>::F *,
                             typename Lanes<L>::F &f) const {
        const float *p = src + z * pz + y * py + x;
        const Int left = win.n[2] - x;
        const typename Lanes<L>::F zero = {};
        g[0] = zero;
        if (D == 3) g[0] = first_lanes<L>(0.5f * (load<L>(p + pz) - load<L>(p - pz)), left);
        g[1] = first_lanes<L>(0.5f * (load<L>(p + py) - load<L>(p - py)), left);
        g[2] = first_lanes<L>(0.5f * (load<L>(p + 1) - load<L>(p - 1)), left);
        f = first_lanes<L>(load<L>(p) - level, left);
        if (W) {
            const typename Lanes<L>::F v = load<L>(w + o);
            g[0] *= v, g[1] *= v, g[2] *= v, f *= v;
        }
        if (!STORE) return;
        store<L>(win.f + o, f);
        if (D == 3) store<L>(win.gz + o, g[0]);
        store<L>(win.gy + o, g[1]), store<L>(win.gx + o, g[2]);
    }
};

// Adds the rows [from, to) of a plane, in the group from voxel x on. y is weighted by sums of running sums, and of sums
// of these: a row counts m = to - y times, and m (m + 1) / 2 times.
template <int L, class Source>
MPIDVC_NOINLINE void add_products(const Window &win, const Source &source, Int z, Int from, Int to, Int x,
                                  Products &column) {
    typedef typename Lanes<L>::F V;
    const Int left = win.n[2] - x;
    V sum[6] = {}, once[6] = {}, twice[6] = {}, s1 = {}, s2 = {};
    Int line = z * win.n[1] + from, o = line * win.pitch + x;
    for (Int y = from; y < to; y++, line++, o += win.pitch) {
        // a source that stores has to see every group
        if (!Source::SKIPS || (x < win.last[line] && x + L > win.first[line])) {
            V g[3], h[3], f = {};
            source.template group<L>(z, y, x, o, g, h, f);
            if (!Source::LEVELS)
                for (int i = 0; i < 3; i++) g[i] = first_lanes<L>(g[i], left);
            if (Source::CROSS) {
                // products of the smooth gradient with central differences: the residual changes with the texture's own
                // slope, which smoothing flattens, and the square would make every step too long by as much
                sum[0] += g[0] * h[0], sum[3] += g[1] * h[1], sum[5] += g[2] * h[2];
                sum[1] += 0.5f * (g[0] * h[1] + g[1] * h[0]);
                sum[2] += 0.5f * (g[0] * h[2] + g[2] * h[0]);
                sum[4] += 0.5f * (g[1] * h[2] + g[2] * h[1]);
            } else {
                sum[0] += g[0] * g[0], sum[1] += g[0] * g[1], sum[2] += g[0] * g[2];
                sum[3] += g[1] * g[1], sum[4] += g[1] * g[2], sum[5] += g[2] * g[2];
            }
            if (Source::LEVELS) s1 += f, s2 += f * f;
        }
        MPIDVC_UNROLL
        for (int i = 0; i < 6; i++) {
            once[i] += sum[i];
            twice[i] += once[i];
        }
    }
    typedef Widen<FULL, L> Whole;
    const float dz = (float)z - 0.5f * (float)(win.n[0] - 1), end = (float)to - 0.5f * (float)(win.n[1] - 1);
    for (int i = 0; i < 6; i++) {
        Full *s = column.sum[i];
        const V along = sum[i] * end - once[i];
        const Full p = Whole::of(sum[i]), y = Whole::of(along);
        s[0] += p, s[1] += p * dz, s[2] += p * (dz * dz), s[3] += y, s[4] += y * dz;
        s[5] += Whole::of(end * (along - once[i]) + (2.f * twice[i] - once[i]));
    }
    column.f += Whole::of(s1), column.ff += Whole::of(s2);
}

// The 60 sums of products of gradients, and of f0 and f0^2 (sources with levels; else null).
template <class Source>
void products_of(const Window &win, const Source &source, double *products, double *f, double *ff) {
    const Int *n = win.n, planes = larger(1, DEPTH / n[1]);
    const float half = 0.5f * (float)(n[2] - 1);
    memset(products, 0, 60 * sizeof(double));
    Products column = {};
    for (Int x = 0; x < n[2];) {
        const int lanes = lanes_for(n[2] - x, FULL);
        for (Int z = 0; z < n[0]; z++) {
            for (Int from = 0; from < n[1]; from += ROWS) {
                const Int to = smaller(from + ROWS, n[1]);
                if (lanes == FULL)
                    add_products<FULL>(win, source, z, from, to, x, column);
                else if (lanes == WIDE)
                    add_products<WIDE>(win, source, z, from, to, x, column);
                else
                    add_products<QUAD>(win, source, z, from, to, x, column);
            }
            if (z + 1 == n[0] || (z + 1) % planes == 0) fold(column, (float)x - half, products, f, ff);
        }
        x += lanes;
    }
}

// The products of the window's own gradients, weighted by w (null: all 1).
void gradient_products(const Window &win, const float *w, double *out) {
    if (win.hz)
        w ? products_of(win, CrossedGradients<true>{win, w}, out, 0, 0)
          : products_of(win, CrossedGradients<false>{win, w}, out, 0, 0);
    else
        w ? products_of(win, StoredGradients<true>{win, w}, out, 0, 0)
          : products_of(win, StoredGradients<false>{win, w}, out, 0, 0);
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

// znssd: C and D over the voxels with weight w (null: all 1).
void grey_moments(const Window &win, const float *w, double *sums) {
    gradient_moments(win, win.gz, win.gy, win.gx, win.f, w, sums + MPIDVC_C);
    gradient_moments(win, win.gz, win.gy, win.gx, 0, w, sums + MPIDVC_D);
}

// M, and for znssd C and D, over the voxels with weight w.
void gradient_sums(const Window &win, const float *w, bool znssd, double *sums) {
    gradient_products(win, w, sums + MPIDVC_M);
    if (znssd) grey_moments(win, w, sums);
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
