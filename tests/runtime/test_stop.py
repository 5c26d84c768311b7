"""Signals that ask a process to stop."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.waiting import LONGEST

PROGRAM = """\
import os, signal, time, weakref
from mpidvc.runtime.stop import Ended, graceful, handling_signals

class Thing:
    pass

def strike(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0)

def drop():
    thing = Thing()
    reference = weakref.ref(thing, strike)
    del thing
    return reference

try:
    with handling_signals():
        if {graceful}:
            with graceful() as request:
                request.signal = None
                drop()
                print("requested", request.signal)
        else:
            drop()
            time.sleep(600)
            print("slept")
except Ended as ended:
    print("ended", ended.number)
"""


@pytest.mark.parametrize(("graceful", "told"), [(False, "ended 15"), (True, "requested 15")])
def test_signal_where_python_drops_exceptions(graceful: bool, told: str) -> None:
    program = PROGRAM.format(graceful=graceful)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() == told


THREAD = """\
import os, signal, threading, time
from mpidvc.runtime.stop import StopRequest, describe, graceful, handling_signals, keep
from tests.waiting import LONGEST

def work():
    with handling_signals(), graceful() as request:
        keep("in the thread")
        inside.set()
        done.wait()
        print("thread", request.requested)

inside, done = threading.Event(), threading.Event()
thread = threading.Thread(target=work)
with handling_signals(), graceful() as request:
    thread.start()
    inside.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    while not request.requested:
        time.sleep(0.01)
    done.set()
    thread.join()
    print("main", request.signal, describe(15))
"""


def test_thread_leaves_the_main_thread_alone() -> None:
    """A run in a thread, such as a notebook's, neither takes the signals of the main thread nor changes its answer."""
    done = subprocess.run([sys.executable, "-c", THREAD], capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["thread False", "main 15 ('mpidvc: ended by SIGTERM', 143)"]
