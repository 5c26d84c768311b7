"""Voxels of a window that take part: coverage, grey levels, masks, bounds of window 2, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.kernels import correlation
from tests.kernels.oracle import (
    DIMENSIONS,
    ORDERS,
    Outcome,
    Pair,
    Run,
    agree,
    correlate,
    crowd,
    expected_outcome,
    guess_at,
    moving,
    nodes_of,
    points_call,
    run_for,
    skipped,
    texture,
    turned,
)


def test_coverage(isa):
    """Windows whose covered part is at least the limit take part, whole or not; without any voxel never."""
    pair = moving(False, 1)
    node, run = np.array([18, 20, 22]), run_for(pair)
    covered = np.ones(pair.im1.shape, np.uint8)
    covered[:, :, 23:] = 0  # 7 of 13 columns stay
    for limit, status in ((7 / 13, 2), (np.nextafter(7 / 13, 1), -5), (0.0, 2), (1.0, -5)):
        (got,) = correlate(pair, run, node, guess_at(pair, node), covered=covered, min_coverage=limit)
        assert got.status == status
        if status == -5:
            skipped(got, 7 / 13)
    (got,) = correlate(pair, run, node, guess_at(pair, node), covered=np.zeros_like(covered), min_coverage=0.0)
    skipped(got, 0.0)


def test_grey_thresholds_are_strict(isa):
    """The mean is that of the window of 2 hws + 1, masked voxels included, those that do not exist left out."""
    im1 = np.round(texture(31, (30, 32, 34)))
    real = np.ones(im1.shape, np.uint8)
    real[:, :, :12] = 0
    pair = Pair(np.where(real, im1, 0), im1)
    node, run = np.array([15, 16, 14]), Run(hws=(4, 5, 6))
    window = im1[11:20, 11:22, 12:21]
    mean = window.sum() / window.size
    low, high = np.nextafter(mean, 0), np.nextafter(mean, 1e9)
    for limits, passes in (
        ({"grey_low": mean}, False),
        ({"grey_low": low}, True),
        ({"grey_high": mean}, False),
        ({"grey_high": high}, True),
        ({"grey_low": low, "grey_high": high}, True),
        ({"grey_low": high, "grey_high": low}, False),
    ):
        (got,) = correlate(pair, run, node, np.eye(4), real=real, covered=real, **limits)
        assert (got.status != -5) is passes


def test_window_2_outside(isa):
    pair = moving(False, 1)
    node = np.array([18, 20, 22])
    phi = guess_at(pair, node)
    (got,) = correlate(pair, run_for(pair), node, phi, low2=np.ones(3), high2=np.zeros(3))
    skipped(got, 1.0)
    assert np.array_equal(got.t, phi[:3, 3])


@DIMENSIONS
def test_mask_of_half_the_window(isa, two_d):
    pair = moving(two_d, 1)
    usable = np.ones(pair.im1.shape, np.uint8)
    node = nodes_of(pair)[1]
    usable[..., node[2] + 1 :] = 0
    usable[..., node[1] - 2, :] = 0
    pair = Pair(pair.im1, pair.im2, 1, usable=usable)
    run, phi = run_for(pair), guess_at(pair, node)
    (got,) = correlate(pair, run, node, phi)
    agree(got, expected_outcome(pair, run, node, phi))
    assert got.status == 2
    assert 0.4 < got.coverage < 0.6


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@ORDERS
def test_samples_that_fall_out(isa, order, criterion):
    """Bounds of window 2 that cut a part off, and holes: the voxels that take part change from pass to pass."""
    pair = moving(False, order)
    node = np.array([18, 20, 22])
    valid2 = np.ones(pair.im2.shape, np.uint8)
    valid2[16:19, 22, 25] = 0
    pair = Pair(pair.im1, pair.im2, order, valid2=valid2, low2=node - 4, high2=node + np.array([3, 5, 5]))
    run, phi = run_for(pair, znssd=criterion == "znssd"), guess_at(pair, node, 0.8)
    (got,) = correlate(pair, run, node, phi)
    agree(got, expected_outcome(pair, run, node, phi))
    assert got.status == 2
    assert 0.4 < got.coverage < 0.9


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
def test_samples_that_come_back(isa, criterion):
    """The guess leaves the bounds, the solution does not: sums over the whole window hold again."""
    pair = moving(False, 1)
    node = np.array([18, 20, 22])
    true = guess_at(pair, node, 0.0)
    reach = np.array([4, 4, 5]) + 0.4
    pair = Pair(pair.im1, pair.im2, low2=node + true[:3, 3] - reach, high2=node + true[:3, 3] + reach)
    run, phi = run_for(pair, znssd=criterion == "znssd"), guess_at(pair, node, 0.7)
    (got,) = correlate(pair, run_for(pair, max_iterations=0), node, phi)
    assert got.coverage < 0.95
    (got,) = correlate(pair, run, node, phi)
    assert (got.status, got.coverage) == (2, 1)
    agree(got, expected_outcome(pair, run, node, phi))


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@pytest.mark.parametrize("masked", [False, True])
def test_dead_row(isa, masked, criterion):
    """A dead row of image 2 passes through the windows: other voxels are compared, though as many as before."""
    pair = moving(False, 1)
    valid2 = np.ones(pair.im2.shape, np.uint8)
    valid2[:, 20] = 0
    usable = np.ones(pair.im1.shape, np.uint8)
    usable[:, :, 22] = not masked
    pair = Pair(pair.im1, pair.im2, valid2=valid2, usable=usable if masked else None)
    nodes = np.array([[18, 20, 22]]) + np.array([[0, y, x] for y in range(-4, 5) for x in (-2, 3)])
    guesses = np.array([guess_at(pair, node, 0.9) for node in nodes])
    run = run_for(pair, znssd=criterion == "znssd")
    for node, phi, got in zip(nodes, guesses, correlate(pair, run, nodes, guesses), strict=True):
        agree(got, expected_outcome(pair, run, node, phi), 3e-5)


def test_moved_off_the_data(isa):
    pair = moving(False, 1)
    phi = np.eye(4)
    phi[2, 3] = 500.0
    (got,) = correlate(pair, run_for(pair), np.array([18, 20, 22]), phi)
    assert (got.status, got.iterations, got.norm, got.coverage) == (-3, 0, 100, 0)


def test_too_few_samples_left(isa):
    """Half of the least coverage of what was comparable has to stay."""
    pair = moving(False, 1)
    node = np.array([18, 20, 22])
    high2 = node + np.array([12, 12, -0.9])  # 4 or 5 of 11 voxels along x are left
    (got,) = correlate(pair, run_for(pair), node, np.eye(4), high2=high2, min_coverage=0.5)
    assert (got.status, got.coverage) == (-3, pytest.approx(5 / 11))
    (got,) = correlate(pair, run_for(pair, max_iterations=0), node, np.eye(4), high2=high2, min_coverage=0.4)
    assert (got.status, got.coverage) == (1, pytest.approx(5 / 11))


def test_small_step_off_the_data(isa):
    """A last step that is small enough and leads off the data: -3 and not converged."""
    pair = moving(False, 1)
    node = np.array([18, 20, 22])
    phi = guess_at(pair, node, 0.25)
    run = run_for(pair, min_delta_phi=0.5)
    seen = []
    for edge in np.linspace(0.25, 1.05, 9):
        cut = Pair(pair.im1, pair.im2, high2=node + np.array([12, 12, edge]))
        (got,) = correlate(cut, run, node, phi, min_coverage=0.5)
        expected = expected_outcome(cut, run, node, phi, 0.5 * 9 * 9 * 11)
        assert (got.status, got.iterations) == (expected.status, expected.iterations)
        seen.append((got.status, got.norm <= run.min_delta_phi))
    assert {(-3, False), (-3, True), (2, True)} == set(seen)


def test_half_of_the_samples_is_enough(isa):
    """A least coverage above a half is asked of window 1 only."""
    pair = moving(False, 1)
    node = np.array([18, 20, 22])
    (got,) = correlate(
        pair, run_for(pair, max_iterations=0), node, np.eye(4), high2=node + np.array([12, 12, 0.1]), min_coverage=0.9
    )
    assert (got.status, got.coverage) == (1, pytest.approx(6 / 11))


def test_no_comparable_voxel(isa):
    pair = moving(False, 1)
    pair = Pair(pair.im1, pair.im2, 1, usable=np.zeros(pair.im1.shape, np.uint8))
    (got,) = correlate(pair, run_for(pair), np.array([18, 20, 22]), np.eye(4))
    assert (got.status, got.iterations, got.coverage) == (-2, 0, 0)


def test_shift_takes_the_index_of_the_whole_window(isa):
    """The error of the guess shows the samples: the index runs over the window of 2 hws + 1."""
    for two_d in (False, True):
        for order in (1, 3):
            pair = moving(two_d, order)
            run = run_for(pair, max_iterations=0)
            node = nodes_of(pair)[0]
            settings = pair.settings(shift=True, max_iterations=0)
            phi = guess_at(pair, node)
            phi[:3, :3] = turned(2, 1, two_d) * 1.02
            (got,) = correlate(pair, run, node, phi, settings=settings, sampled1=pair.sampled1)
            wy, wx = 2 * run.hws[1] + 1, 2 * run.hws[2] + 1
            n = np.array([1 if two_d else 2 * run.hws[0] - 1, wy - 2, wx - 2])
            index = ((0 if two_d else wy * wx) + wx + 1, wx, wy * wx)
            window = pair.window(node - (n - 1) // 2, n, phi[:3, :3], node + phi[:3, 3], index=index)
            assert got.status == 1
            assert got.error == pytest.approx(((window.f - window.g) ** 2).sum() / window.f.sum(), rel=1e-4)


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@DIMENSIONS
@ORDERS
def test_company_and_order_do_not_matter(isa, order, two_d, criterion):
    """The same bits alone, together and in any order; buffers carry nothing from point to point."""
    pair = moving(two_d, order)
    run = run_for(pair, znssd=criterion == "znssd")
    nodes, phi = crowd(pair, 24)
    phi[5, 2, 3] = 300.0
    low2 = np.maximum(nodes + np.rint(phi[:, :3, 3]) - run.hws - 1, 0)
    high2 = np.minimum(nodes + np.rint(phi[:, :3, 3]) + run.hws + 1, np.array(pair.im2.shape) - 1)
    low2[9], high2[9] = 1, 0

    def rows(chosen: np.ndarray) -> list[bytes]:
        low, high = np.minimum(low2, pair.high2)[chosen], np.maximum(high2, pair.low2)[chosen]
        return [bits(got) for got in correlate(pair, run, nodes[chosen], phi[chosen], low2=low, high2=high)]

    together = rows(np.arange(24))
    backwards = rows(np.arange(24)[::-1])[::-1]
    alone = [rows(np.array([k]))[0] for k in range(24)]
    assert together == backwards
    assert together == alone


def bits(got: Outcome) -> bytes:
    numbers = [*got.F.ravel(), *got.t, got.error, got.iterations, got.status, got.norm, got.coverage, got.zncc]
    return np.array(numbers).tobytes()


POINTS_ERRORS = {
    "phi": ({"phi": np.zeros((2, 16))}, "arrays of points"),
    "result": ({"result": np.zeros((1, 6))}, "arrays of points"),
    "centres": ({"centre1": np.full((2, 2), 6)}, "arrays of points"),
    "low2": ({"low2": np.zeros((1, 3))}, "arrays of points"),
    "high2": ({"high2": np.zeros((2, 4))}, "arrays of points"),
    "usable": ({"usable": np.zeros((12, 13, 15), np.uint8)}, "map of voxels"),
    "covered": ({"covered": np.zeros((12, 12, 14), np.uint8)}, "map of voxels"),
    "real": ({"real": np.zeros((11, 13, 14), np.uint8)}, "map of voxels"),
    "valid2": ({"valid2": np.zeros((12, 13, 14), np.uint8)}, "map of voxels"),
    "sampled1": ({"sampled1": np.zeros((12, 13, 15), np.float32)}, "samples must have the shape"),
    "no samples": ({"settings": correlation.Settings(shift=True)}, "needs sampled1"),
    "hws": ({"hws": (3, 0, 3)}, "half-window size"),
    "hws z": ({"hws": (0, 3, 3)}, "half-window size"),
    "hws z in 2D": ({"settings": correlation.Settings(two_d=True)}, "must be 0 in 2D"),
    "window low": ({"centre1": np.array([[6, 6, 6], [6, 6, 2]])}, "window of point 1 leaves"),
    "window high": ({"centre1": np.array([[9, 6, 6], [6, 6, 6]])}, "window of point 0 leaves"),
    "gradients": ({"settings": correlation.Settings(sigma=2.0)}, "window of point 0 leaves"),
    "window 2 low": ({"low2": np.array([[3.0, 3, 3], [3, 2.5, 3]])}, "window 2 of point 1 leaves"),
    "window 2 high": ({"high2": np.array([[5.0, 5, 16.5], [5, 5, 5]])}, "window 2 of point 0 leaves"),
}


@pytest.mark.parametrize("name", POINTS_ERRORS)
def test_bad_points(name):
    changes, message = POINTS_ERRORS[name]
    points_call()
    with pytest.raises(ValueError, match=message):
        points_call(**changes)


def test_no_points():
    points_call(
        **{name: np.zeros((0, 3)) for name in ("low2", "high2")},
        centre1=np.zeros((0, 3), np.int64),
        phi=np.zeros((0, 12)),
        result=np.zeros((0, 6)),
    )


def test_2d_needs_no_room_along_z():
    points_call(
        settings=correlation.Settings(two_d=True),
        box1=correlation.empty_box((1, 13, 14)),
        box2=correlation.empty_box((1, 20, 20)),
        hws=(0, 3, 3),
        centre1=np.array([[0, 6, 6]] * 2),
        low2=np.array([[0.0, 3, 3]] * 2),
        high2=np.array([[0.0, 16, 16]] * 2),
    )
