"""Images seen binned: any box of one is the box of the whole image, binned at once in float64."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.images.image import ArrayImage
from mpidvc.tasks import binned
from mpidvc.tasks.binned import BinnedImage
from tests.core.test_binning import blocks
from tests.tasks.given import Watched

SHAPES = [(23, 26, 33), (1, 45, 70)]


def whole(image: np.ndarray, bins: int, mask: bool = False) -> np.ndarray:
    """The binned image, from its definition."""
    factor = (1 if image.shape[0] == 1 else bins, bins, bins)
    first = [(n % b) // 2 for n, b in zip(image.shape, factor, strict=True)]
    count = [n // b for n, b in zip(image.shape, factor, strict=True)]
    cut = image[tuple(slice(f, f + n * b) for f, n, b in zip(first, count, factor, strict=True))]
    if mask:
        return (blocks(cut, factor) != 0).any(axis=-1).astype(np.uint8)
    return blocks(cut.astype(np.float64), factor).mean(axis=-1)


def noise(shape: tuple[int, int, int], dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(3).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("tile", [(32, 64, 128), (2, 3, 4)])
@pytest.mark.parametrize("most", [4_000_000, 1])
@pytest.mark.parametrize("cache", [10**6, 0])
@pytest.mark.parametrize("bins", [2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_boxes(
    shape: tuple[int, int, int], bins: int, cache: int, most: int, tile: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tiles, planes at once, and tiles kept: inside, sticking out, and beside the image."""
    monkeypatch.setattr(binned, "TILE", tile)
    monkeypatch.setattr(binned, "MOST_VOXELS", most)
    values = noise(shape)
    image = BinnedImage(ArrayImage(values), bins, cache_bytes=cache)
    expected = whole(values, bins)
    assert image.shape == expected.shape
    assert image.two_d == (shape[0] == 1)
    assert image.dtype == np.float32
    random = np.random.default_rng(4)
    size = np.array(image.shape)
    corners = [(np.zeros(3, int), size), (size - 1, size + 5), (-size, size * 0), (size, size + 2)]
    corners += [np.sort(random.integers(-3, size + 4, (2, 3)), axis=0) for _ in range(10)]
    for low, high in corners:
        part, inside = image.read_box(low, high)
        box = np.full(high - low, -1.0)
        box[inside] = part
        around = size + 5
        framed = np.pad(expected, [(n, n) for n in around], constant_values=-1)
        reference = framed[tuple(slice(a + n, b + n) for a, b, n in zip(low, high, around, strict=True))]
        np.testing.assert_allclose(box, reference, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_types(dtype: str) -> None:
    values = noise((8, 9, 10), dtype)
    part, _ = BinnedImage(ArrayImage(values), 2).read_box((0, 0, 0), (4, 4, 5))
    np.testing.assert_allclose(part, whole(values, 2), rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_masks(shape: tuple[int, int, int]) -> None:
    values = (np.random.default_rng(5).random(shape) < 0.05) * np.uint16(256)
    image = BinnedImage(ArrayImage(values), 2, mask=True)
    part, _ = image.read_box((0, 0, 0), image.shape)
    assert part.dtype == image.dtype == np.uint8
    np.testing.assert_array_equal(part, whole(values, 2, mask=True))
    assert 0 < part.mean() < 0.5


@pytest.mark.parametrize("bins", [2, 4, 8])
@pytest.mark.parametrize("shape", [(24, 24, 24), (25, 26, 27), (28, 29, 31), (1, 37, 43)])
def test_bins_are_where_they_are_said_to_be(shape: tuple[int, int, int], bins: int) -> None:
    """Where grey levels are the coordinates, a bin's are those of its centre: ``first`` and half a bin."""
    for axis in range(3):
        image = BinnedImage(ArrayImage(np.indices(shape)[axis].astype(np.float32)), bins)
        part, _ = image.read_box((0, 0, 0), image.shape)
        place = image.first[axis] + image.factor[axis] * np.indices(image.shape)[axis] + (image.factor[axis] - 1) / 2
        np.testing.assert_allclose(part, place, rtol=1e-6)
        # as much is cut off at both ends, up to a voxel
        ends = place.min() - (image.factor[axis] - 1) / 2, shape[axis] - 1 - place.max() - (image.factor[axis] - 1) / 2
        assert 0 <= ends[1] - ends[0] <= 1


def test_tiles_are_read_once_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binned, "TILE", (4, 4, 4))
    for cache, reads in ((10**6, 8), (0, 16)):
        source = Watched(noise((16, 16, 16)))
        image = BinnedImage(source, 2, cache_bytes=cache)
        first, second = (image.read_box((0, 0, 0), (8, 8, 8))[0] for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert len(source.boxes) == reads


def test_no_more_is_read_at_once_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binned, "MOST_VOXELS", 2 * 16 * 16 * 2)
    source = Watched(noise((16, 16, 16)))
    part, _ = BinnedImage(source, 2).read_box((0, 0, 0), (8, 8, 8))
    assert max(source.boxes) == 2 * 2 * 16 * 16
    assert sum(source.boxes) == 16**3
    np.testing.assert_allclose(part, whole(noise((16, 16, 16)), 2), rtol=1e-6)
