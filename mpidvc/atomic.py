"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpidvc.errors import UserError

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside a file, which takes the file's place when the block ends without an exception.

    Parameters
    ----------
    path : path-like
        The file to write; a symbolic link stays one. Its permissions become those that a plain ``open`` would leave.

    Yields
    ------
    Path
        Where to write. Removed if the block raises. A device or a pipe is yielded as it is.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    target = Path(path)
    special = target.exists() and not target.is_file()
    if not special:
        target = Path(os.path.realpath(path))
    written = target if special else target.with_name(f".mpidvc-{secrets.token_hex(6)}.tmp")
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
