"""Every option of ``mpidvc ddic`` does what its help says; the truth is known exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.grains import AnalyticGrains
from mpidvc.fields.hdf5 import read_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv, write_tsv
from mpidvc.main import main
from tests.outputs import other_outputs

SMALL = {"touching": 0.0, "displacement": 1.5, "rotation": 3.0}
#: Asymmetric clumps and discs with room between them, and a packing of balls as in the benchmarks of spam.
CLUMPS = AnalyticGrains((92, 96, 100), 9, seed=4, radii=(9.0, 10.5), gap=8.0, **SMALL)
DISCS = AnalyticGrains((1, 130, 140), 7, seed=4, radii=(9.0, 10.5), gap=6.0, **SMALL)
BALLS = AnalyticGrains((116, 120, 124), 40, seed=6, kind="balls", radii=(9.0, 11.5), gap=2.0, margin=8.0, **SMALL)
#: Clumps that touch: dilated labels take in voxels of others.
TOUCHING = AnalyticGrains((52, 56, 60), 8, seed=3, radii=(6.0, 8.0), touching=1.0, displacement=0.8, rotation=2.0)
AFFINE = AnalyticPair(
    (50, 56, 62), seed=3, amplitude=0, rotation=(1.5, -1.0, 0.8), strain=(0.01, -0.015, 0.02), translation=(1, -1, 1)
)
#: The DDIC columns of spam, in its order.
HEADER = (
    *("Label", "Zpos", "Ypos", "Xpos", "Zdisp", "Ydisp", "Xdisp"),
    *("Fzz", "Fzy", "Fzx", "Fyz", "Fyy", "Fyx", "Fxz", "Fxy", "Fxx", "PSCC"),
    *("error", "iterations", "returnStatus", "deltaPhiNorm", "LabelDilate"),
)

Run = Callable[..., PhiField]


def save(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, image[0] if image.shape[0] == 1 else image, photometric="minisblack")


def two_pieces() -> np.ndarray:
    """Labels of `AFFINE` whose centres of mass are not the middles of their boxes: an L and a wedge."""
    labels = np.zeros(AFFINE.shape, np.uint16)
    labels[12:24, 12:36, 12:22] = 1
    labels[12:24, 12:20, 22:34] = 1
    z, y, x = np.indices(AFFINE.shape)
    labels[(z >= 28) & (z < 40) & (x >= 38) & (x < 52) & (y >= 14) & (y - 14 < (x - 36) * 1.4)] = 3
    return labels


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with image 1, labels and image 2 of every packing: ``clumps1.tif``, ``clumpsL.tif``, ``clumps2.tif``, …"""
    folder = tmp_path_factory.mktemp("images")
    for name, pair in (("clumps", CLUMPS), ("discs", DISCS), ("balls", BALLS), ("touching", TOUCHING)):
        save(folder / f"{name}1.tif", pair.image1())
        save(folder / f"{name}L.tif", pair.labels1())
        save(folder / f"{name}2.tif", pair.image2())
    save(folder / "affine1.tif", AFFINE.image1())
    save(folder / "affineL.tif", two_pieces())
    save(folder / "affine2.tif", AFFINE.image2())
    return folder


@pytest.fixture
def ddic(tmp_path: Path, images: Path) -> Run:
    """Run the command on a packing or other images, and read its text file; ``@`` is the images' folder."""

    def run(name: str, line: str = "", status: int = 0, out: str = "out", **other: np.ndarray) -> PhiField:
        paths = [images / f"{name}{k}.tif" for k in "1L2"]
        for k, image in other.items():
            at = ("one", "labels", "two").index(k)
            paths[at] = tmp_path / f"{k}.tif"
            save(paths[at], image)
        words = line.replace("@", f"{images}/").split()
        options = ["-np", "1", "-od", str(tmp_path / out), "-pre", "P", "--overwrite"]
        assert main(["ddic", *map(str, paths), *options, *words]) == status
        return read_tsv(tmp_path / out / "P-ddic.tsv")

    return run


def errors(field: PhiField, pair: AnalyticGrains) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the displacement (n, 3) in voxels and of the rotation vector in degrees; row 0 is left out."""
    true = pair.phi()[1:]
    turned = Rotation.from_matrix(field.F[1:] @ np.swapaxes(true[:, :3, :3], 1, 2)).as_rotvec(degrees=True)
    return field.displacements[1:] - true[:, :3, 3], turned


def check(field: PhiField, pair: AnalyticGrains, pixels: float, degrees: float) -> None:
    assert len(field) == pair.n + 1
    np.testing.assert_array_equal(field["returnStatus"][1:], 2)
    np.testing.assert_allclose(field.positions, pair.centres, rtol=0, atol=1e-6)
    moved, turned = errors(field, pair)
    assert np.abs(moved).max() <= pixels
    assert np.abs(turned).max() <= degrees


def guess(path: Path, phi: np.ndarray, positions: np.ndarray, status: Any = 2.0) -> str:
    """Write a first guess: a registration, or a field of labels."""
    n = len(phi)
    columns = {name: np.zeros(n) for name in ("error", "iterations", "deltaPhiNorm")}
    columns["returnStatus"] = np.broadcast_to(np.asarray(status, float), n)
    layout = "registration" if n == 1 else "labels"
    write_tsv(path, PhiField(np.asarray(positions, float), phi, columns, layout), "LDIC" if n == 1 else "DDIC")
    return str(path)


def same_rows(one: PhiField, two: PhiField, rows: Any) -> None:
    np.testing.assert_array_equal(one.positions[rows], two.positions[rows])
    np.testing.assert_array_equal(one.phi[rows], two.phi[rows])
    assert one.columns.keys() == two.columns.keys()
    for name in one.columns:
        np.testing.assert_array_equal(one[name][rows], two[name][rows], err_msg=name)


# ---- what it finds


@pytest.mark.parametrize(("line", "pixels", "degrees"), [("", 0.0105, 0.080), ("-o 3", 0.0089, 0.016)])
def test_balls_are_found_as_well_as_by_spam(ddic: Run, line: str, pixels: float, degrees: float) -> None:
    """Standard deviations on the packing of spam's benchmarks, smaller."""
    field = ddic("balls", line)
    np.testing.assert_array_equal(field["returnStatus"][1:], 2)
    moved, turned = errors(field, BALLS)
    assert moved.std() <= pixels
    assert turned.std() <= degrees
    # no motion would be far off
    assert BALLS.phi()[1:, :3, 3].std() > 30 * pixels


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@pytest.mark.parametrize(("line", "pixels", "degrees"), [("", 0.02, 0.25), ("-o 3", 0.006, 0.07), ("-ug", 0.02, 0.25)])
def test_displacement_is_that_of_the_centre_of_mass(
    ddic: Run, line: str, pixels: float, degrees: float, criterion: str
) -> None:
    check(ddic("clumps", f"{line} --criterion {criterion}"), CLUMPS, pixels, degrees)
    # at the middles of the boxes the displacements are others
    true, labels = CLUMPS.phi(), CLUMPS._measured
    aside = (labels.lowest + labels.highest) / 2 - labels.centre
    assert np.abs(np.einsum("nij,nj->ni", true[:, :3, :3] - np.eye(3), aside)[1:]).max() > 0.05


@pytest.mark.parametrize(
    ("line", "pixels", "degrees"), [("", 0.02, 0.25), ("-o 3", 0.005, 0.05), ("-o 3 -ug", 0.005, 0.1)]
)
def test_discs(ddic: Run, line: str, pixels: float, degrees: float) -> None:
    field = ddic("discs", line)
    check(field, DISCS, pixels, degrees)
    assert (field.positions[:, 0] == 0).all()
    assert (field.displacements[:, 0] == 0).all()


@pytest.mark.parametrize(("line", "tolerance"), [("-nr", 0.03), ("-nr -o 3", 0.004), ("-nr -o 3 -ug", 0.004)])
def test_stretch_of_labels(ddic: Run, line: str, tolerance: float) -> None:
    field = ddic("affine", line)
    for label in (1, 3):
        assert field["returnStatus"][label] == 2
        true = AFFINE.displacement(field.positions[label])
        np.testing.assert_allclose(field.displacements[label], true, rtol=0, atol=tolerance)
        np.testing.assert_allclose(field.F[label], AFFINE.gradient(field.positions[label]), rtol=0, atol=tolerance / 2)


def test_rigid_unless_asked(ddic: Run) -> None:
    rigid = ddic("affine", "-o 3", out="rigid").F[[1, 3]]
    np.testing.assert_allclose(rigid @ np.swapaxes(rigid, 1, 2), np.tile(np.eye(3), (2, 1, 1)), atol=1e-6)
    free = ddic("affine", "-o 3 -nr", out="free").F[[1, 3]]
    assert np.abs(free @ np.swapaxes(free, 1, 2) - np.eye(3)).max() > 0.02


# ---- which voxels are compared


def ball(radius: int) -> np.ndarray:
    z, y, x = np.indices((2 * radius + 1,) * 3) - radius
    return z * z + y * y + x * x <= radius * radius


def mask_of(labels: np.ndarray, label: int, dilate: int, keep_others: bool = False) -> np.ndarray:
    """The voxels that are compared, by the definition of spam."""
    own = labels == label
    if dilate < 0:
        return ndimage.binary_erosion(own, ball(-dilate))
    grown = ndimage.binary_dilation(own, ball(dilate)) if dilate else own
    return grown if keep_others else grown & (own | (labels == 0))


@pytest.mark.parametrize("line", ["-ld -1", "-ld 0", "-ld 1", "-ld 2", "-ld 2 -dmo"])
def test_volume_threshold_counts_the_dilated_label(ddic: Run, line: str) -> None:
    """A label takes part if it has more voxels: one less than it has skips nothing."""
    labels, dilate = TOUCHING.labels1(), int(line.split()[1])
    volumes = [int(mask_of(labels, k, dilate, "-dmo" in line).sum()) for k in range(1, TOUCHING.n + 1)]
    threshold = sorted(volumes)[TOUCHING.n // 2]
    for limit in (threshold, threshold - 1):
        field = ddic("touching", f"{line} -vt {limit}", out=f"out{limit}")
        skipped = np.array(volumes) <= limit
        assert 0 < skipped.sum() < TOUCHING.n
        np.testing.assert_array_equal(field["returnStatus"][1:] == -5, skipped)
    assert (field["LabelDilate"][1:] == dilate).all()


def test_kept_neighbours_make_more_voxels() -> None:
    """The two definitions of `test_volume_threshold_counts_the_dilated_label` are not the same for these grains."""
    labels = TOUCHING.labels1()
    more = [mask_of(labels, k, 2, True).sum() > mask_of(labels, k, 2).sum() for k in range(1, TOUCHING.n + 1)]
    assert sum(more) >= TOUCHING.n // 2


@pytest.mark.parametrize(
    ("line", "pixels", "degrees"), [("-ld -1 -o 3", 0.02, 0.25), ("-ld 0 -o 3", 0.015, 0.2), ("-ld 2", 0.02, 0.25)]
)
def test_truth_with_any_dilation(ddic: Run, line: str, pixels: float, degrees: float) -> None:
    check(ddic("clumps", line), CLUMPS, pixels, degrees)


def test_other_labels_and_their_motion_are_left_out(ddic: Run) -> None:
    """Where a neighbour moves otherwise, its voxels disturb a label that takes them in."""
    masked, _ = errors(ddic("touching", "-ld 2 -o 3", out="masked"), TOUCHING)
    kept, _ = errors(ddic("touching", "-ld 2 -o 3 -dmo", out="kept"), TOUCHING)
    assert np.abs(masked).mean() < np.abs(kept).mean()


def test_coarse_levels_first(ddic: Run) -> None:
    """A displacement of some voxels takes one level alone many iterations, but few after a coarse one."""
    grains = {"seed": 4, "radii": (11.0, 12.0), "gap": 10.0, "translation": (4.0, -4.0, 4.0), "margin": 8.0}
    pair = AnalyticGrains((84, 92, 96), 3, **grains, **SMALL)
    images = {"one": pair.image1(), "labels": pair.labels1(), "two": pair.image2()}
    alone = ddic("", "-m 10 -it 9", out="alone", **images)
    np.testing.assert_array_equal(alone["returnStatus"][1:], 1)
    coarse = ddic("", "-m 10 -it 9 -msb 2", out="coarse", **images)
    check(coarse, pair, 0.03, 0.25)
    assert (coarse["iterations"][1:] <= 5).all()


# ---- the first guess


def test_registration_moves_every_label_by_the_whole_phi(ddic: Run, tmp_path: Path) -> None:
    """Without iterations the guess is the result: displacements by all of Phi, F as -F says."""
    F = Rotation.from_rotvec([4, -3, 2], degrees=True).as_matrix() @ np.diag([1.03, 0.98, 1.01])
    phi, at = np.eye(4), np.array([40.0, 41.0, 42.0])
    phi[:3, :3], phi[:3, 3] = F, (0.5, 1.5, -0.5)
    path = guess(tmp_path / "registration.tsv", phi[None], at[None])
    u, _, vt = np.linalg.svd(F)
    for word, expected in (("all", F), ("rigid", u @ vt), ("no", np.eye(3)), ("", u @ vt)):
        option = f"-F {word}" if word else ""
        field = ddic("clumps", f"-nr -it 0 -m 20 -pf {path} {option}", out=f"F{word}")
        np.testing.assert_allclose(field.F[1:], np.tile(expected, (CLUMPS.n, 1, 1)), atol=1e-6)
        displacements = phi[:3, 3] + (CLUMPS.centres - at) @ (F - np.eye(3)).T
        np.testing.assert_allclose(field.displacements[1:], displacements[1:], atol=1e-5)
        # row 0, the background, is at (0, 0, 0)
        np.testing.assert_allclose(field.phi[0, :3, 3], displacements[0], atol=1e-5)


def test_guess_of_another_binning(ddic: Run, tmp_path: Path) -> None:
    pair = replace(CLUMPS, translation=(6.0, -7.0, 6.5), displacement=1.0, margin=9.0)
    phi = np.eye(4)[None].copy()
    phi[0, :3, 3] = (3.0, -3.5, 3.25)
    path = guess(tmp_path / "half.tsv", phi, np.array([[23.0, 24.0, 25.0]]))
    images = {"one": pair.image1(), "labels": pair.labels1(), "two": pair.image2()}
    check(ddic("", f"-pf {path} -pfb 2", **images), pair, 0.02, 0.25)


@pytest.mark.parametrize("end", [".tsv", ".h5"])
def test_own_result_is_a_guess(ddic: Run, tmp_path: Path, end: str) -> None:
    """The Phi of every label, and nan of a missing one, go in as they came out."""
    labels = CLUMPS.labels1()
    labels[labels == 4] = 0
    first = ddic("clumps", "-o 3", out="first", labels=labels)
    assert first["returnStatus"][4] == -7
    again = ddic("clumps", f"-o 3 -it 0 -pf {tmp_path}/first/P-ddic{end}", out="again", labels=labels)
    np.testing.assert_allclose(again.phi, first.phi, rtol=0, atol=2e-7)
    np.testing.assert_array_equal(again["returnStatus"], np.where(first["returnStatus"] == 2, 1, first["returnStatus"]))


def test_guess_without_a_number_is_a_status(ddic: Run, tmp_path: Path) -> None:
    first = ddic("clumps", "-o 3", out="first")
    phi = first.phi.copy()
    phi[2, 1, 3], phi[5, 0, 0] = np.nan, np.inf
    path = guess(tmp_path / "guess.tsv", phi, first.positions)
    field = ddic("clumps", f"-o 3 -pf {path}")
    np.testing.assert_array_equal(np.flatnonzero(field["returnStatus"] == -7), [2, 5])
    assert (field["returnStatus"][[1, 3, 4, 6, 7, 8, 9]] == 2).all()


def test_skip_keeps_what_has_converged(ddic: Run, tmp_path: Path) -> None:
    """Labels of status 2 keep every number of their row; all others are correlated again, from their own Phi."""
    labels = CLUMPS.labels1()
    labels[labels == 9] = 11
    first = ddic("clumps", "-o 3", out="first", labels=labels)
    phi, columns = first.phi.copy(), {name: values.copy() for name, values in first.columns.items()}
    phi[[1, 2]] = np.eye(4)
    columns["returnStatus"][[1, 2, 3]] = (1, -3, -5)
    columns["error"][4], columns["iterations"][4], columns["deltaPhiNorm"][4] = 123.0, 44.0, 0.5
    columns["LabelDilate"][4] = 3
    given = replace(first, phi=phi, columns=columns)
    write_tsv(tmp_path / "given.tsv", given, "DDIC")
    field = ddic("clumps", f"-o 3 -skp -pf {tmp_path}/given.tsv", labels=labels)
    same_rows(field, read_tsv(tmp_path / "given.tsv"), [4, 5, 6, 7, 8, 11])
    assert (field["returnStatus"][[1, 2, 3]] == 2).all()
    np.testing.assert_allclose(field.phi[[1, 2, 3]], first.phi[[1, 2, 3]], atol=2e-3)
    assert (field["returnStatus"][[9, 10]] == -7).all()
    # columns are their own (spam mixes them up)
    assert (field["iterations"][1:4] < 50).all()
    assert (field["LabelDilate"][1:4] == 1).all()
    assert (field["deltaPhiNorm"][1:4] <= 1e-3).all()


def test_registration_of_the_whole_first(ddic: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """-regbb and -regbe register the images as reg does; labels then have not far to go."""
    images, pair = shifted(8.0)
    alone = ddic("", "-it 8", out="alone", **images)
    np.testing.assert_array_equal(alone["returnStatus"][1:], 1)
    capsys.readouterr()
    for line, levels in (("-regbb 4 -regbe 1", 3), ("-regbb 8 -regbe 2", 3), ("-regbb 4", 3), ("-regbe 2", 2)):
        field = ddic("", f"-it 8 {line}", out=line.replace(" ", ""), **images)
        check(field, pair, 0.02, 0.2)
        told = capsys.readouterr().out
        assert "Registering the whole images first" in told
        assert told.count("Start correlation with Error") == levels
        # row 0 has the Phi of the whole at (0, 0, 0)
        np.testing.assert_allclose(field.phi[0, :3, 3], (8, -8, 8), atol=1.0)


def shifted(by: float) -> tuple[dict[str, np.ndarray], AnalyticGrains]:
    """Images of balls that move together by so many voxels along each axis."""
    size = int(84 + 2 * by)
    grains = {"seed": 4, "kind": "balls", "radii": (9.0, 11.0), "touching": 0.0, "displacement": 0.3, "rotation": 1.0}
    pair = AnalyticGrains((size, size + 4, size + 8), 9, translation=(by, -by, by), margin=by + 2, **grains)
    return {"one": pair.image1(), "labels": pair.labels1(), "two": pair.image2()}, pair


def test_registration_of_the_whole_that_fails(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no guess: the run is refused."""
    given, _ = shifted(10.0)
    for name, image in given.items():
        save(tmp_path / f"{name}.tif", image)
    words = [str(tmp_path / f"{name}.tif") for name in ("one", "labels", "two")]
    assert main(["ddic", *words, "-np", "1", "-od", str(tmp_path / "out"), "-regbb", "4"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "-regbb 4: the registration of the whole images did not converge (return status 1)" in line
    assert not list((tmp_path / "out").glob("*"))


# ---- options of the iterations


def test_own_spellings(ddic: Run) -> None:
    by_ours = ddic("touching", "-it 2 -dp 1e-6", out="ours")
    assert (by_ours["iterations"][1:] == 2).all()
    same_rows(ddic("touching", "-lci 2 -lcp 1e-6", out="seed"), by_ours, slice(None))
    loose = ddic("touching", "-lcp 0.5", out="loose")
    assert (loose["iterations"][1:] < ddic("touching", out="plain")["iterations"][1:]).any()


def test_debug_is_one_process_that_tells(ddic: Run, capsys: pytest.CaptureFixture[str]) -> None:
    field = ddic("touching", "-d")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("label ")]
    assert len(lines) == TOUCHING.n
    for label, line in enumerate(lines, start=1):
        assert line.startswith(f"label {label}: rs=+2 it={field['iterations'][label]:.0f} error=")


# ---- rows and files


def test_row_of_every_failure(ddic: Run) -> None:
    """Row 0, a missing label, one that is too small, one that leaves image 2; the others are measured."""
    labels = CLUMPS.labels1()
    labels[labels == 3] = 0
    labels[:3, :3, :3] = 12
    field = ddic("clumps", "-ld 0", labels=labels)
    np.testing.assert_array_equal(field["returnStatus"], [0, 2, 2, -7, 2, 2, 2, 2, 2, 2, -7, -7, -5])
    for row in (3, 10, 11, 12):
        np.testing.assert_array_equal(field.F[row], np.eye(3))
        assert np.isnan(field.displacements[row]).all()
        assert (field["error"][row], field["iterations"][row], field["deltaPhiNorm"][row]) == (np.inf, 0, np.inf)
        assert field["LabelDilate"][row] == 0
    np.testing.assert_array_equal(field.phi[0], np.eye(4))
    np.testing.assert_array_equal(field.positions[0], 0)
    assert np.isnan(field.positions[3]).all()
    np.testing.assert_array_equal(field.positions[12], 1)
    assert [field[name][0] for name in ("error", "iterations", "deltaPhiNorm", "LabelDilate")] == [0, 0, 0, 0]


def test_label_that_the_guess_moves_out(ddic: Run, tmp_path: Path) -> None:
    phi = CLUMPS.phi()
    phi[2, 0, 3], phi[5, 2, 3] = 500.0, -1e300
    path = guess(tmp_path / "guess.tsv", phi, CLUMPS.centres)
    field = ddic("clumps", f"-pf {path}")
    np.testing.assert_array_equal(field["returnStatus"], [0, 2, -5, 2, 2, -5, 2, 2, 2, 2])


def test_missing_and_small_labels_in_2d(ddic: Run) -> None:
    labels = DISCS.labels1()
    labels[labels == 2] = 0
    labels[0, :2, :2] = 9
    field = ddic("discs", labels=labels)
    np.testing.assert_array_equal(field["returnStatus"], [0, 2, -7, 2, 2, 2, 2, 2, -7, -5])


def test_columns_in_the_order_of_spam(ddic: Run, tmp_path: Path) -> None:
    labels = TOUCHING.labels1()
    labels[labels == 2] = 10
    field = ddic("touching", "-ld 2", labels=labels)
    header, *lines = (tmp_path / "out" / "P-ddic.tsv").read_text().splitlines()
    assert tuple(header.split("\t")) == HEADER
    table = np.array([[float(word) for word in line.split("\t")] for line in lines])
    of = dict(zip(HEADER, table.T, strict=True))
    np.testing.assert_array_equal(of["Label"], np.arange(11))
    np.testing.assert_array_equal(of["PSCC"], 0)
    np.testing.assert_array_equal(np.flatnonzero(of["returnStatus"] == -7), [2, 9])
    for i, row in enumerate("zyx"):
        np.testing.assert_array_equal(of[f"{row.upper()}disp"], field.displacements[:, i])
        for j, column in enumerate("zyx"):
            np.testing.assert_array_equal(of[f"F{row}{column}"], field.F[:, i, j])
    results = read_hdf5(tmp_path / "out" / "P-ddic.h5")
    assert results.layout == "labels"
    np.testing.assert_allclose(results.phi, field.phi, rtol=0, atol=6e-8)
    assert other_outputs(tmp_path / "out") == {"P-ddic.tsv", "P-ddic.vtk"}


def test_points_for_paraview(ddic: Run, tmp_path: Path) -> None:
    """Legacy VTK: a point for every row, X first; what is not there is 0."""
    labels = CLUMPS.labels1()
    labels[labels == 3] = 0
    field = ddic("clumps", labels=labels)
    words = (tmp_path / "out" / "P-ddic.vtk").read_text().split()
    n = len(field)
    read: dict[str, np.ndarray] = {}
    at = words.index("POINTS")
    assert words[at : at + 3] == ["POINTS", str(n), "float"]
    read["points"] = np.array(words[at + 3 : at + 3 + 3 * n], float).reshape(n, 3)
    assert "UNSTRUCTURED_GRID" in words
    at = words.index("VECTORS")
    assert words[at : at + 3] == ["VECTORS", "displacements", "float"]
    read["displacements"] = np.array(words[at + 3 : at + 3 + 3 * n], float).reshape(n, 3)
    names = [words[k + 1] for k, word in enumerate(words) if word == "SCALARS"]
    assert names == ["mag(displacements)", "returnStatus", "vtkGhostType"]
    for name in names[:-1]:
        at = words.index(name)
        assert words[at + 1 : at + 4] == ["float", "LOOKUP_TABLE", "default"]
        read[name] = np.array(words[at + 4 : at + 4 + n], float)
    np.testing.assert_allclose(read["points"], np.nan_to_num(field.positions[:, ::-1]), atol=1e-4)
    np.testing.assert_allclose(read["displacements"], np.nan_to_num(field.displacements[:, ::-1]), atol=1e-6)
    length = np.linalg.norm(np.nan_to_num(field.displacements), axis=1)
    np.testing.assert_allclose(read["mag(displacements)"], length, atol=1e-6)
    np.testing.assert_array_equal(read["returnStatus"], field["returnStatus"])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_types_of_labels(ddic: Run, dtype: str) -> None:
    same_rows(ddic("touching", labels=TOUCHING.labels1().astype(dtype)), ddic("touching", out="ref"), slice(None))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_types_of_images(ddic: Run, dtype: str) -> None:
    pair = replace(CLUMPS, dtype=dtype)
    check(ddic("", "-o 3", one=pair.image1(), labels=pair.labels1(), two=pair.image2()), pair, 0.01, 0.1)


def test_voxels_that_are_no_number_are_left_out(ddic: Run) -> None:
    pair = replace(CLUMPS, dtype="float32")
    one, labels, two = pair.image1(), pair.labels1(), pair.image2()
    for label in (2, 6):
        z, y, x = (round(c) for c in pair.centres[label])
        (one if label == 2 else two)[z : z + 2, y, x : x + 2] = np.nan
    field = ddic("", "-o 3", one=one, labels=labels, two=two)
    check(field, pair, 0.02, 0.2)


def test_label_at_the_edge(ddic: Run) -> None:
    """Grains cut by the faces of the image: the part that is in both images is compared."""
    boxes = CLUMPS._measured
    first, last = boxes.lowest[1:].min(axis=0) + 5, boxes.highest[1:].max(axis=0) - 4
    cut = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    one, labels, two = (image[cut] for image in (CLUMPS.image1(), CLUMPS.labels1(), CLUMPS.image2()))
    faces = [labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]]
    at_edge = np.setdiff1d(np.concatenate([np.unique(face) for face in faces]), 0)
    assert len(at_edge) >= 4
    field = ddic("", "-o 3", one=one, labels=labels, two=two)
    good = field["returnStatus"] == 2
    assert good[at_edge].any()
    # positions are those of what is left
    volume = np.bincount(labels.ravel(), minlength=len(field))
    for label in np.flatnonzero(good):
        place = np.argwhere(labels == label)
        assert len(place) == volume[label]
        np.testing.assert_allclose(field.positions[label], place.mean(axis=0), atol=1e-6)
        true = CLUMPS.moved(field.positions[label] + first, int(label)) - (field.positions[label] + first)
        np.testing.assert_allclose(field.displacements[label], true, atol=0.02 if label in at_edge else 0.006)
