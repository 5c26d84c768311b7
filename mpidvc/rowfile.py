"""HDF5 files that are created with all their metadata, and whose rows any process then writes in place.

The metadata never change, every dataset is contiguous at a known offset, and the file has its full size from the
beginning. So all ranks can write rows with plain system calls, at once and in any order, without parallel HDF5 and
without collectives. The file is valid HDF5 at every moment, and its bytes depend on its content only.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mpidvc.atomic import sync_folder
from mpidvc.errors import UserError

__all__ = [
    "HOME",
    "JOURNAL",
    "METADATA",
    "SIGNATURE",
    "RowFile",
    "Slot",
    "boxes",
    "create_dataset",
    "create_file",
    "read_attributes",
    "read_rows",
    "reserve",
]

#: Our group in results files, and the group of the journal, which finished files do not have.
HOME = "mpidvc"
JOURNAL = f"{HOME}/journal"
#: Bytes that suffice for everything but rows and long texts.
METADATA = 2**17
#: First bytes of an HDF5 file.
SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: Objects of a heap of texts: they are counted in 16 bits.
MOST_TEXTS = 2**16
#: Seconds after which written rows are forced to the disk.
SYNC_EVERY = 30.0


@dataclass(frozen=True)
class Slot:
    """Place of a dataset's rows in its file.

    Attributes
    ----------
    offset : int
        Offset of the first row, bytes.
    dtype : dtype
        Dtype of a row's elements (a compound value is one element).
    row_shape : tuple of ints
        Shape of a row.
    lead : tuple of ints
        Shape of the dataset's axes before those of a row, in C order: (n,), or (nz, ny, nx).
    """

    offset: int
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    lead: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Size of a row in bytes."""
        return self.dtype.itemsize * math.prod(self.row_shape)


def create_file(path: Path, need: int) -> Any:
    """Create an `h5py.File` whose bytes depend on its content only.

    Parameters
    ----------
    path : Path
        Must not exist.
    need : int
        Least size in bytes of the complete file.

    Raises
    ------
    OSError
        If the file exists, or cannot be made so long.
    """
    import h5py

    # HDF5 crashes if it cannot make the file so long or write its metadata: this is tried without HDF5 first.
    with path.open("xb") as plain:
        reserve(plain.fileno(), METADATA)
        plain.truncate(need)
    path.unlink()
    # The newest format that old readers (VTK's too) understand; it has no marks of open files.
    return h5py.File(path, "x", libver=("earliest", "v110"), locking=False)


def read_attributes(group: Any) -> dict[str, Any]:
    """Attributes of an `h5py.Group` that are texts or numbers, from a file that may be damaged.

    Raises
    ------
    KeyError, ValueError, TypeError, RuntimeError, OSError
        If they cannot be read.
    """
    import h5py

    _check_texts(group)
    read = {}
    # by their numbers: a signal to end must not come into a callback of h5py's iteration
    for k in range(h5py.h5a.get_num_attrs(group.id)):
        attribute = h5py.h5a.open(group.id, index=k)
        # the library (2.0.0) crashes on references that lead nowhere
        if attribute.get_type().get_class() in (h5py.h5t.STRING, h5py.h5t.INTEGER, h5py.h5t.FLOAT):
            name = attribute.name.decode("utf-8", "surrogateescape")
            read[name] = group.attrs[name]
    return read


def _check_texts(group: Any) -> None:
    """Check the heaps in which HDF5 keeps the texts of a group's attributes.

    The library (2.0.0) never returns from a heap with an object of no length, as a block of zeros in it makes one. See
    the HDF5 file format specification 3.0, III.E (global heap) and IV.A.1.a (object headers of version 1; others, which
    we do not write, are not looked at).

    Raises
    ------
    ValueError
        If an object of a heap has no length, or ends outside of it.
    """
    import h5py

    # by the same handle: another file may take the name at any moment
    handle = group.file.id.get_vfd_handle()

    def piece(start: int, length: int) -> bytes:
        return os.pread(handle, length, start) if 0 <= start < 2**63 else b""

    heaps = {struct.unpack("<Q", body[-12:-4])[0] for body in _attributes(piece, h5py.h5o.get_info(group.id).addr)}
    for heap in heaps:
        head = piece(heap, 16)
        if len(head) < 16 or head[:4] != b"GCOL":
            continue  # no text
        (size,) = struct.unpack("<8xQ", head)
        at = 16
        for _ in range(MOST_TEXTS):
            if at + 16 > size:
                break
            found = piece(heap + at, 16)
            if len(found) < 16:
                raise ValueError("the file ends in its texts")
            index, length = struct.unpack("<H6xQ", found)
            # object 0 is what is free, its own head included
            whole = length if index == 0 else 16 + -(-length // 8) * 8
            if not 0 < whole <= size - at:
                raise ValueError("its texts are damaged")
            at += whole


def _attributes(piece: Callable[[int, int], bytes], header: int) -> Iterator[bytes]:
    """Attribute messages of an object header; the last 16 bytes of one with a text say where that is."""
    head = piece(header, 16)
    if len(head) < 16 or head[0] != 1:
        return
    left, size = struct.unpack("<2xH4xI", head[:12])
    blocks = [(header + 16, size)]
    while blocks:
        start, size = blocks.pop()
        content = piece(start, min(size, METADATA))
        at = 0
        while left and at + 8 <= len(content):
            kind, length = struct.unpack_from("<HH", content, at)
            body = content[at + 8 : at + 8 + length]
            if kind == 0x0C and len(body) >= 16:
                yield body
            elif kind == 0x10 and len(body) >= 16:
                blocks.append(struct.unpack_from("<QQ", body))
            at += 8 + length
            left -= 1


def create_dataset(
    group: Any, name: str, lead: tuple[int, ...], dtype: DTypeLike, row_shape: tuple[int, ...] = ()
) -> Slot:
    """Create a contiguous dataset, allocated at once, and return its place in the file.

    Parameters
    ----------
    group : h5py.Group
    name : str
        Missing groups in the path are created.
    lead, row_shape : tuples of ints
        As of `Slot`. A dataset without elements is not allocated: its offset is 0.
    dtype : dtype
    """
    import h5py

    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    # rows that are not written yet are the zeros of a fresh file
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    links.set_char_encoding(h5py.h5t.CSET_UTF8)
    space = h5py.h5s.create_simple((*lead, *row_shape))
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    made = h5py.h5d.create(group.id, name.encode(), kind, space, creation, links)
    return Slot(made.get_offset() or 0, np.dtype(dtype), tuple(row_shape), tuple(lead))


def reserve(descriptor: int, size: int) -> None:
    """Take `size` bytes of disk space now, as zeros: a full disk shows before the work and not after it.

    Raises
    ------
    OSError
        If there is not enough space.
    """
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        # Some file systems cannot reserve space; a full disk shows when rows are written.
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise


def boxes(shape: tuple[int, ...], start: int, stop: int) -> list[tuple[slice, ...]]:
    """Boxes that make up the rows [start, stop) of an array with these leading axes, in order, as indices."""
    if not 0 <= start < stop <= math.prod(shape):
        raise ValueError(f"there are no rows {start} to {stop} in the shape {shape}")
    if len(shape) == 1:
        return [(slice(start, stop),)]
    inner = math.prod(shape[1:])
    found: list[tuple[slice, ...]] = []
    while start < stop:
        first, rest = divmod(start, inner)
        whole = (stop - start) // inner if rest == 0 else 0
        if whole:
            found.append((slice(first, first + whole), *(slice(0, n) for n in shape[1:])))
            start += whole * inner
        else:
            end = min(stop, (first + 1) * inner)
            parts = boxes(shape[1:], rest, rest + end - start)
            found += [(slice(first, first + 1), *part) for part in parts]
            start = end
    return found


class RowFile:
    """Rows of a file with fixed slots, read and written in place. It can be pickled: a receiver opens the file itself.

    Parameters
    ----------
    path : Path
    slots : mapping of str to Slot
        Places of the datasets, by their paths in the file.
    named : Path, optional
        The name that the file will get (`take_place`); messages use it.
    """

    def __init__(self, path: Path, slots: Mapping[str, Slot], named: Path | None = None) -> None:
        self.path = path
        self.slots = dict(slots)
        self._named = named
        #: Wall time of reads, writes and syncs, seconds.
        self.seconds = 0.0
        self._descriptor: int | None = None
        self._synced = time.monotonic()
        self._unsynced = False
        self._parallel: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "seconds": 0.0, "_descriptor": None, "_parallel": None, "_unsynced": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # monotonic clocks of other hosts differ
        self.__dict__.update(state, _synced=time.monotonic())

    @property
    def named(self) -> Path:
        """The name by which the user knows the file."""
        return self._named or self.path

    def take_place(self) -> None:
        """Give the file its name, and close it.

        Raises
        ------
        UserError
            If it cannot get it.
        """
        self.close()
        try:
            # a symbolic link stays one
            self.path.replace(os.path.realpath(self.named))
        except OSError as error:
            raise self._cannot_be_written(error) from error
        sync_folder(self.path.parent)

    def open_parallel(self, communicator: Any) -> None:
        """Write by parallel HDF5 from now on; called by all ranks of the mpi4py communicator.

        h5py has to be built with ``HDF5_MPI=ON`` for mpi4py's MPI.

        Raises
        ------
        UserError
            If it cannot be opened, for instance because a rank was just lost.
        """
        import h5py

        try:
            self._parallel = h5py.File(self.path, "r+", driver="mpio", comm=communicator, libver=("earliest", "v110"))
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{self.named}: parallel HDF5 cannot open it ({reason}); go on with --resume, or another --hdf5-driver"
            ) from None

    def _write_parallel(self, dataset: Any, slot: Slot, start: int, data: NDArray[Any]) -> None:
        done = 0
        for box in boxes(slot.lead, start, start + len(data)) if len(data) else ():
            shape = [part.stop - part.start for part in box]
            rows = data[done : done + math.prod(shape)]
            dataset[box] = rows.reshape(*shape, *slot.row_shape)
            done += len(rows)

    def close_parallel(self, collective: bool = True) -> None:
        """Return to plain writing; called by all ranks, with `collective` False if some are lost.

        A file that cannot be closed collectively stays open until the process ends without finalizing.
        """
        if self._parallel is None:
            return
        file, self._parallel = self._parallel, None
        try:
            if collective:
                file.close()
                return
        except (OSError, RuntimeError):
            pass  # a rank was just lost; its rows so far are in the file
        _KEPT.append(file)

    def write(self, name: str, start: int, rows: NDArray[Any]) -> None:
        """Write rows ``[start, start + len(rows))`` of a dataset.

        Raises
        ------
        UserError
            If the file cannot be written.
        """
        begun = time.perf_counter()
        slot = self.slots[name]
        data = np.ascontiguousarray(rows, slot.dtype)
        try:
            if self._parallel is not None:
                self._write_parallel(self._parallel[name], slot, start, data)
            else:
                _write_all(self.descriptor(), data.reshape(-1).view(np.uint8), slot.offset + start * slot.row_bytes)
        except OSError as error:
            raise self._cannot_be_written(error) from error
        self._unsynced = True
        if time.monotonic() - self._synced > SYNC_EVERY:
            self.sync()
        self.seconds += time.perf_counter() - begun

    def read(self, name: str, start: int, stop: int, memory: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows ``[start, stop)`` of a dataset (stop - start, \\*row_shape); `memory` as of `read_rows`.

        Raises
        ------
        UserError
            If the file cannot be read or is too short.
        """
        begun = time.perf_counter()
        try:
            data = read_rows(self.descriptor(), self.slots[name], start, stop, memory)
        except EOFError:
            raise UserError(f"{self.named}: is shorter than it was; it was changed while in use") from None
        except OSError as error:
            raise UserError(f"{self.named}: cannot be read ({error.strerror or error})") from error
        self.seconds += time.perf_counter() - begun
        return data

    def mapped(self, name: str) -> NDArray[Any]:
        """All rows of a dataset as a read-only map of the file, for reading scattered ones."""
        slot = self.slots[name]
        shape = (math.prod(slot.lead), *slot.row_shape)
        if shape[0] == 0:
            return np.zeros(shape, slot.dtype)
        # not by name: another file may have it by now
        held = mmap.mmap(self.descriptor(), 0, access=mmap.ACCESS_READ)
        rows: NDArray[Any] = np.ndarray(shape, slot.dtype, held, slot.offset)
        return rows

    def write_at(self, offset: int, data: bytes | bytearray) -> None:
        """Write bytes at an offset of the file.

        Raises
        ------
        UserError
            If the file cannot be written.
        """
        try:
            _write_all(self.descriptor(), np.frombuffer(data, np.uint8), offset)
        except OSError as error:
            raise self._cannot_be_written(error) from error
        self._unsynced = True

    def truncate(self, size: int) -> None:
        """Let the file end after so many bytes.

        Raises
        ------
        UserError
            If that fails.
        """
        try:
            os.truncate(self.descriptor(), size)
        except OSError as error:
            raise self._cannot_be_written(error) from error
        self._unsynced = True

    def hold(self) -> None:
        """Open the file now: another one may take its name while this process sleeps.

        Raises
        ------
        FileNotFoundError
            If it is not there.
        """
        self.descriptor()

    def sync(self, always: bool = False) -> None:
        """Force the rows written by this process to the disk.

        Parameters
        ----------
        always : bool
            Whether to do so even if this object has written none: the metadata, and rows of others on this host.

        Raises
        ------
        UserError
            If that fails, as the disk is full or broken: some file systems report it only now.
        """
        if self._unsynced or always:
            try:
                os.fdatasync(self.descriptor())
            except OSError as error:
                raise self._cannot_be_written(error) from error
        self._unsynced = False
        self._synced = time.monotonic()

    def _cannot_be_written(self, error: OSError) -> UserError:
        reason = error.strerror or error
        return UserError(f"{self.named}: cannot be written ({reason}); what is measured is kept: --resume goes on")

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        # Forgotten first: a signal that ends the run may be raised after it is closed, and the run closes its files.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def descriptor(self) -> int:
        """Descriptor of the file that had the name at the first call, whichever file has it now."""
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            except PermissionError:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor


def read_rows(descriptor: int, slot: Slot, start: int, stop: int, memory: NDArray[Any] | None = None) -> NDArray[Any]:
    """Rows ``[start, stop)`` of a dataset (stop - start, \\*row_shape), from an open file.

    They are read into `memory` if it is given: an array of the same dtype that has so many rows or more.

    Raises
    ------
    OSError
        If they cannot be read.
    EOFError
        If the file is too short.
    """
    data = np.empty((stop - start, *slot.row_shape), slot.dtype) if memory is None else memory[: stop - start]
    view = memoryview(data.reshape(-1).view(np.uint8).data)
    at = slot.offset + start * slot.row_bytes
    while len(view):
        got = os.preadv(descriptor, [view[: 2**30]], at)
        if got == 0:
            raise EOFError("it is too short")
        at, view = at + got, view[got:]
    return data


#: Parallel files that must not be closed: that would wait for lost ranks.
_KEPT: list[Any] = []


def _write_all(descriptor: int, data: NDArray[np.uint8], at: int) -> None:
    view = memoryview(data.data)
    while len(view):
        done = os.pwrite(descriptor, view[: 2**30], at)
        at, view = at + done, view[done:]
