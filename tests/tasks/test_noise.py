"""Samples of noise: a region and windows with noise that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.uncertainty import LAGS
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import correlation
from mpidvc.tasks.adaptive import AdaptiveSettings
from mpidvc.tasks.ldic import LdicSettings
from mpidvc.tasks.noise import LEAST_HWS, PILOTS, RegionNoise, WindowNoise, lags_of, sample_of_window
from tests.tasks.given import Given, phi_of

SIGMA = 0.8


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Noise of variance 1, whose autocovariance is exp(-d² / (4 · 0.8²))."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), SIGMA, mode="wrap")
    return values / values.std()


def along_x(covariance: np.ndarray) -> np.ndarray:
    return covariance[covariance.shape[0] // 2, LAGS, LAGS : LAGS + 3]


@pytest.mark.parametrize("two_d", [False, True])
def test_lags(two_d: bool) -> None:
    assert lags_of(two_d) == (1 if two_d else 2 * LAGS + 1, 2 * LAGS + 1, 2 * LAGS + 1)


def test_a_uniform_region() -> None:
    """The noise of the region, whatever its grey level and what lies beside it."""
    shape = (64, 96, 64)
    image = 1000 + 20 * noise(shape, 1)
    image[:, :32] = 50_000
    mask = np.ones(shape, np.uint8)
    mask[:, :32] = 0
    task = RegionNoise(ArrayImage(image.astype(np.float32), "im"), ArrayImage(mask, "mask"))
    found = [part for part in map(task.run, range(task.n_chunks)) if part is not None]
    # 2 × 3 × 2 bricks, of which a third is outside
    assert (task.n_chunks, len(found)) == (12, 8)
    products, pairs = (sum(part[k] for part in found) for k in (0, 1))
    expected = 20**2 * np.exp(-(np.arange(3.0) ** 2) / (4 * SIGMA**2))
    # some 65 000 voxels that count
    np.testing.assert_allclose(along_x(products / pairs), expected, atol=0.03 * expected[0])


def test_the_residual_of_a_window() -> None:
    """Of two scans of one state it is that of both noises together."""
    shape = (40, 40, 40)
    one = AnalyticPair(shape, seed=3, amplitude=0).image1().astype(np.float64)
    pair = ImagePair(*(ArrayImage((one + 300 * noise(shape, s)).astype(np.float32), str(s)) for s in (1, 2)))
    low, n = np.array([4, 4, 4]), np.array([31, 31, 31])
    found = sample_of_window(pair, RegistrationSettings(order=3), low, n, np.eye(4)[:3])
    assert found is not None
    expected = 2 * 300**2 * np.exp(-(np.arange(3.0) ** 2) / (4 * SIGMA**2))
    np.testing.assert_allclose(along_x(found.covariance), expected, atol=0.05 * expected[0])
    # of half of the voxels, in an image of other contrast
    half = (np.random.default_rng(5).random((31, 31, 31)) < 0.5).astype(np.uint8)
    pair = ImagePair(pair.image1, ArrayImage((2 * pair.image2.array + 70).astype(np.float32), "other"))
    found = sample_of_window(pair, RegistrationSettings(order=3, criterion="znssd"), low, n, np.eye(4)[:3], half)
    assert found is not None
    np.testing.assert_allclose(along_x(found.covariance), expected, atol=0.08 * expected[0])
    # in units in which the squares of all grey levels together are small
    faint = ImagePair(*(ArrayImage((1e-9 * image.array).astype(np.float32)) for image in (pair.image1, pair.image2)))
    found = sample_of_window(faint, RegistrationSettings(order=3, criterion="znssd"), low, n, np.eye(4)[:3], half)
    assert found is not None
    np.testing.assert_allclose(along_x(found.covariance), 1e-18 * expected, atol=0.08e-18 * expected[0])
    nothing = np.zeros((31, 31, 31), np.uint8)
    assert sample_of_window(pair, RegistrationSettings(order=3), low, n, np.eye(4)[:3], nothing) is None


@pytest.mark.parametrize("blocks", [1, 3, 250])
def test_pilots_are_points_of_all_blocks(blocks: int) -> None:
    """About `PILOTS` of the points, each once, from every block or from blocks spread evenly."""
    shape = (30, 30, 30)
    image = ArrayImage(np.zeros(shape, np.float32), "im")
    each = 400 if blocks < 250 else 2
    positions = np.tile(np.arange(blocks * each, dtype=np.float64)[:, None], 3)
    divided = [np.arange(k * each, (k + 1) * each) for k in range(blocks)]
    points = Given(positions, phi_of(np.zeros_like(positions)), divided)
    settings = LdicSettings(RegistrationSettings(order=1), (5, 5, 5), (3, 3, 3))
    task = WindowNoise(ImagePair(image, image), points, settings)
    chosen = [task._pilots.inputs(k)["position"][0, 0] for k in range(task.n_chunks)]
    assert PILOTS <= len(chosen) <= PILOTS + blocks
    assert len({*chosen}) == len(chosen)
    counts = np.bincount((np.array(chosen) // each).astype(int), minlength=blocks)
    assert counts.max() - counts.min() <= 1


def test_windows_are_large_enough() -> None:
    """Windows below the least size are enlarged, larger ones stay; those that do not converge tell nothing."""
    shape = (40, 40, 40)
    pair = AnalyticPair(shape, seed=3, amplitude=0, translation=(0.3, 0.2, -0.4))
    images = ImagePair(ArrayImage(pair.image1(), "one"), ArrayImage(pair.image2(), "two"))
    points = Given(np.array([[20.0, 20, 20]]), phi_of(np.zeros((1, 3))), [np.array([0])])
    for hws, used in ((5, LEAST_HWS[False]), (14, 14)):
        settings = LdicSettings(RegistrationSettings(order=3), (hws,) * 3, (3, 3, 3))
        task = WindowNoise(images, points, settings)
        assert task._settings.hws == (used,) * 3
        # of windows that are chosen the smallest
        chosen = replace(settings, hws=(18,) * 3, adaptive=AdaptiveSettings(0.01, hws, 18, 6.0))
        assert WindowNoise(images, points, chosen)._settings.hws == (used,) * 3
        (found,) = [one for one in map(task.run, range(task.n_chunks)) if one is not None]
        # grey levels are rounded to whole ones in both images: 1/12 each; and what the spline leaves
        assert found.covariance[LAGS, LAGS, LAGS] < 2000
    settings = LdicSettings(RegistrationSettings(order=3, max_iterations=0), (12,) * 3, (3, 3, 3))
    assert [one for one in map(WindowNoise(images, points, settings).run, [0]) if one is not None] == []
    assert correlation.RESULT.index("returnStatus") == 2
