"""The demonstration: from the installed command to files that are right, on one process and on ranks."""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.commands.demo import field as field_scene
from mpidvc.commands.demo import grains as grain_scene
from mpidvc.commands.demo import run as run_demo
from mpidvc.commands.demo.field import PAIR, Errors, compare
from mpidvc.commands.demo.grains import GRAINS, GrainScene
from mpidvc.core import deformation
from mpidvc.core.grains import AnalyticGrains
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv
from mpidvc.images.image import open_image
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks.ranks import Team
from tests.conftest import Job


@pytest.fixture(scope="module")
def serial(command: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and output of a demo on one process."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    done = command("demo", str(folder), "-np", "1")
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def test_files(serial: tuple[Path, str]) -> None:
    folder, _ = serial
    assert {"im1.tif", "im2.tif", "im1-im2-registration.tsv", "im1-im2-ldic.tsv", "im1-im2-ldic.vtk"} <= {
        path.name for path in folder.iterdir()
    }
    assert open_image(folder / "im1.tif").shape == PAIR.shape
    field = read_tsv(folder / "im1-im2-ldic.tsv")
    found = compare(field)
    assert found.interior > 5000
    assert found.good


def test_picture(serial: tuple[Path, str]) -> None:
    pytest.importorskip("matplotlib")
    assert (serial[0] / "im1-im2-field.png").read_bytes().startswith(b"\x89PNG")


def test_output_tells_what_was_done(serial: tuple[Path, str]) -> None:
    folder, text = serial
    assert f"$ mpidvc reg {folder}/im1.tif {folder}/im2.tif\n" in text
    assert "Displacement found less displacement known (voxels)" in text
    assert "nodes on one process: " in text


def test_the_command_lines_do_the_same(serial: tuple[Path, str], command: Job, tmp_path: Path) -> None:
    folder, text = serial
    line = next(line for line in text.splitlines() if line.startswith("$ mpidvc ldic "))
    done = command(*line.split()[2:], "-np", "1", "-od", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "im1-im2-ldic.tsv").read_bytes() == (folder / "im1-im2-ldic.tsv").read_bytes()


@pytest.mark.usefixtures("launcher")
def test_ranks_make_the_same_files(serial: tuple[Path, str], command: Job, tmp_path: Path) -> None:
    done = command("demo", str(tmp_path), "-np", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nodes on 2 processes: " in done.stdout
    for path in serial[0].iterdir():
        if path.suffix not in (".png", ".json"):
            assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_under_a_launcher(mpiexec: Job, tmp_path: Path) -> None:
    done = mpiexec(3, "-m", "mpidvc", "demo", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Displacement found less displacement known") == 1


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/demo: the folder cannot be made \(Not a directory\)"):
        run_demo.Plan.prepare(
            argparse.Namespace(directory=str(tmp_path / "file" / "demo"), grains=False),
            Console(silent=True),
            Team(InlineExecutor()),
        )


def exact_field() -> PhiField:
    axis = np.arange(15.0, 106, 10)
    positions = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    phi = np.tile(np.eye(4), (len(positions), 1, 1))
    phi[:, :3, 3] = PAIR.displacement(positions)
    return PhiField.from_positions(positions, phi, {"returnStatus": np.full(len(positions), 2.0)})


def test_exact_field_has_no_error() -> None:
    found = compare(exact_field())
    assert found.interior == found.converged > 500
    np.testing.assert_allclose(found.table, 0, atol=1e-12)
    assert found.good


def test_nodes_at_the_border_do_not_count() -> None:
    field = exact_field()
    outside = ~np.isfinite(compare(field).errors).all(axis=1)
    assert outside.any()
    field.displacements[outside] += 5
    assert compare(field).good


@pytest.mark.parametrize("what", ["mean", "scatter", "lost"])
def test_what_is_not_good(what: str) -> None:
    field = exact_field()
    if what == "mean":
        field.displacements[:, 1] += 2 * field_scene.LARGEST_MEAN
    elif what == "scatter":
        field.displacements[::2] += 2 * field_scene.LARGEST_SD
        field.displacements[1::2] -= 2 * field_scene.LARGEST_SD
    else:
        field.columns["returnStatus"][::20] = 1
    assert not compare(field).good


def test_nothing_found_is_not_good() -> None:
    assert not Errors(np.full((4, 3), np.nan), 4, 0).good


# ---- grains


@pytest.fixture(scope="module")
def grains(command: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and output of a demo of grains on one process."""
    folder = tmp_path_factory.mktemp("grains")
    done = command("demo", str(folder), "--grains", "-np", "1")
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


@pytest.fixture(scope="module")
def packing() -> AnalyticGrains:
    return GrainScene().packing


def test_grains_are_followed(grains: tuple[Path, str], packing: AnalyticGrains) -> None:
    folder, text = grains
    labels = tifffile.imread(folder / "labels1.tif")
    field = read_tsv(folder / "grains1-grains2-ddic.tsv")
    assert len(field) == GRAINS + 1
    assert (np.unique(labels) == np.arange(GRAINS + 1)).all()
    for label in (1, 100, GRAINS):
        # the closed form of the motion at the mean position of the voxels of a label
        centre = np.argwhere(labels == label).mean(axis=0)
        np.testing.assert_allclose(field.positions[label], centre, atol=1e-5)
        np.testing.assert_allclose(field.displacements[label], packing.moved(centre, label) - centre, atol=0.03)
    assert grain_scene.compare(field, packing).good
    assert f"for {GRAINS} of {GRAINS} grains\n" in text
    assert f"for {GRAINS} grains on one process: " in text
    # grains do not follow the whole
    assert np.std(packing.phi()[1:, :3, 3], axis=0).min() > 0.3


def test_picture_of_grains(grains: tuple[Path, str]) -> None:
    pytest.importorskip("matplotlib")
    assert (grains[0] / "grains1-grains2-field.png").read_bytes().startswith(b"\x89PNG")


def test_picture_without_some_grains(grains: tuple[Path, str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    field = read_tsv(grains[0] / "grains1-grains2-ddic.tsv")
    field.columns["returnStatus"][1:150:2] = -1
    GrainScene().draw(tmp_path / "some.png", grains[0], field)
    assert (tmp_path / "some.png").read_bytes() != (grains[0] / "grains1-grains2-field.png").read_bytes()


@pytest.mark.usefixtures("launcher")
def test_ranks_follow_grains_alike(grains: tuple[Path, str], command: Job, mpiexec: Job, tmp_path: Path) -> None:
    for name in ("np", "mpiexec"):
        folder = str(tmp_path / name)
        if name == "np":
            # an earlier demo, of another version of the program, does not stand in the way
            (tmp_path / name).mkdir()
            earlier = tmp_path / name / "grains1-grains2-ddic.h5"
            earlier.write_bytes((grains[0] / earlier.name).read_bytes())
            with h5py.File(earlier, "a") as file:
                attributes = file["mpidvc"].attrs
                attributes["determines"] = attributes["determines"].replace('"-ld": 1', '"-ld": 2')
            done = command("demo", folder, "--grains", "-np", "2")
        else:
            done = mpiexec(3, "-m", "mpidvc", "demo", folder, "--grains")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("Motions found less motions known") == 1
        for path in grains[0].iterdir():
            if path.suffix not in (".png", ".json"):
                assert path.read_bytes() == (tmp_path / name / path.name).read_bytes(), path.name


def exact_grains(packing: AnalyticGrains) -> PhiField:
    positions = packing.centres.copy()
    status = np.full(len(positions), 2.0)
    return PhiField(positions, packing.phi(), {"returnStatus": status}, "labels")


def test_exact_grains_have_no_error(packing: AnalyticGrains) -> None:
    found = grain_scene.compare(exact_grains(packing), packing)
    assert found.converged == GRAINS
    np.testing.assert_allclose(found.table, 0, atol=1e-9)
    assert found.good


@pytest.mark.parametrize("what", ["mean", "rotation", "lost", "unmoved"])
def test_which_motions_are_not_good(packing: AnalyticGrains, what: str) -> None:
    field = exact_grains(packing)
    if what == "mean":
        field.displacements[:, 2] += 1.5 * grain_scene.LARGEST_SD
    elif what == "rotation":
        turn = deformation.rotation_matrix((0, 1.5 * grain_scene.LARGEST_ROTATION, 0))
        field.phi[:, :3, :3] = turn @ field.phi[:, :3, :3]
        np.testing.assert_allclose(
            grain_scene.compare(field, packing).table[3:, 0], (0, 1.5 * grain_scene.LARGEST_ROTATION, 0), atol=1e-9
        )
    elif what == "lost":
        field.columns["returnStatus"][::20] = 1
    else:
        field.phi[:] = np.eye(4)
    assert not grain_scene.compare(field, packing).good
