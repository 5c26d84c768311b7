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

__all__ = ["replacing"]

#: Seconds without a change after which the temporary file of another host is taken for that of a killed process.
ABANDONED = 3600.0


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file under a temporary name beside it; it takes its place when the block ends without an exception.

    Parameters
    ----------
    path : path-like
        The file to write. A symbolic link stays one. The permissions are those that a plain ``open`` would leave.

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
    """Remove the temporary files of killed processes."""
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
        # a zombie has an id, but does not run
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    return True
