"""The scan of the coarse search: its rotations by brute force, and moved bodies."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core import coarse_scan, deformation
from mpidvc.core.coarse_pair import Level
from mpidvc.core.coarse_scan import Scan, gradients


def test_every_rotation_has_a_neighbour_in_the_grid() -> None:
    """Brute force over random rotations; the grid of a largest angle has a neighbour of every smaller rotation."""
    rng = np.random.default_rng(5)
    q = rng.standard_normal((1500, 4))
    q /= np.linalg.norm(q, axis=1)[:, None]
    q *= np.sign(q[:, :1])
    vectors = 2 * np.degrees(np.arccos(q[:, :1])) * q[:, 1:] / np.linalg.norm(q[:, 1:], axis=1)[:, None]
    wanted = deformation.rotation_matrix(vectors)
    for largest in (180.0, 60.0):
        grid = gradients(False, largest)
        np.testing.assert_allclose(grid @ grid.transpose(0, 2, 1), np.tile(np.eye(3), (len(grid), 1, 1)), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(grid), 1)
        chosen = wanted[np.linalg.norm(vectors, axis=1) <= largest]
        cosine = (np.einsum("nij,mij->nm", chosen, grid) - 1) / 2
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1).max(axis=1))).max() <= coarse_scan.REACH
    assert len(gradients(False, 60.0)) < 0.2 * coarse_scan.ROTATIONS


def test_all_angles_of_the_plane() -> None:
    grid = gradients(True, 180.0)
    for stretch in coarse_scan.STRETCHES_2D:
        ours = grid[np.isclose(np.sqrt(np.linalg.det(grid)), stretch)]
        angles = np.sort(np.degrees(np.arctan2(ours[:, 2, 1], ours[:, 1, 1])).round(6))
        # each of them once
        np.testing.assert_allclose(np.sort(angles % 360), np.arange(0, 360, coarse_scan.STEP_2D), atol=1e-5)
    few = gradients(True, 5.0)
    assert np.degrees(np.arctan2(few[:, 2, 1], few[:, 1, 1])).max() == pytest.approx(6)


def test_a_scan_finds_quarter_turns_and_shifts_exactly() -> None:
    """A body in air that is turned by 90° about an axis, and shifted by whole voxels: the same grey levels."""
    rng = np.random.default_rng(3)
    image = np.zeros((21, 21, 21), np.float32)
    image[7:14, 6:15, 8:13] = rng.random((7, 9, 5))
    quarter = deformation.rotation_matrix((90, 0, 0))
    # im1(x) = im2(F x): the voxel (y, x) of image 1 is found at F (y, x) in image 2
    moved = np.zeros_like(image)
    z, y, x = np.nonzero(image)
    places = np.rint((np.stack([z, y, x], -1) - 10) @ quarter.T).astype(int) + 10 + (2, -3, 1)
    moved[tuple(places.T)] = image[z, y, x]
    others = deformation.rotation_matrix(rng.uniform(-100, 100, (120, 3)))
    F = np.concatenate([others, quarter[None]])
    task = Scan(Level.of(image, moved), F)
    rows = np.concatenate([task.run(chunk) for chunk in range(task.n_chunks)])
    assert rows.shape == (121, 4)
    assert rows[:, 0].argmax() == 120
    assert rows[120, 0] == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(quarter @ rows[120, 1:], (2, -3, 1), atol=1e-9)
