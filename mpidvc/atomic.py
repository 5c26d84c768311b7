"""Files that appear whole or not at all."""

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

__all__ = ["replacing"]

#: Seconds without a change after which what another host was writing is what was left of a killed process.
ABANDONED = 3600.0


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside a file, which takes the file's place when the block ends without an exception.

    Parameters
    ----------
    path : path-like
        The file to write; a symbolic link stays one. Its permissions become those that a plain ``open`` would leave.

    Yields
    ------
    Path
        Where to write. Removed if the block raises, or, if the process is killed, by the next one that writes the same
        file. A device or a pipe is yielded as it is.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    target = Path(path)
    special = target.exists() and not target.is_file()
    if not special:
        target = Path(os.path.realpath(path))
    written = target
    if not special:
        of_target = f".mpidvc-{zlib.crc32(os.fsencode(target.name)):08x}-"
        _remove_abandoned(target.parent, of_target)
        written = target.with_name(f"{of_target}{secrets.token_hex(4)}-{os.getpid()}-{platform.node()[:64]}.tmp")
    try:
        yield written
        if not special:
            if target.exists():
                written.chmod(stat.S_IMODE(target.stat().st_mode))
            written.replace(target)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); check the output directory") from error
    finally:
        if not special:
            written.unlink(missing_ok=True)


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove what processes that were killed have left."""
    with contextlib.suppress(OSError, ValueError):
        for path in list(folder.glob(f"{prefix}*.tmp")):
            _, pid, host = path.name[len(prefix) : -len(".tmp")].split("-", 2)
            if host == platform.node()[:64]:
                gone = int(pid) != os.getpid() and not _runs(int(pid))
            else:
                gone = time.time() - path.stat().st_mtime > ABANDONED
            if gone:
                path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    with contextlib.suppress(OSError):
        # it may have ended without anybody having asked for its status
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    return True
