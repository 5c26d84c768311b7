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

// Planes of both windows that stay in the nearest cache while offsets are summed.
enum { FLOATS_AT_ONCE = 8192 };

const double UNIT32 = 1.0 / 16777216.0;        // half a unit in the last place of 1.0f
const double UNIT64 = 1.0 / 9007199254740992.0;
const double LEAST32 = 1.401298464324817e-45;  // the smallest number in single precision: products are rounded to it

// Error of a sum of values that were rounded once, each: relative to the norm.
const double ONCE = 4 * UNIT32;

// Points in a row that are not screened after one where that was of no use.
enum { NEXT_DOOR = 5 };

// With more candidates than this to evaluate, those of one grey level are told apart first, which costs as much.
enum { MANY = 32 };

// ------------------------------------------------------------------------------------------------ wide vectors

#if MPIDVC_VECTORS
// Numbers of a register.
template <class Number> struct Abreast {
    enum { BYTES = 4 * FULL, LANES = BYTES / sizeof(Number) };
    typedef Number V __attribute__((vector_size(BYTES)));
    typedef Number Loose __attribute__((vector_size(BYTES), aligned(sizeof(Number)), may_alias));
};
typedef float LooseHalf __attribute__((vector_size(2 * FULL), aligned(4), may_alias));
#define MPIDVC_4(a, step) a, a + step, a + 2 * step, a + 3 * step
#define MPIDVC_8(a, step) MPIDVC_4(a, step), MPIDVC_4(a + 4 * step, step)
#define MPIDVC_16(a, step) MPIDVC_8(a, step), MPIDVC_8(a + 8 * step, step)
// Of two vectors, one after the other: the lanes of even and of odd number, and all from the second one on.
#define MPIDVC_PAIRS(L)                                                                                            \
    MPIDVC_INLINE void split_pairs(Lanes<L>::F a, Lanes<L>::F b, Lanes<L>::F &even, Lanes<L>::F &odd) {            \
        even = MPIDVC_SHUFFLE(Lanes<L>::F, a, b, MPIDVC_##L(0, 2)), odd = MPIDVC_SHUFFLE(Lanes<L>::F, a, b, MPIDVC_##L(1, 2)); \
    }                                                                                                              \
    MPIDVC_INLINE void shift(Lanes<L>::F a, Lanes<L>::F b, Lanes<L>::F &out) {                                     \
        out = MPIDVC_SHUFFLE(Lanes<L>::F, a, b, MPIDVC_##L(1, 1));                                                 \
    }
#if defined(__AVX512VL__)
MPIDVC_PAIRS(16)
#elif defined(__AVX2__)
MPIDVC_PAIRS(8)
#else
MPIDVC_PAIRS(4)
#endif
MPIDVC_INLINE void take(const float *p, Abreast<double>::V &out) {
    out = __builtin_convertvector(*(const LooseHalf *)p, Abreast<double>::V);
}
#else
template <class Number> struct Abreast {
    enum { LANES = 1 };
    typedef Number V;
    typedef Number Loose;
};
MPIDVC_INLINE void take(const float *p, double &out) { out = (double)*p; }
MPIDVC_INLINE void split_pairs(float a, float b, float &even, float &odd) { even = a, odd = b; }
MPIDVC_INLINE void shift(float, float b, float &out) { out = b; }
#endif
MPIDVC_INLINE void take(const float *p, Abreast<float>::V &out) { out = *(const Abreast<float>::Loose *)p; }
MPIDVC_INLINE void take(const double *p, Abreast<double>::V &out) { out = *(const Abreast<double>::Loose *)p; }
typedef Abreast<double>::V Doubles;
enum { DOUBLES = Abreast<double>::LANES };
MPIDVC_INLINE double larger_of(double a, double b) { return a > b ? a : b; }
// By reference: a vector may not be passed the same way by every instruction set.
MPIDVC_INLINE double total_of(const Doubles &v) {
    double numbers[DOUBLES];
    *(Abreast<double>::Loose *)numbers = v;
    for (int n = DOUBLES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) numbers[i] += numbers[i + n];
    return numbers[0];
}

// ----------------------------------------------------------------------------------------------- sums in float32

MPIDVC_INLINE Int rounded_up(Int n, Int step) { return (n + step - 1) / step * step; }

// Floats in rows of window 1, and of the searched part: room for the last group, and loops over rows have no rest.
MPIDVC_INLINE Int pitch_of_window(Int n) { return rounded_up(n, WIDE); }
MPIDVC_INLINE Int pitch_of(Int pitch1, Int offsets) { return rounded_up(pitch1 + offsets - 1, FULL); }

struct Extent {
    Int n1[3], n2[3], d[3];              // voxels of window 1, voxels of the part that is searched, offsets
    Int pitch1, pitch2, plane1, plane2;  // of rows and planes in the work arrays
};

// Windows of n1 voxels at d offsets, rows one after the other.
Extent extent_of(const Int n1[3], const Int d[3]) {
    Extent e;
    for (int a = 0; a < 3; a++) e.n1[a] = n1[a], e.d[a] = d[a], e.n2[a] = n1[a] + d[a] - 1;
    e.pitch1 = pitch_of_window(e.n1[2]), e.pitch2 = pitch_of(e.pitch1, e.d[2]);
    e.plane1 = e.n1[1] * e.pitch1, e.plane2 = e.n2[1] * e.pitch2;
    return e;
}

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

// A column of groups in some planes of window 1 (of at least DY rows) against window 2 at DY x DX offsets; the sums of a
// plane are rounded here and added to the first lanes of `out` once, which keeps chains of roundings short.
template <int L, int DY, int DX>
MPIDVC_NOINLINE void block(const float *g, const float *f, const Extent &e, Int planes, float *out) {
    const Int gp = e.pitch2, fp = e.pitch1, rows = e.n1[1], out_pitch = e.d[2] * FULL;
    for (Int z = 0; z < planes; z++, g += e.plane2, f += e.plane1) {
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
}

template <int L, int DY>
MPIDVC_INLINE void block_x(int dx, const float *g, const float *f, const Extent &e, Int planes, float *out) {
    switch (dx) {
        case 1: return block<L, DY, 1>(g, f, e, planes, out);
        case 2: return block<L, DY, 2>(g, f, e, planes, out);
        case 3: return block<L, DY, 3>(g, f, e, planes, out);
        default: return block<L, DY, MOST_X>(g, f, e, planes, out);
    }
}

template <int L>
MPIDVC_INLINE void block_yx(int dy, int dx, const float *g, const float *f, const Extent &e, Int planes, float *out) {
    switch (dy) {
        case 1: return block_x<L, 1>(dx, g, f, e, planes, out);
        case 2: return block_x<L, 2>(dx, g, f, e, planes, out);
        case 3: return block_x<L, 3>(dx, g, f, e, planes, out);
        case 4: return block_x<L, MOST_Y >= 4 ? 4 : 3>(dx, g, f, e, planes, out);
        default: return block_x<L, MOST_Y>(dx, g, f, e, planes, out);
    }
}

// A number divided into parts of at most `most` and of almost the same size: part k is this large.
struct Parts {
    Int least, larger;
    Parts(Int number, Int most) {
        const Int parts = (number + most - 1) / most;
        least = number / parts, larger = number % parts;
    }
    MPIDVC_METHOD int size(Int k) const { return (int)(least + (k < larger)); }
};

// Steps along z, y, x between the places of neighbouring offsets.
struct Steps {
    Int z, y, x;
};

// out[offset] = sum of plane 1 times plane 2 at that offset. Groups are of FULL lanes, the last one perhaps of WIDE.
void correlate(const Extent &e, const float *f, const float *g, float *sums, float *out, const Steps &steps) {
    const Int op = e.d[2] * FULL, at_once = larger(1, FLOATS_AT_ONCE / (e.plane1 + e.plane2));
    const Parts parts_y(e.d[1], smaller(MOST_Y, e.n1[1])), parts_x(e.d[2], MOST_X);
    for (Int dz = 0; dz < e.d[0]; dz++) {
        memset(sums, 0, sizeof(float) * (size_t)(e.d[1] * op));
        for (Int z = 0, planes; z < e.n1[0]; z += planes) {
            planes = smaller(e.n1[0] - z, at_once);
            for (Int y = 0, dy, i = 0; y < e.d[1]; y += dy, i++) {
                dy = parts_y.size(i);
                for (Int x = 0, dx, j = 0; x < e.d[2]; x += dx, j++) {
                    dx = parts_x.size(j);
                    const float *const a = f + z * e.plane1, *const b = g + (z + dz) * e.plane2 + y * e.pitch2 + x;
                    float *const to = sums + y * op + x * FULL;
                    for (Int at = 0; at < e.n1[2]; at += FULL) {
                        if (e.n1[2] - at > WIDE)
                            block_yx<FULL>((int)dy, (int)dx, b + at, a + at, e, planes, to);
                        else
                            block_yx<WIDE>((int)dy, (int)dx, b + at, a + at, e, planes, to);
                    }
                }
            }
        }
        for (Int y = 0; y < e.d[1]; y++)
            for (Int x = 0; x < e.d[2]; x++)
                out[dz * steps.z + y * steps.y + x * steps.x] = (float)total(load<FULL>(sums + y * op + x * FULL));
    }
}

// Longest chain of roundings in a sum of correlate(), those of the two factors included.
double chain(const Extent &e) {
    const Int groups = (e.n1[2] + FULL - 1) / FULL;
    return (double)(e.n1[1] + e.n1[0] * groups + 12);
}

// The same of box_folds(): parts of a window's length along every axis, and the factors of a square.
double chain_of_box(const Extent &e) { return (double)(e.n1[0] + e.n1[1] + e.n1[2] + 8); }

// ------------------------------------------------------------------------------------------------ sums in double

// The two windows that are compared at one offset, in the images themselves.
struct Pair {
    const float *a, *b;
    const uint8_t *usable1, *usable2;
    Int n[3], py1, pz1, py2, pz2;
};

struct Sums {
    double n, a, b, ab, aa, bb, dd;  // dd: (a - b)^2
};

// Some voxels of both images, 0 where one of them is not data; `weight` 1 where both are.
MPIDVC_INLINE void take_both(const Pair &p, Int row1, Int row2, Int x, Doubles &a, Doubles &b, Doubles &weight) {
    const Int left = p.n[2] - x;
    if (left >= DOUBLES && !p.usable1 && !p.usable2) {
        take(p.a + row1 + x, a), take(p.b + row2 + x, b), weight = Doubles{} + 1.0;
        return;
    }
    float va[DOUBLES] = {}, vb[DOUBLES] = {}, vw[DOUBLES] = {};
    for (Int i = 0; i < smaller(left, DOUBLES); i++) {
        const bool both = (!p.usable1 || p.usable1[row1 + x + i]) && (!p.usable2 || p.usable2[row2 + x + i]);
        va[i] = both ? p.a[row1 + x + i] : 0.f;
        vb[i] = both ? p.b[row2 + x + i] : 0.f;
        vw[i] = both ? 1.f : 0.f;
    }
    take(va, a), take(vb, b), take(vw, weight);
}

struct Accumulators {
    Doubles a, b, ab, aa, bb, dd;
    MPIDVC_METHOD void add(const Doubles &va, const Doubles &vb) {
        const Doubles d = va - vb;
        a += va, b += vb, ab += va * vb, aa += va * va, bb += vb * vb, dd += d * d;
    }
    MPIDVC_METHOD Sums sums(double n) const {
        return Sums{n, total_of(a), total_of(b), total_of(ab), total_of(aa), total_of(bb), total_of(dd)};
    }
};

// Sums about (mean_a, mean_b).
Sums exact_sums(const Pair &p, double mean_a, double mean_b) {
    Accumulators sums = {};
    Doubles a, b, w;
    if (p.usable1 || p.usable2 || p.n[2] < DOUBLES) {
        Doubles n = {};
        for (Int z = 0; z < p.n[0]; z++)
            for (Int y = 0; y < p.n[1]; y++)
                for (Int x = 0; x < p.n[2]; x += DOUBLES) {
                    take_both(p, z * p.pz1 + y * p.py1, z * p.pz2 + y * p.py2, x, a, b, w);
                    a -= mean_a * w, b -= mean_b * w;
                    n += w;
                    sums.add(a, b);
                }
        return sums.sums(total_of(n));
    }
    // the last group of a row begins earlier, and voxels of the one before do not count again
    const Int whole = p.n[2] / DOUBLES * DOUBLES, last = p.n[2] - DOUBLES;
    float fresh[DOUBLES];
    for (Int i = 0; i < DOUBLES; i++) fresh[i] = last + i >= whole ? 1.f : 0.f;
    take(fresh, w);
    for (Int z = 0; z < p.n[0]; z++)
        for (Int y = 0; y < p.n[1]; y++) {
            const float *const va = p.a + z * p.pz1 + y * p.py1, *const vb = p.b + z * p.pz2 + y * p.py2;
            for (Int x = 0; x < whole; x += DOUBLES) {
                take(va + x, a), take(vb + x, b);
                sums.add(a - mean_a, b - mean_b);
            }
            if (whole == p.n[2]) continue;
            take(va + last, a), take(vb + last, b);
            sums.add((a - mean_a) * w, (b - mean_b) * w);
        }
    return sums.sums((double)(p.n[0] * p.n[1] * p.n[2]));
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

// What values of a window are folded to, in numbers of which type; `first` is applied to single values before.
struct Add {
    typedef float Number;
    static constexpr float START = 0;
    template <class V> static MPIDVC_METHOD V first(V v) { return v; }
    template <class V> static MPIDVC_METHOD V of(V a, V b) { return a + b; }
};
struct AddSquares : Add {
    template <class V> static MPIDVC_METHOD V first(V v) { return v * v; }
};
struct Least : Add {
    static constexpr float START = INFINITY;
    template <class V> static MPIDVC_METHOD V of(V a, V b) { return a < b ? a : b; }
};
struct Most : Add {
    static constexpr float START = -INFINITY;
    template <class V> static MPIDVC_METHOD V of(V a, V b) { return a > b ? a : b; }
};
// For numbers of voxels, which single precision may not hold.
struct Count : Add {
    typedef double Number;
    static constexpr double START = 0;
};

// out[i] = in[i] + ... + in[i + w - 1] (or their least or most) for i < d, where each element is a row of n numbers. By
// van Herk's method: the end of a part of w rows, and the beginning of the next part. Two additions per element, and
// nothing is subtracted again, so that errors stay relative to the sum itself.
// n is a multiple of FULL, which go side by side.
template <class Fold, bool FIRST, class In>
MPIDVC_INLINE void fold_rows(const In *in, Int in_pitch, Int w, Int d, Int n, typename Fold::Number *out,
                             Int out_pitch) {
    typedef Abreast<typename Fold::Number> Side;
    typedef typename Side::V V;
    typedef typename Side::Loose Loose;
    for (Int x = 0; x < n; x += Side::LANES) {
        const In *const at = in + x;
        V v;
        for (Int start = 0; start < d; start += w) {
            V acc = V{} + Fold::START;
            for (Int i = start + w - 1; i >= start; i--) {
                take(at + i * in_pitch, v);
                acc = Fold::of(acc, FIRST ? Fold::first(v) : v);
                if (i < d) *(Loose *)(out + i * out_pitch + x) = acc;
            }
        }
        for (Int start = w; start < w + d - 1; start += w) {
            V acc = V{} + Fold::START;
            for (Int i = start; i < smaller(start + w - 1, w + d - 1); i++) {
                Loose *to = (Loose *)(out + (i - w + 1) * out_pitch + x);
                take(at + i * in_pitch, v);
                acc = Fold::of(acc, FIRST ? Fold::first(v) : v);
                *to = Fold::of((V)*to, acc);
            }
        }
    }
}

// out[offset] = sum (or least or most) of the window at that offset, along one axis after the other.
template <class Fold, class Out>
MPIDVC_NOINLINE void box_folds(const Extent &e, const float *values, void *memory, Out *out, const Steps &steps) {
    typedef typename Fold::Number Number;
    typedef Abreast<Number> Side;
    typedef typename Side::V V;
    typedef typename Side::Loose Loose;
    const Int nx = rounded_up(e.n2[2], FULL), area = e.d[1] * nx;
    Number *const slices = (Number *)memory, *const folded = slices + e.n2[0] * area;
    for (Int z = 0; z < e.n2[0]; z++)
        fold_rows<Fold, true>(values + z * e.plane2, e.pitch2, e.n1[1], e.d[1], nx, slices + z * area, nx);
    for (Int dy = 0; dy < e.d[1]; dy++) {
        fold_rows<Fold, false>(slices + dy * nx, area, e.n1[0], e.d[0], nx, folded, nx);
        for (Int dz = 0; dz < e.d[0]; dz++) {
            const Number *from = folded + dz * nx;
            Out *to = out + dz * steps.z + dy * steps.y;
            // always several at a time, some of which may be of no offset: the memory goes on
            for (Int first = 0; first < e.d[2]; first += Side::LANES) {
                V sum = *(const Loose *)(from + first);
                for (Int x = 1; x < e.n1[2]; x++) sum = Fold::of(sum, (V) * (const Loose *)(from + first + x));
                Number numbers[Side::LANES];
                *(Loose *)numbers = sum;
                for (Int i = 0; i < smaller(Side::LANES, e.d[2] - first); i++)
                    to[(first + i) * steps.x] = (Out)numbers[i];
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------- one point

// Memory of a batch, for whole windows.
struct Work {
    Int n1[3], d[3], offsets;
    float *planes1[MPIDVC_PLANES], *planes2[MPIDVC_PLANES], *sums[MPIDVC_SUMS_OF_SEARCH], *block;
    float *b, *bb, *rest;        // sums of boxes at every offset; what blocks leave
    float *least, *most;         // grey levels
    double *number, *cc, *bound;
    float *blocks1, *blocks2[2], *left2[2], *zeros;
    void *folds;
    Int *left;                   // of every plane of offsets: first y, number, first x, number
    char *memory;
};

// One point, prepared.
struct Point {
    Extent e;
    Pair pair;                   // at the first offset
    Int first[3];                // that offset
    bool masked1, masked2;
    double c1, c2;               // constants that were subtracted, the bases included
    double n, a, aa;             // voxels, sum a', sum a'^2 of window 1
    int needed;
};

// Edge of blocks along an axis: two voxels, but one where a window has one only. Along x pairs are made anyway.
MPIDVC_INLINE Int edge_of(const Extent &e, int axis) { return axis == 2 || e.n1[axis] > 1 ? 2 : 1; }

// The blocks of the windows at every second offset, beginning with this one.
Extent blocks_of(const Extent &e, const Int start[3]) {
    Int n[3], d[3];
    for (int a = 0; a < 3; a++) {
        const Int edge = edge_of(e, a);
        n[a] = (e.n1[a] + edge - 1) / edge, d[a] = (e.d[a] - start[a] + edge - 1) / edge;
    }
    return extent_of(n, d);
}

bool make_work(const mpidvc_search &s, bool sums, Work &w) {
    memset(&w, 0, sizeof w);
    w.offsets = 1;
    for (int a = 0; a < 3; a++) {
        w.n1[a] = 2 * s.hws[a] + 1;
        w.d[a] = s.high[a] - s.low[a] + 1;
        w.offsets *= w.d[a];
    }
    const Int none[3] = {0, 0, 0};
    const Extent e = extent_of(w.n1, w.d), c = blocks_of(e, none);
    const Int size1 = e.n1[0] * e.plane1, size2 = e.n2[0] * e.plane2;
    const Int blocks1 = c.n1[0] * c.plane1, blocks2 = c.n2[0] * c.plane2;
    const bool masks = s.box1.usable || s.box2.usable, screens = sums && s.screen;
    char *begin = 0;
    // twice: sizes first, then addresses
    for (int pass = 0; pass < 2; pass++) {
        size_t used = 0;
        auto take = [&](size_t bytes) {
            char *p = begin ? begin + used : (char *)0;
            used += (bytes + 63) / 64 * 64;
            return p;
        };
        auto floats = [&](Int number, bool wanted) { return (float *)take(wanted ? sizeof(float) * (size_t)number : 0); };
        auto doubles = [&](Int number) { return (double *)take(sizeof(double) * (size_t)number); };
        for (int k = 0; k < MPIDVC_PLANES; k++) {
            w.planes1[k] = floats(size1 + FULL, k == MPIDVC_VALUE || masks);
            w.planes2[k] = floats(size2, true);
        }
        for (int k = 0; k < MPIDVC_SUMS_OF_SEARCH; k++) w.sums[k] = floats(w.offsets, sums && (k == 0 || masks));
        w.b = floats(w.offsets, true), w.bb = floats(w.offsets, true), w.rest = floats(w.offsets, true);
        w.least = floats(w.offsets, true), w.most = floats(w.offsets, true);
        w.number = doubles(masks ? w.offsets : 0), w.cc = doubles(w.offsets), w.bound = doubles(w.offsets);
        w.blocks1 = floats(blocks1 + FULL, screens);
        for (int k = 0; k < 2; k++) w.blocks2[k] = floats(blocks2, screens), w.left2[k] = floats(blocks2, screens);
        w.zeros = floats(e.pitch2 + FULL, screens);
        w.folds = take((masks ? sizeof(double) : sizeof(float)) *
                       (size_t)((e.n2[0] * e.d[1] + e.d[0]) * e.pitch2 + 2 * FULL));
        w.left = (Int *)take(screens ? sizeof(Int) * (size_t)(4 * e.d[0]) : 0);
        w.block = floats(e.d[1] * e.d[2] * FULL, true);
        if (!pass) {
            w.memory = (char *)malloc(used + 64);
            if (!w.memory) return false;
            // a row that begins within a cache line has twice the lines to load: 15 % of a search. (What aligned_alloc
            // gives leaves a hole that the next one does not fit into.)
            begin = (char *)(((uintptr_t)w.memory + 63) / 64 * 64);
        }
    }
    if (screens) {
        // what is behind the last block of a row is multiplied by 0
        memset(w.blocks1, 0, sizeof(float) * (size_t)(blocks1 + FULL));
        for (int k = 0; k < 2; k++) memset(w.blocks2[k], 0, sizeof(float) * (size_t)blocks2);
        memset(w.zeros, 0, sizeof(float) * (size_t)(e.pitch2 + FULL));
    }
    return true;
}

// The places of all offsets.
MPIDVC_INLINE Steps steps_of(const Work &w) { return Steps{w.d[1] * w.d[2], w.d[2], 1}; }

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
    return usable ? count_of(usable, py, pz, n) : n[0] * n[1] * n[2];
}

// A constant to subtract: about the mean of the usable values.
double level_of(const float *data, const uint8_t *usable, Int py, Int pz, const Int n[3]) {
    Doubles sum = {}, number = {};
    double rest = 0, voxels = 0;
    const Int step = usable ? 1 : 2;  // a sample will do
    for (Int z = 0; z < n[0]; z += step)
        for (Int y = 0; y < n[1]; y += step) {
            const float *p = data + z * pz + y * py;
            if (!usable && n[2] >= DOUBLES) {
                for (Int x = 0; x + DOUBLES <= n[2]; x += DOUBLES) {
                    Doubles v;
                    take(p + x, v);
                    sum += v, number += 1.0;
                }
                continue;
            }
            for (Int x = 0; x < n[2]; x++)
                if (!usable || usable[z * pz + y * py + x]) rest += (double)p[x], voxels += 1;
        }
    voxels += total_of(number);
    return voxels > 0 ? (double)(float)((rest + total_of(sum)) / voxels) : 0.0;
}

// Values less a constant; 0 where not usable and behind the rows.
void fill_values(const float *data, const uint8_t *usable, Int py, Int pz, const Int n[3], double level, Int pitch,
                 float *out) {
    const float c = (float)level;
    const Int last = n[2] - WIDE, zeros = n[2] / WIDE * WIDE;  // pitches are whole groups
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) {
            const float *p = data + z * pz + y * py;
            float *q = out + (z * n[1] + y) * pitch;
            for (Int x = zeros; x < pitch; x += WIDE) store<WIDE>(q + x, Wide{});
            if (usable) {
                const uint8_t *u = usable + z * pz + y * py;
                for (Int x = 0; x < n[2]; x++) q[x] = u[x] ? p[x] - c : 0.f;
            } else if (last >= 0) {
                for (Int x = 0; x < last; x += WIDE) store<WIDE>(q + x, load<WIDE>(p + x) - c);
                store<WIDE>(q + last, load<WIDE>(p + last) - c);  // overlaps the group before
            } else {
                for (Int x = 0; x < n[2]; x++) q[x] = p[x] - c;
            }
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

// Grey levels of the searched part, and another value where they are not usable and behind the rows.
void fill_grey(const Point &p, float other, float *out) {
    for (Int z = 0; z < p.e.n2[0]; z++)
        for (Int y = 0; y < p.e.n2[1]; y++) {
            const Int at = z * p.pair.pz2 + y * p.pair.py2;
            float *q = out + z * p.e.plane2 + y * p.e.pitch2;
            for (Int x = 0; x < p.e.n2[2]; x++) q[x] = p.pair.usable2 && !p.pair.usable2[at + x] ? other : p.pair.b[at + x];
            for (Int x = p.e.n2[2]; x < p.e.pitch2; x++) q[x] = other;
        }
}

// Brings values whose squares would leave the range of single precision near 1, by a power of two: nothing is rounded,
// and CC does not change. `constant`, `sum` and `squares` are scaled with them.
void rescale(float *values, Int size, double number, double *constant, double *sum, double *squares) {
    const double mean_square = *squares / number;
    if (mean_square > 1e-20 && mean_square < 1e20) return;
    int exponent = 0;
    frexp(sqrt(mean_square), &exponent);
    const double scale = ldexp(1.0, -exponent);
    for (Int i = 0; i < size; i++) values[i] = (float)((double)values[i] * scale);
    *constant *= scale, *sum *= scale, *squares *= scale * scale;
}

// Sum of the values of a plane and of their squares.
void moments(const float *values, Int count, double *sum, double *squares) {
    Doubles s = {}, q = {};
    Int i = 0;
    for (; i + DOUBLES <= count; i += DOUBLES) {
        Doubles v;
        take(values + i, v);
        s += v, q += v * v;
    }
    *sum = total_of(s), *squares = total_of(q);
    for (; i < count; i++) *sum += values[i], *squares += (double)values[i] * (double)values[i];
}

// About the sum of squares in single precision, where they may be too small or too large. Whole groups of FULL.
double roughly_squares(const float *values, Int count) {
    Abreast<float>::V v, sum[2] = {};
    Int i = 0;
    for (; i + 2 * FULL <= count; i += 2 * FULL)
        for (int k = 0; k < 2; k++) take(values + i + k * FULL, v), sum[k] += v * v;
    for (; i < count; i += FULL) take(values + i, v), sum[0] += v * v;
    float numbers[FULL];
    *(Abreast<float>::Loose *)numbers = sum[0] + sum[1];
    double all = 0;
    for (int k = 0; k < FULL; k++) all += numbers[k];
    return all;
}

void square(const float *values, Int count, float *out) {
    for (Int i = 0; i < count; i++) out[i] = values[i] * values[i];
}

// Fills the planes and constants of point k. False if nothing can be found there: window 1 or the searched part has no
// data, or window 1 is of one grey level.
bool prepare(const mpidvc_search &s, Int k, const Work &w, Point &p) {
    memset(&p, 0, sizeof p);
    Int low1[3], low[3] = {0, 0, 0}, low2[3], n[3];
    for (int a = 0; a < 3; a++) {
        n[a] = w.n1[a];
        low1[a] = s.centre1[3 * k + a] - s.hws[a];
        p.first[a] = s.low[a];
    }
    const mpidvc_search_box &b1 = s.box1, &b2 = s.box2;
    Int at1 = low1[0] * b1.pitch_z + low1[1] * b1.pitch_y + low1[2];
    if (b1.usable) {
        if (!crop(b1.usable + at1, b1.pitch_y, b1.pitch_z, low, n)) return false;
        at1 += low[0] * b1.pitch_z + low[1] * b1.pitch_y + low[2];
    }
    p.e = extent_of(n, w.d);
    for (int a = 0; a < 3; a++) low2[a] = s.centre2[3 * k + a] - s.hws[a] + low[a] + s.low[a];
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

    const double level1 = level_of(p.pair.a, u1, b1.pitch_y, b1.pitch_z, p.e.n1);
    const double level2 = level_of(p.pair.b, u2, b2.pitch_y, b2.pitch_z, p.e.n2);
    const Int size1 = p.e.n1[0] * p.e.plane1, size2 = p.e.n2[0] * p.e.plane2;
    fill_values(p.pair.a, u1, b1.pitch_y, b1.pitch_z, p.e.n1, level1, p.e.pitch1, w.planes1[MPIDVC_VALUE]);
    moments(w.planes1[MPIDVC_VALUE], size1, &p.a, &p.aa);
    if (p.aa == 0) return false;  // the level of one grey level is exact
    fill_values(p.pair.b, u2, b2.pitch_y, b2.pitch_z, p.e.n2, level2, p.e.pitch2, w.planes2[MPIDVC_VALUE]);
    p.c1 = level1 + s.base1, p.c2 = level2 + s.base2;
    rescale(w.planes1[MPIDVC_VALUE], size1, (double)n1, &p.c1, &p.a, &p.aa);
    const double roughly = roughly_squares(w.planes2[MPIDVC_VALUE], size2);
    if (!(roughly > 1e-18 * (double)n2 && roughly < 1e18 * (double)n2)) {
        double sum, squares;
        moments(w.planes2[MPIDVC_VALUE], size2, &sum, &squares);
        if (squares > 0) rescale(w.planes2[MPIDVC_VALUE], size2, (double)n2, &p.c2, &sum, &squares);
    }
    p.needed = 1 << MPIDVC_AB;
    if (p.masked1) {
        fill_usable(u1, b1.pitch_y, b1.pitch_z, p.e.n1, p.e.pitch1, w.planes1[MPIDVC_USABLE]);
        square(w.planes2[MPIDVC_VALUE], size2, w.planes2[MPIDVC_SQUARE]);
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

// ------------------------------------------------------------------------------------------- sums over blocks

// Window 1 and the candidates are divided into blocks of two voxels along every axis, zeros behind the last one. With A
// and B, which are a' and b' replaced by the mean of their block, and what is left of them,
//
//   sum a' b' = sum A B + sum (a' - A)(b' - B),    and the second one is at most |a' - A| |b' - B|
//
// The first is a correlation with an eighth of the voxels; the second is small where a texture is smoother than voxels.

// Of voxels along a row, in pairs: sums over the other two axes of their blocks, and those of squares.
struct PairSums {
    Full even, odd, even_squares, odd_squares;
};

// Sums of 2 FULL voxels from x on of the rows of a block, of which `n` have memory behind them.
MPIDVC_INLINE void sum_pairs(const float *const from[4], Int x, Int n, PairSums &out) {
    Full sum[2] = {}, squares[2] = {};
    MPIDVC_UNROLL
    for (int k = 0; k < 2; k++) {
        if (x + k * FULL >= n) break;
        const Full a = load<FULL>(from[0] + x + k * FULL), b = load<FULL>(from[1] + x + k * FULL);
        const Full c = load<FULL>(from[2] + x + k * FULL), d = load<FULL>(from[3] + x + k * FULL);
        sum[k] = (a + b) + (c + d), squares[k] = (a * a + b * b) + (c * c + d * d);
    }
    split_pairs(sum[0], sum[1], out.even, out.odd);
    split_pairs(squares[0], squares[1], out.even_squares, out.odd_squares);
}

// The rows of the block that begins at (z, y) of a part; rows outside of it are zeros.
MPIDVC_INLINE void rows_of_block(const float *values, const Int n[3], Int pitch, Int plane, Int z, Int y,
                                 const Int edge[3], const float *zeros, const float *from[4]) {
    for (int k = 0; k < 4; k++) {
        const bool there = (k < 2 || (edge[0] == 2 && z + 1 < n[0])) && (k % 2 == 0 || (edge[1] == 2 && y + 1 < n[1]));
        from[k] = there ? values + (z + k / 2) * plane + (y + k % 2) * pitch : zeros;
    }
}

// Sums A B of all offsets (in w.sums[MPIDVC_AB]); what they lack is at most the returned number times
// sqrt(w.rest[offset]).
double screen(const Point &p, const Work &w) {
    const Extent &e = p.e;
    const Int edge[3] = {edge_of(e, 0), edge_of(e, 1), edge_of(e, 2)};
    const Int none[3] = {0, 0, 0};
    const Extent whole = blocks_of(e, none);
    const float voxels = (float)(edge[0] * edge[1] * 2), share = 1 / voxels;
    const float *from[4];
    double squares = 0;
    for (Int z = 0; z < whole.n1[0]; z++)
        for (Int y = 0; y < whole.n1[1]; y++) {
            rows_of_block(w.planes1[MPIDVC_VALUE], e.n1, e.pitch1, e.plane1, edge[0] * z, edge[1] * y, edge, w.zeros,
                          from);
            float *const mean = w.blocks1 + z * whole.plane1 + y * whole.pitch1;
            for (Int x = 0; x < whole.n1[2]; x += FULL) {
                PairSums v;
                sum_pairs(from, 2 * x, e.pitch1, v);
                // no voxels are behind the last block
                store<FULL>(mean + x, first_lanes<FULL>((v.even + v.odd) * share, whole.n1[2] - x));
            }
            for (Int x = 0; x < whole.n1[2]; x++) squares += (double)mean[x] * (double)mean[x];
        }
    // Roundings of block sums (three of each, and a factor) and along the sum of their products, all relative to
    // |a'| |b'|. They are added to both of what is left: sqrt(p + e) sqrt(q + e) is at least sqrt(p q) + e.
    const double gamma = UNIT32 * (chain(whole) + 40);
    const float more = (float)(1 + gamma + 24 * UNIT32);
    for (Int sz = 0; sz < smaller(edge[0], e.d[0]); sz++)
        for (Int sy = 0; sy < smaller(edge[1], e.d[1]); sy++) {
            const Int start[3] = {sz, sy, 0};
            const Extent c = blocks_of(e, start);
            for (Int z = 0; z < c.n2[0]; z++)
                for (Int y = 0; y < c.n2[1]; y++) {
                    rows_of_block(w.planes2[MPIDVC_VALUE], e.n2, e.pitch2, e.plane2, edge[0] * z + sz, edge[1] * y + sy,
                                  edge, w.zeros, from);
                    const Int at = z * c.plane2 + y * c.pitch2;
                    PairSums v, next;
                    sum_pairs(from, 0, e.pitch2, next);
                    for (Int x = 0; x < c.n2[2]; x += FULL) {
                        v = next;
                        sum_pairs(from, 2 * (x + FULL), e.pitch2, next);
                        Full b = v.even + v.odd, bb = v.even_squares + v.odd_squares;
                        store<FULL>(w.blocks2[0] + at + x, b);
                        store<FULL>(w.left2[0] + at + x, bb * more - b * b * share);
                        shift(v.even, next.even, b), shift(v.even_squares, next.even_squares, bb);
                        b += v.odd, bb += v.odd_squares;
                        store<FULL>(w.blocks2[1] + at + x, b);
                        store<FULL>(w.left2[1] + at + x, bb * more - b * b * share);
                    }
                }
            for (Int sx = 0; sx < smaller(2, e.d[2]); sx++) {
                const Int begin[3] = {sz, sy, sx};
                Extent x = blocks_of(e, begin);
                x.pitch2 = c.pitch2, x.plane2 = c.plane2;
                const Int step_y = w.d[2], step_z = w.d[1] * w.d[2];
                const Steps steps = {edge[0] * step_z, edge[1] * step_y, 2};
                const Int at = sz * step_z + sy * step_y + sx;
                correlate(x, w.blocks1, w.blocks2[sx], w.block, w.sums[MPIDVC_AB] + at, steps);
                box_folds<Add>(x, w.left2[sx], w.folds, w.rest + at, steps);
            }
        }
    return sqrt(larger_of(p.aa * (1 + gamma) - (double)voxels * squares, 0.0) + gamma * p.aa) *
           sqrt(1 + UNIT32 * (chain_of_box(whole) + 8));
}

// ---------------------------------------------------------------------------------------------- the best candidate

// CC of one offset and a bound of its error, from sums and the bounds of theirs.
struct Estimate {
    double n, ab, a, aa, b, bb, root_bb;
    double e_ab, e_a, e_aa, e_b, e_bb;
};

template <bool ZERO_MEAN>
MPIDVC_INLINE void rate(const Estimate &s, double c1, double c2, double *cc, double *bound) {
    double top, va, vb, e_top, e_va, e_vb;
    const double tiny = 512 * UNIT64;  // roundings of the double sums, relative to what was added
    if (ZERO_MEAN) {
        top = s.ab - s.a * s.b / s.n;
        va = s.aa - s.a * s.a / s.n;
        vb = s.bb - s.b * s.b / s.n;
        e_top = s.e_ab + (fabs(s.a) * s.e_b + fabs(s.b) * s.e_a + s.e_a * s.e_b) / s.n + tiny * sqrt(s.aa) * s.root_bb;
        e_va = s.e_aa + (2 * fabs(s.a) + s.e_a) * s.e_a / s.n + tiny * s.aa;
        e_vb = s.e_bb + (2 * fabs(s.b) + s.e_b) * s.e_b / s.n + tiny * s.bb;
    } else {
        const double f1 = fabs(c1), f2 = fabs(c2);
        const double r1 = sqrt(s.aa) + f1 * sqrt(s.n), r2 = s.root_bb + f2 * sqrt(s.n);
        top = s.ab + c2 * s.a + c1 * s.b + s.n * c1 * c2;
        va = s.aa + 2 * c1 * s.a + s.n * c1 * c1;
        vb = s.bb + 2 * c2 * s.b + s.n * c2 * c2;
        e_top = s.e_ab + f2 * s.e_a + f1 * s.e_b + tiny * r1 * r2;
        e_va = s.e_aa + 2 * f1 * s.e_a + tiny * r1 * r1;
        e_vb = s.e_bb + 2 * f2 * s.e_b + tiny * r2 * r2;
    }
    const double scale = 1 / sqrt(va * vb), value = top * scale, x = e_va / va, y = e_vb / vb;
    // else too uncertain: only the exact evaluation can tell
    const bool certain = e_va < 0.1 * va && e_vb < 0.1 * vb;
    *cc = certain ? value : 0.0;
    *bound = certain ? e_top * scale * (1 + 0.6 * x) * (1 + 0.6 * y) + 0.6 * fabs(value) * (x + y) : INFINITY;
}

// Errors of the sums of products: relative to the norms, the same for all offsets, and a factor of sqrt(w.rest).
struct Errors {
    double relative, absolute, left;
};

// Rates `count` offsets of windows without masks.
template <bool ZERO_MEAN>
MPIDVC_NOINLINE void rate_whole(const Point &p, const Work &w, const float *given, const Errors &errors, Int first,
                                Int count) {
    const double n = p.n, root_n = sqrt(p.n), root_aa = sqrt(p.aa), c1 = p.c1, c2 = p.c2, a = p.a, aa = p.aa;
    const double of_box = UNIT32 * chain_of_box(p.e), e_a = ONCE * root_n * root_aa;
    const double relative = errors.relative * root_aa, absolute = errors.absolute + n * LEAST32, left = errors.left;
    const float *__restrict const ab = given + first, *__restrict const b = w.b + first;
    const float *__restrict const bb = w.bb + first, *__restrict const rest = (left > 0 ? w.rest : w.bb) + first;
    double *__restrict const cc = w.cc + first, *__restrict const bound = w.bound + first;
    for (Int i = 0; i < count; i++) {
        Estimate q;
        q.n = n, q.a = a, q.aa = aa, q.ab = ab[i], q.b = b[i], q.bb = bb[i];
        q.root_bb = sqrt(q.bb);
        q.e_ab = relative * q.root_bb + absolute + left * sqrt((double)rest[i] + n * 32 * LEAST32);
        q.e_a = e_a, q.e_aa = ONCE * aa + n * LEAST32;
        q.e_b = of_box * root_n * q.root_bb, q.e_bb = of_box * q.bb + n * LEAST32;
        rate<ZERO_MEAN>(q, c1, c2, &cc[i], &bound[i]);
    }
}

void rate_whole(const Point &p, const Work &w, bool zero_mean, const float *given, const Errors &errors, Int first,
                Int count) {
    zero_mean ? rate_whole<true>(p, w, given, errors, first, count)
              : rate_whole<false>(p, w, given, errors, first, count);
}

// The same of windows with masks: all offsets. `noise` as in window_search.hpp.
void rate_masked(const mpidvc_search &s, const Point &p, const Work &w, const float *const given[], double noise) {
    const bool fft = noise > 0;
    const double gamma = UNIT32 * chain(p.e), gamma_of_box = UNIT32 * chain_of_box(p.e), least = s.min_overlap * p.n;
    const Int size1 = p.e.n1[0] * p.e.plane1, size2 = p.e.n2[0] * p.e.plane2;
    double norm1[MPIDVC_PLANES] = {}, norm2[MPIDVC_PLANES] = {};
    for (int i = 0; fft && i < MPIDVC_PLANES; i++) {
        double sum;
        if (i == MPIDVC_VALUE || (i == MPIDVC_USABLE ? p.masked1 : p.masked2))
            moments(w.planes1[i], size1, &sum, &norm1[i]);
        if (i == MPIDVC_VALUE || (i == MPIDVC_USABLE ? p.masked2 : p.masked1))
            moments(w.planes2[i], size2, &sum, &norm2[i]);
        norm1[i] = sqrt(norm1[i]), norm2[i] = sqrt(norm2[i]);
    }
    auto fft_error = [&](int sum) { return fft ? noise * norm1[OF1[sum]] * norm2[OF2[sum]] : 0.0; };
    const bool box_n = p.masked2 && !p.masked1, box_b = !p.masked1;
    if (box_n) box_folds<Count>(p.e, w.planes2[MPIDVC_USABLE], w.folds, w.number, steps_of(w));
    const double root_aa = sqrt(p.aa), root_n = sqrt(p.n);
    for (Int i = 0; i < w.offsets; i++) {
        Estimate q;
        q.n = p.needed >> MPIDVC_COUNT & 1 ? floor((double)given[MPIDVC_COUNT][i] + 0.5) : box_n ? w.number[i] : p.n;
        w.cc[i] = -1, w.bound[i] = 0;
        if (!(q.n > 0) || q.n < least) continue;
        q.ab = given[MPIDVC_AB][i];
        q.a = p.masked2 ? given[MPIDVC_A][i] : p.a;
        q.aa = p.masked2 ? fabs((double)given[MPIDVC_AA][i]) : p.aa;
        q.b = box_b ? w.b[i] : given[MPIDVC_B][i];
        q.bb = box_b ? w.bb[i] : fabs((double)given[MPIDVC_BB][i]);
        // each plane's values are rounded once; sums of correlations are rounded all along their chain
        const double bb = p.masked1 ? q.bb + fft_error(MPIDVC_BB) : q.bb;
        const double aa = p.masked2 ? q.aa + fft_error(MPIDVC_AA) : q.aa;
        const double g1 = box_b ? gamma_of_box : fft ? ONCE : gamma, g2 = fft ? ONCE : p.masked2 ? gamma : ONCE;
        const double root = sqrt(bb);
        q.root_bb = p.masked1 ? sqrt(q.bb) : root;
        q.e_ab = (fft ? ONCE : gamma) * root_aa * root + fft_error(MPIDVC_AB) + p.n * LEAST32;
        q.e_a = g2 * sqrt(p.n * p.aa) + (p.masked2 ? fft_error(MPIDVC_A) : 0.0);
        q.e_aa = g2 * aa + (p.masked2 ? fft_error(MPIDVC_AA) : 0.0) + p.n * LEAST32;
        q.e_b = g1 * root_n * root + (p.masked1 ? fft_error(MPIDVC_B) : 0.0);
        q.e_bb = g1 * bb + (p.masked1 ? fft_error(MPIDVC_BB) : 0.0) + p.n * LEAST32;
        if (s.zero_mean)
            rate<true>(q, p.c1, p.c2, &w.cc[i], &w.bound[i]);
        else
            rate<false>(q, p.c1, p.c2, &w.cc[i], &w.bound[i]);
    }
}

// The best CC is at least this.
double threshold_of(const Work &w) {
    Doubles most = {}, cc, bound;
    Int i = 0;
    for (; i + DOUBLES <= w.offsets; i += DOUBLES) {
        take(w.cc + i, cc), take(w.bound + i, bound);
        cc -= bound;
        most = cc > most ? cc : most;
    }
    double numbers[DOUBLES], threshold = 0;
    *(Abreast<double>::Loose *)numbers = most;
    for (int k = 0; k < DOUBLES; k++) threshold = larger_of(numbers[k], threshold);
    for (; i < w.offsets; i++) threshold = larger_of(w.cc[i] - w.bound[i], threshold);
    return threshold;
}

MPIDVC_INLINE bool may_be_best(const Work &w, Int i, double threshold) {
    const double most = w.cc[i] + w.bound[i];
    return !(most < threshold || most <= 0);
}

// Sums of products of some offsets of one plane, and their CC.
void correlate_some(const Point &p, const Work &w, bool zero_mean, Int z, Int y, Int ny, Int x, Int nx) {
    Extent some = p.e;
    some.d[0] = 1, some.d[1] = ny, some.d[2] = nx;
    const Int at = (z * w.d[1] + y) * w.d[2] + x;
    correlate(some, w.planes1[MPIDVC_VALUE], w.planes2[MPIDVC_VALUE] + z * p.e.plane2 + y * p.e.pitch2 + x, w.block,
              w.sums[MPIDVC_AB] + at, steps_of(w));
    for (Int i = 0; i < ny; i++)
        rate_whole(p, w, zero_mean, w.sums[MPIDVC_AB], Errors{UNIT32 * chain(p.e), 0, 0}, at + i * w.d[2], nx);
}

// Rates all offsets from sums over blocks, and those that may be the best from sums of all voxels. False if these would
// be more than `most` sums: nothing is decided then.
bool rate_screened(const Point &p, const Work &w, bool zero_mean, double most, int64_t *summed) {
    const double left = screen(p, w);
    rate_whole(p, w, zero_mean, w.sums[MPIDVC_AB], Errors{UNIT32 * chain(p.e), 0, left}, 0, w.offsets);
    Int best = -1;
    for (Int i = 0; i < w.offsets; i++)
        if (w.bound[i] < INFINITY && (best < 0 || w.cc[i] > w.cc[best])) best = i;
    if (best < 0) return true;
    const Int area = w.d[1] * w.d[2];
    correlate_some(p, w, zero_mean, best / area, best / w.d[2] % w.d[1], 1, best % w.d[2], 1);
    const double threshold = threshold_of(w);
    // of every plane of offsets the rectangle that holds all that are left; others keep their rating where none is
    Int sums = 0;
    for (Int z = 0; z < w.d[0]; z++) {
        Int y0 = w.d[1], y1 = -1, x0 = w.d[2], x1 = -1;
        for (Int y = 0; y < w.d[1]; y++)
            for (Int x = 0; x < w.d[2]; x++) {
                const Int i = z * area + y * w.d[2] + x;
                // no sum of products makes those more certain that have no bound
                if (i == best || !(w.bound[i] < INFINITY) || !may_be_best(w, i, threshold)) continue;
                y0 = smaller(y0, y), y1 = larger(y1, y), x0 = smaller(x0, x), x1 = larger(x1, x);
            }
        Int *const left = w.left + 4 * z;
        left[0] = y0, left[1] = y1 - y0 + 1, left[2] = x0, left[3] = x1 - x0 + 1;
        if (y1 < 0) left[1] = 0;
        sums += left[1] > 0 ? left[1] * left[3] : 0;
    }
    if ((double)sums > most) return false;
    *summed += sums + 1;
    for (Int z = 0; z < w.d[0]; z++) {
        const Int *const left = w.left + 4 * z;
        if (left[1] > 0) correlate_some(p, w, zero_mean, z, left[0], left[1], left[2], left[3]);
    }
    return true;
}

// Finishes point k: evaluates again every candidate that may be the best. The float32 sums of all offsets are given, or
// `screened` candidates get theirs here.
void choose(mpidvc_search &s, Int k, const Work &w, const Point &p, const float *const given[], double noise,
            bool screened) {
    const bool zero_mean = s.zero_mean != 0;
    if (s.min_overlap > 1) return nothing_found(s, k);
    if (!p.masked1) {
        box_folds<Add>(p.e, w.planes2[MPIDVC_VALUE], w.folds, w.b, steps_of(w));
        box_folds<AddSquares>(p.e, w.planes2[MPIDVC_VALUE], w.folds, w.bb, steps_of(w));
    }
    if (p.masked1 || p.masked2) {
        rate_masked(s, p, w, given, noise);
    } else if (screened) {
        if (!rate_screened(p, w, zero_mean, s.most_sums, &s.summed)) {
            s.left[k] = 1;
            return;
        }
    } else {
        Errors errors = {UNIT32 * chain(p.e), 0, 0};
        if (noise > 0) {
            double sum, norm1, norm2;
            moments(w.planes1[MPIDVC_VALUE], p.e.n1[0] * p.e.plane1, &sum, &norm1);
            moments(w.planes2[MPIDVC_VALUE], p.e.n2[0] * p.e.plane2, &sum, &norm2);
            errors = Errors{ONCE, noise * sqrt(norm1) * sqrt(norm2), 0};
        }
        rate_whole(p, w, zero_mean, given[MPIDVC_AB], errors, 0, w.offsets);
    }
    const double threshold = threshold_of(w);
    Int candidates = 0;
    for (Int i = 0; i < w.offsets; i++) candidates += may_be_best(w, i, threshold);
    // candidates of one grey level: without a CC, or all with the same one
    if (candidates > MANY) {
        float *const grey = w.planes2[MPIDVC_SQUARE];
        fill_grey(p, INFINITY, grey);
        box_folds<Least>(p.e, grey, w.folds, w.least, steps_of(w));
        fill_grey(p, -INFINITY, grey);
        box_folds<Most>(p.e, grey, w.folds, w.most, steps_of(w));
    }
    bool met[2] = {false, false};  // one of a negative, of a positive grey level
    double best = 0;
    Int where = -1;
    Sums at_best = {};
    for (Int i = 0; i < w.offsets; i++) {
        if (!may_be_best(w, i, threshold)) continue;
        if (candidates > MANY && w.least[i] >= w.most[i]) {
            const double grey = w.least[i] + s.base2;
            if (zero_mean || grey == 0) continue;
            if (!p.masked2 && met[grey > 0]) continue;
            met[grey > 0] = true;
        }
        const Int z = i / (w.d[1] * w.d[2]), y = i / w.d[2] % w.d[1], x = i % w.d[2];
        Pair pair = p.pair;
        const Int step = z * pair.pz2 + y * pair.py2 + x;
        pair.b += step;
        if (pair.usable2) pair.usable2 += step;
        Sums sums;
        const double cc = exact_cc(pair, zero_mean, s.base1, s.base2, sums);
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
    Int unscreened = 0;  // points still to come
    for (Int k = 0; k < s->count; k++) {
        Point p;
        if (!prepare(*s, k, w, p)) {
            nothing_found(*s, k);
            continue;
        }
        const bool whole = s->screen && !p.masked1 && !p.masked2, screened = whole && unscreened == 0;
        if (whole && !screened) unscreened--;
        if (!screened && (double)w.offsets > s->most_sums) {
            s->left[k] = 1;
            continue;
        }
        for (int i = 0; i < MPIDVC_SUMS_OF_SEARCH && !screened; i++)
            if (p.needed >> i & 1)
                correlate(p.e, w.planes1[OF1[i]], w.planes2[OF2[i]], w.block, w.sums[i], steps_of(w));
        if (!screened) s->summed += w.offsets;
        const Int before = s->summed;
        choose(*s, k, w, p, w.sums, 0.0, screened);
        // where blocks left most, as in noise, they will not do better next door; the way changes no answer
        if (screened && (s->left[k] || 2 * (s->summed - before) > w.offsets)) unscreened = NEXT_DOOR;
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
        choose(*s, k, w, p, sums, noise, false);
    else
        nothing_found(*s, k);
    free(w.memory);
    return 0;
}

const mpidvc_search_kernels TABLE = {MPIDVC_TEXT(MPIDVC_ISA), search, planes, choose_from};

}  // namespace

extern "C" const mpidvc_search_kernels *MPIDVC_JOIN(mpidvc_search_kernels_, MPIDVC_ISA)(void) { return &TABLE; }
