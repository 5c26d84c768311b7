// How a piece of a kernel is measured: the least time of many calls, or the instructions of one call.
#pragma once
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <x86intrin.h>

extern "C" {
// Instructions that were executed, by their distance from the start of this library; those elsewhere.
struct mpidvc_counts {
    uint64_t start, size;
    uint32_t *at;
    uint64_t elsewhere;
};
extern mpidvc_counts *mpidvc_counting;
void mpidvc_trap(int, siginfo_t *, void *context);
}

namespace {

// Nanoseconds.
inline double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

// A clock that costs little, in ticks of its own.
inline double ticks() {
    unsigned cpu;
    const double t = (double)__rdtscp(&cpu);
    _mm_lfence();
    return t;
}

// The least nanoseconds of `repeats` calls.
template <class Call> double least(int repeats, Call call) {
    double best = 1e18;
    for (int k = 0; k < repeats; k++) {
        const double begun = now();
        call();
        const double spent = now() - begun;
        if (spent < best) best = spent;
    }
    return best;
}

// Calls with the processor's trap flag set: it stops after every instruction.
template <class Call> void counted(mpidvc_counts *counts, Call call) {
    struct sigaction trap, before;
    memset(&trap, 0, sizeof trap);
    trap.sa_sigaction = mpidvc_trap;
    trap.sa_flags = SA_SIGINFO;
    sigaction(SIGTRAP, &trap, &before);
    mpidvc_counting = counts;
    const unsigned long long flags = __builtin_ia32_readeflags_u64();
    __builtin_ia32_writeeflags_u64(flags | 0x100);
    call();
    __builtin_ia32_writeeflags_u64(flags);
    sigaction(SIGTRAP, &before, 0);
}

// A piece: timed, or counted where counts are asked for.
template <class Call> double piece(int repeats, mpidvc_counts *counts, Call call) {
    if (!counts) return least(repeats, call);
    counted(counts, call);
    return 0;
}

}  // namespace
