"""Phases of a cross power, against the same in complex double."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.kernels.phases import cross_phases


@pytest.mark.parametrize(("real", "complex_", "limit"), [("f4", "c8", 3e-7), ("f8", "c16", 5e-16)])
def test_phases(real: str, complex_: str, limit: float) -> None:
    random = np.random.default_rng(4)
    shape = (7, 5)
    values = (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(complex_)
    values *= 10.0 ** random.integers(-6, 7, shape)
    angles = random.uniform(0, 7, shape)
    reference = np.exp(1j * angles).astype(complex_)
    reference[2, 3] = reference[0, 0] = values[4, 4] = 0
    expected = np.conj(reference.astype("c16")) * np.exp(1j * np.angle(values.astype("c16")))
    least = 1e-3
    expected[np.abs(values) <= least] = 0
    spectrum = values.view(real).reshape(*shape, 2).copy()
    kept = cross_phases(spectrum, reference.view(real).reshape(*shape, 2), least)
    found = spectrum.view(complex_)[..., 0]
    assert found.dtype == complex_
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)
    assert 0 < np.count_nonzero(expected) < expected.size
    np.testing.assert_array_equal(kept, np.count_nonzero(expected, axis=0))


def test_a_value_at_the_limit_is_none() -> None:
    spectrum, one = np.array([[[3.0, 4.0]], [[3.0, np.nextafter(4.0, 5.0)]]]), np.array([[[1.0, 0.0]]] * 2)
    assert cross_phases(spectrum, one, 5.0).tolist() == [1]
    np.testing.assert_allclose(spectrum[:, 0], [[0, 0], [0.6, 0.8]], atol=1e-15)


def test_shapes() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        cross_phases(np.zeros((3, 4, 2)), np.zeros((3, 5, 2)), 0.0)
    with pytest.raises(ValueError, match="different shapes"):
        cross_phases(np.zeros((3, 4, 1)), np.zeros((3, 4, 1)), 0.0)
    assert cross_phases(np.zeros((3, 0, 2)), np.zeros((3, 0, 2)), 0.0).tolist() == []
