"""A finished results file stays until another takes its place, and is not replaced by other settings in silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.main import main
from mpidvc.runtime.journal import kind_of_file


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    pair = AnalyticPair((30, 32, 34), seed=3, translation=(0.4, -0.3, 0.2))
    tifffile.imwrite(tmp_path / "a.tif", pair.image1(), photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", pair.image2(), photometric="minisblack")
    return ["ldic", str(tmp_path / "a.tif"), str(tmp_path / "b.tif"), "-ns", "8", "-np", "1", "-pre", "out"]


#: Ends before its first chunk.
INTERRUPTED = """\
import sys
from mpidvc.main import main
from mpidvc.tasks.ldic import LdicTask

def end(task, chunk):
    raise KeyboardInterrupt

LdicTask.run = end
sys.exit(main(sys.argv[1:]))
"""


def interrupted(environment: dict[str, str], arguments: list[str]) -> None:
    """Run a command that ends before its first chunk, in a process of its own, with which its lock ends."""
    words = [sys.executable, "-c", INTERRUPTED, *arguments]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 85, done.stderr


def test_other_settings_do_not_replace(line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*line, "-hws", "5"]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("out*")}
    capsys.readouterr()
    assert main([*line, "-hws", "6"]) == 2
    said = capsys.readouterr().err
    told = f"{tmp_path}/out-ldic.h5: holds results made with -hws 5 5 5, now it is 6 6 6"
    assert said.startswith(f"mpidvc ldic: error: {told}")
    assert "--overwrite" in said
    assert said.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.glob("out*")} == before
    assert main([*line, "-hws", "6", "--overwrite"]) == 0
    assert (tmp_path / "out-ldic.h5").read_bytes() != before["out-ldic.h5"]


def test_same_settings_replace(line: list[str], tmp_path: Path) -> None:
    assert main([*line, "-hws", "5"]) == 0
    before = (tmp_path / "out-ldic.h5").read_bytes()
    assert main([*line, "-hws", "5"]) == 0
    assert (tmp_path / "out-ldic.h5").read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out-ldic.h5", "out-ldic.run.json", "out-ldic.tsv"]


def test_permissions_stay(line: list[str], tmp_path: Path) -> None:
    assert main([*line, "-hws", "5"]) == 0
    written = [tmp_path / f"out-ldic.{kind}" for kind in ("h5", "tsv")]
    for path in written:
        path.chmod(0o600)
    assert main([*line, "-hws", "6", "--overwrite"]) == 0
    assert [path.stat().st_mode & 0o777 for path in written] == [0o600, 0o600]


def test_interrupted_rerun_leaves_the_finished_file(
    line: list[str], tmp_path: Path, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line, "-hws", "5"]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("out*")}
    other = [*line, "-hws", "6", "--overwrite"]
    interrupted(environment, other)
    now = {path.name: path.read_bytes() for path in tmp_path.glob("out*")}
    assert now.items() >= before.items()
    begun = tmp_path / "out-ldic.h5.new"
    assert kind_of_file(begun) == "unfinished"
    # neither is taken for the other
    capsys.readouterr()
    assert main([*line, "-hws", "6"]) == 2
    assert "out-ldic.h5.new: holds the results of an unfinished run" in capsys.readouterr().err
    assert main([*line, "-hws", "5", "--resume"]) == 0
    assert begun.exists()
    assert main([*line, "-hws", "6", "--resume"]) == 0
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out-ldic.h5", "out-ldic.run.json", "out-ldic.tsv"]
    # the same as without all that
    again = tmp_path / "again"
    assert main([*line, "-hws", "6", "-od", str(again)]) == 0
    assert (again / "out-ldic.h5").read_bytes() == (tmp_path / "out-ldic.h5").read_bytes()


def test_journal_left_by_a_killed_run(line: list[str], tmp_path: Path, environment: dict[str, str]) -> None:
    """Killed after the results were put in place, before the journal was removed."""
    assert main([*line, "-hws", "5"]) == 0
    before = (tmp_path / "out-ldic.h5").read_bytes()
    interrupted(environment, [*line, "-hws", "5"])
    assert (tmp_path / "out-ldic.h5.new").exists()
    assert main([*line, "-hws", "5", "--resume"]) == 0
    assert (tmp_path / "out-ldic.h5").read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out-ldic.h5", "out-ldic.run.json", "out-ldic.tsv"]


def test_files_of_an_earlier_run_are_named(line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*line, "-hws", "5", "-tif", "-vtk"]) == 0
    capsys.readouterr()
    assert main([*line, "-hws", "6", "--overwrite"]) == 0
    out = capsys.readouterr().out
    assert f"note: {tmp_path}/out-ldic-Zdisp.tif and 6 more: of an earlier run" in out
    assert f"note: {tmp_path}/out-ldic.vtk: of an earlier run" in out
    assert main([*line, "-hws", "6", "-tif", "-vtk"]) == 0
    assert "of an earlier run" not in capsys.readouterr().out


def test_voxel_size_goes_to_the_file(line: list[str], tmp_path: Path) -> None:
    import h5py

    assert main([*line, "-hws", "5", "--voxel-size", "2.5", "--unit", "um"]) == 0
    with h5py.File(tmp_path / "out-ldic.h5") as file:
        assert (file["mpidvc"].attrs["voxel_size"], file["mpidvc"].attrs["unit"]) == (2.5, "um")
        assert file["VTKHDF"].attrs["Spacing"].tolist() == [20.0, 20.0, 20.0]
