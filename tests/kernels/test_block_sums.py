"""Sums of one pass over a block of image 1, against plain float64 numpy and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpidvc.kernels import correlation
from tests.kernels.oracle import DIMENSIONS, ORDERS, Pair, check_block, pair_of, placed, texture, turned


@DIMENSIONS
@ORDERS
def test_sums_at_every_length_of_rows(isa, order, two_d):
    """Rows of 1 to 40 voxels: whole groups of lanes, tails, and the two together."""
    pair = pair_of(two_d, order)
    for nx in range(1, 41):
        n = (1 if two_d else 5, 4, nx)
        low1, centre2 = placed(pair, n)
        check_block(pair, low1, n, turned(1.5, nx, two_d) * 1.01, centre2, 1.02, -1.5)


def test_sums_of_a_large_block(isa):
    """Single precision is left often enough: as precise as a small block."""
    image = texture(41, (24, 96, 200))
    pair = Pair(image, texture(42, (30, 100, 206)))
    check_block(pair, (1, 1, 1), (22, 94, 198), turned(0.5, 3), (14.6, 49.7, 102.4))


@ORDERS
def test_sums_of_long_rows(isa, order):
    """Rows of many groups, and rows along which positions drift by more than 128 voxels."""
    pair = Pair(texture(43, (1, 200, 720)), texture(44, (1, 400, 720)), order)
    for nx, degrees in ((257, 1.0), (300, 1.0), (512, 1.0), (700, 0.0), (620, 14.0), (480, 17.0)):
        n = (1, 5, nx)
        low1, centre2 = placed(pair, n)
        window = check_block(pair, low1, n, turned(degrees, 0, True), centre2)
        assert window.data.all()


@ORDERS
def test_sums_of_tall_columns(isa, order):
    """Columns of several pieces, and rows whose positions are far from those of the row before."""
    pair = Pair(texture(45, (1, 402, 26)), texture(46, (1, 420, 60)), order)
    for ny, along in ((31, 1.0), (32, 1.0), (33, 1.0), (63, 0.98), (65, 1.01), (128, 0.3), (399, 1.0), (90, 4.4)):
        n = (1, ny, 21)
        low1, centre2 = placed(pair, n)
        window = check_block(pair, low1, n, turned(1.0, 0, True) @ np.diag([1, along, 1]), centre2)
        assert window.data.all()


@pytest.mark.parametrize("degrees", [0, 2, 6, 15, 60, 120, 180])
@DIMENSIONS
@ORDERS
def test_sums_of_rotations(isa, order, two_d, degrees):
    """From the widest groups of lanes over shorter ones to samples one by one."""
    pair = pair_of(two_d, order)
    n = (1 if two_d else 7, 9, 21)
    low1, centre2 = placed(pair, n)
    for seed in range(4):
        F = turned(degrees, seed, two_d) @ np.diag([1, 0.97, 1.04])
        window = check_block(pair, low1, n, F, centre2)
        assert window.data.all()


@DIMENSIONS
@ORDERS
def test_sums_where_positions_are_whole(isa, order, two_d):
    """Identity at whole voxels up to the image's last one: taps of weight zero must not count."""
    pair = pair_of(two_d, order)
    n = (1, 9, 11) if two_d else (5, 9, 11)
    low1, _ = placed(pair, n)
    for corner in (np.zeros(3), np.array(pair.im2.shape) - n):
        centre2 = corner + (np.array(n) - 1) / 2
        for F in (np.eye(3), np.diag([1, 1, 0.99])):
            window = check_block(pair, low1, n, F, centre2)
            assert window.data.all()


@DIMENSIONS
@ORDERS
def test_sums_within_a_grain(isa, order, two_d):
    """Rows of a mask that begin and end anywhere, those without a voxel, and one with a gap of whole groups."""
    pair = pair_of(two_d, order)
    n = (1 if two_d else 7, 9, 21)
    low1, centre2 = placed(pair, n)
    z, y, x = np.ogrid[: n[0], : n[1], : n[2]]
    grain = ((z - 3 * (not two_d)) / 3.2) ** 2 + ((y - 4) / 3.6) ** 2 + ((x - 12.5) / 6.5) ** 2 <= 1
    grain[n[0] // 2, 4] = np.isin(np.arange(n[2]), (0, 20))
    usable = np.zeros(pair.im1.shape, np.uint8)
    usable[tuple(slice(a, a + m) for a, m in zip(low1, n, strict=True))] = grain
    pair = pair_of(two_d, order, usable=usable)
    for seed in range(3):
        window = check_block(pair, low1, n, turned(2, seed, two_d), centre2)
        assert window.data.sum() == grain.sum()


@pytest.mark.parametrize("degrees", [2, 15, 60])
@DIMENSIONS
@ORDERS
def test_sums_with_masks_and_holes(isa, order, two_d, degrees):
    random = np.random.default_rng(7)
    shapes = pair_of(two_d, order)
    usable = random.random(shapes.im1.shape) < 0.8
    valid2 = random.random(shapes.im2.shape) < (0.98 if order == 3 else 0.9)
    n = (1 if two_d else 6, 7, 19)
    for mask, holes in ((usable, None), (None, valid2), (usable, valid2)):
        pair = pair_of(two_d, order, usable=mask, valid2=holes)
        low1, centre2 = placed(pair, n)
        window = check_block(pair, low1, n, turned(degrees, 3, two_d), centre2, 0.9, 8.0)
        assert 0.05 < window.data.mean() < 0.95


@ORDERS
def test_zero_weight_taps_in_holes(isa, order):
    """At whole positions linear interpolation needs one voxel only, whatever its neighbours are; the spline all."""
    pair = pair_of(False, order)
    valid2 = np.ones(pair.im2.shape, np.uint8)
    valid2[20, 20, 20] = 0
    pair = pair_of(False, order, valid2=valid2)
    window = check_block(pair, (1, 1, 1), (9, 9, 9), np.eye(3), (20.0, 20.0, 20.0))
    assert (~window.data).sum() == (1 if order == 1 else 64)


@pytest.mark.parametrize("degrees", [1, 12, 50])
@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
@DIMENSIONS
@ORDERS
def test_sums_with_bounds(isa, order, two_d, update_gradient, degrees):
    """Bounds that cut through the block; they are not at voxels."""
    low2 = np.array([0 if two_d else 21.3, 20.6, 19.2])
    high2 = np.array([0 if two_d else 26.7, 28.1, 31.9]) + (0 if not two_d else np.array([0, 10, 9]))
    pair = pair_of(two_d, order, low2=low2, high2=high2)
    n = (1 if two_d else 9, 10, 23)
    low1, centre2 = placed(pair, n)
    window = check_block(pair, low1, n, turned(degrees, 5, two_d), centre2, update_gradient=update_gradient)
    assert 0.05 < window.data.mean() < 0.9


@pytest.mark.parametrize("sigma", [1, 1.5])
@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
@DIMENSIONS
def test_sums_with_gaussian_gradients(isa, two_d, update_gradient, sigma):
    for nx in (1, 3, 8, 13):
        pair = pair_of(two_d, 1, sigma=sigma)
        n = (1 if two_d else 4, 5, nx)
        low1, centre2 = placed(pair, n)
        F = turned(3, 2, two_d)
        window = check_block(pair, low1, n, F, centre2, 1.1, -9.0, update_gradient=update_gradient)
        assert window.data.all()


@DIMENSIONS
@ORDERS
def test_sums_with_updated_gradients(isa, order, two_d):
    for nx in (1, 2, 7, 8, 16, 29):
        for degrees in (0, 4, 25):
            pair = pair_of(two_d, order, usable=np.random.default_rng(nx).random(pair_of(two_d, 1).im1.shape) < 0.9)
            n = (1 if two_d else 5, 6, nx)
            low1, centre2 = placed(pair, n)
            check_block(pair, low1, n, turned(degrees, 1, two_d), centre2, 0.95, 4.0, update_gradient=True)


@pytest.mark.parametrize("sigma", [None, 1.0])
@DIMENSIONS
@ORDERS
def test_shifted_samples(isa, order, two_d, sigma):
    """Shift-DVC: f = im1(x + s), g = im2(Phi (x + s)), G linearly at x + s; the lever x is that of the voxel.

    The signs of s follow the flattened index.
    """
    pair = pair_of(two_d, order, sigma=sigma)
    n = (1 if two_d else 5, 6, 13)
    low1, centre2 = placed(pair, n)
    low1 = low1 + np.where([two_d, False, False], 0, 3)
    for index in ((0, 15, 120), (3, 16, 133), (17, 17, 17 * 9)):
        check_block(pair, low1, n, turned(4, 6, two_d) * 1.1, centre2, index=index)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("sigma", [None, 1.0])
@DIMENSIONS
@ORDERS
def test_shifted_samples_with_updated_gradients(isa, order, two_d, sigma, bounded):
    """Gradients of the deformed image 2, linearly at x + s: they need a voxel more around than at the voxels."""
    more = {}
    if bounded:
        # through the frame of voxels that the gradients need, which is four wider for the Gaussian ones
        low2, high2 = ([0, 33.6, 4], [0, 65, 44.9]) if two_d else ([22.3, 23.6, 4], [43, 45, 34.9])
        wider = 0 if sigma is None else np.array([0 if two_d else 4, 4, 4])
        more = {"low2": np.array(low2) - wider, "high2": np.array(high2) + wider}
    pair = pair_of(two_d, order, sigma=sigma, **more)
    for n in ((1 if two_d else 4, 6, 13), (1 if two_d else 5, 3, 8)):
        low1, centre2 = placed(pair, n)
        low1 = low1 + np.where([two_d, False, False], 0, 3)
        if bounded:
            centre2 = centre2 + np.where([two_d, False, False], 0, [1, 2, 3])
        window = check_block(
            pair, low1, n, turned(4, 6, two_d) * 1.1, centre2, 0.95, 4.0, (17, 17, 153), update_gradient=True
        )
        assert window.data.all() != bounded
        assert window.data.any()


KEPT = {"plain": {}, "gaussian": {"sigma": 1.0}, "updated": {"update_gradient": True}, "shifted": {"shifted": True}}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KEPT)
@DIMENSIONS
@ORDERS
def test_sums_that_are_kept(isa, order, two_d, kind, masked):
    """Passes over one block whose voxels fall out on one side, as many on the other, nowhere, and again.

    Sums of image 1 go with the set of compared voxels, not with its number.
    """
    settings = dict(KEPT[kind])
    sigma, index = settings.pop("sigma", None), (17, 17, 153) if settings.pop("shifted", False) else None
    usable = None
    if masked:
        usable = np.random.default_rng(7).random(pair_of(two_d, order).im1.shape) < 0.8
        usable &= usable[:, :, ::-1]
    pair = pair_of(two_d, order, sigma=sigma, usable=usable)
    n = (1 if two_d else 5, 6, 24)
    low1 = np.where([two_d, False, False], 0, 10)
    low1[2] = (pair.im1.shape[2] - n[2]) // 2
    middle = (np.array(pair.im2.shape) - 1) / 2
    whole, data, edge = np.full(correlation.SUMS, np.nan), [], middle[2] - (n[2] - 1) / 2 + 5.4
    for along_x in (edge, -edge, 0.43, edge, -edge, 0.43):
        centre2 = middle + np.array([0 if two_d else 0.31, -0.17, along_x])
        data.append(check_block(pair, low1, n, np.eye(3), centre2, 1.02, -1.5, index, whole, **settings).data)
    assert 0 < data[0].sum() == data[1].sum() < data[2].sum()
    assert (data[0] != data[1]).any()


@DIMENSIONS
@ORDERS
def test_nothing_behind_a_box_counts(isa, order, two_d):
    """What is read behind the last row, by groups of lanes that end there, may be anything."""
    pair = pair_of(two_d, order)
    for name in ("box1", "box2"):
        box = getattr(pair, name)
        memory = np.full(box.size + correlation.PADDING, np.nan, np.float32)
        pair.__dict__[name] = memory[: box.size].reshape(box.shape)
        pair.__dict__[name][...] = box
    shape = np.array(pair.im1.shape)
    for nx in (1, 5, 11, 20):
        n = np.array([1 if two_d else 4, 6, nx])
        # the last rows of image 1, with their gradients, and of image 2
        low1 = np.where([two_d, False, False], 0, shape - n - 1)
        centre2 = np.array(pair.im2.shape) - 1 - (n - 1) / 2
        assert check_block(pair, low1, n, np.eye(3), centre2, 1.02, -1.5).data.all()
        check_block(pair, low1, n, np.eye(3), centre2 + np.array([0, 0, 0.6]), 1.02, -1.5)


def test_taps_stay_inside_the_frame(isa):
    """Where samples end at a voxel, the next voxels are read with weight 0: they must exist, but not count."""
    frame = correlation.FRAME
    image = np.random.default_rng(5).random((9, 9, 60)).astype(np.float32)
    box1 = correlation.empty_box(image.shape)
    box1[...] = image
    shape = tuple(n + 2 * frame for n in image.shape)
    memory = np.full(int(np.prod(shape)) + correlation.PADDING + 4000, np.nan, np.float32)
    box2 = memory[: int(np.prod(shape))].reshape(shape)
    box2[...] = 0
    memory[box2.size : box2.size + correlation.PADDING] = 0
    inside = tuple(slice(frame, frame + n) for n in image.shape)
    box2[inside] = image
    correlation.prefilter(box2, [frame] * 3, [frame + n for n in image.shape])
    n = np.array([5, 5, 40])
    last = np.array(image.shape) - 1
    F = np.diag([1.0, 1.0, 0.99])
    centre2 = last + frame - np.diag(F) * (n - 1) / 2
    sums = correlation.block_sums(
        correlation.Settings(order=3),
        box1,
        None,
        None,
        box2,
        None,
        (1, 1, 1),
        n,
        F,
        centre2,
        [frame] * 3,
        last + frame,
        0.0,
        1.0,
        0.0,
    )
    assert np.isfinite(sums).all()
    assert sums[0] == n.prod()


def block_call(**changes: Any) -> None:
    arguments = {
        "settings": correlation.Settings(),
        "box1": correlation.empty_box((12, 13, 14)),
        "usable": None,
        "sampled1": None,
        "box2": correlation.empty_box((20, 20, 20)),
        "valid2": None,
        "low1": (1, 1, 1),
        "n": (10, 11, 12),
        "F": np.eye(3),
        "centre2": (9, 9, 9),
        "low2": (3, 3, 3),
        "high2": (16, 16, 16),
        "level": 0.0,
        "gain": 1.0,
        "bias": 0.0,
    }
    correlation.block_sums(**(arguments | changes))


BLOCK_ERRORS = {
    "usable": ({"usable": np.zeros((12, 13, 15), np.uint8)}, "map of voxels"),
    "valid2": ({"valid2": np.zeros((12, 13, 14), np.uint8)}, "map of voxels"),
    "sampled1": ({"sampled1": np.zeros((12, 13, 15), np.float32)}, "samples must have the shape"),
    "no samples": ({"settings": correlation.Settings(shift=True)}, "needs sampled1"),
    "low": ({"low1": (0, 1, 1)}, "must lie inside box 1"),
    "high": ({"n": (10, 11, 13)}, "must lie inside box 1"),
    "gradients": ({"settings": correlation.Settings(sigma=0.5)}, "must lie inside box 1"),
    "n": ({"n": (10, 0, 12)}, "at least one voxel"),
    "low2": ({"low2": (3, 2.5, 3)}, "must lie inside box 2"),
    "high2": ({"high2": (16, 16, 16.5)}, "must lie inside box 2"),
}


@pytest.mark.parametrize("name", BLOCK_ERRORS)
def test_bad_blocks(name):
    changes, message = BLOCK_ERRORS[name]
    block_call()
    with pytest.raises(ValueError, match=message):
        block_call(**changes)
