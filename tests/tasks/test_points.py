"""Points as tasks take them."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.tasks.points import INPUT, inputs_of


@pytest.mark.parametrize("rows", [3, 4])
def test_inputs(rows: int) -> None:
    """Position and the first three rows of Phi, whatever is below them."""
    random = np.random.default_rng(1)
    positions, phi = random.normal(size=(5, 3)), random.normal(size=(5, rows, 4))
    inputs = inputs_of(positions, phi)
    assert inputs.dtype == INPUT
    np.testing.assert_array_equal(inputs["position"], positions)
    np.testing.assert_array_equal(inputs["phi"], phi[:, :3])
    # the journal stores rows as 15 doubles without gaps
    np.testing.assert_array_equal(
        inputs.view(np.float64).reshape(5, 15), np.concatenate([positions, phi[:, :3].reshape(5, 12)], axis=1)
    )


def test_no_points() -> None:
    assert inputs_of(np.zeros((0, 3)), np.zeros((0, 4, 4))).shape == (0,)
