"""Facts about the environment of this process and about the site, for job scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from mpidvc.commands.job.options import seconds_of
from mpidvc.errors import UserError
from mpidvc.runtime.launch import Mpiexec, available_cpus, find_mpiexec

__all__ = ["Partition", "Site", "find_partition"]

#: Variables that decide how Python and MPI run, and are set by the user or the site.
_KEPT = ("PYTHONPATH", "MPI4PY_LIBMPI", "MPI4PY_MPIABI", "MPIDVC_ISA", "OMPI_ALLOW_RUN_AS_ROOT")
_KEPT_PREFIXES = ("OMPI_MCA_", "PRTE_MCA_", "I_MPI_", "FI_", "UCX_")


@dataclass(frozen=True)
class Partition:
    """Nodes that a job may have.

    Attributes
    ----------
    cores : int
        Of the smallest node.
    nodes : int or None
        None if it is not known.
    memory : int or None
        Bytes of the smallest node.
    seconds : int or None
        Longest time limit; None if there is none, or it is not known.
    """

    cores: int
    nodes: int | None = None
    memory: int | None = None
    seconds: int | None = None


@dataclass(frozen=True)
class Site:
    """How mpidvc is run here.

    Attributes
    ----------
    python : str
    prefix : str
        Folder of the Python environment.
    modules : tuple of str
        Loaded environment modules.
    variables : mapping
        Of the environment, to be set in jobs.
    mpiexec : Mpiexec or None
        Launcher of the MPI in use.
    """

    python: str
    prefix: str
    modules: tuple[str, ...]
    variables: Mapping[str, str]
    mpiexec: Mpiexec | None

    @classmethod
    def find(cls, environ: Mapping[str, str] | None = None) -> Site:
        """That of this process."""
        environ = os.environ if environ is None else environ
        variables = {
            name: value for name, value in sorted(environ.items()) if name in _KEPT or name.startswith(_KEPT_PREFIXES)
        }
        mpiexec = find_mpiexec()
        if mpiexec is not None and mpiexec.openmpi and os.geteuid() == 0:
            variables |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        modules = tuple(name for name in environ.get("LOADEDMODULES", "").split(":") if name)
        return cls(sys.executable, sys.prefix, modules, variables, mpiexec)


def find_partition(scheduler: str, name: str | None, cores: int | None) -> tuple[Partition, list[str]]:
    """The nodes of a partition, and notes on what is not known of them.

    Parameters
    ----------
    scheduler : str
    name : str or None
        None: the scheduler's default.
    cores : int or None
        As given by the user.

    Raises
    ------
    UserError
        If there is no such partition.
    """
    if scheduler == "workstation":
        return Partition(cores or available_cpus(), 1), []
    found = _slurm(name) if scheduler == "slurm" and shutil.which("sinfo") else None
    if found is not None:
        return (found if cores is None else Partition(cores, found.nodes, found.memory, found.seconds)), []
    if cores is not None:
        return Partition(cores), []
    text = f"cores of a node are not known here; as many as this host has are taken ({available_cpus()})"
    return Partition(available_cpus()), [f"{text}: --cores-per-node tells them"]


def _slurm(name: str | None) -> Partition | None:
    """The partition as ``sinfo`` tells it; None if Slurm does not answer."""
    try:
        told = subprocess.run(
            ["sinfo", "-h", "-o", "%P|%c|%m|%l|%D"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.split("|") for line in told.splitlines() if line.count("|") == 4]
    known = sorted({row[0].rstrip("*") for row in rows})
    if name is not None and name not in known:
        raise UserError(f"--partition {name}: is not here; there are {', '.join(known)}")
    mine = [row for row in rows if (row[0].endswith("*") if name is None else row[0].rstrip("*") == name)]
    if not mine:
        return None
    limits = [seconds_of(row[3]) if row[3][:1].isdigit() else None for row in mine]
    return Partition(
        cores=min(int(row[1].rstrip("+")) for row in mine),
        nodes=sum(int(row[4]) for row in mine),
        memory=min(int(row[2].rstrip("+")) for row in mine) * 2**20,
        seconds=None if None in limits else min(limit for limit in limits if limit),
    )
