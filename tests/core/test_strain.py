"""Strain against closed forms, scipy's matrix functions, numpy's least squares, shape functions, and spam's answers."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.transform import Rotation

from mpidvc.core import strain
from mpidvc.fields.read import read_field
from mpidvc.kernels import strain as kernels

RANDOM = np.random.default_rng(11)
REFERENCE = Path(__file__).parents[1] / "reference" / "strain"
GRADIENT = np.array([[0.03, 0.12, -0.05], [-0.10, -0.06, 0.04], [0.02, -0.07, 0.09]])
ALL = tuple(strain.COMPONENTS)


def grid(dims: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, dims), indexing="ij"), axis=-1).reshape(-1, 3)
    return (index + 1.0) * spacing if dims[0] > 1 else (index + 1.0) * (0, *spacing[1:])


def within(positions: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of every point, itself among them: a comparison with all points."""
    near = [np.nonzero(np.linalg.norm(positions - point, axis=1) <= radius)[0] for point in positions]
    return np.cumsum([0, *map(len, near)]), np.concatenate(near)


def tensor(columns: np.ndarray) -> np.ndarray:
    zz, zy, zx, yy, yx, xx = columns
    return np.array([[zz, zy, zx], [zy, yy, yx], [zx, yx, xx]])


def component(F: np.ndarray, name: str, two_d: bool = False) -> np.ndarray:
    return strain.components(np.asarray(F, float).reshape(1, 3, 3), [name], two_d)[0][0]


# components ----------------------------------------------------------------------------------------------------------


def gradients() -> list[np.ndarray]:
    """Rotations up to half a turn, with distinct, equal and nearly equal stretches."""
    found = []
    for stretches in ([0.7, 1.05, 1.4], [0.95, 1.01, 1.01], [1.2, 1.2, 1.2 + 1e-13], [1.0, 1.0, 1.0], [1 + 1e-9, 1, 1]):
        for angle in (0.0, 1e-7, 3.0, 90.0, 179.0):
            axes = Rotation.random(random_state=RANDOM).as_matrix()
            axis = axes @ [0.6, 0.0, 0.8]
            R = Rotation.from_rotvec(angle * axis, degrees=True).as_matrix()
            found.append(R @ axes @ np.diag(stretches) @ axes.T)
    return found


@pytest.mark.parametrize("F", gradients())
def test_components_equal_matrix_functions(F):
    R, U = scipy.linalg.polar(F)
    e = (F + F.T) / 2 - np.eye(3)
    J = np.linalg.det(F)
    expected = {
        "vol": J - 1,
        "dev": np.linalg.norm(U * J ** (-1 / 3) - np.eye(3)),
        "volss": np.trace(e),
        "devss": np.linalg.norm(e - np.eye(3) * np.trace(e) / 3),
        "z": np.diag(U),
        "Up": np.linalg.eigvalsh(U) - 1,
        "U": U,
        "e": e,
        "GL": (F.T @ F - np.eye(3)) / 2,
        "H": scipy.linalg.logm(U),
    }
    for name, value in expected.items():
        found = component(F, name)
        found = tensor(found) if np.shape(value) == (3, 3) else found
        np.testing.assert_allclose(found.reshape(np.shape(value)), value, rtol=0, atol=1e-13, err_msg=name)
    back = Rotation.from_rotvec(component(F, "r"), degrees=True).as_matrix()
    np.testing.assert_allclose(back, R, rtol=0, atol=1e-8)


def test_closed_forms():
    """A uniaxial stretch, whose two other stretches are equal, after a rotation by 5, 10 and 3 degrees."""
    R = Rotation.from_rotvec([5, 10, 3], degrees=True).as_matrix()
    F = R @ np.diag([0.95, 1.01, 1.01])
    mean = np.cbrt(0.95 * 1.01**2)
    assert component(F, "vol") == pytest.approx(0.95 * 1.01**2 - 1, abs=1e-15)
    assert component(F, "dev") == pytest.approx(np.sqrt((0.95 / mean - 1) ** 2 + 2 * (1.01 / mean - 1) ** 2), abs=1e-15)
    assert component(F, "dev") == pytest.approx(0.0495, abs=1e-4)
    np.testing.assert_allclose(component(F, "r"), [5, 10, 3], rtol=0, atol=1e-12)
    np.testing.assert_allclose(component(F, "Up"), [-0.05, 0.01, 0.01], rtol=0, atol=1e-15)
    np.testing.assert_allclose(component(F, "H"), [np.log(0.95), 0, 0, np.log(1.01), 0, np.log(1.01)], atol=1e-15)
    np.testing.assert_allclose(component(F, "GL"), [(0.95**2 - 1) / 2, 0, 0, 0.01005, 0, 0.01005], atol=1e-15)


def test_two_d():
    """In 2D everything is that of the block in the plane; z has no stretch, and no place among the principal ones."""
    angle, F = np.deg2rad(20), np.eye(3)
    F[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]] @ np.diag([1.1, 1.3])
    mean = np.sqrt(1.1 * 1.3)
    assert component(F, "vol", True) == pytest.approx(1.1 * 1.3 - 1, abs=1e-15)
    assert component(F, "dev", True) == pytest.approx(np.hypot(1.1 / mean - 1, 1.3 / mean - 1), abs=1e-15)
    np.testing.assert_allclose(component(F, "Up", True), [0, 0.1, 0.3], rtol=0, atol=1e-15)
    np.testing.assert_allclose(component(F, "r", True), [20, 0, 0], rtol=0, atol=1e-12)
    F[1:, 1:] = np.diag([0.8, 0.9])
    np.testing.assert_allclose(component(F, "Up", True), [0, -0.2, -0.1], rtol=0, atol=1e-15)
    assert component(F, "volss", True) == pytest.approx(-0.3, abs=1e-15)
    assert component(F, "devss", True) == pytest.approx(np.hypot(0.05, 0.05), abs=1e-15)


def test_no_deformation_is_nan():
    good = np.eye(3) + GRADIENT
    F = np.stack([good, np.full((3, 3), np.nan), np.diag([1.0, 1, -1]), np.diag([1.0, 1, 0]), good])
    found, exists = strain.components(F, ALL, False)
    assert exists.tolist() == [True, False, False, False, True]
    assert found.shape == (5, len(strain.column_names(ALL)))
    assert np.isnan(found[1:4]).all()
    assert np.isfinite(found[[0, 4]]).all()
    assert np.array_equal(found[0], strain.components(F[:1], ALL, False)[0][0])
    assert strain.components(F[:0], ALL, False)[0].shape == (0, found.shape[1])
    assert strain.components(F, (), False)[0].shape == (5, 0)


def test_column_names():
    names = "rz ry rx vol ezz ezy ezx eyy eyx exx Upz Upy Upx GLzz GLzy GLzx GLyy GLyx GLxx"
    assert strain.column_names(("r", "vol", "e", "Up", "GL")) == tuple(names.split())


# displacements -> F --------------------------------------------------------------------------------------------------


def affine(positions: np.ndarray) -> np.ndarray:
    return positions @ GRADIENT.T + (100.3, -20.0, 7.0)


GRIDS = [((4, 5, 6), (10.0, 10.0, 10.0)), ((5, 4, 6), (4.0, 20.0, 7.0)), ((1, 6, 7), (1.0, 12.0, 9.0))]


@pytest.mark.parametrize(("dims", "spacing"), GRIDS)
def test_cells_are_exact_for_affine_fields(dims, spacing):
    positions = grid(dims, spacing)
    displacements = affine(positions)
    good = RANDOM.random(len(positions)) > 0.05
    displacements[~good] = np.nan
    flat = dims[0] == 1
    n = int(np.prod([max(k - 1, 1) for k in dims]))
    corners = strain.corner_nodes(np.arange(n), dims)
    assert corners.shape[1:] == ((1, 2, 2) if flat else (2, 2, 2))
    F, displacement = strain.cell_gradients(corners, positions, displacements)
    centre = positions[corners].mean(axis=(1, 2, 3))
    whole = good[corners].all(axis=(1, 2, 3))
    assert 0 < whole.sum() < n
    expected = np.eye(3) + GRADIENT * ([0, 1, 1] if flat else 1)
    np.testing.assert_allclose(F[whole], np.broadcast_to(expected, (whole.sum(), 3, 3)), rtol=0, atol=1e-13)
    np.testing.assert_allclose(displacement[whole], affine(centre[whole]), rtol=0, atol=1e-12)
    assert np.isnan(F[~whole]).all()
    np.testing.assert_allclose(centre[0], positions[0] + np.array(spacing) / 2 * [not flat, 1, 1])


def test_cells_equal_shape_functions():
    """The derivative of the trilinear shape functions at the centre of the element."""
    dims = (3, 4, 3)
    positions = grid(dims, (3.0, 5.0, 2.0))
    displacements = RANDOM.normal(size=positions.shape)
    corners = strain.corner_nodes(np.arange(2 * 3 * 2), dims)
    F, _ = strain.cell_gradients(corners, positions, displacements)
    for cell, (z, y, x) in enumerate(itertools.product(range(2), range(3), range(2))):
        gradient = np.zeros((3, 3))
        for a, b, c in itertools.product((0, 1), repeat=3):
            node = ((z + a) * 4 + y + b) * 3 + x + c
            derivative = np.array([2 * a - 1, 2 * b - 1, 2 * c - 1]) / 4 / (3.0, 5.0, 2.0)
            gradient += np.outer(displacements[node], derivative)
        np.testing.assert_allclose(F[cell] - np.eye(3), gradient, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("dims", "spacing"), GRIDS)
@pytest.mark.parametrize("holes", [0.0, 0.15])
def test_fit_is_exact_for_affine_fields(dims, spacing, holes):
    """At faces, edges and corners, beside masked nodes, with any spacing."""
    positions = grid(dims, spacing)
    positions = positions[RANDOM.random(len(positions)) >= holes]
    displacements = affine(positions)
    start, found = within(positions, 1.5 * max(spacing))
    flat = dims[0] == 1
    F, displacement = strain.fit_gradients(positions, start, found, positions, displacements, flat)
    expected = np.eye(3) + GRADIENT * ([0, 1, 1] if flat else 1)
    np.testing.assert_allclose(F, np.broadcast_to(expected, F.shape), rtol=0, atol=1e-13)
    np.testing.assert_allclose(displacement, displacements, rtol=0, atol=1e-12)


@pytest.mark.parametrize("flat", [False, True])
def test_fit_equals_least_squares(flat):
    """Scattered points: numpy's least squares with an intercept, point by point."""
    positions = RANDOM.uniform(0, 50, (150, 3)) * ([0, 1, 1] if flat else 1)
    displacements = RANDOM.normal(size=positions.shape) * ([0, 1, 1] if flat else 1) + 1000
    start, found = within(positions, 11.0)
    F, displacement = strain.fit_gradients(positions, start, found, positions, displacements, flat)
    first, fitted = int(flat), 0
    for point in range(150):
        near = found[start[point] : start[point + 1]]
        table = np.column_stack([np.ones(len(near)), (positions[near] - positions[point])[:, first:]])
        if np.linalg.matrix_rank(table) < table.shape[1]:
            assert np.isnan(F[point]).all()
            continue
        solution = np.linalg.lstsq(table, displacements[near], rcond=None)[0]
        expected = np.eye(3)
        expected[:, first:] += solution[1:].T
        np.testing.assert_allclose(F[point], expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(displacement[point], solution[0], rtol=0, atol=1e-8)
        fitted += 1
    assert fitted > 50


def test_fit_needs_points_that_determine_it():
    """Three points, points in a plane, and the same in 2D give nothing; one more point does."""
    positions = np.array([[0, 0, 0], [0, 0, 7], [0, 7, 0], [0, 7, 7], [3, 7, 7]], float)
    displacements = affine(positions)

    def found(points: list[int], flat: bool) -> np.ndarray:
        start, near = np.array([0, len(points)]), np.array(points, np.int64)
        return strain.fit_gradients(positions[:1], start, near, positions, displacements, flat)[0][0]

    assert np.isnan(found([], False)).all()
    assert np.isnan(found([0, 1, 2], False)).all()
    assert np.isnan(found([0, 1, 2, 3], False)).all()
    np.testing.assert_allclose(found([0, 1, 2, 4], False), np.eye(3) + GRADIENT, atol=1e-14)
    assert np.isnan(found([0, 1], True)).all()
    assert np.isnan(found([0, 1, 1], True)).all()
    np.testing.assert_allclose(found([0, 1, 2], True)[:, 1:], (np.eye(3) + GRADIENT)[:, 1:], atol=1e-14)


def shares(places: np.ndarray, window: tuple[float, float, float]) -> np.ndarray:
    """Part of their windows that points have in common, in pairs."""
    apart = np.abs(places[:, None] - places[None])
    return np.clip(1 - apart / window, 0, None).prod(axis=2)


@pytest.mark.parametrize("flat", [False, True])
def test_errors_of_fits_whose_windows_overlap(flat):
    """The covariance of least squares by matrices; a point far away shares nothing."""
    window = (1.0, 7.0, 9.0) if flat else (6.0, 7.0, 9.0)
    positions = RANDOM.uniform(0, 12, (40, 3)) * ([0, 1, 1] if flat else 1)
    errors = RANDOM.uniform(0.01, 0.03, (40, 3))
    errors[39] = np.nan
    start, found = within(positions[:39], 6.0)
    F = kernels.fit_gradient_errors(positions, errors, start, found, window, flat)
    axes = slice(1 if flat else 0, 3)
    for place in range(39):
        near = found[start[place] : start[place + 1]]
        if len(near) < 5:
            continue
        design = np.column_stack([np.ones(len(near)), positions[near, axes]])
        weights = np.linalg.pinv(design)[1:]
        for i in range(3):
            C = shares(positions[near], window) * np.outer(errors[near, i], errors[near, i])
            np.testing.assert_allclose(F[place, i, axes], np.sqrt(np.diag(weights @ C @ weights.T)), rtol=1e-9)
    assert F[:, :, 0].any() != flat
    # every point has a window of its own: common voxels over the root of the product of both
    own = RANDOM.uniform(0.5, 1.5, (40, 3)) * window
    F = kernels.fit_gradient_errors(positions, errors, start, found, own, flat)
    near = found[start[5] : start[6]]
    assert len(near) > 5
    weights = np.linalg.pinv(np.column_stack([np.ones(len(near)), positions[near, axes]]))[1:]
    low, high = positions - own / 2, positions + own / 2
    common = np.minimum(high[near, None], high[near]) - np.maximum(low[near, None], low[near])
    R = (np.maximum(common, 0) / np.sqrt(own[near, None] * own[near])).prod(axis=2)
    for i in range(3):
        C = R * np.outer(errors[near, i], errors[near, i])
        np.testing.assert_allclose(F[5, i, axes], np.sqrt(np.diag(weights @ C @ weights.T)), rtol=1e-9)
    # one point's error is not known
    near = np.append(np.arange(8), 39)
    assert np.isnan(kernels.fit_gradient_errors(positions, errors, np.array([0, 9]), near, window, flat)[0, 1, 1])
    assert np.isnan(kernels.fit_gradient_errors(positions, errors, np.array([0, 2]), near[:2], window, flat)).all()


@pytest.mark.parametrize("dims", [(3, 4, 3), (1, 4, 3)])
def test_errors_of_cells_whose_windows_overlap(dims):
    """The covariance of the mean slope of the edges."""
    spacing, window = (3.0, 5.0, 2.0), (1.0 if dims[0] == 1 else 7.0, 7.0, 4.0)
    positions = grid(dims, spacing)
    errors = RANDOM.uniform(0.01, 0.03, positions.shape)
    corners = strain.corner_nodes(np.arange(np.prod([max(n - 1, 1) for n in dims])), dims)
    found = strain.cell_errors(corners, positions, errors, window, dims[0] == 1)
    for cell, nodes in enumerate(corners.reshape(len(corners), -1)):
        for a in range(1 if dims[0] == 1 else 0, 3):
            away = np.sign(positions[nodes, a] - positions[nodes, a].mean())
            weights = away / (len(nodes) / 2) / spacing[a]
            for i in range(3):
                q = weights * errors[nodes, i]
                np.testing.assert_allclose(found[cell, i, a], np.sqrt(q @ shares(positions[nodes], window) @ q))


# spam's answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["solid-Q8", "solid-Geers", "solid-raw", "solid-all-Q8", "flat-Q4", "flat-Geers", "flat-raw"]
)
def test_equals_spam(name):
    """Geers strain at the nodes with all their neighbours only: elsewhere that of spam is wrong."""
    at_least, mode = -np.inf if "all" in name else 2, name.rpartition("-")[2]
    field = read_field(REFERENCE / f"{name.partition('-')[0]}.tsv")
    text = (REFERENCE / f"{name}.tsv").read_text().splitlines()
    names = text[0].split("\t")
    expected = np.array([line.split("\t") for line in text[1:]], float)
    wanted = [component for component in ALL if component not in ("Up", "GL", "H")]
    assert tuple(names[4:]) == strain.column_names(wanted)
    good = np.isfinite(field.displacements).all(axis=1) & (field["returnStatus"] >= at_least)
    assert field.dims is not None
    assert field.spacing is not None
    two_d = field.dims[0] == 1
    compared = np.ones(len(expected), bool)
    displacements = np.where(good[:, None], field.displacements, np.nan)
    if mode in ("Q8", "Q4"):
        corners = strain.corner_nodes(np.arange(len(expected)), field.dims)
        F, _ = strain.cell_gradients(corners, field.positions, displacements)
        centre = field.positions[corners].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(expected[:, 2:4], centre[:, 1:], atol=1e-7)
    elif mode == "raw":
        F = np.where(good[:, None, None], field.F, np.nan)
    else:
        points = field.positions[good]
        start, found = within(points, 1.5 * max(field.spacing))
        F = np.full((len(field), 3, 3), np.nan)
        F[good], _ = strain.fit_gradients(points, start, found, points, displacements[good], two_d)
        compared[good] = np.diff(start) == (9 if two_d else 19)
    ours, _ = strain.components(F, wanted, two_d)
    assert np.isfinite(expected[compared]).all(axis=1).sum() > len(compared) // 8
    np.testing.assert_allclose(ours[compared], expected[compared, 4:], rtol=0, atol=2e-6)


@pytest.mark.parametrize("two_d", [False, True])
def test_errors_of_small_strains_are_those_of_f(two_d: bool) -> None:
    """They are linear in F: (F + F^T) / 2 - I."""
    random = np.random.default_rng(9)
    F = np.eye(3) + 0.1 * random.normal(size=(7, 3, 3))
    errors = random.uniform(1e-3, 1e-2, (7, 3, 3))
    if two_d:
        F[:, 0], F[:, :, 0] = (1, 0, 0), (1, 0, 0)
    found = strain.component_errors(F, errors, ["e"], two_d)
    variance = (errors**2 + errors.transpose(0, 2, 1) ** 2) / 4
    variance[:, [0, 1, 2], [0, 1, 2]] = (errors**2)[:, [0, 1, 2], [0, 1, 2]]
    told = {name: found[:, k] for k, name in enumerate(strain.column_names(["e"]))}
    for i, k in ((1, 1), (1, 2), (2, 2), *(() if two_d else ((0, 0), (0, 1), (0, 2)))):
        np.testing.assert_allclose(told[f"e{'zyx'[i]}{'zyx'[k]}"], np.sqrt(variance[:, i, k]), rtol=1e-9)
