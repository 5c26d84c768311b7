"""The windows that are looked at for texture are those that will be followed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core.pixel_search import SearchSettings
from mpidvc.core.texture import Texture, sample_of, structure
from mpidvc.images.image import ArrayImage
from mpidvc.tasks.texture import texture_of

SHAPE, HWS = (24, 24, 96), (3, 3, 3)


def texture(
    image: ArrayImage,
    mask: ArrayImage | None,
    points: np.ndarray,
    hws: tuple[int, int, int],
    min_coverage: float = 0.0,
    grey_low: float = -np.inf,
    grey_high: float = np.inf,
) -> Texture:
    windows = SearchSettings(
        hws, (0, 0, 0), (0, 0, 0), min_coverage=min_coverage, grey_low=grey_low, grey_high=grey_high
    )
    return texture_of(image, mask, points, windows)


@pytest.fixture
def image() -> np.ndarray:
    """Texture, a constant and noise, side by side along x."""
    random = np.random.default_rng(1)
    values = 100 + 200 * ndimage.gaussian_filter(random.normal(size=SHAPE), 1.5)
    values[:, :, 32:64] = 50
    values[:, :, 64:] = 100 + 10 * random.normal(size=(24, 24, 32))
    return values.astype(np.float32)


def nodes(*columns: int) -> np.ndarray:
    return np.array([(z, y, x) for x in columns for z in (5, 12, 18) for y in (5, 12, 18)], float)


def test_kinds_of_windows(image: np.ndarray) -> None:
    few = texture(ArrayImage(image), None, nodes(16, 48, 80), HWS)
    assert (few.looked_at, few.flat, few.noise) == (27, 9, 9)
    points = nodes(8, 16, 24, 48, 80, 88)
    x = points[sample_of(len(points)), 2]
    found = texture(ArrayImage(image), None, points, HWS)
    assert (found.looked_at, found.flat, found.noise) == (len(x), np.sum(x == 48), np.sum(x >= 80))
    assert len(x) < len(points)


def test_what_is_measured_is_the_window(image: np.ndarray) -> None:
    """2 hws + 1 voxels about the node without its fraction: the least deviation is a share of theirs."""
    points = nodes(8, 16) + 0.75
    found = texture(ArrayImage(image), None, points, (2, 3, 4))
    deviations = []
    for z, y, x in points.astype(int):
        deviations.append(image[z - 2 : z + 3, y - 3 : y + 4, x - 4 : x + 5].astype(float).std())
    assert found.least_deviation == pytest.approx(0.02 * np.quantile(deviations, 0.9), rel=1e-6)


def test_skipped_windows_do_not_count(image: np.ndarray) -> None:
    points = nodes(16, 48, 80)
    # constants of 50 are below, the others about 100
    assert texture(ArrayImage(image), None, points, HWS, grey_low=50.0).looked_at == 18
    assert texture(ArrayImage(image), None, points, HWS, grey_high=51.0).looked_at == 9
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :, 80:] = 0
    for least, count in ((0.0, 27), (0.42, 27), (0.43, 18)):
        # 3 of 7 columns of the last windows are left
        assert texture(ArrayImage(image), ArrayImage(mask), points, HWS, least).looked_at == count
    mask[:] = 0
    assert texture(ArrayImage(image), ArrayImage(mask), points, HWS).looked_at == 0
    # beyond the border there is nothing: 4 of 7 planes are left
    edge = np.array([[0.0, 12, 16]])
    assert texture(ArrayImage(image), None, edge, HWS, 4 / 7).looked_at == 1
    assert texture(ArrayImage(image), None, edge, HWS, 4 / 7 + 1e-9).looked_at == 0


def test_voxels_that_are_masked_or_no_numbers_do_not_count(image: np.ndarray) -> None:
    random = np.random.default_rng(2)
    mask = random.random(SHAPE) < 0.8
    holes = random.random(SHAPE) < 0.1
    spoiled = np.where(mask, image, 1e6).astype(np.float32)
    spoiled[holes] = np.nan
    points = nodes(16)
    found = texture(ArrayImage(spoiled), ArrayImage(mask.astype(np.uint8)), points, HWS)
    deviations = []
    for node in points.astype(int):
        part = tuple(slice(c - 3, c + 4) for c in node)
        deviations.append(structure(image[part].astype(float), (mask & ~holes)[part])[1])
    assert (found.looked_at, found.flat, found.noise) == (9, 0, 0)
    assert found.least_deviation == pytest.approx(0.02 * np.quantile(deviations, 0.9), rel=1e-6)


def test_integers_have_a_smallest_step(image: np.ndarray) -> None:
    """Half a grey level is no texture where grey levels are whole numbers."""
    steps = np.where(np.random.default_rng(3).random(SHAPE) < 0.1, 101, 100)
    points = nodes(16)
    whole = texture(ArrayImage(steps.astype(np.uint8)), None, points, HWS)
    assert (whole.least_deviation, whole.flat) == (0.5, 9)
    real = texture(ArrayImage(steps.astype(np.float32)), None, points, HWS)
    assert (real.flat, real.noise) == (0, 9)
