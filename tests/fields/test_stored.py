"""A field that stays in its file: its rows are those of closed forms; files where it cannot are left to others."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.stored import open_stored
from mpidvc.fields.tsv import write_tsv

DIMS = (3, 5, 7)
N = 105


def field_of(dims: tuple[int, int, int] = DIMS, origin: float = 4.0) -> PhiField:
    z, y, x = (axis.ravel() for axis in np.meshgrid(*map(np.arange, dims), indexing="ij"))
    positions = np.stack([origin * (dims[0] > 1) + 2.0 * z, origin + 3.0 * y, origin + 4.0 * x], axis=1)
    phi = np.tile(np.eye(4), (len(z), 1, 1))
    phi[:, :3] = np.arange(12 * len(z)).reshape(-1, 3, 4) ** 1.5
    columns = {"returnStatus": 0.5 * np.arange(len(z)), "error": -np.arange(len(z), dtype=float)}
    return PhiField(positions, phi, columns, "grid", dims, (2.0, 3.0, 4.0))


@pytest.mark.parametrize("ratio", [1.0, 0.5])
@pytest.mark.parametrize("dims", [DIMS, (1, 5, 7), (3, 1, 7), (1, 1, 9)])
def test_rows(tmp_path: Path, dims: tuple[int, int, int], ratio: float) -> None:
    field = field_of(dims)
    n = len(field)
    write_hdf5(tmp_path / "a.h5", field, 0.02, "mm")
    stored = open_stored(str(tmp_path / "a.h5"), ratio)
    assert stored is not None
    stored = pickle.loads(pickle.dumps(stored))
    assert not stored.changed
    assert len(stored) == n
    scaled = field.phi.copy()
    scaled[:, :3, 3] *= ratio
    for start, stop in ((0, n), (2, 5), (n - 1, n)):
        rows = stored.rows(start, stop)
        assert np.array_equal(rows.positions, ratio * field.positions[start:stop])
        assert np.array_equal(rows.phi, scaled[start:stop])
        assert {name: values.tolist() for name, values in rows.columns.items()} == {
            name: values[start:stop].tolist() for name, values in field.columns.items()
        }
        assert np.array_equal(stored.phi(start, stop), scaled[start:stop])
    for which in ([], [3], [0, 1, 2, 8, 7, 6, 3, 4], list(range(n)), [5, 5, 5], [2, 4, 6]):
        assert np.array_equal(stored.phi_at(np.array(which, np.int64)), scaled[np.array(which, np.int64)])
    layout = stored.layout
    assert (layout.dims, layout.spacing) == (dims, (2 * ratio, 3 * ratio, 4 * ratio))
    assert np.array_equal(layout.nodes(np.arange(n)), ratio * field.positions)
    assert [len(axis) for axis in layout.axes] == list(dims)
    stored.close()


def test_read_only(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", field_of())
    (tmp_path / "a.h5").chmod(0o400)
    stored = open_stored(str(tmp_path / "a.h5"))
    assert stored is not None
    with pytest.raises(UserError, match="cannot be written"):
        stored.write("mpidvc/F", 0, np.zeros((1, 9)))


def replace_dataset(path: Path, name: str, **how: object) -> None:
    with h5py.File(path, "r+", locking=False) as file:
        values = file[f"mpidvc/{name}"][()]
        del file[f"mpidvc/{name}"]
        file.create_dataset(f"mpidvc/{name}", data=values, **how)


def test_left_to_others(tmp_path: Path) -> None:
    """Where a range of rows has no place of its own in the file, or the points are on no regular grid."""
    path = tmp_path / "a.h5"
    field = field_of()
    bent = field.positions.copy()
    bent[50] += 0.5
    others = {
        "points": PhiField(field.positions, field.phi),
        "labels": PhiField(field.positions, field.phi, {}, "labels"),
        "registration": PhiField(field.positions[:1], field.phi[:1], {}, "registration"),
        "irregular": PhiField(bent, field.phi, {}, "grid", DIMS, (2.0, 3.0, 4.0)),
    }
    for other in others.values():
        write_hdf5(path, other)
        assert open_stored(str(path)) is None
    for name, how in (
        ("F", {"chunks": True}),
        ("error", {"chunks": True, "compression": "gzip"}),
        ("displacement", {"dtype": "<f4"}),
        ("positions", {"dtype": ">f8"}),
    ):
        write_hdf5(path, field)
        assert open_stored(str(path)) is not None
        replace_dataset(path, name, **how)
        assert open_stored(str(path)) is None
    write_tsv(tmp_path / "a.tsv", field, "LDIC")
    for missing in (tmp_path / "a.tsv", tmp_path / "none.h5", tmp_path):
        assert open_stored(str(missing)) is None


def test_damaged(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", field_of())
    content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"field .*a\.h5: is cut off or damaged"):
        open_stored(str(tmp_path / "a.h5"))


def test_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_hdf5(path, field_of())
    stored = open_stored(str(path))
    assert stored is not None
    stored.refuse_changes()
    held = stored.phi(0, N)
    # as it is, unless a ratio is given
    assert np.array_equal(held, field_of().phi)
    # another file takes the name, as that of any finished run
    write_hdf5(path, field_of(origin=5.0))
    assert stored.changed
    # what is open is what it was
    assert np.array_equal(stored.phi(0, N), held)
    with pytest.raises(UserError, match="was changed while it was read; start again"):
        stored.refuse_changes()
    path.unlink()
    assert stored.changed
    again = pickle.loads(pickle.dumps(stored))
    assert again.changed
    with pytest.raises(UserError, match="cannot be read"):
        again.phi(0, 1)
