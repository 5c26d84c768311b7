"""ldic --adaptive: errors that are asked for, the curvature of the first guess, and what is said and refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import mpidvc
from mpidvc.fields.phifield import PhiField
from mpidvc.main import main
from mpidvc.tasks import noise
from tests.tasks.given import phi_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import adaptive

Array = NDArray[Any]


def test_errors_are_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reduced form of benchmarks/adaptive.py: contrast of 10 : 1, white noise, 40 realisations of it."""
    # windows that tell the noise, which take most of the time
    monkeypatch.setattr(noise, "PILOTS", 16)
    made = adaptive.Volume(adaptive.SMALL)
    chosen = adaptive.judge(made, "white", adaptive.LEVEL, realisations=40)
    assert chosen.nodes >= 40
    assert chosen.met == 1.0
    # of 40 realisations the deviation of three components is known to 7 %
    assert chosen.within >= 0.8
    assert 0.75 < chosen.median < 1.1
    fixed = adaptive.judge(made, "white", adaptive.LEVEL, realisations=40, hws=adaptive.FIXED)
    assert fixed.within < 0.5


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adaptive")
    made = adaptive.Volume((40, 40, 120))
    for name, image in zip("ab", made.noisy("white", adaptive.LEVEL, 1), strict=True):
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
        tifffile.imwrite(folder / f"{name}2.tif", image[20], photometric="minisblack")
    tifffile.imwrite(folder / "flat.tif", np.full((40, 40, 120), 7, np.uint8), photometric="minisblack")
    return folder


def test_what_is_told(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"ldic {images}/a.tif {images}/b.tif -ns 12 -hws 12 -o 3 --adaptive 0.02 --adaptive-from 4 -np 1"
    assert main([*line.split(), "-od", str(tmp_path), "-vtk", "-tif"]) == 0
    out = capsys.readouterr().out
    found = re.search(
        r"half-window sizes (\d+) to (\d+), median \d+; ([\d.]+)% of the nodes have a predicted random error of at "
        r"most 0.02 voxel, ([\d.]+)% not even with the largest window \(-hws 12\), ([\d.]+)% not because",
        out,
    )
    assert found is not None, out
    field = mpidvc.read_field(str(tmp_path / "a-b-ldic.h5"))
    sizes, limits = field["halfWindowSize"], field["windowLimit"]
    assert (sizes.min(), sizes.max()) == (int(found[1]), int(found[2]))
    assert sizes.min() < 7
    assert sizes.max() == 12
    compared = limits[field["returnStatus"] > -5]
    assert [f"{100 * np.mean(compared == k):.1f}" for k in range(3)] == list(found.groups()[2:])
    # the text has spam's columns
    assert "halfWindowSize" not in (tmp_path / "a-b-ldic.tsv").read_text()
    assert (tmp_path / "a-b-ldic-halfWindowSize.tif").exists()
    # where the target is met, what is measured is about what was predicted; windows at the sides have other voxels
    inner = ((field.positions >= 14) & (field.positions < np.array([40, 40, 120]) - 14)).all(axis=1)
    good = (field["returnStatus"] == 2) & (limits == 0) & inner
    sigma = np.max([field[f"sigma{a}disp"] for a in "ZYX"], axis=0)[good]
    assert np.median(sigma) == pytest.approx(0.018, abs=0.004)


def test_curvature_of_the_first_guess(images: Path) -> None:
    pair = [tifffile.imread(images / f"{name}.tif") for name in "ab"]
    nodes = np.stack(np.meshgrid([14, 26], [14, 26], range(8, 112, 8), indexing="ij"), axis=-1).reshape(-1, 3)
    exact = phi_of(np.zeros((len(nodes), 3)))
    more = {"half_window_size": 12, "interpolation_order": 3, "adaptive": 0.02, "adaptive_from": 4, "processes": 1}
    straight = mpidvc.ldic(pair, phi_file=PhiField(nodes.astype(float), exact), **more)
    free = straight["halfWindowSize"]
    curved = exact.copy()
    curved[:, 0, 3] = (nodes[:, 2] - 60.0) ** 2 * 0.02 * 6 / 42 / 2 * 0.99
    found = mpidvc.ldic(pair, phi_file=PhiField(nodes.astype(float), curved), **more)
    np.testing.assert_array_equal(found["halfWindowSize"], np.minimum(free, 7))
    np.testing.assert_array_equal(found["windowLimit"] == 2, free > 7)
    # a point that was not measured tells nothing
    curved[3, 0, 3] += 500
    columns = {"returnStatus": np.where(np.arange(len(nodes)) == 3, -1.0, 2.0)}
    again = mpidvc.ldic(pair, phi_file=PhiField(nodes.astype(float), curved, columns), **more)
    np.testing.assert_array_equal(again["halfWindowSize"], found["halfWindowSize"])


def test_two_dimensions(images: Path) -> None:
    pair = [tifffile.imread(images / f"{name}2.tif") for name in "ab"]
    found = mpidvc.ldic(
        pair, node_spacing=8, half_window_size=16, interpolation_order=3, adaptive=0.06, adaptive_from=4, processes=1
    )
    sizes = found["halfWindowSize"]
    along = [np.nanmean(sizes[found.positions[:, 2] == x]) for x in (16, 56, 104)]
    assert along[0] < along[1] < along[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--adaptive 0", "--adaptive 0"),
        ("--adaptive nan", "--adaptive nan"),
        ("--adaptive inf", "--adaptive inf"),
        ("--adaptive x", "--adaptive"),
        ("--adaptive-from 4", "--adaptive-from 4"),
        ("--adaptive 0.01 --adaptive-from 1", "--adaptive-from 1"),
        ("--adaptive 0.01 --adaptive-from 9", "--adaptive-from 9"),
        ("--adaptive 0.01 -hws3 8 8 7", "-hws3 8 8 7"),
        ("--adaptive 0.01 -hws3 7 8 8", "-hws3 7 8 8"),
        ("--adaptive 0.01 -shift", "-shift --adaptive"),
        ("--adaptive 0.01 --start-from neighbours", "--adaptive --start-from neighbours"),
    ],
)
def test_refused(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, words: str) -> None:
    line = f"ldic {images}/a.tif {images}/b.tif -ns 12 -hws 8 -od {tmp_path}/out -np 1 {options}"
    assert main(line.split()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert words in told
    assert not (tmp_path / "out").exists()


def test_no_noise(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"ldic {images}/flat.tif {images}/flat.tif -ns 12 -hws 8 -od {tmp_path} -np 1 --adaptive 0.01"
    assert main(line.split()) == 2
    assert "--adaptive: no window tells the noise" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.tsv"))


def test_resumed_with_the_same_target_only(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"ldic {images}/a.tif {images}/b.tif -ns 12 -hws 8 -od {tmp_path} -np 1 --adaptive"
    assert main([*line.split(), "0.02"]) == 0
    capsys.readouterr()
    assert main([*line.split(), "0.03", "--resume"]) == 2
    assert "--adaptive" in capsys.readouterr().err
