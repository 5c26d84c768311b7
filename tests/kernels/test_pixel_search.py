"""The pixel search against a brute-force search in float64 that knows no shortcuts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from mpidvc.kernels import pixel_search
from tests.kernels.oracle import search_oracle

PATHS = ("direct", "screened", "fft")


def texture(shape, seed, smooth=1.5):
    """Smooth noise of mean 0 and standard deviation 1."""
    values = np.random.default_rng(seed).normal(size=shape)
    frequency = sum(
        np.minimum(np.arange(n), n - np.arange(n)).reshape([-1 if b == a else 1 for b in range(3)]) ** 2 / n**2
        for a, n in enumerate(shape)
    )
    values = np.fft.ifftn(np.fft.fftn(values) * np.exp(-2 * (np.pi * smooth) ** 2 * frequency)).real
    return values / values.std()


def search(box1, usable1, box2, usable2, hws, low, high, zero_mean, centre1, centre2, **more):
    n = len(centre1)
    offset, cc, error = np.full((n, 3), 99, np.int64), np.full(n, np.nan), np.full(n, np.nan)
    maps = [None if u is None else np.ascontiguousarray(u, np.uint8) for u in (usable1, usable2)]
    boxes = [np.ascontiguousarray(box, np.float32) for box in (box1, box2)]
    centres = [np.ascontiguousarray(c, np.int64) for c in (centre1, centre2)]
    pixel_search.search_points(
        boxes[0], maps[0], boxes[1], maps[1], hws, low, high, zero_mean, *centres, offset, cc, error, **more
    )
    return offset, cc, error


def cut(array, centre, hws, low=(0, 0, 0), high=(0, 0, 0)):
    if array is None:
        return None
    return array[tuple(slice(c - h + a, c + h + b + 1) for c, h, a, b in zip(centre, hws, low, high, strict=True))]


def check(box1, usable1, box2, usable2, hws, low, high, zero_mean, centre1, centre2, min_overlap=0.0):
    """All paths against the oracle at every point; the offsets."""
    found = {}
    for path in PATHS:
        args = (box1, usable1, box2, usable2, hws, low, high, zero_mean, centre1, centre2)
        found[path] = search(*args, min_overlap=min_overlap, method=path)
    for path in PATHS:
        for direct, other in zip(found["direct"], found[path], strict=True):
            np.testing.assert_array_equal(direct, other)
    offset, cc, error = found["direct"]
    for k, (c1, c2) in enumerate(zip(centre1, centre2, strict=True)):
        true, errors = search_oracle(
            cut(np.float32(box1), c1, hws),
            cut(usable1, c1, hws),
            cut(np.float32(box2), c2, hws, low, high),
            cut(usable2, c2, hws, low, high),
            zero_mean,
            min_overlap,
        )
        best = true.max()
        if not best > 1e-12:
            assert (offset[k] == 0).all()
            assert cc[k] == 0
            assert error[k] == np.inf
            continue
        at = tuple(offset[k] - low)
        assert cc[k] == pytest.approx(best, rel=1e-12)
        assert error[k] == pytest.approx(errors[at], rel=1e-9)
        # the first of those that are equal but for the last digit of a sum
        ties = np.argwhere(true >= best * (1 - 1e-15))
        if len(ties) == 1:
            assert at == tuple(ties[0])
        else:
            assert true[at] == pytest.approx(best, rel=1e-14)
    return offset


def pair(kind, shape=(26, 28, 30), seed=1):
    """Two images, the second moved by (1, -2, 1) and noisy."""
    big = texture(tuple(n + 8 for n in shape), seed)
    noise = 0.1 * np.random.default_rng(seed + 1).normal(size=(2, *shape))
    z, y, x = (slice(4, 4 + n) for n in shape)
    one = big[z, y, x] + noise[0]
    two = np.roll(big, (1, -2, 1), (0, 1, 2))[z, y, x] + noise[1]
    if kind == "8-bit":
        return [np.clip(np.rint(120 + 30 * im), 0, 255).astype(np.uint8) for im in (one, two)]
    if kind == "16-bit offset":
        return [np.rint(30000 + 250 * im).astype(np.uint16) for im in (one, two)]
    if kind == "16-bit range":
        return [np.clip(np.rint(30000 + 15000 * im), 0, 65535).astype(np.uint16) for im in (one, two)]
    if kind == "float offset":
        return [np.float32(1000 + im) for im in (one, two)]
    if kind == "float around 0":
        return [np.float32(im) for im in (one, two)]
    return [np.float32(1e-3 * (3 + im)) for im in (one, two)]


KINDS = ("8-bit", "16-bit offset", "16-bit range", "float offset", "float around 0", "float small")
HWS, LOW, HIGH = (4, 5, 3), (-3, -4, -2), (3, 2, 4)
CENTRES = np.array([[z, y, x] for z, y, x in ((8, 10, 7), (13, 15, 16), (17, 15, 20), (13, 10, 20))])


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_brute_force(kind, zero_mean, isa):
    one, two = pair(kind)
    offset = check(one, None, two, None, HWS, LOW, HIGH, zero_mean, CENTRES, CENTRES)
    if kind not in ("16-bit offset", "float offset") or zero_mean:
        assert np.mean((offset == (1, -2, 1)).all(axis=1)) > 0.8


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("which", ["first", "second", "both"])
@pytest.mark.parametrize("kind", ["8-bit", "16-bit offset", "float around 0"])
def test_masks(kind, which, zero_mean, isa):
    one, two = pair(kind, seed=5)
    rng = np.random.default_rng(3)
    usable1 = (rng.random(one.shape) > 0.3) if which != "second" else None
    usable2 = (rng.random(one.shape) > 0.4) if which != "first" else None
    if usable2 is not None:
        usable2[:, :, 21:] = False  # as beyond a border
    if usable1 is not None:
        usable1[:, :8] = False
    check(one, usable1, two, usable2, HWS, LOW, HIGH, zero_mean, CENTRES, CENTRES, min_overlap=0.2)


def test_values_outside_masks_do_not_count():
    one, two = (im.astype(np.float32) for im in pair("8-bit"))
    usable1, usable2 = (np.random.default_rng(s).random(one.shape) > 0.3 for s in (1, 2))
    reference = search(one, usable1, two, usable2, HWS, LOW, HIGH, False, CENTRES, CENTRES)
    one[~usable1], two[~usable2] = 1e6, -3e5
    for path in PATHS:
        again = search(one, usable1, two, usable2, HWS, LOW, HIGH, False, CENTRES, CENTRES, method=path)
        for a, b in zip(reference, again, strict=True):
            np.testing.assert_array_equal(a, b)


def test_large_offset_small_contrast(isa):
    """Windows searched in their own image, on a grey offset: every answer is 0 with CC 1."""
    for contrast in (10000, 3000, 1000):
        image = np.rint(30000 + contrast * (texture((60, 60, 60), 7, 2.0) / 8)).astype(np.uint16)
        centres = np.array([[z, y, x] for z in (15, 30, 44) for y in (15, 25, 35, 44) for x in (15, 22, 30, 37, 44)])
        for path in PATHS if contrast == 1000 else ("direct",):
            offset, cc, error = search(
                image, None, image, None, (10,) * 3, (-3,) * 3, (3,) * 3, False, centres, centres, method=path
            )
            assert np.sum((offset == 0).all(axis=1)) == 60
            np.testing.assert_array_equal(cc, 1.0)
            np.testing.assert_array_equal(error, 0.0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("zero_mean", [False, True])
def test_first_of_equals_wins(path, zero_mean, isa):
    """A texture that repeats every 3, 4 and 2 voxels: many windows are equal to the last bit."""
    tile = np.random.default_rng(0).integers(1, 255, (3, 4, 2))
    image = np.tile(tile, (10, 8, 16)).astype(np.float32)
    centre = np.array([[14, 15, 15]])
    offset, cc, _ = search(
        image, None, image, None, (4, 4, 4), (-5, -6, -3), (4, 4, 5), zero_mean, centre, centre, method=path
    )
    np.testing.assert_array_equal(offset, [[-3, -4, -2]])
    assert cc[0] == pytest.approx(1, abs=1e-14)


def loss(box1, box2, hws, low, high, zero_mean, centre, offset):
    """By how much the CC of the offset that was found is below the best, all in float64."""
    a = cut(np.float32(box1), centre, hws).astype(np.float64).ravel()
    windows = sliding_window_view(
        cut(np.float32(box2), centre, hws, low, high).astype(np.float64), 2 * np.array(hws) + 1
    )
    offsets = windows.shape[:3]
    b = windows.reshape(-1, a.size)
    if zero_mean:
        a, b = a - a.mean(), b - b.mean(axis=1, keepdims=True)
    cc = b @ a / np.sqrt((a @ a) * np.einsum("ij,ij->i", b, b))
    return cc.max() - cc.reshape(offsets)[tuple(np.asarray(offset) - low)]


#: What rounding leaves of a sum of double precision over a window.
LAST_DIGITS = 2e-15


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("perturbation", [1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize(
    "kind", [(0.0, 1.0), (1000.0, 1.0), (30000.0, 250.0), (100.0, 1e-3), (0.0, 1e25), (0.0, 1e-25)]
)
def test_near_ties(kind, perturbation, zero_mean, isa):
    """A texture that repeats, hardly perturbed: single precision cannot tell which is the best, its bounds say so."""
    level, contrast = kind
    hws, low, high = (4, 5, 6), (-5, -6, -3), (4, 4, 5)
    centres = np.array([[14, 15, 15], [15, 16, 17]])
    # another texture for every perturbation
    random = np.random.default_rng(round(-np.log10(perturbation)))
    tile = np.tile(random.normal(size=(3, 4, 2)), (10, 8, 16))
    one, two = (level + contrast * (tile + perturbation * random.normal(size=tile.shape)) for _ in range(2))
    for path in PATHS:
        offsets, _, _ = search(one, None, two, None, hws, low, high, zero_mean, centres, centres, method=path)
        for centre, offset in zip(centres, offsets, strict=True):
            assert loss(one, two, hws, low, high, zero_mean, centre, offset) <= LAST_DIGITS


def test_sums_that_lose_all_that_is_small(isa):
    """Forty products below half a unit in the last place of the first one: all are lost, each time.

    The window at offset 0 is window 1 itself, that at offset 8 lacks what is small. In single precision the sum of
    products is the same, and so the second has the larger CC.
    """
    small = np.sqrt(0.9 * 2.0**-24)
    signs = np.array([1.0, -1, 1, -1, 1, -1, 0])
    window = np.full((41, 1), small) * signs
    window[0] = signs
    one, two = np.zeros((1, 41, 7)), np.zeros((1, 41, 15))
    one[0], two[0, :, :7] = window, window
    two[0, 0, 8:] = signs
    offset, cc, _ = search(
        one, None, two, None, (0, 20, 3), (0, 0, 0), (0, 0, 8), False, [[0, 20, 3]], [[0, 20, 3]], method="direct"
    )
    assert offset.tolist() == [[0, 0, 0]]
    assert cc[0] == pytest.approx(1, abs=1e-15)


def test_values_that_are_rounded_when_a_constant_is_taken_off(isa):
    """A window of almost one grey level in an image of few: what decides are last digits, and those are rounded off."""
    hws, low, high = (3, 3, 3), (-3, -4, -2), (3, 4, 2)
    centre = np.array([[8, 9, 8]])
    for seed in range(20):
        random = np.random.default_rng(seed)
        one = np.full((17, 19, 17), 1000, np.float32)
        one[8, 9, 8] = np.nextafter(np.float32(1000), np.float32(2000))
        two = np.float32(np.tile(random.uniform(0.2, 3.0, (3, 4, 2)), (6, 5, 9))[:17, :19, :17])
        steps = random.integers(-3, 4, two.shape) * (random.random(two.shape) < 0.05)
        two += steps.astype(np.float32) * np.spacing(two)
        for path in PATHS:
            offsets, _, _ = search(one, None, two, None, hws, low, high, False, centre, centre, method=path)
            assert loss(one, two, hws, low, high, False, centre[0], offsets[0]) <= LAST_DIGITS


@pytest.mark.parametrize("zero_mean", [False, True])
def test_near_ties_in_the_dark_beside_a_bright_part(zero_mean, isa):
    """An FFT has the errors of all that it transforms: here the bright part's are larger than the dark one's ties."""
    hws, low, high = (4, 4, 4), (-6, -6, -6), (6, 6, 6)
    centre = np.array([[12, 12, 12]])
    for seed in range(8):
        random = np.random.default_rng(seed)
        tile = np.tile(random.normal(size=(3, 4, 2)), (9, 7, 13))[:25, :25, :25]
        one, two = (tile + 1e-5 * random.normal(size=tile.shape) for _ in range(2))
        # of any mean, or of none: then the bounds of the dark part depend on no constant
        bright = random.normal(size=(25, 25, 5)) if seed % 2 else random.normal(size=(25, 25, 1)) * [1, -1, 1, -1, 0]
        two[:, :, 20:] = 1e4 * bright
        for path in PATHS:
            offsets, _, _ = search(one, None, two, None, hws, low, high, zero_mean, centre, centre, method=path)
            assert loss(one, two, hws, low, high, zero_mean, centre[0], offsets[0]) <= LAST_DIGITS


@pytest.mark.parametrize("path", PATHS)
def test_nothing_to_find(path, isa):
    shape, centre = (14, 14, 14), np.array([[7, 7, 7]])
    zeros, some = np.zeros(shape), np.random.default_rng(0).random(shape)
    none = np.zeros(shape, bool)
    cases = [
        (zeros, None, some, None, False),
        (some, None, zeros, None, False),
        (some, none, some, None, False),
        (some, None, some, none, False),
        (some, None, -some, None, False),
        (np.full(shape, 5.3), None, some, None, True),
        (some, None, np.full(shape, 5.3), None, True),
    ]
    for one, usable1, two, usable2, zero_mean in cases:
        offset, cc, error = search(
            one, usable1, two, usable2, (3, 3, 3), (-2,) * 3, (2,) * 3, zero_mean, centre, centre, method=path
        )
        assert offset.tolist() == [[0, 0, 0]]
        assert cc.tolist() == [0]
        assert error.tolist() == [np.inf]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_window_of_one_grey_level(masked, zero_mean, path, isa):
    """There is nothing to follow, even where image 2 is of one grey level, too, and the formula gives a CC of 1."""
    random, centre = np.random.default_rng(1), np.array([[7, 7, 7]])
    for grey in (30.0, 5.3, 0.1, 0.0, -40.0):
        one = np.full((14, 14, 14), grey)
        usable1 = None
        if masked:
            usable1 = random.random(one.shape) > 0.4
            one[~usable1] = 7
        for two in (np.full((14, 14, 14), grey), random.random((14, 14, 14))):
            offset, cc, error = search(
                one, usable1, two, None, (3, 3, 3), (-2,) * 3, (2,) * 3, zero_mean, centre, centre, method=path
            )
            assert (offset.tolist(), cc.tolist(), error.tolist()) == ([[0, 0, 0]], [0], [np.inf])


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("which", ["none", "first", "second", "both"])
@pytest.mark.parametrize("grey", [0.0, 90.0, -90.0, 1e4 + 0.1])
def test_candidates_of_one_grey_level(grey, which, zero_mean, isa):
    """Most candidates are of one grey level or of another, and some have a larger CC than any texture."""
    random = np.random.default_rng(6)
    one, two = random.normal(100, 5, (2, *pair("8-bit")[0].shape)).astype(np.float32)
    two[:, 8:], two[:, :, 14:], two[20:] = grey, 50.0, -grey
    two[5:8, 9:12, 17] += [[1], [-1], [2]]
    usable1 = (random.random(one.shape) > 0.3) if which in ("first", "both") else None
    usable2 = (random.random(one.shape) > 0.4) if which in ("second", "both") else None
    for image, usable in ((one, usable1), (two, usable2)):
        if usable is not None:
            image[~usable] = 7
    low, high = (-3, -5, -4), (4, 4, 6)
    check(one, usable1, two, usable2, HWS, low, high, zero_mean, CENTRES[:3], CENTRES[:3], min_overlap=0.2)


def test_candidates_of_both_signs(isa):
    """Constant planes below and above 0 in turn, and a window whose mean is above 0 by less than any bound of CC."""
    one = np.full((1, 9, 9), 1e5)
    one[0].flat[::2] = -1e5
    one[0, 0, 0] = 1  # the other 40 and 40 cancel out
    two = np.ones((41, 9, 9)) * np.where(np.arange(41) % 2, 30.0, -30.0)[:, None, None]
    check(
        one, None, two, None, (0, 4, 4), (-20, 0, 0), (20, 0, 0), False, np.array([[0, 4, 4]]), np.array([[20, 4, 4]])
    )


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("kind", ["8-bit", "16-bit offset", "float offset"])
def test_bases(kind, zero_mean, isa):
    """Constants that were taken off the images change neither CC nor error: those of whole grey levels are compared."""
    one = pair(kind, seed=4)[0].astype(np.float32)
    unlike = pair(kind, seed=5)[1].astype(np.float32)
    flat = np.full_like(one, 50)
    empty = unlike.copy()
    empty[:, :, 14:] = 0
    args = (HWS, LOW, HIGH, zero_mean, CENTRES, CENTRES)
    usable1, usable2 = (np.random.default_rng(k).random(one.shape) > 0.3 for k in (1, 2))
    base1 = float(np.rint(one.mean()))
    for two, base2 in ((unlike, float(np.rint(unlike.mean()))), (flat, 50.0), (empty, 64.0)):
        for maps in ((None, None), (usable1, usable2)):
            whole = search(one, maps[0], two, maps[1], *args)
            for path in PATHS:
                less = search(one - base1, maps[0], two - base2, maps[1], *args, method=path, bases=(base1, base2))
                np.testing.assert_array_equal(less[0], whole[0])
                np.testing.assert_allclose(less[1], whole[1], rtol=1e-13)
                np.testing.assert_allclose(less[2], whole[2], rtol=1e-11)


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("scale", [1e-35, 1e-28, 1e-24, 3e-23, 1e-22, 1e-21, 1e-12, 1e12, 1e18, 1e21, 1e30, 1e34])
def test_grey_levels_whose_squares_leave_single_precision(scale, zero_mean, isa):
    """What is found does not depend on the unit of grey levels."""
    for kind in ("float around 0", "8-bit"):
        one, two = (im.astype(np.float32) for im in pair(kind, seed=9))
        args = (HWS, LOW, HIGH, zero_mean, CENTRES, CENTRES)
        plain = check(one, None, two, None, *args)
        one, two = one.astype(np.float64) * scale, two.astype(np.float64) * scale
        np.testing.assert_array_equal(check(one, None, two, None, *args), plain)
        usable1, usable2 = (np.random.default_rng(k).random(one.shape) > 0.3 for k in (1, 2))
        check(one, usable1, two, usable2, *args, min_overlap=0.2)


def test_grey_levels_of_very_different_contrast(isa):
    """Faint candidates beside ones whose squares are 1e40 times theirs, and the window among the faint."""
    one, two = (im.astype(np.float64) for im in pair("float around 0", seed=9))
    one, two = 1e-23 * one, 1e-23 * two
    two[:, :, 24:] *= 1e20
    two[23:] *= 1e22
    for zero_mean in (False, True):
        check(one, None, two, None, HWS, LOW, HIGH, zero_mean, CENTRES, CENTRES)


@pytest.mark.parametrize("method", PATHS)
@pytest.mark.parametrize("zero_mean", [False, True])
def test_windows_without_a_cc_are_not_evaluated(zero_mean, method):
    """Candidates without a CC are told apart before any is evaluated in double precision."""
    random = np.random.default_rng(2)
    one, two = random.normal(100, 20, (2, 45, 45, 45)).astype(np.float32)
    empty, nothing = two.copy(), np.zeros_like(two)
    empty[:, :, 15:] = 0
    centre = np.array([[22, 22, 22]])

    def evaluated(first, second):
        out = np.zeros((1, 3), np.int64), np.zeros(1), np.zeros(1)
        search_range = (10,) * 3, (-8,) * 3, (8,) * 3
        return pixel_search.search_points(
            first, None, second, None, *search_range, zero_mean, centre, centre, *out, method=method
        )[0]

    # 1734 candidates of `empty` are zeros throughout: their bounds are infinite, as are all of the last two pairs
    assert 1 <= evaluated(one, two) <= 3
    assert 1 <= evaluated(one, empty) <= 3
    assert evaluated(one, nothing) == 0
    assert evaluated(nothing, two) == 0


def counts(one, two, hws, reach, centres, **more):
    """Numbers of candidates evaluated in double precision, and summed over all voxels; and the answers."""
    answers = np.zeros((len(centres), 3), np.int64), np.zeros(len(centres)), np.zeros(len(centres))
    boxes = [np.ascontiguousarray(box, np.float32) for box in (one, two)]
    low, high = [[sign * n for n in reach] for sign in (-1, 1)]
    args = boxes[0], None, boxes[1], None, hws, low, high, False, centres, centres, *answers
    return *pixel_search.search_points(*args, **more), *answers


def test_blocks_leave_most_candidates_out(isa):
    """Of a texture that is smoother than voxels few candidates get sums over all voxels, of white noise all."""
    smooth = pair("16-bit offset", (36, 36, 36))
    noise = np.random.default_rng(0).normal(size=(2, 36, 36, 36))
    centres, hws, reach = np.array([[17, 17, 17], [18, 18, 18]]), (9, 10, 11), (4, 3, 5)
    offsets = len(centres) * 9 * 7 * 11
    for (one, two), least, most in ((smooth, 2, 0.05 * offsets), (noise, 0.5 * offsets, offsets + 2)):
        assert counts(one, two, hws, reach, centres, method="direct")[1] == offsets
        assert least <= counts(one, two, hws, reach, centres)[1] <= most


def test_noise_is_not_compared_by_blocks_each_time(isa):
    """Unlike noise: blocks exclude nothing, which costs one sum more; after that five points do without them."""
    one, two = np.random.default_rng(6).normal(100, 20, size=(2, 36, 36, 36))
    centres, hws, reach = np.full((8, 3), 17), (9, 9, 9), (3, 3, 3)
    direct = counts(one, two, hws, reach, centres, method="direct")
    auto = counts(one, two, hws, reach, centres)
    assert (direct[1], auto[1]) == (8 * 7**3, 8 * 7**3 + 2)
    np.testing.assert_array_equal(auto[2], direct[2])


def test_points_that_blocks_do_not_decide_go_by_fft(isa):
    """Of a large range: those of white noise; the other ones do not."""
    one = 100 * texture((60, 60, 140), 3)
    two = np.roll(one, (3, -5, 7), (0, 1, 2)) + np.random.default_rng(1).normal(size=one.shape)
    one[:, :, 70:], two[:, :, 70:] = np.random.default_rng(2).normal(size=(2, 60, 60, 70))
    centres, hws, reach = np.array([[29, 29, 29], [30, 29, 30], [29, 29, 110]]), (9, 9, 9), (18, 18, 18)
    costs = {path: counts(one, two, hws, reach, centres, method=path) for path in ("auto", *PATHS)}
    for path in PATHS:
        for auto, other in zip(costs["auto"][2:], costs[path][2:], strict=True):
            np.testing.assert_array_equal(auto, other)
    assert costs["auto"][2][:2].tolist() == [[3, -5, 7]] * 2
    # the sums of the last point are nearly all
    assert costs["screened"][1] > 37**3 / 2
    assert 2 <= costs["auto"][1] < 0.02 * 37**3


@pytest.mark.parametrize("hws", [(5, 5, 5), (4, 6, 7), (0, 15, 14)])
def test_what_blocks_do_not_see(hws, isa):
    """The best candidate has little in common with the means of blocks, and the second one little else.

    Means A and rest r of the same norm: CC of s A + r is (s + 1) / sqrt(2 (s^2 + 1)), of which r gives a part that is
    the bound, but for a few percent: a constant is taken off, and the last blocks are cut. A + 0.45 r is just below.
    """
    random = np.random.default_rng(9)
    shape = tuple(2 * h + 1 for h in hws)
    blocks = tuple(2 if n > 1 else 1 for n in shape)
    padded = tuple(-(-n // 2) * 2 if n > 1 else 1 for n in shape)
    ones = np.zeros(padded)
    ones[tuple(slice(n) for n in shape)] = 1

    def means(values):
        """Means of blocks of whole voxels of the window, zeros where the window has a part of a block."""
        z, y, x = (n // b for n, b in zip(padded, blocks, strict=True))
        split = (values * ones).reshape(z, blocks[0], y, blocks[1], x, blocks[2])
        out = np.broadcast_to(split.mean(axis=(1, 3, 5), keepdims=True), split.shape).reshape(padded)
        whole = np.broadcast_to(ones.reshape(split.shape).min(axis=(1, 3, 5), keepdims=True), split.shape).reshape(
            padded
        )
        return out * whole

    mean = means(random.normal(size=padded))
    mean -= means(np.full(padded, mean[mean != 0].mean()))
    rest = random.normal(size=padded) * (mean != 0)
    rest -= means(rest)
    mean, rest = (v[tuple(slice(n) for n in shape)] / np.linalg.norm(v) for v in (mean, rest))
    s = 0.45
    high = (1 if shape[0] > 1 else 0, 1, shape[2] + 2)
    for place in np.ndindex(1 + high[0], 2, 2):
        two = np.zeros(tuple(n + h for n, h in zip(shape, high, strict=True)))
        best, second = (
            tuple(slice(p, p + n) for p, n in zip(at, shape, strict=True))
            for at in (place, (*place[:2], place[2] + shape[2]))
        )
        two[best] += s * mean + rest
        two[second] += mean + (s - 0.002) * rest
        centre = np.array([hws])
        args = ((mean + rest) * 1000, None, two * 500, None, hws, (0, 0, 0), high, False, centre, centre)
        assert check(*args).tolist() == [list(place)]


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("most", [255, 65535])
@pytest.mark.parametrize("hws", [(0, 100, 90), (9, 8, 10), (0, 3, 200)])
def test_grey_levels_at_the_ends_of_their_range(hws, most, zero_mean, isa):
    """Images of 0 and the largest grey level only, and of the largest one but for few voxels: sums beyond 32 bits."""
    random = np.random.default_rng(3)
    reach = tuple(min(h, 2) for h in hws)
    size = tuple(2 * (h + r) + 1 for h, r in zip(hws, reach, strict=True))
    low, high = [[sign * n for n in reach] for sign in (-1, 1)]
    centre = np.array([[h + r for h, r in zip(hws, reach, strict=True)]])
    for share in (0.5, 0.001, 0.999):
        one = np.where(random.random(size) < share, most, 0)
        two = np.roll(one, (-min(1, hws[0]), 1, -2), (0, 1, 2))
        check(one, None, two, None, hws, low, high, zero_mean, centre, centre)
        two = np.where(random.random(size) < share, most, 0)
        check(one, None, two, None, hws, low, high, zero_mean, centre, centre)


@pytest.mark.parametrize("hws", [(0, 200, 200), (20, 20, 20), (0, 1, 150), (30, 2, 2)])
def test_large_windows(hws, isa):
    reach = tuple(min(h, 1) for h in hws)
    size = tuple(2 * (h + r) + 1 for h, r in zip(hws, reach, strict=True))
    one = np.rint(30000 + 5000 * texture(size, 4))
    two = np.roll(one, (0, 1, -1), (0, 1, 2)) + np.rint(np.random.default_rng(5).normal(0, 200, size))
    low, high = [[sign * n for n in reach] for sign in (-1, 1)]
    centre = np.array([[h + r for h, r in zip(hws, reach, strict=True)]])
    assert check(one, None, two, None, hws, low, high, True, centre, centre).tolist() == [[0, 1, -1]]


def test_empty_surroundings():
    """Windows of exact zeros beside textured ones have no CC and spoil no other."""
    one, two = (im.astype(np.float32) for im in pair("8-bit"))
    one[:, :, 14:], two[:, :, 15:] = 0, 0
    for zero_mean in (False, True):
        check(one, None, two, None, HWS, LOW, HIGH, zero_mean, CENTRES, CENTRES)


@pytest.mark.parametrize(
    ("hws", "low", "high"),
    [
        ((0, 8, 9), (0, -5, -6), (0, 6, 4)),  # 2D
        ((0, 0, 0), (-1, -1, -1), (1, 1, 1)),
        ((1, 0, 6), (-2, 0, 3), (-1, 4, 3)),
        ((3, 2, 1), (0, 0, 0), (0, 0, 0)),
        ((1, 1, 1), (-5, -6, -7), (5, 6, 7)),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_sizes(hws, low, high, masked, isa):
    rng = np.random.default_rng(8)
    one, two = rng.integers(0, 255, (2, 17, 31, 33))
    usable1, usable2 = rng.random((2, *one.shape)) > 0.3 if masked else (None, None)
    if hws[0] == low[0] == 0 and high[0] == 0:
        one, two = one[:1], two[:1]
        usable1, usable2 = (None if u is None else u[:1] for u in (usable1, usable2))
        centres = np.array([[0, 15, 16], [0, 14, 15]])
    else:
        centres = np.array([[8, 15, 16], [8, 14, 15]])
    check(one, usable1, two, usable2, hws, low, high, False, centres, centres)


def test_every_block_of_offsets(isa):
    """All numbers of offsets along y and x, with a marked voxel: a block in the wrong place would show."""
    rng = np.random.default_rng(4)
    one, two = rng.integers(0, 255, (2, 9, 40, 41)).astype(np.float32)
    for dy in range(1, 12):
        for dx in range(1, 12):
            centre = np.array([[4, 18, 18]])
            y, x = rng.integers(dy), rng.integers(dx)
            two[2:7, 18 - 6 + y : 18 + 7 + y, 18 - 5 + x : 18 + 6 + x] = one[2:7, 12:25, 13:24]
            offset, cc, _ = search(
                one, None, two, None, (2, 6, 5), (0, 0, 0), (0, dy - 1, dx - 1), False, centre, centre, method="direct"
            )
            assert offset.tolist() == [[0, y, x]]
            assert cc[0] == 1


def test_min_overlap():
    one, two = (im.astype(np.float32) for im in pair("8-bit"))
    usable2 = np.zeros(two.shape, bool)
    usable2[:, :, :16] = True
    centre = np.array([[13, 14, 18]])
    for least in (0.0, 0.2, 0.6, 1.0):
        check(one, None, two, usable2, HWS, LOW, HIGH, False, centre, centre, min_overlap=least)
    assert search(one, None, two, usable2, HWS, LOW, HIGH, False, centre, centre, min_overlap=1.0)[1] == 0


def test_own_window():
    one, two = (im.astype(np.float32) for im in pair("16-bit range"))
    for c in CENTRES[:3]:
        window = np.ascontiguousarray(cut(one, c, HWS))
        alone = pixel_search.search_window(window, None, two, None, LOW, HIGH, False, c)
        offset, cc, error = search(one, None, two, None, HWS, LOW, HIGH, False, [c], [c])
        np.testing.assert_array_equal(alone[0], offset[0])
        assert alone[1:] == (cc[0], error[0])


def test_wrong_arguments():
    image = np.zeros((9, 9, 9), np.float32)
    centre, inside = np.array([[4, 4, 4]]), ((2, 2, 2), (-1, -1, -1), (1, 1, 1))
    with pytest.raises(ValueError, match="window of point 0"):
        search(image, None, image, None, (5, 2, 2), *inside[1:], False, centre, centre)
    with pytest.raises(ValueError, match="search range of point 0"):
        search(image, None, image, None, (2, 2, 2), (-1, -1, -3), (1, 1, 1), False, centre, centre)
    with pytest.raises(ValueError, match="after its end"):
        search(image, None, image, None, (2, 2, 2), (1, 0, 0), (0, 0, 0), False, centre, centre)
    with pytest.raises(ValueError, match="shape of its box"):
        search(image, np.ones((8, 9, 9)), image, None, *inside, False, centre, centre)
    with pytest.raises(ValueError, match="method"):
        search(image, None, image, None, *inside, False, centre, centre, method="other")
    search(image, None, image, None, *inside, False, np.zeros((0, 3)), np.zeros((0, 3)))


def test_method_follows_from_sizes():
    assert pixel_search.choose_method((10,) * 3, (-4,) * 3, (4,) * 3) == "screened"
    assert pixel_search.choose_method((10,) * 3, (-12,) * 3, (12,) * 3) == "screened"
    assert pixel_search.choose_method((10,) * 3, (-40,) * 3, (40,) * 3) == "fft"
    assert pixel_search.choose_method((0, 10, 10), (0, -4, -4), (0, 4, 4)) == "direct"
    assert pixel_search.choose_method((0, 40, 40), (0, -20, -20), (0, 20, 20)) == "screened"
