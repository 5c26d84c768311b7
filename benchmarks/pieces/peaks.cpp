// What this processor can do at most: clock, multiply-adds, loads from every level, copies. Each is the least time of
// many short runs, which other work on the machine disturbs least.
#include <stdlib.h>

#include "lanes.hpp"
#include "measured.hpp"

mpidvc_counts *mpidvc_counting;

void mpidvc_trap(int, siginfo_t *, void *context) {
    // an instruction that repeats itself stops every time, and counts once
    static uint64_t last;
    const uint64_t at = (uint64_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] - mpidvc_counting->start;
    if (at == last) return;
    last = at;
    if (at < mpidvc_counting->size)
        mpidvc_counting->at[at]++;
    else
        mpidvc_counting->elsewhere++;
}

namespace {

enum { CHAINS = 12, ROUNDS = 5000, REPEATS = 500 };
#define MPIDVC_UNROLL_ALL _Pragma("GCC unroll 32")

template <class V> MPIDVC_INLINE void kept(V &v) {
#if defined(__AVX512VL__)
    __asm__ volatile("" : "+v"(v));
#else
    __asm__ volatile("" : "+x"(v));
#endif
}

// Instructions per nanosecond: `step` is one of them, done to so many registers in turn.
template <int N, class Step> double rate(Step step) {
    return N * (double)ROUNDS / least(REPEATS, [&] {
               Full factor = ramp<FULL>() * 1e-3f + 0.5f, addend = factor * 1e-3f, v[N];
               for (int k = 0; k < N; k++) v[k] = factor * (float)k;
               kept(factor), kept(addend);
               for (int i = 0; i < ROUNDS; i++) {
                   MPIDVC_UNROLL_ALL
                   for (int k = 0; k < N; k++) {
                       step(v[k], factor, addend, k);
                       kept(v[k]);
                   }
               }
           });
}

// Nanoseconds of a load of `bytes` in order from a buffer, of registers of FULL lanes, `off` floats from alignment.
double load_ns(const float *buffer, Int bytes, Int off) {
    const Int step = 8 * FULL, n = bytes / 4 / step;
    const Int rounds = larger(1, (1 << 18) / bytes);
    const float *const p = buffer + off;
    return least(larger(12, REPEATS / 2 * (1 << 18) / larger(bytes, 1 << 18)), [&] {
               for (Int r = 0; r < rounds; r++)
                   for (Int i = 0; i < n; i++) {
                       MPIDVC_UNROLL
                       for (int k = 0; k < 8; k++) {
                           Full v = load<FULL>(p + i * step + k * FULL);
                           kept(v);
                       }
                   }
           }) /
           (double)(rounds * n * 8);
}

double copy_ns(const float *from, float *to, Int bytes) {
    const Int n = bytes / 4 / FULL, rounds = larger(1, (1 << 18) / bytes);
    return least(larger(12, REPEATS / 2 * (1 << 18) / larger(bytes, 1 << 18)), [&] {
               for (Int r = 0; r < rounds; r++)
                   for (Int i = 0; i < n; i++) {
                       Full v = load<FULL>(from + i * FULL);
                       kept(v);
                       store<FULL>(to + i * FULL, v);
                   }
           }) /
           (double)(rounds * n * FULL * 4);
}

}  // namespace

enum {
    CLOCK,          // GHz
    TICKS,          // of ticks() per nanosecond
    LANES,
    FMA,            // instructions per nanosecond, of FULL lanes
    FMA_AND_ADD,    // the same, of multiply-adds and additions in turn
    SHUFFLES,
    L1, L1_OFF, L2, L2_OFF, L3, MEMORY,  // loads of FULL lanes per nanosecond: in order, _OFF: not aligned
    COPY_L2, COPY_L3, COPY_MEMORY,       // bytes copied per nanosecond
    GATHERS,        // of FULL lanes per nanosecond
    PEAKS
};

extern "C" int mpidvc_peaks(double *out) {
    {
        const int n = 200000;
        out[CLOCK] = n / least(REPEATS, [&] {
                         long a = 0;
                         for (int i = 0; i < n / 10; i++)
                             __asm__ volatile("add $1,%0\nadd $1,%0\nadd $1,%0\nadd $1,%0\nadd $1,%0\n"
                                              "add $1,%0\nadd $1,%0\nadd $1,%0\nadd $1,%0\nadd $1,%0"
                                              : "+r"(a));
                     });
        const double begun = now(), first = ticks();
        while (now() < begun + 2e7) {}
        const double last = ticks(), ended = now();
        out[TICKS] = (last - first) / (ended - begun);
    }
    out[LANES] = FULL;
    out[FMA] = rate<CHAINS>([](Full &v, Full factor, Full addend, int) { v = v * factor + addend; });
    out[FMA_AND_ADD] = rate<16>([](Full &v, Full factor, Full addend, int k) {
        if (k % 2 == 0)
            v = v * factor + addend;
        else
            v += addend;
    });
    out[SHUFFLES] = out[GATHERS] = 0;
#if defined(__AVX512VL__)
    typedef Lanes<FULL>::I Index;
    Index lanes;
    for (int i = 0; i < FULL; i++) lanes[i] = (i + 1) % FULL;
    out[SHUFFLES] = rate<CHAINS>([=](Full &v, Full, Full, int) {
        v = (Full)_mm512_permutexvar_ps((__m512i)lanes, (__m512)v);
    });
    static float table[4096];
    for (int i = 0; i < 4096; i++) table[i] = 1;
    out[GATHERS] = 8 * 2000.0 / least(REPEATS, [&] {
                       for (int i = 0; i < 2000; i++) {
                           MPIDVC_UNROLL
                           for (int k = 0; k < 8; k++) {
                               Full v = (Full)_mm512_i32gather_ps((__m512i)lanes, table + k * 64, 4);
                               kept(v);
                           }
                       }
                   });
#endif
    const Int most = (Int)256 << 20;
    float *const one = (float *)aligned_alloc(4096, (size_t)most + 4096), *const two = (float *)aligned_alloc(4096, (size_t)most + 4096);
    if (!one || !two) return -1;
    memset(one, 1, (size_t)most + 4096), memset(two, 1, (size_t)most + 4096);
    out[L1] = 1 / load_ns(one, 16 << 10, 0), out[L1_OFF] = 1 / load_ns(one, 16 << 10, 1);
    out[L2] = 1 / load_ns(one, 384 << 10, 0), out[L2_OFF] = 1 / load_ns(one, 384 << 10, 1);
    out[L3] = 1 / load_ns(one, 4 << 20, 0), out[MEMORY] = 1 / load_ns(one, most, 0);
    out[COPY_L2] = 1 / copy_ns(one, two, 192 << 10), out[COPY_L3] = 1 / copy_ns(one, two, 2 << 20);
    out[COPY_MEMORY] = 1 / copy_ns(one, two, most);
    free(one), free(two);
    return 0;
}
