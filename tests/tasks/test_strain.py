"""Strain of blocks of points, against the gradient of an affine field."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.fields.phifield import PhiField
from mpidvc.tasks.source import Source
from mpidvc.tasks.strain import StrainSettings, StrainTask
from tests.tasks.given import Given

F = np.array([[1.02, 0.01, -0.02], [0.005, 0.97, 0.015], [-0.01, 0.02, 1.03]])


@pytest.mark.parametrize("mode", ["Q8", "Geers", "raw"])
@pytest.mark.parametrize("whole", [True, False])
def test_affine_field(mode: str, whole: bool) -> None:
    """Also beside a node that does not count; a cell that has it has no strain."""
    dims, steps = (4, 5, 3), np.array([10.0, 7.0, 12.0])
    nodes = np.stack(np.unravel_index(np.arange(60), dims), axis=1) * steps
    phi = np.tile(np.eye(4), (60, 1, 1))
    phi[:, :3, :3], phi[:, :3, 3] = F, nodes @ (F - np.eye(3)).T + [1, 2, 3]
    bad = 22
    phi[bad, :3] = np.nan
    good = np.delete(np.arange(60), bad)
    settings = StrainSettings(mode, ("vol", "e"), False, dims, 15.0)
    if mode == "Q8":
        corners = nodes.reshape(*dims, 3)
        points = ((corners[:-1, :-1, :-1] + corners[1:, 1:, 1:]) / 2).reshape(-1, 3)
        given, source = Given(points, np.zeros((len(points), 4, 4))), Source(PhiField(nodes, phi))
        counts = ~(np.abs(points - nodes[bad]) < steps).all(axis=1)
    else:
        given = Given(nodes, phi)
        points = PhiField(nodes, phi) if whole else PhiField(nodes[good], phi[good])
        source = Source(points) if mode == "Geers" else None
        counts = np.isin(np.arange(60), good)
    records = StrainTask(source, given, settings).run(0)
    np.testing.assert_array_equal(records["result"][:, -1], np.where(counts, 2, -5))
    np.testing.assert_allclose(records["phi"][counts, :, :3], np.tile(F, (counts.sum(), 1, 1)), atol=1e-12)
    small = (F + F.T) / 2 - np.eye(3)
    expected = [np.linalg.det(F) - 1, *small[np.triu_indices(3)]]
    np.testing.assert_allclose(records["result"][counts, :-1], np.tile(expected, (counts.sum(), 1)), atol=1e-12)
    assert np.isnan(records["result"][~counts, :-1]).all()
