"""The instruction sets of this machine."""

from __future__ import annotations

import pytest

from mpidvc.kernels import correlation

pytest.register_assert_rewrite("tests.kernels.oracle")


@pytest.fixture(params=correlation.instruction_sets())
def isa(request):
    """Every instruction set of this machine in turn."""
    before = correlation.instruction_set()
    correlation.use_instruction_set(request.param)
    yield request.param
    correlation.use_instruction_set(before)
