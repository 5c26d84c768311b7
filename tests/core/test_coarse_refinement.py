"""The refinement of the coarse search against motions in closed form and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core import deformation
from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.coarse_pair import Level
from mpidvc.core.coarse_refinement import Refinement
from tests.core.test_coarse import FLAT, SOLID, check


@pytest.mark.parametrize("pair", [SOLID, FLAT], ids=["3D", "2D"])
def test_a_refinement_converges_and_measures_zncc(pair: AnalyticPair) -> None:
    """From 2° and a voxel beside the truth; ZNCC against scipy over the same voxels."""
    centre = (np.array(pair.shape) - 1) / 2
    truth = deformation.compute_phi(pair.displacement(centre))
    truth[:3, :3] = pair.gradient(centre)
    start = truth.copy()
    start[:3, :3] = deformation.rotation_matrix((2, 0, 0)) @ truth[:3, :3]
    start[2, 3] += 0.7
    level = Level.of(pair.image1(), pair.image2())
    far = np.eye(4)
    far[2, 3] = 500
    task = Refinement(level, [start, far])
    found = task.run(0)
    check(found.phi, pair, 0.02)
    places = np.indices(pair.shape, dtype=float).reshape(3, -1) - centre[:, None]
    places = found.phi[:3, :3] @ places + (found.phi[:3, 3] + centre)[:, None]
    samples = ndimage.map_coordinates(level.im2.astype(float), places, order=1, cval=np.nan).reshape(pair.shape)
    inner = np.zeros(pair.shape, bool)
    inner[tuple(slice(0 if n == 1 else 1, n if n == 1 else -1) for n in pair.shape)] = True
    used = inner & np.isfinite(samples)
    assert found.overlap == pytest.approx(used.sum() / inner.sum(), abs=1e-3)
    assert found.zncc == pytest.approx(np.corrcoef(level.im1[used], samples[used])[0, 1], abs=1e-4)
    assert found.score == pytest.approx(np.arctanh(found.zncc) * np.sqrt(used.sum()), rel=0.02)
    # nothing is compared
    assert task.run(1).score == 0
