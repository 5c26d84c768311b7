"""Results files: every bit comes back, every byte is determined, and what is not one is refused by one line."""

import hashlib
import json
import math
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from mpidvc.errors import UserError
from mpidvc.fields import hdf5
from mpidvc.fields.hdf5 import (
    FieldLayout,
    ResultsFile,
    columns_of,
    create_results_file,
    dataset_rows,
    read_hdf5,
    record_rows,
    write_hdf5,
)
from mpidvc.fields.phifield import PhiField
from tests.waiting import LONGEST

COLUMNS = ("error", "iterations", "returnStatus", "deltaPhiNorm", "ZNCC")
#: Bits that arithmetic or text would lose.
ODD = np.array([0x7FF8000000000123, 0xFFF8000000000001, 0x8000000000000000, 1, 0x7FF0000000000000], np.uint64).view(
    "f8"
)


def example(dims=(3, 4, 5), layout="grid", seed=0):
    random = np.random.default_rng(seed)
    nodes = np.stack(np.meshgrid(*[7 + 10.0 * np.arange(n) for n in dims], indexing="ij"), -1).reshape(-1, 3)
    phi = np.tile(np.eye(4), (len(nodes), 1, 1))
    phi[:, :3] = random.normal(size=(len(nodes), 3, 4)) * 10.0 ** random.integers(-300, 300, (len(nodes), 3, 4))
    columns = {name: random.normal(size=len(nodes)) for name in COLUMNS}
    phi[0, :3].flat[: len(ODD)] = ODD
    phi[-1, :3, 3] = ODD[:3]
    columns["error"][0] = ODD[0]
    if layout == "grid":
        return PhiField(nodes, phi, columns, "grid", dims, (10.0, 10.0, 10.0))
    nodes = nodes + random.normal(size=nodes.shape)
    nodes[0] = np.nan
    return PhiField(nodes, phi, columns, layout)


def assert_same(back, field):
    assert back.positions.tobytes() == field.positions.tobytes()
    assert back.phi.tobytes() == field.phi.tobytes()
    assert list(back.columns) == list(field.columns)
    for name, values in field.columns.items():
        assert back.columns[name].tobytes() == np.asarray(values, np.float64).tobytes(), name
    assert (back.layout, back.dims, back.spacing) == (field.layout, field.dims, field.spacing)


SHAPES = [(3, 4, 5), (1, 4, 5), (1, 1, 5), (1, 5, 1), (5, 1, 1), (3, 1, 4), (3, 4, 1), (1, 1, 1)]


@pytest.mark.parametrize("voxel_size", [1.0, 0.0137])
@pytest.mark.parametrize("dims", SHAPES)
def test_grids_come_back_bit_by_bit(tmp_path, dims, voxel_size):
    field = example(dims)
    write_hdf5(tmp_path / "a.h5", field, voxel_size, "mm")
    assert_same(read_hdf5(tmp_path / "a.h5"), field)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("voxel_size", [1.0, 13.7])
@pytest.mark.parametrize(("layout", "n"), [("labels", 60), ("points", 60), ("points", 1), ("registration", 1)])
def test_points_come_back_bit_by_bit(tmp_path, layout, n, voxel_size):
    field = example((1, 1, n), layout)
    write_hdf5(tmp_path / "a.h5", field, voxel_size)
    assert_same(read_hdf5(tmp_path / "a.h5"), field)


@pytest.mark.parametrize("voxel_size", [1.0, 13.7])
@pytest.mark.parametrize(("layout", "first"), [("grid", 0), ("points", 0), ("grid", 1)])
def test_rows_of_records_are_those_of_their_points(layout, first, voxel_size):
    field = example(layout=layout)
    table = np.concatenate([field.phi[:, :3].reshape(-1, 12), np.stack(list(field.columns.values()), 1)], axis=1)
    # a record may begin with other numbers than Phi
    table = np.concatenate([np.full((len(field), first), 7.0), table], axis=1)
    places = np.random.default_rng(1).permutation(len(field))
    shuffled = np.empty_like(table)
    shuffled[places] = table
    made = FieldLayout.of(field, voxel_size)
    expected = dataset_rows(made, field.positions, field.phi, field.columns)
    found = record_rows(made, field.positions, shuffled, places, first)
    assert list(found) == list(expected)
    for name, rows in expected.items():
        assert (found[name].dtype, found[name].shape) == (rows.dtype, rows.shape) == (made.dtype(name), rows.shape)
        assert found[name].tobytes() == rows.tobytes(), name
    columns = columns_of(made, expected)
    assert set(columns) == set(field.names)
    for name, values in columns.items():
        assert values.tobytes() == np.asarray(field[name], np.float64).tobytes(), name
        assert any(np.shares_memory(values, rows) for rows in expected.values())


def test_grid_of_uneven_steps_is_points_to_paraview_and_a_grid_to_us(tmp_path):
    field = example()
    field.positions[:, 2] **= 1.5
    write_hdf5(tmp_path / "a.h5", field)
    assert_same(read_hdf5(tmp_path / "a.h5"), field)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["VTKHDF"].attrs["Type"] == b"PolyData"


def test_bin_ratio_scales_positions_and_displacements(tmp_path):
    field = example()
    field.phi[:] = np.nan_to_num(field.phi, posinf=1)
    write_hdf5(tmp_path / "a.h5", field)
    back = read_hdf5(tmp_path / "a.h5", 2.0)
    np.testing.assert_array_equal(back.positions, 2 * field.positions)
    np.testing.assert_array_equal(back.displacements, 2 * field.displacements)
    np.testing.assert_array_equal(back.F, field.F)
    assert (back.dims, back.spacing) == (field.dims, (20.0, 20.0, 20.0))


def test_what_is_where(tmp_path):
    """The file as its documentation describes it, read with nothing but h5py."""
    field = example()
    write_hdf5(
        tmp_path / "a.h5", field, 0.5, "µm", {"command": "ldic", "settings": '{"hws": [1, 2, 3]}' + " " * 200_000}
    )
    node = (1, 2, 3)
    row = np.ravel_multi_index(node, field.dims)
    with h5py.File(tmp_path / "a.h5") as file:
        own, shown = file["mpidvc"], file["VTKHDF/PointData"]
        assert own["displacement"].shape == (3, 4, 5, 3)
        np.testing.assert_array_equal(own["positions"][node], field.positions[row])
        np.testing.assert_array_equal(own["displacement"][node], field.displacements[row, ::-1])
        np.testing.assert_array_equal(own["F"][node].reshape(3, 3), field.F[row, ::-1, ::-1])
        assert own["error"][node] == field.columns["error"][row]
        np.testing.assert_array_equal(shown["displacement"][node], 0.5 * field.displacements[row, ::-1])
        for name in ("F", *COLUMNS):
            assert shown[name] == own[name]
        assert own["displacement"].attrs["components"] == "X, Y, Z in voxels"
        assert (own.attrs["command"], own.attrs["unit"], own.attrs["voxel_size"]) == ("ldic", "µm", 0.5)
        assert own.attrs["settings"].strip() == '{"hws": [1, 2, 3]}'
    with ResultsFile(tmp_path / "a.h5") as file:
        assert file.layout.attributes["command"] == "ldic"
        assert FieldLayout.of(field, 0.5, "µm", file.layout.attributes) == file.layout


def test_any_range_of_rows_can_be_read(tmp_path):
    field = example()
    write_hdf5(tmp_path / "a.h5", field)
    with ResultsFile(tmp_path / "a.h5") as file:
        for start in range(60):
            for stop in range(start + 1, 61):
                rows = file.rows(start, stop)
                assert rows.positions.tobytes() == field.positions[start:stop].tobytes()
                assert rows.phi.tobytes() == field.phi[start:stop].tobytes()
                assert rows.columns["ZNCC"].tobytes() == field.columns["ZNCC"][start:stop].tobytes()


def test_repacked_file_is_read(tmp_path):
    """Somebody compressed it: no dataset is contiguous any more."""
    field = example()
    write_hdf5(tmp_path / "a.h5", field)
    with h5py.File(tmp_path / "a.h5") as old, h5py.File(tmp_path / "b.h5", "w") as new:
        group = new.create_group("mpidvc")
        group.attrs.update(old["mpidvc"].attrs)
        for name, dataset in old["mpidvc"].items():
            group.create_dataset(name, data=dataset[()], compression="gzip")
    assert_same(read_hdf5(tmp_path / "b.h5"), field)


PROGRAM = """
import sys
from pathlib import Path
from tests.fields.test_hdf5 import example
from mpidvc.fields.hdf5 import write_hdf5
for layout in ("grid", "labels"):
    write_hdf5(f"{sys.argv[1]}-{layout}.h5", example(layout=layout), 0.25, "mm", {"long": "x" * 70000})
"""


def test_bytes_are_determined(tmp_path, environment):
    """Two processes whose fresh memory is full of other garbage."""
    for poison in ("85", "170"):
        subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path / poison],
            env=environment | {"MALLOC_PERTURB_": poison},
            check=True,
            timeout=LONGEST,
        )
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    assert len(sums) == 4
    for layout in ("grid", "labels"):
        assert sums[f"85-{layout}.h5"] == sums[f"170-{layout}.h5"]


def test_space_is_reserved_and_zero(tmp_path):
    told = FieldLayout(10**5, columns=COLUMNS)
    slots = create_results_file(tmp_path / "a.h5", told)
    status = (tmp_path / "a.h5").stat()
    assert status.st_blocks * 512 >= status.st_size > 10**5 * 8 * (3 + 3 + 9 + 3 + len(COLUMNS))
    with h5py.File(tmp_path / "a.h5") as file:
        for name, slot in slots.items():
            assert file[name].id.get_offset() == slot.offset
            assert (file[name].dtype, file[name].shape) == (slot.dtype, (10**5, *slot.row_shape))
            assert not file[name][()].any()


FULL = """
import resource, sys
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import FieldLayout, create_results_file
resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
try:
    create_results_file(sys.argv[1], FieldLayout(10**6), "mine.h5")
except UserError as error:
    print(error)
"""


def test_no_space(tmp_path, environment):
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "a.h5"],
        env=environment,
        check=True,
        timeout=LONGEST,
        capture_output=True,
        text=True,
    )
    need = 10**6 * (8 * (3 + 3 + 9 + 3 + 2) + 1)
    assert done.stdout.startswith("mine.h5: the ")
    assert need <= int(done.stdout.split()[2]) < need * 1.01
    assert "make room" in done.stdout
    assert not list(tmp_path.iterdir())


def test_existing_file_is_replaced_not_written_through(tmp_path):
    (tmp_path / "other").write_text("mine")
    (tmp_path / "a.h5").symlink_to(tmp_path / "other")
    create_results_file(tmp_path / "a.h5", FieldLayout(1))
    assert (tmp_path / "other").read_text() == "mine"


@pytest.mark.parametrize(
    "bad", [{"n": 0}, {"n": 5, "layout": "grid"}, {"n": 5, "dims": (1, 1, 5)}, {"voxel_size": 0.0}]
)
def test_contradictions(bad):
    with pytest.raises(ValueError):  # noqa: PT011
        FieldLayout(**{"n": 1, **bad})


@pytest.mark.parametrize("name", ["", ".", "a/b", "F", "positions", "displacement", "journal"])
def test_names_that_no_column_can_have(name):
    with pytest.raises(ValueError, match="column"):
        FieldLayout(1, columns=(name,))
    with pytest.raises(ValueError, match="twice"):
        FieldLayout(1, columns=("a", "a"))
    with pytest.raises(ValueError, match="own"):
        FieldLayout(1, attributes={"dims": "1"})


def replace(group, name, **options):
    del group[name]
    group.create_dataset(name, **options)


def huge(own, **options):
    """2**40 points of which none is stored: a few hundred bytes of file, 8 TiB of memory."""
    shape = (2**10, 2**10, 2**20)
    own.attrs["dims"] = np.array(shape)
    own.attrs["n_points"] = 2**40
    for name, row in {**hdf5.OWN, **dict.fromkeys(COLUMNS, ())}.items():
        chunks = {"chunks": options["chunks"] + row} if options else {}
        replace(own, name, shape=shape + row, dtype="<f8", **chunks)


def damaged(path, kind):
    """A file that is not what it should be, in one of many ways."""
    write_hdf5(path, example())
    whole = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("NodeNumber\n1\n")
    elif kind == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "directory":
        path.unlink()
        path.mkdir()
    else:
        with h5py.File(path, "r+") as file:
            own = file["mpidvc"]
            if kind == "foreign":
                del file["mpidvc"]
            elif kind == "later":
                own.attrs["format"] = "mpidvc results 2"
            elif kind == "unfinished":
                own.create_group("journal")
            elif kind == "dataset":
                del own["F"]
            elif kind == "column":
                del own["error"]
            elif kind == "shape":
                del own["F"]
                own["F"] = np.zeros((60, 9))
            elif kind == "group":
                del own["F"]
                own.create_group("F")
            elif kind == "attribute":
                del own.attrs["n_points"]
            elif kind == "list":
                own.attrs["columns"] = "[error"
            elif kind == "dims":
                own.attrs["dims"] = np.array([3, 4, 6])
            elif kind == "dims of numbers that are no integers":
                own.attrs["dims"] = np.array([3.0, 4.0, 5.0])
            elif kind == "dims below 0":
                own.attrs["dims"] = np.array([-3, -4, 5])
            elif kind == "dims of two axes":
                own.attrs["dims"] = np.array([12, 5])
            elif kind == "spacing nan":
                own.attrs["spacing"] = np.array([np.nan, 2.0, 4.5])
            elif kind == "spacing 0":
                own.attrs["spacing"] = np.array([10.0, 0.0, 4.5])
            elif kind == "spacing of two axes":
                own.attrs["spacing"] = np.array([10.0, 2.0])
            elif kind == "spacing of text":
                own.attrs["spacing"] = "10 2 4.5"
            elif kind == "no spacing":
                del own.attrs["spacing"]
            elif kind == "layout":
                own.attrs["layout"] = "gird"
            elif kind == "registration of many":
                own.attrs["layout"] = "registration"
                for name in ("dims", "spacing", "origin"):
                    del own.attrs[name]
            elif kind == "names":
                own.attrs["columns"] = json.dumps({"error": 1})
            elif kind == "names that are numbers":
                own.attrs["columns"] = "[1, 2]"
            elif kind == "strings":
                replace(own, "F", data=np.full((3, 4, 5, 9), b"1.0"))
            elif kind == "complex":
                replace(own, "error", data=np.full((3, 4, 5), 1j))
            elif kind == "never written":
                replace(own, "error", shape=(3, 4, 5), dtype="<f8", chunks=(3, 4, 5))
            elif kind == "huge":
                huge(own, chunks=(1, 1, 2**20))
            elif kind == "huge, contiguous":
                huge(own)
            elif kind == "compact, but missing":
                replace(own, "error", data=h5py.Empty("<f8"))
            elif kind == "loop":
                del own["F"]
                own["F"] = h5py.SoftLink("/mpidvc/F")
            elif kind == "loop of groups":
                del file["mpidvc"]
                file["mpidvc"] = h5py.SoftLink("/mpidvc")
            elif kind == "other file":
                del own["F"]
                own["F"] = h5py.ExternalLink("/dev/zero", "/F")
            elif kind == "external":
                replace(own, "error", shape=(3, 4, 5), dtype="<f8", external=[("/dev/zero", 0, 480)])
            elif kind == "virtual":
                source = h5py.VirtualSource(str(path), "/mpidvc/iterations", shape=(3, 4, 5))
                layout = h5py.VirtualLayout(shape=(3, 4, 5), dtype="<f8")
                layout[...] = source
                del own["error"]
                own.create_virtual_dataset("error", layout)
            else:
                raise AssertionError(kind)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "does not exist"),
        ("empty", "is no results file"),
        ("text", "is no results file"),
        ("cut", "is cut off or damaged"),
        ("directory", "is no results file"),
        ("foreign", "no results file of mpidvc"),
        ("later", "'mpidvc results 2'"),
        ("unfinished", "--resume"),
        ("dataset", "damaged"),
        ("column", "damaged"),
        ("shape", "damaged"),
        ("group", "damaged"),
        ("attribute", "damaged"),
        ("list", "damaged"),
        ("dims", "damaged"),
        ("dims of numbers that are no integers", "dims are no three numbers"),
        ("dims below 0", "dims are not above 0"),
        ("dims of two axes", "dims are no three numbers"),
        ("spacing nan", "spacing are not above 0"),
        ("spacing 0", "spacing are not above 0"),
        ("spacing of two axes", "spacing are no three numbers"),
        ("spacing of text", "spacing are no three numbers"),
        ("no spacing", "dims, spacing and origin"),
        ("layout", "'gird'"),
        ("registration of many", "60 points cannot have the layout 'registration'"),
        ("names", "no list of names"),
        ("names that are numbers", "no list of names"),
        ("strings", "F has the shape .* numbers"),
        ("complex", "error has the shape .* numbers"),
        ("never written", "error has no data"),
        ("huge", "has no data"),
        ("huge, contiguous", "has no data|damaged"),
        ("compact, but missing", "error has the shape"),
        ("loop", "F is no dataset"),
        ("loop of groups", "damaged|no results file"),
        ("other file", "F is no dataset"),
        ("external", "error has no data"),
        ("virtual", "error has no data"),
    ],
)
def test_refused(tmp_path, kind, says):
    path = damaged(tmp_path / "a.h5", kind)
    with pytest.raises(UserError, match=says) as caught:
        read_hdf5(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if path.is_file():
        # nothing keeps it open
        with h5py.File(path, "r+") if kind not in ("empty", "text", "cut") else path.open("r+"):
            pass


def test_what_another_program_has_packed_is_read(tmp_path):
    field = example()
    write_hdf5(tmp_path / "a.h5", field)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        own = file["mpidvc"]
        for name in ("positions", "F", "error"):
            replace(own, name, data=own[name][()], chunks=(2, 2, 2, *own[name].shape[3:]), compression="gzip")
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        values = own["iterations"][()]
        del own["iterations"]
        space = h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(own.id, b"iterations", h5py.h5t.IEEE_F64LE, space, compact).write(space, space, values)
    assert_same(read_hdf5(tmp_path / "a.h5"), field)


def test_a_pipe_is_no_results_file_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.h5")
    assert not hdf5.is_hdf5(tmp_path / "a.h5")
    with pytest.raises(UserError, match="is no results file"):
        read_hdf5(tmp_path / "a.h5")


def test_signature_tells_hdf5(tmp_path):
    write_hdf5(tmp_path / "a.tsv", example())
    (tmp_path / "b.h5").write_text("text")
    assert hdf5.is_hdf5(tmp_path / "a.tsv")
    assert not hdf5.is_hdf5(tmp_path / "b.tsv")
    assert not hdf5.is_hdf5(tmp_path / "missing.h5")
    assert not hdf5.is_hdf5(tmp_path)
    assert math.prod(example().dims) == 60


def test_directory_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be"):
        write_hdf5(tmp_path / "none" / "a.h5", example())


def test_light_import():
    """Formatting text on all ranks must not load HDF5 before it is read."""
    program = "import sys, mpidvc.fields.hdf5; assert 'h5py' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=LONGEST, env=os.environ)


@pytest.mark.parametrize("dims", [(1, 1, 1), (1, 3, 50), (4, 5, 6), (2, 1, 7)])
def test_nodes_of_ranges_of_rows(dims: tuple[int, int, int]) -> None:
    """Of parts of a line, of whole lines, and from one plane to the next: those of an array of all."""
    layout = FieldLayout.of_grid(np.array([0.5, 2.0, 3.0]), dims, (4, 5, 7), ())
    z, y, x = np.meshgrid(
        *(o + s * np.arange(n) for o, s, n in zip((0.5, 2, 3), (4, 5, 7), dims, strict=True)), indexing="ij"
    )
    nodes = np.stack([z, y, x], axis=-1).reshape(-1, 3)
    for start in range(len(nodes) + 1):
        for stop in range(start, len(nodes) + 1):
            np.testing.assert_array_equal(layout.nodes_between(start, stop), nodes[start:stop])
    np.testing.assert_array_equal(layout.nodes(np.arange(len(nodes))[::-1]), nodes[::-1])
