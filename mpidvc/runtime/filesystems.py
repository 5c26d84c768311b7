"""Types of file systems."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mpidvc.runtime.memory import read_text

__all__ = ["COHERENT", "file_system", "network_file_system"]

#: File systems on which every process, on any host, reads what another one has written.
COHERENT = {
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "tmpfs", "ramfs", "overlay"),
    *("lustre", "gpfs", "beegfs", "wekafs"),
}
#: File systems served by other hosts, on which small scattered reads are slow.
NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "glusterfs", "orangefs"),
    *("pvfs2", "panfs", "wekafs", "virtiofs", "daos", "ocfs2", "gfs2"),
}


def file_system(path: str | os.PathLike[str], root: Path = Path("/")) -> str:
    """Type of the file system that a file is on or would be on, "" if unknown.

    Parameters
    ----------
    path : path-like
    root : Path
        Replaced in tests.
    """
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in read_text(root / "proc/self/mountinfo").splitlines():
        mount, separator, source = line.partition(" - ")
        fields = mount.split()
        if not separator or len(fields) < 5:
            continue
        # blanks in names are octal escapes
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # the last of equal mount points covers the others
        if inside and len(point) >= len(best):
            best, kind = point, source.split()[0]
    return kind


def network_file_system(path: str | os.PathLike[str], root: Path = Path("/")) -> str | None:
    """Type of the file system that a file is on if other hosts serve it (``nfs4``, ``lustre``), else None.

    Parameters
    ----------
    path : path-like
    root : Path
        Replaced in tests.
    """
    kind = file_system(path, root)
    if kind in NETWORK or (kind.startswith("fuse.") and kind not in ("fuse.portal", "fuse.lxcfs")):
        return kind
    return None
