// One pass of Gauss-Newton over a window: residual r and its sums at the present mapping.
//
// Needs: a window filled by read_window() and a sampler of box 2. Where all samples are data, interpolation, residual
// and sums are one loop in registers; else rows are sampled first, with weights. With update_gradient the gradients and
// their moments are computed anew from window 2.
#pragma once
#include <string.h>

#include "moments.hpp"

namespace {

enum { FOLD = 16384 };  // voxels, about, between two additions to the sums in double precision

// Sums of a pass since the last fold(): sum r^2, sum r, sum f0 r, and sum r G_i X_j (j: z y x 1).
struct Sums {
    Full rr, r, fr, moment[3][4];
};

// From single to double precision.
MPIDVC_INLINE void fold(Sums &s, double *sums) {
    sums[MPIDVC_R] += total(s.r);
    sums[MPIDVC_RR] += total(s.rr);
    sums[MPIDVC_FR] += total(s.fr);
    for (int k = 0; k < 12; k++) sums[MPIDVC_A + k] += total(s.moment[k / 4][k % 4]);
    s = Sums{};
}

// Where a pass gets the values of a column of groups: from box 2, or from an array of samples.
template <int O, int D> struct Interpolated {
    const Sampler &s;
    Places places;
    // a spline leaves no registers for sums where there are sixteen of them only
    enum { FIRST = O == 3 && (int)FULL < 16 };
    void begin(Int z, Int y, Int x, Int count, Int rows) { find_places<D>(s, z, y, x, count, rows, places); }
    template <int L> MPIDVC_METHOD typename Lanes<L>::F group(Int k, Int) const {
        return group_at<L, O, D>(s, places[k]);
    }
};
struct Stored {
    const float *value;
    enum { FIRST = 0 };
    void begin(Int, Int, Int, Int, Int) {}
    template <int L> MPIDVC_METHOD typename Lanes<L>::F group(Int, Int o) const { return load<L>(value + o); }
};
struct Zeros {
    enum { FIRST = 0 };
    void begin(Int, Int, Int, Int, Int) {}
    template <int L> MPIDVC_METHOD typename Lanes<L>::F group(Int, Int) const { return typename Lanes<L>::F{}; }
};

// Where a pass gets f0 and its gradient: from the window's arrays.
struct FromWindow {
    const Window &win;
    template <int L> MPIDVC_METHOD typename Lanes<L>::F level(Int, Int, Int, Int o) const { return load<L>(win.f + o); }
    template <int L> MPIDVC_METHOD void gradient(Int, Int, Int, Int o, typename Lanes<L>::F *g) const {
        g[0] = load<L>(win.gz + o), g[1] = load<L>(win.gy + o), g[2] = load<L>(win.gx + o);
    }
    enum { MARGIN = 0 };  // behind the voxels of a row are zeros
    static MPIDVC_METHOD float scale() { return 1.f; }
};
// From a box, by central differences: for passes that are rare, so that storing gradients would cost more than they do.
template <int D> struct FromBox {
    const float *src;  // the first voxel of the window
    Int py, pz;
    float minus;
    template <int L> MPIDVC_METHOD typename Lanes<L>::F level(Int z, Int y, Int x, Int) const {
        return load<L>(src + z * pz + y * py + x) - minus;
    }
    // To be multiplied by scale().
    template <int L> MPIDVC_METHOD void gradient(Int z, Int y, Int x, Int, typename Lanes<L>::F *g) const {
        const float *p = src + z * pz + y * py + x;
        g[0] = typename Lanes<L>::F{};
        if (D == 3) g[0] = load<L>(p + pz) - load<L>(p - pz);
        g[1] = load<L>(p + py) - load<L>(p - py);
        g[2] = load<L>(p + 1) - load<L>(p - 1);
    }
    enum { MARGIN = 1 };  // behind the voxels of a row, and of the box, is anything
    static MPIDVC_METHOD float scale() { return 0.5f; }
};
// The same with f0 = 1.
template <int D> struct Ones {
    FromBox<D> box;
    template <int L> MPIDVC_METHOD typename Lanes<L>::F level(Int, Int, Int, Int) const {
        return typename Lanes<L>::F{} + 1.f;
    }
    template <int L> MPIDVC_METHOD void gradient(Int z, Int y, Int x, Int o, typename Lanes<L>::F *g) const {
        box.template gradient<L>(z, y, x, o, g);
    }
    enum { MARGIN = 1 };
    static MPIDVC_METHOD float scale() { return FromBox<D>::scale(); }
};

// Adds the residuals of the group from voxel x on, in the rows [from, to) of a plane. Moments are summed per lane, and
// weighted once: by x and z at the end, and by y as sums of running sums (a row counts once for every row from there to
// the last). w: weights of the voxels, 0 or 1; null: all 1.
template <int L, bool W, bool MOMENTS, class Reference, class Values>
MPIDVC_NOINLINE void add_column(const Window &win, const Reference &one, Values &values, const float *w, Int z,
                                Int from, Int to, Int x, float unit, float bias, Sums &sums) {
    typedef typename Lanes<L>::F V;
    const Int left = win.n[2] - x;
    values.begin(z, from, x, smaller(left, L), to - from);
    V ready[Values::FIRST ? PIECE : 1];
    if (Values::FIRST)
        for (Int k = 0, at = (z * win.n[1] + from) * win.pitch + x; k < to - from; k++, at += win.pitch)
            ready[k] = values.template group<L>(k, at);
    V rr = {}, rs = {}, fr = {}, sum[3] = {}, running[3] = {};
    Int line = z * win.n[1] + from, o = line * win.pitch + x;
    for (Int y = from; y < to; y++, line++, o += win.pitch) {
        if (!W || (x < win.last[line] && x + L > win.first[line])) {
            const V f = one.template level<L>(z, y, x, o);
            const V value = Values::FIRST ? ready[y - from] : values.template group<L>(y - from, o);
            V r = first_lanes<L>(f - (value * unit + bias), left);
            if (W) r *= load<L>(w + o);
            rr += r * r, rs += r, fr += f * r;
            if (MOMENTS) {
                V g[3];
                one.template gradient<L>(z, y, x, o, g);
                if (Reference::MARGIN && left < L)
                    for (int i = 0; i < 3; i++) g[i] = first_lanes<L>(g[i], left);
                for (int i = 0; i < 3; i++) sum[i] += r * g[i];
            }
        }
        if (MOMENTS)
            for (int i = 0; i < 3; i++) running[i] += sum[i];
    }
    typedef Widen<FULL, L> Whole;
    sums.rr += Whole::of(rr), sums.r += Whole::of(rs), sums.fr += Whole::of(fr);
    if (!MOMENTS) return;
    const V dx = ramp<L>() + ((float)x - 0.5f * (float)(win.n[2] - 1));
    const float dz = (float)z - 0.5f * (float)(win.n[0] - 1), end = (float)to - 0.5f * (float)(win.n[1] - 1);
    for (int i = 0; i < 3; i++) {
        sum[i] *= Reference::scale(), running[i] *= Reference::scale();
        sums.moment[i][0] += Whole::of(sum[i] * dz);
        sums.moment[i][1] += Whole::of(sum[i] * end - running[i]);
        sums.moment[i][2] += Whole::of(sum[i] * dx);
        sums.moment[i][3] += Whole::of(sum[i]);
    }
}

// R, RR, FR and (MOMENTS) A of the sums, column by column of groups of at most so many lanes. W: voxels have the
// weights w.
template <bool W, bool MOMENTS, class Reference, class Values>
void add_columns(const Window &win, const Reference &one, Values values, const float *w, int lanes, float unit,
                 float bias, double *sums) {
    const Int *n = win.n, planes = larger(1, FOLD / (n[1] * n[2]));
    Sums acc = {};
    for (int i = MPIDVC_R; i <= MPIDVC_FR; i++) sums[i] = 0;
    for (int i = 0; i < 12; i++) sums[MPIDVC_A + i] = 0;
    for (Int z = 0; z < n[0]; z++) {
        for (Int from = 0; from < n[1]; from += PIECE)
            for (Int x = 0, to = smaller(from + PIECE, n[1]); x < n[2];) {
                const int now = lanes_for(n[2] - x, lanes);
                if (now == FULL)
                    add_column<FULL, W, MOMENTS>(win, one, values, w, z, from, to, x, unit, bias, acc);
                else if (now == WIDE)
                    add_column<WIDE, W, MOMENTS>(win, one, values, w, z, from, to, x, unit, bias, acc);
                else
                    add_column<QUAD, W, MOMENTS>(win, one, values, w, z, from, to, x, unit, bias, acc);
                x += now;
            }
        if (z + 1 == n[0] || (z + 1) % planes == 0) fold(acc, sums);
    }
}

// The same where samples may be no data or move fast along a row: they are stored first. Fills win.now, the weights of
// this pass, and returns their sum; `changed`: some differ from those that were there before.
template <int O, int D, class Reference>
double careful_pass(const Window &win, const Reference &one, const Sampler &s, float gain, float bias, double *sums,
                    bool *changed) {
    const Int *n = win.n;
    float *const weight = win.row;
    const bool plain = !s.valid && !s.shift && !s.wild;  // the data of a row are neighbours
    double count = 0;
    bool differ = false;
    for (Int z = 0, line = 0, o = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++, line++, o += win.pitch) {
            float *value = win.residual + o, *now = win.now + o;
            Int from = -1, to = -1;
            if (plain) {
                ends_of_row<D>(s, z, y, &from, &to);
                plain_row<O, D>(s, z, y, from, to, value);
                if (from == win.kept_from[line] && to == win.kept_to[line]) {
                    count += (double)win.kept[line];
                    continue;
                }
                for (Int x = 0; x < n[2]; x++) weight[x] = x >= from && x < to ? 1.f : 0.f;
            } else {
                careful_row<O, D>(s, z, y, value, weight);
            }
            if (win.weighted)
                for (Int x = 0; x < n[2]; x++) weight[x] *= win.w[o + x];
            Wide row = {};
            for (Int x = 0; x < n[2]; x++) differ |= now[x] != weight[x];
            for (Int x = 0; x < n[2]; x++) now[x] = weight[x];
            for (Int x = 0; x < n[2]; x += WIDE) row += first_lanes<WIDE>(load<WIDE>(weight + x), n[2] - x);
            win.kept_from[line] = from, win.kept_to[line] = to, win.kept[line] = (Int)total(row);
            count += (double)win.kept[line];
        }
    *changed = differ;
    add_columns<true, true>(win, one, Stored{win.residual}, win.now, FULL, s.unit * gain, bias, sums);
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
    sample_region<O, D>(s, win.warped, win.warped_weight, pitch);
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
    const FromWindow one = {win};
    const Interpolated<O, D> values = {s, {}};
    if (!s.all_inside || !s.slow) {
        *compared = careful_pass<O, D>(win, one, s, a, b, sums, changed);
    } else if (win.weighted) {
        moments ? add_columns<true, true>(win, one, values, win.w, s.lanes, s.unit * a, b, sums)
                : add_columns<true, false>(win, one, values, win.w, s.lanes, s.unit * a, b, sums);
    } else {
        moments ? add_columns<false, true>(win, one, values, 0, s.lanes, s.unit * a, b, sums)
                : add_columns<false, false>(win, one, values, 0, s.lanes, s.unit * a, b, sums);
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
    sample_mapped(s, set, F, centre, win.residual, win.now, win.pitch);
    forget(win);
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
