"""Instruction sets: one choice for all kernels, results that agree, no shared code."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from mpidvc.kernels import correlation, processor
from tests.kernels.oracle import DIMENSIONS, ORDERS, agree, correlate, crowd, moving, run_for


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@DIMENSIONS
@ORDERS
def test_instruction_sets_agree(order, two_d, criterion):
    sets = correlation.instruction_sets()
    if len(sets) == 1:
        pytest.skip("this processor has one instruction set only")
    pair = moving(two_d, order)
    run = run_for(pair, znssd=criterion == "znssd")
    nodes, phi = crowd(pair)
    before, results = correlation.instruction_set(), []
    try:
        for name in sets:
            correlation.use_instruction_set(name)
            assert correlation.instruction_set() == name
            results.append(correlate(pair, run, nodes, phi))
    finally:
        correlation.use_instruction_set(before)
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            agree(got, expected)
    assert sum(got.status == 2 for got in results[0]) > 90


def test_one_choice_of_instruction_set():
    before = processor.instruction_set()
    correlation.use_instruction_set("baseline")
    try:
        assert processor.instruction_set() == correlation.instruction_set() == "baseline"
    finally:
        correlation.use_instruction_set(before)


def test_unknown_instruction_set():
    before = correlation.instruction_set()
    with pytest.raises(ValueError, match="'sse9' is not available here"):
        correlation.use_instruction_set("sse9")
    assert correlation.instruction_set() == before
    assert correlation.instruction_sets()[0] == "baseline"
    assert set(correlation.instruction_sets()) <= set(correlation.INSTRUCTION_SETS)


def test_instruction_sets_share_no_code():
    """The linker may keep one copy only of a weak or unique symbol: that of AVX-512 would crash older processors."""
    if shutil.which("nm") is None:
        pytest.skip("no nm here")
    done = subprocess.run(["nm", "-C", correlation.__file__], capture_output=True, text=True, check=False)
    if done.returncode or "mpidvc_kernels_baseline" not in done.stdout:
        pytest.skip("the extension has no symbol table")
    defined = []
    for line in done.stdout.splitlines():
        address, _, rest = line.partition(" ")
        if address.strip():
            defined.append(rest.split(" ", 1))
    weak = [name for kind, name in defined if kind in "WVuwv" and "__pyx" not in name.lower()]
    assert weak == []
    cores = [kind for kind, name in defined if "(anonymous namespace)" in name]
    assert cores
    assert set(cores) <= set("tdrb")
    tables = [name for kind, name in defined if name.startswith("mpidvc_kernels_") and kind.lower() == "t"]
    assert len(tables) in (1, len(correlation.INSTRUCTION_SETS))
