"""``mpidvc deformImage`` against closed forms, the formulas in numpy and scipy, and spam's images."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from matplotlib.image import imread
from scipy import ndimage
from scipy.spatial import Delaunay

from mpidvc.core import deformation
from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv, write_tsv
from mpidvc.images.image import ArrayImage
from mpidvc.main import main
from mpidvc.tasks import deform
from mpidvc.tasks.deform import DeformTask, Mesh, MeshMotion, NearestMotion, circumspheres
from tests.tasks.given import brute_places, scattered

REFERENCE = Path(__file__).parents[1] / "reference" / "deform"
SHAPE = (18, 22, 26)
PHI = deformation.compute_phi((0.7, -1.2, 0.4), (4, -3, 5), np.diag([1.02, 0.97, 1.03]))


def texture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), [1.2 * (n > 1) for n in shape])
    return ((values - values.min()) / np.ptp(values) * 50000 + 5000).astype(np.uint16)


def save(path: Path, image: np.ndarray) -> str:
    tifffile.imwrite(path, image[0] if image.shape[0] == 1 else image, photometric="minisblack")
    return str(path)


def field_of(positions: np.ndarray, phi: np.ndarray, status: int | np.ndarray = 2) -> PhiField:
    n = len(positions)
    columns = {
        "error": np.zeros(n),
        "iterations": np.zeros(n),
        "returnStatus": np.broadcast_to(status, n).copy(),
        "deltaPhiNorm": np.zeros(n),
    }
    return PhiField.from_positions(positions, phi, columns)


def write(path: Path, positions: np.ndarray, phi: np.ndarray, status: int | np.ndarray = 2) -> str:
    write_tsv(path, field_of(positions, phi, status), "LDIC")
    return str(path)


def run(*words: object) -> int:
    return main(["deformImage", *map(str, words), "-np", "1"])


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("shape", [SHAPE, (1, 40, 44)], ids=["3d", "2d"])
def test_grey_levels_are_those_of_scipy(tmp_path: Path, shape: tuple[int, int, int], order: int) -> None:
    image = texture(shape)
    positions, phi = scattered(shape, 40)
    pf = write(tmp_path / "field.tsv", positions, phi)
    given = read_tsv(pf)
    assert run(save(tmp_path / "im.tif", image), "-pf", pf, "-o", order, "-nn", 6) == 0
    found = tifffile.imread(tmp_path / "im-def.tif").reshape(shape)
    places = brute_places(shape, given.positions, given.phi, 6, False)
    skip = int(shape[0] == 1)
    expected = ndimage.map_coordinates(
        image[0].astype(float) if skip else image.astype(float), np.moveaxis(places[..., skip:], -1, 0), order=order
    )
    assert found.dtype == np.uint16
    assert 0.5 < (found > 0).mean() < 1
    # half a grey level from rounding, and single precision of 16 bits with spline coefficients
    np.testing.assert_allclose(found, np.clip(expected, 0, 65535), rtol=0, atol=0.51 if order == 1 else 0.6)


def test_affine_field_and_its_registration_give_one_image(tmp_path: Path) -> None:
    """An exact affine field has the closed form of a single Phi, also outside of its points; so has the mesh inside."""
    z, y, x = np.indices(SHAPE)
    image = (3 * z + 5 * y + 7 * x).astype(np.float32)
    im = save(tmp_path / "im.tif", image)
    centre = np.array([5.0, 9.0, 14.0])
    axes = [np.arange(2.0, n, 5) for n in SHAPE]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    phi = np.tile(PHI, (len(positions), 1, 1))
    phi[:, :3, 3] = deformation.apply(PHI, centre, positions)
    pf = write(tmp_path / "field.tsv", positions, phi)
    single = PhiField(centre[None], PHI[None], field_of(centre[None], PHI[None]).columns, "registration")
    write_tsv(tmp_path / "phi.tsv", single, "LDIC")
    assert run(im, "-pf", pf) == run(im, "-pf", pf, "-tet") == run(im, "-pf", tmp_path / "phi.tsv") == 0
    inverse = np.linalg.inv(PHI[:3, :3])
    at = np.stack([z, y, x], -1) - centre - PHI[:3, 3]
    places = at @ inverse.T + centre
    inside = ((places >= 1e-5) & (places <= np.array(SHAPE) - 1 - 1e-5)).all(axis=-1)
    exact = places @ [3.0, 5.0, 7.0]
    for name in ("reg-def", "def", "tetMesh-def"):
        found = tifffile.imread(tmp_path / f"im-{name}.tif")
        filled = inside & (found != 0)
        assert filled.sum() > (0.95 if name != "tetMesh-def" else 0.3) * inside.sum()
        # numbers of the text have seven decimals
        np.testing.assert_allclose(found[filled], exact[filled], rtol=0, atol=1e-4)
        if name == "tetMesh-def":
            hull = Delaunay(positions + phi[:, :3, 3]).find_simplex(np.stack([z, y, x], -1)) >= 0
            assert ((found != 0) == (hull & inside))[inside].mean() > 0.999


def test_rigid_part_and_centre_of_a_registration(tmp_path: Path) -> None:
    """-rr leaves the stretch out, and Phi is about the position in the file."""
    image = texture(SHAPE)
    im = save(tmp_path / "im.tif", image)
    position = np.array([[4.0, 15.0, 6.0]])
    single = PhiField(position, PHI[None], field_of(position, PHI[None]).columns, "registration")
    write_tsv(tmp_path / "phi.tsv", single, "LDIC")
    for line, F in (((), PHI[:3, :3]), (("-rr",), deformation.polar(PHI[:3, :3])[0])):
        assert run(im, "-pf", tmp_path / "phi.tsv", *line) == 0
        places = (np.moveaxis(np.indices(SHAPE), 0, -1) - position[0] - PHI[:3, 3]) @ np.linalg.inv(F).T + position[0]
        expected = ndimage.map_coordinates(image.astype(float), np.moveaxis(places, -1, 0), order=1)
        found = tifffile.imread(tmp_path / "im-reg-def.tif")
        both = (found > 0) & (expected > 0)
        assert both.mean() > 0.5
        np.testing.assert_allclose(found[both], expected[both], rtol=0, atol=1.0)


def test_tetrahedra_conserve_grey_levels(tmp_path: Path) -> None:
    im = save(tmp_path / "im.tif", np.full(SHAPE, 1000, np.uint16))
    axes = [np.arange(2.0, n, 5) for n in SHAPE]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    phi = np.tile(np.diag([1.1, 1.05, 0.9, 1.0]), (len(positions), 1, 1))
    phi[:, :3, 3] = (positions - positions.mean(axis=0)) @ np.diag([0.1, 0.05, -0.1])
    assert run(im, "-pf", write(tmp_path / "f.tsv", positions, phi), "-tet", "-cgs", "-a", -1) == 0
    found = tifffile.imread(tmp_path / "im-tetMesh-def.tif")
    assert set(np.unique(found)) == {0, round(1000 / (1.1 * 1.05 * 0.9))}


def test_alpha() -> None:
    """The least alpha that joins all points bridges the gap between two clusters, and a bit less does not."""
    points = np.random.default_rng(5).uniform(0, 10, (60, 3))
    points[30:, 2] += 25
    mesh = Mesh.of(points, -1)
    assert mesh.alpha is not None
    assert len(mesh.vertices) < len(Mesh.of(points, 0).vertices)

    def whole(vertices: np.ndarray) -> bool:
        """Whether all points are held, and faces join the tetrahedra: by search from one to the next."""
        faces: dict[tuple[int, ...], list[int]] = {}
        for t, corners in enumerate(vertices):
            for k in range(4):
                faces.setdefault(tuple(sorted(np.delete(corners, k))), []).append(t)
        seen, ahead = {0}, [0]
        while ahead:
            t = ahead.pop()
            for k in range(4):
                for other in faces[tuple(sorted(np.delete(vertices[t], k)))]:
                    if other not in seen:
                        seen.add(other)
                        ahead.append(other)
        return len(seen) == len(vertices) and len(np.unique(vertices)) == len(points)

    assert whole(mesh.vertices)
    every = Mesh.of(points, 0).vertices
    square, _ = circumspheres(points, every)
    assert not any(whole(every[square <= value]) for value in np.sort(square[square < mesh.alpha * (1 - 1e-9)])[3:])


@pytest.mark.parametrize("line", ["", "-disp -o 3", "-tet"])
def test_spam(tmp_path: Path, line: str) -> None:
    """spam rounds grey levels of its own to integers, and truncates those of a mesh."""
    name = {"": "def", "-disp -o 3": "disp-def", "-tet": "tetMesh-def"}[line]
    assert (
        run(REFERENCE / "image.tif", "-pf", REFERENCE / "field.tsv", *line.split(), "-od", tmp_path, "-pre", "P") == 0
    )
    ours = tifffile.imread(tmp_path / f"P-{name}.tif").astype(int)
    spam = tifffile.imread(REFERENCE / f"{name}.tif").astype(int)
    assert (spam > 0).mean() > (0.1 if line == "-tet" else 0.8)
    # both triangulations may differ where points lie on a sphere, and at the hull
    alike = np.abs(ours - spam) <= 1
    assert alike.mean() > (0.995 if line == "-tet" else 0.9999)


def test_mask_threshold_radius_and_bins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = texture(SHAPE)
    im = save(tmp_path / "im.tif", image)
    positions, phi = scattered(SHAPE, 60)
    status = np.where(np.arange(60) % 3 == 0, 1, 2)
    pf = write(tmp_path / "f.tsv", positions, phi, status)
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:9, 5:20, 2:24] = 255
    masked = save(tmp_path / "mask.tif", mask)
    assert run(im, "-pf", pf, "-pre", "all") == 0
    assert run(im, "-pf", pf, "-mf2", masked, "-pre", "masked") == 0
    whole, part = (tifffile.imread(tmp_path / f"{name}-def.tif") for name in ("all", "masked"))
    np.testing.assert_array_equal(part, np.where(mask > 0, whole, 0))
    # the points left out are as good as absent
    inside = np.hypot(*(positions[:, 1:] - [10.5, 12.5]).T) <= 9
    near = write(tmp_path / "near.tsv", positions[inside], phi[inside])
    assert run(im, "-pf", near, "-pre", "near") == 0
    assert run(im, "-pf", pf, "-rst", 1, "-rad", 9, "-pre", "limited") == 0
    assert (tmp_path / "near-def.tif").read_bytes() == (tmp_path / "limited-def.tif").read_bytes()
    # a field of images binned by two
    half = phi.copy()
    half[:, :3, 3] /= 2
    assert run(im, "-pf", write(tmp_path / "half.tsv", positions / 2, half, status), "-pfb", 2, "-pre", "bins") == 0
    found = tifffile.imread(tmp_path / "bins-def.tif").astype(int)
    assert (np.abs(found - whole.astype(int)) <= 3).mean() > 0.999
    capsys.readouterr()
    assert run(im, "-pf", write(tmp_path / "ones.tsv", positions, phi, 1), "-nn", 100, "-pre", "ones") == 0
    told = capsys.readouterr().out
    assert "the threshold is 1 (-rst)" in told
    assert "-nn 100: there are 60 points; all of them are averaged" in told


def test_values_are_rounded_and_clipped(tmp_path: Path) -> None:
    """Cubic overshoot beside a white edge neither wraps nor is cut off."""
    image = np.zeros((12, 12, 12), np.uint8)
    image[:, :, 6:] = 255
    positions, _ = scattered(image.shape, 20)
    phi = np.tile(np.eye(4), (20, 1, 1))
    phi[:, 2, 3] = 0.4
    pf = write(tmp_path / "f.tsv", positions, phi)
    assert run(save(tmp_path / "im.tif", image), "-pf", pf, "-o", 3) == 0
    row = tifffile.imread(tmp_path / "im-def.tif")[6, 6, 1:]
    exact = ndimage.map_coordinates(image[6, 6].astype(float), [np.arange(1, 12) - 0.4], order=3)
    assert exact.max() > 255.5
    assert exact.min() < -0.5
    np.testing.assert_array_equal(row, np.clip(np.rint(exact), 0, 255))


def test_slabs_and_far_places_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    image = ArrayImage(texture(SHAPE))
    positions, phi = scattered(SHAPE, 40)
    motions = [NearestMotion(positions, phi, 8, False, 1, False)]
    motions.append(MeshMotion(positions, phi[:, :3, 3], Mesh.of(positions + phi[:, :3, 3], 0).vertices, True))
    for motion in motions:
        whole = DeformTask(image, motion).run(0).planes
        with monkeypatch.context() as patch:
            patch.setattr(deform, "SLAB_VOXELS", 3 * SHAPE[1] * SHAPE[2])
            patch.setattr(type(motion), "tile", 7)
            patch.setattr(deform, "WIDEST", 1)
            patch.setattr(deform, "AROUND", 50)
            task = DeformTask(image, motion)
            assert task.n_chunks == 6
            np.testing.assert_array_equal(np.concatenate([task.run(k).planes for k in range(6)]), whole)


def test_residual_and_hdf5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Image 1 deformed less image 2, whose grey levels are mapped; statistics are those of numpy."""
    image = texture(SHAPE)
    im = save(tmp_path / "im.tif", image)
    positions, phi = scattered(SHAPE, 40)
    pf = write(tmp_path / "f.tsv", positions, phi)
    assert run(im, "-pf", pf) == 0
    moved = tifffile.imread(tmp_path / "im-def.tif")
    dark = save(tmp_path / "dark.tif", np.rint(0.5 * np.where(moved > 0, moved, image) + 300).astype(np.uint16))
    capsys.readouterr()
    words = ("--criterion", "ssd", "--h5", "-pre", "P", "--plot", tmp_path / "h5.png")
    assert run(im, "-pf", pf, "--residual", dark, *words) == 0
    told = capsys.readouterr().out
    with h5py.File(tmp_path / "P-def.h5") as file, h5py.File(tmp_path / "P-def-residual.h5") as other:
        np.testing.assert_array_equal(file["image"][...], moved)
        residual = other["image"][...]
    filled = np.isfinite(residual)
    assert (filled == (moved > 0)).mean() > 0.99
    dark_values = tifffile.imread(dark).astype(float)
    raw, before = moved - dark_values, image - dark_values
    np.testing.assert_allclose(residual[filled], raw[filled], rtol=0, atol=0.51)
    for values in (before, residual.astype(float)):
        assert f"mean {values[filled].mean():.5g}, standard deviation {values[filled].std():.5g}" in told
    assert run(im, "-pf", pf, "--residual", dark, "--criterion", "znssd", "-pre", "Q") == 0
    told = capsys.readouterr().out
    assert "grey levels of image 2 mapped" in told
    mapped = tifffile.imread(tmp_path / "Q-def-residual.tif")
    assert mapped.dtype == np.float32
    # image 2 is that of a darker lamp: half a grey level of image 2 is left
    assert np.nanmax(np.abs(mapped)) < 1.1 * 2
    assert raw[filled].std() > 1000
    # three slices of both images, and of the deformed one
    assert imread(tmp_path / "h5.png").shape[:2] == (683, 1100)
    assert run(im, "-pf", pf, "--plot", tmp_path / "one.png") == 0
    assert imread(tmp_path / "one.png").shape[:2] == (360, 1100)
    assert run(im, "-pf", pf, "--plot", tmp_path / "no" / "one.png") == 2


def test_a_field_without_its_motion_does_not_lead_to_image_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    im = save(tmp_path / "im.tif", texture(SHAPE))
    removed = {"kind": "rigid", "phi": np.eye(4).tolist(), "centre": [0.0, 0.0, 0.0]}
    write_hdf5(tmp_path / "f.h5", field_of(*scattered(SHAPE, 40)), attributes={"removed_motion": json.dumps([removed])})
    assert run(im, "-pf", tmp_path / "f.h5") == 0
    assert "motion" not in capsys.readouterr().err
    assert run(im, "-pf", tmp_path / "f.h5", "--residual", im) == 0
    assert "a motion of the whole was removed from it, so that it does not lead to image 2" in capsys.readouterr().err


def test_the_criterion_of_the_correlation_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not that of the grey levels, which agree; another one may be asked for."""
    im = save(tmp_path / "im.tif", texture(SHAPE))
    pf = tmp_path / "f.h5"
    made_with = {"determines": json.dumps({"--criterion": ["znssd", 1.0, 0.0]})}
    write_hdf5(pf, field_of(*scattered(SHAPE, 40)), attributes=made_with)
    for words, told in (((), f"znssd (that of {pf})"), (("--criterion", "ssd"), "ssd (asked for")):
        capsys.readouterr()
        assert run(im, "-pf", pf, "--residual", im, *words) == 0
        assert f"Criterion: {told}" in capsys.readouterr().out
    write_hdf5(
        pf, field_of(*scattered(SHAPE, 40)), attributes={"determines": json.dumps({"command": "filterPhiField"})}
    )
    assert run(im, "-pf", pf, "--residual", im) == 0
    assert "Criterion: ssd (grey levels" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["tif", "h5"])
def test_an_interrupted_run_leaves_no_half_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Ctrl-C in the third slab: the earlier image is as it was, and there is no other file."""
    im = save(tmp_path / "im.tif", texture(SHAPE))
    pf = write(tmp_path / "f.tsv", *scattered(SHAPE, 40))
    words = [im, "-pf", pf, "--residual", im, *(["--h5"] if ending == "h5" else [])]
    assert run(*words) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(deform, "SLAB_VOXELS", 3 * SHAPE[1] * SHAPE[2])
    whole, done = DeformTask.run, []

    def interrupted(task: DeformTask, chunk: int) -> deform.Slab:
        done.append(chunk)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(task, chunk)

    monkeypatch.setattr(DeformTask, "run", interrupted)
    assert run(*words) not in (0, 1, 2)
    assert len(done) == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


BAD = {
    "": "the deformation is missing: give a registration or a field by -pf",
    "-pf @none.tsv": "does not exist",
    "-pf @f.tsv -mf2 @small.tif": "the mask needs the shape of image 2",
    "-pf @f.tsv --residual @small.tif": "both need the same shape",
    "-pf @f.tsv -nn 0": "-nn 0: at least one neighbour is needed",
    "-pf @f.tsv -cgs": "-cgs: needs the tetrahedra of -tet",
    "-pf @f.tsv -rst 3": "none of its 30 points is left; lower -rst",
    "-pf @f.tsv -rad 1e-9": "none of its 30 points is left",
    "-pf @f.tsv -tet -a 1e-9": "leaves no tetrahedron",
    "-pf @flat.tsv -tet": "there is no mesh of the 30 points",
    "-pf @f.tsv -od ''": "is no folder",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    positions, phi = scattered(SHAPE, 30)
    write(tmp_path / "f.tsv", positions, phi)
    positions[:, 0] = 4
    phi[:, :3, 3] = 0
    write(tmp_path / "flat.tsv", positions, phi)
    im = save(tmp_path / "im.tif", texture(SHAPE))
    save(tmp_path / "small.tif", texture((5, 6, 7)))
    words = ["" if word == "''" else word.replace("@", f"{tmp_path}/") for word in line.split()]
    assert run(im, *words) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert BAD[line] in told
    assert not list(tmp_path.glob("im-*"))
