"""The demonstration: from the installed command to files that are right, on one process and on ranks."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from mpidvc.commands.demo import run as run_demo
from mpidvc.commands.demo.run import PAIR, Errors, compare
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv
from mpidvc.images.image import open_image
from mpidvc.runtime.console import Console
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
        run_demo.Plan.prepare(argparse.Namespace(directory=str(tmp_path / "file" / "demo")), Console(silent=True))


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
        field.displacements[:, 1] += 2 * run_demo.LARGEST_MEAN
    elif what == "scatter":
        field.displacements[::2] += 2 * run_demo.LARGEST_SD
        field.displacements[1::2] -= 2 * run_demo.LARGEST_SD
    else:
        field.columns["returnStatus"][::20] = 1
    assert not compare(field).good


def test_nothing_found_is_not_good() -> None:
    assert not Errors(np.full((4, 3), np.nan), 4, 0).good
