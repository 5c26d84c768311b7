"""A look at a field in its file, against closed forms; the inputs of a journal, against points that are sorted."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpidvc.arrays import Array
from mpidvc.core.grid import GridOrder, chunk_points
from mpidvc.errors import AgreedError
from mpidvc.fields.hdf5 import ResultsFile, write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.stored import StoredField, open_stored
from mpidvc.kernels.correlation import RESULT
from mpidvc.rowfile import RowFile
from mpidvc.runtime.executor import InlineExecutor, SumTask
from mpidvc.runtime.journal import JournalLayout, create_journal
from mpidvc.tasks import guesses
from mpidvc.tasks.guesses import checksum_of, survey, write_inputs
from mpidvc.tasks.points import record_of
from mpidvc.workflow.guess import Guess, Nodes
from mpidvc.workflow.work import Work

DIMS = (13, 21, 34)
N = 13 * 21 * 34


def field_of(dims: tuple[int, int, int] = DIMS) -> PhiField:
    index = np.stack(np.unravel_index(np.arange(np.prod(dims)), dims), axis=1)
    positions = (index + np.array([dims[0] > 1, 1, 1])) * np.array([2.0, 3.0, 5.0])
    phi = np.tile(np.eye(4), (len(index), 1, 1))
    phi[:, :3] += np.sin(np.arange(12 * len(index)).reshape(-1, 3, 4))
    columns = {"zncc": np.cos(np.arange(len(index))), "error": np.arange(len(index), dtype=np.float64)}
    return PhiField(positions, phi, columns, "grid", dims, (2.0, 3.0, 5.0))


def stored(path: Path, field: PhiField) -> StoredField:
    write_hdf5(path, field)
    found = open_stored(str(path))
    assert found is not None
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges that are many, and do not end with the field."""
    monkeypatch.setattr(guesses, "ROWS", 500)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("threads", [1, 3])
def test_survey(tmp_path: Path, threads: int) -> None:
    field = field_of()
    field.phi[700:1300, :3] = np.nan
    field.phi[5, 1, 3] = np.nan
    field.phi[8111, :3, 3] = (-50.25, 30, 7)
    # in the same range
    field.phi[8120, :3, 3] = np.nan
    found = survey(InlineExecutor(), stored(tmp_path / "a.h5", field), threads)
    moved = field.phi[:, :3, 3]
    expected = [[min(v for v in axis if v == v) for axis in moved.T.tolist()]]
    expected += [[max(v for v in axis if v == v) for axis in moved.T.tolist()]]
    assert found.displacements.tolist() == expected
    assert found.on_grid
    digests = b""
    for start in range(0, N, 500):
        rows = slice(start, start + 500)
        parts = (field.positions[rows], field.phi[rows, :3], field.columns["error"][rows], field.columns["zncc"][rows])
        digests += hashlib.sha256(b"".join(part.tobytes() for part in parts)).digest()
    assert found.checksum == hashlib.sha256(digests).hexdigest()
    assert checksum_of(field) == found.checksum


@pytest.mark.usefixtures("small")
def test_survey_without_displacements(tmp_path: Path) -> None:
    field = field_of()
    field.phi[:, 1, 3] = np.nan
    found = survey(InlineExecutor(), stored(tmp_path / "a.h5", field))
    assert np.isnan(found.displacements).tolist() == [[False, True, False]] * 2


@pytest.mark.usefixtures("small")
def test_every_number_counts(tmp_path: Path) -> None:
    whole = checksum_of(field_of())
    for row in (0, 499, 500, N - 1):
        for change in ("positions", "phi", "zncc"):
            field = field_of()
            values = field.columns[change] if change == "zncc" else getattr(field, change)[:, 1]
            values[(row, *[2] * (values.ndim - 1))] += 1e-9
            assert checksum_of(field) != whole
            found = survey(InlineExecutor(), stored(tmp_path / "a.h5", field))
            assert found.checksum == checksum_of(field)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("row", [0, 4321, N - 1])
def test_a_position_off_the_grid(tmp_path: Path, row: int) -> None:
    write_hdf5(tmp_path / "a.h5", field_of())
    with ResultsFile(tmp_path / "a.h5") as file:
        slot = file.slot("mpidvc/positions")
    assert slot is not None
    target = RowFile(tmp_path / "a.h5", {"positions": slot})
    positions = target.read("positions", row, row + 1)
    target.write("positions", row, np.nextafter(positions, np.inf))
    target.close()
    found = open_stored(str(tmp_path / "a.h5"))
    assert found is not None
    assert not survey(InlineExecutor(), found).on_grid


class Hosts(InlineExecutor):
    """Rank 0 of three ranks, of which the last one is on another host; `blind`: it sees no such file there.

    Attributes
    ----------
    among : list
        Ranks that were allowed to work; None for all.
    """

    size, blind = 3, False

    def __init__(self) -> None:
        super().__init__()
        self.processes = [("a", 1), ("a", 2), ("b", 1)]
        self.among: list[object] = []

    def reduce(self, task: SumTask, argument: Any) -> Array:
        return task.run_sum(0, argument) + self.blind

    def map(self, *arguments: Any, **options: Any) -> None:
        self.among.append(options.pop("among"))
        super().map(*arguments, **options)


class Blind(Hosts):
    blind = True


#: The most rows of a piece: many layers of bricks, one line of them, parts of a line.
PIECES = {(13, 21, 34): (2**15, 1000, 100, 1), (1, 40, 50): (2**15, 500, 30)}


#: Executors, whether all ranks see the journal alike, and which of them may work.
WHO = [(Hosts, True, None), (Hosts, False, {0, 1}), (Blind, True, set()), (Blind, False, set())]


@pytest.mark.parametrize(("kind", "alike", "among"), WHO)
@pytest.mark.parametrize(("dims", "most"), [(dims, most) for dims, many in PIECES.items() for most in many])
def test_inputs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dims: tuple[int, int, int],
    most: int,
    kind: type[Hosts],
    alike: bool,
    among: set[int] | None,
) -> None:
    monkeypatch.setattr(guesses, "WRITTEN", most)
    field = field_of(dims)
    given = stored(tmp_path / "a.h5", field)
    nodes = Nodes(replace(given.layout, columns=()), (2.0, 3.0, 5.0))
    per = (1 if dims[0] == 1 else 4, 4, 4)
    order = GridOrder(dims, per)
    work = Work(
        determines={},
        nodes=nodes,
        columns=RESULT,
        record=record_of(RESULT),
        guess=Guess(stored=given),
        order=order,
        starts=order.starts,
    )
    layout = JournalLayout(
        determines={"command": "test"},
        columns=RESULT,
        records=work.record,
        order=order,
        starts=work.starts,
        positions=lambda rows: nodes[rows],
        inputs=work.inputs,
        computed=work.computed,
        inputs_follow=True,
    )
    journal = create_journal(tmp_path / "journal.h5", layout)
    assert not journal.inputs(0)["phi"].any()
    executor = kind()
    write_inputs(executor, journal, given, alike)
    assert executor.among == [among]
    chunks = chunk_points(field.positions, np.array(per) * [2.0, 3.0, 5.0])
    assert journal.n_blocks == len(chunks)
    for block in range(journal.n_blocks):
        rows = chunks.points(block)
        inputs = journal.inputs(block)
        assert np.array_equal(inputs["position"], field.positions[rows])
        assert np.array_equal(inputs["phi"], field.phi[rows, :3])
    journal.close()


def test_rank_that_does_not_see_the_file(tmp_path: Path) -> None:
    given = stored(tmp_path / "a.h5", field_of())
    executor = Blind()
    assert survey(executor, given).checksum == checksum_of(field_of())
    assert executor.among == [set()]


def test_a_chunk_that_cannot_be_read(tmp_path: Path) -> None:
    """The ranks end their round, and then all of them know why."""
    given = stored(tmp_path / "a.h5", field_of())
    name = "mpidvc/F"
    given.slots[name] = replace(given.slots[name], offset=given.slots[name].offset + 10**8)
    with pytest.raises(AgreedError, match=r"a\.h5: is shorter than it was"):
        survey(InlineExecutor(), given)
