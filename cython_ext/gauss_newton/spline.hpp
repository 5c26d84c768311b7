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

// p = own p + other q.
MPIDVC_INLINE void add_lines(float *p, const float *q, Int width, float own, float other) {
    Int x = 0;
    for (; x + WIDE <= width; x += WIDE) store<WIDE>(p + x, load<WIDE>(p + x) * own + load<WIDE>(q + x) * other);
    for (; x < width; x++) p[x] = p[x] * own + q[x] * other;
}

// `width` neighbouring lines at once by recursion, elements `step` apart along the axis. start: room for them.
void filter_lines(float *c, Int n, Int step, Int width, float *start) {
    if (n < 2) return;
    const double pole = (double)POLE;
    memcpy(start, c, sizeof(float) * width);
    double power = pole;
    if (n <= 28) {
        double back = pow(pole, (double)(2 * n - 3)), scale = 1.0 / (1.0 - pow(pole, (double)(2 * n - 2)));
        for (Int k = 1; k < n - 1; k++, power *= pole, back /= pole)
            add_lines(start, c + k * step, width, 1.f, (float)(power + back));
        add_lines(start, c + (n - 1) * step, width, (float)scale, (float)(scale * power));
    } else {
        for (Int k = 1; k < 28; k++, power *= pole) add_lines(start, c + k * step, width, 1.f, (float)power);
    }
    for (Int x = 0; x < width; x++) c[x] = 6.f * start[x];
    for (Int i = 1; i < n; i++) add_lines(c + i * step, c + (i - 1) * step, width, 6.f, POLE);
    const float end = POLE / (POLE * POLE - 1.f);
    add_lines(c + (n - 1) * step, c + (n - 2) * step, width, end, end * POLE);
    for (Int i = n - 2; i >= 0; i--) add_lines(c + i * step, c + (i + 1) * step, width, -POLE, POLE);
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

// Coefficients of [low, high) in place; nothing outside is touched. -1 where memory is short.
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

}  // namespace
