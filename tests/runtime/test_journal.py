"""Journals: marks fit the records, damaged blocks are done again, and only one run writes."""

import fcntl
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpidvc.errors import UserError
from mpidvc.rowfile import JOURNAL
from mpidvc.runtime.journal import (
    Journal,
    JournalLayout,
    JournalTask,
    MarksTask,
    create_journal,
    determines_of,
    in_use,
    kind_of_file,
    open_journal,
)
from tests.waiting import LONGEST

RECORD = np.dtype([("phi", np.float64, (3, 4)), ("result", np.float64, (2,))])
INPUT = np.dtype([("position", np.float64, (3,))])
DETERMINES = {"command": "test", "-hws": [1, 2, 3], "-glt": "-inf"}
N = 1000
ORDER = np.random.default_rng(1).permutation(N)
STARTS = np.array([0, 1, 1, 400, 999, 1000])
POSITIONS = np.random.default_rng(2).random((N, 3))


def records_of(block: int) -> np.ndarray:
    rows = np.arange(STARTS[block], STARTS[block + 1])
    records = np.zeros(len(rows), RECORD)
    records["phi"] = rows[:, None, None] + np.arange(12).reshape(3, 4) / 16
    records["result"] = ORDER[rows][:, None]
    return records


def inputs_of(rows: np.ndarray) -> np.ndarray:
    inputs = np.zeros(len(rows), INPUT)
    inputs["position"] = POSITIONS[rows]
    return inputs


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return create_journal(tmp_path / "a.h5", layout_of())


def layout_of(order: np.ndarray = ORDER, starts: np.ndarray = STARTS) -> JournalLayout:
    return JournalLayout(
        determines=DETERMINES,
        columns=("error", "returnStatus"),
        records=RECORD,
        order=order,
        starts=starts,
        positions=lambda rows: POSITIONS[rows],
        inputs=inputs_of,
    )


def reopened(journal: Journal, layout: JournalLayout | None = None) -> Journal:
    """The journal as the next run opens it."""
    journal.close()
    return open_journal(journal.path, layout or layout_of())


def test_layout(journal: Journal) -> None:
    assert (len(journal), journal.n_blocks) == (N, 5)
    assert kind_of_file(journal.path) == "unfinished"
    assert determines_of(journal.path) == DETERMINES
    for block in range(5):
        rows = ORDER[STARTS[block] : STARTS[block + 1]]
        assert np.array_equal(journal.inputs(block)["position"], POSITIONS[rows])
    with h5py.File(journal.path, locking=False) as file:
        group = file[JOURNAL]
        assert json.loads(group.attrs["columns"]) == ["error", "returnStatus"]
        assert np.array_equal(ORDER[group["places"][()]], np.arange(N))
        assert np.array_equal(group["positions"][()], POSITIONS)
        assert not group["marks"][()].any()


def test_records_come_back(journal: Journal) -> None:
    assert journal.todo().tolist() == [0, 1, 2, 3, 4]
    for block in (3, 0, 1):
        journal.record(block, records_of(block))
    again = reopened(journal)
    assert again.todo().tolist() == [2, 4]
    assert np.array_equal(again.records(np.array([3, 0])), np.concatenate([records_of(3), records_of(0)]))
    with h5py.File(journal.path, locking=False) as file:
        assert np.count_nonzero(file[JOURNAL]["marks"]) == 3
    with pytest.raises(ValueError, match="block 2 has 399 rows"):
        journal.record(2, records_of(3))


def test_every_damaged_byte_is_noticed(journal: Journal) -> None:
    for block in range(5):
        journal.record(block, records_of(block))
    slot, marks = journal.slots[f"{JOURNAL}/records"], journal.slots[f"{JOURNAL}/marks"]
    rng = np.random.default_rng(3)
    for offset in (slot.offset, slot.offset + N * slot.row_bytes - 1, *rng.integers(0, N * slot.row_bytes, 20)):
        at = int(offset) if offset >= slot.offset else slot.offset + int(offset)
        row = (at - slot.offset) // slot.row_bytes
        block = int(np.searchsorted(STARTS, row, side="right")) - 1
        assert flipped(journal, at) == [block]
    assert flipped(journal, marks.offset + 4 * 3 + 1) == [3]
    assert journal.todo().tolist() == []


def flipped(journal: Journal, at: int) -> list[int]:
    """Blocks to be done again after a flip of this byte."""
    with journal.path.open("r+b") as file:
        file.seek(at)
        right = file.read(1)
        for byte in (bytes([right[0] ^ 16]), right):
            file.seek(at)
            file.write(byte)
            file.flush()
            if byte != right:
                found = journal.todo().tolist()
    return found


def test_records_of_another_block_do_not_count(journal: Journal) -> None:
    """Blocks 0 and 4 have one row each; mark and bytes of one do not count for the other."""
    journal.record(0, records_of(0))
    marks, records = journal.slots[f"{JOURNAL}/marks"], journal.slots[f"{JOURNAL}/records"]
    with journal.path.open("r+b") as file:
        for slot, here, there in ((marks, 0, 4), (records, 0, 999)):
            file.seek(slot.offset + here * slot.row_bytes)
            data = file.read(slot.row_bytes)
            file.seek(slot.offset + there * slot.row_bytes)
            file.write(data)
    assert journal.todo().tolist() == [1, 2, 3, 4]


def test_singles(tmp_path: Path) -> None:
    """Blocks of one row, written several at a time; their places are written in the end."""
    every = np.arange(N)
    layout = layout_of(every, np.arange(N + 1))
    journal = create_journal(tmp_path / "a.h5", layout)
    records = np.zeros(N, RECORD)
    records["result"][:, 0] = ORDER
    journal.record_singles(10, records[10:300])
    journal.record_singles(700, records[700:])
    assert journal.stretches() == [(0, N)]
    journal = reopened(journal, layout)
    assert journal.todo().tolist() == [*range(10), *range(300, 700)]
    journal.place(ORDER)
    places = journal.read(f"{JOURNAL}/places", 0, N)
    assert np.array_equal(records["result"][places, 0], every)


@pytest.mark.parametrize("keep", [0.999, 0.5, 0.2])
def test_a_file_that_was_cut_off_goes_on(journal: Journal, keep: float) -> None:
    for block in range(5):
        journal.record(block, records_of(block))
    size = journal.path.stat().st_size
    os.truncate(journal.path, int(keep * size))
    assert kind_of_file(journal.path) == "damaged"
    again = reopened(journal)
    assert again.path.stat().st_size == size
    todo = again.todo().tolist()
    assert todo
    for block in sorted(set(range(5)) - set(todo)):
        assert np.array_equal(again.records(np.array([block])), records_of(block))


def test_a_file_that_was_cut_off_gets_its_length_under_its_lock(journal: Journal) -> None:
    size = journal.path.stat().st_size
    os.truncate(journal.path, size // 2)
    other = os.open(journal.path, os.O_RDONLY)
    journal.close()
    fcntl.flock(other, fcntl.LOCK_EX)
    for use in (determines_of, lambda path: open_journal(path, layout_of())):
        with pytest.raises(UserError, match="another run is writing it"):
            use(journal.path)
        assert journal.path.stat().st_size == size // 2
    os.close(other)
    assert determines_of(journal.path) == DETERMINES
    assert journal.path.stat().st_size == size // 2
    assert open_journal(journal.path, layout_of()).path.stat().st_size == size


@pytest.mark.parametrize("changed", ["records", "points", "blocks"])
def test_places_that_the_layout_does_not_give_are_refused(journal: Journal, changed: str) -> None:
    """Here because another layout is asked for, rather than because the file is damaged."""
    layouts = {
        "records": replace(layout_of(), records=np.dtype([("phi", "f8", (3, 4)), ("result", "f8", (3,))])),
        "points": layout_of(np.arange(N - 1), np.array([0, 1, 1, 400, 998, 999])),
        "blocks": layout_of(ORDER, STARTS[1:]),
    }
    before = journal.path.read_bytes()
    with pytest.raises(UserError, match="is damaged and cannot be continued"):
        reopened(journal, layouts[changed])
    assert journal.path.read_bytes() == before
    assert len(open_journal(journal.path, layout_of())) == N


def test_marks_are_checked_again(journal: Journal) -> None:
    for block in range(5):
        journal.record(block, records_of(block))
    task = MarksTask(journal)
    assert [task.run(chunk) for chunk in range(task.n_chunks)] == [0]
    slot = journal.slots[f"{JOURNAL}/records"]
    journal.write_at(slot.offset + 700 * slot.row_bytes, b"?")
    assert [task.run(chunk) for chunk in range(task.n_chunks)] == [1]


def test_what_cannot_go_on(journal: Journal, tmp_path: Path) -> None:
    size = journal.path.stat().st_size
    for keep in (2000, 60, 8):
        os.truncate(journal.path, keep)
        with pytest.raises(UserError, match=r"a\.h5: is damaged and cannot be continued; add --overwrite"):
            reopened(journal)
        # the file is left as it was
        assert journal.path.stat().st_size == keep < size
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "c.h5").write_text("text")
    assert [kind_of_file(tmp_path / name) for name in ("a.h5", "b.h5", "c.h5", "d.h5")] == [
        "damaged",
        "foreign",
        "foreign",
        "absent",
    ]
    with pytest.raises(UserError, match="is damaged"):
        open_journal(tmp_path / "b.h5", layout_of())


def test_another_layout_of_journals(journal: Journal) -> None:
    with h5py.File(journal.path, "r+", locking=False) as file:
        file[JOURNAL].attrs["format"] = 99
    with pytest.raises(UserError, match="was begun by another version of mpidvc"):
        reopened(journal)


class Half:
    """Runs blocks and notes their numbers."""

    n_chunks = 5

    def __init__(self) -> None:
        self.ran: list[int] = []

    def run(self, chunk: int) -> np.ndarray:
        self.ran.append(chunk)
        return records_of(chunk)


@pytest.mark.parametrize("writes", [True, False])
def test_task(journal: Journal, writes: bool) -> None:
    inner = Half()
    task = JournalTask(inner, journal, np.array([2, 4]), writes)
    assert task.n_chunks == 2
    returned = [task.run(0), task.run(1)]
    assert inner.ran == [2, 4]
    assert returned == [records_of(2)[-1 if writes else 0 :].tobytes(), records_of(4).tobytes()]
    assert journal.todo().tolist() == ([0, 1, 3] if writes else [0, 1, 2, 3, 4])


PROGRAM = """
import sys
from pathlib import Path
from mpidvc.errors import UserError
from tests.runtime.test_journal import layout_of, open_journal
try:
    open_journal(Path(sys.argv[1]), layout_of())
    print("locked")
except UserError as error:
    print(error)
"""


def test_two_runs_do_not_share_a_journal(journal: Journal, environment: dict[str, str]) -> None:
    def other() -> str:
        command = [sys.executable, "-c", PROGRAM, str(journal.path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST, check=True)
        return done.stdout.strip()

    assert in_use(journal.path)
    journal.close()
    assert not in_use(journal.path)
    assert other() == "locked"
    held = open_journal(journal.path, layout_of())
    assert in_use(journal.path)
    assert "another run is writing it, or a program has it open; " in other()
    # other uses of the file in this process do not release the lock
    kind_of_file(journal.path)
    pickle.loads(pickle.dumps(held)).todo()
    assert in_use(journal.path)
    held.close()
    assert not in_use(journal.path)
    assert other() == "locked"


def test_a_journal_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        create_journal(tmp_path / "missing" / "a.h5", layout_of())
    (tmp_path / "b.h5").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        create_journal(tmp_path / "b.h5", layout_of())
    assert [path.name for path in tmp_path.iterdir()] == ["b.h5"]
