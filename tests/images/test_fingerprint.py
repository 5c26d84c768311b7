"""Fingerprints: every voxel of an ordinary image counts, some of a large one, and nothing but voxels."""

import numpy as np
import pytest
import tifffile

from mpidvc.images import fingerprint as module
from mpidvc.images.fingerprint import fingerprint
from mpidvc.images.image import ArrayImage, open_image

IMAGE = np.random.default_rng(1).integers(0, 60000, (23, 40, 35)).astype(np.uint16)


def test_every_voxel_counts():
    told = fingerprint(ArrayImage(IMAGE))
    assert (told["shape"], told["dtype"]) == ([23, 40, 35], "uint16")
    rng = np.random.default_rng(2)
    for _ in range(50):
        changed = IMAGE.copy()
        changed[tuple(rng.integers(0, IMAGE.shape))] ^= 1
        assert fingerprint(ArrayImage(changed))["blocks"] != told["blocks"]


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"byteorder": ">"}])
def test_the_file_does_not_count(tmp_path, how):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, photometric="minisblack", **how)
    assert fingerprint(open_image(path)) == fingerprint(ArrayImage(IMAGE))


@pytest.mark.parametrize("most", [1, 40 * 35, 5 * 40 * 35, 17 * 40 * 35])
def test_large_images_are_looked_at_in_slabs(monkeypatch, most):
    monkeypatch.setattr(module, "MOST_VOXELS", most)
    seen = []

    class Watched(ArrayImage):
        def read_box(self, low, high):
            seen.append(low[0])
            return super().read_box(low, high)

    fingerprint(Watched(IMAGE))
    assert len(seen) <= max(1, most // (40 * 35))
    assert len(seen) == len(set(seen))
    if most >= 5 * 40 * 35:
        assert seen[0] == 0
        assert seen[-1] == 22


def test_flat_images():
    flat = IMAGE[:1]
    assert fingerprint(ArrayImage(flat)) == fingerprint(ArrayImage(flat[0]))
    assert fingerprint(ArrayImage(flat)) != fingerprint(ArrayImage(flat.astype(np.int32)))
