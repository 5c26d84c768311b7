"""Grey levels of a pair against all its voxels, or the lattice of them, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpidvc.core import grey as core
from mpidvc.core.grey import GreyLevels
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.tasks import grey
from mpidvc.tasks.grey import grey_levels


def pair(shape: tuple[int, int, int], dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    return tuple(random.normal(mean, 30, shape).astype(dtype) for mean in (120, 90))  # type: ignore[return-value]


def levels(one: np.ndarray, two: np.ndarray, mask: np.ndarray | None = None, **limits: float) -> GreyLevels:
    images = ImagePair(ArrayImage(one), ArrayImage(two), None if mask is None else ArrayImage(mask))
    return grey_levels(images, **limits)


def agree(got: GreyLevels, one: np.ndarray, two: np.ndarray, keep: Any = ...) -> None:
    a, b = one[keep].astype(float), two[keep].astype(float)
    expected = [a.mean(), a.std(), b.mean(), b.std()]
    np.testing.assert_allclose([got.mean1, got.sd1, got.mean2, got.sd2], expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(12, 13, 14), (1, 30, 40)])
def test_every_voxel_of_a_small_image(shape: tuple[int, int, int], dtype: str) -> None:
    one, two = pair(shape, dtype)
    agree(levels(one, two), one, two)


def test_masked_voxels_do_not_count() -> None:
    """In neither image, whatever the mask's values."""
    one, two = pair((12, 13, 14))
    mask = (np.random.default_rng(2).random(one.shape) < 0.6) * np.uint16(256)
    one[mask == 0] += 5000
    two[mask == 0] -= 7000
    agree(levels(one, two, mask), one, two, mask != 0)


def test_voxels_that_are_no_numbers_do_not_count() -> None:
    """A voxel that one image lacks is left out of both."""
    one, two = pair((12, 13, 14))
    random = np.random.default_rng(3)
    for image, value in ((one, np.nan), (two, np.nan), (one, -np.inf), (two, np.inf)):
        image[random.random(one.shape) < 0.1] = value
    agree(levels(one, two), one, two, np.isfinite(one) & np.isfinite(two))


def test_thresholds_are_strict_and_about_image_1() -> None:
    one, two = pair((12, 13, 14), "uint8")
    agree(levels(one, two, grey_low=100, grey_high=140), one, two, (one > 100) & (one < 140))
    agree(levels(one, two, grey_high=110), one, two, one < 110)


def test_nothing_left() -> None:
    one, two = pair((12, 13, 14))
    assert levels(one, two, np.zeros(one.shape, np.uint8)) == GreyLevels(0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("shape", [(3, 40, 2500), (40, 30, 20), (1, 300, 50)])
@pytest.mark.parametrize("most", [4_000_000, 6000, 1])
def test_lattice(shape: tuple[int, int, int], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large image is looked at on its lattice, the mask too, however many voxels are read at once."""
    monkeypatch.setattr(core, "LATTICE_VOXELS", 5000)
    monkeypatch.setattr(grey, "MOST_VOXELS", most)
    one, two = pair(shape)
    mask = np.random.default_rng(4).random(shape) < 0.7
    planes, rows, step = core.lattice(shape)
    chosen = np.zeros(shape, bool)
    chosen[np.ix_(planes, rows, np.arange(0, shape[2], step))] = True
    assert chosen.mean() < 0.6
    agree(levels(one, two), one, two, chosen)
    agree(levels(one, two, mask.astype(np.uint8)), one, two, chosen & mask)
