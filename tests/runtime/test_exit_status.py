"""Exit statuses: of exceptions, and in the documentation."""

from __future__ import annotations

import errno
import os
import pickle
import re
from pathlib import Path

import pytest

from mpidvc.atomic import replacing
from mpidvc.errors import AgreedError, ResourceError, UserError
from mpidvc.runtime import exit_status
from mpidvc.runtime.comm import give_home
from mpidvc.runtime.launch import RanksLostError

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("-ns x"), 2),
        (ResourceError("no memory"), 75),
        (AgreedError("-ns x"), 2),
        (AgreedError("no memory", passing=True), 75),
        (MemoryError(), 75),
        (OSError(errno.ENOSPC, "full"), 75),
        (OSError(errno.EACCES, "forbidden"), 70),
        (ValueError("a bug"), 70),
        (None, 70),
    ],
)
def test_of_exceptions(error: BaseException | None, status: int) -> None:
    assert exit_status.of_error(error) == status
    if isinstance(error, UserError):
        assert exit_status.of_error(pickle.loads(pickle.dumps(error))) == status


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 75), (errno.EIO, 75), (errno.EACCES, 2)])
def test_a_refusal_by_the_system_tells_whether_it_passes(tmp_path: Path, number: int, status: int) -> None:
    with pytest.raises(UserError, match=re.escape(os.strerror(number))) as caught, replacing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert exit_status.of_error(caught.value) == status


@pytest.mark.parametrize(
    ("launcher", "status", "text"),
    [
        (137, 75, "was killed (SIGKILL)"),
        (9, 75, "was killed (SIGKILL)"),
        (-9, 75, "mpiexec was killed (SIGKILL)"),
        (1, 75, "a process was killed"),
        (0, 75, "a process was killed"),
        (139, 139, "crashed (SIGSEGV)"),
        (11, 139, "crashed (SIGSEGV)"),
    ],
)
def test_of_lost_ranks(launcher: int, status: int, text: str) -> None:
    lost = RanksLostError(launcher, started=True)
    assert lost.status == status
    assert text in str(lost)


def test_of_ranks_that_did_not_start() -> None:
    lost = RanksLostError(1, started=False)
    assert (lost.status, lost.started) == (75, False)
    assert "did not start" in str(lost)


def test_documentation_has_the_table() -> None:
    text = (REPOSITORY / "docs/long-runs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d[\d n+]*) \| (.*) \|$", text, re.MULTILINE)
    assert dict(rows) == exit_status.MEANINGS


def test_home() -> None:
    here = {"HOME": "/somewhere"}
    give_home(here)
    assert here == {"HOME": "/somewhere"}
    none: dict[str, str] = {}
    give_home(none)
    assert Path(none["HOME"]).is_absolute()
