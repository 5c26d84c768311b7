"""The instruction set of the kernels: one choice for all of them.

The numerical cores are compiled once per instruction set. This module finds out which ones the processor has, and every
kernel asks it for the one in use.
"""

cdef extern from *:
    """
    static int mpidvc_has(int level) {
    #if defined(MPIDVC_X86_DISPATCH) && (defined(__GNUC__) || defined(__clang__))
        __builtin_cpu_init();
        const int v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                       __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
        if (level == 1) return v3;
        if (level == 2)
            return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512cd");
    #endif
        return level == 0;
    }
    """
    int mpidvc_has(int) nogil

__all__ = ["INSTRUCTION_SETS", "instruction_set", "instruction_sets", "level", "use_instruction_set"]

#: All instruction sets that a build can hold, lowest first.
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")

cdef int in_use = 0


def instruction_sets():
    """Return the names of the instruction sets that both this build and this processor have, lowest first."""
    return tuple(name for level, name in enumerate(INSTRUCTION_SETS) if mpidvc_has(level))


def level():
    """Return the index in :data:`INSTRUCTION_SETS` of the instruction set in use."""
    return in_use


def instruction_set():
    """Return the name of the instruction set in use."""
    return INSTRUCTION_SETS[in_use]


def use_instruction_set(str name):
    """Choose the instruction set of all kernels.

    Raises
    ------
    ValueError
        If this build or this processor lacks it.
    """
    global in_use
    if name not in instruction_sets():
        raise ValueError(f"instruction set {name!r} is not available here (available: {', '.join(instruction_sets())})")
    in_use = INSTRUCTION_SETS.index(name)
