"""The mutants are what they are said to be; the long form of the tests (MPIDVC_LONG=1) tries a sample of them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.mutation.__main__ import judgements, name_of, told, try_sample
from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.planted import planted
from tests.mutation.run import GROUPS, ROOT, Outcome, Workshop, all_mutants, extensions_of, files_for, sample

PYTHON = '''\
"""No text: 1 + 1."""

from x import all

__all__ = ["f"]
LIMIT: int = 3


def f(a: "tuple[int, 2]" = 0.5, *, flag=True) -> "3":
    """Nor this."""
    if not a <= LIMIT and a in (b, c):
        raise ValueError(f"{a + 1} is too large")
    total(
        a,
    )
    a += np.minimum(-b, c) // d
    return a


@dataclass(frozen=True)
class C:
    b = ()
'''
EXPECTED = {
    ("3", "4"),
    ("0.5", "1.0"),
    ("True", "False"),
    ("not ", ""),
    ("<=", "<"),
    ("and", "or"),
    ("in", "not in"),
    ("total(\n        a,\n    )", "pass"),
    ("+=", "-="),
    ("minimum", "maximum"),
    ("-", ""),
    ("//", "*"),
}
CPP = """\
#include <math.h>  // 1 + 1
template <int A> bool f(const float *p, Int n) {
    for (Int i = 0; i < n; i++) p[i] = load<8>(p + i) * 2.5f;  // a < b
    if (a && !b) return fail("no < 3");
    return smaller(n, 1e-3) > 0 || true;
}
"""


def changes(path: Path) -> list[tuple[str, str]]:
    return [(mutant.old, mutant.new) for mutant in mutants_of(path, path.parent)]


def test_mutants_of_python(tmp_path: Path) -> None:
    """Operators, numbers, names and calls; no text, no annotation, no message, no import."""
    path = tmp_path / "module.py"
    path.write_text(PYTHON)
    found = changes(path)
    assert set(found) == EXPECTED
    assert len(found) == len(EXPECTED)
    for mutant in mutants_of(path, tmp_path):
        changed = mutant.applied(PYTHON)
        compile(changed, "module", "exec")
        assert changed.count("\n") + mutant.old.count("\n") == PYTHON.count("\n") + mutant.new.count("\n")
        line = PYTHON.splitlines()[mutant.line - 1].strip()
        assert line == mutant.text
        assert line[mutant.column :].startswith(mutant.old.partition("\n")[0])


def test_mutants_of_cpp(tmp_path: Path) -> None:
    path = tmp_path / "module.cpp"
    path.write_text(CPP)
    first = [("0", "1"), ("<", "<="), ("8", "9"), ("+", "-"), ("*", "/"), ("2.5f", "5.0f")]
    second = [("&&", "||")]
    third = [("smaller", "larger"), ("1e-3", "0.002"), (">", ">="), ("0", "1"), ("||", "&&"), ("true", "false")]
    assert changes(path) == first + second + third


def test_mutants_of_cython(tmp_path: Path) -> None:
    """Declarations of other code are left alone, and so are loops over something."""
    path = tmp_path / "module.pyx"
    path.write_text(
        'cdef extern from "a.hpp":\n    enum:\n        A = 3\n\ndef f(a):\n    """1 + 1"""\n'
        "    for k in range(3):\n        if a < k and a is not None:\n            pass\n"
    )
    assert changes(path) == [("3", "4"), ("<", "<="), ("and", "or"), ("is not", "is")]


def test_every_mutant_of_the_package_is_python() -> None:
    """A sample of them; and no two are alike."""
    for group in ("core", "tasks"):
        found = all_mutants([group])[group]
        assert len(found) > 500
        assert len({mutant.name for mutant in found}) > 0.9 * len(found)
        for mutant in sample(found, 3)[:30]:
            compile(mutant.applied((ROOT / mutant.file).read_text(encoding="utf-8")), mutant.file, "exec")


def test_a_seed_settles_the_sample() -> None:
    found = all_mutants(["tasks"])["tasks"]
    assert sample(found, 1) == sample(found, 1)
    assert sample(found, 1) != sample(found, 2)
    assert sorted(sample(found, 1), key=lambda m: (m.file, m.offset, m.new)) == sorted(
        found, key=lambda m: (m.file, m.offset, m.new)
    )


class Clock:
    """A workshop in which everything survives after ten seconds."""

    def __init__(self) -> None:
        self.tried: list[Mutant] = []

    def cpu_seconds(self) -> float:
        return 10.0 * len(self.tried)

    def try_out(self, mutant: Mutant) -> Outcome:
        self.tried.append(mutant)
        return Outcome(mutant, "survived", "", 10.0)


def test_choice_of_files_and_further_mutants() -> None:
    """The time is that of the sample; a second run takes up what the first one left."""
    groups = ["core", "kernels"]
    files = {"cython_ext/window_search.cpp", "mpidvc/core/grid.py"}
    rows = list(try_sample(Clock(), 100, 1, groups, "window_search.cpp|core/grid"))  # type: ignore[arg-type]
    assert {row["file"] for row in rows} == files
    count = Counter(row["group"] for row in rows)
    assert count["planted"] == sum(mutant.file in files for mutant in planted(ROOT)) > 0
    assert count["core"] + count["kernels"] == 10
    assert abs(count["core"] - count["kernels"]) <= 1
    tried = {name_of(row) for row in rows}
    more = list(try_sample(Clock(), 100, 1, groups, "window_search.cpp|core/grid", tried))  # type: ignore[arg-type]
    assert len(more) == 10
    assert not tried & {name_of(row) for row in more}


@pytest.mark.parametrize("group", GROUPS)
def test_every_module_has_its_tests(group: str) -> None:
    """Of its own name where it is Python: ``core/grid.py`` has ``tests/core/test_grid.py``."""
    for pattern in GROUPS[group]:
        for path in ROOT.glob(pattern):
            file = path.relative_to(ROOT).as_posix()
            if path.name == "__init__.py":
                continue
            assert files_for(file), f"no tests of {file}"
            if path.suffix == ".py":
                assert files_for(file)[0] == f"tests/{group}/test_{path.stem}.py"


def test_every_test_tries_mutants() -> None:
    """A file of tests that no change is tried by would leave survivors that it sees."""
    sources = [path.relative_to(ROOT).as_posix() for group in GROUPS.values() for p in group for path in ROOT.glob(p)]
    used = {(ROOT / name).resolve() for file in sources if "__init__" not in file for name in files_for(file)}
    tests = {path for room in ("core", "tasks", "kernels") for path in (ROOT / "tests" / room).glob("test_*.py")}
    assert sorted(path.name for path in tests - used) == []


def test_sources_of_extensions() -> None:
    """By their includes: what several cores share is tried by the tests of all."""
    assert extensions_of("cython_ext/lanes.hpp") == ["correlation", "deform", "pixel_search"]
    assert extensions_of("cython_ext/window_search.cpp") == ["pixel_search"]
    assert extensions_of("cython_ext/point_tree.hpp") == ["deform", "neighbours"]


def test_judged_lines_are_there() -> None:
    """A judgement of a line that has changed since is removed."""
    for file, text, column, old, _ in judgements():
        lines = [line.strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
        assert text in lines, f"{file}: {text}"
        assert text[column:].startswith(old.partition("\n")[0])


def test_planted_faults_fit() -> None:
    for mutant in planted(ROOT):
        source = (ROOT / mutant.file).read_text(encoding="utf-8")
        assert mutant.applied(source) != source


@pytest.mark.skipif(os.environ.get("MPIDVC_LONG") != "1", reason="long: set MPIDVC_LONG=1")
def test_no_survivor_is_new() -> None:
    """A random sample (MPIDVC_MUTATION_SECONDS of CPU, MPIDVC_MUTATION_SEED): all survivors have been judged."""
    seconds = float(os.environ.get("MPIDVC_MUTATION_SECONDS", "1500"))
    known = judgements()
    with Workshop.temporary() as workshop:
        rows = list(try_sample(workshop, seconds, int(os.environ.get("MPIDVC_MUTATION_SEED", "1")), list(GROUPS)))
    print(*(told(row) for row in rows), sep="\n")
    assert len(rows) > len(planted(ROOT))
    assert [told(row) for row in rows if row["verdict"] == "survived" and name_of(row) not in known] == []
