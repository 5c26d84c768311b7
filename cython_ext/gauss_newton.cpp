// Gauss-Newton registration of windows and blocks, compiled once per instruction set (MPIDVC_ISA names the copy).
//
// Model f(x) = g(Phi x), f image 1, g image 2. With r = f - g(Phi x), G the gradient of f and X = (z, y, x, 1):
// A = sum r G X, M = sum (G X)(G X)^T, Phi <- Phi (I + M^-1 A).
//
// The parts, each in a header of its own: sampler (interpolation of image 2), window (image 1), moments (sums without
// the residual), reading (window and moments from a box), passes (sums with the residual), algebra (the small system),
// slopes (gradients of image 2), errors (random errors of a result), spline (prefilter). Here: blocks, points, warps and
// grey levels.
//
// Everything has internal linkage but the table at the end, and nothing of the C++ library is used: see
// instruction_set.hpp.
#include "gauss_newton.hpp"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gauss_newton/algebra.hpp"
#include "gauss_newton/errors.hpp"
#include "gauss_newton/moments.hpp"
#include "gauss_newton/passes.hpp"
#include "gauss_newton/reading.hpp"
#include "gauss_newton/sampler.hpp"
#include "gauss_newton/slopes.hpp"
#include "gauss_newton/spline.hpp"
#include "gauss_newton/window.hpp"
#include "instruction_set.hpp"
#include "lanes.hpp"

namespace {

// ----------------------------------------------------------------------------------------------- blocks of an image

// Sums of a block whose image 1 stays in its box: gradients are central differences there.
struct BoxedBlock {
    const mpidvc_settings &set;
    Window win;
    const float *src;
    Int py, pz;
    float level;
};

// Whether the sums of image 1 alone are there; else they become 0, to be made.
bool known_sums(double *whole) {
    const bool known = whole[MPIDVC_N] == whole[MPIDVC_N];
    if (!known) memset(whole, 0, sizeof(double) * MPIDVC_SUMS);
    return known;
}

// N, F, FF, M, for znssd C and D, over the voxels with weight w (null: all 1), `voxels` in number.
template <bool W, int D> void reference_sums(const BoxedBlock &block, const float *w, Int voxels, double *sums) {
    sums[MPIDVC_N] = (double)voxels, sums[MPIDVC_F] = sums[MPIDVC_FF] = 0;
    const FreshGradients<W, D, false> gradients = {block.win, block.src, w, block.py, block.pz, block.level};
    products_of(block.win, gradients, sums + MPIDVC_M, sums + MPIDVC_F, sums + MPIDVC_FF);
    if (!block.set.znssd) return;
    // sum f0 G X is that of a residual, too: the one of a black image 2
    const FromBox<D> one = {block.src, block.py, block.pz, block.level};
    double like[MPIDVC_SUMS];
    add_columns<W, true>(block.win, one, Zeros{}, w, FULL, 1.f, 0.f, like);
    memcpy(sums + MPIDVC_C, like + MPIDVC_A, 12 * sizeof(double));
    add_columns<W, true>(block.win, Ones<D>{one}, Zeros{}, w, FULL, 1.f, 0.f, like);
    memcpy(sums + MPIDVC_D, like + MPIDVC_A, 12 * sizeof(double));
}

// The sums of a pass from those of image 1 alone (`whole`), which it makes where they are unknown. -1 where memory is
// short.
template <int O, int D> int boxed_sums(const mpidvc_block &job, BoxedBlock &block, double *whole, double *sums) {
    Window &win = block.win;
    const uint8_t *const map = job.box1.valid ? job.box1.valid + (block.src - job.box1.data) : 0;
    const Int all = win.rows * win.n[2], voxels = map ? count_of(map, block.py, block.pz, win.n) : all;
    win.weighted = voxels != all;
    Sampler s = sampler_of(job.box2, win.n, job.low2, job.high2);
    plan<O, D>(s, job.F, job.centre2);
    const bool careful = !s.all_inside || !s.slow;
    if (careful || win.weighted) {
        if (!allocate_weights(win)) return -1;
        if (win.weighted) read_weights(win, map, block.py, block.pz);
        forget(win);
        find_ends(win);
    }
    const float *const w = win.weighted ? win.w : 0;
    if (!known_sums(whole))
        w ? reference_sums<true, D>(block, w, voxels, whole) : reference_sums<false, D>(block, w, voxels, whole);
    memcpy(sums, whole, sizeof(double) * MPIDVC_SUMS);
    const FromBox<D> one = {block.src, block.py, block.pz, block.level};
    const Interpolated<O, D> values = {s, {}};
    const float gain = (float)block.set.gain, bias = (float)(block.set.bias - job.level);
    if (careful) {
        bool changed;
        const Int compared = (Int)careful_pass<O, D>(win, one, s, gain, bias, sums, &changed);
        if (compared != voxels) reference_sums<true, D>(block, win.now, compared, sums);
    } else if (w) {
        add_columns<true, true>(win, one, values, w, s.lanes, s.unit * gain, bias, sums);
    } else {
        add_columns<false, true>(win, one, values, w, s.lanes, s.unit * gain, bias, sums);
    }
    return 0;
}

// The same where image 1 has to be read first.
int read_sums(const mpidvc_block &job, Window &win, double *whole, double *sums) {
    const mpidvc_settings &set = *job.settings;
    if (!allocate(win, set)) return -1;
    const Int index[3] = {job.index0, job.index_y, job.index_z};
    const bool known = !set.update_gradient && known_sums(whole);
    memset(sums, 0, sizeof(double) * MPIDVC_SUMS);
    if (known) memcpy(sums, whole, sizeof(double) * MPIDVC_SUMS);
    if (read_window(win, job.box1, job.sampled1, job.low1, set, job.level, index, known, sums)) return -1;
    if (!set.update_gradient) memcpy(whole, sums, sizeof(double) * MPIDVC_SUMS);
    Sampler s = sampler_of(job.box2, win.n, job.low2, job.high2);
    s.shift = set.shift != 0;
    s.index0 = index[0], s.index_y = index[1], s.index_z = index[2];
    double compared = sums[MPIDVC_N];
    bool changed;
    if (any_pass(win, s, set, job.F, job.centre2, set.gain, set.bias - job.level, true, sums, &compared, &changed))
        return -1;
    if (!set.update_gradient && compared != sums[MPIDVC_N]) window_sums(win, win.now, set.znssd, sums);
    return 0;
}

int block_sums(const mpidvc_block *job, double *whole, double *sums) {
    const mpidvc_settings &set = *job->settings;
    Window win = window_of(job->n);
    int failed;
    if (set.shift || set.gauss || set.update_gradient) {
        failed = read_sums(*job, win, whole, sums);
        free(win.memory);
        return failed;
    }
    const Int py = job->box1.pitch_y, pz = job->box1.pitch_z;
    const float *src = job->box1.data + job->low1[0] * pz + job->low1[1] * py + job->low1[2];
    BoxedBlock block = {set, win, src, py, pz, (float)job->level};
    if (set.order == 1)
        failed = set.two_d ? boxed_sums<1, 2>(*job, block, whole, sums) : boxed_sums<1, 3>(*job, block, whole, sums);
    else
        failed = set.two_d ? boxed_sums<3, 2>(*job, block, whole, sums) : boxed_sums<3, 3>(*job, block, whole, sums);
    free(block.win.memory);
    return failed;
}

// ------------------------------------------------------------------------------------------------ points of a chunk

// Fraction of the voxels [low, low + n) of a box that are not 0 in a map.
double mean_of(const uint8_t *map, const mpidvc_box &box, const Int low[3], const Int n[3]) {
    Int sum = 0;
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++)
            sum += count_of(map + (low[0] + z) * box.pitch_z + (low[1] + y) * box.pitch_y + low[2], n[2]);
    return (double)sum / (double)(n[0] * n[1] * n[2]);
}

// Mean grey level (the image's own) of the voxels [low, low + n) of box 1 that exist; masked ones count.
double mean_grey(const mpidvc_points &points, const Int low[3], const Int n[3]) {
    double sum = 0;
    Int count = 0;
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) {
            const Int o = (low[0] + z) * points.box1.pitch_z + (low[1] + y) * points.box1.pitch_y + low[2];
            for (Int x = 0; x < n[2]; x++)
                if (!points.real || points.real[o + x]) sum += (double)points.box1.data[o + x], count++;
        }
    return count ? sum / (double)count + points.settings->base1 : 0.0;
}

// A row of the results.
struct Outcome {
    double error, delta_norm, coverage, zncc;
    int iterations, status;
    bool left;  // in some pass a sample was no data
};

// Phi <- Phi (I + delta), if rigid with the rotation of I + delta; norm: of the change. Returns the status: 0, -2 where
// I + delta has no rotation (nothing is changed then), -4 where Phi becomes singular or grows beyond bounds.
int update(const mpidvc_settings &set, const double delta[12], double F[9], double t[3], double *norm) {
    double G[9], square = 0, next[9];
    const double step[3] = {delta[3], delta[7], delta[11]};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) G[3 * i + j] = delta[4 * i + j] + (i == j);
    if (set.rigid) {
        double R[9];
        if (!rotation_of(G, R)) return -2;
        memcpy(G, R, sizeof G);
    }
    for (int i = 0; i < 3; i++) {
        square += step[i] * step[i];
        for (int j = 0; j < 3; j++) square += (G[3 * i + j] - (i == j)) * (G[3 * i + j] - (i == j));
    }
    *norm = sqrt(square);
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) t[i] += F[3 * i + j] * step[j];
        for (int j = 0; j < 3; j++)
            next[3 * i + j] = F[3 * i] * G[j] + F[3 * i + 1] * G[3 + j] + F[3 * i + 2] * G[6 + j];
    }
    memcpy(F, next, sizeof next);
    bool sound = determinant(F) != 0;
    for (int i = 0; i < 9; i++) sound = sound && fabs(F[i]) < MPIDVC_LARGEST_F;
    for (int i = 0; i < 3; i++) sound = sound && fabs(t[i]) < MPIDVC_LARGEST_T;
    return sound ? 0 : -4;
}

// Where a registration begins: Phi, and the samples of box 2 that are data.
struct Start {
    double F[9], t[3], low2[3], high2[3];
    Int neighbour;  // that it comes from, -1 = the guess
};

// The sampler of box 2 for a window; index: as in read_window.
Sampler sampler_from(const mpidvc_points &points, const Window &win, const Int index[3], const Start &start) {
    Sampler s = sampler_of(points.box2, win.n, start.low2, start.high2);
    s.shift = points.settings->shift != 0;
    s.index0 = index[0], s.index_y = index[1], s.index_z = index[2];
    return s;
}

// ZNCC of a window that was read, with `whole` as the sums of its voxels, at a start; -INFINITY where less than `enough`
// of it is compared, or grey levels are constant. -1 where memory is short.
int correlation_at(const Start &start, Window &win, Sampler s, const mpidvc_settings &set, const double centre2[3],
                   double enough, const double whole[MPIDVC_SUMS], double *zncc) {
    double sums[MPIDVC_SUMS], gain = set.gain, bias = set.bias - win.level, compared = whole[MPIDVC_N];
    bool changed;
    memcpy(sums, whole, sizeof sums);
    for (bool again = false;; again = true) {
        if (any_pass(win, s, set, start.F, centre2, gain, bias, false, sums, &compared, &changed)) return -1;
        if (!set.update_gradient && compared < whole[MPIDVC_N]) window_sums(win, win.now, set.znssd, sums);
        const Normalised q = normalise(sums);
        *zncc = q.flat || !(sums[MPIDVC_N] >= 1) || sums[MPIDVC_N] < enough ? -INFINITY : q.zncc;
        if (again || !q.rough || !own_map(win, s, set, start.F, centre2, &gain, &bias)) return 0;
    }
}

// Registers one window, from its start, or from the other one (unless null) where that correlates better, to the result
// in the place of the start; not unless the ZNCC at the start is above a limit (null: none). The random errors (null:
// none) are about `place`. -1 where memory is short.
int register_window(const mpidvc_points &points, Window &win, const Int centre1[3], Start &start, const Start *other,
                    const double *above, Outcome &out, const double *place, double *errors) {
    const mpidvc_settings &set = *points.settings;
    double *const F = start.F, *const t = start.t;
    double sums[MPIDVC_SUMS] = {0};
    Int low1[3], index[3];
    double middle[3];
    for (int a = 0; a < 3; a++) {
        low1[a] = centre1[a] - (win.n[a] - 1) / 2;
        middle[a] = (double)low1[a] + 0.5 * (double)(win.n[a] - 1);
    }
    // Shift-DVC counts voxels in the whole window; its outermost layer is not compared
    const Int wy = 2 * points.hws[1] + 1, wx = 2 * points.hws[2] + 1;
    index[1] = wx, index[2] = wx * wy;
    index[0] = (set.two_d ? 0 : index[2]) + index[1] + 1;
    if (read_window(win, points.box1, points.sampled1, low1, set, NAN, index, false, sums)) return -1;
    const double comparable = sums[MPIDVC_N], all = (double)(win.n[0] * win.n[1] * win.n[2]);
    const double least = points.min_coverage < MPIDVC_LEAST_COVERAGE ? points.min_coverage : MPIDVC_LEAST_COVERAGE;
    const double enough = least * comparable;
    out = Outcome{INFINITY, MPIDVC_NOT_YET, comparable / all, NAN, 0, 0, false};
    if (comparable < 1) {
        out.status = -2;
        return 0;
    }
    if (set.rigid) {
        double R[9];
        if (!rotation_of(F, R)) {
            out.status = -4;
            return 0;
        }
        memcpy(F, R, sizeof R);
    }
    if (other) {
        double zncc[2], centre2[3];
        for (int k = 0; k < 2; k++) {
            const Start &one = k ? *other : start;
            for (int a = 0; a < 3; a++) centre2[a] = middle[a] + points.offset[a] + one.t[a];
            if (correlation_at(one, win, sampler_from(points, win, index, one), set, centre2, enough, sums, &zncc[k]))
                return -1;
        }
        if (zncc[1] > zncc[0]) start = *other;
    }
    Sampler s = sampler_from(points, win, index, start);
    double gain = set.gain, bias = set.bias - win.level;
    double mean_square = INFINITY, A[12], whole_sums[MPIDVC_SUMS];
    System system;
    bool factorised = false;  // `system` is that of the present M
    bool whole = true;  // N, F, FF, M, C, D are those of all comparable voxels, else of win.now
    memcpy(whole_sums, sums, sizeof sums);
    for (bool last = false, first = true;; first = false) {
        // residual and moments at the present Phi
        double centre2[3], compared = comparable;
        bool changed;
        for (int a = 0; a < 3; a++) centre2[a] = middle[a] + points.offset[a] + t[a];
        if (any_pass(win, s, set, F, centre2, gain, bias, !last, sums, &compared, &changed)) return -1;
        // where the run's gain and bias do not suit this window it begins with its own
        if (first && set.znssd && normalise(sums).rough && own_map(win, s, set, F, centre2, &gain, &bias)) {
            bool again;
            if (any_pass(win, s, set, F, centre2, gain, bias, !last, sums, &compared, &again)) return -1;
            changed = changed || again;
        }
        out.left = out.left || compared < comparable;
        if (!set.update_gradient && compared < comparable && (whole || changed)) {
            // other voxels are compared than before
            whole = factorised = false;
            window_sums(win, win.now, set.znssd, sums);
        } else if (!set.update_gradient && compared == comparable && !whole) {
            whole = true, factorised = false;
            for (int i = MPIDVC_N; i <= MPIDVC_FF; i++) sums[i] = whole_sums[i];
            for (int i = MPIDVC_C; i < MPIDVC_SUMS; i++) sums[i] = whole_sums[i];
        }
        out.coverage = sums[MPIDVC_N] / all;
        if (!(sums[MPIDVC_N] >= 1) || sums[MPIDVC_N] < enough) {
            out.status = -3;  // it has left the data, where no small step makes it converged
            return 0;
        }
        double squares = sums[MPIDVC_RR], scale = 1;
        const Normalised q = normalise(sums);
        out.zncc = q.flat ? NAN : q.zncc;
        if (first && above && !(out.zncc > *above)) return 0;
        if (set.znssd) {
            if (q.flat) {
                out.status = -2;
                return 0;
            }
            squares = q.rr;
            memcpy(A, q.A, sizeof A);
            gain *= q.alpha;
            bias = q.alpha * bias + q.beta;
            if (set.update_gradient) scale = q.alpha;
        } else {
            memcpy(A, sums + MPIDVC_A, sizeof A);
        }
        out.error = squares / (sums[MPIDVC_F] + sums[MPIDVC_N] * (win.level + set.base1));
        // not the error: its sign is that of the grey levels
        const double before = mean_square;
        mean_square = squares / sums[MPIDVC_N];
        if (!first) {
            if (before < MPIDVC_GROWTH * mean_square && out.iterations > set.max_iterations / 2.0) {
                out.status = -1;
                break;
            }
            const double volume = fabs(determinant(F));
            if (volume > MPIDVC_LARGEST_VOLUME || volume < MPIDVC_SMALLEST_VOLUME) {
                out.status = -3;
                break;
            }
            out.iterations++;
        }
        if (out.iterations >= set.max_iterations || out.delta_norm <= set.min_delta_phi) break;
        double delta[12];
        factorised = (factorised && !set.update_gradient) || factorise(sums + MPIDVC_M, set.two_d, system);
        if (!factorised || !increment(system, A, delta)) {
            out.status = -2;
            return 0;
        }
        for (int i = 0; i < 12; i++) delta[i] /= scale;
        out.status = update(set, delta, F, t, &out.delta_norm);
        if (out.status) return 0;
        last = out.delta_norm <= set.min_delta_phi || out.iterations + 1 >= set.max_iterations;
    }
    // a small step is looked at last, as in spam: it overrides -1, and -3 of the volume
    if (out.delta_norm <= set.min_delta_phi)
        out.status = 2;
    else if (out.status == 0)
        out.status = 1;
    if (out.status != 2 || !errors) return 0;
    const float *now = set.update_gradient || !whole ? win.now : win.weighted ? win.w : 0;
    return random_errors(points, win, s, low1, index, now, sums + MPIDVC_M, sums[MPIDVC_N], mean_square * sums[MPIDVC_N],
                         gain, F, place, errors);
}

// The start of a point from the neighbour before it that has converged with the best ZNCC, by that neighbour's own Phi;
// false if there is none, or if its window leaves box 2.
bool start_from_neighbour(const mpidvc_points &points, Int k, Start &start) {
    Int best = -1;
    for (Int i = 0; i < points.most_near; i++) {
        const Int j = points.near[k * points.most_near + i];
        if (j < 0) break;
        if (j >= k || points.result[6 * j + 2] != 2 || points.result[6 * j + 5] != points.result[6 * j + 5]) continue;
        if (best < 0 || points.result[6 * j + 5] > points.result[6 * best + 5]) best = j;
    }
    if (best < 0) return false;
    const double *phi = points.phi + 12 * best;
    start.neighbour = best;
    for (int i = 0; i < 3; i++) {
        start.t[i] = phi[4 * i + 3];
        for (int j = 0; j < 3; j++) {
            start.F[3 * i + j] = phi[4 * i + j];
            start.t[i] += (phi[4 * i + j] - (i == j)) * (double)(points.centre1[3 * k + j] - points.centre1[3 * best + j]);
        }
    }
    for (int a = 0; a < 3; a++) {
        const double middle = (double)points.centre1[3 * k + a] + points.offset[a] + rint(start.t[a]);
        const double hws = (double)points.hws[a], reach = hws + (double)points.margin[a];
        const double low = points.low_at_hand[a], high = points.high_at_hand[a];
        // the margin may be cut off, but no part of the window that image 2 has
        if ((low > points.first2[a] && middle - hws < low) || (high < points.last2[a] && middle + hws > high)) return false;
        start.low2[a] = fmax(middle - reach, fmax(low, points.first2[a]));
        start.high2[a] = fmin(middle + reach, fmin(high, points.last2[a]));
        if (start.low2[a] > start.high2[a]) return false;
    }
    return true;
}

// Whether two starts differ by less than MPIDVC_SAME_START all over the window.
bool same_start(const mpidvc_points &points, const Start &one, const Start &two) {
    for (int i = 0; i < 3; i++) {
        double far = fabs(one.t[i] - two.t[i]);
        for (int j = 0; j < 3; j++) far += fabs(one.F[3 * i + j] - two.F[3 * i + j]) * (double)points.hws[j];
        if (!(far < MPIDVC_SAME_START)) return false;
    }
    return true;
}

int correlate(const mpidvc_points *points) {
    const mpidvc_settings &set = *points->settings;
    Int whole[3];
    for (int a = 0; a < 3; a++) whole[a] = 2 * points->hws[a] + 1;
    Window win = window_of(points->n);
    if (!allocate(win, set) || (points->noise && !allocate_errors(win, *points->noise))) {
        free(win.memory);
        return -1;
    }
    int failed = 0;
    for (Int k = 0; k < points->count && !failed; k++) {
        const Int *centre = points->centre1 + 3 * k;
        double *phi = points->phi + 12 * k, *result = points->result + 6 * k;
        double *const errors = points->noise ? points->errors + MPIDVC_ERRORS * k : 0;
        for (int i = 0; i < MPIDVC_ERRORS && errors; i++) errors[i] = NAN;
        Int low[3];
        for (int a = 0; a < 3; a++) low[a] = centre[a] - points->hws[a];
        const double covered = points->covered ? mean_of(points->covered, points->box1, low, whole) : 1.0;
        bool skip = covered < points->min_coverage || covered == 0;
        for (int a = 0; a < 3; a++) skip = skip || points->low2[3 * k + a] > points->high2[3 * k + a];
        if (!skip && (points->grey_low > -INFINITY || points->grey_high < INFINITY)) {
            const double grey = mean_grey(*points, low, whole);
            skip = !(points->grey_low < grey && grey < points->grey_high);
        }
        if (skip) {
            const double row[6] = {INFINITY, 0, -5, INFINITY, covered, NAN};
            memcpy(result, row, sizeof row);
            continue;
        }
        Start start, near;
        start.neighbour = -1;
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 3; j++) start.F[3 * i + j] = phi[4 * i + j];
            start.t[i] = phi[4 * i + 3];
            start.low2[i] = points->low2[3 * k + i], start.high2[i] = points->high2[3 * k + i];
        }
        bool compare = points->near && start_from_neighbour(*points, k, near);
        if (compare && same_start(*points, start, near)) start = near, compare = false;
        Outcome out = {};
        failed = register_window(*points, win, centre, start, compare ? &near : 0,
                                 points->least ? points->least + k : 0, out,
                                 points->place ? points->place + 3 * k : 0, errors);
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 3; j++) phi[4 * i + j] = start.F[3 * i + j];
            phi[4 * i + 3] = start.t[i];
        }
        if (points->left) points->left[k] = out.left;
        if (points->began) points->began[k] = start.neighbour;
        const double row[6] = {out.error, (double)out.iterations, (double)out.status, out.delta_norm, out.coverage,
                               out.zncc};
        memcpy(result, row, sizeof row);
    }
    free(win.errors);
    free(win.memory);
    return failed;
}

// ------------------------------------------------------------------------------------------------------ whole warps

// Plane by plane, so that the arrays of values and weights stay small.
template <int O, int D> int warp_region(const mpidvc_warp &job) {
    Sampler s = sampler_of(job.box, job.n, job.low, job.high);
    plan<O, D>(s, job.F, job.centre);
    const Int pitch = (job.n[2] + 7) / 8 * 8 + 16;
    float *memory = (float *)calloc(1, sizeof(float) * (2 * job.n[1] * pitch + 64));
    if (!memory) return -1;
    float *weight = memory + job.n[1] * pitch;
    Sampler plane = s;
    plane.n[0] = 1;
    for (Int z = 0; z < job.n[0]; z++) {
        for (int a = 0; a < 3; a++) {
            plane.start[a] = s.start[a] + s.F[3 * a] * (double)z;
            plane.base[a] = s.base[a] + z * s.along_z[a];
        }
        sample_region<O, D>(plane, memory, weight, pitch);
        for (Int y = 0; y < job.n[1]; y++)
            for (Int x = 0; x < job.n[2]; x++)
                job.out[(z * job.n[1] + y) * job.n[2] + x] =
                    weight[y * pitch + x] > 0.f ? memory[y * pitch + x] : job.outside;
    }
    free(memory);
    return 0;
}

int warp(const mpidvc_warp *job) {
    if (job->order == 1) return job->two_d ? warp_region<1, 2>(*job) : warp_region<1, 3>(*job);
    return job->two_d ? warp_region<3, 2>(*job) : warp_region<3, 3>(*job);
}

// ------------------------------------------------------------------------------------------------------- grey levels

// The rows of a box are short pieces of the image's: the processor does not foresee the next one, and would wait for
// memory most of the time. Returns whether all values lie between the limits (CHECK).
template <class Grey, bool CHECK> int convert_rows(const mpidvc_grey &grey) {
    const float low = grey.low, high = grey.high;
    int data = 1;
    const Int ahead = 12, ny = grey.shape[1], rows = grey.shape[0] * ny, bytes = (Int)sizeof(Grey) * grey.shape[2];
    for (Int r = 0; r < rows; r++) {
        const Int z = r / ny, y = r % ny;
        const Grey *from = (const Grey *)((const char *)grey.data + z * grey.step_z + y * grey.step_y);
        if (r + ahead < rows) {
            const char *next =
                (const char *)grey.data + (r + ahead) / ny * grey.step_z + (r + ahead) % ny * grey.step_y;
            for (Int b = 0; b < bytes; b += 64) MPIDVC_PREFETCH(next + b);
            MPIDVC_PREFETCH(next + bytes - 1);
        }
        float *to = grey.out + z * grey.pitch_z + y * grey.pitch_y;
        for (Int x = 0; x < grey.shape[2]; x++) to[x] = (float)from[x];
        if (CHECK)
            for (Int x = 0; x < grey.shape[2]; x++) data &= (to[x] >= low) & (to[x] <= high);
    }
    return data;
}

int convert(const mpidvc_grey *grey) {
    if (grey->bytes == 1) return convert_rows<uint8_t, false>(*grey);
    return grey->bytes == 2 ? convert_rows<uint16_t, false>(*grey) : convert_rows<float, true>(*grey);
}

// The sums of neighbouring pairs of n values.
MPIDVC_NOINLINE void add_pairs(const float *__restrict from, Int n, float *__restrict to) {
    for (Int x = 0; x < n / 2; x++) to[x] = from[2 * x] + from[2 * x + 1];
}

// Means of bins: the rows of a bin are added up first, two at a time, then its voxels along x, in single precision.
template <class Grey> int bin_rows(const mpidvc_grey &grey) {
    const Int *f = grey.factor, width = grey.shape[2] * f[2];
    const float count = (float)(f[0] * f[1] * f[2]);
    const char *const first = (const char *)grey.data;
    float *sums = (float *)malloc(2 * sizeof(float) * width);
    if (!sums) return -1;
    for (Int z = 0; z < grey.shape[0]; z++)
        for (Int y = 0; y < grey.shape[1]; y++) {
            float *now = sums, *next = sums + width;
            for (Int k = 0; k < f[0]; k++)
                for (Int j = 0; j < f[1]; j += 2) {
                    const char *row = first + (z * f[0] + k) * grey.step_z + (y * f[1] + j) * grey.step_y;
                    const bool two = j + 1 < f[1];
                    const Grey *a = (const Grey *)row, *b = (const Grey *)(two ? row + grey.step_y : row);
                    if (y + 1 < grey.shape[1])
                        for (Int i = 0; i < width * (Int)sizeof(Grey); i += 64) {
                            MPIDVC_PREFETCH(row + f[1] * grey.step_y + i);
                            if (two) MPIDVC_PREFETCH(row + (f[1] + 1) * grey.step_y + i);
                        }
                    const float weight = two ? 1.f : 0.5f;
                    if (k == 0 && j == 0)
                        for (Int x = 0; x < width; x++) now[x] = ((float)a[x] + (float)b[x]) * weight;
                    else
                        for (Int x = 0; x < width; x++) now[x] += ((float)a[x] + (float)b[x]) * weight;
                }
            Int each = f[2];
            for (Int n = width; each % 2 == 0; each /= 2, n /= 2) {
                add_pairs(now, n, next);
                float *const swap = now;
                now = next, next = swap;
            }
            float *to = grey.out + z * grey.pitch_z + y * grey.pitch_y;
            for (Int x = 0; x < grey.shape[2]; x++) {
                float sum = now[x * each];
                for (Int k = 1; k < each; k++) sum += now[x * each + k];
                to[x] = sum / count;
            }
        }
    free(sums);
    return 0;
}

int bin_mean(const mpidvc_grey *grey) {
    if (grey->bytes == 1) return bin_rows<uint8_t>(*grey);
    return grey->bytes == 2 ? bin_rows<uint16_t>(*grey) : bin_rows<float>(*grey);
}

const mpidvc_kernels TABLE = {MPIDVC_TEXT(MPIDVC_ISA), FULL, convert, bin_mean, prefilter, correlate, block_sums, warp};

}  // namespace

extern "C" const mpidvc_kernels *MPIDVC_JOIN(mpidvc_kernels_, MPIDVC_ISA)(void) { return &TABLE; }
