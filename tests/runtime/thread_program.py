"""A process that is not the mpidvc command: it starts ranks from a thread, and has other children meanwhile.

Prints the status of the ranks and what has changed for this process and its other children, which should be nothing.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from mpidvc.runtime.job import Job
from mpidvc.runtime.launch import run_ranks
from mpidvc.runtime.stop import graceful, handling_signals
from tests.fake_command.run import Plan
from tests.waiting import LONGEST

WHAT = "hang after finish"


def kept() -> dict[str, object]:
    """State of this process that a run must leave alone."""
    flag = ctypes.c_int()
    ctypes.CDLL(None).prctl(37, ctypes.byref(flag), 0, 0, 0)
    return {"subreaper": flag.value, **{number.name: signal.getsignal(number) for number in signal.Signals}}


def states() -> dict[int, str]:
    """State of every child of this process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid():
            found[int(path.parent.name)] = state
    return found


def run(folder: str, statuses: list[int]) -> None:
    job = Job(folder)
    job.plan.write_bytes(pickle.dumps(Plan(what=WHAT, at=1, prepared_by=os.getpid())))
    with handling_signals(), graceful():
        statuses.append(run_ranks(2, ["fake", WHAT], job))


before = kept()
sleeping = ["sleep", str(2 * LONGEST)]
with tempfile.TemporaryDirectory() as folder:
    children = [subprocess.Popen(sleeping, start_new_session=True)]
    orphans: list[int] = []
    try:
        statuses: list[int] = []
        thread = threading.Thread(target=run, args=(folder, statuses))
        thread.start()
        while not Job(folder).started and thread.is_alive():
            time.sleep(0.01)
        meanwhile = kept()
        # children that come while the ranks run, one of them as an orphan
        children.append(subprocess.Popen(sleeping))
        orphan = ["sh", "-c", f"{' '.join(sleeping)} >&- & echo $!"]
        made = subprocess.run(orphan, stdout=subprocess.PIPE, check=True, text=True)
        orphans.append(int(made.stdout))
        thread.join()
        print("status", *statuses)
        found = states()
        assert kept() == before, f"{before} became {kept()}"
        assert meanwhile | {"subreaper": 0} == before, meanwhile
        others = [*orphans, *(child.pid for child in children)]
        assert found == dict.fromkeys(others, "S"), (found, others)
        print("nothing else")
    finally:
        for child in children:
            child.kill()
            child.wait()
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
