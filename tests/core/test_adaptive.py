"""The rule by which windows are chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpidvc.core.adaptive import NoiseFacts, SizeRule, largest_smooth, steps
from mpidvc.core.nested_windows import nested_errors, nested_kappas, nested_sums
from mpidvc.core.uncertainty import FRAME, Noise, lag_sums, residual_of
from tests.core.test_nested_windows import noise_like, texture

Array = NDArray[Any]


def facts_of(noise: Array, gradients: Array, order: int, own: float = 0.0) -> NoiseFacts:
    gamma = np.zeros((3, *noise.shape))
    for axis in range(3):
        products, pairs = lag_sums(gradients[axis])
        gamma[axis] = products / np.maximum(pairs, 1) / max((gradients[axis] ** 2).mean(), 1e-9)
    total = residual_of(noise, order)
    return NoiseFacts(Noise.of(total, gamma), noise, gamma, np.full(3, own), float(total.max()))


@pytest.mark.parametrize("two_d", [False, True])
@pytest.mark.parametrize("order", [1, 3])
def test_errors_are_those_of_all_twelve_parameters(two_d: bool, order: int) -> None:
    """Of twelve parameters, whose matrices are not only those of an even texture."""
    half = 20 if two_d else 12
    size = 2 * (half + FRAME) + 1
    noise = noise_like((1 if two_d else 13, 13, 13))
    ratios = []
    for seed in range(4):
        window = texture((1 if two_d else size, size, size), seed)
        sums, gradients = nested_sums(window, order)
        facts = facts_of(noise, gradients, order)
        expected, _ = nested_errors(sums, noise, order, facts.noise.rho, facts.gamma, facts.variance)
        whole = np.zeros((1, half, 27))
        whole[0, :, :15] = sums[1:, :, -1]
        whole[0, :, 15:17] = ((2 * np.arange(1, half + 1) + 1.0) ** (2 if two_d else 3))[:, None]
        # of G . G: 1 z y x zz zy zx yy yx xx
        whole[0, :, 17:] = sums[1:, [0, 3, 5]].sum(axis=1)[:, [9, 3, 6, 8, 0, 1, 2, 4, 5, 7]]
        found = SizeRule(facts, order, 2, half + 1).sigma(whole, 2)[0]
        ratios.append(found / expected[1:].max(axis=1))
    # a small window sees a few grains of the texture, which are not even
    mean = np.mean(ratios, axis=0)
    first = 12 if two_d else 5
    assert (mean[first:] < 1.0).all()
    assert (mean[first:] > 0.9).all()
    assert mean[-1] > 0.95


def test_own_noise_is_no_error() -> None:
    """Kappa lacks image 1's share, but not more than half."""
    noise, gradients = noise_like((13, 13, 13)), nested_sums(texture((29, 29, 29)), 3)[1]
    sums = np.zeros((1, 1, 27))
    sums[..., [0, 3, 5, 6, 10, 14]], sums[..., 15:17] = 1e5, 7**3
    plain = SizeRule(facts_of(noise, gradients, 3), 3, 4, 4).sigma(sums, 4)
    facts = facts_of(noise, gradients, 3, own=1.0)
    kappa = nested_kappas(facts.noise.rho, facts.gamma, 3)[3::4]
    less = SizeRule(facts, 3, 4, 4).sigma(sums, 4)
    assert less == pytest.approx(plain * np.sqrt((kappa.max() - 1) / kappa.max()), rel=1e-6)
    most = SizeRule(facts_of(noise, gradients, 3, own=100.0), 3, 4, 4).sigma(sums, 4)
    assert most == pytest.approx(plain / np.sqrt(2), rel=1e-6)


def test_no_texture_has_no_finite_error() -> None:
    noise, gradients = noise_like((13, 13, 13)), nested_sums(texture((29, 29, 29)), 3)[1]
    rule = SizeRule(facts_of(noise, gradients, 3), 3, 4, 6)
    empty, line = np.zeros((1, 3, 27)), np.zeros((1, 3, 27))
    # texture along x alone, and gradients that are all the noise's
    line[..., 5] = line[..., 14] = 1e4
    ours = np.zeros((1, 3, 27))
    ours[..., [0, 3, 5, 6, 10, 14]], ours[..., 15:17] = 100.0, 1e4
    # stripes that are oblique but for a hundred millionth
    stripes = np.zeros((1, 3, 27))
    stripes[..., :15] = 1e4
    stripes[..., [0, 3, 5, 6, 10, 14]] *= 1 + 1e-8
    for sums in (empty, line, ours, stripes):
        assert np.isinf(rule.sigma(sums, 4)).all()


@pytest.mark.parametrize("two_d", [False, True])
@pytest.mark.parametrize(("least", "most"), [(5, 25), (2, 2), (2, 60), (9, 10)])
def test_steps_hold_every_size_once(least: int, most: int, two_d: bool) -> None:
    found = steps(least, most, two_d)
    assert [size for first, end in found for size in range(first, end)] == list(range(least, most + 1))
    for first, end in found:
        assert end == first + 1 or ((2 * end - 3) / (2 * first - 1)) ** (2 if two_d else 3) <= 1.5


def test_bias_of_a_quadratic_field() -> None:
    """The mean of x² over a window, less its middle, is what a window takes for the displacement at its centre."""
    curvature, target = np.array([np.nan, 0.0, 2e-4, 1e-3, 0.5]), 0.01
    sizes, beyond = largest_smooth(curvature, target, 5, 25)
    assert sizes.tolist()[:2] == [25, 25]
    for value, size, over in zip(curvature[2:], sizes[2:].tolist(), beyond[2:], strict=True):
        # of a field with the same curvature along each axis
        def bias(H: int, value: float = value) -> float:
            x = np.arange(-(H - 1), H)
            return float(3 * value / 3 / 2 * (x**2).mean())

        assert over == (bias(5) > target)
        assert over or bias(size) <= target
        assert size == 25 or bias(size + 1) > target
    assert beyond.tolist() == [False, False, False, False, True]
    assert sizes[4] == 5


@pytest.mark.parametrize("two_d", [False, True])
def test_a_window_that_is_cut(two_d: bool) -> None:
    """A half window fits a line from its side: the variance at its end is four times that in its middle."""
    noise = noise_like((1 if two_d else 13, 13, 13))
    gradients = nested_sums(texture((1 if two_d else 29, 29, 29)), 3)[1]
    n = 201
    x = np.arange(n)
    sums = np.zeros((1, 1, 27))
    sums[..., [0, 3, 5, 6, 10, 14]], sums[..., 15:17] = 1e7, n
    whole = sums.copy()
    # moments of voxels of one weight: 0 ... n - 1 along x, and about the point along y and z
    across = (x - n // 2) ** 2
    sums[..., 17:] = [n, 0, 0, x.sum(), 0 if two_d else across.sum(), 0, 0, across.sum(), 0, (x**2).sum()]
    whole[..., 17:] = [n, 0, 0, 0, 0 if two_d else across.sum(), 0, 0, across.sum(), 0, across.sum()]
    rule = SizeRule(facts_of(noise, gradients, 3), 3, 4, 4)
    assert rule.sigma(sums, 4) / rule.sigma(whole, 4) == pytest.approx(2, rel=0.01)
