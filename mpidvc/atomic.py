"""Write files so that they appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import stat
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from mpidvc.errors import UserError

__all__ = ["beside", "keep_mode", "remove_abandoned", "replacing", "sync_folder"]

#: Seconds without a change after which the temporary file of another host is taken for that of a killed process.
ABANDONED = 3600.0


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], durable: bool = True) -> Iterator[Path]:
    """Write a file under a temporary name beside it; it takes its place when the block ends without an exception.

    Parameters
    ----------
    path : path-like
        The file to write. A symbolic link stays one. The permissions are those that a plain ``open`` would leave.
    durable : bool
        Whether the content is forced to the disk before the file takes its place: after a power cut there is the old
        file or the new one, and not an empty one.

    Yields
    ------
    Path
        The temporary file. It is removed if the block raises; if the process is killed, the next one that writes the
        same file removes it. For a device or a pipe its own name.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        with _explaining(path):
            yield target
        return
    target = Path(os.path.realpath(path))
    with beside(path) as written:
        yield written
        keep_mode(target, written)
        if durable:
            _sync(written)
        written.replace(target)
        if durable:
            sync_folder(target.parent)


def keep_mode(target: str | os.PathLike[str], written: Path) -> None:
    """Give a file the permissions of the one that it will replace, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        written.chmod(stat.S_IMODE(Path(target).stat().st_mode))


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, where the file system can do so."""
    with contextlib.suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name in the folder of a file.

    Parameters
    ----------
    path : path-like

    Yields
    ------
    Path
        The temporary file, to be created. It is removed when the block ends; if the process is killed, the next one
        that writes the same file removes it.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    remove_abandoned(target)
    written = target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}-{os.getpid()}-{platform.node()[:64]}.tmp")
    with _explaining(path):
        try:
            yield written
        finally:
            written.unlink(missing_ok=True)


@contextlib.contextmanager
def _explaining(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); check the output directory") from error


def remove_abandoned(target: Path) -> None:
    """Remove the temporary files of a file that killed processes have left."""
    target = Path(os.path.realpath(target))
    prefix = _prefix(target)
    with contextlib.suppress(OSError, ValueError):
        for path in list(target.parent.glob(f"{prefix}*.tmp")):
            _, pid, host = path.name[len(prefix) : -len(".tmp")].split("-", 2)
            if host == platform.node()[:64]:
                gone = int(pid) != os.getpid() and not _runs(int(pid))
            else:
                gone = time.time() - path.stat().st_mtime > ABANDONED
            if gone:
                path.unlink(missing_ok=True)


def _prefix(target: Path) -> str:
    """How the names of the temporary files of a file begin."""
    return f".mpidvc-{zlib.crc32(os.fsencode(target.name)):08x}-"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    with contextlib.suppress(OSError):
        # a zombie has an id, but does not run
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    return True
