"""The journal of a run: results go to disk as they are measured, and an interrupted run is resumed from them.

A journal is an HDF5 file (`mpidvc.rowfile`). Its points are divided into *blocks*. For every block the journal holds
the inputs, one contiguous piece of records, and a mark: 0, or a checksum of the records that is written after them.
However a job ends, a block counts as done only if its mark fits its records.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mpidvc.arrays import Array, Ints, Records
from mpidvc.atomic import beside, keep_mode, replacing
from mpidvc.errors import UserError
from mpidvc.rowfile import (
    HOME,
    JOURNAL,
    METADATA,
    SIGNATURE,
    RowFile,
    Slot,
    create_dataset,
    create_file,
    read_attributes,
    reserve,
)
from mpidvc.runtime.executor import Task

__all__ = [
    "Journal",
    "JournalLayout",
    "JournalTask",
    "MarksTask",
    "Pieces",
    "create_journal",
    "determines_of",
    "in_use",
    "kind_of_file",
    "locked",
    "open_journal",
    "refuse_in_use",
]

#: Version of the layout.
FORMAT = 2
#: Rows checked or copied at once.
AT_ONCE = 65536

#: Exceptions of h5py where the metadata of a file are damaged.
_DAMAGE = (
    *(OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError),
    *(OverflowError, MemoryError, RecursionError),
)
#: Longest file in bytes that metadata may claim.
_LONGEST = 2**50
#: Seconds in which taking the lock is tried again: another process may just be testing it.
LOCK_TRIED = 0.1


def in_use(path: Path) -> bool:
    """Whether a run holds the lock of a journal, or of a folder, as far as this host sees it."""
    try:
        with _opened(path) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other runs.

    Raises
    ------
    UserError
        If another run holds the lock.
    """
    with _opened(folder) as descriptor:
        _lock(descriptor, folder)
        yield


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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


def _lock(descriptor: int, path: Path) -> None:
    # flock, not fcntl: MPI-IO takes fcntl's locks on the file
    until = time.monotonic() + LOCK_TRIED
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.02)
                continue
            raise _in_use_error(path) from None
        except OSError:
            pass  # file systems without locks
        return


class Pieces(Protocol):
    """Pieces of an order: some blocks [first, end), and the ranges of rows of the field that they fill."""

    def __len__(self) -> int: ...

    def __getitem__(self, k: int, /) -> tuple[int, int, list[tuple[int, int]]]: ...


class WholePieces(Pieces, Protocol):
    """Pieces of whole blocks, one after the other."""

    @property
    def ends(self) -> Ints:
        """Ends of the blocks of each piece."""


class ComputedOrder(Protocol):
    """An order of a field's rows that every rank can compute."""

    @property
    def starts(self) -> Ints:
        """Rows of the journal where each block begins, and their number (n_blocks + 1,)."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Ints: ...

    def places(self, start: int, stop: int) -> Ints:
        """Rows of the journal of the rows [start, stop) of the field."""

    def pieces(self, most: int) -> WholePieces:
        """The order in pieces."""


class Computed(Protocol):
    """Points that every rank can compute: their journal does not hold them."""

    @property
    def order(self) -> ComputedOrder: ...

    @property
    def start(self) -> object | None:
        """What they start from; None if the journal holds their inputs."""

    def positions(self, start: int, stop: int) -> Array:
        """Positions of the rows [start, stop) of the field, voxels."""

    def inputs(self, start: int, stop: int) -> Records:
        """Inputs of the rows [start, stop) of the journal."""


class Journal(RowFile):
    """An open journal. It can be pickled: the process that receives it opens the file itself.

    Parameters
    ----------
    path : Path
    slots : mapping of str to Slot
        ``records``: n rows in the order of the blocks. ``starts`` and ``marks`` of the blocks. Where they are not
        computed, ``inputs``: n rows in the order of the blocks; ``positions``: n rows in the order of the field;
        ``places``: for each field row, its row in the journal.
    computed : Computed, optional
    """

    def __init__(self, path: Path, slots: Mapping[str, Slot], computed: Computed | None = None) -> None:
        super().__init__(path, slots)
        self.computed = computed
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
        if self._starts is None and self.computed is not None:
            self._starts = self.computed.order.starts
        if self._starts is None:
            self._starts = self.read(f"{JOURNAL}/starts", 0, self.n_blocks + 1)
        return self._starts

    def hold(self) -> None:
        """Open the file now: another file may take its name while this process sleeps, and must not be written to."""
        self.descriptor()
        self.starts  # noqa: B018

    def lock(self) -> None:
        """Lock the journal against other runs for as long as this process keeps it open.

        Raises
        ------
        UserError
            If another run holds the lock, or has replaced the file.
        """
        _lock(self.descriptor(), self.path)
        if not self.path.exists() or not os.path.samestat(os.fstat(self.descriptor()), self.path.stat()):
            raise UserError(f"{self.path}: another run has finished it just now; start again")

    def inputs(self, block: int) -> Records:
        """Inputs of a block: the rows from which its points start."""
        start, stop = int(self.starts[block]), int(self.starts[block + 1])
        name = f"{JOURNAL}/inputs"
        if name in self.slots or self.computed is None:
            return self.read(name, start, stop)
        return self.computed.inputs(start, stop)

    def positions(self, start: int, stop: int) -> Array:
        """Positions of the rows [start, stop) of the field."""
        if self.computed is not None:
            return self.computed.positions(start, stop)
        return self.read(f"{JOURNAL}/positions", start, stop)

    def places(self, start: int, stop: int) -> Ints:
        """Rows of the journal of the rows [start, stop) of the field."""
        if self.computed is not None:
            return self.computed.order.places(start, stop)
        return self.read(f"{JOURNAL}/places", start, stop)

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

    def undone(self, first: int, end: int) -> Ints:
        """Those of the blocks [first, end) that have no mark, or whose records do not fit it."""
        if not self.read(f"{JOURNAL}/marks", first, end).any():
            return np.arange(first, end)
        return self.checked(first, end)[1]

    def checked(self, first: int, end: int, memory: Records | None = None) -> tuple[Records, Ints]:
        """Records of the blocks [first, end), and those of the blocks that have no mark or do not fit it.

        They are read into `memory` if it has room for them.
        """
        starts = self.starts[first : end + 1] - self.starts[first]
        fits = memory is not None and len(memory) >= starts[-1]
        rows = int(self.starts[first]), int(self.starts[end])
        records = self.read(f"{JOURNAL}/records", *rows, memory if fits else None)
        marks = self.read(f"{JOURNAL}/marks", first, end)
        undone = marks == 0
        for k in np.flatnonzero(~undone).tolist():
            undone[k] = _mark(first + k, records[starts[k] : starts[k + 1]]) != marks[k]
        return records, first + np.flatnonzero(undone)

    def stretches(self) -> list[tuple[int, int]]:
        """Ranges [first, end) of blocks with about `AT_ONCE` rows together: a block may have one row only."""
        found = []
        first = 0
        while first < self.n_blocks:
            most = int(np.searchsorted(self.starts, self.starts[first] + AT_ONCE, side="right")) - 1
            end = min(max(first + 1, most), self.n_blocks)
            found.append((first, end))
            first = end
        return found

    def todo(self) -> Ints:
        """Blocks to be measured: those without a mark, and those whose records do not fit it."""
        parts = [self.undone(first, end) for first, end in self.stretches()]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def place(self, order: Ints) -> None:
        """Write the places: `order` holds, for each row of the journal, its row in the field."""
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        self.write(f"{JOURNAL}/places", 0, places)

    def fill(self, layout: JournalLayout) -> None:
        """Write everything known before the first measurement."""
        self.write(f"{JOURNAL}/starts", 0, layout.starts)
        self._starts = layout.starts
        if layout.computed is None:
            self.place(layout.order[:])
            for first in range(0, len(layout.order), AT_ONCE):
                rows = np.arange(first, min(first + AT_ONCE, len(layout.order)))
                self.write(f"{JOURNAL}/positions", first, layout.positions(rows))
        if f"{JOURNAL}/inputs" in self.slots and not layout.inputs_follow:
            for first in range(0, len(layout.order), AT_ONCE):
                self.write(f"{JOURNAL}/inputs", first, layout.inputs(layout.order[first : first + AT_ONCE]))


def _mark(block: int, records: Records) -> int:
    """Checksum of a block's number and records, never 0: equal records of another block have another one."""
    return zlib.crc32(records.view(np.uint8).data, zlib.crc32(struct.pack("<q", block))) or 1


@dataclass(frozen=True, kw_only=True)
class JournalLayout:
    """Everything known before the first measurement; it alone determines where the parts of a journal lie in its file.

    Parameters
    ----------
    determines : mapping
        Everything that determines the result, by names that a user understands; can be written as JSON. Has the key
        ``command``.
    columns : sequence of str
        Names of the values in the field ``result`` of a record.
    records : dtype
        Compound dtype of a record.
    order : (n,) int64, or `ComputedOrder`
        Rows of the field in the order of the blocks.
    starts : (n_blocks + 1,) int64
        Block k has the rows ``order[starts[k] : starts[k + 1]]``.
    positions, inputs : callable
        Return the positions (k, 3; z, y, x; voxels), and the inputs (an array of a compound dtype), of the given rows
        of the field.
    computed : Computed, optional
        The same, where every rank can compute it.
    inputs_follow : bool
        Whether the inputs are written later, by all ranks.
    """

    determines: Mapping[str, Any]
    columns: Sequence[str]
    records: np.dtype[Any]
    order: Ints | ComputedOrder
    starts: Ints
    positions: Callable[[Ints], Array]
    inputs: Callable[[Ints], Records]
    computed: Computed | None = None
    inputs_follow: bool = False

    @property
    def datasets(self) -> dict[str, tuple[int, np.dtype[Any]]]:
        """Length and dtype of each dataset, in the order in which they are created."""
        n, n_blocks = len(self.order), len(self.starts) - 1
        found: dict[str, tuple[int, np.dtype[Any]]]
        found = {"marks": (n_blocks, np.dtype(np.uint32)), "starts": (n_blocks + 1, np.dtype(np.int64))}
        if self.computed is None:
            found |= {"places": (n, np.dtype(np.int64)), "positions": (n, np.dtype((np.float64, 3)))}
        if self.computed is None or self.computed.start is None:
            found["inputs"] = (n, self.inputs(self.order[:0]).dtype)
        return {**found, "records": (n, self.records)}

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
            home.attrs["n_points"] = len(self.order)
            home.attrs["determines"] = json.dumps(self.determines)
            group = file.create_group(JOURNAL)
            group.attrs["format"] = FORMAT
            group.attrs["columns"] = json.dumps(list(self.columns))
            for name, (length, dtype) in self.datasets.items():
                slots[f"{JOURNAL}/{name}"] = create_dataset(group, name, (length,), dtype.base, dtype.shape)
        return slots


def create_journal(path: Path, layout: JournalLayout, like: Path | None = None) -> Journal:
    """Create a journal with nothing done, and lock it; it takes the place of `path` when it is complete.

    It has the permissions of the file `like`, by default of the one that it replaces.

    Raises
    ------
    UserError
        If it cannot be written, or the disk has no room for the whole of it.
    """
    # Not durable: nothing is measured yet, and its rows are forced to the disk as they come.
    with replacing(path, durable=False) as temporary:
        slots = layout.create(temporary)
        keep_mode(like or path, temporary)
        with temporary.open("r+b") as plain:
            reserve(plain.fileno(), temporary.stat().st_size)
        journal = Journal(temporary, slots, layout.computed)
        # before it can be found under its name
        journal.lock()
        journal.fill(layout)
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
        If it is damaged, cannot be read, or its end is missing while another run uses it.
    """
    import h5py

    try:
        with path.open("rb") as plain:
            whole = path.stat().st_size >= _told_length(plain.fileno())
        with contextlib.nullcontext() if whole else _of_full_length(path):
            try:
                with h5py.File(path, "r", locking=False) as file:
                    found: dict[str, Any] = dict(json.loads(read_attributes(file[HOME])["determines"]))
                    return found
            except _DAMAGE:
                raise _damaged_error(path) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def _told_length(descriptor: int) -> int:
    """Length of an HDF5 file according to its superblock (version 0), 0 if that cannot be."""
    head = os.pread(descriptor, 48, 0)
    if len(head) < 48 or head[8] != 0:
        return 0
    length = int(struct.unpack_from("<Q", head, 40)[0])
    return length if length < _LONGEST else 0


@contextlib.contextmanager
def _of_full_length(path: Path) -> Iterator[None]:
    """Give a file whose end is missing its length within the block: HDF5 does not open it otherwise."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _lock(descriptor, path)
        length = os.fstat(descriptor).st_size
        os.ftruncate(descriptor, max(length, _told_length(descriptor)))
        try:
            yield
        finally:
            os.ftruncate(descriptor, length)
    finally:
        os.close(descriptor)


def _damaged_error(path: Path) -> UserError:
    return UserError(f"{path}: is damaged and cannot be continued; add --overwrite to start again")


def open_journal(path: Path, layout: JournalLayout) -> Journal:
    """Open a journal in order to resume its run, and lock it.

    The places of its parts follow from the layout, and the file has to agree. If its end is missing it gets its length
    back: the missing part becomes zeros, which do not count as done. Only records have checksums; everything else is
    written again.

    Raises
    ------
    UserError
        If it is damaged beyond that, was begun by another version of mpidvc, or is used by another run.
    """
    import h5py

    with beside(path) as skeleton:
        slots = layout.create(skeleton)
        size = skeleton.stat().st_size
    journal = Journal(path, slots, layout.computed)
    good, length, told = False, 0, 0
    try:
        journal.lock()
        length, told = os.fstat(journal.descriptor()).st_size, _told_length(journal.descriptor())
        if length < told:
            os.ftruncate(journal.descriptor(), told)
        with h5py.File(path, "r", locking=False) as file:
            if read_attributes(file[JOURNAL])["format"] != FORMAT:
                raise UserError(
                    f"{path}: was begun by another version of mpidvc; finish it with that, or add --overwrite"
                )
            good = told == size and all(_slot(file[name]) == slot for name, slot in slots.items())
    except _DAMAGE:
        pass
    finally:
        if not good:
            if length < told:
                with contextlib.suppress(OSError):
                    os.ftruncate(journal.descriptor(), length)
            journal.close()
    if not good:
        raise _damaged_error(path)
    journal.fill(layout)
    return journal


def _slot(dataset: Any) -> Slot:
    return Slot(dataset.id.get_offset() or 0, dataset.dtype, dataset.shape[1:], dataset.shape[:1])


class MarksTask:
    """Checks that all records of a complete journal still fit their marks, as a task for an executor.

    A chunk returns the number of its blocks that do not.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal, self._stretches = journal, journal.stretches()
        self.n_chunks = len(self._stretches)

    def run(self, chunk: int) -> int:
        return len(self._journal.undone(*self._stretches[chunk]))


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
