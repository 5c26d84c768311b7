import os

import numpy as np
import pytest

from mpidvc.errors import UserError
from mpidvc.fields.vtk import write_grid_vtk, write_points_vtk

DIMS = (2, 3, 4)
RANDOM = np.random.default_rng(3)
FIELDS = {
    "error": RANDOM.normal(size=24),
    "displacements": RANDOM.normal(size=(24, 3)),
    "U": RANDOM.normal(size=(24, 3, 3)),
}


def parse(path):
    """Header entries, and arrays in x, y, z as they stand in the file."""
    lines = path.read_text().split("\n")
    assert lines[0] == "# vtk DataFile Version 2.0"
    assert lines[2] == "ASCII"
    assert lines[-1] == ""
    head, arrays, current = {}, {}, None
    for line in lines[3:]:
        if line.startswith("    "):
            current.append([float(word) for word in line.split()])
            continue
        key, _, rest = line.partition(" ")
        if key in ("SCALARS", "VECTORS", "TENSORS"):
            name, kind = rest.split()
            assert kind == "float"
            current = arrays.setdefault(name, [])
        elif key == "POINTS":
            current = arrays.setdefault("POINTS", [])
            head[key] = rest
        elif key == "LOOKUP_TABLE":
            assert rest == "default"
        elif key:
            head[key] = rest
    return head, {name: np.array(rows) for name, rows in arrays.items()}


def test_grid(tmp_path):
    write_grid_vtk(tmp_path / "a.vtk", DIMS, (10, 20, 30), (1, 2.5, 3), FIELDS.items())
    head, arrays = parse(tmp_path / "a.vtk")
    assert head == {
        "DATASET": "STRUCTURED_POINTS",
        "DIMENSIONS": "5 4 3",
        "ASPECT_RATIO": "30.0 20.0 10.0",
        "ORIGIN": "3.0 2.5 1.0",
        "CELL_DATA": "24",
    }
    assert list(arrays) == ["error", "displacements", "U"]
    np.testing.assert_allclose(arrays["error"][:, 0], FIELDS["error"], atol=6e-8)
    np.testing.assert_allclose(arrays["displacements"][:, ::-1], FIELDS["displacements"], atol=6e-8)
    tensors = arrays["U"].reshape(24, 3, 3)
    np.testing.assert_allclose(tensors[:, 0, 1], FIELDS["U"][:, 2, 1], atol=6e-8)
    np.testing.assert_allclose(tensors[:, ::-1, ::-1], FIELDS["U"], atol=6e-8)


def test_two_d_grid_has_a_thickness(tmp_path):
    write_grid_vtk(tmp_path / "a.vtk", (1, 1, 1), (0, 5, 5), (-1, 0, 0), [("error", [1])])
    head, _ = parse(tmp_path / "a.vtk")
    assert head["ASPECT_RATIO"] == "5.0 5.0 1.0"
    assert head["ORIGIN"] == "0.0 0.0 -1.0"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        (b"caf\xc3\xa9.vtk", "café.vtk"),
        (b"caf\xe9.vtk", "caf?.vtk"),
        (b"a\nDATASET b.vtk", "a?DATASET b.vtk"),
        (b"\xc3\xa9" * 117 + b".vtk", "é" * 116),
    ],
)
def test_any_file_name(tmp_path, name, title):
    """The second line of a file is one line of text of at most 255 bytes, whatever the name of the file."""
    path = tmp_path / os.fsdecode(name)
    write_grid_vtk(path, DIMS, (1, 1, 1), (0, 0, 0), FIELDS.items())
    head, _ = parse(path)
    assert head["DIMENSIONS"] == "5 4 3"
    second = path.read_bytes().split(b"\n")[1]
    assert second.decode() == f"VTK file from mpidvc: {title}"
    assert len(second) <= 255


@pytest.mark.parametrize("keep_nan", [False, True])
def test_nan(tmp_path, keep_nan):
    values = np.array([np.nan, np.inf, -np.inf, 1])
    write_grid_vtk(tmp_path / "a.vtk", (1, 2, 2), (1, 1, 1), (0, 0, 0), [("error", values)], keep_nan)
    write_points_vtk(tmp_path / "b.vtk", np.zeros((4, 3)), [("error", values)], keep_nan)
    for name in ("a.vtk", "b.vtk"):
        _, arrays = parse(tmp_path / name)
        np.testing.assert_array_equal(arrays["error"][:, 0], values if keep_nan else [0, 0, 0, 1])
    assert np.isnan(values[0])


def test_points(tmp_path):
    positions = np.array([[1, 2, 3], [4, np.nan, 6], [7, 8, 9.5]])
    fields = {"mag(displacements)": np.array([1, 2, 3]), "displacements": np.arange(9.0).reshape(3, 3)}
    write_points_vtk(tmp_path / "a.vtk", positions, fields.items())
    head, arrays = parse(tmp_path / "a.vtk")
    assert head == {"DATASET": "UNSTRUCTURED_GRID", "POINTS": "3 float", "POINT_DATA": "3"}
    np.testing.assert_array_equal(arrays["POINTS"], [[3, 2, 1], [0, 0, 0], [9.5, 8, 7]])
    np.testing.assert_array_equal(arrays["displacements"], [[2, 1, 0], [5, 4, 3], [8, 7, 6]])
    assert np.isnan(positions[1, 1])


def test_wrong_shapes_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match="field error has the shape"):
        write_grid_vtk(tmp_path / "a.vtk", DIMS, (1, 1, 1), (0, 0, 0), [("error", np.zeros(23))])
    with pytest.raises(ValueError, match="field error has the shape"):
        write_points_vtk(tmp_path / "a.vtk", np.zeros((3, 3)), [("error", np.zeros((3, 2)))])
    assert list(tmp_path.iterdir()) == []


def test_missing_directory(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        write_points_vtk(tmp_path / "none" / "a.vtk", np.zeros((3, 3)), [])
