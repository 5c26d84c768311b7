"""Bands of localised strain: analytic fields with one, and fields without."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core.bands import Band, find_band, otsu

RANDOM = np.random.default_rng(11)


def grid(nz: int, ny: int, nx: int, steps: tuple[float, float, float] = (10.0, 10.0, 10.0)) -> np.ndarray:
    """Positions of the nodes (nz, ny, nx, 3)."""
    return np.moveaxis(np.indices((nz, ny, nx)), 0, -1) * np.array(steps) + np.array(steps)


def noise(shape: tuple[int, ...], parts: int, sd: float) -> np.ndarray:
    """The norm of so many components of noise: that of a deviator has 5 in 3D and 2 in 2D."""
    return sd * np.linalg.norm(RANDOM.normal(size=(*shape, parts)), axis=-1)


@pytest.mark.parametrize(
    "values", [RANDOM.normal(size=300), RANDOM.gamma(1, 1, 200), np.repeat([1.0, 2.0, 5.0], [50, 20, 9])]
)
def test_otsu_is_the_best_of_all_partings(values: np.ndarray) -> None:
    """Brute force: the variance between the classes of every parting."""

    def between(threshold: float) -> float:
        lower, upper = values[values <= threshold], values[values > threshold]
        return len(lower) * len(upper) * (lower.mean() - upper.mean()) ** 2 if len(upper) else 0.0

    assert otsu(values) == max(np.unique(values), key=between)


def test_otsu_of_equal_values() -> None:
    assert otsu(np.full(5, 0.3)) == 0.3


@pytest.mark.parametrize("normal", [(1, 1, 0.2), (0, 1, 0), (0.6, -0.5, 0.62)])
@pytest.mark.parametrize("steps", [(10.0, 10.0, 10.0), (5.0, 10.0, 8.0)])
def test_a_slab(normal: tuple[float, float, float], steps: tuple[float, float, float]) -> None:
    """Strain in a slab of 40 voxels through a cube, over noise."""
    nz, ny, nx = (round(240 / step) for step in steps)
    positions = grid(nz, ny, nx, steps)
    unit = np.array(normal) / np.linalg.norm(normal)
    centre = positions.reshape(-1, 3).mean(axis=0)
    inside = np.abs((positions - centre) @ unit) <= 20
    strain = noise(positions.shape[:3], 5, 0.002) + 0.04 * inside
    found = find_band(strain, positions)
    assert found is not None
    assert found.flat
    # single nodes of the noise may join or leave
    assert (found.region ^ inside).sum() <= 0.002 * inside.sum()
    assert found.share == pytest.approx(inside.mean(), rel=0.01)
    assert found.strain_share == pytest.approx(strain[inside].sum() / strain.sum(), rel=0.01)
    # the ends of an oblique slab are cut by the faces of the grid
    assert abs(found.normal @ unit) > np.cos(np.deg2rad(6))
    assert found.normal[np.argmax(np.abs(found.normal))] > 0
    np.testing.assert_allclose(found.centre, positions[inside].mean(axis=0), atol=0.5)
    # a slab with nodes at its edges is as thick as all its layers
    assert found.thickness == pytest.approx(40, abs=1.2 * max(steps))


def test_a_band_that_ends_in_a_poor_face() -> None:
    """Poor nodes at a face of the specimen touch the band: they are in its region, and not in its shape."""
    positions = grid(26, 22, 22)
    unit = np.array([1.0, -1.0, -1.0]) / np.sqrt(3)
    inside = np.abs((positions - positions.reshape(-1, 3).mean(axis=0)) @ unit) <= 20
    strain = noise(positions.shape[:3], 5, 0.002) + 0.04 * inside
    alone = find_band(strain, positions)
    poor = RANDOM.random((2, 22, 22)) < 0.5
    strain[-2:] = np.where(poor, 0.04, strain[-2:])
    found = find_band(strain, positions)
    assert alone is not None
    assert found is not None
    assert found.points > alone.points + 0.3 * poor.sum()
    assert found.flat
    # without the face the ends of the slab are what its normal is known to
    assert abs(found.normal @ unit) > np.cos(np.deg2rad(6))
    assert abs(found.normal @ alone.normal) > np.cos(np.deg2rad(5))
    assert found.thickness == pytest.approx(alone.thickness, rel=0.15)


def test_a_slab_along_the_grid_exactly() -> None:
    positions = grid(20, 20, 20)
    strain = np.full((20, 20, 20), 0.001)
    strain[:, 8:12] = 0.05
    found = find_band(strain, positions)
    assert found is not None
    np.testing.assert_allclose(found.normal, [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found.centre, [105, 105, 105])
    # four layers, ten voxels apart
    assert found.thickness == pytest.approx(40)
    assert (found.points, found.share, found.threshold) == (1600, 0.2, 0.001)
    assert (found.mean, found.rest) == pytest.approx((0.05, 0.001))
    assert found.strain_share == pytest.approx(1600 * 0.05 / (1600 * 0.05 + 6400 * 0.001))


def test_the_largest_region_is_the_band() -> None:
    """Wherever it lies: smaller ones before and behind it are not in it."""
    strain = np.full((20, 20, 20), 0.001)
    strain[0, 0, :3] = strain[4, 4, 4] = strain[19, 19, 10:] = 0.05
    strain[8:10] = 0.05
    found = find_band(strain, grid(20, 20, 20))
    assert found is not None
    assert found.points == 800
    assert found.region[8:10].all()


def test_a_single_layer_is_as_thick_as_a_step() -> None:
    strain = np.full((20, 20, 20), 0.001)
    strain[:, 8] = 0.05
    found = find_band(strain, grid(20, 20, 20, (10.0, 7.0, 10.0)))
    assert found is not None
    assert found.thickness == pytest.approx(7)


def test_a_shear_band_in_a_plane() -> None:
    """2D: the deviatoric strain of a displacement tanh(d / w) along a line, which is sech^2."""
    positions = grid(1, 60, 40)
    unit = np.array([0, np.cos(0.6), np.sin(0.6)])
    d = (positions - positions.reshape(-1, 3).mean(axis=0)) @ unit
    strain = 0.03 / np.cosh(d / 20) ** 2 + noise((1, 60, 40), 2, 0.001)
    found = find_band(strain, positions)
    assert found is not None
    assert found.normal[0] == 0
    assert abs(found.normal @ unit) > np.cos(np.deg2rad(3))
    np.testing.assert_allclose(found.centre[1:], positions.reshape(-1, 3).mean(axis=0)[1:], atol=5)


def test_nodes_without_strain_do_not_count() -> None:
    positions = grid(20, 20, 20)
    strain = np.full((20, 20, 20), 0.001)
    strain[:, 8:12] = 0.05
    strain[:, :, :10] = np.nan
    found = find_band(strain, positions)
    assert found is not None
    assert (found.points, found.share) == (800, 0.2)
    np.testing.assert_allclose(found.centre, [105, 105, 155])


def test_a_ball_has_no_normal() -> None:
    positions = grid(20, 20, 20)
    ball = ((positions - 105) ** 2).sum(axis=-1) <= 50**2
    found = find_band(0.05 * ball + noise((20, 20, 20), 5, 0.002), positions)
    assert found is not None
    assert not found.flat
    np.testing.assert_allclose(found.centre, [105, 105, 105], atol=0.5)


def test_uniform_fields_have_none() -> None:
    for shape, parts in (((20, 20, 20), 5), ((1, 60, 60), 2)):
        positions = grid(*shape)
        assert find_band(np.full(shape, 0.02), positions) is None
        assert find_band(np.zeros(shape), positions) is None
        # rounding errors about a constant
        assert find_band(np.full(shape, 0.02) + 1e-17 * RANDOM.normal(size=shape), positions) is None
        assert find_band(noise(shape, parts, 0.01), positions) is None
        assert find_band(0.02 + noise(shape, parts, 0.002), positions) is None


@pytest.mark.parametrize("seed", range(5))
def test_noise_that_neighbours_share_has_none(seed: int) -> None:
    """As of strains from overlapping windows: noise smoothed over three nodes."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    for shape, parts in (((20, 24, 22), 5), ((1, 70, 50), 2)):
        smooth = [gaussian_filter(random.normal(size=shape), [1.5 * (n > 1) for n in shape]) for _ in range(parts)]
        assert find_band(np.linalg.norm(smooth, axis=0), grid(*shape)) is None


def test_gradients_have_none() -> None:
    positions = grid(16, 16, 16)
    # bending, and a strain that grows along an axis
    assert find_band(np.abs(positions[..., 1] - 85) / 1000, positions) is None
    assert find_band(positions[..., 0] / 1000, positions) is None


def test_single_wrong_points_are_no_band() -> None:
    positions = grid(16, 16, 16)
    strain = noise((16, 16, 16), 5, 0.002)
    strain[RANDOM.random(strain.shape) < 0.01] = 0.5
    assert find_band(strain, positions) is None
    strain[4:6, 4:6, 4:6] = 0.5
    assert find_band(strain, positions) is None


def test_too_few_points() -> None:
    assert find_band(np.full((3, 3, 3), np.nan), grid(3, 3, 3)) is None
    assert find_band(np.ones((1, 5, 5)), grid(1, 5, 5)) is None


def layered(inside: int, level: float = 0.05, others: int = 0, rest: tuple[float, ...] = (0.001,)) -> Band | None:
    """The band of 1000 nodes of which the first have a level, as have others farther away; the rest has its own."""
    strain = np.resize(np.repeat(rest, 300), 1000)
    strain[:inside] = level
    # every second one, so that none has a neighbour
    strain[1000 - 2 * others : 1000 : 2] = level
    return find_band(strain.reshape(10, 10, 10), grid(10, 10, 10))


@pytest.mark.parametrize(
    ("least", "one_less"),
    [
        # shares of all nodes
        ((10,), (9,)),
        ((400,), (401,)),
        # half of the nodes above the threshold: the others are in a layer of their own
        ((50, 0.05, 50), (50, 0.05, 51)),
        # twice the median of the rest, and four of its deviations above it: 2 and 1
        ((100, 0.002), (100, 0.00199)),
        ((100, 6.0, 0, (1.0, 2.0, 3.0)), (100, 5.99, 0, (1.0, 2.0, 3.0))),
    ],
)
def test_what_counts_as_a_band(least: tuple[object, ...], one_less: tuple[object, ...]) -> None:
    """At each of its limits, and just beyond."""
    found = layered(*least)  # type: ignore[arg-type]
    assert found is not None
    assert found.points == least[0]
    assert layered(*one_less) is None  # type: ignore[arg-type]


def test_fewest_nodes() -> None:
    strain = np.full((3, 3, 3), 0.001)
    strain[0] = 0.05
    found = find_band(strain, grid(3, 3, 3))
    assert found is not None
    assert found.points == 9
    strain[2, 2, 2] = np.nan
    assert find_band(strain, grid(3, 3, 3)) is None


@pytest.mark.parametrize(("step", "flat"), [(10.1, True), (9.9, False)])
def test_twice_as_wide_as_thick_is_flat(step: float, flat: bool) -> None:
    """Three nodes along each axis, whose steps differ."""
    strain = np.full((9, 9, 9), 0.001)
    strain[3:6, 3:6, 3:6] = 0.05
    found = find_band(strain, grid(9, 9, 9, (5.0, 7.0, step)))
    assert found is not None
    assert found.flat is flat


def test_what_hangs_on_a_band_farther_than_three_deviations() -> None:
    """Of three layers the median deviation is one step, and three times 1.4826 of it more than four, less than five."""
    strain = np.full((40, 20, 20), 0.001)
    strain[10:13] = 0.05
    strain[13:30, 9, 9] = 0.05
    positions = grid(40, 20, 20)
    found = find_band(strain, positions)
    assert found is not None
    assert found.points == 1200 + 17
    # the middle of the layers is that of node 11: those up to node 15 count
    core = np.concatenate([positions[10:13].reshape(-1, 3), positions[13:16, 9, 9]])
    np.testing.assert_allclose(found.centre, core.mean(axis=0), rtol=1e-12)
    variance = np.linalg.eigvalsh(np.cov(core.T, bias=True))[0]
    # nodes 10 voxels apart; the column turns the normal by next to nothing
    assert found.thickness == pytest.approx(np.sqrt(12 * variance + 100), rel=1e-3)
