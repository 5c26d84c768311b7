"""``mpidvc regularStrain`` from the command line and from Python: its files, its choices, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from matplotlib.image import imread

import mpidvc
from mpidvc.commands.regular_strain import options
from mpidvc.core import strain
from mpidvc.core.deformation import rotation_matrix
from mpidvc.fields.hdf5 import ResultsFile, read_hdf5, write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import write_tsv
from mpidvc.main import main

#: Large: a rotation by 25 degrees about a skew axis, and stretches of which two are equal.
LARGE = rotation_matrix(np.array([15.0, -16.0, 12.0])) @ np.diag([0.9, 1.1, 1.1])
VALUES = {"vol": 0.9 * 1.1**2 - 1, "GLzz": (0.81 - 1) / 2, "GLyx": 0.0, "Hxx": np.log(1.1), "rz": 15, "Upz": -0.1}


def affine(dims=(4, 5, 6), spacing=(10.0, 10.0, 10.0), holes=0.0, F=LARGE, status=2.0) -> PhiField:
    """A field of one F; the F of the windows themselves is the identity."""
    index = np.stack(np.meshgrid(*map(np.arange, dims), indexing="ij"), axis=-1).reshape(-1, 3)
    positions = (index + 1.0) * spacing * [dims[0] > 1, 1, 1]
    phi = np.tile(np.eye(4), (len(positions), 1, 1))
    phi[:, :3, 3] = positions @ (F - np.eye(3)).T + (3.0, -2.0, 1.0)
    bad = np.random.default_rng(5).random(len(positions)) < holes
    phi[bad, :3, 3] += 50
    columns = {"returnStatus": np.where(bad, -1.0, status), "deltaPhiNorm": 1e-4 * bad, "iterations": 5.0 + bad}
    return PhiField.from_positions(positions, phi, {"error": 0.0 * bad, **columns})


def run(folder: Path, field: PhiField, *words: str, name: str = "f.h5") -> int:
    write_hdf5(folder / name, field) if name.endswith(".h5") else write_tsv(folder / name, field, "LDIC")
    return main(["regularStrain", str(folder / name), "-np", "1", *words])


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    said = capsys.readouterr().err
    assert status == 2
    assert said.count("\n") == 1
    return said


def test_table_of_components() -> None:
    """The names that the options know without numpy are those of the numerics, and the help lists their columns."""
    assert tuple(strain.COMPONENTS) == options.COMPONENTS
    for name, component in strain.COMPONENTS.items():
        line = next(line for line in options.EXAMPLES.splitlines() if line.split()[:1] == [name])
        assert line.endswith(f" {' '.join(component.columns)}")


@pytest.mark.parametrize("spacing", [(10.0, 10.0, 10.0), (5.0, 20.0, 8.0)])
@pytest.mark.parametrize(("words", "stem"), [(("-cub",), "Q8"), (("-g",), "Geers"), (("-g", "-r", "2.3"), "Geers")])
def test_affine_field_has_its_exact_strain(tmp_path, spacing, words, stem):
    field = affine(spacing=spacing, holes=0.08)
    assert run(tmp_path, field, "-comp", "vol", "dev", "GL", "H", "r", "Up", *words) == 0
    found = read_hdf5(tmp_path / f"f-strain-{stem}.h5")
    there = found["returnStatus"] == 2
    good = field.grid(field.good)
    if stem == "Geers":
        assert np.array_equal(there, field.good)
        assert np.array_equal(found.positions, field.positions)
    else:
        corners = np.stack([good[a : a + 3, b : b + 4, c : c + 5] for a, b, c in np.ndindex(2, 2, 2)])
        assert np.array_equal(there, corners.all(axis=0).ravel())
        assert found.dims == (3, 4, 5)
        np.testing.assert_array_equal(found.positions[0], 1.5 * np.array(spacing))
    assert 0 < there.sum() < len(there)
    for name, value in VALUES.items():
        np.testing.assert_allclose(found[name][there], value, rtol=0, atol=1e-11, err_msg=name)
        assert np.isnan(found[name][~there]).all()
    np.testing.assert_allclose(found.F[there], np.broadcast_to(LARGE, (there.sum(), 3, 3)), rtol=0, atol=1e-12)
    expected = found.positions @ (LARGE - np.eye(3)).T + (3.0, -2.0, 1.0)
    np.testing.assert_allclose(found.displacements[there], expected[there], rtol=0, atol=1e-11)


def test_raw_is_the_f_of_the_file(tmp_path):
    field = affine(holes=0.1)
    field.phi[:, :3, :3] = LARGE
    assert run(tmp_path, field, "-raw", "-comp", "GL", name="f.tsv") == 0
    found = read_hdf5(tmp_path / "f-strain-raw.h5")
    np.testing.assert_allclose(found["GLxx"][field.good], (1.21 - 1) / 2, rtol=0, atol=1e-7)
    assert np.isnan(found["GLxx"][~field.good]).all()


def test_files(tmp_path):
    """Text, TIFF and VTK files as in spam: names, columns, origins."""
    field = affine(holes=0.05)
    words = ("-comp", "dev", "r", "Up", "e", "-tif", "-vtk", "-pre", "p", "-vtkln")
    assert run(tmp_path, field, *words) == 0
    names = ("dev", "rz", "ry", "rx", "Upz", "Upy", "Upx", "ezz", "ezy", "ezx", "eyy", "eyx", "exx")
    lines = (tmp_path / "p-strain-Q8.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["StrainPointNumber", "Zpos", "Ypos", "Xpos", *names]
    assert len(lines) == 1 + 3 * 4 * 5
    assert [float(cell) for cell in lines[1].split("\t")[:4]] == [0, 15, 15, 15]
    tifs = {path.name: tifffile.imread(path) for path in tmp_path.glob("*.tif")}
    assert sorted(tifs) == sorted(f"p-{name}-Q8.tif" for name in names)
    found = read_hdf5(tmp_path / "p-strain-Q8.h5")
    np.testing.assert_array_equal(tifs["p-ezx-Q8.tif"], found.grid("ezx").astype(np.float32))
    vtk = (tmp_path / "p-strain-Q8.vtk").read_text()
    heads = [line for line in vtk.splitlines() if line and line[0] != " "]
    assert heads[4:8] == ["DIMENSIONS 6 5 4", "ASPECT_RATIO 10.0 10.0 10.0", "ORIGIN 10.0 10.0 10.0", "CELL_DATA 60"]
    kinds = [head for head in heads if head.endswith(" float")]
    assert kinds == ["SCALARS dev float", "VECTORS r float", "VECTORS Up float", "TENSORS e float",
                     "SCALARS returnStatus float"]  # fmt: skip
    tensors = np.array(vtk.partition("TENSORS e float\n")[2].split()[: 60 * 9], float).reshape(60, 3, 3)
    there = found["returnStatus"] == 2
    e = (LARGE + LARGE.T) / 2 - np.eye(3)
    np.testing.assert_allclose(tensors[there], np.broadcast_to(e[::-1, ::-1], (there.sum(), 3, 3)), rtol=0, atol=1e-6)
    assert np.isnan(tensors[~there]).all()
    assert 0 < there.sum() < 60


def test_two_d(tmp_path):
    F = np.eye(3)
    F[1:, 1:] = rotation_matrix([12.0, 0, 0])[1:, 1:] @ np.diag([1.02, 0.97])
    field = affine((1, 5, 6), (1.0, 12.0, 9.0), F=F)
    words = ("-comp", "vol", "r", "Up", "z", "U", "-tif", "-vtk")
    for mode, more, origin in (("Q4", (), "9.0 12.0 -0.5"), ("Geers", ("-g",), "4.5 6.0 -0.5")):
        assert run(tmp_path, field, *words, *more) == 0
        found = read_hdf5(tmp_path / f"f-strain-{mode}.h5")
        np.testing.assert_allclose(found["vol"], 1.02 * 0.97 - 1, rtol=0, atol=1e-13)
        np.testing.assert_allclose(found["rz"], 12, rtol=0, atol=1e-11)
        assert not found.positions[:, 0].any()
        parts = ["vol", "rz", "ry", "rx", "Upy", "Upx", "zy", "zx", "Uyy", "Uyx", "Uxx"]
        assert {path.name for path in tmp_path.glob(f"*-{mode}.tif")} == {f"f-{part}-{mode}.tif" for part in parts}
        assert f"\nORIGIN {origin}\n" in (tmp_path / f"f-strain-{mode}.vtk").read_text()


def test_thresholds(tmp_path, capsys):
    field = affine(holes=0.1, status=1.0)
    assert run(tmp_path, field, "-g") == 0
    said = capsys.readouterr().out
    assert "the threshold is 1 (-rst)" in said
    assert (read_hdf5(tmp_path / "f-strain-Geers.h5")["returnStatus"] == 2).sum() == (field["returnStatus"] == 1).sum()
    # most have 1, some have 2
    field = affine(status=1.0)
    field.columns["returnStatus"][:60] = 2
    assert run(tmp_path, field, "-g", "-pre", "two") == 0
    assert "-rst 1 includes them" in capsys.readouterr().out
    assert (read_hdf5(tmp_path / "two-strain-Geers.h5")["returnStatus"] == 2).sum() == 60
    for word in ("-nomask", "--nomask", "-nomaskBad"):
        assert run(tmp_path, field, "-raw", word, "-pre", f"all{word}") == 0
        assert (read_hdf5(tmp_path / f"all{word}-strain-raw.h5")["returnStatus"] == 2).all()
    capsys.readouterr()
    assert "see -rst" in refused(capsys, run(tmp_path, field, "-rst", "3", "-pre", "none"))
    assert not list(tmp_path.glob("none*"))


def test_scattered_points_and_labels(tmp_path, capsys):
    """Fields without a grid: by a radius in voxels; the background and missing labels have no strain."""
    field = affine((5, 5, 5))
    rng = np.random.default_rng(8)
    positions = field.positions + rng.uniform(-4, 4, field.positions.shape)
    positions[0], positions[7] = 0, np.nan
    phi = field.phi.copy()
    phi[:, :3, 3] = positions @ (LARGE - np.eye(3)).T
    columns = {"returnStatus": np.full(125, 2.0)}
    columns["returnStatus"][[0, 7]] = 0, -7
    labels = PhiField(positions, phi, columns, "labels")
    assert "-g -r VOXELS" in refused(capsys, run(tmp_path, labels))
    assert "radius in voxels" in refused(capsys, run(tmp_path, labels, "-g"))
    assert run(tmp_path, labels, "-g", "-r", "18", "-comp", "GL", "-vtk") == 0
    assert "gauge: 36 x 36 x 36 voxels" in capsys.readouterr().out
    found = read_hdf5(tmp_path / "f-strain-Geers.h5")
    there = found["returnStatus"] == 2
    assert not there[[0, 7]].any()
    assert there.sum() > 115
    np.testing.assert_allclose(found["GLyy"][there], (1.21 - 1) / 2, rtol=0, atol=1e-11)
    first = [line.split("\t")[0] for line in (tmp_path / "f-strain-Geers.tsv").read_text().splitlines()]
    assert first[:3] == ["StrainPointNumber", "0.0000000", "1.0000000"]
    points = PhiField(positions[8:], phi[8:])
    assert run(tmp_path, points, "-g", "-r", "18", "-pre", "q", "-comp", "GL") == 0
    np.testing.assert_allclose(read_hdf5(tmp_path / "q-strain-Geers.h5")["GLyy"].mean(), 0.105, rtol=0, atol=1e-11)


def test_virtual_strain_gauge(tmp_path, capsys):
    """Window + (strain window - 1) x step, on the screen and in the file; ldic compares 2 N - 1 voxels."""
    settings = json.dumps({"command": "ldic", "-hws": [6, 6, 8]})
    write_hdf5(tmp_path / "l.h5", affine(), attributes={"command": "ldic", "determines": settings})
    expected = {"Q8": "21 x 21 x 25", "Geers": "31 x 31 x 35", "raw": "11 x 11 x 15"}
    for mode, words in {"Q8": (), "Geers": ("-g", "-r", "1"), "raw": ("-raw",)}.items():
        assert main(["regularStrain", "-pf", str(tmp_path / "l.h5"), "-np", "1", *words]) == 0
        text = f"{expected[mode]} voxels (z y x), of it the correlation window 11 x 11 x 15"
        assert f"Virtual strain gauge: {text}\n" in capsys.readouterr().out
        with ResultsFile(tmp_path / f"l-strain-{mode}.h5") as file:
            assert file.layout.attributes["virtual_strain_gauge"] == text
    with h5py.File(tmp_path / "l-strain-Q8.h5") as file:
        assert file["mpidvc"].attrs["virtual_strain_gauge"].startswith("21 x 21 x 25")
    # the window goes through a filter
    assert main(["filterPhiField", "-pf", str(tmp_path / "l.h5"), "--outliers", "-np", "1"]) == 0
    assert main(["regularStrain", "-pf", str(tmp_path / "l-filtered.h5"), "-np", "1"]) == 0
    assert f"gauge: {expected['Q8']} voxels (z y x), of it the correlation window" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-comp", "vol", "foo"), "-comp foo: is no component"),
        (("-comp", "up"), "did you mean Up?"),
        (("-comp", "e", "e"), "is there twice"),
        (("-g", "-raw"), "-g -raw: are different computations"),
        (("-raw", "-cub"), "-raw -cub: are different computations"),
        (("-g", "-r", "0"), "-r 0.0: has to be above 0"),
        (("-pf", "other.tsv"), "the field is given twice"),
    ],
)
def test_refusals(tmp_path, capsys, words, told):
    assert told in refused(capsys, run(tmp_path, affine(), *words))
    assert [path.name for path in tmp_path.iterdir()] == ["f.h5"]


def test_fields_that_have_no_strain(tmp_path, capsys):
    single = PhiField(np.zeros((1, 3)), np.eye(4)[None], {}, "registration")
    assert "is a single Phi" in refused(capsys, run(tmp_path, single))
    assert "single node along y" in refused(capsys, run(tmp_path, affine((3, 1, 4)), "-g"))
    assert main(["regularStrain", str(tmp_path / "no.tsv")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["regularStrain"]) == 2
    assert "the field is missing" in capsys.readouterr().err
    assert main(["regularStrain", "-comp", "vol", "f.h5"]) == 2
    assert "give the field before -comp" in capsys.readouterr().err
    # good points, but none has enough neighbours
    assert run(tmp_path, affine(), "-g", "-r", "0.5") == 1
    assert "there is no strain anywhere" in capsys.readouterr().err


def test_plot(tmp_path, capsys):
    """A picture with a row for each column, and three slices in a row; labels have no slices."""
    picture = tmp_path / "p.png"
    assert run(tmp_path, affine(holes=0.1), "-comp", "vol", "r", "--plot", str(picture)) == 0
    assert f"Written: {picture}\n" in capsys.readouterr().out
    assert imread(picture).shape[:2] == (1293, 1100)
    labels = PhiField(*(getattr(affine(), name) for name in ("positions", "phi")), {}, "labels")
    words = ("-g", "-r", "20", "--plot", str(tmp_path / "q.png"))
    assert "slices need a grid" in refused(capsys, run(tmp_path, labels, *words))
    assert "there is no folder" in refused(capsys, run(tmp_path, affine(), "--plot", str(tmp_path / "no" / "q.png")))


def test_in_python(tmp_path):
    found = mpidvc.regular_strain(affine(), strain_components=["H", "vol"], geers=True)
    np.testing.assert_allclose(found["Hyy"], np.log(1.1), rtol=0, atol=1e-12)
    assert list(found.columns) == ["Hzz", "Hzy", "Hzx", "Hyy", "Hyx", "Hxx", "vol", "returnStatus"]
