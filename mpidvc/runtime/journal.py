"""The journal of a run: results go to disk as they are measured, and an interrupted run is resumed from them.

A journal is an HDF5 file (`mpidvc.rowfile`). Its points are divided into *blocks*. For every block the journal holds
the inputs, one contiguous piece of records, and a mark: 0, or a checksum of the records that is written after them.
However a job ends, a block counts as done only if its mark fits its records.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpidvc.arrays import Array, Ints, Records
from mpidvc.atomic import replacing
from mpidvc.errors import UserError
from mpidvc.rowfile import HOME, JOURNAL, METADATA, SIGNATURE, RowFile, Slot, create_dataset, create_file, reserve
from mpidvc.runtime.executor import Task

__all__ = [
    "Journal",
    "JournalLayout",
    "JournalTask",
    "create_journal",
    "determines_of",
    "in_use",
    "kind_of_file",
    "open_journal",
    "refuse_in_use",
]

#: Version of the layout.
FORMAT = 1
#: Datasets of the journal's group.
DATASETS = ("marks", "starts", "places", "positions", "inputs", "records")
#: Rows checked or copied at once.
AT_ONCE = 65536

#: Exceptions of h5py where the metadata of a file are damaged.
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)
#: Seconds in which taking the lock is tried again: another process may just be testing it.
LOCK_TRIED = 0.1


def in_use(path: Path) -> bool:
    """Whether a run holds the lock of a journal, as far as this host sees it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def refuse_in_use(path: Path) -> None:
    """Refuse a journal that another run is writing.

    Raises
    ------
    UserError
        If there is such a run.
    """
    if in_use(path):
        raise _in_use_error(path)


def _in_use_error(path: Path) -> UserError:
    return UserError(f"{path}: another run is writing it, or a program has it open; wait for its end")


class Journal(RowFile):
    """An open journal. It can be pickled: the process that receives it opens the file itself.

    Parameters
    ----------
    path : Path
    slots : mapping of str to Slot
        ``inputs`` and ``records``: n rows in the order of the blocks. ``positions``: n rows in the order of the field.
        ``places``: for each field row, its row in the journal. ``starts`` and ``marks`` of the blocks.
    """

    def __init__(self, path: Path, slots: Mapping[str, Slot]) -> None:
        super().__init__(path, slots)
        self._starts: Ints | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_starts": None}

    def __len__(self) -> int:
        """Number of points."""
        return self.slots[f"{JOURNAL}/records"].lead[0]

    @property
    def n_blocks(self) -> int:
        return self.slots[f"{JOURNAL}/marks"].lead[0]

    @property
    def record_dtype(self) -> np.dtype[Any]:
        return self.slots[f"{JOURNAL}/records"].dtype

    @property
    def starts(self) -> Ints:
        """Rows of the blocks (n_blocks + 1,): block k has the journal's rows ``[starts[k], starts[k + 1])``."""
        if self._starts is None:
            self._starts = self.read(f"{JOURNAL}/starts", 0, self.n_blocks + 1)
        return self._starts

    def hold(self) -> None:
        """Open the file now: another file may take its name while this process sleeps, and must not be written to."""
        self.starts  # noqa: B018

    def lock(self) -> None:
        """Lock the journal against other runs for as long as this process keeps it open.

        Raises
        ------
        UserError
            If another run holds the lock, or has replaced the file.
        """
        # flock, not fcntl: MPI-IO takes fcntl's locks on the file
        until = time.monotonic() + LOCK_TRIED
        while True:
            try:
                fcntl.flock(self.descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.02)
                    continue
                raise _in_use_error(self.path) from None
            except OSError:
                pass  # file systems without locks
            break
        if not self.path.exists() or not os.path.samestat(os.fstat(self.descriptor()), self.path.stat()):
            raise UserError(f"{self.path}: another run has finished it just now; start again")

    def inputs(self, block: int) -> Records:
        """Inputs of a block: the rows from which its points start."""
        return self.read(f"{JOURNAL}/inputs", int(self.starts[block]), int(self.starts[block + 1]))

    def record(self, block: int, records: Records) -> None:
        """Write the records of a block, then its mark."""
        records = np.ascontiguousarray(records, self.slots[f"{JOURNAL}/records"].dtype)
        if len(records) != self.starts[block + 1] - self.starts[block]:
            raise ValueError(
                f"block {block} has {self.starts[block + 1] - self.starts[block]} rows, not {len(records)}"
            )
        begun = time.perf_counter()
        mark = np.array([_mark(block, records)], np.uint32)
        self.seconds += time.perf_counter() - begun
        self.write(f"{JOURNAL}/records", int(self.starts[block]), records)
        self.write(f"{JOURNAL}/marks", block, mark)

    def record_singles(self, first: int, records: Records) -> None:
        """Write records and marks of the blocks ``first, first + 1, …``, which have one row each."""
        records = np.ascontiguousarray(records, self.slots[f"{JOURNAL}/records"].dtype)
        begun = time.perf_counter()
        marks = [_mark(first + k, records[k : k + 1]) for k in range(len(records))]
        self.seconds += time.perf_counter() - begun
        self.write(f"{JOURNAL}/records", first, records)
        self.write(f"{JOURNAL}/marks", first, np.array(marks, np.uint32))

    def records(self, blocks: Ints) -> Records:
        """Records of the given blocks, one after the other, from a map of the file."""
        starts, lengths = self.starts[blocks], np.diff(self.starts)[blocks]
        rows = np.arange(lengths.sum()) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
        picked: Records = self.mapped(f"{JOURNAL}/records")[rows]
        return picked

    def place(self, order: Ints) -> None:
        """Write the places: `order` holds, for each row of the journal, its row in the field."""
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        self.write(f"{JOURNAL}/places", 0, places)

    def fill(self, order: Ints, positions: Array, inputs: Callable[[Ints], Records]) -> None:
        """Write everything known before the first measurement except the blocks; parameters as of `create_journal`."""
        self.place(order)
        self.write(f"{JOURNAL}/positions", 0, positions)
        for first in range(0, len(order), AT_ONCE):
            self.write(f"{JOURNAL}/inputs", first, inputs(order[first : first + AT_ONCE]))

    def fits(self, starts: Ints, inputs: np.dtype[Any], records: np.dtype[Any]) -> bool:
        """Whether the journal was created for these blocks, inputs and records."""
        kinds = {"inputs": inputs, "records": records}
        return np.array_equal(self.starts, starts) and all(
            self.slots[f"{JOURNAL}/{name}"].dtype == kind and self.slots[f"{JOURNAL}/{name}"].lead == (int(starts[-1]),)
            for name, kind in kinds.items()
        )

    def todo(self) -> Ints:
        """Blocks to be measured: those without a mark, and those whose records do not fit it."""
        marks = self.read(f"{JOURNAL}/marks", 0, self.n_blocks)
        undone = marks == 0
        # many blocks are read at once: a block may have one row only
        for first, end in _stretches(self.starts, AT_ONCE):
            if undone[first:end].all():
                continue
            begin = int(self.starts[first])
            records = self.read(f"{JOURNAL}/records", begin, int(self.starts[end]))
            for block in (first + np.flatnonzero(~undone[first:end])).tolist():
                mine = records[self.starts[block] - begin : self.starts[block + 1] - begin]
                undone[block] = _mark(block, mine) != marks[block]
        return np.flatnonzero(undone).astype(np.int64)


def _mark(block: int, records: Records) -> int:
    """Checksum of a block's number and records, never 0: equal records of another block have another one."""
    return zlib.crc32(records.tobytes(), zlib.crc32(struct.pack("<q", block))) or 1


def _stretches(starts: Ints, most: int) -> Iterable[tuple[int, int]]:
    """Ranges ``[first, end)`` of neighbouring blocks with about `most` rows together."""
    first, n = 0, len(starts) - 1
    while first < n:
        end = max(first + 1, int(np.searchsorted(starts, starts[first] + most, side="right")) - 1)
        yield first, min(end, n)
        first = end


@dataclass(frozen=True, kw_only=True)
class JournalLayout:
    """Everything that determines where the parts of a journal lie in its file.

    Parameters
    ----------
    determines : mapping
        Everything that determines the result, by names that a user understands; can be written as JSON. Has the key
        ``command``.
    columns : sequence of str
        Names of the values in the field ``result`` of a record.
    n_points, n_blocks : int
    inputs : dtype
        Compound dtype of a row of inputs.
    records : dtype
        Compound dtype of a record.
    """

    determines: Mapping[str, Any]
    columns: Sequence[str]
    n_points: int
    n_blocks: int
    inputs: np.dtype[Any]
    records: np.dtype[Any]

    @property
    def datasets(self) -> dict[str, tuple[int, np.dtype[Any]]]:
        """Length and dtype of each dataset, in the order in which they are created."""
        return {
            "marks": (self.n_blocks, np.dtype(np.uint32)),
            "starts": (self.n_blocks + 1, np.dtype(np.int64)),
            "places": (self.n_points, np.dtype(np.int64)),
            "positions": (self.n_points, np.dtype((np.float64, 3))),
            "inputs": (self.n_points, self.inputs),
            "records": (self.n_points, self.records),
        }

    def create(self, path: Path) -> dict[str, Slot]:
        """Create the file with its metadata and zeros, without taking disk space, and return the slots by dataset.

        Raises
        ------
        OSError
            If the file exists, or cannot be made so long.
        """
        need = METADATA + sum(length * dtype.itemsize for length, dtype in self.datasets.values())
        slots = {}
        with create_file(path, need) as file:
            home = file.create_group(HOME)
            home.attrs["command"] = str(self.determines["command"])
            home.attrs["n_points"] = self.n_points
            home.attrs["determines"] = json.dumps(self.determines)
            group = file.create_group(JOURNAL)
            group.attrs["format"] = FORMAT
            group.attrs["columns"] = json.dumps(list(self.columns))
            for name, (length, dtype) in self.datasets.items():
                slots[f"{JOURNAL}/{name}"] = create_dataset(group, name, (length,), dtype.base, dtype.shape)
        return slots


def create_journal(
    path: Path,
    layout: JournalLayout,
    *,
    order: Ints,
    starts: Ints,
    positions: Array,
    inputs: Callable[[Ints], Records],
) -> Journal:
    """Create a journal with nothing done; it takes the place of `path` when it is complete.

    Parameters
    ----------
    path : Path
    layout : JournalLayout
    order : (n,) int64
        Rows of the field in the order of the blocks.
    starts : (n_blocks + 1,) int64
        Block k has the rows ``order[starts[k] : starts[k + 1]]``.
    positions : (n, 3) float64
        Positions of the field's rows (z, y, x; voxels).
    inputs : callable
        Returns the inputs of the given rows of the field.

    Raises
    ------
    UserError
        If it cannot be written, or the disk has no room for the whole of it.
    """
    with replacing(path) as temporary:
        slots = layout.create(temporary)
        with temporary.open("r+b") as plain:
            reserve(plain.fileno(), temporary.stat().st_size)
        journal = Journal(temporary, slots)
        journal.write(f"{JOURNAL}/starts", 0, starts)
        journal.fill(order, positions, inputs)
    journal.path = path
    return journal


def kind_of_file(path: Path) -> str:
    """Tell a journal from a finished results file and from files that are neither.

    Returns
    -------
    {"absent", "unfinished", "finished", "damaged", "foreign"}
        Unfinished: a journal. Damaged: HDF5 that cannot be opened, for instance because its end is missing. Foreign:
        neither a journal nor a results file.

    Raises
    ------
    UserError
        If it is no plain file, or this user may not read it.
    """
    import h5py

    if not path.exists():
        return "absent"
    if not path.is_file():
        raise UserError(f"{path}: is no plain file; move it away, or choose another name by -pre")
    try:
        with h5py.File(path, "r", locking=False) as file:
            if JOURNAL in file:
                return "unfinished"
            return "finished" if HOME in file and "determines" in file[HOME].attrs else "foreign"
    except _DAMAGE:
        try:
            with path.open("rb") as plain:
                return "damaged" if plain.read(8) == SIGNATURE else "foreign"
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror or error}); change that, or choose another name by -pre"
            ) from error


def determines_of(path: Path) -> dict[str, Any]:
    """Read what determines the result of a journal or a finished results file.

    Raises
    ------
    UserError
        If it is damaged.
    """
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            found: dict[str, Any] = dict(json.loads(file[HOME].attrs["determines"]))
            return found
    except _DAMAGE:
        raise _damaged_error(path) from None


def _damaged_error(path: Path) -> UserError:
    return UserError(f"{path}: is damaged and cannot be continued; add --overwrite to start again")


def open_journal(path: Path) -> Journal:
    """Open a journal in order to resume its run.

    A file whose end is missing gets its length back: the missing part becomes zeros, which do not count as done. Only
    records have checksums; everything else should be written again by `Journal.fill`.

    Raises
    ------
    UserError
        If it is damaged beyond that, or was begun by another version of mpidvc.
    """
    import h5py

    length = path.stat().st_size
    with path.open("rb") as plain:
        head = plain.read(48)
    # the length of the file according to its superblock (version 0)
    end = struct.unpack_from("<Q", head, 40)[0] if len(head) == 48 and head[8] == 0 else 0
    slots = {}
    good = False
    try:
        if length < end < 2**50:
            os.truncate(path, end)
        with h5py.File(path, "r", locking=False) as file:
            if file[JOURNAL].attrs["format"] != FORMAT:
                raise UserError(
                    f"{path}: was begun by another version of mpidvc; finish it with that, or add --overwrite"
                )
            for name, dataset in file[JOURNAL].items():
                shape = dataset.shape
                slots[f"{JOURNAL}/{name}"] = Slot(dataset.id.get_offset() or 0, dataset.dtype, shape[1:], shape[:1])
        journal = Journal(path, slots)
        starts = journal.starts
        complete = {name.rpartition("/")[2] for name in slots} == set(DATASETS)
        good = bool(
            complete
            and len(starts) == journal.n_blocks + 1
            and starts[-1] == len(journal)
            and (np.diff(starts) >= 0).all()
        )
    except _DAMAGE:
        good = False
    if not good:
        os.truncate(path, length)
        raise _damaged_error(path)
    return journal


class JournalTask:
    """The blocks of a journal that are to be done, as a task for an executor.

    A chunk returns bytes rather than an array: rank 0 gets one report after the other, and arrays take long to unpack.

    Parameters
    ----------
    task : Task
        Its chunks are the journal's blocks.
    journal : Journal
    todo : (k,) int64
        Blocks to be done.
    writes : bool
        Whether the rank that ran a block writes it to the journal. If so a chunk returns the block's last record only,
        otherwise all its records, for rank 0 to write.
    """

    def __init__(self, task: Task, journal: Journal, todo: Ints, writes: bool) -> None:
        self._task, self._journal, self._todo, self._writes = task, journal, todo, writes
        self.n_chunks = len(todo)

    def run(self, chunk: int) -> bytes:
        block = int(self._todo[chunk])
        records: Records = self._task.run(block)
        if not self._writes:
            return records.tobytes()
        self._journal.record(block, records)
        return records[-1:].tobytes()
