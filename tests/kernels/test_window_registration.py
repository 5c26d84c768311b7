"""Registrations of windows against a Gauss-Newton in float64, and their return statuses."""

from __future__ import annotations

import mmap
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from tests.kernels.oracle import (
    DIMENSIONS,
    LEVEL,
    ORDERS,
    Pair,
    Run,
    agree,
    correlate,
    expected_outcome,
    guess_at,
    moving,
    moving_phi,
    nodes_of,
    points_call,
    run_for,
    texture,
)


@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
@pytest.mark.parametrize("rigid", [False, True], ids=["all", "rigid"])
@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@DIMENSIONS
@ORDERS
def test_registration_equals_oracle(isa, order, two_d, criterion, rigid, update_gradient):
    pair = moving(two_d, order)
    run = run_for(pair, znssd=criterion == "znssd", rigid=rigid, update_gradient=update_gradient)
    nodes = nodes_of(pair)
    guesses = np.array([guess_at(pair, node) for node in nodes])
    for node, phi, got in zip(nodes, guesses, correlate(pair, run, nodes, guesses), strict=True):
        agree(got, expected_outcome(pair, run, node, phi))
        assert got.status == 2
        if rigid:
            np.testing.assert_allclose(got.F @ got.F.T, np.eye(3), rtol=0, atol=1e-12)


def test_rows_that_are_too_far_apart_for_32_bits(isa):
    """Places of groups are found in integers of 32 bits where the pitches of the box allow it."""
    pair = replace(moving(True, 1))
    run, nodes = run_for(pair), nodes_of(pair)
    guesses = np.array([guess_at(pair, node) for node in nodes])
    box, pitch = pair.box2, 1 << 27
    # 40 GB of which only the pages that are written to take memory
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    memory = mmap.mmap(-1, 4 * pitch * box.shape[1], flags=flags)
    pair.box2 = np.frombuffer(memory, np.float32).reshape(1, box.shape[1], pitch)
    pair.box2[:, :, : box.shape[2]] = box
    for node, phi, got in zip(nodes, guesses, correlate(pair, run, nodes, guesses), strict=True):
        agree(got, expected_outcome(pair, run, node, phi))


def test_any_value_of_a_map_but_0_is_usable(isa):
    """Eight bytes are counted at once."""
    pair = moving(False, 1)
    usable = np.random.default_rng(3).choice(np.array([0, 1, 127, 128, 255], np.uint8), pair.im1.shape)
    pair = replace(pair, usable=usable)
    run, nodes = run_for(pair), nodes_of(pair)
    guesses = np.array([guess_at(pair, node) for node in nodes])
    for node, phi, got in zip(nodes, guesses, correlate(pair, run, nodes, guesses), strict=True):
        agree(got, expected_outcome(pair, run, node, phi))


@pytest.mark.parametrize("rigid", [False, True], ids=["all", "rigid"])
@pytest.mark.parametrize("size", [(8, 9, 12), (9, 10, 11), (10, 8, 7)])
@DIMENSIONS
@ORDERS
def test_windows_of_any_size(isa, order, two_d, size, rigid):
    """Windows of labels have any number of voxels, and compare those of a mask; Phi is about the middle of the window.

    A map of samples that leave the bounds of window 2 tells whether these matter.
    """
    pair = moving(two_d, order)
    compared = np.array([1, *size[1:]]) if two_d else np.array(size)
    hws = np.where(compared == 1, 0, compared // 2 + 1)
    mask = np.zeros(pair.im1.shape, np.uint8)
    node = nodes_of(pair)[1]
    low = node - (compared - 1) // 2
    z, y, x = (np.indices(compared) - np.reshape((compared - 1) / 2, (3, 1, 1, 1))) / np.reshape(compared, (3, 1, 1, 1))
    # an ellipsoid with a piece cut off
    mask[tuple(map(slice, low, low + compared))] = (z * z + y * y + x * x <= 0.3) & (y + x < 0.4)
    pair = Pair(pair.im1, pair.im2, order, usable=mask)
    middle = low + (compared - 1) / 2
    run, phi = Run(hws=tuple(hws.tolist()), rigid=rigid), guess_at(pair, middle)
    left = np.full(1, 9, np.uint8)
    (got,) = correlate(pair, run, node, phi, compared=compared, left=left)
    agree(got, expected_outcome(pair, run, node, phi, compared=compared))
    assert (got.status, left[0]) == (2, 0)
    assert got.coverage == np.count_nonzero(mask) / compared.prod()
    # what is compared is the window: as many voxels as hws gives are another registration
    (other,) = correlate(Pair(pair.im1, pair.im2, order), run, node, phi)
    assert np.abs(other.t - got.t).max() > 1e-4
    high2 = middle + phi[:3, 3] + np.where(compared == 1, 0, (compared - 1) / 2 - 1)
    cut = Pair(pair.im1, pair.im2, order, usable=mask, high2=high2)
    (got,) = correlate(cut, run, node, phi, compared=compared, left=left)
    agree(got, expected_outcome(cut, run, node, phi, compared=compared))
    assert left[0] == 1


@pytest.mark.parametrize("compared", [(5, 5, 0), (5, 8, 5), (-1, 5, 5)])
def test_windows_that_are_not_inside_hws(compared):
    with pytest.raises(ValueError, match="voxels to compare are not inside the window"):
        points_call(compared=compared)


@ORDERS
def test_registration_finds_the_truth(isa, order):
    """Not only what the oracle finds: the deformation that the images were made with."""
    pair = moving(False, order, 2.0)
    run = Run(hws=(9, 9, 9))
    node = np.array([18, 20, 22])
    (got,) = correlate(pair, run, node, guess_at(pair, node))
    F, t = moving_phi(False)
    t = t + (F - np.eye(3)) @ (node - (np.array(pair.im1.shape) - 1) / 2)
    assert got.status == 2
    # what is left is the interpolation's own error
    np.testing.assert_allclose(got.F, F, rtol=0, atol=1e-4 if order == 3 else 5e-3)
    np.testing.assert_allclose(got.t, t, rtol=0, atol=2e-4 if order == 3 else 1e-2)


@pytest.mark.parametrize("sigma", [1.0, 1.5])
@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
def test_registration_with_gaussian_gradients(isa, sigma, update_gradient):
    pair = moving(False, 1)
    pair = Pair(pair.im1, pair.im2, 1, sigma=sigma)
    # smoothed gradients are too small, and steps too long: it need not converge
    run = run_for(pair, update_gradient=update_gradient, max_iterations=3)
    node = np.array([18, 20, 22])
    phi = guess_at(pair, node)
    (got,) = correlate(pair, run, node, phi)
    agree(got, expected_outcome(pair, run, node, phi))


@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
@DIMENSIONS
@ORDERS
def test_znssd_does_not_see_gain_and_offset(isa, order, two_d, update_gradient):
    plain, changed = moving(two_d, order), moving(two_d, order, grey=(1.7, -40.0))
    for run in (run_for(plain, znssd=True, update_gradient=update_gradient, gain=1 / 1.7, bias=40 / 1.7),):
        nodes = nodes_of(plain)
        phi = np.array([guess_at(plain, node) for node in nodes])
        start = run_for(plain, znssd=True, update_gradient=update_gradient)
        for got, reference, node, guess in zip(
            correlate(changed, run, nodes, phi), correlate(plain, start, nodes, phi), nodes, phi, strict=True
        ):
            agree(got, reference)
            agree(got, expected_outcome(changed, run, node, guess))
        # nor does the first estimate of the two matter
        for got, reference in zip(
            correlate(changed, start, nodes, phi), correlate(plain, start, nodes, phi), strict=True
        ):
            agree(got, reference)
            assert got.status == 2


@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
@pytest.mark.parametrize(("gain", "bias"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e7), (3e-33, -1e5), (1e30, 1e32)])
@DIMENSIONS
@ORDERS
def test_windows_whose_grey_levels_the_run_does_not_know(isa, order, two_d, gain, bias, update_gradient):
    """They begin with their own gain and bias: the run's may be what one fault, or another part of the image, made."""
    pair = moving(two_d, order, grey=(1.7, -40.0))
    usable = np.ones(pair.im1.shape, np.uint8)
    usable[..., ::5] = 0
    for masked in (pair, Pair(pair.im1, pair.im2, order, usable=usable)):
        run = run_for(masked, znssd=True, update_gradient=update_gradient, gain=gain, bias=bias)
        nodes = nodes_of(masked)
        phi = np.array([guess_at(masked, node) for node in nodes])
        for got, node, guess in zip(correlate(masked, run, nodes, phi), nodes, phi, strict=True):
            agree(got, expected_outcome(masked, run, node, guess))
            if masked is pair:
                assert got.status == 2


def test_rigid_drops_the_stretch_of_the_guess(isa):
    pair = moving(False, 1)
    run = run_for(pair, rigid=True)
    (got,) = correlate(pair, run, np.array([18, 20, 22]), np.diag([1.05, 1.0, 0.97, 1.0]))
    np.testing.assert_allclose(got.F.T @ got.F, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("most", [0, 1, 2, 3])
@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
def test_most_iterations(isa, most, criterion):
    pair = moving(False, 1)
    run = run_for(pair, max_iterations=most, znssd=criterion == "znssd", min_delta_phi=1e-9)
    node = nodes_of(pair)[0]
    phi = guess_at(pair, node)
    (got,) = correlate(pair, run, node, phi)
    agree(got, expected_outcome(pair, run, node, phi))
    assert (got.status, got.iterations) == (1, most)
    if most == 0:
        assert got.norm == 100
        assert np.array_equal(got.F, phi[:3, :3])
        assert np.array_equal(got.t, phi[:3, 3])


def test_converged_on_the_last_iteration(isa):
    """The change of Phi is looked at last: it overrides the number of iterations."""
    pair = moving(False, 1)
    node = nodes_of(pair)[0]
    phi = guess_at(pair, node)
    (free,) = correlate(pair, run_for(pair), node, phi)
    (got,) = correlate(pair, run_for(pair, max_iterations=free.iterations), node, phi)
    assert (got.status, got.iterations) == (2, free.iterations)


def test_growing_error(isa):
    """Late growth by more than a quarter ends a registration with -1; the bad step is not undone."""
    random = np.random.default_rng(3)
    im1, im2 = texture(21, (30, 32, 34), 0.7), texture(22, (30, 32, 34), 0.7)
    pair = Pair(im1, im2)
    run = Run(hws=(3, 3, 3), max_iterations=4, min_delta_phi=1e-6)
    nodes = random.integers(9, 20, (600, 3))
    seen = 0
    for node, got in zip(nodes, correlate(pair, run, nodes, np.eye(4)), strict=True):
        if got.status == -1:
            expected = expected_outcome(pair, run, node, np.eye(4))
            # chaotic on unrelated images, but these four steps are short
            assert (expected.status, expected.iterations) == (-1, got.iterations)
            np.testing.assert_allclose(got.error, expected.error, rtol=1e-2)
            assert got.iterations == 3
            seen += 1
    assert seen >= 5


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
def test_negative_grey_levels(isa, criterion):
    """The sign of the error is that of the grey levels; whether a registration diverges does not depend on it."""
    im1, im2 = texture(21, (30, 32, 34), 0.7), texture(22, (30, 32, 34), 0.7)
    nodes = np.random.default_rng(3).integers(9, 20, (600, 3))
    run = Run(hws=(3, 3, 3), max_iterations=4, min_delta_phi=1e-6, znssd=criterion == "znssd")
    bright = correlate(Pair(im1, im2), run, nodes, np.eye(4))
    dark = correlate(Pair(im1 - 2 * LEVEL, im2 - 2 * LEVEL), run, nodes, np.eye(4))
    # chaotic on unrelated images: roundings differ
    assert sum(a.status != b.status for a, b in zip(bright, dark, strict=True)) <= 6
    both = [(a, b) for a, b in zip(bright, dark, strict=True) if a.status == b.status == -1]
    assert len(both) >= 5
    assert all(a.error > 0 > b.error for a, b in both)
    # errors that shrink in the second half are no growth of their negatives
    pair = moving(False, 1)
    pair = Pair(pair.im1 - 2 * LEVEL, pair.im2 - 2 * LEVEL)
    node = nodes_of(pair)[0]
    phi = guess_at(pair, node, 0.6)
    run = run_for(pair, max_iterations=2, min_delta_phi=1e-9, znssd=criterion == "znssd")
    (got,) = correlate(pair, run, node, phi)
    agree(got, expected_outcome(pair, run, node, phi))
    assert (got.status, got.iterations) == (1, 2)


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@DIMENSIONS
def test_flat_window(isa, two_d, criterion):
    shape = (1, 40, 40) if two_d else (24, 26, 28)
    node = np.array([0 if two_d else 12, 13, 14])
    phi = np.eye(4)
    phi[:3, 3] = [0 if two_d else 0.5, 1.25, -0.5]
    flat, textured = np.full(shape, 50.0), texture(8, shape)
    for im1, im2 in ((flat, textured), (flat, flat), (np.zeros(shape), np.zeros(shape))):
        pair = Pair(im1, im2)
        run = Run(hws=(0, 5, 5) if two_d else (4, 5, 5), znssd=criterion == "znssd")
        (got,) = correlate(pair, run, node, phi)
        assert (got.status, got.iterations, got.norm) == (-2, 0, 100)
        assert np.array_equal(got.F, phi[:3, :3])
        assert np.array_equal(got.t, phi[:3, 3])
        if criterion == "ssd" and im1.any():
            agree(got, expected_outcome(pair, run, node, phi))


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
def test_stripes(isa, criterion):
    """Texture along one axis only: gradients along the others vanish."""
    stripes = np.broadcast_to(LEVEL + 20 * np.sin(0.7 * np.arange(30)), (24, 26, 30)).copy()
    pair = Pair(stripes, stripes)
    (got,) = correlate(pair, Run(hws=(4, 4, 4), znssd=criterion == "znssd"), np.array([12, 13, 14]), np.eye(4))
    assert (got.status, got.iterations) == (-2, 0)
    # oblique stripes: no gradient vanishes, yet the system is singular
    z, y, x = np.indices((24, 26, 30))
    oblique = LEVEL + 20 * np.sin(0.4 * z + 0.3 * y + 0.5 * x)
    pair = Pair(oblique, oblique)
    (got,) = correlate(pair, Run(hws=(4, 4, 4), znssd=criterion == "znssd"), np.array([12, 13, 14]), np.eye(4))
    assert (got.status, got.iterations) == (-2, 0)


@pytest.mark.parametrize("volume", [3.05, 0.19, 2.95, 0.21])
def test_volume_change(isa, volume):
    """The step ends in a volume change on either side of the limits of 3 and 0.2."""
    pair = moving(False, 1)
    node = np.array([18, 20, 22])
    phi = guess_at(pair, node, 0.0)
    phi[:3, :3] = moving_phi(False)[0] * volume ** (1 / 3)
    # image 2 enlarged by as much about the node: its true Phi is the guess, and the step small
    x = np.indices(pair.im2.shape) - np.reshape(node + phi[:3, 3], (3, 1, 1, 1))
    at = x / volume ** (1 / 3) + np.reshape(node + phi[:3, 3], (3, 1, 1, 1))
    pair = Pair(pair.im1, np.float32(ndimage.map_coordinates(pair.im2, at, order=5, mode="mirror")).astype(float))
    run = Run(hws=(5, 5, 5), max_iterations=2, min_delta_phi=1e-9)
    (got,) = correlate(pair, run, node, phi)
    expected = expected_outcome(pair, run, node, phi)
    agree(got, expected, 1e-4)
    inside = 0.2 < volume < 3
    assert (got.status, got.iterations) == ((1, 2) if inside else (-3, 0))


@pytest.mark.parametrize(
    ("bad", "places"),
    [
        (np.nan, [(0, 3), (2, 3), (1, 1), (2, 0)]),
        (np.inf, [(0, 3), (2, 3), (1, 1), (2, 0)]),
        (1e300, [(0, 3), (2, 3)]),
        (-1e12, [(0, 3), (2, 3)]),
    ],
)
def test_absurd_guesses_are_rows(isa, bad, places):
    """Nothing but a status comes of a guess that is no number or far beyond any image."""
    pair = moving(False, 1)
    for place in places:
        phi = np.eye(4)
        phi[place] = bad
        (got,) = correlate(pair, run_for(pair), np.array([18, 20, 22]), phi)
        assert (got.status, got.iterations) == (-3, 0)


@pytest.mark.parametrize("value", [1e5, 1e8, -1e12, 1e300])
@pytest.mark.parametrize("entry", [(i, j) for i in range(3) for j in range(4)])
def test_absurd_guess_is_a_row(isa, entry, value):
    """Positions beyond the fixed-point range must not become addresses."""
    phi = np.eye(4)[:3]
    phi[entry] = value
    result = np.zeros((2, 6))
    points_call(phi=np.stack([phi.ravel(), np.eye(4)[:3].ravel()]), result=result)
    assert (result[:, 2] < 0).all()  # no texture, or no samples
