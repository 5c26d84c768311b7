"""The columns of a results file that the text does not have."""

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.read import read_field

PAIR = AnalyticPair((40, 44, 48), seed=4, rotation=(0.5, 0.3, -0.4), translation=(0.3, -0.2, 0.6), noise=0.002)
#: Half of a compared window: -hws 6 compares 11 voxels along an axis.
HALF = 5


@pytest.fixture(scope="module")
def results(tmp_path_factory, command):
    """Folder with im1.tif, im2.tif and im1-im2-ldic.h5."""
    folder = tmp_path_factory.mktemp("results")
    images = [folder / "im1.tif", folder / "im2.tif"]
    for path, image in zip(images, (PAIR.image1(), PAIR.image2()), strict=True):
        tifffile.imwrite(path, image, photometric="minisblack")
    done = command("ldic", *map(str, images), "-ns", "12", "-hws", str(HALF + 1), "-np", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_coverage_and_zncc(results):
    """As `docs/results.md` defines them; scipy interpolates, numpy correlates."""
    field = read_field(results / "im1-im2-ldic.h5")
    image1, image2 = tifffile.imread(results / "im1.tif"), tifffile.imread(results / "im2.tif").astype(float)
    offsets = np.stack(np.meshgrid(*[np.arange(-HALF, HALF + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    compared = 0
    for k, node in enumerate(field.positions.astype(int)):
        there = offsets @ field.F[k].T + node + field.displacements[k]
        if (
            (node - HALF < 0) | (node + HALF >= image1.shape) | (there < 0) | (there > np.array(image2.shape) - 1)
        ).any():
            continue
        grey1 = image1[tuple((node + offsets).T)]
        grey2 = ndimage.map_coordinates(image2, there.T, order=1)
        assert abs(field["zncc"][k] - np.corrcoef(grey1, grey2)[0, 1]) < 1e-6
        assert field["coverage"][k] == 1
        compared += 1
    assert compared >= 15
    assert 0.9 < field["zncc"].min() < field["zncc"].max() < 1
