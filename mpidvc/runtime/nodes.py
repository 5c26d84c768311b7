"""The ranks of a node, and memory that they share."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.errors import AgreedError, ResourceError, UserError
from mpidvc.runtime.comm import Communicator, MPICommunicator
from mpidvc.runtime.memory import free_memory
from mpidvc.runtime.messages import LOOK_EVERY

__all__ = ["NodeGroup", "copying", "is_mpi_error", "ranks_on_node", "ranks_per_node_asked"]

#: Environment variable: number of ranks to be treated as one node, for tests of several nodes.
RANKS_PER_NODE = "MPIDVC_RANKS_PER_NODE"

#: Environment variables in which launchers give the number of ranks on this node.
_LOCAL_SIZES = (
    *("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "PMI_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"),
    *("PALS_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE"),
)
#: Seconds between two polls.
POLL = 2e-4


def ranks_per_node_asked(environ: Mapping[str, str] | None = None) -> int | None:
    """The value of `RANKS_PER_NODE`, None if it is not set."""
    text = (os.environ if environ is None else environ).get(RANKS_PER_NODE, "")
    return max(int(text), 1) if text.isdecimal() else None


def ranks_on_node(size: int, environ: Mapping[str, str] | None = None) -> int:
    """Number of a job's ranks on this node according to the launcher; all of them if it does not tell.

    Parameters
    ----------
    size : int
        Number of ranks of the job.
    environ : mapping, optional
        The environment; that of this process by default.
    """
    environ = os.environ if environ is None else environ
    asked = ranks_per_node_asked(environ)
    if asked is not None:
        return min(asked, size)
    for name in _LOCAL_SIZES:
        # Slurm lists the nodes: "4(x2),3"; the first is the one of rank 0
        first = environ.get(name, "").partition("(")[0].partition(",")[0]
        if first.isdecimal() and int(first) > 0:
            return min(int(first), size)
    return size


def is_mpi_error(error: Exception) -> bool:
    """Whether MPI raised it, for instance because a rank has died; mpi4py need not be installed for this test."""
    return type(error).__module__.startswith("mpi4py")


@contextlib.contextmanager
def copying(what: str) -> Iterator[None]:
    """Around copies to the memory of nodes: the loss of a rank ends the run with a line that says so.

    Parameters
    ----------
    what : str
        The things copied, with their verb.

    Raises
    ------
    ResourceError
        If a rank of the job has died.
    """
    try:
        yield
    except Exception as error:
        if not (is_mpi_error(error) or isinstance(error, ResourceError)):
            raise
        raise ResourceError(f"a process was lost while {what} copied to memory; start again, with --resume") from None


class NodeGroup:
    """The ranks of this node among those of a job; the constructor is collective.

    Parameters
    ----------
    communicator : Communicator
    per_node : int or None
        Number of ranks to be treated as one node; None: the real nodes. The same on all ranks.

    Attributes
    ----------
    rank, size : int
        Number of this rank on its node, and number of ranks there.
    """

    def __init__(self, communicator: Communicator, per_node: int | None = None) -> None:
        self.rank, self.size = 0, 1
        self._world: Any = None
        self._node: Any = None
        if not isinstance(communicator, MPICommunicator) or communicator.size == 1:
            return
        from mpi4py import MPI

        self._mpi = MPI
        self._communicator = communicator
        self._world = communicator.mpi
        # splitting does not poll: no rank begins before all have come
        self._wait(self._world.Ibarrier())
        if per_node is None:
            self._node = self._world.Split_type(MPI.COMM_TYPE_SHARED, key=communicator.rank)
        else:
            self._node = self._world.Split(communicator.rank // per_node, communicator.rank)
        self.rank, self.size = self._node.Get_rank(), self._node.Get_size()

    def close(self) -> None:
        """Free the node's communicator; collective."""
        node, self._node = self._node, None  # a signal may be raised after it is freed, and the node is closed again
        if node is not None:
            node.Free()

    def agree(self, failure: UserError | None) -> None:
        """Return if no rank of the job has failed.

        Parameters
        ----------
        failure : UserError or None
            The error of this rank.

        Raises
        ------
        AgreedError
            On all ranks, with the message of the lowest rank that failed.
        """
        if self._world is None:
            if failure is not None:
                raise AgreedError(str(failure), failure.passing)
            return
        size, rank = self._world.Get_size(), self._world.Get_rank()
        first = np.array([size if failure is None else rank], np.int64)
        self._wait(self._world.Iallreduce(self._mpi.IN_PLACE, first, op=self._mpi.MIN))
        if first[0] == size:
            return
        # whether it is passing, and the message
        told = np.zeros(4096, np.uint8)
        if rank == first[0] and failure is not None:
            data = (bytes([failure.passing]) + str(failure).encode(errors="replace"))[: told.size]
            told[: len(data)] = np.frombuffer(data, np.uint8)
        self._wait(self._world.Ibcast(told, root=int(first[0])))
        raise AgreedError(told[1:].tobytes().rstrip(b"\0").decode(errors="replace"), bool(told[0]))

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """Allocate memory that all ranks of the node read and write, freed with its last user; collective.

        It is a file in memory without a name: it cannot stay behind however the job ends, a lost rank does not take it
        from the others, and its size is not limited by that of /dev/shm.

        Raises
        ------
        AgreedError
            On all ranks of the job, if it cannot be allocated.
        """
        memory: NDArray[np.uint8] | None = None
        failure: UserError | None = None
        fd = -1
        place = np.zeros(4, np.int64)
        try:
            if self.rank == 0:
                try:
                    # the system does not refuse more than is free: it ends processes, of any user
                    if size > (free := free_memory()):
                        raise OSError(errno.ENOMEM, f"only {free} are free")
                    fd = os.memfd_create("mpidvc-images", os.MFD_CLOEXEC)
                    os.ftruncate(fd, size)
                    found = os.fstat(fd)
                    place[:] = os.getpid(), fd, found.st_dev, found.st_ino
                except (AttributeError, OSError) as error:
                    reason = getattr(error, "strerror", error)
                    failure = ResourceError(f"shared memory of {size} bytes cannot be made ({reason})")
            if self._node is not None:
                self._wait(self._node.Ibcast(place, root=0))
            self.agree(failure)
            try:
                if self.rank != 0:
                    fd = os.open(f"/proc/{place[0]}/fd/{place[1]}", os.O_RDWR | os.O_CLOEXEC)
                    found = os.fstat(fd)
                    if (found.st_dev, found.st_ino) != tuple(place[2:]):
                        raise OSError(errno.ESTALE, "the ranks of this node do not see each other's processes")
                # Every rank allocates its share of the pages now: a lack is an error here and no SIGBUS later.
                first, end = (size * rank // self.size for rank in (self.rank, self.rank + 1))
                if end > first:
                    os.posix_fallocate(fd, first, end - first)
                memory = np.frombuffer(mmap.mmap(fd, size), np.uint8)
            except OSError as error:
                failure = ResourceError(f"shared memory of {size} bytes cannot be had ({error.strerror})")
            # rank 0's descriptor stays open until all have opened it
            self.agree(failure)
        finally:
            if fd >= 0:
                os.close(fd)
        assert memory is not None
        return memory

    def _wait(self, request: Any) -> None:
        """Wait in naps, so that signals are handled.

        Raises
        ------
        ResourceError
            If a rank of the job has died: the others might wait for it for ever.
        """
        following = 0.0
        while not request.Test():
            time.sleep(POLL)
            if (now := time.monotonic()) > following:
                following = now + LOOK_EVERY
                if self._communicator.dead():
                    raise ResourceError("a process was lost while the others waited for it; start again")
