"""The commands on ranks: every byte of every file is that of one process, whatever started the ranks."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.read import read_field
from mpidvc.fields.tsv import write_tsv
from mpidvc.main import main
from mpidvc.runtime.launch import Mpiexec
from mpidvc.tasks import ddic
from tests.conftest import Job
from tests.jump import Jump
from tests.outputs import outputs
from tests.waiting import LONGEST

REFERENCE = Path(__file__).parents[1] / "reference"

#: Every case is one command; all of its files are compared. `@` is the folder of the images.
CASES = {
    "reg": "reg @a.tif @b.tif -j",
    "reg-cubic-def": "reg @a.tif @b.tif -o 3 -bb 2 -def",
    "reg-ug-rig": "reg @a.tif @b.tif -ug -rig -bb 1 --criterion znssd",
    "reg-znssd-mask-rmc": "reg @a.tif @dark.tif -mf1 @mask.tif -rmc",
    "reg-shift": "reg @a.tif @b.tif -shift -o 3 -bb 1",
    "reg-2d": "reg @f.tif @g.tif -def -o 3",
    "reg-coarse": "reg @a.tif @b.tif --coarse --max-angle 15",
    "reg-coarse-2d": "reg @f.tif @g.tif --coarse",
    "reg-folder-def": "reg @slices @b.tif -def -bb 2",
    "ldic": "ldic @a.tif @b.tif -ns 8 -hws 6 -vtk -tif",
    "ldic-cubic": "ldic @a.tif @b.tif -ns 8 -hws 6 -o 3 -pf @guess.tsv",
    "ldic-ug": "ldic @a.tif @b.tif -ns 9 -hws 6 -ug -pf @guess.tsv",
    "ldic-znssd-mask": "ldic @a.tif @dark.tif -ns 8 -hws 6 -mf1 @mask.tif -mc 0.4 -vtk",
    "ldic-series": "ldic @a.tif @b.tif @dark.tif -ns 10 -hws 6 -sei -tif",
    "ldic-update": "ldic @a.tif @b.tif @aged.tif -ns 14 -hws 8 --update-reference",
    "ldic-sigma": "ldic @a.tif @b.tif -ns 10 -hws 6 -o 3 --sigma -vtk -tif",
    "ldic-sigma-mask": "ldic @a.tif @dark.tif -ns 12 -hws 6 -mf1 @mask.tif --sigma --noise-mask @mask.tif",
    "ldic-adaptive": "ldic @a.tif @b.tif -ns 8 -hws 9 --adaptive 0.02 --adaptive-from 3 -vtk -tif",
    "ldic-adaptive-field": "ldic @a.tif @dark.tif -pf @field.tsv -hws 9 -o 3 --adaptive 0.004 -mf1 @mask.tif",
    "ldic-field": "ldic @a.tif @b.tif -pf @field-ldic.h5 -hws 6",
    "ldic-field-text": "ldic @a.tif @b.tif -pf @field.tsv -hws 6",
    "ldic-compressed": "ldic @zipped.tif @b.tif -ns 12 -hws 6",
    "ldic-neighbours": "ldic @a.tif @dark.tif -ns 8 -hws 6 -mf1 @mask.tif --start-from neighbours",
    # chunks that find no point from their guess, and points that are tried again
    "ldic-neighbours-jump": "ldic @j.tif @k.tif -ns 12 -hws 10 -o 3 --start-from neighbours",
    "search": "pixelSearch @a.tif @b.tif -ns 8 -hws 6 -vtk -tif",
    "search-guess-masks": "pixelSearch @a.tif @dark.tif -ns 9 -hws 5 -pf @guess.tsv -mf1 @mask.tif -mf2 @mask.tif",
    "search-zero-mean-wide": "pixelSearch @a.tif @dark.tif -ns 16 -hws 5 -sr -8 8 -9 9 -9 9 --zero-mean",
    "search-2d": "pixelSearch @f.tif @g.tif -ns 9 -hws 9 -F no -pf @guess.tsv -sr 0 0 -6 6 -5 7 -tif",
    "search-labels": "pixelSearch @a.tif @dark.tif -lab1 @labels.tif -vtk",
    "search-labels-guess": "pixelSearch @a.tif @b.tif -lab1 @labels.tif -pf @guess.tsv -ld 2 -sr 0 1 -1 0 -1 1",
    "search-labels-2d": "pixelSearch @f.tif @g.tif -lab1 @flatlabels.tif -lvt 20 -sr 0 0 -2 2 -2 2 --zero-mean",
    "ldic-2d": "ldic @f.tif @g.tif -ns 6 -hws 9 -o 3 -vtk -tif",
    "pass": "passPhiField -pf @field.tsv -ns 4 -im1 @a.tif -vtk -tif -nr 20 -cps",
    "pass-nearest": "passPhiField -pf @field.tsv -ns 4 -im1 @a.tif -nn 7 -F rigid",
    "pass-labels": "passPhiField -pf @guess.tsv -lab1 @labels.tif -vtk",
    "ddic": "ddic @a.tif @labels.tif @b.tif -pf @guess.tsv",
    "ddic-cubic-dilated": "ddic @a.tif @labels.tif @b.tif -o 3 -nr -ld 2 -dmo",
    "ddic-series": "ddic @a.tif @labels.tif @b.tif @dark.tif --warm-start -m 3",
    "ddic-levels": "ddic @a.tif @labels.tif @dark.tif -msb 2 -ug -regbb 2",
    "strain": "regularStrain @field.tsv -comp vol dev GL -vtk -tif",
    "strain-geers": "regularStrain @field.tsv -g -comp Up H r -nomask",
    "strain-raw": "regularStrain -pf @field.tsv -raw -comp e",
    "ddic-large": "ddic @a.tif @mixed.tif @b.tif",
    "ddic-sigma": "ddic @a.tif @labels.tif @b.tif -o 3 --sigma",
    "ddic-2d": "ddic @f.tif @flatlabels.tif @g.tif -o 3 -ld -1",
    "filter": "filterPhiField -pf @waves.tsv -slqc --outliers -cint -nn 27 -vtk -tif",
    "filter-motion": "filterPhiField -pf @waves.tsv --remove-motion affine --outliers -cint",
    "deform": "deformImage @a.tif -pf @field.tsv -o 3 -mf2 @mask.tif --residual @dark.tif",
    "deform-mesh-h5": "deformImage @a.tif -pf @field.tsv -tet -a -1 --h5",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    motion = {"amplitude": 0.1, "wavelength": 60.0, "translation": (0.6, -0.4, 0.7)}
    solid = AnalyticPair((44, 70, 150), seed=2, **motion)
    flat = AnalyticPair((1, 120, 560), seed=2, **motion)
    jump = Jump()
    z, y, x = np.indices(solid.shape)
    small, flat_labels = cells(solid.shape, (16, 18, 20)), cells(flat.shape, (1, 30, 40))[0]
    # a label of more than `LARGE` voxels among small ones
    mixed = np.where((z > 4) & (z < 38) & (y > 8) & (y < 60) & (x > 30) & (x < 90), 1, small + 1).astype(np.uint16)
    made = {
        "a": solid.image1(),
        "b": solid.image2(),
        "dark": (solid.image2() * 0.6 + 900).astype(np.uint16),
        # half of another texture: the reference changes to image b
        "aged": (solid.image2() * 0.55 + AnalyticPair(solid.shape, seed=9, **motion).image2() * 0.45).astype(np.uint16),
        "mask": ((y - 35) ** 2 + (z - 20) ** 2 < 900).astype(np.uint8),
        "labels": small,
        "mixed": mixed,
        "flatlabels": flat_labels,
        "f": flat.image1()[0],
        "g": flat.image2()[0],
        "j": jump.image1[0],
        "k": jump.image2[0],
    }
    for name, image in made.items():
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / "zipped.tif", made["a"], photometric="minisblack", compression="zlib")
    (folder / "slices").mkdir()
    for k, plane in enumerate(made["a"]):
        tifffile.imwrite(folder / "slices" / f"{k:03d}.tif", plane)
    # more points than a block has
    field = read_field(REFERENCE / "strain" / "solid.tsv")
    index = np.stack(np.meshgrid(*map(np.arange, (20, 20, 25)), indexing="ij"), axis=-1).reshape(-1, 3)
    columns = {"returnStatus": np.tile(field["returnStatus"], 100)}
    write_tsv(
        folder / "field.tsv", PhiField.from_positions(8.0 * index, np.tile(field.phi, (100, 1, 1)), columns), "LDIC"
    )
    with contextlib.redirect_stdout(io.StringIO()):
        arguments = ["reg", f"{folder}/a.tif", f"{folder}/b.tif", "-np", "1", "-od", str(folder), "-pre", "guess"]
        assert main(arguments) == 0
        field = f"ldic {folder}/a.tif {folder}/b.tif -np 1 -ns 14 -hws 6 -pre field -od {folder}"
        assert main(field.split()) == 0
    (folder / "guess-registration.tsv").rename(folder / "guess.tsv")
    (folder / "field-ldic.tsv").rename(folder / "field.tsv")
    write_tsv(folder / "waves.tsv", waves(), "LDIC")
    return folder


def waves() -> PhiField:
    """Field of more points than a chunk holds, some of which are wrong."""
    random = np.random.default_rng(6)
    dims, n = (12, 18, 20), 12 * 18 * 20
    nodes = 10.0 * np.stack(np.unravel_index(np.arange(n), dims), axis=1)
    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[:, :3, 3] = np.sin(nodes / 60) + random.normal(0, 0.01, (n, 3))
    phi[random.random(n) < 0.05, :3, 3] += 2
    columns = {"returnStatus": np.where(random.random(n) < 0.05, -5.0, 2.0)}
    columns |= {name: random.random(n) for name in ("error", "iterations", "deltaPhiNorm")}
    return PhiField.from_positions(nodes, phi, columns)


def cells(shape: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
    """Labels: bricks that touch, with a number that is missing."""
    z, y, x = np.indices(shape) // np.reshape(size, (3, 1, 1, 1))
    labels = (1 + x + (x.max() + 1) * (y + (y.max() + 1) * z)).astype(np.uint16)
    labels[labels == 5] = 0
    return labels


@pytest.fixture(scope="module")
def serial(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a folder of files for every case, from this process."""
    folder = tmp_path_factory.mktemp("serial")
    for name in CASES:
        with contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:
            patch.setattr(ddic, "TOGETHER", LARGE)
            assert main([*words(name, images, folder / name), "-np", "1"]) == 0
    return folder


def words(name: str, images: Path, out: Path) -> list[str]:
    return [*CASES[name].replace("@", f"{images}/").split(), "-od", str(out)]


def told_only_warnings(text: str) -> bool:
    """Whether a run had nothing to say but its verdict on windows that failed."""
    return all(line.startswith("warning: ") for line in text.splitlines())


def files(folder: Path) -> dict[str, bytes]:
    return outputs(folder)


def same(out: Path, reference: Path) -> None:
    ours, expected = files(out), files(reference)
    assert sorted(ours) == sorted(expected)
    assert len(ours) > 0
    different = [name for name, content in expected.items() if ours[name] != content]
    assert different == []


#: Labels of more voxels are registered by all ranks together.
LARGE = 50_000
#: Runs all cases in one job: starting ranks costs more than the work.
PROGRAM = f"""\
import pathlib, sys
from mpidvc.main import main
from mpidvc.tasks import ddic
ddic.TOGETHER = {LARGE}
from tests.outputs import outputs
for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
    if main(line.split()):
        sys.exit(line)
"""


# three ranks below, with all drivers
@pytest.mark.parametrize("n", [2, 4])
def test_same_bytes_on_ranks(n: int, mpiexec: Job, images: Path, serial: Path, tmp_path: Path) -> None:
    lines = [" ".join(words(name, images, tmp_path / name)) for name in CASES]
    (tmp_path / "lines").write_text("\n".join(lines))
    done = mpiexec(n, "-c", PROGRAM, str(tmp_path / "lines"))
    assert done.returncode == 0, done.stderr
    assert told_only_warnings(done.stderr)
    for name in CASES:
        same(tmp_path / name, serial / name)
    # only one rank speaks
    assert done.stdout.count("Registration converged") == sum(name.startswith("reg") for name in CASES)


@pytest.mark.parametrize("name", ["ldic", "ddic", "filter-motion", "deform", "deform-mesh-h5"])
def test_same_bytes_on_ranks_that_the_command_starts(
    name: str, command: Job, launcher: object, images: Path, serial: Path, tmp_path: Path
) -> None:
    """Its plan is made before they are, and travels to them with all that it holds."""
    done = command(*words(name, images, tmp_path / name), "-np", "2")
    assert done.returncode == 0, done.stderr
    same(tmp_path / name, serial / name)


@pytest.mark.parametrize("driver", ["posix", "gather", "mpio"])
@pytest.mark.parametrize("n", [3])
def test_same_bytes_by_all_drivers(
    driver: str, n: int, mpiexec: Job, images: Path, serial: Path, tmp_path: Path
) -> None:
    if driver == "mpio" and not h5py.get_config().mpi:
        pytest.skip("h5py is built without MPI")
    names = [name for name in CASES if name.startswith(("ldic", "ddic", "search"))]
    lines = [" ".join([*words(name, images, tmp_path / name), "--hdf5-driver", driver]) for name in names]
    # the front of a propagation is written by rank 0, whoever writes the finished file
    for out, options in (("one", "-np 1"), ("all", f"--hdf5-driver {driver}")):
        line = f"pixelSearchPropagate {images}/a.tif {images}/b.tif -hws 5 -ns 8 -nr 20 --ranking distance"
        lines.append(f"{line} -sp 20 35 75 1 0 1 -od {tmp_path / out} {options}")
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(lines.pop(-2).split()) == 0
    (tmp_path / "lines").write_text("\n".join(lines))
    done = mpiexec(n, "-c", PROGRAM, str(tmp_path / "lines"))
    assert done.returncode == 0, done.stderr
    assert told_only_warnings(done.stderr)
    for name in names:
        same(tmp_path / name, serial / name)
    same(tmp_path / "all", tmp_path / "one")
    logs = [json.loads(path.read_text()) for path in tmp_path.glob("*/*.run.json") if path.parent.name != "one"]
    assert {log["driver"] for log in logs} == {driver}
    assert all(log["state"] == "finished" for log in logs)


@pytest.mark.skipif(h5py.get_config().mpi, reason="h5py is built with MPI")
def test_parallel_hdf5_that_is_not_there(command: Job, images: Path, tmp_path: Path) -> None:
    done = command(*words("ldic", images, tmp_path / "out"), "--hdf5-driver", "mpio")
    assert done.returncode == 2
    assert done.stderr.startswith("mpidvc ldic: error: --hdf5-driver mpio: this h5py is built without MPI; ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.usefixtures("launcher")
def test_same_bytes_without_a_launcher(n: int, command: Job, images: Path, serial: Path, tmp_path: Path) -> None:
    for name in ("reg-cubic-def", "ldic", "ddic"):
        done = command(*words(name, images, tmp_path / name), "-np", str(n))
        assert done.returncode == 0, done.stderr
        assert told_only_warnings(done.stderr)
        same(tmp_path / name, serial / name)
        assert done.stdout.count("] Settings that differ") == 1
    assert f"(with {n} processes)" in done.stdout


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("ldic @a.tif @none.tif -ns 8 -hws 6", "none.tif"),
        ("reg @a.tif @b.tif -mf1 @f.tif", "f.tif"),
        ("ldic @a.tif @b.tif -ns 8 -hws 6 -o 2", "-o"),
        ("reg @a.tif @b.tif -m 22", "-m 22"),
        ("MPIDVC_ISA=foo ldic @a.tif @b.tif -ns 20 -hws 6", "MPIDVC_ISA=foo"),
    ],
)
def test_user_error_on_ranks_is_one_line(mpiexec: Job, images: Path, tmp_path: Path, line: str, word: str) -> None:
    given = line.replace("@", f"{images}/").split()
    variables = dict([given.pop(0).split("=")]) if "=" in given[0] else {}
    out = tmp_path / "out"
    done = mpiexec(3, "-m", "mpidvc", *given, "-od", str(out), **variables)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert word in done.stderr
    assert not out.exists() or list(out.iterdir()) == []
    told = [text for text in done.stderr.splitlines() if text.startswith(f"mpidvc {given[0]}: error: ")]
    assert len(told) == 1, done.stderr
    assert word in told[0]


@pytest.mark.parametrize("name", ["reg", "ldic"])
def test_serial_run_without_mpi4py(name: str, command: Job, images: Path, serial: Path, tmp_path: Path) -> None:
    """One process needs no MPI: an mpi4py that is missing or broken is no obstacle."""
    (tmp_path / "stub" / "mpi4py").mkdir(parents=True)
    (tmp_path / "stub" / "mpi4py" / "__init__.py").write_text("raise ImportError('no mpi4py here')\n")
    here = os.pathsep.join([str(tmp_path / "stub"), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    for number in (["-np", "1"], []):
        out = tmp_path / f"out{len(number)}"
        done = command(*words(name, images, out), *number, PYTHONPATH=here)
        assert done.returncode == 0, done.stderr
        same(out, serial / name)


def test_files_named_by_a_colon(
    images: Path, tmp_path: Path, environment: dict[str, str], launcher: Mpiexec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Launchers take it for the end of a program's words."""
    tifffile.imwrite(tmp_path / ":", tifffile.imread(images / "a.tif"))
    line = ["ldic", ":", str(images / "b.tif"), "-ns", "12", "-hws", "6", "-pre", ":"]
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*line, "-od", "one", "-np", "1"]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "mpidvc", *line, "-od", "two", "-np", "2"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(with 2 processes)" in done.stdout
    assert ":-ldic.tsv" in files(tmp_path / "two")
    same(tmp_path / "two", tmp_path / "one")
