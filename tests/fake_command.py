"""A command that does nothing useful in all the ways that the runtime has to stand."""

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

from mpidvc.commands.options import Parser, add_run
from mpidvc.errors import UserError
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.stop import Stopped, graceful

HELP = "for tests"
EXAMPLES = ""


@dataclass
class FakePlan:
    estimated_seconds: float
    what: str
    at: int
    prepared_by: int
    configured: bool = False

    def for_workers(self) -> FakePlan:
        return self

    def configure(self, executor: Executor) -> None:
        self.configured = executor.broadcast(True if executor.rank == 0 else None)


def add_options(parser: Parser) -> None:
    parser.add_argument("what")
    parser.add_argument("--at", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    add_run(parser, parser.add_argument_group("running"))


def prepare(args: argparse.Namespace, console: Console) -> FakePlan:
    if args.what == "refuse":
        raise UserError("im1.tif: no such file")
    if args.what == "stumble":
        raise ValueError("in prepare")
    console.settings("mpidvc fake", {"what": args.what})
    return FakePlan(args.seconds, args.what, args.at, os.getpid())


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
            console.print("deaf")
            while not stop.requested:
                time.sleep(0.01)
            console.print("told")
            time.sleep(60)
        try:
            executor.map(Long(), sink if executor.rank == 0 else None, stop)
        except Stopped:
            console.print("stopped between chunks, go on with --resume")
            raise


def execute(plan: FakePlan, executor: Executor, console: Console) -> int:
    assert plan.configured
    mine = executor.rank == plan.at
    if plan.what == "threads":
        console.print(f"threads {os.environ['OMP_NUM_THREADS']}")
    if plan.what == "raise" and mine:
        raise ValueError("chunk is broken")
    if plan.what == "thread" and mine:
        threading.Thread(target=lambda: 1 // 0).start()
    if plan.what == "user" and mine:
        raise UserError("mask.tif: wrong shape")
    if plan.what == "full" and mine:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise UserError(f"a.h5: cannot be written ({error.strerror})") from None
    if plan.what == "memory" and mine:
        np.empty(2**50)
    if plan.what == "exit" and mine:
        raise SystemExit(5)
    if plan.what == "interrupt" and mine:
        raise KeyboardInterrupt
    if plan.what in ("long", "deaf"):
        stop_on_request(plan.what, executor, console)
    if plan.what in ("sleep", "raise", "thread", "user", "full", "memory", "exit", "interrupt"):
        console.print("sleeping")
        time.sleep(60)
    if plan.what == "progress" and executor.rank == 0:
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
    if plan.what == "hang after finish" and mine:
        atexit.register(os.kill, os.getpid(), signal.SIGSTOP)
    return 3 if plan.what == "three" else 0
