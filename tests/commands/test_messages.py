"""Lines that every command prints in the same way: settings, paths, processes, elapsed time."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.cli import execution
from mpidvc.main import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    image = np.random.default_rng(3).integers(0, 60000, (24, 30, 36)).astype(np.uint16)
    (tmp_path / "scans").mkdir()
    for name in "ab":
        tifffile.imwrite(tmp_path / f"scans/{name}.tif", image, photometric="minisblack")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_settings_that_differ_from_the_defaults(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [
        "ldic",
        "scans/a.tif",
        "scans/b.tif",
        "-ns",
        "12",
        "-hws",
        "5",
        "-m",
        "3",
        "-o",
        "1",
        "-np",
        "1",
        "--log",
        "run.log",
        "--overwrite",
    ]
    assert main(line) == 0
    shown = re.findall(r"^\t([A-Z_0-9]+: .*)$", capsys.readouterr().out, re.MULTILINE)
    assert shown == [
        "IMAGES: ['scans/a.tif', 'scans/b.tif']",
        "NODE_SPACING: (12, 12, 12)",
        "HALF_WINDOW_SIZE: (5, 5, 5)",
        "OVERWRITE: True",
        "LOG: run.log",
    ]
    logged = re.findall(r"^\S+ \S+ \t([A-Z_0-9]+: .*)$", (here / "run.log").read_text(), re.MULTILINE)
    assert main([*line, "--verbose"]) == 0
    every = re.findall(r"^\t([A-Z_0-9]+: .*)$", capsys.readouterr().out, re.MULTILINE)
    assert logged == every
    assert {*shown, "INTERPOLATION_ORDER: 1", "MARGIN: (3, 3, 3)", "MASK1: None", "TSV: True"} < {*every}


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("reg scans/a.tif scans/b.tif -j", ["a-b-registration.tsv", "a-b-registration-iterations.npy"]),
        ("ldic scans/a.tif scans/b.tif -ns 12 -hws 5 -tif", ["a-b-ldic.tsv", "a-b-ldic-*.tif", "a-b-ldic.h5"]),
        ("pixelSearch scans/a.tif scans/b.tif -ns 12 -hws 5", ["a-b-pixelSearch.tsv", "a-b-pixelSearch.h5"]),
        (
            "pixelSearchPropagate scans/a.tif scans/b.tif -ns 12 -hws 5 -sp 12 12 12 0 0 0",
            ["a-b-pixelSearchPropagate.tsv", "a-b-pixelSearchPropagate.h5"],
        ),
    ],
)
def test_paths_are_those_of_the_user(
    here: Path, capsys: pytest.CaptureFixture[str], line: str, written: list[str]
) -> None:
    """Relative ones stay relative, and absolute ones absolute; the last line is the elapsed time."""
    for folder in ("scans", str(here / "scans")):
        assert main([*line.replace("scans", folder).split(), "-np", "1"]) == 0
        told = capsys.readouterr().out
        assert sorted(re.findall(r"^Written: (.*)$", told, re.MULTILINE)) == sorted(
            f"{folder}/{one}" for one in written
        )
        assert (str(here) in told) == (folder != "scans")
        assert re.fullmatch(r"Elapsed time: (\d+\.\d s|\d\d:\d\d:\d\d)", told.splitlines()[-1])


def test_results_follow_symbolic_links_of_images(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in spam."""
    (here / "links").mkdir()
    for name in "ab":
        (here / f"links/{name}.tif").symlink_to(here / f"scans/{name}.tif")
    assert main(["reg", "links/a.tif", "links/b.tif", "-np", "1"]) == 0
    assert f"Written: {here}/scans/a-b-registration.tsv" in capsys.readouterr().out


@pytest.mark.parametrize(("cpus", "processes", "told"), [(2, 4, False), (2, 5, True), (1, 4, False), (64, 100, False)])
def test_many_more_processes_than_cpus(
    cpus: int,
    processes: int,
    told: bool,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On stderr: stdout is the same on any host."""
    monkeypatch.setattr(execution, "available_cpus", lambda: cpus)
    monkeypatch.setenv("MPIDVC_SERIAL", "1")
    assert main(["reg", "scans/a.tif", "scans/b.tif", "-np", str(processes)]) == 0
    out, err = capsys.readouterr()
    assert "CPUs available" not in out
    assert err == ("note: -np 5: CPUs available here: 2; more processes make a run slower\n" if told else "")


@pytest.mark.parametrize("command", ["ldic", "pixelSearch", "pixelSearchPropagate -sp 12 15 18 0 0 0"])
def test_windows_larger_than_the_image(command: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Told before the run; refused where all would be skipped, since too little of any lies inside."""
    name, *more = command.split()
    line = [name, "scans/a.tif", "scans/b.tif", *more, "-ns", "11", "-np", "1"]

    # 24 of 31, 30 of 31: 75 % of the window in the middle lies inside
    status = main([*line, "-hws", "15"])
    told = capsys.readouterr().out
    sizes = "windows of 31 × 31 × 31 voxels are larger than the image (24 × 30 × 36 voxels)"
    assert f"note: -hws 15: {sizes}; the part outside does not count\n" in told
    status_column = np.genfromtxt(f"scans/a-b-{name}.tsv", names=True)["returnStatus"]
    assert status == 0
    assert (status_column > 0).any()

    assert main([*line, "-hws", "15", "-mc", "0.76", "-pre", "other"]) == 2
    out, err = capsys.readouterr()
    assert "Settings" not in out
    inside = "at most 75% of a window lies inside; make it smaller"
    assert err == f"mpidvc {name}: error: -hws 15: {sizes}: {inside}\n"
    assert main([*line, "-hws3", "30", "9", "9", "-pre", "other"]) == 2
    assert "-hws3 30 9 9: windows of 61 × 19 × 19 voxels are larger" in capsys.readouterr().err
    assert list(here.glob("**/other*")) == []
