"""Windows of all sizes at once give what each of them gives by itself."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core.nested_windows import image_noise, nested_errors, nested_kappas, nested_sums
from mpidvc.core.uncertainty import FRAME, Noise, lag_sums, predict, residual_of


def texture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    k = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n) for n in shape), indexing="ij")
    amplitude = np.exp(-(1.4**2) * sum(q**2 for q in k) / 2)
    values = np.fft.ifftn(np.fft.fftn(np.random.default_rng(seed).normal(size=shape)) * amplitude).real
    return 100 + 20 * values / values.std()


def noise_like(shape: tuple[int, ...]) -> np.ndarray:
    lags = np.meshgrid(*(np.arange(-(n // 2), n // 2 + 1) for n in shape), indexing="ij")
    return 9 * np.exp(-sum(lag**2 for lag in lags) / 2.0)


@pytest.mark.parametrize("two_d", [False, True])
@pytest.mark.parametrize("order", [1, 3])
def test_as_each_window_by_itself(two_d: bool, order: int) -> None:
    """The prediction of every window, which builds its matrices voxel by voxel."""
    half = 9
    size = 2 * (half + FRAME) + 1
    window = texture((1 if two_d else size, size, size))
    noise = noise_like((1 if two_d else 13, 13, 13))
    sums, gradients = nested_sums(window, order)
    assert sums.shape == (half + 1, 15, 10)
    gamma = np.zeros((3, *noise.shape))
    for axis in (1, 2) if two_d else (0, 1, 2):
        products, pairs = lag_sums(gradients[axis])
        gamma[axis] = products / np.maximum(pairs, 1) / (gradients[axis] ** 2).mean()
    total = residual_of(noise, order)
    spread = Noise.of(total, gamma)
    displacement, F = nested_errors(sums, noise, order, spread.rho, gamma, float(total.max()))
    for h in (4, 6, 9):
        cut = slice(half - h, size - (half - h))
        one = window[:, cut, cut] if two_d else window[cut, cut, cut]
        expected = predict(one, noise, order, kappa=nested_kappas(spread.rho, gamma, h))
        np.testing.assert_allclose(displacement[h], expected.displacement, rtol=1e-6)
        np.testing.assert_allclose(F[h], expected.F, rtol=1e-6)
    assert np.isnan(displacement[0]).all()


def test_no_texture() -> None:
    size = 2 * (5 + FRAME) + 1
    sums, _ = nested_sums(np.full((size,) * 3, 7.0), 3)
    noise = noise_like((13,) * 3)
    displacement, _ = nested_errors(sums, noise, 3, noise / 9, np.ones((3, 13, 13, 13)), 9.0)
    assert np.isnan(displacement).all()


@pytest.mark.parametrize("order", [1, 3])
def test_noise_of_an_image(order: int) -> None:
    white = np.zeros((13, 13, 13))
    white[6, 6, 6] = 4
    for noise in (white, noise_like((13, 13, 13)), noise_like((1, 13, 13))):
        found = image_noise(residual_of(noise, order), order)
        np.testing.assert_allclose(found, noise, atol=0.01 * noise.max())


@pytest.mark.parametrize("half", [2, 5])
def test_voxels_that_count_as_one(half: int) -> None:
    """Of a noise in a window with a gradient of one sign: the variance of its sums with places and 1, pair by pair."""
    n = 2 * half + 1
    places = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    rho = noise_like((13, 13, 13)) / 9
    lags = places[:, None] - places[None]
    # lags beyond 6 voxels have a correlation of exp(-25)
    far = (np.abs(lags) > 6).any(axis=2)
    pairs = np.where(far, 0.0, rho[tuple(np.moveaxis(np.clip(lags, -6, 6) + 6, 2, 0))])
    X = np.column_stack([places - half, np.ones(n**3)])
    expected = np.einsum("aj,ab,bj->j", X, pairs, X, optimize=True) / (X**2).sum(axis=0)
    found = nested_kappas(rho, np.ones((3, 13, 13, 13)), half)
    np.testing.assert_allclose(found, np.tile(expected, 3), rtol=1e-6)
