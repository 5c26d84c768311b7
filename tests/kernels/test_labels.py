"""Sums over labels and masks of labels against scipy.ndimage, numpy and the distance to every voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.kernels import labels

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
LARGEST = 2**24 - 1


def some_labels(seed: int, shape: tuple[int, int, int] = (9, 11, 37), largest: int = 12) -> np.ndarray:
    """Runs of equal labels that touch each other, between background; some numbers are missing."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, largest + 1, shape)
    blocks = [rng.integers(1, 6) for _ in shape]
    found = coarse[tuple(np.ix_(*[np.arange(n) // b for n, b in zip(shape, blocks, strict=True)]))]
    return np.where(rng.random(shape) < 0.05, 0, found)


def check(part: np.ndarray, sums: np.ndarray) -> None:
    values = part.astype(np.int64)
    numbers = np.unique(values[values > 0])
    assert sorted(sums["label"]) == numbers.tolist()
    boxes = ndimage.find_objects(values)
    for row in sums:
        voxels = np.argwhere(values == row["label"])
        assert row["volume"] == len(voxels)
        np.testing.assert_array_equal(row["moment"], voxels.sum(axis=0))
        box = boxes[row["label"] - 1]
        np.testing.assert_array_equal(row["lowest"], [s.start for s in box])
        np.testing.assert_array_equal(row["highest"], [s.stop - 1 for s in box])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("seed", range(4))
def test_sums(dtype: str, seed: int) -> None:
    part = some_labels(seed).astype(dtype)
    tally = labels.Tally()
    sums, wrong = tally.of(part, LARGEST)
    assert wrong == -1
    assert len(sums) > 3
    check(part, sums)
    # nothing is left of the box before, whose labels were others
    other = (part > 0).astype(dtype) * 3
    check(other, tally.of(other, LARGEST)[0])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("nx", [1, 2, 7, 8, 9, 63, 64, 65])
def test_every_length_of_runs(dtype: str, nx: int) -> None:
    rows = np.array([[1] * k + [2] * (nx - k) for k in range(nx + 1)])[None]
    check(rows, labels.Tally().of(rows.astype(dtype), LARGEST)[0])


@pytest.mark.parametrize("order", ["C", "F"])
def test_parts_of_arrays(order: Any) -> None:
    whole = some_labels(1, (12, 20, 30)).astype(np.uint16, order=order)
    whole.flags.writeable = False
    for part in (whole[2:9, 3:17, 5:29], whole[::2, ::-3, ::2], whole[:, :, 4:5], whole[..., ::-1]):
        sums, _ = labels.Tally().of(part, LARGEST)
        check(part, sums)
        number = int(sums["label"][0])
        np.testing.assert_array_equal(labels.mask(part, number), part == number)


def test_neighbouring_numbers_that_single_precision_cannot_tell_apart() -> None:
    part = np.array([[[2**24 + 1, 2**24, 2**24 + 1, 2**31 + 1]]], np.uint32)
    sums, wrong = labels.Tally().of(part[..., :3], 2**25)
    assert (sums["label"].tolist(), sums["volume"].tolist(), wrong) == ([2**24 + 1, 2**24], [2, 1], -1)
    np.testing.assert_array_equal(labels.mask(part, 2**24), [[[0, 1, 0, 0]]])
    np.testing.assert_array_equal(labels.mask(part, 2**31 + 1), [[[0, 0, 0, 1]]])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *(("i1", -1), ("i2", -300), ("i4", -(2**31)), ("i4", LARGEST + 1), ("u4", LARGEST + 1), ("u4", 2**32 - 1)),
        *((kind, v) for kind in ("f4", "f8") for v in (-1.0, 2.5, 1e-30, np.nan, np.inf, -np.inf, LARGEST + 1.0, 1e30)),
    ],
)
def test_values_that_are_no_labels(dtype: str, value: float) -> None:
    part = some_labels(2).astype(dtype)
    part[4, 5, 6:9] = value
    part[8, 0, 0] = value
    tally = labels.Tally()
    sums, wrong = tally.of(part, LARGEST)
    assert np.unravel_index(wrong, part.shape) == (4, 5, 6)
    assert len(sums) == 0
    # the sums that were begun do not show up in the next box
    part = some_labels(3).astype(dtype)
    check(part, tally.of(part, LARGEST)[0])


def test_the_largest_label_and_zeros_of_both_signs() -> None:
    for dtype in ("i4", "u4", "f4", "f8"):
        sums, wrong = labels.Tally().of(np.array([[[0, LARGEST, 5]]], dtype), LARGEST)
        assert (sums["label"].tolist(), wrong) == ([LARGEST, 5], -1)
    sums, wrong = labels.Tally().of(np.array([[[-0.0, 1, -0.0]]], "f4"), LARGEST)
    assert (sums["label"].tolist(), sums["volume"].tolist(), wrong) == ([1], [1], -1)


def test_no_label() -> None:
    for part in (np.zeros((3, 4, 5), np.uint8), np.zeros((0, 4, 5), np.uint8)):
        sums, wrong = labels.Tally().of(part, LARGEST)
        assert (len(sums), wrong) == (0, -1)


# ---- masks


def ball_mask(part: np.ndarray, label: int, radius: int, keep_others: bool = False) -> np.ndarray:
    """Every voxel of the ball, one after the other; nothing lies beyond the box."""
    inside = part == label
    reach = [min(abs(radius), n - 1) for n in part.shape]
    offsets = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), -1).reshape(-1, 3)
    sources = np.pad(inside if radius >= 0 else ~inside, [(r, r) for r in reach])
    near = np.zeros(part.shape, bool)
    for offset in offsets[np.square(offsets).sum(axis=1) <= radius * radius]:
        near |= sources[tuple(slice(r + o, r + o + n) for r, o, n in zip(reach, offset, part.shape, strict=True))]
    if radius < 0:
        return inside & ~near
    return near if keep_others else near & (inside | (part == 0))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("radius", [-3, -2, -1, 0, 1, 2, 3, 5])
@pytest.mark.parametrize("keep_others", [False, True])
def test_masks(dtype: str, radius: int, keep_others: bool) -> None:
    rng = np.random.default_rng(abs(radius))
    # few labels, so that there is something left to erode
    part = ndimage.zoom(rng.integers(0, 4, (3, 3, 4)), (3, 4, 5), order=0).astype(dtype)
    for label in (1, 3):
        mask = labels.mask(part, label, radius, keep_others)
        assert (mask.dtype, mask.shape) == (np.uint8, part.shape)
        np.testing.assert_array_equal(mask, ball_mask(part, label, radius, keep_others))
    assert labels.mask(part, 1, radius).any() == (radius > -3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (1, 9, 1), (9, 1, 1), (1, 7, 8), (2, 3, 40)])
@pytest.mark.parametrize("radius", [-7, -1, 1, 2, 7, 100])
def test_masks_of_thin_boxes(shape: tuple[int, int, int], radius: int) -> None:
    part = np.random.default_rng(1).integers(0, 3, shape).astype(np.uint8)
    for label in (1, 2):
        np.testing.assert_array_equal(labels.mask(part, label, radius), ball_mask(part, label, radius))


def test_the_longest_radius() -> None:
    radius = labels.MOST_RADIUS
    part = np.zeros((1, radius + 3, radius + 3), np.uint8)
    part[0, 0, 0] = 1
    y, x = np.indices(part.shape[1:])
    np.testing.assert_array_equal(labels.mask(part, 1, radius)[0], y * y + x * x <= radius**2)
    np.testing.assert_array_equal(labels.mask(1 - part, 1, -radius)[0], y * y + x * x > radius**2)


def test_radius_of_one_is_the_six_neighbours() -> None:
    part = np.zeros((3, 3, 3), np.uint8)
    part[1, 1, 1] = 1
    np.testing.assert_array_equal(labels.mask(part, 1, 1), ndimage.generate_binary_structure(3, 1))


def test_what_cannot_be() -> None:
    part = np.ones((2, 2, 2), np.uint8)
    for radius in (labels.MOST_RADIUS + 1, -labels.MOST_RADIUS - 1):
        with pytest.raises(ValueError, match="at most 127"):
            labels.mask(part, 1, radius)
    with pytest.raises(ValueError, match="label 256: not in uint8"):
        labels.mask(part, 256)
    for other in (part.astype(np.float16), part[0], part.astype(">u2"), part.astype(complex)):
        with pytest.raises(ValueError, match="of a type that can hold labels"):
            labels.Tally().of(other, LARGEST)
