"""Results files as VTK's own reader, and so ParaView, understands them."""

import numpy as np
import pytest

from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.vtk import write_grid_vtk, write_points_vtk

pytest.importorskip("vtkmodules.vtkIOHDF", reason="VTK is not installed (pip install vtk)")

STATUS = {"returnStatus": 2.0, "error": 0.5, "iterations": 7.0}


def read(path):
    """The data set and its point arrays by name."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkCommonCore import vtkCommand
    from vtkmodules.vtkIOHDF import vtkHDFReader

    reader = vtkHDFReader()
    errors = []
    for event in (vtkCommand.ErrorEvent, vtkCommand.WarningEvent):
        reader.AddObserver(event, lambda *what: errors.append(what))
    assert reader.CanReadFile(str(path))
    reader.SetFileName(str(path))
    reader.Update()
    assert not errors
    data = reader.GetOutputDataObject(0)
    points = data.GetPointData()
    arrays = [points.GetArray(k) for k in range(points.GetNumberOfArrays())]
    return data, {array.GetName(): vtk_to_numpy(array) for array in arrays}


def field_at(positions, layout="points", dims=None, spacing=None):
    """Displacement and F that tell position and component; one point with nothing measured."""
    phi = np.tile(np.eye(4), (len(positions), 1, 1))
    phi[:, :3, 3] = np.nan_to_num(positions) * (1, 10, 100)
    phi[:, :3, :3] += np.arange(9).reshape(3, 3) / 100
    phi[-1, :3] = np.nan
    columns = {name: np.full(len(positions), value) for name, value in STATUS.items()}
    columns["error"] = np.arange(len(positions)) / 3
    columns["returnStatus"][-1] = -5
    return PhiField(positions, phi, columns, layout, dims, spacing)


def grid(dims, first, spacing):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in dims], indexing="ij"), -1).reshape(-1, 3)
    return field_at(np.array(first) + index * np.array(spacing), "grid", dims, spacing)


def check(path, field, size=1.0):
    """Positions, arrays and the order of components, for any data set; return it."""
    data, arrays = read(path)
    assert data.GetNumberOfPoints() == len(field)
    points = np.array([data.GetPoint(k) for k in range(len(field))])
    expected = np.where(np.isfinite(field.positions).all(1, keepdims=True), field.positions, 0)[:, ::-1] * size
    np.testing.assert_allclose(points, expected, rtol=1e-12)
    # points that are not shown: VTK has found their marks
    marks = {"vtkGhostType"} if data.IsA("vtkImageData") else set()
    assert set(arrays) == {"displacement", "F", *STATUS, *marks}
    hidden = field["returnStatus"] < 1
    if marks:
        assert [data.IsPointVisible(k) == 0 for k in range(len(field))] == hidden.tolist()
    else:
        ghosts = data.GetCellData().GetGhostArray()
        assert [ghosts.GetTuple1(k) == 32 for k in range(len(field))] == hidden.tolist()
    np.testing.assert_array_equal(arrays["displacement"], field.displacements[:, ::-1] * size)
    # VTK's tensors are row by row, and begin with XX
    np.testing.assert_array_equal(arrays["F"].reshape(-1, 3, 3), field.F[:, ::-1, ::-1])
    np.testing.assert_equal(arrays["F"][0, 1], field.F[0, 2, 1])
    for name, values in field.columns.items():
        np.testing.assert_array_equal(arrays[name], values)
    stored = data.GetFieldData().GetArray("voxel_size")
    assert stored.GetTuple1(0) == size
    from vtkmodules.vtkCommonCore import vtkVersion

    active = data.GetPointData()
    if (vtkVersion.GetVTKMajorVersion(), vtkVersion.GetVTKMinorVersion()) >= (9, 7):
        assert active.GetScalars().GetName() == "returnStatus"
        assert active.GetVectors().GetName() == "displacement"
        assert active.GetTensors().GetName() == "F"
    return data


@pytest.mark.parametrize("size", [1.0, 0.0125])
@pytest.mark.parametrize("dims", [(4, 5, 6), (2, 2, 2), (1, 5, 6), (1, 1, 6), (1, 1, 1)])
def test_grid_is_image_data(tmp_path, dims, size):
    field = grid(dims, (7.0, 8.0, 9.5), (2.0, 3.0, 4.0))
    write_hdf5(tmp_path / "a.h5", field, size, "mm")
    data = check(tmp_path / "a.h5", field, size)
    assert data.GetClassName() == "vtkImageData"
    assert data.GetExtent() == (0, dims[2] - 1, 0, dims[1] - 1, 0, dims[0] - 1)
    np.testing.assert_allclose(data.GetSpacing(), np.array([4.0, 3.0, 2.0]) * size)
    np.testing.assert_allclose(data.GetOrigin(), np.array([9.5, 8.0, 7.0]) * size)


@pytest.mark.parametrize("dims", [(4, 1, 6), (4, 5, 1), (4, 1, 1), (1, 5, 1)])
def test_flat_grid_that_is_no_image_to_vtk_is_points(tmp_path, dims):
    field = grid(dims, (7.0, 8.0, 9.5), (2.0, 3.0, 4.0))
    write_hdf5(tmp_path / "a.h5", field)
    assert check(tmp_path / "a.h5", field).GetClassName() == "vtkPolyData"


@pytest.mark.parametrize("size", [1.0, 25.0])
@pytest.mark.parametrize("layout", ["points", "labels"])
@pytest.mark.parametrize("n", [1, 50])
def test_points_are_poly_data(tmp_path, layout, n, size):
    field = field_at(np.random.default_rng(n).uniform(0, 100, (n, 3)), layout)
    if n > 1:
        field.positions[0] = np.nan  # a label that does not exist
    write_hdf5(tmp_path / "a.h5", field, size)
    data = check(tmp_path / "a.h5", field, size)
    assert data.GetClassName() == "vtkPolyData"
    assert (data.GetNumberOfVerts(), data.GetNumberOfCells()) == (n, n)
    assert [data.GetCell(k).GetPointId(0) for k in range(n)] == list(range(n))


def test_cells_at_hidden_points_are_not_drawn(tmp_path):
    """The cells of a row of hidden nodes disappear from the surface of a single layer."""
    from vtkmodules.vtkFiltersGeometry import vtkGeometryFilter

    field = grid((1, 5, 6), (0.0, 8.0, 9.5), (2.0, 3.0, 4.0))
    for status, hidden in (([2, 1, 1], 1), ([-1, -5, 0], 4)):
        field.columns["returnStatus"][:3] = status
        write_hdf5(tmp_path / "a.h5", field)
        surface = vtkGeometryFilter()
        surface.SetInputData(read(tmp_path / "a.h5")[0])
        surface.Update()
        assert surface.GetOutput().GetNumberOfCells() == 4 * 5 - hidden


@pytest.mark.parametrize("marked", [[], [0], [5, 11, 12]])
def test_hidden_cells_and_points_of_the_legacy_files(tmp_path, marked):
    from vtkmodules.vtkFiltersGeometry import vtkGeometryFilter
    from vtkmodules.vtkIOLegacy import vtkDataSetReader

    def read_legacy():
        reader = vtkDataSetReader()
        reader.SetFileName(str(tmp_path / "a.vtk"))
        reader.ReadAllScalarsOn()
        reader.Update()
        return reader.GetOutput()

    hidden = np.isin(np.arange(20), marked)
    write_grid_vtk(tmp_path / "a.vtk", (1, 4, 5), (0, 2, 2), (0, 0, 0), [("error", np.arange(20.0))], hidden=hidden)
    surface = vtkGeometryFilter()
    surface.SetInputData(read_legacy())
    surface.Update()
    # a layer of cells has two faces, and those at the edge have others besides
    drawn = surface.GetOutput().GetCellData().GetArray("error")
    assert {drawn.GetTuple1(k) for k in range(drawn.GetNumberOfTuples())} == set(range(20)) - set(marked)
    write_points_vtk(
        tmp_path / "a.vtk", np.random.default_rng(1).random((20, 3)), [("error", np.arange(20.0))], hidden=hidden
    )
    ghosts = read_legacy().GetPointData().GetGhostArray()
    assert [ghosts.GetTuple1(k) if ghosts else 0 for k in range(20)] == (2 * hidden).tolist()
