"""A damaged image is read, or refused by one line: no other exception, no crash, no wait, no memory beyond reason."""

from collections import Counter

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.images.image import open_image
from tests.mutants import COUNT, hdf5_fields, mutants, tiff_fields, trials

VOLUME = np.random.default_rng(3).integers(900, 1100, (6, 40, 37)).astype("u2")

#: Voxels of a mutant that are read as a whole; of larger ones, boxes are read.
MOST_VOXELS = 2**24


def read(path):
    """Open an image and read all of it, or corners and middle of a large one, in all ways; the sum of the voxels."""
    image = open_image(f"{path}::/entry/volume" if path.endswith(".h5") else path)
    boxes = [((0, 0, 0), image.shape)]
    if np.prod(image.shape, dtype=float) > MOST_VOXELS:
        starts = [(0, 0, 0), [n - 8 for n in image.shape], [n // 2 for n in image.shape]]
        boxes = [(start, [a + 8 for a in start]) for start in starts]
    total = 0.0
    for way in (image.boxed(), image.mapped()):
        for low, high in boxes:
            part, _ = way.read_box(low, high)
            assert part.dtype == image.dtype
            total += float(part.sum(dtype="f8"))
        way.close()
    return total


def _tiff(path, **options):
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as tif:
        for plane in VOLUME:
            tif.write(plane, contiguous=False, metadata=None, photometric="minisblack", **options)


def _hdf5(path, libver=None, **options):
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("entry/volume", data=VOLUME, **options)


GZIP = {"chunks": (2, 16, 16), "compression": "gzip"}
KINDS = {
    "one piece": ("tif", lambda path: tifffile.imwrite(path, VOLUME, photometric="minisblack")),
    "pages": ("tif", _tiff),
    "BigTIFF": ("tif", lambda path: _tiff(path, bigtiff=True)),
    "ImageJ": ("tif", lambda path: tifffile.imwrite(path, VOLUME, imagej=True, metadata={"axes": "ZYX"})),
    "OME": ("tif", lambda path: tifffile.imwrite(path, VOLUME, ome=True, metadata={"axes": "ZYX"})),
    "tiles": ("tif", lambda path: _tiff(path, tile=(16, 16))),
    "deflate": ("tif", lambda path: _tiff(path, compression="zlib", rowsperstrip=16)),
    "deflated tiles": ("tif", lambda path: _tiff(path, compression="zlib", tile=(16, 16), predictor=True)),
    "LZW": ("tif", lambda path: _tiff(path, compression="lzw")),
    "HDF5": ("h5", _hdf5),
    "HDF5, gzip": ("h5", lambda path: _hdf5(path, **GZIP)),
    "HDF5, gzip, checksums": ("h5", lambda path: _hdf5(path, fletcher32=True, **GZIP)),
    "HDF5, latest": ("h5", lambda path: _hdf5(path, "latest", **GZIP)),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """For each kind, what was done to the mutants and how they ended; the first one is whole. One process for all."""
    folder = tmp_path_factory.mktemp("mutants")
    paths, damages = [], []
    for seed, (suffix, write) in enumerate(KINDS.values()):
        whole = folder / f"{seed}.{suffix}"
        write(whole)
        content = whole.read_bytes()
        fields = hdf5_fields(whole) if suffix == "h5" else tiff_fields(content)
        paths.append(whole)
        damages.append("none")
        for number, mutant in enumerate(mutants(content, COUNT, seed, fields)):
            paths.append(folder / f"{seed}-{number}.{suffix}")
            paths[-1].write_bytes(mutant.content)
            damages.append(mutant.damage)
    found = list(zip(damages, trials("tests.images.test_mutants:read", paths), strict=True))
    return {kind: found[i * (COUNT + 1) : (i + 1) * (COUNT + 1)] for i, kind in enumerate(KINDS)}


@pytest.mark.parametrize("kind", KINDS)
def test_mutants(ends, kind):
    (_, whole), *damaged = ends[kind]
    assert (whole.kind, whole.text) == ("read", str(2 * float(VOLUME.sum()))), whole
    bad = [end for end in damaged if end[1].kind not in ("read", "refused")]
    assert not bad, bad
    for damage, end in damaged:
        if end.kind == "refused":
            assert "\n" not in end.text, damage
            assert end.text.startswith("image /"), damage
    counts = Counter(end.kind for _, end in damaged)
    print(f"{kind}: {dict(counts)}")
    assert counts["refused"] > 0
