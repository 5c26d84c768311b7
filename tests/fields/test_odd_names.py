"""File names that are no text in UTF-8, or hold a line end: every file is written, the log too."""

import os

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.read import read_field

PAIR = AnalyticPair((30, 36, 40), seed=1, translation=(0.3, 0.2, -0.4), rotation=(0, 0, 0))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    paths = [str(folder / os.fsdecode(name)) for name in (b"a\xff\xe9.tif", b"b\xff\nx.tif")]
    for path, image in zip(paths, (PAIR.image1(), PAIR.image2()), strict=True):
        tifffile.imwrite(path, image, photometric="minisblack")
    return paths


@pytest.mark.parametrize(
    "line",
    [
        ["ldic", "-ns", "10", "-hws", "6", "-vtk", "-tif"],
        ["pixelSearch", "-ns", "10", "-hws", "4", "-vtk", "-tif"],
        ["reg", "-def", "-j"],
    ],
)
def test_odd_names(tmp_path, command, images, line):
    log = tmp_path / os.fsdecode(b"log\xff.txt")
    done = command(*line, *images, "-np", "1", "-od", str(tmp_path / os.fsdecode(b"out\xff")), "--log", str(log))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    written = {os.fsencode(path.name) for path in tmp_path.glob("out*/*")}
    stem = b"a\xff\xe9-b\xff\nx-" + (b"registration" if line[0] == "reg" else line[0].encode())
    expected = {stem + b".tsv"}
    if line[0] != "reg":
        expected |= {stem + b".h5", stem + b".vtk", stem + b"-Zdisp.tif"}
        field = read_field(next(tmp_path.glob("out*/*.h5")))
        assert np.median(np.abs(field.displacements - PAIR.displacement(field.positions))) < 0.5
    assert expected <= written
    assert "a\\udcff\\udce9" in log.read_text()
