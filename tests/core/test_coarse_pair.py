"""A binned pair: motions of the finer images, and scipy's Gaussian."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from mpidvc.core import coarse_pair, deformation
from mpidvc.core.coarse_pair import Stage


def test_a_candidate_is_the_same_motion_on_finer_images() -> None:
    """Points of the finer image are moved as those of the coarser one, whose voxels stand for 3 of them."""
    image = np.random.default_rng(1).random((61, 62, 64)).astype(np.float32)
    stage = Stage(image, image, (3, 3, 3))
    phi = deformation.compute_phi((1.5, -2, 0.7), (30, 10, -50), np.eye(3) * 1.1)
    finer = stage.to_fine(phi)
    np.testing.assert_allclose(stage.from_fine(finer), phi, rtol=0, atol=1e-12)
    point = np.array([4.0, 9, 2])
    moved = point + deformation.apply(phi, (np.array((20, 20, 21)) - 1) / 2, point)
    # centres of bins; 0, 1 and 0 voxels are cut off in front
    fine, fine_moved = (3 * place + 1 + np.array([0, 1, 0]) for place in (point, moved))
    got = fine + deformation.apply(finer, (np.array(image.shape) - 1) / 2, fine)
    np.testing.assert_allclose(got, fine_moved, rtol=0, atol=1e-9)


def test_local_means_and_deviations_are_taken_off() -> None:
    """Against scipy's Gaussian, inside; a strong step weighs no more than the texture, and what is no data is 0."""
    rng = np.random.default_rng(2)
    image = rng.normal(0, 1, (30, 31, 32)).astype(np.float32)
    image[:, :, 16:] += 50
    smooth = coarse_pair._smooth(image.astype(float), 2.0)
    inner = (slice(7, -7),) * 3
    expected = ndimage.gaussian_filter(image.astype(float), 2.0, truncate=3, mode="constant")
    np.testing.assert_allclose(smooth[inner], expected[inner], rtol=1e-9)
    data = np.ones(image.shape, np.uint8)
    data[:5] = 0
    flat = coarse_pair._levelled(image, data, 3.0)
    assert (flat[:5] == 0).all()
    assert np.abs(flat).max() < 4
    assert 0.2 < flat[8:-8, 8:-8, :5].std() < 1
