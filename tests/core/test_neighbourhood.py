"""Lists of neighbours, part by part, against a comparison with every point."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mpidvc.core import neighbourhood
from mpidvc.core.neighbourhood import neighbour_lists
from mpidvc.kernels.neighbours import Points
from tests.core.brute import BruteForce

rng = np.random.default_rng(1)
POINTS = rng.uniform(0, 100, (300, 3))
USABLE = rng.random(300) < 0.3
CENTRES = rng.uniform(0, 100, (20, 3))


def lists(parts):
    """A list for every centre."""
    return [found[a:b].tolist() for _, start, found in parts for a, b in itertools.pairwise(start)]


@pytest.mark.parametrize("pairs", [2**20, 40])
@pytest.mark.parametrize("usable", [None, USABLE])
@pytest.mark.parametrize(("radius", "number", "fewest"), [(30.0, None, 0), (10.0, None, 28), (None, 7, 0)])
def test_parts(pairs, usable, radius, number, fewest, monkeypatch):
    monkeypatch.setattr(neighbourhood, "PAIRS", pairs)
    parts = list(neighbour_lists(Points(POINTS), CENTRES, radius, number, usable, fewest))
    assert (len(parts) > 1) == (pairs == 40)
    assert [row for which, _, _ in parts for row in range(20)[which]] == list(range(20))
    # few pairs are held at a time: the list that comes after the last one may stick out
    assert all(start[-2] <= pairs for _, start, _ in parts)
    brute = BruteForce(POINTS)
    if radius is None:
        assert lists(parts) == brute.nearest(CENTRES, number, usable).tolist()
    else:
        start, found = brute.within(CENTRES, radius, usable, fewest)
        assert lists(parts) == lists([(None, start, found)])


def test_no_centre():
    assert list(neighbour_lists(Points(POINTS), CENTRES[:0], 5.0, None)) == []
