"""What a run says that it needs is not less than what it takes, and not much more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.tasks import memory
from tests import peak_memory
from tests.conftest import Job
from tests.waiting import LONGEST


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    image = np.random.default_rng(1).integers(0, 60000, (150, 260, 270), dtype=np.uint16)
    volumes = {
        "one": image,
        "two": np.roll(image, 1, 2),
        "flipped": image[:, ::-1],
        "mask": (image > 3000).astype(np.uint8),
    }
    for name, values in volumes.items():
        tifffile.imwrite(folder / f"{name}.tif", values, photometric="minisblack")
        tifffile.imwrite(folder / f"{name}z.tif", values, photometric="minisblack", compression="zlib", rowsperstrip=32)
    flat = ndimage.gaussian_filter(np.random.default_rng(2).normal(30000, 30000, (500, 500)), 1.0).astype(np.uint16)
    for k in range(3):
        tifffile.imwrite(folder / f"flat{k}.tif", np.roll(flat, k, 1), photometric="minisblack")
    for k in range(2):
        tifffile.imwrite(folder / f"wide{k}.tif", np.tile(np.roll(flat, k, 1), (2, 2)), photometric="minisblack")
    tifffile.imwrite(folder / "byte.tif", (image >> 8).astype(np.uint8), photometric="minisblack")
    tifffile.imwrite(folder / "float.tif", image.astype(np.float32), photometric="minisblack")
    return folder


LINES = [
    "ldic one.tif two.tif -ns 30 -hws 10 -it 2 -mf1 mask.tif",
    "ldic one.tif two.tif -ns 14 -hws 8 -it 1 -o 3",
    "ldic byte.tif byte.tif -ns 20 -hws 8 -it 1",
    "ldic one.tif flipped.tif -ns 20 -hws 20 -it 1 -o 3 --start-from neighbours",
    "ldic float.tif float.tif -ns 60 -hws 45 -it 1 -o 3 -mf1 mask.tif",
    "ldic onez.tif twoz.tif -ns 60 -hws 30 -it 1 -ug -shift -mf1 maskz.tif",
    "pixelSearch one.tif two.tif -ns 40 -hws 12 -sr -9 9 -9 9 -9 9 -mf1 mask.tif",
    "pixelSearch one.tif two.tif -ns 20 -hws 5",
    "reg one.tif two.tif -it 2 -o 3 -bb 2 -be 2 -mf1 mask.tif",
    "reg onez.tif twoz.tif -it 2 -bb 1",
]


@pytest.mark.parametrize("line", LINES)
def test_expected_and_measured(mpiexec: Job, images: Path, tmp_path: Path, line: str) -> None:
    words = [str(images / word) if word.endswith(".tif") else word for word in line.split()]
    done = mpiexec(2, peak_memory.__file__, *words, "-od", str(tmp_path), "--image-mode", "boxes")
    assert done.returncode in (0, 1), done.stderr
    peaks = sorted(int(peak) / 1e6 for peak in re.findall(r"^peak (\d+)$", done.stderr, re.MULTILINE))
    found = re.search(r"2 processes of (\d+) MB each(?:, the first with (\d+) MB more)?", done.stdout)
    assert found is not None
    each, more = int(found[1]), int(found[2] or 0)
    print(peaks, each, more)
    assert peaks[0] <= each
    assert peaks[1] <= each + more
    assert each <= 1.5 * peaks[0]
    assert each + more <= 1.5 * peaks[1]


#: Many points in small images; some lines start from the field of the one before.
MANY = [
    "ldic flat0.tif flat1.tif -ns 1 -hws 2 -it 1 -notsv -pre first",
    "ldic flat0.tif flat1.tif -hws 2 -it 1 -notsv -pre second -pf OUT/first-ldic.h5",
    "ldic flat0.tif flat1.tif -ns 2 -hws 2 -it 1 -vtk -tif -pre third",
    "ldic flat0.tif flat1.tif flat2.tif -ns 2 -hws 4 --warm-start -pre warm",
    "ldic flat0.tif flat1.tif flat2.tif -ns 2 -hws 4 --warm-start --update-reference -pre changing",
    # more than those that stand for all
    "ldic wide0.tif wide1.tif -ns 1 -hws 1 -it 2 -glt 20000 -notsv -pre wide",
    "ldic wide0.tif wide1.tif -hws 1 -it 2 -glt 20000 -notsv -pre kept -pf OUT/wide-ldic.h5 -skp",
    "pixelSearch wide0.tif wide1.tif -ns 1 -hws 1 -sr 0 0 0 0 0 1 -notsv -pre wide",
    "pixelSearchPropagate flat0.tif flat1.tif -sp 0 250 250 0 0 1 -ns 5 -hws 3 -sr 0 0 -1 1 -1 1 -pre front",
]


def test_many_points(environment: dict[str, str], images: Path, tmp_path: Path) -> None:
    for line in MANY:
        test_one_process(environment, images, tmp_path, line.replace("OUT", str(tmp_path)))


@pytest.mark.parametrize("line", LINES)
def test_one_process(environment: dict[str, str], images: Path, tmp_path: Path, line: str) -> None:
    peak, out = alone(environment, images, tmp_path, f"{line} --image-mode boxes")
    (said,) = [int(found) for found in re.findall(r"one process of (\d+) MB", out)]
    print(peak, said)
    assert peak <= said <= 1.5 * peak


def alone(environment: dict[str, str], images: Path, folder: Path, line: str) -> tuple[float, str]:
    """Peak memory (MB) of a command in one process, and what it prints."""
    words = [str(images / word) if word.endswith(".tif") else word for word in line.split()]
    program = [sys.executable, peak_memory.__file__, *words, "-np", "1", "-od", str(folder)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.returncode in (0, 1), done.stderr
    (peak,) = [int(peak) / 1e6 for peak in re.findall(r"^peak (\d+)$", done.stderr, re.MULTILINE)]
    return peak, done.stdout


def test_pictures(environment: dict[str, str], images: Path, tmp_path: Path) -> None:
    """What a run takes more where it draws, against what is allowed for that."""
    dims = (1, 250, 250)
    index = np.stack(np.unravel_index(np.arange(62500), dims), axis=1)
    phi = np.tile(np.eye(4), (62500, 1, 1))
    phi[:, 1:3, 3] = np.random.default_rng(1).normal(0, 0.01, (62500, 2))
    field = PhiField(index * 10.0, phi, {"returnStatus": np.full(62500, 2.0)}, "grid", dims, (1.0, 10.0, 10.0))
    write_hdf5(tmp_path / "f.h5", field)
    deform = f"deformImage flat0.tif -pf {tmp_path}/flat0-flat1-registration.tsv --residual flat1.tif"
    drawn = [
        ("reg flat0.tif flat1.tif -it 2 -bb 1", "-g", memory.COMPARED * 250000),
        (deform, f"--plot {tmp_path}/a.png", memory.SLICED * 500000),
        (
            f"regularStrain {tmp_path}/f.h5 --overwrite -comp vol dev volss devss r z U Up e GL H",
            f"--plot {tmp_path}/b.png",
            memory.PLOTTED * 62500,
        ),
    ]
    for line, plot, more in drawn:
        without, with_plot = (alone(environment, images, tmp_path, f"{line} {own}")[0] for own in ("", plot))
        print(with_plot - without, (memory.PLOT + more) / 1e6)
        assert with_plot - without <= (memory.PLOT + more) / 1e6 <= 3 * (with_plot - without)
