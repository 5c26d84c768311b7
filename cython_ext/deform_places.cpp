// Places of the voxels of a block in the undeformed image: means over their nearest points, weighted by the inverse
// distance. Once per instruction set (MPIDVC_ISA names the copy); a lane is a voxel of a row.
//
// All operations are those of IEEE 754 on each lane, without contraction to multiply-adds, and every voxel adds its
// points by ascending index: places depend neither on the block nor on the instruction set.
//
// Internal linkage throughout, and nothing of the C++ library: see instruction_set.hpp.
#include "deform_places.hpp"

#include <math.h>

#include "instruction_set.hpp"
#include "lanes.hpp"

#if MPIDVC_VECTORS && defined(__SSE2__)
#if !defined(__clang__)
// GCC's own header leaves registers undefined on purpose
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif

namespace {

// Added to distances (voxels) before they become weights: spam's.
const double SOFTENING = 1e-6;

#if MPIDVC_VECTORS
#if defined(__AVX512F__)
enum { L = 8 };
#elif defined(__AVX2__)
enum { L = 4 };
#else
enum { L = 2 };
#endif
typedef double D __attribute__((vector_size(8 * L)));
typedef int64_t M __attribute__((vector_size(8 * L)));
typedef double Loose __attribute__((vector_size(8 * L), aligned(8), may_alias));

MPIDVC_INLINE D splat(double v) { return v - D{}; }
MPIDVC_INLINE M below(D a, D b) { return a < b; }
MPIDVC_INLINE M equals(D a, D b) { return a == b; }
MPIDVC_INLINE M above_zero(M a) { return a > 0; }
MPIDVC_INLINE D pick(M mask, D a, D b) { return mask ? a : b; }
MPIDVC_INLINE void put(double *p, D v) { *(Loose *)p = v; }
MPIDVC_INLINE D ramp_of_doubles() {
    D v;
    for (int i = 0; i < L; i++) v[i] = (double)i;
    return v;
}
MPIDVC_INLINE double lane(D v, int i) { return v[i]; }
#if defined(__AVX512F__)
MPIDVC_INLINE int any(M m) { return _mm512_test_epi64_mask((__m512i)m, (__m512i)m) != 0; }
MPIDVC_INLINE int any_below(D a, D b) { return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_LT_OQ) != 0; }
MPIDVC_INLINE D root(D v) { return (D)_mm512_sqrt_pd((__m512d)v); }
MPIDVC_INLINE D lesser(D a, D b) { return (D)_mm512_min_pd((__m512d)a, (__m512d)b); }
MPIDVC_INLINE D greater(D a, D b) { return (D)_mm512_max_pd((__m512d)a, (__m512d)b); }
#elif defined(__AVX2__)
MPIDVC_INLINE int any(M m) { return _mm256_movemask_pd((__m256d)m) != 0; }
MPIDVC_INLINE int any_below(D a, D b) { return any(a < b); }
MPIDVC_INLINE D root(D v) { return (D)_mm256_sqrt_pd((__m256d)v); }
MPIDVC_INLINE D lesser(D a, D b) { return (D)_mm256_min_pd((__m256d)a, (__m256d)b); }
MPIDVC_INLINE D greater(D a, D b) { return (D)_mm256_max_pd((__m256d)a, (__m256d)b); }
#elif defined(__SSE2__)
MPIDVC_INLINE int any(M m) { return _mm_movemask_pd((__m128d)m) != 0; }
MPIDVC_INLINE int any_below(D a, D b) { return any(a < b); }
MPIDVC_INLINE D root(D v) { return (D)_mm_sqrt_pd((__m128d)v); }
MPIDVC_INLINE D lesser(D a, D b) { return (D)_mm_min_pd((__m128d)a, (__m128d)b); }
MPIDVC_INLINE D greater(D a, D b) { return (D)_mm_max_pd((__m128d)a, (__m128d)b); }
#else
MPIDVC_INLINE int any(M m) { return (m[0] | m[1]) != 0; }
MPIDVC_INLINE int any_below(D a, D b) { return any(a < b); }
MPIDVC_INLINE D root(D v) {
    for (int i = 0; i < L; i++) v[i] = __builtin_sqrt(v[i]);
    return v;
}
MPIDVC_INLINE D lesser(D a, D b) { return a < b ? a : b; }
MPIDVC_INLINE D greater(D a, D b) { return a > b ? a : b; }
#endif
#else  // one lane: plain C++ for compilers without vector extensions
enum { L = 1 };
typedef double D;
typedef int64_t M;
inline D splat(double v) { return v; }
inline M below(D a, D b) { return -(M)(a < b); }
inline M equals(D a, D b) { return -(M)(a == b); }
inline M above_zero(M a) { return -(M)(a > 0); }
inline D pick(M mask, D a, D b) { return mask ? a : b; }
inline void put(double *p, D v) { *p = v; }
inline D ramp_of_doubles() { return 0.0; }
inline double lane(D v, int) { return v; }
inline int any(M m) { return m != 0; }
inline int any_below(D a, D b) { return a < b; }
inline D root(D v) { return sqrt(v); }
inline D lesser(D a, D b) { return a < b ? a : b; }
inline D greater(D a, D b) { return a > b ? a : b; }
#endif

// Squared distances of L voxels from all points, and the `nearest` least ones, ascending. N: their number, or 0.
template <int N>
MPIDVC_INLINE void compare(const mpidvc_places &job, const double *square_zy, D x, D *square, D *ascending) {
    const Int nearest = N ? N : job.nearest;
    const double *at = job.position[2];
    D least[N ? N : 1];
    D *s = N ? least : ascending;
    MPIDVC_UNROLL
    for (Int j = 0; j < nearest; j++) s[j] = splat(INFINITY);
    for (Int k = 0; k < job.count; k++) {
        const Int row = job.first[k];
        const D dx = at[row] - x;
        D value = square_zy[row] + dx * dx;
        square[row] = value;
        if (!any_below(value, s[nearest - 1])) continue;
        MPIDVC_UNROLL
        for (Int j = 0; j < nearest; j++) {
            const D other = s[j];
            s[j] = lesser(other, value);
            value = greater(other, value);
        }
    }
    if (N)
        for (Int j = 0; j < nearest; j++) ascending[j] = s[j];
}

// Places of the L voxels from `x` on; equally near points count by their index.
MPIDVC_INLINE void average(const mpidvc_places &job, double z, double y, D x, const D *square, const D *ascending,
                           D *place) {
    const D last = ascending[job.nearest - 1], zero = splat(0.0);
    M room = {};  // points at the greatest distance that still count
    for (Int j = 0; j < job.nearest; j++) room -= equals(ascending[j], last);
    D sum = zero, moved[3] = {zero, zero, zero};
    for (Int k = 0; k < job.count; k++) {
        const M level = equals(square[k], last) & above_zero(room);
        const M counts = below(square[k], last) | level;
        if (!any(counts)) continue;
        room += level;
        const D weight = pick(counts, 1.0 / (root(square[k]) + SOFTENING), zero);
        const double *p = job.phi + 16 * job.index[k];
        sum += weight;
        if (job.displacements_only) {
            MPIDVC_UNROLL
            for (int a = 0; a < 3; a++) moved[a] += weight * p[4 * a + 3];
            continue;
        }
        const double dz = z - job.position[0][k], dy = y - job.position[1][k];
        const D dx = x - job.position[2][k];
        MPIDVC_UNROLL
        for (int a = 0; a < 3; a++) {
            // rows of F less those of the identity
            const double gz = p[4 * a] - (a == 0), gy = p[4 * a + 1] - (a == 1), gx = p[4 * a + 2] - (a == 2);
            moved[a] += weight * ((p[4 * a + 3] + (gz * dz + gy * dy)) + gx * dx);
        }
    }
    // a quotient, not a product with 1 / sum: equal motions give exactly their own
    place[0] = z + moved[0] / sum;
    place[1] = y + moved[1] / sum;
    place[2] = x + moved[2] / sum;
}

void places(const mpidvc_places *given) {
    const mpidvc_places job = *given;
    D *square = (D *)job.room, *ascending = square + job.count;
    double *square_z = job.room + L * (job.count + job.nearest), *square_zy = square_z + job.count;
    for (Int i = 0; i < job.size[0]; i++) {
        const double z = (double)(job.low[0] + i);
        for (Int k = 0; k < job.count; k++) square_z[k] = (job.position[0][k] - z) * (job.position[0][k] - z);
        for (Int j = 0; j < job.size[1]; j++) {
            const double y = (double)(job.low[1] + j);
            const Int row = i * job.pitch_z + j * job.pitch_y;
            for (Int k = 0; k < job.count; k++) {
                const double dy = job.position[1][k] - y;
                square_zy[k] = square_z[k] + dy * dy;
            }
            for (Int k = 0; k < job.size[2]; k += L) {
                const Int n = smaller((Int)L, job.size[2] - k);
                int wanted = 0;
                for (Int q = 0; q < n; q++) wanted += !job.wanted || job.wanted[row + k + q];
                D place[3] = {splat(NAN), splat(NAN), splat(NAN)};
                if (wanted) {
                    const D x = (double)(job.low[2] + k) + ramp_of_doubles();
                    if (job.nearest == 8)
                        compare<8>(job, square_zy, x, square, ascending);
                    else
                        compare<0>(job, square_zy, x, square, ascending);
                    average(job, z, y, x, square, ascending, place);
                }
                for (int a = 0; a < 3; a++) {
                    double *out = job.out[a] + row + k;
                    if (wanted == L)
                        put(out, place[a]);
                    else
                        for (Int q = 0; q < n; q++)
                            out[q] = !job.wanted || job.wanted[row + k + q] ? lane(place[a], (int)q) : (double)NAN;
                }
            }
        }
    }
}

const mpidvc_places_kernels TABLE = {MPIDVC_TEXT(MPIDVC_ISA), places};

}  // namespace

extern "C" const mpidvc_places_kernels *MPIDVC_JOIN(mpidvc_places_kernels_, MPIDVC_ISA)(void) { return &TABLE; }
