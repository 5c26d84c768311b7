"""Memory available to a job on this node."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mpidvc.errors import UserError

__all__ = [
    "control_groups",
    "free_memory",
    "memory_limit",
    "memory_total",
    "parse_size",
    "read_text",
    "release",
    "size_text",
]

#: Share of the free memory that a run uses without ``--memory``.
SHARE = 0.8

_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
#: Least number that means "no limit" in a control group of version 1.
_NO_LIMIT = 2**60


def release() -> None:
    """Give memory that is free back to the system, where the C library can (glibc).

    It keeps the memory of arrays of some megabytes for more of their kind, and other work takes new memory besides.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def read_text(path: Path) -> str:
    """Content of a file of the system, "" if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[tuple[Path, int]]:
    """Folders of the control groups of this process and of all their ancestors, and their version (1 or 2).

    Parameters
    ----------
    controller : str
        ``"cpu"`` or ``"memory"``: version 1 has a hierarchy for each.
    root : Path
        Replaced in tests.
    """
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / controllers
        group = base / path.lstrip("/")
        # In a container the root is its own group, whatever the path says.
        for folder in sorted({group, *group.parents, base}):
            if folder.is_relative_to(base):
                yield folder, 1 if controllers else 2


def parse_size(text: str, option: str = "--memory") -> int:
    """Bytes of ``500M``, ``1.5G`` or ``2000000000``; units are powers of ten, with an ``i`` (``16Gi``) powers of two.

    Raises
    ------
    UserError
        If it is no size above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if match is None or (match[3] and not match[2]):
        raise UserError(f"{option} {text}: is no size; give for example 500M, 16G or a number of bytes")
    unit = _UNITS[match[2].upper()]
    if match[3]:
        unit = 1024.0 ** " KMGT".index(match[2].upper())
    size = int(float(match[1]) * unit)
    if size <= 0:
        raise UserError(f"{option} {text}: has to be above 0")
    return size


def size_text(size: float) -> str:
    """A number of bytes in readable units: ``18.2 GB``, ``190 MB``."""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if size >= 0.9995 * unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e6:.0f} MB"


def memory_limit(
    requested: str | None, environ: Mapping[str, str] | None = None, root: Path = Path("/")
) -> tuple[int, str]:
    """Bytes that all ranks of this node may use together, private and shared, and the reason for this limit.

    Parameters
    ----------
    requested : str or None
        The value of ``--memory``. None: a share of the least of the available memory, the rest of the control groups
        of this process, and the grant of the scheduler.
    environ : mapping, optional
        The environment; that of this process by default.
    root : Path
        Replaced in tests.

    Raises
    ------
    UserError
        If `requested` is no size.
    """
    if requested is not None:
        return parse_size(requested), "--memory"
    environ = os.environ if environ is None else environ
    least, why = min([*_free(root), *_scheduler_grants(environ)], default=(2**62, "what nobody tells"))
    return int(SHARE * least), f"{SHARE:.0%} of {why}"


def memory_total(environ: Mapping[str, str] | None = None, root: Path = Path("/")) -> int:
    """The limit of `memory_limit` on this node if nothing else were using its memory."""
    environ = os.environ if environ is None else environ
    totals = [*_installed(root), *(limit for limit, _ in _control_groups_grant(root))]
    totals += [grant for grant, _ in _scheduler_grants(environ)]
    return int(SHARE * min(totals, default=2**62))


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that can be allocated now without any process being ended for it."""
    return min(_free(root), default=(2**62, ""))[0]


def _free(root: Path) -> list[tuple[int, str]]:
    return [*_available(root), *_control_groups_leave(root)]


def _available(root: Path) -> Iterator[tuple[int, str]]:
    match = re.search(r"^MemAvailable:\s*(\d+) kB", read_text(root / "proc/meminfo"), re.MULTILINE)
    if match is not None:
        yield int(match[1]) * 1024, "what is available"


def _installed(root: Path) -> Iterator[int]:
    match = re.search(r"^MemTotal:\s*(\d+) kB", read_text(root / "proc/meminfo"), re.MULTILINE)
    if match is not None:
        yield int(match[1]) * 1024


def _control_groups_grant(root: Path) -> Iterator[tuple[int, tuple[Path, int]]]:
    """Limits of the control groups that have one, with their folders and versions."""
    for folder, version in control_groups("memory", root):
        limit = read_text(folder / ("memory.limit_in_bytes" if version == 1 else "memory.max")).strip()
        if limit.isdecimal() and int(limit) < _NO_LIMIT:
            yield int(limit), (folder, version)


def _control_groups_leave(root: Path) -> Iterator[tuple[int, str]]:
    for limit, (folder, version) in _control_groups_grant(root):
        usage = read_text(folder / ("memory.usage_in_bytes" if version == 1 else "memory.current")).strip()
        used = int(usage) if usage.isdecimal() else 0
        # The page cache counts as used, but the system gives it back.
        stat = read_text(folder / "memory.stat")
        used -= max(map(int, re.findall(r"^(?:total_)?inactive_file (\d+)$", stat, re.MULTILINE)), default=0)
        yield max(limit - max(used, 0), 0), "what the control group leaves"


def _scheduler_grants(environ: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    def megabytes(name: str) -> int:
        text = environ.get(name, "")
        return int(text) if text.isdecimal() else 0

    # Slurm; 0 means the whole node
    if megabytes("SLURM_MEM_PER_NODE"):
        yield megabytes("SLURM_MEM_PER_NODE") * 2**20, "SLURM_MEM_PER_NODE"
    elif megabytes("SLURM_MEM_PER_CPU") and megabytes("SLURM_CPUS_ON_NODE"):
        yield megabytes("SLURM_MEM_PER_CPU") * megabytes("SLURM_CPUS_ON_NODE") * 2**20, "SLURM_MEM_PER_CPU"
