"""Usable neighbours, against a comparison with every point."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mpidvc.core import neighbourhood
from mpidvc.core.neighbourhood import nearest_usable, usable_within
from tests.core.brute import BruteForce

rng = np.random.default_rng(1)
POINTS = rng.uniform(0, 100, (300, 3))
USABLE = rng.random(300) < 0.3
CENTRES = rng.uniform(0, 100, (20, 3))
BY_DISTANCE = np.argsort(np.linalg.norm(CENTRES[:, None] - POINTS[None], axis=2), axis=1)


def lists(start, found):
    return [found[a:b].tolist() for a, b in itertools.pairwise(start)]


@pytest.mark.parametrize("together", [2**22, 40])
@pytest.mark.parametrize("number", [1, 7, 10_000])
def test_nearest(number, together, monkeypatch):
    monkeypatch.setattr(neighbourhood, "CANDIDATES", together)
    expected = [[point for point in order if USABLE[point]][:number] for order in BY_DISTANCE]
    assert lists(*nearest_usable(BruteForce(POINTS), USABLE, CENTRES, number)) == expected


def test_within():
    near = np.linalg.norm(CENTRES[:, None] - POINTS[None], axis=2) <= 30
    expected = [np.nonzero(row & USABLE)[0].tolist() for row in near]
    assert lists(*usable_within(BruteForce(POINTS), USABLE, CENTRES, 30.0)) == expected


def test_the_radius_doubles_until_there_are_more_than_some():
    distance = np.linalg.norm(CENTRES[:, None] - POINTS[None], axis=2)
    expected = []
    for row in distance:
        radius = 10.0
        while np.sum((row <= radius) & USABLE) <= 27:
            radius *= 2
        expected.append(np.nonzero((row <= radius) & USABLE)[0].tolist())
    assert lists(*usable_within(BruteForce(POINTS), USABLE, CENTRES, 10.0, 27)) == expected


def test_it_ends_when_all_usable_points_are_found():
    few = np.zeros(300, bool)
    few[[3, 5, 8]] = True
    assert lists(*usable_within(BruteForce(POINTS), few, CENTRES, 1e-3, 27)) == [[3, 5, 8]] * 20
    nothing = np.zeros(300, bool)
    assert lists(*usable_within(BruteForce(POINTS), nothing, CENTRES, 5.0, 27)) == [[]] * 20
    assert lists(*nearest_usable(BruteForce(POINTS), nothing, CENTRES, 5)) == [[]] * 20
