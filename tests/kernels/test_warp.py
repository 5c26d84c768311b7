"""Deformed blocks against scipy's map_coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.kernels import correlation
from tests.kernels.oracle import DIMENSIONS, ORDERS, pair_of, turned


@pytest.mark.parametrize("degrees", [0, 3, 9, 40])
@DIMENSIONS
@ORDERS
def test_warp_equals_map_coordinates(isa, order, two_d, degrees):
    pair = pair_of(two_d, order)
    n = np.array([1, 75, 81] if two_d else [13, 45, 61])
    F = turned(degrees, 9, two_d)
    centre = np.where([two_d, False, False], 0.0, (np.array(pair.im2.shape) - 1) / 2 + [0.2, 0.1, -0.3])
    out = np.full(n, np.nan, np.float32)
    low, high = pair.frame, pair.frame + pair.im2.shape - 1
    correlation.warp(pair.box2, order, two_d, F, centre + pair.frame, low, high, out)
    x = np.indices(n) - np.reshape((n - 1) / 2, (3, 1, 1, 1))
    value, data = pair.sample2(np.einsum("ij,jzyx->izyx", F, x) + np.reshape(centre, (3, 1, 1, 1)))
    assert 0.2 < data.mean() < 1
    np.testing.assert_allclose(out, np.where(data, value, 0), rtol=0, atol=2e-4)


def test_warp_outside():
    box, out = correlation.empty_box((8, 8, 8)), correlation.empty_box((4, 4, 4))
    for low, high in (((0, -1, 0), (5, 5, 5)), ((2, 2, 2), (5, 5, 7.5))):
        with pytest.raises(ValueError, match="must lie inside the box"):
            correlation.warp(box, 1, False, np.eye(3), (4, 4, 4), low, high, out)
