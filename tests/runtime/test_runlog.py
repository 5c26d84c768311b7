"""Run logs: whatever is in one, the next run goes on, and facts that make no sense are absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mpidvc.runtime.runlog import Past, RunLog, path_of, read_log

WHOLE = {
    "command_line": "mpidvc ldic 'im 1.tif' im2.tif",
    "folder": "/scans/tension 5",
    "ranks": 4,
    "hosts": {"node7": 2, "node8": 2},
    "state": "stopped",
    "started": "2026-01-02T03:04:05+00:00",
    "updated": "2026-01-02T03:05:05Z",
    "seconds": 60.5,
    "resumes": 2,
    "seconds_before": 30.0,
    "done_at_start": 7,
    "lost": ["process 3 on node8 was lost"],
}
#: Facts whose values are wrong in one way or another, and what is read of them.
ABSENT = {
    "command_line": ("", ["mpidvc 'ldic", None, 5, ["mpidvc"], "mpidvc\nrm", "mpidvc \x1b[2J", "\ud800"]),
    "folder": ("", [None, 5, ["/scans"], "/scans\n", "\ud800"]),
    "ranks": (None, [None, "4", -1, 2.5, True, [4], 1e300, float("inf"), float("nan"), 10**400]),
    "hosts": ([], [None, ["node7"], "node7", {"node\n7": 1}]),
    "state": ("", [None, 5, ["running"], "running\n"]),
    "started": (None, [None, 5, "no", "2026-13-01", "\x00", "1e9", {}]),
    "updated": (None, [None, float("inf"), "yesterday"]),
    "seconds": (None, [None, "60", -1.0, float("inf"), float("-inf"), float("nan"), 10**400, False]),
    "seconds_before": (0.0, [None, "x", float("inf"), float("nan"), -5, [1]]),
    "resumes": (None, [None, "2", float("inf"), 1.5, -1]),
    "done_at_start": (0, [None, "7", float("nan"), -7, {}]),
    "lost": ([], [None, "process 3", 5, [None, 5, ["x"], "a\nb"], {"0": "x"}]),
}
WRONG = [(name, value) for name, (_, values) in ABSENT.items() for value in values]


def test_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.run.json"
    path.write_text(json.dumps(WHOLE))
    assert read_log(path) == Past(
        "stopped",
        1767323045.0,
        1767323105.0,
        60.5,
        30.0,
        7,
        4,
        2,
        WHOLE["lost"],
        WHOLE["command_line"],
        WHOLE["folder"],
        ["node7", "node8"],
    )


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: repr(value)[:20])
def test_one_wrong_fact_is_absent(tmp_path: Path, name: str, value: Any) -> None:
    """The others stay."""
    results = tmp_path / "a.h5"
    path_of(results).write_text(json.dumps(WHOLE))
    whole = read_log(path_of(results))
    path_of(results).write_text(json.dumps(WHOLE | {name: value}))
    assert read_log(path_of(results)) == Past(**(vars(whole) | {name: ABSENT[name][0]}))
    log = RunLog(results, True, {}, 3, 9, pytest.fail)
    log.close("stopped")
    told = json.loads(path_of(results).read_text())
    assert told["resumes"] == (1 if name == "resumes" else 3)
    assert told["seconds_before"] == {"seconds": 30.0, "seconds_before": 60.5}.get(name, 90.5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"Infinity",
        b"\xff\xfe",
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"ranks": 4',
        b"\0" * 50,
    ],
    ids=lambda content: repr(content)[:20],
)
def test_unreadable(tmp_path: Path, content: bytes) -> None:
    results = tmp_path / "a.h5"
    path_of(results).write_bytes(content)
    assert read_log(path_of(results)) == Past()
    RunLog(results, True, {}, 0, 9, pytest.fail).close("stopped")
    assert json.loads(path_of(results).read_text())["resumes"] == 1


def test_cut_anywhere(tmp_path: Path) -> None:
    path, text = tmp_path / "a.run.json", json.dumps(WHOLE)
    for length in range(len(text)):
        path.write_text(text[:length])
        assert read_log(path) == Past()


def test_what_is_no_file(tmp_path: Path) -> None:
    assert read_log(tmp_path / "none") == Past()
    assert read_log(tmp_path) == Past()
    os.mkfifo(tmp_path / "pipe")
    assert read_log(tmp_path / "pipe") == Past()
    assert read_log(Path("/dev/zero")) == Past()
