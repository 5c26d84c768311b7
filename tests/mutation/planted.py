"""Faults that were planted by hand, and that the tests of their time did not see.

An eighth one was a command that forgot the mask when it chose the criterion: `tests/commands/test_criterion.py`.
"""

from __future__ import annotations

from pathlib import Path

from tests.mutation.mutants import Mutant

__all__ = ["planted"]

FAULTS = [
    (
        "cython_ext/window_search.cpp",
        "*bound = certain ? e_top * scale * (1 + 0.6 * x) * (1 + 0.6 * y) + 0.6 * fabs(value) * (x + y) : INFINITY;",
        "*bound = certain ? 0.01 * (e_top * scale + 0.6 * fabs(value) * (x + y)) : INFINITY;",
    ),
    (
        "cython_ext/window_search.cpp",
        "double of_box = UNIT32 * chain_of_box(p.e)",
        "double of_box = 0 * UNIT32 * chain_of_box(p.e)",
    ),
    (
        "cython_ext/window_search.cpp",
        "noise * sqrt(norm1) * sqrt(norm2), 0}",
        "0, 0}",
    ),
    (
        "cython_ext/gauss_newton/window.hpp",
        "return set.gradient_reach + (set.shift ? 1 : 0);",
        "return set.gradient_reach;",
    ),
    ("mpidvc/tasks/boxes.py", "valid[inside] = real[inside]", "pass"),
    (
        "mpidvc/tasks/registration.py",
        "(np.array(small1.shape) * small1.factor - 1) / 2",
        "(np.array(small1.shape) * small1.factor) / 2",
    ),
    ("mpidvc/tasks/ldic.py", "np.clip(np.rint(guess[:, :, 3])", "np.clip(np.floor(guess[:, :, 3])"),
    ("mpidvc/tasks/pixel_search.py", "np.rint(guess[chosen, :3, 3])", "np.floor(guess[chosen, :3, 3])"),
]


def planted(root: Path) -> list[Mutant]:
    """The faults as mutants; each has to fit in one place of its file."""
    out = []
    for file, old, new in FAULTS:
        source = (root / file).read_text(encoding="utf-8")
        assert source.count(old) == 1, f"{file}: a planted fault does not fit any more: {old}"
        offset = source.index(old)
        start = source.rfind("\n", 0, offset) + 1
        whole = source[start:].partition("\n")[0]
        column = offset - start - (len(whole) - len(whole.lstrip()))
        out.append(Mutant(file, source.count("\n", 0, offset) + 1, whole.strip(), column, offset, old, new))
    return out
