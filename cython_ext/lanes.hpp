// Short vectors of floats for the instruction set being compiled, and small helpers for integers. Internal linkage
// throughout (see instruction_set.hpp).
#pragma once
#include <stdint.h>
#include <string.h>

#if (defined(__GNUC__) || defined(__clang__)) && !defined(MPIDVC_PLAIN)
#define MPIDVC_METHOD inline __attribute__((always_inline))
#define MPIDVC_INLINE static MPIDVC_METHOD
#define MPIDVC_NOINLINE static __attribute__((noinline))
#define MPIDVC_UNROLL _Pragma("GCC unroll 8")
#define MPIDVC_PREFETCH(p) __builtin_prefetch(p)
#define MPIDVC_VECTORS 1
#else
#define MPIDVC_METHOD inline
#define MPIDVC_INLINE static inline
#define MPIDVC_NOINLINE static
#define MPIDVC_UNROLL
#define MPIDVC_PREFETCH(p) (void)(p)
#define MPIDVC_VECTORS 0
#endif

namespace {

typedef int64_t Int;

MPIDVC_INLINE Int smaller(Int a, Int b) { return a < b ? a : b; }
MPIDVC_INLINE Int larger(Int a, Int b) { return a > b ? a : b; }
MPIDVC_INLINE Int clamp(Int i, Int n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }
MPIDVC_INLINE Int floor_to_int(double v) {
    const Int i = (Int)v;
    return i - (v < (double)i);
}

// Bytes of a row that are not 0, eight at a time: rows of windows are too short for longer vectors.
MPIDVC_INLINE Int count_of(const uint8_t *map, Int n) {
    const uint64_t ones = 0x0101010101010101u, sevens = 0x7f * ones;
    Int sum = 0, x = 0;
    for (; x + 8 <= n; x += 8) {
        uint64_t eight;
        memcpy(&eight, map + x, 8);
        const uint64_t bits = ((eight & sevens) + sevens) | eight;  // the highest bit of each byte that is not 0
        sum += (Int)((bits >> 7 & ones) * ones >> 56);
    }
    for (; x < n; x++) sum += map[x] != 0;
    return sum;
}

// The same of a part of a map.
MPIDVC_INLINE Int count_of(const uint8_t *map, Int py, Int pz, const Int n[3]) {
    Int sum = 0;
    for (Int z = 0; z < n[0]; z++)
        for (Int y = 0; y < n[1]; y++) sum += count_of(map + z * pz + y * py, n[2]);
    return sum;
}

template <int L> struct Lanes;

#if MPIDVC_VECTORS
#define MPIDVC_LANES(L)                                                             \
    template <> struct Lanes<L> {                                                   \
        typedef float F __attribute__((vector_size(4 * L)));                        \
        typedef int32_t I __attribute__((vector_size(4 * L)));                      \
        typedef float Loose __attribute__((vector_size(4 * L), aligned(4), may_alias)); \
    };
MPIDVC_LANES(4)
MPIDVC_LANES(8)
MPIDVC_LANES(16)
#undef MPIDVC_LANES

// FULL: the widest registers. WIDE: half of them with AVX-512. Their unaligned loads cross no fewer cache lines a voxel
// than those of FULL, and everything else takes twice the instructions. QUAD: short enough for steep gradients, and for
// the ends of rows.
#if defined(__AVX512VL__)
enum { FULL = 16, WIDE = 8 };
#elif defined(__AVX2__)
enum { FULL = 8, WIDE = 8 };
#else
enum { FULL = 4, WIDE = 4 };
#endif
enum { QUAD = 4 };

template <int L> MPIDVC_INLINE typename Lanes<L>::F load(const float *p) {
    return *(const typename Lanes<L>::Loose *)p;
}
template <int L> MPIDVC_INLINE void store(float *p, typename Lanes<L>::F v) { *(typename Lanes<L>::Loose *)p = v; }
template <int L> MPIDVC_INLINE typename Lanes<L>::F ramp() {
    typename Lanes<L>::F v;
    for (int i = 0; i < L; i++) v[i] = (float)i;
    return v;
}
template <int L> MPIDVC_INLINE typename Lanes<L>::I lane_numbers() {
    typename Lanes<L>::I v;
    for (int i = 0; i < L; i++) v[i] = i;
    return v;
}
template <int L> MPIDVC_INLINE typename Lanes<L>::F to_floats(typename Lanes<L>::I v) {
    return __builtin_convertvector(v, typename Lanes<L>::F);
}
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define MPIDVC_SHUFFLE(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef MPIDVC_SHUFFLE  // GCC before 12: lane by lane
#define MPIDVC_SHUFFLE(type, a, b, ...) shuffled<type>(a, b, {__VA_ARGS__})
template <class To, class From> MPIDVC_INLINE To shuffled(From a, From b, const int (&index)[sizeof(To) / 4]) {
    To r;
    for (unsigned i = 0; i < sizeof(To) / 4; i++) {
        const unsigned n = sizeof(From) / 4, k = (unsigned)index[i];
        r[i] = k < n ? a[k] : b[k - n];
    }
    return r;
}
#endif

// Sum of the lanes: halves are added until four are left.

MPIDVC_INLINE double total(Lanes<4>::F v) {
    return ((double)v[0] + (double)v[2]) + ((double)v[1] + (double)v[3]);
}
MPIDVC_INLINE double total(Lanes<8>::F v) {
    return total(MPIDVC_SHUFFLE(Lanes<4>::F, v, v, 0, 1, 2, 3) + MPIDVC_SHUFFLE(Lanes<4>::F, v, v, 4, 5, 6, 7));
}
#if defined(__AVX512VL__)
MPIDVC_INLINE double total(Lanes<16>::F v) {
    return total(MPIDVC_SHUFFLE(Lanes<8>::F, v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                 MPIDVC_SHUFFLE(Lanes<8>::F, v, v, 8, 9, 10, 11, 12, 13, 14, 15));
}
#endif
// A short vector with zeros behind it.
template <int L, int S> struct Widen;
template <int L> struct Widen<L, L> {
    static MPIDVC_METHOD typename Lanes<L>::F of(typename Lanes<L>::F v) { return v; }
};
template <> struct Widen<8, 4> {
    static MPIDVC_METHOD Lanes<8>::F of(Lanes<4>::F v) {
        const Lanes<4>::F zero = {};
        return MPIDVC_SHUFFLE(Lanes<8>::F, v, zero, 0, 1, 2, 3, 4, 5, 6, 7);
    }
};
template <> struct Widen<16, 8> {
    static MPIDVC_METHOD Lanes<16>::F of(Lanes<8>::F v) {
        const Lanes<8>::F zero = {};
        return MPIDVC_SHUFFLE(Lanes<16>::F, v, zero, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
};
template <> struct Widen<16, 4> {
    static MPIDVC_METHOD Lanes<16>::F of(Lanes<4>::F v) { return Widen<16, 8>::of(Widen<8, 4>::of(v)); }
};
// The first `count` lanes, zeros behind them.
template <int L> MPIDVC_INLINE typename Lanes<L>::F first_lanes(typename Lanes<L>::F v, int64_t count) {
    typename Lanes<L>::I index;
    for (int i = 0; i < L; i++) index[i] = i;
    const typename Lanes<L>::F zero = {};
    return index < (int32_t)count ? v : zero;
}
#else  // one lane: plain C++ for compilers without vector extensions
template <> struct Lanes<1> {
    typedef float F;
    typedef int32_t I;
};
enum { FULL = 1, WIDE = 1, QUAD = 1 };
template <int L> MPIDVC_INLINE float load(const float *p) { return *p; }
template <int L> MPIDVC_INLINE void store(float *p, float v) { *p = v; }
template <int L> MPIDVC_INLINE float ramp() { return 0.f; }
template <int L> MPIDVC_INLINE int32_t lane_numbers() { return 0; }
template <int L> MPIDVC_INLINE float to_floats(int32_t v) { return (float)v; }
MPIDVC_INLINE double total(float v) { return (double)v; }
template <int L, int S> struct Widen {
    static MPIDVC_METHOD float of(float v) { return v; }
};
template <int L> MPIDVC_INLINE float first_lanes(float v, int64_t count) { return count > 0 ? v : 0.f; }
#endif

// Keeps a vector in a register: the compiler may not take it from memory again.
template <class V> MPIDVC_INLINE void in_register(V &v) {
#if MPIDVC_VECTORS && defined(__AVX512VL__)
    __asm__("" : "+v"(v));
#elif MPIDVC_VECTORS && defined(__SSE2__)
    __asm__("" : "+x"(v));
#else
    (void)v;
#endif
}

// Four integers, one per axis (the fourth is idle).
#if MPIDVC_VECTORS
typedef Lanes<4>::I Axes;
typedef Lanes<4>::F AxesF;
MPIDVC_INLINE Axes lower(Axes a, Axes b) { return a < b ? a : b; }
MPIDVC_INLINE AxesF to_float(Axes a) { return __builtin_convertvector(a, AxesF); }
MPIDVC_INLINE int differ(Axes a, Axes b) {  // bit k: a[k] != b[k]
    const Axes d = a != b;
#if defined(__SSE2__)
    return __builtin_ia32_movmskps((AxesF)d);
#else
    return (d[0] & 1) | (d[1] & 2) | (d[2] & 4) | (d[3] & 8);
#endif
}
#else
struct Axes {
    int32_t v[4];
    int32_t &operator[](int i) { return v[i]; }
    int32_t operator[](int i) const { return v[i]; }
};
struct AxesF {
    float v[4];
    float operator[](int i) const { return v[i]; }
};
MPIDVC_INLINE Axes operator+(Axes a, Axes b) {
    for (int i = 0; i < 4; i++) a.v[i] += b.v[i];
    return a;
}
MPIDVC_INLINE Axes operator-(Axes a, Axes b) {
    for (int i = 0; i < 4; i++) a.v[i] -= b.v[i];
    return a;
}
MPIDVC_INLINE Axes operator>>(Axes a, int n) {
    for (int i = 0; i < 4; i++) a.v[i] >>= n;
    return a;
}
MPIDVC_INLINE Axes operator<<(Axes a, int n) {
    for (int i = 0; i < 4; i++) a.v[i] = (int32_t)((uint32_t)a.v[i] << n);
    return a;
}
MPIDVC_INLINE AxesF operator*(AxesF a, float f) {
    for (int i = 0; i < 4; i++) a.v[i] *= f;
    return a;
}
MPIDVC_INLINE Axes lower(Axes a, Axes b) {
    for (int i = 0; i < 4; i++) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}
MPIDVC_INLINE AxesF to_float(Axes a) {
    AxesF f;
    for (int i = 0; i < 4; i++) f.v[i] = (float)a.v[i];
    return f;
}
MPIDVC_INLINE int differ(Axes a, Axes b) {
    int bits = 0;
    for (int i = 0; i < 4; i++) bits |= (a.v[i] != b.v[i]) << i;
    return bits;
}
#endif

typedef Lanes<WIDE>::F Wide;
typedef Lanes<FULL>::F Full;

}  // namespace
