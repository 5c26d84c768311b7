"""Block means of grey levels, against float64 numpy."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.kernels import correlation
from tests.core.test_binning import blocks


@pytest.mark.parametrize("factor", [(1, 1, 1), (2, 2, 2), (1, 4, 4), (4, 4, 4), (3, 2, 5), (2, 3, 6)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_means(isa, dtype, factor):
    """Rows of 1 to 40 bins: whole groups of lanes and tails; nothing beside them is written.

    Sums of so few integers are exact in single precision, and their means rounded once.
    """
    random = np.random.default_rng(1)
    for nx in range(1, 41):
        shape = tuple(n * f for n, f in zip((2, 3, nx), factor, strict=True))
        grey = random.integers(0, 255 if dtype == "uint8" else 65535, shape, endpoint=True).astype(dtype)
        framed = np.full((4, 5, nx + 3), -1, np.float32)
        correlation.bin_mean(grey, factor, framed[1:3, 1:4, 2 : nx + 2])
        expected = np.pad(
            blocks(grey.astype(np.float64), factor).mean(axis=-1).astype(np.float32),
            ((1, 1), (1, 1), (2, 1)),
            constant_values=-1,
        )
        np.testing.assert_array_equal(framed, expected)


def test_parts_of_an_image(isa):
    """Rows that are far from each other, and that end with the memory."""
    image = np.random.default_rng(2).integers(0, 65535, (9, 12, 30)).astype(np.uint16)
    image.flags.writeable = False
    part = image[1:9, 2:12, 4:30]
    out = np.empty((4, 5, 13), np.float32)
    correlation.bin_mean(part, (2, 2, 2), out)
    np.testing.assert_array_equal(out, blocks(part.astype(np.float64), (2, 2, 2)).mean(axis=-1).astype(np.float32))


def test_floats_that_are_not_numbers(isa):
    values = np.ones((2, 4, 40), np.float32)
    values[1, 3, 5] = np.nan
    out = np.empty((1, 2, 20), np.float32)
    correlation.bin_mean(values, (2, 2, 2), out)
    assert np.argwhere(np.isnan(out)).tolist() == [[0, 1, 2]]


def test_bad_shapes():
    grey, out = np.zeros((4, 4, 8), np.uint8), np.zeros((2, 2, 4), np.float32)
    correlation.bin_mean(grey, (2, 2, 2), out)
    for factor in ((2, 2, 1), (4, 2, 2), (0, 2, 2)):
        with pytest.raises(ValueError, match="do not belong together"):
            correlation.bin_mean(grey, factor, out)
    with pytest.raises(ValueError, match="contiguous"):
        correlation.bin_mean(grey[:, :, ::2], (2, 2, 1), out)
    correlation.bin_mean(grey[:0], (2, 2, 2), out[:0])
