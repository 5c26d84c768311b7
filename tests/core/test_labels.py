"""Tables of labels from boxes, and masks cut from a part of an image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core.labels import LARGEST_LABEL, Labels, LabelSums, label_mask
from mpidvc.kernels import labels as kernels
from tests.kernels.test_labels import ball_mask, some_labels


def sums_of(image: np.ndarray, cuts: tuple[int, int, int] = (100, 100, 100), backwards: bool = False) -> Labels:
    """Labels of an image from its boxes of this size."""
    sums, tally = LabelSums(image.shape), kernels.Tally()
    starts = list(itertools.product(*[range(0, n, c) for n, c in zip(image.shape, cuts, strict=True)]))
    for low in reversed(starts) if backwards else starts:
        part = image[tuple(slice(a, a + c) for a, c in zip(low, cuts, strict=True))]
        sums.add(tally.of(part, LARGEST_LABEL)[0], low)
    return sums.labels()


@pytest.mark.parametrize("shape", [(9, 11, 37), (1, 20, 30), (30, 5, 4)])
def test_against_scipy(shape: tuple[int, int, int]) -> None:
    image = some_labels(5, shape, largest=30)
    image[image == 7] = 0
    found = sums_of(image.astype(np.uint16))
    largest = image.max()
    assert len(found) == largest + 1
    numbers = np.arange(largest + 1)
    volume = ndimage.sum_labels(np.ones(shape), image, numbers)
    volume[0] = 0
    np.testing.assert_array_equal(found.volume, volume)
    there = np.flatnonzero(volume)
    np.testing.assert_array_equal(found.numbers, there)
    assert 7 in found.missing
    np.testing.assert_array_equal(found.missing, np.setdiff1d(numbers[1:], there))
    centres = np.array(ndimage.center_of_mass(image > 0, image, there))
    np.testing.assert_allclose(found.centre[there], centres, rtol=1e-14, atol=1e-14)
    assert np.isnan(found.centre[found.missing]).all()
    boxes = ndimage.find_objects(image)
    for label in there:
        low, high = found.box(label)
        assert tuple(slice(a, b) for a, b in zip(low, high, strict=True)) == boxes[label - 1]
    # the outermost layers of the image
    edge = np.ones(shape, bool)
    edge[(slice(None) if shape[0] == 1 else slice(1, -1), slice(1, -1), slice(1, -1))] = False
    np.testing.assert_array_equal(np.flatnonzero(found.touches_edge), np.setdiff1d(image[edge], 0))


def test_labels_are_exact_in_single_precision() -> None:
    """All of them: label images may hold floating-point numbers."""
    assert int(np.float32(LARGEST_LABEL)) == LARGEST_LABEL
    assert np.spacing(np.float32(LARGEST_LABEL)) == 1


def test_background_and_missing_numbers() -> None:
    image = np.zeros((4, 5, 6), np.uint8)
    image[1, 2, 3:5] = 2
    found = sums_of(image)
    assert found.volume.tolist() == [0, 0, 2]
    assert found.lowest.tolist() == [[0, 0, 0], [0, 0, 0], [1, 2, 3]]
    assert found.highest.tolist() == [[-1, -1, -1], [-1, -1, -1], [1, 2, 4]]
    np.testing.assert_array_equal(found.centre, [[0, 0, 0], [np.nan] * 3, [1, 2, 3.5]])
    assert (found.lowest.dtype, found.highest.dtype, found.volume.dtype) == (np.int64,) * 3
    assert found.touches_edge.tolist() == [False] * 3
    assert found.box(2, 2)[0].tolist() == [-1, 0, 1]
    assert found.box(2, 2)[1].tolist() == [4, 5, 7]


def test_no_label() -> None:
    found = sums_of(np.zeros((3, 4, 5), np.uint8))
    assert (len(found), found.numbers.size, found.missing.size) == (1, 0, 0)
    assert found.centre.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("cuts", [(1, 100, 100), (4, 3, 5), (2, 100, 7), (1, 1, 1)])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_same_bits_however_the_image_is_cut(cuts: tuple[int, int, int], backwards: bool) -> None:
    image = some_labels(6, (9, 11, 37), 40).astype(np.int32)
    whole, cut = sums_of(image), sums_of(image, cuts, backwards)
    for name in ("volume", "lowest", "highest", "centre"):
        assert getattr(whole, name).tobytes() == getattr(cut, name).tobytes(), name


def test_far_voxels() -> None:
    """Positions and moments beyond 16, 32 and 53 bits."""
    shape = (1000, 40_000, 200_000)
    sums = LabelSums(shape)
    block, _ = kernels.Tally().of(np.ones((2, 2, 1001), np.uint8), LARGEST_LABEL)
    starts = [(998, 39_998, 198_999), (7, 39_000, 3)]
    for low in starts:
        sums.add(block, low)
    found = sums.labels()
    assert found.lowest[1].tolist() == [7, 39_000, 3]
    assert found.highest[1].tolist() == [999, 39_999, 199_999]
    assert found.centre[1].tolist() == [503, 39_499.5, 100_001]
    sums = LabelSums((2**20, 2**20, 2))
    many = np.zeros(1, kernels.SUMS)
    many["label"], many["volume"] = 1, 2**40
    many["moment"], many["highest"] = 2**40 * 2**19 + 2**38, 2**20 - 1
    sums.add(many, (1, 2, 3))
    np.testing.assert_array_equal(sums.labels().centre[1], 2**19 + 0.25 + np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="too large for sums"):
        LabelSums((2**21, 2**21, 2**21))


# ---- masks


def framed(image: np.ndarray, frame: int) -> np.ndarray:
    """With background around it, in the plane in 2D."""
    return np.pad(image, [(0, 0) if image.shape[0] == 1 else (frame, frame), (frame, frame), (frame, frame)])


@pytest.mark.parametrize("shape", [(11, 12, 13), (1, 14, 15)])
@pytest.mark.parametrize("dilate", [-2, -1, 0, 1, 3])
@pytest.mark.parametrize("keep_others", [False, True])
def test_masks_of_parts(shape: tuple[int, int, int], dilate: int, keep_others: bool) -> None:
    rng = np.random.default_rng(3)
    coarse = np.array([[[1, 2], [2, 0]], [[3, 0], [0, 1]]])[: 1 + (shape[0] > 1)]
    image = ndimage.zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=0).astype(np.uint16)
    labels = sums_of(image)
    frame = 4
    around = framed(image, frame)
    offset = np.array([0 if shape[0] == 1 else frame, frame, frame])
    some = 0
    for label in labels.numbers.tolist():
        whole = ball_mask(around, label, dilate, keep_others)
        # no voxel outside the image is in a mask
        whole &= np.pad(np.ones(shape, bool), [(k, k) for k in offset])
        for _ in range(12):
            low = rng.integers(-3, np.array(shape))
            high = low + rng.integers(1, 12, 3)
            low[: shape[0] == 1], high[: shape[0] == 1] = 0, 1
            expected = np.zeros(high - low, bool)
            first, last = np.maximum(low, -offset), np.minimum(high, np.array(shape) + offset)
            there = tuple(slice(a, b) for a, b in zip(first - low, last - low, strict=True))
            expected[there] = whole[tuple(slice(a, b) for a, b in zip(first + offset, last + offset, strict=True))]
            mask = label_mask(labels, label, image, (0, 0, 0), low, high, dilate, keep_others)
            np.testing.assert_array_equal(mask, expected)
            # no more than the frame is needed
            start = np.maximum(low - abs(dilate), 0)
            part = image[tuple(slice(a, b) for a, b in zip(start, high + abs(dilate), strict=True))]
            again = label_mask(labels, label, part, start, low, high, dilate, keep_others)
            np.testing.assert_array_equal(again, expected)
            some += expected.any()
    assert some > 2
