"""The known packing of grains that other tests lean on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from mpidvc.core import grains
from mpidvc.core.grains import AnalyticGrains

KINDS = ["clumps", "ellipsoids", "balls"]
SHAPES = {"3D": (56, 60, 64), "2D": (1, 120, 130)}


def packing(kind: str = "clumps", shape: str = "3D", **options: Any) -> AnalyticGrains:
    given: dict[str, Any] = {"seed": 3, "radii": (6.0, 8.0), "touching": 0.8}
    return AnalyticGrains(SHAPES[shape], 10, kind=kind, **{**given, **options})


@pytest.fixture(scope="module", params=[(kind, shape) for kind in KINDS for shape in SHAPES], ids="-".join)
def grain_pair(request: pytest.FixtureRequest) -> AnalyticGrains:
    return packing(*request.param)


def surface(pair: AnalyticGrains, i: int, n: int = 4000) -> np.ndarray:
    """Points on the surface of a grain in state 1, by the formulas of balls and of a spheroid."""
    body = pair._bodies[i]
    rng = np.random.default_rng(i)
    flat = pair.shape[0] == 1
    unit = rng.normal(size=(n, 3)) * [not flat, 1, 1]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    if body.axis is not None:
        along = (unit @ body.axis / np.linalg.norm(body.axis))[:, None] * body.axis / np.linalg.norm(body.axis)
        return pair._middle[0][i] + (unit - along) * body.thin + along * np.linalg.norm(body.axis)
    points = np.concatenate([c + r * unit for c, r in zip(body.balls, body.radii, strict=True)])
    return pair._middle[0][i] + points[~inside(pair, i, points + pair._middle[0][i], 1e-9)]


def inside(pair: AnalyticGrains, i: int, points: np.ndarray, by: float = 0.0) -> np.ndarray:
    """Whether points of state 1 are inside a grain, by more than a distance."""
    body, offset = pair._bodies[i], points - pair._middle[0][i]
    if body.axis is not None:
        long = np.linalg.norm(body.axis)
        along = offset @ body.axis / long
        across = np.square(offset).sum(axis=1) - along**2
        return along**2 / (long - by) ** 2 + across / (body.thin - by) ** 2 < 1
    distances = np.linalg.norm(offset[:, None] - body.balls[None], axis=-1)
    return (distances < body.radii - by).any(axis=1)


def back(pair: AnalyticGrains, label: int, points: np.ndarray) -> np.ndarray:
    """Places in state 1 of the points of a grain that are at `points` in state 2."""
    R, (middle1, middle2) = pair._R[label - 1], pair._middle
    return (points - middle2[label - 1]) @ R + middle1[label - 1]


def test_grains_do_not_overlap_in_either_state(grain_pair: AnalyticGrains) -> None:
    gaps = []
    for i in range(grain_pair.n):
        points = surface(grain_pair, i)
        assert len(points) > 1000
        moved = grain_pair.moved(points, i + 1)
        for j in set(range(grain_pair.n)) - {i}:
            assert not inside(grain_pair, j, points, 0.01).any()
            assert not inside(grain_pair, j, back(grain_pair, j + 1, moved), 0.01).any()
            # the same formula sees grains that are moved into each other
            shift = grain_pair._middle[0][j] - grain_pair._middle[0][i]
            distance = np.linalg.norm(shift)
            assert inside(grain_pair, j, points + (1 - 8 / distance) * shift, 0.01).any()
            gaps.append(distance)
    assert min(gaps) < 20


def test_grains_stay_in_the_image(grain_pair: AnalyticGrains) -> None:
    last = np.array(grain_pair.shape) - 1
    axes = slice(1 if grain_pair.shape[0] == 1 else 0, 3)
    for i in range(grain_pair.n):
        points = surface(grain_pair, i)
        moved = grain_pair.moved(points, i + 1)
        assert np.minimum(points, last - points)[:, axes].min() >= grain_pair.margin - 1e-9
        assert np.minimum(moved, last - moved)[:, axes].min() >= grain_pair.edge - 1e-9


def test_the_grey_level_of_a_material_point_is_that_of_both_states(grain_pair: AnalyticGrains) -> None:
    rng = np.random.default_rng(0)
    greys = []
    for i in range(grain_pair.n):
        middle, reach = grain_pair._middle[0][i], grain_pair._reach[i]
        points = middle + rng.uniform(-reach, reach, (800, 3)) * [grain_pair.shape[0] > 1, 1, 1]
        points = points[inside(grain_pair, i, points, grain_pair.edge + 0.1)]
        assert len(points) > 10
        grey = grain_pair.grey(points, 1)
        np.testing.assert_allclose(grain_pair.grey(grain_pair.moved(points, i + 1), 2), grey, atol=1e-12)
        # not so a tenth of a voxel further
        assert np.abs(grain_pair.grey(grain_pair.moved(points + np.array([0, 0.1, 0.1]), i + 1), 2) - grey).max() > 1e-3
        greys.append(grey)
    assert np.concatenate(greys).std() > 0.03


@pytest.mark.parametrize(
    ("dtype", "full", "tolerance"), [("uint8", 255, 0.51), ("uint16", 65535, 1.0), ("f4", 1, 1e-5)]
)
def test_images_are_the_closed_form_in_both_states(
    grain_pair: AnalyticGrains, dtype: str, full: float, tolerance: float
) -> None:
    pair = packing(grain_pair.kind, "2D" if grain_pair.shape[0] == 1 else "3D", dtype=dtype)
    rng = np.random.default_rng(1)
    points = np.stack([rng.integers(0, n, 500) for n in pair.shape], axis=1)
    # edges and places between grains too
    points = np.concatenate([points, np.rint(np.concatenate([surface(pair, i, 60) for i in range(3)])).astype(int)])
    for state, image in ((1, pair.image1()), (2, pair.image2())):
        assert (image.dtype, image.shape) == (np.dtype(dtype), pair.shape)
        assert image.max() < 0.9 * full
        assert image.min() == pytest.approx(full * grains.BACKGROUND, abs=tolerance)
        np.testing.assert_allclose(image[tuple(points.T)], full * pair.grey(points, state), atol=tolerance)


def test_labels_are_the_bodies(grain_pair: AnalyticGrains) -> None:
    labels = grain_pair.labels1()
    assert (labels.dtype, labels.shape) == (np.uint16, grain_pair.shape)
    voxels = np.indices(grain_pair.shape).reshape(3, -1).T.astype(float)
    expected = np.zeros(len(voxels), int)
    unsure = np.zeros(len(voxels), bool)
    for i in range(grain_pair.n):
        expected[inside(grain_pair, i, voxels)] = i + 1
        unsure |= inside(grain_pair, i, voxels, -1e-6) & ~inside(grain_pair, i, voxels, 1e-6)
    np.testing.assert_array_equal(labels.ravel()[~unsure], expected[~unsure])
    assert np.unique(labels).tolist() == list(range(grain_pair.n + 1))


def test_truth_about_the_centre_of_mass(grain_pair: AnalyticGrains) -> None:
    labels, phi = grain_pair.labels1(), grain_pair.phi()
    numbers = np.arange(1, grain_pair.n + 1)
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, numbers))
    np.testing.assert_allclose(grain_pair.centres[1:], centres, atol=1e-12)
    np.testing.assert_array_equal(phi[0], np.eye(4))
    np.testing.assert_array_equal(phi[:, 3], np.tile([0, 0, 0, 1.0], (grain_pair.n + 1, 1)))
    F, t = phi[1:, :3, :3], phi[1:, :3, 3]
    np.testing.assert_allclose(F @ F.transpose(0, 2, 1), np.tile(np.eye(3), (grain_pair.n, 1, 1)), atol=1e-12)
    angles = np.degrees(np.arccos(np.clip((np.trace(F, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert angles.max() <= 5
    assert angles.mean() > 1
    for label in numbers:
        points = centres[label - 1] + np.random.default_rng(label).normal(0, 5, (20, 3)) * [len(labels) > 1, 1, 1]
        moved = (points - centres[label - 1]) @ F[label - 1].T + t[label - 1] + centres[label - 1]
        np.testing.assert_allclose(grain_pair.moved(points, label), moved, atol=1e-12)
    if len(labels) == 1:
        assert np.all(t[:, 0] == 0)
        assert np.all(F[:, 0] == [1, 0, 0])
    boxes = ndimage.find_objects(labels)
    middles = np.array([[(s.start + s.stop - 1) / 2 for s in box] for box in boxes])
    away = np.linalg.norm(middles - centres, axis=1)
    if grain_pair.kind == "clumps":
        assert np.median(away) > 0.87
    else:
        assert away.max() < 0.87


@pytest.mark.parametrize("kind", ["clumps", "balls"])
def test_correlation_finds_the_truth(kind: str) -> None:
    """A least-squares fit of six numbers, with scipy's interpolation."""
    pair = packing(kind, seed=5, displacement=1.0, gap=3.0, touching=0.0, rotation=3.0, dtype=np.float32)
    im1, im2, labels, truth = pair.image1(), pair.image2(), pair.labels1(), pair.phi()
    spline = ndimage.spline_filter(im2.astype(float))
    for label in 1 + np.argsort(np.linalg.norm(truth[1:, :3, 3], axis=1))[-2:]:
        voxels = np.argwhere(labels == label)
        centre, grey = pair.centres[label], im1[labels == label]

        def place(v: np.ndarray, voxels: np.ndarray = voxels, centre: np.ndarray = centre) -> np.ndarray:
            return (voxels - centre) @ rotation_of(v[3:]).T + centre + v[:3]

        def residual(v: np.ndarray, grey: np.ndarray = grey, place: Any = place) -> np.ndarray:
            return 100 * (ndimage.map_coordinates(spline, place(v).T, prefilter=False) - grey)

        found = optimize.least_squares(residual, np.zeros(6), x_scale=[1.0] * 3 + [0.1] * 3)
        np.testing.assert_allclose(found.x[:3], truth[label, :3, 3], atol=0.01)
        np.testing.assert_allclose(rotation_of(found.x[3:]), truth[label, :3, :3], atol=0.004)
        assert np.linalg.norm(truth[label, :3, 3]) > 0.5


def rotation_of(vector: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(vector).as_matrix()


def neighbours(labels: np.ndarray) -> int:
    """Pairs of labels of which voxels lie side by side."""
    pairs = set()
    for axis in range(3):
        a, b = (np.moveaxis(labels, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        touch = (a > 0) & (b > 0) & (a != b)
        pairs |= {(min(p), max(p)) for p in zip(a[touch].tolist(), b[touch].tolist(), strict=True)}
    return len(pairs)


def test_neighbours_touch_or_keep_a_gap(grain_pair: AnalyticGrains) -> None:
    shape = "2D" if grain_pair.shape[0] == 1 else "3D"
    assert neighbours(grain_pair.labels1()) >= 2
    apart = packing(grain_pair.kind, shape, radii=(5.0, 6.0), gap=2.0, margin=2.0)
    assert neighbours(apart.labels1()) == 0


def test_seeds(grain_pair: AnalyticGrains) -> None:
    shape = "2D" if grain_pair.shape[0] == 1 else "3D"
    again, other = packing(grain_pair.kind, shape), packing(grain_pair.kind, shape, seed=4)
    assert np.array_equal(again.image1(), grain_pair.image1())
    assert np.array_equal(again.image2(), grain_pair.image2())
    assert np.array_equal(again.labels1(), grain_pair.labels1())
    assert again.phi().tobytes() == grain_pair.phi().tobytes()
    assert not np.array_equal(other.image1(), grain_pair.image1())


def test_noise_differs_between_the_images() -> None:
    clean, noisy = packing(dtype=np.float32), packing(dtype=np.float32, noise=0.02)
    n1, n2 = noisy.image1() - clean.image1(), noisy.image2() - clean.image2()
    assert n1.std() == pytest.approx(0.02, rel=0.05)
    assert n2.std() == pytest.approx(0.02, rel=0.05)
    assert abs(np.corrcoef(n1.ravel(), n2.ravel())[0, 1]) < 0.05
    assert np.array_equal(clean.labels1(), noisy.labels1())


def test_a_translation_that_all_grains_share() -> None:
    pair = packing("balls", translation=(2, -3, 1), displacement=0.5, rotation=0.0)
    assert np.abs(pair.phi()[1:, :3, 3] - [2, -3, 1]).max() <= 0.5 + 1e-9
    assert np.all(pair.phi()[1:, :3, :3] == np.eye(3))


def test_no_room() -> None:
    with pytest.raises(ValueError, match=r"no room for 60 grains in \(40, 40, 40\): \d+ were placed"):
        AnalyticGrains((40, 40, 40), 60)
    with pytest.raises(ValueError, match=r"a grain of radius 1\d.\d does not fit into \(20, 20, 20\)"):
        AnalyticGrains((20, 20, 20), 1)


def test_packing_of_the_benchmark() -> None:
    pair = AnalyticGrains((200, 200, 200), 300, kind="balls", radii=(9.0, 11.5), gap=2.0, touching=0.0, margin=8.0)
    labels = pair.labels1()
    assert (labels > 0).mean() == pytest.approx(0.16, abs=0.02)
    assert len(np.unique(labels)) == 301
