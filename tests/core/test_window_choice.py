"""The choice of a window, for fields and noises in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import hadamard

from mpidvc.core.window_choice import WAVELENGTHS, Bias, best, damped_wavelength, power_law, smallest

#: Voxels that windows which saw the same features do not differ by.
MISTAKE = 1.5
SIZES = [5, 6, 8, 10, 13, 16, 20, 25]


@pytest.mark.parametrize("hws", [6, 12, 25])
def test_wave_that_is_damped_by_a_tenth(hws: int) -> None:
    """The mean of a cosine over the 2 H - 1 voxels of a window about its crest."""
    x = np.arange(-(hws - 1), hws)
    assert np.cos(2 * np.pi * x / damped_wavelength(hws)).mean() == pytest.approx(0.9, abs=2e-3)
    assert damped_wavelength(hws) == pytest.approx(8.0 * (hws - 0.5), rel=0.01)


def nested(n: int, sizes: list[int], deviation: np.ndarray, seed: int = 0) -> np.ndarray:
    """Errors of windows of which each holds the smaller ones: what is added is independent of what was known."""
    rng = np.random.default_rng(seed)
    variance = deviation**2
    error = rng.normal(size=(n, 3)) * np.sqrt(variance[-1])
    errors = [error]
    for k in range(len(sizes) - 2, -1, -1):
        error = error + rng.normal(size=(n, 3)) * np.sqrt(variance[k] - variance[k + 1])
        errors.append(error)
    return np.stack(errors[::-1], axis=1)


@pytest.mark.parametrize(("wavelength", "amplitude"), [(60.0, 0.7), (150.0, 1.0), (400.0, 2.0), (35.0, 0.3)])
def test_bias_of_a_wave(wavelength: float, amplitude: float) -> None:
    """A wave along each axis: the mean over a window leaves sin(k q) / (k q) of it, brute force over its voxels."""
    rng = np.random.default_rng(1)
    centres = rng.uniform(0, 1000, (216, 3))
    sizes = np.array(SIZES)
    deviation = 0.4 * (2 * sizes - 1.0) ** -1.5
    u = nested(216, SIZES, deviation)
    truth = amplitude * np.sqrt(2) * np.sin(2 * np.pi * centres / wavelength)
    for k, hws in enumerate(SIZES):
        x = np.arange(-(hws - 1), hws)
        waves = np.sin(2 * np.pi * (centres[:, :, None] + x) / wavelength)
        u[:, k] += amplitude * np.sqrt(2) * waves.mean(axis=2)
    found = Bias.of(SIZES, u, np.repeat(deviation[:, None], 3, axis=1), MISTAKE)
    error = np.sqrt(((u - truth[:, None]) ** 2).mean(axis=(0, 2)))
    guessed = np.sqrt(deviation**2 + found.at(SIZES) ** 2)
    # the best window by the estimate is as good as the best one
    chosen = SIZES.index(best(SIZES, guessed))
    assert error[chosen] <= 1.1 * error.min()
    small = sizes < wavelength / 6
    np.testing.assert_allclose(guessed[small], error[small], rtol=0.25)


@pytest.mark.parametrize(("jump", "share"), [(0.3, 0.1), (1.0, 0.05), (1.0, 0.2)])
def test_bias_beside_a_band(jump: float, share: float) -> None:
    """A step of the displacement that windows of some of the points meet: the mean over the voxels smooths it."""
    rng = np.random.default_rng(2)
    sizes = np.array(SIZES)
    distance = rng.uniform(-1, 1, 216) * sizes[-1] / share
    deviation = 0.4 * (2 * sizes - 1.0) ** -1.5
    u = nested(216, SIZES, deviation)
    truth = np.where(distance > 0, jump, 0.0)[:, None]
    for k, hws in enumerate(SIZES):
        u[:, k] += jump * np.clip((distance / (hws - 0.5) + 1) / 2, 0, 1)[:, None]
    found = Bias.of(SIZES, u, np.repeat(deviation[:, None], 3, axis=1), MISTAKE)
    error = np.sqrt(((u - truth[:, None]) ** 2).mean(axis=(0, 2)))
    guessed = np.sqrt(deviation**2 + found.at(SIZES) ** 2)
    chosen = SIZES.index(best(SIZES, guessed))
    assert error[chosen] <= 1.1 * error.min()


def test_bias_of_one_component() -> None:
    """A wave of the displacement along y alone: the components that do not vary do not hide it."""
    rng = np.random.default_rng(4)
    sizes = np.array(SIZES)
    deviation = 0.4 * (2 * sizes - 1.0) ** -1.5
    u = nested(216, SIZES, deviation)
    phase = rng.uniform(0, 2 * np.pi, 216)
    for k, hws in enumerate(SIZES):
        x = np.arange(-(hws - 1), hws)
        u[:, k, 1] += np.sqrt(2) * np.sin(phase[:, None] + 2 * np.pi * x / 100).mean(axis=1)
    found = Bias.of(SIZES, u, np.repeat(deviation[:, None], 3, axis=1), MISTAKE)
    # root mean square over three components of what the mean over a window takes off
    left = [np.sinc(2 * (hws - 0.5) / 100) for hws in SIZES]
    np.testing.assert_allclose(found.at(SIZES), (1 - np.array(left)) / np.sqrt(3), rtol=0.2, atol=0.002)


def test_no_bias_of_noise_alone() -> None:
    deviation = 0.4 * (2 * np.array(SIZES) - 1.0) ** -1.5
    u = nested(216, SIZES, deviation)
    found = Bias.of(SIZES, u, np.repeat(deviation[:, None], 3, axis=1), MISTAKE)
    assert (found.at(SIZES) < 0.35 * deviation).all()


def test_mistakes_do_not_count() -> None:
    deviation = 0.4 * (2 * np.array(SIZES) - 1.0) ** -1.5
    u = nested(216, SIZES, deviation)
    u[5, 0] += 4
    u[9, 1] = np.nan
    found = Bias.of(SIZES, u, np.repeat(deviation[:, None], 3, axis=1), MISTAKE)
    assert (found.at(SIZES) < 0.35 * deviation).all()


def test_bias_where_it_is_exact() -> None:
    """Waves and noises that differ in sign from point to point, each independent of the others: all means are exact."""
    sizes, a, wavelength = [5, 8, 13, 20], 0.3, WAVELENGTHS[40]
    taken = 1 - np.exp(-((2 * np.pi * (np.array(sizes) - 0.5) / wavelength) ** 2) / 6)
    sigma = np.array([[0.05, 0.03, 0.04], [0.04, 0.02, 0.02], [0.02, 0.01, 0.015], [0.01, 0.005, 0.01]])
    signs = hadamard(64)
    u = np.zeros((64, 4, 3))
    for axis in range(3):
        # what a window does not know, a smaller one does not know either
        steps = np.sqrt(-np.diff(sigma[:, axis] ** 2, append=0))
        for k in range(4):
            u[:, k, axis] = a * taken[k] * signs[1] + sum(steps[j] * signs[2 + j] for j in range(k, 4))
    found = Bias.of(sizes, u, sigma, MISTAKE)
    assert (found.amplitude, found.wavelength) == pytest.approx((a, wavelength))
    np.testing.assert_allclose(found.at(sizes), a * taken, rtol=1e-6)
    # 2D has nothing along z
    u[:, :, 0] = np.nan
    again = Bias.of(sizes, u, sigma, MISTAKE)
    assert (again.amplitude, again.wavelength) == pytest.approx((a, wavelength))


def test_a_component_needs_eight_points() -> None:
    """And differences up to a mistake count, this one included: two sizes that differ by 1.5 voxels everywhere."""
    u = np.zeros((8, 2, 3))
    u[:, 1] = 1.5
    none = Bias(0.0, float(WAVELENGTHS[-1]))
    found = Bias.of([5, 20], u, np.zeros((2, 3)), 1.5)
    assert np.diff(found.at([5, 20]))[0] == pytest.approx(1.5)
    assert Bias.of([5, 20], u, np.zeros((2, 3)), 1.499) == none
    assert Bias.of([5, 20], u[:7], np.zeros((2, 3)), 1.5) == none


def test_nothing_measured() -> None:
    assert Bias.of([5, 6], np.full((10, 2, 3), np.nan), np.zeros((2, 3)), MISTAKE).at([5, 20]).tolist() == [0, 0]


def test_smallest() -> None:
    assert smallest([5, 6, 7], [0.3, 0.2, 0.1], 0.2) == 6
    assert smallest([5, 6, 7], [0.3, 0.2, 0.1], 0.3) == 5
    assert smallest([5, 6, 7], [0.3, 0.2, 0.1], 0.05) is None
    # one that is met by chance is not the first
    assert smallest([5, 6, 7, 8], [0.1, 0.3, 0.1, 0.1], 0.2) == 7
    assert smallest([5, 6], [np.nan, 0.1], 0.2) == 6


def test_best() -> None:
    assert best([5, 6, 7], [0.3, math.nan, 0.4]) == 5


def test_power_law() -> None:
    hws = np.array([5, 9, 15])
    factor, exponent = power_law(hws, 0.7 * (2 * hws - 1.0) ** -1.5)
    assert (factor, exponent) == (pytest.approx(0.7), pytest.approx(-1.5))
    # no window is smaller than a voxel
    assert power_law([0, 5, 15], [3, 0.7 / 9, 0.7 / 29])[1] == pytest.approx(-1)
    assert power_law([5, 9, 15, 20], [0.7 / 9, math.nan, 0.7 / 29, 0])[1] == pytest.approx(-1)
    assert all(map(math.isnan, power_law([5, 6], [1, math.nan])))
