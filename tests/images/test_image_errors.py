"""What cannot be used is refused by one line that names it and says what to do."""

import os
import pickle
import re
import socket
import struct
import subprocess
import sys

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.errors import UserError
from mpidvc.images.image import ArrayImage, open_image
from tests.mutants import tiff_fields, trials

VOLUME = np.arange(20 * 16 * 12, dtype="u2").reshape(20, 16, 12)


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        open_image(path, "mask")
    message = str(caught.value)
    assert "\n" not in message
    assert str(path).split("::")[0] in message
    for word in ("mask", *words):
        assert word in message
    return message


def test_missing(tmp_path):
    refused(tmp_path / "none.tif", "does not exist")


@pytest.mark.parametrize(
    "content", [b"", b"II", b"just some text, not an image", b"II*\0", b"\x89PNG\r\n\x1a\n" + bytes(64)]
)
def test_not_a_tiff(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    refused(tmp_path / "a.tif", "not a TIFF")


def test_no_image_in_it(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0\0\0\0\0")
    refused(tmp_path / "a.tif", "holds no image")


@pytest.mark.parametrize("name", ["", "a" * 300, "a/" * 3000, "a\0b"])
def test_paths_that_lead_nowhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite(tmp_path / "slice.tif", VOLUME[0])
    for path in (name, f"{name}::/volume"):
        with pytest.raises(UserError, match=r"does not exist|cannot be opened"):
            open_image(path)


def test_pipes_and_devices(tmp_path):
    """Reading from them would wait for a writer, or never end."""
    (tmp_path / "slices").mkdir()
    for name in ("pipe", "pipe.h5", "slices/1.tif"):
        os.mkfifo(tmp_path / name)
    for name in ("0", "2"):
        tifffile.imwrite(tmp_path / f"slices/{name}.tif", VOLUME[0])
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        pipe = tmp_path / "pipe"
        paths = [pipe, f"{pipe}::/volume", tmp_path / "pipe.h5", tmp_path / "slices", "/dev/zero", "/dev/zero::/volume"]
        paths += ["/dev/stdin", tmp_path / "socket"]
        for end in trials("tests.images.test_mutants:read", paths):
            assert end.kind == "refused"
            assert re.search(r": is a (pipe|device|socket); give a file$", end.text)


def test_a_directory_is_no_slice(tmp_path):
    (tmp_path / "1.tif").mkdir()
    refused(tmp_path, "1.tif: is a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME)
    (tmp_path / "a.tif").chmod(0)
    refused(tmp_path / "a.tif", "permissions")


def write_pages(path):
    with tifffile.TiffWriter(path) as tif:
        for plane in VOLUME:
            tif.write(plane, contiguous=False, metadata=None)


WRITERS = {
    "shaped": lambda path: tifffile.imwrite(path, VOLUME),
    "bare": lambda path: tifffile.imwrite(path, VOLUME, metadata=None),
    "big-endian": lambda path: tifffile.imwrite(path, VOLUME, byteorder=">"),
    "bigtiff": lambda path: tifffile.imwrite(path, VOLUME, bigtiff=True),
    "imagej": lambda path: tifffile.imwrite(path, VOLUME, imagej=True, metadata={"axes": "ZYX"}),
    "ome": lambda path: tifffile.imwrite(path, VOLUME, ome=True, metadata={"axes": "ZYX"}),
    "pages": write_pages,
    "compressed": lambda path: tifffile.imwrite(path, VOLUME, compression="zlib"),
    "single": lambda path: tifffile.imwrite(path, VOLUME[0]),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kept", [0.1, 0.3, 0.6, 0.9])
def test_truncated(tmp_path, capfd, writer, kept):
    path = tmp_path / "a.tif"
    WRITERS[writer](path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refused(path, "truncated")
    assert capfd.readouterr() == ("", "")


def test_truncated_above_4_gb_layout(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOLUME[0], description="ImageJ=1.53\nimages=20\nslices=20\n", metadata=None)
    path.write_bytes(path.read_bytes() + VOLUME[1:-1].tobytes())
    refused(path, "truncated")


def test_directories_in_a_circle(tmp_path):
    """tifffile goes round and round, or gives fewer planes."""
    path = tmp_path / "a.tif"
    write_pages(path)
    with tifffile.TiffFile(path) as tif:
        first, last = tif.pages[0].offset, tif.pages[-1].offset
    content = bytearray(path.read_bytes())
    (entries,) = struct.unpack_from("<H", content, last)
    for target in (first, last):
        struct.pack_into("<I", content, last + 2 + 12 * entries, target)
        path.write_bytes(content)
        (end,) = trials("tests.images.test_mutants:read", [path])
        assert end.kind == "refused"
        assert "circle" in end.text


@pytest.mark.parametrize("tag", [273, 279])
@pytest.mark.parametrize("value", [-40, 0])
def test_strips_that_are_nowhere(tmp_path, tag, value):
    """Without a length they would be read as zeros."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOLUME[0], compression="zlib", rowsperstrip=4, metadata=None)
    content = bytearray(path.read_bytes())
    (field,) = (field for field in tiff_fields(content) if field.name == f"type of tag {tag}")
    (count,) = struct.unpack_from("<I", content, field.offset + 2)
    (place,) = struct.unpack_from("<I", content, field.offset + 6)
    content[field.offset] = 9
    place = place if count > 1 else field.offset + 6
    struct.pack_into(f"<{count}i", content, place, *[value] * count)
    path.write_bytes(content)
    refused(path, "strips or tiles are nowhere")


def test_planes_in_files_that_are_missing(tmp_path):
    """tifffile takes zeros for them."""
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, VOLUME[:5], ome=True, metadata={"axes": "ZYX"}, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        text = tif.ome_metadata
    more = (
        '<TiffData IFD="0" FirstZ="5" PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:0</UUID></TiffData></Pixels>'
    )
    text = text.replace('SizeZ="5"', 'SizeZ="6"').replace("</Pixels>", more)
    with tifffile.TiffWriter(path) as tif:
        for z, plane in enumerate(VOLUME[:5]):
            tif.write(plane, description=text if z == 0 else None, metadata=None, compression="zlib", contiguous=False)
    refused(path, "planes in other files, which are missing")


def test_colours(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 12, 3), "u1"), photometric="rgb")
    refused(tmp_path / "a.tif", "3 samples per pixel", "grey")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 16, 12), "u1"), photometric="rgb", planarconfig="separate")
    refused(tmp_path / "a.tif", "3 samples per pixel", "grey")


def test_channels(tmp_path):
    for shape, axes, words in (
        ((2, 16, 12), "CYX", "2 channels"),
        ((8, 16, 12), "CYX", "8 channels"),
        ((20, 2, 16, 12), "ZCYX", "2 channels"),
        ((5, 12, 16, 12), "ZCYX", "12 channels"),
        ((2, 20, 16, 12), "TZYX", "2 time steps"),
        ((9, 9, 16, 12), "TCYX", "9 channels"),
    ):
        for kind in ("imagej", "ome"):
            tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, "u1"), metadata={"axes": axes}, **{kind: True})
            refused(tmp_path / "a.tif", words, "in a file of its own")


def test_dimensions(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 5, 16, 12), "u1"), photometric="minisblack")
    refused(tmp_path / "a.tif", "4 dimensions", "(2, 5, 16, 12)")


def test_pages_of_different_shape(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for plane in (VOLUME[0], VOLUME[1], VOLUME[2, 1:]):
            tif.write(plane, contiguous=False, metadata=None)
    refused(tmp_path / "a.tif", "2 images of different shape")


def test_thumbnail_is_no_obstacle(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(VOLUME[0], metadata=None)
        tif.write(VOLUME[0, ::4, ::4], subfiletype=1, metadata=None)
    assert open_image(tmp_path / "a.tif").shape == (1, 16, 12)


@pytest.mark.parametrize("dtype", ["c8", "f2"])
def test_dtypes(tmp_path, dtype):
    array = np.zeros((2, 16, 12), dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    refused(tmp_path / "a.tif", array.dtype.name, "convert")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volume"] = array
    refused(f"{tmp_path}/a.h5::volume", array.dtype.name, "convert")
    with pytest.raises(UserError, match=array.dtype.name):
        ArrayImage(array)


def test_arrays():
    with pytest.raises(UserError, match="is empty"):
        ArrayImage(np.zeros((0, 3, 3)))
    with pytest.raises(UserError, match="1 dimensions"):
        ArrayImage(np.zeros(3))


def test_directories(tmp_path):
    refused(tmp_path, "no *.tif")
    tifffile.imwrite(tmp_path / "a.tif", VOLUME[0])
    tifffile.imwrite(tmp_path / "b.tif", VOLUME[1, :-1])
    refused(tmp_path, "b.tif", "(15, 12)", "(16, 12)", "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", VOLUME[1].astype("f4"))
    refused(tmp_path, "b.tif", "float32", "uint16")
    tifffile.imwrite(tmp_path / "b.tif", VOLUME)
    refused(tmp_path, "b.tif", "20 planes")
    (tmp_path / "b.tif").write_bytes(b"nothing of this kind")
    refused(tmp_path, "b.tif", "not a TIFF")


def test_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    refused(f"{path}::/volume", "does not exist")
    path.write_bytes(b"nothing of this kind")
    refused(f"{path}::/volume", "cannot be opened as HDF5")
    with h5py.File(path, "w") as file:
        file["name"] = "no image"
    refused(f"{path}::/volume", "holds no dataset")
    with h5py.File(path, "w") as file:
        file["entry/volume"] = VOLUME
        file["empty"] = np.zeros((0, 3, 3))
        file["none"] = h5py.Empty("f4")
        file["list"] = np.zeros(3)
        file["many"] = np.zeros((2, 2, 3, 3))
    for spec in (f"{path}::/volume", f"{path}::/entry", f"{path}::", f"{path}::/", str(path)):
        refused(spec, "/entry/volume", "give")
    refused(f"{path}::/empty", "is empty")
    refused(f"{path}::/none", "is empty")
    refused(f"{path}::/list", "1 dimensions")
    refused(f"{path}::/many", "4 dimensions")
    content = path.read_bytes()
    path.write_bytes(content[:4000])
    refused(f"{path}::/entry/volume", "cannot be opened as HDF5")


def test_compression_without_imagecodecs(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, compression="lzw")
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from mpidvc.images.image import open_image\n"
        "from mpidvc.errors import UserError\n"
        "try: open_image(sys.argv[1])\n"
        "except UserError as error: print(error)\n"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "a.tif")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == (f"image {tmp_path}/a.tif: its compression needs imagecodecs; run: pip install imagecodecs\n")


def test_damaged_compressed_values(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        first, last = (tif.pages[i].dataoffsets[0] for i in (0, -1))
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[last : last + 40] = bytes(40)
    (tmp_path / "a.tif").write_bytes(content)
    image = open_image(tmp_path / "a.tif")
    image.read_box((0, 0, 0), (1, 1, 1))
    with pytest.raises(UserError, match="cannot be decoded"):
        image.read_box((19, 0, 0), (20, 1, 1))
    content[first : first + 40] = bytes(40)
    (tmp_path / "a.tif").write_bytes(content)
    refused(tmp_path / "a.tif", "cannot be decoded")


def test_workers_import_neither_tifffile_nor_h5py(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME)
    code = (
        "import pickle, subprocess, sys\n"
        "import mpidvc.images.image, mpidvc.fields.tsv, mpidvc.fields.vtk, mpidvc.fields.tiff\n"
        "image = pickle.loads(bytes.fromhex(sys.stdin.read()))\n"
        "assert image.read_box((0, 0, 0), (1, 1, 1))[0].shape == (1, 1, 1)\n"
        "print(sorted({'tifffile', 'h5py', 'scipy'} & set(sys.modules)))\n"
    )
    text = pickle.dumps(open_image(tmp_path / "a.tif")).hex()
    done = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _write_hdf5(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("volume", data=VOLUME, **options)


STORED = {
    "plain": lambda path: tifffile.imwrite(path, VOLUME, photometric="minisblack"),
    "zlib": lambda path: tifffile.imwrite(path, VOLUME, compression="zlib", photometric="minisblack"),
    "tiles": lambda path: tifffile.imwrite(path, VOLUME, tile=(16, 16), photometric="minisblack"),
    "hdf5": lambda path: _write_hdf5(path),
    "gzip": lambda path: _write_hdf5(path, chunks=(4, 4, 4), compression="gzip"),
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("opened", [False, True])
def test_a_file_that_is_cut_during_the_run(tmp_path, stored, opened):
    path = tmp_path / "a"
    STORED[stored](path)
    name = str(path)
    if "hdf5" in stored or "gzip" in stored:
        path = path.rename(tmp_path / "a.h5")
        name = f"{path}::/volume"
    image = open_image(name).boxed(0)
    if opened:
        image.read_box((0, 0, 0), (1, 2, 2))
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(UserError, match=str(path)) as caught:
        image.read_box((0, 0, 0), VOLUME.shape)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("maps", [False, True])
def test_a_file_that_vanishes_before_it_is_read(tmp_path, stored, maps):
    path = tmp_path / "a"
    STORED[stored](path)
    name = str(path)
    if "hdf5" in stored or "gzip" in stored:
        path = path.rename(tmp_path / "a.h5")
        name = f"{path}::/volume"
    image = open_image(name)
    image = image.mapped() if maps else image.boxed()
    path.unlink()
    with pytest.raises(UserError, match=str(path)):
        image.read_box((0, 0, 0), VOLUME.shape)
