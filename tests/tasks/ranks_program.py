"""What a rank of `test_ranks` does: ``python ranks_program.py CASE…``; prints a line per rank and case."""

from __future__ import annotations

import os
import sys

from mpidvc.errors import AgreedError, UserError
from mpidvc.kernels import correlation
from mpidvc.runtime.comm import connect, find_launcher
from mpidvc.runtime.executor import Executor, make_executor
from mpidvc.tasks import ranks


def refuse() -> None:
    raise UserError("one.tif: is no image; take another")


def main(case: str, executor: Executor) -> object:
    rank = executor.rank
    try:
        if case == "sum":
            return ranks.sum_over_ranks(executor, [1.0, 10.0**rank, -rank]).tolist()
        if case == "leader":
            return ranks.on_leader(executor, lambda: f"of {rank}")
        if case == "refused":
            return ranks.on_leader(executor, refuse)
        # rank 1 lacks the higher instruction sets
        if rank == 1:
            correlation.instruction_sets = lambda: ("baseline",)  # type: ignore[assignment]
        wanted = case.partition(":")[2] if rank == 0 else ""
        return ranks.agree_on_instruction_set(executor, wanted or None), correlation.instruction_set()
    except AgreedError as error:
        return f"agreed: {error}"


if __name__ == "__main__":
    communicator = connect(find_launcher())
    executor = make_executor(communicator)
    for case in sys.argv[1:]:
        os.write(1, f"{case} of {executor.rank}: {main(case, executor)}\n".encode())
