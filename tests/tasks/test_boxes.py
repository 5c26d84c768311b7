"""Boxes as the kernels take them, against the whole image: grey levels, samples between voxels, maps of data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core.boxes import HALO, TAPS, Scratch
from mpidvc.core.registration import RegistrationSettings
from mpidvc.images.image import ArrayImage
from mpidvc.kernels import correlation
from mpidvc.tasks.boxes import around_samples, read_float_box, read_reference_box, read_sampled_box

SHAPE = (30, 34, 38)
FLAT = (1, 60, 70)
#: First and last voxel (inclusive): in the middle, at corners, the whole image, a single voxel.
RANGES = [((8, 9, 10), (20, 22, 25)), ((0, 0, 0), (6, 7, 8)), ((22, 20, 25), (29, 33, 37)), ((0, 0, 0), (29, 33, 37))]
FLAT_RANGES = [((0, 20, 20), (0, 40, 45)), ((0, 0, 0), (0, 59, 69)), ((0, 50, 3), (0, 59, 3))]


def texture(shape: tuple[int, int, int], seed: int = 1) -> np.ndarray:
    sigma = [0 if n == 1 else 1.2 for n in shape]
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (100 + 20 * noise / noise.std()).astype(np.float32)


def test_what_samples_need_around() -> None:
    assert around_samples(1) == TAPS
    assert around_samples(3) == TAPS + HALO


@pytest.mark.parametrize("scratch", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_float_box(dtype: str, scratch: bool) -> None:
    """Also in memory that another box has been in."""
    memory = Scratch() if scratch else None
    values = np.random.default_rng(2).integers(1, 200, SHAPE).astype(dtype)
    image = ArrayImage(values)
    frame = np.pad(values.astype(float), 40)
    for start, stop in (
        ((0, 0, 0), SHAPE),
        ((-5, 3, 30), (10, 12, 45)),
        ((-9, -9, -9), (40, 40, 40)),
        ((5, 5, 5),) * 2,
    ):
        low, high = np.array(start), np.array(stop)
        box, inside, real = read_float_box(image, low, high, memory)
        part = tuple(slice(a + 40, b + 40) for a, b in zip(low, high, strict=True))
        np.testing.assert_array_equal(box, frame[part])
        exists = frame[part] > 0
        if real is None:
            assert exists.all()
        else:
            assert not exists.all()
            np.testing.assert_array_equal(real, exists)
        filled = np.zeros(box.shape, bool)
        filled[inside] = True
        np.testing.assert_array_equal(filled, exists)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(("shape", "ranges"), [(SHAPE, RANGES), (FLAT, FLAT_RANGES)], ids=["3d", "2d"])
def test_samples_of_a_box_are_those_of_the_image(shape: Any, ranges: Any, order: int) -> None:
    """From the first voxel asked for to the last, borders of the image included, interpolation knows no box."""
    values = texture(shape)
    image, scratch = ArrayImage(values), Scratch()
    two_d = shape[0] == 1
    for first, last in ranges:
        low, high = np.array(first), np.array(last)
        box, valid, origin = read_sampled_box(image, low, high, order, scratch)
        assert valid is None
        for between in (0.0, 0.37, 0.5):
            shift = np.where(high > low, between, 0.0)
            n = np.maximum(high - low + (between == 0), 1)
            out = np.full(n, np.nan, np.float32)
            centre = low - origin + (n - 1) / 2 + shift
            bounds = (low - origin).astype(float), (high - origin).astype(float)
            correlation.warp(box, order, two_d, np.eye(3), centre, *bounds, out)
            at = np.indices(n) + np.reshape(low + shift, (3, 1, 1, 1))
            squeezed, at = (values[0], at[1:]) if two_d else (values, at)
            expected = ndimage.map_coordinates(squeezed.astype(float), at, order=order, mode="mirror")
            # a halo of ten voxels leaves 2e-6 of what lies beyond
            np.testing.assert_allclose(out, expected, rtol=0, atol=1e-3 if order == 3 else 2e-5)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("low", [(4, 4, 4), (0, 0, 0)])
def test_holes_of_image_2_are_no_data(order: int, low: tuple[int, int, int]) -> None:
    """The map is 0 at the holes and nowhere else: what lies outside the image is left to the bounds."""
    values = texture(SHAPE)
    bad = {(9, 10, 11): np.nan, (12, 0, 3): np.inf, (5, 5, 5): -np.inf}
    for at, value in bad.items():
        values[at] = value
    box, valid, origin = read_sampled_box(ArrayImage(values), np.array(low), np.array((20, 20, 20)), order)
    assert valid is not None
    assert np.isfinite(box).all()
    holes = np.argwhere(valid == 0) + origin
    within = [at for at in bad if (np.array(at) >= origin).all()]
    assert sorted(map(tuple, holes.tolist())) == sorted(within)
    assert len(within) >= 2
    # and another box of the same image has none
    assert read_sampled_box(ArrayImage(values), np.array((22, 24, 30)), np.array((28, 30, 36)), 1)[1] is None


@pytest.mark.parametrize("order", [1, 3])
def test_no_more_is_read_than_taps_and_halo_need(order: int) -> None:
    low, high = np.array((14, 15, 16)), np.array((16, 18, 20))
    box, _, origin = read_sampled_box(ArrayImage(texture(SHAPE)), low, high, order)
    around = around_samples(order)
    expected_low = np.maximum(low - around, -TAPS)
    expected_high = np.minimum(high + 1 + around, np.array(SHAPE) + TAPS)
    np.testing.assert_array_equal(origin, expected_low)
    np.testing.assert_array_equal(box.shape, expected_high - expected_low)


def expected_maps(
    values: np.ndarray, mask: np.ndarray | None, low: Any, high: Any, settings: RegistrationSettings
) -> list[np.ndarray]:
    """Usable, covered and real voxels of the box, from erosions of the whole image."""
    two_d = values.shape[0] == 1
    exists = np.pad(np.isfinite(values), 20)
    reach = 1 if settings.sigma is None else max(1, int(4 * settings.sigma + 0.5))
    if settings.sigma is None and not settings.shift:
        touched = ndimage.generate_binary_structure(3, 1)
    else:
        touched = np.ones((2 * (reach + settings.shift) + 1,) * 3, bool)
    if two_d:
        middle = len(touched) // 2
        touched = touched[middle : middle + 1]
    usable = ndimage.binary_erosion(exists, touched)
    covered = exists if mask is None else exists & np.pad(mask != 0, 20)
    part = tuple(slice(a + 20, b + 20) for a, b in zip(low, high, strict=True))
    return [(usable & covered)[part], covered[part], exists[part]]


SETTINGS = {
    "central": RegistrationSettings(),
    "gaussian": RegistrationSettings(sigma=0.6),
    "wide": RegistrationSettings(sigma=1.0),
    "shift": RegistrationSettings(shift=True),
    "shift cubic": RegistrationSettings(shift=True, order=3),
    "shift gaussian": RegistrationSettings(shift=True, sigma=0.6),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, FLAT], ids=["3d", "2d"])
def test_reference_box(shape: tuple[int, int, int], holes: bool, masked: bool, name: str) -> None:
    """What is compared, what exists and is not masked, what exists; masked voxels spoil no gradient beside them."""
    settings = SETTINGS[name]
    two_d = shape[0] == 1
    random = np.random.default_rng(6)
    values = texture(shape)
    if holes:
        values[random.random(shape) < 0.004] = np.nan
    mask = (random.random(shape) < 0.7) * np.uint16(256) if masked else None
    reach = settings.for_kernels(two_d).gradient_reach
    for start, stop in (((5, 6, 7), (20, 25, 30)), ((-3, -4, 20), (12, 13, 45))):
        low, high = np.array(start), np.array(stop)
        if two_d:
            low[0], high[0] = 0, 1
        box, maps, sampled = read_reference_box(
            ArrayImage(values), None if mask is None else ArrayImage(mask), low, high, settings, reach
        )
        usable, covered, real = (np.ones(box.shape, bool) if one is None else one for one in maps)
        expected = expected_maps(values, mask, low, high, settings)
        np.testing.assert_array_equal(covered, expected[1])
        np.testing.assert_array_equal(real, expected[2])
        # a gradient at the box's own faces is nobody's business
        edge = reach + settings.shift
        middle = tuple(slice(0 if two_d and a == 0 else edge, None if two_d and a == 0 else -edge) for a in range(3))
        np.testing.assert_array_equal(usable[middle], expected[0][middle])
        real = expected[2]
        first = np.maximum(low, 0)
        clipped = np.pad(values, [(0, max(0, b - n)) for b, n in zip(high, shape, strict=True)])
        clipped = clipped[tuple(slice(a, b) for a, b in zip(first, high, strict=True))]
        inside = tuple(slice(a - b, None) for a, b in zip(first, low, strict=True))
        np.testing.assert_array_equal(box[real], clipped[real[inside]])
        assert (sampled is not None) == settings.shift
        if sampled is not None and settings.order == 1:
            np.testing.assert_array_equal(sampled, box)
        if sampled is not None and settings.order == 3:
            last = np.minimum(high, shape)
            there = tuple(slice(a - b, c - b) for a, b, c in zip(first, low, last, strict=True))
            coefficients = ndimage.spline_filter(box[there].astype(float).squeeze(), 3, mode="mirror")
            np.testing.assert_allclose(sampled[there].squeeze(), coefficients, rtol=0, atol=1e-3)
