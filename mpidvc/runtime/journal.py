"""The journal of a run: results go to disk as they come, and an interrupted run goes on from them.

A journal is an HDF5 file (`mpidvc.rowfile`). Its points are divided into *blocks*; the journal holds what every block
starts from, one contiguous piece of records per block, and a mark per block: 0, or a checksum of the block's records
that is written after them. Whatever kills a job, a block counts only if its mark fits its records.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpidvc.arrays import Array, Ints, Records
from mpidvc.atomic import replacing
from mpidvc.errors import UserError
from mpidvc.rowfile import HOME, METADATA, SIGNATURE, RowFile, Slot, create_dataset, create_file, reserve
from mpidvc.rowfile import JOURNAL as GROUP
from mpidvc.runtime.executor import Task

__all__ = [
    "GROUP",
    "Journal",
    "JournalTask",
    "determines_of",
    "in_use",
    "lay_out",
    "open_journal",
    "refuse_in_use",
    "state_of",
]

#: Version of the layout.
FORMAT = 1
#: What it consists of.
DATASETS = ("marks", "starts", "places", "positions", "inputs", "records")
#: Rows that are checked or copied at once.
AT_ONCE = 65536

#: What h5py raises where it finds metadata that make no sense.
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)


#: Seconds that a lock is tried for: somebody may be asking just now whether there is one.
LOCK_TRIED = 0.1


def in_use(path: Path) -> bool:
    """Whether a run is writing a journal, as far as this host sees its lock."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def refuse_in_use(path: Path) -> None:
    """Go on if no other run is writing a journal.

    Raises
    ------
    UserError
    """
    if in_use(path):
        raise _is_used(path)


def _is_used(path: Path) -> UserError:
    return UserError(f"{path}: another run is writing it, or a program has it open; wait for its end")


class Journal(RowFile):
    """An open journal; can be pickled, and is then opened anew by the process that gets it.

    Parameters
    ----------
    path : Path
    slots : mapping of str to Slot
        ``inputs``, ``records`` (n rows in the order of the blocks), ``positions`` (n rows in that of the field),
        ``places`` (which row of the former each of the latter is), ``starts`` and ``marks`` of the blocks.
    """

    def __init__(self, path: Path, slots: Mapping[str, Slot]) -> None:
        super().__init__(path, slots)
        self._starts: Ints | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_starts": None}

    def __len__(self) -> int:
        """Number of points."""
        return self.slots[f"{GROUP}/records"].lead[0]

    @property
    def n_blocks(self) -> int:
        return self.slots[f"{GROUP}/marks"].lead[0]

    @property
    def record_dtype(self) -> np.dtype[Any]:
        return self.slots[f"{GROUP}/records"].dtype

    @property
    def starts(self) -> Ints:
        """Block k has the journal's rows ``[starts[k], starts[k + 1])``."""
        if self._starts is None:
            self._starts = self.read(f"{GROUP}/starts", 0, self.n_blocks + 1)
        return self._starts

    def hold(self) -> None:
        """Open the file now: what has its name may change while a process sleeps, and must not be written to."""
        self.starts  # noqa: B018

    def lock(self) -> None:
        """Keep other runs from using the journal as long as this process holds it.

        Raises
        ------
        UserError
            If another one does.
        """
        # not by fcntl, whose locks MPI-IO takes on the file
        until = time.monotonic() + LOCK_TRIED
        while True:
            try:
                fcntl.flock(self.descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.02)
                    continue
                raise _is_used(self.path) from None
            except OSError:
                pass  # file systems without locks
            break
        if not self.path.exists() or not os.path.samestat(os.fstat(self.descriptor()), self.path.stat()):
            raise UserError(f"{self.path}: another run has finished it just now; start again")

    def inputs(self, block: int) -> Records:
        """What the points of a block start from."""
        return self.read(f"{GROUP}/inputs", int(self.starts[block]), int(self.starts[block + 1]))

    def record(self, block: int, records: Records) -> None:
        """Write the records of a block, then its mark."""
        records = np.ascontiguousarray(records, self.slots[f"{GROUP}/records"].dtype)
        if len(records) != self.starts[block + 1] - self.starts[block]:
            raise ValueError(
                f"block {block} has {self.starts[block + 1] - self.starts[block]} rows, not {len(records)}"
            )
        begun = time.perf_counter()
        mark = np.array([_mark(block, records)], np.uint32)
        self.seconds += time.perf_counter() - begun
        self.write(f"{GROUP}/records", int(self.starts[block]), records)
        self.write(f"{GROUP}/marks", block, mark)

    def record_singles(self, first: int, records: Records) -> None:
        """The same for blocks ``first, first + 1, …`` of one row each."""
        records = np.ascontiguousarray(records, self.slots[f"{GROUP}/records"].dtype)
        begun = time.perf_counter()
        marks = [_mark(first + k, records[k : k + 1]) for k in range(len(records))]
        self.seconds += time.perf_counter() - begun
        self.write(f"{GROUP}/records", first, records)
        self.write(f"{GROUP}/marks", first, np.array(marks, np.uint32))

    def records(self, blocks: Ints) -> Records:
        """Records of these blocks, one after the other, from a map of the file."""
        starts, lengths = self.starts[blocks], np.diff(self.starts)[blocks]
        rows = np.arange(lengths.sum()) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
        picked: Records = self.mapped(f"{GROUP}/records")[rows]
        return picked

    def place(self, order: Ints) -> None:
        """Say which row of the field each row of the journal is."""
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        self.write(f"{GROUP}/places", 0, places)

    def fill(self, order: Ints, positions: Array, inputs: Callable[[Ints], Records]) -> None:
        """Write everything that is known before anything is measured, as `lay_out` gets it, but the blocks."""
        self.place(order)
        self.write(f"{GROUP}/positions", 0, positions)
        for first in range(0, len(order), AT_ONCE):
            self.write(f"{GROUP}/inputs", first, inputs(order[first : first + AT_ONCE]))

    def fits(self, starts: Ints, inputs: np.dtype[Any], records: np.dtype[Any]) -> bool:
        """Whether it is laid out for these blocks, inputs and records."""
        kinds = {"inputs": inputs, "records": records}
        return np.array_equal(self.starts, starts) and all(
            self.slots[f"{GROUP}/{name}"].dtype == kind and self.slots[f"{GROUP}/{name}"].lead == (int(starts[-1]),)
            for name, kind in kinds.items()
        )

    def todo(self) -> Ints:
        """Blocks that are not done, or whose records do not fit their mark."""
        marks = self.read(f"{GROUP}/marks", 0, self.n_blocks)
        undone = marks == 0
        # several blocks are read at once: there may be as many as points
        for first, end in _stretches(self.starts, AT_ONCE):
            if undone[first:end].all():
                continue
            begin = int(self.starts[first])
            records = self.read(f"{GROUP}/records", begin, int(self.starts[end]))
            for block in (first + np.flatnonzero(~undone[first:end])).tolist():
                mine = records[self.starts[block] - begin : self.starts[block + 1] - begin]
                undone[block] = _mark(block, mine) != marks[block]
        return np.flatnonzero(undone).astype(np.int64)


def _mark(block: int, records: Records) -> int:
    """A checksum that is never 0, and that other blocks' records do not have."""
    return zlib.crc32(records.tobytes(), zlib.crc32(struct.pack("<q", block))) or 1


def _stretches(starts: Ints, most: int) -> Iterable[tuple[int, int]]:
    """Neighbouring blocks ``[first, end)`` of about `most` rows together."""
    first, n = 0, len(starts) - 1
    while first < n:
        end = max(first + 1, int(np.searchsorted(starts, starts[first] + most, side="right")) - 1)
        yield first, min(end, n)
        first = end


def lay_out(
    path: Path,
    determines: Mapping[str, Any],
    order: Ints,
    starts: Ints,
    positions: Array,
    inputs: Callable[[Ints], Records],
    records: np.dtype[Any],
    columns: Sequence[str],
) -> Journal:
    """Make a journal with nothing done; it takes the place of what `path` holds when it is complete.

    Parameters
    ----------
    path : Path
    determines : mapping
        Everything that determines the result, by names that a user understands; values can be written as JSON. Has the
        key ``command``.
    order : (n,) int64
        Rows of the field in the order of the blocks.
    starts : (n_blocks + 1,) int64
        Where in it the blocks begin.
    positions : (n, 3) float64
        Of the rows of the field.
    inputs : callable
        Gives what these rows of the field start from, an array of a compound dtype.
    records : dtype
        Of a record; it has a field ``result`` with a value for each of `columns`.
    columns : sequence of str

    Raises
    ------
    UserError
        If it cannot be written, or the disk has no room for the whole of it.
    """
    n, n_blocks = len(order), len(starts) - 1
    described: dict[str, tuple[int, np.dtype[Any]]] = {
        "marks": (n_blocks, np.dtype(np.uint32)),
        "starts": (n_blocks + 1, np.dtype(np.int64)),
        "places": (n, np.dtype(np.int64)),
        "positions": (n, np.dtype((np.float64, 3))),
        "inputs": (n, inputs(order[:0]).dtype),
        "records": (n, records),
    }
    need = METADATA + sum(length * dtype.itemsize for length, dtype in described.values())
    with replacing(path) as temporary:
        slots = {}
        with create_file(temporary, need) as file:
            home = file.create_group(HOME)
            home.attrs["command"] = str(determines["command"])
            home.attrs["n_points"] = n
            home.attrs["determines"] = json.dumps(determines)
            group = file.create_group(GROUP)
            group.attrs["format"] = FORMAT
            group.attrs["columns"] = json.dumps(list(columns))
            for name, (length, dtype) in described.items():
                slots[f"{GROUP}/{name}"] = create_dataset(group, name, (length,), dtype.base, dtype.shape)
        with temporary.open("r+b") as plain:
            reserve(plain.fileno(), temporary.stat().st_size)
        journal = Journal(temporary, slots)
        journal.write(f"{GROUP}/starts", 0, starts)
        journal.fill(order, positions, inputs)
    journal.path = path
    return journal


def state_of(path: Path) -> str:
    """What a path holds.

    Returns
    -------
    {"absent", "unfinished", "finished", "damaged", "foreign"}
        A journal; a finished results file; HDF5 that cannot be opened, for instance as it was cut off; something else.

    Raises
    ------
    UserError
        If it is no plain file, or must not be read.
    """
    import h5py

    if not path.exists():
        return "absent"
    if not path.is_file():
        raise UserError(f"{path}: is no plain file; move it away, or choose another name by -pre")
    try:
        with h5py.File(path, "r", locking=False) as file:
            if GROUP in file:
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
    """What determines the result that a file of ours holds or will hold.

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
        raise _is_damaged(path) from None


def _is_damaged(path: Path) -> UserError:
    return UserError(f"{path}: is damaged and cannot be continued; add --overwrite to start again")


def open_journal(path: Path) -> Journal:
    """Open an unfinished results file to go on with it.

    A file that was cut off gets its length back: what is missing becomes zeros, which do not count as done. What it
    holds besides records and marks has no checksums, and should be written again by `Journal.fill`.

    Raises
    ------
    UserError
        If it is damaged beyond that.
    """
    import h5py

    length = path.stat().st_size
    with path.open("rb") as plain:
        head = plain.read(48)
    # the end of the file as its superblock (version 0) tells it
    end = struct.unpack_from("<Q", head, 40)[0] if len(head) == 48 and head[8] == 0 else 0
    slots = {}
    good = False
    try:
        if length < end < 2**50:
            os.truncate(path, end)
        with h5py.File(path, "r", locking=False) as file:
            if file[GROUP].attrs["format"] != FORMAT:
                raise UserError(
                    f"{path}: was begun by another version of mpidvc; finish it with that, or add --overwrite"
                )
            for name, dataset in file[GROUP].items():
                shape = dataset.shape
                slots[f"{GROUP}/{name}"] = Slot(dataset.id.get_offset() or 0, dataset.dtype, shape[1:], shape[:1])
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
        raise _is_damaged(path)
    return journal


class JournalTask:
    """The blocks of a journal that are still to be done, as a task for an executor.

    Parameters
    ----------
    task : Task
        Its chunks are the journal's blocks.
    journal : Journal
    todo : (k,) int64
        Blocks to be done.
    writes : bool
        Whether the rank that ran a block writes it, and returns its last record only; otherwise all records are
        returned, for rank 0 to write.

    Its chunks return the bytes of records: rank 0 gets one report after the other, and arrays take long to pack.
    """

    def __init__(self, task: Task, journal: Journal, todo: Ints, writes: bool) -> None:
        self._task, self._journal, self._todo, self._writes = task, journal, todo, writes
        self.n_chunks = len(todo)

    def run(self, chunk: int) -> Any:
        block = int(self._todo[chunk])
        records = self._task.run(block)
        if not self._writes:
            return records.tobytes()
        self._journal.record(block, records)
        return records[-1:].tobytes()
