"""Fixtures of all tests: jobs of several ranks with whatever MPI this environment has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mpidvc
from mpidvc.runtime.comm import find_launcher
from mpidvc.runtime.launch import Mpiexec, find_mpiexec
from mpidvc.runtime.leftovers import leftovers, remove
from tests.waiting import LONGEST

Job = Callable[..., "subprocess.CompletedProcess[str]"]

# In the background, or under nohup, these are ignored, and so by all programs that are started here: they heed them.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

#: Run by every interpreter that finds this on its path: adds a fake command, and disturbs the program as a test wants.
SITE = """\
import os
from mpidvc.cli.command import Command
from mpidvc.commands import COMMANDS
COMMANDS["fake"] = Command("fake", "tests.fake_command", "for tests", "Tests")
exec(os.environ.get("MPIDVC_TEST_CODE", ""))
"""


@pytest.fixture(scope="session")
def _no_shared_memory_left() -> Iterator[None]:
    """Remove the segments that aborted jobs leave behind, and none of jobs that other tests have just begun."""
    before = set(Path("/dev/shm").glob("*"))
    yield
    left = (leftover for leftover in leftovers() if leftover.path.parent == Path("/dev/shm"))
    remove([leftover for leftover in left if leftover.path not in before])


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, _no_shared_memory_left: None) -> dict[str, str]:
    """Environment of a child process, as outside of any launcher, that knows the command ``fake``."""
    assert find_launcher() is None, "run the tests without mpiexec"
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(SITE)
    roots = [site, Path(__file__).parents[1], Path(mpidvc.__file__).parents[1]]
    path = os.pathsep.join([*map(str, roots), os.environ.get("PYTHONPATH", "")])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MPIDVC_")}
    return kept | {"PYTHONPATH": path, "PYTHONWARNINGS": "error"}


@pytest.fixture(scope="session")
def launcher() -> Mpiexec:
    """The launcher of this environment."""
    found = find_mpiexec()
    if found is None:
        pytest.skip("no MPI in this environment")
    return found


@pytest.fixture(scope="session")
def mpiexec(launcher: Mpiexec, environment: dict[str, str]) -> Job:
    """Run ``python arguments…`` on a number of ranks, as a user's own mpiexec would."""

    def run(n_ranks: int, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environ = launcher.environment(environment, n_ranks) | variables
        # Only ranks that mpidvc itself started have this.
        del environ["MPIDVC_STARTED_RANKS"]
        return subprocess.run(
            [*launcher.command(n_ranks), sys.executable, *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Job:
    """Run ``mpidvc arguments…`` as one process that the user started."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mpidvc", *arguments],
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )

    return run
