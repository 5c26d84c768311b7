"""Limits of plausible grey levels however images are read, and the statistics against sums over the very windows."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.grey import ANY_VALUE, GreyLevels, plausible_limits
from mpidvc.core.grid import make_grid
from mpidvc.core.pixel_search import SearchSettings
from mpidvc.images.image import ArrayImage, open_image
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks import grey
from mpidvc.tasks.binned import BinnedImage
from mpidvc.tasks.boxes import read_float_box, read_sampled_box
from mpidvc.tasks.grey import Windows, grey_levels, region_windows, with_limits
from mpidvc.tasks.placement import Placement, placed
from mpidvc.tasks.texture import texture_of

PAIR = AnalyticPair((44, 52, 60), seed=3, translation=(1.2, -0.8, 1.6))
ONE, TWO = PAIR.image1(), PAIR.image2()
BAD = (20, 30, 31)


def still(rows):
    return np.tile(np.eye(4), (len(rows), 1, 1))


def moving(t):
    def guess(rows):
        phi = still(rows)
        phi[:, :3, 3] = t
        return phi

    return guess


def with_fault(value: float) -> np.ndarray:
    image = ONE.astype(np.float32)
    image[BAD] = value
    return image


# Limits


def test_integers_have_no_limits():
    for image in (ONE, ONE.astype(np.int32) * 30_000):
        assert with_limits(ArrayImage(image)).limits == ANY_VALUE


@pytest.mark.parametrize("fault", [1e9, -3.4e38, -1e30])
def test_limits_of_an_image(fault):
    """Blocks that cover a small image hold all of it."""
    image = with_limits(ArrayImage(with_fault(fault)))
    assert image.limits == pytest.approx(plausible_limits(ONE), rel=0.1)
    assert not image.limits[0] <= fault <= image.limits[1]


def test_limits_travel_with_the_image(tmp_path: Path):
    """However the image is stored, opened and read: the same limits, and the same voxels that are no data."""
    values = with_fault(1e9)
    tifffile.imwrite(tmp_path / "plain.tif", values, photometric="minisblack")
    tifffile.imwrite(tmp_path / "zlib.tif", values, photometric="minisblack", compression="zlib", rowsperstrip=7)
    low, high = np.array([15, 25, 26]), np.array([25, 35, 36])
    expected = with_limits(ArrayImage(values)).limits
    for name in ("plain", "zlib"):
        image = with_limits(open_image(tmp_path / f"{name}.tif"))
        for mode in ("shared", "mapped", "boxes"):
            with placed(InlineExecutor(), Placement(mode), [image]) as (way,):
                for one in (way, pickle.loads(pickle.dumps(way))):
                    assert one.limits == expected
                    box, _, real = read_float_box(one, low, high)
                    assert real is not None
                    np.testing.assert_array_equal(np.argwhere(real == 0), [np.array(BAD) - low])
                    assert box.max() < 65536


@pytest.mark.parametrize("order", [1, 3])
def test_a_fault_is_treated_as_nan(order):
    """The spline's prefilter would spread it."""
    low, high = np.array([14, 24, 25]), np.array([26, 36, 37])
    box, valid, _ = read_sampled_box(with_limits(ArrayImage(with_fault(-3.4e38))), low, high, order)
    expected, holes, _ = read_sampled_box(ArrayImage(with_fault(np.nan)), low, high, order)
    np.testing.assert_array_equal(box, expected)
    np.testing.assert_array_equal(valid, holes)


def test_bins_that_hold_a_fault_are_no_data():
    image = BinnedImage(with_limits(ArrayImage(with_fault(1e9))), 4)
    _, _, real = read_float_box(image, np.zeros(3, np.int64), np.array(image.shape))
    assert real is not None
    np.testing.assert_array_equal(np.argwhere(real == 0), [np.array(BAD) // 4])


def test_texture_without_the_fault():
    node = np.array([BAD], np.float64)
    windows = SearchSettings((4, 4, 4), (0, 0, 0), (0, 0, 0), min_coverage=0.0)
    clean = texture_of(ArrayImage(with_fault(np.nan)), None, node, windows)
    assert texture_of(with_limits(ArrayImage(with_fault(1e9))), None, node, windows) == clean


# Statistics


def brute(one, two, nodes, t, hws, mask=None, coverage=0.0, low=-np.inf, high=np.inf):
    """All windows, voxel by voxel as the contract says; grey levels of both images."""
    first, second = [], []
    t = np.rint(t).astype(int)
    for node in nodes.astype(int):
        whole = [range(c - h, c + h + 1) for c, h in zip(node, hws, strict=True)]
        grid = np.stack(np.meshgrid(*whole, indexing="ij"), -1).reshape(-1, 3)
        inside = ((grid >= 0) & (grid < one.shape)).all(axis=1)
        real = inside.copy()
        real[inside] = np.isfinite(one[tuple(grid[inside].T)])
        mean = one[tuple(grid[real].T)].mean(dtype=float)
        usable = real.copy()
        if mask is not None:
            usable[real] = mask[tuple(grid[real].T)] != 0
        if not low < mean < high or not usable.any() or usable.mean() < coverage:
            continue
        compared = usable & (np.abs(grid - node) <= np.maximum(np.array(hws) - 1, 0)).all(axis=1)
        there = grid + t
        compared &= ((there >= 0) & (there < two.shape)).all(axis=1)
        first.append(one[tuple(grid[compared].T)])
        second.append(two[tuple(there[compared].T)])
    return [(np.asarray(a, float), np.asarray(b, float)) for a, b in zip(first, second, strict=True) if a.size]


def mean_of(pairs, k):
    return np.concatenate([pair[k] for pair in pairs]).mean()


NODES, _ = make_grid(ONE.shape, (9, 9, 9))


@pytest.mark.parametrize(
    ("t", "options"),
    [
        ((0.0, 0.0, 0.0), {}),
        ((1.2, -0.8, 1.6), {}),
        ((1.2, -0.8, 1.6), {"low": 20_000.0}),
        ((1.2, -0.8, 1.6), {"high": 19_000.0, "coverage": 0.9}),
        ((-3.0, 8.0, 20.0), {"mask": True}),
        ((0.4, 0.4, 0.4), {"mask": True, "coverage": 0.6, "low": 19_000.0}),
    ],
)
def test_statistics_of_the_windows_of_the_run(monkeypatch, t, options):
    """With fewer windows than are looked at, all of them: the sums of numpy over the same voxels."""
    z, y, x = np.indices(ONE.shape)
    mask = ((z - 20) ** 2 + (y - 22) ** 2 + (x - 24) ** 2 < 15**2).astype(np.uint8) if options.get("mask") else None
    limits = options.get("coverage", 0.0), options.get("low", -np.inf), options.get("high", np.inf)
    expected = brute(ONE, TWO, NODES, t, (5, 5, 5), mask, *limits)
    monkeypatch.setattr(grey, "MOST_WINDOWS", 10_000)
    monkeypatch.setattr(grey, "MOST_VOXELS", 10**9)
    monkeypatch.setattr(grey, "LOOKED_AT", 10_000)
    images = ImagePair(ArrayImage(ONE), ArrayImage(TWO), None if mask is None else ArrayImage(mask))
    found = grey_levels(images, Windows(NODES, moving(t), (5, 5, 5), *limits))
    assert len(expected) > 8
    # the order of windows does not enter but by rounding
    together = GreyLevels.of(expected)
    for name in ("mean1", "sd1", "mean2", "sd2", "local_shift", "local_ratio"):
        assert getattr(found, name) == pytest.approx(getattr(together, name), rel=1e-9, abs=1e-9), name
    assert found.mean1 == pytest.approx(mean_of(expected, 0), abs=0.02 * found.sd1)
    assert found.mean2 == pytest.approx(mean_of(expected, 1), abs=0.02 * found.sd2)


def test_windows_of_a_sample():
    """A fixed sample: near the statistics of all windows, the same each time, and no more than so many."""
    images = ImagePair(ArrayImage(ONE), ArrayImage(TWO))
    nodes, _ = make_grid(ONE.shape, (3, 3, 3))
    windows = Windows(nodes, moving((1.2, -0.8, 1.6)), (5, 5, 5))
    found = grey_levels(images, windows)
    assert found == grey_levels(images, windows)
    expected = GreyLevels.of(brute(ONE, TWO, nodes, (1.2, -0.8, 1.6), (5, 5, 5)))
    assert abs(found.mean1 - expected.mean1) < 0.1 * expected.sd1
    assert found.mean2 - found.mean1 == pytest.approx(expected.mean2 - expected.mean1, abs=0.02 * expected.sd1)
    assert found.sd2 / found.sd1 == pytest.approx(expected.sd2 / expected.sd1, abs=0.02)


def test_thresholds_choose_windows_and_no_voxels():
    """A voxel chosen because it is bright in image 1 is less bright where image 2 shows another: noise is enough."""
    random = np.random.default_rng(4)
    noisy = [ONE + random.normal(0, 3000, ONE.shape) for _ in range(2)]
    images = ImagePair(*(ArrayImage(image.astype(np.float32)) for image in noisy))
    levels = grey_levels(images, Windows(NODES, still, (5, 5, 5), grey_low=20_000.0))
    assert levels.agree
    assert levels.mean1 > 20_000
    bright = noisy[0] > 20_000
    assert not GreyLevels.of([(noisy[0][bright], noisy[1][bright])]).agree


def test_guesses_that_are_none_or_lead_nowhere():
    images = ImagePair(ArrayImage(ONE), ArrayImage(TWO))

    def guess(rows):
        phi = still(rows)
        phi[rows % 3 == 0, 0, 3] = np.nan
        phi[rows % 3 == 1, 1, 3] = 1e300
        return phi

    levels = grey_levels(images, Windows(NODES, guess, (5, 5, 5)))
    expected = GreyLevels.of(brute(ONE, TWO, NODES[2::3], (0, 0, 0), (5, 5, 5)))
    assert levels.mean1 == pytest.approx(expected.mean1, rel=0.05)
    nowhere = grey_levels(images, Windows(NODES, moving((0, 0, 500)), (5, 5, 5)))
    assert nowhere == GreyLevels(0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("shape", "margin"),
    [((44, 52, 60), (5, 6, 7)), ((1, 300, 410), (0, 30, 30)), ((400, 300, 200), (0, 30, 20)), ((3, 4, 5), (1, 1, 1))],
)
def test_windows_of_a_region(shape, margin):
    """Inside the region, spread over it; the displacement is Phi's at each centre."""
    phi = np.eye(4)
    phi[:3] = [[1.01, 0.02, 0.0, 1.0], [-0.02, 0.99, 0.03, 2.0], [0.0, 0.01, 1.0, 3.0]]
    windows = region_windows(shape, margin, phi)
    assert not windows.alone  # they are registered together
    low, high = np.array(margin), np.array(shape) - margin
    assert (windows.positions >= low).all()
    assert (windows.positions < high).all()
    reached = [np.zeros(n, bool) for n in shape]
    for axis, (h, one) in enumerate(zip(windows.hws, windows.positions.T.astype(int), strict=True)):
        for at in one:
            reached[axis][max(at - max(h - 1, 0), 0) : at + max(h - 1, 0) + 1] = True
        assert reached[axis][low[axis] : high[axis]].mean() >= (0.9 if np.prod(high - low) < 500_000 else 0.25)
    centre = (np.array(shape) - 1) / 2
    rows = np.arange(len(windows.positions))
    x = windows.positions - centre
    expected = x @ phi[:3, :3].T + phi[:3, 3] - x
    np.testing.assert_allclose(windows.guess(rows)[:, :3, 3], expected, atol=1e-9)


class Counting(ArrayImage):
    """A large image of which every box is the same; counts the voxels that are read."""

    def __init__(self, shape, dtype="float32"):
        super().__init__(np.zeros((1, 1), dtype))
        self.shape = shape
        self.read = []

    def _read(self, box):
        size = [s.stop - s.start for s in box]
        self.read.append(int(np.prod(size)))
        return np.resize(np.arange(97, dtype=self.dtype), size)


@pytest.mark.parametrize("hws", [(4, 4, 4), (10, 10, 10), (40, 40, 40)])
def test_large_images_are_hardly_read(hws):
    """A millionth of a scan of 10 000³ voxels, whatever is asked."""
    images = [Counting((10_000, 10_000, 10_000)) for _ in range(2)]
    limited = [with_limits(image) for image in images]
    nodes = np.random.default_rng(0).integers(100, 9900, (50_000, 3)).astype(float)
    grey_levels(ImagePair(*limited), Windows(nodes, still, hws, 0.5, -1e9, 1e9))
    region = region_windows(images[0].shape, (100, 100, 100), np.eye(4))
    grey_levels(ImagePair(*limited), region)
    for image in images:
        assert len(image.read) < 300
        assert sum(image.read) < 2 * 64 * 27**3 + 300_000 + 13 * (2 * hws[0] + 1) ** 3


def test_air_is_left_behind():
    """Where nearly all windows are skipped more are looked at, but not without end."""
    image = np.zeros((40, 40, 400), np.uint16)
    image[:, :, 390:] = ONE[:40, :40, :10]
    counting = [Counting((10_000, 10_000, 10_000), "uint16") for _ in range(2)]
    nodes = np.random.default_rng(0).integers(100, 9900, (50_000, 3)).astype(float)
    grey_levels(ImagePair(*counting), Windows(nodes, still, (4, 4, 4), 0.5, 1e9))
    assert len(counting[0].read) == grey.MOST_LOOKED_AT
    assert not counting[1].read
    positions, _ = make_grid(image.shape, (4, 4, 4))
    images = ImagePair(ArrayImage(image), ArrayImage(image))
    levels = grey_levels(images, Windows(positions, still, (4, 4, 4), grey_low=5_000.0))
    assert levels.mean1 > 5_000
