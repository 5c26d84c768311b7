"""Every option of ``mpidvc reg`` does what its help says; the truth is known exactly (`AnalyticPair`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from mpidvc.core import deformation
from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv, write_tsv
from mpidvc.main import main

MOTION = {"rotation": (1.5, -1.0, 0.8), "strain": (0.010, -0.015, 0.020), "translation": (1.3, -0.7, 2.4)}
SOLID = AnalyticPair((48, 52, 56), seed=3, amplitude=0, **MOTION)
FLAT = AnalyticPair((1, 160, 170), seed=3, amplitude=0, **MOTION)
#: Voxels. Trilinear interpolation is biased by some 1e-3 on this texture, and by 3e-3 where part of the image is left
#: out; the cubic one is limited by the 16 bits of the images and -dp.
LINEAR, CUBIC = 4e-3, 4e-4


def save(path: Path, image: np.ndarray, **options: object) -> str:
    tifffile.imwrite(path, image[0] if image.shape[0] == 1 else image, photometric="minisblack", **options)
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the pairs a, b (3D) and f, g (2D)."""
    folder = tmp_path_factory.mktemp("images")
    for names, pair in (("ab", SOLID), ("fg", FLAT)):
        save(folder / f"{names[0]}.tif", pair.image1())
        save(folder / f"{names[1]}.tif", pair.image2())
    return folder


@pytest.fixture
def reg(tmp_path: Path, images: Path) -> Callable[..., PhiField]:
    """Run the command on a pair of names or paths and read the row it writes."""

    def run(line: str = "", pair: tuple[str, str] = ("a", "b"), status: int | None = 0) -> PhiField:
        paths = [name if "/" in name else str(images / f"{name}.tif") for name in pair]
        out = tmp_path / "out"
        ended = main(["reg", *paths, "-np", "1", "-od", str(out), "-pre", "P", *line.split()])
        assert status is None or ended == status
        field = read_tsv(out / "P-registration.tsv")
        assert field.layout == "registration"
        return field

    return run


def check(field: PhiField, pair: AnalyticPair, tolerance: float) -> None:
    """Phi is that of the pair, at the position that the row gives."""
    assert field.columns["returnStatus"] == 2
    position = field.positions[0]
    np.testing.assert_allclose(field.displacements[0], pair.displacement(position), rtol=0, atol=tolerance)
    # F is known better than t, by the half diameter of the compared region
    np.testing.assert_allclose(field.F[0], pair.gradient(position), rtol=0, atol=tolerance / 5)


# ---- what it finds


@pytest.mark.parametrize(
    ("line", "tolerance"),
    [
        ("", LINEAR),
        ("-o 3", CUBIC),
        ("-bb 1", LINEAR),
        ("-bb 2", LINEAR),
        ("-ug -bb 1", LINEAR),
        ("-ug -bb 2 -o 3", CUBIC),
        ("-shift", LINEAR),
        ("-shift -o 3 -bb 2", CUBIC),
        ("-gm gaussian -gs 0.6", LINEAR),
        ("-gm gaussian -gs 0.6 -o 3 -bb 2", CUBIC),
        ("-m 10", LINEAR),
        ("-m3 4 6 8", LINEAR),
        ("-dp 1e-6 -o 3", CUBIC),
        ("--criterion znssd", LINEAR),
        ("--criterion znssd -o 3", CUBIC),
        ("--criterion znssd -ug -bb 1 -o 3", CUBIC),
        ("-lazy -o 3", CUBIC),
    ],
)
def test_recovers_phi(reg: Callable[..., PhiField], line: str, tolerance: float) -> None:
    field = reg(line)
    np.testing.assert_array_equal(field.positions, [[23.5, 25.5, 27.5]])
    check(field, SOLID, tolerance)


@pytest.mark.parametrize(
    ("line", "tolerance"), [("", LINEAR), ("-o 3", CUBIC), ("-bb 1 -ug", LINEAR), ("--criterion znssd -o 3", CUBIC)]
)
def test_recovers_phi_in_2d(reg: Callable[..., PhiField], line: str, tolerance: float) -> None:
    field = reg(line, ("f", "g"))
    np.testing.assert_array_equal(field.positions, [[0, 79.5, 84.5]])
    check(field, FLAT, tolerance)
    np.testing.assert_array_equal(field.phi[0][0], (1, 0, 0, 0))
    np.testing.assert_array_equal(field.phi[0][:, 0], (1, 0, 0, 0))


@pytest.mark.parametrize("pair", [SOLID, FLAT], ids=["3D", "2D"])
def test_rigid(reg: Callable[..., PhiField], tmp_path: Path, pair: AnalyticPair) -> None:
    """The rotation of a pair without strain; of one with strain a rotation still."""
    rigid = replace(pair, strain=(0, 0, 0))
    paths = save(tmp_path / "one.tif", rigid.image1()), save(tmp_path / "two.tif", rigid.image2())
    check(reg("-rig -o 3", paths), rigid, CUBIC)
    field = reg("-rig", ("a", "b") if pair is SOLID else ("f", "g"))
    assert field.columns["returnStatus"] == 2
    np.testing.assert_allclose(field.F[0].T @ field.F[0], np.eye(3), rtol=0, atol=1e-6)
    rotation = deformation.rotation_vector(field.F[0])
    expected = np.array(MOTION["rotation"]) * ([1, 1, 1] if pair is SOLID else [1, 0, 0])
    # the strain of 2 % that it may not follow turns it a little
    np.testing.assert_allclose(rotation, expected, rtol=0, atol=0.2)


def test_rigid_drops_the_stretch_of_the_guess(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    phi = deformation.compute_phi((1.0, -0.5, 2.0), (1, 0, 0), np.diag([1.05, 1, 0.97]))
    write_guess(tmp_path / "guess.tsv", phi, (23.5, 25.5, 27.5))
    field = reg(f"-rig -it 0 -bb 1 -pf {tmp_path}/guess.tsv")
    np.testing.assert_allclose(field.F[0], deformation.rotation_matrix((1, 0, 0)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(field.displacements[0], (1.0, -0.5, 2.0), rtol=0, atol=1e-6)


def test_an_image_of_one_window(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    pair = replace(SOLID, shape=(21, 21, 21), translation=(0.3, -0.2, 0.4))
    paths = save(tmp_path / "one.tif", pair.image1()), save(tmp_path / "two.tif", pair.image2())
    # 15³ voxels are compared
    check(reg("-bb 1 -o 3", paths), pair, 5 * CUBIC)


def test_large_motion_needs_levels(
    reg: Callable[..., PhiField], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight voxels are more than this texture's blobs; levels too coarse for the image are no obstacle."""
    pair = AnalyticPair(
        (64, 64, 64), seed=1, amplitude=0, radii=(6, 10), spacing=7, strain=(0, 0, 0), translation=(8, -7, 8)
    )
    paths = save(tmp_path / "one.tif", pair.image1()), save(tmp_path / "two.tif", pair.image2())
    check(reg("-bb 32", paths), pair, LINEAR)
    text = capsys.readouterr().out
    assert "working on binning:  32 - too coarse for an image of 64 × 64 × 64 voxels, left out" in text
    assert "working on binning:  8\n" in text
    assert np.abs(reg("-bb 1 -it 30", paths).displacements[0] - pair.translation).max() > 1


def test_levels(reg: Callable[..., PhiField], capsys: pytest.CaptureFixture[str]) -> None:
    field = reg("-bb 4 -be 2")
    levels = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if "working on binning" in line]
    assert levels == ["4", "2"]
    # in voxels of the full image, although the last level had voxels of two: bias of coarse texture
    np.testing.assert_allclose(field.displacements[0], MOTION["translation"], rtol=0, atol=0.05)
    field = reg("-bb 3")
    text = capsys.readouterr().out
    assert "-bb 3 is not a power of two, using 4" in text
    check(field, SOLID, LINEAR)


# ---- what takes part


def test_margin_keeps_voxels_free(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    """Image 1 is spoiled along its sides: only a margin beyond it gives the truth."""
    rng = np.random.default_rng(0)
    spoiled = rng.integers(0, 65535, SOLID.shape).astype(np.uint16)
    spoiled[7:-7, 7:-7, 7:-7] = SOLID.image1()[7:-7, 7:-7, 7:-7]
    pair = save(tmp_path / "spoiled.tif", spoiled), "b"
    check(reg("-bb 1 -o 3 -m 8 --criterion ssd", pair), SOLID, 3 * CUBIC)
    wrong = reg("-bb 1 -o 3 -m 2 -it 10 --criterion ssd", pair)
    assert np.abs(wrong.displacements[0] - MOTION["translation"]).max() > 10 * CUBIC

    sides = SOLID.image1()
    sides[:7] = spoiled[:7]
    sides[-7:] = spoiled[-7:]
    pair = save(tmp_path / "sides.tif", sides), "b"
    check(reg("-bb 1 -o 3 -m3 8 6 6 --criterion ssd", pair), SOLID, 3 * CUBIC)
    wrong = reg("-bb 1 -o 3 -m3 2 8 8 -it 10 --criterion ssd", pair)
    assert np.abs(wrong.displacements[0] - MOTION["translation"]).max() > 10 * CUBIC


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    z, y, x = np.indices(SOLID.shape)
    inside = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
    return inside.astype(np.uint8)


def test_mask(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    """What is masked may be anything."""
    mask = 1 - ball((20, 20, 30), 10)
    spoiled = np.where(mask, SOLID.image1(), np.random.default_rng(1).integers(0, 65535, SOLID.shape)).astype(np.uint16)
    pair = save(tmp_path / "spoiled.tif", spoiled), "b"
    mask_path = save(tmp_path / "mask.tif", mask)
    check(reg(f"-bb 1 -o 3 -mf1 {mask_path}", pair), SOLID, 3 * CUBIC)
    without = reg("-bb 1 -o 3 -it 10", pair)
    assert np.abs(without.displacements[0] - MOTION["translation"]).max() > 10 * CUBIC


def test_values_of_a_mask_do_not_matter(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    """128 and 256 are as good as 1, on every level (spam multiplies by 100 in 8 bits)."""
    mask = ball((24, 26, 28), 20)
    written = []
    for name, values in {
        "1": mask,
        "128": mask * np.uint8(128),
        "255": mask * np.uint8(255),
        "256": mask * np.uint16(256),
        "float": mask.astype(np.float32) * 0.25,
        "bool": mask.astype(bool),
        "below": -mask.astype(np.int16),
    }.items():
        check(reg(f"-mf1 {save(tmp_path / f'{name}.tif', values)}"), SOLID, LINEAR)
        written.append((tmp_path / "out" / "P-registration.tsv").read_bytes())
    assert len(set(written)) == 1


@pytest.mark.parametrize("pair", ["3D", "2D"])
def test_phi_at_the_centre_of_the_mask(reg: Callable[..., PhiField], tmp_path: Path, pair: str) -> None:
    truth = SOLID if pair == "3D" else FLAT
    mask = np.zeros(truth.shape, np.uint16)
    # asymmetric, and partly in the margin
    mask[: -(truth.shape[0] // 3) or None, 2:40, 20:-1] = 300
    mask[:, 30:45, 30:40] = 7
    path = save(tmp_path / "mask.tif", mask)
    field = reg(f"-rmc -o 3 -bb 2 -mf1 {path}", ("a", "b") if pair == "3D" else ("f", "g"))
    np.testing.assert_allclose(field.positions[0], np.argwhere(mask).mean(axis=0), rtol=0, atol=1e-6)
    check(field, truth, 5 * CUBIC)
    # the same Phi as at the centre of the image
    centre = reg(f"-o 3 -bb 2 -mf1 {path}", ("a", "b") if pair == "3D" else ("f", "g"))
    moved = deformation.move_centre(field.phi[0], field.positions[0], centre.positions[0])
    np.testing.assert_allclose(moved, centre.phi[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("which", ["image 1", "image 2", "both"])
def test_voxels_that_are_not_numbers_are_masked(reg: Callable[..., PhiField], tmp_path: Path, which: str) -> None:
    rng = np.random.default_rng(5)
    one, two = SOLID.image1().astype(np.float32), SOLID.image2().astype(np.float32)
    for image, name in ((one, "image 1"), (two, "image 2")):
        if which in (name, "both"):
            image[tuple(rng.integers(0, n, 60) for n in SOLID.shape)] = np.nan
            image[30, 30, 30] = np.inf
    pair = save(tmp_path / "one.tif", one), save(tmp_path / "two.tif", two)
    # holes make the coarse levels' bins holes too: from the full images
    for options in ("-bb 1", "-bb 2", "-bb 1 -o 3", "-bb 1 --criterion znssd"):
        check(reg(options, pair), SOLID, LINEAR)


# ---- types of images and grey levels


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "float32", "float64", ">u2", ">f4", ">i2"])
def test_types_of_images(reg: Callable[..., PhiField], tmp_path: Path, dtype: str) -> None:
    """Equal grey levels give equal results whatever they are stored as (spam bins some types to zeros)."""
    halves = SOLID.image1() // 2, SOLID.image2() // 2
    reg("", tuple(save(tmp_path / f"u{k}.tif", image) for k, image in enumerate(halves)))
    expected = read_tsv(tmp_path / "out" / "P-registration.tsv")
    order = ">" if dtype.startswith(">") else "<"
    pair = tuple(save(tmp_path / f"x{k}.tif", image.astype(dtype), byteorder=order) for k, image in enumerate(halves))
    field = reg("", pair)
    check(field, SOLID, LINEAR)
    # binning adds float64 in double, all others in single precision
    np.testing.assert_allclose(field.phi, expected.phi, rtol=0, atol=1e-6)
    assert field.columns["iterations"] == expected.columns["iterations"]


def test_uint8(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    pair = replace(SOLID, dtype=np.uint8)
    paths = save(tmp_path / "one.tif", pair.image1()), save(tmp_path / "two.tif", pair.image2())
    # rounding to 8 bits is noise of 0.3 grey levels at a contrast of 20
    check(reg("-o 3", paths), pair, LINEAR)


def test_znssd_does_not_see_gain_and_offset(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    plain = reg("--criterion znssd -o 3")
    changed = 0.37 * SOLID.image2().astype(np.float32) + 4000
    field = reg("--criterion znssd -o 3", ("a", save(tmp_path / "changed.tif", changed)))
    # both to the same minimum; the rest is float32
    np.testing.assert_allclose(field.phi, plain.phi, rtol=0, atol=1e-4)
    check(field, SOLID, CUBIC)
    # the error is told in the grey levels of image 1
    np.testing.assert_allclose(field.columns["error"], plain.columns["error"], rtol=0.05)


@pytest.mark.parametrize(
    ("gain", "offset", "chosen"),
    [(1, 0, "ssd"), (1.05, 0, "znssd"), (1, 300, "ssd"), (1, 800, "znssd"), (0.5, 0, "znssd"), (1.2, 0, "znssd")],
)
def test_criterion_follows_from_grey_levels(
    reg: Callable[..., PhiField],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    gain: float,
    offset: float,
    chosen: str,
) -> None:
    """The deviation is some 5000 around 19700: a tenth of it is the largest shift of the mean that ssd is given."""
    one = SOLID.image1().astype(np.float32)
    sd = float(one.std())
    assert 4000 < sd < 6000
    two = save(tmp_path / "two.tif", gain * one + np.float32(offset))
    reg("-bb 1 -it 1", (save(tmp_path / "one.tif", one), two))
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Criterion"))
    assert line.split()[1] == chosen
    assert ("agree" if chosen == "ssd" else "differ") in line


def test_criterion_that_is_asked_for(reg: Callable[..., PhiField], capsys: pytest.CaptureFixture[str]) -> None:
    for asked in ("ssd", "znssd"):
        reg(f"--criterion {asked} -bb 1")
        assert f"Criterion: {asked} (asked for" in capsys.readouterr().out


def test_masked_voxels_do_not_choose_the_criterion(
    reg: Callable[..., PhiField], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, mask = SOLID.image1(), ball((24, 26, 28), 22)
    bright = np.where(mask, one, 65535).astype(np.uint16)
    pair = save(tmp_path / "bright.tif", bright), "a"
    reg("-bb 1 -it 1", pair)
    assert "Criterion: znssd" in capsys.readouterr().out
    reg(f"-bb 1 -it 1 -mf1 {save(tmp_path / 'mask.tif', mask)}", pair)
    assert "Criterion: ssd" in capsys.readouterr().out


# ---- iterations


def test_iterations_and_limit(reg: Callable[..., PhiField]) -> None:
    norms = []
    for n in (0, 1, 2):
        field = reg(f"-bb 1 -it {n} -dp 1e-9")
        assert (field.columns["returnStatus"], field.columns["iterations"]) == (1, n)
        norms.append(float(field.columns["deltaPhiNorm"][0]))
    assert norms[0] == 100
    assert norms[2] < norms[1] < 100
    loose, tight = reg("-bb 1 -dp 0.05"), reg("-bb 1 -dp 1e-5")
    assert loose.columns["deltaPhiNorm"] <= 0.05
    assert tight.columns["deltaPhiNorm"] <= 1e-5
    assert loose.columns["iterations"] < tight.columns["iterations"]


def test_without_iterations_phi_is_the_identity(reg: Callable[..., PhiField]) -> None:
    field = reg("-bb 1 -it 0")
    np.testing.assert_array_equal(field.phi[0], np.eye(4))
    assert field.columns["error"] > 0


def test_divergence_is_told(reg: Callable[..., PhiField], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Noise, and a guess that blows it up: a row, a warning, no deformed image, and a status that scripts see."""
    rng = np.random.default_rng(2)
    for k in (1, 2):
        save(tmp_path / f"noise{k}.tif", rng.integers(0, 255, (24, 24, 24)).astype(np.uint8))
    pair = str(tmp_path / "noise1.tif"), str(tmp_path / "noise2.tif")
    write_guess(tmp_path / "guess.tsv", np.diag([1.7, 1.7, 1.7, 1.0]), (11.5, 11.5, 11.5))
    field = reg(f"-bb 1 -def -pf {tmp_path / 'guess.tsv'}", pair, status=1)
    assert field.columns["returnStatus"] == -3
    assert "do not trust it" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"P-registration.tsv"}


def test_no_texture_is_told(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    path = save(tmp_path / "even.tif", np.full((30, 30, 30), 1000, np.uint16))
    field = reg("", (path, path), status=1)
    assert (field.columns["returnStatus"], field.columns["iterations"]) == (-2, 0)
    np.testing.assert_array_equal(field.phi[0], np.eye(4))


# ---- the coarse search


AXIS, WAY = np.array([2.0, -1, 1.5]) / 2.6926, np.array([1.0, 2, -1.5]) / 2.6926
FAR = {
    "3D": AnalyticPair(
        (96, 96, 96),
        seed=4,
        amplitude=0,
        rotation=75 * AXIS,
        strain=(0.03, 0.03, 0.03),
        translation=40 * WAY,
        around=0.9,
        spacing=8,
        radii=(6, 11),
    ),
    "2D": AnalyticPair(
        (1, 180, 200), seed=4, amplitude=0, rotation=(170, 0, 0), strain=(0, -0.04, -0.04), translation=(0, 30, -25),
        around=0.8,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAR)
def test_a_coarse_search_finds_what_a_blind_registration_does_not(
    reg: Callable[..., PhiField], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """75° about an oblique axis and 40 voxels, or 170°, and a stretch: to 0.02 voxels and 0.02°."""
    pair = FAR[name]
    paths = save(tmp_path / "one.tif", pair.image1()), save(tmp_path / "two.tif", pair.image2())
    reg("", paths, status=1)
    told = capsys.readouterr().err
    assert "let --coarse look for the motion, or align them by eye in mpidvc ereg" in told
    field = reg("--coarse", paths)
    check(field, pair, 0.01)
    turn = deformation.polar(field.F[0])[0] @ deformation.polar(pair.gradient(field.positions[0]))[0].T
    assert np.linalg.norm(deformation.rotation_vector(turn)) < 0.02
    told = capsys.readouterr()
    assert told.err == ""
    stretch = 1.03 if name == "3D" else 0.96
    turned = "rotation 75.0° about [0.74 -0.37 0.56]" if name == "3D" else "rotation 170.0°"
    assert f"Coarse search: {turned}" in told.out
    assert f"stretch {stretch:.3f}" in told.out


def test_a_coarse_search_in_a_mask_and_about_its_centre(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    """Half of the image is another one: only what the mask leaves is looked at."""
    pair = FAR["2D"]
    image1 = pair.image1()
    image1[:, :90] = AnalyticPair((1, 90, 200), seed=9).image1()
    mask = np.ones(pair.shape, np.uint8)
    mask[:, :90] = 0
    paths = save(tmp_path / "one.tif", image1), save(tmp_path / "two.tif", pair.image2())
    field = reg(f"--coarse -rmc -m 0 -mf1 {save(tmp_path / 'mask.tif', mask)}", paths)
    np.testing.assert_allclose(field.positions[0], (0, 134.5, 99.5))
    check(field, pair, 0.02)


def test_a_coarse_search_of_strangers_is_doubted(
    reg: Callable[..., PhiField], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (AnalyticPair((1, 120, 130), seed=seed).image1() for seed in (1, 2))
    reg("--coarse", (save(tmp_path / "one.tif", one), save(tmp_path / "two.tif", two)), status=1)
    assert "another motion that is nearly as good" in capsys.readouterr().err


def test_a_coarse_search_without_texture_is_refused(
    reg: Callable[..., PhiField], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "even.tif", np.full((30, 31, 32), 7, np.uint8))
    assert main(["reg", path, path, "-np", "1", "--coarse", "-od", str(tmp_path / "out")]) == 2
    assert "the coarse search finds no texture in image 1; look at the image" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_convergence_to_a_wrong_place_is_noted(
    reg: Callable[..., PhiField], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A speckled plate in air, turned by 170°: its outline fits the other way round."""
    pair = AnalyticPair((1, 150, 150), seed=3, amplitude=0, rotation=(170, 0, 0), strain=(0, 0, 0), around=0.6)
    grid = np.moveaxis(np.indices(pair.shape, dtype=float), 0, -1)
    names = []
    for k, (image, places) in enumerate(((pair.image1(), grid), (pair.image2(), pair.inverse_phi(grid)))):
        depth = ((1e9, 30, 50) - np.abs(places - (0, 74.5, 74.5))).min(axis=-1)
        names.append(save(tmp_path / f"{k}.tif", (image * np.clip(depth / 2 + 0.5, 0, 1)).astype(np.uint16)))
    field = reg("", (names[0], names[1]))
    told = capsys.readouterr().out
    assert field.F[0, 1, 1] > 0.5  # and not cos 170°
    assert "if the scans may be turned or shifted far, try --coarse" in told
    check(reg("--coarse", (names[0], names[1])), pair, 0.01)
    assert "try --coarse" not in capsys.readouterr().out


# ---- guesses


def write_guess(path: Path, phi: np.ndarray, centre: tuple[float, float, float]) -> None:
    columns = {name: np.ones(1) for name in ("error", "iterations", "returnStatus", "deltaPhiNorm")}
    write_tsv(path, PhiField(np.array([centre], float), phi[None], columns, "registration"), "LDIC")


def test_guess_about_its_own_centre(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    """The file says where its Phi is centred; what is started from is that motion, at the centre of the image."""
    phi = np.eye(4)
    phi[:3, :3] = SOLID.gradient((0, 0, 0))
    corner = (3.0, 5.0, 11.0)
    phi[:3, 3] = SOLID.displacement(corner)
    write_guess(tmp_path / "guess.tsv", phi, corner)
    field = reg(f"-bb 1 -it 0 -pf {tmp_path}/guess.tsv")
    # the guess has seven digits behind the point, and an arm of 25 voxels
    np.testing.assert_allclose(field.displacements[0], MOTION["translation"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(field.F[0], phi[:3, :3], rtol=0, atol=1e-6)
    field = reg(f"-bb 1 -o 3 -pf {tmp_path}/guess.tsv")
    check(field, SOLID, CUBIC)
    assert field.columns["iterations"] <= 2


def test_guess_of_binned_images(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    phi = deformation.compute_phi((0.65, -0.35, 1.2), (1, 0, 0))
    write_guess(tmp_path / "guess.tsv", phi, (11.75, 12.75, 13.75))
    field = reg(f"-bb 1 -it 0 -pfb 2 -pf {tmp_path}/guess.tsv")
    np.testing.assert_allclose(field.displacements[0], (1.3, -0.7, 2.4), rtol=0, atol=1e-6)
    np.testing.assert_allclose(field.F[0], phi[:3, :3], rtol=0, atol=1e-6)


def test_guess_brings_it_near(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    far = replace(SOLID, translation=(9.0, -8.0, 7.0))
    pair = "a", save(tmp_path / "far.tif", far.image2())
    write_guess(tmp_path / "guess.tsv", deformation.compute_phi((8.6, -8.3, 7.2)), (23.5, 25.5, 27.5))
    # the margin keeps samples off the border of image 2, where a spline does not know how the image goes on
    check(reg(f"-bb 1 -o 3 -m 12 -pf {tmp_path}/guess.tsv", pair), far, CUBIC)
    assert np.abs(reg("-bb 1 -o 3 -m 12", pair, status=None).displacements[0] - far.translation).max() > 1


def test_own_result_is_a_guess(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    reg("-o 3")
    result = (tmp_path / "out" / "P-registration.tsv").rename(tmp_path / "result.tsv")
    again = reg(f"-o 3 -bb 1 -pf {result}")
    assert again.columns["iterations"] == 1
    check(again, SOLID, CUBIC)


# ---- what it writes


def test_names_of_the_files(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / f"{name}.tif").write_bytes((images / f"{name}.tif").read_bytes())
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "one.scan.tif").symlink_to(tmp_path / "a.tif")
    monkeypatch.chdir(tmp_path)

    def made() -> set[str]:
        return {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.tsv")}

    assert main(["reg", "a.tif", "b.tif", "-be", "4", "-np", "1"]) == 0
    assert made() == {"a-b-registration.tsv"}
    # beside the file that the link leads to, as spam does
    assert main(["reg", "links/one.scan.tif", "b.tif", "-be", "4", "-np", "1"]) == 0
    assert made() == {"a-b-registration.tsv", "one.scan-b-registration.tsv"}
    assert main(["reg", "a.tif", "b.tif", "-be", "4", "-np", "1", "-pre", "P", "-od", "new/deep"]) == 0
    assert "new/deep/P-registration.tsv" in made()
    assert len(made()) == 3


def test_overwrites(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    reg("-bb 1 -it 0")
    check(reg("-bb 1"), SOLID, LINEAR)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["P-registration.tsv"]


def test_journal(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    field = reg("-j")
    path = tmp_path / "out" / "P-registration-iterations.npy"
    journal = np.load(path, allow_pickle=True).item()
    assert list(journal) == ["t", "r", "z", "error", "deltaPhiNorm"]
    n = int(field.columns["iterations"][0])
    assert {len(values) for values in journal.values()} == {n + 1}
    assert journal["deltaPhiNorm"][0] == 100
    assert journal["deltaPhiNorm"][-1] == pytest.approx(float(field.columns["deltaPhiNorm"][0]), rel=1e-6)
    assert journal["error"][-1] == pytest.approx(float(field.columns["error"][0]), rel=1e-6)
    assert journal["error"][0] > journal["error"][-1]
    np.testing.assert_allclose(journal["t"][-1], field.displacements[0], rtol=0, atol=1e-6)
    R, U = deformation.polar(field.F[0])
    np.testing.assert_allclose(journal["r"][-1], deformation.rotation_vector(R), rtol=0, atol=1e-4)
    np.testing.assert_allclose(journal["z"][-1], np.diag(U), rtol=0, atol=1e-6)


@pytest.mark.parametrize("pair", [("a", "b"), ("f", "g")])
def test_graph(reg: Callable[..., PhiField], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple) -> None:
    image = pytest.importorskip("matplotlib.image")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    reg("-g -be 2", pair)
    path = tmp_path / "out" / "P-registration.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = image.imread(path)
    assert picture.shape[0] > 200
    assert picture.shape[1] > 800
    # a texture in grey and a difference in colours, not an empty frame
    grey = np.all(picture[..., :3] == picture[..., :1], axis=-1)
    assert len(np.unique(picture[grey][:, 0])) > 100
    assert np.mean(~grey) > 0.1


def deformed(image: np.ndarray, field: PhiField, order: int) -> np.ndarray:
    """Image 1 at Phi⁻¹ x, by scipy."""
    inverse = np.linalg.inv(field.F[0])
    centre = field.positions[0]
    offset = centre - inverse @ (centre + field.displacements[0])
    return ndimage.affine_transform(image.astype(float), inverse, offset, order=order, mode="constant", cval=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("flat", [False, True], ids=["3D", "2D"])
def test_deformed_image(reg: Callable[..., PhiField], tmp_path: Path, dtype: type, flat: bool) -> None:
    """Trilinear in 3D, cubic in 2D; integers are rounded and stay inside their type's range."""
    truth = replace(FLAT if flat else SOLID, dtype=dtype)
    one, two = truth.image1(), truth.image2()
    if flat and dtype != np.float32:
        # full black and white, over and under which a spline swings
        top = np.iinfo(dtype).max
        one[:, 60:100, 60:100] = np.where(one[:, 60:100, 60:100] > one.mean(), top, 0)
    save(tmp_path / "one.tif", one)
    field = reg("-bb 1 -def", (str(tmp_path / "one.tif"), save(tmp_path / "two.tif", two)))
    result = tifffile.imread(tmp_path / "out" / "one-reg-def.tif")
    assert result.dtype == dtype
    assert result.shape == (one.shape[1:] if flat else one.shape)
    expected = deformed(one, field, 3 if flat else 1).reshape(result.shape)
    if dtype != np.float32:
        limits = np.iinfo(dtype)
        if flat:
            assert expected.min() < limits.min
            assert expected.max() > limits.max
        expected = np.clip(np.rint(expected), limits.min, limits.max)
    # near the faces the programs treat samples outside differently
    inner = tuple(slice(12, -12) for _ in result.shape)
    difference = np.abs(result.astype(float) - expected)[inner]
    scale = float(np.ptp(expected))
    if dtype == np.float32:
        assert difference.max() < 1e-6 * scale
    else:
        # Phi is known to 7 digits, grey levels in float32: values beside a half may be rounded the other way
        assert difference.max() <= 1
        assert np.mean(difference > 0.5) < 0.02
    # it resembles image 2
    valid = (two.reshape(result.shape).astype(float) - expected)[inner]
    if not flat:
        assert valid.std() < 0.1 * two.std()


def test_deformed_image_of_a_folder_is_a_folder(reg: Callable[..., PhiField], tmp_path: Path) -> None:
    for name, image in (("one", SOLID.image1()), ("two", SOLID.image2())):
        (tmp_path / name).mkdir()
        for k, plane in enumerate(image):
            tifffile.imwrite(tmp_path / name / f"slice{k:03d}.tif", plane)
    stale = tmp_path / "out" / "one-reg-def"
    stale.mkdir(parents=True)
    (stale / "old.tif").write_text("of a run before")
    # a slash behind the folder is no part of its name
    check(reg("-def", (f"{tmp_path}/one/", f"{tmp_path}/two")), SOLID, LINEAR)
    planes = sorted(stale.iterdir())
    assert [path.name for path in planes] == [f"one-reg-def-{k:02d}.tif" for k in range(48)]
    result = np.stack([tifffile.imread(path) for path in planes])
    reg("-def")
    np.testing.assert_array_equal(result, tifffile.imread(tmp_path / "out" / "a-reg-def.tif"))


def test_log(reg: Callable[..., PhiField], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reg(f"--log {tmp_path}/log")
    printed = [line for line in capsys.readouterr().out.splitlines() if "It#" in line]
    logged = (tmp_path / "log").read_text()
    assert len(printed) >= 3
    for line in printed:
        assert line.strip() in logged


def test_slices_and_hdf5_and_compression_give_the_same_bits(
    reg: Callable[..., PhiField], images: Path, tmp_path: Path
) -> None:
    import h5py

    one, two = SOLID.image1(), SOLID.image2()
    reg("")
    expected = (tmp_path / "out" / "P-registration.tsv").read_bytes()
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["one"] = one
        file.create_dataset("two", data=two, chunks=(8, 16, 16), compression="gzip")
    save(tmp_path / "zipped.tif", two, compression="zlib")
    for pair in ((f"{tmp_path}/scan.h5::/one", f"{tmp_path}/scan.h5::/two"), ("a", f"{tmp_path}/zipped.tif")):
        reg("", pair)
        assert (tmp_path / "out" / "P-registration.tsv").read_bytes() == expected
