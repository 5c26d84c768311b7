"""Stacks: URIs as silx reads them, slices as numpy takes them, and forms that are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.errors import UserError
from mpidvc.images.stack import SlicedDataset, open_stack, plane_of, split_uri, stack_of

CUBE = np.random.default_rng(3).integers(0, 1000, (2, 6, 7, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stacks")
    with h5py.File(path / "f.h5", "w") as file:
        file["cube"] = CUBE
        file["entry/stack"] = CUBE[0]
        file["a b"] = CUBE[1]
        file["single"] = CUBE[0, 0]
        file["half"] = CUBE[0].astype("f2")
        file["bool"] = CUBE[0] > 500
        file["long"] = CUBE[0].astype("i8")
        file["text"] = "text"
        file["empty"] = np.zeros((0, 4, 4))
        file.create_dataset("chunked", data=CUBE[0], chunks=(4, 3, 2), compression="gzip")
        file.create_dataset("never", (3, 4, 5), "f4")
    tifffile.imwrite(path / "s.tif", CUBE[0])
    tifffile.imwrite(path / "single.tif", CUBE[0, 0])
    (path / "slices").mkdir()
    for k, plane in enumerate(CUBE[0]):
        tifffile.imwrite(path / "slices" / f"{k}.tif", plane)
    (path / "none.txt").write_text("none")
    return path


def planes(stack) -> np.ndarray:
    return np.array([plane_of(stack, k) for k in range(stack.shape[0])])


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("{}/f.h5::/entry/stack", CUBE[0]),
        ("{}/f.h5::entry/stack", CUBE[0]),
        ("silx:{}/f.h5?path=/entry/stack", CUBE[0]),
        ("silx://{}/f.h5?/entry/stack", CUBE[0]),
        ("silx:{}/f.h5?path=/a%20b&slice=1:4", CUBE[1, 1:4]),
        ("{}/f.h5::/a b[::2]", CUBE[1, ::2]),
        ("silx://{}/f.h5?path=/cube&slice=1", CUBE[1]),
        ("silx://{}/f.h5?path=/cube&slice=...,2", CUBE[..., 2]),
        ("silx://{}/f.h5?path=/cube&slice=:,3", CUBE[:, 3]),
        ("silx://{}/f.h5?path=/cube&slice=-1,::-2,1:,:-1", CUBE[-1, ::-2, 1:, :-1]),
        ("silx://{}/f.h5?path=/cube&slice=0,4:1:-1,::-1,::-3", CUBE[0, 4:1:-1, ::-1, ::-3]),
        ("{}/f.h5::/chunked", CUBE[0]),
        ("{}/f.h5::/chunked[5:1:-2]", CUBE[0, 5:1:-2]),
        ("{}/f.h5::/half", CUBE[0].astype("f2")),
        ("{}/f.h5::/bool", CUBE[0] > 500),
        ("{}/f.h5::/bool[1:3]", CUBE[0, 1:3] > 500),
        ("{}/f.h5::/long", CUBE[0]),
        ("{}/s.tif", CUBE[0]),
        ("{}/slices", CUBE[0]),
        ("silx:{}/s.tif", CUBE[0]),
    ],
)
def test_planes(uri: str, expected: np.ndarray, folder: Path) -> None:
    stack = open_stack(uri.format(folder))
    assert stack.shape == expected.shape
    np.testing.assert_array_equal(planes(stack), expected)
    assert {plane_of(stack, k).dtype for k in range(len(expected))} == {stack.dtype}
    # as another rank gets it
    np.testing.assert_array_equal(planes(pickle.loads(pickle.dumps(stack))), expected)


@pytest.mark.parametrize(
    "uri",
    [
        *("f.h5::/a", "./f.h5::/a/b", "/d/f.h5::a", "f.h5?path=/a", "f.h5?/a", "silx:f.h5::/a", "silx:/d/f.h5?path=/a"),
        *("silx:///d/f.h5?path=/a&slice=0:2", "silx://f.h5?path=/a&slice=0:2,...,1", "silx:./f.h5?path=/a&slice=::2"),
        *("f.h5?path=/x%20y&slice=-1", "s.tif", "/d/s.tif", "silx:s.tif"),
    ],
)
def test_uris_as_silx_reads_them(uri: str) -> None:
    url = pytest.importorskip("silx.io.url", reason="silx is not installed").DataUrl(uri)
    file, dataset, index = split_uri(uri)
    assert (file, dataset or None, index or None) == (url.file_path(), url.data_path(), url.data_slice())


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("{}/f.h5", "names no dataset; .* holds /a b, /bool, .*; give "),
        ("{}/f.h5::", "names no dataset; "),
        ("{}/f.h5::/nowhere", "names no dataset; "),
        ("{}/f.h5::/entry[0]", "names no dataset; "),
        ("{}/none.h5::/a", "does not exist; check the path"),
        ("{}/none.tif", "does not exist; check the path"),
        ("{}/none.txt", "is not a TIFF file; "),
        ("{}/none.txt::/a", "cannot be opened as HDF5 "),
        ("silx:?path=/a", "names no file; give "),
        ("silx:{}/f.h5?slice=1", "has a slice, but names no dataset; give "),
        ("{}/f.h5::/single", "is a single image; a stack has three axes"),
        ("{}/single.tif", "is a single image; a stack has three axes"),
        ("{}/f.h5::/cube", r"has 4 dimensions, its shape is \(2, 6, 7, 5\); "),
        ("{}/f.h5::/cube[0,1]", r"slice 0,1: leaves the shape \(7, 5\); a stack has three axes"),
        ("{}/f.h5::/cube[1:1,0]", r"slice 1:1,0: leaves the shape \(0, 7, 5\); "),
        ("{}/f.h5::/cube[2]", r"slice 2: 2 is outside the dataset, whose shape is \(2, 6, 7, 5\)"),
        ("{}/f.h5::/cube[0,0,0,0,0]", "slice 0,0,0,0,0: has more axes than the dataset"),
        ("{}/f.h5::/cube[a]", "slice a: is none; give for instance slice=0:100"),
        ("{}/f.h5::/cube[0:1:0]", "slice 0:1:0: is none; "),
        ("{}/f.h5::/cube[1:2:3:4]", "slice 1:2:3:4: is none; "),
        ("{}/f.h5::/cube[...,...]", "has more than one ellipsis"),
        ("silx:{}/f.h5?paht=/a&slice=1", "has a part 'paht'; a URI has "),
        ("{}/f.h5::/text", "cannot use values of type object; "),
        ("{}/f.h5::/text[0]", "cannot use values of type object; "),
        ("{}/f.h5::/empty", "is empty, "),
        ("{}/f.h5::/never[0:2]", "holds no values, none were ever written; "),
    ],
)
def test_refusals(uri: str, message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message) as told:
        open_stack(uri.format(folder))
    assert str(told.value).startswith("stack ")
    assert "\n" not in str(told.value)


def test_a_file_that_is_damaged_later(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5"
    path.write_bytes((folder / "f.h5").read_bytes())
    stack = SlicedDataset(str(path), "/chunked", (slice(0, 4),))
    with h5py.File(path) as file:
        offset = file["chunked"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged.h5::/chunked: cannot be read \(.*\); copy it again"):
        planes(stack)


def test_values_of_python(folder: Path) -> None:
    uri = f"{folder}/f.h5::/entry/stack"
    assert stack_of(uri, "a") == stack_of(Path(uri), "a") == uri
    with h5py.File(folder / "f.h5") as file:
        assert stack_of(file["entry/stack"], "a") == uri
    for given, expected in [
        (CUBE[0], CUBE[0]),
        (list(CUBE[0]), CUBE[0]),
        (tuple(CUBE[0].astype("f2")), CUBE[0].astype("f2")),
        (CUBE[0].tolist(), CUBE[0]),
        ((plane for plane in CUBE[0]), CUBE[0]),
        (CUBE[0].astype(np.int64), CUBE[0]),
        ([[0, 0, 0], [1, 1, 1]], [[[0, 0, 0]], [[1, 1, 1]]]),
    ]:
        np.testing.assert_array_equal(planes(stack_of(given, "a")), expected)
    mine = CUBE[0].copy()
    stack_of(mine, "a")
    mine[0] = 1
    for given, message in [
        (CUBE[0, 0], "stack a: has 2 dimensions"),
        ([CUBE[0, 0], CUBE[0, 0, :3]], "stack a: is no stack; "),
        (3, "stack a: is no stack; "),
        ([1, 2], "stack a: has 1 dimensions"),
        (CUBE[0].astype(complex), "stack a: cannot use values of type complex128"),
    ]:
        with pytest.raises(UserError, match=message):
            stack_of(given, "a")


def test_urls_of_silx(folder: Path) -> None:
    silx = pytest.importorskip("silx.io.url", reason="silx is not installed")
    url = silx.DataUrl(file_path=f"{folder}/f.h5", data_path="/cube", data_slice=(1, slice(1, 5, 2)))
    np.testing.assert_array_equal(planes(open_stack(stack_of(url, "a"))), CUBE[1, 1:5:2])
