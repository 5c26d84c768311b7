"""Ranks of a node share memory; a failure of one is raised by all."""

import re

import pytest

from mpidvc.errors import AgreedError, UserError
from mpidvc.runtime.comm import SerialCommunicator
from mpidvc.runtime.launch import Mpiexec
from mpidvc.runtime.nodes import NodeGroup, ranks_on_node
from tests.conftest import Job
from tests.runtime import node_program


def run(mpiexec: Job, n: int, case: str, **variables: str) -> list[str]:
    done = mpiexec(n, node_program.__file__, case, **variables)
    assert done.returncode == 0, done.stderr
    lines = sorted(line for line in done.stdout.splitlines() if line.startswith("rank "))
    assert len(lines) == n
    return lines


def test_all_ranks_of_this_host_share(mpiexec: Job) -> None:
    lines = run(mpiexec, 3, "share")
    for rank, line in enumerate(lines):
        assert line == f"rank {rank} node {rank} of 3 told 3 sees [100, 101, 102] 303"


def test_emulated_nodes_have_memory_of_their_own(mpiexec: Job) -> None:
    lines = run(mpiexec, 3, "share", MPIDVC_RANKS_PER_NODE="2")
    assert lines[0].endswith("node 0 of 2 told 2 sees [100, 101] 201")
    assert lines[1].endswith("node 1 of 2 told 2 sees [100, 101] 201")
    assert lines[2].endswith("node 0 of 1 told 2 sees [102] 102")


@pytest.mark.parametrize("per_node", ["1", "3"])
def test_a_failure_is_raised_by_all(mpiexec: Job, per_node: str) -> None:
    assert all(line.endswith("raised no luck") for line in run(mpiexec, 3, "fail", MPIDVC_RANKS_PER_NODE=per_node))
    lines = run(mpiexec, 3, "fail-all", MPIDVC_RANKS_PER_NODE=per_node)
    assert all(line.endswith("raised no luck on 0 (passing)") for line in lines)


def test_more_than_there_is(mpiexec: Job) -> None:
    lines = run(mpiexec, 2, "too-large")
    told = r"raised shared memory of 4611686018427387904 bytes cannot be made \(only \d+ are free\)"
    assert all(re.search(told, line) for line in lines)


def test_what_the_system_refuses(mpiexec: Job) -> None:
    assert all("20000000 bytes cannot be made (File too large)" in line for line in run(mpiexec, 2, "refused"))


def test_ranks_that_do_not_see_each_other(mpiexec: Job) -> None:
    """The descriptor of another process is never taken for that of rank 0."""
    assert all("do not see each other" in line for line in run(mpiexec, 2, "unseen"))


@pytest.mark.parametrize("n", [2, 3])
def test_a_killed_rank_never_ends_as_a_success(mpiexec: Job, launcher: Mpiexec, n: int) -> None:
    """With fault tolerance an abort after a loss is lost, and the launcher would return 0."""
    status = mpiexec(n, node_program.__file__, "killed").returncode
    assert status == 75 if launcher.fault_tolerant else status not in (0, 1, 2)


def test_one_process() -> None:
    node = NodeGroup(SerialCommunicator())
    memory = node.allocate(1000)
    memory[:] = 7
    assert memory.sum() == 7000
    node.agree(None)
    with pytest.raises(AgreedError, match="no luck"):
        node.agree(UserError("no luck"))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, 12),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 4),
        ({"MPI_LOCALNRANKS": "6"}, 6),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x3)"}, 4),
        ({"SLURM_STEP_TASKS_PER_NODE": "5,4,3"}, 5),
        ({"SLURM_NTASKS_PER_NODE": "400"}, 12),
        ({"PALS_LOCAL_SIZE": "nonsense"}, 12),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "MPIDVC_RANKS_PER_NODE": "3"}, 3),
    ],
)
def test_what_launchers_tell(environ: dict[str, str], expected: int) -> None:
    assert ranks_on_node(12, environ) == expected
