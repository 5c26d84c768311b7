"""Windows without texture are told from those that can be followed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core.texture import MOST_WINDOWS, Texture, sample_of, structure


def smooth(seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(11, 11, 11))
    for axis in range(3):
        values = values + np.roll(values, 1, axis) + np.roll(values, -1, axis)
    return values / values.std()


def test_sample_is_spread_over_a_grid() -> None:
    np.testing.assert_array_equal(np.sort(sample_of(5)), np.arange(5))
    chosen = sample_of(14**3)
    # every beginning is spread, too
    np.testing.assert_array_equal(sample_of(14**3, 12), chosen[:12])
    assert np.diff(np.sort(chosen[:13])).max() < 2.7 * 14**3 / 13
    assert MOST_WINDOWS - 4 <= len(chosen) <= MOST_WINDOWS
    for axis in np.unravel_index(chosen, (14, 14, 14)):
        assert len(np.unique(axis)) >= 10


def test_structure() -> None:
    values = 50 + 3 * smooth()
    mean, deviation, correlation = structure(values)
    assert mean == pytest.approx(values.mean())
    assert deviation == pytest.approx(values.std())
    assert correlation > 0.4
    noise = np.random.default_rng(1).normal(size=(11, 11, 11))
    assert abs(structure(noise)[2]) < 0.06
    assert structure(np.full((3, 3, 3), 7.0)) == (7.0, 0.0, 0.0)
    usable = np.zeros((11, 11, 11), bool)
    assert structure(values, usable) == (0.0, 0.0, 0.0)
    usable[2:9] = True
    spoiled = np.where(usable, values, 1e9)
    assert structure(spoiled, usable)[:2] == pytest.approx((values[2:9].mean(), values[2:9].std()))
    assert structure(spoiled, usable)[2] == pytest.approx(structure(values[2:9])[2])


def rows(*groups: tuple[int, tuple[float, float, float]]) -> np.ndarray:
    return np.array([row for count, row in groups for _ in range(count)])


GOOD, FLAT, NOISE = (100.0, 20.0, 0.7), (30.0, 0.1, 0.5), (30.0, 5.0, 0.02)


def test_a_quarter_is_told() -> None:
    assert Texture.of(rows((37, GOOD), (11, FLAT)), 0.0).warning() is None
    text = Texture.of(rows((36, GOOD), (7, FLAT), (5, NOISE)), 0.0).warning()
    assert text is not None
    for word in ("12 of 48", "25%", "7 with a standard deviation", "5 with noise", "-hws", "-glt", "-mf1"):
        assert word in text
    assert Texture.of(np.zeros((0, 3)), 0.0).warning() is None


def test_no_windows() -> None:
    found = Texture.of(np.zeros((0, 3)), 1.0)
    assert (found.looked_at, found.flat, found.noise, found.least_deviation, found.grain) == (0, 0, 0, 0, 0)


def test_what_is_flat() -> None:
    """Against the most textured windows, the step of integers, and the grey level itself."""
    assert Texture.of(rows((10, (100.0, 0.6, 0.7))), 1.0).flat == 0
    assert Texture.of(rows((10, (100.0, 0.4, 0.7))), 1.0).flat == 10
    assert Texture.of(rows((10, (100.0, 0.4, 0.7))), 0.0).flat == 0
    assert Texture.of(rows((10, (1e6, 0.5, 0.7))), 0.0).flat == 10
    assert Texture.of(rows((10, (0.0, 0.0, 0.0))), 0.0).flat == 10


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.5])
def test_size_of_a_feature(sigma: float) -> None:
    """White noise smoothed by a Gaussian has the autocorrelation exp(-r^2 / (4 sigma^2))."""
    noise = np.random.default_rng(3).normal(size=(60, 60, 60))
    windows = [structure(part) for part in np.split(ndimage.gaussian_filter(noise, sigma, mode="wrap"), 3)]
    found = Texture.of(np.array(windows), 0.0)
    assert found.grain == pytest.approx(4 * sigma * np.sqrt(np.log(2)), rel=0.1)


def test_no_feature_without_texture() -> None:
    assert Texture.of(np.array([[5.0, 0.0, 0.0]] * 4), 1.0).grain == 0
