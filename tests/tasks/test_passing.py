"""Means of the neighbouring Phi of points, against a comparison with every point."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.fields.phifield import PhiField
from mpidvc.tasks.passing import NO_NEIGHBOUR, RESULT, AppliedTask, PassingSettings, PassingTask
from mpidvc.tasks.source import Source
from tests.tasks.given import Given, scattered


@pytest.mark.parametrize(("radius", "number"), [(5.0, None), (None, 1), (None, 6)])
@pytest.mark.parametrize("apply_f", ["all", "no"])
def test_means_weighted_by_inverse_distance(radius: float | None, number: int | None, apply_f: str) -> None:
    positions, phi = scattered((20, 20, 20), 60)
    targets = np.random.default_rng(5).uniform(-4, 24, (40, 3))
    task = PassingTask(
        Source(PhiField(positions, phi)),
        Given(targets, np.zeros((40, 4, 4)), [np.arange(25), np.arange(25, 40)]),
        PassingSettings(radius, number, apply_f, False),
    )
    records = np.concatenate([task.run(0), task.run(1)])
    status = records["result"][:, RESULT.index("returnStatus")]
    for record, told, target in zip(records, status, targets, strict=True):
        distance = np.linalg.norm(positions - target, axis=1)
        near = np.argsort(distance, kind="stable")[:number] if radius is None else np.flatnonzero(distance <= radius)
        assert told == (1 if len(near) else NO_NEIGHBOUR)
        if len(near) == 0:
            assert np.isnan(record["phi"]).all()
            continue
        mean = np.average(phi[near, :3], axis=0, weights=1 / (distance[near] + 1e-6))
        if apply_f == "no":
            mean[:, :3] = np.eye(3)
        np.testing.assert_allclose(record["phi"], mean, rtol=0, atol=1e-12)


def test_a_registration_is_applied_as_it_is() -> None:
    positions, phi = scattered((20, 20, 20), 10)
    records = AppliedTask(Given(positions, phi)).run(0)
    np.testing.assert_array_equal(records["phi"], phi[:, :3])
    assert (records["result"][:, RESULT.index("returnStatus")] == 1).all()
