"""The planes of a directory are in the order of their numbers, or the directory is refused."""

import random

import numpy as np
import pytest
import tifffile

from mpidvc.errors import UserError
from mpidvc.images.image import open_image

#: Names in the order of z.
ORDERED = {
    "unpadded": [f"s_{i}.tif" for i in range(12)],
    "padded": [f"s_{i:04d}.tif" for i in range(12)],
    "outgrown": [f"{i:02d}.tif" for i in range(98, 103)],
    "mixed padding": ["s_1.tif", "s_02.tif", "s_003.tif", "s_4.tif", "s_0005.tif"],
    "other suffixes": ["s8.tif", "s9.tiff", "s10.TIF", "s11.Tiff"],
    "every fifth": [f"s{i}.tif" for i in range(95, 120, 5)],
    "number first": [f"{i}_recon.tif" for i in range(8, 12)],
    "numbers that stay": [f"2024-scan10_16bit_{i}_v2.tif" for i in range(8, 12)],
    "times before": [f"s_{t}_{i}.tif" for i, t in enumerate([958, 1003, 1004, 1110, 1215], 8)],
    "times after": [f"s{i}_t{t}.tif" for i, t in enumerate([31, 47, 58, 2, 9], 8)],
    "two that grow": [f"s{i}_z{20 * i}.tif" for i in range(4, 12)],
    "letters": ["aa.tif", "ab.tif", "b.tif", "c.tiff"],
    "letters beside a number": ["v10_a.tif", "v10_b.tif", "v10_c.tif"],
    "one": ["anything 7 at 3.tif"],
    "no UTF-8": [f"sch\udce4tz_{i}.tif" for i in range(8, 12)],
    "beyond 64 bits": [f"s{2**70 + i}.tif" for i in range(3)],
}

REFUSED = {
    "a gap": (["s_0", "s_1", "s_3", "s_4"], "steps of 1, but s_3.tif follows s_1.tif"),
    "a gap in a step of 5": (["s0", "s5", "s10", "s20"], "steps of 5, but s20.tif follows s10.tif"),
    "one between": (["s0", "s10", "s15", "s20", "s30"], "steps of 10, but s15.tif follows s10.tif"),
    "the same number": (["s_0", "s_1", "s_01", "s_2"], "s_01.tif and s_1.tif have the same number"),
    "two volumes": (["a_0", "a_1", "b_0", "b_1"], "a_0.tif and b_0.tif differ by more than numbers"),
    "a picture": (["s_0", "s_1", "s_2", "s_mean"], "s_mean.tif and s_0.tif differ by more than numbers"),
    "without a number": (["s", "s_1", "s_2"], "s.tif and s_1.tif differ by more than numbers"),
    "tiles": (["r0_c0", "r0_c1", "r0_c2", "r1_c0", "r1_c1", "r1_c2"], "steps of 1, but r1_c0.tif follows r0_c2.tif"),
    "decimals": (["z0.5", "z1.0", "z1.5", "z2.0"], "numbered in steps"),
    "below zero": (["z-2", "z-1", "z0", "z1"], "differ by more than numbers"),
    "hexadecimal": (["s8", "s9", "sa", "sb"], "differ by more than numbers"),
    "down": (["t3_s9", "t5_s8", "t8_s7"], "numbered in steps"),
}


@pytest.mark.parametrize("names", ORDERED.values(), ids=list(ORDERED))
def test_order(tmp_path, names):
    planes = list(enumerate(names))
    random.Random(4).shuffle(planes)
    for z, name in planes:
        tifffile.imwrite(tmp_path / name, np.full((4, 5), z, "u1"))
    image = open_image(tmp_path)
    part, _ = image.read_box((0, 0, 0), image.shape)
    np.testing.assert_array_equal(part, np.arange(len(names))[:, None, None] + np.zeros((4, 5)))
    count = f"{len(names)} slices" if len(names) > 1 else "1 slice"
    span = f"{names[0]} … {names[-1]}" if len(names) > 1 else names[0]
    size = f"{len(names)} × 4 × 5" if len(names) > 1 else "4 × 5"
    assert image.describe() == f"{tmp_path}: {size} uint8: {count}, {span}"


@pytest.mark.parametrize(("names", "words"), REFUSED.values(), ids=list(REFUSED))
def test_refused(tmp_path, names, words):
    for name in names:
        tifffile.imwrite(tmp_path / f"{name}.tif", np.zeros((4, 5), "u1"))
    with pytest.raises(UserError) as caught:
        open_image(tmp_path, "mask")
    message = str(caught.value)
    assert message.startswith(f"mask {tmp_path}: its slices ")
    assert words in message
    assert "\n" not in message


def test_the_same_name_with_two_suffixes(tmp_path):
    for name in ("s1.tif", "s1.tiff", "s2.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((4, 5), "u1"))
    with pytest.raises(UserError, match=r"s1\.tif and s1\.tiff have the same number"):
        open_image(tmp_path)


def test_other_files_do_not_matter(tmp_path):
    for z in range(3):
        tifffile.imwrite(tmp_path / f"s{z}.tif", np.full((4, 5), z, "u1"))
        (tmp_path / f"._s{z}.tif").write_bytes(b"of another system")
    (tmp_path / "s7.txt").write_text("notes")
    assert open_image(tmp_path).shape == (3, 4, 5)
