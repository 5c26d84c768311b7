"""Plausible grey levels, robust statistics, and the rule that chooses the criterion, at its limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from mpidvc.core.grey import ANY_VALUE, LARGEST_VALUE, GreyLevels, base_of, choose_criterion, plausible_limits

UP, DOWN = np.inf, -np.inf


@pytest.mark.parametrize(
    ("mean2", "sd2", "criterion"),
    [
        (100.0, 10.0, "ssd"),
        (101.0, 10.0, "ssd"),
        (np.nextafter(101.0, UP), 10.0, "znssd"),
        (99.0, 10.0, "ssd"),
        (np.nextafter(99.0, DOWN), 10.0, "znssd"),
        (100.0, 9.0, "ssd"),
        (100.0, np.nextafter(9.0, DOWN), "znssd"),
        (100.0, 1.1 * 10, "ssd"),
        (100.0, np.nextafter(1.1 * 10, UP), "znssd"),
        (101.0, 9.0, "ssd"),
        (100.0, 0.0, "znssd"),
        (np.nan, 10.0, "znssd"),
    ],
)
def test_limits(mean2, sd2, criterion):
    """|m1 - m2| <= 0.1 sd1 and 0.9 <= sd2 / sd1 <= 1.1."""
    choice = choose_criterion("auto", GreyLevels(100.0, 10.0, mean2, sd2))
    assert choice.criterion == criterion
    assert ("agree" in choice.reason) is (criterion == "ssd")
    assert ("differ" in choice.reason) is (criterion == "znssd")


@pytest.mark.parametrize(
    ("shift", "ratio", "criterion"),
    [(0.1, 0.0, "ssd"), (0.11, 0.0, "znssd"), (0.0, 0.1, "ssd"), (0.0, 0.11, "znssd"), (0.1, 0.1, "ssd")],
)
def test_limits_of_single_windows(shift, ratio, criterion):
    choice = choose_criterion("auto", GreyLevels(100.0, 10.0, 100.0, 10.0, shift, ratio))
    assert choice.criterion == criterion
    assert ("single windows" in choice.reason) is (criterion == "znssd")


@pytest.mark.parametrize("asked", ["ssd", "znssd"])
@pytest.mark.parametrize("mean2", [100.0, 300.0])
def test_asked_for(asked, mean2):
    choice = choose_criterion(asked, GreyLevels(100.0, 10.0, mean2, 10.0))
    assert choice.criterion == asked
    assert "asked for" in choice.reason


def test_map_of_grey_levels():
    """f = gain g + bias gives g the mean and the standard deviation of f."""
    random = np.random.default_rng(1)
    f, g = random.normal(100, 10, 5000), random.normal(-7, 3, 5000)
    levels = GreyLevels.of([(f, g)])
    choice = choose_criterion("auto", levels)
    assert choice.criterion == "znssd"
    assert choice.gain * levels.mean2 + choice.bias == pytest.approx(levels.mean1, rel=1e-12)
    assert choice.gain * levels.sd2 == pytest.approx(levels.sd1, rel=1e-12)
    mapped = choice.gain * g + choice.bias
    assert mapped.mean() == pytest.approx(f.mean(), abs=0.1)
    assert mapped.std() == pytest.approx(f.std(), rel=0.01)


def test_ssd_maps_nothing():
    choice = choose_criterion("ssd", GreyLevels(100.0, 10.0, 50.0, 5.0))
    assert (choice.gain, choice.bias) == (1.0, 0.0)


@pytest.mark.parametrize(("sd1", "sd2"), [(0.0, 5.0), (5.0, 0.0), (0.0, 0.0)])
def test_constant_images(sd1, sd2):
    choice = choose_criterion("znssd", GreyLevels(20.0, sd1, 30.0, sd2))
    assert (choice.gain, choice.bias) == (1.0, -10.0)


def test_levels_of_integers_do_not_overflow():
    sample = np.full(70_000, 255, np.uint8)
    sample[::2] = 1
    levels = GreyLevels.of([(sample, sample.astype(np.uint16) * 257)])
    assert levels == GreyLevels(128.0, 127.0, 128.0 * 257, 127.0 * 257)


def test_levels_of_nothing():
    assert GreyLevels.of([]) == GreyLevels(0.0, 0.0, 0.0, 0.0)


def test_levels_between_the_quantiles():
    """Of a normal distribution, cut at ±3.09 deviations, as scipy has it; single faults change nothing."""
    values = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000) * 10 + 100
    levels = GreyLevels.of([(values, values)])
    expected = stats.truncnorm(-3.0902, 3.0902, loc=100, scale=10)
    assert levels.mean1 == pytest.approx(expected.mean(), abs=1e-3)
    assert levels.sd1 == pytest.approx(expected.std(), rel=1e-3)
    faulty = values.copy()
    faulty[[3, 40_000, 99_990]] = 1e9, -3.4e38, 7e20
    spoiled = GreyLevels.of([(values, faulty)])
    assert spoiled.mean2 == pytest.approx(spoiled.mean1, abs=0.01)
    assert spoiled.sd2 == pytest.approx(spoiled.sd1, rel=1e-3)


def test_levels_of_porous_images():
    """Most voxels are equal: the median absolute deviation would be 0."""
    values = np.zeros(10_000)
    values[:2000] = np.linspace(50, 150, 2000)
    levels = GreyLevels.of([(values, values)])
    assert np.median(np.abs(values - np.median(values))) == 0
    assert levels.sd1 == pytest.approx(values.std(), rel=0.01)


def windows_of(count, shifts, gains=None, noise=0.0):
    """Windows whose grey levels follow f = gain g + shift, up to noise; of 500 voxels with mean 0 and deviation 1."""
    random = np.random.default_rng(5)
    found = []
    for k in range(count):
        f = random.normal(size=500)
        f = (f - f.mean()) / f.std()
        gain = 1.0 if gains is None else gains[k % len(gains)]
        found.append((100 + f, 100 + gain * f + shifts[k % len(shifts)] + noise * random.normal(size=500)))
    return found


def test_local_differences():
    """Drifts that cancel in the mean of all windows are seen; medians over the windows, by arithmetic."""
    levels = GreyLevels.of(windows_of(30, [0.3, -0.3, 0.1]))
    assert levels.local_shift == pytest.approx(0.3)
    assert levels.local_ratio == pytest.approx(0.0, abs=1e-12)
    together = dataclasses.replace(levels, local_shift=0.0)
    assert together.agree
    assert not levels.agree
    levels = GreyLevels.of(windows_of(30, [0.0], [0.8, 1.25, 1.0]))
    assert (levels.local_shift, levels.local_ratio) == pytest.approx((0.0, 0.2), abs=1e-9)


def test_windows_that_show_something_else_tell_nothing_alone():
    moved = windows_of(30, [0.5, -0.5], noise=1.2)
    assert max(np.corrcoef(a, b)[0, 1] for a, b in moved) < 0.8
    levels = GreyLevels.of(moved)
    assert (levels.local_shift, levels.local_ratio) == (0.0, 0.0)
    # and fewer than eight others decide nothing
    assert GreyLevels.of(moved + windows_of(7, [0.3])).local_shift == 0.0
    assert GreyLevels.of(moved + windows_of(8, [0.3])).local_shift == pytest.approx(0.3)
    assert GreyLevels.of(windows_of(20, [0.0], [0.0])).local_ratio == 0.0
    # nor do windows that are registered together
    assert GreyLevels.of(windows_of(20, [0.3]), alone=False).local_shift == 0.0


def test_unknown_criterion():
    with pytest.raises(ValueError, match="choose from auto, ssd, znssd"):
        choose_criterion("anything", GreyLevels(1, 1, 1, 1))


@pytest.mark.parametrize(
    ("mean", "sd", "expected"),
    [
        (1e6, 1.0, 1e6),
        (-1e6, 1.0, -1e6),
        (100.4, 1.0, 100.5),  # to half a grey level: the power of two below the deviation of the trimmed sample
        (3e4 + 1, 100.0, 30016.0),
        (60.0, 1.0, 0.0),
        (-60.0, 1.0, 0.0),
        (1e-6, 1e-9, 1e-6),
        (1e30, 1e27, 1e30),
    ],
)
def test_base(mean, sd, expected):
    """0 while the mean is at most 64 deviations, else the mean rounded to a power of two below the deviation."""
    sample = mean + sd * np.random.default_rng(3).normal(size=20_000)
    base = base_of(sample)
    assert base == pytest.approx(expected, abs=sd if expected else 0)
    step = 2.0 ** np.floor(np.log2(0.99 * sd))
    assert base % step == 0
    # one voxel with any plausible value changes nothing
    assert base_of(np.append(sample, mean + 1e5 * sd)) == base


def test_base_of_images_without_contrast():
    for sample in (np.zeros(0), np.full(100, 5e7), np.zeros((3, 4))):
        assert base_of(sample) == 0


def test_plausible_limits():
    """By arithmetic, on values whose quantiles are known: 0.1 % and 99.9 % of 0 … 1000 are 1 and 999."""
    values = np.arange(1001.0)
    assert plausible_limits(values) == pytest.approx((1 - 998_000, 999 + 998_000))
    assert plausible_limits(values.reshape(7, 11, 13)) == plausible_limits(values[::-1])
    marked = np.concatenate([values, np.full(3000, -3.4e38), np.full(500, 1e30), [np.nan, np.inf, -np.inf]])
    assert plausible_limits(marked) == plausible_limits(values)
    assert plausible_limits(values.astype(np.float32)) == plausible_limits(values)


def test_one_fault_does_not_move_the_limits():
    values = np.random.default_rng(2).normal(0.5, 0.1, 20_000)
    low, high = plausible_limits(values)
    for fault in (1e9, -1e9, -9999.0, 3e28):
        assert not low <= fault <= high
        again = plausible_limits(np.append(values, fault))
        assert again == pytest.approx((low, high), rel=0.02)


@pytest.mark.parametrize("share", [0.0005, 0.01])
def test_bright_inclusions_are_plausible(share):
    """Metal in soft tissue is some twenty times as bright, gold in a polymer a thousand times."""
    random = np.random.default_rng(3)
    values = random.normal(1.0, 0.1, 100_000)
    values[: int(share * len(values))] = np.linspace(20, 500, int(share * len(values)))
    low, high = plausible_limits(values)
    assert low < values.min()
    assert values.max() < high


@pytest.mark.parametrize("values", [np.zeros(0), np.full(7, np.nan), np.full(5000, 3.0), np.append(np.zeros(5000), 7)])
def test_images_without_contrast(values):
    assert plausible_limits(values) == (-LARGEST_VALUE, LARGEST_VALUE)


def test_limits_are_the_same_in_single_precision():
    """Image data are compared as they are stored."""
    for value in (LARGEST_VALUE, ANY_VALUE[1]):
        assert float(np.float32(value)) == value
    assert 1e29 < LARGEST_VALUE < 1e30
