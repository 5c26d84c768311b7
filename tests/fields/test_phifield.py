import numpy as np
import pytest

from mpidvc.fields.phifield import PhiField, grid_of


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
