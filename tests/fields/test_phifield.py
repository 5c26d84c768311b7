import numpy as np
import pytest

from mpidvc.core.statuses import CORRELATION, SEARCH
from mpidvc.fields.phifield import PHI, POSITIONS, PhiField, grid_of
from mpidvc.fields.tsv import write_tsv


def nodes(z, y, x):
    return np.stack(np.meshgrid(z, y, x, indexing="ij"), -1).reshape(-1, 3).astype(float)


def test_grid():
    field = PhiField.from_positions(nodes([15, 25], [10, 30, 50], [7.5, 12, 16.5, 21]))
    assert field.layout == "grid"
    assert field.dims == (2, 3, 4)
    assert field.spacing == (10, 20, 4.5)
    assert len(field) == 24
    np.testing.assert_array_equal(field.phi, np.broadcast_to(np.eye(4), (24, 4, 4)))


@pytest.mark.parametrize(("z", "step"), [(0, 1), (0.5, 1), (15, 15)])
def test_spacing_of_a_single_layer(z, step):
    assert grid_of(nodes([z], [10, 20], [10, 20])) == ((1, 2, 2), (step, 10, 10))


def test_what_is_no_grid_is_points():
    grid = nodes([1, 2], [1, 2], [1, 2])
    moved = grid.copy()
    moved[3, 1] = np.nan
    for positions in (grid[:-1], grid[::-1], grid[:, ::-1], grid[[0, 0, 1, 2, 3, 4, 5, 6]], moved, np.zeros((0, 3))):
        field = PhiField.from_positions(positions)
        assert field.layout == "points"
        assert field.dims is None
        assert field.spacing is None


def test_views():
    field = PhiField.from_positions(nodes([1], [1, 2], [1, 2, 3]))
    field.displacements[2] = (1, 2, 3)
    field.F[4, 0, 1] = 0.5
    assert field.phi[2, :3, 3].tolist() == [1, 2, 3]
    assert field.phi[4, 0, 1] == 0.5
    assert field.displacements.shape == (6, 3)
    assert field.F.shape == (6, 3, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"positions": np.zeros((2, 2)), "phi": np.zeros((2, 4, 4))},
        {"positions": np.zeros((2, 3)), "phi": np.zeros((3, 4, 4))},
        {"positions": np.zeros((2, 3)), "phi": np.zeros((2, 4, 4)), "columns": {"error": np.zeros(3)}},
        {"positions": np.zeros((2, 3)), "phi": np.zeros((2, 4, 4)), "layout": "grid"},
        {"positions": np.zeros((2, 3)), "phi": np.zeros((2, 4, 4)), "dims": (1, 1, 2), "spacing": (1, 1, 1)},
        {
            "positions": np.zeros((2, 3)),
            "phi": np.zeros((2, 4, 4)),
            "layout": "grid",
            "dims": (1, 1, 3),
            "spacing": (1.0, 1.0, 1.0),
        },
    ],
)
def test_shapes_have_to_fit(arguments):
    with pytest.raises(ValueError, match=r"shape|\(n, 3\)|grid"):
        PhiField(**arguments)


# ------------------------------------------------------------------------------------------------------- arrays by name


def marked(layout="grid"):
    """24 nodes; every number of Phi is another: that of the node and, after the point, the place in Phi."""
    field = PhiField.from_positions(nodes([15, 25], [10, 30, 50], [7.5, 12, 16.5, 21]))
    i = np.arange(24)[:, None, None]
    field.phi[:, :3] = i + np.arange(12).reshape(3, 4) / 100
    field.columns = {"returnStatus": np.full(24, 2.0), "error": np.arange(24) / 7}
    return field if layout == "grid" else PhiField(field.positions, field.phi, field.columns, layout)


def test_arrays_by_the_names_of_the_text_files(tmp_path):
    # the text file and its header are the oracle: numpy reads it, and it is tested against spam's elsewhere
    field = marked()
    write_tsv(tmp_path / "a.tsv", field, "LDIC")
    table = np.genfromtxt(tmp_path / "a.tsv", names=True)
    for name in field.names:
        np.testing.assert_allclose(field[name], table[name], atol=1e-6, err_msg=name)
    assert field.names == (*POSITIONS, *PHI, "returnStatus", "error")
    assert set(table.dtype.names) - set(field.names) == {"NodeNumber", "iterations", "deltaPhiNorm"}
    assert "Zdisp" in field
    assert "error" in field
    assert "pixelSearchCC" not in field
    assert 3 not in field
    with pytest.raises(KeyError, match=r"no array 'Zdips'; there are Zpos, .*Xdisp, returnStatus, error"):
        field["Zdips"]
    with pytest.raises(TypeError):
        iter(field)


def test_arrays_by_name_are_views():
    field = marked()
    field["Ydisp"][3] = -1
    field["Fzx"][4] = -2
    field["Xpos"][5] = -3
    field["error"][6] = -4
    assert field.phi[3, 1, 3] == -1
    assert field.phi[4, 0, 2] == -2
    assert field.positions[5, 2] == -3
    assert field.columns["error"][6] == -4


def test_grid_shape():
    field = marked()
    assert field.grid("Zdisp").shape == (2, 3, 4)
    for z, y, x in np.ndindex(2, 3, 4):
        here = (field.positions == [[15, 25][z], [10, 30, 50][y], [7.5, 12, 16.5, 21][x]]).all(axis=1)
        assert field.grid("Zdisp")[z, y, x] == field["Zdisp"][here][0]
        np.testing.assert_array_equal(field.grid(field.F)[z, y, x], field.F[here][0])
    assert field.grid(field.displacements).shape == (2, 3, 4, 3)
    assert field.grid(field.good).dtype == bool
    with pytest.raises(ValueError, match="not one value for each of the 24 nodes"):
        field.grid(np.zeros((25, 3)))
    with pytest.raises(ValueError, match="not one value for each of the 24 nodes"):
        field.grid(1.0)
    with pytest.raises(ValueError, match="'points' has no grid shape"):
        marked("points").grid("Zdisp")
    with pytest.raises(KeyError, match="no array 'Z'"):
        field.grid("Z")


# ------------------------------------------------------------------------------------------ which points can be trusted

VALUES = [2, 1, 0, -1, -2, -3, -4, -5, -7, -6, np.nan, 2, 1]


def with_statuses(*more):
    """A point for each of `VALUES`; the last two have no displacement."""
    n = len(VALUES)
    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[-2:, 1, 3] = np.nan
    columns = {"returnStatus": np.array(VALUES), **{name: np.zeros(n) for name in more}}
    return PhiField(np.arange(3.0 * n).reshape(n, 3), phi, columns)


@pytest.mark.parametrize(
    ("family", "good"),
    [
        ((), [0]),
        (("error", "iterations", "deltaPhiNorm", "zncc"), [0]),
        # a discrete correlation of spam (PSCC is read as pixelSearchCC)
        (("pixelSearchCC", "LabelDilate"), [0]),
        (("pixelSearchCC",), [0, 1]),
    ],
)
def test_good_points(family, good):
    field = with_statuses(*family)
    assert np.flatnonzero(field.good).tolist() == good
    assert field.good.dtype == bool


def test_good_points_of_a_field_without_statuses_have_a_finite_phi():
    field = with_statuses()
    del field.columns["returnStatus"]
    field.positions[4, 0] = np.inf
    assert np.flatnonzero(~field.good).tolist() == [4, 11, 12]
    assert field.statuses == {}


def test_statuses_by_name():
    field = with_statuses()
    assert {name: np.flatnonzero(mask).tolist() for name, mask in field.statuses.items()} == {
        "converged": [0, 11],
        "not converged": [1, 12],
        "not computed": [2],
        "diverged": [3],
        "singular system": [4],
        "volume change": [5],
        "singular Phi": [6],
        "skipped": [7],
        "no guess": [8],
        "status -6": [9],
        "status nan": [10],
    }
    names = list(with_statuses("pixelSearchCC").statuses)
    assert names[:2] == ["converged", "found"]
    assert "not converged" not in names
    field.columns["returnStatus"][:] = 2
    assert list(field.statuses)[-1] == "no guess"
    assert not field.statuses["no guess"].any()


@pytest.mark.parametrize("statuses", [CORRELATION, SEARCH])
def test_statuses_have_short_names_of_their_own(statuses):
    names = [status.name for status in statuses.values()]
    assert len(set(names)) == len(names)
    assert all(len(name.split()) <= 2 for name in names)
    # of the contract with spam; -6 is never set
    assert set(CORRELATION) == {2, 1, 0, -1, -2, -3, -4, -5, -7}
    assert set(SEARCH) == {1, -5, -7}


def test_repr():
    assert repr(marked()) == (
        "<PhiField: grid of 2 × 3 × 4 nodes, 10 × 20 × 4.5 voxels apart; 24 good; columns: returnStatus, error>"
    )
    assert repr(marked("labels")) == "<PhiField: 24 labels; 24 good; columns: returnStatus, error>"
    one = PhiField(np.zeros((1, 3)), np.eye(4)[None], {"returnStatus": np.array([1.0])}, "registration")
    assert repr(one) == "<PhiField: registration; 0 good; columns: returnStatus>"
    assert repr(PhiField(np.zeros((0, 3)), np.zeros((0, 4, 4)))) == "<PhiField: 0 points; 0 good; columns: none>"
