"""mpidvc passPhiField: closed forms, sums written out in numpy, spam's answers, rows, files and bad input.

spam's answers are in tests/reference/pass. There points without a neighbour have the status 1, and so has row 0 of
labels, which gets a mean as if it were a particle at (0, 0, 0).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc.core import deformation
from mpidvc.core.deformation import compute_phi
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.read import read_field
from mpidvc.fields.tsv import COLUMNS, write_tsv
from mpidvc.main import main
from tests.commands.test_pixel_search import DISPLACEMENTS, POSITIONS, F, columns, read
from tests.reference.make_pass_reference import CASES, FOLDER

PHI = compute_phi((1.5, -2.0, 0.5), (4.0, -3.0, 5.0), np.diag([1.02, 0.97, 1.01]))
CENTRE = np.array([20.0, 25.0, 22.0])


def run(folder: Path, line: str, status: int = 0) -> Path:
    assert main(["passPhiField", *line.split(), "-np", "1", "-od", str(folder)]) == status
    return folder


def passed(field: PhiField, **options: Any) -> PhiField:
    found: PhiField = mpidvc.pass_phi_field(phi_file=field, processes=1, **options)
    return found


@pytest.fixture
def affine() -> PhiField:
    """A field at scattered points whose Phi is that of one deformation."""
    positions = np.random.default_rng(4).uniform(2, 38, (150, 3))
    phi = deformation.move_centre(np.broadcast_to(PHI, (150, 4, 4)), CENTRE, positions)
    return PhiField(positions, phi, {"returnStatus": np.full(150, 2.0)})


@pytest.mark.parametrize("name", CASES)
def test_parity(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    run(tmp_path, f"{CASES[name]} -pre {name} -noh5")
    (path,) = tmp_path.glob("*.tsv")
    head, ours = read(path)
    spams, theirs = read(FOLDER / f"answer-{name}.tsv")
    less = "-regs" in CASES[name]
    assert head.split()[1:] == spams.split()[1:]
    # a field of nodes stays one
    assert head.split()[0] == ("NodeNumber" if less else spams.split()[0])
    labels = head.startswith("Label")
    rows = slice(1, None) if labels else slice(None)
    np.testing.assert_allclose(columns(ours, POSITIONS), columns(theirs, POSITIONS), atol=1e-6)
    for names in (F, DISPLACEMENTS):
        np.testing.assert_allclose(columns(ours, names)[rows], columns(theirs, names)[rows], atol=1.1e-7)
    for column in ("pixelSearchCC", "deltaPhiNorm", "iterations"):
        np.testing.assert_array_equal(ours[column], theirs[column])
    status, changed = theirs["returnStatus"].copy(), less or "merged" in name
    # spam puts 0 for the errors that it has read
    np.testing.assert_array_equal(ours["error"], np.full(len(status), 0.5 if changed else 0))
    if not changed:
        status[np.isnan(theirs["Zdisp"])] = -7
    status[: int(labels)] = 0
    np.testing.assert_array_equal(ours["returnStatus"], status)
    if name == "surrounded":
        assert 0 < np.isnan(ours["Zdisp"]).sum() < len(ours["Zdisp"])


@pytest.mark.parametrize("part", ["all", "rigid", "no"])
def test_a_registration_moves_every_node_by_its_whole_phi(part: str) -> None:
    registration = PhiField(CENTRE[None], PHI[None], layout="registration")
    got = passed(registration, apply_F=part, node_spacing=10, image1_shape=(31, 42, 53))
    assert got.dims == (3, 4, 5)
    expected = np.einsum("ij,nj->ni", PHI[:3, :3] - np.eye(3), got.positions - CENTRE) + PHI[:3, 3]
    np.testing.assert_allclose(got.displacements, expected, atol=1e-12)
    stored = {"all": PHI[:3, :3], "rigid": deformation.rotation_matrix((4.0, -3.0, 5.0)), "no": np.eye(3)}[part]
    np.testing.assert_allclose(got.F, np.broadcast_to(stored, got.F.shape), atol=1e-12)
    assert set(got.columns["returnStatus"]) == {1.0}


@pytest.mark.parametrize("part", ["all", "rigid", "no"])
def test_means_over_the_nearest_points(affine: PhiField, part: str) -> None:
    got = passed(affine, apply_F=part, number_of_neighbours=5, node_spacing=9, image1_shape=(40, 40, 40))
    assert len(got) == 64
    for position, phi in zip(got.positions, got.phi, strict=True):
        distance = np.linalg.norm(affine.positions - position, axis=1)
        near = np.argsort(distance)[:5]
        mean = np.average(affine.phi[near], axis=0, weights=1 / (distance[near] + 1e-6))
        np.testing.assert_allclose(phi[:3, 3], mean[:3, 3], atol=1e-12)
        # the means of equal F are that F
        stored = {"all": PHI[:3, :3], "rigid": deformation.rotation_matrix((4.0, -3.0, 5.0)), "no": np.eye(3)}[part]
        np.testing.assert_allclose(phi[:3, :3], stored, atol=1e-12)


def test_a_point_on_a_node_gets_its_value_and_statuses_choose(affine: PhiField) -> None:
    affine.positions[0] = 10, 10, 10
    affine.positions[1] = 10, 10, 11
    affine.phi[0, :3, 3] = 7, 8, 9
    options = {"node_spacing": 10, "image1_shape": (20, 20, 20), "number_of_neighbours": 1}
    np.testing.assert_array_equal(passed(affine, **options).displacements, [[7, 8, 9]])
    affine.columns["returnStatus"][0] = -1
    np.testing.assert_array_equal(passed(affine, **options).displacements, [[7, 8, 9]])
    np.testing.assert_array_equal(
        passed(affine, return_status_threshold=1, **options).displacements, affine.displacements[1:2]
    )
    affine.phi[0, 0, 3] = np.nan
    np.testing.assert_array_equal(passed(affine, **options).displacements, affine.displacements[1:2])


def test_more_neighbours_than_points_are_all_of_them(affine: PhiField) -> None:
    few = PhiField(affine.positions[:3], affine.phi[:3])
    got = passed(few, number_of_neighbours=20, node_spacing=15, image1_shape=(40, 40, 40))
    distance = np.linalg.norm(got.positions[:, None] - few.positions, axis=2)
    mean = [np.average(few.displacements, axis=0, weights=1 / (d + 1e-6)) for d in distance]
    np.testing.assert_allclose(got.displacements, mean, atol=1e-12)


def test_rotation_of_a_single_neighbour(affine: PhiField) -> None:
    got = passed(PhiField(affine.positions[:2], affine.phi[:2]), apply_F="rigid", neighbourhood_radius=12.0,
                 node_spacing=5, image1_shape=(40, 40, 40))  # fmt: skip
    alone = (np.linalg.norm(got.positions[:, None] - affine.positions[:2], axis=2) <= 12).sum(axis=1) == 1
    assert alone.sum() > 5
    turned = deformation.rotation_matrix((4.0, -3.0, 5.0))
    np.testing.assert_allclose(got.F[alone], np.broadcast_to(turned, (alone.sum(), 3, 3)), atol=1e-12)


def test_points_without_a_neighbour_have_a_bad_status(affine: PhiField, capsys: pytest.CaptureFixture[str]) -> None:
    got = passed(affine, neighbourhood_radius=4.0, node_spacing=8, image1_shape=(64, 64, 64))
    near = (np.linalg.norm(got.positions[:, None] - affine.positions, axis=2) <= 4).any(axis=1)
    assert 0 < near.sum() < len(near)
    np.testing.assert_array_equal(got.columns["returnStatus"], np.where(near, 1, -7))
    assert np.isnan(got.phi[~near, :3]).all()
    np.testing.assert_array_equal(got.good, near)


def test_only_surrounded_points_of_many(affine: PhiField) -> None:
    got = passed(
        affine, check_point_surrounded=True, neighbourhood_radius=7.0, node_spacing=5, image1_shape=(45, 45, 45)
    )
    assert len(got) == 512
    inside = []
    for position in got.positions:
        near = affine.positions[np.linalg.norm(affine.positions - position, axis=1) <= 7]
        inside.append(len(near) > 0 and bool(((near.min(0) <= position) & (position <= near.max(0))).all()))
    assert 50 < sum(inside) < 450
    np.testing.assert_array_equal(got.columns["returnStatus"], np.where(inside, 1, -7))


def test_background_and_missing_labels(tmp_path: Path) -> None:
    labels = np.zeros((30, 30, 30), np.uint16)
    labels[10:15, 10:15, 10:15], labels[20:25, 20:25, 20:25] = 1, 3
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    phi = np.tile(np.eye(4), (4, 1, 1))
    phi[[1, 3], :3, 3] = (1, 2, 3), (4, 5, 6)
    centres = np.array([[0, 0, 0], [12, 12, 12], [np.nan] * 3, [22, 22, 22]])
    field = PhiField(centres, phi, {"returnStatus": np.array([0, 2.0, -7, 2])}, "labels")
    # node (6, 6, 6) has row 0 and label 1 within reach: row 0 is no particle
    got = passed(field, neighbourhood_radius=11.0, node_spacing=6, image1_shape=(30, 30, 30))
    np.testing.assert_allclose(got.displacements[0], [1, 2, 3], atol=1e-12)
    got = passed(field, labels1=str(tmp_path / "labels.tif"), neighbourhood_radius=3.0)
    assert got.layout == "labels"
    np.testing.assert_array_equal(got.columns["returnStatus"], [0, 1, -7, 1])
    np.testing.assert_array_equal(got.displacements[[0, 1, 3]], [[0, 0, 0], [1, 2, 3], [4, 5, 6]])
    assert np.isnan(got.phi[2, :3]).all()
    assert np.isnan(got.positions[2]).all()


def test_bin_ratio_moves_the_middle_of_voxels(affine: PhiField) -> None:
    # node 19.5 of a binned image is the middle of voxels 39 and 40
    field = PhiField(np.array([[19.5, 19.5, 19.5], [4, 4, 4]]), np.tile(np.eye(4), (2, 1, 1)))
    field.phi[0, :3, 3] = 1, 2, 3
    got = passed(field, phi_file_bin_ratio=2.0, registration_subtract=str(FOLDER / "registration.tsv"),
                 registration_subtract_F="no")  # fmt: skip
    np.testing.assert_allclose(got.positions, [[39.5] * 3, [8.5] * 3])
    np.testing.assert_allclose(got.displacements, [[2 - 1, 4 - 2, 6 + 1], [-1, -2, 1]])


@pytest.mark.parametrize("spacing", ["-ns 10", "-ns3 1 10 10"])
def test_the_default_radius_in_two_dimensions(spacing: str, tmp_path: Path) -> None:
    """Two spacings, as in 3D; spam 0.9.1 takes 20 for -ns 10, and 14 for -ns3, where the 1 of z is in its mean."""
    places = np.stack(np.meshgrid([0.0], np.arange(10.0, 60, 10), np.arange(10.0, 60, 10), indexing="ij"), axis=-1)
    positions = places.reshape(-1, 3)
    phi = np.tile(np.eye(4), (25, 1, 1))
    phi[12, 2, 3] = 1
    write_tsv(tmp_path / "f.tsv", PhiField.from_positions(positions, phi, {"returnStatus": np.full(25, 2.0)}), "SEARCH")
    run(tmp_path, f"-pf {tmp_path}/f.tsv -im1shape 1 60 60 {spacing}")
    (path,) = tmp_path.glob("*.h5")
    found = read_field(path)
    apart = np.linalg.norm(found.positions - positions[12], axis=1)
    assert np.array_equal(found["Xdisp"] > 0, apart <= 20)


def test_two_dimensions(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    positions = random.uniform(0, 60, (80, 3)) * [0, 1, 1]
    phi = np.tile(np.eye(4), (80, 1, 1))
    phi[:, 1:3, 3] = random.normal(size=(80, 2))
    tifffile.imwrite(tmp_path / "im.tif", np.zeros((60, 50), np.uint8), photometric="minisblack")
    given = PhiField(positions, phi)
    got = passed(given, image1=str(tmp_path / "im.tif"), node_spacing=11, neighbourhood_radius=9.0)
    assert got.dims == (1, 5, 4)
    for position, u in zip(got.positions, got.displacements, strict=True):
        distance = np.linalg.norm(positions - position, axis=1)
        near = distance <= 9
        np.testing.assert_allclose(
            u, np.average(given.displacements[near], axis=0, weights=1 / (distance[near] + 1e-6)), atol=1e-12
        )
    with pytest.raises(mpidvc.UserError, match="2D"):
        passed(given, image1_shape=(50, 50, 50), node_spacing=10)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(FOLDER)
    run(tmp_path, "-pf field.tsv -ns3 10 12 9 -im1shape 40 50 48 -tif -vtk -nr 9 -nn 3 -m no -rst 2")
    assert "-nr 9 and -nn 3 are given: the radius counts" in capsys.readouterr().out
    stem = "field-passed-ns10-12-9"
    names = {f"{stem}{end}" for end in (".h5", ".run.json", ".tsv", ".vtk", *(f"-{a}disp.tif" for a in "ZYX"))}
    assert {path.name for path in tmp_path.iterdir()} == names
    got, text = read_field(tmp_path / f"{stem}.h5"), (tmp_path / f"{stem}.vtk").read_text()
    assert got.dims == (3, 4, 5)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / f"{stem}-Ydisp.tif"), got.grid("Ydisp").astype(np.float32))
    assert "ORIGIN 4.5 6.0 5.0\n" in text
    assert "VECTORS displacements" in text
    assert "SCALARS returnStatus" in text
    again = read_field(tmp_path / f"{stem}.tsv")
    np.testing.assert_allclose(again.phi, got.phi, atol=6e-8)
    # what was written is read as a field again
    run(tmp_path, f"-pf {tmp_path}/{stem}.h5 -lab1 labels.tif -vtk -pre again")
    assert "POINT_DATA 4\n" in (tmp_path / "again-passed-labelled.vtk").read_text()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "give a registration or a field by -pf"),
        ("-pf field.tsv", "give -ns and -im1 (or -im1shape), or -lab1"),
        ("-pf field.tsv -ns 10", "give -im1 or -im1shape"),
        ("-pf nothing.tsv -ns 10 -im1shape 40 50 48", "nothing.tsv"),
        ("-pf field.tsv -ns 10 -im1 nothing.tif", "nothing.tif"),
        ("-pf field.tsv -ns 100 -im1shape 40 50 48", "-ns 100"),
        ("-pf field.tsv -ns 10 -im1shape 40 50 0", "-im1shape 40 50 0"),
        ("-pf field.tsv -ns 10 -im1shape 1 50 48", "3D"),
        ("-pf field.tsv -ns 10 -im1shape 40 50 48 -nn 0", "-nn 0"),
        ("-pf field.tsv -ns 10 -im1shape 40 50 48 -nr -1", "-nr -1"),
        ("-pf field.tsv -ns 10 -im1shape 40 50 48 -rst 3", "-rst 3"),
        ("-pf field.tsv -lab1 labels.tif labels.tif", "-pf2"),
        ("-pf field.tsv -regs field.tsv", "-regs field.tsv"),
        ("-pf field.tsv -regs nothing.tsv", "nothing.tsv"),
        ("-pf field.tsv -regs registration.tsv -ns 10", "-regs"),
        ("-pf registration.tsv -regs registration.tsv", "-pf registration.tsv"),
        ("-pf field.tsv -pf2 labels.tsv", "-lab1"),
        ("-pf field.tsv -pf2 field.tsv -lab1 labels.tif", "-pf2 field.tsv"),
        ("-pf labels.tsv -pf2 labels.tsv -lab1 labels.tif", "-pf labels.tsv"),
        ("-pf field.tsv -pfb 0 -ns 10 -im1shape 40 50 48", "-pfb 0"),
    ],
)
def test_bad_input(line: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(FOLDER)
    run(tmp_path, line, 2)
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_no_neighbour_at_all_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(FOLDER)
    run(tmp_path, "-pf field.tsv -ns 10 -im1shape 40 50 48 -nr 0.01", 1)
    assert "see -nr" in capsys.readouterr().err


def test_columns_are_those_of_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    run(tmp_path, f"{CASES['registration']} -noh5")
    head, _ = read(tmp_path / "registration-passed-ns15.tsv")
    assert tuple(head.split()) == COLUMNS["SEARCH"]
