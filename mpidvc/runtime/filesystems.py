"""What kind of file system a file lies on."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["COHERENT", "file_system"]

#: File systems on which what one process writes is what all others read, on whatever host they are.
COHERENT = {
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "tmpfs", "ramfs", "overlay"),
    *("lustre", "gpfs", "beegfs", "wekafs"),
}


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Type of the file system that a file is on or would be on, "" if the system does not tell.

    Parameters
    ----------
    path : Path
    mounts : Path
        The system's table of mounts.
    """
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    place = path.resolve()
    found, best = "", -1
    for line in lines:
        own, _, rest = line.partition(" - ")
        fields = own.split()
        if len(fields) < 5 or not rest:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields[4]))
        # the last of several mounts at one point is the one that counts
        if place.is_relative_to(point) and len(point.parts) >= best:
            found, best = rest.split()[0], len(point.parts)
    return found
