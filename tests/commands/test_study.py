"""`mpidvc study` as users run it: errors against what is known of them, its files, its refusals, ranks, and Python."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc.main import main
from mpidvc.workflow.study import cases_of
from tests.conftest import Job

SHAPE = (56, 58, 60)


def textured(shape: tuple[int, ...], scale: float, seed: int = 4) -> np.ndarray[Any, Any]:
    """Noise whose amplitudes are multiplied by exp(-(s k)² / 2), with a standard deviation of 1; periodic."""
    k = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n) for n in shape), indexing="ij", sparse=True)
    amplitude = np.exp(-(scale**2) * sum(q**2 for q in k) / 2)
    values = np.fft.ifftn(np.fft.fftn(np.random.default_rng(seed).normal(size=shape)) * amplitude).real
    return values / values.std()


def noise(seed: int, level: float = 2.0, shape: tuple[int, ...] = SHAPE) -> np.ndarray[Any, Any]:
    return level * np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study")
    image = 100 + 20 * textured(SHAPE, 1.6)
    fine = 100 + 20 * textured(SHAPE, 1.0)
    moved = np.roll(image, (0, 1, -1), (0, 1, 2))
    for name, values in (
        ("im1", image + noise(1)),
        ("again", moved + noise(2)),
        ("fine", fine),
        ("other", 100 + 20 * textured(SHAPE, 1.6, seed=9)),
    ):
        tifffile.imwrite(path / f"{name}.tif", values.astype(np.float32))
    tifffile.imwrite(path / "small.tif", np.zeros((20, 58, 60), np.uint8))
    return path


def run(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["study", *line.replace("@", f"{folder}/").split(), "-np", "1"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def rms(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def test_repeat_scan(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stage that has moved by whole voxels: what is left is the noise, as predicted."""
    files = f"--csv {tmp_path}/a.csv --plot {tmp_path}/a.png"
    status, out, err = run(f"@im1.tif --repeat @again.tif -hws 9 5 7 {files}", folder, capsys)
    assert (status, err) == (0, "")
    assert "Drift between the scans, which is taken off: z " in out
    assert "bias" not in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    header, *lines = (tmp_path / "a.csv").read_text().splitlines()
    table = dict(zip(header.split(","), np.array([line.split(",") for line in lines], float).T, strict=True))
    assert table["hws"].tolist() == [5, 7, 9]
    assert (table["converged"] == 1).all()
    assert np.isnan(table["biasX"]).all()
    sigma, predicted = (np.array([table[f"{name}{axis}"] for axis in "ZYX"]) for name in ("sigma", "predicted"))
    # 200 nodes, of which windows of 9 share much of their noise
    np.testing.assert_allclose(np.sqrt((sigma**2).mean(0) / (predicted**2).mean(0)), 1, atol=0.2)
    np.testing.assert_allclose(table["sigmaF"] / table["predictedF"], 1, atol=0.2)
    # the mean absolute strain of Gaussian errors is 0.8 of their deviation: less off the diagonal, the mean of two
    assert (0.45 * table["sigmaF"] < table["strainMean"]).all()
    assert (table["strainMean"] < 0.8 * table["sigmaF"]).all()


def test_drift_and_noise(folder: Path) -> None:
    found = mpidvc.study(str(folder / "im1.tif"), repeat=str(folder / "again.tif"), sizes=[5, 9], processes=1)
    assert found.drift[:3] == pytest.approx((0, 1, -1), abs=0.01)
    assert abs(found.drift[3]) < 1e-3
    assert found.noise_deviation == pytest.approx(2, rel=0.15)


def test_virtual_states(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors fall with the edge as n^-1.5 and n^-2.5, and are those predicted from white noise of known deviation."""
    status, out, err = run("@im1.tif --noise 3 -hws 7 12 --strain 0.01 --json", folder, capsys)
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["noise_deviation"] == pytest.approx(3)
    for row in found["rows"]:
        assert row["converged"] == 1
        assert rms(row["sigma"]) == pytest.approx(rms(row["predicted"]), rel=0.15)
        assert row["sigma_f"] == pytest.approx(row["predicted_f"], rel=0.15)
        # the bias of a cubic spline, and that of the noise
        assert max(row["bias"]) < 0.008
    assert found["law"][1] == pytest.approx(-1.5, abs=0.35)
    assert found["law_f"][1] == pytest.approx(-2.5, abs=0.4)


def test_bias_of_linear_interpolation(folder: Path) -> None:
    """On fine texture linear interpolation is off by some hundredths of a voxel, a cubic spline by some thousandths."""
    bias = {}
    for order in (1, 3):
        # the bias differs from node to node, which looks like noise, and is warned of
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = mpidvc.study(str(folder / "fine.tif"), noise=0.2, sizes=[8], interpolation_order=order, processes=1)
        bias[order] = max(found.rows[0].bias)
    assert bias[3] < 0.005
    assert bias[1] > 3 * bias[3]


def test_two_dimensions() -> None:
    image = 100 + 20 * textured((150, 160), 1.6)
    found = mpidvc.study(image.astype(np.float32), noise=2, sizes=[8, 16], strain=0.005, processes=1)
    for row in found.rows:
        assert row.sigma[0] == row.predicted[0] == row.bias[0] == 0
        assert rms(row.sigma[1:]) == pytest.approx(rms(row.predicted[1:]), rel=0.15)
        assert row.sigma_f == pytest.approx(row.predicted_f, rel=0.15)
    assert found.law[1] == pytest.approx(-1, abs=0.25)
    assert found.law_f[1] == pytest.approx(-2, abs=0.3)


def test_states() -> None:
    """Every axis meets every eighth of a voxel once; the strain is one along the first axis."""
    phis = cases_of(0.01, two_d=False)
    assert phis.shape == (8, 4, 4)
    for axis in range(3):
        assert sorted(phis[:7, axis, 3] * 8) == list(range(1, 8))
    np.testing.assert_allclose(np.diag(phis[7]), (1.01, 0.997, 0.997, 1))
    flat = cases_of(0.01, two_d=True)
    assert not flat[:, 0, 3].any()
    np.testing.assert_allclose(np.diag(flat[7]), (1, 1.01, 0.997, 1))
    assert len(cases_of(0.0, two_d=False)) == 7


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("@im1.tif", "where the noise is known from is missing: give a second scan of the state (--repeat), a uniform"),
        ("@im1.tif --noise 1 --repeat @again.tif", "--repeat and --noise: the noise is known from one of them; drop"),
        ("@im1.tif --noise -1", "--noise -1.0: has to be above 0 and finite"),
        ("@im1.tif --repeat @again.tif --strain 0.01", "--strain 0.01: is that of a virtual state; add --virtual"),
        ("@im1.tif --noise 1 --strain 3", "--strain 3.0: has to be between -0.2 and 0.2"),
        ("@im1.tif --noise 1 -hws 2", "-hws 2: has to be at least 3: smaller windows have too few voxels"),
        ("@im1.tif --noise 1 -hws 30", "-hws 30: is too large to be tried in 56 × 58 × 60 voxels; give 12 or less"),
        ("@im1.tif --repeat @small.tif", "--repeat @small.tif: has 20 × 58 × 60 voxels but @im1.tif has 56 × 58 × 60"),
        ("@im1.tif --repeat @none.tif", "--repeat @none.tif: does not exist; check the path"),
        ("@small.tif --noise 1", "@small.tif: 20 × 58 × 60 voxels are too few to try windows in; at least 28 along"),
        ("@im1.tif --noise 1 --csv @im1.tif", "--csv @im1.tif: is the file of image 1; give another file"),
        ("@im1.tif --noise 1 --csv @none/a.csv", "--csv @none/a.csv: there is no folder @none; make it"),
        ("@im1.tif --noise 1 --csv @a --plot @a", "--plot @a: is the file of --csv; give another file"),
        ("@im1.tif --repeat @other.tif", "--repeat @other.tif: fewer than 8 windows converge; give a second scan of"),
    ],
)
def test_refused(line: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(line, folder, capsys)
    assert (status, out) == (2, "")
    assert err.startswith(f"mpidvc study: error: {message.replace('@', f'{folder}/')}"), err
    assert err.count("\n") == 1


def test_any_number_of_ranks(folder: Path, mpiexec: Job) -> None:
    """The same study; only times differ."""

    def said(n: int) -> dict[str, Any]:
        words = [str(folder / "im1.tif"), "--noise", "2", "-hws", "6", "--json"]
        done = mpiexec(n, "-m", "mpidvc", "study", *words)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        for row in found["rows"]:
            del row["seconds"]
        return found

    assert said(1) == said(3)
