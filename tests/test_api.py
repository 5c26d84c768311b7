"""The commands from Python: the results of the command line, nothing left behind, errors in the words of Python."""

from __future__ import annotations

import argparse
import inspect
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc.commands import COMMANDS
from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.grains import AnalyticGrains
from mpidvc.main import main
from tests.conftest import Job
from tests.waiting import LONGEST

PAIR = AnalyticPair((40, 44, 48), seed=5, translation=(1.2, -0.4, 0.6))
ONE, TWO = PAIR.image1(), PAIR.image2()
GRID: dict[str, Any] = {"node_spacing": 10, "half_window_size": 7}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an empty folder for temporary files in it."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path


@pytest.fixture
def files(here: Path) -> list[str]:
    (here / "in").mkdir()
    for name, image in (("a", ONE), ("b", TWO)):
        tifffile.imwrite(here / "in" / f"{name}.tif", image, photometric="minisblack")
    return [str(here / "in" / f"{name}.tif") for name in "ab"]


def left(folder: Path) -> list[str]:
    """Files that are there besides the input."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "in" not in p.parts)


def same(one: mpidvc.PhiField, two: mpidvc.PhiField) -> None:
    assert np.array_equal(one.positions, two.positions)
    assert np.array_equal(one.phi, two.phi, equal_nan=True)
    assert one.columns.keys() == two.columns.keys()
    for name, values in one.columns.items():
        assert np.array_equal(values, two.columns[name], equal_nan=True), name


def test_import_is_light(environment: dict[str, str]) -> None:
    code = (
        "import sys, mpidvc; names = dir(mpidvc); mpidvc.ldic; "
        "heavy = {'numpy', 'mpi4py', 'h5py'} & set(sys.modules); "
        "assert {'ldic', 'reg', 'read_field', 'PhiField', 'UserError'} <= set(names), names; "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_parameters_are_the_options(command: Any) -> None:
    """One list: every option of the parser, with its default, under its name in the result of parsing."""
    function = getattr(mpidvc, command.function)
    parameters = dict(inspect.signature(function).parameters)
    assert parameters.pop("verbose").default is False
    # the help, and other spellings of a parameter, have no default
    actions = [action for action in command.parser()._actions if action.default != argparse.SUPPRESS]
    options = {action.dest: action for action in actions}
    assert parameters.keys() == options.keys()
    for name, action in options.items():
        if action.option_strings:
            assert parameters[name].default == action.default
    assert all(f"\n{name} " in function.__doc__ for name in parameters)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.usefixtures("launcher")
def test_field_is_that_of_the_command_line(files: list[str], here: Path, processes: int) -> None:
    words = [*files, "-ns", "10", "-hws", "7", "-o", "3", "-np", "1", "-od", str(here / "in" / "out")]
    assert main(["ldic", *words]) == 0
    expected = mpidvc.read_field(here / "in/out/a-b-ldic.h5")
    field = mpidvc.ldic([ONE, TWO], interpolation_order=3, processes=processes, **GRID)
    same(field, expected)
    same(mpidvc.ldic(files, interpolation_order=3, processes=processes, **GRID), expected)
    assert left(here) == []


def test_known_displacement(here: Path) -> None:
    whole = mpidvc.reg(ONE, TWO, processes=1)
    field = mpidvc.ldic([ONE, TWO], phi_file=whole, interpolation_order=3, processes=1, **GRID)
    inside = field.good & ((field.positions >= 9) & (field.positions <= np.array(ONE.shape) - 10)).all(axis=1)
    assert inside.sum() >= 8
    error = (field.displacements - PAIR.displacement(field.positions))[inside]
    assert np.abs(error).max() < 0.05
    assert set(field.statuses) >= {"converged"}
    assert np.array_equal(field.statuses["converged"], field["returnStatus"] == 2)
    assert left(here) == []


def test_searches(here: Path) -> None:
    search = mpidvc.pixel_search(ONE, TWO, search_range=(-3, 3, -3, 3, -3, 3), processes=1, **GRID)
    travelled = mpidvc.pixel_search_propagate(ONE, TWO, start=(20, 22, 24, 1, 0, 1), processes=1, **GRID)
    middle = np.flatnonzero((search.positions == (20, 20, 20)).all(axis=1))[0]
    true = np.rint(PAIR.displacement(search.positions[middle][None])[0])
    assert np.abs(search.displacements[middle] - true).max() <= 1
    assert np.array_equal(search.displacements[middle], travelled.displacements[middle])
    assert left(here) == []


def test_labels_and_fields(here: Path) -> None:
    """The commands for labels and for fields, on a packing whose motions are known: from arrays to a strain."""
    grains = AnalyticGrains((50, 50, 50), 4, kind="balls", radii=(7.0, 8.0), gap=2.0, touching=0.0, margin=5.0)
    found = mpidvc.ddic(grains.image1(), grains.labels1(), grains.image2(), processes=1)
    assert found.layout == "labels"
    assert found.good.tolist() == [False, True, True, True, True]
    centres = grains.centres[1:]
    truth = np.array([grains.moved(p, k + 1) - p for k, p in enumerate(centres)])
    # linear interpolation of grey levels: hundredths of a voxel
    np.testing.assert_allclose(found.displacements[1:], truth, atol=0.05)
    passed = mpidvc.pass_phi_field(
        phi_file=found, image1_shape=[50, 50, 50], node_spacing=20, number_of_neighbours=1, processes=1
    )
    near = np.argmin(np.linalg.norm(passed.positions[:, None] - found.positions[1:], axis=2), axis=1)
    # the mean of one number may differ by its rounding
    np.testing.assert_allclose(passed.displacements, found.displacements[1:][near], rtol=1e-14)
    assert left(here) == []


def test_series_is_a_list(here: Path) -> None:
    fields = mpidvc.ldic([ONE, TWO, TWO], processes=1, **GRID)
    assert len(fields) == 2
    same(fields[0], fields[1])
    assert left(here) == []


def test_files_are_written_where_they_are_asked_for(files: list[str], here: Path) -> None:
    field = mpidvc.ldic(files, out_dir=here / "out", prefix="x", vtk=True, processes=1, **GRID)
    assert left(here) == ["out/x-ldic.h5", "out/x-ldic.run.json", "out/x-ldic.tsv", "out/x-ldic.vtk"]
    same(field, mpidvc.read_field(here / "out/x-ldic.h5"))
    again = mpidvc.ldic(files, out_dir=here / "no", prefix="x", h5=False, processes=1, **GRID)
    assert [name for name in left(here) if name.startswith("no/")] == ["no/x-ldic.tsv"]
    same(field, again)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "says"),
    [
        (([ONE],), GRID, mpidvc.UserError, "at least two images"),
        (([ONE, TWO[1:]],), GRID, mpidvc.UserError, "both need the same shape"),
        (([ONE, "none.tif"],), GRID, mpidvc.UserError, "none.tif: does not exist"),
        (([ONE, TWO],), {**GRID, "interpolation_order": 2}, mpidvc.UserError, "interpolation_order"),
        (([ONE, TWO],), {**GRID, "half_window_size": "wide"}, mpidvc.UserError, "half_window_size"),
        (([ONE, TWO],), {**GRID, "nodespacing": 3}, TypeError, "nodespacing"),
        ((), GRID, TypeError, "images"),
        (([ONE, TWO],), {**GRID, "vtk": True}, mpidvc.UserError, "out_dir"),
        (([ONE, TWO],), {**GRID, "phi_file": 7}, mpidvc.UserError, "phi_file"),
    ],
)
def test_mistakes(here: Path, arguments: Any, options: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        mpidvc.ldic(*arguments, **options)
    assert left(here) == []


def test_result_that_is_not_to_be_trusted(here: Path) -> None:
    """It is returned all the same, with a warning."""
    noise = np.random.default_rng(0).normal(ONE.mean(), ONE.std(), ONE.shape).astype(np.float32)
    with pytest.warns(UserWarning, match="not one to trust"):
        field = mpidvc.ldic([ONE.astype(np.float32), noise], processes=1, **GRID)
    assert field.good.mean() < 0.5
    assert left(here) == []


@pytest.mark.usefixtures("launcher")
def test_outside_the_main_thread(here: Path) -> None:
    expected = mpidvc.ldic([ONE, TWO], processes=1, **GRID)
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(mpidvc.ldic([ONE, TWO], processes=2, **GRID))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(LONGEST)
    same(found[0], expected)
    assert left(here) == []


@pytest.mark.usefixtures("launcher")
def test_arrays_are_not_pickled(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ranks get is small, whatever the images."""
    from mpidvc.cli import execution

    sizes = []
    started = execution.run_ranks

    def watched(n: int, words: Any, job: Any, variables: Any) -> int:
        sizes.append(job.plan.stat().st_size)
        return started(n, words, job, variables)

    monkeypatch.setattr(execution, "run_ranks", watched)
    mpidvc.ldic([ONE, TWO], processes=2, **GRID)
    assert sizes[0] < 20_000 < ONE.nbytes
    assert not [name for name in [path.name for path in Path("/dev/shm").iterdir()] if "mpidvc" in name]


#: Every rank calls it, and gets the field; the arrays of the other ranks are their own.
PROGRAM = """
import sys
import numpy as np
import mpidvc
from mpi4py import MPI
from mpidvc.core.analytic import AnalyticPair
from mpidvc.images.image import ArrayImage

pair = AnalyticPair((40, 44, 48), seed=5, translation=(1.2, -0.4, 0.6))
images = [pair.image1(), pair.image2()]

def refuse(array, *rest):
    raise AssertionError("an array is pickled")

import mpidvc.images.image as module
remake, module._remake = module._remake, None
ArrayImage.__reduce__, reduce = (
    lambda self: reduce(self) if self.path in module._at_hand else refuse(self), ArrayImage.__reduce__)
module._remake = remake
field = mpidvc.ldic(images, node_spacing=10, half_window_size=7)
try:
    mpidvc.ldic([images[0], "none.tif"], node_spacing=10, half_window_size=7)
except mpidvc.UserError as error:
    assert "none.tif: does not exist" in str(error)
else:
    raise AssertionError("not refused")
np.savez(f"{sys.argv[1]}/{MPI.COMM_WORLD.rank}.npz", phi=field.phi, status=field["returnStatus"])
"""


@pytest.mark.parametrize("n", [2, 3])
def test_under_mpiexec_every_rank_gets_the_field(mpiexec: Job, here: Path, n: int) -> None:
    expected = mpidvc.ldic([ONE, TWO], processes=1, **GRID)
    (here / "in").mkdir()
    done = mpiexec(n, "-c", PROGRAM, str(here / "in"))
    assert done.returncode == 0, done.stderr
    for rank in range(n):
        found = np.load(here / "in" / f"{rank}.npz")
        assert np.array_equal(found["phi"], expected.phi, equal_nan=True)
        assert np.array_equal(found["status"], expected["returnStatus"])


def test_status(files: list[str], here: Path) -> None:
    mpidvc.ldic(files, out_dir=here / "out", prefix="x", processes=1, **GRID)
    (state,) = mpidvc.status(str(here / "out/x-ldic.h5"))
    assert (state.state, state.command, state.done) == ("finished", "ldic", state.points)
