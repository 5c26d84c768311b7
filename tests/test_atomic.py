import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mpidvc.atomic import beside, keep_mode, replacing
from mpidvc.errors import UserError


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_new_file_has_the_permissions_of_the_umask(tmp_path, umask):
    with replacing(tmp_path / "a") as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_text() == "new"
    assert mode(tmp_path / "a") == 0o640
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_old_file_keeps_its_permissions(tmp_path, umask):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o606)
    with replacing(str(tmp_path / "a")) as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"
    assert mode(tmp_path / "a") == 0o606


def test_mode_is_kept_from_the_beginning(tmp_path, umask):
    """For large files, which are being written for long."""
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o600)
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
        assert mode(temporary) == 0o640
        keep_mode(tmp_path / "a", temporary)
        assert mode(temporary) == 0o600
    assert mode(tmp_path / "a") == 0o600
    with beside(tmp_path / "b") as temporary:
        temporary.write_text("new")
        keep_mode(tmp_path / "b", temporary)
        assert mode(temporary) == 0o640


def test_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    """And the name before it is said to be written."""
    told = []
    target = tmp_path / "a"
    monkeypatch.setattr(os, "fsync", lambda descriptor: told.append((os.fstat(descriptor).st_ino, target.exists())))
    with replacing(target) as temporary:
        temporary.write_text("new")
        inode = temporary.stat().st_ino
    assert told == [(inode, False), (tmp_path.stat().st_ino, True)]
    told.clear()
    with replacing(target, durable=False) as temporary:
        temporary.write_text("newer")
    assert told == []


def test_a_name_beside_a_file(tmp_path):
    with beside(tmp_path / "a") as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("scratch")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="cannot be written"), beside(tmp_path / "none" / "a") as temporary:
        temporary.write_text("scratch")


def test_failure_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_text("old")

    def stop_half_way():
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert (tmp_path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_symbolic_link_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a").write_text("old")
    (tmp_path / "a").symlink_to(tmp_path / "there" / "a")
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "there" / "a").read_text() == "new"


def test_devices_are_not_replaced():
    with replacing("/dev/null") as temporary:
        assert temporary == Path("/dev/null")
        temporary.write_text("gone")
    assert Path("/dev/null").is_char_device()


def test_what_cannot_be_written(tmp_path):
    for path in (tmp_path / "none" / "a", tmp_path):
        with pytest.raises(UserError, match="cannot be written") as caught, replacing(path) as temporary:
            temporary.write_text("new")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["killed", "lives"])
def test_what_a_killed_process_leaves(tmp_path, how):
    program = f"""\
import sys
from mpidvc.atomic import replacing
with replacing({str(tmp_path / "a")!r}) as temporary:
    temporary.write_text("half")
    print("begun", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"begun\n"
        if how == "killed":
            other.kill()
            other.wait(60)
        (left,) = tmp_path.iterdir()
        with replacing(tmp_path / "b") as temporary:
            temporary.write_text("not its own")
        assert left.exists()
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("new")
        assert (tmp_path / "a").read_text() == "new"
        assert left.exists() == (how == "lives")
        other.stdin.close()
        other.wait(60)
    assert (tmp_path / "a").read_text() == ("new" if how == "killed" else "half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
