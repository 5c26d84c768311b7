"""The rule that chooses the criterion, at its limits, and the sample that it looks at."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core.grey import LATTICE_VOXELS, GreyLevels, choose_criterion, lattice

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
    choice = choose_criterion("auto", GreyLevels.of(f, g))
    assert choice.criterion == "znssd"
    mapped = choice.gain * g + choice.bias
    assert mapped.mean() == pytest.approx(f.mean(), rel=1e-12)
    assert mapped.std() == pytest.approx(f.std(), rel=1e-12)


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
    levels = GreyLevels.of(sample, sample.astype(np.uint16) * 257)
    assert levels == GreyLevels(128.0, 127.0, 128.0 * 257, 127.0 * 257)


def test_levels_of_nothing():
    assert GreyLevels.of(np.zeros(0), np.zeros(0)) == GreyLevels(0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1),
        (2, 3, 4),
        (100, 100, 100),
        (101, 100, 100),
        (1, 3000, 4000),
        (1, 10**6, 1),
        (1, 1, 10**7),
        (500, 2000, 1),
        (1, 1000, 1001),
        (2000, 2000, 2000),
        (60_000, 60_000, 60_000),
        (10, 70_000, 3),
    ],
)
def test_lattice(shape):
    planes, rows, step = lattice(shape)
    count = len(planes) * len(rows) * len(range(0, shape[2], step))
    assert 0 < count <= LATTICE_VOXELS
    # much less than allowed only where the image has no more, at a thousand voxels a row
    assert count >= min(LATTICE_VOXELS, shape[0] * shape[1] * min(shape[2], 1000)) / 4
    for chosen, n in ((planes, shape[0]), (rows, shape[1])):
        assert chosen.dtype == np.int64
        assert chosen[0] >= 0
        assert chosen[-1] < n
        assert (np.diff(chosen) > 0).all()
        # spread over the whole axis: the ends are half a step away
        gap = n / len(chosen)
        assert chosen[0] <= gap / 2
        assert n - 1 - chosen[-1] <= gap / 2
        assert np.diff(chosen).max(initial=0) <= gap + 1


def test_lattice_of_a_small_image_is_all_of_it():
    planes, rows, step = lattice((7, 80, 900))
    assert (planes.tolist(), rows.tolist(), step) == (list(range(7)), list(range(80)), 1)


@pytest.mark.parametrize("shape", [(5000, 1, 1000), (5000, 3, 1000), (10**7, 1, 1), (1, 10**7, 1), (1, 1, 10**7)])
def test_lattice_of_thin_images(shape):
    planes, rows, step = lattice(shape)
    assert 0 < len(planes) * len(rows) * -(-shape[2] // step) <= 10**6


def test_unknown_criterion():
    with pytest.raises(ValueError, match="choose from auto, ssd, znssd"):
        choose_criterion("anything", GreyLevels(1, 1, 1, 1))
