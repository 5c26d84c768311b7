"""`mpidvc suggest` as users run it: its choice against measured errors, its line, its refusals, ranks, and Python."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import mpidvc
from mpidvc.core.analytic import AnalyticPair
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.main import main
from mpidvc.tasks.trial import PILOT, groups_of, largest_window
from tests.conftest import Job

SHAPE = (64, 64, 64)
#: Standard deviation of the noise: a fifth of the texture's.
NOISE = 0.02
PAIR = AnalyticPair(
    SHAPE,
    seed=2,
    rotation=(0.3, 0.2, -0.1),
    strain=(-0.006, 0.002, 0.002),
    translation=(0.3, -0.2, 0.4),
    amplitude=0.25,
    wavelength=70,
    dtype=np.float32,
    mean=0.4,
    contrast=0.1,
)


def noisy(image: np.ndarray[Any, Any], seed: int, level: float = NOISE) -> np.ndarray[Any, Any]:
    return (image + np.random.default_rng(seed).normal(0, level, image.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suggest")
    image1, image2 = PAIR.image1(), PAIR.image2()
    np.save(path / "image1.npy", image1)
    np.save(path / "image2.npy", image2)
    tifffile.imwrite(path / "im1.tif", noisy(image1, 1))
    tifffile.imwrite(path / "im2.tif", noisy(image2, 2))
    tifffile.imwrite(path / "again.tif", noisy(image1, 3))
    tifffile.imwrite(path / "far.tif", noisy(np.roll(image1, (5, -4, 2), (0, 1, 2)), 4))
    tifffile.imwrite(path / "flat.tif", np.full((64, 64, 64), 7, np.uint8))
    tifffile.imwrite(path / "small.tif", noisy(image1[:20], 5))
    half = np.zeros(SHAPE, np.uint8)
    half[:, :, 50:] = 1
    tifffile.imwrite(path / "half.tif", half)
    tifffile.imwrite(path / "solid.tif", 1 - half)
    tifffile.imwrite(path / "nothing.tif", 0 * half)
    air = noisy(image1, 1)
    air[:, :, 50:] = np.random.default_rng(6).normal(0.02, NOISE, (64, 64, 14))
    tifffile.imwrite(path / "air.tif", air)
    return path


def run(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["suggest", *line.replace("@", f"{folder}/").split(), "-np", "1"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def told(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    status, out, _ = run(f"{line} --json", folder, capsys)
    assert status == 0
    found: dict[str, Any] = json.loads(out)
    return found


SIZES = (5, 7, 9, 12)


@pytest.fixture(scope="module")
def measured(folder: Path) -> np.ndarray[Any, Any]:
    """Errors (realisations, sizes, nodes, 3) of windows with order 3 over realisations of the noise."""
    image1, image2 = np.load(folder / "image1.npy"), np.load(folder / "image2.npy")
    axis = np.array([18.0, 25, 32, 38, 45])
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    truth = PAIR.displacement(nodes)
    guess = PhiField(nodes, np.tile(np.eye(4), (len(nodes), 1, 1)), {})
    errors = np.full((16, len(SIZES), len(nodes), 3), np.nan)
    for number in range(len(errors)):
        pair = [noisy(image1, 100 + 2 * number), noisy(image2, 101 + 2 * number)]
        for k, hws in enumerate(SIZES):
            found = mpidvc.ldic(pair, half_window_size=hws, interpolation_order=3, phi_file=guess, processes=1)
            assert (found["returnStatus"] == 2).all()
            errors[number, k] = found.displacements - truth
    return errors


def interpolated(values: np.ndarray[Any, Any], hws: int) -> float:
    return float(np.exp(np.interp(np.log(hws), np.log(SIZES), np.log(values))))


@pytest.mark.parametrize("source", ["--repeat @again.tif", "@im2.tif", "--noise 0.02", "@im2.tif --noise 0.02"])
def test_predicted_errors(
    source: str, folder: Path, measured: np.ndarray[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Within 20 % of those over realisations, and the window of a target within 2 of the smallest that meets it."""
    sigma = np.sqrt(measured.var(axis=0, ddof=1).mean(axis=2))
    median, most = np.sqrt((sigma**2).mean(axis=1)), np.quantile(sigma, 0.95, axis=1)
    target = interpolated(most, 8)
    found = told(f"@im1.tif {source} --target-sigma {target}", folder, capsys)
    rows = {row["hws"]: row for row in found["rows"]}
    for k, hws in enumerate(SIZES):
        assert rows[hws]["sigma"] == pytest.approx(median[k], rel=0.2)
        # in the smallest windows the components of a node differ, which 16 realisations cannot tell apart
        assert hws < 9 or rows[hws]["sigma95"] == pytest.approx(most[k], rel=0.2)
    assert abs(found["hws"] - 8) <= 2
    assert found["noise_deviation"] == pytest.approx(NOISE, rel=0.15)


def test_least_error(folder: Path, measured: np.ndarray[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a target: the true error of the window is at most 1.1 times the least one."""
    error = np.sqrt((measured**2).mean(axis=(0, 2, 3)))
    found = told("@im1.tif @im2.tif", folder, capsys)
    # the field has waves of 70 voxels: the best window is neither the smallest nor the largest
    assert error.argmin() in (1, 2)
    assert interpolated(error, found["hws"]) <= 1.1 * min(interpolated(error, hws) for hws in range(5, 13))
    row = next(row for row in found["rows"] if row["hws"] == 12)
    assert np.hypot(row["sigma"], row["bias"]) == pytest.approx(error[-1], rel=0.3)


def test_strain_target(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told("@im1.tif --repeat @again.tif --target-strain 4e-3", folder, capsys)
    rows = {row["hws"]: row["sigma_f95"] for row in found["rows"]}
    assert rows[found["hws"]] <= 4e-3 < rows[found["hws"] - 1]


def test_table_and_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run("@im1.tif @im2.tif", folder, capsys)
    assert (status, err) == (0, "")
    for word in ("Texture: correlated over", "Noise: standard deviation 0.0", "σ of u, median", "smoothed away"):
        assert word in out
    line = next(line for line in out.splitlines() if line.startswith("mpidvc ldic"))
    words = shlex.split(line)
    hws = words[words.index("-hws") + 1]
    assert words == ["mpidvc", "ldic", f"{folder}/im1.tif", f"{folder}/im2.tif", "-hws", hws, "-ns", hws, "-o", "3"]
    reasons = out[out.index(line) + len(line) :].split(".\n")
    assert len([one for one in reasons if one.strip()]) == 3


def test_no_noise_no_sigma(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told("@im1.tif", folder, capsys)
    assert found["noise_source"] is None
    assert all(row["sigma"] is None and row["bias"] is None for row in found["rows"])
    # three features of the texture in a window
    feature = 2 * np.sqrt(np.log(2)) * max(found["texture"]["lengths"])
    assert 2 * found["hws"] - 1 >= 3 * feature > 2 * (found["hws"] - 1) - 1
    assert "IMAGE2" in found["command"]
    _, out, _ = run("@im1.tif", folder, capsys)
    assert "σ" not in out


def test_large_displacements_are_searched(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line runs as it is, and finds the displacements of 5, -4 and 2 voxels."""
    for name in ("im1.tif", "far.tif"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    found = told("im1.tif far.tif --target-sigma 0.05", folder, capsys)
    assert found["search"] == [2, 8, -7, -1, -1, 5]
    first, second = found["command"].split(" && ")
    for line in (first, second):
        assert main([*shlex.split(line)[1:], "-np", "1"]) == 0
    capsys.readouterr()
    field = mpidvc.read_field(tmp_path / "im1-far-ldic.h5") if hasattr(mpidvc, "read_field") else None
    if field is None:
        from mpidvc.fields.read import read_field

        field = read_field(str(tmp_path / "im1-far-ldic.h5"), 1.0)
    inner = (np.abs(field.positions - 31.5) < 16).all(axis=1)
    assert np.abs(np.median(field.displacements[inner], axis=0) - (5, -4, 2)).max() < 0.05


def test_air(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fifth of the volume; its noise is that of the material, and its mask tells it."""
    found = told("@air.tif --noise-mask @half.tif --target-sigma 0.05", folder, capsys)
    # windows have to be inside: places near the faces are seen less often than the 22 % that they are
    assert 0.03 < found["texture"]["air"] < 0.25
    # the step at the face of the material is no texture
    assert max(length or np.inf for length in found["texture"]["lengths"]) < 5
    assert 0.05 < found["grey_low"] < 0.38
    assert f"-glt {found['grey_low']:g}" in found["command"]
    assert found["noise_deviation"] == pytest.approx(NOISE, rel=0.03)
    assert abs(found["noise_correlation"]) < 0.02
    assert 0 < found["nodes"] <= 216


def test_masked_voxels_do_not_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # without the air there is one class of grey levels
    found = told("@air.tif -mf1 @solid.tif --noise 0.02 --target-sigma 0.05", folder, capsys)
    assert found["texture"]["air"] == 0
    assert found["grey_low"] is None
    assert "-glt" not in found["command"]
    assert f"-mf1 {folder}/solid.tif" in found["command"]
    assert found["texture"]["mean"] == pytest.approx(tifffile.imread(folder / "air.tif")[..., :50].mean(), rel=0.01)
    # nodes are those with half of their window in the mask; beside it image 2 is another image
    mask, second = np.ones(SHAPE, np.uint8), tifffile.imread(folder / "im2.tif")
    mask[:, :, 36:], second[:, :, 37:] = 0, np.random.default_rng(8).normal(0.4, 0.1, (64, 64, 27))
    tifffile.imwrite(folder / "part.tif", mask)
    tifffile.imwrite(folder / "other.tif", second)
    found = told("@im1.tif @other.tif -mf1 @part.tif", folder, capsys)
    largest = largest_window(SHAPE)
    half = min(PILOT, largest) - 1
    nodes = np.concatenate([group.nodes for group in groups_of(SHAPE, largest)])
    shares = np.array([mask[tuple(slice(n - half, n + half + 1) for n in node)].mean() for node in nodes])
    assert found["nodes"] == (shares >= 0.5).sum()
    assert 0 < found["nodes"] < len(nodes)
    assert found["noise_deviation"] == pytest.approx(NOISE, rel=0.1)


def test_saturation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey = tifffile.imread(folder / "im1.tif")
    cut = (255 * np.clip(grey, 0.25, 0.5) / 0.5).astype(np.uint8)
    with pytest.warns(UserWarning, match="of the voxels are saturated"):
        found = mpidvc.suggest(cut, processes=1)
    assert found.texture.saturated == pytest.approx(np.mean((cut == cut.min()) | (cut == cut.max())), abs=0.01)


def test_two_dimensions() -> None:
    pair = AnalyticPair(
        (1, 200, 210), seed=1, rotation=(0.2, 0, 0), strain=(0, 0.004, -0.002), translation=(0, 0.3, -0.4),
        amplitude=0.2, wavelength=90, dtype=np.float32, mean=0.4, contrast=0.1,
    )  # fmt: skip
    found = mpidvc.suggest(noisy(pair.image1(), 1), noisy(pair.image2(), 2), processes=1)
    assert len(found.texture.lengths) == 2
    assert found.noise_deviation == pytest.approx(NOISE, rel=0.2)
    assert 7 <= found.hws <= 20
    rows = {row.hws: row for row in found.rows}
    # 2D: the error of the displacement falls with the edge, that of F with its square
    exponent = np.log(rows[30].sigma / rows[10].sigma) / np.log(59 / 19)
    exponent_f = np.log(rows[30].sigma_f / rows[10].sigma_f) / np.log(59 / 19)
    assert exponent == pytest.approx(-1, abs=0.2)
    assert exponent_f == pytest.approx(-2, abs=0.25)


def test_guess() -> None:
    """A registration leads to displacements that are beyond the search."""
    whole = AnalyticPair((40, 40, 156), seed=2, dtype=np.float32, mean=0.4, contrast=0.1).image1()
    first, moved = noisy(whole[:, :, 14:154], 1), noisy(whole[:, :, :140], 2)
    registration = PhiField(np.array([[19.5, 19.5, 69.5]]), np.eye(4)[None].copy(), {}, layout="registration")
    registration.phi[0, 2, 3] = 14
    found = mpidvc.suggest(first, moved, phi_file=registration, target_sigma=0.05, processes=1)
    assert found.noise_deviation == pytest.approx(NOISE, rel=0.2)
    assert found.search is None
    with pytest.warns(UserWarning, match=r"was not found within 8 voxels of the first guess in .* phi_file"):
        mpidvc.suggest(first, moved, noise=NOISE, target_sigma=0.05, processes=1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("@none.tif", "image @none.tif: does not exist; check the path"),
        ("@small.tif", "@small.tif: 20 × 64 × 64 voxels are too few to try windows in; at least 28 along each axis"),
        ("@flat.tif", "@flat.tif: has no texture where it was looked at; check the image"),
        ("@im1.tif @small.tif", "image 2 @small.tif: has 20 × 64 × 64 voxels but @im1.tif has 64 × 64 × 64; it needs"),
        ("@im1.tif --repeat @small.tif", "--repeat @small.tif: has 20 × 64 × 64 voxels but @im1.tif has 64 × 64 × 64;"),
        ("@im1.tif --noise-mask @small.tif", "--noise-mask @small.tif: has 20 × 64 × 64 voxels but @im1.tif has 64 ×"),
        ("@im1.tif --noise-mask @none.tif", "--noise-mask @none.tif: does not exist; check the path"),
        ("@im1.tif -mf1 @nothing.tif", "@im1.tif: has no grey levels where it was looked at; check the image, and its"),
        (
            "@im1.tif -mf1 @small.tif",
            "-mf1 @small.tif: has 20 × 64 × 64 voxels but @im1.tif has 64 × 64 × 64; the mask",
        ),
        ("@im1.tif --target-sigma 0.01", "--target-sigma 0.01: needs to know the noise: give image 2, a repeat scan"),
        ("@im1.tif --noise 0", "--noise 0.0: has to be above 0 and finite"),
        ("@im1.tif --noise 1 --repeat @again.tif", "--repeat and --noise: the noise is known from one of them; drop"),
        ("@im1.tif @im2.tif --target-sigma 1 --target-strain 1", "--target-sigma and --target-strain: a window is"),
        ("@im1.tif -pf @a.tsv", "-pf @a.tsv: is a guess of where image 2 is, but there is no image 2; give it"),
        ("@im1.tif @im2.tif --target-sigma nan", "--target-sigma nan: has to be above 0 and finite"),
    ],
)
def test_refused(line: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(line, folder, capsys)
    assert (status, out) == (2, "")
    assert err.startswith(f"mpidvc suggest: error: {message.replace('@', f'{folder}/')}"), err
    assert err.count("\n") == 1


def test_mask_with_too_few_voxels(folder: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 2, 2] = 1
    with pytest.raises(UserError, match="shows 0 voxels of a uniform region"):
        mpidvc.suggest(str(folder / "im1.tif"), noise_mask=mask, processes=1)


def test_two_scans_without_relation(folder: Path) -> None:
    """A repeat scan of something else tells no noise: the texture alone decides, with a warning."""
    other = AnalyticPair(SHAPE, seed=9, dtype=np.float32, mean=0.4, contrast=0.1).image1()
    with pytest.warns(UserWarning, match="fewer than 8 windows converge with "):
        found = mpidvc.suggest(str(folder / "im1.tif"), repeat=other, processes=1)
    assert found.noise_source is None


def test_any_number_of_ranks(folder: Path, mpiexec: Job) -> None:
    """The same suggestion; only times differ."""

    def said(n: int) -> dict[str, Any]:
        names = [str(folder / name) for name in ("im1.tif", "im2.tif")]
        done = mpiexec(n, "-m", "mpidvc", "suggest", *names, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        for row in found["rows"]:
            del row["seconds"]
        return found

    assert said(1) == said(3)


def test_nothing_is_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "im1.tif").write_bytes((folder / "im1.tif").read_bytes())
    before = sorted(tmp_path.iterdir())
    assert main(["suggest", str(tmp_path / "im1.tif"), "-np", "1"]) == 0
    assert sorted(tmp_path.iterdir()) == before


def test_a_plate_with_dark_margins_and_a_hole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Speckles of any grey level beside a black background; strain concentrates around a hole.

    The margins are skipped, and what is smoothed away is that of the plate, however uncertain windows at its edge are.
    """
    pair = AnalyticPair((1, 420, 260), seed=3, amplitude=0.0, mean=0.4, contrast=0.13, dtype=np.float32)
    rng = np.random.default_rng(4)
    texture = pair.image1()[0]
    y, x = np.indices(texture.shape)
    margin = (x < 35) | (x > 225)
    # a displacement along y that falls off within 30 voxels of the middle
    bump = np.exp(-((y - 210.0) ** 2 + (x - 130.0) ** 2) / 30**2)
    moved = ndimage.map_coordinates(texture, [y - 1.5 * bump, x], order=3, mode="mirror")
    for name, image in (("im1", texture), ("im2", moved)):
        image = np.where(margin, 0.05, image) + rng.normal(0, 0.005, texture.shape)
        tifffile.imwrite(tmp_path / f"{name}.tif", np.clip(255 * image, 0, 255).astype(np.uint8))
    found = told("@im1.tif @im2.tif", tmp_path, capsys)
    assert found["grey_low"] == pytest.approx(35, abs=15)
    rows = {row["hws"]: row for row in found["rows"]}
    # root mean square over the plate, of windows of 2 * 25 - 1 pixels: the mean over the window
    smooth = ndimage.uniform_filter(1.5 * bump, 49)
    expected = np.sqrt(((smooth - 1.5 * bump)[25:-25, 60:200] ** 2).mean() / 2)
    assert rows[25]["bias"] == pytest.approx(expected, rel=0.5)
    assert found["hws"] < 20
