"""Every option of ``mpidvc ldic`` does what its help says; the truth is known exactly (`AnalyticPair`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.core import deformation
from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import COLUMNS, read_tsv, write_tsv
from mpidvc.kernels import correlation
from mpidvc.main import main
from tests.jump import Jump
from tests.outputs import other_outputs, outputs

MOTION = {"rotation": (1.5, -1.0, 0.8), "strain": (0.010, -0.015, 0.020), "translation": (0.6, -0.4, 0.7)}
SOLID = AnalyticPair((50, 56, 62), seed=3, amplitude=0, **MOTION)
FLAT = AnalyticPair((1, 150, 170), seed=3, amplitude=0, **MOTION)
#: Voxels, at nodes whose windows of 15³ or 21² voxels are inside: what trilinear interpolation leaves on this texture,
#: and what 16 bits and -dp leave of the cubic one.
LINEAR, CUBIC = 0.03, 0.003
PHI = [name for name in COLUMNS["LDIC"] if name.startswith("F") or name.endswith("disp")]

Run = Callable[..., PhiField]


def save(path: Path, image: np.ndarray, **options: object) -> str:
    tifffile.imwrite(path, image[0] if image.shape[0] == 1 else image, photometric="minisblack", **options)
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the pairs a, b (3D) and f, g (2D), and their registrations ab.tsv and fg.tsv (exact)."""
    folder = tmp_path_factory.mktemp("images")
    for names, pair in (("ab", SOLID), ("fg", FLAT)):
        save(folder / f"{names[0]}.tif", pair.image1())
        save(folder / f"{names[1]}.tif", pair.image2())
        centre = (np.array(pair.shape) - 1) / 2
        write_guess(folder / f"{names}.tsv", exact(pair, centre)[None], centre[None])
    return folder


@pytest.fixture
def ldic(tmp_path: Path, images: Path) -> Run:
    """Run the command on two images, by name or path, and read the field it writes; ``@`` is the images' folder."""

    def run(line: str, *names: str, status: int = 0, out: str = "out") -> PhiField:
        paths = [name if "/" in name else str(images / f"{name}.tif") for name in names or ("a", "b")]
        folder = tmp_path / out
        words = line.replace("@", f"{images}/").split()
        assert main(["ldic", *paths, "-np", "1", "-od", str(folder), "-pre", "P", "--overwrite", *words]) == status
        return read_tsv(folder / "P-ldic.tsv")

    return run


def exact(pair: AnalyticPair, point: np.ndarray) -> np.ndarray:
    phi = np.eye(4)
    phi[:3, :3] = pair.gradient(point)
    phi[:3, 3] = pair.displacement(point)
    return phi


def write_guess(path: Path, phi: np.ndarray, positions: np.ndarray, **columns: np.ndarray) -> None:
    n = len(phi)
    given = {name: np.zeros(n) for name in ("error", "iterations", "deltaPhiNorm")} | {"returnStatus": np.full(n, 2.0)}
    field = PhiField(np.asarray(positions, float), phi, given | columns, "registration" if n == 1 else "points")
    write_tsv(path, field, "LDIC")


def inner(field: PhiField, pair: AnalyticPair, reach: int) -> np.ndarray:
    """Nodes that are this far from every face, and whose images are, too."""
    last = np.array(pair.shape) - 1
    reached = np.where(last > 0, reach, 0)
    moved = field.positions + pair.displacement(field.positions)
    return np.all(
        [(p >= reached) & (p + reached <= last) for p in (field.positions, np.where(last > 0, moved, 0))], axis=(0, 2)
    )


def check(
    field: PhiField, pair: AnalyticPair, tolerance: float, reach: int = 12, rows: np.ndarray | None = None
) -> int:
    """Nodes well inside (or `rows`) have converged to the truth; how many there are."""
    nodes = inner(field, pair, reach) if rows is None else rows
    assert nodes.sum() >= 4
    np.testing.assert_array_equal(field.columns["returnStatus"][nodes], 2)
    truth = pair.displacement(field.positions[nodes])
    np.testing.assert_allclose(field.displacements[nodes], truth, rtol=0, atol=tolerance)
    # F over a window of some 7 voxels to each side
    np.testing.assert_allclose(field.F[nodes], pair.gradient(field.positions[nodes]), rtol=0, atol=tolerance / 2)
    return int(nodes.sum())


GRID = "-ns 10 -hws 8"


# ---- what it finds


@pytest.mark.parametrize(
    ("line", "tolerance"),
    [
        ("", LINEAR),
        ("-o 3", CUBIC),
        ("-pf @ab.tsv", LINEAR),
        ("-pf @ab.tsv -o 3", CUBIC),
        ("-pf @ab.tsv -ug -o 3", CUBIC),
        ("-pf @ab.tsv -shift", LINEAR),
        ("-pf @ab.tsv -shift -o 3", CUBIC),
        ("-o 3 -m 5", CUBIC),
        ("-o 3 -m3 3 4 5", CUBIC),
        ("-pf @ab.tsv -o 3 -dp 1e-6", CUBIC),
        ("--criterion znssd -o 3", CUBIC),
        ("--criterion znssd -pf @ab.tsv -o 3 -ug", CUBIC),
        ("-lazy -o 3", CUBIC),
    ],
)
def test_recovers_the_field(ldic: Run, line: str, tolerance: float) -> None:
    field = ldic(f"{GRID} {line}")
    assert check(field, SOLID, tolerance) >= 18


@pytest.mark.parametrize(
    ("line", "tolerance"),
    [("", LINEAR), ("-o 3", CUBIC), ("-pf @fg.tsv -ug -o 3", CUBIC), ("-pf @fg.tsv -shift", LINEAR)],
)
def test_recovers_the_field_in_2d(ldic: Run, line: str, tolerance: float) -> None:
    field = ldic(f"-ns 14 -hws 11 {line}", "f", "g")
    assert check(field, FLAT, tolerance, 16) >= 50
    np.testing.assert_array_equal(field.positions[:, 0], 0)
    np.testing.assert_array_equal(field.phi[:, 0], np.tile((1, 0, 0, 0), (len(field), 1)))


def test_rigid(ldic: Run, tmp_path: Path) -> None:
    """The rotation of a pair without strain; of one with strain a rotation still."""
    rigid = replace(SOLID, strain=(0, 0, 0))
    paths = save(tmp_path / "one.tif", rigid.image1()), save(tmp_path / "two.tif", rigid.image2())
    check(ldic(f"{GRID} -rig -o 3", *paths), rigid, CUBIC)
    field = ldic(f"{GRID} -rig")
    F = field.F[inner(field, SOLID, 12)]
    np.testing.assert_allclose(F.transpose(0, 2, 1) @ F, np.tile(np.eye(3), (len(F), 1, 1)), rtol=0, atol=1e-6)


def test_rigid_drops_the_stretch_of_the_guess(ldic: Run) -> None:
    field = ldic(f"{GRID} -rig -pf @ab.tsv")
    F = field.F[inner(field, SOLID, 12)]
    np.testing.assert_allclose(F.transpose(0, 2, 1) @ F, np.tile(np.eye(3), (len(F), 1, 1)), rtol=0, atol=1e-6)


def test_znssd_does_not_see_gain_and_offset(ldic: Run, tmp_path: Path) -> None:
    plain = ldic(f"{GRID} --criterion znssd -o 3 -dp 1e-5")
    changed = save(tmp_path / "changed.tif", 0.37 * SOLID.image2().astype(np.float32) + 4000)
    field = ldic(f"{GRID} --criterion znssd -o 3 -dp 1e-5", "a", changed)
    rows = inner(field, SOLID, 12)
    np.testing.assert_allclose(field.phi[rows], plain.phi[rows], rtol=0, atol=1e-4)
    # auto sees that the grey levels differ
    np.testing.assert_array_equal(ldic(f"{GRID} -o 3 -dp 1e-5", "a", changed).phi, field.phi)
    # not one window converges, and the exit status says so
    wrong = ldic(f"{GRID} -o 3 --criterion ssd -it 10", "a", changed, status=1)
    assert np.median(np.abs(wrong.displacements[rows] - plain.displacements[rows])) > 0.1


def test_criterion_of_every_pair_of_a_series(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dark = save(tmp_path / "dark.tif", SOLID.image2() // 2)
    arguments = [str(images / "a.tif"), str(images / "b.tif"), dark, "-ns", "20", "-hws", "6", "-np", "1"]
    assert main(["ldic", *arguments, "-od", str(tmp_path)]) == 0
    chosen = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("Criterion")]
    assert chosen == ["ssd", "znssd"]


def test_instruction_sets_agree(ldic: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise between instruction sets: equal status and iterations, 1e-4 voxel."""
    usual = ldic(f"{GRID} -o 3 -pf @ab.tsv")
    before = correlation.instruction_sets()
    assert before[0] == "baseline"
    try:
        for name in before:
            monkeypatch.setenv("MPIDVC_ISA", name)
            field = ldic(f"{GRID} -o 3 -pf @ab.tsv")
            same = np.isclose(field.displacements, usual.displacements, rtol=0, atol=1e-4, equal_nan=True).all(axis=1)
            for column in ("returnStatus", "iterations"):
                same &= field.columns[column] == usual.columns[column]
            # windows at the border may take other ways: one of 100 nodes
            assert np.sum(~same) <= 1
            assert np.all(same[inner(field, SOLID, 12)])
    finally:
        correlation.use_instruction_set(before[-1])


# ---- grid and windows


@pytest.mark.parametrize(
    ("line", "spacing"),
    [("-ns 15", (15, 15, 15)), ("-ns3 12 15 20", (12, 15, 20)), ("-ns 5 -ns3 20 25 30", (20, 25, 30))],
)
def test_node_spacing(ldic: Run, line: str, spacing: tuple[int, int, int]) -> None:
    field = ldic(f"-hws 5 -it 0 {line}")
    axes = [np.arange(s, n, s) for s, n in zip(spacing, SOLID.shape, strict=True)]
    expected = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    np.testing.assert_array_equal(field.positions, expected)
    assert field.dims == tuple(map(len, axes))


def test_node_spacing_in_2d(ldic: Run) -> None:
    """The first of three numbers does not count."""
    field = ldic("-hws3 3 9 7 -it 0 -ns3 7 30 40", "f", "g")
    assert field.dims == (1, 4, 4)
    np.testing.assert_array_equal(np.unique(field.positions[:, 1]), [30, 60, 90, 120])
    np.testing.assert_array_equal(np.unique(field.positions[:, 2]), [40, 80, 120, 160])


def test_window_is_what_is_compared(ldic: Run, tmp_path: Path) -> None:
    """Everything but (2·hws - 1) voxels per axis, and those that their gradients touch, may be anything."""
    node, hws = np.array([25, 28, 30]), np.array([5, 7, 9])
    # twice the same: a file of one row would be a registration
    write_guess(tmp_path / "node.tsv", np.stack([np.eye(4)] * 2), np.stack([node] * 2))
    image = SOLID.image1()
    spoiled = np.random.default_rng(4).integers(0, 65535, SOLID.shape).astype(np.uint16)
    window = tuple(slice(n - h, n + h + 1) for n, h in zip(node, hws, strict=True))
    spoiled[window] = image[window]
    path = save(tmp_path / "spoiled.tif", spoiled)
    options = f"-o 3 --criterion ssd -pf {tmp_path}/node.tsv"
    inside = ldic(f"-hws3 5 7 9 {options}", path, "b")
    np.testing.assert_array_equal(inside.columns["returnStatus"], 2)
    np.testing.assert_array_equal(inside.phi, ldic(f"-hws3 5 7 9 {options}").phi)
    # one voxel more along any axis meets the spoiled ones
    for larger in ("6 7 9", "5 8 9", "5 7 10"):
        wrong = ldic(f"-hws3 {larger} {options} -it 1", path, "b")
        right = ldic(f"-hws3 {larger} {options} -it 1")
        assert np.abs(wrong.phi - right.phi).max() > 1e-3
    # a number for all axes is three equal ones
    np.testing.assert_array_equal(ldic(f"-hws 7 {options}").phi, ldic(f"-hws3 7 7 7 {options}").phi)


def test_margin_is_how_far_window_2_reaches(ldic: Run, tmp_path: Path) -> None:
    """A motion of 2.6 voxels along z: within a margin of 3 along z, beyond one of 0."""
    pair = replace(SOLID, translation=(2.6, 0.3, 0.2), rotation=(0, 0, 0), strain=(0, 0, 0))
    two = save(tmp_path / "two.tif", pair.image2())
    wide = ldic("-ns 20 -hws 7 -o 3 -m3 3 1 1", "a", two)
    check(wide, pair, CUBIC, 10)
    narrow = ldic("-ns 20 -hws 7 -o 3 -m3 0 3 3", "a", two)
    rows = inner(narrow, pair, 10)
    # fewer samples are data: less is compared, so other numbers come out, or none
    assert np.all(np.abs(narrow.displacements[rows] - wide.displacements[rows]).max(axis=1) > 0)
    np.testing.assert_array_equal(
        ldic("-ns 20 -hws 7 -o 3 -m 4", "a", two).phi, ldic("-ns 20 -hws 7 -o 3 -m3 4 4 4", "a", two).phi
    )


def test_windows_at_the_border_measure(ldic: Run) -> None:
    """What lies outside the images is no data; spam takes it for black."""
    field = ldic("-ns 10 -hws 8 -o 3 -pf @ab.tsv")
    last = np.array(SOLID.shape) - 1
    beyond = np.any((field.positions < 8) | (field.positions + 8 > last), axis=1)
    # half a window outside along one axis, at most; those in the corners may have too little
    outside = np.maximum(field.positions + 8 - last, 0) / 17
    kept = np.prod(1 - outside, axis=1)
    rows = beyond & (kept > 0.6)
    assert rows.sum() >= 20
    # fewer voxels, on one side of the node, and a spline that ends at the border: ten times the error of whole windows
    check(field, SOLID, 10 * CUBIC, rows=rows)
    assert np.all(np.isin(field.columns["returnStatus"][kept < 0.5], (-5,)))


def test_scattered_nodes(ldic: Run, tmp_path: Path) -> None:
    """Nodes of a field of points are taken where they are; the fraction of a position is not part of the window."""
    rng = np.random.default_rng(8)
    nodes = rng.uniform(14, np.array(SOLID.shape) - 15, (25, 3))
    nodes[:13] = np.floor(nodes[:13])
    guess = np.stack([exact(SOLID, point) for point in nodes])
    write_guess(tmp_path / "points.tsv", guess, nodes)
    field = ldic(f"-hws 8 -o 3 -pf {tmp_path}/points.tsv -vtk -tif")
    assert field.layout == "points"
    np.testing.assert_allclose(field.positions, nodes, rtol=0, atol=1e-7)
    check(field, SOLID, CUBIC, rows=np.arange(25) < 13)
    assert other_outputs(tmp_path / "out") == {"P-ldic.tsv", "P-ldic.vtk"}
    text = (tmp_path / "out" / "P-ldic.vtk").read_text()
    assert "DATASET UNSTRUCTURED_GRID" in text
    assert "POINTS 25 float" in text
    # with a fraction: the displacement of the window's centre, the node without its fraction
    truth = SOLID.displacement(np.floor(nodes[13:]))
    np.testing.assert_allclose(field.displacements[13:], truth, rtol=0, atol=CUBIC)


# ---- masks and grey levels


def test_mask_and_coverage(ldic: Run, tmp_path: Path) -> None:
    """-mc is the least fraction that is not masked; what is masked may be anything."""
    mask = np.zeros(SOLID.shape, np.uint8)
    mask[:, :, 30:] = 1
    other = replace(SOLID, seed=9).image1()
    spoiled = save(tmp_path / "spoiled.tif", np.where(mask, SOLID.image1(), other))
    options = f"-ns 10 -hws 8 -o 3 -mf1 {save(tmp_path / 'mask.tif', mask)} --criterion ssd"
    for least in (0.5, 0.3, 0.9):
        field = ldic(f"{options} -mc {least}", spoiled, "b")
        middle = inner(field, SOLID, 12)
        x = field.positions[:, 2]
        # the window's 17 planes from x - 8 to x + 8
        fraction = np.clip(x + 8 - 30 + 1, 0, 17) / 17
        np.testing.assert_array_equal(field.columns["returnStatus"][middle] == -5, fraction[middle] < least)
        check(field, SOLID, 5 * CUBIC, rows=middle & (fraction >= max(least, 0.5)))
    skipped = field.columns["returnStatus"] == -5
    assert skipped.any()
    assert np.isnan(field.displacements[skipped]).all()
    np.testing.assert_array_equal(field.F[skipped], np.tile(np.eye(3), (skipped.sum(), 1, 1)))
    assert np.isinf(field.columns["error"][skipped]).all()
    assert np.isinf(field.columns["deltaPhiNorm"][skipped]).all()
    assert np.all(field.columns["iterations"][skipped] == 0)
    # all of it masked: rows, but nothing was measured
    empty = ldic(f"-ns 10 -hws 8 -mf1 {save(tmp_path / 'empty.tif', mask * 0)}", status=1)
    assert np.all(empty.columns["returnStatus"] == -5)


def test_values_of_a_mask_do_not_matter(ldic: Run, tmp_path: Path) -> None:
    mask = np.zeros(SOLID.shape, np.uint8)
    mask[:, 10:, 20:] = 1
    written = []
    for name, values in {"1": mask, "128": mask * np.uint8(128), "256": mask * np.uint16(256)}.items():
        ldic(f"{GRID} -mf1 {save(tmp_path / f'{name}.tif', values)}")
        written.append((tmp_path / "out" / "P-ldic.tsv").read_bytes())
    assert len(set(written)) == 1


def test_grey_thresholds(ldic: Run) -> None:
    """Means of windows, strictly between."""
    image = SOLID.image1().astype(float)
    field = ldic("-ns 10 -hws 8")
    rows = inner(field, SOLID, 8)
    means = np.array(
        [image[tuple(slice(int(c) - 8, int(c) + 9) for c in node)].mean() for node in field.positions[rows]]
    )
    low, high = np.percentile(means, [30, 70])
    status = ldic(f"-ns 10 -hws 8 -glt {low} -ght {high}").columns["returnStatus"][rows]
    # means are sums in float32: none of these is that close to a threshold
    np.testing.assert_array_equal(status == -5, (means <= low) | (means >= high))
    assert 0 < np.sum(status == 2) < rows.sum()
    status = ldic(f"-ns 10 -hws 8 -glt {low}").columns["returnStatus"][rows]
    np.testing.assert_array_equal(status == -5, means <= low)


@pytest.mark.parametrize("which", [1, 2])
def test_voxels_that_are_not_numbers_are_masked(ldic: Run, tmp_path: Path, which: int) -> None:
    """A node with a hole in its window is as good as the others; those without have the same bits as before."""
    pair = [SOLID.image1().astype(np.float32), SOLID.image2().astype(np.float32)]
    hole = np.array([20, 20, 30])
    clean = ldic("-ns 10 -hws 8 -o 1", *(save(tmp_path / f"clean{k}.tif", image) for k, image in enumerate(pair)))
    pair[which - 1][tuple(hole + 2)] = np.nan
    pair[which - 1][tuple(hole - 1)] = np.inf
    paths = [save(tmp_path / f"{k}.tif", image) for k, image in enumerate(pair)]
    field = ldic("-ns 10 -hws 8 -o 1", *paths)
    check(field, SOLID, LINEAR)
    assert np.isfinite(field.phi[field.columns["returnStatus"] != -5]).all()
    far = np.abs(field.positions - hole).max(axis=1) > 20
    assert far.sum() > 20
    np.testing.assert_array_equal(field.phi[far], clean.phi[far])
    at = np.all(field.positions == hole, axis=1)
    assert np.abs(field.phi[at] - clean.phi[at]).max() > 0
    # only too many of them are a reason to skip a window
    pair[which - 1][12:29, 12:29, 26:39] = np.nan
    paths = [save(tmp_path / f"{k}.tif", image) for k, image in enumerate(pair)]
    status = ldic("-ns 10 -hws 8 -mc 0.5", *paths).columns["returnStatus"][at]
    assert status == -5 if which == 1 else status < 2


# ---- first guesses


@pytest.mark.parametrize("apply", ["all", "rigid", "no"])
def test_what_is_taken_of_a_registration(ldic: Run, tmp_path: Path, apply: str) -> None:
    """Displacements follow the whole Phi about its own centre; -F says which F is started from."""
    phi = deformation.compute_phi((2.0, -1.0, 0.5), (3, -2, 1), np.diag([1.02, 0.97, 1.05]))
    centre = np.array([10.0, 20.5, 31.0])
    write_guess(tmp_path / "guess.tsv", phi[None], centre[None])
    field = ldic(f"-ns 20 -hws 5 -it 0 -F {apply} -pf {tmp_path}/guess.tsv")
    tried = field.columns["returnStatus"] == 1
    assert tried.sum() >= 8
    moved = deformation.apply(phi, centre, field.positions)
    # the guess has seven digits behind the point, and an arm of 40 voxels
    np.testing.assert_allclose(field.displacements[tried], moved[tried], rtol=0, atol=2e-5)
    F = {"all": phi[:3, :3], "rigid": deformation.rotation_matrix((3, -2, 1)), "no": np.eye(3)}[apply]
    np.testing.assert_allclose(field.F[tried], np.tile(F, (tried.sum(), 1, 1)), rtol=0, atol=1e-6)


def test_guess_of_binned_images(ldic: Run, tmp_path: Path) -> None:
    phi = deformation.compute_phi((1.0, -0.5, 0.25), (1, 0, 0))
    write_guess(tmp_path / "guess.tsv", phi[None], np.array([[12.0, 13.0, 14.0]]))
    field = ldic(f"-ns 20 -hws 5 -it 0 -pfb 2 -pf {tmp_path}/guess.tsv")
    tried = field.columns["returnStatus"] == 1
    double = deformation.scale_translation(phi, 2)
    moved = deformation.apply(double, (24.0, 26.0, 28.0), field.positions)
    np.testing.assert_allclose(field.displacements[tried], moved[tried], rtol=0, atol=2e-5)


def test_far_motion_by_a_guess(ldic: Run, tmp_path: Path) -> None:
    far = replace(SOLID, translation=(7.3, -8.4, 9.6), strain=(0, 0, 0), rotation=(0, 0, 0))
    two = save(tmp_path / "two.tif", far.image2())
    phi = deformation.compute_phi((7, -8, 10))
    write_guess(tmp_path / "guess.tsv", phi[None], np.zeros((1, 3)))
    check(ldic(f"{GRID} -o 3 -pf {tmp_path}/guess.tsv", "a", two), far, CUBIC)
    lost = ldic(f"{GRID} -o 3 -it 20", "a", two)
    rows = inner(lost, far, 12)
    assert np.median(np.abs(lost.displacements[rows] - far.translation)) > 1


def test_field_as_a_guess(ldic: Run, tmp_path: Path) -> None:
    """Nodes come from the file; rows without a displacement become -7, the others are not touched by them."""
    first = ldic(f"{GRID} -o 3")
    kept = inner(first, SOLID, 12)
    phi = first.phi.copy()
    lost = np.nonzero(kept)[0][[1, 5]]
    phi[lost[0], :3, 3] = np.nan
    phi[lost[1], 1, 3] = np.nan
    write_guess(tmp_path / "field.tsv", phi, first.positions)
    field = ldic(f"-hws 8 -o 3 -pf {tmp_path}/field.tsv")
    np.testing.assert_array_equal(field.positions, first.positions)
    assert field.dims == first.dims
    np.testing.assert_array_equal(field.columns["returnStatus"][lost], -7)
    assert np.isnan(field.displacements[lost]).all()
    np.testing.assert_array_equal(field.F[lost], np.tile(np.eye(3), (2, 1, 1)))
    for column, value in {"error": np.inf, "iterations": 0, "deltaPhiNorm": np.inf}.items():
        np.testing.assert_array_equal(field.columns[column][lost], value)
    kept[lost] = False
    check(field, SOLID, CUBIC, rows=kept)
    assert np.all(field.columns["iterations"][kept] <= 2)
    # the same spacing may be said again
    again = ldic(f"-ns 10 -hws 8 -o 3 -pf {tmp_path}/field.tsv", out="again")
    np.testing.assert_array_equal(again.phi, field.phi)


def test_guess_of_a_neighbour_does_not_matter(ldic: Run, tmp_path: Path) -> None:
    """An outlier may send its own window away, or out of the image, but shares nothing with the nodes beside it."""
    first = ldic(f"{GRID} -o 3 -pf @ab.tsv")
    reference = None
    for t in (None, (17.0, 17.0, -17.0), (3.0, 0.0, 0.0), (1e3, 0.0, 0.0), (-1e15, 1e15, 0.0)):
        phi = first.phi.copy()
        phi[np.isnan(phi)] = 0
        odd = len(first) // 2
        if t is not None:
            phi[odd, :3, 3] = t
        write_guess(tmp_path / "field.tsv", phi, first.positions)
        field = ldic(f"-hws 8 -o 3 -pf {tmp_path}/field.tsv")
        others = np.arange(len(field)) != odd
        if reference is None:
            reference = field
        np.testing.assert_array_equal(field.phi[others], reference.phi[others])
        for name in ("error", "iterations", "returnStatus", "deltaPhiNorm"):
            np.testing.assert_array_equal(field.columns[name][others], reference.columns[name][others])
        if t is not None and abs(t[0]) >= 1e3:
            assert field.columns["returnStatus"][odd] < 0


def test_skip(ldic: Run, tmp_path: Path) -> None:
    """Rows of status 1, -1, -2 and -3 are correlated from where they are; all others keep every number."""
    first = ldic(f"{GRID} -o 3")
    rows = np.nonzero(inner(first, SOLID, 12))[0]
    columns = {
        name: first.columns[name].astype(float) for name in ("error", "iterations", "returnStatus", "deltaPhiNorm")
    }
    phi = first.phi.copy()
    status = dict(zip(rows, (1, -1, -2, -3, -4, -5, -7, 0, 2), strict=False))
    for k, value in status.items():
        columns["returnStatus"][k] = value
        columns["iterations"][k] = 33
        phi[k, :3, 3] += 0.3
    write_guess(tmp_path / "field.tsv", phi, first.positions, **columns)
    field = ldic(f"-hws 8 -o 3 -skp -pf {tmp_path}/field.tsv")
    given = read_tsv(tmp_path / "field.tsv")
    again = np.isin(given.columns["returnStatus"], (1, -1, -2, -3))
    assert set(rows[:4]) <= set(np.nonzero(again)[0])
    check(field, SOLID, CUBIC, rows=np.isin(np.arange(len(field)), rows[:4]))
    np.testing.assert_array_equal(field.phi[~again], given.phi[~again])
    for name in columns:
        np.testing.assert_array_equal(field.columns[name][~again], given.columns[name][~again])


# ---- iterations


def test_iterations_and_limit(ldic: Run) -> None:
    guess = ldic(f"{GRID} -it 0")
    assert set(np.unique(guess.columns["returnStatus"])) <= {1, -5}
    tried = guess.columns["returnStatus"] == 1
    assert np.all(guess.columns["iterations"] == 0)
    assert np.all(guess.columns["deltaPhiNorm"][tried] == 100)
    np.testing.assert_array_equal(guess.phi[tried], np.tile(np.eye(4), (tried.sum(), 1, 1)))
    two = ldic(f"{GRID} -it 2 -dp 1e-9")
    rows = inner(two, SOLID, 12)
    np.testing.assert_array_equal(two.columns["iterations"][rows], 2)
    np.testing.assert_array_equal(two.columns["returnStatus"][rows], 1)
    loose, tight = ldic(f"{GRID} -dp 0.05"), ldic(f"{GRID} -dp 1e-5")
    assert np.all(loose.columns["deltaPhiNorm"][rows] <= 0.05)
    assert np.all(tight.columns["deltaPhiNorm"][rows] <= 1e-5)
    assert np.all(loose.columns["iterations"][rows] < tight.columns["iterations"][rows])


def test_nothing_found_is_told_by_the_exit_status(ldic: Run, tmp_path: Path) -> None:
    path = save(tmp_path / "even.tif", np.full((30, 30, 30), 1000, np.uint16))
    field = ldic("-ns 10 -hws 5", path, path, status=1)
    assert np.all(field.columns["returnStatus"] == -2)
    np.testing.assert_array_equal(field.phi, np.tile(np.eye(4), (len(field), 1, 1)))


# ---- series


def series(images: Path, tmp_path: Path) -> list[str]:
    third = replace(SOLID, translation=(1.0, -0.9, 1.1), rotation=(2, -1, 1))
    return [str(images / "a.tif"), str(images / "b.tif"), save(tmp_path / "c.tif", third.image2())]


@pytest.mark.parametrize("prefix", [None, "P"])
@pytest.mark.parametrize("incremental", [False, True])
def test_series(images: Path, tmp_path: Path, prefix: str | None, incremental: bool) -> None:
    """Every pair is what a run of its own gives; -pre and the second image's name tell them apart."""
    paths = series(images, tmp_path)
    out = tmp_path / "out"
    options = ["-ns", "12", "-hws", "7", "-o", "3", "-np", "1", "-vtk", "-tif"]
    named = [] if prefix is None else ["-pre", prefix]
    flag = ["-sei"] if incremental else []
    assert main(["ldic", *paths, *options, *named, *flag, "-od", str(out)]) == 0
    first = "b" if incremental else "a"
    stems = ["P-b", "P-c"] if prefix else ["a-b", f"{first}-c"]
    endings = [".tsv", ".vtk"]
    components = ("Zdisp", "Ydisp", "Xdisp", "error", "iterations", "returnStatus", "deltaPhiNorm")
    endings += [f"-{name}.tif" for name in components]
    table = f"{prefix or 'a'}-ldic-series.tsv"
    assert other_outputs(out) == {table, *(f"{stem}-ldic{end}" for stem in stems for end in endings)}
    firsts = {"b": paths[0], "c": paths[1] if incremental else paths[0]}
    for stem, path in zip(stems, paths[1:], strict=True):
        alone = tmp_path / f"alone{stem}"
        assert main(["ldic", firsts[stem[-1]], path, *options[:8], "-pre", "Q", "-od", str(alone)]) == 0
        assert (out / f"{stem}-ldic.tsv").read_bytes() == (alone / "Q-ldic.tsv").read_bytes()


def test_names_of_the_files(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / f"{name}.tif").write_bytes((images / f"{name}.tif").read_bytes())
    monkeypatch.chdir(tmp_path)
    options = ["-ns", "25", "-hws", "4", "-np", "1", "-it", "1"]
    assert main(["ldic", "a.tif", "b.tif", *options]) == 0
    assert (tmp_path / "a-b-ldic.tsv").exists()
    assert main(["ldic", "./a.tif", "b.tif", *options, "-pre", "P", "-od", "x/y"]) == 0
    assert other_outputs(tmp_path / "x" / "y") == {"P-ldic.tsv"}


# ---- what it writes


def test_tsv_as_spam_reads_it(ldic: Run, tmp_path: Path) -> None:
    """Tabs, the header's names in spam's order, nodes counted from 0 with x fastest, numbers that Python reads."""
    field = ldic(f"{GRID} -pf @ab.tsv -mc 0.7")
    raw = (tmp_path / "out" / "P-ldic.tsv").read_bytes()
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    header, *rows = raw.decode("ascii").splitlines()
    assert header.split("\t") == list(COLUMNS["LDIC"])
    table = np.genfromtxt(tmp_path / "out" / "P-ldic.tsv", delimiter="\t", names=True)
    assert len(rows) == len(table) == len(field)
    np.testing.assert_array_equal(table["NodeNumber"], np.arange(len(rows)))
    positions = np.stack([table[name] for name in ("Zpos", "Ypos", "Xpos")], -1)
    np.testing.assert_array_equal(np.lexsort(positions.T[::-1]), np.arange(len(rows)))
    assert [len(np.unique(axis)) for axis in positions.T] == list(field.dims)
    phi = np.stack([table[name] for name in PHI], -1).reshape(-1, 3, 4)
    np.testing.assert_array_equal(phi, field.phi[:, :3])
    assert {-5, 2} <= set(table["returnStatus"])
    assert "nan" in raw.decode()
    assert "inf" in raw.decode()
    # seven digits behind the point, or more where they would be lost
    for cell in rows[len(rows) // 2].split("\t"):
        assert len(cell.partition(".")[2]) >= 7 or cell in ("nan", "inf")


@pytest.mark.parametrize(
    ("options", "names", "dims"),
    [("-ns3 15 14 15 -hws 6", ("a", "b"), (3, 3, 4)), ("-ns3 1 37 40 -hws 9", ("f", "g"), (1, 4, 4))],
)
def test_tiff_and_vtk(
    ldic: Run, tmp_path: Path, options: str, names: tuple[str, str], dims: tuple[int, int, int]
) -> None:
    """Grids with 3 or 4 nodes to a side are volumes, not colours; 2D ones have no displacement along z."""
    field = ldic(f"{options} -tif -vtk", *names)
    assert field.dims == dims
    written = {name.removeprefix("P-ldic") for name in other_outputs(tmp_path / "out")}
    components = {name: field.displacements[:, a] for a, name in enumerate(("Zdisp", "Ydisp", "Xdisp"))}
    components |= {name: field.columns[name] for name in ("error", "iterations", "returnStatus", "deltaPhiNorm")}
    if dims[0] == 1:
        del components["Zdisp"]
    assert written == {".tsv", ".vtk", *(f"-{name}.tif" for name in components)}
    for name, values in components.items():
        with tifffile.TiffFile(tmp_path / "out" / f"P-ldic-{name}.tif") as tif:
            assert {page.samplesperpixel for page in tif.pages} == {1}
            assert {page.photometric.name for page in tif.pages} == {"MINISBLACK"}
            image = tif.asarray()
        assert image.dtype == np.float32
        np.testing.assert_allclose(image.reshape(dims).ravel(), values, rtol=1e-6, atol=1e-7)
    lines = (tmp_path / "out" / "P-ldic.vtk").read_text().splitlines()
    z, y, x = dims
    assert f"DIMENSIONS {x + 1} {y + 1} {z + 1}" in lines
    assert f"CELL_DATA {x * y * z}" in lines
    hws = (9, 9, 0) if z == 1 else (6, 6, 6)
    start = field.positions[0][::-1] - hws
    assert "ORIGIN " + " ".join(repr(float(value)) for value in start) in lines
    at = lines.index("VECTORS displacements float") + 1
    vectors = np.array([line.split() for line in lines[at : at + x * y * z]], float)
    np.testing.assert_allclose(vectors[:, ::-1], np.nan_to_num(field.displacements), rtol=1e-6, atol=1e-7)


def test_without_tsv(images: Path, tmp_path: Path) -> None:
    arguments = [str(images / "a.tif"), str(images / "b.tif"), "-ns", "25", "-hws", "5", "-np", "1", "-notsv", "-vtk"]
    assert main(["ldic", *arguments, "-od", str(tmp_path)]) == 0
    assert other_outputs(tmp_path) == {"a-b-ldic.vtk"}


def test_log_and_summary(ldic: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    field = ldic(f"{GRID} -mc 0.8 --log {tmp_path}/log")
    printed = capsys.readouterr().out
    logged = (tmp_path / "log").read_text()
    for text in (printed, logged):
        assert f"Starting Local DIC for {len(field)} nodes" in text
        for value in (2, -5):
            count = int(np.sum(field.columns["returnStatus"] == value))
            assert count > 0
            row = next(line for line in text.splitlines() if f"RS={value:+d}" in line)
            assert f" {count} " in row


# ---- starts from neighbours


def test_a_jump_without_a_guess_needs_neighbours(ldic: Run, tmp_path: Path) -> None:
    """Half of the image moves by 12 voxels: its windows are lost from the guess, and found from neighbours."""
    jump = Jump()
    images = [save(tmp_path / f"{name}.tif", image) for name, image in (("j", jump.image1), ("k", jump.image2))]
    line = "-ns 12 -hws 10 -o 3"
    alone = ldic(line, *images)
    found = ldic(f"{line} --start-from neighbours", *images)
    nodes = jump.clear(found.positions, 14)
    lower = nodes & ~jump.is_upper(found.positions)
    assert lower.sum() > 60
    truth = jump.displacement(found.positions)
    for field, rows, least, most in ((alone, lower, 0.0, 0.05), (found, nodes, 0.98, 1.0)):
        good = (field.columns["returnStatus"] == 2) & (np.abs(field.displacements - truth) < CUBIC).all(axis=1)
        assert least <= good[rows].mean() <= most
    with h5py.File(tmp_path / "out" / "P-ldic.h5") as file:
        assert json.loads(file["mpidvc"].attrs["determines"])["--start-from"] == "neighbours"


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("-pf @ab.tsv", "ab"),
        ("-pf @ab.tsv -F no -rig -dp 1e-2", "ab"),
        ("-mf1 @a.tif -glt 15000 -shift", "ab"),
        ("-o 3 -ug --criterion znssd", "ab"),
        ("-pf @fg.tsv", "fg"),
    ],
)
def test_neighbours_change_no_measurement(ldic: Run, line: str, names: str) -> None:
    """Where the guess is good: the same statuses, and displacements that differ by less than the last step of each."""
    grid = GRID if names == "ab" else "-ns 14 -hws 11"
    alone = ldic(f"{grid} {line}", *names)
    found = ldic(f"{grid} {line} --start-from neighbours", *names)
    # windows that stick out of the image depend on where they begin
    rows = inner(found, SOLID if names == "ab" else FLAT, 12)
    assert rows.sum() >= 18
    status = found.columns["returnStatus"]
    np.testing.assert_array_equal(status[rows], alone.columns["returnStatus"][rows])
    np.testing.assert_array_equal(status == -5, alone.columns["returnStatus"] == -5)
    good = rows & (status == 2)
    assert good.sum() >= 10
    atol = 0.02 if "-dp" in line else 2e-3
    np.testing.assert_allclose(found.displacements[good], alone.displacements[good], rtol=0, atol=atol)
    assert found.columns["iterations"][good].mean() <= alone.columns["iterations"][good].mean() + 0.5


def test_neighbours_of_a_field_of_points(ldic: Run, images: Path, tmp_path: Path) -> None:
    """Scattered points, one of them with a guess; the others begin 8 voxels off."""
    random = np.random.default_rng(8)
    positions = random.integers([16, 16, 16], [34, 40, 46], (40, 3)).astype(float)
    phi = np.tile(np.eye(4), (40, 1, 1))
    phi[:, :3, 3] = SOLID.displacement(positions) + np.array([0, 0, 8])
    phi[::8, :3, 3] = SOLID.displacement(positions[::8]).round()
    write_guess(tmp_path / "points.tsv", phi, positions)
    line = f"-hws 8 -o 3 -pf {tmp_path}/points.tsv"
    alone = ldic(line, status=1)
    found = ldic(f"{line} --start-from neighbours")
    right = [
        (f.columns["returnStatus"] == 2) & (np.abs(f.displacements - SOLID.displacement(positions)) < CUBIC).all(axis=1)
        for f in (alone, found)
    ]
    assert right[0].sum() <= 12
    assert right[1].all()


# ---- how images are stored


def test_storage_does_not_matter(ldic: Run, images: Path, tmp_path: Path) -> None:
    """A plain TIFF, a folder of slices, an HDF5 dataset and a compressed TIFF: the same voxels, the same bits."""
    one, two = SOLID.image1(), SOLID.image2()
    options = f"{GRID} -o 3 -mf1 @a.tif"
    ldic(options)
    expected = (tmp_path / "out" / "P-ldic.tsv").read_bytes()
    for name, image in (("one", one), ("two", two)):
        (tmp_path / name).mkdir()
        for k, plane in enumerate(image):
            tifffile.imwrite(tmp_path / name / f"slice{k:03d}.tif", plane)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/one"] = one
        file.create_dataset("entry/two", data=two, chunks=(8, 16, 16), compression="gzip", shuffle=True)
    save(tmp_path / "one.tif", one, compression="zlib")
    save(tmp_path / "two.tif", two, compression="zlib", predictor=True, tile=(32, 32))
    for pair in (("one", "two"), ("scan.h5::/entry/one", "scan.h5::/entry/two"), ("one.tif", "two.tif")):
        ldic(options, *(f"{tmp_path}/{name}" for name in pair))
        assert (tmp_path / "out" / "P-ldic.tsv").read_bytes() == expected
    # a slash behind a folder is no part of its name
    main(["ldic", f"{tmp_path}/one/", f"{tmp_path}/two/", "-ns", "25", "-hws", "5", "-it", "0", "-np", "1"])
    assert (tmp_path / "one-two-ldic.tsv").exists()


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "float32", "float64", ">u2", ">f4"])
def test_types_of_images(ldic: Run, tmp_path: Path, dtype: str) -> None:
    halves = SOLID.image1() // 2, SOLID.image2() // 2
    ldic(GRID, *(save(tmp_path / f"u{k}.tif", image) for k, image in enumerate(halves)))
    expected = (tmp_path / "out" / "P-ldic.tsv").read_bytes()
    order = ">" if dtype.startswith(">") else "<"
    ldic(GRID, *(save(tmp_path / f"x{k}.tif", image.astype(dtype), byteorder=order) for k, image in enumerate(halves)))
    assert (tmp_path / "out" / "P-ldic.tsv").read_bytes() == expected


def test_a_plane_stored_as_a_volume_is_2d(ldic: Run, images: Path, tmp_path: Path) -> None:
    """(1, Y, X) gives the bits of (Y, X); spam pads it with zeros along z."""
    options = "-ns 20 -hws 10 -tif -vtk -pf @fg.tsv"
    ldic(options, "f", "g")
    deep = []
    for name, image in (("f", FLAT.image1()), ("g", FLAT.image2())):
        assert image.shape[0] == 1
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": "ZYX"})
        assert tifffile.imread(path, squeeze=False).ndim >= 3
        deep.append(str(path))
    ldic(options, *deep, out="deep")
    assert outputs(tmp_path / "out") == outputs(tmp_path / "deep")
