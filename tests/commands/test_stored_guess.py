"""A results file of a grid as the first guess of every node: all ranks read it, none as a whole.

The oracle is a closed form: a pixel search that may not move ends at the guess rounded to voxels, with the guess's F.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc.cli.command import Plan
from mpidvc.commands import COMMANDS
from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.grid import chunk_points, grid_dims
from mpidvc.fields.hdf5 import FieldLayout, ResultsFile, create_results_file, dataset_rows, write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import write_tsv
from mpidvc.main import main
from mpidvc.rowfile import RowFile
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.runtime.journal import Journal
from mpidvc.tasks.ranks import Team
from mpidvc.workflow import begin
from mpidvc.workflow.pointwise import PointwisePlan
from tests.conftest import Job
from tests.outputs import outputs

SHAPES = {"3d": (40, 44, 52), "2d": (1, 90, 110)}
SPACING = {"3d": (3, 3, 3), "2d": (0, 4, 4)}
#: Binning of the images of the guess over that of these.
RATIO = 2
SEARCH = "-hws 2 -sr 0 0 0 0 0 0 -F no -notsv"


def phi_at(positions: np.ndarray, two_d: bool) -> np.ndarray:
    """A Phi for every position, in closed form; displacements differ by voxels from node to node."""
    z, y, x = positions.T
    phi = np.tile(np.eye(4), (len(positions), 1, 1))
    phi[:, :3, 3] = np.stack([np.sin(x) + 0.3, 1.2 * np.cos(y + z), 1.4 * np.sin(y + 2 * x)], axis=1)
    for i in range(3):
        for j in range(3):
            phi[:, i, j] += 0.01 * np.sin((i + 2) * x + (j + 1) * y + z)
    if two_d:
        phi[:, 0], phi[:, :3, 0] = np.eye(4)[0], np.eye(3)[:, 0]
    return phi


def nodes_of(kind: str, factor: float = 1.0) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Nodes of the grid, and their number along each axis."""
    if kind == "2d":
        axes = [np.zeros(1), *(np.arange(s, n, s, dtype=float) for s, n in zip((4, 4), (90, 110), strict=True))]
    else:
        axes = [np.arange(3, n, 3, dtype=float) for n in SHAPES["3d"]]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return nodes * factor, (len(axes[0]), len(axes[1]), len(axes[2]))


def field_of(kind: str, factor: float = 1.0) -> PhiField:
    """The guess; some nodes have none."""
    nodes, dims = nodes_of(kind)
    phi = phi_at(nodes, kind == "2d")
    phi[17, 1, 3] = phi[-1, 2, 2] = np.nan
    phi[:, :3, 3] *= factor
    columns = {"returnStatus": np.where(np.arange(len(nodes)) % 7 == 3, -1.0, 2.0), "error": np.arange(len(nodes)) / 8}
    spacing = tuple(factor * (s or 1) for s in SPACING[kind])
    return PhiField(nodes * factor, phi, columns, "grid", dims, (spacing[0], spacing[1], spacing[2]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stored")
    for kind, shape in SHAPES.items():
        random = np.random.default_rng(4)
        for k in (1, 2):
            image = random.integers(0, 60000, shape, dtype=np.uint16)
            tifffile.imwrite(made / f"{kind}-{k}.tif", image[0] if kind == "2d" else image, photometric="minisblack")
        write_hdf5(made / f"{kind}.h5", field_of(kind), 0.01, "mm")
        write_hdf5(made / f"{kind}-binned.h5", field_of(kind, 1 / RATIO))
    pair = AnalyticPair(SHAPES["3d"], seed=2, amplitude=0, translation=(0.3, 0.2, -0.4), rotation=(0, 0, 0), noise=0.01)
    tifffile.imwrite(made / "smooth-1.tif", pair.image1(), photometric="minisblack")
    tifffile.imwrite(made / "smooth-2.tif", pair.image2(), photometric="minisblack")
    return made


def words(folder: Path, kind: str, out: Path, *more: str) -> list[str]:
    images = [str(folder / f"{kind}-{k}.tif") for k in (1, 2)]
    guess = [] if "-pf" in more else ["-pf", str(folder / f"{kind}.h5")]
    return ["pixelSearch", *images, *SEARCH.split(), *guess, "-od", str(out), "-pre", "out", *more]


def run(line: list[str]) -> int:
    with contextlib.redirect_stdout(io.StringIO()):
        return main([*line, "-np", "1"])


def check(path: Path, kind: str) -> None:
    """Every node ends at its guess, rounded, with its F."""
    with ResultsFile(path) as file:
        found = file.field()
    nodes, dims = nodes_of(kind)
    phi = phi_at(nodes, kind == "2d")
    assert found.dims == dims
    assert np.array_equal(found.positions, nodes)
    without = np.zeros(len(nodes), bool)
    without[[17, -1]] = True
    assert (found["returnStatus"][without] == -7).all()
    searched = found["returnStatus"] == 1
    # windows that lead out of image 2 are not found
    assert searched.mean() > 0.5
    assert np.array_equal(found.displacements[searched], np.rint(phi[searched, :3, 3]))
    assert np.array_equal(found.F[searched], phi[searched, :3, :3])


@pytest.mark.parametrize("kind", SHAPES)
def test_every_node_starts_from_its_guess(folder: Path, tmp_path: Path, kind: str) -> None:
    assert run(words(folder, kind, tmp_path)) == 0
    check(tmp_path / "out-pixelSearch.h5", kind)


def test_guess_of_another_binning(folder: Path, tmp_path: Path) -> None:
    guess = ["-pf", str(folder / "3d-binned.h5"), "-pfb", str(RATIO)]
    assert run(words(folder, "3d", tmp_path, *guess)) == 0
    check(tmp_path / "out-pixelSearch.h5", "3d")


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("driver", ["posix", "gather"])
def test_ranks(folder: Path, tmp_path: Path, mpiexec: Job, n: int, driver: str) -> None:
    for kind in SHAPES:
        assert run(words(folder, kind, tmp_path / f"{kind}-one")) == 0
        line = words(folder, kind, tmp_path / f"{kind}-ranks", "--hdf5-driver", driver)
        done = mpiexec(n, "-m", "mpidvc", *line)
        assert done.returncode == 0, done.stderr
        check(tmp_path / f"{kind}-ranks" / "out-pixelSearch.h5", kind)
        assert outputs(tmp_path / f"{kind}-ranks") == outputs(tmp_path / f"{kind}-one")


#: A rank that finds another file under the name, as where hosts have folders of their own.
ELSEWHERE = """\
import sys
from mpidvc.fields.stored import StoredField
from mpidvc.main import main
from mpidvc.runtime.comm import find_launcher
if find_launcher().rank == 1:
    StoredField.changed = property(lambda field: True)
    StoredField.read = None
sys.exit(main(sys.argv[1:]))
"""


def test_rank_that_does_not_see_the_field(folder: Path, tmp_path: Path, mpiexec: Job) -> None:
    done = mpiexec(3, "-c", ELSEWHERE, *words(folder, "3d", tmp_path))
    assert done.returncode == 0, done.stderr
    check(tmp_path / "out-pixelSearch.h5", "3d")


def test_ranks_that_the_command_starts(folder: Path, tmp_path: Path, command: Job, launcher: object) -> None:
    """What was found by threads before they start travels to them."""
    done = command(*words(folder, "3d", tmp_path), "-np", "2")
    assert done.returncode == 0, done.stderr
    check(tmp_path / "out-pixelSearch.h5", "3d")


class KilledError(Exception):
    """Stands for a kill: nothing is done after it."""


def stopped(monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    """Begin a run that is killed when it has measured a block."""
    record = Journal.record
    blocks: list[int] = []

    def counted(journal: Journal, block: int, records: np.ndarray) -> None:
        if blocks:
            raise KilledError
        blocks.append(block)
        record(journal, block, records)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", counted)
        with pytest.raises(KilledError):
            run(line)


def journal_of(out: Path) -> np.ndarray:
    with h5py.File(out / "out-pixelSearch.h5", "r", locking=False) as file:
        return np.asarray(file["mpidvc/journal/inputs"][()])


@pytest.mark.parametrize("kind", SHAPES)
def test_journal_holds_the_guesses(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """In the order of the chunks, which is found by sorting here."""
    stopped(monkeypatch, words(folder, kind, tmp_path))
    inputs = journal_of(tmp_path)
    field = field_of(kind)
    with h5py.File(tmp_path / "out-pixelSearch.h5", "r", locking=False) as file:
        starts = file["mpidvc/journal/starts"][()]
    # the edge of a brick, from the nodes of the first one
    first = inputs["position"][: starts[1]]
    step = np.array([s or 1 for s in SPACING[kind]])
    edge = np.ptp(first, axis=0) + step
    chunks = chunk_points(field.positions, edge)
    assert np.array_equal(chunks.start, starts)
    assert np.array_equal(inputs["position"], field.positions[chunks.order])
    assert np.array_equal(inputs["phi"], field.phi[chunks.order, :3], equal_nan=True)


def test_resumed_without_rows_lost(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run writes the guesses again: they have no checksums."""
    line = words(folder, "3d", tmp_path / "cut")
    stopped(monkeypatch, line)
    path = tmp_path / "cut" / "out-pixelSearch.h5"
    with h5py.File(path, "r+", locking=False) as file:
        offset, size = (
            getattr(file["mpidvc/journal/inputs"].id, name)() for name in ("get_offset", "get_storage_size")
        )
    with path.open("r+b") as plain:
        plain.seek(offset)
        plain.write(bytes(size))
    assert run([*line, "--resume"]) == 0
    check(path, "3d")
    assert run(words(folder, "3d", tmp_path / "whole")) == 0
    assert outputs(tmp_path / "cut") == outputs(tmp_path / "whole")


def test_another_guess_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One number of one row is enough."""
    shutil.copy(folder / "3d.h5", tmp_path / "guess.h5")
    line = words(folder, "3d", tmp_path / "out", "-pf", str(tmp_path / "guess.h5"))
    stopped(monkeypatch, line)
    field = field_of("3d")
    field.phi[-2, 0, 1] += 1e-15
    write_hdf5(tmp_path / "guess.h5", field)
    assert run([*line, "--resume"]) == 2
    assert "was begun with another first guess (-pf)" in capsys.readouterr().err


def test_guess_may_vanish_once_the_points_begin(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(folder / "3d.h5", tmp_path / "guess.h5")
    record = Journal.record

    def vanished(journal: Journal, block: int, records: np.ndarray) -> None:
        with contextlib.suppress(FileNotFoundError), (tmp_path / "guess.h5").open("r+b") as file:
            file.truncate(1000)
        (tmp_path / "guess.h5").unlink(missing_ok=True)
        record(journal, block, records)

    monkeypatch.setattr(Journal, "record", vanished)
    assert run(words(folder, "3d", tmp_path / "out", "-pf", str(tmp_path / "guess.h5"))) == 0
    check(tmp_path / "out" / "out-pixelSearch.h5", "3d")


def shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def rewritten(path: Path) -> None:
    """By a program that keeps the file and its size."""
    with path.open("r+b") as file:
        content = file.read()
        file.seek(0)
        file.write(content)
    os.utime(path, ns=(1, 1))


def replaced(path: Path) -> None:
    write_hdf5(path, field_of("3d", 2.0))


@pytest.mark.parametrize("change", [shortened, rewritten, replaced, Path.unlink])
def test_changed_before_the_guesses_are_written(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: object,
) -> None:
    """What would be read does not belong to the checksum of the run."""
    guess = tmp_path / "guess.h5"
    shutil.copy(folder / "3d.h5", guess)
    write = begin.write_inputs

    def changed(*arguments: object) -> None:
        change(guess)  # type: ignore[operator]
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(begin, "write_inputs", changed)
    assert run(words(folder, "3d", tmp_path / "out", "-pf", str(guess))) == 2
    told = capsys.readouterr().err
    assert told == f"mpidvc pixelSearch: error: field {guess}: was changed while it was read; start again\n"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("row", [0, 20, -1])
def test_position_that_is_not_finite(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], row: int
) -> None:
    """The layout says that it is a grid, a row says otherwise."""
    field = field_of("3d")
    layout = FieldLayout.of(field)
    field.positions[row, 1] = np.nan
    target = RowFile(tmp_path / "guess.h5", create_results_file(tmp_path / "guess.h5", layout))
    for name, rows in dataset_rows(layout, field.positions, field.phi, field.columns).items():
        target.write(name, 0, rows)
    target.close()
    assert run(words(folder, "3d", tmp_path / "out", "-pf", str(tmp_path / "guess.h5"))) == 2
    told = capsys.readouterr().err
    assert f"the position in row {row % len(field) + 1} is not finite" in told
    assert told.count("\n") == 1


def plan_of(line: list[str]) -> PointwisePlan:
    command = COMMANDS[line[0]]
    plan: Plan = command.plan.prepare(command.parse(line[1:]), Console(silent=True), Team(InlineExecutor()))
    assert isinstance(plan, PointwisePlan)
    return plan


def test_memory(folder: Path, tmp_path: Path) -> None:
    """Nobody needs memory for the rows of a field in its file; rank 0 does for those of a text."""
    write_tsv(tmp_path / "guess.tsv", field_of("3d"), ("Zpos", "Ypos", "Xpos", "Zdisp", "Ydisp", "Xdisp"))
    stored = plan_of(words(folder, "3d", tmp_path))
    text = plan_of(words(folder, "3d", tmp_path, "-pf", str(tmp_path / "guess.tsv")))
    assert stored.guess.stored is not None
    assert text.guess.field is not None
    images = [str(folder / f"3d-{k}.tif") for k in (1, 2)]
    without = plan_of(["pixelSearch", *images, *SEARCH.split(), "-ns", "3", "-od", str(tmp_path)])
    assert len(stored.nodes) == len(text.nodes) == len(without.nodes)
    assert stored.needs().rank0 == without.needs().rank0
    assert text.needs().rank0 >= without.needs().rank0 + 200 * len(text.nodes)
    assert grid_dims(SHAPES["3d"], (3, 3, 3))[1] == nodes_of("3d")[1]


#: Correlations; those after the first two read the field as a whole.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"start_from": "neighbours"},
    {"skip": True},
    {"adaptive": 0.5, "adaptive_from": 4, "half_window_size": 6},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_same_as_a_field_in_memory(folder: Path, options: dict[str, Any]) -> None:
    """Fields in Python are rank 0's."""
    images = [folder / f"smooth-{k}.tif" for k in (1, 2)]
    more: dict[str, Any] = {"half_window_size": 4, "processes": 1, **options}
    found = [mpidvc.ldic(images, phi_file=given, **more) for given in (str(folder / "3d.h5"), field_of("3d"))]
    assert found[0].phi.tobytes() == found[1].phi.tobytes()
    assert list(found[0].columns) == list(found[1].columns)
    for name, values in found[0].columns.items():
        assert values.tobytes() == found[1].columns[name].tobytes()
    assert len(np.unique(found[0]["returnStatus"])) > 1
