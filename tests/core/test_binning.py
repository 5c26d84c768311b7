"""Binning against block means in float64, and the place of bins."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core.binning import bin_any, bin_data, bin_mean, binned_shape, first_voxel

FACTORS = [(1, 1, 1), (2, 2, 2), (1, 4, 4), (3, 2, 5)]


def blocks(box: np.ndarray, factor: tuple[int, int, int]) -> np.ndarray:
    """(z, y, x, voxels of a bin)."""
    z, y, x = (n // f for n, f in zip(box.shape, factor, strict=True))
    split = box.reshape(z, factor[0], y, factor[1], x, factor[2])
    return np.moveaxis(split, (1, 3, 5), (3, 4, 5)).reshape(z, y, x, -1)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_means(dtype: str, factor: tuple[int, int, int]) -> None:
    """In floating point: sums of integers neither overflow nor are cut."""
    shape = tuple(3 * f for f in factor)
    if dtype.startswith("float"):
        box = np.random.default_rng(1).normal(1000, 300, shape).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        box = np.random.default_rng(1).integers(limits.min, limits.max, shape, dtype, endpoint=True)
    before = box.copy()
    got = bin_mean(box, factor)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    expected = blocks(box.astype(np.float64), factor).mean(axis=-1)
    # a few roundings to float32, relative to what was added
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-7 * float(np.abs(box.astype(np.float64)).max()))
    np.testing.assert_array_equal(box, before)


def test_small_differences_of_large_doubles_survive() -> None:
    """float64 is added in double precision: about 1e9, float32 knows steps of 64."""
    box = np.full((2, 2, 2), 1e9)
    box[0] += 100
    assert bin_mean(box - 1e9, (2, 2, 2))[0, 0, 0] == 50
    assert bin_mean(box, (2, 2, 2))[0, 0, 0] == np.float32(1e9 + 50)


def test_a_bin_with_a_voxel_that_is_no_number_is_none() -> None:
    box = np.ones((4, 4, 4), np.float32)
    box[0, 1, 2] = np.nan
    box[3, 3, 0] = np.inf
    finite = np.isfinite(bin_mean(box, (2, 2, 2)))
    expected = np.ones((2, 2, 2), bool)
    expected[0, 0, 1] = expected[1, 1, 0] = False
    np.testing.assert_array_equal(finite, expected)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "bool"])
def test_any(dtype: str, factor: tuple[int, int, int]) -> None:
    """A bin with one voxel that is not 0 is in the mask: 256 and 0.25 too, whatever a byte makes of them."""
    value = {"uint8": 128, "uint16": 256, "float32": 0.25, "bool": 1}[dtype]
    shape = tuple(4 * f for f in factor)
    box = (np.random.default_rng(2).random(shape) < 0.1).astype(dtype) * np.array(value, dtype)
    got = bin_any(box, factor)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, (blocks(box, factor) != 0).any(axis=-1))
    assert got.any()


@pytest.mark.parametrize(
    ("shape", "factor", "binned", "first"),
    [
        ((8, 12, 16), (4, 4, 4), (2, 3, 4), (0, 0, 0)),
        ((9, 10, 11), (4, 4, 4), (2, 2, 2), (0, 1, 1)),
        ((11, 7, 3), (2, 2, 2), (5, 3, 1), (0, 0, 0)),
        ((1, 15, 17), (1, 8, 8), (1, 1, 2), (0, 3, 0)),
    ],
)
def test_place_of_bins(
    shape: tuple[int, int, int], factor: tuple[int, int, int], binned: tuple[int, int, int], first: tuple[int, int, int]
) -> None:
    """Whole bins only; what is left over is cut off at both sides, the odd voxel at the far one."""
    assert binned_shape(shape, factor) == binned
    assert first_voxel(shape, factor) == first
    left = [n - f - b * m for n, f, b, m in zip(shape, first, factor, binned, strict=True)]
    assert all(0 <= rest - f <= 1 for rest, f in zip(left, first, strict=True))


def test_means_of_data_leave_out_what_is_none() -> None:
    """Against nanmean over the blocks; a block of which less than half is data has no mean."""
    rng = np.random.default_rng(4)
    box = rng.normal(100, 30, (6, 8, 10)).astype(np.float32)
    data = rng.random(box.shape) < 0.55
    box[~data] = np.where(rng.random((~data).sum()) < 0.5, np.nan, np.inf)
    inside = blocks(data, (2, 2, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.where(inside, blocks(box.astype(np.float64), (2, 2, 2)), 0).sum(axis=-1) / inside.sum(axis=-1)
    few = inside.mean(axis=-1) < 0.5
    assert 0 < few.sum() < few.size
    got = bin_data(box, data, (2, 2, 2))
    np.testing.assert_array_equal(np.isnan(got), few)
    np.testing.assert_allclose(got[~few], expected[~few], rtol=1e-6)
