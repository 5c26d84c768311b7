"""Program of the ranks of `test_nodes`: ``python node_program.py CASE`` prints one line per rank."""

from __future__ import annotations

import os
import resource
import signal
import sys

import numpy as np

from mpidvc.errors import AgreedError, ResourceError, UserError
from mpidvc.runtime.comm import connect, find_launcher
from mpidvc.runtime.nodes import NodeGroup, is_mpi_error, ranks_on_node, ranks_per_node_asked


def main(case: str) -> str:
    communicator = connect(find_launcher())
    node = NodeGroup(communicator, ranks_per_node_asked())
    rank = communicator.rank
    told = f"rank {rank} node {node.rank} of {node.size} told {ranks_on_node(communicator.size)}"
    try:
        if case == "share":
            memory = node.allocate(8 * 1000 + 3)
            memory[node.rank] = 100 + rank
            node.agree(None)
            return f"{told} sees {memory[: node.size].tolist()} {int(memory.sum())}"
        if case == "fail":
            node.agree(UserError("no luck") if rank == 1 else None)
        elif case == "fail-all":
            node.agree(ResourceError(f"no luck on {rank}"))
        elif case == "killed":
            # the last one, while the others wait for it
            if rank == communicator.size - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            node.agree(None)
        elif case in ("too-large", "refused"):
            # no test may take all memory of its host, whatever the code does
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))
            node.allocate(2**62 if case == "too-large" else 20_000_000)
        elif case == "unseen":
            # as where every rank lives in a process namespace of its own
            if node.rank != 0:
                os.open = _another_file  # type: ignore[assignment]
            node.allocate(1000)
    except AgreedError as error:
        return f"{told} raised {error}{' (passing)' if error.passing else ''}"
    except Exception as error:
        if not (is_mpi_error(error) or isinstance(error, ResourceError)):
            raise
        communicator.abort(75)
    return told


_open = os.open


def _another_file(path: str, flags: int) -> int:
    return _open("/proc/self/exe", os.O_RDONLY)


if __name__ == "__main__":
    np.seterr(all="raise")
    os.write(1, (main(sys.argv[1]) + "\n").encode())
