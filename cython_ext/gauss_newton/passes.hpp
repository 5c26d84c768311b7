// One pass of Gauss-Newton over a window: residual r and its sums at the present mapping.
//
// Needs: a window filled by read_window() and a sampler of box 2. Where all samples are data, interpolation, residual
// and sums are one loop in registers; else rows are sampled first, with weights. With update_gradient the gradients and
// their moments are computed anew from window 2.
#pragma once
#include <string.h>

#include "moments.hpp"

namespace {

// Sums of a pass in registers: sum r G of the row and of the plane so far; sum r G y, sum r G x, sum r^2, sum r and
// sum f0 r since the last fold().
struct Sums {
    Wide row[3], plane[3], y[3], x[3], rr, r, fr;
};

// Adds a group of residuals; moments: sum r G X, too.
MPIDVC_INLINE void add_group(Sums &s, const Window &win, Int o, Int x, Wide r, Wide f, bool moments, float half) {
    s.rr += r * r;
    s.r += r;
    s.fr += f * r;
    if (moments) {
        const Wide at = ramp<WIDE>() + ((float)x - half);
        const Wide a = r * load<WIDE>(win.gz + o + x), b = r * load<WIDE>(win.gy + o + x),
                   c = r * load<WIDE>(win.gx + o + x);
        s.row[0] += a, s.row[1] += b, s.row[2] += c;
        s.x[0] += a * at, s.x[1] += b * at, s.x[2] += c * at;
    }
}

// Zeros in registers and in the sums that a pass adds to.
MPIDVC_INLINE void start(Sums &s, double *sums) {
    const Wide zero = {};
    for (int i = 0; i < 3; i++) s.row[i] = s.plane[i] = s.y[i] = s.x[i] = zero;
    s.rr = s.r = s.fr = zero;
    for (int i = MPIDVC_R; i <= MPIDVC_FR; i++) sums[i] = 0;
    for (int i = 0; i < 12; i++) sums[MPIDVC_A + i] = 0;
}

MPIDVC_INLINE void end_row(Sums &s, float dy) {
    const Wide zero = {};
    for (int i = 0; i < 3; i++) {
        s.plane[i] += s.row[i];
        s.y[i] += s.row[i] * dy;
        s.row[i] = zero;
    }
}

// From registers to double precision.
MPIDVC_INLINE void fold(Sums &s, double *sums) {
    const Wide zero = {};
    for (int i = 0; i < 3; i++) {
        sums[MPIDVC_A + 4 * i + 1] += total(s.y[i]);
        sums[MPIDVC_A + 4 * i + 2] += total(s.x[i]);
        s.y[i] = s.x[i] = zero;
    }
    sums[MPIDVC_R] += total(s.r);
    sums[MPIDVC_RR] += total(s.rr);
    sums[MPIDVC_FR] += total(s.fr);
    s.rr = s.r = s.fr = zero;
}

// Planes are added in double precision; the other sums are folded every 16384 voxels or so.
MPIDVC_INLINE void end_plane(Sums &s, Int z, const Int n[3], double *sums) {
    const Wide zero = {};
    const double dz = (double)z - 0.5 * (double)(n[0] - 1);
    for (int i = 0; i < 3; i++) {
        const double p = total(s.plane[i]);
        sums[MPIDVC_A + 4 * i] += p * dz;
        sums[MPIDVC_A + 4 * i + 3] += p;
        s.plane[i] = zero;
    }
    if (z + 1 == n[0] || (z + 1) % larger(1, 16384 / (n[1] * n[2])) == 0) fold(s, sums);
}

// R, RR, FR and (MOMENTS) A of the sums, where all samples are data: interpolation and sums in one go. W: some voxels
// of window 1 have weight 0.
template <int O, int D, bool W, bool MOMENTS>
void fused_pass(const Window &win, const Sampler &s, float gain, float bias, double *sums) {
    const Int n0 = win.n[0], n1 = win.n[1], n2 = win.n[2], pitch = win.pitch;
    const float unit = s.unit * gain, half = 0.5f * (float)(n2 - 1);
    const Int step[3] = {s.along_y[0], s.along_y[1], s.along_y[2]};
    Sums acc;
    start(acc, sums);
    Int o = 0, line = 0;
    for (Int z = 0; z < n0; z++) {
        Int at[3] = {s.base[0] + z * s.along_z[0], s.base[1] + z * s.along_z[1], s.base[2] + z * s.along_z[2]};
        for (Int y = 0; y < n1; y++, line++, o += pitch, at[0] += step[0], at[1] += step[1], at[2] += step[2]) {
            const Row row = row_of<D>(s, at);
            Int x = W ? win.first[line] : 0, g = x / WIDE;
            const Int last = W ? win.last[line] : n2, whole = last / WIDE * WIDE, rest = last - whole;
            for (; x < whole; x += WIDE, g++) {
                const Wide f = load<WIDE>(win.f + o + x);
                Wide r = f - (group_at<WIDE, O, D>(s, place<D>(s, row, g)) * unit + bias);
                if (W) r *= load<WIDE>(win.w + o + x);
                add_group(acc, win, o, x, r, f, MOMENTS, half);
            }
            if (rest) {
                const Place q = place<D>(s, row, g);
                const Wide v = rest <= NARROW ? Widen<WIDE, NARROW>::of(group_at<NARROW, O, D>(s, q))
                                              : group_at<WIDE, O, D>(s, q);
                const Wide f = load<WIDE>(win.f + o + x);
                Wide r = first_lanes<WIDE>(f - (v * unit + bias), rest);
                if (W) r *= load<WIDE>(win.w + o + x);
                add_group(acc, win, o, x, r, f, MOMENTS, half);
            }
            end_row(acc, (float)y - 0.5f * (float)(n1 - 1));
        }
        end_plane(acc, z, win.n, sums);
    }
}

// The same where samples may be no data or move fast along a row. Fills win.now, the weights of this pass, and returns
// their sum; `changed`: some differ from those that were there before.
template <int O, int D>
double careful_pass(const Window &win, const Sampler &s, float gain, float bias, double *sums, bool *changed) {
    const Int *n = win.n;
    const float unit = s.unit * gain, half = 0.5f * (float)(n[2] - 1);
    float *const value = win.row, *const weight = win.row + (larger(win.pitch, win.frame_pitch) + 64);
    double count = 0;
    int differ = 0;
    Sums acc;
    start(acc, sums);
    for (Int z = 0; z < n[0]; z++) {
        for (Int y = 0; y < n[1]; y++) {
            const Int o = (z * n[1] + y) * win.pitch;
            float *now = win.now + o;
            if (row_inside(s, z, y, D)) {
                const Int at[3] = {s.base[0] + z * s.along_z[0] + y * s.along_y[0],
                                   s.base[1] + z * s.along_z[1] + y * s.along_y[1],
                                   s.base[2] + z * s.along_z[2] + y * s.along_y[2]};
                row_values<O, D>(s, at, value);
                for (Int x = 0; x < n[2]; x++) weight[x] = 1.f;
            } else {
                careful_row<O, D>(s, z, y, value, weight);
            }
            if (win.weighted)
                for (Int x = 0; x < n[2]; x++) weight[x] *= win.w[o + x];
            for (Int x = 0; x < n[2]; x++) {
                count += (double)weight[x];
                differ |= now[x] != weight[x];
                now[x] = weight[x];
            }
            for (Int x = 0; x < n[2]; x += WIDE) {
                const Wide f = load<WIDE>(win.f + o + x);
                const Wide r = first_lanes<WIDE>(f - (load<WIDE>(value + x) * unit + bias), n[2] - x);
                add_group(acc, win, o, x, r * load<WIDE>(now + x), f, true, half);
            }
            end_row(acc, (float)y - 0.5f * (float)(n[1] - 1));
        }
        end_plane(acc, z, n, sums);
    }
    *changed = differ != 0;
    return count;
}

// Whether gradients at p touch data only: neighbours along the axes, or the whole cube.
bool all_data(const float *weight, Int p, Int pitch, Int plane, Int reach, bool cube, int D) {
    const Int rz = D == 3 ? reach : 0;
    for (Int z = -rz; z <= rz; z++)
        for (Int y = -reach; y <= reach; y++)
            for (Int x = -reach; x <= reach; x++)
                if ((cube || (z != 0) + (y != 0) + (x != 0) <= 1) && !(weight[p + z * plane + y * pitch + x] > 0.f))
                    return false;
    return true;
}

// A pass with the gradient of the deformed image 2: all sums, M, C and D included. -1 where memory is short.
template <int O, int D>
int pass_updating_gradient(Window &win, const Sampler &inner, const mpidvc_settings &set, float gain, float bias,
                           double *sums, double *compared) {
    Sampler s = inner;
    const Int reach = frame_of(set), pitch = win.frame_pitch;
    const Int edge[3] = {D == 3 ? reach : 0, reach, reach};
    const Int index[3] = {inner.index0, inner.index_y, inner.index_z};
    double centre[3];
    for (int a = 0; a < 3; a++) {
        s.n[a] = win.frame[a];
        centre[a] = inner.start[a];
        for (int b = 0; b < 3; b++) centre[a] += inner.F[3 * a + b] * 0.5 * (double)(inner.n[b] - 1);
    }
    s.shift = false;
    plan<O, D>(s, inner.F, centre);
    sample_region<O, D>(s, win.warped, win.warped_weight, pitch, win.scratch);
    for (Int i = 0; i < win.frame[0] * win.frame[1] * pitch; i++)
        win.warped[i] = win.warped_weight[i] > 0.f ? win.warped[i] * gain + bias : 0.f;
    const Int plane = win.frame[1] * pitch, first = edge[0] * plane + edge[1] * pitch + edge[2];
    if (set.shift
            ? shifted_gradients(win.warped + first, pitch, plane, win.n, set, index, win.gz, win.gy, win.gx, win.pitch)
            : gradients(win.warped + first, pitch, plane, win.n, set, win.gz, win.gy, win.gx, win.pitch))
        return -1;
    if (win.hz)
        central_differences(win.warped + first, pitch, plane, win.n, set.two_d, win.hz, win.hy, win.hx, win.pitch);
    for (Int z = 0; z < win.n[0]; z++)
        for (Int y = 0; y < win.n[1]; y++) {
            const Int o = (z * win.n[1] + y) * win.pitch;
            const Int p = first + z * plane + y * pitch;
            for (Int x = 0; x < win.n[2]; x++) {
                bool data = !win.weighted || win.w[o + x] > 0.f;
                if (data && !s.all_inside)
                    data = all_data(win.warped_weight, p + x, pitch, plane, reach, set.gauss || set.shift, D);
                win.now[o + x] = data ? 1.f : 0.f;
            }
        }
    // the residual, row by row; Shift-DVC takes its samples beside the voxels
    float *r = win.residual;
    double n = 0, s1 = 0, s2 = 0, r1 = 0, r2 = 0, fr = 0;
    for (Int z = 0; z < win.n[0]; z++)
        for (Int y = 0; y < win.n[1]; y++) {
            const Int o = (z * win.n[1] + y) * win.pitch;
            const float *value = win.warped + first + z * plane + y * pitch;
            if (set.shift) {
                float *weight = win.row + (larger(win.pitch, win.frame_pitch) + 64);
                careful_row<O, D>(inner, z, y, win.row, weight);
                for (Int x = 0; x < win.n[2]; x++) {
                    win.row[x] = win.row[x] * inner.unit * gain + bias;
                    win.now[o + x] *= weight[x];
                }
                value = win.row;
            }
            for (Int x = 0; x < win.n[2]; x++) {
                const double w = (double)win.now[o + x], f = (double)win.f[o + x] * w;
                const double d = w * ((double)win.f[o + x] - (double)value[x]);
                r[o + x] = (float)d;
                n += w, s1 += f, s2 += f * f, r1 += d, r2 += d * d, fr += f * d;
            }
        }
    sums[MPIDVC_N] = n, sums[MPIDVC_F] = s1, sums[MPIDVC_FF] = s2;
    sums[MPIDVC_R] = r1, sums[MPIDVC_RR] = r2, sums[MPIDVC_FR] = fr;
    gradient_moments(win, win.gz, win.gy, win.gx, r, 0, sums + MPIDVC_A);
    gradient_sums(win, win.now, set.znssd, sums);
    *compared = n;
    return 0;
}

// A pass at the mapping (F, centre) by the settings. Without update_gradient: R, RR, FR, A (where `moments`), the number
// of compared voxels, and, where it is less than that of window 1, whether win.now has changed since it was filled last;
// N, F, FF, M, C, D are the caller's. -1 where memory is short.
template <int O, int D>
int one_pass(Window &win, Sampler &s, const mpidvc_settings &set, const double F[9], const double centre[3],
             double gain, double bias, bool moments, double *sums, double *compared, bool *changed) {
    plan<O, D>(s, F, centre);
    if (set.update_gradient) return pass_updating_gradient<O, D>(win, s, set, (float)gain, (float)bias, sums, compared);
    const float a = (float)gain, b = (float)bias;
    *changed = false;
    if (!s.all_inside || !s.grouped) {
        *compared = careful_pass<O, D>(win, s, a, b, sums, changed);
    } else if (win.weighted) {
        moments ? fused_pass<O, D, true, true>(win, s, a, b, sums)
                : fused_pass<O, D, true, false>(win, s, a, b, sums);
    } else {
        moments ? fused_pass<O, D, false, true>(win, s, a, b, sums)
                : fused_pass<O, D, false, false>(win, s, a, b, sums);
    }
    return 0;
}

// The same by the settings' order and dimensions.
int any_pass(Window &win, Sampler &s, const mpidvc_settings &set, const double F[9], const double centre[3],
             double gain, double bias, bool moments, double *sums, double *compared, bool *changed) {
    if (set.order == 1)
        return set.two_d ? one_pass<1, 2>(win, s, set, F, centre, gain, bias, moments, sums, compared, changed)
                         : one_pass<1, 3>(win, s, set, F, centre, gain, bias, moments, sums, compared, changed);
    return set.two_d ? one_pass<3, 2>(win, s, set, F, centre, gain, bias, moments, sums, compared, changed)
                     : one_pass<3, 3>(win, s, set, F, centre, gain, bias, moments, sums, compared, changed);
}

// znssd: gain and bias that give the samples at the mapping (F, centre) the mean and the deviation of f0, from the
// samples themselves in double precision. False where either is constant. Overwrites win.residual and win.now.
bool own_map(Window &win, Sampler &s, const mpidvc_settings &set, const double F[9], const double centre[3],
             double *gain, double *bias) {
    sample_mapped(s, set, F, centre, win.residual, win.now, win.pitch, win.scratch);
    for (Int o = 0; win.weighted && o < win.rows * win.pitch; o++) win.now[o] *= win.w[o];
    double n = 0, mean_f = 0, mean_g = 0, var_f = 0, var_g = 0;
    for (bool means = true;; means = false) {
        double sum_f = 0, sum_g = 0;
        for (Int r = 0; r < win.rows; r++)
            for (Int x = 0; x < win.n[2]; x++) {
                const Int o = r * win.pitch + x;
                if (!(win.now[o] > 0.f)) continue;
                const double f = (double)win.f[o] - mean_f, g = (double)win.residual[o] - mean_g;
                n += means, sum_f += means ? f : f * f, sum_g += means ? g : g * g;
            }
        if (n < 1) return false;
        if (!means) {
            var_f = sum_f / n, var_g = sum_g / n;
            break;
        }
        mean_f = sum_f / n, mean_g = sum_g / n;
    }
    if (!(var_f > 0 && var_g > 0)) return false;
    *gain = sqrt(var_f / var_g);
    *bias = mean_f - *gain * mean_g;
    return true;
}

}  // namespace
