"""Quantities of a field, against closed forms of the motion that it was made from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mpidvc.core.strain import COMPONENTS
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.workflow.quantities import MAGNITUDE, Quantities

RANDOM = np.random.default_rng(3)


def field(dims: tuple[int, int, int], F: np.ndarray, t: tuple[float, float, float], **columns: np.ndarray) -> PhiField:
    """A grid that moves by ``F (x - c) + c + t``, c being its middle; its own F tells nothing."""
    steps = [5.0 if n > 1 else 0.0 for n in dims]
    positions = np.moveaxis(np.indices(dims), 0, -1).reshape(-1, 3) * steps + steps
    phi = np.tile(np.eye(4), (len(positions), 1, 1))
    phi[:, :3, 3] = (positions - positions.mean(axis=0)) @ (F - np.eye(3)).T + t
    status = columns.pop("returnStatus", np.full(len(positions), 2.0))
    return PhiField.from_positions(positions, phi, {"returnStatus": status, **columns})


R = Rotation.from_rotvec(np.deg2rad([3, -2, 4])).as_matrix()
U = np.array([[1.02, 0.004, 0], [0.004, 0.99, -0.003], [0, -0.003, 1.01]])
F = R @ U
SOLID = field((5, 6, 7), F, (1.0, -2.0, 0.5), zncc=RANDOM.random(210))


def test_the_rigid_motion_is_removed() -> None:
    """Of a rotation and a translation nothing is left; of a stretch about the middle what it does itself."""
    only = Quantities(field((5, 6, 7), R, (1.0, -2.0, 0.5))).compute(["Znonrigid", "nonrigid", "disp"])
    np.testing.assert_allclose(only["Znonrigid"], 0, atol=1e-12)
    np.testing.assert_allclose(only["nonrigid"], 0, atol=1e-12)
    assert only["disp"].max() > 2
    stretched = field((7, 7, 7), np.diag([1.02, 0.98, 1.0]), (0.3, 0, 0))
    found = Quantities(stretched).compute(["Znonrigid", "Ynonrigid", "Xnonrigid"])
    about = stretched.positions - stretched.positions.mean(axis=0)
    np.testing.assert_allclose(np.stack([*found.values()]), (about * [0.02, -0.02, 0]).T, atol=1e-12)


def test_strain_of_an_affine_motion() -> None:
    given = Quantities(SOLID)
    found = given.compute(["vol", "GLzy", "GLxx", "rz", "ry", "rx", "Upz", "Upx", MAGNITUDE])
    E = (F.T @ F - np.eye(3)) / 2
    expected = {"vol": np.linalg.det(F) - 1, "GLzy": E[0, 1], "GLxx": E[2, 2], "rz": 3, "ry": -2, "rx": 4}
    stretches = np.linalg.eigvalsh(U) - 1
    for name, value in {**expected, "Upz": stretches[0], "Upx": stretches[2]}.items():
        np.testing.assert_allclose(found[name], value, atol=1e-10, err_msg=name)
    np.testing.assert_allclose(found[MAGNITUDE], np.linalg.norm(SOLID.displacements, axis=1))


def test_some_points_have_the_numbers_that_they_have_among_all() -> None:
    noisy = PhiField(SOLID.positions, SOLID.phi + 0, dict(SOLID.columns), "grid", SOLID.dims, SOLID.spacing)
    noisy.phi[:, :3, 3] += RANDOM.normal(0, 0.1, (210, 3))
    names = ["dev", "Znonrigid", "zncc", "returnStatus"]
    some = np.array([209, 3, 77])
    everything, few = Quantities(noisy).compute(names), Quantities(noisy).compute(names, some)
    for name in names:
        np.testing.assert_array_equal(few[name], everything[name][some])


def test_bad_points_have_no_displacement_and_take_no_part() -> None:
    status = np.full(210, 2.0)
    status[50] = -1
    spoilt = field(
        (5, 6, 7), F, (0, 0, 0), returnStatus=status, sigmaZ=np.full(210, 0.01), iterations=np.full(210, 7.0)
    )
    spoilt.phi[50, :3, 3] = 1000
    found = Quantities(spoilt).compute(["Zdisp", "Znonrigid", "vol", "sigmaZ", "iterations"])
    for name in ("Zdisp", "Znonrigid", "vol", "sigmaZ"):
        assert np.isnan(found[name][50]), name
        assert np.isfinite(np.delete(found[name], 50)).all()
    assert found["iterations"][50] == 7
    np.testing.assert_allclose(np.delete(found["vol"], 50), np.linalg.det(F) - 1, atol=1e-10)
    assert Quantities(spoilt, all_points=True).compute(["Zdisp"])["Zdisp"][50] == 1000


def test_the_strain_of_a_strain_is_its_own() -> None:
    """Its columns, or, where there is none, what follows from its F; its displacements are not fitted again."""
    of_its_own = field((3, 4, 5), np.eye(3), (0, 0, 0), dev=np.arange(60.0))
    of_its_own.phi[:, :3, :3] = F
    found = Quantities(of_its_own, {"command": "regularStrain"}).compute(["dev", "vol"])
    np.testing.assert_array_equal(found["dev"], np.arange(60.0))
    np.testing.assert_allclose(found["vol"], np.linalg.det(F) - 1, atol=1e-12)


def test_names_in_a_plane() -> None:
    flat = field((1, 6, 7), np.diag([1, 1.01, 1.02]), (0, 0.5, 0), sigmaZ=np.ones(42), sigmaY=np.ones(42))
    given = Quantities(flat)
    assert given.flat
    assert given.usual == ("Ydisp", "Xdisp", "Ynonrigid", "Xnonrigid", "vol", "dev", "sigmaY", "returnStatus")
    assert {"rz", "GLyx", "Upy"} <= set(given.names)
    assert not {"Zdisp", "GLzz", "ry", "Upz", "zz"} & set(given.names)
    np.testing.assert_allclose(given.compute(["vol"])["vol"], 1.01 * 1.02 - 1, atol=1e-12)
    assert given.about("Upy").title == "smallest principal strain"


def test_a_layer_of_a_volume_is_not_2d() -> None:
    layer = field((1, 6, 7), np.diag([1, 1.01, 1.02]), (0.5, 0.5, 0))
    assert not Quantities(layer).flat
    assert "Zdisp" in Quantities(layer).usual


def test_every_name_is_told_and_computed() -> None:
    given = Quantities(SOLID)
    found = given.compute(given.names)
    for name in given.names:
        assert given.about(name).title
        assert found[name].shape == (210,), name
    assert set(given.names) >= {column for one in COMPONENTS.values() for column in one.columns}
    with pytest.raises(UserError, match="--component foo: there is no such quantity"):
        given.about("foo")


def test_a_line_of_nodes_has_no_strain() -> None:
    line = Quantities(field((1, 1, 9), np.eye(3), (0, 0, 1.0)))
    assert "vol" not in line.names
    assert "vol" not in line.usual


def test_no_good_point() -> None:
    given = Quantities(field((3, 4, 5), F, (0, 0, 0), returnStatus=np.full(60, -1.0)))
    assert given.rigid is None
    assert all(np.isnan(values).all() for values in given.compute(["Zdisp", "Znonrigid", "dev", "nonrigid"]).values())
