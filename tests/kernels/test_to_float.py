"""Grey levels become floats: every value of their type, parts of larger arrays, and nothing around them."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.kernels import correlation


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_grey_level(isa, dtype):
    levels = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(4, -1, 16)
    out = np.full(levels.shape, np.nan, np.float32)
    correlation.to_float(levels, out)
    assert np.array_equal(out, levels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("width", [1, 3, 8, 16, 21, 40])
def test_part_of_a_part(isa, dtype, width):
    image = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (7, 9, 50), dtype, endpoint=True)
    part = image[2:5, 3:8, 5 : 5 + width]
    box = np.full((5, 8, 44), -1, np.float32)
    correlation.to_float(part, box[1:4, 2:7, 3 : 3 + width])
    expected = np.full((5, 8, 44), -1.0)
    expected[1:4, 2:7, 3 : 3 + width] = part
    assert np.array_equal(box, expected)


@pytest.mark.parametrize("width", [1, 3, 8, 16, 21, 40])
def test_floats_within_limits(isa, width):
    """Whatever they are they are copied; one beyond the limits is seen wherever it is, and a limit is data."""
    low, high = -3.5, 2.0**20
    part = np.random.default_rng(2).uniform(low, high, (2, 3, width)).astype(np.float32)
    part[0, 1, 0], part[1, 2, width - 1] = low, high
    out = np.full((2, 3, width + 2), -1, np.float32)
    for x in range(width):
        assert correlation.to_float(part, out[:, :, 1:-1], low, high) is True
        for value in (np.nan, np.inf, -np.inf, -3.75, 2.0**20 + 1):
            bad = part.copy()
            bad[1, 0, x] = value
            assert correlation.to_float(bad, out[:, :, 1:-1], low, high) is False
            assert np.array_equal(out[:, :, 1:-1], bad, equal_nan=True)
    assert (out[:, :, [0, -1]] == -1).all()


def test_what_cannot_be_converted():
    grey = np.zeros((2, 3, 4), np.uint8)
    with pytest.raises(ValueError, match="do not belong together"):
        correlation.to_float(grey, np.zeros((2, 3, 5), np.float32))
    with pytest.raises(ValueError, match="contiguous"):
        correlation.to_float(grey[:, :, ::2], np.zeros((2, 3, 2), np.float32))
    correlation.to_float(grey[:0], np.zeros((0, 3, 4), np.float32))
