"""Snaps against the known motion of analytic pairs; cancelling; what finds nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core import deformation
from mpidvc.core.coarse import Found
from mpidvc.core.coarse_refinement import Candidate
from mpidvc.core.phase_correlation import shifts_between
from mpidvc.errors import UserError
from mpidvc.gui import snap
from mpidvc.gui.display import DisplayPair
from mpidvc.gui.snap import CancelledError, NothingFoundError, Progress
from tests.gui.pairs import WidePair, pair_of, phi_of

AXIS = np.array([2.0, -1.0, 2.0]) / 3
SOLID = WidePair((70, 80, 76), 3, 40 * AXIS, (0.03,) * 3, (14, -20, 17), amplitude=0, spacing=7, radii=(5, 9))
FLAT = WidePair((1, 200, 220), 4, (25, 0, 0), (0, 0.02, -0.03), (0, 40, -55), amplitude=0, spacing=8, radii=(6, 10))


@pytest.fixture(scope="module")
def solid() -> DisplayPair:
    return pair_of(SOLID.image1(), SOLID.image2())


@pytest.fixture(scope="module")
def flat() -> DisplayPair:
    return pair_of(FLAT.image1(), FLAT.image2(), 12_000)


@pytest.mark.parametrize("shift", [(5, -7, 3), (0, 12, -30), (-25, 0, 40)])
def test_shifts_of_noise(shift: tuple[int, int, int]) -> None:
    """Cut from a larger volume, so that much of each is not in the other; some voxels are missing."""
    rng = np.random.default_rng(0)
    whole = rng.normal(100, 5, (100, 110, 140)).astype(np.float32)
    one = whole[30:70, 35:75, 45:95].copy()
    z, y, x = (a - s for a, s in zip((30, 35, 45), shift, strict=True))
    two = whole[z : z + 40, y : y + 40, x : x + 50].copy()
    one[:3, :5] = np.nan
    found = shifts_between(one, two)
    assert list(shift) in found.tolist()
    assert len({tuple(row) for row in found.tolist()}) == len(found)


def test_shifts_of_a_plane_stay_in_it() -> None:
    one = np.random.default_rng(0).random((1, 40, 50), np.float32)
    found = shifts_between(one, np.roll(one, (3, -4), (1, 2)))
    assert found[0].tolist() == [0, 3, -4]
    assert (found[:, 0] == 0).all()


def test_translation_with_a_remaining_rotation(solid: DisplayPair) -> None:
    """Rotation and stretch as an eye sees them: the translation is found to a voxel or two."""
    guess = deformation.compute_phi((0, 0, 0), 37 * AXIS, 1.02 * np.eye(3))
    found = snap.translate(solid, guess, Progress())
    np.testing.assert_array_equal(found.phi[:3, :3], guess[:3, :3])
    np.testing.assert_allclose(found.phi[:3, 3], SOLID.translation, atol=2)
    with pytest.raises(NothingFoundError, match="no translation"):
        snap.translate(solid, found.phi, Progress())


def test_registration_from_the_present_phi(solid: DisplayPair) -> None:
    told: list[str] = []
    guess = deformation.compute_phi((15, -21, 16), 38 * AXIS, 1.02 * np.eye(3))
    found = snap.register(solid, guess, Progress(lambda share, text: told.append(text)))
    np.testing.assert_allclose(found.phi, phi_of(SOLID), atol=0.03)
    np.testing.assert_allclose(found.phi[:3, :3], phi_of(SOLID)[:3, :3], atol=5e-4)
    assert "converged after" in found.text
    assert any(line.startswith("It#") for line in told)


def test_2d_copies_of_a_quarter(flat: DisplayPair) -> None:
    """Phi comes back in voxels of the images: translation first, then reg."""
    assert flat.factor == 2
    guess = deformation.compute_phi((0, 0, 0), (23, 0, 0))
    moved = snap.translate(flat, guess, Progress())
    np.testing.assert_allclose(moved.phi[:3, 3], FLAT.translation, atol=3)
    found = snap.register(flat, moved.phi, Progress())
    np.testing.assert_allclose(found.phi, phi_of(FLAT), atol=0.06)
    assert found.phi[0].tolist() == [1, 0, 0, 0]


def test_search_about_a_guess(solid: DisplayPair) -> None:
    """Image 1 is searched as it lies, and what is found comes after what is there."""
    told: list[float | None] = []
    guess = deformation.compute_phi((6, -10, 8), 28 * AXIS)
    found = snap.search(solid, guess, Progress(lambda share, text: told.append(share)), 25)
    np.testing.assert_allclose(found.phi[:3, 3], SOLID.translation, atol=1)
    np.testing.assert_allclose(found.phi[:3, :3], phi_of(SOLID)[:3, :3], atol=0.02)
    shares = [share for share in told if share is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize(("angle", "turned"), [(180.0, -150.0), (30.0, 40.0)])
def test_search_in_2d(flat: DisplayPair, angle: float, turned: float) -> None:
    """On copies of a quarter; where any rotation is allowed, what is there does not count."""
    there = deformation.compute_phi((0, 30, -30), (turned, 0, 0))
    found = snap.search(flat, there, Progress(), angle)
    # a voxel of the copies, and a share of the search's own
    np.testing.assert_allclose(found.phi[:3, 3], FLAT.translation, atol=2)
    np.testing.assert_allclose(found.phi[:3, :3], phi_of(FLAT)[:3, :3], atol=0.03)
    assert found.phi[0].tolist() == [1, 0, 0, 0]


def test_search_that_finds_nothing_better(flat: DisplayPair, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Found(Candidate(1.0, 0.9, 1.0, np.eye(4)), None)
    monkeypatch.setattr("mpidvc.core.coarse.search", lambda one, two, **given: nothing)
    with pytest.raises(NothingFoundError, match="no rotation"):
        snap.search(flat, phi_of(FLAT), Progress(), 30)


def test_search_of_what_looks_the_same_from_two_sides_is_doubted() -> None:
    """A grey rectangle, a bit moved: a half turn is as good as none."""
    image = np.zeros((1, 100, 100), np.float32)
    image[:, 30:70, 20:80] = 5
    image = ndimage.gaussian_filter(image, (0, 1.5, 1.5)).astype(np.float32)
    found = snap.search(pair_of(image, np.roll(image, (3, 4), (1, 2))), np.eye(4), Progress())
    assert found.doubtful
    assert found.text.startswith("doubtful: another motion is nearly as good")


def test_failed_registration_changes_nothing() -> None:
    noise = np.random.default_rng(0).normal(100, 10, (2, 40, 40, 40)).astype(np.float32)
    pair = pair_of(*noise)
    far = deformation.compute_phi((0, 0, 60))
    with pytest.raises(NothingFoundError, match=r"reg fails from here \(.+\); bring the images nearer"):
        snap.register(pair, far, Progress())
    with pytest.raises(UserError, match="fewer than"):
        snap.register(pair_of(noise[0][:4, :4, :4], noise[1][:4, :4, :4]), np.eye(4), Progress())


def test_iterations_that_do_not_suffice(solid: DisplayPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snap, "ITERATIONS", 1)
    found = snap.register(solid, deformation.compute_phi((15, -21, 16), 38 * AXIS), Progress())
    assert "not converged in 1 iterations" in found.text
    assert not np.array_equal(found.phi, np.eye(4))


@pytest.mark.parametrize("job", [snap.translate, snap.search, snap.register])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_cancelled(solid: DisplayPair, job: object, after: int) -> None:
    calls = 0

    def cancelled() -> bool:
        nonlocal calls
        calls += 1
        return calls > after

    with pytest.raises(CancelledError):
        job(solid, np.eye(4), Progress(cancelled=cancelled))  # type: ignore[operator]
