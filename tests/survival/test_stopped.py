"""Jobs that are asked to stop: they keep their results, print how to resume, and end with status 85."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mpidvc.runtime.launch import Mpiexec, find_mpiexec
from tests.conftest import Job as Run
from tests.survival.conftest import LINES, Make
from tests.survival.jobs import LONG, Job, same, state, suspended, wait
from tests.waiting import LONGEST

Oracle = Callable[[str], Path]
SIGNALS = {"USR1": signal.SIGUSR1, "TERM": signal.SIGTERM, "INT": signal.SIGINT}


@pytest.mark.parametrize(
    ("name", "how", "n"),
    [(name, how, n) for name in LINES for how in SIGNALS for n in (1, 2)]
    if LONG
    else [("ldic", "INT", 2), ("pixelSearch", "TERM", 1), ("pixelSearchPropagate", "USR1", 2), ("ddic", "USR1", 1)],
)
def test_stop(name: str, how: str, n: int, make: Make, oracle: Oracle, command: Run) -> None:
    if n > 1 and find_mpiexec() is None:
        pytest.skip("no MPI in this environment")
    job = make(LINES[name])
    with job.start(n, lasts=0.2, seconds=1.0) as started:
        wait(job, started, 0.2)
        started.process.send_signal(SIGNALS[how])
        assert started.end() == 85, started.err
    assert "Traceback" not in started.err + started.out
    # at once, and in the end
    assert f"SIG{how}: stopping after the points in hand, --resume goes on" in started.err
    assert f"Stopped by SIG{how}" in started.out
    assert "--resume" in started.out
    told = json.loads(job.log.read_text())
    assert told["state"] == "stopped"
    assert 0 < told["done"] < told["points"]
    shown = command("status", str(job.results))
    assert shown.returncode == 75
    assert "stopped" in shown.stdout
    assert f"{told['done']} of {told['points']} points done" in shown.stdout
    resumed = job.resume(oracle(LINES[name]), n=3 - n if find_mpiexec() else 1)
    assert f"{told['done']} of {told['points']} points are done" in resumed.out
    assert command("status", str(job.results)).returncode == 0


@pytest.mark.parametrize("name", LINES if LONG else ["ldic"])
def test_stop_under_a_launcher(name: str, make: Make, oracle: Oracle, launcher: Mpiexec) -> None:
    """SIGUSR1 reaches the ranks through every launcher; its status is that of rank 0 if nothing was lost."""
    job = make(LINES[name])
    with job.start(3, foreign=True, lasts=0.2, seconds=1.0) as started:
        wait(job, started, 0.2)
        started.process.send_signal(signal.SIGUSR1)
        assert started.end() == 85, started.err
    assert "Traceback" not in started.err + started.out
    assert started.out.count("Stopped by SIGUSR1: ") == 1
    assert state(job.results) == "points"
    job.resume(oracle(LINES[name]))


def test_stop_of_one_worker(make: Make, oracle: Oracle, launcher: Mpiexec) -> None:
    """Schedulers may signal any process: all of them stop."""
    job = make(LINES["ldic"])
    with job.start(3, foreign=True, lasts=0.2, seconds=1.0) as started:
        wait(job, started, 0.2)
        started.send(signal.SIGTERM, [started.ranks()[1]])
        assert started.end() == 85, started.err
    assert "--resume" in started.out
    job.resume(oracle(LINES["ldic"]))


def test_the_line_that_status_shows_goes_on(
    images: Path,
    oracle: Oracle,
    command: Run,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In any folder, though its command was given relative paths."""
    there, elsewhere = tmp_path / "it's there", tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(images, there / "images")
    monkeypatch.chdir(there)
    job = Job(LINES["pixelSearch"], Path("images"), Path("out"), "a-b-pixelSearch", environment, None)
    with job.start(1, lasts=0.2, seconds=1.0) as started:
        wait(job, started, 0.2)
        started.process.send_signal(signal.SIGUSR1)
        assert started.end() == 85
    monkeypatch.chdir(elsewhere)
    shown = command("status", str(there / job.results)).stdout
    (line,) = [line.partition("go on: ")[2] for line in shown.splitlines() if "go on: " in line]
    assert " && mpidvc pixelSearch images/a.tif images/b.tif " in line
    python = 'mpidvc() { "$PYTHON" -m mpidvc "$@"; }; '
    done = subprocess.run(
        ["bash", "-c", python + line],
        env=environment | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    same(there / job.out, oracle(LINES["pixelSearch"]))
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("n", [1, 2])
def test_a_second_interrupt_says_how_to_go_on(n: int, make: Make, oracle: Oracle) -> None:
    if n > 1 and find_mpiexec() is None:
        pytest.skip("no MPI in this environment")
    job = make(LINES["pixelSearch"])
    with job.start(n, lasts=0.01) as started:
        wait(job, started, 0.01)
        started.interrupt_twice()
        assert started.end() in (85, 130), started.err
    first, *_, last = started.err.splitlines()
    assert first == "SIGINT: stopping after the points in hand, --resume goes on; Ctrl-C again: at once"
    assert last.startswith("mpidvc: ")
    assert "the same command with --resume goes on" in last
    assert "Stopped by" not in started.out
    job.resume(oracle(LINES["pixelSearch"]))


@pytest.mark.parametrize("n", [1, 2])
def test_a_second_interrupt_of_a_run_of_all_steps(n: int, make: Make, tmp_path: Path) -> None:
    """Its line has no --resume: it goes on by itself."""
    if n > 1 and find_mpiexec() is None:
        pytest.skip("no MPI in this environment")
    recipe = tmp_path / "small.toml"
    recipe.write_text("pixelSearch = false\n[ldic]\nnode-spacing = 4\nhalf-window-size = 6\n")
    job = make(f"run @a.tif @b.tif --recipe {recipe}", "ldic/a-b-ldic")
    with job.start(n, lasts=0.01) as started:
        wait(job, started, 0.01)
        started.interrupt_twice()
        assert started.end() in (85, 130), started.err
    assert "SIGINT: stopping after the points in hand, the same line goes on; Ctrl-C again: at once" in started.err
    last = started.err.splitlines()[-1]
    assert last.startswith("mpidvc: ")
    assert "the same line goes on" in last
    assert "--resume" not in started.out + started.err
    with job.run(3 - n if find_mpiexec() else 1) as again:
        pass
    assert again.process.returncode == 0, again.err
    assert "finished before" in again.out


@pytest.mark.parametrize("n", [1, 2] if LONG else [2])
def test_stop_in_a_series(n: int, make: Make, oracle: Oracle) -> None:
    """Finished steps are not measured again."""
    if n > 1 and find_mpiexec() is None:
        pytest.skip("no MPI in this environment")
    line = "ldic @a.tif @b.tif @c.tif -ns 5 -hws 8 -o 3 -dp 1e-5"
    job = make(line, "a-c-ldic")
    # in both steps: a few seconds more each
    with job.start(n, lasts=0.2, seconds=0.1) as started:
        wait(job, started, 0.2)
        started.process.send_signal(signal.SIGUSR1)
        assert started.end() == 85, started.err
    first = job.out / "a-b-ldic.h5"
    before = first.stat().st_ino, first.stat().st_mtime_ns
    resumed = job.resume(oracle(line), n=n)
    assert f"{first} is finished: nothing is left to be measured" in resumed.out
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == before


@pytest.mark.parametrize("how", SIGNALS if LONG else ["TERM"])
@pytest.mark.parametrize("stage", ["layout", "finish", "write"])
def test_stop_in_every_stage(stage: str, how: str, make: Make, oracle: Oracle) -> None:
    """Once there is a results file the run can be resumed, whatever its stage."""
    job = make(LINES["ldic"])
    with suspended(job, stage) as started:
        started.process.send_signal(SIGNALS[how])
        started.process.send_signal(signal.SIGCONT)
        status = started.end()
    assert "Traceback" not in started.err
    if stage == "layout":
        assert status == {"USR1": 85, "TERM": 143, "INT": 130}[how]
        # the file has its name at once and whole: the signal may have come just after that
        assert list(job.out.iterdir()) in ([], [job.results])
    elif status == 0:
        # the rest was quicker: a signal is not heeded just after the last point, nor in finalizers
        same(job.out, oracle(LINES["ldic"]))
    else:
        assert status == 85
        assert "--resume" in (started.out + started.err).splitlines()[-1]
    job.resume(oracle(LINES["ldic"]))
