"""filterPhiField from its options to its files: spam's answers, what it says, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.core.deformation import rotation_matrix
from mpidvc.fields.hdf5 import read_hdf5, write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv, write_tsv
from mpidvc.kernels.correlation import ERRORS
from mpidvc.main import main
from tests.reference.make_filter_reference import CASES

REFERENCE = Path(__file__).parents[1] / "reference" / "filter"
FIELD = REFERENCE / "field.tsv"


def run(folder, *arguments, status=0, field=FIELD):
    assert main(["filterPhiField", "-pf", str(field), *arguments, "-np", "1", "-od", str(folder)]) == status


@pytest.mark.parametrize("case", CASES)
def test_spam_answers(case, tmp_path):
    run(tmp_path, *CASES[case].split(), "-pre", "p")
    (path,) = tmp_path.glob("*.tsv")
    assert path.name == ("p-filtered-LQC.tsv" if "-clqf" in CASES[case] else "p-filtered.tsv")
    assert path.read_text().splitlines()[0] == (REFERENCE / f"answer-{case}.tsv").read_text().splitlines()[0]
    ours, spams, given = read_tsv(path), read_tsv(REFERENCE / f"answer-{case}.tsv"), read_tsv(FIELD)
    # skipped nodes stay as they are, also where spam smooths
    skipped = given["returnStatus"] < -4
    assert skipped.any()
    for name in ours.names:
        np.testing.assert_array_equal(ours[name][skipped], given[name][skipped])
        np.testing.assert_allclose(ours[name][~skipped], spams[name][~skipped], rtol=1e-6, atol=1.1e-7)
    assert any((ours["Zdisp"] != given["Zdisp"])[~skipped])


def test_report_and_columns(tmp_path, capsys):
    run(tmp_path, "-srs", "--outliers", "-clqf", "-vtk", "-tif")
    said = capsys.readouterr().out
    field, given = read_hdf5(tmp_path / "field-filtered-LQC.h5"), read_tsv(FIELD)
    present = given["returnStatus"] > -5
    outliers, corrected = field["outlier"] == 1, field["correction"] > 0
    bad = present & (given["returnStatus"] < 2)
    np.testing.assert_array_equal(corrected, bad | outliers)
    assert outliers[bad].mean() > 0.8
    assert np.isnan(field["outlier"][~present]).all()
    assert f"Selected: {corrected.sum()} of {present.sum()} points" in said
    assert f"Outliers: {outliers.sum()} of {present.sum()} points" in said
    assert f"Corrected: {corrected.sum()} points" in said
    assert set(field["returnStatus"][corrected]) == {1}
    assert "outlier" not in (tmp_path / "field-filtered-LQC.tsv").read_text()
    vtk = (tmp_path / "field-filtered-LQC.vtk").read_text()
    assert "ORIGIN 5.0 5.0 5.0" in vtk
    assert "SCALARS returnStatus" in vtk
    np.testing.assert_allclose(
        tifffile.imread(tmp_path / "field-filtered-LQC-Ydisp.tif").ravel(), field["Ydisp"], rtol=1e-6
    )


def test_hdf5_in_and_a_bin_ratio(tmp_path):
    given = read_tsv(FIELD)
    write_hdf5(tmp_path / "given.h5", given)
    run(tmp_path, "-srs", "-cint", "-nr", "21", "-pre", "once", field=tmp_path / "given.h5")
    run(tmp_path, "-srs", "-cint", "-nr", "42", "-pfb", "2", "-pre", "twice", field=tmp_path / "given.h5")
    once, twice = read_hdf5(tmp_path / "once-filtered.h5"), read_hdf5(tmp_path / "twice-filtered.h5")
    np.testing.assert_array_equal(twice.positions, 2 * once.positions)
    np.testing.assert_allclose(twice.displacements, 2 * once.displacements, rtol=1e-6)
    np.testing.assert_allclose(twice.F, once.F, rtol=1e-6, atol=1e-9)


def test_points_that_stay_keep_what_tells_their_quality(tmp_path):
    """ZNCC, coverage and random errors: of points that are not corrected; random errors only with their own Phi."""
    given = read_tsv(FIELD)
    measured = {name: np.arange(len(given)) + 0.5 * k for k, name in enumerate(("zncc", "coverage", *ERRORS))}
    write_hdf5(tmp_path / "given.h5", PhiField(given.positions, given.phi, {**given.columns, **measured}))
    run(tmp_path, "-srs", "-cint", "-pre", "p", field=tmp_path / "given.h5")
    found = read_hdf5(tmp_path / "p-filtered.h5")
    corrected = found["correction"] > 0
    assert 0 < corrected.sum() < len(given) / 2
    for name, values in measured.items():
        np.testing.assert_array_equal(found[name], np.where(corrected, np.nan, values))
    for more in (["-pfb", "2"], ["--remove-motion", "rigid"]):
        run(tmp_path, "-srs", "-cint", "-pre", "q", "--overwrite", *more, field=tmp_path / "given.h5")
        columns = read_hdf5(tmp_path / "q-filtered.h5").columns
        assert {"zncc", "coverage"} <= columns.keys()
        assert not columns.keys() & {*ERRORS}


def labels_file(path, status):
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 60, (40, 3))
    points[0], points[7] = 0, np.nan
    phi = np.tile(np.eye(4), (40, 1, 1))
    phi[1:, :3, 3] = 0.1 * points[1:] + 1
    columns = {"returnStatus": np.full(40, 2.0), "error": np.ones(40), "deltaPhiNorm": np.ones(40)}
    columns["iterations"] = np.ones(40)
    columns["returnStatus"][[0, 7, 12]] = 0, -7, status
    phi[12, :3, 3] += 5
    write_tsv(path, PhiField(points, phi, columns, "labels"), "SEARCH")
    return points


def test_labels(tmp_path, capsys):
    points = labels_file(tmp_path / "labels.tsv", 1)
    run(tmp_path, "-srs", "-clqf", "-vtk", field=tmp_path / "labels.tsv")
    assert "Selected: 1 of 38 points" in capsys.readouterr().out
    found = read_tsv(tmp_path / "labels-filtered-LQC.tsv")
    assert found.layout == "labels"
    assert len(found) == 40
    # the background at the origin, whose displacement is 0, takes no part
    np.testing.assert_allclose(found.displacements[12], 0.1 * points[12] + 1, atol=1e-6)
    np.testing.assert_array_equal(found["returnStatus"][[0, 7, 12]], [0, -7, 1])
    assert np.isnan(found["Zpos"][7])
    assert "mag(displacements)" in (tmp_path / "labels-filtered-LQC.vtk").read_text()


def test_points_that_cannot_be_corrected_are_left_and_counted(tmp_path, capsys):
    run(tmp_path, "-srs", "-cint", "-nr", "2", "-pre", "p", status=1)
    assert "left as they are, with too few good neighbours" in capsys.readouterr().err
    found, given = read_tsv(tmp_path / "p-filtered.tsv"), read_tsv(FIELD)
    for name in ("Zdisp", "returnStatus", "error"):
        np.testing.assert_array_equal(found[name], given[name])


def test_outliers_alone_are_marked(tmp_path):
    run(tmp_path, "--outliers", "--outlier-threshold", "5")
    field, given = read_hdf5(tmp_path / "field-filtered.h5"), read_tsv(FIELD)
    np.testing.assert_array_equal(field.phi, given.phi)
    np.testing.assert_array_equal(field["returnStatus"], given["returnStatus"])
    assert (field["outlier"] == 1).any()


BAD = [
    ("", "nothing to do"),
    ("-srs", "-srs: points are selected, but not corrected"),
    ("-cint", "-cint: no points are selected"),
    ("-srs -slqc -fm", "-fm -srs -slqc: smoothing and correcting are two runs"),
    ("-fm --outliers", "-fm --outliers: smoothing"),
    ("-fm -F rigid", "-F rigid: there is no median"),
    ("-fm -fmr 0", "-fmr 0: has to be at least 1"),
    ("-srs -cint -nr 0", "-nr 0.0: has to be above 0"),
    ("-srs -cint -nn 0", "-nn 0: has to be at least 1"),
    ("-srs -clqf -nn 9", "-nn 9: a quadratic fit (-clqf) needs at least 10 points"),
    ("-srs -srst -4 -cint", "-srs: no point of"),
    ("-srs -srst 2 -cint", "-srs: all points of"),
    ("-srs -cint --outlier-epsilon 1", "--outlier-epsilon 1: has no meaning without --outliers"),
    ("--outliers --outlier-threshold nan", "--outlier-threshold nan: has to be above 0"),
    ("-scc -scct nan -cint", "-scct nan: is not a number"),
    ("-srs -cint -pfb 0", "-pfb 0.0: has to be above 0"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line or "nothing" for line, _ in BAD])
def test_refusals(line, message, tmp_path, capsys):
    run(tmp_path, *line.split(), status=2)
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_fields_that_do_not_serve(tmp_path, capsys):
    given = read_tsv(FIELD)
    single = tmp_path / "single.tsv"
    write_tsv(single, PhiField(given.positions[:1], given.phi[:1], {}, "registration"), "LDIC")
    for field, line, message in (
        (single, "-srs -cint", "is a registration"),
        (tmp_path / "none.tsv", "-srs -cint", "none.tsv: does not exist"),
        (labelled(tmp_path), "-fm", "has no grid"),
        (plain(tmp_path, given), "-scc -cint", "has no column pixelSearchCC"),
        (skipped(tmp_path, given), "-srs -cint", "-nomask takes them all the same"),
    ):
        run(tmp_path / "out", *line.split(), status=2, field=field)
        assert message in capsys.readouterr().err


def labelled(folder):
    labels_file(folder / "labels.tsv", 2)
    return folder / "labels.tsv"


def plain(folder, given):
    path = folder / "plain.h5"
    columns = {"returnStatus": given.columns["returnStatus"]}
    write_hdf5(path, PhiField(given.positions, given.phi, columns, "grid", given.dims, given.spacing))
    return path


def skipped(folder, given):
    path = folder / "skipped.h5"
    columns = {"returnStatus": np.full(len(given), -5.0)}
    write_hdf5(path, PhiField(given.positions, given.phi, columns, "grid", given.dims, given.spacing))
    return path


def test_of_several_ways_the_first_counts(tmp_path, capsys):
    run(tmp_path, "-scc", "-srs", "-clqf", "-cint", "-nn", "9", "-nr", "21")
    said = capsys.readouterr().out
    for note in ("-scc: -srs is given and counts", "-clqf: -cint is given and counts", "the radius counts"):
        assert note in said
    np.testing.assert_allclose(
        read_tsv(tmp_path / "field-filtered-LQC.tsv").phi, read_tsv(REFERENCE / "answer-mean.tsv").phi, atol=1.1e-7
    )


def test_2d_has_no_z_files(tmp_path):
    rng = np.random.default_rng(9)
    dims = (1, 12, 10)
    nodes = 10.0 * np.stack(np.unravel_index(np.arange(120), dims), axis=1)
    phi = np.tile(np.eye(4), (120, 1, 1))
    phi[:, 1:3, 3] = 1e-4 * nodes[:, 1:] ** 2
    status = np.where(rng.random(120) < 0.1, 1.0, 2.0)
    phi[status == 1, 1, 3] += 3
    columns = {"returnStatus": status} | {name: np.ones(120) for name in ("error", "iterations", "deltaPhiNorm")}
    write_tsv(tmp_path / "flat.tsv", PhiField(nodes, phi, columns, "grid", dims, (1.0, 10.0, 10.0)), "LDIC")
    run(tmp_path, "-srs", "-clqf", "-vtk", "-tif", field=tmp_path / "flat.tsv")
    found = read_tsv(tmp_path / "flat-filtered-LQC.tsv")
    np.testing.assert_allclose(found.displacements[:, 1:], 1e-4 * nodes[:, 1:] ** 2, atol=1e-6)
    assert sorted(path.name for path in tmp_path.glob("*.tif")) == [
        "flat-filtered-LQC-Xdisp.tif",
        "flat-filtered-LQC-Ydisp.tif",
    ]
    assert "ORIGIN -5.0 -5.0 0.0" in (tmp_path / "flat-filtered-LQC.vtk").read_text()


def drifted(path, seed=3, **more):
    """A field that was turned, moved and magnified as a whole after it was bent a little; what it was before."""
    random = np.random.default_rng(seed)
    dims = (7, 8, 9)
    nodes = 10.0 * (1 + np.stack(np.unravel_index(np.arange(504), dims), axis=1))
    own = np.tile(np.eye(4), (504, 1, 1))
    own[:, :3, 3] = random.normal(0, 0.002, (504, 3))
    turned = 1.003 * rotation_matrix((1, -2, 0.5))
    phi = own.copy()
    phi[:, :3, :3] = turned @ own[:, :3, :3]
    phi[:, :3, 3] = (nodes + own[:, :3, 3]) @ turned.T + (4, 5, -6) - nodes
    status = np.where(random.random(504) < 0.1, -1.0, 2.0)
    status[:9] = -5
    phi[status == -1, :3, 3] += 30
    # converged to a wrong place, too
    phi[random.random(504) < 0.1, :3, 3] -= 20
    phi[:9] = np.eye(4)
    columns = {"returnStatus": status} | {name: np.ones(504) for name in ("error", "deltaPhiNorm", "iterations")}
    write_hdf5(path, PhiField(nodes, phi, columns, "grid", dims, (10.0, 10.0, 10.0)), **more)
    return own, phi, status


def test_the_motion_of_the_whole_is_removed_and_kept(tmp_path, capsys):
    own, phi, status = drifted(tmp_path / "d.h5")
    run(tmp_path, "--remove-motion", "similarity", field=tmp_path / "d.h5")
    said = capsys.readouterr().out
    found = read_hdf5(tmp_path / "d-filtered.h5")
    right = (status == 2) & (np.linalg.norm(phi[:, :3, 3], axis=1) < 25)
    # 400 points with noise of 0.002: their motion is known to 0.0001 at their middle, and twice that at corners
    np.testing.assert_allclose(found.phi[right], own[right], atol=5e-4)
    np.testing.assert_array_equal(found.phi[:9], phi[:9])
    np.testing.assert_array_equal(found["returnStatus"], status)
    with h5py.File(tmp_path / "d-filtered.h5") as file:
        (removed,) = json.loads(file["mpidvc"].attrs["removed_motion"])
    assert removed["kind"] == "similarity"
    # what was removed, put back, gives the field as it was
    back = np.array(removed["phi"])
    places = found.positions + found.displacements - removed["centre"]
    again = places @ back[:3, :3].T + back[:3, 3] + removed["centre"] - found.positions
    np.testing.assert_allclose(again[9:], phi[9:, :3, 3], atol=1e-9)
    np.testing.assert_allclose(back[:3, :3], 1.003 * rotation_matrix((1, -2, 0.5)), atol=2e-5)
    assert "Removed motion (similarity)" in said
    assert "stretch 1.0030" in said
    # a second one is kept beside the first
    run(tmp_path, "--remove-motion", "rigid", "-srs", "-cint", field=tmp_path / "d-filtered.h5")
    with h5py.File(tmp_path / "d-filtered-filtered.h5") as file:
        assert [one["kind"] for one in json.loads(file["mpidvc"].attrs["removed_motion"])] == ["similarity", "rigid"]


def test_the_motion_is_removed_after_the_correction(tmp_path):
    own, _, status = drifted(tmp_path / "d.h5")
    run(tmp_path, "--remove-motion", "similarity", "-srs", "--outliers", "-clqf", field=tmp_path / "d.h5")
    found = read_hdf5(tmp_path / "d-filtered-LQC.h5")
    corrected = found["correction"] > 0
    assert corrected[status == -1].all()
    # a quadratic fit to noise of 0.002 at a corner of the grid is off by several times that
    np.testing.assert_allclose(found.displacements[corrected], own[corrected, :3, 3], atol=0.03)


def test_points_without_a_motion_are_refused(tmp_path, capsys):
    layer = PhiField.from_positions(np.array([(5.0, y, x) for y in (0.0, 9.0, 18.0) for x in (0.0, 9.0, 18.0)]))
    write_hdf5(tmp_path / "layer.h5", layer)
    run(tmp_path / "out", "--remove-motion", "affine", field=tmp_path / "layer.h5", status=2)
    assert "--remove-motion affine: the 9 good points" in capsys.readouterr().err
    run(tmp_path / "out", "--remove-motion", "rigid", field=tmp_path / "layer.h5")
