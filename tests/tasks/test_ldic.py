"""Local correlation of chunks of points: each against Gauss-Newton in float64 on its own windows of the whole images.

What else is in a chunk, and how points are divided into chunks, changes no bit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.grid import chunk_points, make_grid
from mpidvc.core.registration import RegistrationSettings
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.tasks import ldic
from mpidvc.tasks.ldic import NEAR, LdicSettings, LdicTask, brick
from tests.kernels.oracle import DIMENSIONS, ORDERS, Outcome, Pair, Run, agree, expected_outcome, moving, moving_phi
from tests.tasks.given import Given, Watched, phi_of, run_all

#: Voxels that the oracle's images have around.
AROUND = 16


def settings_of(two_d: bool, order: int = 1, margin: int = 1, **more: Any) -> LdicSettings:
    own = {name: more.pop(name) for name in ("min_coverage", "grey_low", "grey_high") if name in more}
    registration = RegistrationSettings(order=order, **more)
    return LdicSettings(
        registration, *(((0, 9, 10), (0, margin, margin)) if two_d else ((5, 5, 6), (margin,) * 3)), **own
    )


def images_of(
    im1: np.ndarray, im2: np.ndarray, mask1: np.ndarray | None = None, kind: type[ArrayImage] = ArrayImage
) -> ImagePair:
    return ImagePair(*(kind(im.astype(np.float32)) for im in (im1, im2)), None if mask1 is None else kind(mask1))


def crowd(two_d: bool, count: int = 24, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Nodes all over the image, at its borders too, and guesses that are off by up to half a voxel."""
    random = np.random.default_rng(seed)
    shape = np.array(moving(two_d, 1).im1.shape)
    nodes = (random.random((count, 3)) * shape).astype(int)
    F, t = moving_phi(two_d)
    displacement = t + (nodes - (shape - 1) / 2) @ (F - np.eye(3)).T
    displacement += random.uniform(-0.4, 0.4, (count, 3)) * [not two_d, 1, 1]
    return nodes, phi_of(displacement)


def outcomes(records: np.ndarray) -> list[Outcome]:
    out = []
    for phi, (error, iterations, status, norm, coverage, zncc) in zip(records["phi"], records["result"], strict=True):
        out.append(Outcome(phi[:, :3], phi[:, 3], error, int(iterations), int(status), norm, coverage, zncc))
    return out


class Oracle:
    """What one point's result has to be, from its own two windows of the whole images."""

    def __init__(self, pair: Pair, settings: LdicSettings, mask1: np.ndarray | None = None) -> None:
        self.settings, self.shape2 = settings, np.array(pair.im2.shape)
        self.hws, self.margin = np.array(settings.hws), np.array(settings.margin)
        self.around = np.array([0 if pair.two_d else AROUND, AROUND, AROUND])
        pad = [(n, n) for n in self.around]
        exists = np.pad(np.isfinite(pair.im1), pad)
        cross = ndimage.generate_binary_structure(3, 1)[1:2] if pair.two_d else None
        self.covered = exists if mask1 is None else exists & np.pad(mask1 != 0, pad)
        self.usable = ndimage.binary_erosion(exists, cross) & self.covered
        self.im1 = np.nan_to_num(np.pad(pair.im1, pad), nan=0.0)
        # image 2 goes on as a spline's mirror does
        im2 = np.pad(np.nan_to_num(pair.im2, nan=100.0, posinf=100.0), pad, mode="reflect")
        finite = np.isfinite(pair.im2)
        valid2 = None if finite.all() else np.pad(finite, pad, constant_values=True).astype(np.uint8)
        self.pair = Pair(self.im1, im2, settings.registration.order, valid2=valid2)
        names = ("rigid", "update_gradient", "max_iterations", "min_delta_phi")
        run = {name: getattr(settings.registration, name) for name in names}
        self.run = Run(hws=settings.hws, znssd=settings.registration.criterion == "znssd", **run)

    def coverage(self, node: np.ndarray) -> float:
        window = tuple(slice(c + n - h, c + n + h + 1) for c, n, h in zip(node, self.around, self.hws, strict=True))
        return float(self.covered[window].mean())

    def __call__(self, node: np.ndarray, phi: np.ndarray) -> Outcome:
        moved = node + np.rint(phi[:3, 3]).astype(int)
        low2 = np.maximum(moved - self.hws - self.margin, 0)
        high2 = np.minimum(moved + self.hws + self.margin, self.shape2 - 1)
        if self.pair.two_d:
            low2[0] = high2[0] = 0
        # image 1 about the window, in coordinates of its own
        start = node + self.around - self.hws - 1
        part = tuple(slice(a, a + 2 * h + 3) for a, h in zip(start, self.hws, strict=True))
        if self.pair.two_d:
            start[0], part = 0, (slice(0, 1), *part[1:])
        shift = start - self.around
        own = replace(
            self.pair, im1=self.im1[part], usable=self.usable[part], low2=low2 + self.around, high2=high2 + self.around
        )
        own.__dict__["samples2"] = self.pair.samples2
        about = phi.copy()
        about[:3, 3] += start
        expected = expected_outcome(own, self.run, node - shift, about)
        expected.t = expected.t - start
        return expected


def check(
    pair: Pair, settings: LdicSettings, nodes: np.ndarray, phi: np.ndarray, mask1: np.ndarray | None = None
) -> int:
    """Points that keep most of their window are the oracle's; returns how many there are."""
    task = LdicTask(images_of(pair.im1, pair.im2, mask1), Given(nodes, phi), settings)
    oracle = Oracle(pair, settings, mask1)
    good = 0
    for node, guess, got in zip(nodes, phi, outcomes(run_all(task)), strict=True):
        coverage = oracle.coverage(node)
        assert (got.status == -5) == (coverage < settings.min_coverage)
        if got.status == -5:
            continue
        expected = oracle(node, guess)
        # less of a window is a matter of conditioning, not of these sums
        if expected.status in (1, 2) and expected.coverage > 0.6:
            agree(got, expected, 2e-5)
            good += 1
    return good


# ---- against the oracle


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@DIMENSIONS
@ORDERS
def test_every_point_is_that_of_its_own_windows(order, two_d, criterion):
    """In one chunk, at the borders of both images too."""
    nodes, phi = crowd(two_d)
    assert check(moving(two_d, order), settings_of(two_d, order, criterion=criterion), nodes, phi) >= 12


@DIMENSIONS
@ORDERS
def test_masked_and_missing_voxels_of_image_1(order, two_d):
    pair = moving(two_d, order)
    random = np.random.default_rng(5)
    mask = (random.random(pair.im1.shape) < 0.85).astype(np.uint8)
    mask[..., -8:] = 0
    im1 = pair.im1.copy()
    im1[random.random(im1.shape) < 0.002] = np.nan
    nodes, phi = crowd(two_d)
    assert check(Pair(im1, pair.im2, order), settings_of(two_d, order), nodes, phi, mask) >= 8


@DIMENSIONS
@ORDERS
@pytest.mark.parametrize("most", [0, 1])
def test_missing_voxels_of_image_2(order, two_d, most):
    """Error and coverage of the guess, and the first step."""
    pair, settings = moving(two_d, order), settings_of(two_d, order, max_iterations=most)
    im2 = pair.im2.copy()
    im2[np.random.default_rng(6).random(im2.shape) < 0.002] = np.inf
    # the mean of a box's voxels fills its holes, which a spline spreads to the voxels around
    tolerance = 2e-5 if order == 1 else 2e-2
    oracle = Oracle(Pair(pair.im1, im2, order), settings)
    nodes, phi = crowd(two_d)
    seen = 0
    for node, guess in zip(nodes, phi, strict=True):
        (got,) = outcomes(run_all(LdicTask(images_of(pair.im1, im2), Given([node], [guess]), settings)))
        expected = oracle(node, guess)
        if got.status == -5 or expected.coverage < 0.6:
            continue
        np.testing.assert_allclose(got.t, expected.t, rtol=0, atol=tolerance)
        np.testing.assert_allclose(got.F, expected.F, rtol=0, atol=tolerance)
        if most == 0:
            assert got.coverage == pytest.approx(expected.coverage, abs=1e-12)
            assert got.error == pytest.approx(expected.error, rel=1e-4 if order == 1 else 0.5)
        seen += got.coverage < 1
    assert seen >= 8


@pytest.mark.parametrize("more", [{"rigid": True}, {"update_gradient": True}, {"max_iterations": 3}])
def test_settings_reach_the_kernel(more):
    nodes, phi = crowd(False, 20)
    assert check(moving(False, 1), settings_of(False, **more), nodes, phi) >= 5


@pytest.mark.parametrize(("order", "tolerance"), [(1, 0.03), (3, 0.003)])
def test_the_truth(order, tolerance):
    """Displacements of a pair that is known in closed form, at nodes whose windows are inside."""
    motion = {"rotation": (1.5, -1.0, 0.8), "strain": (0.010, -0.015, 0.020), "translation": (0.6, -0.4, 0.7)}
    pair = AnalyticPair((40, 42, 46), seed=3, amplitude=0, **motion)
    positions, _ = make_grid(pair.shape, (13, 14, 15))
    settings = LdicSettings(RegistrationSettings(order=order), (8, 8, 8), (3, 3, 3))
    images = ImagePair(ArrayImage(pair.image1()), ArrayImage(pair.image2()))
    records = run_all(LdicTask(images, Given(positions, phi_of(np.zeros((len(positions), 3)))), settings))
    inner = ((positions > 10) & (positions < np.array(pair.shape) - 11)).all(axis=1)
    assert inner.sum() == 8
    np.testing.assert_array_equal(records["result"][inner, 2], 2)
    truth = pair.displacement(positions[inner])
    np.testing.assert_allclose(records["phi"][inner, :, 3], truth, rtol=0, atol=tolerance)


def test_fractions_of_positions_are_dropped():
    pair, settings = moving(False, 1), settings_of(False)
    nodes, phi = crowd(False, 6)
    whole = run_all(LdicTask(images_of(pair.im1, pair.im2), Given(nodes, phi), settings))
    between = run_all(LdicTask(images_of(pair.im1, pair.im2), Given(nodes + 0.9, phi), settings))
    assert whole.tobytes() == between.tobytes()


# ---- a point's result depends on its own windows only

COMPANY: dict[str, dict[str, Any]] = {
    "ssd": {},
    "znssd": {"criterion": "znssd"},
    "updated gradient": {"update_gradient": True},
    "gaussian": {"sigma": 0.7},
    "shift": {"shift": True},
}


def company(two_d: bool, holes2: bool) -> tuple[ImagePair, np.ndarray, np.ndarray]:
    """Images with a mask and holes; points of which one is far off, and one has no guess."""
    pair, random = moving(two_d, 1), np.random.default_rng(8)
    im1, im2 = pair.im1.copy(), pair.im2.copy()
    im1[random.random(im1.shape) < 0.001] = np.nan
    if holes2:
        im2[random.random(im2.shape) < 0.001] = np.nan
    mask = (random.random(im1.shape) < 0.9).astype(np.uint8)
    nodes, phi = crowd(two_d, 24)
    phi[7, 1, 3] += 200.0
    phi[11, 0, 0] = np.nan
    return images_of(im1, im2, mask), nodes, phi


@pytest.mark.parametrize("kind", COMPANY)
@DIMENSIONS
def test_chunks_do_not_matter(two_d, kind):
    """All points at once, in another order, in pieces and alone: the same bits, with a mask and holes about."""
    settings = settings_of(two_d, **COMPANY[kind])
    images, nodes, phi = company(two_d, holes2=False)
    order = np.random.default_rng(9).permutation(24)
    divisions = [None, [order], np.array_split(order, 5), [[k] for k in range(24)]]
    results = [run_all(LdicTask(images, Given(nodes, phi, chunks), settings)) for chunks in divisions]
    assert len({records.tobytes() for records in results}) == 1
    # with the Gaussian gradient few windows keep enough voxels beside holes
    assert np.isin(results[0]["result"][:, 2], (2, 1)).sum() >= (1 if kind == "gaussian" else 10)


@pytest.mark.parametrize("kind", COMPANY)
@DIMENSIONS
def test_holes_of_image_2_elsewhere_hardly_matter(two_d, kind):
    """A hole in a shared box has all its samples taken one by one, which rounds differently."""
    settings = settings_of(two_d, **COMPANY[kind])
    images, nodes, phi = company(two_d, holes2=True)
    together = run_all(LdicTask(images, Given(nodes, phi), settings))
    alone = run_all(LdicTask(images, Given(nodes, phi, [[k] for k in range(24)]), settings))
    np.testing.assert_array_equal(together["result"][:, 1:3], alone["result"][:, 1:3])
    np.testing.assert_allclose(together["phi"], alone["phi"], rtol=0, atol=2e-6)


def test_chunks_hardly_matter_to_splines():
    """A prefilter remembers a box's end by 0.27 a voxel: over the halo of ten voxels 2e-6 is left of it."""
    pair, settings = moving(False, 3), settings_of(False, 3)
    nodes, phi = crowd(False, 24)
    images = images_of(pair.im1, pair.im2)
    together = run_all(LdicTask(images, Given(nodes, phi), settings))
    alone = run_all(LdicTask(images, Given(nodes, phi, [[k] for k in range(24)]), settings))
    done = together["result"][:, 2] == 2
    assert done.sum() >= 12
    np.testing.assert_array_equal(together["result"][:, 1:3], alone["result"][:, 1:3])
    np.testing.assert_allclose(together["phi"][done], alone["phi"][done], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("far", "apart"), [(NEAR, False), (NEAR + 1, True), (300, True), (2.0**60, True)])
def test_outliers_have_boxes_of_their_own(far, apart):
    """Their guesses make no large box for the others, whose results they do not touch."""
    pair, settings = moving(False, 1), settings_of(False)
    nodes = np.array([[14, 17, 20], [15, 18, 21], [16, 17, 22], [15, 19, 20]])
    phi = phi_of(np.zeros((4, 3)))
    phi[2, 2, 3] = far
    images = images_of(pair.im1, pair.im2, kind=Watched)
    records = run_all(LdicTask(images, Given(nodes, phi), settings))
    boxes = images.image2.boxes  # type: ignore[attr-defined]
    assert len(boxes) == 1 + apart
    alone = [run_all(LdicTask(images_of(pair.im1, pair.im2), Given(nodes[[k]], phi[[k]]), settings)) for k in range(4)]
    assert records.tobytes() == np.concatenate(alone).tobytes()
    # windows of 13 voxels, margins, taps, and nodes that are two apart
    assert max(boxes) <= (11 + 2 + 6 + 2) ** 2 * (13 + 2 + 6 + 2 + (0 if apart else far))


def test_rest_of_image_2_does_not_count():
    """Window 2 is the window about the node moved by the rounded guess, and the margin; beyond may be anything."""
    pair = moving(False, 1)
    node, margin = np.array([[18, 20, 22]]), 2
    settings = settings_of(False, margin=margin, max_iterations=4, min_delta_phi=1e-9)
    for t in ((0.7, -0.7, 0.4), (1.4, -1.6, -0.4), (0.5, 1.5, -0.5)):
        phi = phi_of([t])
        images = images_of(pair.im1, pair.im2)
        reference = run_all(LdicTask(images, Given(node, phi), settings))
        spoiled = np.random.default_rng(2).uniform(0, 200, pair.im2.shape)
        # halves are rounded to the even number
        moved = node[0] + [round(v) for v in t]
        window = tuple(slice(c - h - margin, c + h + margin + 1) for c, h in zip(moved, settings.hws, strict=True))
        spoiled[window] = pair.im2[window]
        again = run_all(LdicTask(images_of(pair.im1, spoiled), Given(node, phi), settings))
        assert again.tobytes() == reference.tobytes()


def test_window_2_takes_part_to_its_last_voxel():
    """Samples beyond one face of window 2 are no data: a guess at the margin's end uses all that is within."""
    pair = moving(False, 1)
    node, settings = np.array([[18, 20, 22]]), settings_of(False, margin=0, max_iterations=0)
    for t in ((0.6, 0, 0), (0, -0.6, 0), (0, 0, 1.45), (0.3, -0.2, 0.1)):
        oracle = Oracle(pair, settings)
        expected = oracle(node[0], phi_of([t])[0])
        (got,) = outcomes(run_all(LdicTask(images_of(pair.im1, pair.im2), Given(node, phi_of([t])), settings)))
        assert got.coverage == pytest.approx(expected.coverage, abs=1e-12)
        assert got.error == pytest.approx(expected.error, rel=1e-4)


# ---- rows of points that cannot be measured


def test_guesses_that_are_no_numbers():
    pair, settings = moving(False, 1), settings_of(False)
    nodes, phi = crowd(False, 16)
    bad = [(3, (0, 3), np.nan), (5, (1, 1), np.inf), (9, (2, 0), -np.inf)]
    for k, place, value in bad:
        phi[(k, *place)] = value
    records = run_all(LdicTask(images_of(pair.im1, pair.im2), Given(nodes, phi), settings))
    rows = [k for k, _, _ in bad]
    np.testing.assert_array_equal(records["result"][rows], np.tile([np.inf, 0, -7, np.inf, 0, np.nan], (3, 1)))
    np.testing.assert_array_equal(records["phi"][rows, :, :3], np.tile(np.eye(3), (3, 1, 1)))
    assert np.isnan(records["phi"][rows, :, 3]).all()
    assert -7 not in np.delete(records["result"][:, 2], rows)
    # a chunk of nothing else
    only = run_all(LdicTask(images_of(pair.im1, pair.im2), Given(nodes[rows], phi[rows]), settings))
    assert only.tobytes() == records[rows].tobytes()


@DIMENSIONS
def test_windows_that_miss_image_2(two_d):
    pair, settings = moving(two_d, 1), settings_of(two_d)
    node = np.array([[0 if two_d else 18, 20, 22]])
    # the last voxel of image 2 is at the far corner of window 2, or just not
    reach = np.array(settings.hws)[2] + settings.margin[2]
    edge = pair.im2.shape[2] - 1 - node[0, 2] + reach
    for t, misses in (
        (edge, False),
        (edge + 1, True),
        (-(node[0, 2] + reach), False),
        (-(node[0, 2] + reach) - 1, True),
    ):
        phi = phi_of([(0, 0, t)])
        (record,) = run_all(LdicTask(images_of(pair.im1, pair.im2), Given(node, phi), settings))
        status = record["result"][2]
        assert (status == -5) == misses
        assert np.isnan(record["phi"][:, 3]).all() == misses
        if misses:
            np.testing.assert_array_equal(record["phi"][:, :3], np.eye(3))


def test_grey_thresholds():
    pair = moving(False, 1)
    nodes, phi = crowd(False, 30)
    inner = ((nodes >= 7) & (nodes < np.array(pair.im1.shape) - 7)).all(axis=1)
    nodes, phi = nodes[inner], phi[inner]
    hws = np.array(settings_of(False).hws)
    means = [pair.im1[tuple(slice(c - h, c + h + 1) for c, h in zip(node, hws, strict=True))].mean() for node in nodes]
    low, high = np.quantile(means, [0.3, 0.7])
    settings = settings_of(False, grey_low=low, grey_high=high)
    status = run_all(LdicTask(images_of(pair.im1, pair.im2), Given(nodes, phi), settings))["result"][:, 2]
    np.testing.assert_array_equal(status == -5, (means <= low) | (means >= high))
    assert 0 < (status == -5).sum() < len(nodes)


# ---- chunks


@pytest.mark.parametrize("two_d", [False, True], ids=["3d", "2d"])
@pytest.mark.parametrize("order", [1, 3])
def test_boxes_stay_below_their_limit(two_d, order, monkeypatch):
    """Whatever shares a box: with a limit of a few windows, no box of either image is larger."""
    largest = 10_000 if two_d else 100_000
    monkeypatch.setattr(ldic, "LARGEST_BOX", largest)
    shape = (1, 300, 320) if two_d else (90, 100, 110)
    noise = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    settings = settings_of(two_d, order, max_iterations=0)
    positions, _ = make_grid(shape, (4, 4, 4))
    for regular in (True, False):
        chunks = chunk_points(positions, brick(len(positions), (4, 4, 4), settings, two_d, regular))
        given = Given(positions, phi_of(np.zeros((len(positions), 3))), [chunks.points(k) for k in range(len(chunks))])
        images = ImagePair(Watched(noise), Watched(noise))
        task = LdicTask(images, given, settings)
        for k in range(0, len(chunks), 29):
            task.run(k)
        assert max(images.image1.boxes + images.image2.boxes) <= largest  # type: ignore[attr-defined]
        assert max(len(chunk) for chunk in given.chunks) > 4
