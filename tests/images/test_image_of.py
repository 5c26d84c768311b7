"""Paths, arrays and images are one to the reader; an array reaches other processes by name."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.errors import UserError
from mpidvc.images.image import ArrayImage, image_of, open_image, shared_image
from mpidvc.images.plain import PlainImage

#: Larger than a page, with no two equal planes.
VALUES = np.random.default_rng(5).integers(0, 60000, (7, 31, 45)).astype("u2")

#: Reads pickled images from standard input, and prints their voxels' sum and the last voxel.
READER = """\
import pickle, sys
from mpidvc.errors import UserError
for image in pickle.loads(bytes.fromhex(sys.stdin.read())):
    try:
        part, _ = image.read_box((0, 0, 0), image.shape)
        print(part.dtype.name, part.astype("f8").sum(), part[-1, -1, -1])
    except UserError as error:
        print(error)
"""


def everything(image):
    return image.read_box((0, 0, 0), image.shape)[0]


def read_elsewhere(*images):
    """What another process reads from these images."""
    text = pickle.dumps(images).hex()
    done = subprocess.run([sys.executable, "-c", READER], input=text, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def told(array):
    return f"{array.dtype.name} {array.astype('f8').sum()} {array.reshape(-1)[-1]}"


def test_an_image_stays_itself(tmp_path):
    image = ArrayImage(VALUES)
    assert open_image(image) is image
    assert image_of(image, "im1") is image


def test_paths_are_opened(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VALUES)
    for path in (tmp_path / "a.tif", str(tmp_path / "a.tif")):
        np.testing.assert_array_equal(everything(image_of(path, "im1")), VALUES)
    with pytest.raises(UserError, match=r"im1 .*none\.tif: does not exist"):
        image_of(tmp_path / "none.tif", "im1")


@pytest.mark.parametrize(
    "array",
    [
        VALUES,
        VALUES.astype(">u2"),
        VALUES.T,
        VALUES[::-1, ::2, 3:],
        VALUES[0],
        VALUES[:1],
        np.asfortranarray(VALUES),
        VALUES[:, :, 4] > 9,
    ],
)
def test_arrays_are_kept_without_a_copy(array):
    image = image_of(array, "im1")
    assert isinstance(image, ArrayImage)
    assert np.shares_memory(image.array, array)
    assert image.path == "im1"
    np.testing.assert_array_equal(everything(image).reshape(array.shape), array)
    assert not everything(image).flags.writeable or not np.shares_memory(everything(image), array)
    assert array.flags.writeable


def test_what_is_no_image():
    for value in (None, 3.5, [[1, 2], [3, 4]], "", b"a.tif"):
        with pytest.raises(UserError):
            image_of(value, "im1")
    with pytest.raises(UserError, match="im1: is a list; give a path"):
        image_of([[1, 2]], "im1")
    with pytest.raises(UserError, match="im1: is a masked array"):
        image_of(np.ma.masked_equal(VALUES, 3), "im1")
    with pytest.raises(UserError, match="im1: cannot use values of type object"):
        image_of(np.array([[None]]), "im1")


@pytest.mark.parametrize("order", ["<", ">"])
def test_memory_maps_are_read_from_their_files(tmp_path, order):
    path = tmp_path / "a.raw"
    array = VALUES.astype(f"{order}u2")
    path.write_bytes(b"head." + array.tobytes())
    whole = np.memmap(path, array.dtype, "r", offset=5, shape=array.shape)
    for part, expected in ((whole, VALUES), (whole[2:6], VALUES[2:6]), (whole[3], VALUES[3:4])):
        image = image_of(part, "im1")
        assert isinstance(image, PlainImage)
        assert image.files == [str(path)]
        assert image.path == "im1"
        np.testing.assert_array_equal(everything(image), expected)
        np.testing.assert_array_equal(everything(image.mapped()), expected)
        assert read_elsewhere(image, image.mapped()) == [told(expected)] * 2
        assert len(pickle.dumps(image)) < 1000
    np.save(tmp_path / "a.npy", array)
    image = image_of(np.load(tmp_path / "a.npy", mmap_mode="r+"), "im1")
    assert isinstance(image, PlainImage)
    np.testing.assert_array_equal(everything(image), VALUES)


def test_memory_maps_that_are_not_their_files(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(VALUES.tobytes())
    whole = np.memmap(path, "u2", "r", shape=VALUES.shape)
    fortran = np.memmap(path, "u2", "r", shape=VALUES.shape, order="F")
    changed = np.memmap(path, "u2", "c", shape=VALUES.shape)
    changed[0, 0, 0] += 1
    for array in (whole[:, 1:], whole[::-1], fortran, whole + 1, changed):
        image = image_of(array, "im1")
        assert isinstance(image, ArrayImage)
        np.testing.assert_array_equal(everything(image), array)
    # a private copy may differ anywhere
    large = np.zeros(10**6, "u1")
    path.write_bytes(large.tobytes())
    private = np.memmap(path, "u1", "c", shape=(10, 100, 1000))
    private.reshape(-1)[10000] = 1
    assert everything(image_of(private, "im1")).sum() == 1
    path.write_bytes(VALUES.tobytes())
    # another file takes its name; the map shows the one before
    (tmp_path / "b.raw").write_bytes((VALUES + 1).tobytes())
    (tmp_path / "b.raw").replace(path)
    np.testing.assert_array_equal(everything(image_of(whole, "im1")), VALUES)
    path.write_bytes(b"short")
    np.testing.assert_array_equal(everything(image_of(whole, "im1")), VALUES)
    path.unlink()
    np.testing.assert_array_equal(everything(image_of(whole, "im1")), VALUES)


def memory_files():
    """Descriptors and maps of this process that hold shared arrays."""
    links = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    return [text for text in [*links, *Path("/proc/self/maps").read_text().splitlines()] if "mpidvc-array" in text]


@pytest.mark.parametrize("array", [VALUES, VALUES.astype(">f4"), VALUES[::-1, :, ::3], VALUES[2], VALUES > 30000])
def test_a_shared_image_has_the_same_voxels_in_other_processes(array):
    expected = array.astype("u1") if array.dtype.kind == "b" else array.astype(array.dtype.newbyteorder("="))
    with shared_image(ArrayImage(array, "im1")) as image:
        assert isinstance(image, PlainImage)
        assert image.file.startswith(f"/proc/{os.getpid()}/fd/")
        assert len(pickle.dumps(image)) < 1000
        np.testing.assert_array_equal(everything(image).reshape(array.shape), expected)
        assert read_elsewhere(image, image.mapped()) == [told(expected)] * 2


def test_a_shared_image_leaves_nothing_behind():
    with shared_image(ArrayImage(VALUES, "im1")) as image:
        view = everything(image.mapped())
        everything(image)
        assert len(memory_files()) >= 2
    np.testing.assert_array_equal(view, VALUES)
    del view
    assert memory_files() == []
    (line,) = read_elsewhere(image)
    assert "cannot be opened any more" in line
    with pytest.raises(RuntimeError, match="own"), shared_image(ArrayImage(VALUES, "im1")):
        raise RuntimeError("own")
    assert memory_files() == []


def test_another_file_under_the_name_of_a_shared_image(tmp_path):
    with shared_image(ArrayImage(VALUES, "im1")) as image:
        pass
    path = tmp_path / "other"
    path.write_bytes(bytes(VALUES.nbytes))
    fd = os.open(path, os.O_RDONLY)
    wanted = int(image.file.rpartition("/")[2])
    try:
        if fd != wanted:
            os.dup2(fd, wanted)
        for way in (image.boxed(), image.mapped()):
            with pytest.raises(UserError, match="another file"):
                everything(way)
    finally:
        for used in {fd, wanted}:
            os.close(used)


def test_more_memory_than_there_is(monkeypatch):
    def full(fd, offset, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(UserError, match="im1: its 19530 bytes cannot be shared"),
        shared_image(ArrayImage(VALUES, "im1")),
    ):
        pass
    assert memory_files() == []
