"""Virtual states against textures in closed form, and their noise against the autocovariance asked for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core.virtual import doubled, noise_like


@pytest.mark.parametrize("two_d", [False, True])
def test_half_voxels_of_waves(two_d: bool) -> None:
    """Plane waves in all directions, ten voxels and more from the ends: five times nearer than a cubic spline."""
    rng = np.random.default_rng(2)
    waves = rng.normal(size=(60, 3)) * (0.0 if two_d else 0.6, 0.6, 0.6)
    phases = rng.uniform(0, 2 * np.pi, 60)
    shape = (1 if two_d else 31, 32, 33)
    inner = [slice(0, 1) if n == 1 else slice(20, 2 * n - 21) for n in shape]

    def texture(*axes: np.ndarray) -> np.ndarray:
        places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        return np.cos(places @ waves.T + phases).sum(axis=-1)

    axes = [np.arange(s.start, s.stop) / (1 if n == 1 else 2) for s, n in zip(inner, shape, strict=True)]
    image, exact = texture(*(np.arange(n) for n in shape)), texture(*axes)
    fine = doubled(image)
    assert fine.shape == tuple(2 * n - 1 for n in shape)
    error = (fine[tuple(inner)] - exact).std()
    spline = (ndimage.map_coordinates(image, np.stack(np.meshgrid(*axes, indexing="ij")), order=3) - exact).std()
    assert error < 0.2 * spline
    assert error < 2e-3 * exact.std()


def test_voxels_stay() -> None:
    values = np.random.default_rng(1).normal(size=(6, 1, 9))
    np.testing.assert_allclose(doubled(values)[::2, :, ::2], values, atol=1e-12)


def test_waves_are_exact() -> None:
    """A cosine that is mirrored at the ends is known between the voxels."""
    n = 16
    x = np.arange(0, n - 0.75, 0.5)
    wave = np.cos(np.pi * 3 * (x + 0.5) / n)
    np.testing.assert_allclose(doubled(wave[::2].reshape(1, 1, n))[0, 0], wave, atol=1e-12)


@pytest.mark.parametrize("shape", [(48, 50, 44), (1, 300, 310)])
def test_noise_has_the_autocovariance(shape: tuple[int, int, int]) -> None:
    size = (1 if shape[0] == 1 else 13, 13, 13)
    lags = np.meshgrid(*(np.arange(-(n // 2), n // 2 + 1) for n in size), indexing="ij")
    expected = 4 * np.exp(-(lags[0] ** 2 / 1.5 + lags[1] ** 2 / 2.5 + lags[2] ** 2 / 4))
    noise = noise_like(expected, shape, (3, 1))
    for lag in ((0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 2, 1), *([(1, 0, 0)] if shape[0] > 1 else [])):
        found = (noise * np.roll(noise, lag, (0, 1, 2))).mean()
        middle = tuple(n // 2 + k for n, k in zip(size, lag, strict=True))
        # 1e5 voxels, of which some ten count as one
        assert found == pytest.approx(expected[middle], abs=0.04 * 4)
    other = noise_like(expected, shape, (3, 2))
    assert abs((noise * other).mean()) < 0.04 * 4
    np.testing.assert_array_equal(noise, noise_like(expected, shape, (3, 1)))
