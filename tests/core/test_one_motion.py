"""Whether one motion describes a field: shares that are known."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core.deformation import compute_phi
from mpidvc.core.one_motion import share_elsewhere

CENTRE = np.array([10.0, 20.0, 30.0])
PHI = compute_phi(translation=(1.2, -3.4, 0.6), rotation=(2.0, -1.0, 3.0))
POINTS = np.random.default_rng(1).uniform(0, 60, (400, 3))
#: As a search finds it: whole voxels.
FOUND = np.rint(PHI[:3, 3] + (POINTS - CENTRE) @ (PHI[:3, :3] - np.eye(3)).T)


def test_one_motion_is_enough() -> None:
    assert share_elsewhere(POINTS, FOUND, np.ones(400), PHI, CENTRE) == 0.0


@pytest.mark.parametrize(("jump", "share"), [(2.0, 0.0), (3.1, 0.25)])
def test_a_part_that_moves_otherwise(jump: float, share: float) -> None:
    """A quarter of the points is elsewhere, if it is so by more than 2 voxels and the rounding of a search."""
    exact = PHI[:3, 3] + (POINTS - CENTRE) @ (PHI[:3, :3] - np.eye(3)).T
    exact[::4, 1] -= jump
    assert share_elsewhere(POINTS, exact, np.ones(400), PHI, CENTRE) == share


def test_windows_that_correlate_less_than_half_of_the_others_do_not_count() -> None:
    cc, found = np.linspace(1, 0, 400), FOUND.copy()
    found[300:] += 30
    assert share_elsewhere(POINTS, found, cc, PHI, CENTRE) == 0.0
    assert share_elsewhere(POINTS, found, cc[::-1], PHI, CENTRE) == 0.5


def test_no_point() -> None:
    assert share_elsewhere(POINTS[:0], FOUND[:0], [], PHI, CENTRE) == 1.0
