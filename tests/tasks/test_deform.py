"""Images deformed slab by slab, against the formulas in plain numpy and closed forms."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core.deformation import compute_phi
from mpidvc.images.image import ArrayImage
from mpidvc.kernels import processor
from mpidvc.tasks import deform
from mpidvc.tasks.deform import (
    SUMS,
    DeformTask,
    Mesh,
    MeshMotion,
    NearestMotion,
    Residual,
    WholeMotion,
    circumspheres,
    grey_map,
    sample_places,
    statistics,
)
from tests.tasks.given import brute_places, scattered

SHAPE = (18, 22, 26)


def texture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(5000, 55000, shape).astype(np.uint16)


@pytest.mark.parametrize(("nn", "disp"), [(8, False), (1, False), (5, True), (30, False)])
def test_places_are_those_of_the_formula(nn: int, disp: bool) -> None:
    shape = (7, 9, 8)
    positions, phi = scattered(shape, 30)
    # beyond the image too, with points far away
    found = NearestMotion(positions, phi, nn, disp, 1, False).places((0, 0, 0), shape, None)
    np.testing.assert_allclose(
        np.moveaxis(found, 0, -1), brute_places(shape, positions, phi, nn, disp), rtol=0, atol=1e-11
    )


def test_equally_near_points_count_by_index() -> None:
    """On a grid that moves by whole voxels most voxels have ties; blocks of any size give the same bits."""
    axis = np.arange(1, 13, 4.0)
    positions = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    phi = np.tile(np.eye(4), (27, 1, 1))
    phi[:, :3, 3] = np.random.default_rng(3).integers(-1, 2, (27, 3))
    expected = brute_places((12, 12, 12), positions, phi, 3, False)
    motion = NearestMotion(positions, phi, 3, False, 1, False)
    first = motion.places((0, 0, 0), (12, 12, 12), None)
    np.testing.assert_allclose(np.moveaxis(first, 0, -1), expected, rtol=0, atol=1e-12)
    for edge in ((1, 1, 1), (5, 3, 7), (12, 12, 12)):
        motion.edge = edge
        np.testing.assert_array_equal(motion.places((0, 0, 0), (12, 12, 12), None), first)
    np.testing.assert_array_equal(motion.places((3, 0, 5), (4, 6, 7), None), first[:, 3:7, :6, 5:])


@pytest.mark.parametrize("nn", [8, 5])
def test_instruction_sets_give_the_same_bits(nn: int) -> None:
    shape = (5, 9, 19)
    positions, phi = scattered(shape, 40)
    wanted = (np.random.default_rng(2).random(shape) < 0.7).astype(np.uint8)
    motion = NearestMotion(positions, phi, nn, False, 1, False)
    before, found = processor.instruction_set(), []
    try:
        for name in processor.instruction_sets():
            processor.use_instruction_set(name)
            found.append((motion.places((0, 0, 0), shape, None), motion.places((0, 0, 0), shape, wanted)))
    finally:
        processor.use_instruction_set(before)
    for whole, part in found:
        np.testing.assert_array_equal(whole, found[0][0])
        np.testing.assert_array_equal(part, np.where(wanted, whole, np.nan))


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_circumscribed_spheres(scale: float) -> None:
    """Corners of a cube of edge 2 lie on a sphere of squared radius 3; a flat tetrahedron has none, of any size."""
    points = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 2, 0], [2, 2, 1e-11]])
    points = scale * (points + np.array([5.0, -3.0, 7.0]))
    square, solid = circumspheres(points, np.array([[0, 1, 2, 3], [3, 1, 0, 4], [0, 1, 2, 4], [0, 1, 2, 5]]))
    np.testing.assert_allclose(square[:2], 3 * scale**2, rtol=1e-14)
    assert solid.tolist() == [True, True, False, False]
    assert np.isinf(square[2:]).all()


def test_spheres_that_are_too_large() -> None:
    """A given alpha stays as it is, below 1 too: of two corners of cubes the smaller one is kept."""
    corner = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    # squared radii 3/4 s²
    points = np.concatenate([0.8 * corner, 100 + corner])
    mesh = Mesh.of(points, 0.5)
    assert mesh.alpha == 0.5
    assert [sorted(found) for found in mesh.vertices.tolist()] == [[0, 1, 2, 3]]


def test_flat_tetrahedra_join_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two corners of boxes, 1 x 1 x 1 and 1 x 1 x 2, are joined by two flat tetrahedra one after the other."""
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [2, 1, 0], [1, 1, -2.0]])
    simplices = np.array([[0, 1, 2, 3], [0, 1, 2, 4], [1, 2, 4, 5], [1, 4, 5, 6]], np.int32)
    neighbors = np.array([[-1, -1, -1, 1], [2, -1, -1, 0], [-1, 3, -1, 1], [-1, -1, -1, 2]], np.int32)
    given = SimpleNamespace(simplices=simplices, neighbors=neighbors)
    # Qhull makes such flat ones of lattices, by chance
    monkeypatch.setattr("scipy.spatial.Delaunay", lambda _: given)
    mesh = Mesh.of(points, -1)
    # half the diagonal of the larger box, squared
    assert mesh.alpha == pytest.approx(6 / 4)
    assert mesh.vertices.tolist() == [[0, 1, 2, 3], [1, 4, 5, 6]]


def test_a_mesh_needs_four_points_in_space() -> None:
    points = np.random.default_rng(1).uniform(0, 9, (4, 3))
    assert len(Mesh.of(points, 0).vertices) == 1
    with pytest.raises(ValueError, match="fewer than four"):
        Mesh.of(points[:3], 0)
    with pytest.raises(ValueError, match="plane"):
        Mesh.of(points * [0, 1, 1], 0)


@pytest.mark.parametrize("conserve", [False, True])
def test_one_tetrahedron(conserve: bool) -> None:
    """Doubled in size: inside of it alone the ramp is stretched, and mass is 1/8 of it per voxel."""
    z, y, x = np.indices((12, 12, 12))
    image = ArrayImage((100.0 + 2 * z + 3 * y - x).astype(np.float32))
    corners = np.array([[1.0, 1, 1], [5, 1, 1], [1, 5, 1], [1, 1, 5]])
    motion = MeshMotion(corners, corners - [1.0, 1.0, 1.0], np.array([[0, 1, 2, 3]]), conserve)
    found = motion.values(image, (0, 0, 0), (12, 12, 12), None)
    depth = z + y + x - 3
    inside = (np.minimum(np.minimum(z, y), x) >= 1) & (depth <= 8)
    assert (np.isfinite(found) == inside).all()
    exact = 100 + 2 * (z + 1) / 2 + 3 * (y + 1) / 2 - (x + 1) / 2
    np.testing.assert_allclose(found[inside], exact[inside] / (8 if conserve else 1), rtol=1e-6)
    part = motion.values(image, (2, 1, 3), (4, 5, 2), None)
    np.testing.assert_array_equal(part, found[2:6, 1:6, 3:5])
    assert np.isnan(motion.values(image, (0, 0, 0), (12, 12, 12), np.zeros((12, 12, 12), np.uint8))).all()
    # a reference whose edges have the determinant 1
    unit = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    factor = MeshMotion(unit, unit, np.array([[0, 1, 2, 3]]), conserve).arrays["factor"]
    np.testing.assert_allclose(factor, 1 / 8 if conserve else 1, rtol=1e-14)


@pytest.mark.parametrize("shape", [SHAPE, (1, 40, 44)], ids=["3d", "2d"])
def test_samples_up_to_the_last_voxel(shape: tuple[int, int, int]) -> None:
    """Voxels themselves, the last ones of each axis too, give their grey level; just outside there is none."""
    array = texture(shape)
    image = ArrayImage(array)
    last = np.array(shape) - 1.0
    corners = np.stack(np.meshgrid(*[(0.0, e) if e else (0.0,) for e in last], indexing="ij"), -1)
    grey = sample_places(image, np.ascontiguousarray(np.moveaxis(corners, -1, 0)), 1)
    np.testing.assert_array_equal(grey, array[tuple(corners.astype(int).reshape(-1, 3).T)].reshape(grey.shape))
    for axis in range(1 if shape[0] == 1 else 0, 3):
        for beyond in (-1e-9, last[axis] + 1e-9):
            out = np.full((3, 1, 1, 1), 0.0)
            out[axis] = beyond
            assert np.isnan(sample_places(image, out, 1)).all()
    assert np.isnan(sample_places(image, np.full((3, 2, 3, 4), np.nan), 1)).all()


def test_a_single_phi_has_the_inverse_motion() -> None:
    array = texture(SHAPE).astype(np.float32)
    phi, centre = compute_phi((0.7, -1.2, 0.4), (4, -3, 5), np.diag([1.02, 0.97, 1.03])), np.array([4.0, 15.0, 6.0])
    places = (np.moveaxis(np.indices(SHAPE), 0, -1) - centre - phi[:3, 3]) @ np.linalg.inv(phi[:3, :3]).T + centre
    inside = ((places >= 0) & (places <= np.array(SHAPE) - 1)).all(axis=-1)
    exact = ndimage.map_coordinates(array.astype(float), np.moveaxis(places, -1, 0), order=1)
    slab = DeformTask(ArrayImage(array), WholeMotion(phi, centre, 1)).run(0)
    assert slab.filled == inside.sum()
    # grey levels of 55000 in single precision
    np.testing.assert_allclose(slab.planes, np.where(inside, exact, 0), rtol=0, atol=0.02)


@pytest.mark.parametrize("planes", [18, 5])
def test_mask_and_residual(planes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Voxels outside of the mask get nothing; the residual and its sums are those of numpy, over all slabs."""
    monkeypatch.setattr(deform, "SLAB_VOXELS", planes * SHAPE[1] * SHAPE[2])
    one = texture(SHAPE)
    # a voxel that moves onto another exactly: by (1, 0, -2)
    phi = np.tile(np.eye(4), (30, 1, 1))
    phi[:, :3, 3] = 1, 0, -2
    motion = NearestMotion(scattered(SHAPE, 30)[0], phi, 4, False, 1, False)
    moved = np.zeros(SHAPE)
    moved[1:, :, :-2] = one[:-1, :, 2:]
    there = np.zeros(SHAPE, bool)
    there[1:, :, :-2] = True
    mask = np.random.default_rng(2).integers(0, 2, SHAPE).astype(np.uint8)
    two = texture(SHAPE, 7)
    both = there & (mask == 1)
    task = DeformTask(ArrayImage(one), motion, ArrayImage(mask), Residual(ArrayImage(two), 2.0, -100.0))
    slabs = [task.run(k) for k in range(-(-SHAPE[0] // planes))]
    assert task.n_chunks == len(slabs)
    assert sum(slab.filled for slab in slabs) == both.sum()
    np.testing.assert_array_equal(np.concatenate([slab.planes for slab in slabs]), np.where(both, moved, 0))
    residual = np.concatenate([slab.residual for slab in slabs if slab.residual is not None])
    np.testing.assert_allclose(residual, np.where(both, moved - (2.0 * two - 100), np.nan), rtol=1e-5)
    g = two[both].astype(float)
    expected = [both.sum()]
    for f in (moved[both], one[both].astype(float)):
        expected += [f.sum(), g.sum(), (f * f).sum(), (g * g).sum(), (f * g).sum()]
    np.testing.assert_allclose(sum(task.run_sum(k, None) for k in range(len(slabs))), expected, rtol=1e-12)


def test_slabs_fill_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many planes as fit; the last slab has the rest."""
    image, motion = ArrayImage(texture((7, 4, 5))), WholeMotion(np.eye(4), np.zeros(3), 1)
    for voxels, planes, chunks in ((10**6, 7, 1), (60, 3, 3), (79, 3, 3), (80, 4, 2), (1, 1, 7)):
        monkeypatch.setattr(deform, "SLAB_VOXELS", voxels)
        task = DeformTask(image, motion)
        assert (task.planes, task.n_chunks) == (planes, chunks)
        found = np.concatenate([task.run(k).planes for k in range(chunks)])
        np.testing.assert_array_equal(found, texture((7, 4, 5)))


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_statistics_of_the_residual(scale: float) -> None:
    """From the sums, as from the voxels themselves."""
    rng = np.random.default_rng(8)
    after, g = scale * rng.normal(100, 7, 500), scale * rng.normal(60, 3, 500)
    before = after + scale * rng.normal(2, 5, 500)
    sums = sums_of(after, before, g)
    gain, bias = grey_map(sums)
    assert gain == pytest.approx(after.std() / g.std(), rel=1e-9)
    assert bias == pytest.approx(after.mean() - gain * g.mean(), rel=1e-9)
    found = statistics(sums, gain, bias)
    for name, f in (("before", before), ("after", after)):
        for more, residual in (("", f - g), (" mapped", f - gain * g - bias)):
            expected = (residual.mean(), residual.std())
            np.testing.assert_allclose(found[name + more], expected, rtol=1e-7, atol=1e-9 * scale)


def sums_of(after: np.ndarray, before: np.ndarray, g: np.ndarray) -> np.ndarray:
    """As told at `SUMS`."""
    sums = [float(len(g))]
    for f in (after, before):
        sums += [f.sum(), g.sum(), f @ f, g @ g, f @ g]
    assert len(sums) == SUMS
    return np.array(sums)


def test_grey_levels_that_give_no_gain() -> None:
    """No voxel, or no texture in either image: an offset at most; a mean of 0 is as good as any."""
    assert grey_map(np.zeros(SUMS)) == (1.0, 0.0)
    flat, wavy = np.full(4, 5.0), np.array([1.0, 3.0, 1.0, 3.0])
    assert grey_map(sums_of(flat, flat, 0 * flat + 3)) == (1.0, 2.0)
    assert grey_map(sums_of(flat, flat, wavy)) == (1.0, 3.0)
    assert grey_map(sums_of(wavy, wavy, flat)) == (1.0, -3.0)
    assert grey_map(sums_of(wavy - 2, wavy, 3 * wavy)) == pytest.approx((1 / 3, -2.0))
