"""Windows as a pixel search takes them: cut out or deformed, accepted or not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core import deformation
from mpidvc.core.boxes import TAPS
from mpidvc.core.pixel_search import SearchSettings, applied_gradients, cut_window, deformed_boxes, pad_of, warp_window
from mpidvc.kernels import correlation

HWS = (3, 4, 5)


def settings(hws: Any = HWS, **more: Any) -> SearchSettings:
    return SearchSettings(hws, (-1, -1, -1), (1, 1, 1), **more)


def box_of(shape: tuple[int, int, int], seed: int = 1) -> np.ndarray:
    box = correlation.empty_box(shape)
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), [0 if shape[0] == 1 else 1, 1, 1])
    box[...] = 100 + 80 * noise
    return box


@pytest.mark.parametrize(
    ("hws", "pad"), [((1, 1, 1), 0), ((2, 2, 2), 1), ((3, 4, 5), 2), ((0, 10, 9), 5), ((11, 3, 3), 5)]
)
def test_pad(hws: Any, pad: int) -> None:
    """Half the largest half-window size, without its fraction."""
    assert pad_of(hws) == pad


def test_least_overlap() -> None:
    """A quarter of window 1, or the coverage asked for if that is less."""
    assert settings(min_coverage=0.5).min_overlap == 0.25
    assert settings(min_coverage=0.1).min_overlap == 0.1
    assert settings(min_coverage=1.0).min_overlap == 0.25


# ---- gradients


def test_which_gradients_deform() -> None:
    """Those that differ from the identity by more than rounding; the others' windows are cut out."""
    R = deformation.rotation_matrix((10, 20, -5))
    stretched = R @ np.diag([1.1, 1, 0.9])
    F = np.array([np.eye(3), np.eye(3) + 1e-9, np.eye(3) + 1e-4, stretched, np.diag([1.2, 1, 1])])
    deformed, used = applied_gradients(F, "all")
    assert deformed.tolist() == [False, False, True, True, True]
    np.testing.assert_array_equal(used, F)
    deformed, used = applied_gradients(F, "rigid")
    assert deformed.tolist()[:2] == [False, False]
    assert deformed.tolist()[3:] == [True, False]
    np.testing.assert_allclose(used[3], R, rtol=0, atol=1e-14)
    deformed, used = applied_gradients(F, "no")
    assert not deformed.any()
    np.testing.assert_array_equal(used, np.tile(np.eye(3), (5, 1, 1)))


def test_gradients_that_cannot_be_applied() -> None:
    """Singular ones and those that are no numbers; a reflection has no rotation, but can be inverted."""
    bad = [np.zeros((3, 3)), np.diag([1, 1, 0]), np.full((3, 3), np.nan), np.diag([1, np.inf, 1]), np.diag([1e-5] * 3)]
    given = np.array([*bad, np.diag([1.0, 1, -1])])
    before = given.copy()
    for part, lost in (("all", 5), ("rigid", 4)):
        used = applied_gradients(given, part)[1]
        # the tiny one has a rotation
        numbers = np.isfinite(used).all(axis=(1, 2)).tolist()
        assert numbers == [False] * lost + ([True] if part == "all" else [True, False])
    np.testing.assert_array_equal(given, before)
    with np.errstate(all="raise"):
        assert np.isfinite(applied_gradients(given, "no")[1]).all()


# ---- windows that are cut out


def test_cut() -> None:
    box = box_of((20, 22, 24))
    covered = (np.random.default_rng(2).random(box.shape) < 0.8).astype(np.uint8)
    window = cut_window(box, covered, None, np.array((9, 10, 11)), settings())
    part = (slice(6, 13), slice(6, 15), slice(6, 17))
    np.testing.assert_array_equal(window.values, box[part])
    np.testing.assert_array_equal(window.usable, covered[part])
    assert window.coverage == covered[part].mean()
    assert window.accepted
    whole = cut_window(box, None, None, np.array((9, 10, 11)), settings())
    assert (whole.usable, whole.coverage, whole.accepted) == (None, 1.0, True)


def test_coverage_decides() -> None:
    """At least the fraction asked for; without any voxel never."""
    box, centre = box_of((20, 22, 24)), np.array((9, 10, 11))
    covered = np.zeros(box.shape, np.uint8)
    for left in (0, 1, 200, 693):
        covered[6:13, 6:15, 6:17].flat[:left] = 0
        window = np.zeros(693, np.uint8)
        window[:left] = 1
        covered[6:13, 6:15, 6:17] = window.reshape(7, 9, 11)
        share = left / 693
        for least in (0.0, share, math.nextafter(share, 2), 1.0):
            accepted = cut_window(box, covered, None, centre, settings(min_coverage=least)).accepted
            assert accepted == (left > 0 and left >= least * 693)


def test_mean_grey_level_decides() -> None:
    """Strictly between; masked voxels have a grey level, those that do not exist have none."""
    box, centre = box_of((20, 22, 24)), np.array((9, 10, 11))
    part = (slice(6, 13), slice(6, 15), slice(6, 17))
    real = (np.random.default_rng(3).random(box.shape) < 0.7).astype(np.uint8)
    masked = real & (np.random.default_rng(4).random(box.shape) < 0.9)
    box[real == 0] = 1e6
    mean = box[part].astype(np.float64)[real[part] != 0].mean()
    assert mean < 1000
    low, high = math.nextafter(mean, 0) - 1e-9, math.nextafter(mean, 1e9) + 1e-9
    for limits, accepted in (
        ({"grey_low": low}, True),
        ({"grey_high": high}, True),
        ({"grey_low": low, "grey_high": high}, True),
        ({"grey_low": high}, False),
        ({"grey_high": low}, False),
        ({}, True),
    ):
        for covered in (real, masked.astype(np.uint8)):
            assert cut_window(box, covered, real, centre, settings(min_coverage=0, **limits)).accepted is accepted


# ---- deformed windows


def expected_window(
    values: np.ndarray, usable: np.ndarray, real: np.ndarray, centre: Any, F: np.ndarray, hws: Any
) -> tuple[np.ndarray, np.ndarray]:
    """By scipy: value at F⁻¹ x; usable where everything beside it exists, is near, and the nearest voxel is open."""
    two_d = values.shape[0] == 1
    x = np.indices([2 * h + 1 for h in hws]) - np.reshape(hws, (3, 1, 1, 1))
    at = np.einsum("ij,jzyx->izyx", np.linalg.inv(F), x)
    near = (np.abs(at) <= np.reshape(hws, (3, 1, 1, 1)) + pad_of(hws)).all(axis=0)
    at = at + np.reshape(centre, (3, 1, 1, 1))
    arrays = [array[0] if two_d else array for array in (values.astype(float), real.astype(float))]
    grey, exists = (ndimage.map_coordinates(array, at[1:] if two_d else at, order=1) for array in arrays)
    beside = ndimage.map_coordinates((usable[0] if two_d else usable).astype(float), at[1:] if two_d else at, order=1)
    return grey, near & (exists > 0.9999) & (beside >= 0.5)


def box_around(hws: Any, two_d: bool) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and centre of the box that a deformed window needs."""
    reach = np.array(hws) + pad_of(hws) + TAPS
    if two_d:
        reach[0] = 0
    n = 2 * reach + 1
    return (int(n[0]), int(n[1]), int(n[2])), reach


@pytest.mark.parametrize("hws", [HWS, (6, 6, 6), (0, 7, 8)])
@pytest.mark.parametrize("rotation", [(5, 0, 0), (40, 0, 0), (6, -4, 9)])
@pytest.mark.parametrize("holes", [False, True])
def test_deformed(hws: Any, rotation: Any, holes: bool) -> None:
    two_d = hws[0] == 0
    shape, centre = box_around(hws, two_d)
    F = deformation.rotation_matrix((rotation[0], 0, 0) if two_d else rotation)
    F = F @ (np.diag([1, 1.04, 0.93]) if two_d else np.diag([1.03, 1.04, 0.93]))
    box = box_of(shape)
    random = np.random.default_rng(5)
    real = (random.random(shape) >= 0.01 * holes).astype(np.uint8)
    covered = real & (random.random(shape) < 0.85) if holes else None
    box[real == 0] = box[real != 0].mean()
    open_ = real if covered is None else covered
    window = warp_window(
        box, None if covered is None else covered.astype(np.uint8), real if holes else None, centre, F, settings(hws)
    )
    grey, usable = expected_window(box, open_, real, centre, F, hws)
    got = np.ones(grey.shape, bool) if window.usable is None else window.usable != 0
    np.testing.assert_array_equal(got, usable)
    np.testing.assert_allclose(window.values[usable], grey[usable], rtol=0, atol=1e-4)
    assert window.coverage == pytest.approx(usable.mean())
    assert window.accepted == (usable.mean() >= 0.5)
    if rotation[0] == 5 and not holes:
        assert usable.all()
    if rotation[0] == 40 and hws == HWS:
        assert not usable.all()


def test_a_deformed_window_goes_where_the_material_goes() -> None:
    """The value at x is the image's at F⁻¹ x: a bright voxel to the right ends below where F turns x to y."""
    box = correlation.empty_box((21, 21, 21))
    box[...] = 0
    box[10, 10, 13] = 1
    F = deformation.rotation_matrix((-90, 0, 0))
    np.testing.assert_allclose(F @ (0, 0, 1), (0, 1, 0), atol=1e-15)
    window = warp_window(box, None, None, np.array((10, 10, 10)), F, settings((5, 5, 5)))
    assert np.argwhere(window.values > 0.9).tolist() == [[5, 8, 5]]


def test_2d_ignores_what_leaves_the_plane() -> None:
    """The rows and columns of z do not count in a plane, whatever a guess has there."""
    hws = (0, 7, 8)
    shape, centre = box_around(hws, True)
    box = box_of(shape)
    F = deformation.rotation_matrix((10, 0, 0))
    odd = F.copy()
    odd[0, 0] = 1.5
    plain, other = (warp_window(box, None, None, centre, f, settings(hws)) for f in (F, odd))
    np.testing.assert_array_equal(plain.values, other.values)


# ---- boxes of deformed masks


@pytest.mark.parametrize("stretch", [1.0, 3.0, 0.05])
@pytest.mark.parametrize("two_d", [False, True])
def test_boxes_hold_deformed_masks(two_d: bool, stretch: float) -> None:
    """By the eight corners of every box; a box grows by half of its longest side at most, in 2D not along z."""
    random = np.random.default_rng(5)
    n = 40
    low, size = random.integers(0, 50, (n, 3)), random.integers(1, 20, (n, 3))
    if two_d:
        low[:, 0], size[:, 0] = random.integers(0, 3, n), 1
    high = low + size
    centre = low + random.random((n, 3)) * (size - 1)
    F = stretch * (np.eye(3) + 0.2 * random.normal(size=(n, 3, 3)))
    if two_d:
        F[:, 1:, 0] = 0
    first, stop = deformed_boxes(low, high, centre, F, two_d)
    cut = 0
    for k in range(n):
        corners = np.array(
            np.meshgrid(*([a - 0.5, b - 0.5] for a, b in zip(low[k], high[k], strict=True)), indexing="ij")
        ).reshape(3, -1)
        if two_d:
            corners[0] = centre[k, 0]
        at = (F[k] @ (corners - centre[k][:, None])).T + centre[k]
        pad = -(-size[k].max() // 2)
        for axis in range(3):
            if two_d and axis == 0:
                assert (first[k, 0], stop[k, 0]) == (low[k, 0], high[k, 0])
                continue
            voxels = np.arange(-300, 400)
            held = voxels[(voxels >= at[:, axis].min()) & (voxels <= at[:, axis].max())]
            kept = held[(held >= low[k, axis] - pad) & (held < high[k, axis] + pad)]
            cut += len(held) - len(kept)
            if len(kept):
                assert (first[k, axis], stop[k, axis]) == (kept[0], kept[-1] + 1)
            else:
                # a mask between two voxels
                assert stop[k, axis] == first[k, axis] + 1
    # boxes that are too large are there where they should be
    assert (cut > 100) == (stretch == 3)


def test_boxes_that_leave_keep_a_voxel() -> None:
    """A shear about a centre far away moves the mask out of all that it may reach: the last voxel of that is left."""
    low, high, centre = np.array([[10, 20, 30]]), np.array([[14, 26, 34]]), np.array([[12.0, 20, 1000]])
    F = np.eye(3)[None].copy()
    F[0, 1, 2] = -0.5
    first, stop = deformed_boxes(low, high, centre, F, False)
    # half of the longest side is 3
    assert (first[0, 1], stop[0, 1]) == (29, 30)
    F[0, 1, 2] = 0.5
    first, stop = deformed_boxes(low, high, centre, F, False)
    assert (first[0, 1], stop[0, 1]) == (17, 18)
