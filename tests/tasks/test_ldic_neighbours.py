"""Points that start from neighbours: fields with jumps and poor guesses against their closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.grid import chunk_points, make_grid
from mpidvc.core.registration import RegistrationSettings
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.tasks import ldic
from mpidvc.tasks.ldic import LdicSettings, LdicTask, brick
from tests.jump import Jump
from tests.tasks.given import Given, phi_of, run_all

#: Voxels: what the cubic spline leaves of these textures in windows of this size.
CUBIC = 0.02
SPACING = (1.0, 12.0, 12.0)
FLAT = LdicSettings(RegistrationSettings(order=3), (0, 10, 10), (0, 3, 3))


def measured(
    images: ImagePair,
    nodes: np.ndarray,
    phi: np.ndarray,
    settings: LdicSettings,
    spacing: tuple[float, float, float] | None,
    chunks: list[np.ndarray] | None = None,
) -> np.ndarray:
    return run_all(LdicTask(images, Given(nodes, phi, chunks), replace(settings, spacing=spacing)))


def right(records: np.ndarray, truth: np.ndarray, tolerance: float) -> np.ndarray:
    error = np.abs(records["phi"][:, :, 3] - truth).max(axis=1)
    return np.asarray((records["result"][:, 2] == 2) & (error < tolerance))


@pytest.fixture(scope="module")
def jump() -> Jump:
    return Jump()


@pytest.fixture(scope="module")
def images(jump: Jump) -> ImagePair:
    return ImagePair(ArrayImage(jump.image1), ArrayImage(jump.image2), None)


@pytest.mark.parametrize("case", ["", "rigid", "znssd", "update_gradient", "shift"])
def test_a_jump_without_a_guess(jump, images, case):
    """In the chunks of a run; those of the lower piece, and those that have both."""
    registration = RegistrationSettings(order=3)
    if case == "znssd":
        images = images._replace(image2=ArrayImage((0.5 * jump.image2 + 4000).astype(np.uint16)))
        registration = replace(registration, criterion="znssd", gain=2.0, bias=-8000.0)
    elif case:
        registration = replace(registration, **{case: True})
    settings = replace(FLAT, registration=registration)
    nodes, _ = make_grid(images.image1.shape, (1, 12, 12))
    chunks = chunk_points(nodes, brick(len(nodes), SPACING, settings, two_d=True))
    divided = [chunks.points(k) for k in range(len(chunks))]
    guess = phi_of(np.zeros_like(nodes))
    clear, truth = jump.clear(nodes, 14), jump.displacement(nodes)
    lower = clear & ~jump.is_upper(nodes)
    assert lower.sum() > 60
    # a rigid window misses the strain of 0.4 % over its ten voxels
    tolerance = 0.05 if case == "rigid" else CUBIC
    without = right(measured(images, nodes, guess, settings, None, divided), truth, tolerance)
    assert without[clear & ~lower].mean() > 0.95
    assert without[lower].mean() < 0.05
    found = measured(images, nodes, guess, settings, SPACING, divided)
    # a window that converged to a wrong place with a high ZNCC, and has no neighbour to tell, may remain
    assert right(found, truth, tolerance)[clear].mean() > 0.98


def test_volume_with_a_poor_guess_from_one_good_point():
    """Guesses are 9 voxels off but for one in the middle, which all others follow: no motion of all is searched."""
    pair = AnalyticPair((60, 70, 80), seed=6, amplitude=0, rotation=(2, 1, -1), translation=(0.6, -0.4, 0.7))
    images = ImagePair(ArrayImage(pair.image1()), ArrayImage(pair.image2()), None)
    settings = LdicSettings(RegistrationSettings(), (6, 6, 6), (2, 2, 2))
    nodes, _ = make_grid(pair.shape, (10, 10, 10))
    nodes = nodes[((nodes > 9) & (nodes < np.array(pair.shape) - 9)).all(axis=1)]
    truth = pair.displacement(nodes)
    guess = phi_of(truth + np.array((0, 0, 9)))
    middle = np.argmin(np.linalg.norm(nodes - np.array(pair.shape) / 2, axis=1))
    guess[middle, :3, 3] = truth[middle].round()
    without = right(measured(images, nodes, guess, settings, None), truth, 0.05)
    assert without.sum() <= 2
    found = measured(images, nodes, guess, settings, (10.0, 10.0, 10.0))
    assert right(found, truth, 0.05).all()


def test_good_guesses_are_kept():
    """A neighbour beyond a jump is no better than the guess: results are those from the guess, point by point."""
    jump = Jump()
    images = ImagePair(ArrayImage(jump.image1), ArrayImage(jump.image2), None)
    nodes, _ = make_grid(images.image1.shape, (1, 12, 12))
    nodes = nodes[jump.clear(nodes, 14)]
    truth = jump.displacement(nodes)
    guess = phi_of(truth.round())
    found = measured(images, nodes, guess, FLAT, SPACING)
    alone = measured(images, nodes, guess, FLAT, None)
    assert right(found, truth, CUBIC).all()
    # both end where a step is below 1e-3
    np.testing.assert_allclose(found["phi"], alone["phi"], rtol=0, atol=2e-3)


def test_iterations_are_saved():
    """A smooth field from its mean motion: a neighbour is closer than the guess."""
    pair = AnalyticPair((60, 70, 80), seed=6, rotation=(4, 3, -2), translation=(0.6, -0.4, 0.7))
    images = ImagePair(ArrayImage(pair.image1()), ArrayImage(pair.image2()), None)
    settings = LdicSettings(RegistrationSettings(order=3), (6, 6, 6), (2, 2, 2))
    nodes, _ = make_grid(pair.shape, (8, 8, 8))
    nodes = nodes[((nodes > 9) & (nodes < np.array(pair.shape) - 9)).all(axis=1)]
    guess = phi_of(np.zeros_like(nodes))
    alone, found = (measured(images, nodes, guess, settings, spacing) for spacing in (None, (8.0,) * 3))
    assert (alone["result"][:, 2] == 2).mean() > 0.9
    assert found["result"][:, 1].sum() < 0.7 * alone["result"][:, 1].sum()
    assert right(found, pair.displacement(nodes), 0.05).all()


def test_points_without_a_result(jump, images):
    """Masked windows, guesses that are no numbers or miss image 2: the same statuses as from the guess, and no harm."""
    mask = np.ones(images.image1.shape, np.uint8)
    mask[..., :100] = 0
    images = images._replace(mask1=ArrayImage(mask))
    nodes, _ = make_grid(images.image1.shape, (1, 12, 12))
    guess = phi_of(np.zeros_like(nodes))
    guess[[5, 150], 1, 3] = np.nan
    guess[[151, 200], 2, 3] = 1e4
    guess[[152, 201], 1, 3] = 2.0**60
    found, alone = (measured(images, nodes, guess, FLAT, spacing) for spacing in (SPACING, None))
    for status in (-5, -7):
        skipped = alone["result"][:, 2] == status
        assert skipped.sum() >= 2
        np.testing.assert_array_equal(found["result"][:, 2] == status, skipped)
        assert np.isnan(found["phi"][skipped, 1:, 3]).all()
    good = jump.clear(nodes, 14) & (nodes[:, 2] > 112) & (alone["result"][:, 2] > -5)
    assert right(found, jump.displacement(nodes), CUBIC)[good].all()


def test_nothing_but_noise():
    """Images without a relation: nothing converges to a good correlation, and the search ends."""
    random = np.random.default_rng(1)
    images = ImagePair(*(ArrayImage(random.integers(0, 255, (1, 90, 90)).astype(np.uint8)) for _ in "12"), None)
    nodes, _ = make_grid(images.image1.shape, (1, 12, 12))
    found = measured(images, nodes, phi_of(np.zeros_like(nodes)), FLAT, SPACING)
    assert not (found["result"][:, 5] > 0.9).any()


def test_chunk_is_all_that_counts(images):
    """The same bits whatever chunks were run before it."""
    nodes, _ = make_grid(images.image1.shape, (1, 12, 12))
    guess = phi_of(np.zeros_like(nodes))
    chunks = [np.arange(k, len(nodes), 7) for k in range(7)]
    task = LdicTask(images, Given(nodes, guess, chunks), replace(FLAT, spacing=SPACING))
    forth = [task.run(k).tobytes() for k in range(7)]
    assert [task.run(k).tobytes() for k in reversed(range(7))] == forth[::-1]


@pytest.mark.parametrize("largest", [2_000_000, 900])
def test_box_that_is_searched_is_bounded(jump, images, monkeypatch, largest):
    """The motion of the whole comes from a box of at most so many voxels about the middle."""
    monkeypatch.setattr(ldic, "SEARCHED_BOX", largest)
    boxes = []
    shifts = ldic.shifts_between
    monkeypatch.setattr(ldic, "shifts_between", lambda one, two, n: boxes.append(one.size) or shifts(one, two, n))
    nodes, _ = make_grid(images.image1.shape, (1, 12, 12))
    nodes = nodes[(nodes[:, 1] > 160) & (nodes[:, 1] < 210) & (nodes[:, 2] > 60) & (nodes[:, 2] < 180)]
    found = measured(images, nodes, phi_of(np.zeros_like(nodes)), FLAT, SPACING)
    assert len(boxes) >= 1
    assert max(boxes) <= 1.1 * largest
    if largest > 1000:
        assert right(found, jump.displacement(nodes), CUBIC).all()
