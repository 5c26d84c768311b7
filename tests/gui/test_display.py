"""Reduced copies: ramps, which bins and linear interpolation reproduce exactly, and formulas in double."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core import deformation
from mpidvc.gui.display import DisplayPair, reduction
from tests.gui.pairs import PHI, PLANE, SLOPE, pair_of, ramp


def expected(pair: DisplayPair, phi: np.ndarray, positions: np.ndarray, level: float = 50.0) -> np.ndarray:
    """Grey levels of the ramp deformed by Phi, nan outside of the copy."""
    source = pair.centre + (positions - pair.centre - phi[:3, 3]) @ np.linalg.inv(phi[:3, :3]).T
    index = pair.index(source)
    inside = ((index >= -1e-9) & (index <= np.array(pair.small) - 1 + 1e-9)).all(axis=-1)
    return np.where(inside, source @ SLOPE + level, np.nan)


@pytest.mark.parametrize("most", [None, 9000, 1300])
@pytest.mark.parametrize(("shape", "phi"), [((31, 42, 37), PHI), ((1, 150, 121), PLANE)])
def test_slices_of_a_ramp(shape: tuple[int, int, int], phi: np.ndarray, most: int | None) -> None:
    pair = pair_of(ramp(shape), ramp(shape), most)
    assert most is None or (pair.factor > 1 and np.prod(pair.small) <= most)
    for axis in range(1 if shape[0] == 1 else 3):
        k = pair.small[axis] // 2
        n = list(pair.small)
        n[axis] = 1
        index = np.moveaxis(np.indices(n), 0, -1).astype(float)
        index[..., axis] += k
        positions = pair.position(index)
        wanted = np.squeeze(expected(pair, phi, positions), axis)
        found = pair.slice1(phi, axis, k)
        assert 0.2 < np.isfinite(wanted).mean() < 1
        # a point on the very edge may be on either side of it
        assert (np.isnan(found) != np.isnan(wanted)).mean() < 0.002
        both = np.isfinite(found) & np.isfinite(wanted)
        np.testing.assert_allclose(found[both], wanted[both], atol=2e-4)
        np.testing.assert_allclose(pair.slice2(axis, k), np.squeeze(positions @ SLOPE + 50, axis), atol=2e-4)


@pytest.mark.parametrize("most", [None, 2000])
@pytest.mark.parametrize(("shape", "phi"), [((31, 42, 37), PHI), ((1, 150, 121), PLANE)])
def test_numbers(shape: tuple[int, int, int], phi: np.ndarray, most: int | None) -> None:
    level = 80.0
    pair = pair_of(ramp(shape), ramp(shape, level), most)
    found = pair.numbers(phi, 1.2, -3.0)
    positions = pair.position(np.moveaxis(np.indices(pair.small), 0, -1))
    f = expected(pair, phi, positions)
    g = 1.2 * (positions @ SLOPE + level) - 3
    inside = np.isfinite(f)
    f, g = f[inside], g[inside]
    assert found.overlap == pytest.approx(inside.mean(), abs=2e-3)
    assert found.residual == pytest.approx(np.sqrt(np.mean((f - g) ** 2)), rel=2e-3)
    assert found.error == pytest.approx(np.sum((f - g) ** 2) / np.sum(f), rel=2e-3)
    assert found.zncc == pytest.approx(np.corrcoef(f, g)[0, 1], abs=2e-3)


def test_numbers_of_images_that_do_not_meet() -> None:
    pair = pair_of(ramp((20, 20, 20)), ramp((20, 20, 20)))
    found = pair.numbers(deformation.compute_phi((0, 0, 300.0)))
    assert found.overlap == 0
    assert np.isnan([found.residual, found.zncc, found.error]).all()


def test_lattice_is_a_sample_of_the_whole() -> None:
    """Of a volume with more voxels than the lattice has points."""
    shape = (90, 80, 100)
    rng = np.random.default_rng(0)
    one = rng.normal(100, 10, shape).astype(np.float32)
    two = one + rng.normal(3, 4, shape).astype(np.float32)
    found = pair_of(one, two).numbers(np.eye(4))
    assert found.residual == pytest.approx(5, rel=0.02)
    assert found.overlap == 1
    assert found.zncc == pytest.approx(10 / np.sqrt(116), rel=0.01)


def test_holes_and_outliers_are_nothing() -> None:
    image = ramp((12, 14, 16))
    image[4, 5, 6] = np.nan
    image[7, 8, 9] = 3e38
    pair = pair_of(image, ramp((12, 14, 16)))
    assert np.argwhere(np.isnan(pair.image1)).tolist() == [[4, 5, 6], [7, 8, 9]]
    shown = pair.slice1(np.eye(4), 0, 4)
    assert np.isnan(shown[5, 6])
    assert np.isfinite(shown).mean() > 0.9
    assert pair.numbers(np.eye(4)).residual < 1e-4


def test_large_grey_levels_keep_their_texture() -> None:
    image = ramp((12, 14, 16)).astype(np.float64) + 5e7
    pair = pair_of(image, image)
    assert pair.base1 != 0
    assert pair.grey1(np.eye(4), np.array([3, 4, 5])) == pytest.approx(image[3, 4, 5], abs=1e-3)
    assert pair.numbers(np.eye(4)).zncc == pytest.approx(1)


def test_phi_of_a_further_reduced_pair() -> None:
    """The same point goes to the same place."""
    pair = pair_of(ramp((61, 50, 73)), ramp((61, 50, 73)), 20000)
    small = pair.reduced(900)
    assert small.factor > pair.factor
    assert small.image1.size <= 900
    phi = small.phi_to(PHI, pair.centre)
    np.testing.assert_allclose(small.phi_from(phi, pair.centre), PHI, atol=1e-12)
    points = np.array([[10.0, 20, 30], [40, 5, 60]])
    middle = (np.array(small.image1.shape) - 1) / 2
    in_small = (points - small.centre) / small.factor + middle
    moved = points + deformation.apply(PHI, pair.centre, points)
    moved_small = in_small + deformation.apply(phi, middle, in_small)
    np.testing.assert_allclose((moved_small - middle) * small.factor + small.centre, moved, atol=1e-9)
    # the ramp tells where the voxels are
    corner = (np.zeros(3) - middle) * small.factor + small.centre
    assert small.image2[0, 0, 0] == pytest.approx(corner @ SLOPE + 50, abs=1e-3)


def test_reduction() -> None:
    assert reduction((100, 100, 100), 10**6) == 1
    assert reduction((100, 100, 100), 10**6 - 1) == 2
    assert reduction((1, 4000, 4000), 10**6) == 4
    assert reduction((1000, 1000, 1000), 40_000_000) == 3
