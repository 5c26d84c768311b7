"""Boxes for the kernels: what is outside, what is not a number, and where gradients may be taken."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core.boxes import HALO, Scratch, data_voxels, float_box, gradient_voxels, spline_box
from mpidvc.kernels import correlation

WHOLE = (slice(0, 4), slice(0, 5), slice(0, 6))
PART = (slice(2, 6), slice(0, 5), slice(3, 9))


def image(dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, (4, 5, 6)).astype(dtype)


def check_padding(box: np.ndarray) -> None:
    """The kernels read behind the last element."""
    assert box.dtype == np.float32
    assert box.flags.c_contiguous
    owner = box
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    behind = owner.ctypes.data + owner.nbytes - (box.ctypes.data + box.nbytes)
    assert behind >= 4 * correlation.PADDING


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64", "bool"])
def test_whole_box(dtype):
    part = image(dtype)
    part.flags.writeable = False
    box, real = float_box(part, WHOLE, (4, 5, 6))
    assert real is None
    assert np.array_equal(box, part.astype(np.float32))
    check_padding(box)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_box_that_sticks_out(dtype):
    part = image(dtype)
    box, real = float_box(part, PART, (7, 6, 9))
    assert real is not None
    expected = np.zeros((7, 6, 9))
    expected[PART] = part
    assert np.array_equal(box, expected)
    exists = np.zeros((7, 6, 9))
    exists[PART] = 1
    assert real.dtype == np.uint8
    assert np.array_equal(real, exists)
    check_padding(box)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("step", [2, -1])
def test_rows_of_any_step(dtype, step):
    """Every second voxel of larger rows, and rows that run backwards."""
    wide = np.repeat(image(dtype), 2, axis=2) if step == 2 else image(dtype)[:, :, ::-1].copy()
    part = wide[:, :, ::step]
    box, real = float_box(part, WHOLE, (4, 5, 6))
    assert real is None
    assert np.array_equal(box, image(dtype).astype(np.float32))


@pytest.mark.parametrize("inside", [WHOLE, PART])
def test_numbers_that_are_none(inside):
    part = image("float64")
    holes = np.zeros(part.shape, bool)
    for at, bad in (((0, 0, 0), np.nan), ((3, 4, 5), np.inf), ((2, 1, 0), -np.inf)):
        part[at], holes[at] = bad, True
    before = part.copy()
    shape = (7, 6, 9) if inside is PART else (4, 5, 6)
    box, real = float_box(part, inside, shape)
    assert real is not None
    np.testing.assert_array_equal(part, before)
    np.testing.assert_array_equal(real[inside] == 0, holes)
    assert real.sum() == (~holes).sum()
    np.testing.assert_array_equal(box[inside][~holes], part[~holes])
    np.testing.assert_allclose(box[inside][holes], part[~holes].mean(), rtol=1e-6)
    assert np.isfinite(box).all()


def test_float64_beyond_float32_does_not_exist():
    part = image("float64")
    part[1, 2, 3] = 1e300
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow in the cast
        box, real = float_box(part, WHOLE, (4, 5, 6))
    assert real is not None
    assert real[1, 2, 3] == 0
    assert real.sum() == 119
    assert np.isfinite(box).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_limits_are_grey_levels(dtype):
    """The least and the greatest grey level are data, the next numbers are not; integers have no limits."""
    low, high = np.array([3, 7], dtype)
    part = np.full((4, 5, 6), 5, dtype)
    part[0, 0, 0], part[1, 2, 3] = low, high
    if dtype == "uint8":
        part[2, 2, 2], part[3, 3, 3] = 2, 8
        assert data_voxels(part, (3.0, 7.0)).all()
        assert float_box(part, WHOLE, (4, 5, 6), limits=(3.0, 7.0))[1] is None
        return
    assert data_voxels(part, (3.0, 7.0)).all()
    part[2, 2, 2], part[3, 3, 3] = np.nextafter(low, part.dtype.type(0)), np.nextafter(high, part.dtype.type(9))
    expected = np.ones(part.shape, bool)
    expected[2, 2, 2] = expected[3, 3, 3] = False
    np.testing.assert_array_equal(data_voxels(part, (3.0, 7.0)), expected)
    _, real = float_box(part, WHOLE, (4, 5, 6), limits=(3.0, 7.0))
    np.testing.assert_array_equal(real, expected)


def test_nothing_but_nan():
    box, real = float_box(np.full((4, 5, 6), np.nan), WHOLE, (4, 5, 6))
    assert real is not None
    assert not real.any()
    assert not box.any()


def test_nothing_inside():
    nothing = (slice(0, 0), slice(0, 0), slice(0, 0))
    for dtype in ("uint8", "float32"):
        box, real = float_box(np.zeros((0, 0, 0), dtype), nothing, (3, 4, 5))
        assert real is not None
        assert not real.any()
        assert not box.any()


def test_memory_that_is_used_again():
    """Whatever came before: larger, smaller, or a little larger than what is there."""
    scratch = Scratch()
    for size in (10, 100_000, 112_000, 112_500, 113_000, 50, 400_000):
        box = scratch.box((1, 2, size))
        assert box.shape == (1, 2, size)
        check_padding(box)


def test_linear_needs_no_spline():
    box = correlation.empty_box((7, 6, 9))
    box[PART] = image()
    before = box.copy()
    spline_box(box, PART, 1)
    assert np.array_equal(box, before)


def test_spline_of_the_real_part():
    box = correlation.empty_box((7, 6, 9))
    box[PART] = image()
    spline_box(box, PART, 3)
    expected = ndimage.spline_filter(image("float64"), 3, mode="mirror")
    np.testing.assert_allclose(box[PART], expected, rtol=0, atol=2e-3)


def test_halo_is_wide_enough():
    """Coefficients of a box with a halo are those of the whole image, to less than float32 carries."""
    whole = np.random.default_rng(2).uniform(0, 200, (20, 20, 80)).astype(np.float32)
    box = correlation.empty_box(whole.shape)
    box[...] = whole
    spline_box(box, (slice(0, 20), slice(0, 20), slice(0, 80)), 3)
    cut = correlation.empty_box((20, 20, 60))
    cut[...] = whole[:, :, :60]
    spline_box(cut, (slice(0, 20), slice(0, 20), slice(0, 60)), 3)
    # 0.268^10 of 200 times the filter's gain
    np.testing.assert_allclose(cut[:, :, : 60 - HALO], box[:, :, : 60 - HALO], rtol=0, atol=3e-3)


def brute(real: np.ndarray, reach: int, gaussian: bool, two_d: bool) -> np.ndarray:
    """Voxel by voxel: its whole cube, or its row along every axis."""
    reaches = [0 if two_d else reach, reach, reach]
    framed = np.pad(real, [(r, r) for r in reaches])
    out = np.zeros_like(real)
    for at in np.ndindex(real.shape):
        cube = framed[tuple(slice(p, p + 2 * r + 1) for p, r in zip(at, reaches, strict=True))]
        middle = cube.shape[0] // 2, reach, reach
        rows = [np.moveaxis(cube, a, 0)[(slice(None), *np.delete(middle, a))] for a in range(3)]
        out[at] = cube.all() if gaussian else all(row.all() for row in rows)
    return out


@pytest.mark.parametrize("two_d", [False, True], ids=["3d", "2d"])
@pytest.mark.parametrize(("reach", "gaussian"), [(1, False), (1, True), (2, True), (4, True)])
def test_gradient_voxels(reach, gaussian, two_d):
    random = np.random.default_rng(3)
    for shape, holes in (((7, 8, 9), 0.03), ((12, 9, 14), 0.003), ((3, 2, 5), 0.0)):
        real = (random.random((1, *shape[1:]) if two_d else shape) >= holes).astype(np.uint8)
        before = real.copy()
        usable = gradient_voxels(real, reach, gaussian, two_d)
        assert usable is not None
        assert np.array_equal(usable, brute(real, reach, gaussian, two_d))
        assert np.array_equal(real, before)


def test_gradient_voxels_of_all():
    assert gradient_voxels(None, 4, True, False) is None
