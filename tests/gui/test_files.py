"""Files of the window: names, text files that the other commands take, deformed images."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.core import deformation
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import COLUMNS
from mpidvc.gui import files
from mpidvc.gui.display import DisplayPair, Numbers
from mpidvc.gui.snap import CancelledError, Progress
from mpidvc.images.image import ArrayImage
from mpidvc.main import main
from tests.gui.pairs import SHEARED, WidePair, phi_of

PAIR = WidePair((40, 44, 48), 3, (30, -10, 20), (0.03,) * 3, (6, -8, 7), amplitude=0, spacing=6, radii=(4, 7))
NUMBERS = Numbers(1.0, 0.5, 0.25, 1.0)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", PAIR.image1(), photometric="minisblack")
    tifffile.imwrite("b.tif", PAIR.image2(), photometric="minisblack")
    return tmp_path


@pytest.mark.parametrize("binning", [1, 2])
def test_names_and_binning(here: Path, binning: int) -> None:
    opened = files.open_images("a.tif", "b.tif", binning)
    assert opened.name == f"a-b-PhiEye-bin{binning}.tsv"
    assert files.deformed_path(Path(opened.name)).name == f"a-b-PhiEye-bin{binning}-def.tif"
    assert opened.images.image1.shape == tuple(n // binning for n in PAIR.shape)
    part, _ = opened.images.image2.read_box((0, 0, 0), (1, 1, 1))
    assert part[0, 0, 0] == pytest.approx(PAIR.image2()[:binning, :binning, :binning].mean(), rel=1e-6)
    assert DisplayPair.of(opened.images).shape == opened.images.image1.shape


def test_images_of_every_kind(here: Path) -> None:
    with h5py.File("scan.h5", "w") as file:
        file["entry/data"] = PAIR.image1()
    Path("slices").mkdir()
    for k, plane in enumerate(PAIR.image2()):
        tifffile.imwrite(f"slices/s_{k}.tif", plane, photometric="minisblack")
    opened = files.open_images("scan.h5::/entry/data", "slices", 1)
    assert opened.name == "scan-entry-data-slices-PhiEye-bin1.tsv"
    pair = DisplayPair.of(opened.images)
    np.testing.assert_array_equal(pair.image1, PAIR.image1())
    np.testing.assert_array_equal(pair.image2, PAIR.image2())


def test_refused_images(here: Path) -> None:
    tifffile.imwrite("c.tif", PAIR.image1()[:20], photometric="minisblack")
    with pytest.raises(UserError, match=r"c\.tif: has 20 × 44 × 48 voxels but a\.tif"):
        files.open_images("a.tif", "c.tif", 1)
    with pytest.raises(UserError, match="-bin 21: leaves fewer than 2 voxels"):
        files.open_images("a.tif", "b.tif", 21)


@pytest.mark.parametrize("text", ["truth", "guess"])
def test_text_file_is_spams_and_reg_takes_it(here: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    centre = (np.array(PAIR.shape) - 1) / 2
    guess = deformation.compute_phi((5, -7, 6), (29, -10, 21), 1.02 * np.eye(3))
    phi = phi_of(PAIR) if text == "truth" else guess
    files.save_phi(Path("eye.tsv"), files.field_of(phi, centre, 1, NUMBERS))
    names, values = (line.split("\t") for line in Path("eye.tsv").read_text().splitlines())
    assert tuple(names) == COLUMNS["EREG"]
    row = dict(zip(names, map(float, values), strict=True))
    assert [row[name] for name in ("Zpos", "Ypos", "Xpos")] == centre.tolist()
    assert (row["returnStatus"], row["deltaPhiNorm"], row["iterations"], row["bin"]) == (0, 1, 0, 1)
    assert row["Fyx"] == pytest.approx(phi[1, 2], abs=1e-7)
    assert main(["reg", "a.tif", "b.tif", "-pf", "eye.tsv", "-bb", "2"]) == 0
    assert "Registration converged" in capsys.readouterr().out
    found = files.read_phi("a-b-registration.tsv", 1.0, files.open_images("a.tif", "b.tif", 1).images)
    np.testing.assert_allclose(found, phi_of(PAIR), atol=0.02)


@pytest.mark.parametrize("command", ["pixelSearch", "ldic"])
def test_other_commands_take_it(here: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    centre = (np.array(PAIR.shape) - 1) / 2
    files.save_phi(Path("eye.tsv"), files.field_of(phi_of(PAIR), centre, 1, NUMBERS))
    words = ["a.tif", "b.tif", "-pf", "eye.tsv", "-ns", "16", "-hws", "5", "-np", "1"]
    assert main([command, *words]) == 0
    assert "I read a registration from eye.tsv" in capsys.readouterr().out


def test_phi_of_a_file_is_kept_whole_and_moved_to_the_centre(here: Path) -> None:
    images = files.open_images("a.tif", "b.tif", 1).images
    centre = (np.array(PAIR.shape) - 1) / 2
    elsewhere = np.array([3.0, 4, 5])
    field = PhiField(elsewhere[None], deformation.move_centre(SHEARED, centre, elsewhere)[None], {}, "registration")
    np.testing.assert_allclose(files.read_phi(field, 1.0, images), SHEARED, atol=1e-12)
    halved = PhiField(elsewhere[None] / 2, field.phi.copy(), {}, "registration")
    halved.phi[0, :3, 3] /= 2
    np.testing.assert_allclose(files.read_phi(halved, 2.0, images), SHEARED, atol=1e-12)


def test_refused_phi(here: Path) -> None:
    images = files.open_images("a.tif", "b.tif", 1).images
    grid = PhiField.from_positions(np.array([[1.0, 1, 1], [2, 2, 2]]), np.tile(np.eye(4), (2, 1, 1)), {})
    with pytest.raises(UserError, match="is a field of 2 points; ereg starts from a single registration"):
        files.read_phi(grid, 1.0, images)
    tifffile.imwrite("flat.tif", PAIR.image1()[0], photometric="minisblack")
    plane = files.open_images("flat.tif", "flat.tif", 1).images
    with pytest.raises(UserError, match="moves out of the plane"):
        files.read_phi(PhiField(np.zeros((1, 3)), SHEARED[None], {}, "registration"), 1.0, plane)


@pytest.mark.parametrize("binning", [1, 2])
def test_deformed_image(here: Path, binning: int) -> None:
    """In the dtype of image 1; where both images show the same, that of image 2."""
    opened = files.open_images("a.tif", "b.tif", binning)
    phi = deformation.scale_translation(phi_of(PAIR), 1 / binning)
    shares: list[float | None] = []
    files.save_deformed(Path("d.tif"), opened, phi, Progress(lambda share, text: shares.append(share)))
    found = tifffile.imread("d.tif")
    assert found.dtype == np.uint16
    two, _ = opened.images.image2.read_box((0, 0, 0), opened.images.image2.shape)
    assert found.shape == two.shape
    inside = found > 0
    assert inside.mean() > 0.4
    error = (found.astype(float) - two)[inside]
    assert error.std() < 0.1 * binning * two.std()
    assert shares[0] == 0
    with pytest.raises(CancelledError):
        files.save_deformed(Path("e.tif"), opened, phi, Progress(cancelled=lambda: True))
    assert not Path("e.tif").exists()


def test_folder_that_is_not_there(here: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/x\.tsv: there is no folder"):
        files.save_phi(Path("nowhere/x.tsv"), files.field_of(np.eye(4), np.zeros(3), 1, NUMBERS))


def test_images_in_memory() -> None:
    opened = files.open_images(ArrayImage(PAIR.image1(), "im1"), ArrayImage(PAIR.image2(), "im2"), 1)  # type: ignore[arg-type]
    assert opened.name == "im1-im2-PhiEye-bin1.tsv"
