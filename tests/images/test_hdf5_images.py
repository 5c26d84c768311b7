"""HDF5 datasets that are no images, that lead elsewhere, or whose values are not where they seem to be."""

import os
import struct

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from mpidvc.errors import UserError
from mpidvc.images.hdf5 import Hdf5Image
from mpidvc.images.image import open_image
from mpidvc.images.plain import PlainImage
from tests.mutants import trials

SHAPE = (5, 7, 6)
VALUES = np.arange(np.prod(SHAPE), dtype="u2").reshape(SHAPE) + 1


def refused(path, dataset, *words):
    with pytest.raises(UserError) as caught:
        open_image(f"{path}::{dataset}", "mask")
    message = str(caught.value)
    assert message.startswith(f"mask {path}::{dataset}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def everything(path, dataset):
    image = open_image(f"{path}::{dataset}")
    return image.read_box((0, 0, 0), image.shape)[0]


def ends(path, *datasets):
    """How opening and reading ends, in a process that may hang or crash."""
    return list(trials("tests.images.test_mutants:read", [f"{path}::{dataset}" for dataset in datasets], seconds=10))


def add(file, name, type_id, values=None):
    dataset = h5d.create(file.id, name.encode(), type_id, h5s.create_simple(SHAPE))
    if values is not None:
        dataset.write(h5s.ALL, h5s.ALL, values)


TYPES = {
    "string": np.dtype("S3"),
    "variable string": h5py.string_dtype(),
    "compound": np.dtype([("r", "f4"), ("i", "i4")]),
    "array": np.dtype(("f4", (3,))),
    "variable length": h5py.vlen_dtype("f4"),
    "reference": h5py.ref_dtype,
    "complex": np.dtype("c8"),
}


@pytest.mark.parametrize("dtype", TYPES.values(), ids=list(TYPES))
def test_values_that_are_no_grey_levels(tmp_path, dtype):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("volume", SHAPE, dtype)
    refused(tmp_path / "a.h5", "/volume", "cannot use values of type", "convert it")


def test_values_without_a_numpy_type(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        add(file, "time", h5t.UNIX_D32LE)
        three = h5t.STD_I32LE.copy()
        three.set_size(3)
        add(file, "three bytes", three)
        add(file, "opaque", h5t.create(h5t.OPAQUE, 7))
        file["volume"] = VALUES
    refused(path, "/time", "cannot use its type of values", "convert it")
    refused(path, "/three bytes", "cannot use its type of values", "convert it")
    refused(path, "/opaque", "cannot use values of type void56")
    # they are not offered, and do not hide what can be
    refused(path, "/nothing", f"holds /volume; give {path}::/volume")


def test_bits_that_are_elsewhere(tmp_path):
    """12 bits of 16, shifted: the stored bytes are not the values."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for shift in (0, 4):
            twelve = h5t.STD_U16LE.copy()
            twelve.set_precision(12)
            twelve.set_offset(shift)
            add(file, f"by {shift}", twelve, VALUES)
        file.create_dataset("enum", data=VALUES, dtype=h5py.enum_dtype({"air": 0, "stone": 1}, "u2"))
        file["bool"] = VALUES % 3 == 0
    for shift in (0, 4):
        np.testing.assert_array_equal(everything(path, f"by {shift}"), VALUES)
    assert isinstance(open_image(f"{path}::enum"), PlainImage)
    np.testing.assert_array_equal(everything(path, "enum"), VALUES)
    assert isinstance(open_image(f"{path}::bool"), PlainImage)
    np.testing.assert_array_equal(everything(path, "bool"), VALUES % 3 == 0)


def test_nothing_was_written(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("huge", (10**5, 10**5, 10**5), "f4")
        file.create_dataset("huge in chunks", (10**5, 10**5, 10**5), "f4", chunks=(64, 64, 64))
        file.create_dataset("beyond 64 bits", (2**20, 2**20, 2**20), "u1", chunks=(64, 64, 64))
        file.create_dataset("some", (64, 64, 64), "u2", chunks=(16, 16, 16), fillvalue=7)[:16] = 5
        file["beyond 64 bits"][:1, :1, :1] = 1
    refused(path, "huge", "none were ever written")
    refused(path, "huge in chunks", "none were ever written")
    refused(path, "beyond 64 bits", "cannot have the shape")
    np.testing.assert_array_equal(everything(path, "some")[14:18, 0, 0], [5, 5, 7, 7])


def test_links_in_circles_and_to_nothing(tmp_path):
    path = tmp_path / "a.h5"
    (tmp_path / "bad.h5").write_text("no HDF5")
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(path, "w") as file:
        file["entry/volume"] = VALUES
        file["entry/root"] = file["/"]
        file["one"], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink("/one")
        file["inside"] = h5py.SoftLink("/inside/itself")
        file["dangling"] = h5py.SoftLink("/none")
        file["away"] = h5py.ExternalLink("none.h5", "/volume")
        file["group"] = h5py.ExternalLink("none.h5", "/")
        file["bad"] = h5py.ExternalLink("bad.h5", "/volume")
        file["again"] = h5py.ExternalLink("a.h5", "/again")
        file["pipe"] = h5py.ExternalLink("pipe", "/volume")
        file["device"] = h5py.ExternalLink("/dev/zero", "/volume")
    for name in ("one", "inside", "inside/itself", "dangling", "bad", "again"):
        refused(path, name, f"holds /entry/volume; give {path}::/entry/volume")
    refused(path, "away", "leads to none.h5, which does not exist")
    refused(path, "group/volume", "leads to none.h5, which does not exist")
    refused(path, "device", "leads to /dev/zero: is a device")
    np.testing.assert_array_equal(everything(path, "entry/root/entry/root/entry/volume"), VALUES)
    (end,) = ends(path, "pipe")
    assert (end.kind, "is a pipe" in end.text) == ("refused", True)


def virtual(file, name, source, dataset, shape=SHAPE):
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource(source, dataset, shape)
    file.create_virtual_dataset(name, layout, fillvalue=77)


def test_virtual_datasets_without_their_sources(tmp_path):
    path = tmp_path / "a.h5"
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["volume"] = VALUES
        file["small"] = VALUES[:4]
        file["pipe"] = h5py.ExternalLink("pipe", "/volume")
        file.create_dataset("raw", data=VALUES, external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)])
    with h5py.File(path, "w") as file:
        virtual(file, "whole", "b.h5", "volume")
        virtual(file, "of it", ".", "whole")
        virtual(file, "no file", "none.h5", "volume")
        virtual(file, "no dataset", "b.h5", "none")
        virtual(file, "small", "b.h5", "small")
        virtual(file, "by two", ".", "no file")
        virtual(file, "pipe", "pipe", "volume")
        virtual(file, "pipe behind", "b.h5", "pipe")
        virtual(file, "raw", "b.h5", "raw")
        virtual(file, "itself", ".", "itself")
        virtual(file, "one", ".", "other")
        virtual(file, "other", ".", "one")
        planes = h5py.VirtualLayout(SHAPE, "u2")
        for z in range(5):
            planes[z] = h5py.VirtualSource("b.h5", "volume", SHAPE)[4 - z]
        file.create_virtual_dataset("planes", planes)
        planes[4] = h5py.VirtualSource("b.h5", "small", SHAPE)[4]
        file.create_virtual_dataset("planes of a small one", planes)
    np.testing.assert_array_equal(everything(path, "whole"), VALUES)
    np.testing.assert_array_equal(everything(path, "of it"), VALUES)
    np.testing.assert_array_equal(everything(path, "planes"), VALUES[::-1])
    refused(path, "no file", "takes voxels from none.h5, which does not exist")
    refused(path, "by two", "takes voxels from none.h5, which does not exist")
    refused(path, "no dataset", "b.h5::none, which is no dataset")
    for name in ("small", "planes of a small one"):
        refused(path, name, "b.h5::small, which has another shape, (4, 7, 6)")
    np.testing.assert_array_equal(everything(path, "raw"), VALUES)
    (tmp_path / "raw").write_bytes(bytes(VALUES.nbytes - 1))
    refused(path, "raw", "raw, which is truncated")
    for end, words in zip(
        ends(path, "pipe", "pipe behind", "itself", "one", "other"),
        ("is a pipe", "is a pipe", *["takes them from the same dataset"] * 3),
        strict=True,
    ):
        assert (end.kind, words in end.text) == ("refused", True)


def test_virtual_datasets_without_an_end(tmp_path):
    """Blocks of numbered files, and a source that may grow: HDF5 ends the dataset where they end."""
    for i in range(3):
        with h5py.File(tmp_path / f"b{i}.h5", "w") as file:
            file["volume"] = VALUES + 1000 * i
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        sources = h5s.create_simple(SHAPE, (h5s.UNLIMITED, 7, 6))
        all_of_it = h5s.create_simple(SHAPE)
        all_of_it.select_hyperslab((0, 0, 0), (1, 1, 1), block=SHAPE)
        blocks = h5s.create_simple((15, 7, 6), (h5s.UNLIMITED, 7, 6))
        blocks.select_hyperslab((0, 0, 0), (h5s.UNLIMITED, 1, 1), SHAPE, SHAPE)
        sources.select_hyperslab((0, 0, 0), (1, 1, 1), (1, 1, 1), (h5s.UNLIMITED, 7, 6))
        for name, target, source, of in (
            (b"blocks", blocks, b"b%b.h5", all_of_it),
            (b"grows", sources, b"b0.h5", sources),
        ):
            creation = h5p.create(h5p.DATASET_CREATE)
            creation.set_virtual(target, source, b"volume", of)
            h5d.create(file.id, name, h5t.STD_U16LE, target, creation)
    expected = np.concatenate([VALUES + 1000 * i for i in range(3)])
    np.testing.assert_array_equal(everything(tmp_path / "a.h5", "blocks"), expected)
    np.testing.assert_array_equal(everything(tmp_path / "a.h5", "grows"), VALUES)
    (tmp_path / "b1.h5").unlink()
    np.testing.assert_array_equal(everything(tmp_path / "a.h5", "blocks"), VALUES)


def test_values_in_another_file(tmp_path):
    path, raw = tmp_path / "a.h5", tmp_path / "raw"
    with h5py.File(path, "w") as file:
        file.create_dataset("volume", data=VALUES, external=[(str(raw), 16, h5f_unlimited := h5py.h5f.UNLIMITED)])
        halves = [(str(raw), 16, 200), (str(tmp_path / "rest"), 0, h5f_unlimited)]
        file.create_dataset("halves", data=VALUES, external=halves)
    np.testing.assert_array_equal(everything(path, "volume"), VALUES)
    np.testing.assert_array_equal(everything(path, "halves"), VALUES)
    content = raw.read_bytes()
    raw.write_bytes(content[:-2])
    refused(path, "volume", f"takes its values from {raw}, which is truncated")
    np.testing.assert_array_equal(everything(path, "halves"), VALUES)
    (tmp_path / "rest").unlink()
    refused(path, "halves", f"takes its values from {tmp_path / 'rest'}, which does not exist")
    raw.unlink()
    os.mkfifo(raw)
    (end,) = ends(path, "volume")
    assert (end.kind, "is a pipe" in end.text) == ("refused", True)


def test_chunks_that_are_nowhere(tmp_path):
    """HDF5 2.0 crashes the process where it meets a chunk of no bytes."""
    path = tmp_path / "a.h5"
    values = np.random.default_rng(2).integers(0, 99, (6, 40, 37)).astype("u2")
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("volume", data=values, chunks=(2, 16, 16), compression="gzip", fletcher32=True)
        place = dataset.id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    (entry,) = [at for at in range(0, len(content) - 8, 8) if content[at : at + 8] == struct.pack("<Q", place)]
    assert isinstance(open_image(f"{path}::volume"), Hdf5Image)
    names = []
    for start, end, value in ((0, 8, b"\0"), (-40, 8, b"\0"), (5, 6, b"\7")):
        damaged = content.copy()
        damaged[entry + start : entry + end] = value * (end - start)
        damaged_path = tmp_path / f"{len(names)}.h5"
        damaged_path.write_bytes(damaged)
        names.append(f"{damaged_path}::volume")
    for result in trials("tests.images.test_mutants:read", names):
        assert (result.kind, "is damaged" in result.text) == ("refused", True), result


def test_contiguous_values_beyond_the_end(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["volume"] = VALUES
        place = file["volume"].id.get_offset()
    content = path.read_bytes()
    changed = content.replace(struct.pack("<Q", place), struct.pack("<Q", len(content) - VALUES.nbytes + 2))
    assert changed != content
    path.write_bytes(changed)
    refused(path, "volume")


def test_names_that_are_no_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"a\xff.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset(b"v\xe9", data=VALUES)
        file.create_dataset(b"w\xe9", data=VALUES, chunks=True)
        file.create_group("g")[b"x\ny"] = VALUES
    np.testing.assert_array_equal(everything(path, "v\udce9"), VALUES)
    np.testing.assert_array_equal(everything(path, "w\udce9"), VALUES)
    # no word that would break the line
    for name in ("none", "n\udcff"):
        refused(path, name, "names no dataset", "holds no dataset of 2 or 3 dimensions")
