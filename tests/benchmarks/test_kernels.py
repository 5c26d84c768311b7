"""The scripts behind docs/benchmarks-kernels.md: what is read from a disassembly, and the tables."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import changes  # noqa: E402
import kernels  # noqa: E402
import limits  # noqa: E402
from limits import Instructions  # noqa: E402

#: As objdump -d -M intel --no-show-raw-insn writes it.
TEXT = """
limits.so:     file format elf64-x86-64

0000000000001430 <mpidvc_trap>:
    1430:	mov    rax,QWORD PTR [rip+0xd2bb1]        # d3fe8 <mpidvc_counting>
    1437:	vfmadd231ps zmm1,zmm2,ZMMWORD PTR [rax+0x40]
    143d:	vmulps ymm1{k1}{z},ymm2,ymm3
    1443:	vaddsd xmm0,xmm0,xmm1
    1447:	vsubps xmm0,xmm0,DWORD BCST [rax]
    144d:	vmovups ZMMWORD PTR [rdx+rcx*4],zmm1
    1453:	vmovups zmm3,ZMMWORD PTR [rsi]
    1459:	vpermt2ps zmm1,zmm2,zmm3
    145f:	vcmpltps k1,zmm1,zmm2
    1466:	kmovw  eax,k1
    146a:	vfnmadd132pd zmm1,zmm2,zmm3
    1470:	vmovaps zmm1,zmm2
    1476:	vzeroupper
    1479:	ret
"""

EXPECTED = {
    0x1430: Instructions(all=1, other=1),
    0x1437: Instructions(all=1, multiply=1, load=1, flop=32),
    0x143D: Instructions(all=1, multiply=1, flop=8),
    0x1443: Instructions(all=1, add=1, flop=1),
    0x1447: Instructions(all=1, add=1, load=1, flop=4),
    0x144D: Instructions(all=1, store=1),
    0x1453: Instructions(all=1, load=1),
    0x1459: Instructions(all=1, move=1),
    0x145F: Instructions(all=1, move=1),
    0x1466: Instructions(all=1, move=1),
    0x146A: Instructions(all=1, multiply=1, flop=16),
    0x1470: Instructions(all=1, move=1),
    0x1476: Instructions(all=1, other=1),
    0x1479: Instructions(all=1, other=1),
}


@pytest.mark.parametrize("address", EXPECTED)
def test_instructions_by_kind(address: int) -> None:
    assert limits.instructions_in(TEXT)[address] == ("mpidvc_trap", EXPECTED[address])


def test_nothing_else_is_an_instruction() -> None:
    assert limits.instructions_in(TEXT).keys() == EXPECTED.keys()


@pytest.mark.parametrize(
    ("function", "short"),
    [
        ("mpidvc_stages", "mpidvc_stages"),
        ("(anonymous namespace)::find_ends((anonymous namespace)::Window&)", "find_ends"),
        (
            "void (anonymous namespace)::add_column<4, false, true, (anonymous namespace)::FromWindow, "
            "(anonymous namespace)::Interpolated<1, 3> >((anonymous namespace)::Window const&) [clone .constprop.0]",
            "add_column<4>",
        ),
        ("int (anonymous namespace)::one_pass<1, 3>((anonymous namespace)::Window&)", "one_pass<1>"),
    ],
)
def test_functions_have_short_names(function: str, short: str) -> None:
    assert limits.short_name(function) == short


def test_instructions_are_added_and_scaled() -> None:
    one = limits.kind_of("vfmadd231ps", "zmm1,zmm2,zmm3") + limits.kind_of("vaddps", "ymm1,ymm2,ymm3").times(2)
    assert one == Instructions(all=3, multiply=1, add=2, flop=32 + 16)


def test_flags_are_those_of_the_build() -> None:
    optimise, sets = limits.flags_of_kernels()
    assert "-O3" in optimise
    assert sets.keys() == {"baseline", "avx2", "avx512"}
    assert "-march=x86-64-v4" in sets["avx512"]


def lines() -> list[changes.Line]:
    """Three commits and one case: the second halves its time, the third loses a hundredth of it again."""
    name = changes.CASES[0].name
    return [
        changes.Line("aaa", "before", {name: [0.4, 0.21, 0.2]}, {name: 1000}),
        changes.Line("bbb", "faster", {name: [0.101, 0.1]}, {name: 1000}),
        changes.Line("ccc", "as fast", {name: [0.101]}, {name: 1000}),
    ]


def test_ratios_are_those_of_least_times() -> None:
    name = changes.CASES[0].name
    assert changes.brought(lines(), 1, name) == (pytest.approx(2.0), pytest.approx(2.0))
    assert changes.brought(lines(), 2, name) == (pytest.approx(1 / 1.01), pytest.approx(2 / 1.01))


def test_scatter_is_the_median_of_second_least_times() -> None:
    # 0.21 of 0.2, 0.101 of 0.1; the third line has no second time
    assert changes.scatter(lines()) == pytest.approx(0.05)
    assert changes.scatter(lines()[1:]) == pytest.approx(0.01)
    assert changes.noticed(lines()) == pytest.approx(0.15)
    assert changes.noticed(lines()[1:]) == pytest.approx(0.05)


def test_table_of_changes() -> None:
    rows = [row.split(" | ") for row in changes.changes_table(lines()).splitlines()]
    assert len({len(row) for row in rows}) == 1
    cells = [row[1].rstrip(" |") for row in rows]
    assert cells == [changes.CASES[0].name, "---", "200.0 µs", "**2.00** (2.00)", "0.99 (1.98)", "101.0 µs"]
    assert [row[2] for row in rows[2:]] == ["–"] * 4


def test_limit_is_the_largest_of_three() -> None:
    peak = dict.fromkeys(limits.PEAKS, 1.0) | {"lanes": 16.0, "fma": 8.0, "l1_off": 4.0, "l2": 2.0}
    measured = limits.Measured([peak, {**peak, "fma": 4.0}])
    times = kernels.limit_of(limits.Work(flop=256, loads=128, stores=0, outside=128, how=""), measured)
    assert kernels.limit_of(limits.Work(0, 0, 0, 0, "", memory=64), measured)["bytes"] == pytest.approx(1.0)
    # 16 lanes of 2 operations at 8 a nanosecond; 8 loads of 16 lanes at 4; two lines of 64 bytes at 2
    assert times == {"FLOP": pytest.approx(1.0), "loads": pytest.approx(2.0), "bytes": pytest.approx(1.0)}


def test_products_of_a_search() -> None:
    work = limits.search_work(hws=1, reach=1)
    assert work["products of all voxels"].flop == 2 * 27 * 27
    # eight blocks of window 1 at each of the 27 offsets, and what makes the blocks
    assert work["products of blocks"].flop > 2 * 27 * 8


def test_page_without_measurements_has_its_title() -> None:
    assert kernels.report({}).startswith("# Kernels")
