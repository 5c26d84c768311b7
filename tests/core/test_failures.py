"""Words for the place of failures, on a grid whose failed nodes are known."""

from __future__ import annotations

import numpy as np

from mpidvc.core.failures import describe_place, sample

SHAPE = (60, 60, 60)
HWS = (4, 4, 4)


def nodes() -> np.ndarray:
    axis = np.arange(3.0, 60, 6)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def test_places() -> None:
    positions = nodes()
    border = ((positions < 4) | (positions > 55)).any(axis=1)
    scattered = np.random.default_rng(0).random(len(positions)) < 0.3
    assert describe_place(positions, np.ones(len(positions), bool), SHAPE, HWS) == "everywhere"
    assert describe_place(positions, border, SHAPE, HWS) == "mostly at the border of the image"
    assert describe_place(positions, scattered, SHAPE, HWS) == "scattered"
    low, high = (
        describe_place(positions, positions[:, 1] < 20, SHAPE, HWS).removeprefix("mostly at y from ").split(" to ")
    )
    assert 3 <= float(low) < float(high) <= 20


def test_sample_is_of_the_chosen() -> None:
    chosen = np.arange(1000) % 3 == 0
    found = sample(chosen)
    assert len(found) == len(np.unique(found)) == 100
    assert chosen[found].all()
    assert (found[0], found[-1]) == (0, 999)
    assert sample(np.zeros(5, bool)).tolist() == []
