"""The spline prefilter against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.kernels import correlation
from tests.kernels.oracle import box_of, texture

LENGTHS = (1, 2, 3, 5, 12, 13, 20, 33, 70)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("length", LENGTHS)
def test_prefilter_equals_scipy(isa, length, axis):
    shape = [6, 7, 11]
    shape[axis] = length
    image = texture(3, tuple(shape), 0.0)
    box = box_of(image)
    correlation.prefilter(box, (0, 0, 0), shape)
    expected = ndimage.spline_filter(image, 3, mode="mirror")
    # 6e-8 per operation, times the filter's gain of 27 on white noise of sd 20 around 100
    np.testing.assert_allclose(box, expected, rtol=0, atol=3e-4)


def test_prefilter_2d(isa):
    image = texture(4, (1, 33, 70), 0.0)
    box = box_of(image)
    correlation.prefilter(box, (0, 0, 0), image.shape)
    np.testing.assert_allclose(box[0], ndimage.spline_filter(image[0], 3, mode="mirror"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 20), (5, 20, 33), (20, 3, 1), (1, 33, 3)])
def test_prefilter_of_a_part_and_its_frame(isa, size):
    """The part alone is filtered; two voxels around it are its mirror image, and nothing beyond is touched."""
    image = texture(5, size, 0.0)
    low = np.array([3, 4, 2])
    high = low + size
    shape = high + np.array([2, 4, 5])
    box = correlation.empty_box(shape)
    box[...] = -7777
    box[tuple(map(slice, low, high))] = image
    correlation.prefilter(box, low, high)
    coefficients = ndimage.spline_filter(image, 3, mode="mirror")
    expected = np.full(shape, -7777.0)
    framed = tuple(slice(lo - 2, hi + 2) for lo, hi in zip(low, high, strict=True))
    expected[framed] = np.pad(coefficients, 2, mode="reflect") if min(size) > 2 else mirrored(coefficients)
    np.testing.assert_allclose(box, expected, rtol=0, atol=3e-4)


@pytest.mark.parametrize("shape", [(30, 31, 50), (1, 40, 41), (20, 5, 17)])
def test_only_what_is_needed(isa, shape):
    """The bits of needed coefficients do not depend on what else is."""
    image = texture(6, shape, 0.0)
    low = np.minimum((4, 2, 10), np.array(shape) - 1)
    high = np.maximum(low + 1, np.array(shape) - (10, 0, 7))
    whole, part = box_of(image), box_of(image)
    correlation.prefilter(whole, (0, 0, 0), shape)
    correlation.prefilter(part, (0, 0, 0), shape, (low, high))
    needed = tuple(map(slice, low, high))
    assert np.array_equal(part[needed], whole[needed])
    if low[0] > 0:
        assert not np.array_equal(part[:1], whole[:1])  # it was left out


@pytest.mark.parametrize("needed", [((0, 0, 1), (2, 3, 4)), ((0, 2, 2), (2, 1, 4)), ((0, 0, 2), (2, 3, 5))])
def test_what_is_needed_is_inside(needed):
    with pytest.raises(ValueError, match="not inside the part"):
        correlation.prefilter(correlation.empty_box((3, 4, 5)), (0, 0, 2), (2, 3, 4), needed)


def mirrored(array: np.ndarray) -> np.ndarray:
    """Mirror at the outermost voxels, two voxels wide; a single voxel repeats."""
    for axis in range(3):
        pad = [(2, 2) if a == axis else (0, 0) for a in range(3)]
        array = np.pad(array, pad, mode="edge" if array.shape[axis] == 1 else "reflect")
    return array


def test_prefilter_of_nothing(isa):
    box = box_of(texture(5, (4, 5, 6)))
    before = box.copy()
    correlation.prefilter(box, (1, 2, 3), (3, 2, 5))
    assert np.array_equal(box, before)


@pytest.mark.parametrize(("low", "high"), [((-1, 0, 0), (3, 4, 5)), ((0, 0, 0), (3, 4, 6)), ((0, 3, 0), (3, 2, 5))])
def test_prefilter_outside(low, high):
    with pytest.raises(ValueError, match="not inside the box"):
        correlation.prefilter(correlation.empty_box((3, 4, 5)), low, high)
