"""A job whose last round is a long broadcast, which one worker takes late."""

from __future__ import annotations

import sys
import time

from mpidvc.runtime.comm import connect, find_launcher
from mpidvc.runtime.executor import make_executor


def main() -> None:
    late = int(sys.argv[1])
    executor = make_executor(connect(find_launcher()))
    if executor.rank == late:
        time.sleep(0.5)
    value = executor.broadcast(bytes(100_000) if executor.rank == 0 else None)
    assert value == bytes(100_000)
    executor.finish(0)


main()
