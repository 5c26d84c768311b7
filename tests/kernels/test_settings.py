"""Settings that the kernels refuse."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.kernels import correlation


@pytest.mark.parametrize("order", [0, 2, 5])
def test_unknown_order(order):
    with pytest.raises(ValueError, match="interpolation order"):
        correlation.Settings(order=order)
    box = correlation.empty_box((5, 5, 5))
    with pytest.raises(ValueError, match="interpolation order"):
        correlation.warp(box, order, False, np.eye(3), (2, 2, 2), (0, 0, 0), (4, 4, 4), box.copy())


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_bad_sigma(sigma):
    with pytest.raises(ValueError, match="must be above 0"):
        correlation.Settings(sigma=sigma)
