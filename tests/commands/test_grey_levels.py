"""Faults in images, thresholds, masks and drifts: what they may change of a result, and what not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv, write_tsv
from mpidvc.main import main

SOLID = AnalyticPair((56, 56, 56), seed=1, translation=(0.3, -0.4, 0.2), amplitude=0.1, wavelength=60.0)
FAULT = (27, 29, 30)
HWS, MARGIN = 5, 3


class Pair:
    """Runs commands on two images in a folder, and gives the line that tells the criterion."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def save(self, name: str, image: np.ndarray) -> str:
        tifffile.imwrite(self.folder / name, image, photometric="minisblack")
        return str(self.folder / name)

    def run(self, command: str, one: np.ndarray, two: np.ndarray, options: str = "") -> tuple[PhiField, str]:
        words = [command, self.save("a.tif", one), self.save("b.tif", two), *options.split()]
        assert main([*words, "-np", "1", "-od", str(self.folder), "-pre", "r"]) == 0
        names = {"reg": "r-registration.tsv", "ldic": "r-ldic.tsv"}
        lines = self.capsys.readouterr().out.splitlines()
        told = next((line for line in lines if line.startswith("Criterion")), "")
        return read_tsv(self.folder / names.get(command, f"r-{command}.tsv")), told


@pytest.fixture
def pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Pair:
    return Pair(tmp_path, capsys)


def with_fault(image: np.ndarray, value: float) -> np.ndarray:
    faulty = image.astype(np.float32)
    faulty[FAULT] = value
    return faulty


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("value", [1e9, -3.4e38])
@pytest.mark.parametrize("which", [1, 2])
def test_one_bad_voxel(pair: Pair, which: int, value: float, order: int) -> None:
    """It is as good as nan, and windows that do not hold it do not know of it."""
    images = [SOLID.image1().astype(np.float32), SOLID.image2().astype(np.float32)]
    options = f"-ns 7 -hws {HWS} -o {order} --overwrite"
    clean, _ = pair.run("ldic", *images, options)
    results = []
    for bad in (value, np.nan):
        images[which - 1] = with_fault(images[which - 1], bad)
        field, told = pair.run("ldic", *images, options)
        assert told.startswith("Criterion: ssd")
        results.append(field)
    found, none = results
    np.testing.assert_array_equal(found.phi, none.phi)
    for name in ("error", "returnStatus", "iterations"):
        np.testing.assert_array_equal(found.columns[name], none.columns[name])
    assert (found.columns["returnStatus"] == 2).mean() > 0.99
    truth = SOLID.displacement(found.positions)
    assert np.abs(found.displacements - truth).max() < 0.15
    # beyond the reach of window, margin and prefilter nothing has changed
    away = np.abs(found.positions - np.array(FAULT)).max(axis=1) > HWS + MARGIN + 10
    assert 20 < away.sum() < len(away)
    # (a spline fades by 0.27 a voxel)
    np.testing.assert_allclose(found.phi[away], clean.phi[away], rtol=0, atol=0 if order == 1 else 1e-6)


def test_bad_voxels_in_every_command(pair: Pair) -> None:
    images = [with_fault(SOLID.image1(), 1e9), with_fault(SOLID.image2(), -3.4e38)]
    field, told = pair.run("reg", *images)
    assert told.startswith("Criterion: ssd")
    assert field.columns["returnStatus"] == 2
    centre = (np.array(SOLID.shape) - 1) / 2
    np.testing.assert_allclose(field.displacements[0], SOLID.displacement(centre[None])[0], atol=0.1)
    search, _ = pair.run("pixelSearch", *images, "-ns 14 -hws 5 -sr -2 2 -2 2 -2 2")
    assert (search.columns["returnStatus"] == 1).all()
    assert np.abs(search.displacements).max() <= 1
    assert search.columns["pixelSearchCC"].min() > 0.97


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(("dtype", "unit"), [("float64", 1.0), ("uint32", 1000.0)])
def test_little_contrast_on_a_large_level(pair: Pair, dtype: str, unit: float, order: int) -> None:
    """Grey levels of 10⁶ ± 1, in units of 1 or a thousandth: as the same less 10⁶, in every command."""
    grey = [(image.astype(np.float64) - 30000) / 4500 for image in (SOLID.image1(), SOLID.image2())]
    if unit > 1:
        grey = [np.rint(unit * image) for image in grey]
    near = [image.astype(np.float32) for image in grey]
    far = [(image + unit * 1e6).astype(dtype) for image in grey]
    options = f"-ns 14 -hws {HWS} -o {order} --overwrite"
    expected, _ = pair.run("ldic", *near, options)
    found, told = pair.run("ldic", *far, options)
    assert told.startswith("Criterion: ssd")
    assert (found.columns["returnStatus"] == 2).all()
    np.testing.assert_array_equal(found.columns["iterations"], expected.columns["iterations"])
    np.testing.assert_allclose(found.phi, expected.phi, rtol=0, atol=1e-4)
    # squares of what differs over the sum of whole grey levels
    assert (found.columns["error"] * 1e6 / unit < 0.1).all()
    expected, _ = pair.run("reg", *near, f"-o {order}")
    found, _ = pair.run("reg", *far, f"-o {order}")
    assert found.columns["returnStatus"] == expected.columns["returnStatus"] == 2
    np.testing.assert_allclose(found.phi, expected.phi, rtol=0, atol=1e-4)
    if order == 1:
        options = "-ns 14 -hws 5 -sr -2 2 -2 2 -2 2 --overwrite"
        search, _ = pair.run("pixelSearch", *far, f"{options} -glt {unit * (1e6 - 5)} -ght {unit * (1e6 + 5)}")
        assert (search.columns["returnStatus"] == 1).all()
        # whole grey levels: CC without --zero-mean differs from 1 by the square of a millionth
        assert (np.abs(1 - search.columns["pixelSearchCC"]) < 1e-10).all()
        expected, _ = pair.run("pixelSearch", *near, f"{options} --zero-mean")
        search, _ = pair.run("pixelSearch", *far, f"{options} --zero-mean")
        np.testing.assert_array_equal(search.displacements, expected.displacements)
        np.testing.assert_allclose(search.columns["pixelSearchCC"], expected.columns["pixelSearchCC"], atol=1e-5)


def test_bright_inclusions_are_data(pair: Pair) -> None:
    """Balls fifty times as bright as the rest are what windows are followed by."""
    images = []
    z, y, x = np.indices(SOLID.shape)
    for t in ((0, 0, 0), (1, -1, 2)):
        random = np.random.default_rng(7)
        image = random.normal(1.0, 0.02, SOLID.shape).astype(np.float32)
        for centre in random.uniform(4, 52, (60, 3)):
            c = centre + t
            image += 50 * np.exp(-((z - c[0]) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2) / 2).astype(np.float32)
        images.append(image)
    field, _ = pair.run("ldic", *images, "-ns 14 -hws 10")
    good = field.columns["returnStatus"] == 2
    assert good.mean() > 0.9
    np.testing.assert_allclose(field.displacements[good], np.tile([1, -1, 2], (good.sum(), 1)), atol=0.1)


def test_thresholds_do_not_change_the_criterion(pair: Pair) -> None:
    """Voxels chosen by their grey level in image 1 were compared with others in image 2 wherever it moved."""
    moved = AnalyticPair((56, 56, 56), seed=1, translation=(1.3, -0.9, 1.7))
    images = moved.image1(), moved.image2()
    plain, told = pair.run("ldic", *images, "-ns 8 -hws 5 --overwrite")
    assert told.startswith("Criterion: ssd")
    field, told = pair.run("ldic", *images, "-ns 8 -hws 5 --overwrite -glt 20000")
    assert told.startswith("Criterion: ssd")
    kept = field.columns["returnStatus"] != -5
    assert 5 < kept.sum() < len(kept)
    np.testing.assert_array_equal(field.phi[kept], plain.phi[kept])


@pytest.mark.parametrize("command", ["ldic", "reg"])
def test_masks_with_motion(pair: Pair, command: str) -> None:
    """A specimen that has moved, with a mask of where it was: the guess tells where it is."""
    t = np.array([0.0, -5.0, 6.0])
    pair1 = AnalyticPair((56, 56, 56), seed=1, translation=tuple(t))
    random = np.random.default_rng(0)
    _, y, x = np.indices(pair1.shape)
    images, masks = [], []
    for image, (cy, cx) in ((pair1.image1(), (29, 25)), (pair1.image2(), (24, 31))):
        masks.append((y - cy) ** 2 + (x - cx) ** 2 < 15**2)
        noisy = np.where(masks[-1], image, 2000.0) + random.normal(0, 100, image.shape)
        images.append(noisy.clip(0, 65535).astype(np.uint16))
    mask = pair.save("mask.tif", masks[0].astype(np.uint8))
    one, two = images
    together = two[masks[0]]
    assert abs(together.mean() - one[masks[0]].mean()) > 0.3 * one[masks[0]].std()
    guess = pair.folder / "guess.tsv"
    phi = np.eye(4)
    phi[:3, 3] = t
    told_of = {"error": 1.0, "iterations": 1, "returnStatus": 2, "deltaPhiNorm": 0.0}
    columns = {name: np.array([float(value)]) for name, value in told_of.items()}
    write_tsv(guess, PhiField(np.full((1, 3), 27.5), phi[None], columns, "registration"), "LDIC")
    options = "-bb 1" if command == "reg" else "-ns 8 -hws 5"
    field, told = pair.run(command, *images, f"{options} -mf1 {mask} -pf {guess}")
    assert told.startswith("Criterion: ssd")
    good = field.columns["returnStatus"] == 2
    assert good.sum() > 0.6 * (field.columns["returnStatus"] != -5).sum()
    assert np.abs(np.median(field.displacements[good], axis=0) - t).max() < 0.5


@pytest.mark.parametrize("drift", ["gain", "offset"])
def test_drifts_that_cancel(pair: Pair, drift: str) -> None:
    """Brighter at one end and darker at the other: grey levels agree together, and in no window."""
    one, two = SOLID.image1().astype(float), SOLID.image2().astype(float)
    slope = np.linspace(-1, 1, len(one))[:, None, None]
    two = two * (1 + 0.2 * slope) if drift == "gain" else two + 0.5 * one.std() * slope
    assert abs(two.mean() - one.mean()) < 0.1 * one.std()
    assert 0.9 < two.std() / one.std() < 1.1
    images = [image.round().astype(np.uint16) for image in (one, two)]
    error = {}
    for criterion in ("auto", "ssd"):
        field, told = pair.run("ldic", *images, f"-ns 7 -hws 5 --overwrite --criterion {criterion}")
        if criterion == "auto":
            assert told.startswith("Criterion: znssd")
            assert "in single windows" in told
        good = field.columns["returnStatus"] == 2
        wrong = field.displacements[good] - SOLID.displacement(field.positions[good])
        error[criterion] = float(np.sqrt((wrong**2).mean()))
    assert error["auto"] < 0.5 * error["ssd"]
