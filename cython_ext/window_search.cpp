// Pixel search: the integer offset of the window of image 2 that correlates best with a window of image 1. Compiled
// once per instruction set (MPIDVC_ISA names the copy).
//
//   CC = sum a b / sqrt(sum a^2 sum b^2)    or, zero-mean, the same of a - mean(a), b - mean(b)
//
// Method. Sums over all offsets in float32, a' and b' less a constant each. Each CC carries a bound of its rounding
// error. Every candidate that may be the best is evaluated again in double precision, and the first in Z, Y, X order with
// the largest value wins. So the answer does not depend on the way to the sums.
//
// Internal linkage throughout, and nothing of the C++ library: see instruction_set.hpp.
#include "window_search.hpp"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "instruction_set.hpp"
#include "lanes.hpp"

namespace {

// Offsets whose sums are held in registers at a time, along y and x.
#if defined(__AVX512VL__)
enum { MOST_Y = 5, MOST_X = 4 };
#elif defined(__AVX2__)
enum { MOST_Y = 4, MOST_X = 3 };
#else
enum { MOST_Y = 3, MOST_X = 3 };
#endif

const double UNIT32 = 1.0 / 16777216.0;        // half a unit in the last place of 1.0f
const double UNIT64 = 1.0 / 9007199254740992.0;
const double LEAST32 = 1.401298464324817e-45;  // the smallest number in single precision: products are rounded to it

// With more candidates than this to evaluate, those of one grey level are told apart first, which costs as much.
enum { MANY = 32 };

// ----------------------------------------------------------------------------------------------- sums in float32

// One group of a row of window 2 against the rows of window 1 that it meets at the offsets LOW ... HIGH along y.
template <int L, int DY, int DX, int LOW, int HIGH>
MPIDVC_INLINE void meet(const float *g, const float *f, Int pitch, typename Lanes<L>::F (&sum)[DY][DX]) {
    typename Lanes<L>::F row[DX];
    MPIDVC_UNROLL
    for (int j = 0; j < DX; j++) row[j] = load<L>(g + j);
    MPIDVC_UNROLL
    for (int i = LOW; i <= HIGH; i++) {
        typename Lanes<L>::F a = load<L>(f - i * pitch);
        in_register(a);  // else every product would load it again, and loads set the pace
        MPIDVC_UNROLL
        for (int j = 0; j < DX; j++) sum[i][j] += a * row[j];
    }
}

// The first and last rows meet fewer.
template <int L, int DY, int DX, int K> struct Ends {
    typedef typename Lanes<L>::F V;
    static MPIDVC_METHOD void top(const float *g, const float *f, Int gp, Int fp, V (&sum)[DY][DX]) {
        Ends<L, DY, DX, K - 1>::top(g, f, gp, fp, sum);
        meet<L, DY, DX, 0, K - 1>(g + (K - 1) * gp, f + (K - 1) * fp, fp, sum);
    }
    static MPIDVC_METHOD void bottom(const float *g, const float *f, Int gp, Int fp, V (&sum)[DY][DX]) {
        Ends<L, DY, DX, K - 1>::bottom(g, f, gp, fp, sum);
        meet<L, DY, DX, K, DY - 1>(g + (K - 1) * gp, f + (K - 1) * fp, fp, sum);
    }
};
template <int L, int DY, int DX> struct Ends<L, DY, DX, 0> {
    typedef typename Lanes<L>::F V;
    static MPIDVC_METHOD void top(const float *, const float *, Int, Int, V (&)[DY][DX]) {}
    static MPIDVC_METHOD void bottom(const float *, const float *, Int, Int, V (&)[DY][DX]) {}
};

// A column of groups in a plane of window 1 (`rows` >= DY rows) against a plane of window 2 at DY x DX offsets; the sums
// are rounded here and added to the first lanes of `out` once, which keeps chains of roundings short.
template <int L, int DY, int DX>
MPIDVC_NOINLINE void block(const float *g, const float *f, Int gp, Int fp, Int rows, float *out, Int out_pitch) {
    typename Lanes<L>::F sum[DY][DX] = {};
    Ends<L, DY, DX, DY - 1>::top(g, f, gp, fp, sum);
    for (Int y = DY - 1; y < rows; y++) meet<L, DY, DX, 0, DY - 1>(g + y * gp, f + y * fp, fp, sum);
    Ends<L, DY, DX, DY - 1>::bottom(g + rows * gp, f + rows * fp, gp, fp, sum);
    MPIDVC_UNROLL
    for (int i = 0; i < DY; i++) {
        MPIDVC_UNROLL
        for (int j = 0; j < DX; j++) {
            float *p = out + i * out_pitch + j * FULL;
            store<L>(p, load<L>(p) + sum[i][j]);
        }
    }
}

template <int L, int DY>
MPIDVC_INLINE void block_x(int dx, const float *g, const float *f, Int gp, Int fp, Int rows, float *out, Int op) {
    switch (dx) {
        case 1: return block<L, DY, 1>(g, f, gp, fp, rows, out, op);
        case 2: return block<L, DY, 2>(g, f, gp, fp, rows, out, op);
        case 3: return block<L, DY, 3>(g, f, gp, fp, rows, out, op);
        default: return block<L, DY, MOST_X>(g, f, gp, fp, rows, out, op);
    }
}

template <int L>
MPIDVC_INLINE void block_yx(int dy, int dx, const float *g, const float *f, Int gp, Int fp, Int rows, float *out,
                            Int op) {
    switch (dy) {
        case 1: return block_x<L, 1>(dx, g, f, gp, fp, rows, out, op);
        case 2: return block_x<L, 2>(dx, g, f, gp, fp, rows, out, op);
        case 3: return block_x<L, 3>(dx, g, f, gp, fp, rows, out, op);
        case 4: return block_x<L, MOST_Y >= 4 ? 4 : 3>(dx, g, f, gp, fp, rows, out, op);
        default: return block_x<L, MOST_Y>(dx, g, f, gp, fp, rows, out, op);
    }
}

// The next part of `left` offsets when they are divided evenly into parts of at most `most`.
MPIDVC_INLINE int part_of(Int left, Int most) {
    const Int parts = (left + most - 1) / most;
    return (int)((left + parts - 1) / parts);
}

// Floats in a row of the searched part: room for the last group, in eights so that loops over rows have no rest.
MPIDVC_INLINE Int pitch_of(Int pitch1, Int offsets) { return (pitch1 + offsets + 7) / 8 * 8; }

struct Extent {
    Int n1[3], n2[3], d[3];  // voxels of window 1, voxels of the part that is searched, offsets
    Int pitch1, pitch2;      // of rows in the work arrays
};

// out[offset] = sum of plane 1 times plane 2 at that offset. Groups are of FULL lanes, the last one perhaps of WIDE.
void correlate(const Extent &e, const float *f, const float *g, float *out, float *sums) {
    const Int fp = e.pitch1, gp = e.pitch2, fz = fp * e.n1[1], gz = gp * e.n2[1], op = e.d[2] * FULL;
    const Int most_y = smaller(MOST_Y, e.n1[1]);
    for (Int dz = 0; dz < e.d[0]; dz++) {
        memset(sums, 0, sizeof(float) * (size_t)(e.d[1] * op));
        for (Int z = 0; z < e.n1[0]; z++)
            for (Int y = 0, dy; y < e.d[1]; y += dy) {
                dy = part_of(e.d[1] - y, most_y);
                for (Int x = 0, dx; x < e.d[2]; x += dx) {
                    dx = part_of(e.d[2] - x, MOST_X);
                    const float *a = f + z * fz, *b = g + (z + dz) * gz + y * gp + x;
                    float *const to = sums + y * op + x * FULL;
                    for (Int at = 0; at < e.n1[2]; at += FULL) {
                        if (e.n1[2] - at > WIDE)
                            block_yx<FULL>((int)dy, (int)dx, b + at, a + at, gp, fp, e.n1[1], to, op);
                        else
                            block_yx<WIDE>((int)dy, (int)dx, b + at, a + at, gp, fp, e.n1[1], to, op);
                    }
                }
            }
        for (Int i = 0; i < e.d[1] * e.d[2]; i++)
            out[dz * e.d[1] * e.d[2] + i] = (float)total(load<FULL>(sums + i * FULL));
    }
}

// Longest chain of roundings in a sum of correlate(), those of the two factors included.
double chain(const Extent &e) {
    const Int groups = (e.n1[2] + FULL - 1) / FULL;
    return (double)(e.n1[1] + e.n1[0] * groups + 12);
}

// The same of box_folds(): blocks of a window's length along every axis, and the factors of a square.
double chain_of_box(const Extent &e) { return (double)(e.n1[0] + e.n1[1] + e.n1[2] + 8); }

// ------------------------------------------------------------------------------------------------ sums in double

#if MPIDVC_VECTORS
enum { EIGHT = 8 };
typedef float F8 __attribute__((vector_size(32)));
typedef float LooseF8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef double D8 __attribute__((vector_size(64)));
template <class Number> struct Abreast {
    typedef Number V __attribute__((vector_size(8 * sizeof(Number))));
    typedef Number Loose __attribute__((vector_size(8 * sizeof(Number)), aligned(sizeof(Number)), may_alias));
};
// A struct, as a vector of this size may not be returned the same way by every instruction set.
MPIDVC_INLINE void widen(const float *p, D8 &out) { out = __builtin_convertvector(*(const LooseF8 *)p, D8); }
MPIDVC_INLINE double total8(const D8 &v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}
#else
enum { EIGHT = 1 };
typedef double D8;
template <class Number> struct Abreast {
    typedef Number V;
    typedef Number Loose;
};
MPIDVC_INLINE void widen(const float *p, D8 &out) { out = (double)*p; }
MPIDVC_INLINE double total8(const D8 &v) { return v; }
#endif

// The two windows that are compared at one offset, in the images themselves.
struct Pair {
    const float *a, *b;
    const uint8_t *usable1, *usable2;
    Int n[3], py1, pz1, py2, pz2;
};

struct Sums {
    double n, a, b, ab, aa, bb, dd;  // dd: (a - b)^2
};

// Eight voxels of both images, 0 where one of them is not data; `weight` 1 where both are.
MPIDVC_INLINE void eight(const Pair &p, Int row1, Int row2, Int x, D8 &a, D8 &b, D8 &weight) {
    const Int left = p.n[2] - x;
    if (left >= EIGHT && !p.usable1 && !p.usable2) {
        widen(p.a + row1 + x, a), widen(p.b + row2 + x, b), weight = D8{} + 1.0;
        return;
    }
    float va[EIGHT] = {}, vb[EIGHT] = {}, vw[EIGHT] = {};
    for (Int i = 0; i < smaller(left, EIGHT); i++) {
        const bool both = (!p.usable1 || p.usable1[row1 + x + i]) && (!p.usable2 || p.usable2[row2 + x + i]);
        va[i] = both ? p.a[row1 + x + i] : 0.f;
        vb[i] = both ? p.b[row2 + x + i] : 0.f;
        vw[i] = both ? 1.f : 0.f;
    }
    widen(va, a), widen(vb, b), widen(vw, weight);
}

// Sums about (mean_a, mean_b).
Sums exact_sums(const Pair &p, double mean_a, double mean_b) {
    D8 n = {}, sa = {}, sb = {}, ab = {}, aa = {}, bb = {}, dd = {};
    for (Int z = 0; z < p.n[0]; z++)
        for (Int y = 0; y < p.n[1]; y++)
            for (Int x = 0; x < p.n[2]; x += EIGHT) {
                D8 a, b, w;
                eight(p, z * p.pz1 + y * p.py1, z * p.pz2 + y * p.py2, x, a, b, w);
                a -= mean_a * w, b -= mean_b * w;
                const D8 d = a - b;
                n += w, sa += a, sb += b, ab += a * b, aa += a * a, bb += b * b, dd += d * d;
            }
    return Sums{total8(n), total8(sa), total8(sb), total8(ab), total8(aa), total8(bb), total8(dd)};
}

// CC in double precision, of the grey levels plus the bases; 0 where it does not exist. `plain`: their sums about 0.
double exact_cc(const Pair &p, bool zero_mean, double base1, double base2, Sums &plain) {
    plain = exact_sums(p, -base1, -base2);
    Sums s = plain;
    if (!(s.n > 0)) return 0.0;
    if (zero_mean) {
        s = exact_sums(p, plain.a / plain.n - base1, plain.b / plain.n - base2);
        // the rounding errors of a constant window are no variation: a float32 image has none this small
        if (s.aa <= 1e-24 * plain.aa || s.bb <= 1e-24 * plain.bb) return 0.0;
    }
    const double norm = sqrt(s.aa * s.bb);
    return norm > 0 ? s.ab / norm : 0.0;
}

// What values of a window are folded to.
template <class T> struct Add {
    typedef T Number;
    static constexpr T START = 0;
    template <class V> static MPIDVC_METHOD V of(V a, V b) { return a + b; }
};
struct Least {
    typedef float Number;
    static constexpr float START = INFINITY;
    template <class V> static MPIDVC_METHOD V of(V a, V b) { return a < b ? a : b; }
};
struct Most {
    typedef float Number;
    static constexpr float START = -INFINITY;
    template <class V> static MPIDVC_METHOD V of(V a, V b) { return a > b ? a : b; }
};

// out[i] = in[i] + ... + in[i + w - 1] (or their least or most) for i < d, where each element is a row of n numbers. By
// van Herk's method: the end of a block of w rows, and the beginning of the next block. Two additions per element, and
// nothing is subtracted again, so that errors stay relative to the sum itself.
// n is a multiple of eight, which go side by side.
template <class Fold, class Number = typename Fold::Number>
MPIDVC_INLINE void fold_rows(const Number *in, Int in_pitch, Int w, Int d, Int n, Number *out, Int out_pitch) {
    typedef typename Abreast<Number>::V V;
    typedef typename Abreast<Number>::Loose Loose;
    for (Int x = 0; x < n; x += EIGHT) {
        for (Int start = 0; start < d; start += w) {
            V acc = V{} + Fold::START;
            for (Int i = start + w - 1; i >= start; i--) {
                acc = Fold::of(acc, (V) * (const Loose *)(in + i * in_pitch + x));
                if (i < d) *(Loose *)(out + i * out_pitch + x) = acc;
            }
        }
        for (Int start = w; start < w + d - 1; start += w) {
            V acc = V{} + Fold::START;
            for (Int i = start; i < smaller(start + w - 1, w + d - 1); i++) {
                Loose *to = (Loose *)(out + (i - w + 1) * out_pitch + x);
                acc = Fold::of(acc, (V) * (const Loose *)(in + i * in_pitch + x));
                *to = Fold::of((V)*to, acc);
            }
        }
    }
}

// out[offset] = sum (or least or most) of the window at that offset, along one axis after the other; voxels that are
// not usable do not count. The samples are those of the searched part, at any pitches.
template <class Fold, class Number = typename Fold::Number>
void box_folds(const Extent &e, const float *samples, const uint8_t *usable, Int py, Int pz, double *plane_memory,
               double *slices_memory, double *out) {
    const Int nx = (e.n2[2] + 7) / 8 * 8, area = e.d[1] * nx;
    Number *const plane = (Number *)plane_memory, *const slices = (Number *)slices_memory;
    Number *const folded = plane;
    for (Int z = 0; z < e.n2[0]; z++) {
        for (Int y = 0; y < e.n2[1]; y++) {
            const float *v = samples + z * pz + y * py;
            Number *to = plane + y * nx;
            for (Int x = 0; x < e.n2[2]; x++) to[x] = (Number)v[x];
            if (usable)
                for (Int x = 0; x < e.n2[2]; x++)
                    if (!usable[z * pz + y * py + x]) to[x] = Fold::START;
            for (Int x = e.n2[2]; x < nx; x++) to[x] = Fold::START;
        }
        fold_rows<Fold>(plane, nx, e.n1[1], e.d[1], nx, slices + z * area, nx);
    }
    for (Int dy = 0; dy < e.d[1]; dy++) {
        fold_rows<Fold>(slices + dy * nx, area, e.n1[0], e.d[0], nx, folded, nx);
        for (Int dz = 0; dz < e.d[0]; dz++) {
            const Number *from = folded + dz * nx;
            double *to = out + (dz * e.d[1] + dy) * e.d[2];
            // always eight at a time, some of which may be of no offset: the memory goes on
            for (Int first = 0; first < e.d[2]; first += EIGHT) {
                typedef typename Abreast<Number>::V V;
                typedef typename Abreast<Number>::Loose Loose;
                V sum = *(const Loose *)(from + first);
                for (Int x = 1; x < e.n1[2]; x++) sum = Fold::of(sum, (V) * (const Loose *)(from + first + x));
                Number values[EIGHT];
                *(Loose *)values = sum;
                for (Int i = 0; i < smaller(EIGHT, e.d[2] - first); i++) to[first + i] = (double)values[i];
            }
        }
    }
}

// Sums of a plane: in single precision, or in double where they have to be exact.
template <class T>
void box_sums(const Extent &e, const float *plane2, double *plane, double *slices, double *out) {
    box_folds<Add<T>>(e, plane2, 0, e.pitch2, e.pitch2 * e.n2[1], plane, slices, out);
}

// ---------------------------------------------------------------------------------------------------- one point

// Memory of a batch, for whole windows.
struct Work {
    Int n1[3], n2[3], d[3], offsets;
    float *planes1[MPIDVC_PLANES], *planes2[MPIDVC_PLANES], *sums[MPIDVC_SUMS_OF_SEARCH], *block;
    double *boxes[3], *plane, *slices, *cc, *bound;
    char *memory;
};

// One point, prepared.
struct Point {
    Extent e;
    Pair pair;                   // at the first offset
    Int first[3];                // that offset
    bool masked1, masked2;
    double c1, c2;               // constants that were subtracted, the bases included
    double n, a, aa, bb;         // voxels, sum a', sum a'^2 of window 1; sum b'^2 of the searched part
    int needed;
};

bool make_work(const mpidvc_search &s, bool sums, Work &w) {
    memset(&w, 0, sizeof w);
    w.offsets = 1;
    for (int a = 0; a < 3; a++) {
        w.n1[a] = 2 * s.hws[a] + 1;
        w.d[a] = s.high[a] - s.low[a] + 1;
        w.n2[a] = w.n1[a] + w.d[a] - 1;
        w.offsets *= w.d[a];
    }
    const Int pitch1 = (w.n1[2] + WIDE - 1) / WIDE * WIDE, pitch2 = pitch_of(pitch1, w.d[2]);
    const Int size1 = w.n1[0] * w.n1[1] * pitch1, size2 = w.n2[0] * w.n2[1] * pitch2;
    const bool masks = s.box1.usable || s.box2.usable;
    // twice: sizes first, then addresses
    for (int pass = 0; pass < 2; pass++) {
        size_t used = 0;
        auto take = [&](size_t bytes) {
            char *p = w.memory ? w.memory + used : (char *)0;
            used += (bytes + 63) / 64 * 64;
            return p;
        };
        for (int k = 0; k < MPIDVC_PLANES; k++) {
            const bool wanted = k == MPIDVC_VALUE || masks;
            w.planes1[k] = (float *)take(wanted ? sizeof(float) * (size_t)size1 : 0);
            w.planes2[k] = (float *)take(wanted || k == MPIDVC_SQUARE ? sizeof(float) * (size_t)size2 : 0);
        }
        for (int k = 0; k < MPIDVC_SUMS_OF_SEARCH; k++)
            w.sums[k] = (float *)take(sums && (k == 0 || masks) ? sizeof(float) * (size_t)w.offsets : 0);
        for (int k = 0; k < 3; k++) w.boxes[k] = (double *)take(sizeof(double) * (size_t)w.offsets);
        w.cc = (double *)take(sizeof(double) * (size_t)w.offsets);
        w.bound = (double *)take(sizeof(double) * (size_t)w.offsets);
        w.plane = (double *)take(sizeof(double) * (size_t)(larger(w.n2[1], w.d[0]) * pitch2 + 8));
        w.slices = (double *)take(sizeof(double) * (size_t)(w.n2[0] * w.d[1] * pitch2));
        w.block = (float *)take(sizeof(float) * (size_t)(w.d[1] * w.d[2] * FULL));
        if (!pass) {
            w.memory = (char *)malloc(used + 64);
            if (!w.memory) return false;
        }
    }
    return true;
}

// The smallest part of a window that holds its usable voxels. False if there are none.
bool crop(const uint8_t *usable, Int py, Int pz, Int low[3], Int n[3]) {
    Int from[3] = {n[0], n[1], n[2]}, to[3] = {-1, -1, -1};
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) {
            const uint8_t *u = usable + z * pz + y * py;
            Int first = 0, last = n[2] - 1;
            while (first < n[2] && !u[first]) first++;
            if (first == n[2]) continue;
            while (!u[last]) last--;
            from[0] = smaller(from[0], z), to[0] = larger(to[0], z);
            from[1] = smaller(from[1], y), to[1] = larger(to[1], y);
            from[2] = smaller(from[2], first), to[2] = larger(to[2], last);
        }
    if (to[0] < 0) return false;
    for (int a = 0; a < 3; a++) low[a] = from[a], n[a] = to[a] - from[a] + 1;
    return true;
}

// Number of usable voxels of a part.
Int count(const uint8_t *usable, Int py, Int pz, const Int n[3]) {
    if (!usable) return n[0] * n[1] * n[2];
    Int sum = 0;
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) {
            int row = 0;
            for (Int x = 0; x < n[2]; x++) row += usable[z * pz + y * py + x] != 0;
            sum += row;
        }
    return sum;
}

// A constant to subtract: about the mean of the usable values.
double level_of(const float *data, const uint8_t *usable, Int py, Int pz, const Int n[3]) {
    D8 sum = {}, number = {};
    double rest = 0, voxels = 0;
    const Int step = usable ? 1 : 2;  // a sample will do
    for (Int z = 0; z < n[0]; z += step)
        for (Int y = 0; y < n[1]; y += step) {
            const float *p = data + z * pz + y * py;
            if (!usable && n[2] >= EIGHT) {
                for (Int x = 0; x + EIGHT <= n[2]; x += EIGHT) {
                    D8 v;
                    widen(p + x, v);
                    sum += v, number += 1.0;
                }
                continue;
            }
            for (Int x = 0; x < n[2]; x++)
                if (!usable || usable[z * pz + y * py + x]) rest += (double)p[x], voxels += 1;
        }
    voxels += total8(number);
    return voxels > 0 ? (double)(float)((rest + total8(sum)) / voxels) : 0.0;
}

// Values less a constant; 0 where not usable and behind the rows.
void fill_values(const float *data, const uint8_t *usable, Int py, Int pz, const Int n[3], double level, Int pitch,
                 float *out) {
    const float c = (float)level;
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) {
            const float *p = data + z * pz + y * py;
            float *q = out + (z * n[1] + y) * pitch;
            if (usable) {
                const uint8_t *u = usable + z * pz + y * py;
                for (Int x = 0; x < n[2]; x++) q[x] = u[x] ? p[x] - c : 0.f;
            } else {
                Int x = 0;
                for (; x + WIDE <= n[2]; x += WIDE) store<WIDE>(q + x, load<WIDE>(p + x) - c);
                for (; x < n[2]; x++) q[x] = p[x] - c;
            }
            for (Int x = n[2]; x < pitch; x++) q[x] = 0.f;
        }
}

void fill_usable(const uint8_t *usable, Int py, Int pz, const Int n[3], Int pitch, float *out) {
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) {
            float *q = out + (z * n[1] + y) * pitch;
            for (Int x = 0; x < n[2]; x++) q[x] = !usable || usable[z * pz + y * py + x] ? 1.f : 0.f;
            for (Int x = n[2]; x < pitch; x++) q[x] = 0.f;
        }
}

// Brings values whose squares would leave the range of single precision near 1, by a power of two: nothing is rounded,
// and CC does not change. `constant`, `sum` and `squares` are scaled with them. False if nothing had to be done.
bool rescale(float *values, Int size, double number, double *constant, double *sum, double *squares) {
    const double mean_square = *squares / number;
    if (mean_square > 1e-20 && mean_square < 1e20) return false;
    int exponent = 0;
    frexp(sqrt(mean_square), &exponent);
    const double scale = ldexp(1.0, -exponent);
    for (Int i = 0; i < size; i++) values[i] = (float)((double)values[i] * scale);
    *constant *= scale, *sum *= scale, *squares *= scale * scale;
    return true;
}

// Sum of the values of a plane and of their squares; `squares_out`, if any, gets the squares.
void moments(const float *values, Int count, double *sum, double *squares, float *squares_out = 0) {
    D8 s = {}, q = {};
    Int i = 0;
    for (; i + EIGHT <= count; i += EIGHT) {
        D8 v;
        widen(values + i, v);
        s += v, q += v * v;
        for (int j = 0; squares_out && j < EIGHT; j++) squares_out[i + j] = values[i + j] * values[i + j];
    }
    *sum = total8(s), *squares = total8(q);
    for (; i < count; i++) {
        *sum += values[i], *squares += (double)values[i] * (double)values[i];
        if (squares_out) squares_out[i] = values[i] * values[i];
    }
}

void square(const float *values, Int count, float *out) {
    for (Int i = 0; i < count; i++) out[i] = values[i] * values[i];
}

// Fills the planes and constants of point k. False if nothing can be found there: window 1 or the searched part has no
// data, or window 1 is of one grey level.
bool prepare(const mpidvc_search &s, Int k, const Work &w, Point &p) {
    memset(&p, 0, sizeof p);
    Int low1[3], low[3] = {0, 0, 0}, low2[3];
    for (int a = 0; a < 3; a++) {
        p.e.n1[a] = w.n1[a], p.e.d[a] = w.d[a];
        low1[a] = s.centre1[3 * k + a] - s.hws[a];
        p.first[a] = s.low[a];
    }
    const mpidvc_search_box &b1 = s.box1, &b2 = s.box2;
    Int at1 = low1[0] * b1.pitch_z + low1[1] * b1.pitch_y + low1[2];
    if (b1.usable) {
        if (!crop(b1.usable + at1, b1.pitch_y, b1.pitch_z, low, p.e.n1)) return false;
        at1 += low[0] * b1.pitch_z + low[1] * b1.pitch_y + low[2];
    }
    for (int a = 0; a < 3; a++) {
        low2[a] = s.centre2[3 * k + a] - s.hws[a] + low[a] + s.low[a];
        p.e.n2[a] = p.e.n1[a] + w.d[a] - 1;
    }
    const Int at2 = low2[0] * b2.pitch_z + low2[1] * b2.pitch_y + low2[2];
    const uint8_t *u1 = b1.usable ? b1.usable + at1 : 0, *u2 = b2.usable ? b2.usable + at2 : 0;
    const Int n1 = count(u1, b1.pitch_y, b1.pitch_z, p.e.n1), n2 = count(u2, b2.pitch_y, b2.pitch_z, p.e.n2);
    if (n2 == 0) return false;
    p.masked1 = n1 < p.e.n1[0] * p.e.n1[1] * p.e.n1[2];
    p.masked2 = n2 < p.e.n2[0] * p.e.n2[1] * p.e.n2[2];
    if (!p.masked1) u1 = 0;
    if (!p.masked2) u2 = 0;
    p.pair = Pair{b1.data + at1, b2.data + at2, u1, u2, {p.e.n1[0], p.e.n1[1], p.e.n1[2]},
                  b1.pitch_y, b1.pitch_z, b2.pitch_y, b2.pitch_z};
    p.n = (double)n1;
    p.e.pitch1 = (p.e.n1[2] + WIDE - 1) / WIDE * WIDE;
    p.e.pitch2 = pitch_of(p.e.pitch1, w.d[2]);

    const double level1 = level_of(p.pair.a, u1, b1.pitch_y, b1.pitch_z, p.e.n1);
    const double level2 = level_of(p.pair.b, u2, b2.pitch_y, b2.pitch_z, p.e.n2);
    const Int size1 = p.e.n1[0] * p.e.n1[1] * p.e.pitch1, size2 = p.e.n2[0] * p.e.n2[1] * p.e.pitch2;
    fill_values(p.pair.a, u1, b1.pitch_y, b1.pitch_z, p.e.n1, level1, p.e.pitch1, w.planes1[MPIDVC_VALUE]);
    moments(w.planes1[MPIDVC_VALUE], size1, &p.a, &p.aa);
    if (p.aa == 0) return false;  // the level of one grey level is exact
    fill_values(p.pair.b, u2, b2.pitch_y, b2.pitch_z, p.e.n2, level2, p.e.pitch2, w.planes2[MPIDVC_VALUE]);
    double sum;
    moments(w.planes2[MPIDVC_VALUE], size2, &sum, &p.bb, w.planes2[MPIDVC_SQUARE]);
    p.c1 = level1 + s.base1, p.c2 = level2 + s.base2;
    rescale(w.planes1[MPIDVC_VALUE], size1, (double)n1, &p.c1, &p.a, &p.aa);
    if (p.bb > 0 && rescale(w.planes2[MPIDVC_VALUE], size2, (double)n2, &p.c2, &sum, &p.bb))
        square(w.planes2[MPIDVC_VALUE], size2, w.planes2[MPIDVC_SQUARE]);
    p.needed = 1 << MPIDVC_AB;
    if (p.masked1) {
        fill_usable(u1, b1.pitch_y, b1.pitch_z, p.e.n1, p.e.pitch1, w.planes1[MPIDVC_USABLE]);
        p.needed |= 1 << MPIDVC_B | 1 << MPIDVC_BB;
    }
    if (p.masked2) {
        fill_usable(u2, b2.pitch_y, b2.pitch_z, p.e.n2, p.e.pitch2, w.planes2[MPIDVC_USABLE]);
        square(w.planes1[MPIDVC_VALUE], size1, w.planes1[MPIDVC_SQUARE]);
        p.needed |= 1 << MPIDVC_A | 1 << MPIDVC_AA;
    }
    if (p.masked1 && p.masked2) p.needed |= 1 << MPIDVC_COUNT;
    return true;
}

// Planes that make up each sum.
const int OF1[MPIDVC_SUMS_OF_SEARCH] = {MPIDVC_VALUE,  MPIDVC_USABLE, MPIDVC_VALUE,
                                        MPIDVC_SQUARE, MPIDVC_USABLE, MPIDVC_USABLE};
const int OF2[MPIDVC_SUMS_OF_SEARCH] = {MPIDVC_VALUE,  MPIDVC_USABLE, MPIDVC_USABLE,
                                        MPIDVC_USABLE, MPIDVC_VALUE,  MPIDVC_SQUARE};

void nothing_found(const mpidvc_search &s, Int k) {
    for (int a = 0; a < 3; a++) s.offset[3 * k + a] = 0;
    s.cc[k] = 0.0;
    s.error[k] = INFINITY;
}

// CC of one offset and a bound of its error, from sums and the bounds of theirs.
struct Estimate {
    double n, ab, a, aa, b, bb, root_bb;
    double e_ab, e_a, e_aa, e_b, e_bb;
};

MPIDVC_INLINE void rate(const Estimate &s, const Point &p, bool zero_mean, double *cc, double *bound) {
    double top, va, vb, e_top, e_va, e_vb;
    const double tiny = 512 * UNIT64;  // roundings of the double sums, relative to what was added
    if (zero_mean) {
        top = s.ab - s.a * s.b / s.n;
        va = s.aa - s.a * s.a / s.n;
        vb = s.bb - s.b * s.b / s.n;
        e_top = s.e_ab + (fabs(s.a) * s.e_b + fabs(s.b) * s.e_a + s.e_a * s.e_b) / s.n + tiny * sqrt(s.aa) * s.root_bb;
        e_va = s.e_aa + (2 * fabs(s.a) + s.e_a) * s.e_a / s.n + tiny * s.aa;
        e_vb = s.e_bb + (2 * fabs(s.b) + s.e_b) * s.e_b / s.n + tiny * s.bb;
    } else {
        const double c1 = p.c1, c2 = p.c2, f1 = fabs(c1), f2 = fabs(c2);
        const double r1 = sqrt(s.aa) + f1 * sqrt(s.n), r2 = s.root_bb + f2 * sqrt(s.n);
        top = s.ab + c2 * s.a + c1 * s.b + s.n * c1 * c2;
        va = s.aa + 2 * c1 * s.a + s.n * c1 * c1;
        vb = s.bb + 2 * c2 * s.b + s.n * c2 * c2;
        e_top = s.e_ab + f2 * s.e_a + f1 * s.e_b + tiny * r1 * r2;
        e_va = s.e_aa + 2 * f1 * s.e_a + tiny * r1 * r1;
        e_vb = s.e_bb + 2 * f2 * s.e_b + tiny * r2 * r2;
    }
    *cc = 0;
    *bound = INFINITY;
    // too uncertain: only the exact evaluation can tell
    if (!(e_va < 0.1 * va && e_vb < 0.1 * vb)) return;
    const double scale = 1 / sqrt(va * vb);
    *cc = top * scale;
    *bound = 1.2 * e_top * scale + 0.6 * fabs(*cc) * (e_va * vb + e_vb * va) * (scale * scale);
}

// Finishes point k from the float32 sums of all offsets: evaluates again every candidate that may be the best.
void choose(mpidvc_search &s, Int k, const Work &w, const Point &p, const float *const given[], double noise) {
    const bool fft = noise > 0;
    const double gamma = UNIT32 * chain(p.e), gamma_of_box = UNIT32 * chain_of_box(p.e), least = s.min_overlap * p.n;
    double norm1[MPIDVC_PLANES] = {}, norm2[MPIDVC_PLANES] = {};
    if (fft) {
        const Int size1 = p.e.n1[0] * p.e.n1[1] * p.e.pitch1, size2 = p.e.n2[0] * p.e.n2[1] * p.e.pitch2;
        double sum;
        for (int i = 0; i < MPIDVC_PLANES; i++) {
            if (i == MPIDVC_VALUE || (i == MPIDVC_USABLE ? p.masked1 : p.masked2))
                moments(w.planes1[i], size1, &sum, &norm1[i]);
            if (i != MPIDVC_USABLE || p.masked2) moments(w.planes2[i], size2, &sum, &norm2[i]);
            norm1[i] = sqrt(norm1[i]), norm2[i] = sqrt(norm2[i]);
        }
    }
    auto fft_error = [&](int sum) { return fft ? noise * norm1[OF1[sum]] * norm2[OF2[sum]] : 0.0; };
    const bool box_n = p.masked2 && !p.masked1, box_b = !p.masked1;
    if (box_n) box_sums<double>(p.e, w.planes2[MPIDVC_USABLE], w.plane, w.slices, w.boxes[0]);
    if (box_b) {
        box_sums<float>(p.e, w.planes2[MPIDVC_VALUE], w.plane, w.slices, w.boxes[1]);
        box_sums<float>(p.e, w.planes2[MPIDVC_SQUARE], w.plane, w.slices, w.boxes[2]);
    }
    const double root_aa = sqrt(p.aa), root_n = sqrt(p.n);
    double threshold = 0;  // the best CC is at least this
    for (Int i = 0; i < w.offsets; i++) {
        Estimate q;
        q.n = p.needed >> MPIDVC_COUNT & 1 ? floor((double)given[MPIDVC_COUNT][i] + 0.5) : box_n ? w.boxes[0][i] : p.n;
        w.cc[i] = -1, w.bound[i] = 0;
        if (!(q.n > 0) || q.n < least) continue;
        q.ab = given[MPIDVC_AB][i];
        q.a = p.masked2 ? given[MPIDVC_A][i] : p.a;
        q.aa = p.masked2 ? fabs((double)given[MPIDVC_AA][i]) : p.aa;
        q.b = box_b ? w.boxes[1][i] : given[MPIDVC_B][i];
        q.bb = box_b ? w.boxes[2][i] : fabs((double)given[MPIDVC_BB][i]);
        // each plane's values are rounded once; sums of correlations are rounded all along their chain
        const double bb = p.masked1 ? q.bb + fft_error(MPIDVC_BB) : q.bb;
        const double aa = p.masked2 ? q.aa + fft_error(MPIDVC_AA) : q.aa, one = 4 * UNIT32;
        const double g1 = box_b ? gamma_of_box : fft ? one : gamma, g2 = fft ? one : p.masked2 ? gamma : one;
        const double root = sqrt(bb);
        q.root_bb = p.masked1 ? sqrt(q.bb) : root;
        q.e_ab = (fft ? one : gamma) * root_aa * root + fft_error(MPIDVC_AB) + p.n * LEAST32;
        q.e_a = g2 * sqrt(p.n * p.aa) + (p.masked2 ? fft_error(MPIDVC_A) : 0.0);
        q.e_aa = g2 * aa + (p.masked2 ? fft_error(MPIDVC_AA) : 0.0) + p.n * LEAST32;
        q.e_b = g1 * root_n * root + (p.masked1 ? fft_error(MPIDVC_B) : 0.0);
        q.e_bb = g1 * bb + (p.masked1 ? fft_error(MPIDVC_BB) : 0.0) + p.n * LEAST32;
        rate(q, p, s.zero_mean != 0, &w.cc[i], &w.bound[i]);
        if (w.bound[i] < INFINITY && w.cc[i] - w.bound[i] > threshold) threshold = w.cc[i] - w.bound[i];
    }
    auto may_be_best = [&](Int i) { return !(w.cc[i] + w.bound[i] < threshold || w.cc[i] + w.bound[i] <= 0); };
    Int candidates = 0;
    for (Int i = 0; i < w.offsets; i++) candidates += may_be_best(i);
    // candidates of one grey level: without a CC, or all with the same one
    double *const least_grey = w.boxes[0], *const most_grey = w.boxes[1];
    if (candidates > MANY) {
        box_folds<Least>(p.e, p.pair.b, p.pair.usable2, p.pair.py2, p.pair.pz2, w.plane, w.slices, least_grey);
        box_folds<Most>(p.e, p.pair.b, p.pair.usable2, p.pair.py2, p.pair.pz2, w.plane, w.slices, most_grey);
    }
    bool met[2] = {false, false};  // one of a negative, of a positive grey level
    double best = 0;
    Int where = -1;
    Sums at_best = {};
    for (Int i = 0; i < w.offsets; i++) {
        if (!may_be_best(i)) continue;
        if (candidates > MANY && least_grey[i] >= most_grey[i]) {
            const double grey = least_grey[i] + s.base2;
            if (s.zero_mean || grey == 0) continue;
            if (!p.masked2 && met[grey > 0]) continue;
            met[grey > 0] = true;
        }
        const Int z = i / (w.d[1] * w.d[2]), y = i / w.d[2] % w.d[1], x = i % w.d[2];
        Pair pair = p.pair;
        const Int step = z * pair.pz2 + y * pair.py2 + x;
        pair.b += step;
        if (pair.usable2) pair.usable2 += step;
        Sums sums;
        const double cc = exact_cc(pair, s.zero_mean != 0, s.base1, s.base2, sums);
        s.evaluated++;
        if (cc > best) best = cc, where = i, at_best = sums;
    }
    if (where < 0) return nothing_found(s, k);
    s.offset[3 * k] = p.first[0] + where / (w.d[1] * w.d[2]);
    s.offset[3 * k + 1] = p.first[1] + where / w.d[2] % w.d[1];
    s.offset[3 * k + 2] = p.first[2] + where % w.d[2];
    s.cc[k] = best;
    s.error[k] = at_best.a != 0 ? at_best.dd / at_best.a : INFINITY;
}

int search(mpidvc_search *s) {
    Work w;
    if (!make_work(*s, true, w)) return -1;
    for (Int k = 0; k < s->count; k++) {
        Point p;
        if (!prepare(*s, k, w, p)) {
            nothing_found(*s, k);
            continue;
        }
        for (int i = 0; i < MPIDVC_SUMS_OF_SEARCH; i++)
            if (p.needed >> i & 1) correlate(p.e, w.planes1[OF1[i]], w.planes2[OF2[i]], w.sums[i], w.block);
        choose(*s, k, w, p, w.sums, 0.0);
    }
    free(w.memory);
    return 0;
}

void unpad(const float *from, const Int n[3], Int pitch, float *to) {
    for (Int i = 0; i < n[0] * n[1]; i++) memcpy(to + i * n[2], from + i * pitch, sizeof(float) * (size_t)n[2]);
}

int planes(const mpidvc_search *s, Int k, mpidvc_planes *out) {
    Work w;
    if (!make_work(*s, false, w)) return -1;
    Point p;
    out->needed = 0;
    if (prepare(*s, k, w, p)) {
        out->needed = p.needed;
        for (int a = 0; a < 3; a++) out->n1[a] = p.e.n1[a], out->n2[a] = p.e.n2[a];
        for (int i = 0; i < MPIDVC_SUMS_OF_SEARCH; i++)
            if (p.needed >> i & 1) {
                unpad(w.planes1[OF1[i]], p.e.n1, p.e.pitch1, out->planes1[OF1[i]]);
                unpad(w.planes2[OF2[i]], p.e.n2, p.e.pitch2, out->planes2[OF2[i]]);
            }
    }
    free(w.memory);
    return 0;
}

int choose_from(mpidvc_search *s, Int k, const float *const sums[MPIDVC_SUMS_OF_SEARCH], double noise) {
    Work w;
    if (!make_work(*s, false, w)) return -1;
    Point p;
    if (prepare(*s, k, w, p))
        choose(*s, k, w, p, sums, noise);
    else
        nothing_found(*s, k);
    free(w.memory);
    return 0;
}

const mpidvc_search_kernels TABLE = {MPIDVC_TEXT(MPIDVC_ISA), search, planes, choose_from};

}  // namespace

extern "C" const mpidvc_search_kernels *MPIDVC_JOIN(mpidvc_search_kernels_, MPIDVC_ISA)(void) { return &TABLE; }
