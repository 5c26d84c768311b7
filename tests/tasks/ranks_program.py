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


def shared(executor: Executor, base: float) -> list[float]:
    return ranks.sum_over_ranks(executor, [base**executor.rank]).tolist()


def stubborn(executor: Executor) -> None:
    ranks.on_leader(executor, refuse)


def led(team: ranks.Team) -> list[object]:
    """Work shared twice, and once in vain between."""
    told: list[object] = [team.call(shared, 10.0)]
    try:
        team.call(stubborn)
    except AgreedError as error:
        told.append(str(error))
    return [*told, team.call(shared, 2.0)]


def led_in_vain(team: ranks.Team) -> None:
    team.call(shared, 10.0)
    team.call(stubborn)


def main(case: str, executor: Executor) -> object:
    rank = executor.rank
    try:
        if case == "sum":
            return ranks.sum_over_ranks(executor, [1.0, 10.0**rank, -rank]).tolist()
        if case == "leader":
            return ranks.on_leader(executor, lambda: f"of {rank}")
        if case == "refused":
            return ranks.on_leader(executor, refuse)
        if case == "led":
            return ranks.led(executor, led)
        if case == "led in vain":
            return ranks.led(executor, led_in_vain)
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
