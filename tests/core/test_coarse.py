"""The coarse search against motions in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core import coarse, deformation
from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.coarse import CoarseSearch, search
from mpidvc.errors import UserError

SOLID = AnalyticPair(
    (48, 44, 52), seed=7, amplitude=0, rotation=(24, -18, 22), strain=(0.03, 0.03, 0.03), translation=(9, -7, 6),
    dtype=np.float32, around=0.7,
)  # fmt: skip
FLAT = AnalyticPair(
    (1, 130, 140), seed=7, amplitude=0, rotation=(-134, 0, 0), strain=(0, -0.05, -0.05), translation=(0, 25, -31),
    dtype=np.float32, around=0.8,
)  # fmt: skip


def in_air(pair: AnalyticPair) -> tuple[np.ndarray, np.ndarray]:
    """Both images with air around a box of the material; closed form, edges two voxels wide."""
    grid = np.moveaxis(np.indices(pair.shape, dtype=float), 0, -1)
    centre = (np.array(pair.shape) - 1) / 2
    body = np.array([0.24, 0.2, 0.3]) * pair.shape[2] + (1e9 if pair.shape[0] == 1 else 0, 0, 0)
    found = []
    for image, places in ((pair.image1(), grid), (pair.image2(), pair.inverse_phi(grid))):
        depth = (body - np.abs(places - centre)).min(axis=-1)
        found.append((image * np.clip(depth / 2 + 0.5, 0, 1)).astype(np.float32))
    return found[0], found[1]


def check(phi: np.ndarray, pair: AnalyticPair, tolerance: float = 0.1) -> None:
    """Within a tenth of a voxel, and as much of a degree: what Gauss–Newton leaves on a binned image."""
    centre = (np.array(pair.shape) - 1) / 2
    np.testing.assert_allclose(phi[:3, 3], pair.displacement(centre), rtol=0, atol=tolerance)
    turn = deformation.polar(phi[:3, :3])[0] @ deformation.polar(pair.gradient(centre))[0].T
    assert np.linalg.norm(deformation.rotation_vector(turn)) < tolerance
    np.testing.assert_allclose(phi[:3, :3], pair.gradient(centre), rtol=0, atol=0.005)


@pytest.mark.parametrize("pair", [SOLID, FLAT], ids=["3D", "2D"])
@pytest.mark.parametrize("air", [False, True], ids=["filled", "air"])
def test_finds_a_motion(pair: AnalyticPair, air: bool) -> None:
    """By 37° of up to 45°, and in 2D by any angle; shifted, stretched; Phi is a similarity."""
    im1, im2 = in_air(pair) if air else (pair.image1(), pair.image2())
    told: list[tuple[int, int]] = []
    phi = search(
        im1,
        im2,
        max_angle=45.0 if pair is SOLID else 180.0,
        progress=lambda done, total: told.append((done, total)),
    ).best.phi
    assert (phi.shape, phi.dtype) == ((4, 4), np.float64)
    check(phi, pair)
    s = pair._F0[2, 1:] @ pair._F0[2, 1:] if pair is FLAT else np.linalg.det(pair._F0) ** (2 / 3)
    part = phi[pair is FLAT : 3, pair is FLAT : 3]
    np.testing.assert_allclose(part.T @ part, s * np.eye(len(part)), rtol=0, atol=0.005)
    np.testing.assert_allclose(part.T @ part, (part.T @ part)[0, 0] * np.eye(len(part)), rtol=0, atol=1e-9)
    dones = [done for done, _ in told]
    assert dones == sorted(dones)
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1


def test_voxels_without_data_do_not_count() -> None:
    im1, im2 = FLAT.image1(), FLAT.image2()
    # a frame that moves with no one, and holes
    im1[:, :20], im2[:, -20:] = np.nan, np.nan
    im1[:, ::7, ::11] = np.nan
    check(search(im1, im2).best.phi, FLAT)


def test_binned_images_give_phi_of_the_full_ones() -> None:
    """Voxels cut off at one side move the centre of the binned image."""
    pair = AnalyticPair(
        (1, 481, 487), seed=3, amplitude=0, rotation=(100, 0, 0), strain=(0, 0, 0), translation=(0, 30.4, -51.7),
        dtype=np.float32, around=0.7, spacing=12, radii=(10, 18),
    )  # fmt: skip
    assert coarse.binning_of(pair.shape) == (1, 3, 3)
    check(search(pair.image1(), pair.image2()).best.phi, pair)


def test_the_largest_angle_is_kept() -> None:
    """The motion by 134° is out of reach; what is nearly as good as nothing is doubted."""
    # 132° would be refined to the truth
    found = search(FLAT.image1(), FLAT.image2(), max_angle=132.0)
    angle = np.linalg.norm(deformation.rotation_vector(deformation.polar(found.best.phi[:3, :3])[0]))
    assert angle <= 133
    assert found.doubtful
    check(search(FLAT.image1(), FLAT.image2(), max_angle=140.0).best.phi, FLAT)


def test_strangers_are_doubted() -> None:
    other = AnalyticPair(FLAT.shape, seed=8, dtype=np.float32)
    assert search(FLAT.image1(), other.image1()).doubtful
    assert not search(FLAT.image1(), FLAT.image2()).doubtful


def test_a_body_that_looks_the_same_from_two_sides_is_doubted() -> None:
    """A grey rectangle: a half turn is as good as none."""
    image = np.zeros((1, 100, 100), np.float32)
    image[:, 30:70, 20:80] = 5
    image = ndimage.gaussian_filter(image, (0, 1.5, 1.5)).astype(np.float32)
    found = search(image, image)
    assert found.doubtful
    assert found.second is not None
    turn = found.best.phi[:3, :3].T @ found.second.phi[:3, :3]
    np.testing.assert_allclose(np.abs(deformation.rotation_vector(turn)), (180, 0, 0), rtol=0, atol=0.5)


def test_what_cannot_be_searched_is_refused() -> None:
    image = FLAT.image1()
    with pytest.raises(UserError, match="finds no texture in image 2"):
        search(image, np.full_like(image, 3))
    with pytest.raises(UserError, match="finds no texture in image 1"):
        search(np.full_like(image, np.nan), image)
    with pytest.raises(ValueError, match="of one shape"):
        search(image, image[:, 1:])
    # the means of all bins are the same
    chess = (np.indices((1, 400, 400)).sum(axis=0) % 2).astype(np.float32)
    with pytest.raises(UserError, match="finds no"):
        search(chess, chess)
    thin = np.random.default_rng(1).random((4, 300, 300)).astype(np.float32)
    with pytest.raises(UserError, match="cannot turn images that are so thin"):
        search(thin, thin)


def test_steps_are_told_before_they_are_run() -> None:
    small = CoarseSearch(FLAT.image1(), FLAT.image2(), FLAT.shape, (1, 1, 1), 10.0)
    scan = next(small.steps())
    assert scan.n_chunks + sum(coarse.REFINED[1:]) < small.total


def test_a_round_body_is_found_by_its_texture() -> None:
    """A cylinder in air whose weak texture alone tells the angle about its axis, and its ends."""
    pair = AnalyticPair(
        (60, 60, 60), seed=2, amplitude=0, rotation=(0, 25, 20), strain=(0, 0, 0), translation=(2, -3, 1),
        dtype=np.float32, mean=0.8, contrast=0.02, around=0.6, spacing=6, radii=(5, 8),
    )  # fmt: skip
    grid = np.moveaxis(np.indices(pair.shape, dtype=float), 0, -1)
    found = []
    for image, places in ((pair.image1(), grid), (pair.image2(), pair.inverse_phi(grid))):
        arm = places - 29.5
        depth = np.minimum(22 - np.abs(arm[..., 0]), 14 - np.hypot(arm[..., 1], arm[..., 2]))
        found.append((image * np.clip(depth / 2 + 0.5, 0, 1)).astype(np.float32))
    # the weak texture holds the angle about the axis less firmly
    check(search(*found, max_angle=60.0).best.phi, pair, 0.5)
