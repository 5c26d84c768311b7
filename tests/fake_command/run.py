"""The run of the fake command."""

from __future__ import annotations

import argparse
import atexit
import errno
import os
import signal
import threading
import time
from dataclasses import dataclass

import numpy as np

from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.errors import UserError
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.stop import Stopped, graceful
from mpidvc.tasks.ranks import Team, sum_over_ranks
from tests.waiting import LONGEST

#: Longer than any test waits.
FOR_EVER = 2 * LONGEST


class Squares:
    n_chunks = 40

    def run(self, chunk: int) -> np.ndarray:
        time.sleep(0.005)
        kind = [("chunk", "i8"), ("square", "i8"), ("pid", "i8")]
        return np.array([(chunk, chunk**2, os.getpid())], dtype=kind)


class Long:
    """Chunks that take a minute together."""

    n_chunks = 6000

    def run(self, chunk: int) -> np.ndarray:
        time.sleep(0.01)
        return np.array([chunk])


def stop_on_request(what: str, executor: Executor, console: Console) -> None:
    """What a command does that keeps what it has measured."""
    done: list[int] = []

    def sink(chunk: int, records: np.ndarray) -> None:
        done.append(int(records[0]))
        if len(done) == 20:
            console.print("pids " + " ".join(str(pid) for _, pid in executor.processes))
        if len(done) == 200:
            console.print("more")

    with graceful() as stop:
        if what == "deaf":
            # said when all ranks are here: a signal would end one that is not
            sum_over_ranks(executor, [1])
            console.print("deaf")
            while not stop.requested:
                time.sleep(0.01)
            console.print("told")
            time.sleep(FOR_EVER)
        try:
            executor.map(Long(), sink if executor.rank == 0 else None, stop)
        except Stopped:
            console.print("stopped between chunks, go on with --resume")
            raise


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    what: str
    at: int
    prepared_by: int

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        if args.what == "refuse":
            raise UserError("im1.tif: no such file")
        if args.what == "stumble":
            raise ValueError("in prepare")
        console.settings("mpidvc fake", {"what": args.what})
        return cls(estimated_seconds=args.seconds, what=args.what, at=args.at, prepared_by=os.getpid())

    def configure(self, executor: Executor) -> None:
        object.__setattr__(self, "configured", executor.broadcast(True if executor.rank == 0 else None))

    def execute(self, executor: Executor, console: Console) -> Outcome:
        assert self.__dict__["configured"]
        mine = executor.rank == self.at
        if self.what == "threads":
            console.print(f"threads {os.environ['OMP_NUM_THREADS']}")
        if self.what == "raise" and mine:
            raise ValueError("chunk is broken")
        if self.what == "thread" and mine:
            threading.Thread(target=lambda: 1 // 0).start()
        if self.what == "user" and mine:
            raise UserError("mask.tif: wrong shape")
        if self.what == "full" and mine:
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                raise UserError(f"a.h5: cannot be written ({error.strerror})") from None
        if self.what == "memory" and mine:
            np.empty(2**50)
        if self.what == "exit" and mine:
            raise SystemExit(5)
        if self.what == "interrupt" and mine:
            raise KeyboardInterrupt
        if self.what in ("long", "deaf"):
            stop_on_request(self.what, executor, console)
        if self.what in ("sleep", "raise", "thread", "user", "full", "memory", "exit", "interrupt"):
            console.print("sleeping")
            time.sleep(FOR_EVER)
        if self.what == "progress" and executor.rank == 0:
            with console.progress(1_000_000, "ldic") as progress:
                for _ in range(50):
                    time.sleep(0.01)
                    progress.advance(20_000, "it=4 dPhiNorm=0.00053 rs=+2")
                    if progress.done == 500_000:
                        console.warn("half of it is done: [bold]δΦ[/bold]")
            console.table("Local DIC summary", ["Status", "Points", "Percent"], [["Converged: RS=2", 990_000, 99.0]])
        total = 0
        pids: set[int] = set()

        def sink(chunk: int, records: np.ndarray) -> None:
            nonlocal total
            total += int(records["square"][0])
            pids.add(int(records["pid"][0]))

        executor.map(Squares(), sink if executor.rank == 0 else None)
        cpus = len(os.sched_getaffinity(0))
        console.print(f"size {executor.size} processes {len(pids)} total {total} cpus {cpus}")
        if self.what == "hang after finish" and mine:
            atexit.register(os.kill, os.getpid(), signal.SIGSTOP)
        return Outcome(3 if self.what == "three" else 0)
