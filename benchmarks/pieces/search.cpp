// The pieces of a pixel search, timed or counted.
#include "window_search.cpp"
#include "measured.hpp"

enum { PREPARE, FOLDS, BLOCKS, WHOLE, DIRECT, PIECES };

// ns (PIECES): the mean over the points of the least time over `repeats`; boxes of one shape, contiguous. With counts:
// those of one piece of the first point alone, of DIRECT for one plane of offsets. numbers: candidates evaluated in double precision, and sums over all
// voxels, of a point.
extern "C" int mpidvc_search_pieces(const float *box1, const float *box2, const int64_t *shape, int64_t hws,
                                    int64_t reach, int64_t count, const int64_t *centre, int repeats, double *ns,
                                    double *numbers, mpidvc_counts *counts, int which) {
    mpidvc_search s;
    memset(&s, 0, sizeof s);
    s.box1 = mpidvc_search_box{box1, 0, shape[2], shape[1] * shape[2], {shape[0], shape[1], shape[2]}};
    s.box2 = s.box1, s.box2.data = box2;
    for (int a = 0; a < 3; a++) s.hws[a] = hws, s.low[a] = -reach, s.high[a] = reach;
    uint8_t left;
    int64_t offset[3];
    double cc, error;
    s.screen = 1, s.most_sums = INFINITY, s.left = &left, s.offset = offset, s.cc = &cc, s.error = &error, s.count = 1;
    Work w;
    if (!make_work(s, true, w)) return -1;
    for (int i = 0; i < PIECES; i++) ns[i] = 0;
    int failed = 0;
    for (Int k = 0; k < count && !failed; k++) {
        s.centre1 = s.centre2 = centre + 3 * k;
        Point p;
        failed |= !prepare(s, 0, w, p);
        auto call = [&](int i) {
            if (i == PREPARE) {
                failed |= !prepare(s, 0, w, p);
            } else if (i == FOLDS) {
                box_folds<Add>(p.e, w.planes2[MPIDVC_VALUE], w.folds, w.b, steps_of(w));
                box_folds<AddSquares>(p.e, w.planes2[MPIDVC_VALUE], w.folds, w.bb, steps_of(w));
            } else if (i == BLOCKS) {
                screen(p, w);
            } else if (i == WHOLE) {
                failed |= search(&s);
            } else {
                Extent e = p.e;
                if (counts) e.d[0] = 1;
                correlate(e, w.planes1[MPIDVC_VALUE], w.planes2[MPIDVC_VALUE], w.block, w.sums[MPIDVC_AB], steps_of(w));
            }
        };
        if (counts) {
            for (int i = 0; i < which; i++) call(i);
            counted(counts, [&] { call(which); });
            break;
        }
        for (int i = 0; i < PIECES; i++) ns[i] += least(repeats, [&] { call(i); }) / (double)count;
    }
    numbers[0] = (double)s.evaluated / (double)(count * repeats);
    numbers[1] = (double)s.summed / (double)(count * repeats);
    free(w.memory);
    return failed;
}
