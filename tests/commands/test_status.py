"""``mpidvc status``: says what is in the file, and leaves it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.commands.status.run import state_of_run
from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.hdf5 import read_hdf5, write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.main import main
from mpidvc.rowfile import JOURNAL
from mpidvc.runtime import journal as journals
from mpidvc.runtime.exit_status import RETRY, STOPPED
from mpidvc.runtime.launch import Mpiexec
from tests.conftest import Job
from tests.waiting import LONGEST

RESULT = ("error", "iterations", "returnStatus", "deltaPhiNorm")
RECORD = np.dtype([("phi", "f8", (3, 4)), ("result", "f8", (4,)), ("more", "f8")])


def journal(path: Path, statuses: list[float], block: int, done: list[int], command: str = "ldic") -> None:
    """The file of an unfinished run; the records of blocks that are not done hold garbage."""
    n = len(statuses)
    records = np.zeros(n, RECORD)
    records["result"][:, 2] = statuses
    starts = np.minimum(np.arange(0, n + block, block), n)
    layout = journals.JournalLayout(
        determines={"command": command},
        columns=RESULT,
        records=RECORD,
        order=np.arange(n),
        starts=starts,
        positions=lambda rows: np.zeros((len(rows), 3)),
        inputs=lambda rows: np.zeros(len(rows), [("phi", "f8", (3, 4))]),
    )
    made = journals.create_journal(path, layout)
    made.write(f"{JOURNAL}/records", 0, records)
    for k in done:
        made.record(k, records[starts[k] : starts[k + 1]])
    made.close()


def run_json(path: Path, state: str, ago: float, **more: object) -> None:
    then = datetime.now(timezone.utc) - timedelta(seconds=ago)
    told = {"state": state, "updated": then.isoformat(), "started": (then - timedelta(seconds=100)).isoformat()}
    told |= {
        "command_line": "mpidvc ldic 'im 1.tif' im2.tif -ns 10 --resume",
        "ranks": 4,
        "resumes": 1,
        "done_at_start": 2,
    }
    path.with_suffix(".run.json").write_text(json.dumps(told | more))


def finished(path: Path, command: str = "ldic") -> None:
    field = PhiField.from_positions(np.arange(15.0).reshape(5, 3))
    field.columns = {"returnStatus": np.array([2, 2, -5, 1, 2.0])}
    write_hdf5(path, field, attributes={"command": command})


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """Blocks of three of ten points, the second and the last (of one point) are done."""
    path = tmp_path / "a.h5"
    journal(path, [9, 9, 9, 2, 2, -5, 9, 9, 9, 1], 3, [1, 3])
    return path


def test_unfinished_counts_marked_blocks_only(unfinished: Path) -> None:
    state = state_of_run(str(unfinished))
    assert (state.points, state.done, state.command) == (10, 4, "ldic")
    assert state.statuses == {2: 2, 1: 1, -5: 1}
    assert list(state.statuses) == [2, 1, -5]


def test_running(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_json(unfinished, "running", ago=1)
    state = state_of_run(str(unfinished))
    assert state.state == "running"
    assert state.rate == pytest.approx((4 - 2) / 101, rel=0.05)
    assert state.seconds_left == pytest.approx(6 * 101 / 2, rel=0.05)
    assert main(["status", str(unfinished)]) == RETRY
    shown = capsys.readouterr().out
    for text in ("running (ldic)", "4 of 10 points done (40.0%)", "on 4 processes", "left", "RS=-5", "skipped: mask"):
        assert text in shown


@pytest.mark.parametrize(
    ("state", "silent", "expected"),
    [("running", 179, "running"), ("running", 190, "interrupted"), ("stopped", 1, "stopped"), ("", 1, "interrupted")],
)
def test_state(unfinished: Path, state: str, silent: float, expected: str) -> None:
    run_json(unfinished, state, ago=0)
    now = max(path.stat().st_mtime for path in unfinished.parent.iterdir())
    assert state_of_run(str(unfinished), now + silent).state == expected


def test_how_to_go_on(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_json(unfinished, "stopped", ago=1000)
    assert main(["status", str(unfinished)]) == RETRY
    shown = capsys.readouterr().out
    assert "go on: mpidvc ldic 'im 1.tif' im2.tif -ns 10 --resume\n" in shown
    assert "last sign of life: 20" in shown
    assert "resumed 1 time\n" in shown


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "[]", "{", '{"started": 5, "updated": "no", "ranks": "x", "command_line": 1}'),
        '{"started": null, "seconds": Infinity, "done_at_start": null, "lost": [null], "hosts": null}',
        '{"command_line": "mpidvc ldic \'a.tif", "seconds_before": NaN, "resumes": -Infinity, "ranks": 1e999}',
    ],
)
def test_without_a_useful_run_json(unfinished: Path, capsys: pytest.CaptureFixture[str], text: str | None) -> None:
    if text is not None:
        unfinished.with_suffix(".run.json").write_text(text)
    assert main(["status", str(unfinished)]) == RETRY
    assert "go on: its command (mpidvc ldic ...) again, with --resume" in capsys.readouterr().out
    assert main(["status", "--json", str(unfinished)]) == RETRY
    (told,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (told["ranks"], told["resumes"], told["rate"], told["lost"]) == (None, None, None, [])


def test_all_blocks_done_is_not_finished(unfinished: Path) -> None:
    with h5py.File(unfinished, "r+") as file:
        file["mpidvc/journal/marks"][:] = 1
    assert main(["status", "-q", str(unfinished)]) == RETRY


def test_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "a.h5")
    run_json(tmp_path / "a.h5", "finished", 1000, seconds=3723.0)
    assert main(["status", str(tmp_path / "a.h5")]) == 0
    shown = capsys.readouterr().out
    for text in ("finished (ldic)", "5 points, 01:02:03 on 4 processes", "RS=+2", "60.0%", "converged"):
        assert text in shown


def test_statuses_mean_what_they_mean_to_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "a.h5", "pixelSearch")
    assert main(["status", str(tmp_path / "a.h5")]) == 0
    assert "found" in capsys.readouterr().out


def test_several_files(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = unfinished.with_name("b.h5")
    finished(good)
    assert main(["status", str(good), str(unfinished)]) == RETRY
    assert main(["status", str(good), str(good.with_name("none.h5")), str(unfinished)]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "none.h5: does not exist" in told.err
    assert main(["status", "--json", str(good), str(unfinished)]) == RETRY
    objects = json.loads(capsys.readouterr().out)
    assert [item["state"] for item in objects] == ["finished", "interrupted"]
    assert objects[1]["statuses"] == {"2": 2, "1": 1, "-5": 1}
    assert main(["status", "-q", str(good), str(unfinished)]) == RETRY
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images that have nothing in common, in the working folder; the results file of their correlation."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("x", "y")):
        noise = np.random.default_rng(seed).integers(0, 255, (20, 40, 40)).astype(np.uint8)
        tifffile.imwrite(tmp_path / f"{name}.tif", noise, photometric="minisblack")
    return tmp_path / "x-y-ldic.h5"


def correlate(*options: str) -> int:
    return main(["ldic", "x.tif", "y.tif", "-ns", "10", "-hws", "5", "-np", "1", *options])


def test_verdict_is_the_same_whoever_asks(strangers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert correlate() == 1
    assert main(["status", "-q", str(strangers)]) == 1
    capsys.readouterr()
    assert main(["status", str(strangers)]) == 1
    assert "finished (ldic)" in (shown := capsys.readouterr().out)
    assert "the result is not one to trust: its command with --resume says why" in shown
    assert main(["status", "--json", str(strangers)]) == 1
    assert json.loads(capsys.readouterr().out)[0]["trusted"] is False
    before = strangers.read_bytes()
    assert correlate("--resume") == 1
    assert "the result is not one to trust" in capsys.readouterr().err
    assert strangers.read_bytes() == before
    # a field of a field: no strain anywhere
    strain = ["regularStrain", "-pf", str(strangers), "-rst", "1", "-g", "-r", "0.5", "-np", "1"]
    assert main(strain) == main([*strain, "--resume"]) == 1
    (result,) = strangers.parent.glob("*strain*.h5")
    assert state_of_run(str(result)).trusted is False
    # and one to trust
    (strangers.parent / "y.tif").write_bytes((strangers.parent / "x.tif").read_bytes())
    assert correlate("--overwrite") == correlate("--resume") == main(["status", str(strangers)]) == 0
    assert state_of_run(str(strangers)).trusted


def test_verdict_of_a_run_with_random_errors(strangers: Path) -> None:
    """Its file has datasets that are known at the end only, and is judged again by them."""
    (strangers.parent / "y.tif").write_bytes((strangers.parent / "x.tif").read_bytes())
    assert correlate("--sigma") == 0
    before = strangers.read_bytes()
    assert correlate("--sigma", "--resume") == 0
    assert strangers.read_bytes() == before


def test_no_finished_file_is_without_a_verdict(strangers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is ended while it judges."""

    def ended(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mpidvc.commands.ldic.run.judge_correlation", ended)
        assert correlate() == STOPPED
    assert main(["status", "-q", str(strangers)]) == RETRY
    assert correlate("--resume") == main(["status", "-q", str(strangers)]) == 1


def test_file_of_before_tells_no_verdict(strangers: Path) -> None:
    assert correlate() == 1
    with h5py.File(strangers, "r+") as file:
        del file["mpidvc/exitStatus"]
    before = strangers.read_bytes()
    assert state_of_run(str(strangers)).trusted is None
    assert main(["status", "-q", str(strangers)]) == 0
    # it is judged by its rows, and stays as it is
    assert correlate("--resume") == 1
    assert strangers.read_bytes() == before
    with h5py.File(strangers, "r+") as file:
        file["mpidvc/exitStatus"] = [7.0]
    assert state_of_run(str(strangers)).trusted is None


@pytest.mark.parametrize("kind", ["marks", "starts", "records", "columns", "n_points", "cut", "text", "image"])
def test_refused(unfinished: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    if kind == "cut":
        unfinished.write_bytes(unfinished.read_bytes()[:-1000])
    elif kind == "text":
        unfinished.write_text("no HDF5")
    elif kind == "image":
        with h5py.File(unfinished, "w") as file:
            file["entry/data"] = np.zeros((2, 2, 2))
    else:
        with h5py.File(unfinished, "r+") as file:
            own = file["mpidvc/journal"]
            if kind == "columns":
                own.attrs["columns"] = "[]"
            elif kind == "n_points":
                file["mpidvc"].attrs["n_points"] = 11
            else:
                del own[kind]
    assert main(["status", str(unfinished)]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert str(unfinished) in told.err


def test_file_is_left_alone_while_it_is_written(unfinished: Path, command: Job, environment: dict[str, str]) -> None:
    """Another process has the file open for writing, with HDF5's lock on it."""
    program = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+', locking=True); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, unfinished],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        unfinished.chmod(0o444)
        before = (unfinished.read_bytes(), unfinished.stat().st_mtime_ns)
        try:
            done = command("status", str(unfinished))
            assert (unfinished.read_bytes(), unfinished.stat().st_mtime_ns) == before
        finally:
            writer.communicate(timeout=LONGEST)
    assert done.returncode == RETRY, done.stderr
    assert "4 of 10 points" in done.stdout
    assert [path.name for path in unfinished.parent.iterdir()] == ["a.h5"]


def test_under_a_launcher_it_speaks_once(unfinished: Path, mpiexec: Job) -> None:
    done = mpiexec(2, "-m", "mpidvc", "status", str(unfinished))
    assert done.stdout.count("4 of 10 points") == 1
    assert done.returncode == RETRY


def test_lost_processes_are_named(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_json(unfinished, "running", ago=1, lost=[f"process {k} on node7 was lost" for k in range(8)])
    assert main(["status", str(unfinished)]) == RETRY
    shown = capsys.readouterr().out
    assert "process 4 on node7 was lost\n  3 more were lost\n" in shown


def test_many_blocks_of_one_point_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a propagation: every second one is done."""
    path = tmp_path / "a.h5"
    journal(path, [2, 9] * 300_000, 1, [])
    with h5py.File(path, "r+") as file:
        file["mpidvc/journal/marks"][::2] = 1
    reads = []
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda *given: reads.append(given) or read(*given))
    state = state_of_run(str(path))
    assert len(reads) < 100
    assert state.statuses == {2: 300_000}


def test_a_run_is_watched(tmp_path: Path, environment: dict[str, str], launcher: Mpiexec) -> None:
    """From its first block to its end, while two processes write."""
    pair = AnalyticPair((90, 90, 90), amplitude=1, translation=(0.3, 0.2, 0.1), rotation=(0, 0, 0), strain=(0, 0, 0))
    for name, image in (("im1", pair.image1()), ("im2", pair.image2())):
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="minisblack")
    options = ["-ns", "4", "-hws", "7", "-o", "3", "-np", "2"]
    results = tmp_path / "im1-im2-ldic.h5"
    seen = []
    with subprocess.Popen(
        [sys.executable, "-m", "mpidvc", "ldic", "im1.tif", "im2.tif", *options],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as run:
        try:
            deadline = time.monotonic() + LONGEST
            while run.poll() is None and time.monotonic() < deadline:
                if results.exists():
                    seen.append(state_of_run(str(results)))
        finally:
            run.terminate()
            run.wait(timeout=LONGEST)
    assert run.returncode == 0
    running = [state for state in seen if state.state == "running"]
    assert len({state.done for state in running}) > 3
    assert all(earlier.done <= later.done for earlier, later in pairwise(running))
    assert all(sum(state.statuses.values()) == state.done for state in running)
    assert any(state.rate and state.seconds_left for state in running)
    end = state_of_run(str(results))
    assert (end.state, end.done, end.ranks) == ("finished", end.points, 2)
    assert end.statuses == {
        int(value): int(n)
        for value, n in zip(*np.unique(read_hdf5(results).columns["returnStatus"], return_counts=True), strict=True)
    }


def _run_folder(folder: Path, status: int | None, **steps: int | None) -> Path:
    (folder / "ldic").mkdir(parents=True)
    told = {"line": "mpidvc run a.tif b.tif -od run", "folder": "/there", "status": status}
    entries = {title.replace("_", " "): {"status": ended} for title, ended in steps.items()}
    (folder / "steps.json").write_text(json.dumps({"run": told, "steps": entries}))
    return folder


def test_a_run_of_several_steps(tmp_path: Path, unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its steps, and how far the one is that has not ended."""
    folder = _run_folder(tmp_path / "run", None, reg=0, suggest=0, ldic=None)
    unfinished.rename(folder / "ldic" / "a-b-ldic.h5")
    assert main(["status", str(folder)]) == RETRY
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[:2] == [f"{folder}: stopped (run)", "  go on: cd /there && mpidvc run a.tif b.tif -od run"]
    assert [line.split() for line in lines[2:5]] == [["reg", "finished"], ["suggest", "finished"], ["ldic", "begun"]]
    assert "4 of 10 points done" in said
    assert main(["status", "--json", str(folder)]) == RETRY
    (told,) = json.loads(capsys.readouterr().out)
    assert told["steps"] == {"reg": 0, "suggest": 0, "ldic": None}
    assert (told["done"], told["at_work"][0]["done"]) == (2, 4)
    # a run holds the lock of its folder
    with journals.locked(folder):
        assert main(["status", str(folder)]) == RETRY
        assert f"{folder}: running (run)" in capsys.readouterr().out


@pytest.mark.parametrize(("ended", "told"), [(0, "finished"), (1, "the result is not one to trust")])
def test_a_finished_run_of_several_steps(
    ended: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _run_folder(tmp_path / "run", ended, reg=0, regularStrain_a=ended)
    assert main(["status", str(folder)]) == ended
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"run": 3, "steps": {"reg": 5}}'])
def test_folders_that_are_none_of_a_run(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "steps.json").write_text(content)
    assert main(["status", str(tmp_path)]) == 2
    assert f"{tmp_path}: is no folder of mpidvc run" in capsys.readouterr().err
