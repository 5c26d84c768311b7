"""Every storage gives, for every box, what numpy slicing of the padded array gives."""

import pickle

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.images.hdf5 import Hdf5Image
from mpidvc.images.image import ArrayImage, open_image
from mpidvc.images.plain import PlainImage
from mpidvc.images.slices import SliceImage
from mpidvc.images.tiff import SegmentedTiff

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "b1"]
SHAPE = (5, 7, 6)
BOXES = [
    ((0, 0, 0), SHAPE),
    ((1, 2, 3), (4, 6, 5)),
    ((2, 0, 1), (3, 7, 2)),
    ((-2, -1, -3), (3, 9, 4)),
    ((3, 4, 5), (9, 9, 9)),
    ((-4, -4, -4), (12, 12, 12)),
    ((-9, 0, 0), (-3, 7, 6)),
    ((0, 20, 0), (5, 25, 6)),
    ((7, 9, 8), (9, 12, 11)),
    ((2, 2, 2), (2, 5, 5)),
]


def values(dtype, shape=SHAPE, seed=0):
    random = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return random.random(shape) > 0.5
    if dtype.kind == "f":
        return random.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype=dtype.newbyteorder("="), endpoint=True).astype(dtype)


def check(image, array):
    """All boxes of an image against an array, before and after pickling."""
    expected = array.reshape((1, *array.shape)) if array.ndim == 2 else array
    expected = expected.astype(np.uint8 if expected.dtype.kind == "b" else expected.dtype.newbyteorder("="))
    assert image.shape == expected.shape
    assert image.dtype == expected.dtype
    assert image.dtype.isnative
    assert image.two_d == (expected.shape[0] == 1)
    ways = [image]
    if not isinstance(image, ArrayImage):
        # kept values: of one segment or chunk, of everything
        ways += [image.mapped(), image.boxed(0), image.mapped().boxed()]
    for source in [*ways, *(pickle.loads(pickle.dumps(way)) for way in ways)]:
        for low, high in BOXES:
            part, inside = source.read_box(low, high)
            assert part.dtype == expected.dtype
            assert part.dtype.isnative
            margin = 20
            padded = np.pad(expected.astype("f8"), margin, constant_values=-7.5)
            window = tuple(slice(a + margin, b + margin) for a, b in zip(low, high, strict=True))
            box = np.full([b - a for a, b in zip(low, high, strict=True)], -7.5)
            box[inside] = part
            np.testing.assert_array_equal(box, padded[window])


def write_multipage(path, array, **options):
    with tifffile.TiffWriter(path, byteorder=options.pop("byteorder", "<")) as tif:
        for plane in array:
            tif.write(plane, contiguous=False, metadata=None, photometric="minisblack", **options)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
class TestTiff:
    def test_contiguous(self, tmp_path, dtype, order):
        array = values(dtype)
        tifffile.imwrite(tmp_path / "a.tif", array, byteorder=order, photometric="minisblack")
        image = open_image(tmp_path / "a.tif")
        assert isinstance(image, SegmentedTiff if dtype == "b1" else PlainImage)
        check(image, array)

    def test_page_by_page(self, tmp_path, dtype, order):
        array = values(dtype)
        write_multipage(tmp_path / "a.tif", array, byteorder=order)
        image = open_image(str(tmp_path / "a.tif"))
        if dtype != "b1":
            assert isinstance(image, PlainImage)
            assert len(image.offsets) == len(array)
        check(image, array)

    def test_compressed(self, tmp_path, dtype, order):
        array = values(dtype)
        tifffile.imwrite(tmp_path / "a.tif", array, byteorder=order, compression="zlib", photometric="minisblack")
        image = open_image(tmp_path / "a.tif")
        assert isinstance(image, SegmentedTiff)
        check(image, array)

    def test_slices(self, tmp_path, dtype, order):
        array = values(dtype)
        for i, plane in enumerate(array):
            name = f"s{i}.tiff" if i % 2 else f"s{i}.tif"
            tifffile.imwrite(tmp_path / name, plane, byteorder=order, compression="zlib" if i == 3 else None)
        (tmp_path / "notes.txt").write_text("not a slice")
        image = open_image(f"{tmp_path}/")
        assert isinstance(image, SliceImage)
        check(image, array)

    def test_two_d(self, tmp_path, dtype, order):
        array = values(dtype, (7, 6))
        for name, shape in {"yx": (7, 6), "1yx": (1, 7, 6)}.items():
            tifffile.imwrite(tmp_path / name, array.reshape(shape), byteorder=order, photometric="minisblack")
            check(open_image(tmp_path / name), array)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("storage", ["contiguous", "chunked", "gzip"])
@pytest.mark.parametrize("shape", [SHAPE, (7, 6), (1, 7, 6), (1, *SHAPE), (5, 1, 7, 6)])
def test_hdf5(tmp_path, dtype, order, storage, shape):
    array = values(np.dtype(dtype).newbyteorder(order), shape)
    options = {"contiguous": {}, "chunked": {"chunks": True}, "gzip": {"compression": "gzip"}}[storage]
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file.create_dataset("entry/volume", data=array, **options)
    path = f"{tmp_path}/a.h5::/entry/volume"
    image = open_image(path)
    assert isinstance(image, PlainImage if storage == "contiguous" else Hdf5Image)
    assert image.path == path
    check(image, array.reshape([n for n in shape if n > 1]))


def test_hdf5_links_and_virtual_datasets(tmp_path):
    array = values("u2")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volume"] = array
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource(str(tmp_path / "a.h5"), "volume", SHAPE)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["linked"] = h5py.ExternalLink(str(tmp_path / "a.h5"), "volume")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("apart", data=array, external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)])
    check(open_image(f"{tmp_path}/b.h5::linked"), array)
    check(open_image(f"{tmp_path}/b.h5::/virtual"), array)
    check(open_image(f"{tmp_path}/b.h5::/apart"), array)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, array: tifffile.imwrite(path, array, imagej=True, metadata={"axes": "ZYX"}),
        lambda path, array: tifffile.imwrite(path, array, imagej=True, metadata={"axes": "TYX"}),
        lambda path, array: tifffile.imwrite(path, array, ome=True, metadata={"axes": "ZYX"}),
        lambda path, array: tifffile.imwrite(path, array, ome=True, metadata={"axes": "TYX"}),
        lambda path, array: tifffile.imwrite(path, array, bigtiff=True),
        lambda path, array: tifffile.imwrite(path, array, metadata=None, photometric="minisblack"),
        lambda path, array: tifffile.imwrite(path, array, rowsperstrip=2, photometric="minisblack"),
        lambda path, array: tifffile.imwrite(path, array, tile=(16, 16), photometric="minisblack"),
        lambda path, array: tifffile.imwrite(path, array, photometric="miniswhite"),
        lambda path, array: tifffile.imwrite(path, array, compression="zlib", predictor=True),
        lambda path, array: write_multipage(path, array, rowsperstrip=2),
        lambda path, array: write_multipage(path, array, extratags=[(65000, 2, 4, "odd", True)]),
    ],
)
def test_tiff_flavours(tmp_path, write):
    array = values("u2")
    write(tmp_path / "a.tif", array)
    check(open_image(tmp_path / "a.tif"), array)


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {"imagej": True, "compression": "zlib"}])
@pytest.mark.parametrize("shape", [(9, 7, 6), (80, 80, 80)])
def test_planes_that_are_called_channels(tmp_path, options, shape):
    """What tifffile writes where axes are not named."""
    array = values("u2", shape)
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.series[0].axes == "CYX"
    image = open_image(tmp_path / "a.tif")
    assert image.shape == shape
    np.testing.assert_array_equal(image.read_box((0, 0, 0), shape)[0], array)


def test_imagej_above_4_gb_layout(tmp_path):
    """ImageJ describes the first plane only; the others follow it without directories of their own."""
    array = values("u2")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array[0], description="ImageJ=1.53\nimages=5\nslices=5\n", metadata=None)
    path.write_bytes(path.read_bytes() + array[1:].tobytes())
    check(open_image(path), array)


def test_mapped_boxes_are_views_and_pickles_hold_no_data(tmp_path):
    array = values("f4", (40, 50, 60))
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    image = open_image(tmp_path / "a.tif").mapped()
    first, _ = image.read_box((0, 0, 0), (10, 10, 10))
    second, _ = image.read_box((0, 0, 0), (10, 10, 10))
    assert np.shares_memory(first, second)
    assert not first.flags.writeable
    assert len(pickle.dumps(image)) < 2000


def test_tiles_without_values(tmp_path):
    """GDAL leaves out tiles without values: they have neither position nor length."""
    array = values("u2", (40, 50))
    array[16:32, 32:48] = 0
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, tile=(16, 16), compression="zlib", metadata=None)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        places = [tif.pages[0].tags[tag].valueoffset for tag in (324, 325)]
        sizes = [{3: 2, 4: 4}[int(tif.pages[0].tags[tag].dtype)] for tag in (324, 325)]
    for place, size in zip(places, sizes, strict=True):
        content[place + 6 * size : place + 7 * size] = bytes(size)
    path.write_bytes(content)
    check(open_image(path), array)


@pytest.mark.parametrize("x", [(0, 3000), (5, 6), (100, 400), (0, 2500), (2990, 3000)])
def test_wide_and_narrow_boxes_of_long_rows(tmp_path, x):
    """Whole rows, rows with what lies between, and row by row; the last voxel ends the file."""
    array = values("f4", (3, 9, 3000))
    path = tmp_path / "a.raw"
    path.write_bytes(b"head" + array.tobytes())
    for offsets in ([4], 4 + array[0].nbytes * np.arange(3)):
        image = PlainImage(str(path), array.shape, array.dtype, offsets)
        part, _ = image.read_box((1, 4, x[0]), (3, 9, x[1]))
        np.testing.assert_array_equal(part, array[1:, 4:, slice(*x)])


def test_what_is_decoded_is_kept_up_to_a_number_of_bytes(tmp_path):
    array = values("u2", (8, 40, 50))
    tifffile.imwrite(tmp_path / "a.tif", array, compression="zlib", rowsperstrip=10, photometric="minisblack")
    image = open_image(tmp_path / "a.tif").boxed(3 * 1000)
    assert image.grain == (1, 10, 50)
    image.read_box((0, 0, 0), (8, 40, 50))
    *_, decoded = image._opened
    assert sum(piece.nbytes for piece in decoded._pieces.values()) == 3000
    image.read_box((7, 12, 0), (8, 18, 5))
    image.read_box((2, 3, 0), (3, 4, 50))
    assert list(decoded._pieces) == [(7, 3), (7, 1), (2, 0)]


def test_more_slices_than_open_files(tmp_path):
    import resource

    array = values("u1", (300, 4, 5))
    for i, plane in enumerate(array):
        tifffile.imwrite(tmp_path / f"{i:03d}.tif", plane)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (250, limits[1]))
    try:
        for image in (open_image(tmp_path), open_image(tmp_path).mapped()):
            for _ in range(2):
                part, _ = image.read_box((0, 0, 0), (300, 4, 5))
                np.testing.assert_array_equal(part, array)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_array_image():
    for dtype in DTYPES:
        check(ArrayImage(values(dtype)), values(dtype))
        check(ArrayImage(values(np.dtype(dtype).newbyteorder(">"))), values(dtype))
    check(ArrayImage(values("u2", (7, 6))), values("u2", (7, 6)))
    check(ArrayImage(values("u2")[::-1, :, ::-1]), values("u2")[::-1, :, ::-1])
    assert ArrayImage(values("u2")).path == "<array>"
