"""Files that killed MPI jobs leave behind on a node: shared memory, and session folders of their launchers.

A container may share these files with others, whose processes it does not see. So whether a file is in use is asked in
two ways: of all processes that are seen, and of the kernel, which knows who locks it or has it open for writing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Leftover", "leftovers", "remove"]

#: Names of shared memory: MPICH, Open MPI 5 and 4, UCX.
_SEGMENT = re.compile(r"(mpich_shm_|mpich_shar_tmp|sm_segment\.|osc_sm\.|vader_segment\.|ucx_shm_posix_)")
#: Names of the session folders of Open MPI and of our launcher; they hold the id of the launcher's process.
_SESSION = re.compile(r"(?:ompi\.(?=\d+$)|mpidvc-)(\d+)")
#: Age in seconds below which a file is left alone: a job that begins may not have opened it yet.
YOUNG = 10.0


@dataclass(frozen=True)
class Leftover:
    """An unused file or folder, and its size in bytes."""

    path: Path
    size: int


def leftovers(shared: Path = Path("/dev/shm"), temporary: Path | None = None, young: float = YOUNG) -> list[Leftover]:
    """Find this user's files of MPI jobs that no process maps, has open or locks.

    Parameters
    ----------
    shared : Path
        Folder of the system's shared memory.
    temporary : Path, optional
        Folder of the launchers' session folders; the system's folder for temporary files if not given.
    young : float
        Files changed in the last `young` seconds are left alone.
    """
    candidates = [
        *((path, _SEGMENT.match(path.name) is not None) for path in _entries(shared)),
        *(
            (path, found is not None and not Path("/proc", found[1]).exists())
            for path in _entries(temporary or Path(tempfile.gettempdir()))
            for found in [_SESSION.match(path.name)]
        ),
    ]
    mine = [path for path, named in candidates if named and _is_mine(path)]
    if not mine:
        return []
    inodes, names = _used()
    result = []
    for path in mine:
        try:
            parts = [path, *path.rglob("*")] if path.is_dir() else [path]
            told = [(part, part.lstat()) for part in parts]
        except OSError:
            continue  # removed meanwhile by its owner
        used = any(status.st_ino in inodes or str(part) in names or _is_held(part, status) for part, status in told)
        age = time.time() - max(max(status.st_mtime, status.st_ctime) for _, status in told)
        if not used and age >= young:
            result.append(Leftover(path, sum(s.st_blocks * 512 for _, s in told if stat.S_ISREG(s.st_mode))))
    return sorted(result, key=lambda leftover: str(leftover.path))


def remove(found: list[Leftover]) -> list[Leftover]:
    """Remove the leftovers just found, and return those that could not be removed."""
    for leftover in found:
        if leftover.path.is_dir():
            shutil.rmtree(leftover.path, ignore_errors=True)
        else:
            leftover.path.unlink(missing_ok=True)
    return [leftover for leftover in found if leftover.path.exists()]


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_mine(path: Path) -> bool:
    """Whether it is a file or folder of this user, and no link."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))


def _is_held(path: Path, status: os.stat_result) -> bool:
    """Whether a process of any container locks a folder, or has a file open for writing or mapped so."""
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if stat.S_ISDIR(status.st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            # A lease is granted only while nobody has the file open for writing. If somebody opens it now we would be
            # told by a signal: one that does nothing.
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except (OSError, AttributeError):
        return False  # a file system, or a system, that cannot tell
    finally:
        os.close(descriptor)
    return False


def _used() -> tuple[set[int], set[str]]:
    """Inodes and names of all files that a process maps or has open, and of its working directory.

    Devices are not compared, because some file systems report different ones in different places. So an unused file may
    seem used, never the reverse.
    """
    inodes, names = set(), set()
    for process in Path("/proc").glob("[0-9]*"):
        # Processes of other users cannot be read, but have no files of this user; others may have ended meanwhile.
        with contextlib.suppress(OSError):
            for line in (process / "maps").read_text(errors="replace").splitlines():
                fields = line.split(None, 5)
                if len(fields) == 6:
                    inodes.add(int(fields[4]))
                    names.add(fields[5])
        for link in _links(process):
            with contextlib.suppress(OSError):
                status = link.stat()
                # pipes and sockets are many, and are numbered on their own
                if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                    inodes.add(status.st_ino)
    return inodes, names


def _links(process: Path) -> Iterator[Path]:
    yield from _entries(process / "fd")
    yield process / "cwd"


if __name__ == "__main__":
    # for job scripts: every node, at the start and the end of a job
    remove(leftovers())
