"""Pixel search of chunks of points: each against a brute-force search in float64 of the whole images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core import deformation
from mpidvc.core.grid import chunk_points, make_grid
from mpidvc.core.pixel_search import RESULT, SearchSettings, pad_of
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.kernels.pixel_search import choose_method
from mpidvc.tasks import pixel_search
from mpidvc.tasks.ldic import NEAR
from mpidvc.tasks.pixel_search import PixelSearch, PixelSearchTask, brick
from tests.kernels.oracle import DIMENSIONS, search_oracle
from tests.tasks.given import Given, Watched, phi_of, run_all

SHAPE, FLAT = (26, 28, 32), (1, 60, 66)
#: Of image 2 against image 1.
MOTION = np.array([1, -2, 3])
#: Voxels that the oracle's images have around.
AROUND = 40


def settings_of(two_d: bool = False, **more: Any) -> SearchSettings:
    if two_d:
        return SearchSettings((0, 6, 5), (0, -3, -4), (0, 4, 3), **more)
    return SearchSettings((3, 4, 3), (-2, -3, -2), (3, 2, 4), **more)


def pair(two_d: bool = False, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels around 100, the second image moved by `MOTION` and noisy."""
    shape = np.array(FLAT if two_d else SHAPE)
    motion = MOTION * [not two_d, 1, 1]
    pad = np.array([0 if two_d else 6, 6, 6])
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=shape + 2 * pad), [0 if two_d else 1.2, 1.2, 1.2])
    noise = 100 + 25 * noise / noise.std() + random.normal(size=noise.shape)
    one = noise[tuple(slice(p, p + n) for p, n in zip(pad, shape, strict=True))]
    two = noise[tuple(slice(p - m, p - m + n) for p, m, n in zip(pad, motion, shape, strict=True))]
    return one.astype(np.float32), (two + random.normal(size=two.shape)).astype(np.float32)


def images_of(
    one: np.ndarray, two: np.ndarray, mask1: np.ndarray | None = None, mask2: np.ndarray | None = None
) -> ImagePair:
    return ImagePair(*(None if values is None else ArrayImage(values) for values in (one, two, mask1, mask2)))  # type: ignore[arg-type]


def crowd(two_d: bool = False, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Nodes all over the image, and guesses about the motion with fractions, halves among them."""
    random = np.random.default_rng(2)
    nodes = (random.random((count, 3)) * (FLAT if two_d else SHAPE)).astype(int)
    guesses = (MOTION + random.choice([-0.7, -0.5, 0.2, 0.5, 1.3, 3.4 if two_d else 2.4], (count, 3))) * [
        not two_d,
        1,
        1,
    ]
    return nodes, phi_of(guesses)


class Oracle:
    """What one point's record has to be."""

    def __init__(self, images: ImagePair, settings: SearchSettings) -> None:
        self.settings, self.two_d = settings, images.two_d
        self.around = np.array([0 if self.two_d else AROUND, AROUND, AROUND])
        pad = [(n, n) for n in self.around]
        self.values, self.real, self.usable = [], [], []
        for image, mask in ((images.image1, images.mask1), (images.image2, images.mask2)):
            values = image.read_box((0, 0, 0), image.shape)[0].astype(np.float64)
            real = np.isfinite(values)
            usable = real if mask is None else real & (mask.read_box((0, 0, 0), mask.shape)[0] != 0)
            self.values.append(np.pad(np.where(real, values, 0), pad))
            self.real.append(np.pad(real, pad))
            self.usable.append(np.pad(usable, pad))

    def window1(self, node: np.ndarray, F: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Grey levels, usable and real voxels of window 1, deformed by F about its centre."""
        hws, centre = np.array(self.settings.hws), node + self.around
        if np.array_equal(F, np.eye(3)):
            part = tuple(slice(c - h, c + h + 1) for c, h in zip(centre, hws, strict=True))
            return self.values[0][part], self.usable[0][part], self.real[0][part]
        x = np.indices(2 * hws + 1) - hws.reshape(3, 1, 1, 1)
        at = np.einsum("ij,jzyx->izyx", np.linalg.inv(F), x)
        near = (np.abs(at) <= np.reshape(hws + pad_of(self.settings.hws), (3, 1, 1, 1)) + 1e-9).all(axis=0)
        at = (at + centre.reshape(3, 1, 1, 1))[1 if self.two_d else 0 :]

        def sampled(array: np.ndarray) -> np.ndarray:
            array = array.astype(float)
            return ndimage.map_coordinates(array[0] if self.two_d else array, at, order=1)

        real = near & (sampled(self.real[0]) > 0.9999)
        return sampled(self.values[0]), real & (sampled(self.usable[0]) >= 0.5), real

    def __call__(self, node: np.ndarray, phi: np.ndarray, F: np.ndarray) -> dict[str, Any]:
        settings = self.settings
        a, usable, real = self.window1(node, F)
        coverage = usable.mean()
        nothing = {"cc": 0.0, "status": -5, "error": np.inf, "coverage": coverage, "t": None, "limit": 0}
        mean = a[real].mean() if real.any() else np.nan
        bounded = settings.grey_low > -np.inf or settings.grey_high < np.inf
        refused = bounded and not settings.grey_low < mean < settings.grey_high
        if coverage == 0 or coverage < settings.min_coverage or refused:
            return nothing
        rounded = np.array([round(v) for v in phi[:3, 3]])
        hws, low, high = (np.array(v) for v in (settings.hws, settings.low, settings.high))
        first = node + rounded + self.around
        part = tuple(slice(f - h + lo, f + h + hi + 1) for f, h, lo, hi in zip(first, hws, low, high, strict=True))
        least = min(settings.min_coverage, 0.25)
        cc, error = search_oracle(a, usable, self.values[1][part], self.usable[1][part], settings.zero_mean, least)
        if not cc.max() > 0:
            return nothing
        at = np.unravel_index(np.argmax(cc), cc.shape)
        offset = np.array(at) + low
        limit = (((offset == low) | (offset == high)) & (low < high)).any()
        found = {"cc": cc[at], "status": 1, "error": error[at], "t": rounded + offset, "limit": limit}
        return found | {"coverage": coverage}


def check(images: ImagePair, settings: SearchSettings, nodes: np.ndarray, phi: np.ndarray, F: Any = None) -> np.ndarray:
    """All records against the oracle; `F`: what the windows are deformed by, none if not given."""
    oracle, F = Oracle(images, settings), np.tile(np.eye(3), (len(nodes), 1, 1)) if F is None else F
    records = PixelSearch(images, settings).search(nodes.astype(float), phi)
    exact = np.array_equal(F, np.tile(np.eye(3), (len(nodes), 1, 1)))
    for node, guess, gradient, record in zip(nodes, phi, F, records, strict=True):
        expected = oracle(node, guess, gradient)
        got = dict(zip(RESULT, record["result"], strict=True))
        assert got["returnStatus"] == expected["status"]
        # deformed windows are interpolated in single precision
        assert got["pixelSearchCC"] == pytest.approx(expected["cc"], rel=1e-11 if exact else 1e-5)
        assert got["error"] == pytest.approx(expected["error"], rel=1e-8 if exact else 1e-3)
        assert got["coverage"] == pytest.approx(expected["coverage"], abs=1e-12)
        assert (got["deltaPhiNorm"], got["iterations"]) == (1, 1)
        assert got["atLimit"] == expected["limit"]
        np.testing.assert_array_equal(record["phi"][:, :3], guess[:3, :3])
        if expected["t"] is None:
            assert np.isnan(record["phi"][:, 3]).all()
        else:
            np.testing.assert_array_equal(record["phi"][:, 3], expected["t"])
    return records


def status(records: np.ndarray) -> np.ndarray:
    return records["result"][:, RESULT.index("returnStatus")]


# ---- against the oracle


@pytest.mark.parametrize("zero_mean", [False, True])
@DIMENSIONS
def test_every_point(two_d, zero_mean):
    """Beyond the borders nothing is compared."""
    nodes, phi = crowd(two_d)
    records = check(images_of(*pair(two_d)), settings_of(two_d, zero_mean=zero_mean), nodes, phi)
    assert (status(records) == 1).sum() >= 15
    motion = MOTION * [not two_d, 1, 1]
    assert (records["phi"][:, :, 3] == motion).all(axis=1).sum() >= 10
    assert 0 < records["result"][:, RESULT.index("atLimit")].sum() < 15


@pytest.mark.parametrize("masks", [(True, False), (False, True), (True, True)])
@DIMENSIONS
def test_masks_and_holes(two_d, masks):
    one, two = pair(two_d)
    random = np.random.default_rng(3)
    made = [(random.random(one.shape) < 0.8) * np.uint16(256) if wanted else None for wanted in masks]
    one[random.random(one.shape) < 0.02], two[random.random(two.shape) < 0.02] = np.nan, -np.inf
    if made[1] is not None:
        made[1][..., :12] = 0
    records = check(images_of(one, two, *made), settings_of(two_d), *crowd(two_d))
    assert (status(records) == 1).sum() >= 10
    assert (status(records) == -5).any()


def test_a_mask_without_effect_is_none():
    one, two = pair()
    nodes, phi = crowd()
    ones = np.ones(one.shape, np.uint8)
    bare = PixelSearch(images_of(one, two), settings_of()).search(nodes, phi)
    masked = PixelSearch(images_of(one, two, ones, ones), settings_of()).search(nodes, phi)
    assert bare.tobytes() == masked.tobytes()


@pytest.mark.parametrize("least", [0.0, 0.3, 0.9, 1.0])
def test_coverage(least):
    """Of window 1 by itself, and a quarter of it, or less if so asked, in common with window 2."""
    one, two = pair()
    mask = np.ones(one.shape, np.uint8)
    mask[:, :, 16:] = 0
    mask2 = np.ones(two.shape, np.uint8)
    mask2[:12] = 0
    nodes, phi = crowd(count=50)
    records = check(images_of(one, two, mask, mask2), settings_of(min_coverage=least), nodes, phi)
    assert 3 <= (status(records) == 1).sum() < 50


def test_grey_thresholds():
    """The mean of window 1 over voxels that exist, masked ones included, strictly between."""
    one, two = pair()
    mask = (np.random.default_rng(4).random(one.shape) < 0.8).astype(np.uint8)
    records = check(images_of(one, two, mask), settings_of(grey_low=96.0, grey_high=104.0), *crowd(count=50))
    assert 5 <= (status(records) == 1).sum() < 40
    node = np.array([[13, 14, 16]])
    mean = float(one[10:17, 10:19, 13:20].astype(np.float64).mean())
    for low, high, found in (
        (mean, np.inf, -5),
        (-np.inf, mean, -5),
        (np.nextafter(mean, 0), np.nextafter(mean, 1e9), 1),
    ):
        settings = settings_of(grey_low=low, grey_high=high)
        assert status(PixelSearch(images_of(one, two), settings).search(node, phi_of([MOTION]))) == found


def test_large_ranges_go_over_blocks():
    one, two = pair()
    settings = SearchSettings((8, 8, 8), (-9, -9, -9), (9, 9, 9))
    assert choose_method(settings.hws, settings.low, settings.high) == "screened"
    nodes, phi = crowd(count=2)
    check(images_of(one, two), settings, nodes, phi)


@pytest.mark.parametrize("apply_f", ["all", "rigid", "no"])
@DIMENSIONS
def test_windows_deformed_by_the_guess(two_d, apply_f):
    """Also at borders, masks and holes; rows with and without a gradient side by side."""
    one, two = pair(two_d)
    random = np.random.default_rng(5)
    one[random.random(one.shape) < 0.005] = np.nan
    mask = (random.random(one.shape) < 0.9).astype(np.uint8)
    nodes, phi = crowd(two_d, 24)
    rotation = (8, 0, 0) if two_d else (8, -5, 4)
    U = np.diag([1, 1.05, 0.95]) if two_d else np.diag([1.03, 1.05, 0.95])
    phi[::2, :3, :3] = deformation.compute_phi(rotation=rotation, stretch=U)[:3, :3]
    used = {
        "all": phi[:, :3, :3],
        "rigid": np.where(np.arange(24)[:, None, None] % 2, np.eye(3), deformation.rotation_matrix(rotation)),
        "no": None,
    }[apply_f]
    records = check(images_of(one, two, mask), settings_of(two_d, apply_f=apply_f, min_coverage=0.3), nodes, phi, used)
    assert (status(records)[::2] == 1).sum() >= 4


def test_a_deformed_window_finds_what_a_plain_one_does_not():
    """Image 2 turned by 15 degrees about a node: with the guess's F the window is found where it is."""
    one, _ = pair()
    node = np.array([13, 14, 16])
    R = deformation.rotation_matrix((15, 0, 0))
    offset = node - R.T @ (node + MOTION)
    two = ndimage.affine_transform(one.astype(float), R.T, offset, order=3, mode="nearest").astype(np.float32)
    phi = phi_of(MOTION[None] + [1, 1, -1])
    phi[0, :3, :3] = R
    settings = SearchSettings((5, 5, 5), (-2, -2, -2), (2, 2, 2), zero_mean=True)
    (found,) = PixelSearch(images_of(one, two), settings).search(node[None], phi)
    np.testing.assert_array_equal(found["phi"][:, 3], MOTION)
    assert found["result"][0] > 0.95
    (plain,) = PixelSearch(
        images_of(one, two), SearchSettings(*(settings.hws, settings.low, settings.high, "no", True))
    ).search(node[None], phi)
    assert plain["result"][0] < 0.9


# ---- a point's result depends on its own windows only


@DIMENSIONS
def test_chunks_do_not_matter(two_d):
    """All points at once, in another order, in pieces and alone: the same bits."""
    one, two = pair(two_d)
    random = np.random.default_rng(6)
    one[random.random(one.shape) < 0.003], two[random.random(two.shape) < 0.003] = np.nan, np.nan
    masks = [(random.random(one.shape) < 0.9).astype(np.uint8) for _ in range(2)]
    nodes, phi = crowd(two_d)
    phi[4, 1, 3] += 17
    phi[9, 2, 3] = np.nan
    phi[12, 1:3, 1:3] = deformation.rotation_matrix((5, 0, 0))[1:, 1:]
    order = random.permutation(len(nodes))
    divisions = [None, [order], np.array_split(order, 7), [[k] for k in range(len(nodes))]]
    images = images_of(one, two, *masks)
    results = [
        run_all(PixelSearchTask(images, Given(nodes, phi, chunks), settings_of(two_d))).tobytes()
        for chunks in divisions
    ]
    assert len(set(results)) == 1


@pytest.mark.parametrize(("far", "boxes"), [(NEAR, 1), (NEAR + 1, 2), (-NEAR - 1, 2)])
def test_outliers_have_boxes_of_their_own(far, boxes):
    one, two = (np.pad(image, 30, mode="wrap") for image in pair())
    nodes = np.array([[40, 44, 50], [42, 45, 51], [41, 46, 49], [43, 44, 50]])
    phi = phi_of(np.zeros((4, 3)))
    phi[3, 1, 3] = far
    images = ImagePair(Watched(one), Watched(two))
    together = PixelSearch(images, settings_of()).search(nodes, phi)
    assert len(images.image2.boxes) == boxes  # type: ignore[attr-defined]
    alone = [PixelSearch(images_of(one, two), settings_of()).search(nodes[[k]], phi[[k]]) for k in range(4)]
    assert together.tobytes() == np.concatenate(alone).tobytes()
    # windows, their range, and nodes two or three apart
    assert max(images.image2.boxes) <= (7 + 5 + 3) * (9 + 5 + 2 + (NEAR if boxes == 1 else 0)) * (7 + 6 + 2)  # type: ignore[attr-defined]


# ---- rows of points that cannot be searched


def test_guesses_that_are_no_numbers():
    nodes, phi = crowd(count=12)
    whole = PixelSearch(images_of(*pair()), settings_of()).search(nodes, phi)
    bad = [(2, (0, 3), np.nan), (5, (1, 1), np.inf), (7, (0, 0), 0.0)]
    for k, place, value in bad:
        phi[(k, *place)] = value
    phi[7, 0] = [0, 0, 0, 1]
    records = PixelSearch(images_of(*pair()), settings_of()).search(nodes, phi)
    rows = [k for k, _, _ in bad]
    np.testing.assert_array_equal(records["result"][rows], np.tile([0, -7, np.inf, 1, 1, 0, 0], (3, 1)))
    assert np.isnan(records["phi"][rows, :, 3]).all()
    np.testing.assert_array_equal(records["phi"][2, :, :3], np.eye(3))
    np.testing.assert_array_equal(records["phi"][5, :, :3], np.eye(3))
    np.testing.assert_array_equal(records["phi"][7, :, :3], np.diag([0, 1, 1]))
    others = np.delete(np.arange(12), rows)
    assert records[others].tobytes() == whole[others].tobytes()
    # without F applied a singular one is none of the search's business
    free = PixelSearch(images_of(*pair()), settings_of(apply_f="no")).search(nodes, phi)
    np.testing.assert_array_equal(np.flatnonzero(status(free) == -7), [2, 5])
    only = PixelSearch(images_of(*pair()), settings_of()).search(nodes[rows], phi[rows])
    assert only.tobytes() == records[rows].tobytes()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_searches_that_miss_image_2(axis):
    """By a voxel, or by more than an integer holds."""
    settings = settings_of(min_coverage=0.0)
    node = np.array([[13, 14, 16]])
    high_edge = SHAPE[axis] - 1 - node[0, axis] + settings.hws[axis] - settings.low[axis]
    low_edge = -node[0, axis] - settings.hws[axis] - settings.high[axis]
    images = ImagePair(ArrayImage(pair()[0]), Watched(pair()[1]))
    for t, met in ((high_edge, True), (high_edge + 1, False), (low_edge, True), (low_edge - 1, False), (1e30, False)):
        phi = phi_of([np.eye(3)[axis] * t])
        images.image2.boxes.clear()  # type: ignore[attr-defined]
        (record,) = PixelSearch(images, settings).search(node, phi)
        assert (len(images.image2.boxes) > 0) == met  # type: ignore[attr-defined]
        assert record["result"][1] == (1 if met else -5)


def test_nothing_correlates():
    one, two = pair()
    nodes, phi = crowd(count=5)
    records = PixelSearch(images_of(one, -two), settings_of()).search(nodes, phi)
    np.testing.assert_array_equal(status(records), -5)
    assert np.isnan(records["phi"][:, :, 3]).all()
    np.testing.assert_array_equal(records["result"][:, [0, 2, 6]], np.tile([0, np.inf, 0], (5, 1)))


def test_fractions_of_positions_are_dropped():
    nodes, phi = crowd(count=8)
    search = PixelSearch(images_of(*pair()), settings_of())
    assert search.search(nodes, phi).tobytes() == search.search(nodes + 0.9, phi).tobytes()


def test_no_points():
    assert len(PixelSearch(images_of(*pair()), settings_of()).search(np.zeros((0, 3)), np.zeros((0, 4, 4)))) == 0


@DIMENSIONS
def test_boxes_stay_below_their_limit(two_d, monkeypatch):
    largest = 10_000 if two_d else 60_000
    monkeypatch.setattr(pixel_search, "LARGEST_BOX", largest)
    shape = (1, 300, 320) if two_d else (70, 80, 90)
    noise = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    settings = settings_of(two_d)
    positions, _ = make_grid(shape, (4, 4, 4))
    guess = phi_of(np.zeros((len(positions), 3)))
    guess[:, 1:3, 1:3] = deformation.rotation_matrix((3, 0, 0))[1:, 1:]
    for regular in (True, False):
        chunks = chunk_points(positions, brick(len(positions), (4, 4, 4), settings, two_d, regular))
        given = Given(positions, guess, [chunks.points(k) for k in range(len(chunks))])
        images = ImagePair(Watched(noise), Watched(noise))
        task = PixelSearchTask(images, given, settings)
        for k in range(0, len(chunks), len(chunks) // 3):
            task.run(k)
        assert max(images.image1.boxes + images.image2.boxes) <= largest  # type: ignore[attr-defined]
        assert max(len(chunk) for chunk in given.chunks) > 4
