// The prefilter of cubic B-spline interpolation: coefficients from grey levels, in place.
//
// Needs: nothing but the box; the boundary of the filtered part is mirrored.
#pragma once
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../lanes.hpp"

namespace {

// Pole of the cubic B-spline's filter, sqrt(3) - 2; its gain is 6 (Unser 1999, doi 10.1109/79.799930).
const float POLE = -0.26794919243112270647f;

enum {
    MEMORY = 16,  // voxels after which the filter has forgotten where it began, to 1e-9
    REACH = 12    // of the impulse response
};

template <class V> MPIDVC_INLINE V taken(const float *p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class V> MPIDVC_INLINE void put(float *p, V v) { memcpy(p, &v, sizeof v); }

// B vectors of neighbouring lines by recursion, elements `step` apart along the axis. The values on the way stay in
// registers; a vector alone would wait for itself.
template <class V, int B> MPIDVC_INLINE void filter_block(float *c, Int n, Int step) {
    const Int width = sizeof(V) / sizeof(float);
    const double pole = (double)POLE;
    V now[B];
    MPIDVC_UNROLL
    for (int b = 0; b < B; b++) now[b] = taken<V>(c + b * width);
    double power = pole, back = pow(pole, (double)(2 * n - 3));
    const bool two_ends = n <= MEMORY;
    const Int terms = two_ends ? n - 1 : (Int)MEMORY;
    for (Int k = 1; k < terms; k++, power *= pole, back /= pole) {
        const float weight = (float)(two_ends ? power + back : power);
        MPIDVC_UNROLL
        for (int b = 0; b < B; b++) now[b] += taken<V>(c + k * step + b * width) * weight;
    }
    const double scale = two_ends ? 1.0 / (1.0 - pow(pole, (double)(2 * n - 2))) : 1.0;
    const float whole = (float)(6.0 * scale), last = (float)(6.0 * scale * power);
    MPIDVC_UNROLL
    for (int b = 0; b < B; b++) {
        now[b] *= whole;
        if (two_ends) now[b] += taken<V>(c + (n - 1) * step + b * width) * last;
        put(c + b * width, now[b]);
    }
    V before[B] = {};
    for (Int i = 1; i < n; i++) {
        MPIDVC_UNROLL
        for (int b = 0; b < B; b++) {
            before[b] = now[b];
            now[b] = taken<V>(c + i * step + b * width) * 6.f + now[b] * POLE;
            put(c + i * step + b * width, now[b]);
        }
    }
    const float end = POLE / (POLE * POLE - 1.f);
    MPIDVC_UNROLL
    for (int b = 0; b < B; b++) {
        now[b] = (now[b] + before[b] * POLE) * end;
        put(c + (n - 1) * step + b * width, now[b]);
    }
    for (Int i = n - 2; i >= 0; i--) {
        MPIDVC_UNROLL
        for (int b = 0; b < B; b++) {
            now[b] = (now[b] - taken<V>(c + i * step + b * width)) * POLE;
            put(c + i * step + b * width, now[b]);
        }
    }
}

// `width` neighbouring lines.
void filter_lines(float *c, Int n, Int step, Int width) {
    if (n < 2) return;
    Int x = 0;
    for (; x + 4 * FULL <= width; x += 4 * FULL) filter_block<Full, 4>(c + x, n, step);
    for (; x + FULL <= width; x += FULL) filter_block<Full, 1>(c + x, n, step);
    for (; x + QUAD <= width; x += QUAD) filter_block<Lanes<QUAD>::F, 1>(c + x, n, step);
    for (; x < width; x++) filter_block<float, 1>(c + x, n, step);
}

// One line along x by the truncated impulse response, which needs no transposition: sqrt(3) pole^|k| to 1e-7.
// `weight`: of its values, from the middle on.
void filter_row(float *c, Int n, const float *weight, float *line) {
    if (n < 2) return;
    float *centre = line + REACH;
    memcpy(centre, c, sizeof(float) * n);
    if (n > REACH) {
        for (Int k = 1; k <= REACH; k++) centre[-k] = c[k], centre[n - 1 + k] = c[n - 1 - k];
    } else {
        for (Int k = 1; k <= REACH; k++) {  // mirrored at both ends, as often as a short line needs it
            const Int period = 2 * n - 2, left = k % period, right = (n - 1 + k) % period;
            centre[-k] = c[left < n ? left : period - left];
            centre[n - 1 + k] = c[right < n ? right : period - right];
        }
    }
    for (Int x = 0; x < n; x += FULL) {
        Full v = load<FULL>(centre + x) * weight[0];
        MPIDVC_UNROLL
        for (int k = 1; k <= REACH; k++) v += (load<FULL>(centre + x - k) + load<FULL>(centre + x + k)) * weight[k];
        if (x + FULL <= n) {
            store<FULL>(c + x, v);
        } else {
            float last[FULL];
            store<FULL>(last, v);
            memcpy(c + x, last, sizeof(float) * (n - x));
        }
    }
}

// Coefficients of [low, high) in place; nothing outside is touched. Only those of [needed_low, needed_high) are
// finished: each axis leaves out what the axes before it were the last to need. Rows, which cost most, come last. -1
// where memory is short.
int prefilter(float *data, Int py, Int pz, const Int low[3], const Int high[3], const Int needed_low[3],
              const Int needed_high[3]) {
    const Int nz = high[0] - low[0], ny = high[1] - low[1], nx = high[2] - low[2];
    if (nz < 1 || ny < 1 || nx < 1) return 0;
    float *line = (float *)calloc(1, sizeof(float) * (nx + 128));
    if (!line) return -1;
    float weight[REACH + 1];
    double sum = 0, power = 1;
    for (int k = 0; k <= REACH; k++, power *= (double)POLE) sum += k ? 2 * power : power;
    power = 1;
    for (int k = 0; k <= REACH; k++, power *= (double)POLE) weight[k] = (float)(power / sum);
    float *first = data + low[0] * pz + low[1] * py + low[2];
    for (Int y = 0; y < ny; y++) filter_lines(first + y * py, nz, pz, nx);
    for (Int z = needed_low[0] - low[0]; z < needed_high[0] - low[0]; z++) {
        filter_lines(first + z * pz, ny, py, nx);
        for (Int y = needed_low[1] - low[1]; y < needed_high[1] - low[1]; y++)
            filter_row(first + z * pz + y * py, nx, weight, line);
    }
    free(line);
    return 0;
}

}  // namespace
