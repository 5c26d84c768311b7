"""Measures of textures whose spectrum, period or classes are known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mpidvc.core.grey_texture import correlation_length, line_sums, otsu, period_of, saturated_share, uneven


def gaussian_texture(shape: tuple[int, int, int], scale: tuple[float, float, float], seed: int = 0) -> np.ndarray:
    """White noise whose amplitudes are multiplied by exp(-(s k)² / 2): autocorrelation exp(-r² / (4 s²))."""
    k = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n) for n in shape), indexing="ij")
    amplitude = np.exp(-sum((s * q) ** 2 for s, q in zip(scale, k, strict=True)) / 2)
    noise = np.random.default_rng(seed).normal(size=shape)
    return np.fft.ifftn(np.fft.fftn(noise) * amplitude).real


def brute_sums(values: np.ndarray, reach: int, use: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    grey = np.where(use, values - values[use].mean(), 0.0)
    products, pairs = np.zeros((3, reach + 1)), np.zeros((3, reach + 1))
    for axis in range(3):
        a, u = np.moveaxis(grey, axis, 0), np.moveaxis(use, axis, 0)
        for lag in range(min(reach + 1, len(a))):
            products[axis, lag] = (a[lag:] * a[: len(a) - lag]).sum()
            pairs[axis, lag] = (u[lag:] & u[: len(u) - lag]).sum()
    return products, pairs


@pytest.mark.parametrize("shape", [(7, 12, 9), (1, 20, 15)])
@pytest.mark.parametrize("holes", [False, True])
def test_sums_are_those_of_all_pairs(shape: tuple[int, int, int], holes: bool) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(50, 3, shape)
    use = rng.random(shape) < 0.7 if holes else np.ones(shape, bool)
    products, pairs = line_sums(np.where(use, values, 1e6), 8, use if holes else None)
    expected = brute_sums(values, 8, use)
    np.testing.assert_allclose(products, expected[0], atol=1e-9 * abs(expected[0]).max())
    np.testing.assert_array_equal(pairs, expected[1])


def test_nothing_usable() -> None:
    products, pairs = line_sums(np.ones((3, 3, 3)), 2, np.zeros((3, 3, 3), bool))
    assert not products.any()
    assert not pairs.any()


def test_length_of_a_gaussian_texture() -> None:
    """exp(-r² / (4 s²)) is 1/e at r = 2 s, along each axis with its own s."""
    scale = (1.0, 1.6, 3.0)
    products, pairs = line_sums(gaussian_texture((96, 96, 96), scale), 20)
    for axis in range(3):
        covariance = products[axis] / pairs[axis]
        # the mean of 96³ voxels with a correlated volume of some hundred varies by 1 %
        assert correlation_length(covariance / covariance[0]) == pytest.approx(2 * scale[axis], rel=0.04)


def test_length_in_closed_form() -> None:
    lags = np.arange(12)
    for s in (0.8, 1.3, 2.9):
        assert correlation_length(np.exp(-(lags**2) / (4 * s**2))) == pytest.approx(2 * s, rel=1e-9)
    assert correlation_length(np.zeros(5)) == 0
    assert correlation_length(np.ones(5)) == math.inf
    # white: between lag 0 and lag 1
    assert 0 < correlation_length([1, 0, 0]) < 1


@pytest.mark.parametrize("period", [6.0, 9.5, 14.3])
def test_period_of_a_wave_in_noise(period: float) -> None:
    x = np.arange(80)
    wave = np.cos(2 * np.pi * x / period)[None, None, :] + np.random.default_rng(1).normal(0, 0.5, (20, 40, 80))
    products, pairs = line_sums(wave, 30)
    covariance = products / np.maximum(pairs, 1)
    assert period_of(covariance[2] / covariance[2, 0]) == pytest.approx(period, abs=0.1)
    assert math.isnan(period_of(covariance[1] / covariance[1, 0]))


def test_no_period_of_a_random_texture() -> None:
    products, pairs = line_sums(gaussian_texture((48, 48, 48), (1.6, 1.6, 1.6)), 20)
    for p, n in zip(products, pairs, strict=True):
        assert math.isnan(period_of(p / n / (p[0] / n[0])))


def test_saturated_voxels() -> None:
    rng = np.random.default_rng(5)
    grey = rng.normal(120, 40, 200_000)
    assert saturated_share(np.rint(grey).clip(-1000, 1000)) == 0
    cut = np.rint(grey).clip(0, 180)
    expected = np.mean(np.rint(grey) >= 180) + np.mean(np.rint(grey) <= 0)
    assert saturated_share(cut) == pytest.approx(expected, abs=1e-12)
    assert saturated_share(cut.astype(np.uint8)) == pytest.approx(expected, abs=1e-12)
    # a wide distribution ends where the type ends, and is not piled up there
    assert saturated_share(rng.integers(0, 256, 100_000)) == 0
    # floating-point numbers are all different
    assert saturated_share(grey) == 0
    assert saturated_share(np.zeros(100)) == 0


@pytest.mark.parametrize("beside", [(60, 1, 1), (1, 60, 1), (1, 1, 60)])
def test_an_end_is_compared_with_the_three_levels_beside_it(beside: tuple[int, int, int]) -> None:
    """Their mean is 20.7: an end of 104 is more than 5 times that, one of 103 is not."""
    middle = [200, 300, 300, 200]
    for end, piled in ((103, False), (104, True)):
        counts = [end, *beside, *middle, 1, 1, 1]
        share = end / sum(counts) if piled else 0.0
        levels = np.arange(len(counts))
        assert saturated_share(np.repeat(levels, counts)) == pytest.approx(share, abs=1e-15)
        assert saturated_share(np.repeat(-levels, counts)) == pytest.approx(share, abs=1e-15)


def test_two_classes() -> None:
    rng = np.random.default_rng(6)
    values = np.concatenate([rng.normal(20, 5, 3000), rng.normal(100, 10, 7000)])
    found = otsu(values)
    assert 35 < found.threshold < 70
    assert found.share == pytest.approx(0.3, abs=0.003)
    # variance between 0.3 * 0.7 * 80², within 0.3 * 25 + 0.7 * 100
    assert found.separation == pytest.approx(1344 / (1344 + 77.5), abs=0.01)
    assert found.two


def test_one_class() -> None:
    """A Gaussian cut in the middle has 2/π of its variance between the halves, a uniform distribution 3/4."""
    rng = np.random.default_rng(7)
    gaussian, uniform = otsu(rng.normal(5, 2, 50_000)), otsu(rng.random(50_000))
    assert gaussian.separation == pytest.approx(2 / math.pi, abs=0.01)
    assert uniform.separation == pytest.approx(0.75, abs=0.01)
    assert not gaussian.two
    assert not uniform.two
    assert otsu([3.0, 3.0]) == (3.0, 0.0, 0.0)
    assert otsu([1.0, 1.0, 9.0]) == (5.0, pytest.approx(2 / 3), pytest.approx(1.0))


def test_otsu_is_the_best_of_all_thresholds() -> None:
    values = np.random.default_rng(8).integers(0, 30, 200).astype(float)

    def within(t: float) -> float:
        parts = values[values <= t], values[values > t]
        return sum(((p - p.mean()) ** 2).sum() for p in parts if len(p))

    found = otsu(values)
    assert within(found.threshold) == pytest.approx(min(within(t) for t in np.arange(0, 29.5, 0.5)))


def test_dark_margins_beside_a_speckled_surface() -> None:
    """A narrow class beside a wide one, which Otsu's value would cut in half."""
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(13, 2, 400), rng.normal(100, 22, 3200)])
    assert not otsu(values).two
    found = uneven(values)
    assert found is not None
    # between the last of the margins and the first of the surface, but for the tail of a Gaussian
    assert 19 < found.threshold < 60
    assert found.share == pytest.approx(1 / 9, abs=0.01)
    # the other way round
    mirrored = uneven(255 - values)
    assert mirrored is not None
    assert mirrored.threshold == pytest.approx(255 - found.threshold, abs=1e-9)


@pytest.mark.parametrize("law", ["normal", "uniform", "lognormal", "gamma", "exponential", "pores"])
def test_one_class_however_skewed(law: str) -> None:
    rng = np.random.default_rng(6)
    drawn = {
        "normal": rng.normal(5, 2, 3600),
        "uniform": rng.random(3600),
        "lognormal": rng.lognormal(0, 0.5, 3600),
        "gamma": rng.gamma(2, 1, 3600),
        "exponential": rng.exponential(1, 3600),
        # blocks that are partly pores: every mean between both occurs
        "pores": np.concatenate([rng.normal(100, 5, 2500), rng.uniform(20, 100, 1100)]),
    }
    assert uneven(drawn[law]) is None


def test_too_few_values_are_no_classes() -> None:
    assert uneven([1.0] * 100 + [9.0] * 50) is None
    assert uneven(np.full(500, 3.0)) is None
