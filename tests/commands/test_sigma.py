"""Random errors of ldic and ddic: calibrated on made noise, and where the noise comes from."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

import mpidvc
from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.grains import AnalyticGrains
from mpidvc.core.series import Quality, quality_of
from mpidvc.fields.hdf5 import ResultsFile, read_hdf5
from mpidvc.kernels.correlation import ERRORS, RESULT
from mpidvc.main import main
from mpidvc.tasks import noise
from mpidvc.tasks.ldic import LdicTask

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import trust

Array = NDArray[Any]

#: Voxels, node spacing and half window of the reduced form of benchmarks/trust.py: 216 nodes.
SMALL = (84, 10, 10)


@pytest.fixture(scope="module")
def clean() -> Any:
    first, second = trust.texture(SMALL[0], 1.6)
    return {order: trust.run(trust.image(first), trust.image(second), order, *SMALL[1:]) for order in (1, 3)}


@pytest.mark.parametrize(("kind", "level"), trust.NOISES)
def test_cubic_errors_are_calibrated(clean: Any, kind: str, level: float) -> None:
    one = trust.judge(1.6, kind, level, 3, *SMALL, clean[3])
    assert one.nodes >= 200
    # the middle of the components: each has a statistical error of 6 %, from 216 windows that overlap
    assert np.mean(one.u) == pytest.approx(1, abs=0.15)
    assert np.mean(one.F) == pytest.approx(1, abs=0.20)
    assert one.beyond < 0.01
    # what a formula for white noise would have said
    if kind == "correlated":
        assert one.naive > 2.5


@pytest.mark.parametrize(("texture", "hws"), [(1.6, 5), (3.0, 7)])
def test_errors_of_small_windows_in_correlated_noise(texture: float, hws: int) -> None:
    """Of 9 and 13 voxels, of which the fit takes a part; kappa of wide windows gives 0.73 and 0.66, 0.84 and 0.78."""
    first, second = trust.texture(SMALL[0], texture)
    clean = trust.run(trust.image(first), trust.image(second), 3, 9, hws)
    one = trust.judge(texture, "correlated", 0.1, 3, SMALL[0], 9, hws, clean)
    # at least 343 windows that hardly overlap: 4 % for each component, of which there are 3 and 9
    assert one.nodes >= 343
    assert np.mean(one.u) == pytest.approx(1, abs=0.15)
    assert np.mean(one.F) == pytest.approx(1, abs=0.20)


def test_linear_errors_are_not_too_small(clean: Any) -> None:
    one = trust.judge(1.6, "correlated", 0.1, 1, *SMALL, clean[1])
    assert 0.6 < one.truth < 1.3


def test_linear_interpolation_of_fine_texture_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = trust.texture(SMALL[0], 1.0)
    for k, values in enumerate((first, second)):
        tifffile.imwrite(tmp_path / f"{k}.tif", trust.image(values + 0.1 * trust.noise(SMALL[0], "white", k)))
    pair = [str(tmp_path / f"{k}.tif") for k in (0, 1)]
    told = {}
    for order in ("1", "3"):
        more = ["-ns", "20", "-hws", "10", "-o", order, "--sigma", "-od", str(tmp_path / order), "-np", "1"]
        assert main(["ldic", *pair, *more]) == 0
        shown = capsys.readouterr()
        told[order] = float(shown.out.partition(f"(-o {order}) errs by up to ")[2].split()[0])
        assert ("take a cubic spline (-o 3)" in shown.out + shown.err) == (order == "1")
    # the amplitudes of waves whose root mean squares are 0.0144 and 0.0021 voxel (benchmarks/trust.py)
    assert told["1"] == pytest.approx(0.0144 * 2**0.5, rel=0.2)
    assert told["3"] == pytest.approx(0.0021 * 2**0.5, rel=0.35)


def test_errors_in_two_dimensions() -> None:
    pair = AnalyticPair((1, 260, 280), seed=4, rotation=(0.5, 0, 0), amplitude=0.1)
    one, two = pair.image1()[0].astype(float), pair.image2()[0].astype(float)
    random, errors, sigma = np.random.default_rng(1), [], []
    clean = mpidvc.ldic([one, two], node_spacing=24, half_window_size=14, interpolation_order=3, processes=1)
    for _ in range(6):
        noisy = [image + ndimage.gaussian_filter(random.normal(0, 900, image.shape), 0.7) for image in (one, two)]
        field = mpidvc.ldic(noisy, node_spacing=24, half_window_size=14, interpolation_order=3, processes=1, sigma=True)
        good = (field["returnStatus"] == 2) & (clean["returnStatus"] == 2)
        errors.append((field.displacements - clean.displacements)[good, 1:])
        sigma.append(np.stack([field["sigmaYdisp"], field["sigmaXdisp"]], axis=-1)[good])
        assert (field["sigmaZdisp"][good] == 0).all()
    # some 600 windows of which neighbours share a quarter
    assert (np.concatenate(errors) / np.concatenate(sigma)).std(axis=0) == pytest.approx(1, abs=0.2)


def test_labels_have_errors() -> None:
    grains = AnalyticGrains((64, 66, 68), 12, kind="clumps", radii=(7.0, 8.0), gap=2.0, touching=0.0, seed=3)
    one, two, labels = grains.image1().astype(float), grains.image2().astype(float), grains.labels1()
    level = 0.1 * one[labels > 0].std()
    clean = mpidvc.ddic(one, labels, two, interpolation_order=3, processes=1)
    random, z = np.random.default_rng(2), []
    for _ in range(8):
        noisy = [image + level * random.normal(size=image.shape) for image in (one, two)]
        field = mpidvc.ddic(noisy[0], labels, noisy[1], interpolation_order=3, sigma=True, processes=1)
        good = (field["returnStatus"] == 2) & (clean["returnStatus"] == 2)
        good[0] = False
        error = (field.displacements - clean.displacements)[good]
        z.append(error / np.stack([field[name] for name in ERRORS[:3]], axis=-1)[good])
        assert np.isnan(field["sigmaZdisp"][0])
        # rigid: a stretch has no error but that of the rotation by some degrees
        assert (field["sigmaFzz"][good] < 0.1 * field["sigmaFzy"][good]).all()
    # 90 labels
    assert np.concatenate(z).std(axis=0) == pytest.approx(1, abs=0.25)


needs_data = pytest.mark.skipif("MPIDVC_DATA" not in os.environ, reason="needs data")
DATA = Path(os.environ.get("MPIDVC_DATA", ""))


@needs_data
@pytest.mark.parametrize("hws", [11, 21])
def test_sample_14_of_the_dic_challenge(hws: int) -> None:
    """Images that were made with a displacement along x and with noise: that along y is 0."""
    folder = DATA / "2d" / "dic_challenge_14"
    pair = [str(folder / f"Sample14_{name}.tif") for name in ("Reference", "L3_Amp0.1b")]
    found = mpidvc.ldic(pair, node_spacing=24, half_window_size=hws, interpolation_order=3, processes=1, sigma=True)
    good = (found["returnStatus"] == 2) & (found["coverage"] == 1)
    assert good.sum() > 1500
    v = found["Ydisp"][good]
    assert ((v - v.mean()) / found["sigmaYdisp"][good]).std() == pytest.approx(1, abs=0.2)


@needs_data
@pytest.mark.parametrize("kind", ["white", "tomogram"])
def test_sandstone_with_made_noise(kind: str) -> None:
    """A scan with two noises: what differs from 0 is their error."""
    stone = tifffile.imread(DATA / "3d" / "v4_sandstone" / "V4_crop200_Intact.tif")[20:104, 20:104, 20:104]
    noisy = [stone + 0.2 * stone.std() * trust.noise(84, kind, seed) for seed in (1, 2)]
    found = mpidvc.ldic(noisy, node_spacing=10, half_window_size=11, interpolation_order=3, processes=1, sigma=True)
    good = (found["returnStatus"] == 2) & (found["coverage"] == 1)
    assert good.sum() > 200
    z = found.displacements[good] / np.stack([found[name] for name in ERRORS[:3]], axis=-1)[good]
    # 216 windows that overlap: 5 % for all components
    assert z.std() == pytest.approx(1, abs=0.2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state (a, b) scanned twice, another state (c), and air in a corner; correlated noise of 400 grey levels."""
    folder = tmp_path_factory.mktemp("noise")
    pair = AnalyticPair((56, 60, 64), seed=6, translation=(0.4, -0.3, 0.6), amplitude=0.1)
    one, two = pair.image1().astype(float), pair.image2().astype(float)
    one[:40, :40, :40], two[:40, :40, :40] = one[:40, :40, :40], two[:40, :40, :40]
    random = np.random.default_rng(3)

    def noisy(image: Array) -> Array:
        noise = ndimage.gaussian_filter(random.normal(size=image.shape), 0.8)
        return np.rint(image + 400 * noise / noise.std()).astype(np.uint16)

    air = np.full((40, 60, 64), 9000.0)
    mask = np.zeros((96, 60, 64), np.uint8)
    mask[57:] = 1
    for name, image in (("a", one), ("b", one), ("c", two)):
        tifffile.imwrite(folder / f"{name}.tif", noisy(np.concatenate([image, air])), photometric="minisblack")
    tifffile.imwrite(folder / "air.tif", mask, photometric="minisblack")
    tifffile.imwrite(folder / "nothing.tif", mask * 0, photometric="minisblack")
    tifffile.imwrite(folder / "plane.tif", np.zeros((60, 64), np.uint16), photometric="minisblack")
    return folder


WINDOWS = "-ns 14 -hws 8 -o 3 -glt 12000 -np 1"


def ldic(images: Path, monkeypatch: pytest.MonkeyPatch, line: str, *more: str) -> int:
    monkeypatch.chdir(images)
    return main(["ldic", *line.split(), *WINDOWS.split(), *more])


def noise_of(path: Path) -> tuple[Array, float]:
    with ResultsFile(path) as file:
        noise, level = file.noise(), np.nanmedian(file.column("noise"))
    assert noise is not None
    return noise["noiseCovariance"], float(level)


def test_sources_of_the_noise(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Residual, repeated scan and uniform region tell the same noise: 400 grey levels, correlated as it was made."""
    square = np.array([0.0, 1.0, 2.0]) ** 2
    expected = 400**2 * np.exp(-square / (4 * 0.8**2))
    repeat = str(tmp_path / "a-b-ldic.h5")
    for line, told, name in (
        ("a.tif b.tif --sigma", "from the residual", "a-b-ldic"),
        ("a.tif c.tif --sigma -pre own", "from the residual", "own-ldic"),
        (f"a.tif c.tif --sigma -pre again --noise-from {repeat}", "from a-b-ldic.h5", "again-ldic"),
        ("a.tif c.tif --sigma -pre air --noise-mask air.tif", "of the region air", "air-ldic"),
    ):
        assert ldic(images, monkeypatch, line, "-od", str(tmp_path)) == 0
        shown = capsys.readouterr().out
        assert f"Noise {told}, " in shown
        assert "Random error of the displacement, 1 sigma, median (95 % of the points below): z 0.0" in shown
        covariance, level = noise_of(tmp_path / f"{name}.h5")
        # the pooled windows have some 10 000 voxels that count; the fit takes some per cent of a residual
        assert covariance[6, 6, 6:9] == pytest.approx(expected, rel=0.1, abs=8000)
        # of two images, of which the second has passed a spline
        assert 1.25 * 400 < level < 1.45 * 400
        with h5py.File(tmp_path / f"{name}.h5") as file:
            assert file["mpidvc"].attrs["noise"] == told


def test_columns(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ldic(images, monkeypatch, "a.tif c.tif --sigma -vtk -tif -it 3 -dp 1e-2", "-od", str(tmp_path)) in (0, 1)
    assert ldic(images, monkeypatch, "a.tif c.tif -it 3 -dp 1e-2 -pre off", "-od", str(tmp_path)) in (0, 1)
    with ResultsFile(tmp_path / "a-c-ldic.h5") as on, ResultsFile(tmp_path / "off-ldic.h5") as off:
        assert on.layout.columns == (*off.layout.columns, *ERRORS)
        assert off.noise() is None
        status = on.column("returnStatus")
        assert set(status) > {2.0}
        for name in ERRORS:
            values = on.column(name)
            assert (np.isfinite(values) == (status == 2)).all()
            assert (values[status == 2] > 0).all()
        # nothing else is another
        for name in off.layout.columns:
            np.testing.assert_array_equal(on.column(name), off.column(name))
    texts = [(tmp_path / f"{name}.tsv").read_text() for name in ("a-c-ldic", "off-ldic")]
    assert texts[0] == texts[1]
    # more points than a dataset of the noise has rows
    more = ["-ns", "4", "-hws", "4", "-it", "1", "-od", str(tmp_path), "-pre"]
    for line, prefix in (("a.tif c.tif --sigma", "many"), ("a.tif c.tif", "plain")):
        assert ldic(images, monkeypatch, line, *more, prefix) in (0, 1)
    assert (tmp_path / "many-ldic.tsv").read_text() == (tmp_path / "plain-ldic.tsv").read_text()
    assert (tmp_path / "a-c-ldic-sigmaZdisp.tif").exists()
    assert "sigmaFxx" in (tmp_path / "a-c-ldic.vtk").read_text()


def test_a_run_that_is_resumed_has_the_same_errors(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "part"):
        (tmp_path / name).mkdir()
    line = "a.tif c.tif --sigma"
    assert ldic(images, monkeypatch, line, "-od", str(tmp_path / "whole")) == 0
    run, count = LdicTask.run, 0

    def some(self: LdicTask, chunk: int) -> Any:
        nonlocal count
        # not the windows that tell the noise
        count += self.dtype["result"].shape[0] > len(RESULT)
        if count > 10:
            raise KeyboardInterrupt
        return run(self, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(LdicTask, "run", some)
        assert ldic(images, monkeypatch, line, "-od", str(tmp_path / "part")) not in (0, 1)
    assert ldic(images, monkeypatch, line, "--resume", "-od", str(tmp_path / "part")) == 0
    assert (tmp_path / "part" / "a-c-ldic.h5").read_bytes() == (tmp_path / "whole" / "a-c-ldic.h5").read_bytes()


def test_the_errors_go_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raw strain has those of F; the test of outliers allows for three of them."""
    assert ldic(images, monkeypatch, "a.tif c.tif --sigma -pre P", "-od", str(tmp_path)) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["regularStrain", "P-ldic.h5", "-raw", "-comp", "e", "vol", "-np", "1"]) == 0
    with ResultsFile("P-ldic-strain-raw.h5") as strain, ResultsFile("P-ldic.h5") as field:
        good = strain.column("returnStatus") == 2
        # to first order: small strains of some 1e-2
        expected = [field.column("sigmaFzz"), np.hypot(field.column("sigmaFzy"), field.column("sigmaFyz")) / 2]
        for name, values in zip(("ezz", "ezy"), expected, strict=True):
            np.testing.assert_allclose(strain.column(f"sigma{name}")[good], values[good], rtol=1e-6)
        # at the border errors are several per cent, and so are products with strains
        trace = np.sqrt(sum(field.column(f"sigmaF{a}{a}") ** 2 for a in "zyx"))
        np.testing.assert_allclose(strain.column("sigmavol")[good], trace[good], rtol=0.1)
    assert main(["filterPhiField", "-pf", "P-ldic.h5", "--outliers", "-np", "1"]) == 0
    with ResultsFile("P-ldic.h5") as field:
        errors = np.max([field.column(name) for name in ERRORS[:3]], axis=0)
    assert f"epsilon {3 * np.nanmedian(errors):g} voxels, threshold 6" in capsys.readouterr().out
    again = ["--outlier-threshold", "5", "--overwrite"]
    assert main(["filterPhiField", "-pf", "P-ldic.h5", "--outliers", "-np", "1", *again]) == 0
    assert "epsilon 0.03 voxels, threshold 5" in capsys.readouterr().out


@pytest.mark.parametrize(("spacing", "hws"), [(5, 9), (10, 9), (12, 6)])
def test_errors_of_strain_are_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spacing: int, hws: int
) -> None:
    """Cells and local fits of nodes whose windows overlap by much, by half, and by nothing (17 and 11 voxels)."""
    n = SMALL[0]
    first, second = trust.texture(n, 1.6)
    monkeypatch.chdir(tmp_path)
    for name, level in (("clean", 0.0), ("noisy", 0.1)):
        for state, image, seed in (("a", first, 11), ("b", second, 12)):
            values = trust.image(image + level * trust.noise(n, "correlated", seed))
            tifffile.imwrite(f"{state}.tif", values, photometric="minisblack")
        windows = f"-ns {spacing} -hws {hws} -o 3 -np 1 -notsv -pre {name}".split()
        assert main(["ldic", "a.tif", "b.tif", "--sigma", *windows]) == 0
        for mode in ([], ["-g"]):
            again = ["regularStrain", f"{name}-ldic.h5", "-comp", "e", "vol", "-np", "1", "-notsv", *mode]
            assert main(again) == 0
    for mode in ("Q8", "Geers"):
        with (
            ResultsFile(f"noisy-ldic-strain-{mode}.h5") as noisy,
            ResultsFile(f"clean-ldic-strain-{mode}.h5") as clean,
        ):
            positions = noisy.positions()
            inner = ((positions > 2 * hws) & (positions < n - 2 * hws)).all(axis=1)
            good = inner & (noisy.column("returnStatus") == 2) & (clean.column("returnStatus") == 2)
            assert good.sum() > 60
            z = [
                (noisy.column(name) - clean.column(name))[good] / noisy.column(f"sigma{name}")[good]
                for name in ("ezz", "ezy", "ezx", "eyy", "eyx", "exx", "vol")
            ]
        assert np.mean([np.std(one) for one in z]) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--noise-from x.h5", ("--noise-from x.h5", "--sigma")),
        ("--noise-mask air.tif", ("--noise-mask air.tif", "--sigma")),
        ("--sigma --noise-from x.h5 --noise-mask air.tif", ("--noise-from --noise-mask",)),
        ("--sigma --noise-from x.h5", ("x.h5", "does not exist")),
        ("--sigma --noise-from a.tif", ("a.tif", "no results file")),
        ("--sigma --noise-from plain-ldic.h5", ("--noise-from plain-ldic.h5", "--sigma")),
        ("--sigma --noise-mask none.tif", ("--noise-mask none.tif: does not exist",)),
        ("--sigma --noise-mask plane.tif", ("--noise-mask plane.tif", "60 × 64")),
        ("--sigma -shift", ("-shift --sigma",)),
    ],
)
def test_refused(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    words: tuple[str, ...],
) -> None:
    if "plain" in line and not (images / "plain-ldic.h5").exists():
        assert ldic(images, monkeypatch, "a.tif c.tif -pre plain -ns 40 -notsv") == 0
    capsys.readouterr()
    assert ldic(images, monkeypatch, f"a.tif c.tif {line}", "-od", str(tmp_path / "out")) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("mpidvc ldic: error: ")
    for word in words:
        assert word in told
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_mask_without_a_region(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ldic(images, monkeypatch, "a.tif c.tif --sigma --noise-mask nothing.tif", "-od", str(tmp_path)) == 2
    assert "--noise-mask nothing.tif: no cube" in capsys.readouterr().err


def changing_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state becomes the reference of the next: from the reference before it is poor, and then it is not."""
    looks = itertools.count()

    class Poor(Quality):
        poor = True

    def looked_at(status: Array, zncc: Array) -> Quality:
        return (Poor if next(looks) % 2 else Quality)(*quality_of(status, zncc))

    monkeypatch.setattr("mpidvc.workflow.series.quality_of", looked_at)


@pytest.mark.parametrize("kind", ["white", "correlated"])
def test_totals_over_ten_references_are_calibrated(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven states with noises of their own; every state is the reference of the next, as if the others were poor."""
    n, steps = 64, 10
    fields = [(np.eye(3) + k / steps * (trust.FIELD - np.eye(3)), k * trust.SHIFT) for k in range(steps + 1)]
    for k, values in enumerate(trust.states(n, 1.6, fields)):
        noisy = trust.image(values + 0.1 * trust.noise(n, kind, 100 + k))
        tifffile.imwrite(tmp_path / f"s{k:02d}.tif", noisy, photometric="minisblack")
    changing_always(monkeypatch)
    monkeypatch.chdir(tmp_path)
    names = [f"s{k:02d}.tif" for k in range(steps + 1)]
    options = ["-ns", "8", "-hws", "7", "-o", "3", "--update-reference", "--sigma", "-np", "1", "-notsv"]
    assert main(["ldic", *names, *options]) == 0
    for k in (1, 5, 10):
        field = read_hdf5(f"s00-s{k:02d}-ldic-total.h5")
        inner = ((field.positions > 12) & (field.positions < n - 18)).all(axis=1)
        good = inner & (field["returnStatus"] == 2)
        assert good.sum() >= 60
        F, shift = fields[k]
        truth = (field.positions - (n - 1) / 2) @ (F - np.eye(3)).T + shift
        z = (field.displacements - truth)[good] / np.stack([field[name] for name in ERRORS[:3]], axis=-1)[good]
        zf = (field.F - F)[good].reshape(-1, 9) / np.stack([field[name] for name in ERRORS[3:12]], axis=-1)[good]
        # 64 windows that share a third: 6 % for the mean of the components
        assert z.std(axis=0).mean() == pytest.approx(1, abs=0.2)
        assert zf.std(axis=0).mean() == pytest.approx(1, abs=0.2)
    reference = json.loads(h5py.File("s00-s10-ldic-total.h5")["mpidvc"].attrs["determines"])["reference"]
    assert reference == "s09"


def test_totals_of_windows_per_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of the reference cancels in the voxels that the windows of a node share, in closed form."""
    shape = (36, 36, 120)
    # the contrast falls along x, and windows become larger
    contrast = 10 ** (-np.arange(120) / 150)
    moves = [np.zeros(3), np.array([0.3, -0.25, 0.4]), np.array([0.55, -0.5, 0.75])]
    texture = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=shape), 1.6, mode="wrap")
    for k, move in enumerate(moves):
        values = ndimage.shift(texture / texture.std(), move, order=5, mode="grid-wrap") * contrast
        noisy = trust.image(values + 0.05 * trust.noise(shape, "white", k))
        tifffile.imwrite(tmp_path / f"s{k}.tif", noisy, photometric="minisblack")
    changing_always(monkeypatch)
    monkeypatch.setattr(noise, "PILOTS", 16)
    monkeypatch.chdir(tmp_path)
    words = "-ns 9 -hws 14 -o 3 --adaptive 0.02 --adaptive-from 4 --update-reference -np 1 -notsv"
    assert main(["ldic", *(f"s{k}.tif" for k in range(3)), *words.split()]) == 0
    with (
        ResultsFile("s0-s1-ldic.h5") as one,
        ResultsFile("s1-s2-ldic.h5") as two,
        ResultsFile("s0-s2-ldic-total.h5") as total,
    ):
        good = total.column("returnStatus") == 2
        moved = one.positions() + one.field().displacements
        before, after = (2 * each.column("halfWindowSize")[good, None] - 1 for each in (one, two))
        first, second, both = (each.column("sigmaXdisp")[good] ** 2 for each in (one, two, total))
        apart = np.abs(np.rint(moved) - moved)[good]
    common = np.minimum(np.minimum(before, after), (before + after) / 2 - apart)
    expected = second + first * (1 - (common / after).prod(axis=1))
    # the errors of F, of a per cent, deform windows besides
    np.testing.assert_allclose(both, expected, rtol=0.03)


def test_totals_over_a_change_of_the_reference_have_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = AnalyticPair((40, 44, 48), seed=2, translation=(0.4, -0.3, 0.6), amplitude=0.1, noise=0.004)
    other = AnalyticPair((40, 44, 48), seed=9, translation=(0.4, -0.3, 0.6), amplitude=0.1)
    aged = (pair.image2() * 0.55 + other.image2() * 0.45).astype(np.uint16)
    monkeypatch.chdir(tmp_path)
    for name, image in (("a", pair.image1()), ("b", pair.image2()), ("aged", aged)):
        tifffile.imwrite(f"{name}.tif", image, photometric="minisblack")
    main(["ldic", "a.tif", "b.tif", "aged.tif", "-ns", "14", "-hws", "8", "--update-reference", "--sigma", "-np", "1"])
    with ResultsFile("a-b-ldic-total.h5") as first, ResultsFile("a-aged-ldic-total.h5") as second:
        assert np.isfinite(first.column("sigmaZdisp")[first.column("returnStatus") == 2]).all()
        sigma, good = second.column("sigmaZdisp"), second.column("returnStatus") == 2
        assert (np.isfinite(sigma) == good).all()
        # at least that of its own step
        with ResultsFile("b-aged-ldic.h5") as step:
            assert (sigma[good] >= step.column("sigmaZdisp")[good]).all()
