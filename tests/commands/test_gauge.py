"""`mpidvc gauge` as users run it: readings of known fields, its table and picture, its refusals, ranks, and Python."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc.core.analytic import AnalyticPair
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import write_tsv
from mpidvc.main import main

DIMS = (5, 6, 8)
NODES = 10.0 * (1 + np.stack(np.unravel_index(np.arange(240), DIMS), axis=1))
STRAIN = np.array([[0.002, 0.0005, 0], [0, -0.001, 0], [0.0003, 0, 0.004]])


def field(state: int, noise: float = 0.0) -> PhiField:
    """State of a series that is strained more and more; some of its points are bad."""
    random = np.random.default_rng(state)
    phi = np.tile(np.eye(4), (240, 1, 1))
    phi[:, :3, 3] = state * (NODES @ STRAIN.T + (1, 0, -2)) + noise * random.normal(size=(240, 3))
    status = np.where(random.random(240) < 0.1, -1.0, 2.0)
    phi[status < 0, :3, 3] += 50
    columns = {"returnStatus": status} | {name: np.ones(240) for name in ("error", "deltaPhiNorm", "iterations")}
    return PhiField(NODES, phi, columns | {"level": NODES[:, 2]}, "grid", DIMS, (10.0, 10.0, 10.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gauge")
    told = {"determines": json.dumps({"command": "ldic", "-hws": [8, 8, 8]})}
    for state in (1, 2, 3):
        write_hdf5(made / f"s{state}.h5", field(state), 1.0, "voxel", told)
    noisy = field(1, 0.01)
    write_hdf5(made / "noisy.h5", noisy, 1.0, "voxel", told)
    write_tsv(made / "noisy.tsv", noisy, "LDIC")
    bad = field(1)
    bad.columns["returnStatus"] = np.full(240, -1.0)
    bad.columns["returnStatus"][0] = 2
    write_hdf5(made / "lost.h5", bad, 1.0, "voxel", told)
    labels = np.zeros((60, 70, 90), np.uint8)
    labels[:, :, :45], labels[:, :, 45:], labels[:25] = 3, 7, 0
    tifffile.imwrite(made / "labels.tif", labels)
    return made


def read(path: Path) -> dict[tuple[str, str, str], dict[str, float]]:
    with path.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {
        (row["state"], row["gauge"], row["quantity"]): {name: float(row[name]) for name in ("value", "standardError")}
        | {"points": int(row["points"]), "independent": float(row["independent"])}
        for row in rows
    }


def run(line: str, folder: Path, status: int = 0) -> None:
    assert main(["gauge", *line.replace("@", f"{folder}/").split(), "-np", "1"]) == status


def test_a_series_is_read_in_all_its_states(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = f"--tsv {tmp_path}/g.tsv --plot {tmp_path}/g.png"
    gauges = "--extensometer 20 20 15 20 20 75 15 15 15 45 55 65 --box 0 0 0 30 30 90 --labels @labels.tif"
    run(f"@s1.h5 @s2.h5 @s3.h5 {gauges} --columns level {files}", folder)
    assert capsys.readouterr().err == ""
    found = read(tmp_path / "g.tsv")
    for state in (1, 2, 3):
        F = np.eye(3) + state * STRAIN
        for number, arm in ((1, (0, 0, 60)), (2, (30, 40, 50))):
            expected = np.linalg.norm(F @ arm) / np.linalg.norm(arm) - 1
            row = found[str(state), f"extensometer {number}", "strain"]
            # nine digits are written
            assert row["value"] == pytest.approx(expected, abs=1e-10)
            assert row["standardError"] < 1e-12
            row = found[str(state), f"extensometer {number}", "elongation"]
            assert row["value"] == pytest.approx(expected * np.linalg.norm(arm), abs=1e-8)
        good = field(state)["returnStatus"] == 2
        inside = {
            "box 1": (NODES[:, 0] <= 30) & (NODES[:, 1] <= 30),
            "label 3": (NODES[:, 0] >= 25) & (NODES[:, 2] < 45),
            "label 7": (NODES[:, 0] >= 25) & (NODES[:, 2] >= 45),
        }
        GL = (F.T @ F - np.eye(3)) / 2
        for gauge, chosen in inside.items():
            row = found[str(state), gauge, "Xdisp"]
            assert row["points"] == (good & chosen).sum()
            assert row["value"] == pytest.approx(field(state)["Xdisp"][good & chosen].mean(), abs=1e-6)
            # windows of 15 voxels, 10 apart
            assert 1 < row["independent"] < 0.6 * row["points"]
            assert found[str(state), gauge, "level"]["value"] == pytest.approx(NODES[good & chosen, 2].mean())
            assert found[str(state), gauge, "GLzy"]["value"] == pytest.approx(GL[0, 1], abs=1e-10)
            assert found[str(state), gauge, "GLxx"]["value"] == pytest.approx(GL[2, 2], abs=1e-10)
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")


def test_windows_come_from_the_file_or_the_option(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"@noisy.h5 --tsv {tmp_path}/told.tsv", folder)
    assert capsys.readouterr().err == ""
    run(f"@noisy.tsv --tsv {tmp_path}/untold.tsv", folder)
    assert "the windows of the points are not known" in capsys.readouterr().err
    run(f"@noisy.tsv --window 15 --tsv {tmp_path}/given.tsv", folder)
    told, untold, given = (read(tmp_path / f"{name}.tsv")["1", "all", "Zdisp"] for name in ("told", "untold", "given"))
    # text has seven decimals
    assert given["standardError"] == pytest.approx(told["standardError"], rel=1e-3)
    assert given["independent"] == told["independent"]
    assert untold["independent"] == untold["points"] == told["points"]
    # the mean of 210 independent numbers; the deviation of the noise is known to 5 %
    assert untold["standardError"] == pytest.approx(0.01 / np.sqrt(untold["points"]), rel=0.2)
    assert told["standardError"] > 1.3 * untold["standardError"]
    # windows of the nodes, of 5 voxels, that do not touch
    own = field(1, 0.01)
    own.columns["halfWindowSize"] = np.full(240, 3.0)
    settings = json.dumps({"command": "ldic", "-hws": [8, 8, 8]})
    write_hdf5(tmp_path / "own.h5", own, attributes={"determines": settings})
    run(f"{tmp_path}/own.h5 --box 0 0 0 99 99 99 --extensometer 20 20 15 20 20 75 --tsv {tmp_path}/own.tsv", folder)
    assert read(tmp_path / "own.tsv")["1", "box 1", "Zdisp"] == untold


def test_strain_files_have_the_window_of_their_gauge(folder: Path, tmp_path: Path) -> None:
    assert main(f"regularStrain {folder}/noisy.h5 -np 1 -od {tmp_path} -comp dev".split()) == 0
    run(f"{tmp_path}/noisy-strain-Q8.h5 --columns dev --tsv {tmp_path}/a.tsv", folder)
    run(f"{tmp_path}/noisy-strain-Q8.h5 --columns dev --tsv {tmp_path}/b.tsv --window 25", folder)
    assert (tmp_path / "a.tsv").read_text() == (tmp_path / "b.tsv").read_text()


def test_two_dimensions_from_correlation_to_reading(tmp_path: Path) -> None:
    pair = AnalyticPair((1, 150, 200), 2, (0, 0, 0), (0, 0.01, -0.004), (0, 1.2, -0.4), amplitude=0.0)
    for name, image in (("a", pair.image1()), ("b", pair.image2())):
        tifffile.imwrite(tmp_path / f"{name}.tif", image[0], photometric="minisblack")
    assert main(f"ldic {tmp_path}/a.tif {tmp_path}/b.tif -ns 10 -hws 12 -o 3 -np 1".split()) == 0
    run(f"{tmp_path}/a-b-ldic.h5 --extensometer 0 75 30 0 75 170 --tsv {tmp_path}/g.tsv", tmp_path)
    run(f"{tmp_path}/a-b-ldic.h5 --tsv {tmp_path}/r.tsv", tmp_path)
    ends = np.array([(0, 75.0, 30.0), (0, 75.0, 170.0)])
    arm = np.diff(ends + pair.displacement(ends), axis=0)[0]
    row = read(tmp_path / "g.tsv")["1", "extensometer 1", "strain"]
    # the noise of 8-bit grey levels: some standard errors, and not nothing
    assert abs(row["value"] - (np.linalg.norm(arm) / 140 - 1)) < max(5 * row["standardError"], 1e-5)
    regions = read(tmp_path / "r.tsv")
    assert {quantity for _, _, quantity in regions} == {"Ydisp", "Xdisp", "GLyy", "GLyx", "GLxx"}


def test_a_field_that_is_not_affine(tmp_path: Path) -> None:
    """A wave along every axis, correlated in made volumes: the readings are those of the closed form."""
    pair = AnalyticPair((60, 62, 64), 5, amplitude=0.4, wavelength=90.0, strain=(0.004, -0.003, 0.002))
    for name, image in (("a", pair.image1()), ("b", pair.image2())):
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="minisblack")
    assert main(f"ldic {tmp_path}/a.tif {tmp_path}/b.tif -ns 5 -hws 5 -o 3 -np 1".split()) == 0
    numbers = "12 15 15 48 40 50"
    files = f"--extensometer {numbers} --box {numbers} --tsv {tmp_path}/g.tsv"
    run(f"{tmp_path}/a-b-ldic.h5 {files}", tmp_path)
    found = read(tmp_path / "g.tsv")
    ends = np.array(numbers.split(), float).reshape(2, 3)
    arm = ends[1] - ends[0]
    # an end moves as the linear function that fits best to the nodes around it
    every = np.stack(np.meshgrid(*(np.arange(5.0, n, 5) for n in pair.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    moved = []
    for end in ends:
        near = every[(np.abs(every - end) <= 7.5).all(axis=1)]
        design = np.column_stack([np.ones(len(near)), near - end])
        moved.append(np.linalg.lstsq(design, pair.displacement(near), rcond=None)[0][0])
    length = np.linalg.norm(arm + moved[1] - moved[0])
    # a window of 9 voxels takes (k q)² / 6 of a wave off: 1.6 % of 0.4 voxels in each component, at both ends
    smoothed = 2 * 0.016 * 0.4 * np.sqrt(3)
    read_length = found["1", "extensometer 1", "elongation"]["value"]
    assert read_length == pytest.approx(length - np.linalg.norm(arm), abs=smoothed)
    axes = [np.arange(5 * np.ceil(low / 5), high + 1, 5) for low, high in ends.T]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    truth = pair.displacement(nodes)
    design = np.column_stack([np.ones(len(nodes)), nodes])
    F = np.eye(3) + np.linalg.lstsq(design, truth, rcond=None)[0][1:].T
    E = (F.T @ F - np.eye(3)) / 2
    for axis, name in enumerate(("Zdisp", "Ydisp", "Xdisp")):
        row = found["1", "box 1", name]
        assert row["points"] == len(nodes)
        assert row["value"] == pytest.approx(truth[:, axis].mean(), abs=0.5 * smoothed)
    for (i, j), name in zip(((0, 0), (0, 1), (1, 1), (2, 2)), ("GLzz", "GLzy", "GLyy", "GLxx"), strict=True):
        assert found["1", "box 1", name]["value"] == pytest.approx(E[i, j], abs=2 * smoothed / 30)


def test_lost_points_are_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"@s1.h5 @lost.h5 --extensometer 20 20 15 20 20 75 --tsv {tmp_path}/g.tsv", folder)
    assert "extensometer 1: has too few points that count in state 2 (lost)" in capsys.readouterr().err
    assert np.isnan(read(tmp_path / "g.tsv")["2", "extensometer 1", "strain"]["value"])
    run("@lost.h5 --extensometer 20 20 15 20 20 75", folder, status=1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("@none.h5", "field @none.h5: does not exist"),
        ("@s1.h5 --extensometer 1 2 3 4 5", "--extensometer 1 2 3 4 5: are 5 numbers; give six for each"),
        ("@s1.h5 --extensometer 1 2 3 1 2 3", "--extensometer 1 2 3 1 2 3: both ends are the same point"),
        ("@s1.h5 --box 1 2 nan 4 5 6", "--box 1 2 nan 4 5 6: has a number that is not finite"),
        ("@s1.h5 --box 4 5 6 1 2 3", "--box 4 5 6 1 2 3: the lowest corner is above the highest one"),
        ("@s1.h5 --box 1 1 1 2 2 2", "box 1: holds no point of field @s1.h5"),
        ("@s1.h5 --labels @labels.tif --label 5", "label 5: holds no point of field @s1.h5"),
        ("@s1.h5 --label 5", "--label 5: needs the image of the labels"),
        ("@s1.h5 --mask @none.tif", "mask @none.tif: "),
        ("@s1.h5 --columns dev", "--columns dev: field @s1.h5 has no such column, but "),
        ("@s1.h5 --radius 4", "--radius 4: has no meaning without --extensometer"),
        ("@s1.h5 --extensometer 1 2 3 4 5 6 --radius 0", "--radius 0.0: has to be above 0"),
        ("@s1.h5 --window 3 4", "--window 3 4: give one number, or three"),
        ("@s1.h5 --window 0", "--window 0: has to be at least 1"),
        ("@s1.h5 --tsv @s1.h5", "--tsv @s1.h5: is one of the fields"),
        ("@s1.h5 --tsv @x --plot @x", "--plot @x: is the file of --tsv"),
        ("@s1.h5 --plot @none/x", "--plot @none/x: there is no folder"),
    ],
)
def test_refusals(line: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    run(line, folder, status=2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"mpidvc gauge: error: {message}".replace("@", f"{folder}/"))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_mask_of_no_numbers(folder: Path, tmp_path: Path) -> None:
    """A mask as another program wrote it: nan outside of the region."""
    mask = np.full((60, 70, 90), np.nan, np.float32)
    mask[:, :, :45] = 1
    tifffile.imwrite(tmp_path / "nan.tif", mask)
    tifffile.imwrite(tmp_path / "zero.tif", np.nan_to_num(mask))
    for name in ("nan", "zero"):
        run(f"@noisy.h5 --mask {tmp_path}/{name}.tif --tsv {tmp_path}/{name}.tsv", folder)
    found = [(tmp_path / f"{name}.tsv").read_text().replace(f"mask {name}", "mask") for name in ("nan", "zero")]
    assert found[0] == found[1]


def test_ranks_read_the_same(folder: Path, tmp_path: Path, mpiexec) -> None:
    run(f"@noisy.h5 @s2.h5 --tsv {tmp_path}/one.tsv", folder)
    words = f"gauge {folder}/noisy.h5 {folder}/s2.h5 --tsv {tmp_path}/three.tsv".split()
    done = mpiexec(3, "-m", "mpidvc", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "three.tsv").read_bytes() == (tmp_path / "one.tsv").read_bytes()
    refused = mpiexec(3, "-m", "mpidvc", "gauge", f"{folder}/none.h5")
    assert refused.returncode == 2
    assert refused.stderr.count("error: field") == 1


def test_in_python(folder: Path) -> None:
    ends = np.array([[20, 20, 15], [20, 20, 75]])
    readings = mpidvc.gauge([field(1), field(2)], extensometer=ends, window=15)
    assert [(one.state, one.quantity) for one in readings[::2]] == [(1, "strain"), (2, "strain")]
    assert readings[2].value == pytest.approx(np.linalg.norm(np.eye(3)[2] + 2 * STRAIN[:, 2]) - 1, abs=1e-12)
    labels = tifffile.imread(folder / "labels.tif")
    found = mpidvc.gauge(field(1), labels1=labels, window=15)
    assert {one.gauge for one in found} == {"label 3", "label 7"}
    assert mpidvc.gauge(folder / "s1.h5")[0].points == (field(1)["returnStatus"] == 2).sum()
    with pytest.raises(UserError, match="are 3 numbers"):
        mpidvc.gauge(field(1), extensometer=[1, 2, 3])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_noise_of_a_correlation_is_that_of_shared_windows() -> None:
    """The displacements of many pairs of noisy images are correlated from node to node as gauges take them to be."""
    pair = AnalyticPair((1, 130, 130), 4, (0, 0, 0), (0, 0, 0), (0, 0.3, 0.4), amplitude=0.0)
    images = [image[0].astype(np.float64) for image in (pair.image1(), pair.image2())]
    random = np.random.default_rng(0)
    found = []
    for _ in range(25):
        noisy = [(one + random.normal(0, 1800, one.shape)).clip(0, 65535).astype(np.uint16) for one in images]
        options = {"node_spacing": 6, "half_window_size": 10, "interpolation_order": 3, "criterion": "ssd"}
        moves = mpidvc.ldic(noisy, **options, processes=1).grid("Xdisp")[0]
        # windows that lie inside
        found.append(moves[2:-2, 2:-2])
    noise = np.array(found) - np.mean(found, axis=0)
    for lag in (1, 2, 3):
        told = max(0.0, 1 - 6 * lag / 19)
        for one, other in ((noise[:, lag:], noise[:, :-lag]), (noise[:, :, lag:], noise[:, :, :-lag])):
            # 25 pairs of some 50 independent windows know a correlation to 0.03; 3 of these
            assert (one * other).mean() / noise.var() == pytest.approx(told, abs=0.09)
