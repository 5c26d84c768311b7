"""The coarse search against motions in closed form, and its parts against definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core import coarse, deformation
from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.coarse import CoarseSearch, Level, Refinement, Scan, Stage, coarse_search, search
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
    phi = coarse_search(
        im1,
        im2,
        max_angle=45.0 if pair is SOLID else 180.0,
        progress=lambda done, total: told.append((done, total)),
    )
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
    check(coarse_search(im1, im2), FLAT)


def test_binned_images_give_phi_of_the_full_ones() -> None:
    """Voxels cut off at one side move the centre of the binned image."""
    pair = AnalyticPair(
        (1, 481, 487), seed=3, amplitude=0, rotation=(100, 0, 0), strain=(0, 0, 0), translation=(0, 30.4, -51.7),
        dtype=np.float32, around=0.7, spacing=12, radii=(10, 18),
    )  # fmt: skip
    assert coarse.binning_of(pair.shape) == (1, 3, 3)
    check(coarse_search(pair.image1(), pair.image2()), pair)


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
        coarse_search(image, np.full_like(image, 3))
    with pytest.raises(UserError, match="finds no texture in image 1"):
        coarse_search(np.full_like(image, np.nan), image)
    with pytest.raises(ValueError, match="of one shape"):
        coarse_search(image, image[:, 1:])
    # the means of all bins are the same
    chess = (np.indices((1, 400, 400)).sum(axis=0) % 2).astype(np.float32)
    with pytest.raises(UserError, match="finds no"):
        coarse_search(chess, chess)
    thin = np.random.default_rng(1).random((4, 300, 300)).astype(np.float32)
    with pytest.raises(UserError, match="cannot turn images that are so thin"):
        coarse_search(thin, thin)


# ---- parts


def test_every_rotation_has_a_neighbour_in_the_grid() -> None:
    """Brute force over random rotations; the grid of a largest angle has a neighbour of every smaller rotation."""
    rng = np.random.default_rng(5)
    q = rng.standard_normal((1500, 4))
    q /= np.linalg.norm(q, axis=1)[:, None]
    q *= np.sign(q[:, :1])
    vectors = 2 * np.degrees(np.arccos(q[:, :1])) * q[:, 1:] / np.linalg.norm(q[:, 1:], axis=1)[:, None]
    wanted = deformation.rotation_matrix(vectors)
    for largest in (180.0, 60.0):
        grid = coarse._gradients(False, largest)
        np.testing.assert_allclose(grid @ grid.transpose(0, 2, 1), np.tile(np.eye(3), (len(grid), 1, 1)), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(grid), 1)
        chosen = wanted[np.linalg.norm(vectors, axis=1) <= largest]
        cosine = (np.einsum("nij,mij->nm", chosen, grid) - 1) / 2
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1).max(axis=1))).max() <= coarse.REACH
    assert len(coarse._gradients(False, 60.0)) < 0.2 * coarse.ROTATIONS


def test_all_angles_of_the_plane() -> None:
    grid = coarse._gradients(True, 180.0)
    for stretch in coarse.STRETCHES_2D:
        ours = grid[np.isclose(np.sqrt(np.linalg.det(grid)), stretch)]
        angles = np.sort(np.degrees(np.arctan2(ours[:, 2, 1], ours[:, 1, 1])).round(6))
        # each of them once
        np.testing.assert_allclose(np.sort(angles % 360), np.arange(0, 360, coarse.STEP_2D), atol=1e-5)
    few = coarse._gradients(True, 5.0)
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


def test_steps_are_told_before_they_are_run() -> None:
    small = CoarseSearch(FLAT.image1(), FLAT.image2(), FLAT.shape, (1, 1, 1), 10.0)
    scan = next(small.steps())
    assert scan.n_chunks + sum(coarse.REFINED[1:]) < small.total


def test_local_means_and_deviations_are_taken_off() -> None:
    """Against scipy's Gaussian, inside; a strong step weighs no more than the texture, and what is no data is 0."""
    rng = np.random.default_rng(2)
    image = rng.normal(0, 1, (30, 31, 32)).astype(np.float32)
    image[:, :, 16:] += 50
    smooth = coarse._smooth(image.astype(float), 2.0)
    inner = (slice(7, -7),) * 3
    expected = ndimage.gaussian_filter(image.astype(float), 2.0, truncate=3, mode="constant")
    np.testing.assert_allclose(smooth[inner], expected[inner], rtol=1e-9)
    data = np.ones(image.shape, np.uint8)
    data[:5] = 0
    flat = coarse._levelled(image, data, 3.0)
    assert (flat[:5] == 0).all()
    assert np.abs(flat).max() < 4
    assert 0.2 < flat[8:-8, 8:-8, :5].std() < 1


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
    check(coarse_search(*found, max_angle=60.0), pair, 0.5)
