// The pieces of a registration, timed or counted: those of windows one after the other, as correlate() calls them, and
// those of boxes.
#include "gauss_newton.cpp"
#include "measured.hpp"

enum { READ, FIRST, NEXT, LAST, SOLVE, STAGES };

// Registers `count` windows of both boxes, of one shape and contiguous. ns (STAGES): the mean over the windows of the
// least time over `repeats`. With counts: those of one stage of the first window alone. F, t: the mapping, which is the
// same in all passes; t (count, 3). Box 2 has the coefficients for its order.
extern "C" int mpidvc_stages(const float *box1, const float *box2, const int64_t *shape, int order, int64_t hws,
                             int64_t count, const int64_t *centre, const double *F, const double *t, int repeats,
                             double ticks_per_ns, double *ns, mpidvc_counts *counts, int stage) {
    mpidvc_settings set = {};
    set.order = order, set.max_iterations = 50, set.gradient_reach = 1, set.min_delta_phi = 1e-3, set.gain = 1;
    mpidvc_box one = {box1, 0, shape[2], shape[1] * shape[2], {shape[0], shape[1], shape[2]}}, two = one;
    two.data = box2;
    const Int n[3] = {2 * hws - 1, 2 * hws - 1, 2 * hws - 1}, index[3] = {0, 0, 0};
    Window win = window_of(n);
    double *const best = (double *)malloc(sizeof(double) * STAGES * (size_t)count);
    if (!best || !allocate(win, set)) return -1;
    for (Int k = 0; k < STAGES * count; k++) best[k] = 1e18;
    const double low[3] = {MPIDVC_FRAME, MPIDVC_FRAME, MPIDVC_FRAME};
    double high[3], sums[MPIDVC_SUMS], delta[12], norm, begun[STAGES + 1];
    for (int a = 0; a < 3; a++) high[a] = (double)(shape[a] - 1 - MPIDVC_FRAME);
    int failed = 0;
    for (int r = 0; r < repeats && !failed; r++)
        for (Int k = 0; k < count && !failed; k++) {
            Int low1[3];
            double centre2[3], moved[3], now_F[9];
            for (int a = 0; a < 3; a++) {
                low1[a] = centre[3 * k + a] - hws + 1, centre2[a] = (double)centre[3 * k + a] + t[3 * k + a];
                moved[a] = t[3 * k + a];
            }
            memcpy(now_F, F, sizeof now_F);
            Sampler s = sampler_of(two, win.n, low, high);
            double compared;
            bool changed;
            System system;
            auto read = [&] { failed |= read_window(win, one, 0, low1, set, NAN, index, false, sums); };
            auto pass = [&](bool moments) {
                failed |= any_pass(win, s, set, F, centre2, 1.0, -win.level, moments, sums, &compared, &changed);
            };
            auto solve = [&] {
                failed |= !factorise(sums + MPIDVC_M, 0, system) || !increment(system, sums + MPIDVC_A, delta);
                failed |= update(set, delta, now_F, moved, &norm);
            };
            auto one_stage = [&](int which) {
                which == READ ? read() : which == SOLVE ? solve() : pass(which != LAST);
            };
            if (counts) {
                for (int i = 0; i < stage; i++) one_stage(i);
                counted(counts, [&] { one_stage(stage); });
                break;
            }
            for (int i = 0; i < STAGES; i++) {
                begun[i] = ticks();
                one_stage(i);
            }
            begun[STAGES] = ticks();
            for (int i = 0; i < STAGES; i++)
                best[STAGES * k + i] = fmin(best[STAGES * k + i], begun[i + 1] - begun[i]);
        }
    for (int i = 0; i < STAGES; i++) {
        ns[i] = 0;
        for (Int k = 0; k < count; k++) ns[i] += best[STAGES * k + i] / ticks_per_ns / (double)count;
    }
    free(best), free(win.memory);
    return failed;
}

// Nanoseconds of the prefilter of a box, of which the voxels `halo` from its faces are needed; `raw` has its grey levels.
extern "C" double mpidvc_prefilter_box(const float *raw, float *box, const int64_t *shape, int64_t halo, int repeats,
                                   mpidvc_counts *counts) {
    const Int size = shape[0] * shape[1] * shape[2], none[3] = {0, 0, 0}, first[3] = {halo, halo, halo};
    const Int last[3] = {shape[0] - halo, shape[1] - halo, shape[2] - halo};
    double best = 1e18;
    for (int r = 0; r < repeats; r++) {
        memcpy(box, raw, sizeof(float) * (size_t)size);
        best = fmin(best, piece(1, counts, [&] {
                        TABLE.prefilter(box, shape[2], shape[1] * shape[2], none, shape, first, last);
                    }));
        if (counts) break;
    }
    return best;
}

// Nanoseconds of the conversion of a box of 16 bits out of an image with this pitch, which begins at `places` in turn.
extern "C" double mpidvc_convert_boxes(const uint16_t *image, const int64_t *pitch, const int64_t *shape, int64_t places,
                                 const int64_t *place, float *box, int repeats, mpidvc_counts *counts) {
    double sum = 0;
    mpidvc_grey grey = {};
    grey.bytes = 2, grey.out = box, grey.step_y = 2 * pitch[1], grey.step_z = 2 * pitch[0];
    grey.pitch_y = shape[2], grey.pitch_z = shape[1] * shape[2];
    for (int a = 0; a < 3; a++) grey.shape[a] = shape[a], grey.factor[a] = 1;
    if (counts) {
        grey.data = image + place[0];
        counted(counts, [&] { TABLE.convert(&grey); });
        return 0;
    }
    double *const best = (double *)malloc(sizeof(double) * (size_t)places);
    if (!best) return -1;
    for (Int k = 0; k < places; k++) best[k] = 1e18;
    for (int r = 0; r < repeats; r++)
        for (Int k = 0; k < places; k++) {
            grey.data = image + place[k];
            best[k] = fmin(best[k], least(1, [&] { TABLE.convert(&grey); }));
        }
    for (Int k = 0; k < places; k++) sum += best[k];
    free(best);
    return sum / (double)places;
}

// Nanoseconds of the sums of a block of n voxels from `low` on, whose sums of image 1 alone are known.
extern "C" double mpidvc_block_pass(const float *box1, const float *box2, const int64_t *shape, int order, const int64_t *low,
                               const int64_t *n, const double *F, const double *t, int repeats, mpidvc_counts *counts) {
    mpidvc_settings set = {};
    set.order = order, set.max_iterations = 50, set.gradient_reach = 1, set.min_delta_phi = 1e-3, set.gain = 1;
    mpidvc_block job = {};
    job.box1.data = box1, job.box1.pitch_y = shape[2], job.box1.pitch_z = shape[1] * shape[2];
    for (int a = 0; a < 3; a++) {
        job.box1.shape[a] = shape[a], job.low1[a] = low[a], job.n[a] = n[a];
        job.centre2[a] = (double)low[a] + 0.5 * (double)(n[a] - 1) + t[a];
        job.low2[a] = 2, job.high2[a] = (double)(shape[a] - 3);
    }
    job.box2 = job.box1, job.box2.data = box2;
    memcpy(job.F, F, sizeof job.F);
    job.settings = &set, job.level = 19676;
    double whole[MPIDVC_SUMS], sums[MPIDVC_SUMS];
    whole[MPIDVC_N] = NAN;
    if (TABLE.block_sums(&job, whole, sums)) return -1;
    return piece(repeats, counts, [&] { TABLE.block_sums(&job, whole, sums); });
}
